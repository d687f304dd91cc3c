//! `replay`: the records of lanes that nobody owns go to a Redis, in their order.
//!
//! As in the module, a command is done with when Redis has answered it, or refuses it for good: then it goes to the file
//! `rejected`. What is sent at once is bounded, and repeated by the next replay where no answer came, or one that says
//! "not now": at least once.

use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use ngx_http_meteorit_module::reply::Verdict;
use ngx_http_meteorit_module::spool::{Command, Cursor, Lane, Part, Record, Rejected, SegmentFile, record};

use crate::link::Link;
use crate::{Result, scan, text, verify};

/// What is sent before its replies are read; it ends with the record that goes beyond either.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_COMMANDS: usize = 500;

/// Whether nothing is left that could have been sent.
pub fn run(dir: &Path, url: &str, keep: bool) -> Result<bool> {
    let link = Link::open(url)?;
    let adoption = Lane::adopt(dir)?;
    let mut replay =
        Replay { link, dir: dir.to_path_buf(), keep, rejected: None, batch: Batch::default(), tally: Tally::default() };
    let mut stopped = None;
    for lane in &adoption.lanes {
        match replay.lane(lane) {
            Ok(None) => {}
            Ok(Some(reason)) => {
                stopped = Some(format!("{reason}: stopped in {}", lane.path().display()));
                break;
            }
            Err(error) => {
                replay.tally.print()?;
                return Err(error);
            }
        }
    }
    replay.tally.print()?;
    for path in &adoption.held {
        text::out(&format!("left {}, which a running process owns\n", path.display()))?;
    }
    for error in &adoption.failed {
        eprintln!("meteorit-spool: {error}");
    }
    if let Some(reason) = &stopped {
        eprintln!("meteorit-spool: {reason}");
    }
    Ok(stopped.is_none() && adoption.failed.is_empty())
}

struct Replay {
    link: Link,
    dir: PathBuf,
    keep: bool,
    /// Opened when the first command is refused.
    rejected: Option<Rejected>,
    batch: Batch,
    tally: Tally,
}

/// Commands of one segment that are sent at once.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    commands: Vec<Sent>,
}

struct Sent {
    /// In the batch.
    bytes: Range<usize>,
    replies: u16,
    unix_ms: u64,
    /// The offset of its record, and its number in it.
    place: (u64, u32),
    /// The place behind it.
    next: (u64, u32),
}

#[derive(Default)]
struct Tally {
    records: u64,
    commands: u64,
    rejected: u64,
    damaged: u64,
    segments: u64,
}

/// Why the replay cannot go on for now.
type Stop = String;

/// What a command's replies say.
enum Answer {
    Done,
    /// It, or a part of it, will never do.
    Refused(String),
    Stop(Stop),
}

impl Replay {
    fn lane(&mut self, lane: &Lane) -> Result<Option<Stop>> {
        let cursor = lane.read_cursor()?;
        for segment in lane.segments()? {
            let damaged_before = self.tally.damaged;
            if let Some(reason) = self.segment(lane, &segment, Cursor::within(cursor, segment.name))? {
                return Ok(Some(reason));
            }
            self.tally.segments += 1;
            if self.keep {
                continue;
            }
            if self.tally.damaged == damaged_before {
                lane.remove(&segment)?;
            } else {
                let aside = lane.set_aside(&segment)?;
                eprintln!("meteorit-spool: what is damaged is kept as {}", aside.display());
            }
        }
        if !self.keep {
            lane.remove_if_empty()?;
        }
        Ok(None)
    }

