//! The configuration reads an event's fields: `$event_NAME` for members at the top, `meteorit_set` for what a JSON pointer leads to.

mod common;

use common::*;
use std::time::Duration;

impl Site {
    fn start(text: &str) -> Site {
        Site::logging("$uri $status", text)
    }

    fn logging(format: &str, text: &str) -> Site {
        Site::of(Nginx::builder().log_format(format), text)
    }

    #[track_caller]
    fn store(&self, path: &str, event: &str) {
        let response = post(self.nginx.port(), path, event);
        assert_eq!(response.status, 204, "{event}: {}", response.text());
    }

    /// What an event sent there adds to `list`.
    #[track_caller]
    fn listed(&self, path: &str, event: &str) -> Vec<String> {
        self.redis.cmd(&["DEL", "list"]);
        self.store(path, event);
        self.list("list")
    }
}

#[test]
fn a_string_gives_its_text_and_any_other_value_its_json() {
    let site = Site::start("location / { meteorit_pass REDIS; meteorit_command RPUSH list $event_x; }");
    for (value, text) in [
        (r#""plain""#, "plain"),
        (r#""café ☕""#, "café ☕"),
        (r#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r#""caf\u00e9 \ud83d\ude00\u0000.""#, "café 😀\0."),
        (r#""$uri %25 \\n""#, "$uri %25 \\n"),
        (r#""null""#, "null"),
        (r#""""#, ""),
        ("null", ""),
        ("true", "true"),
        ("false", "false"),
        ("0", "0"),
        ("9223372036854775808123", "9223372036854775808123"),
        ("-1.50E+02", "-1.50E+02"),
        (r#"[ 1, "two" ]"#, r#"[ 1, "two" ]"#),
        ("[]", "[]"),
        (r#"{ "y" : "\u00e9", "z":{}}"#, r#"{ "y" : "\u00e9", "z":{}}"#),
    ] {
        assert_eq!(site.listed("/", &format!("{{\"w\":1,\"x\" : {value} , \"y\":2}}")), [text], "{value}");
    }
    for event in ["{}", r#"{"y":1}"#, r#"{"xx":1}"#, r#"{"y":{"x":1}}"#, r#"{"y":"x","z":["x",1]}"#] {
        assert_eq!(site.listed("/", event), [""], "{event}");
    }
}

#[test]
fn a_name_matches_in_any_case_and_an_exact_match_comes_first() {
    let site = Site::start(
        "location / {
             meteorit_pass REDIS;
             meteorit_command RPUSH list $event_userId ${event_userid}/$event_USERID $event_k $event_user_id;
         }",
    );
    let seen = |event: &str| site.listed("/", event);
    assert_eq!(seen(r#"{"userId":1}"#), ["1", "1/1", "", ""]);
    assert_eq!(seen(r#"{"USERID":"a"}"#), ["a", "a/a", "", ""]);
    assert_eq!(seen(r#"{"userid":1,"userId":2}"#), ["1", "1/1", "", ""]);
    assert_eq!(seen(r#"{"userId":2,"userid":1}"#), ["1", "1/1", "", ""]);
    assert_eq!(seen(r#"{"userId":2,"userid":null}"#), ["", "/", "", ""]);
    assert_eq!(seen(r#"{"\u0075ser\u0049d":3}"#), ["3", "3/3", "", ""]);
    // The Kelvin sign, whose lower case is k: only ASCII has its case ignored.
    assert_eq!(seen(r#"{"\u212a":1,"K":2}"#), ["", "/", "2", ""]);
    assert_eq!(seen(r#"{"user-id":1,"user.id":2,"User_Id":3}"#), ["", "/", "", "3"]);
}

#[test]
fn of_duplicate_names_the_last_one_counts() {
    let site = Site::start(
        "location / {
             meteorit_duplicate_names allow; meteorit_set $y /o/y;
             meteorit_pass REDIS; meteorit_command RPUSH list $event_x $y;
         }",
    );
    assert_eq!(site.listed("/", r#"{"x":1,"o":{"y":1,"y":2},"\u0078":3}"#), ["3", "2"]);
}

#[test]
fn a_condition_reads_a_field() {
    let site = Site::start(
        "location / { meteorit_pass REDIS; meteorit_command RPUSH all 1; meteorit_command if=$event_live RPUSH live 1; }",
    );
    for (value, runs) in [
        ("1", true),
        ("\"yes\"", true),
        ("false", true),
        ("[]", true),
        ("0.0", true),
        ("0", false),
        ("\"0\"", false),
        ("\"\"", false),
        ("null", false),
    ] {
        site.redis.cmd(&["DEL", "live"]);
        site.store("/", &format!("{{\"live\":{value}}}"));
        assert_eq!(site.redis.len("live"), usize::from(runs), "{value}");
    }
    assert_eq!(site.redis.len("all"), 9);
}

#[test]
fn a_map_over_a_field_is_made_anew_for_each_event() {
    let site = Site::start(
        "map $event_type $target { default other; view views; ~^click clicks; \"\" none; }
         server {
             listen 127.0.0.1:%PORT%;
             location / { meteorit_pass REDIS; meteorit_command RPUSH $target $event_n; }
         }",
    );
    let mut http = Http::connect(site.nginx.port());
    for (n, event) in
        [r#""type":"view""#, r#""type":"click-through""#, r#""type":7"#, r#""type":null"#].iter().enumerate()
    {
        assert_eq!(http.post("/", format!("{{\"n\":{n},{event}}}")).status, 204);
    }
    assert_eq!(["views", "clicks", "other", "none"].map(|key| site.list(key)), [["0"], ["1"], ["2"], ["3"]]);
}

#[test]
fn a_map_that_was_used_before_the_body_was_read_is_made_anew() {
    let site = Site::start(
        "map $event_type $target { default other; view views; \"\" none; }
         server {
             listen 127.0.0.1:%PORT%;
             location / { set $early \"$target\"; meteorit_pass REDIS; meteorit_command RPUSH list $early $target; }
         }",
    );
    assert_eq!(site.listed("/", r#"{"type":"view"}"#), ["none", "views"]);
    assert_eq!(site.listed("/", r#"{"type":"x"}"#), ["none", "other"]);
}

#[test]
fn the_access_log_reads_fields_of_each_request_of_its_own() {
    let site = Site::logging(
        "$uri $status [$event_x] [$deep]",
        "server {
             listen 127.0.0.1:%PORT%;
             location / { meteorit_set $deep /o/0 default=none; meteorit_pass REDIS; meteorit_command INCR k:$event_x; }
             location /other { return 200 x; }
         }",
    );
    let mut http = Http::connect(site.nginx.port());
    assert_eq!(http.post("/stored", r#"{"x":"a b","o":[7]}"#).status, 422);
    assert_eq!(http.post("/kept", r#"{"x":"a","o":[[]]}"#).status, 204);
    assert_eq!(http.post("/no-json", r#"{"x":"a""#).status, 400);
    assert_eq!(http.get("/other").status, 200);
    drop(http);
    assert_eq!(site.nginx.wait_access("/stored"), "/stored 422 [a b] [7]");
    assert_eq!(site.nginx.wait_access("/kept"), "/kept 204 [a] [[]]");
    assert_eq!(site.nginx.wait_access("/no-json"), "/no-json 400 [] [none]");
    assert_eq!(site.nginx.wait_access("/other"), "/other 200 [] []");
}

#[test]
fn a_request_that_waits_keeps_its_fields_while_the_worker_reads_other_events() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = Nginx::builder()
        .log_format("$uri $status [$event_x] [$deep] [$event]")
        .server(
            &"location / { meteorit_set $deep /o/y; meteorit_pass REDIS; meteorit_command RPUSH list $event_x $deep; }"
                .replace("REDIS", &fake.url()),
        )
        .start();
    let events = [
        ("/first", r#"{"x":"first","o":{"y":1}}"#),
        ("/second", r#"{"padding":[[],[],{}],"o":{"z":0,"y":"two"},"x":"second"}"#),
        ("/third", r#"{}"#),
    ];
    let mut clients: Vec<Http> = Vec::new();
    for (path, event) in events {
        let mut client = Http::connect(nginx.port());
        client.send_raw(&Request::post(path, event).to_bytes());
        fake.wait_held(clients.len() + 1);
        clients.push(client);
    }
    assert_eq!(post(nginx.port(), "/broken", r#"{"x":"broken","o":"#).status, 400);
    let sent: Vec<String> = fake.commands().iter().map(Received::text).collect();
    assert_eq!(sent, ["RPUSH list first 1", "RPUSH list second two", "RPUSH list  "]);
    fake.release_all(Action::reply(":1\r\n"));
    for client in &mut clients {
        assert_eq!(client.read_response().status, 204);
    }
    drop(clients);
    assert_eq!(nginx.wait_access("/first"), format!("/first 204 [first] [1] [{}]", logged(events[0].1)));
    assert_eq!(nginx.wait_access("/second"), format!("/second 204 [second] [two] [{}]", logged(events[1].1)));
    assert_eq!(nginx.wait_access("/third"), "/third 204 [] [] [{}]");
    nginx.stop();
}

#[test]
fn no_request_ever_reads_the_event_of_another() {
    let site = Site::logging(
        "$uri [$event_x] [$event_y]",
        "location / { meteorit_pass REDIS; meteorit_command RPUSH list $event_x; }",
    );
    let path = |id: u64| format!("/{id}");
    let sent = load(site.nginx.port(), 16, Until::PerConnection(250), move |id| {
        let padding = "[{}],".repeat((id % 7) as usize);
        Request::post(&path(id), format!(r#"{{"p":[{padding}0],"x":"x{id}","y":"y{id}"}}"#)).to_bytes()
    });
    assert!(sent.len() == 4000 && sent.iter().all(|sent| sent.has_status(204)));
    eventually(Duration::from_secs(10), || site.nginx.access_log().lines().count() == sent.len());
    for line in site.nginx.access_log().lines() {
        let id = line.trim_start_matches('/').split(' ').next().unwrap();
        assert_eq!(line, format!("/{id} [x{id}] [y{id}]"));
    }
}

/// As nginx's log escapes it.
fn logged(text: &str) -> String {
    text.replace('"', "\\x22")
}

#[test]
fn a_pointer_leads_to_any_value() {
    let site = Site::start(
        r#"location / {
             meteorit_set $nested  /address/city;
             meteorit_set $element /items/1/sku;
             meteorit_set $array   /items;
             meteorit_set $slash   /a~1b;
             meteorit_set $tilde   /m~0n;
             meteorit_set $both    /~01;
             meteorit_set $empty   /;
             meteorit_set $deeper  //x;
             meteorit_set $dotted  /user.id;
             meteorit_set $blank   "/a b";
             meteorit_set $accent  /café;
             meteorit_set $percent /c%25d;
             meteorit_set $quote   '/k"l';
             meteorit_set $number  /numbers/0;
             meteorit_set $case    /Case;
             meteorit_set $whole   "";
             meteorit_pass REDIS;
             meteorit_command RPUSH list $nested $element $array $slash $tilde $both $empty $deeper $dotted $blank $accent
                 $percent $quote $number $case $whole;
         }"#,
    );
    let event = r#"{"address":{"city":"Zürich\n"},"items":[0,{"sku":[1, 2]}],"a/b":1,"m~n":2,"~1":3,"":{"x":4},
        "user.id":5,"a b":6,"caf\u00e9":7,"c%25d":8,"k\"l":9,"numbers":{"0":10},"case":11,"Case":12}"#;
    let expected = [
        "Zürich\n",
        "[1, 2]",
        r#"[0,{"sku":[1, 2]}]"#,
        "1",
        "2",
        "3",
        r#"{"x":4}"#,
        "4",
        "5",
        "6",
        "7",
        "8",
        "9",
        "10",
        "12",
        event,
    ];
    assert_eq!(site.listed("/", event), expected);
    let nothing = r#"{"address":"city","items":[{"sku":1}],"CASE":1}"#;
    let expected = [["", "", r#"[{"sku":1}]"#].as_slice(), &[""; 12], &[nothing]].concat();
    assert_eq!(site.listed("/", nothing), expected);
}

#[test]
fn an_index_is_written_as_json_pointers_write_it() {
    let site = Site::start(
        "location / {
             meteorit_set $first /a/0; meteorit_set $padded /a/00; meteorit_set $end /a/-; meteorit_set $beyond /a/2;
             meteorit_set $huge /a/99999999999999999999; meteorit_set $signed /a/+1; meteorit_set $into /a/0/0;
             meteorit_pass REDIS; meteorit_command RPUSH list $first $padded $end $beyond $huge $signed $into;
         }",
    );
    assert_eq!(site.listed("/", r#"{"a":["x","y"]}"#), ["x", "", "", "", "", "", ""]);
    assert_eq!(site.listed("/", r#"{"a":{"0":"x","00":"y","-":"z","+1":"w"}}"#), ["x", "y", "z", "", "", "w", ""]);
    assert_eq!(site.listed("/", r#"{"a":[["x"]]}"#), [r#"["x"]"#, "", "", "", "", "", "x"]);
}

#[test]
fn a_default_stands_for_what_is_missing_null_or_empty() {
    let site = Site::start(
        "location / {
             meteorit_set $city /address/city default=unknown;
             meteorit_set $note /note 'default=no note';
             meteorit_set $none /none default=;
             meteorit_pass REDIS; meteorit_command RPUSH list $city $note $none;
         }",
    );
    for value in ["null", "\"\"", "\"unknown\""] {
        let event = format!("{{\"address\":{{\"city\":{value}}},\"note\":{value}}}");
        assert_eq!(site.listed("/", &event).first().unwrap(), "unknown", "{value}");
    }
    for event in
        ["{}", r#"{"address":null}"#, r#"{"address":[]}"#, r#"{"address":"city"}"#, r#"{"ADDRESS":{"city":1}}"#]
    {
        assert_eq!(site.listed("/", event), ["unknown", "no note", ""], "{event}");
    }
    for (value, text) in [("0", "0"), ("false", "false"), ("{}", "{}"), ("\" \"", " ")] {
        let event = format!("{{\"address\":{{\"city\":{value}}},\"note\":{value},\"none\":{value}}}");
        assert_eq!(site.listed("/", &event), [text, text, text], "{value}");
    }
}

#[test]
fn a_variable_has_the_meaning_of_its_location() {
    let site = Site::start(
        "map $who $greeting { default hello; \"\" silence; }
         meteorit_set $who /http;
         meteorit_set $kept /kept default=http;
         server {
             listen 127.0.0.1:%PORT%;
             location /http { PASS }
             location /a { meteorit_set $who /a; PASS }
             location /b { PASS meteorit_set $who /b default=b; }
             location /outer {
                 meteorit_set $who /outer; meteorit_set $Kept /kept default=outer;
                 location /outer/inner { PASS }
                 location /outer/own { meteorit_set $who /own; PASS }
             }
             location /if { meteorit_set $who /a; PASS if ($arg_x) { meteorit_command RPUSH list if $who; } }
         }
         server {
             listen 127.0.0.1:%PORT2%;
             meteorit_set $who /server;
             meteorit_set $only_here /kept;
             location / { PASS }
         }"
        .replace("PASS", "meteorit_pass REDIS; meteorit_command RPUSH list $who $kept $greeting \"$only_here\";")
        .as_str(),
    );
    let event = r#"{"http":"1","server":"2","a":"3","outer":"4","own":"5"}"#;
    assert_eq!(site.listed("/http", event), ["1", "http", "hello", ""]);
    assert_eq!(site.listed("/a", event), ["3", "http", "hello", ""]);
    assert_eq!(site.listed("/b", event), ["b", "http", "hello", ""]);
    assert_eq!(site.listed("/outer/inner", event), ["4", "outer", "hello", ""]);
    assert_eq!(site.listed("/outer/own", event), ["5", "outer", "hello", ""]);
    assert_eq!(site.listed("/if", event), ["3", "http", "hello", ""]);
    assert_eq!(site.listed("/if?x=1", event), ["if", "3"]);
    assert_eq!(site.listed("/http", "{}"), ["", "http", "silence", ""]);
    site.redis.cmd(&["DEL", "list"]);
    assert_eq!(post(site.nginx.port_n(2), "/", r#"{"server":"2","kept":"k"}"#).status, 204);
    assert_eq!(site.list("list"), ["2", "k", "hello", "k"]);
}

#[test]
fn mistakes_of_meteorit_set_are_refused() {
    for (directive, message) in [
        ("meteorit_set city /city;", r#"invalid variable name "city""#),
        ("meteorit_set $ /city;", r#"invalid variable name "$""#),
        ("meteorit_set $city city;", r#"pointer "city" must be empty or begin with "/" in "meteorit_set" directive"#),
        (
            "meteorit_set $city a/city;",
            r#"pointer "a/city" must be empty or begin with "/" in "meteorit_set" directive"#,
        ),
        ("meteorit_set $city /a~2;", r#"invalid escape "~2" in pointer "/a~2" in "meteorit_set" directive"#),
        ("meteorit_set $city /a~;", r#"invalid escape "~" in pointer "/a~" in "meteorit_set" directive"#),
        (
            "meteorit_set $city /city none;",
            r#"invalid value "none" in "meteorit_set" directive: expected default=VALUE"#,
        ),
        ("meteorit_set $city;", r#"invalid number of arguments in "meteorit_set" directive"#),
        ("meteorit_set $city /a default=b c;", r#"invalid number of arguments in "meteorit_set" directive"#),
        ("meteorit_set $uri /city;", r#"the duplicate "uri" variable"#),
        ("meteorit_set $meteorit_id /city;", r#"the duplicate "meteorit_id" variable"#),
    ] {
        let text = format!("location / {{\n{directive}\nmeteorit_pass redis://127.0.0.1;\nmeteorit_command PING;\n}}");
        Nginx::test(&text).assert_refused(message, directive);
    }
    Nginx::test("location / {\nmeteorit_set $city /a;\nmeteorit_set $CITY /b;\n}")
        .assert_refused("the variable \"$CITY\" is defined twice here", "$CITY");
    let map = "map $uri $city { default x; }\nserver {\nmeteorit_set $city /city;\nlisten 127.0.0.1:%PORT%;\n}";
    Nginx::test(map).assert_refused("the variable \"$city\" has another meaning already", "meteorit_set");
}
