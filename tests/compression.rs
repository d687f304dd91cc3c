//! A body that was compressed is the event that it was before; what is broken, unknown or too large when decoded is told.

mod common;

use common::*;
use std::process::{Command, Stdio};

fn start(location: &str) -> (Redis, Nginx) {
    let redis = Redis::start();
    let nginx = Nginx::start(&format!(
        "location / {{ meteorit_pass {}; meteorit_command RPUSH list $event; {location} }}",
        redis.url()
    ));
    (redis, nginx)
}

/// What python's zlib makes of `data`: 31 is gzip, 15 zlib's wrapper, -15 a bare stream.
fn compress(data: &[u8], wbits: i32) -> Vec<u8> {
    let script = format!(
        "import sys, zlib; c = zlib.compressobj(wbits={wbits}); d = sys.stdin.buffer.read(); \
         sys.stdout.buffer.write(c.compress(d) + c.flush())"
    );
    let mut python = Command::new("python3")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut stdin = python.stdin.take().expect("its input");
    let data = data.to_vec();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &data).expect("written"));
    let output = python.wait_with_output().expect("its output");
    writer.join().expect("the writer");
    assert!(output.status.success());
    output.stdout
}

/// A zstd frame (RFC 8878) that holds `data` in one raw block, at most 255 bytes.
fn zstd(data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).expect("a short text");
    // Magic number; single segment with a content size of one byte; the last block, raw, of that size.
    let block = (u32::from(length) << 3 | 1).to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, length][..], &block[..3], data].concat()
}

fn send(nginx: &Nginx, coding: &str, body: &[u8]) -> Response {
    let request = Request::post("/", body).header("Content-Encoding", coding);
    Http::connect(nginx.port()).call(&request)
}

const EVENT: &[u8] = b"{\"id\": 9007199254740993, \"caf\xc3\xa9\": []}\n";

#[test]
fn each_coding_gives_the_bytes_that_were_encoded() {
    let (redis, nginx) = start("");
    let bodies = [
        ("gzip", compress(EVENT, 31)),
        ("X-GZip", compress(EVENT, 31)),
        ("deflate", compress(EVENT, 15)),
        ("deflate", compress(EVENT, -15)),
        ("zstd", zstd(EVENT)),
        ("ZSTD", zstd(EVENT)),
        ("identity", EVENT.to_vec()),
    ];
    for (coding, body) in &bodies {
        let answer = send(&nginx, coding, body);
        assert_eq!(answer.status, 204, "{coding}: {}", answer.text());
    }
    assert_eq!(redis.list("list"), vec![EVENT.to_vec(); bodies.len()]);
}

#[test]
fn a_batch_may_be_compressed() {
    let (redis, nginx) = start("meteorit_batch all;");
    assert_eq!(send(&nginx, "gzip", &compress(b"[{\"a\":1}, {\"a\":2}]", 31)).status, 204);
    let lines = Request::new("POST", "/").body(compress(b"{\"a\":3}\n{\"a\":4}\n", 15));
    let lines = lines.header("Content-Encoding", "deflate").header("Content-Type", "application/x-ndjson");
    assert_eq!(Http::connect(nginx.port()).call(&lines).status, 204);
    assert_eq!(redis.len("list"), 4);
}

#[test]
fn a_broken_stream_is_400() {
    let (redis, nginx) = start("");
    let whole = compress(EVENT, 31);
    for end in [0, 1, 9, whole.len() / 2, whole.len() - 1] {
        let answer = send(&nginx, "gzip", &whole[..end]);
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (400, Some("urn:meteorit:problem:broken-coding")),
            "{end}"
        );
    }
    for body in [[&whole[..], b"x"].concat(), EVENT.to_vec()] {
        assert_eq!(send(&nginx, "gzip", &body).status, 400);
    }
    assert_eq!(send(&nginx, "zstd", &zstd(EVENT)[..20]).status, 400);
    assert_eq!(redis.len("list"), 0);
}

#[test]
fn an_unknown_coding_and_several_are_415_and_say_what_is_known() {
    let (_redis, nginx) = start("");
    for coding in ["br", "compress", "gzip, gzip", "gzip, identity", "nonsense"] {
        let answer = send(&nginx, coding, &compress(EVENT, 31));
        assert_eq!((answer.status, answer.header("accept-encoding")), (415, Some("gzip, deflate, zstd")), "{coding}");
    }
    let twice = Request::post("/", EVENT).header("Content-Encoding", "identity").header("Content-Encoding", "gzip");
    assert_eq!(Http::connect(nginx.port()).call(&twice).status, 415);
}

