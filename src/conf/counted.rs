//! What is counted under which names: the places of locations and Redises in the shared memory, and what stands there.

use std::cell::Cell;
use std::rc::Rc;

use super::words::duplicate;
use super::{Location, Main};
use crate::metrics::{self, Gauges, LocationReading, Meta, Reading, RedisMeta, RedisReading, Table, Worker};
use crate::ngx::{self, Conf, parse_size};

/// `meteorit_zone`, where it is not given: its name, and its size in bytes. Room for 1500 locations.
const DEFAULT: (&str, usize) = ("meteorit", 1 << 20);

/// Under which the events of locations are counted for which the zone has no room: the server, the location, the Redis.
const OTHER: [&str; 3] = ["other"; 3];

/// The names of a location, and its counters. Locations that are called the same share them.
pub struct Counted {
    server: String,
    location: String,
    redis: String,
    counters: Cell<metrics::Location>,
    /// Whether the zone has no room for it.
    is_other: Cell<bool>,
}

/// What a configuration has of the shared memory.
#[derive(Default)]
pub struct Shared {
    /// Whether nginx was asked for a zone.
    pub is_asked: bool,
    /// In the order of the configuration.
    counted: Vec<Rc<Counted>>,
    table: Cell<Option<Table>>,
    /// The number of this configuration.
    number: Cell<u64>,
}

impl Counted {
    pub fn counters(&self) -> metrics::Location {
        self.counters.get()
    }
}

/// `meteorit_zone NAME SIZE`
pub fn zone(conf: &mut Conf, main: &mut Main, _: &mut Location) -> Result<(), String> {
    if main.shared.is_asked {
        return Err(duplicate("meteorit_zone"));
    }
    let words = conf.words();
    let word = |index: usize| words.get(index).map(|word| String::from_utf8_lossy(word)).unwrap_or_default();
    let size = parse_size(word(2).as_bytes());
    let size = size.ok_or_else(|| format!("invalid size \"{}\" in \"meteorit_zone\" directive", word(2)))?;
    main.shared.is_asked = true;
    conf.zone(&word(1), size, main)
}

impl Main {
    /// Everything has been read.
    pub fn finish(&mut self, conf: &mut Conf) -> Result<(), String> {
        if self.shared.is_asked || self.redis.is_empty() {
            return Ok(());
        }
        let (name, size) = DEFAULT;
        conf.zone(name, size, self)
    }

    /// What a location of these names counts in.
    pub fn count(&mut self, server: &str, location: &str, redis: &str) -> Rc<Counted> {
        let same = |it: &&Rc<Counted>| it.server == server && it.location == location && it.redis == redis;
        if let Some(counted) = self.shared.counted.iter().find(same) {
            return counted.clone();
        }
        let counted = Rc::new(Counted {
            server: server.into(),
            location: location.into(),
            redis: redis.into(),
            counters: Cell::new(metrics::Location::nowhere()),
            is_other: Cell::new(false),
        });
        self.shared.counted.push(counted.clone());
        counted
    }

    /// The shared memory is there: finds the places of all that is counted. `warn` writes to the log.
    pub fn attach(&self, table: Table, warn: &mut dyn FnMut(&str)) {
        self.shared.number.set(table.next_configuration());
        self.shared.table.set(Some(table));
        let [server, location, redis] = OTHER;
        let other = metrics::Location::find(&table, metrics::Location::key(server, location, redis));
        let (mut redises, mut locations) = (0, 0);
        for redis in &self.redis {
            let found = metrics::Redis::find(&table, metrics::Redis::key(&redis.settings.label));
            redises += usize::from(found.is_none());
            redis.counters.set(found);
        }
        for counted in &self.shared.counted {
            let Counted { server, location, redis, counters, is_other } = &**counted;
            let found = metrics::Location::find(&table, metrics::Location::key(server, location, redis));
            locations += usize::from(found.is_none());
            is_other.set(found.is_none());
            counters.set(found.or(other).unwrap_or(metrics::Location::nowhere()));
        }
        let left = [
            (locations, format!("locations counted as \"{server}\" only: {locations}")),
            (redises, format!("Redises not counted: {redises}")),
        ];
        let left: Vec<String> = left.into_iter().filter(|(count, _)| *count > 0).map(|(_, text)| text).collect();
        if !left.is_empty() {
            warn(&format!("\"meteorit_zone\" is full, give it a larger size; {}", left.join(", ")));
        }
    }

    /// A worker begins.
    pub fn begin_counting(&self) {
        let Some(table) = self.shared.table.get() else { return };
        table.clear_dead(ngx::lives);
        let pid = ngx::pid();
        Worker::begin(&table, pid, ngx::worker(), self.shared.number.get(), ngx::unix_ms());
        for redis in &self.redis {
            let gauges = Gauges::take(&table, pid, metrics::Redis::key(&redis.settings.label));
            redis.gauges.set(gauges.unwrap_or(Gauges::nowhere()));
        }
    }

    /// A worker ends.
    pub fn end_counting(&self) {
        if let Some(table) = self.shared.table.get() {
            table.clear_own(ngx::pid());
        }
    }

    /// What has been counted, and what the workers have; None where nothing is.
    pub fn reading(&self) -> Option<Reading<'_>> {
        let table = self.shared.table.get()?;
        let unix_ms = ngx::unix_ms();
        let mut reading = Reading::new(&table, Meta { nginx: ngx::version(), unix_ms }, ngx::lives);
        let counted = self.shared.counted.iter().filter(|it| !it.is_other.get());
        reading.locations =
            counted.map(|it| LocationReading::new(&it.server, &it.location, &it.redis, it.counters())).collect();
        if let Some(other) = self.shared.counted.iter().find(|it| it.is_other.get()) {
            let [server, location, redis] = OTHER;
            reading.locations.push(LocationReading::new(server, location, redis, other.counters()));
        }
        let counted = self.redis.iter().filter_map(|redis| Some((&redis.settings, redis.counters.get()?)));
        reading.redis = counted
            .map(|(settings, counters)| {
                let meta = RedisMeta {
                    name: &settings.label,
                    server: settings.addresses.first().map_or("", |address| address.text()),
                    max_events: settings.max_pending.into(),
                    max_bytes: settings.backlog as u64,
                    max_spool: settings.spool.as_ref().map(|spool| spool.max_size),
                };
                RedisReading::new(&table, meta, counters, unix_ms, ngx::lives)
            })
            .collect();
        Some(reading)
    }
}
