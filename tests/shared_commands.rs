//! Events of one loop iteration whose commands are the same but for their values share one command; each keeps its own
//! answer, its own bytes and its place.

mod common;

use common::*;
use serde_json::{Value, json};

const LINES: &str = "application/x-ndjson";

fn site(url: &str, settings: &str) -> Nginx {
    let location = |name: &str, command: &str, more: &str| {
        format!(
            "location = /{name} {{ meteorit_pass queue; meteorit_command {command}; meteorit_batch partial; {more} }}\n"
        )
    };
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {url}; {settings} }}"))
        .server(
            &[
                location("list", "RPUSH list $event", ""),
                location("front", "LPUSH list $event_n", ""),
                location("set", "SADD set $event_n also-$event_n", ""),
                location("log", "PFADD log $event_n", ""),
                location("keys", "RPUSH list:$event_key $event_n", ""),
                location("counted", "RPUSH list $event_n; meteorit_command INCR count", ""),
                location("whole", "RPUSH list $event_n; meteorit_command RPUSH list again-$event_n", ""),
                location("transaction", "RPUSH list $event_n", "meteorit_transaction on;"),
                location("queued", "RPUSH list $event_n", "meteorit_ack queued;"),
            ]
            .concat(),
        )
        .start()
}

fn send(nginx: &Nginx, path: &str, events: &[String]) -> Response {
    let request = Request::new("POST", path).header("Content-Type", LINES).body(events.join("\n"));
    Http::connect(nginx.port()).call(&request)
}

fn events(count: usize) -> Vec<String> {
    (0..count).map(|n| json!({"n": n.to_string(), "key": n / 10 % 2}).to_string()).collect()
}

fn texts(list: Vec<Vec<u8>>) -> Vec<String> {
    list.into_iter().map(|text| String::from_utf8(text).expect("text")).collect()
}

/// The statuses of the events that were not accepted.
fn refused(report: &Value) -> Vec<u64> {
    let errors = report["errors"].as_array().expect("errors");
    errors.iter().map(|error| error["status"].as_u64().expect("a status")).collect()
}

/// How often Redis has carried out a command of that name.
fn calls(redis: &Redis, name: &str) -> usize {
    let text: String = redis.ask(&["INFO", "commandstats"]);
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{name}:calls=")));
    line.map_or(0, |line| line.split(',').next().and_then(|calls| calls.parse().ok()).expect("a number"))
}

#[test]
fn a_batch_for_one_list_is_one_command_and_keeps_its_order() {
    let redis = Redis::start();
    let nginx = site(&redis.url(), "");
    let events = events(100);
    assert_eq!(send(&nginx, "/list", &events).status, 204);
    assert_eq!((calls(&redis, "rpush"), texts(redis.list("list"))), (1, events.clone()));
    redis.cmd(&["DEL", "list"]);
    assert_eq!(send(&nginx, "/front", &events).status, 204);
    let expected: Vec<String> = (0..100).rev().map(|n| n.to_string()).collect();
    assert_eq!((calls(&redis, "lpush"), texts(redis.list("list"))), (1, expected));
}

#[test]
fn only_neighbours_of_one_key_share() {
    let redis = Redis::start();
    let nginx = site(&redis.url(), "");
    assert_eq!(send(&nginx, "/keys", &events(40)).status, 204);
    assert_eq!((calls(&redis, "rpush"), redis.len("list:0"), redis.len("list:1")), (4, 20, 20));
    assert_eq!(send(&nginx, "/counted", &events(10)).status, 204);
    assert_eq!((calls(&redis, "rpush"), redis.len("list")), (14, 10));
    assert_eq!(send(&nginx, "/transaction", &events(10)).status, 204);
    assert_eq!((calls(&redis, "rpush"), calls(&redis, "exec"), redis.len("list")), (24, 10, 20));
}

#[test]
fn sets_and_logs_take_all_values() {
    let redis = Redis::start();
    let nginx = site(&redis.url(), "");
    assert_eq!(send(&nginx, "/set", &events(50)).status, 204);
    assert_eq!(send(&nginx, "/log", &events(50)).status, 204);
    assert_eq!((calls(&redis, "sadd"), calls(&redis, "pfadd")), (1, 1));
    assert_eq!(redis.ask::<usize>(&["SCARD", "set"]), 100);
    assert!(redis.ask::<usize>(&["PFCOUNT", "log"]) > 45);
}

#[test]
fn what_redis_refuses_of_a_shared_command_is_refused_for_each() {
    let redis = Redis::start();
    let nginx = site(&redis.url(), "");
    redis.cmd(&["SET", "list", "text"]);
    let response = send(&nginx, "/list", &events(10));
    let report = response.json();
    assert_eq!((response.status, &report["stored"], refused(&report)), (502, &json!([]), vec![502; 10]), "{report}");
    redis.cmd(&["DEL", "list"]);
    redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    let response = send(&nginx, "/list", &events(10));
    assert_eq!((response.status, refused(&response.json())), (503, vec![503; 10]), "{}", response.text());
    assert_eq!(redis.len("list"), 0);
}

#[test]
fn a_shared_command_without_an_answer_is_unknown_for_each_and_not_sent_again() {
    let fake = FakeRedis::start(|_, command| match &command[0][..] {
        b"RPUSH" => Action::Close,
        _ => Action::Default,
    });
    let nginx = site(&fake.url(), "");
    let response = send(&nginx, "/list", &events(10));
    let report = response.json();
    assert_eq!((response.status, &report["stored"], refused(&report)), (504, &json!([]), vec![504; 10]), "{report}");
    let sent = fake.commands().iter().filter(|command| command.args[0] == b"RPUSH").count();
    assert_eq!(sent, 1);
}

#[test]
fn what_is_queued_is_sent_again_whole_and_in_order() {
    let redis = Redis::start();
    let nginx = site(&redis.url(), "");
    redis.stop();
    assert_eq!(send(&nginx, "/queued", &events(300)).status, 202);
    assert_eq!(send(&nginx, "/queued", &events(300)).status, 202);
    redis.restart();
    redis.wait_len("list", 600);
    let once: Vec<String> = (0..300).map(|n| n.to_string()).collect();
    assert_eq!(texts(redis.list("list")), [once.clone(), once].concat());
    assert!(calls(&redis, "rpush") < 60, "{}", calls(&redis, "rpush"));
}
