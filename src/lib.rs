//! Meteorit: a location of nginx that takes events by HTTP and writes them to Redis.
//!
//! The way of an event, one module a step:
//!
//! ```text
//! client ─▶ request ─▶ body ─▶ event ─▶ command ─▶ pool ─▶ window ─▶ connection ─▶ Redis
//! client ◀─ response ◀──────── verdict ◀────────────────── reply ◀────────┘
//! ```
//!
//! `request` is the content handler: it has nginx read the body, of which `body` makes one slice (decoded by `inflate`, made
//! of a `form`, taken apart by `batch`, where that is called for); `event` validates it in one pass, `schema` asks for more;
//! `command` turns it into the bytes of Redis commands. `pool` finds room for all of them or refuses, and appends them to the
//! `window` of a `connection`, which sends what requests append, once loop iterations bring no more. `reply` frames
//! what comes back and gives a verdict on each command; what was promised and Redis does not take now is in the `hold`, or in
//! files of the `spool`, until it does; `response` makes of the verdicts the answer that the client gets,
//! exactly once.
//!
//! Everything that knows nginx is behind the feature `nginx`; the other steps build and test without it.
#![deny(unsafe_code)]

#[cfg(feature = "nginx")]
mod request;

#[cfg(feature = "nginx")]
mod body;

pub mod inflate;

pub mod form;

pub mod batch;

pub mod event;

#[cfg(feature = "schema")]
pub mod schema;

pub mod command;

#[cfg(feature = "nginx")]
mod pool;

pub mod hold;

pub mod spool;

pub mod window;

#[cfg(feature = "nginx")]
mod connection;

pub mod reply;

pub mod response;

// Around the line.

pub mod backoff;

#[cfg(feature = "nginx")]
mod conf;

pub mod cors;

#[cfg(feature = "nginx")]
mod current;

pub mod id;

pub mod metrics;

pub mod selftest;

#[cfg(feature = "nginx")]
mod status;

pub mod url;

#[cfg(feature = "nginx")]
mod variables;

#[cfg(feature = "nginx")]
mod module;

#[cfg(feature = "nginx")]
#[allow(unsafe_code)]
mod ngx;
