//! Replies in every shape and cut: each is taken whole, answers its own request and no other, and is bounded in size.

mod common;

use common::*;
use std::collections::HashSet;
use std::thread;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn nginx(server: &str, settings: &str, locations: &str) -> Nginx {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {server}; {settings} }}"))
        .server(locations)
        .log_format("$uri $status $meteorit_status")
        .start()
}

const BY_ID: &str = "location / { meteorit_pass queue; meteorit_command APPEND list $arg_id; }";

/// Replies of one packet or several, and the statuses they mean.
const MIXED: &[(&[u8], u16)] = &[
    (b":1\r\n", 204),
    (b"-WRONGTYPE Operation\r\n", 502),
    (b"*3\r\n$3\r\n-ER\r\n*2\r\n:7\r\n+\r\n$-1\r\n", 204),
    (b"-OOM command not allowed\r\n", 503),
    (b"$4\r\n\r\n\r\n\r\n", 204),
    (b"-ERR value is not an integer\r\n", 422),
    (b"%1\r\n+k\r\n_\r\n", 204),
];

/// One client for each of [`MIXED`], whose events reach Redis in its order.
fn send_mixed(clients: &mut [Http], fake: &FakeRedis) {
    let before = fake.commands().len();
    for (id, http) in clients.iter_mut().enumerate() {
        http.send_raw(&Request::post(&format!("/?id={id}"), "{}").to_bytes());
        fake.wait_commands(before + id + 1);
    }
}

#[track_caller]
fn assert_mixed(what: &str, clients: &mut [Http]) {
    for (http, (reply, status)) in clients.iter_mut().zip(MIXED) {
        let response = http.read_response();
        let reply = String::from_utf8_lossy(reply);
        assert_eq!(response.status, *status, "{what}: the one answered by {reply:?} got {}", response.text());
    }
}

#[test]
fn replies_cut_at_every_point_or_in_one_packet_answer_their_own_requests() {
    let fake = FakeRedis::start(|_, _| Action::Nothing);
    let nginx = nginx(&fake.url(), "timeout 20s; stall_timeout 20s;", BY_ID);
    let mut clients: Vec<Http> = MIXED.iter().map(|_| Http::connect(nginx.port())).collect();
    let stream: Vec<u8> = MIXED.iter().flat_map(|(reply, _)| reply.iter().copied()).collect();
    for cut in 0..stream.len() {
        send_mixed(&mut clients, &fake);
        let (first, second) = stream.split_at(cut);
        fake.send(0, first);
        // Nothing shows that nginx has read a part of a reply: it gets the time to.
        thread::sleep(Duration::from_millis(2));
        fake.send(0, second);
        assert_mixed(&format!("cut at {cut}"), &mut clients);
    }
    assert_eq!(fake.connections(), 1);
}

#[test]
fn replies_byte_by_byte_answer_their_own_requests() {
    let fake = FakeRedis::start(|_, command| {
        let id: usize = std::str::from_utf8(&command[2]).unwrap().parse().unwrap();
        Action::ReplyBytewise(MIXED[id].0.to_vec(), Duration::from_millis(1))
    });
    let nginx = nginx(&fake.url(), "timeout 20s;", BY_ID);
    let mut clients: Vec<Http> = MIXED.iter().map(|_| Http::connect(nginx.port())).collect();
    for _ in 0..3 {
        send_mixed(&mut clients, &fake);
        assert_mixed("byte by byte", &mut clients);
    }
    assert_eq!(fake.connections(), 1);
}

#[test]
fn an_answer_does_not_wait_for_the_rest_of_a_packet() {
    let fake = FakeRedis::start(|_, _| Action::Nothing);
    let nginx = nginx(&fake.url(), "timeout 20s; stall_timeout 20s;", BY_ID);
    let mut clients: Vec<Http> = MIXED.iter().map(|_| Http::connect(nginx.port())).collect();
    send_mixed(&mut clients, &fake);
    for (http, (reply, status)) in clients.iter_mut().zip(MIXED) {
        // All of this one's, where the last packet brought its first byte.
        fake.send(0, &reply[..reply.len() - 1]);
        assert!(http.is_silent(Duration::from_millis(20)), "an answer before the reply is whole");
        fake.send(0, b"\n");
        assert_eq!(http.read_response().status, *status);
    }
}

fn nested(depth: usize) -> Vec<u8> {
    let mut reply = b"*2\r\n+a\r\n".repeat(depth);
    reply.extend(b":1\r\n");
    reply
}

#[test]
fn large_and_nested_replies_are_success_within_their_bounds() {
    let mut array = b"*100000\r\n".to_vec();
    array.extend(b":1234\r\n".repeat(100_000));
    let mut bulk = b"$900000\r\n".to_vec();
    bulk.resize(bulk.len() + 900_000, b'x');
    bulk.extend(b"\r\n");
    let replies = [bulk, array, nested(20), nested(31)];
    let fake = FakeRedis::start({
        let replies = replies.clone();
        move |_, command| match &command[2][..] {
            b"small" => Action::reply("-WRONGTYPE its own\r\n"),
            id => Action::Reply(replies[usize::from(id[0] - b'0')].clone()),
        }
    });
    let nginx = nginx(&fake.url(), "", BY_ID);
    for _ in 0..3 {
        for id in 0..replies.len() {
            let response = post(nginx.port(), &format!("/?id={id}"), "{}");
            assert_eq!(response.status, 204, "reply {id}: {}", response.text());
            assert_eq!(post(nginx.port(), "/?id=small", "{}").status, 502, "behind reply {id}");
        }
    }
    assert_eq!(fake.connections(), 1);
}

