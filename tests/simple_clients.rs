//! Events from what cannot, or will not, send JSON by POST: query strings, forms, images that ask for a pixel.

mod common;
#[path = "simple_clients/directives.rs"]
mod directives;

use common::*;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

const FORM: &str = "application/x-www-form-urlencoded";

impl Site {
    /// A server with these directives and locations.
    fn start(text: &str) -> Site {
        Site::of(Nginx::builder().log_format("$request_method $uri $status $meteorit_status"), text)
    }

    /// What has been written since the last time.
    #[track_caller]
    fn written(&self) -> Vec<String> {
        self.taken("list")
    }
}

fn form(body: impl AsRef<[u8]>) -> Request {
    Request::new("POST", "/").header("Content-Type", FORM).body(body)
}

#[track_caller]
fn assert_problem(response: &Response, status: u16, kind: &str) -> Value {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(response.header("Content-Type"), Some("application/problem+json"));
    let problem = response.json();
    assert_eq!(problem["type"], format!("urn:meteorit:problem:{kind}"), "{problem}");
    problem
}

/// Takes the image apart with nothing but what the format says.
const READ_GIF: &str = r#"
import struct, sys
data = sys.stdin.buffer.read()
assert data[:6] == b"GIF89a", data[:6]
width, height, flags, background, aspect = struct.unpack("<HHBBB", data[6:13])
assert (width, height) == (1, 1), (width, height)
at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
transparent, pixels = None, None
while True:
    kind = data[at]
    if kind == 0x3b:
        break
    if kind == 0x21:
        label, at = data[at + 1], at + 2
        if label == 0xf9:
            size, packed, delay, index, end = struct.unpack("<BBHBB", data[at:at + 6])
            assert (size, end) == (4, 0)
            transparent = index if packed & 1 else None
    elif kind == 0x2c:
        left, top, w, h, packed = struct.unpack("<HHHHB", data[at + 1:at + 10])
        assert (left, top, w, h, packed) == (0, 0, 1, 1, 0)
        minimum, at, lzw = data[at + 10], at + 11, b""
        there = at
        while data[there]:
            lzw += data[there + 1:there + 1 + data[there]]
            there += 1 + data[there]
        bits, width_, codes, pos = int.from_bytes(lzw, "little"), minimum + 1, [], 0
        while True:
            code = bits >> pos & (1 << width_) - 1
            pos += width_
            if code == (1 << minimum) + 1:
                break
            codes.append(code)
            assert len(codes) < 5, codes
        assert codes[0] == 1 << minimum and len(codes) == 2, codes
        pixels = codes[1:]
    else:
        raise SystemExit(f"an unknown block {kind} at {at}")
    while data[at]:
        at += 1 + data[at]
    at += 1
assert at + 1 == len(data), "something behind the end"
assert transparent is not None and pixels == [transparent], (transparent, pixels)
"#;

#[track_caller]
fn assert_is_a_transparent_pixel(gif: &[u8]) {
    let mut python = Command::new("python3")
        .args(["-c", READ_GIF])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    python.stdin.take().expect("its input").write_all(gif).expect("the image");
    let output = python.wait_with_output().expect("python3 ends");
    assert!(output.status.success(), "{gif:02x?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The head that goes with a pixel, and the pixel.
#[track_caller]
fn assert_pixel(response: &Response, status: u16) {
    assert_eq!((response.status, response.header("Content-Type")), (status, Some("image/gif")), "{}", response.text());
    let control = response.header("Cache-Control").unwrap_or_default();
    assert!(control.contains("no-store"), "Cache-Control: {control}");
    assert_eq!(response.header("Content-Length"), Some(response.body.len().to_string().as_str()));
    assert!(!response.closes());
    assert_is_a_transparent_pixel(&response.body);
}

#[test]
fn the_methods_said_are_taken_and_the_others_get_405_with_the_list() {
    let site = Site::start(
        "location /default { PASS }
         location /get { PASS meteorit_methods GET; }
         location /head { PASS meteorit_methods HEAD GET; }
         location /post { PASS meteorit_methods POST; }
         location /all { PASS meteorit_methods PUT HEAD POST GET; }",
    );
    let mut http = site.http();
    for (path, methods) in [
        ("/default", &["POST", "PUT"][..]),
        ("/get", &["GET"]),
        ("/head", &["GET", "HEAD"]),
        ("/post", &["POST"]),
        ("/all", &["GET", "HEAD", "POST", "PUT"]),
    ] {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let has_body = matches!(method, "POST" | "PUT");
            let response = http.request(method, &format!("{path}?a=1"), &[], if has_body { "{}" } else { "" });
            let expected = if methods.contains(&method) { 204 } else { 405 };
            assert_eq!(response.status, expected, "{method} {path}");
            let allow = methods.join(", ");
            assert_eq!(response.header("Allow"), Some(&*allow).filter(|_| expected == 405), "{method} {path}");
            if expected == 405 && method != "HEAD" {
                let problem = assert_problem(&response, 405, "method-not-allowed");
                assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(&allow)), "{problem}");
            }
        }
        let written = site.written();
        assert_eq!(written.len(), methods.len(), "{path}: {written:?}");
    }
}