#[test]
fn the_bound_is_on_what_is_decoded() {
    let event = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8)).into_bytes();
    let (redis, nginx) = start("meteorit_max_event_size 100000;");
    assert_eq!(send(&nginx, "gzip", &compress(&event(100_000), 31)).status, 204);
    assert_eq!(send(&nginx, "gzip", &compress(&event(100_001), 31)).status, 413);
    assert_eq!(redis.len("list"), 1);
    let (redis, nginx) = start("meteorit_batch all; meteorit_max_body_size 1000; meteorit_max_event_size 500;");
    let events = |second: usize| [b"[", &event(400)[..], b",", &event(second)[..], b"]"].concat();
    assert_eq!(send(&nginx, "gzip", &compress(&events(500), 31)).status, 204);
    let answer = send(&nginx, "gzip", &compress(&[&events(500)[..], &b" ".repeat(98)[..]].concat(), 31));
    assert_eq!((answer.status, answer.json()["type"].as_str()), (413, Some("urn:meteorit:problem:body-too-large")));
    assert_eq!(redis.len("list"), 2);
}

#[test]
fn a_bomb_costs_no_memory_and_no_worker() {
    let (redis, nginx) = start("");
    let bomb = compress(&vec![0; 50_000_000], 31);
    assert!(bomb.len() < 60_000);
    assert_eq!(send(&nginx, "gzip", &compress(EVENT, 31)).status, 204);
    let (worker, before) = (nginx.worker_pids(), nginx.worker_rss_kb());
    for _ in 0..20 {
        assert_eq!(send(&nginx, "gzip", &bomb).status, 413);
    }
    let grown = nginx.worker_rss_kb().saturating_sub(before);
    assert!(grown < 8_000, "{grown} kB more");
    assert_eq!(nginx.worker_pids(), worker);
    assert_eq!(send(&nginx, "gzip", &compress(EVENT, 31)).status, 204);
    assert_eq!(redis.len("list"), 2);
}

#[test]
fn a_compressed_body_comes_by_http2_in_chunks_and_after_a_100_continue_too() {
    let redis = Redis::start();
    let text = "location / { meteorit_pass REDIS; meteorit_command RPUSH list $event; meteorit_batch all; \
                client_body_buffer_size 1k; }";
    let nginx = Nginx::builder().http2().server(&text.replace("REDIS", &redis.url())).start();
    let body = compress(EVENT, 31);
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut file, &body).expect("written");
    let data = format!("@{}", file.path().display());
    let url = format!("http://127.0.0.1:{}/", nginx.h2_port());
    let headers = ["-H", "Content-Encoding: gzip", "-H", "Content-Type: application/json", "--data-binary"];
    let answer = curl(&[&["--http2-prior-knowledge", &url][..], &headers, &[&data]].concat());
    assert_eq!(answer.status, 204, "{answer:?}");

    let request = Request::post("/", &body).header("Content-Encoding", "gzip");
    assert_eq!(Http::connect(nginx.port()).call_expecting_continue(&request).status, 204);

    let mut http = Http::connect(nginx.port());
    http.start_chunked(&Request::new("POST", "/").header("Content-Encoding", "gzip"));
    body.chunks(7).for_each(|chunk| http.send_chunk(chunk));
    http.end_chunks();
    assert_eq!(http.read_response().status, 204);
    assert_eq!(redis.list("list"), vec![EVENT.to_vec(); 3]);

    // From a temporary file: random digits, which hardly shrink.
    let random: String = (0..3000u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).to_string()).collect();
    let large = format!(r#"[{{"digits":"{random}"}}]"#);
    let encoded = compress(large.as_bytes(), 31);
    assert!(encoded.len() > 4096, "{}", encoded.len());
    assert_eq!(send(&nginx, "gzip", &encoded).status, 204);
    assert_eq!(redis.list("list").pop(), Some(large.as_bytes()[1..large.len() - 1].to_vec()));
}

#[test]
fn a_query_string_has_no_coding() {
    let (redis, nginx) = start("meteorit_methods GET;");
    let request = Request::get("/?a=1").header("Content-Encoding", "br");
    assert_eq!(Http::connect(nginx.port()).call(&request).status, 204);
    assert_eq!(redis.list("list"), [br#"{"a":"1"}"#]);
}
