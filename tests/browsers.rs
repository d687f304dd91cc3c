//! Events from pages in a real Chromium: what its ways of sending need, and what a page of another origin can and cannot do.

mod common;

use common::*;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// An intake at collect.shop.test, and pages at shop.test, of the same site but another origin, and at evil.test.
struct Site {
    /// The first to end: its open connections would keep nginx.
    browser: Browser,
    nginx: Nginx,
    redis: Redis,
}

impl Site {
    /// With these locations at the intake; `PASS` stands for a meteorit_pass with one command, `SHOP` for the shop's origin.
    #[track_caller]
    fn start(locations: &str) -> Site {
        let redis = Redis::start();
        let pass = format!("meteorit_pass {}; meteorit_command RPUSH list $event;", redis.url());
        let locations = locations.replace("PASS", &pass).replace("SHOP", "http://shop.test:%PORT2%");
        let nginx = Nginx::builder()
            .log_format("$request_method $uri $status $content_type")
            .http("limit_req_zone $server_port zone=one:1m rate=1r/m;")
            .server(&format!("listen 127.0.0.1:%PORT%;\n{locations}"))
            .server("listen 127.0.0.1:%PORT2%;\nlocation / { default_type text/html; return 200 '<!doctype html>'; }")
            .start();
        Site { nginx, redis, browser: Browser::start() }
    }

    /// Opens a page of that host, of which `INTAKE` in scripts is then seen.
    #[track_caller]
    fn visit(&self, host: &str) {
        self.browser.open(&format!("http://{host}:{}/", self.nginx.port_n(2)));
    }

    #[track_caller]
    fn run(&self, script: &str) -> Value {
        let intake = format!("http://collect.shop.test:{}", self.nginx.port());
        self.browser.run(&script.replace("INTAKE", &intake))
    }

    /// Waits for so many events, and gives them.
    #[track_caller]
    fn events(&self, count: usize) -> Vec<String> {
        self.redis.wait_len("list", count);
        self.redis.list("list").into_iter().map(|event| String::from_utf8(event).expect("text")).collect()
    }
}