    /// Sends what of a segment is not done with.
    fn segment(&mut self, lane: &Lane, segment: &SegmentFile, from: (u64, u32)) -> Result<Option<Stop>> {
        let (file, reader) = segment.open_at(from.0)?;
        let mut stop = None;
        scan::each_part(file, &segment.path, reader, |part| {
            match part {
                Part::Intact { offset, end, record } => {
                    let skip = if offset == from.0 { from.1 } else { 0 };
                    self.batch.push(&record, offset, end, skip);
                    if self.batch.is_full()
                        && let Some(reason) = self.flush(lane, segment)?
                    {
                        stop = Some(reason);
                        return Ok(ControlFlow::Break(()));
                    }
                }
                // What was torn off was never promised to anybody.
                Part::Torn { .. } => eprintln!("meteorit-spool: {}", verify::complaint(&segment.path, &part)),
                part => {
                    self.tally.damaged += 1;
                    eprintln!("meteorit-spool: {}", verify::complaint(&segment.path, &part));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        match stop {
            Some(reason) => Ok(Some(reason)),
            None => self.flush(lane, segment),
        }
    }
    /// Sends the batch and reads its replies; the cursor is then where the replay goes on.
    fn flush(&mut self, lane: &Lane, segment: &SegmentFile) -> Result<Option<Stop>> {
        let batch = std::mem::take(&mut self.batch);
        let Some(last) = batch.commands.last() else { return Ok(None) };
        let mut place = last.next;
        let mut stop = self.link.send(&batch.bytes).err().map(|e| format!("cannot send: {e}"));
        for sent in &batch.commands {
            let answer = match stop.take() {
                Some(reason) => Answer::Stop(reason),
                None => self.answer(sent.replies),
            };
            match answer {
                Answer::Done => self.tally.commands += 1,
                Answer::Refused(reason) => self.reject(sent, batch.bytes.get(sent.bytes.clone()), &reason)?,
                Answer::Stop(reason) => {
                    place = sent.place;
                    stop = Some(reason);
                    break;
                }
            }
            self.tally.records += u64::from(sent.next.1 == 0);
        }
        if !self.keep {
            lane.write_cursor(&Cursor { segment: segment.name, offset: place.0, commands: place.1 })?;
        }
        Ok(stop)
    }

    /// Reads what answers a command.
    fn answer(&mut self, replies: u16) -> Answer {
        match self.link.answer(replies) {
            Err(reason) => Answer::Stop(format!("no reply: {reason}")),
            Ok((Verdict::Stored, _)) => Answer::Done,
            Ok((Verdict::Rejected | Verdict::Refused, text)) => {
                // Nothing is wrong with the event.
                if ["MOVED ", "ASK "].iter().any(|word| text.starts_with(word)) {
                    return Answer::Stop(format!("that Redis is a node of a cluster: {text}"));
                }
                Answer::Refused(text)
            }
            Ok((Verdict::Unavailable, text)) => Answer::Stop(text),
            Ok((Verdict::Unknown, text)) => Answer::Stop(format!("an unclear reply: {text}")),
        }
    }

    fn reject(&mut self, sent: &Sent, bytes: Option<&[u8]>, reason: &str) -> Result<()> {
        self.tally.rejected += 1;
        if self.keep {
            eprintln!("meteorit-spool: refused: {reason}");
            return Ok(());
        }
        let rejected = match &mut self.rejected {
            Some(rejected) => rejected,
            none => none.insert(Rejected::open(&self.dir)?),
        };
        let replies = sent.replies.try_into()?;
        let command = Command { bytes: bytes.unwrap_or_default(), replies };
        let mut encoded = Vec::new();
        record::encode(rejected.marker(), sent.unix_ms, reason, [command].into_iter(), &mut encoded)?;
        Ok(rejected.append(&encoded)?)
    }
}

impl Batch {
    /// Adds a record but for its first `skip` commands.
    fn push(&mut self, record: &Record, offset: u64, end: u64, skip: u32) {
        let count = record.command_count() as u32;
        for (index, command) in (0..count).zip(record.commands()).skip(skip as usize) {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(command.bytes);
            self.commands.push(Sent {
                bytes: start..self.bytes.len(),
                replies: command.replies.get(),
                unix_ms: record.unix_ms,
                place: (offset, index),
                next: if index + 1 < count { (offset, index + 1) } else { (end, 0) },
            });
        }
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || self.commands.len() >= BATCH_COMMANDS
    }
}

impl Tally {
    fn print(&self) -> Result<()> {
        let Tally { records, commands, rejected, damaged, segments } = self;
        text::out(&format!(
            "{segments} segments and {records} records done with: {commands} commands acknowledged, {rejected} rejected; \
             {damaged} damaged places\n"
        ))
    }
}
