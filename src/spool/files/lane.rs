//! A lane: the folder with the segments of one worker, owned by whoever holds its lock.
//!
//! The lock is an exclusive flock(2) on the folder itself: the kernel lets go of it when its process ends, however it does,
//! and no file is left over that would have to be told from one in use.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::cursor::{self, Cursor};
use super::{DAMAGED, Error, PRIVATE_FOLDER, REJECTED, Result, SegmentFile, SegmentName, about, remove_file};

/// The name of a lane, in the order of their making: `1764086400123-4711`, and `-2` and so on behind it where that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneName {
    /// When it was made, in milliseconds since 1970.
    pub unix_ms: u64,
    /// The process that made it.
    pub pid: u32,
    /// 0 for none.
    number: u32,
}

/// A lane that this process owns as long as it has this.
#[derive(Debug)]
pub struct Lane {
    /// Holds the lock.
    folder: File,
    path: PathBuf,
    name: LaneName,
}

/// What became of the lanes in a folder that were there before.
#[derive(Debug, Default)]
pub struct Adoption {
    /// Now owned, oldest first.
    pub lanes: Vec<Lane>,
    /// Owned by others, which live.
    pub held: Vec<PathBuf>,
    /// Lanes that could not be opened or locked.
    pub failed: Vec<Error>,
    /// What is not the spool's.
    pub foreign: Vec<PathBuf>,
}

/// What lies in a lane.
#[derive(Debug, Default)]
pub struct Contents {
    /// Oldest first.
    pub segments: Vec<SegmentFile>,
    /// Segments that were set aside.
    pub damaged: Vec<PathBuf>,
    /// What is not the spool's.
    pub foreign: Vec<PathBuf>,
}

/// What a folder with lanes has in it.
#[derive(Debug, Default)]
pub struct Folder {
    /// Oldest first.
    pub lanes: Vec<(PathBuf, LaneName)>,
    pub foreign: Vec<PathBuf>,
}

/// How many lanes one process may make within a millisecond, others' attempts to adopt them included.
const MAX_NUMBER: u32 = 1000;

impl LaneName {
    /// From a folder's name; None when that is of another kind.
    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        let unix_ms = parts.next()?.parse().ok()?;
        let pid = parts.next()?.parse().ok()?;
        let number = parts.next().map_or(Some(0), |number| number.parse().ok())?;
        let name_of = LaneName { unix_ms, pid, number };
        // One spelling only.
        (name_of.to_string() == name).then_some(name_of)
    }
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:013}-{}", self.unix_ms, self.pid)?;
        match self.number {
            0 => Ok(()),
            number => write!(f, "-{number}"),
        }
    }
}

impl Lane {
    /// Makes a lane for this process.
    pub fn create(dir: &Path) -> Result<Lane> {
        let unix_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
        Lane::create_at(dir, unix_ms)
    }

