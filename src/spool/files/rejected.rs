//! The file beside the lanes with what Redis refused for good: records as in a segment, each with the reason as its note.
//!
//! All workers append to the same file, and so does a replay by hand: each locks it for that moment.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use super::super::record::{self, Marker};
use super::segment::random_marker;
use super::{PRIVATE_FILE, REJECTED, Result, about};

/// The open file.
#[derive(Debug)]
pub struct Rejected {
    file: File,
    path: PathBuf,
    marker: Marker,
}

impl Rejected {
    /// Opens the file of the spool in `dir`, or makes it, for the owner of `dir`. Fails where something else is in its place.
    pub fn open(dir: &Path) -> Result<Rejected> {
        let path = dir.join(REJECTED);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(PRIVATE_FILE)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(about("open", &path))?;
        let unknown = |reason| about("append to", &path)(io::Error::new(io::ErrorKind::InvalidData, reason));
        if !file.metadata().map_err(about("look at", &path))?.is_file() {
            return Err(unknown("it is no file"));
        }

        file.lock().map_err(about("lock", &path))?;
        let mut header = Vec::new();
        (&file).take(record::HEADER as u64).read_to_end(&mut header).map_err(about("read", &path))?;
        let marker = match record::parse_header(&header) {
            Some((record::VERSION, marker)) => marker,
            None if header.is_empty() => {
                let marker = random_marker()?;
                let owner = std::fs::metadata(dir).map_err(about("look at", dir))?;
                if file.metadata().is_ok_and(|made| made.uid() != owner.uid()) {
                    fchown(&file, Some(owner.uid()), Some(owner.gid())).map_err(about("change the owner of", &path))?;
                }
                if let Err(error) = file.write_all(&record::header(marker)) {
                    let _ = file.set_len(0);
                    return Err(about("write", &path)(error));
                }
                marker
            }
            _ => return Err(unknown("it is not in the format of a segment")),
        };
        file.unlock().map_err(about("unlock", &path))?;
        Ok(Rejected { file, path, marker })
    }

    /// What its records begin with.
    pub fn marker(&self) -> Marker {
        self.marker
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes it has; None once it is no longer the file at its path, for somebody has taken that away.
    pub fn size(&self) -> Option<u64> {
        let (own, found) = (self.file.metadata().ok()?, std::fs::symlink_metadata(&self.path).ok()?);
        ((own.dev(), own.ino()) == (found.dev(), found.ino())).then_some(own.len())
    }

    /// Appends whole records, encoded with this file's marker. Waits for others that do the same just then. After an error
    /// none of them is in the file, unless not even that could be brought about.
    pub fn append(&self, records: &[u8]) -> Result<()> {
        self.file.lock().map_err(about("lock", &self.path))?;
        let written = self.file.metadata().and_then(|before| {
            (&self.file).write_all(records).inspect_err(|_| {
                let _ = self.file.set_len(before.len());
            })
        });
        let unlocked = self.file.unlock();
        written.map_err(about("write", &self.path))?;
        unlocked.map_err(about("unlock", &self.path))
    }
}
