//! Events with a 2xx that are not in Redis: whether it was with a worker that held them that they went.

use super::{Entry, Promise};
use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// How workers ended that could not, or did not, hand over what they held.
#[derive(Clone, Debug, Default)]
pub struct Ends {
    /// Those that the test has killed.
    pub killed: BTreeMap<i32, SystemTime>,
    /// Those that said how many events are lost with them.
    pub told: BTreeMap<i32, usize>,
}

impl Ends {
    /// Likewise, of what nginx has logged.
    pub fn of(killed: BTreeMap<i32, SystemTime>, log: &str) -> Ends {
        let mut told = BTreeMap::new();
        for line in log.lines() {
            // 2026/01/31 12:00:00 [alert] PID#PID: redis "NAME": COUNT events that were accepted are lost: WHY
            let Some((before, _)) = line.split_once(" events that were accepted are lost") else { continue };
            let pid = before.split(' ').nth(3).and_then(|word| word.split_once('#')?.0.parse().ok());
            let count = before.rsplit(' ').next().and_then(|word| word.parse::<usize>().ok());
            let (Some(pid), Some(count)) = (pid, count) else { panic!("no worker or no number in {line:?}") };
            *told.entry(pid).or_default() += count;
        }
        Ends { killed, told }
    }
}

/// How many events went with each worker that may have lost them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    pub killed: BTreeMap<i32, usize>,
    pub told: BTreeMap<i32, usize>,
}

impl Lost {
    pub fn add(&mut self, other: &Lost) {
        self.killed.extend(&other.killed);
        self.told.extend(&other.told);
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Lost { killed, told } = self;
        let sum = |lost: &BTreeMap<i32, usize>| lost.values().sum::<usize>();
        let most = killed.values().max().unwrap_or(&0);
        let (workers, others) = (killed.len(), told.len());
        write!(f, "{} lost with {workers} killed workers, at most {most} with one, ", sum(killed))?;
        write!(f, "{} with {others} that said so", sum(told))
    }
}

/// What is lost, by the worker that promised it.
#[derive(Default)]
pub struct Losses(BTreeMap<Option<i32>, Vec<Entry>>);

impl Losses {
    pub fn add(&mut self, entry: Entry) {
        self.0.entry(entry.worker).or_default().push(entry);
    }

    /// What none may have lost goes to `faults`. `entries` are all that there are.
    pub fn judge(self, entries: &[Entry], promise: &Promise, ends: &Ends, faults: &mut Vec<String>) -> Lost {
        let mut counts = Lost::default();
        for (worker, lost) in self.0 {
            let killed = worker.and_then(|worker| ends.killed.get(&worker)).filter(|_| promise.held > 0);
            let told = worker.and_then(|worker| ends.told.get(&worker)).copied().filter(|_| promise.may_tell);
            let why = match (killed, told) {
                (_, Some(told)) if lost.len() <= told => None,
                (Some(at), _) => {
                    promise.cannot_have_held(&lost, entries).map(|why| format!("was killed at {}, {why}", unix(*at)))
                }
                (None, Some(told)) => Some(format!("said that {told} are lost, not {}", lost.len())),
                (None, None) => Some("must lose none".into()),
            };
            if let Some(why) = why {
                let who = worker.map_or_else(|| "nobody knows which".into(), |worker| worker.to_string());
                faults.extend(lost.iter().map(|Entry { id, answer, at, .. }| {
                    format!("event {id}, answered {answer:?} at {}, is lost: its worker, {who}, {why}", unix(*at))
                }));
            }
            let of = if killed.is_some() { &mut counts.killed } else { &mut counts.told };
            of.extend(worker.map(|worker| (worker, lost.len())));
        }
        counts
    }
}

impl Promise {
    /// Why a worker that was killed cannot have held all of these.
    fn cannot_have_held(&self, lost: &[Entry], entries: &[Entry]) -> Option<String> {
        if lost.len() > self.held {
            return Some(format!("with {} events that are lost, and held {} at most", lost.len(), self.held));
        }
        let first = lost.iter().min_by_key(|entry| entry.at)?;
        let is_later =
            |entry: &&Entry| entry.worker == first.worker && entry.at > first.at && entry.answer.is_promise();
        let later = entries.iter().filter(is_later).count();
        // What Redis refuses goes behind what waits then, and no further.
        (later >= lost.len() + self.held)
            .then(|| format!("and promised {later} more after the first of {}", lost.len()))
    }
}

/// In seconds, as `date -d @SECONDS` takes them.
fn unix(at: SystemTime) -> String {
    format!("{:.3}", at.duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64()))
}
