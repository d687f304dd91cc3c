//! Workers come and go: a reload loses no event and answers no client wrongly, a quit answers what is in flight and waits
//! for nothing else, and a worker that is killed is only one that is replaced.

mod common;
#[path = "reload/shutdown.rs"]
mod shutdown;

use common::*;
use std::collections::HashMap;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
/// Longer than any test waits: what ends before it was not ended by it.
const LONG: &str = "connect_timeout 60s; timeout 60s; stall_timeout 60s;";

/// `/events` appends to a list.
fn nginx_for(url: &str, settings: &str) -> NginxBuilder {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {url}; {settings} }}"))
        .server("location /events { meteorit_pass queue; meteorit_command RPUSH events $event; }")
}

fn event(id: u64) -> Vec<u8> {
    Request::post("/events", format!(r#"{{"id":{id}}}"#)).to_bytes()
}

/// Load that lasts until the test stops it.
fn load_on(nginx: &Nginx, connections: usize) -> Load {
    Load::start(nginx.port(), connections, Until::Elapsed(Duration::from_secs(120)), event)
}

/// How often each event of the load is in this list.
fn stored(redis: &Redis, key: &str) -> HashMap<u64, usize> {
    let mut times = HashMap::new();
    for event in redis.list(key) {
        let event: serde_json::Value = serde_json::from_slice(&event).expect("an event");
        *times.entry(event["id"].as_u64().expect("an id")).or_default() += 1;
    }
    times
}

/// Every 204 exactly once, nothing twice, and no other status.
#[track_caller]
fn assert_kept(sent: &[Sent], stored: &HashMap<u64, usize>) {
    for sent in sent {
        let times = stored.get(&sent.id).copied().unwrap_or(0);
        match &sent.result {
            Ok(204) => assert_eq!(times, 1, "event {} was answered 204", sent.id),
            // A keep-alive connection may be closed while a request is on its way (RFC 9112 section 9.3.1).
            Err(_) => assert!(times <= 1, "event {} is there {times} times", sent.id),
            Ok(status) => panic!("event {} was answered {status}", sent.id),
        }
    }
}

#[test]
fn twenty_reloads_under_load_lose_no_event() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url(), "").worker_processes(2).start();
    let load = load_on(&nginx, 8);
    let mut old = Vec::new();
    for _ in 0..20 {
        load.wait_more(30);
        old.extend(nginx.reload());
    }
    load.wait_more(30);
    let sent = load.stop();
    nginx.wait_gone(&old);
    assert_eq!(old.len(), 40);
    assert_kept(&sent, &stored(&redis, "events"));
    assert!(sent.iter().filter(|sent| sent.has_status(204)).count() >= 21 * 30);
    // Each worker had a connection of its own; those of the old ones are gone.
    eventually(SOON, || {
        let clients: String = redis.ask(&["CLIENT", "LIST", "TYPE", "normal"]);
        // The rest are the test's own, by the unix socket.
        clients.lines().filter(|client| client.contains("addr=127.0.0.1")).count() <= 2
    });
}

