//! The bytes of a segment come in, in pieces of any size; its intact records go out, and where there is none.
//!
//! Never stops at damage, and never takes anything for a record that is not one by its marker, its lengths and its
//! checksum. Holds the record under way and the piece that was pushed last, no more.

use memchr::memmem;
use thiserror::Error;

use super::record::{self, Found, HEADER, MAGIC, Marker, Record, VERSION};

/// Capacity above which an empty buffer gives its memory back, in bytes.
const KEEP: usize = 1024 * 1024;

/// Reads a segment from its beginning, or from where a record begins.
pub struct Reader {
    /// None until the header, or the segment's name, has told it.
    marker: Option<Marker>,
    /// Whether the header is still to come.
    header: bool,
    /// What was pushed and is not done with begins at `start`.
    buffer: Vec<u8>,
    start: usize,
    /// Where that is in the segment.
    offset: u64,
    /// Where the damage began that lasts until there.
    damaged: Option<u64>,
    ended: bool,
}

/// A part of a segment. Offsets are from the beginning of the segment, in bytes; the end is behind the last byte.
#[derive(Debug, PartialEq, Eq)]
pub enum Part<'a> {
    Intact {
        offset: u64,
        end: u64,
        record: Record<'a>,
    },
    /// No record begins here.
    Damaged {
        from: u64,
        to: u64,
    },
    /// The end of the segment is the beginning of a record: it was being written when all ended, or is being written now.
    Torn {
        from: u64,
        to: u64,
    },
    /// Nothing in it can be read; the last part.
    Unreadable(Unreadable),
}

/// Why a file cannot be read as a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    #[error("format version {0} of a segment is not {VERSION}")]
    Version(u32),
    #[error("the header is damaged, and the name does not tell the marker")]
    NoMarker,
}

impl Reader {
    /// For a segment from its first byte; `marker` as its name tells, if it does.
    pub fn new(marker: Option<Marker>) -> Self {
        Reader { marker, header: true, buffer: Vec::new(), start: 0, offset: 0, damaged: None, ended: false }
    }

    /// For the records of a segment from `offset` on, where one begins. 0 is the first byte of the segment.
    pub fn at(marker: Marker, offset: u64) -> Self {
        Reader { header: offset == 0, offset, ..Self::new(Some(marker)) }
    }

    /// Takes in the bytes that follow. To be called when [`Reader::next`] gives None: not before, for memory's sake.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP {
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// No bytes follow.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// The next part; None when more bytes, or the end, have to come first. Behind the end, None is for good.
    #[allow(clippy::should_implement_trait, reason = "it lends from itself")]
    pub fn next(&mut self) -> Option<Part<'_>> {
        if self.header {
            match self.read_header() {
                Header::Done => self.header = false,
                Header::Incomplete => return None,
                Header::Last(part) => return Some(part),
            }
        }
        let marker = self.marker?;
        loop {
            let rest = self.rest();
            let found = match record::find(marker, rest) {
                Found::Incomplete if !self.ended => return None,
                // Bytes are missing inside of it, if it ever was one: others follow.
                Found::Incomplete if has_another(marker, rest) => Found::Broken,
                found => found,
            };
            match found {
                Found::Broken => {
                    let count = to_next(marker, rest);
                    self.damaged.get_or_insert(self.offset);
                    self.skip(count);
                }
                _ if let Some(from) = self.damaged.take() => return Some(Part::Damaged { from, to: self.offset }),
                Found::Intact(layout) => {
                    let (start, offset) = (self.start, self.offset);
                    self.skip(layout.len());
                    let record = layout.record(self.buffer.get(start..)?)?;
                    return Some(Part::Intact { offset, end: self.offset, record });
                }
                Found::Incomplete => return self.torn(),
            }
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    fn torn(&mut self) -> Option<Part<'static>> {
        let from = self.offset;
        self.skip(self.buffer.len());
        (self.offset > from).then_some(Part::Torn { from, to: self.offset })
    }

    fn read_header(&mut self) -> Header {
        let rest = self.rest();
        if rest.len() < HEADER {
            if !self.ended {
                return Header::Incomplete;
            }
            let begins = match self.marker {
                Some(marker) => record::header(marker).starts_with(rest),
                None => MAGIC.starts_with(rest) || rest.starts_with(&MAGIC),
            };
            if begins {
                return self.torn().map_or(Header::Done, Header::Last);
            }
        }
        match record::parse_header(rest) {
            Some((VERSION, marker)) => {
                self.marker = Some(marker);
                self.skip(HEADER);
                Header::Done
            }
            Some((version, _)) => self.give_up(Unreadable::Version(version)),
            None if self.marker.is_none() => self.give_up(Unreadable::NoMarker),
            None => Header::Done,
        }
    }

    fn give_up(&mut self, reason: Unreadable) -> Header {
        self.marker = None;
        self.header = false;
        self.skip(self.buffer.len());
        Header::Last(Part::Unreadable(reason))
    }

    fn skip(&mut self, count: usize) {
        let start = (self.start + count).min(self.buffer.len());
        self.offset += (start - self.start) as u64;
        self.start = start;
    }
}

/// What has become of the header.
enum Header {
    Done,
    Incomplete,
    Last(Part<'static>),
}

/// Whether a marker stands behind the one at the beginning.
fn has_another(marker: Marker, bytes: &[u8]) -> bool {
    memmem::find(bytes.get(1..).unwrap_or_default(), &marker.0).is_some()
}

/// How many of `bytes`, at least 1, are before the next marker, or before what may become one at the end.
fn to_next(marker: Marker, bytes: &[u8]) -> usize {
    let behind = bytes.get(1..).unwrap_or_default();
    1 + memmem::find(behind, &marker.0).unwrap_or_else(|| {
        let tail = behind.len().saturating_sub(Marker::LENGTH - 1);
        let begins = |at: &usize| marker.0.starts_with(behind.get(*at..).unwrap_or_default());
        (tail..behind.len()).find(begins).unwrap_or(behind.len())
    })
}

#[cfg(test)]
mod tests;
