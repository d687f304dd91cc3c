//! `nginx -t` finds every mistake, says where it is and what is wrong, and neither connects to a Redis nor shows a password.

mod common;
#[path = "configuration/redis.rs"]
mod redis;

use common::*;
use std::path::PathBuf;

const SECRET: &str = "s3cret";
/// Never connected to here: `nginx -t` makes no connection.
const URL: &str = "redis://127.0.0.1:6379";
const COMMAND: &str = "meteorit_command RPUSH list $event;";

/// `QUEUE` stands for a meteorit_redis of that name, and `COMMAND` for a command, in the directives of an http block.
fn test(http: &str) -> ConfigTest {
    builder(http).server("").test()
}

fn builder(http: &str) -> NginxBuilder {
    let queue = format!("meteorit_redis queue {{ server {URL}; }}");
    Nginx::builder().http(&http.replace("QUEUE", &queue).replace("COMMAND", COMMAND))
}

/// What stands in a location beside `meteorit_pass queue;`, and in a meteorit_redis beside its server.
fn in_location(directives: &str) -> ConfigTest {
    test(&format!(
        "QUEUE\nserver {{\nlisten 127.0.0.1:%PORT2%;\nlocation / {{\nmeteorit_pass queue;\n{directives}\n}}\n}}"
    ))
}

fn in_redis(directives: &str) -> ConfigTest {
    test(&format!("meteorit_redis queue {{\n{directives}\n}}"))
}

#[test]
fn a_directive_with_a_wrong_number_of_arguments() {
    for directive in ["meteorit_redis a b { }", "meteorit_redis { }", "meteorit_redis a;"] {
        let message = match directive {
            "meteorit_redis a;" => "directive \"meteorit_redis\" has no opening \"{\"",
            _ => "invalid number of arguments in \"meteorit_redis\" directive",
        };
        test(directive).assert_refused(message, directive);
    }
    for directive in [
        "meteorit_command;",
        "meteorit_intercept_errors;",
        "meteorit_intercept_errors on off;",
        "meteorit_duplicate_names;",
        "meteorit_duplicate_names reject allow;",
        "meteorit_max_depth;",
        "meteorit_max_depth 1 2;",
        "meteorit_max_members;",
        "meteorit_max_event_size 1k 2k;",
    ] {
        let name = directive.split([' ', ';']).next().unwrap();
        let message = format!("invalid number of arguments in \"{name}\" directive");
        in_location(&format!("COMMAND\n{directive}")).assert_refused(&message, directive);
    }
    for pass in ["meteorit_pass;", "meteorit_pass a b;"] {
        let message = "invalid number of arguments in \"meteorit_pass\" directive";
        builder("").server(&format!("location / {{\n{pass}\n}}")).test().assert_refused(message, pass);
    }
    for name in ["server", "password_file", "connections", "connect_timeout", "timeout", "stall_timeout", "backlog"] {
        for directive in [format!("{name};"), format!("{name} 1 2;")] {
            let message = format!("invalid number of arguments in \"{name}\" directive");
            in_redis(&directive).assert_refused(&message, &directive);
        }
    }
}

