//! CORS as a browser sees it: what preflights are told, which answers carry the headers, and who is refused.

mod common;
#[path = "cors/directive.rs"]
mod directive;
#[path = "cors/error_pages.rs"]
mod error_pages;

use common::*;

const SHOP: &str = "https://shop.example";
const EVIL: &str = "https://evil.example";

/// What a location needs to take events.
fn pass(redis: &Redis) -> String {
    format!("meteorit_pass {}; meteorit_command RPUSH list $event;", redis.url())
}

/// A server with these directives and locations; `PASS` stands for a meteorit_pass with one command.
fn start(text: &str) -> (Nginx, Redis) {
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .log_format("$request_method $uri $status $meteorit_status")
        .text(&text.replace("PASS", &pass(&redis)))
        .start();
    (nginx, redis)
}

fn preflight(path: &str, origin: &str) -> Request {
    Request::new("OPTIONS", path)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "content-type")
}

fn event(path: &str, origin: &str) -> Request {
    Request::post(path, "{}").header("Origin", origin)
}

/// The values of a header, however many lines it has.
fn all(response: &Response, name: &str) -> Vec<String> {
    let lines = response.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
    lines.map(|(_, value)| value.clone()).collect()
}

/// A page of this origin may read the answer.
#[track_caller]
fn assert_readable(response: &Response, status: u16, origin: &str) {
    assert_eq!(response.status, status, "{}", response.text());
    assert_eq!(all(response, "Access-Control-Allow-Origin"), [origin], "{response:?}");
    assert!(all(response, "Vary").contains(&"Origin".into()), "{response:?}");
}

