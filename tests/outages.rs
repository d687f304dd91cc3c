//! Redis away, coming, going and coming back: events get 503 at once, a true answer in between, 204 afterwards, and the log
//! has a line for each change and none for each event.

mod common;

use common::*;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn nginx(server: &str, settings: &str) -> Nginx {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {server}; {settings} }}"))
        .server("location / { meteorit_pass queue; meteorit_command RPUSH list $arg_id; }")
        .log_format("$arg_id $status $meteorit_status $meteorit_redis_time")
        .start()
}

fn push(nginx: &Nginx, id: &str) -> Response {
    post(nginx.port(), &format!("/?id={id}"), "{}")
}

#[track_caller]
fn assert_away(nginx: &Nginx) {
    let response = push(nginx, "away");
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.json()["type"], "urn:meteorit:problem:unavailable");
    assert_eq!(response.json()["detail"], "Redis is away; nothing was written");
    let retry = response.header("Retry-After").expect("Retry-After");
    assert!((1..=15).contains(&retry.parse::<u32>().expect("seconds")), "{retry}");
}

#[track_caller]
fn assert_recovers(nginx: &Nginx) {
    let taken = within(SOON, || {
        let response = push(nginx, "back");
        assert!(matches!(response.status, 204 | 503), "{}: {}", response.status, response.text());
        response.status == 204
    });
    assert!(taken, "no event was taken; the log:\n{}", nginx.error_log());
}

fn complaints(nginx: &Nginx) -> usize {
    ["[warn]", "[error]"].iter().map(|level| nginx.count_log(level)).sum()
}

/// How often each element is in the list.
fn counts(redis: &Redis) -> HashMap<u64, usize> {
    let mut counts = HashMap::new();
    for id in redis.list("list") {
        *counts.entry(String::from_utf8(id).unwrap().parse().unwrap()).or_default() += 1;
    }
    counts
}

#[test]
fn redis_down_at_start_is_503_at_once_and_204_once_it_is_up() {
    let redis = Redis::start();
    redis.stop();
    // A deadline so far off that an answer before it was not waited for.
    let nginx = nginx(&redis.url(), "timeout 30s; connect_timeout 30s;");
    for _ in 0..50 {
        assert_away(&nginx);
    }
    nginx.wait_access("away 503 unavailable");
    let line = nginx.wait_log("is away");
    assert!(line.contains("[error]") && line.contains("connect failed") && line.contains("redis \"queue\""), "{line}");
    redis.restart();
    // No event is needed for it to be noticed.
    let line = nginx.wait_log("redis \"queue\" is back at 127.0.0.1:");
    assert!(line.contains("[notice]"), "{line}");
    assert_eq!(push(&nginx, "1").status, 204);
    assert_eq!((nginx.count_log("is away"), nginx.count_log("is back"), complaints(&nginx)), (1, 1, 1));
    assert_eq!(redis.list("list"), [b"1"]);
}

#[test]
fn redis_stopped_and_started_again_is_noticed_each_time() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url(), "timeout 30s; connect_timeout 30s;");
    for round in 1..=3 {
        live(&nginx);
        redis.stop();
        eventually(SOON, || nginx.count_log("connection lost: closed by Redis") == round);
        for _ in 0..20 {
            assert_away(&nginx);
        }
        assert_eq!(nginx.count_log("is away"), round, "{}", nginx.error_log());
        redis.restart();
        assert_recovers(&nginx);
        assert_eq!(nginx.count_log("is back"), round, "{}", nginx.error_log());
    }
    // That an idle connection was closed is no complaint, that Redis is away is one.
    assert_eq!(complaints(&nginx), 3, "{}", nginx.error_log());
}

