//! How far the replay of a lane got.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `mtrcursr` |
//! | 4 | number of the segment |
//! | 8 | its marker |
//! | 8 | offset of the record that comes next |
//! | 4 | how many of its commands are done with |
//! | 4 | CRC-32 of the 32 bytes before |

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::super::record::Marker;
use super::{PRIVATE_FILE, Result, SegmentName, about, remove_file};

/// How far the replay of a lane got: what is before it was acknowledged, or given up for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub segment: SegmentName,
    /// Where the next record begins, in bytes from the beginning of the segment.
    pub offset: u64,
    /// How many commands of that record are done with.
    pub commands: u32,
}

/// The file with the cursor, and the one that replaces it.
pub(super) const FILE: &str = "cursor";
pub(super) const NEW_FILE: &str = "cursor.new";

const MAGIC: [u8; 8] = *b"mtrcursr";
const LENGTH: usize = 36;

impl Cursor {
    /// Where the replay of `segment` goes on: an offset, and how many commands of the record there are done with. The
    /// beginning, when the cursor is of another segment.
    pub fn within(cursor: Option<Cursor>, segment: SegmentName) -> (u64, u32) {
        cursor.filter(|cursor| cursor.segment == segment).map_or((0, 0), |cursor| (cursor.offset, cursor.commands))
    }

    /// That of the lane at this path; see [`Lane::read_cursor`](super::Lane::read_cursor).
    pub fn read(lane: &Path) -> Result<Option<Cursor>> {
        let path = lane.join(FILE);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_file() && found.len() == LENGTH as u64 => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(about("look at", &path)(error)),
        }
        let bytes = fs::read(&path).map_err(about("read", &path))?;
        Ok(Cursor::decode(&bytes))
    }

    pub(super) fn write(&self, lane: &Path) -> Result<()> {
        let (path, new) = (lane.join(FILE), lane.join(NEW_FILE));
        // Left by one who was killed halfway.
        remove_file(&new)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(PRIVATE_FILE)
            .open(&new)
            .map_err(about("create", &new))?;
        file.write_all(&self.encode()).map_err(about("write", &new))?;
        fs::rename(&new, &path).map_err(about("replace", &path))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&self.segment.number.to_le_bytes());
        bytes.extend_from_slice(&self.segment.marker.0);
        bytes.extend_from_slice(&self.offset.to_le_bytes());
        bytes.extend_from_slice(&self.commands.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Cursor> {
        let (checked, checksum) = bytes.split_last_chunk()?;
        if crc32fast::hash(checked) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let rest = checked.strip_prefix(&MAGIC)?;
        let (number, rest) = rest.split_first_chunk()?;
        let (marker, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let commands = rest.try_into().ok()?;
        Some(Cursor {
            segment: SegmentName { number: u32::from_le_bytes(*number), marker: Marker(*marker) },
            offset: u64::from_le_bytes(*offset),
            commands: u32::from_le_bytes(commands),
        })
    }
}
