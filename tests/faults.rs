//! Faults that other receivers of events suffered and that no other file here is about; tests/README.md lists all of them.

mod common;

use common::*;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn nginx_for(url: &str, settings: &str) -> Nginx {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {url}; {settings} }}"))
        .server(
            "location = /events { meteorit_pass queue; meteorit_command RPUSH events $event; }
             location = /numbers { meteorit_pass queue; meteorit_command INCRBY sum $event_by;
                meteorit_command ZADD scores $event_score member; meteorit_command HSET texts by $event_by; }",
        )
        .body_buffer("16k")
        .start()
}

#[test]
fn f09_a_unix_socket_whose_queue_is_full_is_away_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.sock");
    let listener = UnixListener::bind(&path).unwrap();
    set_backlog(listener.as_fd(), 0);
    // It waits to be accepted, and there is room for no other.
    let first = UnixStream::connect(&path).unwrap();
    let nginx = nginx_for(&format!("redis+unix://{}", path.display()), "");
    for _ in 0..5 {
        let response = post(nginx.port(), "/events", r#"{"id":1}"#);
        assert_eq!(response.status, 503, "{}", response.text());
    }
    assert!(nginx.wait_log("is away").contains("Resource temporarily unavailable"), "{}", nginx.error_log());
    drop((first, listener));
    std::fs::remove_file(&path).unwrap();
    let redis = FakeRedis::builder().unix(&path).start(|_, _| Action::reply(":1\r\n"));
    eventually(SOON, || post(nginx.port(), "/events", r#"{"id":2}"#).status == 204);
    assert!(redis.commands().iter().all(|command| command.text() == r#"RPUSH events {"id":2}"#));
}

#[test]
fn f11_an_event_costs_a_worker_no_more_while_redis_is_away() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url(), "");
    let run = |status: u16| {
        let before = nginx.worker_cpu();
        let sent = load(nginx.port(), 8, Until::PerConnection(2000), |id| {
            Request::post("/events", format!(r#"{{"id":{id}}}"#)).to_bytes()
        });
        assert!(sent.iter().all(|sent| sent.has_status(status)), "{:?}", sent.iter().find(|s| !s.has_status(status)));
        nginx.worker_cpu() - before
    };
    let there = run(204);
    redis.stop();
    eventually(SOON, || post(nginx.port(), "/events", "{}").status == 503);
    let lines = nginx.error_log().lines().filter(|line| !line.contains("[info]")).count();
    let away = run(503);
    assert!(away <= 2 * there + Duration::from_millis(100), "{there:?} with Redis, {away:?} without");
    let lines = nginx.error_log().lines().filter(|line| !line.contains("[info]")).count() - lines;
    assert!(lines <= 10, "{lines} lines in the log:\n{}", nginx.error_log());
}

#[test]
fn f11_a_worker_that_waits_for_redis_to_come_back_does_not_spin() {
    let redis = FakeRedis::builder().with_handshake().start(|_, _| Action::Close);
    let nginx = nginx_for(&redis.url(), "");
    assert_eq!(post(nginx.port(), "/events", "{}").status, 503);
    let (before, attempts) = (nginx.worker_cpu(), redis.connections());
    redis.wait_connections(attempts + 3);
    let spent = nginx.worker_cpu() - before;
    assert!(spent < Duration::from_millis(100), "{spent:?} of CPU for three attempts, some seconds apart");
}

#[test]
fn f18_ten_thousand_reconnects_leak_no_descriptor() {
    // Each Redis of the configuration has a connection of its own to the one there is.
    const POOLS: usize = 700;
    const RECONNECTS: usize = 10_000;
    let redis = Redis::start();
    let (mut pools, mut locations) = (String::new(), String::new());
    for number in 0..POOLS {
        pools += &format!("meteorit_redis r{number} {{ server {}; timeout 20s; connect_timeout 20s; }}\n", redis.url());
        locations += &format!("location = /{number} {{ meteorit_pass r{number}; }}\n");
    }
    let nginx = Nginx::builder()
        .http(&pools)
        .server(&format!("meteorit_command INCR count;\n{locations}"))
        .worker_connections(POOLS + 100)
        .start();
    let requests: Vec<Request> = (0..POOLS).map(|number| Request::post(&format!("/{number}"), "{}")).collect();
    let mut client = Http::connect(nginx.port());
    let made = || redis.info("total_connections_received").parse::<usize>().unwrap();
    let (mut rounds, mut descriptors) = (0, 0);
    while rounds * POOLS < RECONNECTS {
        assert!(client.pipeline(&requests).iter().all(|response| response.status == 204));
        rounds += 1;
        if rounds == 1 {
            descriptors = nginx.worker_fds();
            assert!(descriptors > POOLS);
        }
        // One that has lived for half a second is replaced without delay.
        let connected = Instant::now();
        eventually(SOON, || connected.elapsed() > Duration::from_millis(600));
        let killed: usize = redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert_eq!(killed, POOLS);
        eventually(SOON, || nginx.count_log("connection lost: closed by Redis") == rounds * POOLS);
    }
    assert!(made() > RECONNECTS);
    assert!(client.pipeline(&requests).iter().all(|response| response.status == 204));
    assert_eq!(nginx.worker_fds(), descriptors);
    assert_eq!(redis.get("count").unwrap(), ((rounds + 1) * POOLS).to_string().into_bytes());
}

#[test]
fn f19_an_event_refused_while_redis_is_away_leaves_its_connection_to_the_next() {
    let redis = Redis::start();
    redis.stop();
    let nginx = nginx_for(&redis.url(), "");
    let event = |size: usize| format!(r#"{{"padding":"{}"}}"#, "x".repeat(size));
    // In memory, and in a temporary file.
    let (small, large) = (event(10), event(40_000));
    let mut client = Http::connect(nginx.port());
    for body in [&small, &large, &small] {
        let response = client.post("/events", body);
        assert_eq!((response.status, response.closes()), (503, false), "{}", response.text());
        let half = body.len() / 2;
        let response = client.post_chunked("/events", &[&body.as_bytes()[..half], &body.as_bytes()[half..]]);
        assert_eq!((response.status, response.closes()), (503, false), "{}", response.text());
    }
    let requests: Vec<Request> = [&large, &small, &large].map(|body| Request::post("/events", body)).to_vec();
    assert!(client.pipeline(&requests).iter().all(|response| response.status == 503));
    redis.restart();
    eventually(SOON, || client.post("/events", &small).status == 204);
    assert_eq!(client.post("/events", &large).status, 204);
    assert_eq!(redis.list("events"), [small.as_bytes(), large.as_bytes()]);
}

#[test]
fn f25_numbers_reach_redis_digit_by_digit() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url(), "");
    for (by, score) in [
        ("9223372036854775807", "123456789012345678"),
        ("-9223372036854775808", "1e300"),
        ("1000000000000000", "-0.1234567890123456"),
    ] {
        redis.cmd(&["SET", "sum", "0"]);
        let response = post(nginx.port(), "/numbers", format!(r#"{{"by":{by},"score":{score}}}"#));
        assert_eq!(response.status, 204, "{}", response.text());
        assert_eq!(redis.get("sum").unwrap(), by.as_bytes());
        assert_eq!(redis.hash("texts")["by"], by);
        let stored: f64 = redis.ask(&["ZSCORE", "scores", "member"]);
        assert_eq!(stored, score.parse::<f64>().unwrap());
    }
}

#[test]
fn f41_nothing_of_ours_is_made_before_the_fork_and_no_thread_anywhere() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url(), "connections 4;");
    let before = open_fds(nginx.master_pid());
    let sent = load(nginx.port(), 8, Until::PerConnection(20), |_| Request::post("/events", "{}").to_bytes());
    assert!(sent.iter().all(|sent| sent.has_status(204)));
    let worker = nginx.worker_pids()[0];
    nginx.reload_and_drain();
    assert_eq!(post(nginx.port(), "/events", "{}").status, 204);
    assert_ne!(nginx.worker_pids()[0], worker);
    let threads = |pid| std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process").count();
    assert_eq!((threads(nginx.master_pid()), threads(nginx.worker_pids()[0])), (1, 1));
    // A channel to the worker is all that a master may gain or lose.
    assert!(open_fds(nginx.master_pid()).abs_diff(before) <= 2);
}