#[test]
fn a_value_that_is_no_such_value_or_out_of_range() {
    for (name, values, expected) in [
        ("meteorit_max_depth", &["0", "-1", "x", "1.5", "10001", "99999999999"][..], "a number from 1 to 10000"),
        ("meteorit_max_members", &["0", "-1", "1k", "1000001"], "a number from 1 to 1000000"),
        ("meteorit_max_event_size", &["0", "1", "-1k", "1x", "257m", "1gb", "big"], "a size from 2 bytes to 256m"),
        ("meteorit_intercept_errors", &["yes", "ON ", "1"], "\"on\" or \"off\""),
        ("meteorit_duplicate_names", &["refuse", "Reject"], "\"reject\" or \"allow\""),
    ] {
        for value in values {
            let directive = format!("{name} \"{value}\";");
            let message = format!("invalid value \"{value}\" in \"{name}\" directive: expected {expected}");
            in_location(&format!("COMMAND\n{directive}")).assert_refused(&message, &directive);
        }
    }
    let time = "a time from 1ms to 1d";
    for (name, values, expected) in [
        ("connections", &["0", "-1", "65", "x", "1m"][..], "a number from 1 to 64"),
        ("connect_timeout", &["0", "0s", "x", "1x", "2d", "-1s"], time),
        ("timeout", &["0", "1sec", "25h", "1.5s"], time),
        ("stall_timeout", &["0", "forever", "1y"], time),
        ("backlog", &["0", "x", "16mb", "-1"], "a size, as 16m"),
    ] {
        for value in values {
            let directive = format!("{name} {value};");
            let message = format!("invalid value \"{value}\" in \"{name}\" directive: expected {expected}");
            in_redis(&format!("server {URL};\n{directive}")).assert_refused(&message, &directive);
        }
    }
}

#[test]
fn a_directive_given_twice() {
    for (first, again) in [
        ("meteorit_pass queue;", "meteorit_pass  queue;"),
        ("meteorit_pass queue;", "meteorit_pass redis://127.0.0.1:1;"),
        ("meteorit_intercept_errors on;", "meteorit_intercept_errors off;"),
        ("meteorit_duplicate_names allow;", "meteorit_duplicate_names reject;"),
        ("meteorit_max_depth 2;", "meteorit_max_depth 3;"),
        ("meteorit_max_members 2;", "meteorit_max_members 3;"),
        ("meteorit_max_event_size 2k;", "meteorit_max_event_size 3k;"),
    ] {
        let name = first.split(' ').next().unwrap();
        let first = if name == "meteorit_pass" { "" } else { first };
        let test = in_location(&format!("COMMAND\n{first}\n{again}"));
        test.assert_refused(&format!("\"{name}\" directive is duplicate"), again);
    }
    for name in ["connect_timeout", "timeout", "stall_timeout"] {
        let test = in_redis(&format!("server {URL};\n{name} 1s;\n{name} 2s;"));
        test.assert_refused(&format!("\"{name}\" directive is duplicate"), &format!("{name} 2s;"));
    }
    let test = in_redis(&format!("server {URL};\nconnections 1;\nconnections 2;"));
    test.assert_refused("\"connections\" directive is duplicate", "connections 2;");
    let test = in_redis(&format!("server {URL};\nbacklog 1m;\nbacklog 2m;"));
    test.assert_refused("\"backlog\" directive is duplicate", "backlog 2m;");
    let files = "password_file one;\npassword_file two;";
    let test = builder(&format!("meteorit_redis queue {{\nserver {URL};\n{files}\n}}"));
    let test = test.file("one", SECRET).file("two", SECRET).test();
    test.assert_refused("\"password_file\" directive is duplicate", "password_file two;");
}

#[test]
fn a_redis_of_an_unknown_name() {
    let test = test("QUEUE\nserver {\nlisten 127.0.0.1:%PORT2%;\nlocation / {\nCOMMAND\nmeteorit_pass other;\n}\n}");
    test.assert_refused("unknown \"meteorit_redis\" \"other\"", "meteorit_pass other;");
    // In a server that is read before another location's mistake could hide it.
    let test = in_location("COMMAND\nif ($arg_a) {\nmeteorit_pass nowhere;\n}");
    test.assert_refused("unknown \"meteorit_redis\" \"nowhere\"", "meteorit_pass nowhere;");
    let test = in_location("COMMAND\nlimit_except POST {\nmeteorit_pass nowhere;\n}");
    test.assert_refused("unknown \"meteorit_redis\" \"nowhere\"", "meteorit_pass nowhere;");
}

