//! A client that goes away costs nothing and breaks nothing, wherever its request stands: nginx logs it as it logs any
//! other, what was sent to Redis is written, its reply is swallowed, and nobody else notices.

#[path = "aborts/random.rs"]
mod at_random;
mod common;
#[path = "aborts/http2.rs"]
mod http2;

use common::*;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

/// A wrong owner of this reply would answer 422.
const MARKED: &str = "-ERR value is not an integer or out of range\r\n";

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Exit {
    Fin,
    Rst,
}

const EXITS: [Exit; 2] = [Exit::Fin, Exit::Rst];

impl Exit {
    fn leave(self, client: Http) {
        match self {
            Exit::Fin => drop(client),
            Exit::Rst => client.abort(),
        }
    }
}

/// One worker with `/events`, its requests' deadline so long that only a reply or the client ends one.
fn nginx_for(redis: &FakeRedis) -> Nginx {
    Nginx::builder()
        .http2()
        .http(&format!(
            "meteorit_redis queue {{ server {}; connect_timeout 60s; timeout 60s; stall_timeout 60s; }}",
            redis.url()
        ))
        .server("location /events { meteorit_pass queue; meteorit_command APPEND events $event; }")
        .start()
}

/// The worker as it was, to compare with at the end.
struct Before {
    workers: Vec<i32>,
    descriptors: usize,
}

