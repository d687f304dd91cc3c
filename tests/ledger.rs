//! What the answers promised is in Redis, whatever happens to Redis, to the network and to nginx meanwhile: each trouble by itself, and
//! all of them at random. [`variants`] are the configurations that it is asked of.

mod common;
#[path = "ledger/mix.rs"]
mod mix;
#[path = "ledger/network.rs"]
mod network;
#[path = "ledger/nginx.rs"]
mod of_nginx;
#[path = "ledger/redis.rs"]
mod of_redis;
#[path = "ledger/scene.rs"]
mod scene;

use common::ledger::Promise;
use common::*;
use scene::{Scene, Variant, variants};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);
