//! A Redis that is there and does not answer: deadlines hold, what was not sent by then is never written, waiting is
//! bounded, and all goes on when it wakes.

mod common;

use common::*;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);

fn nginx(server: &str, settings: &str) -> Nginx {
    Nginx::builder()
        .http(&format!("client_max_body_size 16m; meteorit_redis queue {{ server {server}; {settings} }}"))
        .server(
            "location / { meteorit_pass queue; meteorit_max_event_size 8m; meteorit_command RPUSH list $event; }
             location = /id { meteorit_pass queue; meteorit_command RPUSH list $arg_id; }",
        )
        .body_buffer("8m")
        .log_format("$uri $status $meteorit_status $meteorit_redis_time")
        .start()
}

fn padded(id: u64, size: usize) -> String {
    format!(r#"{{"id":{id},"pad":"{}"}}"#, "x".repeat(size))
}

fn id_of(event: &[u8]) -> u64 {
    let event: serde_json::Value = serde_json::from_slice(event).expect("an event as it was sent");
    event["id"].as_u64().expect("an id")
}

fn sending(nginx: &Nginx, path: &str, event: &str) -> Http {
    let mut http = Http::connect(nginx.port());
    http.send_raw(&Request::post(path, event).to_bytes());
    http
}

#[track_caller]
fn assert_detail(response: &Response, status: u16, detail: &str) {
    assert_eq!((response.status, &response.json()["detail"]), (status, &detail.into()));
}

#[track_caller]
fn assert_recovers(nginx: &Nginx) {
    let taken = within(SOON, || {
        let response = post(nginx.port(), "/id?id=back", "{}");
        assert!(matches!(response.status, 204 | 503), "{}: {}", response.status, response.text());
        response.status == 204
    });
    assert!(taken, "no event was taken; the log:\n{}", nginx.error_log());
}

const LATE: &str = "Redis did not answer in time";
const NOT_TAKEN: &str = "Redis did not take it in time; nothing was written";
const AWAY: &str = "Redis is away; nothing was written";

#[test]
fn a_stopped_redis_is_504_then_its_connection_is_closed_then_503_at_once() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url(), "timeout 600ms; stall_timeout 1500ms; connect_timeout 500ms;");
    assert_eq!(post(nginx.port(), "/id?id=before", "{}").status, 204);
    redis.pause();
    let began = Instant::now();
    assert_detail(&post(nginx.port(), "/id?id=late", "{}"), 504, LATE);
    assert!(began.elapsed() >= Duration::from_millis(500), "a deadline of 600 ms came after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5));
    nginx.wait_access("/id 504 timeout 0.6");
    let line = nginx.wait_log("connection lost");
    assert!(line.contains("no reply for 1500 ms"), "{line}");
    assert!(began.elapsed() >= Duration::from_millis(1400), "stalled after {:?}", began.elapsed());
    // Whether it takes connections again has to be tried once; from then on nobody waits.
    eventually(SOON, || post(nginx.port(), "/id?id=away", "{}").status == 503);
    for _ in 0..20 {
        assert_detail(&post(nginx.port(), "/id?id=away", "{}"), 503, AWAY);
    }
    let away = nginx.access_log().lines().filter(|line| line.ends_with("503 unavailable -")).count();
    assert!(away >= 19, "{away} of 20 did not wait:\n{}", nginx.access_log());
    redis.resume();
    assert_recovers(&nginx);
    let list = redis.list("list");
    assert!(list.iter().filter(|id| *id == b"late").count() <= 1, "sent again");
    assert!(!list.contains(&b"away".to_vec()), "503 means that nothing was written");
}

#[test]
fn a_stalled_connection_fails_all_that_waits_for_it_before_their_deadline() {
    let fake = FakeRedis::start(|connection, _| if connection == 0 { Action::Hold } else { Action::reply(":1\r\n") });
    let nginx = nginx(&fake.url(), "timeout 60s; stall_timeout 700ms;");
    let mut clients: Vec<Http> = (0..3).map(|id| sending(&nginx, &format!("/id?id={id}"), "{}")).collect();
    for http in &mut clients {
        assert_detail(&http.read_response(), 504, "the connection to Redis was lost before it answered");
    }
    nginx.wait_log("no reply for 700 ms");
    assert_recovers(&nginx);
}

