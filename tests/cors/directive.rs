//! `meteorit_cors` in the configuration: where it holds, and what `nginx -t` refuses.

use super::*;

#[test]
fn what_is_inherited_holds_where_events_are_taken() {
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .http("meteorit_cors https://shop.example;")
        .server(
            &"location /events { PASS location /events/inside { return 200; } location /events/nested { PASS } }
              location /other { PASS meteorit_cors https://other.example; }
              location /off { PASS meteorit_cors off; }
              location /page { return 200; }
              location /asked { meteorit_cors https://shop.example; return 200; }
              location /if { PASS if ($arg_deny) { return 403; } }
              location /inner { if ($arg_event) { PASS } }"
                .replace("PASS", &pass(&redis)),
        )
        .start();
    let mut http = Http::connect(nginx.port());
    for (path, status) in [
        ("/events", 204),
        ("/events/nested", 204),
        ("/asked", 200),
        ("/if", 204),
        ("/if?deny=1", 403),
        ("/inner?event=1", 204),
    ] {
        assert_readable(&http.call(&event(path, SHOP)), status, SHOP);
    }
    for (path, status) in
        [("/events/inside", 200), ("/other", 204), ("/off", 204), ("/page", 200), ("/inner", 404), ("/x", 404)]
    {
        let response = http.call(&event(path, SHOP));
        assert_not_readable(&response, status);
        assert_eq!(all(&response, "Vary"), if path == "/other" { vec!["Origin"] } else { vec![] }, "{path}");
    }
    assert_readable(&http.call(&event("/other", "https://other.example")), 204, "https://other.example");
    assert_not_readable(&http.call(&preflight("/off", SHOP)), 405);
    assert_not_readable(&http.call(&preflight("/page", SHOP)), 200);
}

#[test]
fn a_configuration_that_cannot_be_meant_is_refused() {
    for (line, message) in [
        (
            "meteorit_cors * credentials;",
            r#""credentials" needs the origins to be listed: browsers refuse it with "*""#,
        ),
        ("meteorit_cors * strict;", r#""strict" needs the origins to be listed"#),
        ("meteorit_cors https://a.example/;", r#"invalid origin "https://a.example/": expected scheme://host[:port]"#),
        ("meteorit_cors a.example;", r#"invalid origin "a.example""#),
        ("meteorit_cors https://$host;", r#"invalid origin "https://$host""#),
        ("meteorit_cors credentials;", r#"no origin is given in "meteorit_cors" directive"#),
        ("meteorit_cors;", r#"invalid number of arguments in "meteorit_cors" directive"#),
        (
            "meteorit_cors https://a.example; meteorit_cors https://b.example;",
            r#""meteorit_cors" directive is duplicate"#,
        ),
        ("if ($arg_a) { meteorit_cors https://a.example; }", r#""meteorit_cors" directive is not allowed here"#),
    ] {
        Nginx::test(&format!("location / {{\n{line}\n}}")).assert_refused(message, line);
    }
}

#[test]
fn a_reload_changes_who_may_read() {
    let (nginx, _redis) = start("location / { PASS meteorit_cors https://shop.example; }");
    for (from, to, origin) in [
        ("meteorit_cors https://shop.example;", "", None),
        ("location / {", "location / { meteorit_cors https://other.example;", None),
        ("https://other.example", "https://shop.example", Some(SHOP)),
    ] {
        nginx.rewrite_conf(|conf| conf.replace(from, to));
        nginx.reload_and_drain();
        let response = Http::connect(nginx.port()).call(&event("/", SHOP));
        assert_eq!((response.status, response.header("Access-Control-Allow-Origin")), (204, origin), "{to}");
    }
}
