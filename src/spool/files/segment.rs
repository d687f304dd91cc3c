//! A segment as a file: made, appended to, and told by its name.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
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
    /// Opens the segment, and gives the reader for what is read from the file from the beginning on.
    pub fn open(&self) -> Result<(File, Reader)> {
        let file = File::open(&self.path).map_err(about("open", &self.path))?;
        Ok((file, Reader::new(Some(self.name.marker))))
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

    /// Opens, or makes, a file in the format of a segment that lies elsewhere, for appending behind what is in it.
    pub fn append_to(path: &Path) -> Result<Segment> {
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(PRIVATE_FILE)
            .open(path)
            .map_err(about("open", path))?;
        let mut header = Vec::new();
        (&mut file).take(record::HEADER as u64).read_to_end(&mut header).map_err(about("read", path))?;
        let length = file.metadata().map_err(about("look at", path))?.len();
        let marker = match record::parse_header(&header) {
            Some((record::VERSION, marker)) => marker,
            None if header.is_empty() => {
                let marker = random_marker()?;
                file.write_all(&record::header(marker)).map_err(about("write", path))?;
                marker
            }
            _ => {
                let reason = "it is no segment of a version that is known";
                return Err(about("append to", path)(io::Error::new(io::ErrorKind::InvalidData, reason)));
            }
        };
        let length = length.max(record::HEADER as u64);
        let name = SegmentName { number: 0, marker };
        Ok(Segment { file, path: path.to_path_buf(), name, length, entered: false, torn: false })
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

fn random_marker() -> Result<Marker> {
    let source = Path::new("/dev/urandom");
    let mut marker = Marker([0; Marker::LENGTH]);
    let mut file = File::open(source).map_err(about("open", source))?;
    file.read_exact(&mut marker.0).map_err(about("read", source))?;
    Ok(marker)
}
