//! Everything at once, for some seconds: pipelines of good and bad events, clients that leave, HTTP/2, mirrors, error pages,
//! while workers are reloaded and Redis is cut off, stopped and restarted. Each answer must be one that its own request can have.

mod common;

use common::*;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(20);
const LASTS: Duration = Duration::from_secs(7);

const SERVER: &str = r#"
    location /events {
        meteorit_pass     queue;
        meteorit_command  RPUSH events $event;
        meteorit_command  LTRIM events -1000 -1;
    }
    location /mirrored {
        mirror            /copy;
        meteorit_pass     queue;
        meteorit_command  RPUSH mirrored $event;
        meteorit_command  LTRIM mirrored -1000 -1;
    }
    location = /copy {
        internal;
        meteorit_pass     other;
        meteorit_command  PUBLISH copies $event;
    }
    location /rejected {
        meteorit_pass     queue;
        meteorit_command  INCRBY number $event;
    }
    location /refused {
        meteorit_pass     queue;
        meteorit_command  NOSUCHCOMMAND $event;
    }
    location /intercepted {
        meteorit_pass     queue;
        meteorit_command  NOSUCHCOMMAND $event;
        meteorit_intercept_errors on;
        error_page        502 503 504 = @again;
    }
    location @again {
        meteorit_pass     other;
        meteorit_command  RPUSH again $event;
        meteorit_command  LTRIM again -1000 -1;
    }
    location /paged {
        meteorit_pass     queue;
        meteorit_command  RPUSH paged $event;
        meteorit_command  LTRIM paged -1000 -1;
        meteorit_intercept_errors on;
        error_page        400 422 502 503 504 =200 /page;
    }
    location = /page {
        return            200 "page $meteorit_status";
    }
"#;

/// A request, and the statuses that its answer may have.
struct Kind {
    path: &'static str,
    body: &'static str,
    statuses: &'static [u16],
}

const fn kind(path: &'static str, body: &'static str, statuses: &'static [u16]) -> Kind {
    Kind { path, body, statuses }
}