    fn create_at(dir: &Path, unix_ms: u64) -> Result<Lane> {
        for number in (0..MAX_NUMBER).filter(|number| *number != 1) {
            let name = LaneName { unix_ms, pid: std::process::id(), number };
            let path = dir.join(name.to_string());
            match DirBuilder::new().mode(PRIVATE_FOLDER).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(about("create", &path)(error)),
            }
            // Another worker may see the folder before it is locked, and adopt it.
            match Lane::own(path, name)? {
                Owning::Now(lane) => return Ok(lane),
                Owning::Held(_) | Owning::Gone => {}
            }
        }
        Err(about("create a lane in", dir)(io::ErrorKind::AlreadyExists.into()))
    }

    /// Takes every lane in `dir` that nobody owns. What cannot be taken stops nothing; an error means that `dir` itself
    /// cannot be read.
    pub fn adopt(dir: &Path) -> Result<Adoption> {
        let folder = in_folder(dir)?;
        let mut adoption = Adoption { foreign: folder.foreign, ..Adoption::default() };
        for (path, name) in folder.lanes {
            match Lane::own(path, name) {
                Ok(Owning::Now(lane)) => adoption.lanes.push(lane),
                Ok(Owning::Held(path)) => adoption.held.push(path),
                Ok(Owning::Gone) => {}
                Err(error) => adoption.failed.push(error),
            }
        }
        Ok(adoption)
    }

    /// Whether some process owns the lane at `path`. Owns it for a moment itself to find out, which could keep another
    /// process from adopting it just then.
    pub fn is_held(path: &Path) -> Result<bool> {
        let folder = open_folder(path)?;
        match folder.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(about("lock", path)(error)),
        }
    }

    fn own(path: PathBuf, name: LaneName) -> Result<Owning> {
        let folder = match open_folder(&path) {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Owning::Gone),
            Err(error) => return Err(error),
        };
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Owning::Held(path)),
            Err(TryLockError::Error(error)) => return Err(about("lock", &path)(error)),
        }
        // Its last owner may have removed it between the two calls.
        let locked = folder.metadata().map_err(about("look at", &path))?;
        match fs::symlink_metadata(&path) {
            Ok(found) if (found.dev(), found.ino()) == (locked.dev(), locked.ino()) => {}
            Ok(_) => return Ok(Owning::Gone),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Owning::Gone),
            Err(error) => return Err(about("look at", &path)(error)),
        }
        Ok(Owning::Now(Lane { folder, path, name }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn name(&self) -> LaneName {
        self.name
    }

    /// What lies in the lane.
    pub fn contents(&self) -> Result<Contents> {
        contents(&self.path)
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> Result<Vec<SegmentFile>> {
        Ok(self.contents()?.segments)
    }

    /// How far the replay got; None where that is not known, or not to be trusted: then it begins anew, with the oldest
    /// segment.
    pub fn read_cursor(&self) -> Result<Option<Cursor>> {
        Cursor::read(&self.path)
    }

    /// Replaces the cursor at once and whole. It is not brought to the disk: after a power loss an older one may be there,
    /// or none.
    pub fn write_cursor(&self, cursor: &Cursor) -> Result<()> {
        cursor.write(&self.path)
    }

    /// Deletes a segment; one that is gone already is no error.
    pub fn remove(&self, segment: &SegmentFile) -> Result<()> {
        remove_file(&segment.path)
    }

    /// Keeps a damaged segment for someone to look at, under a name by which it is not read again; gives that.
    pub fn set_aside(&self, segment: &SegmentFile) -> Result<PathBuf> {
        let mut aside = segment.path.clone().into_os_string();
        aside.push(".");
        aside.push(DAMAGED);
        let aside = PathBuf::from(aside);
        fs::rename(&segment.path, &aside).map_err(about("set aside", &segment.path))?;
        Ok(aside)
    }

    /// Removes the lane when nothing is left in it but the cursor; whether it did. It is of no more use then.
    pub fn remove_if_empty(&self) -> Result<bool> {
        let contents = self.contents()?;
        if !(contents.segments.is_empty() && contents.damaged.is_empty() && contents.foreign.is_empty()) {
            return Ok(false);
        }
        for name in [cursor::FILE, cursor::NEW_FILE] {
            remove_file(&self.path.join(name))?;
        }
        match fs::remove_dir(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(false),
            Err(error) => Err(about("remove", &self.path)(error)),
        }
    }

    /// Returns once the disk knows which files the lane has.
    pub fn sync(&self) -> Result<()> {
        self.folder.sync_all().map_err(about("sync", &self.path))
    }
}

/// What became of an attempt to own a lane.
enum Owning {
    Now(Lane),
    Held(PathBuf),
    Gone,
}

/// What the folder of a spool has in it, without locking anything.
pub fn in_folder(dir: &Path) -> Result<Folder> {
    let mut folder = Folder::default();
    each(dir, |name, path, is_dir| match name.and_then(LaneName::parse) {
        Some(name) if is_dir => folder.lanes.push((path, name)),
        None if name == Some(REJECTED) && !is_dir => {}
        _ => folder.foreign.push(path),
    })?;
    folder.lanes.sort_by_key(|(_, name)| *name);
    folder.foreign.sort();
    Ok(folder)
}

/// What the lane at `path` has in it, without locking it.
pub fn contents(path: &Path) -> Result<Contents> {
    let mut contents = Contents::default();
    each(path, |name, path, is_dir| {
        let Some(name) = name.filter(|_| !is_dir) else { return contents.foreign.push(path) };
        let set_aside = || SegmentName::parse(name.strip_suffix(DAMAGED)?.strip_suffix('.')?);
        if let Some(name) = SegmentName::parse(name) {
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_file() => contents.segments.push(SegmentFile { path, name, length: found.len() }),
                Ok(_) => contents.foreign.push(path),
                // Deleted by the lane's owner meanwhile.
                Err(_) => {}
            }
        } else if set_aside().is_some() {
            contents.damaged.push(path);
        } else if name != cursor::FILE && name != cursor::NEW_FILE {
            contents.foreign.push(path);
        }
    })?;
    contents.segments.sort_by_key(|segment| segment.name);
    contents.damaged.sort();
    contents.foreign.sort();
    Ok(contents)
}

/// Calls `see` with each entry of a folder: its name, where that is UTF-8, its path, and whether it is a folder and no link
/// to one.
fn each(path: &Path, mut see: impl FnMut(Option<&str>, PathBuf, bool)) -> Result<()> {
    for entry in fs::read_dir(path).map_err(about("read", path))? {
        let entry = entry.map_err(about("read", path))?;
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        see(entry.file_name().to_str(), entry.path(), is_dir);
    }
    Ok(())
}

fn open_folder(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path)
        .map_err(about("open", path))
}
