//! `meteorit_field` adds members to an event, replaces and removes them, and leaves every other byte as it was sent.

mod common;

use common::*;

impl Site {
    fn start(text: &str) -> Site {
        Site::of(Nginx::builder().log_format("$uri $status [$event_x]"), text)
    }

    /// What is stored of an event.
    #[track_caller]
    fn stored(&self, path: &str, event: &str) -> String {
        let response = post(self.nginx.port(), path, event);
        assert_eq!(response.status, 204, "{event}: {}", response.text());
        self.taken("list").pop().expect("an event")
    }

    /// The status of an event sent with these bytes as its query string.
    #[track_caller]
    fn status_with_query(&self, path: &str, query: &[u8]) -> u16 {
        let mut http = Http::connect(self.nginx.port());
        let head = [b"POST ", path.as_bytes(), b"?", query, b" HTTP/1.1\r\nHost: localhost\r\n"].concat();
        http.send_raw(&[&head, &b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"[..]].concat());
        http.read_response().status
    }
}

#[test]
fn a_field_is_added_behind_the_last_member() {
    let site = Site::start(
        r#"location /one { meteorit_field at "now"; PASS }
           location /more { meteorit_field b $uri; meteorit_field a 1 json; meteorit_field "c" "$arg_c!"; PASS }"#,
    );
    assert_eq!(site.stored("/one", "{}"), r#"{"at":"now"}"#);
    assert_eq!(site.stored("/one", "{ }"), r#"{"at":"now" }"#);
    assert_eq!(site.stored("/one", r#"{"z":1}"#), r#"{"z":1,"at":"now"}"#);
    assert_eq!(site.stored("/one", "\r\n {\n  \"z\": 1\n}\t\n"), "\r\n {\n  \"z\": 1,\"at\":\"now\"\n}\t\n");
    assert_eq!(site.stored("/more?c=x", r#"{"z":1}"#), r#"{"z":1,"b":"/more","a":1,"c":"x!"}"#);
}

#[test]
fn everything_else_stays_byte_for_byte() {
    let site =
        Site::start("location / { meteorit_field at now; meteorit_field mid 1 json; meteorit_field out \"\"; PASS }");
    let members = [
        r#""z" : 9223372036854775808123"#,
        r#" "big":18446744073709551615"#,
        r#" "e" :1.50E+002"#,
        r#""zero":-0.0"#,
        r#" "empty":[ ]"#,
        r#""o":{ "b":1 , "a":{"at":0,"mid":[1,"out"],"out":null} }"#,
        r#" "esc":"\u00e9\/\ud83d\ude00\u0000é😀\"}{][,:""#,
        r#""\u0061t ":"not at""#,
        "\n\t\"last\":[[[]],null,true ,false]  ",
    ];
    let event = |extra: &str| format!("{{ {}{extra} }}", members.join(","));
    assert_eq!(site.stored("/", &event("")), event("").replace("false]   }", "false],\"at\":\"now\",\"mid\":1   }"));
    // In their places: what is replaced, and what is removed with its comma.
    let sent = format!("{{{} , \"at\" : 5 ,{} ,\"out\":\"x\",{}, \"mid\":{{}} }}", members[0], members[6], members[5]);
    let kept = format!("{{{} , \"at\" : \"now\" ,{},{}, \"mid\":1 }}", members[0], members[6], members[5]);
    assert_eq!(site.stored("/", &sent), kept);
}

#[test]
fn the_servers_value_replaces_the_clients_however_it_is_spelled() {
    let site = Site::start(
        "location / { meteorit_field role guest; PASS }
         location /twice { meteorit_duplicate_names allow; meteorit_field role guest; PASS }",
    );
    for (sent, stored) in [
        (r#"{"role":"admin"}"#, r#"{"role":"guest"}"#),
        (r#"{"role":{"is":["admin"]},"b":1}"#, r#"{"role":"guest","b":1}"#),
        (r#"{"a":1,"role":null}"#, r#"{"a":1,"role":"guest"}"#),
        (r#"{"r\u006fle":"admin"}"#, r#"{"r\u006fle":"guest"}"#),
        (r#"{"\u0072\u006F\u006c\u0065" : "admin"}"#, r#"{"\u0072\u006F\u006c\u0065" : "guest"}"#),
        // Names in another case are other members.
        (r#"{"Role":"admin"}"#, r#"{"Role":"admin","role":"guest"}"#),
        (r#"{"in":{"role":"admin"}}"#, r#"{"in":{"role":"admin"},"role":"guest"}"#),
    ] {
        assert_eq!(site.stored("/", sent), stored);
        assert_eq!(site.stored("/twice", sent), stored);
    }
    for (sent, stored) in [
        (r#"{"role":"a","role":"b"}"#, r#"{"role":"guest"}"#),
        (r#"{"a":1,"role":"a" , "b":2, "rol\u0065":"b" ,"role":"c"}"#, r#"{"a":1,"role":"guest" , "b":2}"#),
        (r#"{"rol\u0065":"a","role":"b","b":[],"b":{}}"#, r#"{"rol\u0065":"guest","b":[],"b":{}}"#),
    ] {
        assert_eq!(site.stored("/twice", sent), stored);
        assert_eq!(post(site.nginx.port(), "/", sent).status, 422, "{sent}");
    }
}

#[test]
fn an_empty_value_removes_the_member() {
    let site = Site::start(
        "location / { meteorit_field password \"\"; meteorit_field trace $arg_trace; meteorit_field n $arg_n json; PASS }
         location /twice { meteorit_duplicate_names allow; meteorit_field password \"\"; PASS }",
    );
    for (sent, stored) in [
        ("{}", "{}"),
        (r#"{"password":"x"}"#, "{}"),
        (r#"{"password":"x","a":1}"#, r#"{"a":1}"#),
        (r#"{"a":1,"password":{"x":[1,2]},"b":2}"#, r#"{"a":1,"b":2}"#),
        (r#"{"a":1,"p\u0061ssword":"x"}"#, r#"{"a":1}"#),
        (r#"{"password":"x","trace":"y","n":1}"#, "{}"),
        (r#"{"Password":"x","pass":{"password":1}}"#, r#"{"Password":"x","pass":{"password":1}}"#),
    ] {
        assert_eq!(site.stored("/", sent), stored, "{sent}");
    }
    assert_eq!(site.stored("/?trace=t&n=7", r#"{"trace":"mine","a":0}"#), r#"{"trace":"t","a":0,"n":7}"#);
    assert_eq!(site.stored("/twice", r#"{"password":1,"a":2,"\u0070assword":3,"password":4}"#), r#"{"a":2}"#);
}

#[test]
fn a_name_is_any_text() {
    let site = Site::start(
        "location / {
             meteorit_field 'k\"ey \\\\' 1; meteorit_field café 2; meteorit_field \"a b\" 3; meteorit_field \"\" 4; PASS
         }",
    );
    let stored = site.stored("/", "{}");
    assert_eq!(stored, r#"{"k\"ey \\":"1","café":"2","a b":"3","":"4"}"#);
    assert_eq!(site.stored("/", &stored), stored);
    assert_eq!(site.stored("/", r#"{"caf\u00e9":0,"":0}"#), r#"{"caf\u00e9":"2","":"4","k\"ey \\":"1","a b":"3"}"#);
}

#[test]
fn a_text_is_escaped_and_stays_one_string() {
    let site = Site::start(
        "location / { meteorit_field v $event_v; PASS }
         location /arg { meteorit_field v $arg_v; PASS }
         location /header { meteorit_field v $http_x_v; PASS }",
    );
    let text = "\"}, {\\ \u{8}\u{c}\n\r\t\u{0}\u{1f}\u{7f}é😀</script>\u{2028}";
    let stored = site.stored("/", &serde_json::json!({ "v": text }).to_string());
    assert_eq!(serde_json::from_str::<serde_json::Value>(&stored).unwrap(), serde_json::json!({ "v": text }));
    assert!(stored.contains(r#"\"}, {\\ \b\f\n\r\t\u0000\u001f"#), "{stored}");
    assert_eq!(site.stored("/arg?v=1,\"admin\":true", "{}"), r#"{"v":"1,\"admin\":true"}"#);
    assert_eq!(site.stored("/arg?v=null", "{}"), r#"{"v":"null"}"#);
    let request = Request::post("/header", "{}").header("X-V", r#"x","role":"admin"#);
    assert_eq!(Http::connect(site.nginx.port()).call(&request).status, 204);
    assert_eq!(site.taken("list"), [r#"{"v":"x\",\"role\":\"admin"}"#]);
}

#[test]
fn a_text_that_is_no_utf_8_gets_replacement_characters() {
    let site = Site::start("location / { meteorit_field v $arg_v; PASS }");
    for (bytes, text) in [
        (&b"\xff"[..], "\u{fffd}"),
        (b"a\xc3z", "a\u{fffd}z"),
        (b"\xc3\xa9\xff\xfe\"", "é\u{fffd}\u{fffd}\\\""),
        (b"\xe2\x82", "\u{fffd}"),
        (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xc0\xaf", "\u{fffd}\u{fffd}"),
    ] {
        assert_eq!(site.status_with_query("/", &[b"v=", bytes].concat()), 204, "{bytes:?}");
        assert_eq!(site.taken("list"), [format!("{{\"v\":\"{text}\"}}")], "{bytes:?}");
    }
}

#[test]
fn a_json_value_is_added_as_it_is() {
    let site = Site::start(
        r#"location / {
             meteorit_field meta '{"v": 1, "tags":["a"] }' json;
             meteorit_field copy $event_x json;
             meteorit_field at $meteorit_received json;
             PASS
             meteorit_command RPUSH at $meteorit_received;
         }"#,
    );
    for (x, copy) in [
        ("9223372036854775808123", "9223372036854775808123"),
        ("-1.50E+02", "-1.50E+02"),
        ("true", "true"),
        (r#"{ "b" : [ ] , "a":"\u00e9" }"#, r#"{ "b" : [ ] , "a":"\u00e9" }"#),
        (r#""[1, 2]""#, "[1, 2]"),
        (r#""\"text\"""#, r#""text""#),
    ] {
        let stored = site.stored("/", &format!("{{\"x\":{x}}}"));
        let at = site.taken("at").pop().unwrap();
        assert_eq!(stored, format!(r#"{{"x":{x},"meta":{{"v": 1, "tags":["a"] }},"copy":{copy},"at":{at}}}"#));
    }
    let stored = site.stored("/", r#"{"x":null,"copy":1}"#);
    assert!(stored.starts_with(r#"{"x":null,"meta":"#) && !stored.contains("copy"), "{stored}");
}

#[test]
fn a_value_that_is_not_json_makes_the_event_a_422() {
    let site = Site::start("location / { meteorit_field x $arg_x json; PASS }");
    let values: [&[u8]; 22] = [
        b"1,\"admin\":true",
        b"1}",
        b"1}{\"a\":1",
        b"}",
        b"text",
        b"'1'",
        b"01",
        b"+1",
        b"1.",
        b".5",
        b"NaN",
        b"True",
        b"[1",
        b"[1,]",
        b"{\"a\":1,}",
        b"{a:1}",
        b"\"open",
        b"\"\\x\"",
        b"\"\\ud800\"",
        b"[\"\\udc00\\ud800\"]",
        b"\"\xff\"",
        b"{\"\xc0\xaf\":1}",
    ];
    for value in values {
        let shown = value.escape_ascii();
        assert_eq!(site.status_with_query("/", &[b"x=", value].concat()), 422, "{shown}");
        assert_eq!(site.redis.ask::<u64>(&["DBSIZE"]), 0, "{shown}");
    }
    let response = post(site.nginx.port(), "/?x=secret", "{}");
    assert_eq!(response.header("Content-Type"), Some("application/problem+json"));
    let problem = response.json();
    assert_eq!((&problem["type"], &problem["status"]), (&"urn:meteorit:problem:invalid-field".into(), &422.into()));
    assert_eq!(problem["detail"], "the value of the member \"x\" is not JSON");
    assert_eq!(site.status_with_query("/", b"x=1"), 204);
    assert_eq!(site.taken("list"), [r#"{"x":1}"#]);
}

#[test]
fn commands_see_the_result_and_values_see_what_was_sent() {
    let site = Site::start(
        r#"location / {
             meteorit_set   $deep /o/y default=none;
             meteorit_field x     "new $event_x";
             meteorit_field was   $event_x;
             meteorit_field o     '{"y":"added"}' json;
             meteorit_field old   $deep;
             meteorit_field all   $event;
             PASS
             meteorit_command RPUSH seen $event_x $event_was $deep $event_old $event_all "$event";
             meteorit_command if=$event_was INCR count;
         }"#,
    );
    let sent = r#"{"x":"1"}"#;
    let enriched = r#"{"x":"new 1","was":"1","o":{"y":"added"},"old":"none","all":"{\"x\":\"1\"}"}"#;
    assert_eq!(site.stored("/a", sent), enriched);
    assert_eq!(site.taken("seen"), ["new 1", "1", "added", "none", sent, enriched]);
    assert_eq!(site.redis.get("count").unwrap(), b"1");
    assert_eq!(site.nginx.wait_access("/a "), "/a 204 [new 1]");
}

#[test]
fn a_map_that_a_value_used_is_made_anew_for_the_commands() {
    let site = Site::start(
        "map $event_x $size { default small; ~.... large; }
         server {
             listen 127.0.0.1:%PORT%;
             location / { meteorit_field was $size; meteorit_field x 'long text'; PASS meteorit_command RPUSH seen $size; }
         }",
    );
    assert_eq!(site.stored("/", r#"{"x":"s"}"#), r#"{"x":"long text","was":"small"}"#);
    assert_eq!(site.taken("seen"), ["large"]);
}

#[test]
fn a_level_with_fields_of_its_own_inherits_none() {
    let site = Site::start(
        "meteorit_field a http;
         meteorit_field b http;
         server {
             listen 127.0.0.1:%PORT%;
             location /http { PASS }
             location /own { meteorit_field b own; PASS }
             location /outer {
                 meteorit_field c outer;
                 location /outer/inner { PASS }
             }
             location /if { PASS if ($arg_x) { meteorit_command RPUSH list if:$event; } }
         }
         server { listen 127.0.0.1:%PORT2%; meteorit_field d server; location / { PASS } }",
    );
    assert_eq!(site.stored("/http", "{}"), r#"{"a":"http","b":"http"}"#);
    assert_eq!(site.stored("/own", "{}"), r#"{"b":"own"}"#);
    assert_eq!(site.stored("/outer/inner", "{}"), r#"{"c":"outer"}"#);
    assert_eq!(site.stored("/if?x=1", "{}"), r#"if:{"a":"http","b":"http"}"#);
    assert_eq!(post(site.nginx.port_n(2), "/", "{}").status, 204);
    assert_eq!(site.taken("list"), [r#"{"d":"server"}"#]);
}

#[test]
fn mistakes_of_meteorit_field_are_refused() {
    for (directive, message) in [
        ("meteorit_field $event_x 1;", r#"invalid name "$event_x" in "meteorit_field" directive: it must be literal"#),
        ("meteorit_field a$uri 1;", r#"invalid name "a$uri" in "meteorit_field" directive: it must be literal"#),
        ("meteorit_field a 1 text;", r#"invalid value "text" in "meteorit_field" directive: expected "json""#),
        ("meteorit_field a;", r#"invalid number of arguments in "meteorit_field" directive"#),
        ("meteorit_field a 1 json 2;", r#"invalid number of arguments in "meteorit_field" directive"#),
        ("meteorit_field a ${open;", "the closing bracket in \"open\" variable is missing"),
    ] {
        let text = format!("location / {{\n{directive}\nmeteorit_pass redis://127.0.0.1;\nmeteorit_command PING;\n}}");
        Nginx::test(&text).assert_refused(message, directive);
    }
    Nginx::test("location / {\nmeteorit_field a 1;\nmeteorit_field b 1;\nmeteorit_field \"a\" 2 json;\n}")
        .assert_refused("the member \"a\" is added twice here", "2 json");
    Nginx::test("meteorit_field a 1;\nlocation / { meteorit_field a 2; meteorit_field A 3; }").assert_ok();
}

#[test]
fn a_literal_value_that_is_not_json_is_refused_at_once() {
    for value in [r#"'{"open":'"#, "text", "01", r#"'"\ud800"'"#] {
        let test = Nginx::test(&format!("location / {{\nmeteorit_field a {value} json;\n}}"));
        test.assert_refused("is not JSON", "meteorit_field");
    }
    Nginx::test("location / { meteorit_field a '{\"b\":[1, \"2\"]}' json; meteorit_field c \"\" json; }").assert_ok();
}
