//! The variables that this module gives to the configuration, and what they are made of.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use crate::current;
use crate::event::{Kind, Value};
use crate::id::{Id, Ids};
use crate::ngx::{Msec, OutOfMemory, Request, random_seed, unix_ms};
use crate::response::Fate;

/// What is known of a request when it is logged.
#[derive(Default)]
pub struct Note {
    pub fate: Cell<Option<Fate>>,
    /// How many events were accepted, and how many are rejected: at fault themselves, or refused by Redis for good.
    pub events: Cell<Option<[u32; 2]>>,
    /// Of a batch that is refused as a whole, how many events were found in it.
    pub found: Cell<u32>,
    /// How many commands were made of the request.
    pub commands: Cell<Option<usize>>,
    /// From queued to answered, in milliseconds.
    pub redis_time: Cell<Option<Msec>>,
    /// The event's id is being made, and what it is made of asks for it.
    making_id: Cell<bool>,
    /// When the body had been read, in milliseconds since 1970.
    pub received: Cell<Option<u64>>,
}

/// A variable's text; None when it has none, which the access log shows as `-`.
type Text<'r> = Result<Option<&'r [u8]>, OutOfMemory>;

type Get = for<'r> fn(&Request<'r>) -> Text<'r>;

/// By name, without the dollar sign.
pub const VARIABLES: [(&str, Get); 10] = [
    ("event", event),
    ("meteorit_accepted", accepted),
    ("meteorit_commands", commands),
    ("meteorit_error", error),
    ("meteorit_id", id),
    ("meteorit_masked_addr", masked_addr),
    ("meteorit_received", received),
    ("meteorit_redis_time", redis_time),
    ("meteorit_rejected", rejected),
    ("meteorit_status", status),
];

/// What the names of members of the event begin with.
pub const MEMBER_PREFIX: &str = "event_";

/// The event's text; empty before the body is read.
fn event<'r>(request: &Request<'r>) -> Text<'r> {
    Ok(Some(request.event().map_or(&[], |(text, _)| text)))
}

/// A member of the event by the part of the variable's name after the prefix, which nginx has made lower case: an exact
/// match first, else one that ignores ASCII case.
pub fn member<'r>(request: &Request<'r>, name: &[u8]) -> Text<'r> {
    let text = current::read(request, |event| {
        let found = event.member(name).or_else(|| {
            let mut members = event.root().members();
            members.find(|(member, _)| member.is_ignoring_ascii_case(name)).map(|(_, value)| value)
        });
        text_of(request, found)
    });
    text.unwrap_or(Ok(Some(&[])))
}

/// A string's text, another value's JSON; empty for null and for what is not there.
pub fn text_of<'r>(request: &Request<'r>, value: Option<Value>) -> Text<'r> {
    let text = match value {
        None => return Ok(Some(&[])),
        Some(value) if value.kind() == Kind::Null => return Ok(Some(&[])),
        Some(value) => value.string().unwrap_or(Cow::Borrowed(value.text())),
    };
    request.keep(&text).map(Some)
}

/// A variable that `meteorit_set` and its kin define, as the request's location has it; empty where it has none.
pub fn defined<'r>(request: &Request<'r>, index: usize) -> Text<'r> {
    match request.location().definition(index) {
        Some(definition) => definition.text(request),
        None => Ok(Some(&[])),
    }
}

/// The event's id, made when it is first asked for: a UUIDv7, or what `meteorit_event_id` says.
pub fn id<'r>(request: &Request<'r>) -> Text<'r> {
    if request.event().is_none() {
        return Ok(None);
    }
    if request.id().is_empty() {
        let Some(note) = request.note().filter(|note| !note.making_id.get()) else { return Ok(Some(&[])) };
        note.making_id.set(true);
        let own = request.location().event_id().map_or(Ok(&[][..]), |value| request.evaluate(value));
        note.making_id.set(false);
        let own = own?;
        request.set_id(if own.is_empty() { new_id(request)? } else { own });
    }
    Ok(Some(request.id()))
}

fn new_id<'r>(request: &Request<'r>) -> Result<&'r [u8], OutOfMemory> {
    request.keep(unique_id().as_bytes())
}

/// An id that nothing else has.
pub fn unique_id() -> Id {
    thread_local! {
        /// Seeded by the first event of a worker: after the fork, so that no two workers make the same ids.
        static IDS: RefCell<Ids> = RefCell::new(Ids::new(random_seed()));
    }
    IDS.with_borrow_mut(|ids| ids.next(unix_ms()))
}

/// What is wrong with the event, as one JSON object; none while nothing is.
fn error<'r>(request: &Request<'r>) -> Text<'r> {
    Ok(Some(request.error()).filter(|error| !error.is_empty()))
}

fn received<'r>(request: &Request<'r>) -> Text<'r> {
    let Some(time) = request.note().and_then(|note| note.received.get()) else { return Ok(None) };
    request.keep(time.to_string().as_bytes()).map(Some)
}

/// The client's address without what tells one household from its neighbours: the first 24 bits of an IPv4 address, the
/// first 48 of an IPv6 address.
fn masked_addr<'r>(request: &Request<'r>) -> Text<'r> {
    let masked = match request.remote_addr().map(|address| address.to_canonical()) {
        None => return Ok(Some(&[])),
        Some(IpAddr::V4(address)) => IpAddr::from((u32::from(address) & !0 << 8).to_be_bytes()),
        Some(IpAddr::V6(address)) => IpAddr::from((u128::from(address) & !0 << 80).to_be_bytes()),
    };
    request.keep(masked.to_string().as_bytes()).map(Some)
}

fn status<'r>(request: &Request<'r>) -> Text<'r> {
    Ok(request.note().and_then(|note| note.fate.get()).map(|fate| fate.name().as_bytes()))
}

fn accepted<'r>(request: &Request<'r>) -> Text<'r> {
    number(request, |note| note.events.get().map(|[accepted, _]| accepted as usize))
}

fn rejected<'r>(request: &Request<'r>) -> Text<'r> {
    number(request, |note| note.events.get().map(|[_, rejected]| rejected as usize))
}

fn commands<'r>(request: &Request<'r>) -> Text<'r> {
    number(request, |note| note.commands.get())
}

fn number<'r>(request: &Request<'r>, of: impl FnOnce(&Note) -> Option<usize>) -> Text<'r> {
    let Some(number) = request.note().and_then(of) else { return Ok(None) };
    request.keep(number.to_string().as_bytes()).map(Some)
}

/// In seconds with milliseconds, as `$upstream_response_time`.
fn redis_time<'r>(request: &Request<'r>) -> Text<'r> {
    let Some(time) = request.note().and_then(|note| note.redis_time.get()) else { return Ok(None) };
    request.keep(format!("{}.{:03}", time / 1000, time % 1000).as_bytes()).map(Some)
}
