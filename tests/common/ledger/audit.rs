//! The audit: what is in Redis against what was promised.

use super::losses::{Ends, Losses, Lost};
use super::{Answer, Entry, Promise, id_of};
use std::collections::{BTreeMap, HashMap};
use std::fmt;

/// How many violations a failing audit tells.
const TOLD: usize = 10;

/// What an audit found in order.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    answers: BTreeMap<Answer, usize>,
    /// Events that are there more than once, where that is allowed.
    pub repeated: usize,
    /// Events with a 2xx that are not there, where that is allowed.
    pub lost: Lost,
    /// Events with an unclear answer that are there.
    pub unclear_and_there: usize,
}

impl Counts {
    pub fn of(&self, status: u16) -> usize {
        self.answers.get(&Answer::Status(status)).copied().unwrap_or(0)
    }

    /// 2xx.
    pub fn promised(&self) -> usize {
        (200..300).map(|status| self.of(status)).sum()
    }

    /// Whose connection nginx ended without an answer.
    pub fn cut(&self) -> usize {
        self.answers.get(&Answer::Cut).copied().unwrap_or(0)
    }

    pub fn add(&mut self, other: &Counts) {
        for (answer, count) in &other.answers {
            *self.answers.entry(*answer).or_default() += count;
        }
        self.repeated += other.repeated;
        self.lost.add(&other.lost);
        self.unclear_and_there += other.unclear_and_there;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for (answer, count) in &self.answers {
            write!(f, "{count} x {answer:?}, ")?;
        }
        write!(f, "{} repeated, {} unclear and there, {}", self.repeated, self.unclear_and_there, self.lost)
    }
}

/// Compares the entries with what is in Redis, in the order of its list, and with how workers ended; tells what is wrong, else what there
/// was.
pub fn audit(entries: &[Entry], stored: &[Vec<u8>], promise: &Promise, ends: &Ends) -> Result<Counts, String> {
    let mut faults = Vec::new();
    let mut places: HashMap<u64, Vec<usize>> = HashMap::with_capacity(stored.len());
    for (place, bytes) in stored.iter().enumerate() {
        match id_of(bytes) {
            Some(id) => places.entry(id).or_default().push(place),
            None => faults.push(format!("not an event as it was sent: {:?}", shown(bytes))),
        }
    }
    let mut counts = Counts::default();
    let mut losses = Losses::default();
    let mut last: HashMap<u64, (usize, Entry)> = HashMap::new();
    let mut entries = entries.to_vec();
    entries.sort_by_key(|entry| entry.id);
    for entry in &entries {
        let found = places.remove(&entry.id).unwrap_or_default();
        *counts.answers.entry(entry.answer).or_default() += 1;
        counts.repeated += usize::from(found.len() > 1);
        let promised = entry.answer.is_promise();
        match promise.copies(&entry.answer) {
            _ if promised && found.is_empty() => losses.add(*entry),
            None => faults.push(format!("event {} was answered {:?}", entry.id, entry.answer)),
            Some(copies) if !copies.contains(&found.len()) => faults.push(format!(
                "event {} was answered {:?} and is there {} times",
                entry.id,
                entry.answer,
                found.len()
            )),
            Some(_) => {}
        }
        // Only what was promised has a place in the order: what is unclear may have been written late, on a connection of the past.
        counts.unclear_and_there += usize::from(!promised && !found.is_empty());
        let Some(&place) = found.first().filter(|_| promised && promise.in_order) else { continue };
        if let Some((before, earlier)) = last.insert(entry.connection, (place, *entry))
            && before > place
        {
            let Entry { id, answer, .. } = entry;
            faults.push(format!(
                "event {id}, answered {answer:?}, is there {} places before event {}, answered {:?}, which was sent before it",
                before - place,
                earlier.id,
                earlier.answer
            ));
        }
    }
    counts.lost = losses.judge(&entries, promise, ends, &mut faults);
    faults.extend(places.keys().map(|id| format!("event {id} is there and nobody sent it")));
    if faults.is_empty() {
        return Ok(counts);
    }
    let more = faults.len().saturating_sub(TOLD);
    faults.truncate(TOLD);
    Err(format!("{}\nand {more} more faults; in all {counts}", faults.join("\n")))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned()
}
