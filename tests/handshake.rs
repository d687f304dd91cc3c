//! The hand-shake: how a connection signs in and selects its database, on every kind of address, and what a Redis that
//! refuses it means for events and for the log.

mod common;

use common::*;
use std::collections::HashSet;
use std::net::TcpListener;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const PASSWORD: &str = "pa55-phrase";

fn nginx(blocks: &str, locations: &str) -> Nginx {
    Nginx::builder().http(blocks).server(locations).log_format("$uri $status $meteorit_status $request").start()
}

fn one(settings: &str) -> Nginx {
    nginx(&format!("meteorit_redis queue {{ {settings} }}"), PUSH)
}

const PUSH: &str = "location = /push { meteorit_pass queue; meteorit_command RPUSH list $event; }";

fn push(nginx: &Nginx) -> Response {
    post(nginx.port(), "/push", r#"{"a":1}"#)
}

#[track_caller]
fn assert_away(nginx: &Nginx) {
    let response = push(nginx);
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.header("Content-Type"), Some("application/problem+json"));
    assert_eq!(response.json()["type"], "urn:meteorit:problem:unavailable");
    let retry = response.header("Retry-After").expect("Retry-After");
    assert!((1..=15).contains(&retry.parse::<u32>().expect("seconds")), "{retry}");
}

/// 503 until 204, nothing else.
#[track_caller]
fn assert_recovers(nginx: &Nginx) {
    let taken = within(Duration::from_secs(20), || {
        let response = push(nginx);
        assert!(matches!(response.status, 204 | 503), "{}: {}", response.status, response.text());
        response.status == 204
    });
    assert!(taken, "no event was taken; the log:\n{}", nginx.error_log());
}

/// In no log, however encoded in a URL.
#[track_caller]
fn assert_secret(nginx: &Nginx) {
    for (name, text) in [("error.log", nginx.error_log()), ("access.log", nginx.access_log())] {
        let line = text.lines().find(|line| line.contains(PASSWORD));
        assert_eq!(line, None, "the password is in {name}");
    }
}

/// A Redis where `writer` may do everything with PASSWORD.
fn with_writer(rules: &str) -> Redis {
    Redis::builder()
        .args(&["--aclfile", "%DIR%/users.acl"])
        .file("users.acl", &format!("user default on nopass ~* &* +@all\nuser writer on >{PASSWORD} {rules}\n"))
        .start()
}

fn list_in(redis: &Redis, database: &str) -> Vec<String> {
    let mut client = redis.client();
    redis::cmd("SELECT").arg(database).query::<()>(&mut client).expect("SELECT");
    redis::cmd("LRANGE").arg("list").arg(0).arg(-1).query(&mut client).expect("LRANGE")
}