#[test]
fn a_command_that_cannot_work_here() {
    for (command, why) in [
        (
            "MULTI",
            "\"MULTI\" cannot be used on a shared connection, commands of other requests would fall into the transaction",
        ),
        ("exec", "\"exec\" cannot be used on a shared connection"),
        ("WATCH key", "commands of other requests would fall into the transaction"),
        ("SUBSCRIBE live", "its messages would be taken for replies"),
        ("MONITOR", "its messages would be taken for replies"),
        ("CLIENT TRACKING on", "\"CLIENT TRACKING\" cannot be used"),
        ("SELECT 1", "it would change the connection for every request"),
        ("AUTH user word", "it would change the connection for every request"),
        ("HELLO 3", "it would change the connection for every request"),
        ("RESET", "it would change the connection for every request"),
        ("CLIENT NO-EVICT on", "it would change the connection for every request"),
        ("SCRIPT DEBUG yes", "it would change the connection for every request"),
        ("CLIENT REPLY off", "\"CLIENT REPLY\" cannot be used"),
        ("client reply skip", "replies of other requests would be missing"),
        ("BLPOP list 0", "every request behind it would wait"),
        ("WAIT 1 0", "every request behind it would wait"),
        ("XREAD COUNT 1 BLOCK 0 STREAMS a 0", "\"XREAD BLOCK\" cannot be used"),
        ("XREADGROUP GROUP g c block 0 STREAMS a >", "\"XREADGROUP block\" cannot be used"),
        ("QUIT", "it closes connections with the requests on them"),
        ("CLIENT KILL TYPE normal", "it closes connections with the requests on them"),
        ("SHUTDOWN", "it can take the server away from every client"),
        ("DEBUG SLEEP 1", "it can take the server away from every client"),
        ("CLIENT PAUSE 1000", "it can take the server away from every client"),
        ("RPUSH list", "not enough arguments for \"RPUSH\", it takes at least 2"),
        ("XADD events *", "not enough arguments for \"XADD\", it takes at least 4"),
        ("\"\"", "command name is empty"),
        ("EVAL \"return 1\" x", "invalid number of keys \"x\" in \"EVAL\""),
        ("EVAL \"return 1\" 2 one", "number of keys \"2\" in \"EVAL\" exceeds the 1 arguments after it"),
    ] {
        let directive = format!("meteorit_command {command};");
        in_location(&directive).assert_refused(why, &directive);
        let with_condition = format!("meteorit_command if=$arg_a {command};");
        in_location(&with_condition).assert_refused(why, &with_condition);
    }
}

#[test]
fn a_variable_where_only_a_literal_can_be() {
    for (command, why) in [
        ("$arg_command list $event", "command name must be literal"),
        ("RP${arg_x}USH list $event", "command name must be literal"),
        ("CLIENT $arg_x", "subcommand of \"CLIENT\" must be literal"),
        ("XREAD $arg_x 0 STREAMS a 0", "options of \"XREAD\" must be literal"),
        ("EVAL \"return 1\" $arg_keys a", "number of keys of \"EVAL\" must be literal"),
        ("ZUNIONSTORE to $arg_keys a b", "number of keys of \"ZUNIONSTORE\" must be literal"),
    ] {
        let directive = format!("meteorit_command {command};");
        in_location(&directive).assert_refused(why, &directive);
    }
    for pass in ["meteorit_pass $arg_redis;", "meteorit_pass redis://$host;", "meteorit_pass \"\";"] {
        let test = builder("").server(&format!("location / {{\n{COMMAND}\n{pass}\n}}")).test();
        test.assert_refused("\"meteorit_pass\" takes the name or the URL of a Redis, without variables", pass);
    }
}

#[test]
fn a_condition_without_a_command() {
    for directive in ["meteorit_command if=$arg_a;", "meteorit_command if=;"] {
        let message = "\"meteorit_command\" has an \"if=\" but no command";
        in_location(&format!("COMMAND\n{directive}")).assert_refused(message, directive);
    }
}

