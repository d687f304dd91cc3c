//! What the words of a block mean: the counts of a location, those of a Redis, and what a worker has at the moment.

use super::table::{Block, FIRST, Key, Kind, Table};
use crate::response::{Cause, Fate, Lack, Tally, Why};

const FATES: usize = Fate::ALL.len();
const CAUSES: usize = Cause::ALL.len();
const LACKS: usize = Lack::ALL.len();

/// The counts of a location. A request of one event is counted by one word, as both.
#[derive(Clone, Copy)]
pub struct Location(Block);

// What every request adds to is in the block's first 64 bytes.
const BYTES_IN: usize = FIRST;
const SINGLE: usize = BYTES_IN + 1;
const BATCH: usize = SINGLE + FATES;
const BATCH_EVENTS: usize = BATCH + FATES;
const REJECTED: usize = BATCH_EVENTS + FATES;
const UNAVAILABLE: usize = REJECTED + CAUSES;
const SCHEMA_DRY_RUN: usize = UNAVAILABLE + LACKS;
const GONE: usize = SCHEMA_DRY_RUN + 1;
const BATCHES: usize = GONE + 1;

impl Location {
    pub fn nowhere() -> Location {
        Location(Block::nowhere())
    }

    pub fn key(server: &str, location: &str, redis: &str) -> Key {
        Key::of(&["location", server, location, redis])
    }

    /// The block of a location; None when the table has no room.
    pub fn find(table: &Table, key: Key) -> Option<Location> {
        table.find_or_take(Kind::Location, key).map(Location)
    }

    /// A body, or a query string, of so many bytes was read.
    pub fn read(self, bytes: usize) {
        self.0.add(BYTES_IN, bytes as u64);
    }

    /// A request of one event is answered.
    pub fn event(self, fate: Fate, why: Why) {
        self.0.add(SINGLE + fate as usize, 1);
        self.why(why, fate, 1);
    }

    /// A request is answered whose events are counted by themselves.
    pub fn batch(self, fate: Fate, events: &Tally) {
        self.0.add(BATCH + fate as usize, 1);
        self.0.add(BATCHES, 1);
        self.events(events);
    }

    /// The client of a request that waited for Redis has gone, and this became of its events.
    pub fn gone(self, events: &Tally) {
        self.0.add(GONE, 1);
        self.events(events);
    }

    /// An event does not fit its schema, and is taken.
    pub fn schema_dry_run(self) {
        self.0.add(SCHEMA_DRY_RUN, 1);
    }

    fn events(self, events: &Tally) {
        let Tally { fates, causes, lacks } = events;
        for (counts, first) in [(&fates[..], BATCH_EVENTS), (causes, REJECTED), (lacks, UNAVAILABLE)] {
            for (count, word) in counts.iter().zip(first..).filter(|(count, _)| **count > 0) {
                self.0.add(word, u64::from(*count));
            }
        }
    }

    fn why(self, why: Why, fate: Fate, count: u64) {
        match (fate, why) {
            (Fate::Rejected, Why::Rejected(cause)) => self.0.add(REJECTED + cause as usize, count),
            (Fate::Unavailable, Why::Unavailable(lack)) => self.0.add(UNAVAILABLE + lack as usize, count),
            _ => {}
        }
    }

    pub fn requests(self, fate: Fate) -> u64 {
        self.0.get(SINGLE + fate as usize) + self.0.get(BATCH + fate as usize)
    }

    pub fn event_count(self, fate: Fate) -> u64 {
        self.0.get(SINGLE + fate as usize) + self.0.get(BATCH_EVENTS + fate as usize)
    }

    pub fn rejected(self, cause: Cause) -> u64 {
        self.0.get(REJECTED + cause as usize)
    }

    pub fn unavailable(self, lack: Lack) -> u64 {
        self.0.get(UNAVAILABLE + lack as usize)
    }

    /// Bytes in, batches, events taken though they do not fit their schema, clients gone.
    pub fn others(self) -> [u64; 4] {
        [BYTES_IN, BATCHES, SCHEMA_DRY_RUN, GONE].map(|word| self.0.get(word))
    }
}

/// The counts of a Redis.
#[derive(Clone, Copy)]
pub struct Redis(Block);

const COMMANDS: usize = FIRST;
const WRITES: usize = COMMANDS + 1;
/// In nanoseconds.
const TRIPS_SUM: usize = WRITES + 1;
const TRIPS: usize = TRIPS_SUM + 1;
const CONNECTS: usize = TRIPS + BUCKETS.len() + 1;
const RECONNECTS: usize = CONNECTS + 1;
const FAILURES: usize = RECONNECTS + 1;
const SPOOL: usize = FAILURES + 1;
const SPOOL_BYTES: usize = SPOOL + 5;

