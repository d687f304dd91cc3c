//! Disk: a worker's spool as a queue of records: appended at one end, read at the other, deleted once acknowledged.
//!
//! Every call blocks: it is made in a thread of nginx's, or at a worker's end. The lanes that dead workers have left are read
//! before the own one, the oldest first.

mod waiting;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::record::{self, Unencodable};
use super::{Cursor, Lane, Part, Reader, Rejected, Segment, SegmentFile, SegmentName, files};
use crate::command::Commands;
use waiting::{Survey, Waiting};

/// What a spool may be like.
#[derive(Clone, Debug)]
pub struct Limits {
    pub dir: PathBuf,
    /// Of all workers together, in bytes.
    pub max_size: u64,
    /// A segment that is as long takes no more records.
    pub segment: u64,
}

/// The queue. Owns its lanes as long as it lives.
pub struct Disk {
    limits: Limits,
    /// Those of dead workers, the oldest first, and behind them the own one, once it is needed.
    sources: VecDeque<Source>,
    writer: Option<Segment>,
    rejected: Option<Rejected>,
    /// Records that were handed out and not acknowledged, in order.
    out: VecDeque<Place>,
    /// How many records were handed out.
    count: u64,
    /// What all workers use, in bytes, and when that was looked at.
    usage: Option<(u64, Instant)>,
    cursor_written: Option<Instant>,
    notes: Vec<Note>,
    survey: Option<Survey>,
    /// Places that were damaged, since they were asked for last.
    damaged: u64,
}

struct Source {
    lane: Lane,
    is_own: bool,
    cursor: Option<Cursor>,
    segments: VecDeque<Stretch>,
}

/// A segment, and how far it was read.
struct Stretch {
    file: SegmentFile,
    state: State,
    /// Records that were handed out and not acknowledged.
    out: usize,
    is_damaged: bool,
    /// Whether every whole record that was there has been handed out.
    is_drained: bool,
    waiting: Waiting,
}

impl From<SegmentFile> for Stretch {
    fn from(file: SegmentFile) -> Stretch {
        Stretch {
            file,
            state: State::Unread,
            out: 0,
            is_damaged: false,
            is_drained: false,
            waiting: Waiting::default(),
        }
    }
}

enum State {
    Unread,
    Reading { file: File, reader: Reader, skip: u32 },
    Read,
}

/// Where a record that was handed out lies.
struct Place {
    number: u64,
    lane: PathBuf,
    segment: SegmentName,
    start: u64,
    end: u64,
    /// When it was written, in milliseconds since 1970.
    unix_ms: u64,
}

/// A record that was read.
#[derive(Debug)]
pub struct Kept {
    /// By which it is acknowledged.
    pub number: u64,
    pub commands: Commands,
}

/// What is to be told in the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Note {
    pub is_problem: bool,
    pub text: String,
}

impl Note {
    fn problem(text: impl ToString) -> Note {
        Note { is_problem: true, text: text.to_string() }
    }
}

/// Why nothing was appended.
#[derive(Debug, Error)]
pub enum NotKept {
    #[error("the spool has its max_size of {0} bytes")]
    Full(u64),
    #[error("\"{}\" has its share of max_size, {max} bytes: take it away once you have looked at it", .path.display())]
    TooManyRejected { path: PathBuf, max: u64 },
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(transparent)]
    Record(#[from] Unencodable),
}

/// Which part of `max_size` what was rejected may have: the rest stays free for what is to be replayed.
const REJECTED_SHARE: u64 = 8;
/// How much is read from a file at a time, in bytes.
const CHUNK: usize = 64 * 1024;
/// How long the sum of all files is taken for right.
const USAGE_AGE: Duration = Duration::from_secs(1);
/// How often the cursor is written while records are acknowledged.
const CURSOR_AGE: Duration = Duration::from_millis(200);

impl Disk {
    pub fn new(limits: Limits) -> Disk {
        Disk {
            limits,
            sources: VecDeque::new(),
            writer: None,
            rejected: None,
            out: VecDeque::new(),
            count: 0,
            usage: None,
            cursor_written: None,
            notes: Vec::new(),
            survey: None,
            damaged: 0,
        }
    }

