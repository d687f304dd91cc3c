//! The unconsumed bytes of the receive buffer come in, the first whole reply goes out.
//!
//! Resumable: of what was scanned before, only the type and length of the value under way are read again. Never
//! recurses, and holds at most [`MAX_DEPTH`] small entries, whatever Redis sends.

use memchr::memchr2;
use thiserror::Error;

use super::{Kind, Reply};

/// Bytes of one reply, attributes included. What we send asks for far less.
pub const MAX_REPLY: usize = 1024 * 1024;
/// Arrays, maps, sets, pushes and attributes open at the same time.
pub const MAX_DEPTH: usize = 32;
/// Bytes of one line, without its type and its end.
pub const MAX_LINE: usize = 64 * 1024;

/// `+\r\n`
const SHORTEST_VALUE: usize = 3;

/// Why what was received is no reply. What follows it in the buffer cannot be told apart: close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Broken {
    #[error("protocol error: unknown reply type 0x{0:02x}")]
    Type(u8),
    #[error("protocol error: line does not end with CRLF")]
    LineEnd,
    #[error("protocol error: bulk string does not end with CRLF")]
    BulkEnd,
    #[error("protocol error: invalid length")]
    Length,
    #[error("protocol error: streamed reply")]
    Streamed,
    #[error("protocol error: invalid value of type {0:?}")]
    Value(Kind),
    #[error("protocol error: push inside another reply")]
    NestedPush,
    #[error("reply is larger than {MAX_REPLY} bytes")]
    TooLarge,
    #[error("reply is nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("reply has a line of more than {MAX_LINE} bytes")]
    LineTooLong,
}

/// Where the reply under way stands; one for each connection, new with it.
#[derive(Debug, Default)]
pub struct Parser {
    /// Where the value under way starts: all before it is done with.
    at: usize,
    /// No line end before this, when it is beyond `at`.
    scanned: usize,
    /// The bulk string under way, its length line being read.
    bulk: Option<Bulk>,
    /// The aggregates that contain the value under way, outermost first.
    open: Vec<Open>,
    /// The type of the reply itself, as soon as what stands outside of all aggregates is known.
    kind: Option<Kind>,
}

#[derive(Debug, Clone, Copy)]
struct Bulk {
    kind: Kind,
    start: usize,
    len: usize,
}

#[derive(Debug)]
struct Open {
    /// Values still to come; never 0.
    left: usize,
    /// An attribute is no value of what contains it.
    attribute: bool,
}

/// What stands at `Parser::at`.
enum Part<'a> {
    /// A value without others inside, and its text.
    Value(Kind, &'a [u8]),
    /// The head of an aggregate with so many values.
    Open(Kind, usize),
}

impl Parser {
    pub fn new() -> Self {
        Self::default()
    }

