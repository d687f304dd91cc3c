//! What stands in a `meteorit_redis`, and the URLs of Redises: those that are taken, and what is said of the others, never a password.

use super::*;

#[test]
fn a_redis_of_a_name_that_is_taken() {
    let test = test("QUEUE\nmeteorit_redis queue { server redis://127.0.0.1:1; }");
    test.assert_refused("duplicate \"meteorit_redis\" \"queue\"", "127.0.0.1:1");
}

#[test]
fn a_redis_without_a_server_or_with_two() {
    test("meteorit_redis queue { }").assert_refused("no \"server\" in \"meteorit_redis\" \"queue\"", "queue { }");
    test("meteorit_redis queue { timeout 2s; }")
        .assert_refused("no \"server\" in \"meteorit_redis\" \"queue\"", "queue");
    let test = in_redis(&format!("server {URL};\nserver redis://127.0.0.1:1;"));
    test.assert_refused("several \"server\" directives are not supported yet", "server redis://127.0.0.1:1;");
}

#[test]
fn an_unknown_directive_in_a_redis() {
    for directive in ["weight 1;", "listen 1;", "meteorit_pass queue;", "Server redis://h;"] {
        let name = directive.split(' ').next().unwrap();
        let test = in_redis(&format!("server {URL};\n{directive}"));
        test.assert_refused(&format!("unknown directive \"{name}\" in \"meteorit_redis\""), directive);
    }
    in_redis("location / { }").assert_refused("unexpected \"{\"", "location / { }");
}

#[test]
fn a_redis_that_is_named_like_a_url() {
    let test = test(&format!("meteorit_redis {URL} {{ server {URL}; }}"));
    test.assert_refused("a URL stands in the \"server\" inside", "meteorit_redis redis");
}

#[test]
fn a_block_that_does_not_end() {
    let whole = format!("events {{ }}\nhttp {{\nmeteorit_redis queue {{\nserver {URL};\n");
    let test = Nginx::builder().whole(&whole).test();
    assert!(!test.ok && test.output.contains("unexpected end of file, expecting \"}\""), "{}", test.output);
}

#[test]
fn a_url_that_is_no_url_of_a_redis() {
    for (url, why) in [
        ("127.0.0.1:6379", "must begin with \"redis://\" or \"redis+unix://\""),
        ("http://h", "must begin with \"redis://\""),
        ("rediss://h", "\"rediss\" is not supported yet: TLS to Redis comes in a later version"),
        ("redis://h1:1,h2:2", "names several servers, which is not supported yet"),
        ("redis:///1", "has no host"),
        ("redis://:6379", "has no host"),
        ("redis://", "has no host"),
        ("redis+unix://", "has no path of a socket"),
        ("redis://127.0.0.1?timeout=5", "has an unknown parameter \"timeout\""),
        ("redis://127.0.0.1/1?db=2", "has an unknown parameter \"db\""),
        ("redis+unix:///s?db=1&db=2", "has the parameter \"db\" twice"),
        ("redis://127.0.0.1/-1", "has an invalid database number \"-1\""),
        ("redis://127.0.0.1/x", "has an invalid database number \"x\""),
        ("redis+unix:///s?db=-1", "has an invalid database number \"-1\""),
        ("redis://127.0.0.1/1#here", "has a fragment"),
        ("redis://127.0.0.1?protocol=resp3", "asks for protocol \"resp3\""),
        ("redis://127.0.0.1:99999", "is invalid"),
    ] {
        let server = format!("server \"{url}\";");
        in_redis(&server).assert_refused(&format!("the URL of a Redis {why}"), &server);
        if url.contains("://") {
            let pass = format!("meteorit_pass \"{url}\";");
            let test = builder("").server(&format!("location / {{\nCOMMAND\n{pass}\n}}").replace("COMMAND", COMMAND));
            test.test().assert_refused(&format!("the URL of a Redis {why}"), &pass);
        }
    }
}

#[test]
fn a_host_that_nobody_knows() {
    let test = in_redis("server redis://no-such-host.invalid;");
    test.assert_refused("host not found in \"no-such-host.invalid:6379\"", "server redis");
}

#[test]
fn a_user_without_a_password() {
    for (url, at) in [("redis://someone@127.0.0.1", "queue {"), ("redis+unix:///s?user=someone", "queue {")] {
        let test = test(&format!("meteorit_redis queue {{ server \"{url}\"; }}"));
        test.assert_refused("\"meteorit_redis\" \"queue\" has a user name but no password", at);
    }
    let pass = "meteorit_pass redis://someone@127.0.0.1:6379;";
    let test = builder("").server(&format!("location / {{\n{pass}\n{COMMAND}\n}}")).test();
    test.assert_refused("has a user name but no password", pass);
}