impl Before {
    /// After a first event, so that the connection to Redis counts.
    fn with_connection(nginx: &Nginx) -> Before {
        assert_eq!(post(nginx.port(), "/events?first", r#"{"first":1}"#).status, 204);
        Before::now(nginx)
    }

    fn now(nginx: &Nginx) -> Before {
        // A client that has just left counts until nginx has closed its socket.
        let (mut descriptors, mut times) = (0, 0);
        eventually(SOON, || {
            let now = nginx.worker_fds();
            times = if now == descriptors { times + 1 } else { 0 };
            descriptors = now;
            times == 10
        });
        Before { workers: nginx.worker_pids(), descriptors }
    }

    #[track_caller]
    fn assert_unchanged(&self, nginx: &Nginx) {
        let same = within(SOON, || nginx.worker_fds() == self.descriptors);
        assert!(same, "{} descriptors, {} before", nginx.worker_fds(), self.descriptors);
        assert_eq!(nginx.worker_pids(), self.workers);
    }
}

fn held(_: usize, _: &[Vec<u8>]) -> Action {
    Action::Hold
}

fn answered(_: usize, _: &[Vec<u8>]) -> Action {
    Action::Default
}

/// Holds the replies to events about `word`, answers the others.
fn hold_for(word: &'static str) -> impl FnMut(usize, &[Vec<u8>]) -> Action + Send {
    move |_, args| match String::from_utf8_lossy(&args[2]).contains(word) {
        true => Action::Hold,
        false => Action::Default,
    }
}

fn sent_events(redis: &FakeRedis) -> Vec<String> {
    redis.commands().iter().map(|command| String::from_utf8_lossy(&command.args[2]).into_owned()).collect()
}

#[test]
fn a_client_may_leave_while_it_sends_the_header() {
    let redis = FakeRedis::start(answered);
    let nginx = nginx_for(&redis);
    let before = Before::with_connection(&nginx);
    for exit in EXITS {
        for part in ["PO", "POST /events?part HTTP/1.1\r\n", "POST /events?part HTTP/1.1\r\nHost: a\r\nContent-Le"] {
            let mut client = Http::connect(nginx.port());
            client.send_raw(part.as_bytes());
            exit.leave(client);
        }
    }
    before.assert_unchanged(&nginx);
    assert_eq!(post(nginx.port(), "/events?last", r#"{"last":1}"#).status, 204);
    assert_eq!(sent_events(&redis), [r#"{"first":1}"#, r#"{"last":1}"#]);
}

#[test]
fn a_client_may_leave_in_the_middle_of_the_body() {
    let redis = FakeRedis::start(answered);
    let nginx = nginx_for(&redis);
    let before = Before::with_connection(&nginx);
    for exit in EXITS {
        let mut client = Http::connect(nginx.port());
        client.send_raw(
            format!("POST /events?length-{exit:?} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{{\"a\":").as_bytes(),
        );
        exit.leave(client);
        nginx.wait_access(&format!("400 POST /events?length-{exit:?}"));

        let mut client = Http::connect(nginx.port());
        client.start_chunked(&Request::post(&format!("/events?chunked-{exit:?}"), ""));
        client.send_chunk(br#"{"a":1}"#);
        exit.leave(client);
        nginx.wait_access(&format!("400 POST /events?chunked-{exit:?}"));
    }
    before.assert_unchanged(&nginx);
    assert_eq!(post(nginx.port(), "/events?last", r#"{"last":1}"#).status, 204);
    assert_eq!(sent_events(&redis), [r#"{"first":1}"#, r#"{"last":1}"#], "half an event must not be written");
}

#[test]
fn a_client_may_leave_while_the_connection_to_redis_is_being_made() {
    for exit in EXITS {
        let greeting_first = |_: usize, args: &[Vec<u8>]| match args[0].as_slice() {
            b"PING" => Action::Hold,
            _ => Action::Default,
        };
        let redis = FakeRedis::builder().with_handshake().start(greeting_first);
        let nginx = nginx_for(&redis);
        let mut client = Http::connect(nginx.port());
        client.send_raw(&Request::post("/events?gone", r#"{"gone":1}"#).to_bytes());
        redis.wait_held(1);
        let before = nginx.worker_fds();
        exit.leave(client);
        nginx.wait_access("499 POST /events?gone");
        eventually(SOON, || nginx.worker_fds() == before - 1);

        let mut client = Http::connect(nginx.port());
        client.send_raw(&Request::post("/events?stays", r#"{"stays":1}"#).to_bytes());
        eventually(SOON, || nginx.worker_fds() == before);
        redis.set_handler(|_, args| match args[2].as_slice() {
            br#"{"gone":1}"# => Action::reply(MARKED),
            _ => Action::reply(":2\r\n"),
        });
        redis.release_all(Action::reply("+PONG\r\n"));
        assert_eq!(client.read_response().status, 204, "{exit:?}");
        assert_eq!(sent_events(&redis), [r#"{"gone":1}"#, r#"{"stays":1}"#]);
        assert_eq!(redis.connections(), 1);
    }
}

#[test]
fn a_client_may_leave_while_redis_is_stopped() {
    for exit in EXITS {
        let redis = Redis::start();
        redis.pause();
        let nginx = Nginx::builder()
            .http(&format!("meteorit_redis queue {{ server {}; connect_timeout 60s; timeout 60s; }}", redis.url()))
            .server("location /events { meteorit_pass queue; meteorit_command RPUSH events $event; }")
            .start();
        let before = Before::now(&nginx);
        let mut client = Http::connect(nginx.port());
        client.send_raw(&Request::post("/events?gone", r#"{"gone":1}"#).to_bytes());
        // The client's connection and the one to Redis.
        eventually(SOON, || nginx.worker_fds() == before.descriptors + 2);
        exit.leave(client);
        nginx.wait_access("499 POST /events?gone");
        redis.resume();
        assert_eq!(post(nginx.port(), "/events?stays", r#"{"stays":1}"#).status, 204);
        assert_eq!(redis.list("events"), [br#"{"gone":1}"#.to_vec(), br#"{"stays":1}"#.to_vec()]);
    }
}

#[test]
fn a_client_may_leave_while_it_waits_for_the_reply() {
    for exit in EXITS {
        let redis = FakeRedis::start(hold_for("gone"));
        let nginx = nginx_for(&redis);
        let before = Before::with_connection(&nginx);
        let mut client = Http::connect(nginx.port());
        client.send_raw(&Request::post("/events?gone", r#"{"gone":1}"#).to_bytes());
        redis.wait_held(1);
        exit.leave(client);
        nginx.wait_access("499 POST /events?gone");
        before.assert_unchanged(&nginx);

        // The reply that nobody waits for must not become the next one's.
        let mut next = Http::connect(nginx.port());
        next.send_raw(&Request::post("/events?next", r#"{"next":1}"#).to_bytes());
        redis.wait_commands(3);
        redis.release(0, Action::reply(MARKED));
        assert_eq!(next.read_response().status, 204, "{exit:?}");
        drop(next);
        before.assert_unchanged(&nginx);
        assert_eq!(sent_events(&redis), [r#"{"first":1}"#, r#"{"gone":1}"#, r#"{"next":1}"#]);
        assert_eq!(redis.connections(), 1);
    }
}

#[test]
fn those_that_stay_get_their_own_answers_when_others_leave() {
    let redis = FakeRedis::start(hold_for("slow"));
    let nginx = nginx_for(&redis);
    let before = Before::with_connection(&nginx);
    let send = |i: usize| {
        let mut client = Http::connect(nginx.port());
        client.send_raw(&Request::post(&format!("/events?{i}"), format!(r#"{{"slow":{i}}}"#)).to_bytes());
        redis.wait_held(i + 1);
        client
    };
    let mut clients: Vec<Option<Http>> = (0..30).map(|i| Some(send(i))).collect();
    for i in (0..30).filter(|i| i % 3 != 2) {
        EXITS[i % 2].leave(clients[i].take().unwrap());
        nginx.wait_access(&format!("499 POST /events?{i}"));
    }
    // What left would be a 422 or 502, every second of those that stay is a 502.
    for i in 0..30 {
        let reply = match (i % 3, i % 2) {
            (0 | 1, _) => MARKED,
            (_, 0) => "-WRONGTYPE of the right one\r\n",
            _ => ":1\r\n",
        };
        redis.release(0, Action::reply(reply));
    }
    for (i, client) in clients.iter_mut().enumerate() {
        if let Some(client) = client {
            let expected = if i % 2 == 0 { 502 } else { 204 };
            assert_eq!(client.read_response().status, expected, "request {i}");
        }
    }
    drop(clients);
    before.assert_unchanged(&nginx);
}

#[test]
fn a_client_may_leave_just_as_the_reply_arrives() {
    let redis = FakeRedis::start(hold_for("race"));
    let nginx = nginx_for(&redis);
    let before = Before::with_connection(&nginx);
    for i in 0..200 {
        let mut client = Http::connect(nginx.port());
        client.send_raw(&Request::post(&format!("/events?race-{i}."), format!(r#"{{"race":{i}}}"#)).to_bytes());
        redis.wait_held(1);
        let exit = EXITS[i % 2];
        std::thread::scope(|scope| {
            let leaves = scope.spawn(move || exit.leave(client));
            redis.release(0, Action::Default);
            leaves.join().unwrap();
        });
        let line = nginx.wait_access(&format!("/events?race-{i}."));
        assert!(line.starts_with("204 ") || line.starts_with("499 "), "{line}");
    }
    assert_eq!(post(nginx.port(), "/events?last", r#"{"last":1}"#).status, 204);
    before.assert_unchanged(&nginx);
    assert_eq!(sent_events(&redis).len(), 202);
    assert_eq!(redis.connections(), 1);
}

#[test]
fn pipelined_requests_behind_one_whose_client_left_are_not_run() {
    for exit in EXITS {
        let redis = FakeRedis::start(hold_for("gone"));
        let nginx = nginx_for(&redis);
        let before = Before::with_connection(&nginx);
        let mut client = Http::connect(nginx.port());
        let requests = ["gone", "second", "third"]
            .map(|word| Request::post(&format!("/events?{word}"), format!(r#"{{"{word}":1}}"#)).to_bytes());
        client.send_raw(&requests.concat());
        redis.wait_held(1);
        exit.leave(client);
        nginx.wait_access("499 POST /events?gone");
        redis.release(0, Action::Default);
        before.assert_unchanged(&nginx);
        assert_eq!(post(nginx.port(), "/events?last", r#"{"last":1}"#).status, 204);
        assert_eq!(sent_events(&redis), [r#"{"first":1}"#, r#"{"gone":1}"#, r#"{"last":1}"#]);
        assert!(!nginx.access_log().contains("second"));
    }
}

#[test]
fn a_client_may_leave_in_the_middle_of_its_pipeline() {
    let redis = FakeRedis::start(answered);
    let nginx = nginx_for(&redis);
    let before = Before::with_connection(&nginx);
    for (round, exit) in EXITS.into_iter().cycle().take(20).enumerate() {
        let mut client = Http::connect(nginx.port());
        let requests: Vec<u8> = (0..50)
            .flat_map(|i| Request::post(&format!("/events?{round}-{i}"), format!(r#"{{"i":{i}}}"#)).to_bytes())
            .collect();
        client.send_raw(&requests[..requests.len() - 3]);
        assert_eq!(client.read_response().status, 204);
        exit.leave(client);
    }
    before.assert_unchanged(&nginx);
    assert_eq!(post(nginx.port(), "/events?last", r#"{"last":1}"#).status, 204);
    assert_eq!(redis.connections(), 1);
}

#[test]
fn a_fin_right_behind_the_requests_is_no_abort() {
    let redis = FakeRedis::start(answered);
    let nginx = nginx_for(&redis);
    let before = Before::with_connection(&nginx);
    // The worker sees all of it at once, as it does when the FIN follows closely enough.
    nginx.signal(before.workers[0], libc::SIGSTOP);
    let mut client = Http::connect(nginx.port());
    for i in 0..3 {
        client.send_raw(&Request::post(&format!("/events?half-{i}"), format!(r#"{{"half":{i}}}"#)).to_bytes());
    }
    client.half_close();
    nginx.signal(before.workers[0], libc::SIGCONT);
    for i in 0..3 {
        assert_eq!(client.read_response().status, 204, "request {i}");
    }
    assert!(client.is_closed());
    drop(client);
    before.assert_unchanged(&nginx);
    assert_eq!(sent_events(&redis).len(), 4);
}

#[test]
fn a_half_close_while_the_reply_is_awaited_counts_as_leaving() {
    // As for every module that waits by ngx_http_test_reading, of which proxy_pass is one.
    let redis = FakeRedis::start(hold_for("half"));
    let nginx = nginx_for(&redis);
    let before = Before::with_connection(&nginx);
    let mut client = Http::connect(nginx.port());
    client.send_raw(&Request::post("/events?half", r#"{"half":1}"#).to_bytes());
    redis.wait_held(1);
    client.half_close();
    nginx.wait_access("499 POST /events?half");
    assert!(client.is_closed());
    redis.release(0, Action::reply(MARKED));
    assert_eq!(post(nginx.port(), "/events?last", r#"{"last":1}"#).status, 204);
    before.assert_unchanged(&nginx);
}

#[test]
fn a_client_that_left_does_not_spare_redis_its_deadline() {
    // Its reply never comes: the connection is closed when it stalls, and what follows works.
    let redis = FakeRedis::start(held);
    let nginx = Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; timeout 200ms; stall_timeout 400ms; }}", redis.url()))
        .server("location /events { meteorit_pass queue; meteorit_command APPEND events $event; }")
        .start();
    let mut client = Http::connect(nginx.port());
    client.send_raw(&Request::post("/events?gone", r#"{"gone":1}"#).to_bytes());
    redis.wait_held(1);
    client.abort();
    nginx.wait_access("499 POST /events?gone");
    nginx.wait_log("no reply for 400 ms");
    eventually(SOON, || redis.open_connections() == 0);
    redis.set_handler(answered);
    eventually(SOON, || post(nginx.port(), "/events?next", r#"{"next":1}"#).status == 204);
}
