//! A reply that cannot be right ends the connection: whoever waited on it is told that the outcome is unknown, whoever had
//! his answer keeps it, and nobody is given another's.

mod common;

use common::*;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn nginx(fake: &FakeRedis, settings: &str) -> Nginx {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; {settings} }}", fake.url()))
        .server("location / { meteorit_pass queue; meteorit_command RPUSH list $arg_id; }")
        .log_format("$arg_id $status $meteorit_status $meteorit_redis_time")
        .start()
}

/// Its events are held on the first connection and answered on every other.
fn holding() -> FakeRedis {
    FakeRedis::start(|connection, _| if connection == 0 { Action::Hold } else { Action::reply(":1\r\n") })
}

/// Sends events one after another, each on a connection of its own, so that Redis has them in this order.
fn send(nginx: &Nginx, fake: &FakeRedis, count: usize) -> Vec<Http> {
    let mut clients = Vec::new();
    for id in 0..count {
        let mut http = Http::connect(nginx.port());
        http.send_raw(&Request::post(&format!("/?id={id}"), "{}").to_bytes());
        fake.wait_held(id + 1);
        clients.push(http);
    }
    clients
}

#[track_caller]
fn assert_unknown(what: &str, response: &Response) {
    assert_eq!(response.status, 504, "{what}: {}", response.text());
    assert_eq!(response.header("Content-Type"), Some("application/problem+json"), "{what}");
    assert_eq!(response.json()["type"], "urn:meteorit:problem:outcome-unknown", "{what}");
    assert_eq!(response.header("Retry-After"), None, "{what}");
}

/// The pool connects anew by itself; until then an event gets 503.
#[track_caller]
fn assert_recovers(what: &str, nginx: &Nginx) {
    let taken = within(SOON, || {
        let response = post(nginx.port(), "/?id=next", "{}");
        assert!(matches!(response.status, 204 | 503), "{what}: {}", response.text());
        response.status == 204
    });
    assert!(taken, "{what}: no event was taken; the log:\n{}", nginx.error_log());
}

#[test]
fn a_reply_that_cannot_be_right_fails_those_in_flight_and_closes_the_connection() {
    const NOBODYS: &str = "connection lost: a reply that nothing asked for";
    const BROKEN: &str = "connection lost: not a reply of Redis: protocol error";
    for (bytes, line) in [
        ("+QUEUED\r\n", NOBODYS),
        (">2\r\n+message\r\n:1\r\n", NOBODYS),
        (">2\r\n+message\r\n:1\r\n:1\r\n", NOBODYS),
        ("hello\r\n", BROKEN),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", BROKEN),
        (":1\n:1\r\n", BROKEN),
        (":12x\r\n", BROKEN),
        (":\r\n", BROKEN),
        ("$-2\r\n", BROKEN),
        ("$1\r\nabc\r\n", BROKEN),
        ("*-7\r\n", BROKEN),
        ("*?\r\n", BROKEN),
        ("*99999999999999999999\r\n", BROKEN),
        ("\0\0\0\0", BROKEN),
    ] {
        let fake = holding();
        let nginx = nginx(&fake, "timeout 20s;");
        let mut clients = send(&nginx, &fake, 3);
        fake.release(0, Action::reply(":1\r\n"));
        assert_eq!(clients[0].read_response().status, 204, "{bytes:?}: the first had its answer");
        fake.release(0, Action::reply(bytes));
        for (client, what) in clients[1..].iter_mut().zip(["the one it answers", "the one behind"]) {
            assert_unknown(&format!("{bytes:?}: {what}"), &client.read_response());
        }
        nginx.wait_access("1 504 timeout 0.");
        nginx.wait_access("2 504 timeout 0.");
        nginx.wait_log(line);
        eventually(SOON, || fake.open_connections() == 0);
        // What the old connection still says reaches nobody.
        fake.release_all(Action::reply("-ERR late\r\n"));
        assert_recovers(bytes, &nginx);
        assert_eq!(fake.connections(), 2, "{bytes:?}");
        assert_eq!(fake.commands().iter().filter(|command| command.connection == 0).count(), 3);
        assert!(fake.commands().iter().all(|command| command.connection == 0 || command.text().ends_with("next")));
    }
}

#[test]
fn a_reply_too_many_in_the_same_packet_closes_the_connection() {
    let fake = holding();
    let nginx = nginx(&fake, "");
    let mut clients = send(&nginx, &fake, 1);
    fake.release(0, Action::reply(":1\r\n-ERR unasked\r\n"));
    assert_eq!(clients[0].read_response().status, 204);
    nginx.wait_log("connection lost: a reply that nothing asked for");
    eventually(SOON, || fake.open_connections() == 0);
    assert_recovers("an extra reply", &nginx);
}

#[test]
fn a_reply_out_of_the_blue_closes_the_idle_connection_and_reaches_nobody() {
    for bytes in ["+OK\r\n", "-ERR unasked\r\n", ">1\r\n+invalidate\r\n", "garbage"] {
        let fake = FakeRedis::start(|_, command| match &command[2][..] {
            b"first" => Action::reply(":1\r\n"),
            _ => Action::reply("-WRONGTYPE its own\r\n"),
        });
        let nginx = nginx(&fake, "");
        assert_eq!(post(nginx.port(), "/?id=first", "{}").status, 204);
        fake.send(0, bytes.as_bytes());
        nginx.wait_log("connection lost: ");
        eventually(SOON, || fake.open_connections() == 0);
        let mine = wait_for(SOON, || {
            let response = post(nginx.port(), "/?id=second", "{}");
            (response.status != 503).then_some(response)
        });
        let mine = mine.expect("a new connection");
        assert_eq!((mine.status, &mine.json()["detail"]), (502, &"Redis answered WRONGTYPE".into()), "{bytes:?}");
    }
}

#[test]
fn a_push_between_replies_is_given_to_nobody() {
    let fake = holding();
    let nginx = nginx(&fake, "timeout 20s;");
    let mut clients = send(&nginx, &fake, 3);
    fake.release(0, Action::reply(":1\r\n>2\r\n+message\r\n+text\r\n"));
    assert_eq!(clients[0].read_response().status, 204);
    for client in &mut clients[1..] {
        assert_unknown("behind a push", &client.read_response());
    }
    assert_recovers("a push", &nginx);
}

#[test]
fn a_broken_reply_on_one_connection_leaves_the_others_alone() {
    let fake = FakeRedis::start(|connection, _| if connection < 2 { Action::Hold } else { Action::reply(":1\r\n") });
    let nginx = nginx(&fake, "connections 2; timeout 20s;");
    let mut clients = send(&nginx, &fake, 2);
    let held = fake.held();
    assert_ne!(held[0].command.connection, held[1].command.connection, "the second event goes to the idle connection");
    fake.release(0, Action::reply("garbage\r\n"));
    assert_unknown("on the broken one", &clients[0].read_response());
    assert!(clients[1].is_silent(Duration::from_millis(100)));
    fake.release(0, Action::reply(":1\r\n"));
    assert_eq!(clients[1].read_response().status, 204);
}