#[test]
fn a_variable_that_nobody_knows() {
    for command in ["RPUSH list $no_such_variable", "RPUSH $no_such_variable 1", "if=$no_such_variable RPUSH list 1"] {
        let test = in_location(&format!("meteorit_command {command};"));
        // nginx itself finds it when everything is read, and names no line.
        let found = test.output.contains("[emerg]") && test.output.contains("unknown \"no_such_variable\" variable");
        assert!(!test.ok && found, "{}", test.output);
    }
    let test = in_location("meteorit_command RPUSH list \"a${b\";");
    test.assert_refused("the closing bracket in \"b\" variable is missing", "a${b");
}

#[test]
fn a_location_without_a_command() {
    let pass = "meteorit_pass queue;";
    let message = "\"meteorit_pass\" without a \"meteorit_command\"";
    in_location("").assert_refused(message, pass);
    // Nor do the commands of a location beside it count.
    let beside = format!("location /a {{ {COMMAND} }}\nlocation /b {{\n{pass}\n}}");
    builder("QUEUE").server(&beside).test().assert_refused(message, pass);
}

#[test]
fn a_location_with_another_content_handler() {
    let known = |directive: &str| builder("").server(&format!("location / {{ {directive} }}")).test().ok;
    let handlers = ["proxy_pass http://127.0.0.1:1;", "empty_gif;", "fastcgi_pass 127.0.0.1:1;", "stub_status;"];
    // An nginx can be built without the one or the other.
    let handlers: Vec<&str> = handlers.into_iter().filter(|handler| known(handler)).collect();
    assert!(handlers.len() >= 3, "{handlers:?}");
    for handler in handlers {
        let pass = "meteorit_pass queue;";
        let before = format!("location / {{\n{handler}\n{COMMAND}\n{pass}\n}}");
        let message = "\"meteorit_pass\" conflicts with another content handler of the location";
        builder("QUEUE").server(&before).test().assert_refused(message, pass);
        let after = format!("location /a {{\n{COMMAND}\n{pass}\n{handler}\n}}");
        let message = "location \"/a\" has \"meteorit_pass\" and another content handler";
        let test = builder("QUEUE").server(&after).test();
        // Some directives of nginx look for another handler themselves.
        let nginxs = test.output.contains("is duplicate") && test.output.contains(&test.at(handler));
        if !nginxs {
            test.assert_refused(message, pass);
        }
    }
}

#[test]
fn a_directive_where_it_cannot_be() {
    let redis = format!("meteorit_redis r {{ server {URL}; }}");
    for (at, text) in [
        ("meteorit_pass", format!("server {{\nlisten 127.0.0.1:%PORT2%;\nmeteorit_pass {URL};\n}}")),
        ("meteorit_pass", format!("meteorit_pass {URL};")),
        ("meteorit_redis", format!("server {{\nlisten 127.0.0.1:%PORT2%;\n{redis}\n}}")),
        ("meteorit_redis", format!("server {{\nlisten 127.0.0.1:%PORT2%;\nlocation / {{\n{redis}\n}}\n}}")),
        ("meteorit_command", "upstream u {\nmeteorit_command PING;\nserver 127.0.0.1;\n}".to_string()),
        (
            "meteorit_command",
            "server {\nlisten 127.0.0.1:%PORT2%;\nif ($arg_a) {\nmeteorit_command PING;\n}\n}".to_string(),
        ),
        ("meteorit_max_depth", "upstream u {\nmeteorit_max_depth 5;\nserver 127.0.0.1;\n}".to_string()),
    ] {
        test(&text).assert_refused(&format!("\"{at}\" directive is not allowed here"), at);
    }
    let test = Nginx::builder().main(&redis).server("").test();
    test.assert_refused("\"meteorit_redis\" directive is not allowed here", "meteorit_redis r");
}

