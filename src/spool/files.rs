//! The files of a spool: lanes with their locks, segments, and the cursor of a replay.
//!
//! Every call here may block. What stands in the folder and is not the spool's own is left alone, whatever it is, and
//! never followed where it is a symbolic link.

mod cursor;
mod lane;
mod rejected;
mod segment;

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use cursor::Cursor;
pub use lane::{Adoption, Contents, Folder, Lane, LaneName, contents, in_folder};
pub use rejected::Rejected;
pub use segment::{Segment, SegmentFile, SegmentName};

/// What lies beside the lanes: records that Redis refused for good, each with the reason as its note; a segment.
pub const REJECTED: &str = "rejected";
/// What the name of a segment ends with once it is set aside.
pub const DAMAGED: &str = "damaged";

/// The mode of folders, and of files.
const PRIVATE_FOLDER: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// A call about a file that failed.
#[derive(Debug, Error)]
#[error("cannot {action} \"{path}\": {source}")]
pub struct Error {
    /// What was to be done, as in "cannot open".
    pub action: &'static str,
    pub path: PathBuf,
    pub source: io::Error,
}

impl Error {
    /// What went wrong, such as StorageFull or PermissionDenied.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// Says what was to be done, and to which file, when that failed.
fn about<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| Error { action, path: path.to_path_buf(), source }
}

/// Makes the folder of a spool, if it is not there, for its `owner`: the user of the workers, when it is another than the
/// one that runs this, as root. Makes no folder above it; a folder that is there gets this owner, who may then do with it
/// what he likes, and keeps what others may do with it.
pub fn prepare(dir: &Path, owner: Option<u32>) -> Result<()> {
    match DirBuilder::new().mode(PRIVATE_FOLDER).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(about("create", dir)(error)),
    }
    let found = fs::metadata(dir).map_err(about("look at", dir))?;
    if !found.is_dir() {
        return Err(about("use", dir)(io::ErrorKind::NotADirectory.into()));
    }
    if let Some(owner) = owner
        && found.uid() != owner
    {
        chown(dir, Some(owner), None).map_err(about("change the owner of", dir))?;
    }
    let mode = found.mode() & 0o7777;
    if mode & PRIVATE_FOLDER != PRIVATE_FOLDER {
        let permissions = Permissions::from_mode(mode | PRIVATE_FOLDER);
        fs::set_permissions(dir, permissions).map_err(about("change the mode of", dir))?;
    }
    Ok(())
}

/// How many bytes the spool in `dir` holds: of all lanes, of what was set aside there, and of what was rejected. What
/// disappears meanwhile, or cannot be looked at, counts as nothing.
pub fn usage(dir: &Path) -> Result<u64> {
    let mut sum = file_length(&dir.join(REJECTED));
    for (path, _) in in_folder(dir)?.lanes {
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            sum += file_length(&entry.path());
        }
    }
    Ok(sum)
}

/// Deletes a file; one that is not there is no error.
fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(about("delete", path)(error)),
        _ => Ok(()),
    }
}

fn file_length(path: &Path) -> u64 {
    fs::symlink_metadata(path).ok().filter(|found| found.is_file()).map_or(0, |found| found.len())
}

#[cfg(test)]
mod tests;