#[test]
fn a_redis_that_goes_as_soon_as_it_came_is_said_to_be_away() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url(), "");
    assert_eq!(push(&nginx, "1").status, 204);
    redis.stop();
    nginx.wait_log("connection lost: closed by Redis");
    eventually(SOON, || push(&nginx, "away").status == 503);
    // At a level that a server logs by default.
    assert!(nginx.wait_log("is away").contains("[error]"));
    redis.restart();
    assert_recovers(&nginx);
    assert_eq!((nginx.count_log("is away"), nginx.count_log("is back")), (1, 1), "{}", nginx.error_log());
}

#[test]
fn every_answer_is_true_while_redis_restarts_under_load() {
    let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    for connections in [1, 4] {
        redis.cmd(&["DEL", "list"]);
        let nginx = nginx(&redis.url(), &format!("connections {connections};"));
        let load = Load::start(nginx.port(), 16, Until::Elapsed(Duration::from_secs(60)), |id| {
            Request::post(&format!("/?id={id}"), "{}").to_bytes()
        });
        load.wait_more(200);
        for kill in [false, true, false] {
            if kill {
                redis.kill();
                load.wait_more(50);
            }
            redis.restart();
            assert_recovers_under(&nginx, &load);
        }
        let sent = load.stop();
        let stored = counts(&redis);
        for sent in &sent {
            let count = stored.get(&sent.id).copied().unwrap_or(0);
            match sent.result {
                Ok(204) => assert_eq!(count, 1, "event {} was answered 204", sent.id),
                Ok(503) => assert_eq!(count, 0, "event {} was answered 503", sent.id),
                Ok(504) => assert!(count <= 1, "event {} was answered 504", sent.id),
                _ => panic!("event {}: {:?}", sent.id, sent.result),
            }
            assert!(sent.took < Duration::from_secs(10), "event {} hung for {:?}", sent.id, sent.took);
        }
        let of = |status| sent.iter().filter(|sent| sent.has_status(status)).count();
        assert!(of(204) >= 200 && of(503) > 0, "{} x 204, {} x 503, {} x 504", of(204), of(503), of(504));
        assert!(complaints(&nginx) <= 10 * connections, "{}", nginx.error_log());
    }
}

/// The load is taken again: there are more elements than before.
#[track_caller]
fn assert_recovers_under(nginx: &Nginx, load: &Load) {
    let lines = |log: String| log.lines().filter(|line| line.contains(" 204 stored ")).count();
    let before = lines(nginx.access_log());
    eventually(SOON, || lines(nginx.access_log()) >= before + 200);
    load.wait_more(10);
}

#[test]
fn redis_away_under_load_costs_a_line_and_few_attempts() {
    let redis = Redis::start();
    redis.stop();
    let nginx = nginx(&redis.url(), "connections 2;");
    let sent = load(nginx.port(), 8, Until::Elapsed(Duration::from_secs(2)), |id| {
        Request::post(&format!("/?id={id}"), "{}").to_bytes()
    });
    assert!(sent.len() > 500, "{} events", sent.len());
    assert!(sent.iter().all(|sent| sent.has_status(503)));
    assert!(complaints(&nginx) <= 4, "{}", nginx.error_log());
}

