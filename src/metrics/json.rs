//! A reading as the JSON document that docs/status.md describes.

use std::fmt::Write;

use serde_json::json;

use super::reading::{LocationReading, Reading, RedisReading};
use super::{BUCKETS, Connections};
use crate::response::{Cause, Fate, Lack};

pub fn render(reading: &Reading) -> String {
    let mut text = String::with_capacity(1024 + 1300 * (reading.locations.len() + reading.redis.len()));
    let Reading { meta, since, restarts, workers, locations, redis } = reading;
    let (version, nginx) = (env!("CARGO_PKG_VERSION"), json!(meta.nginx));
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        text,
        r#"{{"version":"{version}","nginx":{nginx},"time":{},"since":{},"worker_restarts":{restarts},"workers":["#,
        Seconds(meta.unix_ms),
        Seconds(*since)
    );
    list(&mut text, workers, |text, worker| {
        let _ = write!(
            text,
            r#"{{"slot":{},"pid":{},"started":{},"exiting":{}}}"#,
            worker.slot,
            worker.pid,
            Seconds(worker.started),
            worker.exiting
        );
    });
    text.push_str(r#"],"locations":["#);
    list(&mut text, locations, location);
    text.push_str(r#"],"redis":["#);
    list(&mut text, redis, redis_entry);
    text.push_str("]}");
    text
}

fn location(text: &mut String, location: &LocationReading) {
    let LocationReading { server, location: path, redis, requests, events, rejected, unavailable, .. } = location;
    let LocationReading { bytes_in, batches, schema_dry_run, clients_gone, .. } = location;
    let _ = write!(text, r#"{{"server":{},"location":{},"redis":{}"#, json!(server), json!(path), json!(redis));
    counts(text, "requests", Fate::ALL.map(Fate::name), requests);
    counts(text, "events", Fate::ALL.map(Fate::name), events);
    counts(text, "rejected_by", Cause::ALL.map(Cause::name), rejected);
    counts(text, "unavailable_by", Lack::ALL.map(Lack::name), unavailable);
    let _ = write!(text, r#","bytes_in":{bytes_in},"batches":{batches},"schema_dry_run":{schema_dry_run}"#);
    let _ = write!(text, r#","clients_gone":{clients_gone}}}"#);
}

fn redis_entry(text: &mut String, redis: &RedisReading) {
    let RedisReading { name, server, connections, pending_events, pending_bytes, max_events, max_bytes, .. } = redis;
    let RedisReading { commands, writes, connects, reconnects, failures, trips, trips_sum, spool, .. } = redis;
    let Connections { ready, connecting, closed, open, half_open } = connections;
    let _ = write!(text, r#"{{"name":{},"server":{}"#, json!(name), json!(server));
    let _ = write!(text, r#","connections":{{"ready":{ready},"connecting":{connecting},"closed":{closed}}}"#);
    let sound = connections.sound();
    let _ = write!(text, r#","breaker":{{"closed":{sound},"open":{open},"half_open":{half_open}}}"#);
    let _ = write!(text, r#","pending":{{"events":{pending_events},"bytes":{pending_bytes}}}"#);
    let _ = write!(text, r#","limits":{{"events":{max_events},"bytes":{max_bytes}}}"#);
    let _ = write!(text, r#","commands":{commands},"writes":{writes},"connects":{connects}"#);
    let _ = write!(text, r#","reconnects":{reconnects},"failures":{failures},"round_trip":{{"le":["#);
    list(text, &BUCKETS, |text, (_, end)| text.push_str(end));
    text.push_str(r#"],"count":["#);
    list(text, trips, |text, count| {
        let _ = write!(text, "{count}");
    });
    let _ = write!(text, r#"],"sum":{}}},"spool":"#, Nanoseconds(*trips_sum));
    match spool {
        None => text.push_str("null"),
        Some(spool) => {
            let _ = write!(
                text,
                r#"{{"bytes":{},"max_bytes":{},"records":{},"oldest":{}"#,
                spool.bytes,
                spool.max_bytes,
                spool.records,
                Seconds(spool.oldest)
            );
            let _ = write!(
                text,
                r#","written":{},"replayed":{},"rejected":{},"damaged":{},"failed":{}}}"#,
                spool.written, spool.replayed, spool.rejected, spool.damaged, spool.failed
            );
        }
    }
    text.push('}');
}

fn list<T>(text: &mut String, items: &[T], mut item: impl FnMut(&mut String, &T)) {
    for (at, one) in items.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        item(text, one);
    }
}

fn counts<const N: usize>(text: &mut String, name: &str, names: [&str; N], counts: &[u64; N]) {
    let _ = write!(text, r#","{name}":{{"#);
    let pairs: [(&str, u64); N] = std::array::from_fn(|at| {
        (names.get(at).copied().unwrap_or_default(), counts.get(at).copied().unwrap_or_default())
    });
    list(text, &pairs, |text, (name, count)| {
        let _ = write!(text, r#""{name}":{count}"#);
    });
    text.push('}');
}

/// Milliseconds, written in seconds.
pub struct Seconds(pub u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// Nanoseconds, written in seconds.
pub struct Nanoseconds(pub u64);

impl std::fmt::Display for Nanoseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
