//! The memory of a worker: flat while events pass through, bounded while they cannot.

use super::*;

/// An event of exactly this many bytes.
fn event_of(size: usize, id: u64) -> String {
    let head = format!(r#"{{"id":{id},"padding":""#);
    let padding = "x".repeat(size - head.len() - 2);
    format!(r#"{head}{padding}"}}"#)
}

/// One gigabyte, or what METEORIT_TEST_MB says.
fn megabytes() -> u64 {
    std::env::var("METEORIT_TEST_MB").map_or(1024, |text| text.parse().expect("METEORIT_TEST_MB is a number"))
}

#[test]
fn a_gigabyte_of_events_leaves_memory_flat() {
    const SIZE: usize = 65_536;
    const CLIENTS: u64 = 4;
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; timeout 20s; stall_timeout 20s; }}", redis.url()))
        .server(
            "location /events {
                meteorit_pass queue;
                meteorit_command RPUSH events $event;
                meteorit_command LTRIM events -10 -1;
                meteorit_command HINCRBY count total 1;
            }",
        )
        .start();
    let worker = nginx.worker_pids();
    let run = |count: u64| {
        let sent = load(nginx.port(), CLIENTS as usize, Until::PerConnection(count / CLIENTS), |id| {
            Request::post("/events", event_of(SIZE, id)).to_bytes()
        });
        assert!(sent.iter().all(|sent| sent.has_status(204)));
        sent.len()
    };
    let warm_up = run(800);
    let before = nginx.worker_rss_kb();
    let sent = run(megabytes() * 16);
    let after = nginx.worker_rss_kb();
    assert!(after < before + 3 * 1024, "from {before} kB to {after} kB in {sent} events");
    assert_eq!(redis.hash("count")["total"], (warm_up + sent).to_string());
    assert_eq!(nginx.worker_pids(), worker);
}

#[test]
fn memory_is_bounded_while_redis_stands_still() {
    const BACKLOG_KB: u64 = 4 * 1024;
    const CLIENTS: usize = 200;
    let redis = Redis::start();
    let nginx = nginx_for(&redis, "backlog 4m; timeout 20s; stall_timeout 20s;").start();
    let request = |id| Request::post("/events", event_of(60_000, id)).to_bytes();
    // Many clients, so that much of nginx's own memory for them is there already: all of it only once Redis stands still.
    let warm_up = load(nginx.port(), CLIENTS, Until::PerConnection(3), request);
    assert!(warm_up.iter().all(|sent| sent.has_status(204) || sent.has_status(503)));
    let before = nginx.worker_rss_kb();
    redis.cmd(&["DEL", "events"]);

    let mut limit = before + 2 * BACKLOG_KB + CLIENTS as u64 * 64;
    let load = Load::start(nginx.port(), CLIENTS, Until::Elapsed(SOON * 6), request);
    for _ in 0..3 {
        redis.pause();
        // Twelve megabytes are more than the backlog and the sockets' buffers hold; whom there is no room for is told so.
        load.wait_more(1500);
        let during = nginx.worker_rss_kb();
        assert!(during < limit, "from {before} kB to {during} kB");
        limit = limit.min(during + 2 * BACKLOG_KB);
        redis.resume();
        let stored = redis.len("events");
        eventually(SOON, || redis.len("events") > stored + CLIENTS);
    }
    let sent = load.stop();
    let refused = sent.iter().filter(|sent| sent.has_status(503)).count();
    assert!(refused >= 3 * (1500 - CLIENTS), "{refused} were refused");
    assert!(sent.iter().all(|sent| sent.has_status(204) || sent.has_status(503)), "a status that is neither");
    assert_kept(&sent, &redis);
    let after = nginx.worker_rss_kb();
    assert!(after < limit, "from {before} kB to {after} kB");
}

#[test]
fn memory_is_bounded_while_redis_stands_still_for_longer_than_the_deadline() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis, "backlog 4m; connect_timeout 100ms; timeout 100ms; stall_timeout 500ms;").start();
    let request = |id| Request::post("/events", event_of(20_000, id)).to_bytes();
    let warm_up = load(nginx.port(), 50, Until::PerConnection(10), request);
    assert!(!warm_up.is_empty());
    let before = nginx.worker_rss_kb();
    redis.pause();
    let sent = load(nginx.port(), 50, Until::Elapsed(Duration::from_secs(3)), request);
    let after = nginx.worker_rss_kb();
    assert!(after < before + 8 * 1024, "from {before} kB to {after} kB");
    assert!(sent.iter().all(|sent| sent.has_status(503) || sent.has_status(504)), "nothing can have been stored");
    assert!(sent.iter().any(|sent| sent.has_status(504)), "what was sent may yet be written");
    redis.resume();
    eventually(SOON, || post(nginx.port(), "/events", r#"{"id":1000000}"#).status == 204);
}
