//! The files of a spool, and the parts of each. Holds one record in memory, and locks nothing for longer than a look.

use std::fs;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ngx_http_meteorit_module::spool::files::{self, DAMAGED};
use ngx_http_meteorit_module::spool::{Contents, Cursor, Lane, LaneName, Part, Reader, SegmentFile, SegmentName};

use crate::Result;

/// How much is read at a time, in bytes.
const CHUNK: usize = 256 * 1024;

/// A lane as found, not owned.
pub struct FoundLane {
    pub name: LaneName,
    /// Whether some process owns it.
    pub held: bool,
    pub cursor: Option<Cursor>,
    pub contents: Contents,
}

/// A file to read.
pub struct Source {
    pub path: PathBuf,
    pub reader: Reader,
    /// Whether it may grow, or go away, while it is read.
    pub live: bool,
    /// What is before this has been replayed: an offset, and how many commands of the record there.
    pub replayed: (u64, u32),
}

/// The lanes in a folder, oldest first; one that goes away meanwhile is left out.
pub fn lanes(dir: &Path) -> Result<(Vec<FoundLane>, Vec<PathBuf>)> {
    let folder = files::in_folder(dir)?;
    let mut lanes = Vec::new();
    for (path, name) in folder.lanes {
        lanes.extend(unless_gone(lane(&path, name))?);
    }
    Ok((lanes, folder.foreign))
}

fn lane(path: &Path, name: LaneName) -> files::Result<FoundLane> {
    let contents = files::contents(path)?;
    Ok(FoundLane { held: Lane::is_held(path)?, cursor: Cursor::read(path)?, contents, name })
}

/// None for what is no longer there.
fn unless_gone<T>(found: files::Result<T>) -> files::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// The files to read in `path`: itself, or the segments of the lane or of all lanes in it, oldest first.
pub fn sources(path: &Path) -> Result<Vec<Source>> {
    let found = fs::metadata(path).map_err(|e| format!("cannot look at \"{}\": {e}", path.display()))?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !found.is_dir() {
        let name = name.strip_suffix(DAMAGED).and_then(|name| name.strip_suffix('.')).unwrap_or(name);
        let marker = SegmentName::parse(name).map(|name| name.marker);
        let reader = Reader::new(marker);
        return Ok(vec![Source { path: path.to_path_buf(), reader, live: false, replayed: (0, 0) }]);
    }
    let lanes = match LaneName::parse(name) {
        Some(name) => vec![lane(path, name)?],
        None => lanes(path)?.0,
    };
    Ok(lanes.iter().flat_map(FoundLane::sources).collect())
}

impl FoundLane {
    /// Its segments, oldest first.
    pub fn sources(&self) -> impl Iterator<Item = Source> + '_ {
        self.contents.segments.iter().map(|SegmentFile { path, name, .. }| Source {
            path: path.clone(),
            reader: Reader::new(Some(name.marker)),
            live: self.held,
            replayed: Cursor::within(self.cursor, *name),
        })
    }
}

impl Source {
    /// Calls `see` with each part, until it breaks. A live file that has gone away has no parts.
    pub fn each(self, see: impl FnMut(Part) -> Result<ControlFlow<()>>) -> Result<()> {
        match fs::File::open(&self.path) {
            Ok(file) => each_part(file, &self.path, self.reader, see),
            Err(error) if self.live && error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(format!("cannot open \"{}\": {error}", self.path.display()).into()),
        }
    }
}

/// Calls `see` with each part of a file from where it stands, until it breaks.
pub fn each_part(
    mut file: fs::File,
    path: &Path,
    mut reader: Reader,
    mut see: impl FnMut(Part) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = match file.read(&mut chunk) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(format!("cannot read \"{}\": {error}", path.display()).into()),
        };
        match count {
            0 => reader.end(),
            count => reader.push(chunk.get(..count).unwrap_or_default()),
        }
        while let Some(part) = reader.next() {
            if see(part)?.is_break() {
                return Ok(());
            }
        }
        if count == 0 {
            return Ok(());
        }
    }
}