/// The upper ends of the buckets of round trips, in microseconds, and as one writes them in seconds.
pub const BUCKETS: [(u64, &str); 15] = [
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
];

impl Redis {
    pub fn nowhere() -> Redis {
        Redis(Block::nowhere())
    }

    pub fn key(name: &str) -> Key {
        Key::of(&["redis", name])
    }

    pub fn find(table: &Table, key: Key) -> Option<Redis> {
        table.find_or_take(Kind::Redis, key).map(Redis)
    }

    /// So many commands went out whole by one write.
    pub fn wrote(self, commands: usize) {
        self.0.add(COMMANDS, commands as u64);
        self.0.add(WRITES, 1);
    }

    /// The reply to the last command of a write has come after so many nanoseconds.
    pub fn round_trip(self, nanoseconds: u64) {
        let bucket = BUCKETS.iter().position(|(end, _)| nanoseconds <= end * 1000).unwrap_or(BUCKETS.len());
        self.0.add(TRIPS + bucket, 1);
        self.0.add(TRIPS_SUM, nanoseconds);
    }

    pub fn connected(self, again: bool) {
        self.0.add(CONNECTS, 1);
        self.0.add(RECONNECTS, again.into());
    }

    /// A connection was lost, or could not be made.
    pub fn failed(self) {
        self.0.add(FAILURES, 1);
    }

    pub fn spool_wrote(self, records: u64) {
        self.0.add(SPOOL, records);
    }

    pub fn spool_replayed(self, records: u64) {
        self.0.add(SPOOL + 1, records);
    }

    pub fn spool_rejected(self, commands: u64) {
        self.0.add(SPOOL + 2, commands);
    }

    pub fn spool_damaged(self, places: u64) {
        self.0.add(SPOOL + 3, places);
    }

    /// Events that clients were told of to come again with.
    pub fn spool_failed(self, events: u64) {
        self.0.add(SPOOL + 4, events);
    }

    /// What the folder holds, as the worker that looked last saw it.
    pub fn set_spool_bytes(self, bytes: u64) {
        self.0.set(SPOOL_BYTES, bytes);
    }

    /// Commands, writes, connects, reconnects, failures.
    pub fn counts(self) -> [u64; 5] {
        [COMMANDS, WRITES, CONNECTS, RECONNECTS, FAILURES].map(|word| self.0.get(word))
    }

    /// Round trips by bucket, the last for all above, and the sum in nanoseconds.
    pub fn round_trips(self) -> ([u64; BUCKETS.len() + 1], u64) {
        (std::array::from_fn(|bucket| self.0.get(TRIPS + bucket)), self.0.get(TRIPS_SUM))
    }

    /// Written, replayed, rejected, damaged, failed, and the bytes of the folder.
    pub fn spool(self) -> [u64; 6] {
        std::array::from_fn(|word| self.0.get(SPOOL + word))
    }
}

/// What a worker has of one Redis at the moment.
#[derive(Clone, Copy)]
pub struct Gauges(Block);

/// Behind the word of the process.
const READY: usize = FIRST + 1;

/// A worker's connections to one Redis, by state, and by what is thought of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    pub ready: u64,
    pub connecting: u64,
    pub closed: u64,
    /// Failed, and to be tried again later.
    pub open: u64,
    /// Being tried after a failure.
    pub half_open: u64,
}

/// What a worker has in the spool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolState {
    /// That wait to be replayed.
    pub records: u64,
    /// When the first of them was written, in milliseconds since 1970; 0 for none.
    pub oldest: u64,
}

impl Gauges {
    pub fn nowhere() -> Gauges {
        Gauges(Block::nowhere())
    }

    pub fn take(table: &Table, pid: u32, redis: Key) -> Option<Gauges> {
        table.take_for(pid, Kind::Gauges, redis).map(Gauges)
    }

    /// Those of each worker that lives.
    pub fn of(table: &Table, redis: Key, lives: impl Fn(u32) -> bool) -> impl Iterator<Item = Gauges> {
        let is_of = move |block: &Block| block.is_of(redis) && lives(block.owner());
        table.all(Kind::Gauges).filter(is_of).map(Gauges)
    }

    pub fn set(self, connections: Connections, events: usize, bytes: usize) {
        let Connections { ready, connecting, closed, open, half_open } = connections;
        let values = [ready, connecting, closed, open, half_open, events as u64, bytes as u64];
        (READY..).zip(values).for_each(|(word, value)| self.0.set(word, value));
    }