#[test]
fn two_redis_of_one_server_keep_their_users_and_databases_apart() {
    let redis = Redis::builder()
        .args(&["--aclfile", "%DIR%/users.acl"])
        .file(
            "users.acl",
            "user default on nopass ~* &* +@all\nuser seven on >s ~list +rpush +select +ping\n\
             user zero on >z ~list +rpush +ping\n",
        )
        .start();
    let at = format!("127.0.0.1:{}", redis.port());
    let nginx = nginx(
        &format!(
            "meteorit_redis zero {{ server redis://zero:z@{at}; }}
             meteorit_redis seven {{ server redis://seven:s@{at}/7; connections 2; }}"
        ),
        &format!(
            "location = /zero {{ meteorit_pass zero; meteorit_command RPUSH list $arg_id; }}
             location = /seven {{ meteorit_pass seven; meteorit_command RPUSH list $arg_id; }}
             location = /nine {{ meteorit_pass redis://{at}/9; meteorit_command RPUSH list $arg_id; }}
             location = /user {{ meteorit_pass zero; meteorit_command LPUSH list $arg_id; }}"
        ),
    );
    let sent = load(nginx.port(), 12, Until::PerConnection(30), |id| {
        let path = ["zero", "seven", "nine"][(id % 3) as usize];
        Request::post(&format!("/{path}?id={id}"), "{}").to_bytes()
    });
    assert!(sent.iter().all(|sent| sent.has_status(204)));
    for (rest, database) in [(0, "0"), (1, "7"), (2, "9")] {
        let expected: HashSet<String> =
            sent.iter().filter(|sent| sent.id % 3 == rest).map(|sent| sent.id.to_string()).collect();
        let stored = list_in(&redis, database);
        assert_eq!(stored.len(), expected.len(), "database {database}");
        assert_eq!(stored.into_iter().collect::<HashSet<_>>(), expected, "database {database}");
    }
    let denied = post(nginx.port(), "/user?id=x", "{}");
    assert_eq!((denied.status, &denied.json()["detail"]), (503, &"Redis answered NOPERM; nothing was written".into()));
}

#[test]
fn a_wrong_password_fails_every_event_with_one_line_that_says_why_and_hides_it() {
    let redis = with_writer("~* &* +@all");
    redis.cmd(&["ACL", "SETUSER", "writer", "resetpass", ">another"]);
    let nginx = one(&format!("server redis://writer:{PASSWORD}@127.0.0.1:{};", redis.port()));
    for _ in 0..20 {
        assert_away(&nginx);
    }
    let line = nginx.wait_log("is away");
    assert!(line.contains("[error]") && line.contains("redis \"queue\"") && line.contains("AUTH failed: WRONGPASS"));
    assert_eq!(nginx.count_log("WRONGPASS"), 1);
    assert_eq!(redis.len("list"), 0);

    redis.cmd(&["ACL", "SETUSER", "writer", &format!(">{PASSWORD}")]);
    assert_recovers(&nginx);
    assert_eq!((nginx.count_log("WRONGPASS"), nginx.count_log("is back")), (1, 1), "{}", nginx.error_log());
    assert_secret(&nginx);
}

#[test]
fn no_password_where_one_is_wanted_fails_every_event() {
    let redis = Redis::with(&["--requirepass", PASSWORD]);
    let nginx = one(&format!("server redis://127.0.0.1:{};", redis.port()));
    assert_away(&nginx);
    assert!(nginx.wait_log("is away").contains("PING failed: NOAUTH"));
    redis.cmd(&["CONFIG", "SET", "requirepass", ""]);
    assert_recovers(&nginx);
}

#[test]
fn a_password_without_a_user_signs_in() {
    let redis = Redis::with(&["--requirepass", PASSWORD]);
    let nginx = one(&format!("server redis://:{PASSWORD}@127.0.0.1:{};", redis.port()));
    assert_eq!(push(&nginx).status, 204);
    assert_eq!(redis.len("list"), 1);
    assert_secret(&nginx);
}

#[test]
fn a_password_file_signs_in() {
    let redis = with_writer("~* &* +@all");
    let builder = |word: &str| {
        Nginx::builder()
            .file("word", word)
            .http(&format!(
                "meteorit_redis queue {{ server redis://writer@127.0.0.1:{}/2; password_file %DIR%/word; }}",
                redis.port()
            ))
            .server(PUSH)
    };
    let nginx = builder(&format!("{PASSWORD}\n")).start();
    assert_eq!(push(&nginx).status, 204);
    assert_eq!(list_in(&redis, "2"), [r#"{"a":1}"#]);
    assert_secret(&nginx);
    let nginx = builder("no-such-word\n").start();
    assert_away(&nginx);
    nginx.wait_log("AUTH failed: WRONGPASS");
    assert_eq!(nginx.count_log("no-such-word"), 0);
}

#[test]
fn a_database_that_is_not_there_fails_every_event() {
    let redis = Redis::with(&["--databases", "4"]);
    let nginx = one(&format!("server {}/4;", redis.url()));
    for _ in 0..3 {
        assert_away(&nginx);
    }
    let line = nginx.wait_log("is away");
    assert!(line.contains("SELECT failed: ERR DB index is out of range"), "{line}");
    let keys: usize = redis.ask(&["DBSIZE"]);
    assert_eq!(keys, 0, "nothing lands in another database");
}

#[test]
fn a_user_who_may_not_ping_can_still_write() {
    let redis = with_writer("~list +rpush");
    let nginx = one(&format!("server redis://writer:{PASSWORD}@127.0.0.1:{};", redis.port()));
    assert_eq!(push(&nginx).status, 204);
    assert_eq!(redis.len("list"), 1);
    assert_eq!(nginx.count_log("is away"), 0);
}

#[test]
fn a_unix_socket_takes_user_and_database() {
    let redis = with_writer("~* &* +@all");
    let socket = redis.socket().display().to_string();
    let nginx = nginx(
        &format!(
            "meteorit_redis plain {{ server redis+unix://{socket}; }}
             meteorit_redis three {{ server \"redis+unix://{socket}?db=3&user=writer&pass={PASSWORD}\"; }}"
        ),
        "location = /plain { meteorit_pass plain; meteorit_command RPUSH list $uri; }
         location = /three { meteorit_pass three; meteorit_command RPUSH list $uri; }",
    );
    for (path, database) in [("/plain", "0"), ("/three", "3")] {
        assert_eq!(post(nginx.port(), path, "{}").status, 204);
        assert_eq!(list_in(&redis, database), [path]);
    }
    redis.stop();
    eventually(SOON, || post(nginx.port(), "/plain", "{}").status == 503);
    assert!(nginx.wait_log("redis \"plain\"").contains("unix:"), "{}", nginx.error_log());
    redis.restart();
    eventually(Duration::from_secs(20), || post(nginx.port(), "/plain", "{}").status == 204);
    assert_secret(&nginx);
}

#[test]
fn ipv6_works() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        eprintln!("skipped: this machine has no [::1]: {error}");
        return;
    }
    let redis = Redis::with(&["--bind", "127.0.0.1", "::1"]);
    let nginx = one(&format!("server redis://[::1]:{}/5;", redis.port()));
    assert_eq!(push(&nginx).status, 204);
    assert_eq!(list_in(&redis, "5"), [r#"{"a":1}"#]);
    let clients: String = redis.ask(&["CLIENT", "LIST"]);
    assert!(clients.contains("addr=[::1]:"), "{clients}");
}

#[test]
fn a_host_name_works_whichever_of_its_addresses_listens() {
    // Redis listens on 127.0.0.1 alone, whatever else the name stands for.
    let redis = Redis::start();
    let nginx = one(&format!("server redis://localhost:{};", redis.port()));
    assert_eq!(push(&nginx).status, 204);
    redis.restart();
    assert_recovers(&nginx);
}

#[test]
fn the_hand_shake_comes_first_and_may_come_byte_by_byte() {
    let fake = FakeRedis::builder().with_handshake().start(|_, command| {
        let reply: &[u8] = match &command[0][..] {
            b"RPUSH" => b":1\r\n",
            b"PING" => b"+PONG\r\n",
            _ => b"+OK\r\n",
        };
        Action::ReplyBytewise(reply.to_vec(), Duration::from_millis(2))
    });
    let nginx = one(&format!("server redis://writer:word@127.0.0.1:{}/3;", fake.port()));
    assert_eq!(push(&nginx).status, 204);
    let said: Vec<String> = fake.all_commands().iter().map(Received::text).collect();
    assert_eq!(said, ["AUTH writer word", "SELECT 3", "PING", r#"RPUSH list {"a":1}"#]);
}

#[test]
fn no_event_is_sent_before_the_hand_shake_has_succeeded() {
    let fake = FakeRedis::builder().with_handshake().start(|_, command| match &command[0][..] {
        b"SELECT" => Action::Hold,
        _ => Action::Default,
    });
    let nginx = one(&format!("server {}/3; connect_timeout 20s; timeout 20s;", fake.url()));
    let mut http = Http::connect(nginx.port());
    http.send_raw(&Request::post("/push", "{}").to_bytes());
    fake.wait_held(1);
    assert!(http.is_silent(Duration::from_millis(100)));
    assert!(fake.commands().is_empty(), "{:?}", fake.commands());
    fake.release(0, Action::Default);
    assert_eq!(http.read_response().status, 204);

    // Refused: the event that waited gets its 503 and was never sent.
    let fake = FakeRedis::builder().with_handshake().start(|_, command| match &command[0][..] {
        b"SELECT" => Action::reply("-NOPERM this user has no permissions to run the 'select' command\r\n"),
        _ => Action::Default,
    });
    let nginx = one(&format!("server {}/3;", fake.url()));
    assert_away(&nginx);
    nginx.wait_log("SELECT failed: NOPERM");
    assert!(fake.commands().is_empty(), "{:?}", fake.commands());
}

#[test]
fn a_redis_that_will_not_serve_yet_is_away_until_it_does() {
    for reply in [
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-NOAUTH Authentication required.\r\n",
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
        "-MISCONF Redis is configured to save RDB snapshots\r\n",
        "-ERR max number of clients reached\r\n",
        "garbage\r\n",
    ] {
        let refuse = move |_: usize, command: &[Vec<u8>]| match &command[0][..] {
            b"PING" => Action::CloseAfter(reply.as_bytes().to_vec()),
            _ => Action::Default,
        };
        let fake = FakeRedis::builder().with_handshake().start(refuse);
        let nginx = one(&format!("server {};", fake.url()));
        for _ in 0..5 {
            assert_away(&nginx);
        }
        let line = nginx.wait_log("is away");
        match reply.strip_prefix('-') {
            Some(words) => assert!(line.contains(&format!("PING failed: {}", words.trim_end())), "{line}"),
            None => assert!(line.contains("not a reply of Redis"), "{line}"),
        }
        fake.wait_connections(2);
        assert_eq!(nginx.count_log("is away"), 1, "one line a change of state, not one an attempt");
        assert!(fake.commands().is_empty(), "{:?}", fake.commands());
        fake.set_handler(|_, _| Action::Default);
        assert_recovers(&nginx);
        assert_eq!((nginx.count_log("is away"), nginx.count_log("is back")), (1, 1), "{}", nginx.error_log());
    }
}

#[test]
fn a_full_redis_is_away_until_it_has_room() {
    let redis = Redis::start();
    let mut only = redis.client();
    let mut set = |count: &str| {
        redis::cmd("CONFIG").arg(&["SET", "maxclients", count]).query::<()>(&mut only).expect("CONFIG SET");
    };
    set("1");
    let nginx = one(&format!("server {};", redis.url()));
    for _ in 0..5 {
        assert_away(&nginx);
    }
    let line = nginx.wait_log("is away");
    assert!(line.contains("max number of clients reached"), "{line}");
    set("100");
    assert_recovers(&nginx);
}

#[test]
fn a_redis_that_never_answers_the_hand_shake_is_away_after_connect_timeout() {
    let fake = FakeRedis::builder().with_handshake().start(|_, _| Action::Nothing);
    let nginx = one(&format!("server {}; connect_timeout 200ms; timeout 20s;", fake.url()));
    assert_away(&nginx);
    assert!(nginx.wait_log("is away").contains("connect timed out"));
    eventually(SOON, || fake.open_connections() == 0);
    fake.set_handler(|_, _| Action::Default);
    assert_recovers(&nginx);
}

#[test]
fn events_that_waited_for_the_hand_shake_are_503_at_their_own_deadline() {
    let fake = FakeRedis::builder().with_handshake().start(|_, _| Action::Hold);
    let nginx = one(&format!("server {}; connect_timeout 20s; timeout 300ms;", fake.url()));
    let response = push(&nginx);
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.json()["detail"], "Redis did not take it in time; nothing was written");
    fake.wait_held(1);
    fake.set_handler(|_, _| Action::Default);
    fake.release_all(Action::Default);
    assert_recovers(&nginx);
    assert_eq!(fake.connections(), 1);
    assert_eq!(fake.commands().len(), 1, "only what was answered 204 was sent");
}
