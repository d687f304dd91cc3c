//! What a client puts into a key is confined by `meteorit_key_limit`; what the configuration puts there is not.

mod common;

use common::*;
use serde_json::json;
use std::process::Command;

impl Site {
    fn start(text: &str) -> Site {
        Site::of(Nginx::builder(), text)
    }

    /// The status of an event, and the keys that it leaves in Redis, sorted.
    #[track_caller]
    fn send(&self, request: &Request) -> (u16, Vec<String>) {
        self.redis.cmd(&["FLUSHALL"]);
        let status = Http::connect(self.nginx.port()).call(request).status;
        let mut keys: Vec<String> = self.redis.ask(&["KEYS", "*"]);
        keys.sort();
        (status, keys)
    }

    /// The same for an event `{"x":VALUE}`.
    #[track_caller]
    fn send_x(&self, path: &str, value: &str) -> (u16, Vec<String>) {
        self.send(&Request::post(path, json!({ "x": value }).to_string()))
    }
}

fn stored(keys: &[&str]) -> (u16, Vec<String>) {
    (204, keys.iter().map(|key| key.to_string()).collect())
}

fn rejected() -> (u16, Vec<String>) {
    (422, Vec::new())
}

const SOURCES: &str = r#"
    map $event_x $mapped { default "{of a map} $event_x"; }
    server {
        listen 127.0.0.1:%PORT%;
        location /event   { FIRST meteorit_command INCR k:$event_x; }
        location /braced  { FIRST meteorit_command INCR "k:${event_X}:end"; }
        location /arg     { FIRST meteorit_command INCR k:$arg_x; }
        location /http    { FIRST meteorit_command INCR k:$http_x_key; }
        location /cookie  { FIRST meteorit_command INCR k:$cookie_x; }
        location /uri     { FIRST meteorit_command INCR k:$uri; }
        location /args    { FIRST meteorit_command INCR k:$args; }
        location /user    { FIRST meteorit_command INCR k:$remote_user; }
        location /id      { FIRST meteorit_event_id $event_x; meteorit_command INCR k:$meteorit_id; }
        location /whole   { FIRST meteorit_command INCR k:$event; }
        location /before  { FIRST meteorit_set $before /x; meteorit_command INCR k:$before; }
        location /after   { FIRST meteorit_command INCR k:$after; meteorit_set $after /x; }
        location /map     { FIRST meteorit_command INCR k:$mapped; }
        location ~ (?s)^/number/(.*)$         { FIRST meteorit_command INCR k:$1; }
        location ~ (?s)^/name/(?<captured>.*)$ { FIRST meteorit_command INCR k:$captured; }
    }"#;

fn sources() -> Site {
    let first = "meteorit_pass REDIS; meteorit_command INCR first;";
    Site::start(&SOURCES.replace("FIRST", first))
}

#[test]
fn what_a_client_decides_is_confined() {
    let site = sources();
    for path in ["/event", "/before", "/after", "/id"] {
        for plain in ["a", "/page?x=1&y=%20", "café", "a.b:c-d_e*[]\"'\\;,"] {
            assert_eq!(site.send_x(path, plain), stored(&["first", &format!("k:{plain}")]), "{path} {plain}");
        }
        for bad in ["a b", " ", "a\n", "a\r\nb", "\0", "\t", "\u{1f}", "\u{7f}", "{", "a}", "{a}"] {
            assert_eq!(site.send_x(path, bad), rejected(), "{path} {bad:?}");
        }
    }
    assert_eq!(site.send_x("/braced", "a"), stored(&["first", "k:a:end"]));
    assert_eq!(site.send_x("/braced", "a b"), rejected());
    let header = |path: &str, name: &str, value: &str| site.send(&Request::post(path, "{}").header(name, value));
    assert_eq!(header("/http", "X-Key", "a"), stored(&["first", "k:a"]));
    assert_eq!(header("/cookie", "Cookie", "y=1; x=a"), stored(&["first", "k:a"]));
    for bad in ["a b", "a\tb", "{a}"] {
        assert_eq!(header("/http", "X-Key", bad), rejected(), "{bad:?}");
        assert_eq!(header("/cookie", "Cookie", &format!("x={bad}")), rejected(), "{bad:?}");
    }
    // "a b:" and "a:".
    assert_eq!(header("/user", "Authorization", "Basic YSBiOg=="), rejected());
    assert_eq!(header("/user", "Authorization", "Basic YTo="), stored(&["first", "k:a"]));
    assert_eq!(site.send_x("/whole", "a"), rejected());
}

