//! A ledger: clients send numbered events on keep-alive connections and write down what each was answered; afterwards what is in Redis
//! is compared with what the answers promised.
//!
//! What they promise is a parameter ([`Promise`]), so that a location that answers otherwise is only another configuration.

mod audit;
mod clients;
mod losses;

pub use audit::{Counts, audit};
pub use clients::{Book, Ledger, Traffic};
pub use losses::{Ends, Lost};

use super::random::Random;
use std::fmt::Write;
use std::ops::RangeInclusive;
use std::time::SystemTime;

/// How often an event may be in Redis, by what its client was told, and whether order is kept.
#[derive(Clone)]
pub struct Promise {
    statuses: Vec<(RangeInclusive<u16>, RangeInclusive<usize>)>,
    unanswered: RangeInclusive<usize>,
    in_order: bool,
    /// How many events that it has promised a worker takes with it at most when it is killed.
    held: usize,
    /// Whether a worker that ends may say how many of them are lost.
    may_tell: bool,
}

impl Promise {
    /// `meteorit_ack stored`: a 2xx is there once, a 503 and an error of the client's are not, whatever is unclear is there once or not,
    /// for nothing is sent twice.
    pub fn stored() -> Promise {
        Promise { statuses: Vec::new(), unanswered: 0..=1, in_order: true, held: 0, may_tell: false }
            .with(200..=204, 1..=1)
            .with(400..=499, 0..=0)
            .with(502..=503, 0..=0)
            .with(504..=504, 0..=1)
    }

    /// `meteorit_ack queued`: a 202 is there, perhaps several times, for what was sent and not answered is sent again; but for the last
    /// ones of a worker that is killed, at most `held`.
    pub fn queued(held: usize) -> Promise {
        Promise { held, ..Promise::stored() }
            .with(202..=202, 1..=usize::MAX)
            .with(504..=504, 0..=usize::MAX)
            .with_unanswered(0..=usize::MAX)
    }

    /// `meteorit_ack stored` with a spool: a 202 is there, perhaps several times, for a replay that is cut off is repeated; so it may be
    /// with what was written to the spool as its client lost its connection.
    pub fn spooled() -> Promise {
        Promise::stored().with(202..=202, 1..=usize::MAX).with_unanswered(0..=usize::MAX)
    }

    /// An event with one of these statuses is there so many times; goes before what was said of them earlier.
    pub fn with(mut self, statuses: RangeInclusive<u16>, copies: RangeInclusive<usize>) -> Promise {
        self.statuses.insert(0, (statuses, copies));
        self
    }

    /// An event whose answer never came is there so many times.
    pub fn with_unanswered(mut self, copies: RangeInclusive<usize>) -> Promise {
        self.unanswered = copies;
        self
    }

    /// Events of one connection may be stored in another order than they were sent.
    pub fn in_any_order(mut self) -> Promise {
        self.in_order = false;
        self
    }

    /// A worker that ends before Redis has taken what it holds says how many events are lost, and they are.
    pub fn unless_told(mut self) -> Promise {
        self.may_tell = true;
        self
    }

    /// `None`: no such answer can come.
    fn copies(&self, answer: &Answer) -> Option<&RangeInclusive<usize>> {
        match answer {
            Answer::Status(status) => {
                self.statuses.iter().find(|(known, _)| known.contains(status)).map(|(_, copies)| copies)
            }
            Answer::Cut | Answer::Left => Some(&self.unanswered),
            Answer::Hung => None,
        }
    }
}

/// What a client was told of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    Status(u16),
    /// The connection ended before the answer.
    Cut,
    /// The client itself went away.
    Left,
    /// Nothing came for longer than anything may take.
    Hung,
}

impl Answer {
    /// A 2xx.
    fn is_promise(self) -> bool {
        matches!(self, Answer::Status(200..300))
    }
}

/// An event that was sent, wholly or in part.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub id: u64,
    /// Its client's connection: the same number for events of one order.
    pub connection: u64,
    pub answer: Answer,
    /// The process that answered, where it says so in the header `Worker`.
    pub worker: Option<i32>,
    /// When the client knew.
    pub at: SystemTime,
}

/// The event with this number, the same each time: small mostly, large at times, with texts that need escapes and ones that are no ASCII.
pub fn event(id: u64) -> Vec<u8> {
    let mut random = Random(id);
    let size = match random.below(50) {
        0 => random.below(40_000),
        _ => random.below(200),
    };
    let mut text = format!(r#"{{"id":{id},"text":""#);
    const PIECES: [&str; 8] = ["abc", "\\n", "\\\"", "\\u00e9", "ü", "€", "😀", "\\\\r\\\\n*1"];
    while text.len() < size {
        text.push_str(PIECES[random.below(PIECES.len())]);
    }
    write!(text, r#"","sum":{}}}"#, random.next()).expect("a string takes anything");
    text.into_bytes()
}

/// The number of an event that is in Redis, if it is one of ours, byte for byte.
fn id_of(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.strip_prefix(br#"{"id":"#)?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    let id = std::str::from_utf8(&digits[..end]).ok()?.parse().ok()?;
    (event(id) == bytes).then_some(id)
}
