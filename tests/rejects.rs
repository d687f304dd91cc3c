//! What becomes of a rejected event: its commands set it aside with what is wrong with it, and the client is told what
//! `meteorit_reject_status` says, but never of success where it was not set aside.

mod common;

use common::*;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

const SCHEMA: &str = r#"{"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}"#;

impl Site {
    /// Locations in which `PASS` has a command for rejected events too.
    fn start(text: &str) -> Site {
        let text = text.replace("PASS", "PASS meteorit_reject_command RPUSH rejected $meteorit_error $event;");
        let format = "$uri $status $meteorit_status id=[$meteorit_id] error=$meteorit_error";
        Site::of(Nginx::builder().file("n.json", SCHEMA).log_format(format), &text)
    }

    #[track_caller]
    fn post(&self, path: &str, event: &str) -> Response {
        post(self.nginx.port(), path, event)
    }

    /// What has been set aside since the last time: each event, with its error.
    #[track_caller]
    fn set_aside(&self) -> Vec<(Value, String)> {
        let list: Vec<String> = self.taken("rejected");
        let pairs = list.chunks_exact(2);
        assert!(pairs.remainder().is_empty(), "{list:?}");
        pairs.map(|pair| (serde_json::from_str(&pair[0]).expect("JSON"), pair[1].clone())).collect()
    }

    fn stored(&self) -> Vec<String> {
        self.taken("list")
    }
}