#[test]
fn a_query_string_becomes_an_object_of_strings() {
    let site = Site::start("location / { PASS meteorit_methods GET; }");
    let mut http = site.http();
    for (query, event) in [
        ("", "{}"),
        ("?", "{}"),
        ("?&&", "{}"),
        ("?page=/a/b&ms=12", r#"{"page":"/a/b","ms":"12"}"#),
        ("?z=1&a=2&z=3", r#"{"z":["1","3"],"a":"2"}"#),
        ("?a", r#"{"a":""}"#),
        ("?a=&=b", r#"{"a":"","":"b"}"#),
        ("?q=a+b%20c%2Bd", r#"{"q":"a b c+d"}"#),
        ("?q=1=2?3", r#"{"q":"1=2?3"}"#),
        (
            "?n%61me=caf%C3%A9&%F0%9F%98%80=%22%5C%0A%00",
            "{\"name\":\"caf\u{e9}\",\"\u{1f600}\":\"\\\"\\\\\\n\\u0000\"}",
        ),
        ("?data=%7B%7D", r#"{"data":"{}"}"#),
        ("?a[]=1&a[]=2&b.c=3", r#"{"a[]":["1","2"],"b.c":"3"}"#),
    ] {
        let response = http.get(&format!("/{query}"));
        assert_eq!((response.status, response.body.len()), (204, 0), "{query}: {}", response.text());
        assert_eq!(site.written(), [event], "{query}");
    }
}

#[test]
fn a_query_string_that_cannot_be_decoded_is_400() {
    let site = Site::start("location / { PASS meteorit_methods GET; }");
    let mut http = site.http();
    for (query, why) in [
        ("?a=%", "percent-encoding at byte 2"),
        ("?a=1&b=%4", "percent-encoding at byte 6"),
        ("?%zz=1", "percent-encoding at byte 0"),
        ("?a=%ff", "UTF-8 at byte 2"),
        ("?a=%C3%28", "UTF-8 at byte 2"),
        ("?%ED%A0%80=1", "UTF-8 at byte 0"),
    ] {
        let problem = assert_problem(&http.get(&format!("/{query}")), 400, "not-a-form");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(why)), "{query}: {problem}");
    }
    http.send_raw(b"GET /?a=\xff HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_problem(&http.read_response_to("GET"), 400, "not-a-form");
    assert_eq!(site.written(), [""; 0]);
    assert_eq!(http.get("/?a=1").status, 204);
}

#[test]
fn a_query_string_or_a_form_keeps_the_bounds_of_an_event() {
    let site = Site::start(
        "location / { PASS meteorit_methods GET POST; meteorit_max_members 3; meteorit_max_event_size 100; }
         location /shallow { PASS meteorit_methods GET POST; meteorit_max_depth 1; }",
    );
    let mut http = site.http();
    // As an object: {"a":"…"}
    let long = |size: usize| format!("a={}", "x".repeat(size - 8));
    // Three bytes each here, six there: \u0001
    let escaped = format!("a={}", "%01".repeat(16));
    for send in [
        |http: &mut Http, text: &str| http.get(&format!("/?{text}")),
        |http: &mut Http, text: &str| http.call(&form(text)),
    ] {
        for text in ["a=1&b=2&c=3", "a=1&a=2&a=3", &*long(100)] {
            assert_eq!(send(&mut http, text).status, 204, "{text}");
        }
        let problem = assert_problem(&send(&mut http, "a=1&b=2&c=3&d=4"), 422, "invalid-event");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("more than 3 members")), "{problem}");
        assert_problem(&send(&mut http, "a=1&a=2&a=3&a=4"), 422, "invalid-event");
        assert_problem(&send(&mut http, &long(101)), 413, "event-too-large");
        assert_problem(&send(&mut http, &escaped), 413, "event-too-large");
        assert_eq!(site.written().len(), 3);
    }
    assert_eq!(http.get("/shallow?a=1").status, 204);
    // A name that comes twice has an array.
    assert_problem(&http.get("/shallow?a=1&a=2"), 422, "invalid-event");
}

#[test]
fn head_is_a_get_without_a_body_in_the_answer() {
    let site = Site::start(
        "location /none { PASS meteorit_methods HEAD; }
         location /json { PASS meteorit_methods HEAD; meteorit_response json; }
         location /pixel { PASS meteorit_methods HEAD; meteorit_response pixel; }",
    );
    let mut http = site.http();
    for (path, status, media_type) in
        [("/none", 204, None), ("/json", 200, Some("application/json")), ("/pixel", 200, Some("image/gif"))]
    {
        for n in 0..2 {
            let response = http.request("HEAD", &format!("{path}?n={n}"), &[], "");
            assert_eq!((response.status, response.header("Content-Type")), (status, media_type), "{path}");
        }
        assert_eq!(site.written(), [r#"{"n":"0"}"#, r#"{"n":"1"}"#]);
        let rejected = http.request("HEAD", &format!("{path}?n=%"), &[], "");
        assert_eq!(rejected.status, 400, "{path}");
        // A body would be taken for the next answer.
        assert!(http.is_silent(Duration::from_millis(50)));
    }
}

#[test]
fn the_body_of_a_get_does_not_matter() {
    let site = Site::start("location / { PASS meteorit_methods GET; }");
    let mut http = site.http();
    let response = http.request("GET", "/?a=1", &[("Content-Type", "text/html")], "<p>");
    assert_eq!(response.status, 204, "{}", response.text());
    assert_eq!(http.get("/?a=2").status, 204);
    assert_eq!(site.written(), [r#"{"a":"1"}"#, r#"{"a":"2"}"#]);
}

#[test]
fn a_form_becomes_an_object_of_strings() {
    let site = Site::start("location / { PASS }");
    let mut http = site.http();
    for media_type in
        [FORM, "application/x-www-form-urlencoded; charset=UTF-8", "Application/X-WWW-Form-URLencoded;charset=utf-8"]
    {
        for (body, event) in [
            ("", "{}"),
            ("page=%2Fa&ms=12&tag=x&tag=y+z", r#"{"page":"/a","ms":"12","tag":["x","y z"]}"#),
            ("data=1", r#"{"data":"1"}"#),
            ("data=%7B%7D&x=1", r#"{"data":"{}","x":"1"}"#),
        ] {
            for method in ["POST", "PUT"] {
                // What the query string says is no part of it.
                let response = http.request(method, "/?not=this", &[("Content-Type", media_type)], body);
                assert_eq!(response.status, 204, "{body}: {}", response.text());
                assert_eq!(site.written(), [event], "{body}");
            }
        }
    }
    http.start_chunked(&form(""));
    for chunk in ["a=%C", "3%A9&b", "=1"] {
        http.send_chunk(chunk.as_bytes());
    }
    http.end_chunks();
    assert_eq!(http.read_response().status, 204);
    assert_eq!(site.written(), ["{\"a\":\"\u{e9}\",\"b\":\"1\"}"]);
}

#[test]
fn a_form_of_data_alone_is_the_json_in_it() {
    let site = Site::start("location / { PASS }");
    let mut http = site.http();
    for (body, event) in [
        ("data=%7B%22a%22%3A%201.50%7D", r#"{"a": 1.50}"#),
        ("data={\"a\":[\"%2B+%26\"]}", r#"{"a":["+ &"]}"#),
        ("data=+%0A{}%0A", " \n{}\n"),
    ] {
        let response = http.call(&form(body));
        assert_eq!(response.status, 204, "{body}: {}", response.text());
        assert_eq!(site.written(), [event]);
    }
    let problem = assert_problem(&http.call(&form("data={\"a\":%0A1,}")), 400, "not-json");
    assert_eq!((&problem["line"], &problem["column"]), (&json!(2), &json!(3)), "in the JSON, not in the form");
    let problem = assert_problem(&http.call(&form("data={\"a\":1,\"a\":2}")), 422, "invalid-event");
    assert_eq!(problem["pointer"], "/a");
    assert_problem(&http.call(&form("data=[{}]")), 422, "invalid-event");
    assert_eq!(site.written(), [""; 0]);
}

#[test]
fn a_form_that_cannot_be_decoded_is_400() {
    let site = Site::start("location / { PASS }");
    let mut http = site.http();
    for body in [&b"a=%"[..], b"a=%f", b"a=%0g", b"a=\xff", b"a=%ff", b"data=%7B%22a%22:%22%ff%22%7D", b"%c3=1"] {
        assert_problem(&http.call(&form(body)), 400, "not-a-form");
    }
    // A form is a form only under its name.
    assert_problem(&http.request("POST", "/", &[("Content-Type", "text/plain")], "a=1"), 400, "not-json");
    let multipart = http.request("POST", "/", &[("Content-Type", "multipart/form-data; boundary=x")], "--x--");
    assert_problem(&multipart, 415, "unsupported-media-type");
    assert_eq!(site.written(), [""; 0]);
}

#[test]
fn a_form_as_a_browser_and_as_curl_sends_it() {
    let site = Site::start("location / { PASS meteorit_methods GET POST; }");
    let sent = curl(&["--data-urlencode", "q=a b&c=é", "-d", "n=1", &site.nginx.url("/")]);
    assert_eq!((sent.status, sent.body.len()), (204, 0), "{}", sent.stderr);
    let got = curl(&["-G", "--data-urlencode", "q=a b&c=é", "-d", "n=1", &site.nginx.url("/")]);
    assert_eq!(got.status, 204, "{}", got.stderr);
    let head = curl(&["-I", &site.nginx.url("/?a=1")]);
    assert_eq!((head.status, head.header("Allow")), (405, Some("GET, POST")));
    let event = "{\"q\":\"a b&c=\u{e9}\",\"n\":\"1\"}";
    assert_eq!(site.written(), [event, event]);
}

#[test]
fn a_pixel_comes_whatever_became_of_the_event_and_the_status_tells() {
    let site = Site::start(
        "location / { PASS meteorit_methods GET POST; meteorit_response pixel; }
         location /key { meteorit_pass REDIS; meteorit_methods GET; meteorit_response pixel;
                         meteorit_command INCR hits:$event_page; }",
    );
    let mut http = site.http();
    assert_pixel(&http.get("/?page=a"), 200);
    assert_pixel(&http.get("/?page=%"), 400);
    assert_pixel(&http.call(&form(format!("page={}", "%01".repeat(12_000)))), 413);
    assert_pixel(&http.post("/", "{}"), 200);
    assert_pixel(&http.post("/", "{"), 400);
    assert_pixel(&http.post("/", "[]"), 422);
    assert_pixel(&http.request("POST", "/", &[("Content-Type", "text/html")], "{}"), 415);
    let response = http.request("PUT", "/", &[], "{}");
    assert_pixel(&response, 405);
    assert_eq!(response.header("Allow"), Some("GET, POST"));
    assert_pixel(&http.get("/key?page=a"), 200);
    assert_pixel(&http.get("/key"), 422);
    site.redis.cmd(&["SET", "hits:text", "x"]);
    assert_pixel(&http.get("/key?page=text"), 422);
    site.redis.cmd(&["RPUSH", "hits:list", "x"]);
    assert_pixel(&http.get("/key?page=list"), 502);
    assert_eq!(site.written(), [r#"{"page":"a"}"#, "{}"]);
    site.nginx.wait_access("GET / 400 rejected");
    site.nginx.wait_access("GET /key 502 refused");
}

#[test]
fn a_pixel_comes_also_while_redis_is_away() {
    let site = Site::start("location / { PASS meteorit_methods GET; meteorit_response pixel; }");
    let mut http = site.http();
    assert_pixel(&http.get("/?n=1"), 200);
    site.redis.stop();
    eventually(SOON, || http.get("/?n=2").status == 503);
    let response = http.get("/?n=3");
    assert_pixel(&response, 503);
    assert!(response.header("Retry-After").is_some_and(|value| value.parse::<u32>().is_ok_and(|time| time > 0)));
    site.redis.restart();
    eventually(SOON, || http.get("/?n=4").status == 200);
    assert_eq!(site.written(), [r#"{"n":"4"}"#]);
}

#[test]
fn an_answer_in_json_has_the_id_that_is_in_redis() {
    let site = Site::start(
        "location / {
             meteorit_pass REDIS; meteorit_methods GET HEAD POST; meteorit_response json;
             meteorit_command RPUSH list $meteorit_id;
         }
         location /unused { PASS meteorit_response json; }
         location /own { PASS meteorit_response json; meteorit_event_id $event_id; }
         location /nothing { meteorit_pass REDIS; meteorit_response json; meteorit_command if=$event_a RPUSH list a; }",
    );
    let mut http = site.http();
    let mut ids = Vec::new();
    for response in [http.get("/?a=1"), http.post("/", "{}"), http.call(&form("a=1"))] {
        assert_eq!((response.status, response.header("Content-Type")), (200, Some("application/json")));
        let answer = response.json();
        let id = answer["ids"][0].as_str().expect("an id").to_owned();
        assert_eq!(answer, json!({"accepted": 1, "rejected": 0, "ids": [id], "errors": []}));
        ids.push(id);
    }
    assert_eq!(site.written(), ids);
    assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
    // Also where no command asks for it.
    assert_eq!(http.post("/unused", "{}").json()["ids"][0].as_str().map(str::len), Some(36));
    assert_eq!(http.post("/own", r#"{"id":"a \"b\""}"#).json()["ids"], json!(["a \"b\""]));
    assert_eq!(http.post("/nothing", "{}").json()["accepted"], 1);
    // What is wrong is a problem as ever.
    assert_problem(&http.post("/", "{"), 400, "not-json");
    assert_problem(&http.get("/?a=%"), 400, "not-a-form");
    assert_problem(&http.request("PUT", "/", &[], "{}"), 405, "method-not-allowed");
    site.redis.cmd(&["SET", "list", "x"]);
    assert_problem(&http.post("/", "{}"), 502, "refused-by-redis");
}

#[test]
fn an_event_by_get_may_be_intercepted_as_any_other() {
    let site = Site::start(
        "error_page 400 /page; location = /page { internal; return 200 page; }
         location /events { PASS meteorit_methods GET; meteorit_response pixel; meteorit_intercept_errors on; }",
    );
    let response = site.http().get("/events?a=%");
    assert_eq!((response.status, response.text().as_str()), (400, "page"));
    assert_pixel(&site.http().get("/events?a=1"), 200);
}

#[test]
fn every_kind_of_request_leaves_the_connection_to_the_next() {
    let site = Site::start(
        "location / { PASS meteorit_methods GET HEAD POST PUT; meteorit_batch partial; meteorit_response json; }",
    );
    let requests: Vec<(Request, u16)> = vec![
        (Request::get("/?a=1"), 200),
        (Request::new("HEAD", "/?a=2"), 200),
        (form("a=3"), 200),
        (Request::get("/?a=%"), 400),
        (Request::new("HEAD", "/?a=%"), 400),
        (form("a=%"), 400),
        (form("data={\"a\":4}"), 200),
        (Request::post("/", "[{},7]"), 207),
        (Request::post("/", "["), 400),
        (Request::new("POST", "/").header("Content-Type", "application/x-ndjson").body("{}\n{\n"), 207),
        (Request::new("DELETE", "/"), 405),
        (Request::new("POST", "/").header("Content-Type", "image/png").body("{}"), 415),
        (Request::new("PUT", "/").body("{}"), 200),
    ];
    let mut http = site.http();
    let statuses: Vec<u16> = requests.iter().map(|(_, status)| *status).collect();
    let pipelined: Vec<Request> = requests.into_iter().map(|(request, _)| request).collect();
    for _ in 0..2 {
        let one_by_one: Vec<Response> = pipelined.iter().map(|request| http.call(request)).collect();
        for answers in [one_by_one, http.pipeline(&pipelined)] {
            assert!(answers.iter().all(|answer| !answer.closes()));
            assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), statuses);
        }
    }
    assert_eq!(site.written().len(), 4 * 7);
}
