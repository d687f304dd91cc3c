//! The real and the scripted Redis, seen through the `redis` crate's client.

use super::common::*;
use super::{SOON, failure_of};
use redis::{Connection, RedisResult, Value};
use std::time::{Duration, Instant};

fn client_of(fake: &FakeRedis) -> Connection {
    let client = redis::Client::open(fake.url()).expect("a URL");
    let connection = client.get_connection_with_timeout(SOON).expect("a connection");
    connection.set_read_timeout(Some(SOON)).expect("a timeout");
    connection
}

fn ask(connection: &mut Connection, words: &[&str]) -> RedisResult<Value> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query(connection)
}

#[test]
fn redis_keeps_its_port_through_stop_kill_and_restart() {
    let redis = Redis::start();
    let (port, pid) = (redis.port(), redis.pid().unwrap());
    redis.cmd(&["RPUSH", "k", "a", "b"]);
    assert_eq!(redis.list("k"), [b"a", b"b"]);
    assert_eq!((redis.len("k"), redis.len("none"), redis.get("none")), (2, 0, None));
    assert_eq!(redis.info("tcp_port"), port.to_string());
    redis.stop();
    assert!(redis.pid().is_none() && !is_running(pid) && redis.try_client().is_err());
    redis.restart();
    assert_eq!((redis.port(), redis.len("k")), (port, 0));
    redis.kill();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    redis.restart();
    let mut by_tcp = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    assert_eq!(ask(&mut by_tcp, &["SET", "x", "1"]), Ok(Value::Okay));
    assert_eq!(redis.get("x").unwrap(), b"1");
}

#[test]
fn redis_pauses_and_resumes() {
    let redis = Redis::start();
    let mut client = redis.client();
    redis.pause();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(ask(&mut client, &["PING"]).is_err());
    redis.resume();
    assert_eq!(redis.ask::<String>(&["PING"]), "PONG");
    redis.pause();
    let pid = redis.pid().unwrap();
    drop(redis);
    assert!(!is_running(pid));
}

#[test]
fn redis_takes_options_and_files() {
    let redis = Redis::builder()
        .args(&["--requirepass", "secret", "--appendonly", "yes", "--aclfile", "%DIR%/users.acl"])
        .file("users.acl", "user default on >secret ~* &* +@all\nuser writer on >w ~events* +rpush\n")
        .start();
    redis.cmd(&["XADD", "s", "1-1", "f", "v"]);
    redis.cmd(&["HSET", "h", "a", "1"]);
    redis.restart();
    assert_eq!(redis.stream("s"), [("1-1".to_string(), vec![b"f".to_vec(), b"v".to_vec()])]);
    assert_eq!((redis.hash("h")["a"].as_str(), redis.len("s")), ("1", 1));
    let open = |user: &str| {
        redis::Client::open(format!("redis://{user}@127.0.0.1:{}", redis.port())).unwrap().get_connection()
    };
    assert!(open("writer:wrong").is_err());
    let mut writer = open("writer:w").unwrap();
    assert_eq!(ask(&mut writer, &["RPUSH", "events", "1"]), Ok(Value::Int(1)));
    let refused = ask(&mut writer, &["RPUSH", "other", "1"]).unwrap_err();
    assert_eq!(refused.code(), Some("NOPERM"));
}

#[test]
fn fake_redis_shakes_hands_and_records() {
    let fake =
        FakeRedis::start(|_, command| if command[0] == b"RPUSH" { Action::reply(":7\r\n") } else { Action::Default });
    for parameters in ["", "3?protocol=resp3"] {
        let url = format!("redis://user:word@127.0.0.1:{}/{parameters}", fake.port());
        let mut client = redis::Client::open(url).unwrap().get_connection().unwrap();
        assert_eq!(ask(&mut client, &["RPUSH", "k", "v"]), Ok(Value::Int(7)));
        assert_eq!(ask(&mut client, &["SET", "k", "v"]), Ok(Value::Okay));
    }
    let commands = fake.wait_commands(4);
    assert_eq!(commands.iter().map(|command| command.connection).collect::<Vec<_>>(), [0, 0, 1, 1]);
    assert_eq!((commands[0].text().as_str(), commands[0].name().as_str()), ("RPUSH k v", "RPUSH"));
    assert!(fake.all_commands().iter().any(|command| command.name() == "HELLO"));
    assert!(fake.all_commands().iter().any(|command| command.text() == "SELECT 3"));
    assert_eq!(fake.connections(), 2);
    eventually(SOON, || fake.open_connections() == 0);
}