    /// Takes over the lanes that nobody owns.
    pub fn adopt(&mut self) {
        let adoption = match Lane::adopt(&self.limits.dir) {
            Ok(adoption) => adoption,
            Err(error) => return self.notes.push(Note::problem(error)),
        };
        self.notes.extend(adoption.failed.iter().map(Note::problem));
        for lane in adoption.lanes {
            match Source::of(lane) {
                Ok(source) if source.segments.is_empty() => {
                    let _ = source.lane.remove_if_empty();
                }
                Ok(source) => {
                    let own = usize::from(self.sources.back().is_some_and(|source| source.is_own));
                    let at = self.sources.iter().take(self.sources.len() - own);
                    let at = at.filter(|other| other.lane.name() < source.lane.name()).count();
                    // What is being read is not overtaken.
                    let at = at.max(usize::from(self.sources.front().is_some_and(Source::is_begun)));
                    let text = format!("taking over \"{}\" of a worker that is gone", source.lane.path().display());
                    self.notes.push(Note { is_problem: false, text });
                    self.sources.insert(at.min(self.sources.len() - own), source);
                }
                Err(error) => self.notes.push(Note::problem(error)),
            }
        }
    }

    /// Appends records, all of them or none, and brings them to the disk where `sync` says so.
    pub fn append(&mut self, records: &[Commands], unix_ms: u64, sync: bool) -> Result<(), NotKept> {
        if self.writer.as_ref().is_some_and(|writer| writer.len() >= self.limits.segment) {
            self.finish_segment(sync)?;
        }
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => self.begin_segment()?,
        };
        let writer = self.writer.insert(writer);
        let mut bytes = Vec::new();
        for commands in records {
            let commands =
                commands.entries().map(|(bytes, replies)| record::Command { bytes, replies: count(replies) });
            record::encode(writer.marker(), unix_ms, "", commands, &mut bytes)?;
        }
        let length = bytes.len() as u64;
        if self.usage() + length > self.limits.max_size {
            return Err(NotKept::Full(self.limits.max_size));
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.append(&bytes)?;
        if let Some(stretch) = self.sources.back_mut().and_then(|own| own.segments.back_mut()) {
            stretch.waiting.append(records.len(), unix_ms);
        }
        if let Some((usage, _)) = &mut self.usage {
            *usage += length;
        }
        match sync {
            true => Ok(writer.sync()?),
            false => Ok(()),
        }
    }

    /// Brings to the disk what was appended.
    pub fn sync(&mut self) -> Result<(), NotKept> {
        Ok(self.writer.as_mut().map_or(Ok(()), Segment::sync)?)
    }

    /// Adds to the file of what Redis has refused for good, with why; while that file has no more than its share.
    pub fn reject(&mut self, commands: &Commands, unix_ms: u64, note: &str) -> Result<(), NotKept> {
        let rejected = match self.rejected.take().filter(|rejected| rejected.size().is_some()) {
            Some(rejected) => rejected,
            None => Rejected::open(&self.limits.dir)?,
        };
        let rejected = self.rejected.insert(rejected);
        let mut bytes = Vec::new();
        let commands = commands.entries().map(|(bytes, replies)| record::Command { bytes, replies: count(replies) });
        record::encode(rejected.marker(), unix_ms, note, commands, &mut bytes)?;
        let max = self.limits.max_size / REJECTED_SHARE;
        if rejected.size().unwrap_or(0) + bytes.len() as u64 > max {
            return Err(NotKept::TooManyRejected { path: rejected.path().into(), max });
        }
        Ok(rejected.append(&bytes)?)
    }

    /// The next records, until they have so many bytes or commands, or there are no more.
    pub fn read(&mut self, max_bytes: usize, max_commands: usize) -> Vec<Kept> {
        let Disk { sources, writer, out, count, notes, damaged, .. } = self;
        let written = writer.as_ref().map(Segment::name);
        let (mut records, mut length, mut read) = (Vec::new(), 0, 0);
        for source in sources.iter_mut() {
            let Source { lane, segments, cursor, .. } = source;
            for stretch in segments.iter_mut() {
                while length < max_bytes && read < max_commands {
                    let name = stretch.file.name;
                    let may_grow = written == Some(name);
                    match stretch.next(*cursor, may_grow) {
                        Ok(Next::Record { start, end, unix_ms, commands }) => {
                            length += commands.len();
                            read += commands.count();
                            *count += 1;
                            out.push_back(Place {
                                number: *count,
                                lane: lane.path().into(),
                                segment: name,
                                start,
                                end,
                                unix_ms,
                            });
                            records.push(Kept { number: *count, commands });
                        }
                        Ok(Next::Damage(text)) => {
                            *damaged += 1;
                            notes.push(Note::problem(format!("\"{}\": {text}", stretch.file.path.display())));
                        }
                        Ok(Next::End) => break,
                        Err(error) => {
                            *damaged += 1;
                            notes.push(Note::problem(error));
                            (stretch.state, stretch.is_damaged) = (State::Read, true);
                        }
                    }
                }
            }
        }
        self.tidy();
        records
    }

