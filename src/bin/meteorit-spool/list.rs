//! `list`: what is in a spool, a line for each lane.

use std::ops::ControlFlow;
use std::path::Path;

use ngx_http_meteorit_module::spool::Part;
use ngx_http_meteorit_module::spool::files::REJECTED;
use serde_json::json;

use crate::scan::{self, FoundLane, Source};
use crate::{Result, text};

/// What is still to be replayed.
#[derive(Default)]
struct Count {
    records: u64,
    commands: u64,
    oldest: Option<u64>,
    /// Places in the segments, and segments that were set aside.
    damaged: u64,
    bytes: u64,
}

pub fn run(dir: &Path, json: bool) -> Result<()> {
    let (lanes, foreign) = scan::lanes(dir)?;
    let mut rows = Vec::new();
    for lane in &lanes {
        let mut count = Count::default();
        for source in lane.sources() {
            count.add(source)?;
        }
        count.damaged += lane.contents.damaged.len() as u64;
        count.bytes = lane.contents.segments.iter().map(|segment| segment.length).sum();
        rows.push((lane, count));
    }
    let rejected = dir.join(REJECTED);
    let rejected = match rejected.is_file() {
        true => Some(Count::of_file(&rejected)?),
        false => None,
    };
    match json {
        true => print_json(&rows, rejected.as_ref()),
        false => print_table(&rows, rejected.as_ref()),
    }?;
    for path in foreign.iter().chain(lanes.iter().flat_map(|lane| &lane.contents.foreign)) {
        eprintln!("meteorit-spool: \"{}\" is not the spool's", path.display());
    }
    Ok(())
}

impl Count {
    fn of_file(path: &Path) -> Result<Count> {
        let mut count = Count { bytes: std::fs::metadata(path).map_or(0, |found| found.len()), ..Count::default() };
        for source in scan::sources(path)? {
            count.add(source)?;
        }
        Ok(count)
    }

    fn add(&mut self, source: Source) -> Result<()> {
        let (replayed, live) = (source.replayed, source.live);
        source.each(|part| {
            match part {
                Part::Intact { end, .. } if end <= replayed.0 => {}
                Part::Intact { offset, record, .. } => {
                    let done = if offset == replayed.0 { u64::from(replayed.1) } else { 0 };
                    self.records += 1;
                    self.commands += (record.command_count() as u64).saturating_sub(done);
                    self.oldest = Some(self.oldest.map_or(record.unix_ms, |oldest| oldest.min(record.unix_ms)));
                }
                Part::Torn { .. } if live => {}
                _ => self.damaged += 1,
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

fn print_table(rows: &[(&FoundLane, Count)], rejected: Option<&Count>) -> Result<()> {
    let line = |name: &str, held: &str, segments: &str, count: &Count| {
        let oldest = count.oldest.map_or("-".into(), text::age);
        let (records, commands, damaged) = (count.records, count.commands, count.damaged);
        let bytes = text::size(count.bytes);
        format!("{name:<24} {held:<6} {segments:>8} {records:>9} {commands:>9} {bytes:>8} {oldest:>8} {damaged:>8}\n")
    };
    text::out(&format!(
        "{:<24} {:<6} {:>8} {:>9} {:>9} {:>8} {:>8} {:>8}\n",
        "LANE", "OWNED", "SEGMENTS", "RECORDS", "COMMANDS", "BYTES", "OLDEST", "DAMAGED"
    ))?;
    for (lane, count) in rows {
        let held = if lane.held { "yes" } else { "no" };
        text::out(&line(&lane.name.to_string(), held, &lane.contents.segments.len().to_string(), count))?;
    }
    match rejected {
        Some(count) => text::out(&line(REJECTED, "-", "-", count)),
        None => Ok(()),
    }
}

fn print_json(rows: &[(&FoundLane, Count)], rejected: Option<&Count>) -> Result<()> {
    for (lane, count) in rows {
        let line = json!({
            "lane": lane.name.to_string(),
            "owned": lane.held,
            "segments": lane.contents.segments.len(),
            "records": count.records,
            "commands": count.commands,
            "bytes": count.bytes,
            "oldest_unix_ms": count.oldest,
            "damaged": count.damaged,
        });
        text::out(&format!("{line}\n"))?;
    }
    let Some(count) = rejected else { return Ok(()) };
    let line = json!({
        "lane": null,
        "file": REJECTED,
        "records": count.records,
        "commands": count.commands,
        "bytes": count.bytes,
        "oldest_unix_ms": count.oldest,
        "damaged": count.damaged,
    });
    text::out(&format!("{line}\n"))
}