#[test]
fn the_order_of_blocks_does_not_matter() {
    let location = "location / { meteorit_pass queue; COMMAND }".replace("COMMAND", COMMAND);
    let server = format!("server {{\nlisten 127.0.0.1:%PORT2%;\n{location}\n}}");
    test(&format!("QUEUE\n{server}")).assert_ok();
    test(&format!("{server}\nQUEUE")).assert_ok();
    let inside = "location / { COMMAND meteorit_max_depth 3; meteorit_pass queue; }".replace("COMMAND", COMMAND);
    test(&format!("server {{\nlisten 127.0.0.1:%PORT2%;\n{inside}\n}}\nQUEUE")).assert_ok();
}

#[test]
fn several_locations_share_a_redis() {
    let locations = "location /a { meteorit_pass queue; COMMAND }
        location /b { meteorit_pass queue; COMMAND location /b/c { meteorit_pass queue; } }
        location = /d { if ($arg_a) { meteorit_pass queue; } COMMAND }"
        .replace("COMMAND", COMMAND);
    builder("QUEUE").server(&locations).test().assert_ok();
    let fake = FakeRedis::start(|_, _| Action::reply(":1\r\n"));
    let shared = "meteorit_redis queue { server REDIS; }
        server {
            listen 127.0.0.1:%PORT%;
            location /a { meteorit_pass queue; COMMAND }
            location /b { meteorit_pass queue; COMMAND }
            location /c { meteorit_pass REDIS; COMMAND }
            location /d { meteorit_pass REDIS; COMMAND }
            location /e { meteorit_pass REDIS/1; COMMAND }
        }"
    .replace("REDIS", &fake.url())
    .replace("COMMAND", COMMAND);
    let nginx = Nginx::start(&shared);
    for path in ["/a", "/b", "/c", "/d", "/e"] {
        assert_eq!(post(nginx.port(), path, "{}").status, 204, "{path}");
    }
    // One connection for the name, one for equal URLs, one for the other database.
    let connections: Vec<usize> = fake.commands().iter().map(|command| command.connection).collect();
    assert_eq!(connections, [0, 0, 1, 1, 2]);
    let selected: Vec<usize> =
        fake.all_commands().iter().filter(|c| c.name() == "SELECT").map(|c| c.connection).collect();
    assert_eq!(selected, [2]);
}

#[test]
fn every_setting_of_a_redis_at_its_bounds() {
    in_redis(&format!(
        "server {URL};\nconnections 64;\nconnect_timeout 1ms;\ntimeout 1d;\nstall_timeout 1500ms;\nbacklog 1;"
    ))
    .assert_ok();
    in_location(&format!(
        "{COMMAND}\nmeteorit_max_depth 10000;\nmeteorit_max_members 1000000;\nmeteorit_max_event_size 256m;"
    ))
    .assert_ok();
    in_location(&format!("{COMMAND}\nmeteorit_max_depth 1;\nmeteorit_max_members 1;\nmeteorit_max_event_size 2;"))
        .assert_ok();
}

#[test]
fn a_spool_needs_an_nginx_with_threads() {
    let tested = in_redis(&format!("server {URL};\nspool spool;"));
    match built_with("--with-threads") {
        true => tested.assert_ok(),
        false => tested.assert_refused(
            "a \"spool\" cannot be used: this nginx was built without threads (--with-threads)",
            "spool spool;",
        ),
    }
}