    /// Acknowledges a record: it is done with for good.
    pub fn acknowledge(&mut self, number: u64) {
        let Some(at) = self.out.iter().position(|place| place.number == number) else { return };
        let Some(place) = self.out.remove(at) else { return };
        let source = self.sources.iter_mut().find(|source| source.lane.path() == place.lane);
        if let Some(source) = source {
            if let Some(stretch) = source.segments.iter_mut().find(|stretch| stretch.file.name == place.segment) {
                stretch.out -= 1;
                stretch.waiting.acknowledge(place.unix_ms);
            }
            // Only what all before is done with, too.
            if at == 0 {
                source.cursor = Some(Cursor { segment: place.segment, offset: place.end, commands: 0 });
            }
        }
        if at == 0 && self.cursor_written.is_none_or(|when| when.elapsed() >= CURSOR_AGE) {
            self.write_cursors();
        }
        self.tidy();
    }

    /// Of the oldest record that was handed out, so many commands are done with.
    pub fn acknowledge_part(&mut self, number: u64, commands: u32) {
        let Some(place) = self.out.front().filter(|place| place.number == number) else { return };
        if let Some(source) = self.sources.iter_mut().find(|source| source.lane.path() == place.lane) {
            let before = source.cursor.filter(|cursor| cursor.segment == place.segment && cursor.offset == place.start);
            let commands = before.map_or(0, |cursor| cursor.commands) + commands;
            source.cursor = Some(Cursor { segment: place.segment, offset: place.start, commands });
        }
    }

    /// Whether there are records that were not handed out.
    pub fn has_unread(&mut self) -> bool {
        let written = self.writer.as_ref().map(Segment::name);
        let mut stretches = self.sources.iter_mut().flat_map(|source| &mut source.segments);
        stretches.any(|stretch| match stretch.state {
            State::Unread => true,
            State::Reading { .. } => written != Some(stretch.file.name) || !stretch.is_read_so_far(),
            State::Read => false,
        })
    }

    /// Whether every record was acknowledged.
    pub fn is_empty(&self) -> bool {
        self.sources.iter().all(|source| source.segments.is_empty())
    }

    /// What is to be told in the log.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// How many places were found damaged since the last call.
    pub fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.damaged)
    }

    /// Lets others have the lanes, with what is in them.
    pub fn close(&mut self) {
        self.write_cursors();
        self.writer = None;
        self.tidy();
        for source in self.sources.drain(..).filter(|source| source.segments.is_empty()) {
            let _ = source.lane.remove_if_empty();
        }
    }

    fn write_cursors(&mut self) {
        self.cursor_written = Some(Instant::now());
        for source in &self.sources {
            if let Some(cursor) = &source.cursor
                && let Err(error) = source.lane.write_cursor(cursor)
            {
                self.notes.push(Note::problem(error));
            }
        }
    }

    /// What the folder holds, of all workers, in bytes; as of the last second.
    pub fn usage(&mut self) -> u64 {
        match self.usage {
            Some((usage, when)) if when.elapsed() < USAGE_AGE => usage,
            _ => {
                let usage = files::usage(&self.limits.dir).unwrap_or(0);
                self.usage = Some((usage, Instant::now()));
                usage
            }
        }
    }

    fn begin_segment(&mut self) -> Result<Segment, NotKept> {
        // Somebody may have taken the lane's folder away.
        let is_gone = |own: &Source| own.segments.is_empty() && !own.lane.path().exists();
        if self.sources.back().is_some_and(|source| source.is_own && is_gone(source)) {
            self.sources.pop_back();
        }
        if !self.sources.back().is_some_and(|source| source.is_own) {
            let lane = Lane::create(&self.limits.dir)?;
            self.sources.push_back(Source { lane, is_own: true, cursor: None, segments: VecDeque::new() });
        }
        let Some(own) = self.sources.back_mut() else { return Err(NotKept::Full(0)) };
        let number = own.segments.back().map_or(1, |last| last.file.name.number.saturating_add(1));
        let number = own.cursor.map_or(number, |cursor| number.max(cursor.segment.number.saturating_add(1)));
        let segment = Segment::create(&own.lane, number)?;
        let file = SegmentFile { path: segment.path().into(), name: segment.name(), length: segment.len() };
        let waiting = Waiting { is_known: true, ..Waiting::default() };
        own.segments.push_back(Stretch { waiting, ..file.into() });
        Ok(segment)
    }

    fn finish_segment(&mut self, sync: bool) -> Result<(), NotKept> {
        if sync && let Some(writer) = &mut self.writer {
            writer.sync()?;
        }
        self.writer = None;
        Ok(())
    }

    /// Deletes what is done with.
    fn tidy(&mut self) {
        let written = self.writer.as_ref().map(Segment::name);
        let mut notes = Vec::new();
        let mut ends_writer = false;
        for source in &mut self.sources {
            let Source { lane, segments, .. } = source;
            segments.retain_mut(|stretch| {
                let is_written = written == Some(stretch.file.name);
                let done = stretch.out == 0 && (stretch.is_read() || is_written && stretch.is_read_so_far());
                if !done {
                    return true;
                }
                ends_writer |= is_written;
                let result = match stretch.is_damaged {
                    true => lane.set_aside(&stretch.file).map(|path| {
                        notes.push(Note::problem(format!("the damaged segment is kept as \"{}\"", path.display())));
                    }),
                    false => lane.remove(&stretch.file),
                };
                notes.extend(result.err().map(Note::problem));
                false
            });
        }
        if ends_writer {
            self.writer = None;
            self.usage = None;
        }
        self.sources.retain(|source| {
            let gone = !source.is_own && source.segments.is_empty();
            if gone {
                let _ = source.lane.remove_if_empty();
            }
            !gone
        });
        self.notes.extend(notes);
    }
}