#[test]
fn a_beacon_of_text_needs_no_preflight() {
    let site = Site::start("location /events { PASS meteorit_cors SHOP; }");
    site.visit("shop.test");
    assert_eq!(site.run(r#"return navigator.sendBeacon("INTAKE/events", '{"page": "/a"}')"#), true);
    assert_eq!(site.events(1), [r#"{"page": "/a"}"#]);
    site.nginx.wait_access("POST /events 204 text/plain");
    assert!(!site.nginx.access_log().contains("OPTIONS"), "{}", site.nginx.access_log());
}

#[test]
fn a_beacon_of_json_has_its_preflight_answered_past_the_limits() {
    let site = Site::start(
        "location /events { PASS meteorit_cors SHOP credentials; limit_req zone=one; if ($request_method = OPTIONS) { return 401; } }",
    );
    site.visit("shop.test");
    let beacon = r#"navigator.sendBeacon("INTAKE/events", new Blob(['{"page":"/a"}'], {type: "application/json"}))"#;
    assert_eq!(site.run(&format!("return {beacon}")), true);
    assert_eq!(site.events(1), [r#"{"page":"/a"}"#]);
    site.nginx.wait_access("POST /events 204 application/json");
    let log = site.nginx.access_log();
    assert!(log.contains("OPTIONS /events 204 -\nPOST /events 204"), "{log}");
}

#[test]
fn a_beacon_of_json_is_not_sent_without_credentials() {
    let site =
        Site::start("location /events { PASS meteorit_cors SHOP; } location /after { PASS meteorit_cors SHOP; }");
    site.visit("shop.test");
    site.run(r#"navigator.sendBeacon("INTAKE/events", new Blob(["{}"], {type: "application/json"}))"#);
    site.nginx.wait_access("OPTIONS /events 204");
    // The preflight's answer is there. What follows it would be there before what follows this.
    site.run(r#"await fetch("INTAKE/after", {method: "POST", body: '{"after": 1}'})"#);
    assert_eq!(site.events(1), [r#"{"after": 1}"#]);
}

#[test]
fn what_is_sent_when_a_page_goes_arrives() {
    let site = Site::start("location /events { PASS meteorit_cors SHOP credentials; }");
    site.visit("shop.test");
    site.run(
        r#"addEventListener("pagehide", () => {
               navigator.sendBeacon("INTAKE/events", '{"by": "beacon"}');
               fetch("INTAKE/events", {method: "POST", keepalive: true, body: '{"by": "fetch"}'});
               fetch("INTAKE/events", {method: "POST", keepalive: true, body: '{"by": "fetch of JSON"}',
                                       headers: {"Content-Type": "application/json"}});
           })"#,
    );
    site.visit("elsewhere.test");
    let mut events = site.events(3);
    events.sort();
    assert_eq!(events, [r#"{"by": "beacon"}"#, r#"{"by": "fetch of JSON"}"#, r#"{"by": "fetch"}"#]);
}

#[test]
fn a_fetch_with_credentials_brings_cookies_and_reads_the_answer() {
    let site = Site::start(
        "location /events { PASS meteorit_cors SHOP credentials; meteorit_response json; meteorit_event_id $event_id;
                            meteorit_field visitor $cookie_visitor; }
         location /plain { PASS meteorit_cors SHOP; }",
    );
    site.visit("shop.test");
    site.run(r#"document.cookie = "visitor=ann; domain=shop.test""#);
    let send = |path: &str, options: &str| {
        site.run(&format!(
            r#"const answer = await fetch("INTAKE{path}", {{method: "POST", headers: {{"Content-Type": "application/json",
                   "X-Api-Key": "1", "Traceparent": "2"}}, body: '{{"id":"7"}}', {options}}});
               return [answer.status, await answer.text()]"#
        ))
    };
    let answer = send("/events", r#"credentials: "include""#);
    assert_eq!(answer, json!([200, r#"{"accepted":1,"rejected":0,"ids":["7"],"errors":[]}"#]));
    assert_eq!(site.events(1), [r#"{"id":"7","visitor":"ann"}"#]);
    assert_eq!(send("/events", "")[0], 200);
    assert_eq!(site.events(2)[1], r#"{"id":"7"}"#, "no cookies where none are wanted");
    assert_eq!(send("/plain", ""), json!([204, ""]));
    let refused = site.run(
        r#"return fetch("INTAKE/plain", {method: "POST", body: "{}", credentials: "include"}).then(() => "read", String)"#,
    );
    assert_eq!(refused, "TypeError: Failed to fetch");
}

#[test]
fn a_page_reads_why_an_event_was_not_taken() {
    let away = Port::lease();
    let auth = match built_with("--with-http_auth_request_module") {
        true => "auth_request /never",
        false => "return 401",
    };
    let site = Site::start(
        &"location /events { PASS meteorit_cors SHOP; }
          location /away { meteorit_pass redis://127.0.0.1:AWAY; meteorit_command PING; meteorit_cors SHOP; }
          location /limit { PASS meteorit_cors SHOP; limit_req zone=one; limit_req_status 429; }
          location /small { PASS meteorit_cors SHOP; client_max_body_size 1; error_page 413 /sorry; }
          location /deny { PASS meteorit_cors SHOP; deny all; }
          location /auth { PASS meteorit_cors SHOP; AUTH; }
          location /never { internal; return 401; }
          location /sorry { return 200 'sorry'; }"
            .replace("AWAY", &away.number().to_string())
            .replace("AUTH", auth),
    );
    site.visit("shop.test");
    let send = |path: &str, body: &str| {
        site.run(&format!(
            r#"const answer = await fetch("INTAKE{path}", {{method: "POST", headers: {{"Content-Type": "application/json"}},
                                                          body: '{body}'}});
               const text = await answer.text();
               let detail = text;
               try {{ detail = JSON.parse(text).detail }} catch {{}}
               return [answer.status, detail, answer.headers.get("Retry-After")]"#
        ))
    };
    assert_eq!(send("/events", r#"{"a":1,"a":2}"#), json!([422, "duplicate name at \"/a\"", null]));
    assert_eq!(send("/events", "{").as_array().unwrap()[0], 400);
    let answer = send("/away", "{}");
    assert_eq!((&answer[0], &answer[1]), (&json!(503), &json!("Redis is away; nothing was written")));
    assert!(answer[2].is_string(), "{answer}");
    assert_eq!(send("/limit", "{}")[0], 204);
    assert_eq!(send("/limit", "{}")[0], 429);
    assert_eq!(send("/small", "{}"), json!([413, "sorry", null]));
    assert_eq!(send("/deny", "{}")[0], 403);
    assert_eq!(send("/auth", "{}")[0], 401);
}

#[test]
fn a_pixel_is_an_image_whatever_became_of_the_event() {
    let site = Site::start(
        "location /pixel.gif { PASS meteorit_cors SHOP strict; meteorit_methods GET; meteorit_response pixel; }",
    );
    for (host, name) in [("shop.test", "shop"), ("evil.test", "evil")] {
        site.visit(host);
        let load = |query: &str, attributes: &str| {
            site.run(&format!(
                r#"return new Promise(done => {{
                       const image = new Image();
                       image.onload = () => done([image.naturalWidth, image.naturalHeight]);
                       image.onerror = () => done("error");
                       {attributes}
                       image.src = "INTAKE/pixel.gif?{query}";
                   }})"#
            ))
        };
        // An image brings no Origin, so anybody's page can have it.
        assert_eq!(load(&format!("page={name}"), ""), json!([1, 1]));
        assert_eq!(load("page=%", ""), json!([1, 1]));
        // Unless the page wants to see what is in it.
        let seen = load(&format!("seen={name}"), r#"image.crossOrigin = "anonymous";"#);
        assert_eq!(seen, if name == "shop" { json!([1, 1]) } else { json!("error") });
    }
    site.nginx.wait_access("GET /pixel.gif 400");
    assert_eq!(site.events(3), [r#"{"page":"shop"}"#, r#"{"seen":"shop"}"#, r#"{"page":"evil"}"#]);
}

#[test]
fn a_foreign_page_reads_nothing_and_where_it_is_strict_writes_nothing() {
    let site = Site::start(
        "location /lax { PASS meteorit_cors SHOP credentials; }
         location /strict { PASS meteorit_cors SHOP credentials strict; }",
    );
    site.visit("evil.test");
    let send = |options: &str, path: &str| {
        site.run(&format!(
            r#"return fetch("INTAKE{path}", {{method: "POST", body: '{{"path":"{path}"}}', {options}}}).then(() => "read", String)"#
        ))
    };
    let json = r#"headers: {"Content-Type": "application/json"}"#;
    for options in ["", json, r#"credentials: "include""#] {
        for path in ["/strict", "/lax"] {
            assert_eq!(send(options, path), "TypeError: Failed to fetch", "{options} {path}");
        }
    }
    // What needs no preflight is sent, and only the answer kept from the page.
    assert_eq!(send(r#"mode: "no-cors""#, "/strict"), "read");
    assert_eq!(site.run(r#"return navigator.sendBeacon("INTAKE/strict", "{}")"#), true);
    assert!(
        within(SOON, || site.nginx.access_log().matches("POST /strict 403").count() == 4),
        "{}",
        site.nginx.access_log()
    );
    assert_eq!(site.events(2), [r#"{"path":"/lax"}"#, r#"{"path":"/lax"}"#]);
    // A frame without an origin of its own is foreign, whoever embeds it.
    site.visit("shop.test");
    site.run(
        r#"const frame = document.createElement("iframe");
           frame.sandbox = "allow-scripts";
           frame.srcdoc = `<script>fetch("INTAKE/strict?frame", {method: "POST", body: "{}"})</script>`;
           document.body.append(frame)"#,
    );
    assert!(
        within(SOON, || site.nginx.access_log().matches("POST /strict 403").count() == 5),
        "{}",
        site.nginx.access_log()
    );
    assert_eq!(send(json, "/strict"), "read");
    assert_eq!(site.events(3).len(), 3);
}

#[test]
fn the_example_keeps_of_a_visitor_only_what_was_agreed_to() {
    let redis = Redis::start();
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/nginx-conf/beacon.conf")).expect("beacon.conf");
    let text = [
        ("listen 8080;", "listen 127.0.0.1:%PORT%;"),
        ("listen 8081;", "listen 127.0.0.1:%PORT2%;"),
        (":8080", ":%PORT%"),
        (":8081", ":%PORT2%"),
        ("redis://127.0.0.1:6379", &redis.url()),
        ("/var/log/nginx", "%DIR%/logs"),
    ]
    .iter()
    .fold(text, |text, (from, to)| {
        assert!(text.contains(from), "no {from} in the example");
        text.replace(from, to)
    });
    let nginx = Nginx::builder().http(&text).file("beacon.key", "0123456789abcdef\n").start();
    let browser = Browser::start();
    let open = |host: &str| browser.open(&format!("http://{host}:{}/", nginx.port_n(2)));
    let log = |line: &str, count| {
        let found = || nginx.read("logs/beacon.log").matches(line).count();
        assert!(within(SOON, || found() == count), "{line}: {}", nginx.read("logs/beacon.log"));
    };

    open("127.0.0.1");
    log("204 meteorit=stored", 1);
    assert_eq!(redis.len("beacons"), 0);
    browser.run("consent.click()");
    // Which ends the first page, and the second origin knows nothing of the choice made there.
    open("localhost");
    log("204 meteorit=stored", 3);
    open("127.0.0.1");
    log("204 meteorit=stored", 5);
    let key = |prefix: &str| redis.ask::<Vec<String>>(&["KEYS", &format!("{prefix}:2*")]).remove(0);
    assert_eq!(redis.hash(&key("views"))["/"], "3");
    assert_eq!(redis.ask::<i64>(&["PFCOUNT", &key("visitors")]), 1);
    let events = redis.stream("beacons");
    let events: Vec<Value> = events.iter().map(|(_, entry)| serde_json::from_slice(&entry[3]).expect("JSON")).collect();
    let types: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
    assert_eq!(types, ["leave", "view"]);
    for event in &events {
        assert_eq!((&event["addr"], &event["consent"]), (&json!("127.0.0.0"), &json!(true)));
        assert_eq!((event["visitor"].as_str().unwrap().len(), &event["visitor"]), (64, &events[0]["visitor"]));
    }

    open("evil.test");
    log("403 meteorit=rejected", 1);
    log("204 meteorit=stored", 6);
    assert_eq!(redis.hash(&key("views"))["/"], "3");
    assert!(!nginx.read("logs/beacon.log").contains("127.0.0.1"), "{}", nginx.read("logs/beacon.log"));
}