#[test]
fn replies_that_trickle_are_progress() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx(&fake.url(), "timeout 60s; stall_timeout 600ms;");
    let mut clients = Vec::new();
    for id in 0..6 {
        clients.push(sending(&nginx, &format!("/id?id={id}"), "{}"));
        fake.wait_held(id + 1);
    }
    for http in &mut clients {
        // Twice as long in all as may pass without a reply.
        assert!(http.is_silent(Duration::from_millis(250)));
        fake.release(0, Action::reply(":1\r\n"));
        assert_eq!(http.read_response().status, 204);
    }
    assert_eq!((fake.connections(), nginx.count_log("connection lost")), (1, 0));
}

#[test]
fn what_was_not_sent_by_its_deadline_is_503_and_never_written() {
    let redis = Redis::start();
    // A unix socket takes little before it is full.
    let server = format!("redis+unix://{}", redis.socket().display());
    let nginx = nginx(&server, "timeout 1s; stall_timeout 60s; backlog 64m;");
    assert_eq!(post(nginx.port(), "/", padded(1000, 0)).status, 204);
    redis.pause();
    let sent = load(nginx.port(), 100, Until::PerConnection(2), |id| Request::post("/", padded(id, 60_000)).to_bytes());
    redis.resume();
    // Behind it in the same connection: all that was to be written has been.
    assert_recovers(&nginx);
    let mut stored: HashMap<u64, usize> = HashMap::new();
    for event in redis.list("list").iter().filter(|event| *event != b"back") {
        *stored.entry(id_of(event)).or_default() += 1;
    }
    let of = |status| sent.iter().filter(|sent| sent.has_status(status)).count();
    assert!(of(503) > 0 && of(504) > 0 && of(503) + of(504) == 200, "{} x 503, {} x 504", of(503), of(504));
    for sent in &sent {
        let count = stored.get(&sent.id).copied().unwrap_or(0);
        let most = usize::from(sent.has_status(504));
        assert!(count <= most, "event {} was answered {:?} and stored {count} times", sent.id, sent.result);
    }
    assert_eq!(nginx.count_log("connection lost"), 0, "{}", nginx.error_log());
}

#[test]
fn what_was_partly_sent_by_its_deadline_is_504_and_its_reply_reaches_nobody() {
    let fake = FakeRedis::builder().receive_buffer(4096).start(|_, command| match command[2].len() {
        0..1000 => Action::reply("-WRONGTYPE for a small one\r\n"),
        _ => Action::reply(":1\r\n"),
    });
    let nginx = nginx(&fake.url(), "timeout 1s; stall_timeout 60s;");
    assert_eq!(post(nginx.port(), "/id?id=before", "{}").status, 502);
    fake.pause_reading();
    let mut large = sending(&nginx, "/", &padded(1, 7_000_000));
    assert!(large.is_silent(Duration::from_millis(200)));
    let mut behind = sending(&nginx, "/id?id=behind", "{}");
    assert_detail(&large.read_response(), 504, LATE);
    assert_detail(&behind.read_response(), 503, NOT_TAKEN);
    fake.resume_reading();
    fake.wait_commands(2);
    assert_eq!(post(nginx.port(), "/id?id=after", "{}").status, 502, "its own reply, not the one to the large event");
    let received: Vec<usize> = fake.commands().iter().map(|command| command.args[2].len()).collect();
    assert_eq!(received, ["before".len(), padded(1, 7_000_000).len(), "after".len()]);
    assert_eq!(fake.connections(), 1);
}

#[test]
fn what_was_partly_sent_by_its_deadline_is_not_sent_again_on_a_new_connection() {
    let fake = FakeRedis::builder().receive_buffer(4096).start(|_, _| Action::reply(":1\r\n"));
    let nginx = nginx(&fake.url(), "timeout 1s; stall_timeout 60s;");
    assert_eq!(post(nginx.port(), "/id?id=before", "{}").status, 204);
    fake.pause_reading();
    let large = post(nginx.port(), "/", padded(1, 7_000_000));
    assert_detail(&large, 504, LATE);
    fake.close_all(true);
    fake.resume_reading();
    assert_recovers(&nginx);
    let received: Vec<String> =
        fake.commands().iter().map(|command| command.text().chars().take(30).collect()).collect();
    assert_eq!(received, ["RPUSH list before", "RPUSH list back"]);
}