    /// The reply at the start of `input`, or `None` when more has to arrive.
    ///
    /// `input` starts at the same reply until this has returned it; then the caller drops `Reply::len()` bytes. After
    /// an error the parser is of no more use. Costs a few ns for the usual `:1`, `+OK` and short bulk strings that
    /// arrive whole; the rest is linear in the bytes that arrived since the last call.
    #[inline]
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Result<Option<Reply<'a>>, Broken> {
        if self.at == 0
            && self.bulk.is_none()
            && self.open.is_empty()
            && let Some(reply) = short(input)
        {
            self.scanned = 0;
            return Ok(Some(reply));
        }
        self.frame(input)
    }

    #[inline(never)]
    fn frame<'a>(&mut self, input: &'a [u8]) -> Result<Option<Reply<'a>>, Broken> {
        loop {
            let Some(part) = self.part(input)? else {
                return Ok(None);
            };
            let (kind, text) = match part {
                Part::Value(kind, text) => (kind, text),
                Part::Open(kind, 0) => (kind, &b""[..]),
                Part::Open(kind, values) => {
                    if self.open.len() == MAX_DEPTH {
                        return Err(Broken::TooDeep);
                    }
                    self.note(kind);
                    self.open.push(Open { left: values, attribute: kind == Kind::Attribute });
                    continue;
                }
            };
            self.note(kind);
            if kind == Kind::Attribute || !self.complete() {
                continue;
            }
            let reply =
                Reply { bytes: input.get(..self.at).unwrap_or_default(), text, kind: self.kind.unwrap_or(kind) };
            self.at = 0;
            self.scanned = 0;
            return Ok(Some(reply));
        }
    }

    /// Remembers the reply's own type.
    fn note(&mut self, kind: Kind) {
        if self.open.is_empty() && kind != Kind::Attribute {
            self.kind = Some(kind);
        }
    }

    /// Counts a value that ended, and every aggregate that ends with it; whether the reply did.
    fn complete(&mut self) -> bool {
        while let Some(open) = self.open.last_mut() {
            open.left -= 1;
            if open.left > 0 {
                return false;
            }
            let attribute = open.attribute;
            self.open.pop();
            if attribute {
                // The value it belongs to is still to come.
                return false;
            }
        }
        true
    }

    /// Reads what stands at `at` and moves behind it; `None` when it is not all there.
    fn part<'a>(&mut self, input: &'a [u8]) -> Result<Option<Part<'a>>, Broken> {
        if let Some(bulk) = self.bulk {
            return self.bulk(input, bulk);
        }
        let Some(&byte) = input.get(self.at) else {
            return Ok(None);
        };
        let kind = Kind::of(byte).ok_or(Broken::Type(byte))?;
        if kind == Kind::Push && !self.open.is_empty() {
            return Err(Broken::NestedPush);
        }
        let Some(line) = self.line(input)? else {
            return Ok(None);
        };
        let after = self.at + 1 + line.len() + 2;
        if after > MAX_REPLY {
            return Err(Broken::TooLarge);
        }
        match kind {
            Kind::Bulk | Kind::Verbatim | Kind::BulkError => match length(kind, line)? {
                None => {}
                Some(len) => {
                    if len > MAX_REPLY || after + len + 2 > MAX_REPLY {
                        return Err(Broken::TooLarge);
                    }
                    let bulk = Bulk { kind, start: after, len };
                    self.bulk = Some(bulk);
                    return self.bulk(input, bulk);
                }
            },
            Kind::Array | Kind::Set | Kind::Push | Kind::Map | Kind::Attribute => {
                let each = if matches!(kind, Kind::Map | Kind::Attribute) { 2 } else { 1 };
                if let Some(count) = length(kind, line)? {
                    if count > MAX_REPLY || after + count * each * SHORTEST_VALUE > MAX_REPLY {
                        return Err(Broken::TooLarge);
                    }
                    self.at = after;
                    return Ok(Some(Part::Open(kind, count * each)));
                }
            }
            _ => {
                if !valid(kind, line) {
                    return Err(Broken::Value(kind));
                }
                self.at = after;
                return Ok(Some(Part::Value(kind, line)));
            }
        }
        // nil
        self.at = after;
        Ok(Some(Part::Value(kind, b"")))
    }

    /// The line at `at`, without its type and end.
    fn line<'a>(&mut self, input: &'a [u8]) -> Result<Option<&'a [u8]>, Broken> {
        let start = self.at + 1;
        let from = self.scanned.max(start);
        let end = match memchr2(b'\r', b'\n', input.get(from..).unwrap_or_default()) {
            Some(found) => from + found,
            None => input.len().max(from),
        };
        self.scanned = end;
        if end - start > MAX_LINE {
            return Err(Broken::LineTooLong);
        }
        if end > MAX_REPLY {
            return Err(Broken::TooLarge);
        }
        match (input.get(end), input.get(end + 1)) {
            (None, _) | (Some(b'\r'), None) => Ok(None),
            (Some(b'\r'), Some(b'\n')) => Ok(input.get(start..end)),
            _ => Err(Broken::LineEnd),
        }
    }

    fn bulk<'a>(&mut self, input: &'a [u8], bulk: Bulk) -> Result<Option<Part<'a>>, Broken> {
        let end = bulk.start + bulk.len;
        let Some(text) = input.get(bulk.start..end) else {
            return Ok(None);
        };
        match (input.get(end), input.get(end + 1)) {
            (Some(b'\r'), Some(b'\n')) => {}
            (None, _) | (Some(b'\r'), None) => return Ok(None),
            _ => return Err(Broken::BulkEnd),
        }
        // Three bytes of format before the colon.
        if bulk.kind == Kind::Verbatim && text.get(3) != Some(&b':') {
            return Err(Broken::Value(bulk.kind));
        }
        self.bulk = None;
        self.at = end + 2;
        Ok(Some(Part::Value(bulk.kind, text)))
    }
}