impl Source {
    fn of(lane: Lane) -> files::Result<Source> {
        let (segments, cursor) = (lane.segments()?, lane.read_cursor()?);
        let first = cursor.map_or(0, |cursor| cursor.segment.number);
        let (done, segments): (Vec<_>, Vec<_>) = segments.into_iter().partition(|file| file.name.number < first);
        done.iter().try_for_each(|file| lane.remove(file))?;
        Ok(Source { lane, is_own: false, cursor, segments: segments.into_iter().map(Stretch::from).collect() })
    }

    fn is_begun(&self) -> bool {
        self.segments.front().is_some_and(|stretch| !matches!(stretch.state, State::Unread))
    }
}

enum Next {
    Record { start: u64, end: u64, unix_ms: u64, commands: Commands },
    Damage(String),
    End,
}

impl Stretch {
    fn is_read(&self) -> bool {
        matches!(self.state, State::Read)
    }

    /// Whether nothing has been appended since it was read to its end.
    fn is_read_so_far(&mut self) -> bool {
        let State::Reading { file, .. } = &mut self.state else { return false };
        if !self.is_drained {
            return false;
        }
        let at = file.stream_position().ok();
        at.is_some() && at == file.metadata().ok().map(|found| found.len())
    }

    fn next(&mut self, cursor: Option<Cursor>, may_grow: bool) -> files::Result<Next> {
        if matches!(self.state, State::Unread) {
            let (offset, skip) = Cursor::within(cursor, self.file.name);
            let (file, reader) = self.file.open_at(offset)?;
            self.state = State::Reading { file, reader, skip };
        }
        self.is_drained = false;
        let State::Reading { file, reader, skip } = &mut self.state else { return Ok(Next::End) };
        let mut ended = false;
        loop {
            match reader.next() {
                Some(Part::Intact { offset, end, record }) => {
                    let (mut commands, unix_ms) = (Commands::new(), record.unix_ms);
                    let skipped = std::mem::take(skip) as usize;
                    for command in record.commands().skip(skipped) {
                        commands.push(command.bytes, command.replies.get().into());
                    }
                    if commands.is_empty() {
                        continue;
                    }
                    self.out += 1;
                    return Ok(Next::Record { start: offset, end, unix_ms, commands });
                }
                Some(Part::Damaged { from, to }) => {
                    self.is_damaged = true;
                    return Ok(Next::Damage(format!("bytes {from} to {to} are damaged and are skipped")));
                }
                Some(Part::Torn { from, .. }) => {
                    return Ok(Next::Damage(format!("the record at byte {from} was not written whole and is skipped")));
                }
                Some(Part::Unreadable(why)) => {
                    (self.state, self.is_damaged) = (State::Read, true);
                    return Ok(Next::Damage(why.to_string()));
                }
                None if ended => {
                    self.state = State::Read;
                    return Ok(Next::End);
                }
                None => {}
            }
            let mut bytes = vec![0; CHUNK];
            match file.read(&mut bytes) {
                Ok(0) if may_grow => {
                    self.is_drained = true;
                    return Ok(Next::End);
                }
                Ok(0) => {
                    reader.end();
                    ended = true;
                }
                Ok(count) => reader.push(bytes.get(..count).unwrap_or_default()),
                Err(source) => {
                    return Err(files::Error { action: "read", path: self.file.path.clone(), source });
                }
            }
        }
    }
}

/// A transaction with more replies than a record can say has no end that Redis would take.
fn count(replies: u32) -> NonZeroU16 {
    u16::try_from(replies).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MAX)
}

#[cfg(test)]
mod tests;
