//! What is no event gets a 4xx that says why, as problem details (RFC 9457), and costs a worker little, whatever was sent.

mod common;

use common::*;
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

impl Site {
    /// A server with these directives and locations.
    fn start(text: &str) -> Site {
        Site::of(Nginx::builder().log_format("$uri $status $meteorit_status $meteorit_redis_time"), text)
    }
}

/// The members that every problem has, and its media type.
#[track_caller]
fn assert_problem(response: &Response, status: u16, kind: &str) -> Value {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("Content-Type"), Some("application/problem+json"));
    let problem = response.json();
    assert_eq!(problem["type"], format!("urn:meteorit:problem:{kind}"));
    assert_eq!(problem["status"], status);
    for member in ["title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
    problem
}

#[test]
fn what_is_not_json_gets_400_with_line_and_column() {
    let site = Site::start("location / { PASS }");
    let mut http = site.http();
    let cases: [(&[u8], &str, u32, u32); 18] = [
        (b"", "empty body", 1, 1),
        (b"{\n  \"a\" 1}", "unexpected character", 2, 7),
        (b"{\"a\":1", "unexpected end", 1, 7),
        (b"{\"a\":1}}", "trailing data", 1, 8),
        (b"{}\n{}", "trailing data", 2, 1),
        ("{\"caf\u{e9}\" 1}".as_bytes(), "unexpected character", 1, 9),
        (b"\xef\xbb\xbf{}", "byte order mark", 1, 1),
        (b"{\"a\":\"\xff\"}", "invalid UTF-8", 1, 7),
        (b"{\"a\":\"\xc0\xaf\"}", "invalid UTF-8", 1, 7),
        (b"{\"a\":\"\xed\xa0\x80\"}", "invalid UTF-8", 1, 7),
        (br#"{"a":"\ud800"}"#, "lone surrogate", 1, 7),
        (br#"{"a":"\x"}"#, "invalid escape", 1, 7),
        (b"{\"a\":\"\x00\"}", "control character", 1, 7),
        (b"{\"a\":\"\n\"}", "control character", 1, 7),
        (br#"{"a":01}"#, "invalid number", 1, 7),
        (br#"{"a":1,}"#, "unexpected character", 1, 8),
        (br#"{'a':1}"#, "unexpected character", 1, 2),
        (br#"{"a":NaN}"#, "unexpected character", 1, 6),
    ];
    for (body, why, line, column) in cases {
        let problem = assert_problem(&http.post("/", body), 400, "not-json");
        let shown = String::from_utf8_lossy(body);
        assert!(problem["detail"].as_str().unwrap().contains(why), "{shown:?}: {problem}");
        assert_eq!((&problem["line"], &problem["column"]), (&line.into(), &column.into()), "{shown:?}: {problem}");
    }
    assert_eq!(site.redis.len("list"), 0);
}

#[test]
fn what_breaks_a_rule_gets_422_with_a_pointer() {
    let site = Site::start("meteorit_max_depth 3; meteorit_max_members 3; location / { PASS }");
    let mut http = site.http();
    for (body, why, pointer) in [
        ("[]", "must be an object, not", ""),
        ("\"text\"", "must be an object, not", ""),
        ("1", "must be an object, not", ""),
        ("null", "must be an object, not", ""),
        (r#"{"a":1,"a":2}"#, "duplicate name", "/a"),
        (r#"{"a":1,"\u0061":2}"#, "duplicate name", "/a"),
        (r#"{"x":[0,{"b/c~":1,"b/c~":2}]}"#, "duplicate name", "/x/1/b~1c~0"),
        (r#"{"a":{"b":{"c":{}}}}"#, "nested deeper than 3", "/a/b/c"),
        (r#"{"a":[[[]]]}"#, "nested deeper than 3", "/a/0/0"),
        (r#"{"a":1,"b":2,"c":3,"d":4}"#, "more than 3 members", ""),
        (r#"{"o":{"a":1,"b":2,"c":3,"d":4}}"#, "more than 3 members", "/o"),
    ] {
        let problem = assert_problem(&http.post("/", body), 422, "invalid-event");
        assert!(problem["detail"].as_str().unwrap().contains(why), "{body}: {problem}");
        assert_eq!(problem["pointer"], pointer, "{body}: {problem}");
    }
    assert_eq!(site.redis.len("list"), 0);
}

#[test]
fn other_methods_get_405_and_the_methods_allowed() {
    let site = Site::start("location / { PASS }");
    let mut http = site.http();
    for method in ["GET", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "MKCOL", "POSTS"] {
        let response = http.request(method, "/", &[], "");
        assert_eq!(response.header("Allow"), Some("POST, PUT"), "{method}");
        assert_problem(&response, 405, "method-not-allowed");
    }
    let head = http.request("HEAD", "/", &[], "");
    assert_eq!((head.status, head.header("Allow"), head.body.len()), (405, Some("POST, PUT"), 0));
    assert_eq!(http.post("/", "{}").status, 204);
}

#[test]
fn media_types_that_are_taken() {
    let site = Site::start("location / { PASS }");
    let mut http = site.http();
    let taken = [
        "application/json",
        "application/json; charset=utf-8",
        "application/json;charset=utf-8",
        "application/json ; a=b",
        "APPLICATION/JSON",
        "Application/Json; Charset=UTF-8",
        "application/cloudevents+json",
        "application/ld+json; profile=\"a;b\"",
        "application/VND.API+JSON",
        "text/plain",
        "text/plain;charset=UTF-8",
        "Text/Plain",
        "",
    ];
    for media_type in taken {
        let response = http.request("POST", "/", &[("Content-Type", media_type)], "{}");
        assert_eq!(response.status, 204, "{media_type:?}: {}", response.text());
    }
    assert_eq!(http.request("POST", "/", &[], "{}").status, 204, "no media type");
    assert_eq!(site.redis.len("list"), taken.len() + 1);
}

#[test]
fn other_media_types_get_415() {
    let site = Site::start("location / { PASS }");
    let mut http = site.http();
    for media_type in [
        "text/html",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "application/xml",
        "application/jsonp",
        "application/json5",
        "xapplication/json",
        "json",
        "application/json, text/plain",
        "text/plain-ish",
        "application/json+xml",
        "text/html; x=application/json",
        "text/html;+json",
    ] {
        let response = http.request("POST", "/", &[("Content-Type", media_type)], "{}");
        assert_eq!(response.status, 415, "{media_type:?}");
        assert_problem(&response, 415, "unsupported-media-type");
    }
    assert_eq!(site.redis.len("list"), 0);
}

#[test]
fn a_larger_event_gets_413() {
    let site = Site::start("location / { PASS meteorit_max_event_size 1k; }");
    let mut http = site.http();
    let event = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8));
    assert_eq!(http.post("/", event(1024)).status, 204);
    let problem = assert_problem(&http.post("/", event(1025)), 413, "event-too-large");
    assert!(problem["detail"].as_str().unwrap().contains("1024"), "{problem}");
    let chunked = http.post_chunked("/", &[event(1025).as_bytes()]);
    assert_problem(&chunked, 413, "event-too-large");
    assert_eq!(site.redis.len("list"), 1);
}

/// Each status of a rejection, with a request that gets it.
fn rejections() -> [(u16, Request); 5] {
    [
        (400, Request::post("/events", "{")),
        (405, Request::get("/events")),
        (413, Request::post("/events", format!("{{\"a\":\"{}\"}}", "x".repeat(70_000)))),
        (415, Request::new("POST", "/events").header("Content-Type", "text/html").body("{}")),
        (422, Request::post("/events", "[]")),
    ]
}

const ERROR_PAGES: &str = "error_page 500 502 503 504 400 413 415 422 405 /50x.html;
    location = /50x.html { internal; default_type text/html; return 200 \"the page\"; }";

#[test]
fn problems_stand_where_the_server_has_error_pages() {
    let site = Site::start(&format!("{ERROR_PAGES}\nlocation /events {{ PASS }}"));
    let mut http = site.http();
    for (status, request) in rejections() {
        let response = http.call(&request);
        assert_eq!(response.header("Content-Type"), Some("application/problem+json"));
        assert_eq!((response.status, response.json()["status"].as_u64()), (status, Some(status.into())));
    }
    drop(http);
    for (status, _) in rejections() {
        site.nginx.wait_access(&format!("/events {status} rejected -"));
    }
}

#[test]
fn error_pages_are_served_when_errors_are_intercepted() {
    let site = Site::start(&format!("{ERROR_PAGES}\nlocation /events {{ PASS meteorit_intercept_errors on; }}"));
    for (status, request) in rejections() {
        // nginx closes the connection when it answers 400 or 413 itself.
        let response = site.http().call(&request);
        assert_eq!((response.status, response.text().as_str()), (status, "the page"));
        assert_eq!(response.header("Content-Type"), Some("text/html"));
        if status == 405 {
            assert_eq!(response.header("Allow"), Some("POST, PUT"));
        }
    }
    assert_eq!(site.http().post("/events", "{}").status, 204);
    // The request has been redirected by then, and is still known.
    for (status, _) in rejections() {
        site.nginx.wait_access(&format!("/50x.html {status} rejected -"));
    }
    assert_eq!(site.redis.list("list"), [b"{}"]);
}

#[test]
fn intercepted_errors_without_a_page_of_their_own_keep_our_body() {
    let site = Site::start(
        "error_page 404 500 /50x.html;
         location = /50x.html { return 200 page; }
         location /events { PASS meteorit_intercept_errors on; }",
    );
    let mut http = site.http();
    for (status, request) in rejections() {
        let response = http.call(&request);
        assert_eq!((response.status, response.json()["status"].as_u64()), (status, Some(status.into())));
    }
}

#[test]
fn an_error_page_can_change_the_status_and_redirect() {
    let site = Site::start(
        "error_page 400 =200 /ok; error_page 415 https://example.com/help; error_page 422 = @named;
         location = /ok { internal; return 200 fine; }
         location @named { return 202 named; }
         location /events { PASS meteorit_intercept_errors on; }",
    );
    let answers = rejections().map(|(status, request)| (status, site.http().call(&request)));
    let of = |status: u16| answers.iter().find(|(known, _)| *known == status).map(|(_, response)| response).unwrap();
    assert_eq!((of(400).status, of(400).text().as_str()), (200, "fine"));
    assert_eq!((of(415).status, of(415).header("Location")), (302, Some("https://example.com/help")));
    assert_eq!((of(422).status, of(422).text().as_str()), (202, "named"));
    site.nginx.wait_access("/ok 200 rejected -");
    site.nginx.wait_access("/events 202 rejected -");
}

#[test]
fn intercept_errors_is_inherited_and_overridden() {
    let site = Site::start(&format!(
        "{ERROR_PAGES}\nmeteorit_intercept_errors on;\n
         location /pages {{ PASS }}
         location /problems {{ PASS meteorit_intercept_errors off; }}"
    ));
    assert_eq!(site.http().post("/pages", "{").text(), "the page");
    assert_eq!(site.http().post("/problems", "{").json()["status"], 400);
}

#[test]
fn the_access_log_tells_what_became_of_an_event() {
    let site = Site::start("location /events { PASS } location /other { return 200 x; }");
    let mut http = site.http();
    assert_eq!(http.post("/events", "[1]").status, 422);
    assert_eq!(http.post("/events/a", "{}").status, 204);
    assert_eq!(http.get("/other").status, 200);
    drop(http);
    assert_eq!(site.nginx.wait_access("/events 422"), "/events 422 rejected -");
    assert_eq!(site.nginx.wait_access("/other"), "/other 200 - -");
    let stored = site.nginx.wait_access("/events/a");
    let time = stored.strip_prefix("/events/a 204 stored ").unwrap_or_else(|| panic!("{stored}"));
    assert!(time.len() == 5 && time.parse::<f64>().is_ok_and(|time| time < 5.0), "{stored}");
}

#[test]
fn the_limits_are_64_levels_1024_members_and_64_kb_unless_set() {
    let site = Site::start("client_max_body_size 10m; location / { PASS }");
    let mut http = site.http();
    // The event itself is the first level.
    let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert_eq!(http.post("/", deep(64)).status, 204);
    let problem = assert_problem(&http.post("/", deep(65)), 422, "invalid-event");
    assert_eq!(problem["pointer"], format!("/a{}", "/0".repeat(63)));
    assert_eq!(http.post("/", members(1024)).status, 204);
    assert_problem(&http.post("/", members(1025)), 422, "invalid-event");
    let event = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8));
    assert_eq!(http.post("/", event(65536)).status, 204);
    assert_problem(&http.post("/", event(65537)), 413, "event-too-large");
}

fn members(count: usize) -> String {
    let members: Vec<String> = (0..count).map(|n| format!("\"{n}\":0")).collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn limits_are_inherited_and_overridden() {
    let redis = Redis::start();
    let nginx = Nginx::start(
        &"meteorit_max_depth 2; meteorit_max_members 2; meteorit_max_event_size 40; meteorit_duplicate_names allow;
          server {
              listen 127.0.0.1:%PORT%;
              location /http { PASS }
              location /own {
                  PASS
                  meteorit_max_depth 3; meteorit_max_members 3; meteorit_max_event_size 50; meteorit_duplicate_names reject;
              }
          }
          server {
              listen 127.0.0.1:%PORT2%;
              meteorit_max_depth 3; meteorit_max_members 3; meteorit_max_event_size 50; meteorit_duplicate_names reject;
              location /server { PASS }
              location /outer { meteorit_max_depth 2; location /outer/inner { PASS } }
          }"
        .replace("PASS", &format!("meteorit_pass {}; meteorit_command RPUSH list $event;", redis.url())),
    );
    let depth3 = r#"{"a":[[]]}"#;
    let members3 = r#"{"a":1,"b":2,"c":3}"#;
    let twice = r#"{"a":1,"a":2}"#;
    let bytes45 = format!("{{\"a\":\"{}\"}}", "x".repeat(37));
    let statuses = |port: u16, path: &str| -> Vec<u16> {
        [depth3, members3, twice, &bytes45].into_iter().map(|event| post(port, path, event).status).collect()
    };
    assert_eq!(statuses(nginx.port(), "/http"), [422, 422, 204, 413]);
    assert_eq!(statuses(nginx.port(), "/own"), [204, 204, 422, 204]);
    assert_eq!(statuses(nginx.port_n(2), "/server"), [204, 204, 422, 204]);
    assert_eq!(statuses(nginx.port_n(2), "/outer/inner"), [422, 204, 422, 204]);
}

#[test]
fn duplicate_names_that_are_allowed_are_stored_as_sent() {
    let site = Site::start("location / { PASS meteorit_duplicate_names allow; }");
    let event = r#"{"a":1,"a":2,"o":{"b":[],"b":{}}}"#;
    assert_eq!(post(site.nginx.port(), "/", event).status, 204);
    assert_eq!(site.redis.list("list"), [event.as_bytes()]);
}

/// What wants to cost a worker its stack, its memory or its time, with the status it gets under raised limits.
fn hostile() -> Vec<(&'static str, Vec<u8>, u16)> {
    let text = |text: String| text.into_bytes();
    let big = 5 * 1024 * 1024;
    // Names that differ in their last bytes only, long enough to make every comparison dear.
    let alike: Vec<String> = (0..9_000).map(|n| format!("\"{}{n:05}\":0", "x".repeat(200))).collect();
    let escaped: Vec<String> = (0..10_000).map(|n| format!("\"\\u0061{n}\":0")).collect();
    vec![
        ("open brackets", b"[".repeat(100_000), 422),
        ("open brackets in an object", text(format!("{{\"a\":{}", "[".repeat(100_000))), 422),
        ("open objects", b"{\"a\":".repeat(100_000), 422),
        ("closed brackets", b"]".repeat(100_000), 400),
        ("NUL bytes", vec![0; 100_000], 400),
        ("NUL bytes in a string", text(format!("{{\"a\":\"{}\"}}", "\0".repeat(1000))), 400),
        ("a string of 5 MB", text(format!("{{\"a\":\"{}\"}}", "x".repeat(big))), 204),
        ("an open string of 5 MB", text(format!("{{\"a\":\"{}", "x".repeat(big))), 400),
        ("5 MB of escapes", text(format!("{{\"a\":\"{}\"}}", "\\u0000".repeat(big / 6))), 204),
        ("a name of 5 MB, twice", text(format!("{{\"{0}\":1,\"{0}\":2}}", "n".repeat(big / 2))), 422),
        ("60 kB of backslashes", text(format!("{{\"a\":\"{}\"}}", "\\".repeat(60_000))), 204),
        ("an odd number of backslashes", text(format!("{{\"a\":\"{}\"}}", "\\".repeat(60_001))), 400),
        ("a number of 1 MB", text(format!("{{\"a\":{}}}", "9".repeat(1024 * 1024))), 204),
        ("an exponent of 1 MB", text(format!("{{\"a\":1e{}}}", "9".repeat(1024 * 1024))), 204),
        ("a fraction of 1 MB", text(format!("{{\"a\":-0.{}e-9}}", "0".repeat(1024 * 1024))), 204),
        ("10 000 members", text(members(10_000)), 204),
        ("10 001 members", text(members(10_001)), 422),
        ("long names alike", text(format!("{{{}}}", alike.join(","))), 204),
        ("escaped names", text(format!("{{{}}}", escaped.join(","))), 204),
        ("1 000 000 elements", text(format!("{{\"a\":[0{}]}}", ",0".repeat(1_000_000))), 204),
        ("white space of 5 MB", vec![b' '; big], 400),
        ("5 MB of white space before an event", [vec![b'\n'; big], b"{}".to_vec()].concat(), 204),
        ("line feeds before a mistake", [vec![b'\n'; big], b"?".to_vec()].concat(), 400),
        ("invalid UTF-8 of 5 MB", [b"{\"a\":\"".to_vec(), vec![0xff; big]].concat(), 400),
        ("random bytes", (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect(), 400),
    ]
}

#[test]
fn hostile_input_is_answered_by_a_worker_that_lives_on() {
    let site = Site::start(
        "client_max_body_size 20m; client_body_buffer_size 1m;
         location /raised { PASS meteorit_max_event_size 16m; meteorit_max_members 10000; }
         location /default { PASS }",
    );
    let workers = site.nginx.worker_pids();
    let mut http = site.http();
    let send_all = |http: &mut Http| {
        for (what, body, status) in hostile() {
            let before = site.nginx.worker_cpu();
            let response = http.post("/raised", &body);
            assert_eq!(response.status, status, "{what}: {}", response.text());
            assert!(response.body.len() < 4096, "{what}: an answer of {} bytes", response.body.len());
            let cost = site.nginx.worker_cpu() - before;
            assert!(cost < Duration::from_secs(2), "{what} takes {cost:?}");
            let response = http.post("/default", &body);
            assert!([204, 400, 413, 422].contains(&response.status), "{what}: {}", response.status);
            site.redis.cmd(&["DEL", "list"]);
        }
    };
    send_all(&mut http);
    let after_once = site.nginx.worker_rss_kb();
    // The largest event is 5 MB; its tape and what waits for Redis are a small multiple of it.
    assert!(after_once < 200 * 1024, "{after_once} kB after each once");
    for _ in 0..3 {
        send_all(&mut http);
    }
    let after_more = site.nginx.worker_rss_kb();
    assert!(after_more < after_once + 16 * 1024, "{after_once} kB, then {after_more} kB");
    assert_eq!(http.post("/default", "{}").status, 204);
    assert_eq!(site.nginx.worker_pids(), workers);
}

#[test]
fn rejections_do_not_grow_a_worker() {
    let site = Site::start("location /events { PASS }");
    let workers = site.nginx.worker_pids();
    let send = |count| {
        let requests: Vec<Vec<u8>> = rejections().map(|(_, request)| request.to_bytes()).into();
        let sent = load(site.nginx.port(), 4, Until::PerConnection(count), move |id| {
            requests[id as usize % requests.len()].clone()
        });
        assert!(sent.iter().all(|sent| matches!(sent.result, Ok(400..=422))), "{sent:?}");
    };
    send(500);
    let before = site.nginx.worker_rss_kb();
    send(2000);
    let after = site.nginx.worker_rss_kb();
    assert!(after < before + 2048, "{before} kB, then {after} kB");
    assert_eq!(site.nginx.worker_pids(), workers);
    eventually(SOON, || site.nginx.access_log().lines().count() == 10_000);
    assert!(site.nginx.access_log().lines().all(|line| line.ends_with(" rejected -")));
}
