//! `meteorit_dry_run`: everything but the writing.

mod common;

use common::*;
use serde_json::json;

const DRY: &str = "meteorit_dry_run on; meteorit_pass queue; meteorit_command RPUSH list $event_n;
    meteorit_command if=$event_more RPUSH more x; meteorit_reject_command RPUSH rejected $event;";

fn start(redis: &Redis, locations: &str) -> Nginx {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; backlog 2k; max_pending 3; }}", redis.url()))
        .server(&format!("location = /status {{ meteorit_status; }} {}", locations.replace("DRY", DRY)))
        .log_format("$uri $status $meteorit_status $meteorit_accepted $meteorit_rejected $meteorit_commands")
        .start()
}

#[test]
fn good_events_are_told_nothing_and_bad_ones_as_ever() {
    let redis = Redis::start();
    redis.stop();
    let nginx = start(
        &redis,
        "location = /dry { DRY }
         location = /json { DRY meteorit_response json; }
         location = /batch { DRY meteorit_batch partial; meteorit_response json; }
         location = /told { DRY meteorit_reject_status 202; }",
    );
    let mut http = Http::connect(nginx.port());
    assert_eq!(http.post("/dry", r#"{"n":1,"more":true}"#).status, 204);
    nginx.wait_access("/dry 204 dry_run 1 0 2");
    assert_eq!(http.post("/dry", r#"{"n":1"#).json()["type"], "urn:meteorit:problem:not-json");
    nginx.wait_access("/dry 400 rejected 0 1 1");
    assert_eq!(http.post("/dry", format!(r#"{{"n":"{}"}}"#, "x".repeat(3000))).status, 413, "more than the backlog");
    let json = http.post("/json", r#"{"n":1}"#);
    assert_eq!((json.status, &json.json()["accepted"]), (200, &json!(1)));
    let batch = http.post("/batch", r#"[{"n":1},[],{"n":2}]"#);
    assert_eq!((batch.status, &batch.json()["accepted"], &batch.json()["rejected"]), (207, &json!(2), &json!(1)));
    nginx.wait_access("/batch 207 dry_run 2 1 3");
    assert_eq!(http.post("/batch", "[{},{},{},{}]").status, 413, "more than max_pending");
    assert_eq!(http.post("/told", "{").status, 202);
    let status = http.get("/status").json();
    let counted = |index: usize, of: &str, name: &str| status["locations"][index][of][name].clone();
    assert_eq!((counted(0, "requests", "dry_run"), counted(0, "requests", "rejected")), (json!(1), json!(2)));
    assert_eq!((counted(2, "events", "dry_run"), counted(2, "events", "stored")), (json!(2), json!(0)));
    assert_eq!((&status["redis"][0]["commands"], &status["redis"][0]["failures"]), (&json!(0), &json!(0)));
    assert_eq!(nginx.count_log("redis \"queue\""), 0, "nobody connects");
}

#[test]
fn behind_mirror_it_sees_each_event_and_writes_none() {
    let redis = Redis::start();
    let nginx = start(
        &redis,
        "location = /events { mirror /tried; meteorit_pass queue; meteorit_command INCR taken; }
         location = /tried { internal; DRY log_subrequest on; }",
    );
    for body in [r#"{"n":1}"#, r#"{"n":2}"#] {
        assert_eq!(post(nginx.port(), "/events", body).status, 204);
    }
    assert_eq!(post(nginx.port(), "/events", "{").status, 400);
    nginx.wait_access("/tried 400 rejected");
    let log = nginx.access_log();
    assert_eq!(log.lines().filter(|line| line.starts_with("/tried 204 dry_run 1 0 1")).count(), 2, "{log}");
    assert_eq!(log.lines().filter(|line| line.starts_with("/events 204 stored 1 0 1")).count(), 2, "{log}");
    assert_eq!((redis.ask::<i64>(&["GET", "taken"]), redis.len("list"), redis.len("rejected")), (2, 0, 0));
}
