//! Under load: requests share writes and keep their order, a worker short of connections refuses and recovers, and memory
//! stays bounded whatever Redis does.

mod common;
#[path = "load/memory.rs"]
mod memory;

use common::*;
use std::collections::HashMap;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// `/events` appends to a list.
fn nginx_for(redis: &Redis, settings: &str) -> NginxBuilder {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; {settings} }}", redis.url()))
        .server("location /events { meteorit_pass queue; meteorit_command RPUSH events $event; }")
}

fn event(id: u64) -> Vec<u8> {
    Request::post("/events", format!(r#"{{"id":{id}}}"#)).to_bytes()
}

fn ids(redis: &Redis) -> Vec<u64> {
    let id = |event: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&event).unwrap()["id"].as_u64().unwrap();
    redis.list("events").into_iter().map(id).collect()
}

/// Every 204 exactly once, nothing twice.
#[track_caller]
fn assert_kept(sent: &[Sent], redis: &Redis) {
    let mut times: HashMap<u64, usize> = HashMap::new();
    ids(redis).into_iter().for_each(|id| *times.entry(id).or_default() += 1);
    for sent in sent {
        let found = times.get(&sent.id).copied().unwrap_or(0);
        assert!(found <= 1, "event {} is there {found} times", sent.id);
        assert!(found == 1 || !sent.has_status(204), "event {} was answered 204", sent.id);
    }
}

#[test]
fn a_worker_short_of_connections_refuses_and_recovers() {
    // Warm: the connection to Redis is there. Cold: it must be found among the clients'.
    for warm in [true, false] {
        let redis = Redis::start();
        let nginx = nginx_for(&redis, "").worker_connections(32).start();
        nginx.allow_log("worker_connections are not enough");
        let workers = nginx.worker_pids();
        if warm {
            assert_eq!(post(nginx.port(), "/events", r#"{"id":1000000}"#).status, 204);
        }
        let sent = load(nginx.port(), 64, Until::Elapsed(Duration::from_secs(2)), event);
        for sent in &sent {
            assert!(matches!(sent.result, Ok(204 | 503) | Err(_)), "{sent:?}");
        }
        assert!(sent.iter().any(|sent| !sent.has_status(204)), "64 clients were no shortage");
        eventually(SOON, || {
            let answer = Http::try_connect(nginx.port())
                .and_then(|mut http| http.try_call(&Request::post("/events", r#"{"id":2000000}"#)));
            answer.is_ok_and(|response| response.status == 204)
        });
        assert!(!warm || sent.iter().any(|sent| sent.has_status(204)));
        assert_kept(&sent, &redis);
        assert_eq!(nginx.worker_pids(), workers);
    }
}

#[test]
fn every_worker_serves_over_a_connection_of_its_own() {
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .worker_processes(3)
        .log_format("$pid $status")
        .http(&format!("meteorit_redis queue {{ server {}; }}", redis.url()))
        .server(
            "listen 127.0.0.1:%PORT% reuseport;\n\
             location /events { meteorit_pass queue; meteorit_command RPUSH events $event; }",
        )
        .start();
    let sent = load(nginx.port(), 32, Until::PerConnection(40), event);
    assert!(sent.iter().all(|sent| sent.has_status(204)));
    assert_kept(&sent, &redis);
    for worker in nginx.worker_pids() {
        nginx.wait_access(&format!("{worker} 204"));
    }
    let clients: String = redis.ask(&["CLIENT", "LIST", "TYPE", "normal"]);
    assert_eq!(clients.lines().filter(|client| client.contains("addr=127.0.0.1")).count(), 3, "{clients}");
}

#[test]
fn requests_of_one_loop_iteration_share_a_write() {
    const CLIENTS: usize = 60;
    const ROUNDS: usize = 10;
    let redis = Redis::start();
    let nginx = nginx_for(&redis, "").start();
    let worker = nginx.worker_pids()[0];
    let mut clients: Vec<Http> = (0..CLIENTS).map(|_| Http::connect(nginx.port())).collect();
    for client in &mut clients {
        client.send_raw(&event(0));
        assert_eq!(client.read_response().status, 204);
    }
    let reads = || redis.info("total_reads_processed").parse::<usize>().unwrap();
    let before = reads();
    for round in 0..ROUNDS {
        // What arrives while the worker stands still is one iteration's when it goes on.
        nginx.signal(worker, libc::SIGSTOP);
        for client in &mut clients {
            client.send_raw(&event(round as u64));
        }
        nginx.signal(worker, libc::SIGCONT);
        for client in &mut clients {
            assert_eq!(client.read_response().status, 204);
        }
    }
    let reads = reads() - before;
    // One a round, and the question's own; with a write for each request it would be hundreds.
    assert!(reads <= ROUNDS * 4, "{reads} reads for {} commands", ROUNDS * CLIENTS);
    assert_eq!(redis.len("events"), CLIENTS * (ROUNDS + 1));
}

#[test]
fn events_of_one_client_keep_their_order() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis, "").start();
    let requests: Vec<Request> = (0..3000).map(|id| Request::post("/events", format!(r#"{{"id":{id}}}"#))).collect();
    let responses = Http::connect(nginx.port()).pipeline(&requests);
    assert!(responses.iter().all(|response| response.status == 204));
    assert_eq!(ids(&redis), (0..3000).collect::<Vec<_>>());
}

#[test]
fn events_of_many_clients_each_keep_their_order() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis, "").start();
    let port = nginx.port();
    std::thread::scope(|scope| {
        for client in 0..8u64 {
            scope.spawn(move || {
                let request = |i| Request::post("/events", format!(r#"{{"id":{}}}"#, client * 10_000 + i));
                let requests: Vec<Request> = (0..300).map(request).collect();
                let responses = Http::connect(port).pipeline(&requests);
                assert!(responses.iter().all(|response| response.status == 204));
            });
        }
    });
    let ids = ids(&redis);
    for client in 0..8u64 {
        let own: Vec<u64> = ids.iter().copied().filter(|id| id / 10_000 == client).collect();
        assert_eq!(own, (0..300).map(|i| client * 10_000 + i).collect::<Vec<_>>());
    }
}
