//! The text for Prometheus, read by a parser that is not ours.

mod common;

use common::*;
use openmetrics_parser::{openmetrics, prometheus};
use serde_json::Value;
use std::collections::BTreeSet;

const SPOOLED: &str = "location = /status { meteorit_status; } location = /prometheus { meteorit_status prometheus; }
    location = /events { meteorit_pass queue; meteorit_command RPUSH list x; }";

fn text(nginx: &Nginx, path: &str, accept: &str) -> (String, String) {
    let response = Http::connect(nginx.port()).request("GET", path, &[("Accept", accept)], "");
    assert_eq!(response.status, 200);
    (response.header("Content-Type").unwrap().to_owned(), response.text())
}

/// The value of a line that begins so.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[test]
fn both_texts_are_what_a_parser_expects() {
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; spool spool; }}", redis.url()))
        .server(SPOOLED)
        .start();
    for _ in 0..3 {
        assert_eq!(post(nginx.port(), "/events", "{}").status, 204);
    }
    assert_eq!(post(nginx.port(), "/events", "{").status, 400);
    const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
    const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let (media_type, plain) = text(&nginx, "/status", "text/plain;version=0.0.4;q=1,*/*;q=0.1");
    assert_eq!(media_type, TEXT);
    assert_eq!(text(&nginx, "/prometheus", "*/*").0, TEXT);
    let (media_type, open) =
        text(&nginx, "/prometheus", "application/openmetrics-text;q=0.5,text/plain;q=0.2,*/*;q=0.1");
    assert_eq!(media_type, OPEN);
    let families = prometheus::parse_prometheus(&plain).unwrap_or_else(|error| panic!("{error}\n{plain}")).families;
    let same = openmetrics::parse_openmetrics(&open).unwrap_or_else(|error| panic!("{error}\n{open}")).families;
    assert_eq!(families.len(), same.len());
    assert!(open.ends_with("# EOF\n") && !plain.contains("EOF"));
    let place = r#"server="",location="= /events",redis="queue""#;
    for text in [&plain, &open] {
        assert_eq!(value(text, &format!("meteorit_events_total{{{place},status=\"stored\"}}")), 3.0);
        assert_eq!(value(text, &format!("meteorit_events_rejected_total{{{place},cause=\"not-json\"}}")), 1.0);
        assert_eq!(value(text, r#"meteorit_redis_connections{redis="queue",state="ready"}"#), 1.0);
        let count = value(text, r#"meteorit_redis_round_trip_seconds_count{redis="queue"}"#);
        assert_eq!(value(text, r#"meteorit_redis_round_trip_seconds_bucket{redis="queue",le="+Inf"}"#), count);
    }
    // The reference names all of them, and no other.
    let documented = include_str!("../docs/status.md").split("## Prometheus").nth(1).unwrap();
    let documented: BTreeSet<&str> = documented.split('`').filter(|word| word.starts_with("meteorit_")).collect();
    let told: BTreeSet<&str> =
        plain.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(documented, told);
}

#[test]
fn names_with_quotes_and_backslashes_are_escaped() {
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .http(&format!(
            r#"meteorit_redis 'a "b" \\ c' {{ server {}; }}
               server {{ listen 127.0.0.1:%PORT%; server_name '~^x"\\w';
                   location = /status {{ meteorit_status; }}
                   location ~ '^/"e\d' {{ meteorit_pass 'a "b" \\ c'; meteorit_command RPUSH list x; }} }}"#,
            redis.url()
        ))
        .start();
    let (_, plain) = text(&nginx, "/status", "text/plain");
    prometheus::parse_prometheus(&plain).unwrap_or_else(|error| panic!("{error}\n{plain}"));
    let (_, open) = text(&nginx, "/status", "application/openmetrics-text");
    openmetrics::parse_openmetrics(&open).unwrap_or_else(|error| panic!("{error}\n{open}"));
    let json: Value = get(nginx.port(), "/status").json();
    let [server, location, name] =
        [&json["locations"][0]["server"], &json["locations"][0]["location"], &json["redis"][0]["name"]]
            .map(|name| name.as_str().unwrap());
    assert!(server.contains('"') && server.contains('\\') && location.contains('"') && name.contains('\\'), "{json}");
    let escaped = |name: &str| name.replace('\\', r"\\").replace('"', r#"\""#);
    let labels = format!(r#"server="{}",location="{}",redis="{}""#, escaped(server), escaped(location), escaped(name));
    assert!(plain.contains(&labels), "{labels}\n{plain}");
}

#[test]
fn two_databases_of_one_server_are_told_apart() {
    let redis = Redis::start();
    let (first, second) = (format!("{}/0", redis.url()), format!("{}/1", redis.url()));
    let nginx = Nginx::start(&format!(
        "location = /status {{ meteorit_status; }}
         location = /a {{ meteorit_pass {first}; meteorit_command RPUSH list x; }}
         location = /b {{ meteorit_pass {second}; meteorit_command RPUSH list x; }}"
    ));
    assert_eq!(post(nginx.port(), "/b", "{}").status, 204);
    let (_, plain) = text(&nginx, "/status", "text/plain");
    prometheus::parse_prometheus(&plain).unwrap_or_else(|error| panic!("{error}\n{plain}"));
    let name = format!("127.0.0.1:{}", redis.port());
    assert_eq!(value(&plain, &format!("meteorit_redis_commands_total{{redis=\"{name}\"}}")), 0.0);
    assert_eq!(value(&plain, &format!("meteorit_redis_commands_total{{redis=\"{name}/1\"}}")), 1.0);
}

#[test]
fn an_upgrade_begins_to_count_anew() {
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; spool spool; }}", redis.url()))
        .server(SPOOLED)
        .daemon()
        .start();
    let count = || {
        assert_eq!(post(nginx.port(), "/events", "{}").status, 204);
        let (_, plain) = text(&nginx, "/prometheus", "*/*");
        let stored = r#"meteorit_events_total{server="",location="= /events",redis="queue",status="stored"}"#;
        (value(&plain, stored), value(&plain, "meteorit_start_time_seconds"))
    };
    let (first, started) = count();
    let (second, same) = count();
    assert_eq!((first, second, same), (1.0, 2.0, started));
    let old = nginx.upgrade();
    nginx.wait_gone(&old);
    let (anew, since) = count();
    assert_eq!(anew, 1.0);
    assert!(since > started, "{since} {started}");
}
