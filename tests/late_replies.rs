//! A deadline belongs to the request: it gets its 504 in time, and the reply that comes after it reaches nobody, while the
//! connection and all who wait behind it go on.

mod common;

use common::*;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

fn nginx(fake: &FakeRedis, timeout: &str) -> Nginx {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; timeout {timeout}; stall_timeout 20s; }}", fake.url()))
        .server(
            "location / { meteorit_pass queue; meteorit_command APPEND list $arg_id; }
             location = /two { meteorit_pass queue; meteorit_command APPEND list $arg_id.1;
                meteorit_command APPEND list $arg_id.2; }",
        )
        .log_format("$arg_id $status $meteorit_status $meteorit_redis_time")
        .start()
}

fn send(nginx: &Nginx, path: &str) -> Http {
    let mut http = Http::connect(nginx.port());
    http.send_raw(&Request::post(path, "{}").to_bytes());
    http
}

#[track_caller]
fn assert_late(response: &Response) {
    assert_eq!(response.status, 504, "{}", response.text());
    assert_eq!(response.json()["type"], "urn:meteorit:problem:outcome-unknown");
    assert_eq!(response.json()["detail"], "Redis did not answer in time");
}

#[test]
fn a_reply_after_its_deadline_never_reaches_the_next_request() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx(&fake, "500ms");
    let mut late = send(&nginx, "/?id=late");
    assert_late(&late.read_response());
    let line = nginx.wait_access("late 504 timeout ");
    let time: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((0.4..5.0).contains(&time), "{line}");

    let mut next = send(&nginx, "/?id=next");
    fake.wait_held(2);
    // The late one alone: nobody is answered by it.
    fake.release(0, Action::reply("-WRONGTYPE for the late one\r\n"));
    assert!(next.is_silent(Duration::from_millis(50)));
    fake.release(0, Action::reply("-ERR value is not a valid float, for the next\r\n"));
    let response = next.read_response();
    assert_eq!(response.status, 422, "{}", response.text());
    assert_eq!(response.json()["detail"], "ERR value is not a valid float, for the next");
    assert!(late.is_silent(Duration::from_millis(50)), "a request is answered once");
    assert_eq!((fake.connections(), fake.open_connections()), (1, 1));
}

#[test]
fn late_replies_in_one_packet_with_the_next_are_told_apart() {
    let fake = FakeRedis::start(|_, _| Action::Nothing);
    let nginx = nginx(&fake, "500ms");
    let mut late: Vec<Http> = (0..5).map(|id| send(&nginx, &format!("/?id={id}"))).collect();
    late.iter_mut().for_each(|http| assert_late(&http.read_response()));
    let mut next = send(&nginx, "/?id=next");
    fake.wait_commands(6);
    let mut packet = b":1\r\n-OOM late\r\n$3\r\nabc\r\n*2\r\n:1\r\n:2\r\n-WRONGTYPE late\r\n".to_vec();
    packet.extend(b"-NOSCRIPT for the next\r\n");
    fake.send(0, &packet);
    let response = next.read_response();
    assert_eq!((response.status, &response.json()["detail"]), (502, &"Redis answered NOSCRIPT".into()));
    assert_eq!(fake.connections(), 1);
}

#[test]
fn a_late_reply_on_an_idle_connection_is_swallowed() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx(&fake, "200ms");
    for round in 0..3 {
        assert_late(&post(nginx.port(), &format!("/?id={round}"), "{}"));
        fake.wait_held(1);
        fake.release(0, Action::reply("-WRONGTYPE for the late one\r\n"));
    }
    fake.set_handler(|_, _| Action::reply(":1\r\n"));
    assert_eq!(post(nginx.port(), "/?id=next", "{}").status, 204);
    assert_eq!((fake.connections(), fake.open_connections()), (1, 1));
    assert_eq!(nginx.count_log("connection lost"), 0, "{}", nginx.error_log());
}

#[test]
fn a_reply_that_comes_in_parts_around_the_deadline_is_swallowed_whole() {
    let fake = FakeRedis::start(|_, _| Action::Nothing);
    let nginx = nginx(&fake, "300ms");
    let mut late = send(&nginx, "/?id=late");
    fake.wait_commands(1);
    fake.send(0, b"*2\r\n$5\r\n:1\r\n:");
    assert_late(&late.read_response());
    let mut next = send(&nginx, "/?id=next");
    fake.wait_commands(2);
    fake.send(0, b"\r\n-ERR inner\r\n:1\r\n");
    assert_eq!(next.read_response().status, 204);
    assert_eq!(fake.connections(), 1);
}

#[test]
fn a_request_of_two_commands_leaves_two_replies_to_swallow() {
    for answered in [0, 1] {
        let fake = FakeRedis::start(|_, _| Action::Hold);
        let nginx = nginx(&fake, "500ms");
        let mut late = send(&nginx, "/two?id=late");
        fake.wait_held(2);
        for _ in 0..answered {
            fake.release(0, Action::reply(":1\r\n"));
        }
        let response = late.read_response();
        assert_eq!(response.status, 504, "{}", response.text());
        let mut next = send(&nginx, "/?id=next");
        fake.wait_held(3 - answered);
        for _ in answered..2 {
            fake.release(0, Action::reply("-WRONGTYPE for the late one\r\n"));
        }
        assert!(next.is_silent(Duration::from_millis(50)));
        fake.release(0, Action::reply(":3\r\n"));
        assert_eq!(next.read_response().status, 204);
        assert_eq!(fake.connections(), 1);
    }
}

#[test]
fn a_request_behind_a_late_one_has_its_own_deadline() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx(&fake, "1s");
    let mut first = send(&nginx, "/?id=first");
    fake.wait_held(1);
    assert!(first.is_silent(Duration::from_millis(500)));
    let began = Instant::now();
    let mut second = send(&nginx, "/?id=second");
    assert_late(&first.read_response());
    fake.release(0, Action::reply(":1\r\n"));
    assert_late(&second.read_response());
    assert!(began.elapsed() >= Duration::from_millis(900), "the second had its own second: {:?}", began.elapsed());
    fake.wait_held(1);
    fake.release_all(Action::reply(":2\r\n"));
    fake.set_handler(|_, _| Action::reply(":3\r\n"));
    assert_eq!(post(nginx.port(), "/?id=third", "{}").status, 204);
    assert_eq!(fake.connections(), 1);
}

#[test]
fn a_late_protocol_error_closes_the_connection_and_fails_nobody_new() {
    let fake = FakeRedis::start(|connection, _| if connection == 0 { Action::Hold } else { Action::reply(":1\r\n") });
    let nginx = nginx(&fake, "600ms");
    assert_late(&post(nginx.port(), "/?id=late", "{}"));
    fake.wait_held(1);
    fake.release(0, Action::reply("garbage\r\n"));
    nginx.wait_log("connection lost: not a reply of Redis");
    eventually(SOON, || fake.open_connections() == 0);
    // This one had lived and is replaced at once.
    assert_eq!(post(nginx.port(), "/?id=next", "{}").status, 204);
    assert_eq!(fake.connections(), 2);
}