/// The replies that writing commands usually get, when they are there as a whole and plain; `None` leaves it to
/// [`Parser::frame`] to say what it is.
#[inline]
fn short(input: &[u8]) -> Option<Reply<'_>> {
    let (first, rest) = input.split_first()?;
    let (kind, start, end) = match first {
        b':' => {
            // Up to 18 digits cannot overflow.
            let digits = digits(rest, 19);
            if digits == 0 || digits == 19 {
                return None;
            }
            (Kind::Integer, 1, 1 + digits)
        }
        b'+' if rest.starts_with(b"OK\r") => (Kind::Simple, 1, 3),
        b'_' => (Kind::Null, 1, 1),
        b'$' => {
            // Up to 6 digits are below MAX_REPLY.
            let digits = digits(rest, 6);
            let len = rest.iter().take(digits).fold(0, |len, byte| len * 10 + usize::from(byte - b'0'));
            if digits == 0 || (digits > 1 && rest.first() == Some(&b'0')) {
                return None;
            }
            if rest.get(digits..digits + 2)? != b"\r\n" {
                return None;
            }
            (Kind::Bulk, 1 + digits + 2, 1 + digits + 2 + len)
        }
        _ => return None,
    };
    if input.get(end..end + 2)? != b"\r\n" {
        return None;
    }
    Some(Reply { bytes: input.get(..end + 2)?, text: input.get(start..end)?, kind })
}

/// How many of the first `most` bytes are digits, until one is not.
#[inline]
fn digits(bytes: &[u8], most: usize) -> usize {
    bytes.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count()
}

/// A length in plain decimal; `None` for nil, which only RESP2's two have. What is beyond 64 bits is [`Broken::Length`].
fn length(kind: Kind, line: &[u8]) -> Result<Option<usize>, Broken> {
    match line {
        b"?" => Err(Broken::Streamed),
        b"-1" if matches!(kind, Kind::Bulk | Kind::Array) => Ok(None),
        b"" | [b'0', _, ..] => Err(Broken::Length),
        _ => line
            .iter()
            .try_fold(0usize, |sum, byte| {
                let digit = byte.is_ascii_digit().then(|| usize::from(byte - b'0'))?;
                sum.checked_mul(10)?.checked_add(digit)
            })
            .map(Some)
            .ok_or(Broken::Length),
    }
}

/// Whether a line is what its type promises.
fn valid(kind: Kind, line: &[u8]) -> bool {
    match kind {
        Kind::Integer => parses::<i64>(line),
        Kind::Double => parses::<f64>(line),
        Kind::Boolean => matches!(line, b"t" | b"f"),
        Kind::Null => line.is_empty(),
        Kind::BigNumber => {
            let digits = line.strip_prefix(b"-").or(line.strip_prefix(b"+")).unwrap_or(line);
            !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
        }
        _ => true,
    }
}

fn parses<T: std::str::FromStr>(line: &[u8]) -> bool {
    std::str::from_utf8(line).is_ok_and(|text| text.parse::<T>().is_ok())
}

#[cfg(test)]
mod tests;
