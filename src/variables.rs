//! The variables that this module gives to the configuration, and what they are made of.

use std::cell::Cell;

use crate::ngx::{Msec, OutOfMemory, Request};
use crate::response::Fate;

/// What is known of a request when it is logged.
#[derive(Default)]
pub struct Note {
    pub fate: Cell<Option<Fate>>,
    /// From queued to answered, in milliseconds.
    pub redis_time: Cell<Option<Msec>>,
}

/// A variable's text; None when it has none, which the access log shows as `-`.
type Get = for<'r> fn(&Request<'r>) -> Result<Option<&'r [u8]>, OutOfMemory>;

/// By name, without the dollar sign.
pub const VARIABLES: [(&str, Get); 3] =
    [("event", event), ("meteorit_status", status), ("meteorit_redis_time", redis_time)];

/// The event as it was sent; empty before the body is read.
fn event<'r>(request: &Request<'r>) -> Result<Option<&'r [u8]>, OutOfMemory> {
    Ok(Some(request.event()))
}

fn status<'r>(request: &Request<'r>) -> Result<Option<&'r [u8]>, OutOfMemory> {
    Ok(request.note().and_then(|note| note.fate.get()).map(|fate| fate.name().as_bytes()))
}

/// In seconds with milliseconds, as `$upstream_response_time`.
fn redis_time<'r>(request: &Request<'r>) -> Result<Option<&'r [u8]>, OutOfMemory> {
    let Some(time) = request.note().and_then(|note| note.redis_time.get()) else { return Ok(None) };
    let text = format!("{}.{:03}", time / 1000, time % 1000);
    let bytes = request.allocate(text.len())?;
    bytes.copy_from_slice(text.as_bytes());
    Ok(Some(bytes))
}
