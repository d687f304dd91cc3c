//! One measurement: a peer is started, loaded and stopped.

use std::io;
use std::net::TcpStream;
use std::path::PathBuf;

use crate::case::Case;
use crate::event::body;
use crate::process::{Counted, Cpu, Nginx, Redis, Setup, cpu, resident};
use crate::{http, load, pace};

/// Where things are, and how long a measurement takes.
pub struct Bench {
    pub redis: Redis,
    pub benches: PathBuf,
    pub module: PathBuf,
    pub dir: PathBuf,
    pub seconds: f64,
}

/// What one measurement gave.
#[derive(Clone, Copy)]
pub struct Sample {
    pub requests: f64,
    pub events: f64,
    /// Of an event, in microseconds.
    pub worker: f64,
    /// The part of it that is in user space.
    pub user: f64,
    pub redis: f64,
    pub commands: f64,
    /// Of the worker's resident memory, in kilobytes, when it has served its first events and in the end.
    pub before: f64,
    pub after: f64,
    /// Half of those requests a second were sent, and answers took so long: p50, p99 and p99.9, in microseconds.
    pub latency: Option<[f64; 3]>,
}

/// Sends as much as the peer takes.
pub fn full(bench: &Bench, case: &Case) -> io::Result<Sample> {
    let body = body(case.size, case.peer.batch);
    let site = start(bench, case, &body)?;
    load::run(&bench.dir, site.nginx.port, &body, case.connections, 0.2)?;
    let memory = resident(site.nginx.worker)?;
    let before = usage(bench, &site.nginx)?;
    let seen = load::run(&bench.dir, site.nginx.port, &body, case.connections, bench.seconds)?;
    let after = usage(bench, &site.nginx)?;
    if seen.failures > 0 || seen.requests == 0 {
        let text = format!("{}: {} of {} requests failed: ", case.peer.name, seen.failures, seen.requests);
        return Err(io::Error::other(text + &site.nginx.complaints()));
    }
    let events = (seen.requests * case.peer.batch.unwrap_or(1) as u64) as f64;
    let worker = after.worker.since(before.worker);
    let redis = after.redis.since(before.redis);
    Ok(Sample {
        requests: seen.requests as f64 / seen.seconds,
        events: events / seen.seconds,
        worker: worker.total as f64 / events / 1e3,
        user: worker.user as f64 / (worker.user + worker.system).max(1) as f64,
        redis: redis.total as f64 / events / 1e3,
        commands: (after.counted.commands - before.counted.commands) as f64
            / (after.counted.reads - before.counted.reads).max(1) as f64,
        before: memory as f64,
        after: resident(site.nginx.worker)? as f64,
        latency: None,
    })
}

/// How long answers take at `rate` requests a second: p50, p99 and p99.9 in microseconds.
pub fn paced(bench: &Bench, case: &Case, rate: f64) -> io::Result<[f64; 3]> {
    let body = body(case.size, case.peer.batch);
    let site = start(bench, case, &body)?;
    let latencies = pace::run(site.nginx.port, &body, case.peer.status, case.connections, rate, bench.seconds)?;
    match latencies.failures {
        0 => Ok([500, 990, 999].map(|per_mille| latencies.at(per_mille))),
        failures => Err(io::Error::other(format!("{}: {failures} requests failed", case.peer.name))),
    }
}

/// Resident memory of a worker, in kilobytes, as it takes `events` of them in batches: with how many it had taken.
pub fn memory(bench: &Bench, case: &Case, events: u64) -> io::Result<Vec<(u64, u64)>> {
    let body = body(case.size, case.peer.batch);
    let site = start(bench, case, &body)?;
    let mut seen = Vec::new();
    let mut taken = 0;
    while taken < events {
        let load = load::run(&bench.dir, site.nginx.port, &body, case.connections, 1.0)?;
        taken += (load.requests - load.failures) * case.peer.batch.unwrap_or(1) as u64;
        seen.push((taken, resident(site.nginx.worker)?));
        bench.redis.ask("FLUSHALL")?;
    }
    Ok(seen)
}

/// A running peer, and the clients that do nothing.
struct Site {
    nginx: Nginx,
    _silent: Vec<TcpStream>,
}

fn start(bench: &Bench, case: &Case, body: &str) -> io::Result<Site> {
    bench.redis.ask("FLUSHALL")?;
    let others = (0..case.locations).map(|number| {
        let command = format!("meteorit_command XADD other{number} * event $event;");
        format!("location = /other/{number} {{ meteorit_pass queue; {command} }}\n")
    });
    let setup = Setup {
        redis: bench.redis.port,
        benches: &bench.benches,
        module: &bench.module,
        dir: &bench.dir,
        more: &others.collect::<String>(),
        connections: 1024 + case.idle,
        counted: false,
    };
    let nginx = Nginx::start(case.peer, &setup)?;
    let mut silent = Vec::new();
    // The first one warms up.
    for _ in 0..case.idle + 1 {
        let (stream, status) = http::send(nginx.port, body)?;
        if status != case.peer.status {
            let text = format!("{} answers {status}, not {}: ", case.peer.name, case.peer.status);
            return Err(io::Error::other(text + &nginx.complaints()));
        }
        silent.push(stream);
    }
    silent.truncate(case.idle);
    Ok(Site { nginx, _silent: silent })
}

struct Usage {
    worker: Cpu,
    redis: Cpu,
    counted: Counted,
}

fn usage(bench: &Bench, nginx: &Nginx) -> io::Result<Usage> {
    Ok(Usage { worker: cpu(nginx.worker)?, redis: cpu(bench.redis.pid())?, counted: bench.redis.counted()? })
}
