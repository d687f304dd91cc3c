//! How many events and how many bytes a batch may have.

use super::*;

/// A batch of `count` events.
fn array(count: usize) -> String {
    format!("[{}]", vec!["{}"; count].join(","))
}

#[test]
fn a_batch_has_at_most_as_many_events_as_max_says() {
    let site = Site::start(
        "location /three { PASS meteorit_batch all max=3; }
         location /partial { PASS meteorit_batch partial max=1; }
         location /default { PASS meteorit_batch partial; }",
    );
    for (path, max) in [("/three", 3), ("/partial", 1), ("/default", 1000)] {
        assert_eq!(site.array(path, &array(max)).status, 204, "{path}");
        assert_eq!(site.lines(path, &"{}\n\n".repeat(max)).status, 204, "{path}");
        assert_eq!(site.written().len(), 2 * max);
        for response in [site.array(path, &array(max + 1)), site.lines(path, &"{}\n".repeat(max + 1))] {
            let problem = assert_problem(&response, 413, "batch-too-large");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(&max.to_string())), "{problem}");
        }
        // Bad events count too.
        assert_problem(&site.lines(path, &"7\n".repeat(max + 1)), 413, "batch-too-large");
        assert_eq!(site.written(), [""; 0]);
    }
}

#[test]
fn a_larger_body_than_meteorit_max_body_size_gets_413() {
    let site = Site::start("location / { PASS meteorit_batch all; meteorit_max_body_size 100; }");
    let padded = |size: usize| format!("[{{}}{}]", " ".repeat(size - 4));
    let mut http = Http::connect(site.nginx.port());
    assert_eq!(http.post("/", padded(100)).status, 204);
    assert_eq!(http.post_chunked("/", &[padded(100).as_bytes()]).status, 204);
    for response in [http.post("/", padded(101)), http.post_chunked("/", &[padded(60).as_bytes(), &[b' '; 41]])] {
        assert_eq!((response.status, response.header("Content-Type")), (413, Some("application/problem+json")));
        let detail = response.json()["detail"].as_str().unwrap_or_default().to_owned();
        assert!(
            detail.contains("100") && !detail.contains("an event"),
            "the body is too large, not an event: {detail}"
        );
    }
    assert_eq!(http.post("/", "[{}]").status, 204);
    assert_eq!(site.written().len(), 3);
}

#[test]
fn the_body_may_be_as_large_as_client_max_body_size_unless_said_otherwise() {
    let site = Site::start("client_max_body_size 200k; location / { PASS meteorit_batch all; }");
    let padded = |size: usize| format!("[{{}}{}]", " ".repeat(size - 4));
    assert_eq!(site.array("/", &padded(200 * 1024)).status, 204);
    let response = site.array("/", &padded(200 * 1024 + 1));
    assert_eq!((response.status, response.header("Content-Type")), (413, Some("text/html")), "nginx's own answer");
    assert_eq!(site.written().len(), 1);
}

#[test]
fn a_location_in_a_location_has_its_own_client_max_body_size() {
    let site = Site::start(
        "location /outer {
             PASS meteorit_batch all; client_max_body_size 1k;
             location /outer/larger { PASS meteorit_batch all; client_max_body_size 100k; }
             location /outer/unbounded { PASS meteorit_batch all; client_max_body_size 0; }
             location /outer/said { PASS meteorit_batch all; client_max_body_size 100k; meteorit_max_body_size 2k; }
         }",
    );
    let padded = |size: usize| format!("[{{}}{}]", " ".repeat(size - 4));
    assert_eq!(site.array("/outer", &padded(1024)).status, 204);
    assert_eq!(site.array("/outer", &padded(1025)).status, 413);
    assert_eq!(site.array("/outer/larger", &padded(100 * 1024)).status, 204);
    assert_eq!(site.array("/outer/larger", &padded(100 * 1024 + 1)).status, 413);
    assert_eq!(site.array("/outer/unbounded", &padded(2 * 1024 * 1024)).status, 204);
    assert_eq!(site.array("/outer/said", &padded(2048)).status, 204);
    assert_eq!(site.array("/outer/said", &padded(2049)).status, 413);
}

#[test]
fn each_event_keeps_its_own_bounds() {
    let site = Site::start(
        "location / { PASS meteorit_batch partial; meteorit_max_event_size 1k; meteorit_max_depth 2; meteorit_max_members 2; }",
    );
    let sized = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8));
    let body = [&sized(1024), &sized(1025), r#"{"a":[]}"#, r#"{"a":[[]]}"#, r#"{"a":1,"b":2,"c":3}"#, "{}"];
    let expected = [(1, 413, "".into()), (3, 422, "/a/0".into()), (4, 422, "".into())];
    let report = assert_report(&site.array("/", &format!("[{}]", body.join(","))), 207, 3, 3);
    assert_eq!(errors(&report), expected);
    let report = assert_report(&site.lines("/", &body.join("\n")), 207, 3, 3);
    assert_eq!(errors(&report), expected);
    assert_eq!(site.written().len(), 6);
}

#[test]
fn a_batch_larger_than_the_backlog_is_413_and_one_without_room_503() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; backlog 4k; timeout 60s; stall_timeout 60s; }}", fake.url()))
        .server("location / { meteorit_pass queue; meteorit_command APPEND list $event; meteorit_batch partial; }")
        .start();
    // 35 bytes each as commands.
    let response = lines(nginx.port(), "/", &"{}\n".repeat(200));
    assert_eq!(response.status, 413, "{}", response.text());
    let mut waiting = Http::connect(nginx.port());
    waiting.send_raw(&lines_request("/", &"{}\n".repeat(80)).to_bytes());
    fake.wait_held(80);
    let response = lines(nginx.port(), "/", &format!("{}7\n", "{}\n".repeat(80)));
    assert_eq!((response.status, response.header("Retry-After")), (503, Some("1")), "{}", response.text());
    assert_eq!(fake.commands().len(), 80, "nothing of it may be sent");
    fake.release_all(Action::reply(":1\r\n"));
    assert_eq!(waiting.read_response().status, 204);
}
