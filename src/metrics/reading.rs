//! Reading: what stood in the shared memory at one time, with the names of what it is about.

use super::counters::{BUCKETS, Connections, Gauges, Location, Redis, Worker};
use super::table::Table;
use crate::response::{Cause, Fate, Lack};

/// What is known without the table.
pub struct Meta<'a> {
    pub nginx: &'a str,
    /// Milliseconds since 1970.
    pub unix_ms: u64,
}

pub struct Reading<'a> {
    pub meta: Meta<'a>,
    /// Milliseconds since 1970.
    pub since: u64,
    pub restarts: u64,
    pub workers: Vec<WorkerReading>,
    pub locations: Vec<LocationReading<'a>>,
    pub redis: Vec<RedisReading<'a>>,
}

pub struct WorkerReading {
    pub slot: u64,
    pub pid: u32,
    /// Milliseconds since 1970.
    pub started: u64,
    /// Of an older configuration than that of another worker.
    pub exiting: bool,
}

pub struct LocationReading<'a> {
    pub server: &'a str,
    pub location: &'a str,
    pub redis: &'a str,
    pub requests: [u64; Fate::ALL.len()],
    pub events: [u64; Fate::ALL.len()],
    pub rejected: [u64; Cause::ALL.len()],
    pub unavailable: [u64; Lack::ALL.len()],
    pub bytes_in: u64,
    pub batches: u64,
    pub schema_dry_run: u64,
    pub clients_gone: u64,
}

/// What the configuration says of a Redis.
pub struct RedisMeta<'a> {
    pub name: &'a str,
    pub server: &'a str,
    /// Of one worker.
    pub max_events: u64,
    pub max_bytes: u64,
    /// What its spool may hold, where there is one.
    pub max_spool: Option<u64>,
}

pub struct RedisReading<'a> {
    pub name: &'a str,
    pub server: &'a str,
    pub connections: Connections,
    pub pending_events: u64,
    pub pending_bytes: u64,
    /// Of one worker.
    pub max_events: u64,
    pub max_bytes: u64,
    pub commands: u64,
    pub writes: u64,
    pub connects: u64,
    pub reconnects: u64,
    pub failures: u64,
    /// By bucket, the last for all above.
    pub trips: [u64; BUCKETS.len() + 1],
    /// In nanoseconds.
    pub trips_sum: u64,
    pub spool: Option<SpoolReading>,
}

pub struct SpoolReading {
    pub bytes: u64,
    pub max_bytes: u64,
    pub records: u64,
    /// For how long the oldest record waits, in milliseconds.
    pub oldest: u64,
    pub written: u64,
    pub replayed: u64,
    pub rejected: u64,
    pub damaged: u64,
    pub failed: u64,
}

impl<'a> Reading<'a> {
    /// Of the table alone; what the configuration names is to be added. `lives` says which processes do.
    pub fn new(table: &Table, meta: Meta<'a>, lives: impl Fn(u32) -> bool) -> Reading<'a> {
        let living: Vec<Worker> = Worker::all(table).filter(|worker| lives(worker.pid())).collect();
        let newest = living.iter().map(|worker| worker.slot()[1]).max().unwrap_or(0);
        let mut workers: Vec<WorkerReading> = living
            .into_iter()
            .map(|worker| {
                let ([slot, configuration], pid, started) = (worker.slot(), worker.pid(), worker.started());
                WorkerReading { slot, pid, started, exiting: configuration < newest }
            })
            .collect();
        workers.sort_by_key(|worker| (worker.slot, worker.started, worker.pid));
        let (since, restarts) = (table.since(), table.restarts());
        Reading { meta, since, restarts, workers, locations: Vec::new(), redis: Vec::new() }
    }
}

impl<'a> LocationReading<'a> {
    pub fn new(server: &'a str, location: &'a str, redis: &'a str, counts: Location) -> LocationReading<'a> {
        let [bytes_in, batches, schema_dry_run, clients_gone] = counts.others();
        LocationReading {
            server,
            location,
            redis,
            requests: Fate::ALL.map(|fate| counts.requests(fate)),
            events: Fate::ALL.map(|fate| counts.event_count(fate)),
            rejected: Cause::ALL.map(|cause| counts.rejected(cause)),
            unavailable: Lack::ALL.map(|lack| counts.unavailable(lack)),
            bytes_in,
            batches,
            schema_dry_run,
            clients_gone,
        }
    }
}

impl<'a> RedisReading<'a> {
    /// `lives` says which processes do.
    pub fn new(
        table: &Table,
        meta: RedisMeta<'a>,
        counts: Redis,
        unix_ms: u64,
        lives: impl Fn(u32) -> bool,
    ) -> RedisReading<'a> {
        let RedisMeta { name, server, max_events, max_bytes, max_spool } = meta;
        let (mut connections, mut events, mut bytes) = (Connections::default(), 0, 0);
        let (mut records, mut oldest) = (0, u64::MAX);
        for gauges in Gauges::of(table, Redis::key(name), lives) {
            let (one, [its_events, its_bytes], spool) = gauges.get();
            connections.ready += one.ready;
            connections.connecting += one.connecting;
            connections.closed += one.closed;
            connections.open += one.open;
            connections.half_open += one.half_open;
            events += its_events;
            bytes += its_bytes;
            records += spool.records;
            oldest = if spool.oldest > 0 { oldest.min(spool.oldest) } else { oldest };
        }
        let [commands, writes, connects, reconnects, failures] = counts.counts();
        let (trips, trips_sum) = counts.round_trips();
        let [written, replayed, rejected, damaged, failed, spool_bytes] = counts.spool();
        let spool = max_spool.map(|max_bytes| SpoolReading {
            bytes: spool_bytes,
            max_bytes,
            records,
            oldest: unix_ms.saturating_sub(oldest),
            written,
            replayed,
            rejected,
            damaged,
            failed,
        });
        RedisReading {
            name,
            server,
            connections,
            pending_events: events,
            pending_bytes: bytes,
            max_events,
            max_bytes,
            commands,
            writes,
            connects,
            reconnects,
            failures,
            trips,
            trips_sum,
            spool,
        }
    }
}

impl Connections {
    /// Neither failed nor on trial.
    pub fn sound(&self) -> u64 {
        (self.ready + self.connecting + self.closed).saturating_sub(self.open + self.half_open)
    }
}