/// No page of another origin may.
#[track_caller]
fn assert_not_readable(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{}", response.text());
    let headers = response.headers.iter().filter(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-"));
    assert_eq!(headers.count(), 0, "{response:?}");
}

#[test]
fn a_preflight_is_told_what_the_location_takes() {
    let (nginx, redis) = start(
        "location /a { PASS meteorit_cors https://shop.example; }
         location /b { PASS meteorit_cors https://*.example credentials; meteorit_methods GET POST; }
         location /c { PASS meteorit_cors *; }",
    );
    let mut http = Http::connect(nginx.port());
    for (path, origin, methods, credentials) in
        [("/a", SHOP, "POST, PUT", None), ("/b", SHOP, "GET, POST", Some("true")), ("/c", "*", "POST, PUT", None)]
    {
        let response = http.call(&preflight(path, SHOP));
        assert_readable(&response, 204, origin);
        assert_eq!(response.header("Access-Control-Allow-Methods"), Some(methods));
        assert_eq!(response.header("Access-Control-Allow-Headers"), Some("content-type"));
        assert_eq!(response.header("Access-Control-Max-Age"), Some("86400"));
        assert_eq!(response.header("Access-Control-Allow-Credentials"), credentials);
    }
    assert_not_readable(&http.call(&preflight("/a", EVIL)), 204);
    assert_not_readable(&http.call(&preflight("/a", "null")), 204);
    // Nothing but both headers makes a preflight.
    assert_readable(&http.request("OPTIONS", "/a", &[("Origin", SHOP)], ""), 405, SHOP);
    assert_not_readable(&http.request("OPTIONS", "/a", &[("Access-Control-Request-Method", "POST")], ""), 405);
    // What comes with one does not become the next request.
    assert_readable(&http.call(&preflight("/a", SHOP).body("POST /a HTTP/1.1\r\n")), 204, SHOP);
    assert_readable(&http.call(&event("/a", SHOP)), 204, SHOP);
    assert_eq!(redis.len("list"), 1);
}

#[test]
fn a_preflight_needs_to_pass_no_limit_and_no_access_rule() {
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .http("limit_req_zone $server_port zone=z:1m rate=1r/m; meteorit_cors https://shop.example;")
        .http(&pass(&redis).replace(&format!("meteorit_pass {};", redis.url()), ""))
        .file("users", "ann:{PLAIN}secret\n")
        .server(
            &"location /auth { auth_basic x; auth_basic_user_file %DIR%/users; meteorit_pass REDIS; }
             location /deny { deny all; meteorit_pass REDIS; }
             location /limit { limit_req zone=z; limit_req_status 429; meteorit_pass REDIS; }
             location /except { meteorit_pass REDIS; limit_except POST { deny all; } }
             location /if { if ($http_x_api_key = '') { return 401; } meteorit_pass REDIS; }
             location /return { meteorit_cors https://shop.example; return 403; }
             location /rewrite { rewrite ^ /deny last; meteorit_pass REDIS; }"
                .replace("REDIS", &redis.url()),
        )
        .start();
    let mut http = Http::connect(nginx.port());
    assert_readable(&http.call(&event("/limit", SHOP)), 204, SHOP);
    for (path, status) in [
        ("/auth", 401),
        ("/deny", 403),
        ("/limit", 429),
        ("/except", 204),
        ("/if", 401),
        ("/return", 403),
        ("/rewrite", 403),
    ] {
        assert_readable(&http.call(&event(path, SHOP)), status, SHOP);
        assert_readable(&http.call(&preflight(path, SHOP)), 204, SHOP);
        assert_not_readable(&http.call(&preflight(path, EVIL)), 204);
    }
    // Another method than limit_except takes.
    assert_readable(&http.request("PUT", "/except", &[("Origin", SHOP)], "{}"), 403, SHOP);
}

#[test]
fn every_answer_of_the_location_can_be_read() {
    let away = Port::lease();
    let (nginx, _redis) = start(
        &"meteorit_cors https://shop.example;
          location / { PASS }
          location /auth { PASS auth_basic x; auth_basic_user_file %DIR%/none; }
          location /deny { PASS deny all; }
          location /small { PASS client_max_body_size 1k; }
          location /return { PASS return 503; }
          location /away { meteorit_pass redis://127.0.0.1:AWAY; meteorit_command PING; }
          location /pixel { PASS meteorit_methods GET; meteorit_response pixel; }
          location /dir/ { PASS }"
            .replace("AWAY", &away.number().to_string()),
    );
    let mut http = Http::connect(nginx.port());
    let large = "x".repeat(2000);
    let origin = ("Origin", SHOP);
    let json = ("Content-Type", "application/json");
    for (status, method, path, headers, body) in [
        (204, "POST", "/", &[origin][..], "{}"),
        (400, "POST", "/", &[origin], "{"),
        (422, "POST", "/", &[origin], "1"),
        (415, "POST", "/", &[origin, ("Content-Type", "text/html")], "{}"),
        (405, "GET", "/", &[origin], ""),
        (401, "POST", "/auth", &[origin], "{}"),
        (403, "POST", "/deny", &[origin], "{}"),
        (503, "POST", "/return", &[origin], "{}"),
        (503, "POST", "/away", &[origin, json], "{}"),
        (200, "GET", "/pixel?a=1", &[origin], ""),
        (400, "GET", "/pixel?a=%", &[origin], ""),
    ] {
        assert_readable(&http.request(method, path, headers, body), status, SHOP);
        let foreign: Vec<_> =
            headers.iter().map(|header| if *header == origin { ("Origin", EVIL) } else { *header }).collect();
        assert_not_readable(&http.request(method, path, &foreign, body), status);
    }
    let response = http.call(&event("/away", SHOP));
    assert_eq!(response.header("Access-Control-Expose-Headers"), Some("Retry-After"));
    assert!(response.header("Retry-After").is_some());
    assert_eq!(all(&http.call(&Request::post("/", "{}")), "Vary"), ["Origin"], "without an Origin too");
    // By length, and chunk by chunk.
    assert_readable(&http.call(&event("/small", SHOP).body(&large)), 413, SHOP);
    let mut http = Http::connect(nginx.port());
    http.start_chunked(&event("/small", SHOP).body(""));
    http.send_chunk(large.as_bytes());
    assert_readable(&http.read_response(), 413, SHOP);
}

#[test]
fn strict_refuses_foreign_pages_before_anything_is_written() {
    let (nginx, redis) = start(
        "location /strict { PASS meteorit_cors https://shop.example strict; meteorit_reject_command RPUSH list $event; }
         location /lax { PASS meteorit_cors https://shop.example; }
         location /pixel { PASS meteorit_cors https://shop.example strict; meteorit_response pixel; }",
    );
    let mut http = Http::connect(nginx.port());
    for origin in [EVIL, "null", "", "https://shop.example:8443", "https://shop.example, https://evil.example"] {
        let response = http.call(&event("/strict", origin));
        assert_not_readable(&response, 403);
        assert_eq!(response.header("Content-Type"), Some("application/problem+json"));
        let problem = response.json();
        assert_eq!(problem["type"], "urn:meteorit:problem:foreign-origin");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains(origin)), "{problem}");
        assert_not_readable(&http.call(&preflight("/strict", origin)), 403);
    }
    let twice = event("/strict", SHOP).header("Origin", SHOP);
    assert_not_readable(&http.call(&twice), 403);
    assert_eq!(http.call(&event("/pixel", EVIL)).header("Content-Type"), Some("image/gif"));
    nginx.wait_access("POST /strict 403 rejected");
    assert_eq!(redis.len("list"), 0);

    assert_readable(&http.call(&event("/strict", SHOP)), 204, SHOP);
    // Clients that are no browsers, and pages of the same host.
    assert_not_readable(&http.call(&Request::post("/strict", "{}")), 204);
    assert_not_readable(&http.call(&event("/strict", "http://localhost")), 204);
    assert_not_readable(&http.call(&event("/lax", EVIL)), 204);
    assert_eq!(redis.len("list"), 4);
}

#[test]
fn a_foreign_page_is_refused_before_its_body_is_read() {
    let (nginx, redis) = start("location / { PASS meteorit_cors https://shop.example strict; }");
    let mut http = Http::connect(nginx.port());
    let request = event("/", EVIL).header("Expect", "100-continue");
    http.send_raw(format!("POST / HTTP/1.1\r\nHost: x\r\nOrigin: {EVIL}\r\nContent-Length: 10\r\n\r\n").as_bytes());
    assert_not_readable(&http.read_response(), 403);
    http.send_raw(b"0123456789");
    assert_not_readable(&http.call(&request), 403);
    assert_eq!(redis.len("list"), 0);
}

#[test]
fn http_2_is_told_the_same() {
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .http2()
        .text(&format!(
            "location / {{ {} meteorit_cors {SHOP} strict; }} location /deny {{ {0} meteorit_cors {SHOP}; deny all; }}",
            pass(&redis)
        ))
        .start();
    let send = |path: &str, args: &[&str]| {
        let url = format!("http://127.0.0.1:{}{path}", nginx.h2_port());
        curl(&[&["--http2-prior-knowledge", &url][..], args].concat())
    };
    let (shop, evil) = (format!("Origin: {SHOP}"), format!("Origin: {EVIL}"));
    for path in ["/", "/deny"] {
        let asked = ["-X", "OPTIONS", "-H", &shop, "-H", "Access-Control-Request-Method: POST"];
        let told = send(path, &asked);
        assert_eq!((told.status, told.header("access-control-allow-origin")), (204, Some(SHOP)), "{}", told.stderr);
        assert_eq!(told.header("access-control-allow-methods"), Some("POST, PUT"));
    }
    let json = ["-H", "Content-Type: application/json", "-d", "{}"];
    let sent = send("/", &[&json[..], &["-H", &shop]].concat());
    assert_eq!((sent.status, sent.header("access-control-allow-origin")), (204, Some(SHOP)));
    // Without a body: curl can miss the answer to one that nginx does not read (exit code 92).
    let denied = send("/deny", &["-X", "POST", "-H", &shop]);
    assert_eq!((denied.status, denied.header("access-control-allow-origin")), (403, Some(SHOP)), "{denied:?}");
    let own = format!("Origin: http://127.0.0.1:{}", nginx.h2_port());
    assert_eq!(send("/", &[&json[..], &["-H", &own]].concat()).status, 204);
    let refused = send("/", &["-X", "POST", "-H", &evil]);
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None));
    assert_eq!(redis.len("list"), 2);
}

#[test]
fn a_header_that_is_there_is_not_added_again() {
    let (nginx, _redis) = start(
        "location /events { PASS meteorit_cors https://shop.example; gzip_vary on; }
         location /proxy { meteorit_cors https://shop.example; proxy_pass http://127.0.0.1:%PORT%/own; }
         location /plain { meteorit_cors https://shop.example; proxy_pass http://127.0.0.1:%PORT%/none; }
         location /own { add_header Access-Control-Allow-Origin https://own.example; return 200; }
         location /none { return 200; }",
    );
    let mut http = Http::connect(nginx.port());
    assert_readable(&http.call(&event("/events", SHOP)), 204, SHOP);
    let response = http.call(&event("/proxy", SHOP));
    assert_eq!(all(&response, "Access-Control-Allow-Origin"), ["https://own.example"]);
    assert_readable(&http.call(&event("/plain", SHOP)), 200, SHOP);
}

#[test]
fn a_mirrored_request_is_judged_too() {
    let (nginx, redis) = start(
        "location /site { mirror /events; proxy_pass http://127.0.0.1:%PORT%/ok; }
         location /ok { return 200; }
         location /events { internal; PASS meteorit_cors https://shop.example strict; }",
    );
    let mut http = Http::connect(nginx.port());
    for origin in [EVIL, SHOP] {
        assert_not_readable(&http.call(&event("/site", origin)), 200);
    }
    redis.wait_len("list", 1);
}
