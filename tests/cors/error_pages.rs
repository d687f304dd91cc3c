//! An error that error_page answers elsewhere is still an answer of the location where it came up.

use super::*;

/// Locations that fail in one way each, by the status that nginx or this module gives.
const FAILING: &str = "
    location /401 { PASS auth_basic x; auth_basic_user_file %DIR%/none; }
    location /403 { PASS deny all; }
    location /413 { PASS client_max_body_size 1; }
    location /429 { PASS limit_req zone=z; limit_req_status 429; }
    location /503 { meteorit_pass redis://127.0.0.1:%PORT9%; meteorit_command PING; meteorit_intercept_errors on; }
    location /422 { PASS meteorit_intercept_errors on; meteorit_max_depth 1; }";

/// With what stands in the server beside them.
fn start_failing(server: &str) -> (Nginx, Redis) {
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .http("limit_req_zone $server_port zone=z:1m rate=1r/m;")
        .server(&format!("{FAILING}{server}").replace("PASS", &pass(&redis)))
        .start();
    assert_eq!(post(nginx.port(), "/429", "{}").status, 204);
    (nginx, redis)
}

#[track_caller]
fn assert_all_readable(nginx: &Nginx, status: Option<u16>, body: &str) {
    for code in [401, 403, 413, 422, 429, 503] {
        let mut http = Http::connect(nginx.port());
        let fails = r#"{"a":[]}"#;
        let response = http.call(&event(&format!("/{code}"), SHOP).body(fails));
        assert_readable(&response, status.unwrap_or(code), SHOP);
        assert_eq!(response.text(), body, "{code}");
        let mut http = Http::connect(nginx.port());
        assert_not_readable(&http.call(&event(&format!("/{code}"), EVIL).body(fails)), status.unwrap_or(code));
    }
}

#[test]
fn a_page_in_another_location() {
    let (nginx, _redis) = start_failing(
        "meteorit_cors https://shop.example;
         error_page 401 403 413 422 429 503 /sorry?why=1;
         location = /sorry { internal; return 200 \"sorry $arg_why\"; }",
    );
    assert_all_readable(&nginx, None, "sorry 1");
    // The page alone is none of an intake.
    assert_not_readable(&Http::connect(nginx.port()).call(&event("/sorry", SHOP)), 404);
}

#[test]
fn a_named_location() {
    let (nginx, _redis) = start_failing(
        "meteorit_cors https://shop.example;
         error_page 401 403 413 422 429 503 = @sorry;
         location @sorry { return 418 'sorry'; }",
    );
    assert_all_readable(&nginx, Some(418), "sorry");
}

#[test]
fn a_page_by_a_variable_with_another_status() {
    let (nginx, _redis) = start_failing(
        "meteorit_cors https://shop.example;
         set $page /sorry;
         error_page 401 403 413 422 429 503 =200 $page.txt?why=$request_method;
         location = /sorry.txt { return 200 \"sorry $arg_why\"; }",
    );
    // The body is announced as too long before `set` runs.
    let mut http = Http::connect(nginx.port());
    assert_readable(&http.call(&event("/403", SHOP)), 200, SHOP);
    assert_readable(&http.call(&event("/401", SHOP)), 200, SHOP);
    assert_eq!(http.call(&event("/403", SHOP)).text(), "sorry POST");
}

#[test]
fn a_page_on_another_site() {
    let (nginx, _redis) = start_failing(
        "meteorit_cors https://shop.example;
         error_page 401 403 413 422 429 503 https://help.example/sorry?why=1;",
    );
    let response = Http::connect(nginx.port()).call(&event("/413", SHOP));
    assert_readable(&response, 302, SHOP);
    assert_eq!(response.header("Location"), Some("https://help.example/sorry?why=1"));
}

#[test]
fn a_page_that_fails_itself() {
    let (nginx, _redis) = start_failing(
        "meteorit_cors https://shop.example;
         recursive_error_pages on;
         error_page 401 403 413 422 429 503 /gone;
         error_page 410 @sorry;
         location = /gone { return 410; }
         location @sorry { return 200 'sorry'; }",
    );
    assert_all_readable(&nginx, Some(410), "sorry");
}

#[test]
fn the_settings_are_those_where_the_error_came_up() {
    let (nginx, redis) = start(
        "error_page 403 /other;
         error_page 404 /strict;
         location = /events { PASS meteorit_cors https://shop.example; deny all; }
         location = /plain { deny all; }
         location = /other { meteorit_cors https://other.example strict; return 200 other; }
         location = /missing { PASS meteorit_cors https://shop.example; return 404; }
         location = /strict { PASS meteorit_methods GET; meteorit_cors https://other.example strict; }",
    );
    let mut http = Http::connect(nginx.port());
    let response = http.call(&event("/events", SHOP));
    assert_readable(&response, 403, SHOP);
    assert_eq!(response.text(), "other");
    assert_not_readable(&http.call(&event("/events", "https://other.example")), 403);
    // Nothing is known of where it came from.
    assert_readable(&http.call(&event("/plain", "https://other.example")), 403, "https://other.example");
    // An event made of an error, which the first location's pages may send; the status stays that of the error.
    let response = http.call(&event("/missing", SHOP));
    assert_readable(&response, 404, SHOP);
    assert_eq!((response.header("Content-Length"), response.body.len()), (Some("0"), 0));
    assert_eq!(redis.len("list"), 1);
    // The one request on this connection does not speak for the next.
    assert_readable(&http.call(&event("/other", "https://other.example")), 200, "https://other.example");
    assert_not_readable(&http.call(&event("/other", SHOP)), 403);
}

#[test]
fn the_refusal_of_a_foreign_page() {
    let (nginx, redis) = start(
        "meteorit_cors https://shop.example strict;
         error_page 403 /sorry;
         location = /events { PASS meteorit_intercept_errors on; }
         location = /sorry { return 200 sorry; }",
    );
    let mut http = Http::connect(nginx.port());
    for request in [event("/events", EVIL), preflight("/events", EVIL)] {
        let response = http.call(&request);
        assert_not_readable(&response, 403);
        assert_eq!(response.text(), "sorry");
    }
    assert_eq!(redis.len("list"), 0);
}
