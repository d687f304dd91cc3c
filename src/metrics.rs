//! Metrics: what each step counted, for all workers together, in shared memory.
//!
//! A [`Table`] of blocks takes any memory of words that processes share; [`Location`], [`Redis`] and [`Gauges`] say what the
//! words of a block mean; a [`Reading`] is what stood there at one time, as [`json`] or as text for [`prometheus`]. Nothing
//! here knows nginx, and nothing blocks.

mod accept;
mod counters;
pub mod json;
pub mod prometheus;
mod reading;
mod table;

pub use accept::{Form, choose};
pub use counters::{BUCKETS, Connections, Gauges, Location, Redis, SpoolState, Worker};
pub use reading::{LocationReading, Meta, Reading, RedisMeta, RedisReading, SpoolReading, WorkerReading};
pub use table::{Block, Key, Kind, Table};