#[test]
fn a_reply_beyond_its_bounds_closes_the_connection() {
    let mut bulk = b"$1100000\r\n".to_vec();
    bulk.resize(bulk.len() + 1_100_000, b'x');
    bulk.extend(b"\r\n");
    let mut array = b"*200000\r\n".to_vec();
    array.extend(b":1234\r\n".repeat(200_000));
    let line = format!("+{}\r\n", "x".repeat(100_000)).into_bytes();
    for (reply, words) in [
        (bulk, "reply is larger than"),
        // Refused by what it announces.
        (b"$9000000000\r\n".to_vec(), "reply is larger than"),
        (b"*1000000\r\n".to_vec(), "reply is larger than"),
        (array, "reply is larger than"),
        (nested(33), "reply is nested deeper than"),
        (nested(100_000), "reply is nested deeper than"),
        (line, "reply has a line of more than"),
    ] {
        let fake = FakeRedis::start(move |connection, _| match connection {
            0 => Action::Reply(reply.clone()),
            _ => Action::reply(":1\r\n"),
        });
        let nginx = nginx(&fake.url(), "", BY_ID);
        let response = post(nginx.port(), "/?id=0", "{}");
        assert_eq!(response.status, 504, "{words}: {}", response.text());
        let line = nginx.wait_log("connection lost: not a reply of Redis: ");
        assert!(line.contains(words), "{line}");
        eventually(SOON, || fake.open_connections() == 0);
        eventually(SOON, || post(nginx.port(), "/?id=1", "{}").status == 204);
        assert_eq!(fake.connections(), 2);
    }
}

#[test]
fn every_one_of_many_requests_at_once_gets_the_words_meant_for_it() {
    for connections in [1, 4] {
        let fake = FakeRedis::start(|_, command| {
            let id = String::from_utf8_lossy(&command[2]);
            Action::Reply(format!("-ERR value is not a valid float, says {id}\r\n").into_bytes())
        });
        let nginx = nginx(&fake.url(), &format!("connections {connections}; timeout 20s;"), BY_ID);
        thread::scope(|scope| {
            for client in 0..50 {
                let port = nginx.port();
                scope.spawn(move || {
                    let mut http = Http::connect(port);
                    for number in 0..20 {
                        let id = format!("{client}-{number}");
                        let response = http.post(&format!("/?id={id}"), "{}");
                        assert_eq!(response.status, 422, "{}", response.text());
                        assert_eq!(response.json()["detail"], format!("ERR value is not a valid float, says {id}"));
                    }
                });
            }
        });
        assert!(fake.connections() <= connections);
    }
}

const KINDS: [(&str, u16); 9] = [
    ("/good", 204),
    ("/wrongtype", 502),
    ("/integer", 422),
    ("/three", 204),
    ("/middle", 502),
    ("/unknown", 502),
    ("/publish", 204),
    ("/denied", 503),
    ("/partly", 504),
];

/// A cheap mix of the ids, so that no two neighbours are sure to be of different kinds.
fn kind(id: u64) -> (&'static str, u16) {
    KINDS[(id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % KINDS.len()]
}

#[test]
fn good_and_bad_commands_of_200_clients_at_once_get_each_its_own_verdict() {
    let locations = "
        location = /good { meteorit_pass queue; meteorit_command RPUSH good $event; }
        location = /wrongtype { meteorit_pass queue; meteorit_command RPUSH text $event; }
        location = /integer { meteorit_pass queue; meteorit_command INCRBY n $event; }
        location = /three { meteorit_pass queue; meteorit_command RPUSH three $event;
            meteorit_command INCR three:count; meteorit_command GET nosuch; }
        location = /middle { meteorit_pass queue; meteorit_command RPUSH middle $event;
            meteorit_command SADD text $event; meteorit_command INCR middle:count; }
        location = /unknown { meteorit_pass queue; meteorit_command NOSUCHCOMMAND $event; }
        location = /publish { meteorit_pass queue; meteorit_command PUBLISH live $event; }
        location = /denied { meteorit_pass queue; meteorit_command LPUSH denied $event; }
        location = /partly { meteorit_pass queue; meteorit_command RPUSH partly $event;
            meteorit_command LPUSH denied $event; }";
    for connections in [1, 4] {
        let redis = Redis::builder()
            .args(&["--aclfile", "%DIR%/users.acl"])
            .file("users.acl", "user default on nopass ~* &* +@all\nuser writer on >word ~* &* +@all -lpush\n")
            .start();
        redis.cmd(&["SET", "text", "abc"]);
        let server = format!("redis://writer:word@127.0.0.1:{}", redis.port());
        let nginx = nginx(&server, &format!("connections {connections}; timeout 20s;"), locations);
        let sent = load(nginx.port(), 200, Until::PerConnection(20), |id| {
            Request::post(kind(id).0, format!(r#"{{"id":{id}}}"#)).to_bytes()
        });
        assert_eq!(sent.len(), 4000);
        for sent in &sent {
            let (path, status) = kind(sent.id);
            assert_eq!(sent.result, Ok(status), "event {} to {path} with {connections} connections", sent.id);
        }
        for (key, path) in [("good", "/good"), ("three", "/three"), ("middle", "/middle"), ("partly", "/partly")] {
            let of_kind = sent.iter().filter(|sent| kind(sent.id).0 == path);
            let expected: HashSet<Vec<u8>> =
                of_kind.map(|sent| format!(r#"{{"id":{}}}"#, sent.id).into_bytes()).collect();
            let stored = redis.list(key);
            assert_eq!(stored.len(), expected.len(), "{path}");
            assert_eq!(stored.into_iter().collect::<HashSet<_>>(), expected, "{path}");
        }
        assert_eq!(redis.len("denied"), 0);
    }
}
