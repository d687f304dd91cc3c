//! Many events in one body, as an array or one a line: each gets its own verdict, the good ones are written in order by one
//! pipeline, and the answer says by index what became of the others.

#[path = "batches/alone.rs"]
mod alone;
#[path = "batches/bounds.rs"]
mod bounds;
mod common;
#[path = "batches/long.rs"]
mod long;
#[path = "batches/verdicts.rs"]
mod verdicts;

use common::*;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

const LINES: &str = "application/x-ndjson";

impl Site {
    /// A server with these directives and locations.
    fn start(text: &str) -> Site {
        let format = "$uri $status $meteorit_status event=[$event] kind=[$event_kind] id=[$meteorit_id]";
        Site::of(Nginx::builder().log_format(format), text)
    }

    #[track_caller]
    fn array(&self, path: &str, body: &str) -> Response {
        post(self.nginx.port(), path, body)
    }

    #[track_caller]
    fn lines(&self, path: &str, body: &str) -> Response {
        lines(self.nginx.port(), path, body)
    }

    /// What has been written since the last time.
    #[track_caller]
    fn written(&self) -> Vec<String> {
        self.taken("list")
    }
}

#[track_caller]
fn lines(port: u16, path: &str, body: &str) -> Response {
    Http::connect(port).call(&lines_request(path, body))
}

fn lines_request(path: &str, body: &str) -> Request {
    Request::new("POST", path).header("Content-Type", LINES).body(body)
}

/// Every member of the answer to a batch, checked as far as they hang together.
#[track_caller]
fn assert_report(response: &Response, status: u16, accepted: usize, rejected: usize) -> Value {
    assert_eq!(response.status, status, "{}", response.text());
    let media_type = if status < 300 { "application/json" } else { "application/problem+json" };
    assert_eq!(response.header("Content-Type"), Some(media_type));
    let report = response.json();
    assert_eq!((&report["accepted"], &report["rejected"]), (&json!(accepted), &json!(rejected)), "{report}");
    assert_eq!(report["ids"].as_array().map(Vec::len), Some(accepted), "{report}");
    assert_eq!(report.get("stored").is_some(), status >= 500, "{report}");
    for error in report["errors"].as_array().expect("errors") {
        let mut names: Vec<_> = error.as_object().expect("an error").keys().map(String::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["detail", "index", "pointer", "status"]);
        assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{error}");
    }
    report
}

/// Index, status and pointer of each error.
fn errors(report: &Value) -> Vec<(u64, u64, String)> {
    let errors = report["errors"].as_array().expect("errors").iter();
    let number = |value: &Value| value.as_u64().expect("a number");
    let pointer = |error: &Value| error["pointer"].as_str().expect("a pointer").to_owned();
    errors.map(|error| (number(&error["index"]), number(&error["status"]), pointer(error))).collect()
}

#[track_caller]
fn assert_problem(response: &Response, status: u16, kind: &str) -> Value {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("Content-Type"), Some("application/problem+json"));
    let problem = response.json();
    assert_eq!(problem["type"], format!("urn:meteorit:problem:{kind}"), "{problem}");
    assert_eq!(problem["status"], status);
    problem
}

