//! A soak: most of what one worker can do, for METEORIT_SOAK_SECONDS, with a spool, while Redis is started anew again and again. What it
//! costs is printed, for the beginning and the end; what was promised is in Redis.

mod common;

use common::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(60);
const CLIENTS: u64 = 16;

/// The part of the load that is measured at the beginning and at the end, in percent of the time.
const PART: u64 = 10;

/// What a client saw.
#[derive(Default)]
struct Seen {
    /// The numbers of the events that were accepted.
    accepted: Vec<u64>,
    statuses: BTreeMap<u16, u64>,
    /// From when an event was due to its answer, in microseconds: at the beginning, and at the end.
    begin: Vec<u32>,
    end: Vec<u32>,
}

/// Sends an event each `interval`, whatever the answers take: what is late counts as late from when it was due.
fn send(port: u16, client: u64, interval: Duration, time: Duration, answered: &AtomicU32) -> Seen {
    let mut seen = Seen::default();
    let mut http = Http::connect(port);
    let started = Instant::now();
    for count in 0.. {
        let due = interval * count;
        if due >= time {
            break;
        }
        thread::sleep(due.saturating_sub(started.elapsed()));
        let id = u64::from(count) * CLIENTS + client;
        let response =
            http.post("/", format!(r#"{{"n":{id},"page":"/a/page/of/some/length","visitor":"0123456789abcdef"}}"#));
        if response.closes() {
            // Of `keepalive_requests`.
            http = Http::connect(port);
        }
        let late = (started.elapsed() - due).as_micros().min(u32::MAX.into()) as u32;
        answered.fetch_add(1, Ordering::Relaxed);
        *seen.statuses.entry(response.status).or_default() += 1;
        if matches!(response.status, 202 | 204) {
            seen.accepted.push(id);
        }
        if due < time * PART as u32 / 100 {
            seen.begin.push(late);
        } else if due >= time * (100 - PART) as u32 / 100 {
            seen.end.push(late);
        }
    }
    seen
}

/// The median, the 99th percentile and the largest.
fn quantiles(mut values: Vec<u32>) -> String {
    values.sort_unstable();
    let at = |part: usize| values[(values.len() - 1) * part / 1000];
    format!("p50 {} us, p99 {} us, p99.9 {} us, max {} us", at(500), at(990), at(999), at(1000))
}

#[test]
fn a_long_load_with_restarts_of_redis_leaves_the_worker_as_it_was() {
    let seconds = std::env::var("METEORIT_SOAK_SECONDS").map_or(8, |text| text.parse().expect("a number of seconds"));
    let time = Duration::from_secs(seconds);
    let restart_each = Duration::from_secs(60).min(time / 4);
    let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "no"]);
    let nginx = Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; spool spool; }}", redis.url()))
        .server("location / { meteorit_pass queue; meteorit_command SETBIT seen $event_n 1; }")
        .allow_log("redis \"queue\"")
        .start();

    // What there is to be had.
    let sent = load(nginx.port(), CLIENTS as usize, Until::Elapsed(Duration::from_secs(2)), |id| {
        Request::post("/", format!(r#"{{"n":{id}}}"#)).to_bytes()
    });
    assert!(sent.iter().all(|sent| sent.has_status(204)));
    let rate = sent.len() as u64 / 2 * 8 / 10;
    redis.cmd(&["DEL", "seen"]);
    let worker = nginx.worker_pids();
    let (memory, descriptors) = (nginx.worker_rss_kb(), nginx.worker_fds());

    let interval = Duration::from_nanos(1_000_000_000 * CLIENTS / rate.max(1));
    let answered = Arc::new(AtomicU32::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let (port, answered) = (nginx.port(), answered.clone());
            thread::spawn(move || send(port, client, interval, time, &answered))
        })
        .collect();
    let started = Instant::now();
    let mut restarts = 0;
    // None in the parts that are measured.
    while started.elapsed() + restart_each < time * (100 - PART) as u32 / 100 {
        thread::sleep(restart_each);
        redis.restart();
        restarts += 1;
    }
    let mut all = Seen::default();
    for client in clients {
        let seen = client.join().expect("a client");
        all.accepted.extend(seen.accepted);
        all.begin.extend(seen.begin);
        all.end.extend(seen.end);
        seen.statuses.into_iter().for_each(|(status, count)| *all.statuses.entry(status).or_default() += count);
    }
    let lanes = || std::fs::read_dir(nginx.dir().join("spool")).unwrap().flatten().map(|lane| lane.path());
    let has_segment = |path: std::path::PathBuf| {
        let mut files = std::fs::read_dir(path).into_iter().flatten().flatten();
        files.any(|file| file.path().extension().is_some_and(|end| end == "seg"))
    };
    eventually(SOON, || !lanes().any(has_segment));
    let (after, open) = (nginx.worker_rss_kb(), nginx.worker_fds());

    let statuses = all.statuses;
    println!("{seconds} s at {rate} events a second, {restarts} restarts of Redis; statuses {statuses:?}");
    println!("resident memory {memory} kB before, {after} kB after; descriptors {descriptors} before, {open} after");
    println!("latency at the beginning: {}", quantiles(all.begin));
    println!("latency at the end:       {}", quantiles(all.end));

    let bits = redis.get("seen").expect("what was written");
    let is_there = |id: &&u64| bits.get(**id as usize / 8).is_some_and(|byte| byte & 0x80 >> (**id % 8) != 0);
    let missing = all.accepted.iter().filter(|id| !is_there(id)).count();
    assert_eq!(missing, 0, "of {} accepted events", all.accepted.len());
    assert!(restarts > 0 && statuses.contains_key(&202), "nothing was spooled: {statuses:?}");
    assert!(statuses.keys().all(|status| matches!(status, 202 | 204 | 503 | 504)), "{statuses:?}");
    assert_eq!(nginx.worker_pids(), worker);
    assert!(after < memory + 32 * 1024, "from {memory} kB to {after} kB");
    assert!(open <= descriptors + 4, "from {descriptors} to {open} descriptors");
}