#[test]
fn what_an_address_brings_is_confined() {
    let site = sources();
    let send = |path: &str| site.send(&Request::post(path, "{}"));
    assert_eq!(send("/arg?x=a%20b"), stored(&["first", "k:a%20b"]));
    assert_eq!(send("/args?x=a%20b"), stored(&["first", "k:x=a%20b"]));
    for bad in ["/arg?x={a}", "/arg?x=a}", "/args?{a}", "/args?x=}"] {
        assert_eq!(send(bad), rejected(), "{bad}");
    }
    assert_eq!(send("/uri/a%2Fb"), stored(&["first", "k:/uri/a/b"]));
    assert_eq!(send("/number/a"), stored(&["first", "k:a"]));
    for bad in ["a%20b", "%7Ba%7D", "a%0Ab", "%7f", "a{"] {
        for path in ["/uri", "/number"] {
            assert_eq!(send(&format!("{path}/{bad}")), rejected(), "{path}/{bad}");
        }
    }
}

#[test]
fn a_named_capture_is_confined() {
    let site = sources();
    let send = |path: &str| site.send(&Request::post(path, "{}"));
    assert_eq!(send("/name/a"), stored(&["first", "k:a"]));
    for bad in ["a%20b", "%7Ba%7D", "a%0Ab", "%7f", "a{"] {
        assert_eq!(send(&format!("/name/{bad}")), rejected(), "{bad}");
    }
}