#[test]
fn every_kind_of_rejected_event_is_set_aside_with_its_error() {
    let site = Site::start(
        "location / { PASS meteorit_schema n.json; meteorit_methods POST GET; meteorit_max_event_size 1k;
            meteorit_command INCR key:$event_k; meteorit_field extra $arg_extra json; }",
    );
    let large = format!(r#"{{"n":1,"k":"{}"}}"#, "x".repeat(1100));
    for (path, event, kind, status, pointer) in [
        ("/", r#"{"n":1"#, "not-json", 400, ""),
        ("/", r#"{"n":1,"n":2}"#, "invalid-event", 422, "/n"),
        ("/", "[1]", "invalid-event", 422, ""),
        ("/", r#"{"n":"one"}"#, "schema", 422, "/n"),
        ("/", r#"{"n":1}"#, "invalid-key", 422, ""),
        ("/", r#"{"n":1,"k":"a b"}"#, "invalid-key", 422, ""),
        ("/?extra={", r#"{"n":1,"k":"a"}"#, "invalid-field", 422, ""),
    ] {
        let response = site.post(path, event);
        assert_eq!(response.status, status, "{event}: {}", response.text());
        assert_eq!(response.json()["type"], format!("urn:meteorit:problem:{kind}"));
        let [(error, text)] = &site.set_aside()[..] else { panic!("{event}") };
        assert_eq!(text, event);
        assert_eq!(error["type"], format!("urn:meteorit:problem:{kind}"), "{event}");
        assert_eq!((&error["status"], &error["pointer"]), (&json!(status), &json!(pointer)), "{event}");
        assert_eq!(error["detail"], response.json()["detail"], "{event}");
        assert_eq!(error.as_object().unwrap().len(), 4, "{error}");
    }
    let mut http = Http::connect(site.nginx.port());
    assert_eq!(http.post_chunked("/", &[large.as_bytes()]).status, 413);
    assert_eq!(get(site.nginx.port(), "/?n=%zz").status, 400);
    assert_eq!(site.set_aside().last().map(|(_, text)| text.clone()).as_deref(), Some("n=%zz"));
    assert_eq!(site.stored(), Vec::<String>::new());
}

#[test]
fn at_most_16k_of_an_event_are_set_aside() {
    let site = Site::start("location / { PASS client_body_buffer_size 100k; }");
    let event = format!(r#"{{"text":"{}""#, "é".repeat(20_000));
    assert_eq!(site.post("/", &event).status, 400);
    let kept = site.redis.list("rejected").pop().unwrap();
    assert_eq!(kept, &event.as_bytes()[..16 * 1024]);
}

#[test]
fn what_is_no_event_is_not_set_aside() {
    let site = Site::start("location / { PASS meteorit_batch all; client_max_body_size 1k; }");
    let mut http = Http::connect(site.nginx.port());
    for (request, status) in [
        (Request::new("DELETE", "/"), 405),
        (Request::new("POST", "/").header("Content-Type", "image/png").body("{"), 415),
        (Request::new("POST", "/").header("Content-Encoding", "br").body("{"), 415),
        (Request::new("POST", "/").header("Content-Encoding", "gzip").body("{"), 400),
        (Request::new("POST", "/").body("[]"), 422),
    ] {
        assert_eq!(http.call(&request).status, status);
    }
    assert_eq!(site.set_aside(), []);
}

#[test]
fn what_redis_refuses_for_good_is_set_aside_as_it_was_sent() {
    let site = Site::start(
        "location /value { PASS meteorit_command HINCRBY count field $event_n; meteorit_field server yes; }
         location /type  { PASS meteorit_command SADD string $event_n; meteorit_reject_status 202; }",
    );
    site.redis.cmd(&["SET", "string", "x"]);
    let event = r#"{ "n": "many" }"#;
    let response = site.post("/value", event);
    assert_eq!((response.status, &response.json()["type"]), (422, &json!("urn:meteorit:problem:rejected-by-redis")));
    let [(error, text)] = &site.set_aside()[..] else { panic!("one is set aside") };
    assert_eq!((text.as_str(), &error["status"]), (event, &json!(422)));
    assert!(error["detail"].as_str().unwrap().contains("not an integer"), "{error}");
    let response = site.post("/type", event);
    assert_eq!((response.status, &response.json()["rejected"]), (202, &json!(1)));
    let [(error, _)] = &site.set_aside()[..] else { panic!("one is set aside") };
    assert_eq!((&error["status"], &error["type"]), (&json!(502), &json!("urn:meteorit:problem:refused-by-redis")));
}

#[test]
fn an_event_that_cannot_be_set_aside_gets_503_whatever_the_status_is_to_be() {
    let site = Site::start("location / { PASS meteorit_reject_status 204; meteorit_batch partial; }");
    site.redis.cmd(&["SET", "rejected", "no list"]);
    for event in ["{", r#"{"n":1,"n":2}"#] {
        let response = site.post("/", event);
        assert_eq!(response.status, 503, "{}", response.text());
        assert_eq!(response.json()["type"], "urn:meteorit:problem:not-set-aside");
        assert!(response.json()["detail"].as_str().unwrap().contains("WRONGTYPE"), "{}", response.text());
        assert!(response.header("Retry-After").is_some());
    }
    let response = site.post("/", "[1]");
    assert_eq!((response.status, &response.json()["errors"][0]["status"]), (503, &json!(503)), "{}", response.text());
    let response = site.post("/", r#"[{"a":1}, 1]"#);
    assert_eq!((response.status, &response.json()["stored"]), (504, &json!([0])), "{}", response.text());
    assert_eq!(site.stored(), [r#"{"a":1}"#]);
}

#[test]
fn an_event_is_not_set_aside_while_redis_is_away() {
    let site = Site::start("location / { PASS meteorit_reject_status 204; }");
    assert_eq!(site.post("/", "{").status, 204);
    assert_eq!(site.set_aside().len(), 1);
    site.redis.stop();
    assert_eq!(site.post("/", "{").status, 503);
    site.redis.restart();
    eventually(SOON, || site.post("/", "{").status == 204);
}

#[test]
fn the_status_is_the_errors_own_unless_said_otherwise() {
    let site = Site::start(
        "location /own { PASS }
         location /204 { PASS meteorit_reject_status 204; }
         location /200 { PASS meteorit_reject_status 200; }
         location /200pixel { PASS meteorit_reject_status 200; meteorit_response pixel; }
         location /409 { PASS meteorit_reject_status 409; }
         location /only { meteorit_pass REDIS; meteorit_command RPUSH list $event; meteorit_reject_status 409; }",
    );
    assert_eq!(site.post("/own", "{").status, 400);
    let response = site.post("/204", "{");
    assert_eq!((response.status, response.text().as_str()), (204, ""));
    let response = site.post("/200", "{");
    assert_eq!(
        (response.status, &response.json()["accepted"], &response.json()["rejected"]),
        (200, &json!(0), &json!(1))
    );
    assert_eq!(response.json()["errors"][0]["status"], 400);
    let response = site.post("/200pixel", "{");
    assert_eq!((response.status, response.header("Content-Type")), (200, Some("image/gif")));
    let response = site.post("/409", "{");
    assert_eq!((response.status, &response.json()["status"]), (409, &json!(409)));
    assert_eq!(response.json()["type"], "urn:meteorit:problem:not-json");
    assert_eq!(site.set_aside().len(), 5);
    assert_eq!(site.post("/only", "{").status, 409);
    assert_eq!(site.post("/204", "{}").status, 204, "a good event");
    let line = site.nginx.wait_access("/204 204 stored ");
    assert!(line.ends_with("error=-"), "{line}");
    site.nginx.wait_access("/204 204 rejected ");
}

#[test]
fn a_rejected_event_keeps_the_clients_own_id() {
    let site = Site::start(
        "location / { PASS meteorit_event_id $event_id; meteorit_schema n.json; meteorit_reject_command RPUSH ids $meteorit_id $event_id; }
         location /gone { PASS meteorit_event_id $http_x_id; meteorit_reject_command RPUSH ids $meteorit_id; }",
    );
    assert_eq!(site.post("/", r#"{"id":"mine"}"#).status, 422);
    assert_eq!(site.taken("ids"), ["mine", "mine"]);
    let mut http = Http::connect(site.nginx.port());
    assert_eq!(http.call(&Request::new("POST", "/gone").header("X-Id", "header").body("{")).status, 400);
    assert_eq!(site.taken("ids"), ["header"]);
    site.nginx.wait_access("id=[header]");
    site.nginx.wait_access("id=[mine] error={");
}

#[test]
fn the_bad_events_of_a_batch_are_set_aside_in_their_places() {
    let site = Site::start(
        "location /partial { PASS meteorit_batch partial; meteorit_schema n.json; meteorit_max_event_size 100; }
         location /all { PASS meteorit_batch all; meteorit_schema n.json; meteorit_reject_status 200; }",
    );
    let large = format!(r#"{{"n":1,"pad":"{}"}}"#, "x".repeat(100));
    let body = format!(r#"[{{"n":1}}, {{"n":"x"}}, 7, {{"n":2}}, {large}]"#);
    let response = site.post("/partial", &body);
    assert_eq!(response.status, 207, "{}", response.text());
    let answer = response.json();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(3)));
    let listed: Vec<_> =
        answer["errors"].as_array().unwrap().iter().map(|error| (&error["index"], &error["status"])).collect();
    assert_eq!(listed, [(&json!(1), &json!(422)), (&json!(2), &json!(422)), (&json!(4), &json!(413))]);
    assert_eq!(site.stored(), [r#"{"n":1}"#, r#"{"n":2}"#]);
    let aside = site.set_aside();
    assert_eq!(aside.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), [r#"{"n":"x"}"#, "7", &large]);
    for ((error, _), listed) in aside.iter().zip(answer["errors"].as_array().unwrap()) {
        assert_eq!((&error["status"], &error["detail"]), (&listed["status"], &listed["detail"]));
    }

    // Of a batch that is all or nothing the good events are neither written nor set aside, and the client keeps them.
    let response = site.post("/all", r#"[{"n":1}, {"n":"x"}, {"n":2}]"#);
    assert_eq!((response.status, &response.json()["accepted"]), (422, &json!(0)), "{}", response.text());
    assert_eq!(site.set_aside().len(), 1);
    let response = site.post("/all", r#"[{"n":"y"}, {"n":"x"}]"#);
    assert_eq!((response.status, &response.json()["rejected"]), (200, &json!(2)), "{}", response.text());
    assert_eq!(site.set_aside().len(), 2);
    assert_eq!(site.stored(), Vec::<String>::new());

    // An array that is no JSON has no events: the body is.
    assert_eq!(site.post("/partial", r#"[{"n":1}, {"#).status, 400);
    assert_eq!(site.set_aside().pop().unwrap().1, r#"[{"n":1}, {"#);
}

#[test]
fn a_long_array_that_turns_out_to_be_no_json_is_set_aside_as_a_whole() {
    let site = Site::start(
        "location /stored { PASS meteorit_batch partial; }
         location /queued { PASS meteorit_batch partial; meteorit_ack queued; meteorit_reject_status 200; }",
    );
    // More events than are worked on in one turn, and a bad one among them.
    let body = format!(r#"[{}{{"n":2,"n":3}}, {{"n":"#, r#"{"n":1},"#.repeat(200));
    for (path, status) in [("/stored", 400), ("/queued", 200)] {
        let response = site.post(path, &body);
        assert_eq!(response.status, status, "{path}: {}", response.text());
        eventually(SOON, || site.redis.list("rejected").len() == 2);
        let [(error, text)] = &site.set_aside()[..] else { panic!("{path}") };
        assert_eq!(text, &body);
        assert_eq!(error["detail"], format!("unexpected end at line 1, column {}", body.len() + 1));
        site.nginx.wait_access(&format!("{path} {status} rejected"));
        assert_eq!(site.stored(), Vec::<String>::new());
    }
}

#[test]
fn the_events_of_a_batch_that_redis_refuses_are_set_aside() {
    let site = Site::start(
        "location / { PASS meteorit_batch partial; meteorit_command HINCRBY count field $event_n; meteorit_response json; }",
    );
    let response = site.post("/", r#"[{"n":1},  {"n":"x"},7,{"n":2} ,{"n":"y"}]"#);
    assert_eq!(response.status, 207, "{}", response.text());
    let answer = response.json();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(3)));
    let aside: Vec<String> = site.set_aside().into_iter().map(|(_, text)| text).collect();
    assert_eq!(aside, ["7", r#"{"n":"x"}"#, r#"{"n":"y"}"#]);
    let response = site.post("/", r#"[{"n":"x"},{"n":"y"}]"#);
    assert_eq!((response.status, &response.json()["accepted"]), (422, &json!(0)), "{}", response.text());
    assert_eq!(site.set_aside().len(), 2);
}

#[test]
fn a_condition_may_skip_the_reject_commands() {
    let site = Site::start(
        "location / { meteorit_pass REDIS; meteorit_command RPUSH list $event; meteorit_reject_status 409;
            meteorit_reject_command if=$arg_keep RPUSH rejected $meteorit_error $event; }",
    );
    assert_eq!(site.post("/", "{").status, 409);
    assert_eq!(site.set_aside().len(), 0);
    assert_eq!(site.post("/?keep=1", "{").status, 409);
    assert_eq!(site.set_aside().len(), 1);
}

#[test]
fn no_event_is_so_bad_that_it_makes_no_key() {
    let site = Site::start(
        "location / { meteorit_pass REDIS; meteorit_command INCR n:$event_n; meteorit_reject_command RPUSH rejected:$event_n $event; }",
    );
    assert_eq!(site.post("/", r#"{"x":1}"#).status, 422);
    assert_eq!(site.taken("rejected:"), [r#"{"x":1}"#]);
    assert_eq!(site.post("/", r#"{"n":"a b"}"#).status, 422);
    let keys = site.redis.ask::<Vec<String>>(&["KEYS", "rejected:*"]);
    assert_eq!(keys.iter().map(String::len).collect::<Vec<_>>(), ["rejected:".len() + 64], "{keys:?}");
}

#[test]
fn mistakes_are_found_by_nginx_t() {
    let pass = "meteorit_pass redis://127.0.0.1:1; meteorit_command PING;";
    for (text, error) in [
        ("meteorit_reject_command MULTI;", "\"MULTI\""),
        ("meteorit_reject_command if=$x;", "\"meteorit_reject_command\" has an \"if=\" but no command"),
        ("meteorit_reject_status 302;", "invalid value \"302\" in \"meteorit_reject_status\""),
        (
            "meteorit_reject_status 200;",
            "\"meteorit_reject_status\" 200 without a \"meteorit_reject_command\" would lose events",
        ),
    ] {
        Nginx::test(&format!("location / {{ {pass} {text} }}")).assert_refused(error, text);
    }
}
