//! Reply: the received bytes come in, one framed reply with its verdict goes out.
//!
//! Speaks RESP2 and RESP3 (<https://redis.io/docs/latest/develop/reference/protocol-spec/>). Never copies a reply, never
//! looks past its end, and never decides what becomes of the connection or the request: it only says what Redis said.

mod error;
mod parser;
mod transaction;

pub use error::printable;
pub use parser::{Broken, MAX_DEPTH, MAX_LINE, MAX_REPLY, Parser};
pub use transaction::Transaction;

/// One whole reply at the start of the receive buffer, attributes in front of it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    bytes: &'a [u8],
    /// What a line or a bulk string holds, without type, length and line ends. Of no meaning for other types.
    text: &'a [u8],
    kind: Kind,
}

impl<'a> Reply<'a> {
    /// How many bytes the caller drops from the receive buffer; at least 3, at most [`MAX_REPLY`].
    #[allow(clippy::len_without_is_empty, reason = "no reply is empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The reply as received, fit for `redis::parse_redis_value` where its value matters.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The type of the reply itself: never [`Kind::Attribute`].
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether Redis sent this unasked, so that it answers no command.
    pub fn is_push(&self) -> bool {
        self.kind == Kind::Push
    }

    /// The text of an error, code first and not always UTF-8: pass it through [`printable`] before it is logged.
    /// An error inside an array or map is not the reply's own.
    pub fn error(&self) -> Option<&'a [u8]> {
        match self.kind {
            Kind::Error | Kind::BulkError => Some(self.text),
            _ => None,
        }
    }

    /// What a line or a bulk string holds, an error's text included; of no meaning for other types.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// What the reply means for the request that waits for it.
    pub fn verdict(&self) -> Verdict {
        match self.kind {
            Kind::Error | Kind::BulkError => error::verdict(self.text),
            _ if self.is_queued() => Verdict::Unknown,
            Kind::Push => Verdict::Unknown,
            _ => Verdict::Stored,
        }
    }

    /// Whether it says that a command waits for EXEC.
    pub fn is_queued(&self) -> bool {
        self.kind == Kind::Simple && self.text == b"QUEUED"
    }

    /// Whether a new connection may get a better answer than this one: its server was demoted to a replica, or closes
    /// the connection for want of a client slot.
    pub fn reopens(&self) -> bool {
        self.error().is_some_and(error::reopens)
    }
}

/// A reply's type, by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `+`
    Simple,
    /// `-`
    Error,
    /// `:`
    Integer,
    /// `$`, nil (`$-1`) included
    Bulk,
    /// `*`, nil (`*-1`) included
    Array,
    /// `_`
    Null,
    /// `#`
    Boolean,
    /// `,`
    Double,
    /// `(`
    BigNumber,
    /// `!`
    BulkError,
    /// `=`
    Verbatim,
    /// `%`
    Map,
    /// `~`
    Set,
    /// `>`
    Push,
    /// `|`, remarks on the value that follows
    Attribute,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            b'+' => Self::Simple,
            b'-' => Self::Error,
            b':' => Self::Integer,
            b'$' => Self::Bulk,
            b'*' => Self::Array,
            b'_' => Self::Null,
            b'#' => Self::Boolean,
            b',' => Self::Double,
            b'(' => Self::BigNumber,
            b'!' => Self::BulkError,
            b'=' => Self::Verbatim,
            b'%' => Self::Map,
            b'~' => Self::Set,
            b'>' => Self::Push,
            b'|' => Self::Attribute,
            _ => return None,
        })
    }
}

/// What a reply means for the event whose command it answers. In brackets the HTTP status where it decides alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Redis did it: any reply that is no error, a count of 0 and nil included (2xx).
    Stored,
    /// Redis refuses a value that the event brought: another event may pass, this one never will (422).
    Rejected,
    /// Redis refuses the command whatever the event brings: a mistake in the configuration or in the data that the
    /// key holds (502).
    Refused,
    /// Redis did nothing and says why not now: the same command may succeed later (503).
    Unavailable,
    /// The reply does not tell whether the command was done (504).
    Unknown,
}

#[cfg(test)]
mod tests;