/// 503 and 504 are Redis's absence, which may come at any time; a 400 needs no Redis.
const KINDS: [Kind; 12] = [
    kind("/events", r#"{"a":1}"#, &[204, 503, 504]),
    kind("/events", r#"{"b":[1,2,{"c":"d"}]}"#, &[204, 503, 504]),
    kind("/events", r#"{"a":"#, &[400]),
    kind("/events", r#"{"a":1,"a":2}"#, &[422]),
    kind("/events", "", &[400]),
    kind("/mirrored", r#"{"m":1}"#, &[204, 503, 504]),
    kind("/rejected", r#"{"r":1}"#, &[422, 503, 504]),
    kind("/refused", r#"{"r":1}"#, &[502, 503, 504]),
    kind("/intercepted", r#"{"i":1}"#, &[204, 503, 504]),
    kind("/paged", r#"{"p":1}"#, &[204, 200]),
    kind("/paged", r#"{"p":1"#, &[200]),
    kind("/none", r#"{"n":1}"#, &[404]),
];

/// The time that is left, and what has been answered so far.
struct Run {
    ends: Instant,
    over: AtomicBool,
    answered: AtomicU64,
    stored: AtomicU64,
}

impl Run {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst) && Instant::now() < self.ends
    }

    /// Lets the load make some progress.
    fn wait_more(&self, counter: &AtomicU64, count: u64) {
        let goal = counter.load(Ordering::SeqCst) + count;
        within(SOON, || counter.load(Ordering::SeqCst) >= goal || !self.goes_on());
    }
}

/// Ends the run with the test that ends early.
struct EndsRun<'a>(&'a Run);

impl Drop for EndsRun<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::SeqCst);
    }
}

/// Pipelines of random requests on keep-alive connections; now and then it leaves before all answers are there.
fn pipelines(run: &Run, port: u16, mut random: Random) {
    let _ends = EndsRun(run);
    while run.goes_on() {
        let Ok(mut client) = Http::try_connect(port) else { continue };
        for _ in 0..random.below(20) {
            let kinds: Vec<&Kind> = (0..1 + random.below(30)).map(|_| &KINDS[random.below(KINDS.len())]).collect();
            let bytes: Vec<u8> = kinds.iter().flat_map(|kind| Request::post(kind.path, kind.body).to_bytes()).collect();
            let leaves = random.below(8) == 0;
            let send = if leaves { random.below(bytes.len()) } else { bytes.len() };
            if client.try_send_raw(&bytes[..send]).is_err() {
                break;
            }
            // A worker that is reloaded closes keep-alive connections, in the middle of a pipeline too.
            let mut cut = leaves;
            for kind in kinds.iter().take(if leaves { 0 } else { kinds.len() }) {
                let Ok(response) = client.try_read_response() else {
                    cut = true;
                    break;
                };
                let Kind { path, body, statuses } = kind;
                assert!(statuses.contains(&response.status), "{path} {body}: {} {}", response.status, response.text());
                run.answered.fetch_add(1, Ordering::SeqCst);
                run.stored.fetch_add((response.status == 204).into(), Ordering::SeqCst);
                cut |= response.closes();
            }
            if cut {
                break;
            }
        }
        match random.below(2) {
            0 => client.abort(),
            _ => drop(client),
        }
    }
}

/// Bodies that come slowly or not at all, over HTTP/1.1.
fn stragglers(run: &Run, port: u16, mut random: Random) {
    let _ends = EndsRun(run);
    while run.goes_on() {
        let clients = (0..20).filter_map(|_| Http::try_connect(port).ok());
        let mut clients: Vec<Http> = clients.collect();
        let request = Request::post("/events", format!(r#"{{"padding":"{}"}}"#, "x".repeat(random.below(60_000))));
        let bytes = request.to_bytes();
        for client in &mut clients {
            let _ = client.try_send_raw(&bytes[..random.below(bytes.len())]);
        }
        for client in clients {
            match random.below(2) {
                0 => client.abort(),
                _ => drop(client),
            }
        }
        // Half-closed, and closed whole only later.
        let half_closed = (0..5).filter_map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.write_all(&bytes[..random.below(bytes.len() + 1)]).ok()?;
            stream.shutdown(Shutdown::Write).ok()?;
            Some(stream)
        });
        drop(half_closed.collect::<Vec<_>>());
    }
}

/// Many streams of one connection at a time.
fn streams(run: &Run, port: u16) {
    let _ends = EndsRun(run);
    while run.goes_on() {
        let url = format!("http://127.0.0.1:{port}/{{events,mirrored,rejected,intercepted}}?[1-20]");
        let output = curl(&[
            "--http2-prior-knowledge",
            "--parallel",
            "--parallel-max",
            "40",
            "--max-time",
            "2",
            "-H",
            "Content-Type: application/json",
            "--data",
            r#"{"h2":1}"#,
            &url,
        ]);
        // Heads of all the answers, one after another; a connection that is reloaded away is curl's error.
        assert!([0, 204, 422, 502, 503, 504].contains(&output.status), "{output:?}");
    }
}

/// What happens to nginx and Redis meanwhile; gives the workers that were told to quit.
fn troubles(run: &Run, nginx: &Nginx, redis: &Redis, mut random: Random) -> Vec<i32> {
    let _ends = EndsRun(run);
    let mut old = Vec::new();
    for trouble in (0..5).cycle().take_while(|_| run.goes_on()) {
        // All works again after the trouble before.
        run.wait_more(&run.stored, 50 + random.below(100) as u64);
        match trouble {
            0 => old.extend(nginx.reload()),
            1 => drop(redis.try_ask::<i64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])),
            2 => {
                redis.pause();
                run.wait_more(&run.answered, random.below(200) as u64);
                redis.resume();
            }
            3 => redis.restart(),
            _ => {
                redis.kill();
                run.wait_more(&run.answered, random.below(200) as u64);
                redis.restart();
            }
        }
    }
    old
}

#[test]
fn everything_at_once_leaves_a_working_nginx() {
    let redis = Redis::start();
    let settings = "timeout 300ms; stall_timeout 600ms; connect_timeout 300ms;";
    let nginx = Nginx::builder()
        .worker_processes(2)
        .worker_connections(1024)
        .http2()
        .http(&format!(
            "meteorit_redis queue {{ server {}; {settings} }}\n\
             meteorit_redis other {{ server {}; connections 3; backlog 1m; {settings} }}",
            redis.url(),
            redis.url()
        ))
        .server(SERVER)
        .start();
    let (port, h2_port) = (nginx.port(), nginx.h2_port());
    let run = Run {
        ends: Instant::now() + LASTS,
        over: AtomicBool::new(false),
        answered: AtomicU64::new(0),
        stored: AtomicU64::new(0),
    };
    let old = std::thread::scope(|scope| {
        let run = &run;
        for seed in 1..=3 {
            scope.spawn(move || pipelines(run, port, Random(seed)));
        }
        scope.spawn(move || stragglers(run, port, Random(4)));
        scope.spawn(move || streams(run, h2_port));
        troubles(run, &nginx, &redis, Random(5))
    });

    nginx.wait_gone(&old);
    eventually(SOON, || post(port, "/events", r#"{"last":1}"#).status == 204);
    let (answered, stored) = (run.answered.into_inner(), run.stored.into_inner());
    assert!(stored > 100 && stored < answered, "{stored} of {answered} were stored");
    assert!(!old.is_empty(), "there was no reload");
    // Listeners, logs, the connections to Redis: no client is left.
    eventually(SOON, || nginx.worker_fds() < 2 * 40);
    nginx.stop();
}
