//! Many clients that leave at random places, beside ones that do not, on a real Redis.

use super::*;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

const THREADS: u64 = 4;
const CLIENTS: usize = 250;

/// A client that half-closes behind a part of its requests, and reads until nginx closes.
fn half_close(port: u16, bytes: &[u8]) {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

/// One client: some requests in one write, cut off at a random byte, of whose answers a random number is read.
fn misbehave(port: u16, random: &mut Random, name: &str) {
    let requests: Vec<Vec<u8>> = (0..1 + random.below(4))
        .map(|i| {
            let padding = "x".repeat(random.below(3000));
            Request::post("/events", format!(r#"{{"id":"{name}-{i}","padding":"{padding}"}}"#)).to_bytes()
        })
        .collect();
    let bytes = requests.concat();
    let cut = random.below(bytes.len() + 1);
    let whole = if random.below(3) == 0 { bytes.len() } else { cut };
    if random.below(5) == 0 {
        return half_close(port, &bytes[..whole]);
    }
    let Ok(mut client) = Http::try_connect(port) else { return };
    if client.try_send_raw(&bytes[..whole]).is_err() {
        return;
    }
    if whole == bytes.len() {
        for _ in 0..random.below(requests.len() + 1) {
            let _ = client.try_read_response();
        }
    }
    match random.below(2) {
        0 => drop(client),
        _ => client.abort(),
    }
}

#[test]
fn random_aborts_leave_nothing_behind() {
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .worker_connections(1024)
        .http(&format!("meteorit_redis queue {{ server {}; timeout 20s; stall_timeout 20s; }}", redis.url()))
        .server("location /events { meteorit_pass queue; meteorit_command RPUSH events $event; }")
        .start();
    let before = Before::with_connection(&nginx);

    let port = nginx.port();
    let load = Load::start(port, 2, Until::Elapsed(Duration::from_secs(60)), |id| {
        Request::post("/events", format!(r#"{{"id":{id}}}"#)).to_bytes()
    });
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut random = Random(thread);
                for i in 0..CLIENTS {
                    misbehave(port, &mut random, &format!("{thread}-{i}"));
                }
            });
        }
    });
    load.wait_more(10);
    let sent = load.stop();
    assert!(sent.iter().all(|sent| sent.has_status(204)), "a client that stays was harmed: {sent:?}");

    before.assert_unchanged(&nginx);
    assert_eq!(post(port, "/events", r#"{"last":1}"#).status, 204);
    let mut times: HashMap<String, usize> = HashMap::new();
    for event in redis.list("events") {
        let event: serde_json::Value = serde_json::from_slice(&event).expect("whole events only");
        *times.entry(event["id"].to_string()).or_default() += 1;
    }
    assert!(sent.iter().all(|sent| times.get(&sent.id.to_string()) == Some(&1)), "each once");
    assert!(times.iter().all(|(id, count)| id == "null" || *count == 1), "none twice: {times:?}");
    assert!(times.len() > sent.len() + 2, "some of those that left had sent a whole event");
}