#[test]
fn a_password_file_that_cannot_serve() {
    let file = |content: &[u8]| {
        let redis = format!("meteorit_redis queue {{\nserver {URL};\npassword_file secret;\n}}");
        builder(&redis).file("secret", content).test()
    };
    for empty in [&b""[..], b"\n", b"\r\n", b"\n\n"] {
        file(empty).assert_refused("no password in \"secret\"", "password_file secret;");
    }
    file(b"\xff\xfe").assert_refused("\"secret\" is not UTF-8", "password_file secret;");
    file(b"fine").assert_ok();
    file(b"fine\r\n").assert_ok();
    let test = in_redis("server redis://127.0.0.1;\npassword_file missing;");
    test.assert_refused("cannot read \"", "password_file missing;");
    assert!(test.output.contains("/missing\": No such file or directory"), "{}", test.output);
    let redis = format!("meteorit_redis queue {{ server redis://:{SECRET}@127.0.0.1; password_file secret; }}");
    let test = builder(&redis).file("secret", "other").test();
    test.assert_refused("has a password in its URL and a \"password_file\"", "queue {");
}

#[test]
fn a_password_never_shows() {
    let file = |url: &str, more: &str| {
        let redis = format!("meteorit_redis queue {{ server \"{url}\"; {more} }}");
        builder(&redis).file("secret", SECRET).file("broken", format!("{SECRET}\u{fffd}").as_bytes()).test()
    };
    let mistakes = [
        format!("rediss://:{SECRET}@127.0.0.1"),
        format!("http://u:{SECRET}@127.0.0.1"),
        format!("redis://u:{SECRET}@127.0.0.1:port"),
        format!("redis://u:{SECRET}@/1"),
        format!("redis://u:{SECRET}@127.0.0.1/x"),
        format!("redis://u:{SECRET}@127.0.0.1/-1"),
        format!("redis://u:{SECRET}@127.0.0.1?a=b"),
        format!("redis://u:{SECRET}@127.0.0.1#f"),
        format!("redis://u:{SECRET}@h1,h2"),
        format!("redis://u:{SECRET}@no-such-host.invalid"),
        format!("redis+unix:///s?user=u&pass={SECRET}&x=y"),
        format!("redis+unix:///s?pass={SECRET}&pass={SECRET}"),
        // What a URL keeps for itself, forgotten to be escaped in a password.
        format!("redis://u:12#{SECRET}@127.0.0.1"),
        format!("redis://u:12/{SECRET}@127.0.0.1"),
        format!("redis://u:12?{SECRET}@127.0.0.1"),
        format!("redis://u:12?a={SECRET}@127.0.0.1"),
        format!("redis://u:1,2{SECRET}@127.0.0.1/x"),
        format!("redis://u:@{SECRET}@127.0.0.1/x"),
        format!("redis://u:[{SECRET}@127.0.0.1/x"),
        format!("redis://u:%zz{SECRET}@127.0.0.1/x"),
        format!("redis:/u:{SECRET}@127.0.0.1"),
    ];
    let mut shown = Vec::new();
    for url in &mistakes {
        let pass = format!("location / {{ {COMMAND} meteorit_pass \"{url}\"; }}");
        for test in [file(url, ""), builder("").server(&pass).test()] {
            assert!(!test.ok, "{url} is accepted:\n{}", test.output);
            if test.output.contains(SECRET) {
                shown.push((url, test.output));
            }
        }
    }
    for more in ["connections x;", "timeout 1x;", "nonsense;", "password_file secret;", "password_file broken;"] {
        let test = file(&format!("redis://u:{SECRET}@127.0.0.1"), more);
        assert!(!test.ok, "{more} is accepted");
        if test.output.contains(SECRET) {
            shown.push((&mistakes[0], test.output));
        }
    }
    assert!(shown.is_empty(), "{shown:#?}");
}

#[test]
fn urls_that_are_taken() {
    for url in [
        "redis://127.0.0.1",
        "redis://127.0.0.1:7000/15",
        "redis://localhost",
        "redis://[::1]:6379/2",
        "redis://:word@127.0.0.1",
        "redis://user:p%40ss%2f@127.0.0.1",
        "redis+unix:///run/redis.sock",
        "unix:///run/redis.sock?db=1",
        "redis+unix:///run/redis.sock?db=3&user=u&pass=p",
    ] {
        in_redis(&format!("server \"{url}\";")).assert_ok();
        let location = format!("location / {{ meteorit_pass \"{url}\"; {COMMAND} }}");
        builder("").server(&location).test().assert_ok();
    }
}

#[test]
fn a_redis_can_include_files() {
    let redis = "meteorit_redis queue {\ninclude more.conf;\ntimeout 2s;\n}";
    let location = format!("location / {{ meteorit_pass queue; {COMMAND} }}");
    let good = builder(redis).server(&location).file("more.conf", format!("server {URL};\nconnections 2;\n"));
    good.test().assert_ok();
    let bad = builder(redis).server(&location).file("more.conf", format!("server {URL};\n\ntimeout 2x;\n")).test();
    let at = bad.path.with_file_name("more.conf").display().to_string() + ":3";
    assert!(!bad.ok && bad.output.lines().any(|line| line.contains("\"2x\"") && line.ends_with(&at)), "{}", bad.output);
    let twice = builder(redis).file("more.conf", format!("server {URL};\ntimeout 1s;\n")).test();
    twice.assert_refused("\"timeout\" directive is duplicate", "timeout 2s;");
    builder(redis).test().assert_refused("more.conf\" failed (2: No such file or directory)", "include more.conf;");
    let several = builder(&redis.replace("more.conf", "conf/*.conf")).server(&location);
    several.file("conf/a.conf", format!("server {URL};")).file("conf/b.conf", "connections 2;").test().assert_ok();
}
