//! `meteorit_ready`: a load balancer is told whether events can be taken, and why not.

mod common;

use common::*;
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

fn ready(nginx: &Nginx, path: &str) -> (u16, String) {
    let response = get(nginx.port(), path);
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    if response.status == 200 {
        assert_eq!(response.json(), json!({"ready": true}));
        return (200, String::new());
    }
    assert_eq!(response.header("Content-Type"), Some("application/problem+json"));
    assert_eq!(response.json()["type"], "urn:meteorit:problem:not-ready");
    (response.status, response.json()["detail"].as_str().unwrap().to_owned())
}

#[test]
fn a_worker_that_has_had_no_event_finds_out_by_itself() {
    let redis = Redis::start();
    redis.stop();
    let http = format!("meteorit_redis queue {{ server {}; }}", redis.url());
    let nginx = Nginx::builder().http(&http).server("location = /ready { meteorit_ready; }").start();
    eventually(SOON, || ready(&nginx, "/ready") == (503, "redis \"queue\": it is away".into()));
    redis.restart();
    eventually(SOON, || ready(&nginx, "/ready").0 == 200);
}

#[test]
fn a_worker_connects_as_it_begins_and_is_ready_once_it_has() {
    let fake = FakeRedis::builder().with_handshake().start(|_, _| Action::Hold);
    let http = format!("meteorit_redis queue {{ server {}; connect_timeout 60s; }}", fake.url());
    let nginx = Nginx::builder().http(&http).server("location = /ready { meteorit_ready; }").start();
    fake.wait_held(1);
    for _ in 0..3 {
        assert_eq!(ready(&nginx, "/ready"), (503, "redis \"queue\": no connection has been made yet".into()));
    }
    fake.release_all(Action::Default);
    eventually(SOON, || ready(&nginx, "/ready").0 == 200);
    assert_eq!(fake.connections(), 1);
}

#[test]
fn connections_that_no_event_has_called_for_do_not_make_it_ready() {
    let redis = Redis::start();
    let http = format!("meteorit_redis queue {{ server {}; connections 4; }}", redis.url());
    let nginx = Nginx::builder().http(&http).server("location = /ready { meteorit_ready; }").start();
    eventually(SOON, || ready(&nginx, "/ready").0 == 200);
    redis.stop();
    eventually(SOON, || ready(&nginx, "/ready") == (503, "redis \"queue\": it is away".into()));
    redis.restart();
    eventually(SOON, || ready(&nginx, "/ready").0 == 200);
}

#[test]
fn a_connection_that_redis_closes_for_its_idleness_leaves_it_ready() {
    let redis = Redis::start();
    let http = format!("meteorit_redis queue {{ server {}; }}", redis.url());
    let nginx = Nginx::builder().http(&http).server("location = /ready { meteorit_ready; }").start();
    eventually(SOON, || ready(&nginx, "/ready").0 == 200);
    // One that lived for less than half a second would count as a failure; an age of 1 may be less.
    let clients = || redis.ask::<String>(&["CLIENT", "LIST", "TYPE", "normal"]);
    let is_old = |line: &str| line.contains("cmd=ping") && [" age=0 ", " age=1 "].iter().all(|age| !line.contains(age));
    eventually(SOON, || clients().lines().any(is_old));
    redis.cmd(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    nginx.wait_log("connection lost");
    for _ in 0..3 {
        assert_eq!(ready(&nginx, "/ready"), (200, String::new()));
    }
}

#[test]
fn only_what_is_named_has_to_be_there_and_a_spool_will_do() {
    let [up, down] = [Redis::start(), Redis::start()];
    down.stop();
    let http = format!(
        "meteorit_redis up {{ server {}; }} meteorit_redis down {{ server {}; }} meteorit_redis kept {{ server {}; spool spool; }}",
        up.url(),
        down.url(),
        down.url()
    );
    let nginx = Nginx::builder()
        .http(&http)
        .server(
            "location = /all { meteorit_ready; } location = /up { meteorit_ready up; }
             location = /kept { meteorit_ready up kept; } location = /down { meteorit_ready down; }",
        )
        .start();
    eventually(SOON, || ready(&nginx, "/up").0 == 200);
    eventually(SOON, || ready(&nginx, "/down") == (503, "redis \"down\": it is away".into()));
    assert_eq!(ready(&nginx, "/all"), (503, "redis \"down\": it is away".into()));
    nginx.wait_log("redis \"down\" at");
    // An event would go to the spool from the first on.
    for path in ["/up", "/kept"] {
        assert_eq!(ready(&nginx, path), (200, String::new()), "{path}");
    }
    nginx.wait_log("redis \"kept\" at");
    assert_eq!(ready(&nginx, "/kept").0, 200);
}

#[test]
fn a_worker_on_its_way_out_and_one_with_a_full_backlog_are_not_ready() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let http =
        format!("meteorit_redis queue {{ server {}; timeout 60s; stall_timeout 60s; max_pending 1; }}", fake.url());
    let nginx = Nginx::builder()
        .http(&http)
        .server(
            "location = /ready { meteorit_ready; }
             location = /events { meteorit_pass queue; meteorit_command RPUSH list x; }",
        )
        .start();
    eventually(SOON, || ready(&nginx, "/ready").0 == 200);
    let mut waiting = Http::connect(nginx.port());
    waiting.send_raw(&Request::post("/events", "{}").to_bytes());
    fake.wait_held(1);
    assert_eq!(ready(&nginx, "/ready"), (503, "redis \"queue\": too much is waiting".into()));
    // A request that has begun when the worker is told to quit.
    let mut late = Http::connect(nginx.port());
    late.send_raw(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n");
    get(nginx.port(), "/ready");
    let old = nginx.reload();
    nginx.wait_log("gracefully shutting down");
    fake.release_all(Action::reply(":1\r\n"));
    assert_eq!(waiting.read_response().status, 204);
    late.send_raw(b"\r\n");
    let response = late.read_response();
    assert_eq!((response.status, &response.json()["detail"]), (503, &json!("the worker is on its way out")));
    nginx.wait_gone(&old);
}
