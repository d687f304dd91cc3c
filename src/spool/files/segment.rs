//! A segment as a file: made, appended to, and told by its name.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::super::reader::Reader;
use super::super::record::{self, Marker};
use super::{Lane, PRIVATE_FILE, Result, about};

/// Which segment of a lane: its number, which grows, and its marker, by which it is never taken for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    pub number: u32,
    pub marker: Marker,
}

/// A segment that lies in a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    pub path: PathBuf,
    pub name: SegmentName,
    /// In bytes.
    pub length: u64,
}

/// A segment to append to.
#[derive(Debug)]
pub struct Segment {
    file: File,
    path: PathBuf,
    name: SegmentName,
    length: u64,
    /// Whether the folders know of the file for certain.
    entered: bool,
    /// Whether the last of the file may be the beginning of a record.
    torn: bool,
}

const EXTENSION: &str = ".seg";

impl SegmentName {
    /// From a file's name; None when that is of another kind.
    pub fn parse(name: &str) -> Option<Self> {
        let (number, marker) = name.strip_suffix(EXTENSION)?.split_once('-')?;
        let name_of = SegmentName { number: number.parse().ok()?, marker: Marker::from_hex(marker)? };
        // One spelling only.
        (name_of.to_string() == name).then_some(name_of)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}-{}{EXTENSION}", self.number, self.marker)
    }
}

impl SegmentFile {
    /// Opens the segment where a record begins (0 for all of it), and gives the reader for what is read from there on.
    pub fn open_at(&self, offset: u64) -> Result<(File, Reader)> {
        let mut file = File::open(&self.path).map_err(about("open", &self.path))?;
        if offset < record::HEADER as u64 {
            return Ok((file, Reader::new(Some(self.name.marker))));
        }
        let mut header = Vec::new();
        (&file).take(record::HEADER as u64).read_to_end(&mut header).map_err(about("read", &self.path))?;
        let marker = record::parse_header(&header).map_or(self.name.marker, |(_, marker)| marker);
        file.seek(SeekFrom::Start(offset)).map_err(about("read", &self.path))?;
        Ok((file, Reader::at(marker, offset)))
    }
}

impl Segment {
    /// Makes the segment with this number in a lane that the caller owns.
    pub fn create(lane: &Lane, number: u32) -> Result<Segment> {
        let name = SegmentName { number, marker: random_marker()? };
        let path = lane.path().join(name.to_string());
        let mut file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(PRIVATE_FILE)
            .open(&path)
            .map_err(about("create", &path))?;
        let header = record::header(name.marker);
        if let Err(error) = file.write_all(&header) {
            let _ = std::fs::remove_file(&path);
            return Err(about("write", &path)(error));
        }
        Ok(Segment { file, path, name, length: header.len() as u64, entered: false, torn: false })
    }

    /// Appends whole records, encoded with this segment's marker. After an error none of them is in the file, or, when not
    /// even that could be brought about, the segment takes no more.
    pub fn append(&mut self, records: &[u8]) -> Result<()> {
        if self.torn {
            return Err(about("append to", &self.path)(io::Error::other("an earlier write failed halfway")));
        }
        if let Err(error) = self.file.write_all(records) {
            self.torn = self.file.set_len(self.length).is_err();
            return Err(about("write", &self.path)(error));
        }
        self.length += records.len() as u64;
        Ok(())
    }

    /// Returns once the disk has what was appended, and the folders know of the file.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(about("sync", &self.path))?;
        if !self.entered {
            for folder in self.path.ancestors().skip(1).take(2).filter(|folder| !folder.as_os_str().is_empty()) {
                let opened = File::open(folder).map_err(about("open", folder))?;
                opened.sync_all().map_err(about("sync", folder))?;
            }
            self.entered = true;
        }
        Ok(())
    }

    pub fn name(&self) -> SegmentName {
        self.name
    }

    /// What its records begin with.
    pub fn marker(&self) -> Marker {
        self.name.marker
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in the file, the header included.
    #[allow(clippy::len_without_is_empty, reason = "a header is always there")]
    pub fn len(&self) -> u64 {
        self.length
    }
}

pub(super) fn random_marker() -> Result<Marker> {
    let source = Path::new("/dev/urandom");
    let mut marker = Marker([0; Marker::LENGTH]);
    let mut file = File::open(source).map_err(about("open", source))?;
    file.read_exact(&mut marker.0).map_err(about("read", source))?;
    Ok(marker)
}