#[test]
fn a_reload_finishes_what_is_in_flight_in_the_old_worker() {
    let redis = FakeRedis::start(|_, args| match args[2].as_slice() {
        br#"{"old":1}"# => Action::Hold,
        _ => Action::Default,
    });
    let nginx = nginx_for(&redis.url(), LONG).start();
    let mut client = Http::connect(nginx.port());
    client.send_raw(&Request::post("/events", r#"{"old":1}"#).to_bytes());
    redis.wait_held(1);
    let old = nginx.reload();
    assert_eq!(post(nginx.port(), "/events", r#"{"new":1}"#).status, 204);
    assert!(is_running(old[0]), "it has a client to answer");
    redis.release(0, Action::Default);
    assert_eq!(client.read_response().status, 204);
    drop(client);
    nginx.wait_gone(&old);
    eventually(SOON, || redis.open_connections() == 1);
}

#[test]
fn a_request_that_is_still_being_sent_survives_a_reload() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url(), "").start();
    let mut client = Http::connect(nginx.port());
    // In one segment with the first: once that is answered, the worker has begun with the second.
    let second = event(2);
    let (begin, end) = second.split_at(second.len() - 4);
    client.send_raw(&[&event(1), begin].concat());
    assert_eq!(client.read_response().status, 204);
    let old = nginx.reload();
    eventually(SOON, || title(old[0]).contains("shutting down"));
    // The old worker's connection to Redis was idle and is closed: it has to make another.
    eventually(SOON, || redis.info("connected_clients") == "1");
    client.send_raw(end);
    assert_eq!(client.read_response().status, 204);
    drop(client);
    nginx.wait_gone(&old);
    assert_eq!(stored(&redis, "events"), HashMap::from([(1, 1), (2, 1)]));
}

#[test]
fn a_reload_changes_the_address_and_the_commands() {
    let (first, second) = (Redis::start(), Redis::start());
    let nginx = nginx_for(&first.url(), "").start();
    let load = load_on(&nginx, 4);
    load.wait_more(50);
    nginx.rewrite_conf(|conf| {
        conf.replace(&first.url(), &second.url()).replace("RPUSH events $event", "RPUSH others $event")
    });
    nginx.reload_and_drain();
    load.wait_more(50);
    let sent = load.stop();
    let (before, after) = (stored(&first, "events"), stored(&second, "others"));
    assert_eq!((first.len("others"), second.len("events")), (0, 0));
    assert!(before.len() >= 50 && after.len() >= 50);
    let both = before.keys().find(|id| after.contains_key(id));
    assert_eq!(both, None, "written by the old and the new worker");
    assert_kept(&sent, &before.into_iter().chain(after).collect());
    assert_eq!(first.info("connected_clients"), "1", "the question's own");
}

#[test]
fn a_reload_may_take_the_last_meteorit_location_away() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url(), "").start();
    assert_eq!(post(nginx.port(), "/events", r#"{"id":1}"#).status, 204);
    nginx.rewrite_conf(|conf| {
        let end = conf.find("meteorit_pass").unwrap();
        let rest = conf[end..].find('}').unwrap() + end;
        format!("{}return 410; {}", &conf[..end], &conf[rest..])
    });
    nginx.reload_and_drain();
    assert_eq!(post(nginx.port(), "/events", r#"{"id":2}"#).status, 410);
    assert_eq!(redis.info("connected_clients"), "1", "the question's own");
}

#[test]
fn a_broken_configuration_leaves_the_old_workers_serving() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url(), "").start();
    nginx.allow_log("unknown \"meteorit_redis\"");
    nginx.allow_log("nowhere");
    let workers = nginx.worker_pids();
    let load = load_on(&nginx, 2);
    load.wait_more(20);
    let good = nginx.read("nginx.conf");
    nginx.rewrite_conf(|conf| conf.replace("meteorit_pass queue", "meteorit_pass nowhere"));
    nginx.signal(nginx.master_pid(), libc::SIGHUP);
    let line = nginx.wait_log("[emerg]");
    assert!(line.contains("nowhere") && line.contains("nginx.conf:"), "{line}");
    load.wait_more(20);
    assert_eq!(nginx.worker_pids(), workers);
    nginx.rewrite_conf(|_| good);
    nginx.signal(nginx.master_pid(), libc::SIGHUP);
    nginx.wait_gone(&workers);
    load.wait_more(20);
    assert_kept(&load.stop(), &stored(&redis, "events"));
}

#[test]
fn a_killed_worker_is_replaced() {
    let redis = Redis::start();
    let nginx = nginx_for(&redis.url(), "").worker_processes(2).start();
    nginx.allow_log("exited on signal 9");
    let load = load_on(&nginx, 4);
    for _ in 0..3 {
        load.wait_more(50);
        let worker = nginx.worker_pids()[0];
        nginx.signal(worker, libc::SIGKILL);
        nginx.wait_gone(&[worker]);
        nginx.wait_respawn(&[worker]);
    }
    load.wait_more(50);
    assert_kept(&load.stop(), &stored(&redis, "events"));
    assert_eq!(nginx.count_log("exited on signal 9"), 3);
}

#[test]
fn a_worker_killed_with_a_request_in_flight_leaves_its_event_written() {
    let redis = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx_for(&redis.url(), LONG).start();
    nginx.allow_log("exited on signal 9");
    let workers = nginx.worker_pids();
    let mut client = Http::connect(nginx.port());
    client.send_raw(&event(1));
    redis.wait_held(1);
    nginx.signal(workers[0], libc::SIGKILL);
    assert!(client.is_closed(), "no answer is better than a guess");
    nginx.wait_respawn(&workers);
    redis.set_handler(|_, _| Action::Default);
    assert_eq!(post(nginx.port(), "/events", r#"{"id":2}"#).status, 204);
    assert_eq!(redis.commands().len(), 2, "never sent again by itself");
}