#[test]
fn fake_redis_keeps_replies_in_order_unless_told() {
    let fake = FakeRedis::start(|_, command| match command[0].as_slice() {
        b"LATE" => Action::after(Duration::from_millis(80), Action::reply("+late\r\n")),
        b"HELD" => Action::Hold,
        b"BYTES" => Action::ReplyBytewise(b"$3\r\nabc\r\n".to_vec(), Duration::from_millis(1)),
        b"JUMP" => Action::OutOfTurn(Duration::ZERO, b"+jump\r\n".to_vec()),
        _ => Action::Nothing,
    });
    let mut client = client_of(&fake);
    let started = Instant::now();
    client.send_commands(&["LATE", "NOTHING", "BYTES", "HELD", "HELD", "JUMP"]);
    assert_eq!(client.next_reply(), Value::SimpleString("jump".into()));
    assert_eq!(client.next_reply(), Value::SimpleString("late".into()));
    assert!(started.elapsed() >= Duration::from_millis(80));
    assert_eq!(client.next_reply(), Value::BulkString(b"abc".to_vec()));
    let held = fake.wait_held(2);
    assert_eq!(held[1].command.name(), "HELD");
    fake.release(1, Action::reply("+second\r\n"));
    fake.release(0, Action::reply("+first\r\n"));
    assert_eq!(client.next_reply(), Value::SimpleString("first".into()));
    assert_eq!(client.next_reply(), Value::SimpleString("second".into()));
    fake.send(0, b"+unasked\r\n");
    assert_eq!(client.next_reply(), Value::SimpleString("unasked".into()));
}

/// Sending and receiving apart, which pipelining by hand needs.
trait ByHand {
    fn send_commands(&mut self, names: &[&str]);
    fn next_reply(&mut self) -> Value;
}

impl ByHand for Connection {
    fn send_commands(&mut self, names: &[&str]) {
        let bytes: Vec<u8> = names.iter().flat_map(|name| redis::cmd(name).get_packed_command()).collect();
        self.send_packed_command(&bytes).expect("commands sent");
    }

    fn next_reply(&mut self) -> Value {
        self.recv_response().expect("a reply")
    }
}

#[test]
fn fake_redis_closes_in_every_way() {
    let fake = FakeRedis::start(|_, command| match command[0].as_slice() {
        b"CLOSE" => Action::Close,
        b"SAY" => Action::CloseAfter(b"+bye\r\n".to_vec()),
        _ => Action::Reset,
    });
    assert!(ask(&mut client_of(&fake), &["CLOSE"]).is_err());
    let mut client = client_of(&fake);
    assert_eq!(ask(&mut client, &["SAY"]), Ok(Value::SimpleString("bye".into())));
    assert!(ask(&mut client, &["SAY"]).is_err());
    let error = ask(&mut client_of(&fake), &["RESET"]).unwrap_err();
    assert!(error.to_string().contains("reset by peer"), "{error}");
    drop(client);
    eventually(SOON, || fake.open_connections() == 0);
}

#[test]
fn fake_redis_stops_reading_and_listening() {
    let fake = FakeRedis::builder().receive_buffer(4096).start(|_, _| Action::Default);
    let mut client = client_of(&fake);
    fake.pause_reading();
    client.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let big = redis::cmd("SET").arg("k").arg(vec![b'x'; 32 << 20]).get_packed_command();
    assert!(client.send_packed_command(&big).is_err(), "the peer's buffers are full");
    assert!(fake.commands().is_empty());
    fake.resume_reading();
    drop(client);

    let mut client = client_of(&fake);
    fake.stop_listening();
    assert!(redis::Client::open(fake.url()).unwrap().get_connection().is_err());
    assert_eq!(ask(&mut client, &["SET", "k", "v"]), Ok(Value::Okay));
    fake.close_all(true);
    assert!(ask(&mut client, &["SET", "k", "v"]).is_err());
    fake.resume_listening();
    assert_eq!(ask(&mut client_of(&fake), &["SET", "k", "v"]), Ok(Value::Okay));
}

#[test]
fn fake_redis_listens_on_a_unix_socket_and_lets_the_handler_shake_hands() {
    let dir = tempfile::tempdir().unwrap();
    let fake =
        FakeRedis::builder().unix(dir.path().join("fake.sock")).with_handshake().start(|_, command| {
            match command[0].as_slice() {
                b"SELECT" => Action::reply("-ERR DB index is out of range\r\n"),
                _ => Action::Default,
            }
        });
    let url = fake.url();
    assert!(redis::Client::open(url.clone()).unwrap().get_connection().is_ok());
    assert!(redis::Client::open(format!("{url}?db=3")).unwrap().get_connection().is_err());
}

#[test]
fn a_malformed_command_or_a_failing_handler_fails_the_test() {
    let fake = FakeRedis::start(|_, _| Action::Default);
    let mut client = client_of(&fake);
    client.send_packed_command(b"*1\r\n$4\r\nPINGPING\r\n").unwrap();
    assert!(client.recv_response().is_err());
    drop(client);
    assert!(failure_of(|| drop(fake)).contains("no CRLF"));

    let fake = FakeRedis::start(|_, command| panic!("unexpected {command:?}"));
    assert!(ask(&mut client_of(&fake), &["GET", "k"]).is_err());
    assert!(failure_of(|| drop(fake)).contains("handler panicked"));
}
