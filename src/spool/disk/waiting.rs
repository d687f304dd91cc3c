//! Waiting: how many records are still to be replayed, and since when the oldest of them waits.
//!
//! What this worker writes is counted as it goes. The segments of dead workers are read through once, a bounded part at a
//! time; what is damaged in them does not count.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use super::super::{Cursor, Part, Reader, SegmentName};
use super::{CHUNK, Disk, Source, Stretch};

/// How much is read through at a time, in bytes.
const SURVEY: usize = 4 * 1024 * 1024;

/// What waits in one segment.
#[derive(Default)]
pub(super) struct Waiting {
    /// Records that were not acknowledged; below 0 for a moment, when others of the segment are not counted yet.
    pub records: i64,
    /// When the oldest of them was written, or the last one that was acknowledged, in milliseconds since 1970; 0 when that is
    /// not known.
    pub oldest: u64,
    /// Whether all of its records have been counted.
    pub is_known: bool,
}

/// A segment that is being read through.
pub(super) struct Survey {
    lane: PathBuf,
    segment: SegmentName,
    file: File,
    reader: Reader,
    records: i64,
    oldest: u64,
}

impl Waiting {
    pub fn append(&mut self, records: usize, unix_ms: u64) {
        if self.records <= 0 {
            self.oldest = unix_ms;
        }
        self.records += records as i64;
    }

    pub fn acknowledge(&mut self, unix_ms: u64) {
        self.records -= 1;
        self.oldest = unix_ms;
    }
}

impl Disk {
    /// How many records were not acknowledged, as far as they are counted, and when the oldest was written, in milliseconds
    /// since 1970; 0 when there is none.
    pub fn waiting(&self) -> (u64, u64) {
        let records: i64 = self.stretches().map(|stretch| stretch.waiting.records).sum();
        let first = self.stretches().find(|stretch| stretch.waiting.records > 0);
        let oldest = self.out.front().map(|place| place.unix_ms).or(first.map(|stretch| stretch.waiting.oldest));
        (u64::try_from(records).unwrap_or(0), oldest.filter(|_| records > 0).unwrap_or(0))
    }

    /// Reads through a part of what dead workers have left; whether there is more of it.
    pub fn survey(&mut self) -> bool {
        if let Some(mut survey) = self.survey.take().or_else(|| self.begin_survey()) {
            match survey.go_on() {
                true => {
                    let found = self.find(&survey.lane, survey.segment);
                    if let Some(waiting) = found.map(|stretch| &mut stretch.waiting) {
                        waiting.records += survey.records;
                        waiting.oldest = survey.oldest.max(waiting.oldest);
                        waiting.is_known = true;
                    }
                }
                false => self.survey = Some(survey),
            }
        }
        self.survey.is_some() || self.stretches().any(|stretch| !stretch.waiting.is_known)
    }

    fn begin_survey(&mut self) -> Option<Survey> {
        for Source { lane, cursor, segments, .. } in &mut self.sources {
            for stretch in segments.iter_mut().filter(|stretch| !stretch.waiting.is_known) {
                let (offset, _) = Cursor::within(*cursor, stretch.file.name);
                match stretch.file.open_at(offset) {
                    Ok((file, reader)) => {
                        stretch.waiting.records = 0;
                        let (lane, segment) = (lane.path().into(), stretch.file.name);
                        return Some(Survey { lane, segment, file, reader, records: 0, oldest: 0 });
                    }
                    // Whoever reads it for the replay says why.
                    Err(_) => stretch.waiting.is_known = true,
                }
            }
        }
        None
    }

    pub(super) fn find(&mut self, lane: &std::path::Path, segment: SegmentName) -> Option<&mut Stretch> {
        let source = self.sources.iter_mut().find(|source| source.lane.path() == lane)?;
        source.segments.iter_mut().find(|stretch| stretch.file.name == segment)
    }

    fn stretches(&self) -> impl Iterator<Item = &Stretch> {
        self.sources.iter().flat_map(|source| &source.segments)
    }
}

impl Survey {
    /// Whether that was the end of the segment.
    fn go_on(&mut self) -> bool {
        let mut bytes = vec![0; CHUNK];
        for _ in 0..SURVEY / CHUNK {
            let ended = match self.file.read(&mut bytes) {
                Ok(0) | Err(_) => {
                    self.reader.end();
                    true
                }
                Ok(count) => {
                    self.reader.push(bytes.get(..count).unwrap_or_default());
                    false
                }
            };
            while let Some(part) = self.reader.next() {
                match part {
                    Part::Intact { record, .. } => {
                        self.records += 1;
                        self.oldest = if self.oldest == 0 { record.unix_ms } else { self.oldest };
                    }
                    Part::Unreadable(_) => return true,
                    _ => {}
                }
            }
            if ended {
                return true;
            }
        }
        false
    }
}
