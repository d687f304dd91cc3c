//! The same over HTTP/2, where a client may also give up one stream and keep the connection. Frames are made by hand
//! (RFC 9113, RFC 7541 without Huffman coding), since no well-behaved client stops in the middle of one.

use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const CANCEL: [u8; 4] = 8u32.to_be_bytes();

/// A connection on which frames are sent one by one.
struct Frames(TcpStream);

impl Frames {
    fn connect(nginx: &Nginx) -> Frames {
        let stream = TcpStream::connect(("127.0.0.1", nginx.h2_port())).expect("a connection");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut frames = Frames(stream);
        frames.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        frames.send(SETTINGS, 0, 0, b"");
        frames
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).expect("a frame to nginx");
    }

    /// The header block of a POST; a part of it when `whole` is false.
    fn head(&mut self, stream: u32, path: &str, whole: bool) {
        // Indexed: ":method POST", ":scheme http"; literal, with an indexed name: ":path", ":authority".
        let mut block = vec![0x83, 0x86, 0x04, path.len() as u8];
        block.extend(path.as_bytes());
        block.extend([0x01, 1, b'a']);
        match whole {
            true => self.send(HEADERS, END_HEADERS, stream, &block),
            false => self.send(HEADERS, 0, stream, &block[..8]),
        }
    }

    fn post(&mut self, stream: u32, path: &str, body: &str) {
        self.head(stream, path, true);
        self.send(DATA, END_STREAM, stream, body.as_bytes());
    }

    /// Reads until the headers of this stream's response come, and gives its status.
    fn status(&mut self, stream: u32) -> u16 {
        loop {
            let (kind, of, payload) = self.frame();
            if (kind, of) != (HEADERS, stream) {
                continue;
            }
            // Static table: 8 is ":status 200", 9 is 204. A dynamic table size update may come first.
            let first = payload.iter().find(|byte| **byte & 0xe0 != 0x20);
            return match first {
                Some(0x88) => 200,
                Some(0x89) => 204,
                other => panic!("another status, beginning with {other:?}"),
            };
        }
    }

    /// nginx has handled everything sent before.
    fn settle(&mut self) {
        self.send(PING, 0, 0, b"meteorit");
        while self.frame().0 != PING {}
    }

    fn frame(&mut self) -> (u8, u32, Vec<u8>) {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).expect("a frame from nginx");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).expect("a whole frame from nginx");
        if head[3] == SETTINGS && head[4] & ACK == 0 {
            self.send(SETTINGS, ACK, 0, b"");
        }
        (head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload)
    }
}

fn curl_posting(nginx: &Nginx, path: &str, body: &str) -> Child {
    Command::new("curl")
        .args(["-q", "-sS", "--noproxy", "*", "--max-time", "30", "--http2-prior-knowledge", "--data-binary", body])
        .args(["-H", "Content-Type: application/json", &format!("http://127.0.0.1:{}{path}", nginx.h2_port())])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("curl runs")
}

#[test]
fn a_killed_http2_client_is_a_499_and_its_event_is_written() {
    let redis = FakeRedis::start(hold_for("gone"));
    let nginx = nginx_for(&redis);
    let before = Before::with_connection(&nginx);
    for i in 0..5 {
        let mut client = curl_posting(&nginx, &format!("/events?gone-{i}"), r#"{"gone":1}"#);
        redis.wait_held(i + 1);
        client.kill().unwrap();
        client.wait().unwrap();
        nginx.wait_access(&format!("499 POST /events?gone-{i}"));
    }
    before.assert_unchanged(&nginx);
    redis.release_all(Action::reply(MARKED));
    assert_eq!(post(nginx.port(), "/events?last", r#"{"last":1}"#).status, 204);
    assert_eq!(sent_events(&redis).iter().filter(|event| event.contains("gone")).count(), 5);
    assert_eq!(redis.connections(), 1);
}

#[test]
fn a_stream_given_up_leaves_the_others_of_its_connection() {
    let redis = FakeRedis::start(hold_for("gone"));
    let nginx = nginx_for(&redis);
    let before = Before::with_connection(&nginx);
    let mut client = Frames::connect(&nginx);
    client.post(1, "/events?gone", r#"{"gone":1}"#);
    redis.wait_held(1);
    client.post(3, "/events?stays", r#"{"stays":1}"#);
    redis.wait_commands(3);
    client.send(RST_STREAM, 0, 1, &CANCEL);
    nginx.wait_access("499 POST /events?gone");
    redis.release(0, Action::reply(MARKED));
    assert_eq!(client.status(3), 204);
    drop(client);
    before.assert_unchanged(&nginx);
}

#[test]
fn a_stream_may_be_given_up_before_its_body_is_whole() {
    let redis = FakeRedis::start(answered);
    let nginx = nginx_for(&redis);
    let before = Before::with_connection(&nginx);
    let mut client = Frames::connect(&nginx);
    client.head(1, "/events?header", true);
    client.send(RST_STREAM, 0, 1, &CANCEL);
    client.head(3, "/events?body", true);
    client.send(DATA, 0, 3, br#"{"half":"#);
    client.settle();
    client.send(RST_STREAM, 0, 3, &CANCEL);
    client.post(5, "/events?whole", r#"{"whole":1}"#);
    assert_eq!(client.status(5), 204);
    drop(client);
    before.assert_unchanged(&nginx);
    assert_eq!(sent_events(&redis), [r#"{"first":1}"#, r#"{"whole":1}"#]);
}

#[test]
fn an_http2_connection_may_end_at_any_frame() {
    let redis = FakeRedis::start(hold_for("held"));
    let nginx = nginx_for(&redis);
    let before = Before::with_connection(&nginx);
    let steps: [fn(&mut Frames); 6] = [
        |_| {},
        |client| client.head(1, "/events?part", false),
        |client| client.head(1, "/events?head", true),
        |client| {
            client.head(1, "/events?body", true);
            client.send(DATA, 0, 1, b"{\"a\":");
        },
        |client| {
            client.post(1, "/events?held", r#"{"held":1}"#);
            client.settle();
        },
        |client| {
            (0..40).for_each(|i| client.post(2 * i + 1, "/events?many", r#"{"many":1}"#));
            client.send(GOAWAY, 0, 0, &[0; 8]);
        },
    ];
    for step in steps {
        let mut client = Frames::connect(&nginx);
        step(&mut client);
    }
    nginx.wait_access("499 POST /events?held");
    redis.wait_held(1);
    redis.release_all(Action::Default);
    before.assert_unchanged(&nginx);
    assert_eq!(post(nginx.port(), "/events?last", r#"{"last":1}"#).status, 204);
    assert_eq!(redis.connections(), 1);
}