#[test]
fn redis_killed_between_write_and_reply_is_504_and_nothing_is_repeated() {
    let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let nginx = nginx(&redis.url(), "timeout 20s;");
    assert_recovers(&nginx);
    redis.cmd(&["DEL", "list"]);
    // A write waits in Redis, received and not done.
    redis.cmd(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    let mut http = Http::connect(nginx.port());
    http.send_raw(&Request::post("/?id=7", "{}").to_bytes());
    eventually(SOON, || redis.info("blocked_clients") == "1");
    redis.kill();
    let response = http.read_response();
    assert_eq!(response.status, 504, "{}", response.text());
    assert_eq!(response.json()["type"], "urn:meteorit:problem:outcome-unknown");
    assert_eq!(response.json()["detail"], "the connection to Redis was lost before it answered");
    nginx.wait_access("7 504 timeout ");
    redis.restart();
    assert_recovers(&nginx);
    assert!(redis.list("list").iter().all(|id| id == b"back"), "{:?}", redis.list("list"));
}

#[test]
fn a_connection_lost_between_write_and_reply_is_504_once_and_the_next_event_is_taken() {
    for reset in [false, true] {
        let fake =
            FakeRedis::start(|connection, _| if connection == 0 { Action::Hold } else { Action::reply(":1\r\n") });
        let nginx = nginx(&fake.url(), "timeout 20s;");
        let mut clients: Vec<Http> = (0..5).map(|_| Http::connect(nginx.port())).collect();
        for (id, http) in clients.iter_mut().enumerate() {
            http.send_raw(&Request::post(&format!("/?id={id}"), "{}").to_bytes());
            fake.wait_held(id + 1);
        }
        // A connection that has lived for a while is replaced at once.
        assert!(clients[0].is_silent(Duration::from_millis(700)));
        fake.close_all(reset);
        for http in &mut clients {
            let response = http.read_response();
            assert_eq!(response.status, 504, "{}", response.text());
            assert_eq!(response.json()["detail"], "the connection to Redis was lost before it answered");
        }
        assert_eq!(push(&nginx, "next").status, 204);
        let received: Vec<String> = fake.commands().iter().map(Received::text).collect();
        assert_eq!(
            received,
            ["RPUSH list 0", "RPUSH list 1", "RPUSH list 2", "RPUSH list 3", "RPUSH list 4", "RPUSH list next"]
        );
        assert_eq!(nginx.count_log("connection lost"), 1);
    }
}

/// Events are taken for long enough that the connection counts as sound.
fn live(nginx: &Nginx) {
    assert_recovers(nginx);
    let started = Instant::now();
    eventually(SOON, || {
        assert_eq!(push(nginx, "live").status, 204);
        started.elapsed() > Duration::from_millis(700)
    });
}

#[test]
fn an_idle_connection_that_is_killed_costs_the_next_event_nothing() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url(), "");
    for round in 1..=3 {
        live(&nginx);
        let killed: usize = redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert_eq!(killed, 1);
        eventually(SOON, || nginx.count_log("connection lost: closed by Redis") == round);
        assert_eq!(push(&nginx, "next").status, 204);
    }
    assert_eq!(nginx.count_log("[error]"), 0, "{}", nginx.error_log());
}

#[test]
fn a_busy_connection_that_is_killed_is_504_and_the_event_is_not_written_later() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url(), "timeout 20s;");
    live(&nginx);
    redis.cmd(&["CLIENT", "PAUSE", "60000", "WRITE"]);
    let mut http = Http::connect(nginx.port());
    http.send_raw(&Request::post("/?id=killed", "{}").to_bytes());
    eventually(SOON, || redis.info("blocked_clients") == "1");
    let killed: usize = redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert_eq!(killed, 1);
    assert_eq!(http.read_response().status, 504);
    redis.cmd(&["CLIENT", "UNPAUSE"]);
    assert_eq!(push(&nginx, "next").status, 204);
    assert!(!redis.list("list").contains(&b"killed".to_vec()));
}

#[test]
fn a_connection_that_redis_closes_for_its_idleness_costs_the_next_event_nothing() {
    let redis = Redis::with(&["--timeout", "1"]);
    let nginx = nginx(&redis.url(), "");
    for round in 1..=2 {
        assert_eq!(push(&nginx, "next").status, 204);
        eventually(SOON, || nginx.count_log("connection lost: closed by Redis") == round);
    }
    assert_eq!(push(&nginx, "last").status, 204);
    assert_eq!((redis.len("list"), nginx.count_log("[error]")), (3, 0));
}

#[test]
fn an_idle_connection_that_is_reset_costs_the_next_event_nothing() {
    let fake = FakeRedis::start(|_, _| Action::reply(":1\r\n"));
    let nginx = nginx(&fake.url(), "");
    live(&nginx);
    fake.close_all(true);
    nginx.wait_log("connection lost: receive failed: Connection reset by peer");
    assert_eq!(push(&nginx, "next").status, 204);
    assert_eq!(fake.connections(), 2);
}
