//! The bytes of a segment: a header, then records. Encodes and decodes both; touches no file, and finds no record: that is
//! the [`Reader`](super::Reader)'s.
//!
//! All numbers are little-endian. A segment begins with
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `mtrspool` |
//! | 4 | version of the format, 1 |
//! | 8 | marker |
//! | 4 | CRC-32 of the 20 bytes before |
//!
//! and goes on with records, one behind another:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | marker |
//! | 4 | length of the payload |
//! | 4 | CRC-32 of length and payload |
//! | length | payload |
//!
//! The marker is 8 random bytes, others in each segment, which are in the segment's name too: a reader that has lost its way
//! looks for the next one. Nothing that a client puts into an event is taken for a record, for it does not know them. The
//! payload is an event, or as many as belong together:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | when it was written, in milliseconds since 1970 |
//! | 2 | length of the note |
//! | 4 | how many commands, at least 1 |
//! | 6 for each command | its length (4), at least 1, and how many replies Redis gives to it (2), at least 1 |
//! | length of the note | note: empty, or why the record is in the file `rejected`; UTF-8 |
//! | lengths of the commands | the commands, RESP encoded |
//!
//! The lengths come first and add up to the payload's: a damaged length shows before the bytes that it promises are read.
//!
//! The checksum is the CRC-32 of gzip and PNG (crate `crc32fast`). It is there against accidents, not against someone who may
//! write to the files; of those it finds every one within 32 bits in a row, and misses one of 4 billion others.

use std::fmt;
use std::num::NonZeroU16;

use thiserror::Error;

/// The first bytes of a segment.
pub const MAGIC: [u8; 8] = *b"mtrspool";
/// The version of the format that this writes, and the only one that it reads.
pub const VERSION: u32 = 1;
/// Bytes of a segment before its first record.
pub const HEADER: usize = 24;
/// Bytes of a record before its payload.
pub const PREFIX: usize = 16;
/// The longest payload, in bytes: what a reader has to have in memory at once.
pub const MAX_PAYLOAD: usize = 64 * 1024 * 1024;
/// The most commands of a record.
pub const MAX_COMMANDS: usize = 1 << 20;
/// The longest note, in bytes; a longer one is cut.
pub const MAX_NOTE: usize = 1024;

/// Bytes of a payload before its table of commands.
const FIXED: usize = 14;
/// Bytes of a command in the table.
const ENTRY: usize = 6;

/// What every record of a segment begins with: 8 bytes that nobody else knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Marker(pub [u8; Marker::LENGTH]);

impl Marker {
    /// In bytes.
    pub const LENGTH: usize = 8;

    /// From its 16 digits, as they are in the name of a segment.
    pub fn from_hex(digits: &str) -> Option<Self> {
        let plain =
            digits.len() == 2 * Self::LENGTH && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten().map(|number| Marker(number.to_be_bytes()))
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Marker({self})")
    }
}

/// A command of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// RESP encoded; not empty.
    pub bytes: &'a [u8],
    /// How many replies Redis gives: 1, or n + 2 for MULTI, n commands and EXEC, which stay together.
    pub replies: NonZeroU16,
}

/// A record that has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// When it was written, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Empty, or why it was rejected.
    pub note: &'a [u8],
    table: &'a [u8],
    bytes: &'a [u8],
}

/// Why something cannot become a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unencodable {
    #[error("a record of more than {MAX_PAYLOAD} bytes")]
    TooLarge,
    #[error("a record of more than {MAX_COMMANDS} commands")]
    TooManyCommands,
    #[error("a record without a command, or with an empty one")]
    Empty,
}

/// The first bytes of a segment with this marker.
pub fn header(marker: Marker) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let checked = [&MAGIC[..], &VERSION.to_le_bytes(), &marker.0].concat();
    let checksum = crc32fast::hash(&checked).to_le_bytes();
    for (to, from) in header.iter_mut().zip(checked.iter().chain(&checksum)) {
        *to = *from;
    }
    header
}

/// Version and marker of a segment that begins with `bytes`; None when that is no intact header.
pub fn parse_header(bytes: &[u8]) -> Option<(u32, Marker)> {
    let (checked, rest) = bytes.split_at_checked(HEADER - 4)?;
    let (checksum, _) = rest.split_first_chunk()?;
    if crc32fast::hash(checked) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (version, marker) = checked.strip_prefix(&MAGIC)?.split_first_chunk()?;
    Some((u32::from_le_bytes(*version), Marker(marker.try_into().ok()?)))
}