#[test]
fn what_was_partly_sent_when_the_connection_ended_is_sent_once_on_a_new_one() {
    for reset in [false, true] {
        let fake = FakeRedis::builder().receive_buffer(4096).start(|_, command| match &command[2][..] {
            b"held" => Action::Hold,
            _ => Action::reply(":1\r\n"),
        });
        let nginx = nginx(&fake.url(), "timeout 30s; stall_timeout 60s;");
        let mut held = sending(&nginx, "/id?id=held", "{}");
        fake.wait_held(1);
        // A connection that has lived for a while is replaced at once.
        assert!(held.is_silent(Duration::from_millis(700)));
        fake.pause_reading();
        let event = padded(1, 7_000_000);
        let mut large = sending(&nginx, "/", &event);
        assert!(large.is_silent(Duration::from_millis(200)));
        let mut behind = sending(&nginx, "/id?id=behind", "{}");
        assert!(behind.is_silent(Duration::from_millis(100)));
        fake.close_all(reset);
        assert_detail(&held.read_response(), 504, "the connection to Redis was lost before it answered");
        fake.resume_reading();
        assert_eq!((large.read_response().status, behind.read_response().status), (204, 204));
        let received = fake.commands();
        let received: Vec<(usize, &[u8])> =
            received.iter().map(|command| (command.connection, &command.args[2][..])).collect();
        assert_eq!(received.len(), 3);
        assert!(received == [(0, &b"held"[..]), (1, event.as_bytes()), (1, b"behind")]);
    }
}

#[test]
fn a_redis_that_stops_in_the_middle_of_an_event_is_given_up_after_stall_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fake.sock");
    // On a unix socket no time-out of the kernel's helps.
    let fake = FakeRedis::builder().unix(&path).start(|_, _| Action::reply(":1\r\n"));
    let server = format!("redis+unix://{}", path.display());
    let nginx = nginx(&server, "timeout 1s; stall_timeout 1500ms;");
    assert_eq!(post(nginx.port(), "/id?id=before", "{}").status, 204);
    fake.pause_reading();
    let large = post(nginx.port(), "/", padded(1, 7_000_000));
    assert_detail(&large, 504, LATE);
    nginx.wait_log("no reply for 1500 ms");
    fake.resume_reading();
    assert_recovers(&nginx);
}

#[test]
fn beyond_the_backlog_events_are_503_and_memory_stays_bounded() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx(&fake.url(), "timeout 60s; stall_timeout 60s; backlog 1m;");
    let mut waiting = Vec::new();
    let refused = loop {
        let mut http = sending(&nginx, "/", &padded(waiting.len() as u64, 60_000));
        eventually(SOON, || fake.held().len() > waiting.len() || !http.is_silent(Duration::from_millis(10)));
        if fake.held().len() == waiting.len() {
            break http.read_response();
        }
        waiting.push(http);
        assert!(waiting.len() <= 20, "more than a megabyte waits");
    };
    assert_detail(&refused, 503, "too much is waiting for Redis; nothing was written");
    assert_eq!(refused.header("Retry-After"), Some("1"));
    nginx.wait_access("/ 503 unavailable -");
    assert!((15..=17).contains(&waiting.len()), "{} events of 60 kB in 1 MB", waiting.len());

    let before = nginx.worker_rss_kb();
    let sent =
        load(nginx.port(), 20, Until::PerConnection(100), |id| Request::post("/", padded(id, 60_000)).to_bytes());
    assert!(sent.iter().all(|sent| sent.has_status(503)));
    // 120 MB went by.
    let after = nginx.worker_rss_kb();
    assert!(after < before + 20_000, "the worker grew from {before} to {after} kB");

    let taken = waiting.len();
    fake.set_handler(|_, _| Action::reply(":1\r\n"));
    fake.release_all(Action::reply(":1\r\n"));
    for mut http in waiting {
        assert_eq!(http.read_response().status, 204);
    }
    assert_eq!(post(nginx.port(), "/", padded(1, 60_000)).status, 204);
    assert_eq!((fake.commands().len(), fake.connections()), (taken + 1, 1));
}