    pub fn set_spool(self, spool: SpoolState) {
        self.0.set(READY + 7, spool.records);
        self.0.set(READY + 8, spool.oldest);
    }

    /// The connections, pending events and bytes, and the spool.
    pub fn get(self) -> (Connections, [u64; 2], SpoolState) {
        let [ready, connecting, closed, open, half_open, events, bytes, records, oldest] =
            std::array::from_fn(|at| self.0.get(READY + at));
        let connections = Connections { ready, connecting, closed, open, half_open };
        (connections, [events, bytes], SpoolState { records, oldest })
    }
}

/// A worker.
#[derive(Clone, Copy)]
pub struct Worker(Block);

impl Worker {
    /// Tells of a worker that begins, with nginx's number of it and the number of its configuration.
    pub fn begin(table: &Table, pid: u32, slot: u64, configuration: u64, unix_ms: u64) {
        if let Some(block) = table.take_for(pid, Kind::Worker, Key::numbers(slot, configuration)) {
            block.set(READY, unix_ms);
        }
    }

    pub fn all(table: &Table) -> impl Iterator<Item = Worker> {
        table.all(Kind::Worker).map(Worker)
    }

    pub fn pid(self) -> u32 {
        self.0.owner()
    }

    /// nginx's number of it, and the number of its configuration.
    pub fn slot(self) -> [u64; 2] {
        self.0.key()
    }

    /// In milliseconds since 1970.
    pub fn started(self) -> u64 {
        self.0.get(READY)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::WORDS;
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::time::Instant;

    fn table() -> Table {
        let memory = Box::leak((0..64 * WORDS).map(|_| AtomicU64::new(0)).collect());
        Table::over(memory, 1000).unwrap()
    }

    #[test]
    fn everything_fits_into_a_block() {
        assert!([BATCHES, SPOOL_BYTES, READY + 8].into_iter().all(|last| last < WORDS));
        assert!(SINGLE + (Fate::Spooled as usize) < 8, "the first 64 bytes");
    }

    #[test]
    fn a_request_of_one_event_counts_as_both() {
        let location = Location::find(&table(), Location::key("s", "/", "r")).unwrap();
        location.event(Fate::Stored, Why::Else);
        location.event(Fate::Rejected, Why::Rejected(Cause::NotJson));
        let mut events = Tally::default();
        events.add(Fate::Stored, Why::Else, 7);
        events.add(Fate::Unavailable, Why::Unavailable(Lack::Redis), 2);
        location.batch(Fate::Timeout, &events);
        location.gone(&events);
        let requests = [Fate::Stored, Fate::Rejected, Fate::Timeout, Fate::Unavailable].map(|it| location.requests(it));
        let counts =
            [Fate::Stored, Fate::Rejected, Fate::Timeout, Fate::Unavailable].map(|it| location.event_count(it));
        assert_eq!((requests, counts), ([1, 1, 1, 0], [15, 1, 0, 4]));
        assert_eq!((location.rejected(Cause::NotJson), location.unavailable(Lack::Redis)), (1, 4));
        assert_eq!(location.others(), [0, 1, 0, 1]);
    }

    #[test]
    fn a_round_trip_goes_into_the_first_bucket_that_holds_it() {
        let redis = Redis::find(&table(), Redis::key("r")).unwrap();
        [0, 100_000, 100_001, 5_000_000_000, 5_000_000_001].into_iter().for_each(|time| redis.round_trip(time));
        let (counts, sum) = redis.round_trips();
        assert_eq!((counts[0], counts[1], counts[14], counts[15]), (2, 1, 1, 1));
        assert_eq!(sum, 10_000_200_002);
    }

    /// By hand: `cargo test --release --no-default-features --lib metrics -- --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn what_counting_an_event_costs() {
        let table = table();
        let location = Location::find(&table, Location::key("s", "/", "r")).unwrap();
        let redis = Redis::find(&table, Redis::key("r")).unwrap();
        let gauges = Gauges::take(&table, 1, Redis::key("r")).unwrap();
        const EVENTS: u32 = 20_000_000;
        let start = Instant::now();
        for event in 0..EVENTS {
            location.read(std::hint::black_box(300));
            location.event(std::hint::black_box(Fate::Stored), std::hint::black_box(Why::Else));
            redis.wrote(std::hint::black_box(1));
            gauges.set(std::hint::black_box(Connections::default()), event as usize, event as usize);
        }
        let each = start.elapsed() / EVENTS;
        println!("{each:?} an event, each with a write of its own");
    }
}