#[test]
fn the_elements_of_an_array_are_written_as_sent_and_in_order() {
    let site =
        Site::start("location /all { PASS meteorit_batch all; } location /partial { PASS meteorit_batch partial; }");
    let mut http = Http::connect(site.nginx.port());
    for path in ["/all", "/partial"] {
        let response = http.post(path, " \r\n[ {\"a\":1} ,\n\t{\"b\" : [2, {}]},{ },{\"]\":\"},{\"}\n] \n");
        assert_eq!((response.status, response.body.len()), (204, 0), "{}", response.text());
        assert_eq!(site.written(), [r#"{"a":1}"#, r#"{"b" : [2, {}]}"#, "{ }", r#"{"]":"},{"}"#]);
    }
    for media_type in ["text/plain", "application/cloudevents-batch+json", ""] {
        let response = http.request("PUT", "/all", &[("Content-Type", media_type)], "[{}]");
        assert_eq!(response.status, 204, "{media_type}: {}", response.text());
    }
    assert_eq!(site.written().len(), 3);
}

#[test]
fn lines_are_written_as_sent_and_in_order() {
    let site =
        Site::start("location /all { PASS meteorit_batch all; } location /partial { PASS meteorit_batch partial; }");
    let mut http = Http::connect(site.nginx.port());
    let media_types = [
        LINES,
        "application/jsonl",
        "application/x-jsonlines",
        "Application/X-NDJSON",
        "application/jsonl; charset=utf-8",
        "application/x-jsonlines;charset=utf-8",
    ];
    for media_type in media_types {
        for path in ["/all", "/partial"] {
            let body = "\r\n\n  {\"a\":1}\r\n{\"b\" : [2, {}]}\t\n \t \n{ }\n{\"\\n\":\"\\n\"}";
            let response = http.request("POST", path, &[("Content-Type", media_type)], body);
            assert_eq!((response.status, response.body.len()), (204, 0), "{media_type}: {}", response.text());
            assert_eq!(site.written(), [r#"{"a":1}"#, r#"{"b" : [2, {}]}"#, "{ }", r#"{"\n":"\n"}"#]);
        }
    }
}

#[test]
fn batches_are_off_unless_said_otherwise() {
    let site = Site::start("location /default { PASS } location /off { PASS meteorit_batch off; }");
    for path in ["/default", "/off"] {
        for body in ["[]", "[{}]", r#"[{"a":1},{"b":2}]"#] {
            let problem = assert_problem(&site.array(path, body), 422, "invalid-event");
            // Whoever wants batches learns what to look for.
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("meteorit_batch")), "{problem}");
        }
        for media_type in [LINES, "application/jsonl", "application/x-jsonlines"] {
            let response =
                Http::connect(site.nginx.port()).request("POST", path, &[("Content-Type", media_type)], "{}\n{}");
            assert_problem(&response, 415, "unsupported-media-type");
        }
    }
    assert_eq!(site.written(), [""; 0]);
}

#[test]
fn all_writes_nothing_when_one_event_is_bad() {
    let site = Site::start("location / { PASS meteorit_batch all; }");
    let report = assert_report(&site.array("/", r#"[{"a":1},{"b":1,"b":2},{"c":3},7]"#), 422, 0, 2);
    assert_eq!(errors(&report), [(1, 422, "/b".into()), (3, 422, "".into())]);
    let report = assert_report(&site.lines("/", "{\"a\":1}\n{\"b\":\n{\"c\":3}\n"), 400, 0, 1);
    assert_eq!(errors(&report), [(1, 400, "".into())]);
    assert_eq!(site.written(), [""; 0]);
    assert_eq!(site.lines("/", "{\"a\":1}\n{\"c\":3}\n").status, 204);
    assert_eq!(site.written(), [r#"{"a":1}"#, r#"{"c":3}"#]);
}

#[test]
fn partial_writes_the_good_events_and_names_the_bad_ones() {
    let site = Site::start("location / { PASS meteorit_batch partial; meteorit_max_event_size 40; }");
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(33));
    let body = format!(r#"[{{"n":0}},null,{{"n":2}},{{"a":{{"b":1,"b":2}}}},{long},[{{}}],{{"n":6}}]"#);
    let report = assert_report(&site.array("/", &body), 207, 3, 4);
    let expected = [(1, 422, "".into()), (3, 422, "/a/b".into()), (4, 413, "".into()), (5, 422, "".into())];
    assert_eq!(errors(&report), expected);
    assert_eq!(site.written(), [r#"{"n":0}"#, r#"{"n":2}"#, r#"{"n":6}"#]);

    let report =
        assert_report(&site.lines("/", &format!("{long}\n{{\"n\":1}}\n{{]\n\n{{\"n\":3}}\n{{}} {{}}")), 207, 2, 3);
    assert_eq!(errors(&report), [(0, 413, "".into()), (2, 400, "".into()), (4, 400, "".into())]);
    assert_eq!(site.written(), [r#"{"n":1}"#, r#"{"n":3}"#]);
}

#[test]
fn a_batch_without_a_good_event_is_422_or_400_when_none_is_json() {
    for mode in ["all", "partial"] {
        let site = Site::start(&format!("location / {{ PASS meteorit_batch {mode}; }}"));
        assert_report(&site.lines("/", "{\n}\n"), 400, 0, 2);
        assert_report(&site.lines("/", "{\n7\n"), 422, 0, 2);
        assert_report(&site.array("/", "[7]"), 422, 0, 1);
        // Also where the one that is different is not listed any more.
        assert_report(&site.lines("/", &format!("{}7\n", "{\n".repeat(150))), 422, 0, 151);
        assert_eq!(site.written(), [""; 0]);
    }
}

#[test]
fn a_batch_without_an_event_is_422() {
    for mode in ["all", "partial"] {
        let site = Site::start(&format!("location / {{ PASS meteorit_batch {mode}; }}"));
        for body in ["[]", " [ ] ", "\n[\r\n\t]\n"] {
            assert_problem(&site.array("/", body), 422, "invalid-batch");
        }
        for body in ["", "\n", "\r\n\r\n", " \t \n\n  "] {
            assert_problem(&site.lines("/", body), 422, "invalid-batch");
        }
        assert_eq!(site.written(), [""; 0]);
    }
}

#[test]
fn an_array_that_is_not_json_is_400_as_a_whole_and_says_where() {
    for mode in ["all", "partial"] {
        let site = Site::start(&format!("location / {{ PASS meteorit_batch {mode}; }}"));
        let cases = [
            ("[{\"a\":1},\n {\"b\":}]", "unexpected character", 2, 7),
            ("[{\"a\":1},]", "unexpected character", 1, 10),
            ("[{\"a\":1}", "unexpected end", 1, 9),
            ("[{\"a\":1}\n{\"b\":2}]", "unexpected character", 2, 1),
            ("[{\"a\":1}]\n\n[]", "trailing data", 3, 1),
            ("[{\"caf\u{e9}\":1},{\"b\":01}]", "invalid number", 1, 19),
            ("[{\"a\":1},{\"b\":\"\n\"}]", "control character", 1, 16),
            ("[", "unexpected end", 1, 2),
        ];
        for (body, why, line, column) in cases {
            let problem = assert_problem(&site.array("/", body), 400, "not-json");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{body:?}: {problem}");
            assert_eq!((&problem["line"], &problem["column"]), (&json!(line), &json!(column)), "{body:?}: {problem}");
        }
        assert_eq!(site.written(), [""; 0], "events before the mistake must not be written");
    }
}

#[test]
fn a_line_that_is_not_json_is_that_lines_error_with_its_place_in_the_body() {
    let site = Site::start("location / { PASS meteorit_batch partial; }");
    let body = "{\"a\":1}\n\n  {\"b\":}\r\n{\"c\":3}\n{\"\u{e9}\":tru}\n[]\n{";
    let report = assert_report(&site.lines("/", body), 207, 2, 4);
    assert_eq!(errors(&report), [1, 3, 4, 5].map(|index| (index, if index == 4 { 422 } else { 400 }, String::new())));
    let detail = |at: usize| report["errors"][at]["detail"].as_str().unwrap_or_default();
    assert!(detail(0).ends_with("line 3, column 8"), "{}", detail(0));
    assert!(detail(1).contains("line 5, column"), "{}", detail(1));
    assert!(detail(3).ends_with("line 7, column 2"), "{}", detail(3));
    assert_eq!(site.written(), [r#"{"a":1}"#, r#"{"c":3}"#]);
}

#[test]
fn one_object_is_no_batch_and_is_answered_as_ever() {
    let site = Site::start(
        "location /all { PASS meteorit_batch all; }
         location /partial { PASS meteorit_batch partial; meteorit_response json; }",
    );
    assert_eq!(site.array("/all", " {\"a\":1}\n").status, 204);
    assert_eq!(site.written(), [" {\"a\":1}\n"]);
    let report = assert_report(&site.array("/partial", "{\"a\":1}"), 200, 1, 0);
    assert_eq!(report["errors"], json!([]));
    for path in ["/all", "/partial"] {
        let problem = assert_problem(&site.array(path, r#"{"a":{"b":1,"b":2}}"#), 422, "invalid-event");
        assert_eq!((&problem["pointer"], problem.get("accepted")), (&json!("/a/b"), None));
        let problem = assert_problem(&site.array(path, "{"), 400, "not-json");
        assert_eq!((&problem["line"], &problem["column"]), (&json!(1), &json!(2)));
        assert_problem(&site.array(path, "7"), 422, "invalid-event");
        assert_problem(&site.array(path, ""), 400, "not-json");
    }
}

#[test]
fn the_answer_in_json_says_what_became_of_each_event() {
    let site = Site::start("location / { PASS meteorit_batch partial; meteorit_response json; }");
    let mut http = Http::connect(site.nginx.port());
    let report = assert_report(&http.post("/", "[{},{}]"), 200, 2, 0);
    let mut names: Vec<_> = report.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accepted", "errors", "ids", "rejected"]);
    assert_ne!(report["ids"][0], report["ids"][1]);
    let report = assert_report(&http.post("/", r#"[7,{},{"a":1,"a":2}]"#), 207, 1, 2);
    let first = json!({
        "index": 0, "status": 422, "pointer": "", "detail": "an event must be an object, not a number"
    });
    assert_eq!(report["errors"][0], first);
    assert_eq!(errors(&report)[1], (2, 422, "/a".into()));
    assert_report(&http.post("/", "[7]"), 422, 0, 1);
    // The connection has been kept through all of them.
    assert_report(&http.call(&lines_request("/", "{}\n{}\n{}")), 200, 3, 0);
}

#[test]
fn a_hundred_errors_are_listed_and_all_are_counted() {
    let site = Site::start("location / { PASS meteorit_batch partial; }");
    let body: String = (0..300).map(|n| if n % 6 == 5 { format!("{{\"n\":{n}}}\n") } else { "7\n".into() }).collect();
    let report = assert_report(&site.lines("/", &body), 207, 50, 250);
    let first_hundred = (0..300u64).filter(|n| n % 6 != 5).take(100);
    assert!(errors(&report).iter().map(|(index, ..)| *index).eq(first_hundred), "{report}");
    assert_eq!(site.written().len(), 50);
    let hundred = assert_report(&site.lines("/", &"7\n".repeat(100)), 422, 0, 100);
    assert_eq!(errors(&hundred).len(), 100);
}

#[test]
fn a_pixel_stays_a_pixel_and_the_status_tells() {
    let site = Site::start("location / { PASS meteorit_batch partial; meteorit_response pixel; }");
    let mut http = Http::connect(site.nginx.port());
    for (body, status) in [("[{},{}]", 200), ("[{},7]", 207), ("[7]", 422), ("[]", 422), ("[", 400)] {
        let response = http.post("/", body);
        assert_eq!((response.status, response.header("Content-Type")), (status, Some("image/gif")), "{body}");
        assert!(response.body.starts_with(b"GIF89a"), "{body}");
        assert!(response.header("Cache-Control").is_some_and(|value| value.contains("no-store")), "{body}");
    }
    assert_eq!(site.written().len(), 3);
}

#[test]
fn a_form_may_carry_a_batch() {
    let site = Site::start("location / { PASS meteorit_batch partial; }");
    let mut http = Http::connect(site.nginx.port());
    let mut send =
        |body: &str| http.request("POST", "/", &[("Content-Type", "application/x-www-form-urlencoded")], body);
    assert_eq!(send("data=%5B%7B%22a%22%3A1%7D,+{}%5D").status, 204);
    assert_eq!(site.written(), [r#"{"a":1}"#, "{}"]);
    assert_report(&send("data=[7,{}]"), 207, 1, 1);
    assert_eq!(site.written(), ["{}"]);
    // As many as in a body without a form, which together are larger than one event may be.
    let array = |count: usize| format!("data=[{}]", vec![format!("{{\"a\":\"{}\"}}", "x".repeat(92)); count].join(","));
    let response = send(&array(1000));
    assert_eq!(response.status, 204, "{}", response.text());
    assert_eq!(site.written().len(), 1000);
    assert_problem(&send(&array(1001)), 413, "batch-too-large");
}

#[test]
fn the_access_log_knows_what_became_of_a_batch_and_no_event_of_it() {
    let site = Site::start("location / { PASS meteorit_batch partial; }");
    assert_eq!(site.array("/stored", r#"[{"kind":"a"},{"kind":"b"}]"#).status, 204);
    assert_eq!(site.array("/partly", r#"[{"kind":"a"},7]"#).status, 207);
    assert_eq!(site.array("/rejected", r#"[{"kind":"a","kind":"b"},7]"#).status, 422);
    let lines = ["/stored 204 stored", "/partly 207 stored", "/rejected 422 rejected"];
    for line in lines {
        let line = site.nginx.wait_access(line);
        assert!(line.contains(" event=[] kind=[] id=["), "{line}");
    }
}

#[test]
fn a_map_over_the_event_finds_none_when_a_batch_is_logged() {
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .http("map $event_kind $class { default class-$event_kind; '' none; }")
        .server(&format!(
            "location / {{ meteorit_pass {}; meteorit_batch partial; meteorit_command RPUSH list $class; }}",
            redis.url()
        ))
        .log_format("$uri $status class=[$class]")
        .start();
    assert_eq!(post(nginx.port(), "/one", r#"{"kind":"a"}"#).status, 204);
    assert_eq!(post(nginx.port(), "/stored", r#"[{"kind":"a"},{"kind":"b"}]"#).status, 204);
    assert_eq!(post(nginx.port(), "/partly", r#"[{"kind":"a"},7]"#).status, 207);
    assert_eq!(redis.list("list"), [b"class-a", b"class-a", b"class-b", b"class-a"]);
    for line in ["/one 204 class=[class-a]", "/stored 204 class=[none]", "/partly 207 class=[none]"] {
        let (path, _) = line.split_once(' ').expect("a path");
        assert_eq!(nginx.wait_access(path), line);
    }
}
