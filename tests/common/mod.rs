//! What every integration test stands on: a real nginx, a real redis-server, a scripted one, an HTTP client that can misbehave, and load.
//! Each of them lives in its own temporary directory on its own ports, so tests run side by side, and ends with the value that holds it.

// Every file in tests/ is a crate of its own and uses a part of this.
#![allow(dead_code, unused_imports)]

mod browser;
mod conf;
mod curl;
mod fake_redis;
mod http;
mod installed;
pub mod ledger;
mod load;
mod message;
mod nginx;
mod port;
mod process;
mod proxy;
mod random;
mod redis;
mod resp;
mod site;
mod spool;
mod system;

pub use browser::Browser;
pub use conf::{ConfigTest, NginxBuilder};
pub use curl::{CurlOutput, curl};
pub use fake_redis::{Action, FakeRedis, FakeRedisBuilder, Held, Received};
pub use http::{Http, get, post};
pub use installed::{binary, built_with, module};
pub use load::{Load, Sent, Until, load};
pub use message::{Request, Response};
pub use nginx::Nginx;
pub use port::Port;
pub use process::{cpu_time, is_running, open_fds, rss_kb, spawn, title};
pub use proxy::{Loses, Proxy};
pub use random::Random;
pub use redis::{Redis, RedisBuilder};
pub use site::Site;
pub use spool::{spool_tool, spooled};
pub use system::{kill, set_backlog};

use std::time::{Duration, Instant};

/// How often a condition is looked at again.
const STEP: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; false when it still does not after `timeout`.
pub fn within(timeout: Duration, mut condition: impl FnMut() -> bool) -> bool {
    wait_for(timeout, || condition().then_some(())).is_some()
}

/// Waits for a value; `None` when there is none after `timeout`.
pub fn wait_for<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = look() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(STEP);
    }
}

/// Like [`within`], but a condition that never comes true fails the test, at the caller's line.
#[track_caller]
pub fn eventually(timeout: Duration, condition: impl FnMut() -> bool) {
    assert!(within(timeout, condition), "the condition did not come true within {timeout:?}");
}

/// The last `count` lines, for failure messages.
fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