#[test]
fn braces_are_literal_in_quotes() {
    let fake = FakeRedis::start(|_, _| Action::reply(":1\r\n"));
    let nginx = Nginx::start(
        &r#"location / {
                meteorit_pass REDIS;
                meteorit_command RPUSH "{tag}:list" $event;
                meteorit_command RPUSH list "{ \"a\": {} }" '{"b":"c"}' "a;b" "${event}}" "\\";
            }"#
        .replace("REDIS", &fake.url()),
    );
    assert_eq!(post(nginx.port(), "/", r#"{"x":1}"#).status, 204);
    let commands = fake.wait_commands(2);
    let expected: [&[&str]; 2] = [
        &["RPUSH", "{tag}:list", r#"{"x":1}"#],
        &["RPUSH", "list", r#"{ "a": {} }"#, r#"{"b":"c"}"#, "a;b", r#"{"x":1}}"#, "\\"],
    ];
    for (command, expected) in commands.iter().zip(expected) {
        let args: Vec<_> = command.args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
        assert_eq!(args, expected);
    }
}

#[test]
fn a_buffer_smaller_than_the_largest_event_is_warned_of() {
    let test = |directives: &str| {
        let location = format!("location / {{\n{directives}\n{COMMAND}\nmeteorit_pass queue;\n}}");
        let test = builder("QUEUE").server(&location).test();
        test.assert_ok();
        test
    };
    let warning = |test: &ConfigTest| {
        let warnings: Vec<&str> = test.output.lines().filter(|line| line.contains("[warn]")).collect();
        assert!(warnings.len() < 2, "{warnings:?}");
        warnings.first().map(|line| line.to_string())
    };
    for (directives, numbers) in [
        ("client_body_buffer_size 16k;", ["16384", "65536"]),
        ("client_body_buffer_size 65535;", ["65535", "65536"]),
        ("meteorit_max_event_size 200k;", ["65536", "204800"]),
        ("client_max_body_size 32k; client_body_buffer_size 16k;", ["16384", "32768"]),
        ("client_max_body_size 0; client_body_buffer_size 16k;", ["16384", "65536"]),
    ] {
        let test = test(directives);
        let warning = warning(&test).unwrap_or_else(|| panic!("no warning of {directives}"));
        assert!(warning.contains("\"client_body_buffer_size\""), "{warning}");
        assert!(numbers.iter().all(|number| warning.contains(number)), "{warning}");
        assert!(warning.ends_with(&test.at("meteorit_pass queue;")), "{warning}");
    }
    for directives in [
        "",
        "client_body_buffer_size 64k;",
        "client_body_buffer_size 16k; client_max_body_size 16k;",
        "client_body_buffer_size 16k; meteorit_max_event_size 16k;",
    ] {
        assert_eq!(warning(&test(directives)), None, "{directives}");
    }
    // A location that takes no events is not warned of.
    let none = builder("QUEUE").server("client_body_buffer_size 1k; location / { meteorit_max_depth 2; }").test();
    assert_eq!(warning(&none), None);
}

#[test]
fn neither_nginx_t_nor_the_master_connects() {
    let fake = FakeRedis::start(|_, _| Action::reply(":1\r\n"));
    let text = format!(
        "meteorit_redis queue {{ server {0}; connections 4; }}
         server {{
             listen 127.0.0.1:%PORT%;
             {COMMAND}
             location /named {{ meteorit_pass queue; }}
             location /url {{ meteorit_pass {0}; }}
             location /other {{ return 200 other; }}
         }}",
        fake.url()
    );
    Nginx::test(&text).assert_ok();
    assert_eq!(fake.connections(), 0);
    let nginx = Nginx::builder().text(&text).worker_processes(2).start();
    for _ in 0..10 {
        assert_eq!(get(nginx.port(), "/other").status, 200);
    }
    assert_eq!(post(nginx.port(), "/named", "{").status, 400);
    nginx.reload_and_drain();
    assert_eq!(get(nginx.port(), "/other").status, 200);
    // Nor does a worker, before there is an event.
    assert_eq!(fake.connections(), 0);
    assert_eq!(post(nginx.port(), "/named", "{}").status, 204);
    assert_eq!(fake.connections(), 1);
    assert_eq!(fake.wait_commands(1)[0].text(), "RPUSH list {}");
}

#[test]
fn a_configuration_that_names_no_redis_needs_none() {
    builder("")
        .server("location / { meteorit_max_depth 3; COMMAND }".replace("COMMAND", COMMAND).as_str())
        .test()
        .assert_ok();
    builder("QUEUE").test().assert_ok();
    let missing: PathBuf = std::env::temp_dir().join("no-such-redis.sock");
    in_redis(&format!("server redis+unix://{};", missing.display())).assert_ok();
}