/// Appends a record for a segment with this marker to `out`. On an error `out` is as before.
pub fn encode<'a>(
    marker: Marker,
    unix_ms: u64,
    note: &str,
    commands: impl Iterator<Item = Command<'a>> + Clone,
    out: &mut Vec<u8>,
) -> Result<(), Unencodable> {
    let note = cut(note);
    let (mut count, mut length) = (0, 0usize);
    for command in commands.clone() {
        if command.bytes.is_empty() {
            return Err(Unencodable::Empty);
        }
        count += 1;
        length = length.saturating_add(command.bytes.len());
    }
    if count == 0 {
        return Err(Unencodable::Empty);
    }
    if count > MAX_COMMANDS {
        return Err(Unencodable::TooManyCommands);
    }
    let payload = length.saturating_add(FIXED + ENTRY * count + note.len());
    if payload > MAX_PAYLOAD {
        return Err(Unencodable::TooLarge);
    }

    out.reserve(PREFIX + payload);
    let length = (payload as u32).to_le_bytes();
    out.extend_from_slice(&marker.0);
    out.extend_from_slice(&length);
    out.extend_from_slice(&[0; 4]);
    let start = out.len();
    out.extend_from_slice(&unix_ms.to_le_bytes());
    out.extend_from_slice(&(note.len() as u16).to_le_bytes());
    out.extend_from_slice(&(count as u32).to_le_bytes());
    for command in commands.clone() {
        out.extend_from_slice(&(command.bytes.len() as u32).to_le_bytes());
        out.extend_from_slice(&command.replies.get().to_le_bytes());
    }
    out.extend_from_slice(note.as_bytes());
    for command in commands {
        out.extend_from_slice(command.bytes);
    }
    let checksum = checksum(length, out.get(start..).unwrap_or_default());
    if let Some(place) = out.get_mut(start - 4..start) {
        place.copy_from_slice(&checksum.to_le_bytes());
    }
    Ok(())
}

fn cut(note: &str) -> &str {
    if note.len() <= MAX_NOTE {
        return note;
    }
    let end = (0..=MAX_NOTE).rev().find(|&end| note.is_char_boundary(end)).unwrap_or(0);
    note.get(..end).unwrap_or_default()
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// What stands at the beginning of some bytes of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Intact(Layout),
    /// So far, what could become a record.
    Incomplete,
    /// Nothing of the kind.
    Broken,
}

/// How long the parts of a record are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    payload: usize,
    note: usize,
    table: usize,
}

/// Looks at what `bytes` begin with. Reads a record's commands only once all of them are there.
pub(super) fn find(marker: Marker, bytes: &[u8]) -> Found {
    match measure(marker, bytes) {
        Ok(layout) => Found::Intact(layout),
        Err(found) => found,
    }
}

fn measure(marker: Marker, bytes: &[u8]) -> Result<Layout, Found> {
    use Found::{Broken, Incomplete};
    let Some(rest) = bytes.strip_prefix(&marker.0) else {
        return Err(if marker.0.starts_with(bytes) { Incomplete } else { Broken });
    };
    let (length, rest) = rest.split_first_chunk().ok_or(Incomplete)?;
    let payload = u32::from_le_bytes(*length) as usize;
    if !(FIXED + ENTRY + 1..=MAX_PAYLOAD).contains(&payload) {
        return Err(Broken);
    }
    let (expected, rest) = rest.split_first_chunk().ok_or(Incomplete)?;

    let (_, counts) = rest.split_first_chunk::<8>().ok_or(Incomplete)?;
    let (note, counts) = counts.split_first_chunk().ok_or(Incomplete)?;
    let (count, table) = counts.split_first_chunk().ok_or(Incomplete)?;
    let note = usize::from(u16::from_le_bytes(*note));
    let count = u32::from_le_bytes(*count) as usize;
    if count == 0 || count > MAX_COMMANDS || FIXED + ENTRY * count + note > payload {
        return Err(Broken);
    }
    let layout = Layout { payload, note, table: ENTRY * count };
    let mut total = FIXED + layout.table + note;
    for entry in entries(table.get(..layout.table).ok_or(Incomplete)?) {
        let (length, _) = entry.ok_or(Broken)?;
        total = total.saturating_add(length);
    }
    if total != payload {
        return Err(Broken);
    }

    let payload = rest.get(..payload).ok_or(Incomplete)?;
    if checksum(*length, payload) != u32::from_le_bytes(*expected) {
        return Err(Broken);
    }
    Ok(layout)
}

impl Layout {
    /// Bytes of the whole record.
    #[allow(clippy::len_without_is_empty, reason = "no record is empty")]
    pub fn len(&self) -> usize {
        PREFIX + self.payload
    }

    /// The record that `bytes` begin with; None when they are shorter than it.
    pub fn record<'a>(&self, bytes: &'a [u8]) -> Option<Record<'a>> {
        let payload = bytes.get(PREFIX..self.len())?;
        let (unix_ms, _) = payload.split_first_chunk()?;
        let (table, rest) = payload.get(FIXED..)?.split_at_checked(self.table)?;
        let (note, bytes) = rest.split_at_checked(self.note)?;
        Some(Record { unix_ms: u64::from_le_bytes(*unix_ms), note, table, bytes })
    }
}

/// Lengths and numbers of replies; None for an entry with a 0 in it.
fn entries(table: &[u8]) -> impl Iterator<Item = Option<(usize, NonZeroU16)>> + Clone {
    table.chunks_exact(ENTRY).map(|entry| {
        let (length, replies) = entry.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        let replies = NonZeroU16::new(u16::from_le_bytes(replies.try_into().ok()?))?;
        (length > 0).then_some((length, replies))
    })
}

impl<'a> Record<'a> {
    /// The commands, in the order in which they are sent.
    pub fn commands(&self) -> impl Iterator<Item = Command<'a>> + Clone + use<'a> {
        let mut rest = self.bytes;
        entries(self.table).map_while(move |entry| {
            let (length, replies) = entry?;
            let (bytes, behind) = rest.split_at_checked(length)?;
            rest = behind;
            Some(Command { bytes, replies })
        })
    }

    /// How many commands there are, at least 1.
    pub fn command_count(&self) -> usize {
        self.table.len() / ENTRY
    }

    /// The bytes of all commands, one after another.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}