#[test]
fn what_a_client_controls_by_way_of_another_variable_is_confined() {
    let site = Site::start(
        "location /set  { set $page $arg_x; meteorit_pass REDIS; meteorit_command INCR k:$page; }
         location /file { meteorit_pass REDIS; meteorit_command INCR k:$request_filename; }
         location /for  { meteorit_pass REDIS; meteorit_command INCR \"k:$proxy_add_x_forwarded_for\"; }",
    );
    assert_eq!(site.send(&Request::post("/set?x=a", "{}")), stored(&["k:a"]));
    let forwarded = Request::post("/for", "{}").header("X-Forwarded-For", "{a} b");
    let requests = [Request::post("/set?x={a}", "{}"), Request::post("/file/%7Ba%7D%20b", "{}"), forwarded];
    let answers = requests.map(|request| (site.send(&request), request.path));
    let through: Vec<_> = answers.iter().filter(|(answer, _)| *answer != rejected()).collect();
    assert!(through.is_empty(), "{through:?}");
}

#[test]
fn what_the_configuration_decides_is_not_confined() {
    let site = sources();
    assert_eq!(site.send_x("/map", "a b"), stored(&["first", "k:{of a map} a b"]));
    let site = Site::start(
        r#"map $event_type $kind { default "{other} kind"; a "{a}"; }
           server {
               listen 127.0.0.1:%PORT%;
               meteorit_time $day "{%Y} day";
               location /literal { meteorit_pass REDIS; meteorit_command INCR "{tenant} 1:$event_x"; }
               location /map { meteorit_pass REDIS; meteorit_command INCR $kind; meteorit_command INCR "{$kind}"; }
               location /time { meteorit_pass REDIS; meteorit_command EVAL "return redis.call('SET', 'is', KEYS[1])" 1 $day; }
               location /server { meteorit_pass REDIS; meteorit_command INCR "{$request_id}"; }
           }"#,
    );
    assert_eq!(site.send_x("/literal", "a"), stored(&["{tenant} 1:a"]));
    assert_eq!(site.send_x("/literal", "a}"), rejected());
    assert_eq!(site.send_x("/map", ""), stored(&["{other} kind", "{{other} kind}"]));
    assert_eq!(site.send(&Request::post("/map", r#"{"type":"a"}"#)), stored(&["{a}", "{{a}}"]));
    assert_eq!(site.send_x("/time", ""), stored(&["is"]));
    assert!(site.redis.get("is").unwrap().starts_with(b"{20"));
    assert_eq!(site.send_x("/server", "").0, 204);
}

#[test]
fn commands_of_the_http_block_are_confined() {
    let site = Site::start(
        "meteorit_command INCR k:$who;
         meteorit_set $who /x;
         server {
             listen 127.0.0.1:%PORT%;
             location / { meteorit_pass REDIS; }
         }",
    );
    assert_eq!(site.send_x("/", "a"), stored(&["k:a"]));
    for bad in ["a b", "{a}", ""] {
        assert_eq!(site.send_x("/", bad), rejected(), "{bad:?}");
    }
}

#[test]
fn commands_of_a_server_or_an_if_are_confined() {
    let site = Site::start(
        "meteorit_command INCR server:$who;
         location /server { meteorit_pass REDIS; location /server/inner { meteorit_pass REDIS; } }
         location /if { meteorit_pass REDIS; if ($arg_x) { meteorit_command INCR if:$who; } }
         meteorit_set $who /x;",
    );
    for (path, key) in
        [("/server", "server:a"), ("/server/inner", "server:a"), ("/if", "server:a"), ("/if?x=1", "if:a")]
    {
        assert_eq!(site.send_x(path, "a"), stored(&[key]), "{path}");
        for bad in ["a b", "{a}", ""] {
            assert_eq!(site.send_x(path, bad), rejected(), "{path} {bad:?}");
        }
    }
}

#[test]
fn each_part_of_a_key_has_its_length() {
    let site = Site::start(
        "location /default { meteorit_pass REDIS; meteorit_command INCR k:$event_x; }
         location /short {
             meteorit_key_limit length=3;
             meteorit_pass REDIS; meteorit_command INCR long-prefix:$event_x:$arg_y:long-suffix;
         }",
    );
    let long = "x".repeat(512);
    assert_eq!(site.send_x("/default", &long), stored(&[&format!("k:{long}")]));
    assert_eq!(site.send_x("/default", &format!("{long}x")), rejected());
    assert_eq!(site.send_x("/short?y=123", "abc"), stored(&["long-prefix:abc:123:long-suffix"]));
    assert_eq!(site.send_x("/short?y=1234", "abc"), rejected());
    assert_eq!(site.send_x("/short?y=123", "abcd"), rejected());
    // In bytes.
    assert_eq!(site.send_x("/short?y=1", "aé"), stored(&["long-prefix:aé:1:long-suffix"]));
    assert_eq!(site.send_x("/short?y=1", "éé"), rejected());
}

#[test]
fn a_charset_says_what_a_part_may_have() {
    let site = Site::start(
        "meteorit_command INCR k:$event_x;
         location /word      { meteorit_pass REDIS; meteorit_key_limit charset=word; }
         location /printable { meteorit_pass REDIS; meteorit_key_limit charset=printable; }
         location /alnum     { meteorit_pass REDIS; meteorit_key_limit charset=alnum; }
         location /any       { meteorit_pass REDIS; meteorit_key_limit charset=any; }",
    );
    for (value, word, printable, alnum) in [
        ("AZaz09_.:-", true, true, true),
        ("a/b", true, true, false),
        ("café", true, true, false),
        ("a@b", true, true, false),
        ("a b", false, true, false),
        ("{a}", false, true, false),
        ("a\nb", false, false, false),
        ("\u{7f}", false, false, false),
        ("\0", false, false, false),
    ] {
        let key = format!("k:{value}");
        for (path, allowed) in [("/word", word), ("/printable", printable), ("/alnum", alnum), ("/any", true)] {
            let expected = if allowed { stored(&[&key]) } else { rejected() };
            assert_eq!(site.send_x(path, value), expected, "{path} {value:?}");
        }
    }
}

/// By Python.
#[track_caller]
fn sha256(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let script = "import hashlib, sys\nsys.stdout.write(hashlib.sha256(bytes.fromhex(sys.argv[1])).hexdigest())";
    let output = Command::new("python3").args(["-c", script, &hex]).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("ASCII")
}

#[test]
fn a_violation_can_be_written_under_its_hash() {
    let site = Site::start(
        "location / {
             meteorit_key_limit on_violation=hash length=64;
             meteorit_pass REDIS; meteorit_command SET \"{k}:$event_x:$arg_y\" $event_x;
         }",
    );
    assert_eq!(site.send_x("/?y=1", "plain"), stored(&["{k}:plain:1"]));
    let long = "x".repeat(65);
    for value in ["a b", "{a}", "\0\r\n", &long, "é é"] {
        let key = format!("{{k}}:{}:1", sha256(value));
        assert_eq!(site.send_x("/?y=1", value), stored(&[&key]), "{value:?}");
        // The value itself is no key.
        assert_eq!(site.redis.get(&key).unwrap(), value.as_bytes());
    }
    assert_eq!(site.send_x("/?y={}", "a"), stored(&[&format!("{{k}}:a:{}", sha256("{}"))]));
    assert_eq!(site.send_x("/?y=1", ""), rejected());
}

#[test]
fn an_empty_key_or_an_empty_member_in_one_is_rejected() {
    let site = Site::start(
        "meteorit_key_limit charset=any on_violation=hash;
         location /member  { meteorit_pass REDIS; meteorit_command INCR first; meteorit_command INCR k:$event_x; }
         location /if      { meteorit_pass REDIS; meteorit_command INCR first; meteorit_command if=$event_x INCR k:$event_x; }
         location /pointer { meteorit_pass REDIS; meteorit_set $x /x; meteorit_command INCR k:$x; }
         location /default { meteorit_pass REDIS; meteorit_set $y /x default=none; meteorit_command INCR k:$y; }
         location /bare    { meteorit_pass REDIS; meteorit_command INCR first; meteorit_command INCR $arg_x; }
         location /two     { meteorit_pass REDIS; meteorit_command INCR $arg_x$arg_y; }
         location /arg     { meteorit_pass REDIS; meteorit_command INCR k:$arg_x; }
         location /value   { meteorit_pass REDIS; meteorit_command SET k \"$event_x\"; }",
    );
    for event in ["{}", r#"{"x":null}"#, r#"{"x":""}"#, r#"{"y":{"x":1}}"#] {
        let send = |path: &str| site.send(&Request::post(path, event));
        assert_eq!(send("/member"), rejected(), "{event}");
        assert_eq!(send("/if"), stored(&["first"]), "{event}");
        assert_eq!(send("/pointer"), rejected(), "{event}");
        assert_eq!(send("/default"), stored(&["k:none"]), "{event}");
        assert_eq!(send("/bare"), rejected(), "{event}");
        assert_eq!(send("/bare?x="), rejected(), "{event}");
        assert_eq!(send("/bare?x=a"), stored(&["a", "first"]), "{event}");
        assert_eq!(send("/two"), rejected(), "{event}");
        assert_eq!(send("/two?y=a"), stored(&["a"]), "{event}");
        assert_eq!(send("/arg"), stored(&["k:"]), "{event}");
        assert_eq!(send("/value"), stored(&["k"]), "{event}");
    }
    assert_eq!(site.send(&Request::post("/member", r#"{"x":0}"#)), stored(&["first", "k:0"]));
    assert_eq!(site.send(&Request::post("/member", r#"{"x":[]}"#)), stored(&["first", "k:[]"]));
}

#[test]
fn each_key_of_a_command_is_confined_and_nothing_else() {
    // `KEY` is a key, `ARG` is not.
    let commands = [
        "SET KEY ARG",
        "DEL first KEY",
        "DEL KEY first",
        "UNLINK a b c KEY",
        "MSET a ARG KEY ARG",
        "PFADD KEY ARG ARG",
        "PFMERGE first KEY",
        "SADD KEY ARG",
        "HINCRBY KEY ARG 1",
        "HSET KEY ARG ARG",
        "ZINCRBY KEY 1 ARG",
        "XADD KEY * field ARG ARG value",
        "RENAME first KEY",
        "SUNIONSTORE a first KEY",
        "ZUNIONSTORE KEY 2 first second",
        "ZUNIONSTORE first 2 second KEY WEIGHTS 1 2",
        "BITOP OR first KEY second",
        "SORT first STORE KEY",
        "EVAL \"return #KEYS\" 2 first KEY ARG ARG",
        "EVAL \"return #KEYS\" 1 KEY ARG",
        "LMOVE first KEY LEFT RIGHT",
        "OBJECT FREQ KEY",
        "XGROUP CREATE KEY ARG 0 MKSTREAM",
        "XREAD COUNT 1 STREAMS first KEY 0-0 0-0",
    ];
    let location = |(n, command): (usize, &&str)| {
        let command =
            command.replace("KEY", "k:$event_k").replace("#k:$event_kS", "#KEYS").replace("ARG", "\"$event_v\"");
        format!("location /{n} {{ meteorit_pass REDIS; meteorit_command {command}; }}\n")
    };
    let text: String = commands.iter().enumerate().map(location).collect();
    let fake = FakeRedis::start(|_, _| Action::Default);
    let nginx = Nginx::start(&text.replace("REDIS", &fake.url()));
    let mut http = Http::connect(nginx.port());
    for (n, command) in commands.iter().enumerate() {
        let path = format!("/{n}");
        for event in [r#"{"k":"a b","v":"v"}"#, r#"{"k":"{a}","v":"v"}"#, r#"{"v":"v"}"#] {
            assert_eq!(http.post(&path, event).status, 422, "{command} {event}");
        }
        assert_eq!(fake.commands().len(), n * 2, "{command}");
        assert_eq!(http.post(&path, r#"{"k":"K","v":"{v} \n\u0000"}"#).status, 204, "{command}");
        assert_eq!(http.post(&path, r#"{"k":"K","v":""}"#).status, 204, "{command}");
        let sent = fake.wait_commands(n * 2 + 2).remove(n * 2).args;
        assert!(sent.contains(&b"k:K".to_vec()), "{command}");
        assert_eq!(sent.contains(&b"{v} \n\0".to_vec()), command.contains("ARG"), "{command}");
    }
    drop(http);
    nginx.stop();
}

#[test]
fn channels_and_fields_are_no_keys() {
    let site = Site::start(
        "location / {
             meteorit_pass REDIS;
             meteorit_command PUBLISH $event_x $event_x;
             meteorit_command HINCRBY pages $event_x 1;
             meteorit_command XADD stream * $event_x $event_x;
             meteorit_command if=$event_x ECHO $event_x;
         }",
    );
    for value in ["a b {c}\r\n\0", ""] {
        assert_eq!(site.send_x("/", value), stored(&["pages", "stream"]), "{value:?}");
        assert_eq!(site.redis.hash("pages").into_keys().collect::<Vec<_>>(), [value]);
        assert_eq!(site.redis.stream("stream")[0].1, [value.as_bytes(), value.as_bytes()]);
    }
}

#[test]
fn a_rejection_says_what_is_wrong_and_not_the_content() {
    let site = Site::start(
        "location / { meteorit_pass REDIS; meteorit_command INCR k:$event_x; }
         location /bare { meteorit_pass REDIS; meteorit_command INCR $arg_x; }
         location /alnum { meteorit_key_limit charset=alnum length=20; meteorit_pass REDIS; meteorit_command INCR k:$event_x; }",
    );
    let long = format!("secret{}", "x".repeat(600));
    for (path, value, detail) in [
        ("/", "secret word", "key value of 11 bytes has characters that charset \"word\" does not allow"),
        ("/", &long, "key value of 606 bytes is longer than 512"),
        ("/", "", "a member of the event that the key needs is missing or empty"),
        ("/bare", "secret", "empty key"),
        ("/alnum", "secret/page", "key value of 11 bytes has characters that charset \"alnum\" does not allow"),
        ("/alnum", "secret-secret-secret-", "key value of 21 bytes is longer than 20"),
    ] {
        let response = post(site.nginx.port(), path, json!({ "x": value }).to_string());
        assert_eq!((response.status, response.header("Content-Type")), (422, Some("application/problem+json")));
        let expected = json!({
            "type": "urn:meteorit:problem:invalid-key", "title": "Invalid key", "status": 422, "detail": detail,
        });
        assert_eq!(response.json(), expected);
    }
    let log = site.nginx.error_log();
    assert!(log.contains("event not taken") && !log.contains("secret"), "{log}");
}

#[test]
fn a_limit_is_inherited_and_overridden_as_a_whole() {
    let site = Site::start(
        "meteorit_key_limit charset=any length=4;
         meteorit_command INCR k:$event_x;
         server {
             listen 127.0.0.1:%PORT%;
             location /http { meteorit_pass REDIS; }
             location /own { meteorit_key_limit length=5; meteorit_pass REDIS; }
             location /outer { meteorit_key_limit charset=printable; location /outer/inner { meteorit_pass REDIS; } }
         }",
    );
    assert_eq!(site.send_x("/http", "a\n b"), stored(&["k:a\n b"]));
    assert_eq!(site.send_x("/http", "abcde"), rejected());
    assert_eq!(site.send_x("/own", "abcde"), stored(&["k:abcde"]));
    assert_eq!(site.send_x("/own", "a b"), rejected());
    assert_eq!(site.send_x("/outer/inner", "a bcde"), stored(&["k:a bcde"]));
    assert_eq!(site.send_x("/outer/inner", "a\n"), rejected());
}

#[test]
fn mistakes_of_meteorit_key_limit_are_refused() {
    for (parameters, message) in [
        ("size=1", r#"invalid parameter "size=1" in "meteorit_key_limit" directive"#),
        ("length=1 length=2", r#"duplicate parameter "length=2" in "meteorit_key_limit" directive"#),
        ("length=0", r#"invalid length "0", it must be a number from 1"#),
        ("length=1k", r#"invalid length "1k", it must be a number from 1"#),
        ("charset=utf8", r#"unknown charset "utf8", it must be word, printable, alnum or any"#),
        ("on_violation=drop", r#"invalid on_violation "drop", it must be reject or hash"#),
        ("on_violation=hash length=63", "length 63 is too short for on_violation=hash, a hash has 64 bytes"),
        ("", r#"invalid number of arguments in "meteorit_key_limit" directive"#),
    ] {
        let text = format!("location / {{\nmeteorit_key_limit {parameters};\n}}");
        Nginx::test(&text).assert_refused(message, "meteorit_key_limit");
    }
    Nginx::test("location / {\nmeteorit_key_limit length=1;\nmeteorit_key_limit charset=any;\n}")
        .assert_refused("\"meteorit_key_limit\" directive is duplicate", "charset=any");
    Nginx::test("location / {\nmeteorit_command INCR k:$;\n}").assert_refused("invalid variable", "INCR");
    Nginx::test("location / {\nmeteorit_command INCR k:${open;\n}").assert_refused("invalid variable", "INCR");
}
