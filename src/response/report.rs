//! What became of the events of a batch: those refused here and those that went to Redis, each by its place in the body.

use std::fmt::Write;
use std::ops::Range;

use serde_json::json;

use super::{Cause, Fate, Lack, Outcome, Tally, Why};
use crate::reply::Verdict;

/// How many errors an answer lists; all are counted.
const LISTED: usize = 100;

/// A batch, from being taken apart to its answer.
#[derive(Debug, Default)]
pub struct Report {
    /// How many events there were.
    total: u32,
    taken: Vec<Taken>,
    /// Of the events that are taken, one behind the other.
    ids: Vec<u8>,
    errors: Vec<Error>,
    /// Events that broke a rule here and were not set aside, listed or not.
    refused: u32,
    /// How many events are no JSON.
    no_json: u32,
    /// Good events that are not taken because others are bad.
    left: u32,
    /// Of those in `refused`.
    tally: Tally,
}

/// An event whose commands go to Redis.
#[derive(Debug)]
struct Taken {
    index: u32,
    /// Where among the ids.
    id: Range<usize>,
    /// Where in the body.
    place: Range<usize>,
    /// Of an event that was rejected: the commands are those that set it aside.
    error: Option<Error>,
    /// Commands without a verdict.
    outstanding: u32,
    outcome: Outcome,
}

/// What is wrong with an event.
#[derive(Clone, Debug)]
pub struct Error {
    pub index: u32,
    pub status: u16,
    /// Where in the event; empty for the whole.
    pub pointer: String,
    pub detail: String,
    pub why: Why,
}

impl Report {
    /// With room for so many events.
    pub fn with_capacity(events: usize) -> Report {
        Report { taken: Vec::with_capacity(events), ..Report::default() }
    }

    /// An event of `commands` commands goes to Redis; gives the number by which its verdicts are counted. `place` is where
    /// in the body it stands.
    pub fn take(&mut self, index: u32, id: &[u8], place: Range<usize>, commands: u32) -> u32 {
        self.total += 1;
        let start = self.ids.len();
        self.ids.extend_from_slice(id);
        self.push(index, start..self.ids.len(), place, None, commands)
    }

    /// An event broke a rule, and `commands` commands set it aside; gives the number by which their verdicts are counted.
    pub fn set_aside(&mut self, error: Error, commands: u32) -> u32 {
        self.total += 1;
        self.no_json += u32::from(error.status == 400);
        self.push(error.index, 0..0, 0..0, Some(error), commands)
    }

    fn push(
        &mut self,
        index: u32,
        id: Range<usize>,
        place: Range<usize>,
        error: Option<Error>,
        outstanding: u32,
    ) -> u32 {
        self.taken.push(Taken { index, id, place, error, outstanding, outcome: Outcome::default() });
        self.taken.len() as u32 - 1
    }

    /// A good event is not taken because another one is bad.
    pub fn leave(&mut self) {
        self.total += 1;
        self.left += 1;
    }

    /// The events that Redis has refused for good: each number, with where in the body the event stands.
    pub fn refused_by_redis(&self) -> Vec<(u32, Range<usize>)> {
        let refused =
            |taken: &&Taken| taken.error.is_none() && matches!(taken.outcome.fate(), Fate::Rejected | Fate::Refused);
        let numbered = self.taken.iter().zip(0..);
        numbered.filter(|(taken, _)| refused(taken)).map(|(taken, number)| (number, taken.place.clone())).collect()
    }

    /// What became of the event with that number, which is then forgotten.
    pub fn outcome(&mut self, number: u32) -> Outcome {
        self.taken.get_mut(number as usize).map(|taken| std::mem::take(&mut taken.outcome)).unwrap_or_default()
    }

    /// An event that Redis refused is set aside by `commands` commands.
    pub fn set_refused_aside(&mut self, number: u32, error: Error, commands: u32) {
        if let Some(taken) = self.taken.get_mut(number as usize) {
            taken.outstanding = commands;
            taken.error = Some(Error { index: taken.index, ..error });
        }
    }

    /// What was to set events aside is not written, for this reason.
    pub fn fail(&mut self, reason: &str) {
        for taken in self.taken.iter_mut().filter(|taken| taken.outstanding > 0) {
            taken.outstanding = 0;
            taken.outcome.add(Verdict::Unavailable, || reason.to_owned());
        }
    }

    /// An event broke a rule.
    pub fn refuse(&mut self, error: Error) {
        self.total += 1;
        self.refused += 1;
        self.no_json += u32::from(error.status == 400);
        self.tally.add(Fate::Rejected, error.why, 1);
        if self.errors.len() < LISTED {
            self.errors.push(error);
        }
    }

    /// How many events go to Redis.
    pub fn taken(&self) -> u32 {
        self.taken.len() as u32
    }

    /// Counts the verdict on a command of the event with that number.
    pub fn add(&mut self, number: u32, verdict: Verdict, reason: impl FnOnce() -> String) {
        if let Some(taken) = self.taken.get_mut(number as usize) {
            taken.outstanding = taken.outstanding.saturating_sub(1);
            taken.outcome.add(verdict, reason);
        }
    }

    /// Counts every command without a verdict as unknown.
    pub fn expire(&mut self, reason: &str) {
        for taken in &mut self.taken {
            for _ in 0..std::mem::take(&mut taken.outstanding) {
                taken.outcome.add(Verdict::Unknown, || reason.to_owned());
            }
        }
    }

    /// Nothing was sent: none of them is taken after all.
    pub fn take_none(&mut self) {
        self.left += self.taken();
        self.taken.clear();
        self.ids.clear();
    }

    /// Whether each event is at fault itself, so that none need come again.
    pub fn is_rejected(&self) -> bool {
        self.left == 0 && matches!(self.fate(), Fate::Rejected | Fate::Refused)
    }

    fn accepted(&self) -> impl Iterator<Item = &Taken> {
        self.taken.iter().filter(|taken| taken.fate().is_accepted())
    }

    /// What is true of the batch as a whole: unknown as soon as any event is, or when only a part of what Redis may still
    /// take was accepted; accepted when any was and the others are at fault themselves.
    pub fn fate(&self) -> Fate {
        let (mut accepted, mut worst) = (None, Fate::Rejected);
        for fate in self.taken.iter().map(Taken::fate) {
            match fate.is_accepted() {
                true => accepted = accepted.max(Some(fate)),
                false => worst = worst.max(fate),
            }
        }
        match (worst, accepted) {
            (Fate::Timeout, _) | (Fate::Unavailable, Some(_)) => Fate::Timeout,
            (Fate::Unavailable, None) => Fate::Unavailable,
            (_, Some(fate)) => fate,
            (worst, None) => worst,
        }
    }

    /// The status: 200 when every event was stored, 202 when every one was accepted, 207 when some were and the others are at
    /// fault, else that of the fate.
    pub fn status(&self) -> u16 {
        match self.fate() {
            fate if fate.is_accepted() => {
                let all = self.refused == 0 && self.accepted().count() == self.taken.len();
                match (all, fate) {
                    (true, Fate::Stored | Fate::DryRun) => 200,
                    (true, fate) => fate.status(),
                    (false, _) => 207,
                }
            }
            // 400 only if each event at fault is no JSON: a mixture has valid JSON that breaks rules.
            Fate::Rejected if self.no_json > 0 && self.no_json == self.refused + self.taken() => 400,
            fate => fate.status(),
        }
    }

    /// A command of the event with that number is in the spool until Redis takes it.
    pub fn spool(&mut self, number: u32) {
        if let Some(taken) = self.taken.get_mut(number as usize) {
            taken.outstanding = taken.outstanding.saturating_sub(1);
            taken.outcome.spool();
        }
    }

    /// What is known of the event with that number so far.
    pub fn fate_of(&self, number: u32) -> Fate {
        self.taken.get(number as usize).map_or(Fate::Stored, |taken| taken.outcome.fate())
    }

    /// Every event that was taken is held here until Redis takes it.
    pub fn queue(&mut self) {
        self.taken.iter_mut().for_each(|taken| taken.outcome = Outcome::queued());
    }

    /// Nothing is written of all that was taken.
    pub fn dry_run(&mut self) {
        self.taken.iter_mut().for_each(|taken| taken.outcome = Outcome::dry_run());
    }

    /// How many events became what. Good ones that others took with them count as a part of an invalid batch.
    pub fn tally(&self) -> Tally {
        let mut tally = self.tally;
        for taken in &self.taken {
            let why = match &taken.error {
                Some(error) if taken.outcome.fate().is_accepted() => error.why,
                Some(_) => Why::Unavailable(Lack::NotSetAside),
                None if taken.fate() == Fate::Unavailable => Why::Unavailable(Lack::Redis),
                None => Why::Rejected(Cause::RejectedByRedis),
            };
            tally.add(taken.fate(), why, 1);
        }
        match self.fate() {
            Fate::Unavailable | Fate::Timeout => {
                tally.add(Fate::Unavailable, Why::Unavailable(Lack::NotSetAside), self.left)
            }
            _ => tally.add(Fate::Rejected, Why::Rejected(Cause::InvalidBatch), self.left),
        }
        tally
    }

    /// How many events there were so far.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// In seconds, for a 503.
    pub fn retry_after(&self) -> u32 {
        self.taken.iter().map(|taken| taken.outcome.retry_after()).max().unwrap_or(1)
    }

    /// Lets a 503 say when to come again, for the event with that number.
    pub fn retry_after_at_least(&mut self, number: u32, seconds: u32) {
        if let Some(taken) = self.taken.get_mut(number as usize) {
            taken.outcome.retry_after_at_least(seconds);
        }
    }

    /// In one sentence.
    pub fn detail(&self) -> String {
        let stored = self.accepted().count();
        let total = self.total;
        let is_told = |taken: &&Taken| match &taken.error {
            Some(_) => taken.fate() > Fate::Refused,
            None => !taken.fate().is_accepted(),
        };
        match self.taken.iter().max_by_key(|taken| taken.fate()).filter(is_told) {
            Some(taken) => format!("{stored} of {total} events were stored; {}", taken.error().detail),
            None => format!("{stored} of {total} events were stored"),
        }
    }

    /// The members of a JSON object that say it all, without the braces: `accepted`, `rejected`, `ids`, `errors`, and, when
    /// the status does not tell, the indexes that are `stored`.
    pub fn members(&self) -> String {
        let mut text = String::new();
        let failed = self.taken.iter().filter(|taken| !taken.fate().is_accepted());
        let failed: Vec<Error> = failed.map(Taken::error).collect();
        let rejected = self.refused as usize + failed.iter().filter(|error| error.status < 503).count();
        let mut errors: Vec<&Error> = self.errors.iter().chain(&failed).collect();
        errors.sort_by_key(|error| error.index);
        errors.truncate(LISTED);
        let id = |taken: &Taken| String::from_utf8_lossy(self.ids.get(taken.id.clone()).unwrap_or_default());
        let ids: Vec<_> = self.accepted().map(id).collect();
        let errors: Vec<_> = errors.into_iter().map(Error::json).collect();
        // Writing to a String cannot fail.
        let _ = write!(text, r#""accepted":{},"rejected":{rejected},"ids":{}"#, ids.len(), json!(ids));
        let _ = write!(text, r#","errors":[{}]"#, errors.join(","));
        if self.status() >= 500 {
            let indexes: Vec<u32> = self.accepted().map(|taken| taken.index).collect();
            let _ = write!(text, r#","stored":{}"#, json!(indexes));
        }
        text
    }
}

impl Taken {
    /// An event that was rejected, and could not be set aside, is to come again.
    fn fate(&self) -> Fate {
        match (&self.error, self.outcome.fate()) {
            (None, fate) => fate,
            (Some(Error { status: 502, .. }), fate) if fate.is_accepted() => Fate::Refused,
            (Some(_), fate) if fate.is_accepted() => Fate::Rejected,
            (Some(_), _) => Fate::Unavailable,
        }
    }

    fn error(&self) -> Error {
        let status = self.fate().status();
        let detail = match &self.error {
            Some(error) if status < 503 => return error.clone(),
            Some(error) => format!("{}; it could not be set aside: {}", error.detail, self.outcome.detail()),
            None => self.outcome.detail(),
        };
        Error { index: self.index, status, pointer: String::new(), detail, why: Why::Else }
    }
}

impl Error {
    /// As a JSON object.
    pub(super) fn json(&self) -> String {
        let Error { index, status, .. } = self;
        let (pointer, detail) = (json!(self.pointer), json!(self.detail));
        format!(r#"{{"index":{index},"status":{status},"pointer":{pointer},"detail":{detail}}}"#)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn report(verdicts: &[Verdict], refused: &[u16]) -> Report {
        let mut report = Report::default();
        for (index, verdict) in verdicts.iter().enumerate() {
            let number = report.take(index as u32, format!("id{index}").as_bytes(), 0..0, 1);
            report.add(number, *verdict, || "X".into());
        }
        for (index, status) in refused.iter().enumerate() {
            let index = (verdicts.len() + index) as u32;
            let why = Why::Rejected(Cause::InvalidEvent);
            report.refuse(Error { index, status: *status, pointer: "/a".into(), detail: "bad".into(), why });
        }
        report
    }

    fn members(report: &Report) -> Value {
        serde_json::from_str(&format!("{{{}}}", report.members())).unwrap()
    }

    #[test]
    fn the_events_decide_the_status() {
        use Verdict::*;
        for (verdicts, refused, status) in [
            (&[Stored, Stored][..], &[][..], 200),
            (&[Stored], &[422], 207),
            (&[Stored, Rejected], &[], 207),
            (&[Stored, Refused], &[], 207),
            (&[], &[422, 400], 422),
            (&[], &[400, 400], 400),
            (&[Rejected], &[], 422),
            (&[Refused], &[422], 502),
            (&[Unavailable, Unavailable], &[422], 503),
            (&[Unavailable, Stored], &[], 504),
            (&[Unknown, Stored], &[], 504),
        ] {
            assert_eq!(report(verdicts, refused).status(), status, "{verdicts:?} {refused:?}");
        }
    }

    #[test]
    fn the_members_name_what_is_stored_and_what_is_wrong() {
        let all = members(&report(&[Verdict::Stored, Verdict::Rejected], &[422]));
        assert_eq!((&all["accepted"], &all["rejected"], &all["ids"]), (&json!(1), &json!(2), &json!(["id0"])));
        assert_eq!(all["errors"][0], json!({"index": 1, "status": 422, "pointer": "", "detail": "X"}));
        assert_eq!(all["errors"][1], json!({"index": 2, "status": 422, "pointer": "/a", "detail": "bad"}));
        assert_eq!(all.get("stored"), None);
        let part = members(&report(&[Verdict::Unavailable, Verdict::Stored], &[]));
        assert_eq!((&part["stored"], &part["rejected"]), (&json!([1]), &json!(0)));
    }

    #[test]
    fn each_event_is_counted_once() {
        let mut all =
            report(&[Verdict::Stored, Verdict::Rejected, Verdict::Unavailable, Verdict::Unknown], &[422, 400]);
        let error =
            Error { index: 6, status: 422, pointer: "".into(), detail: "".into(), why: Why::Rejected(Cause::Schema) };
        let aside = all.set_aside(error.clone(), 1);
        all.add(aside, Verdict::Stored, String::new);
        let lost = all.set_aside(error, 1);
        all.add(lost, Verdict::Unavailable, String::new);
        all.leave();
        let tally = all.tally();
        let fates = [Fate::Stored, Fate::Rejected, Fate::Unavailable, Fate::Timeout].map(|it| tally.fates[it as usize]);
        assert_eq!((fates, tally.fates.iter().sum::<u32>()), ([1, 4, 3, 1], all.total()));
        let causes = [Cause::RejectedByRedis, Cause::InvalidEvent, Cause::Schema].map(|it| tally.causes[it as usize]);
        let lacks = [Lack::Redis, Lack::NotSetAside].map(|it| tally.lacks[it as usize]);
        assert_eq!((causes, lacks), ([1, 2, 1], [1, 2]));
        assert_eq!((tally.accepted(), tally.rejected()), (1, 4));
    }

    #[test]
    fn the_good_events_of_a_bad_batch_are_counted_too() {
        let mut bad = report(&[Verdict::Stored], &[422]);
        bad.take_none();
        let tally = bad.tally();
        assert_eq!((tally.fates[Fate::Rejected as usize], tally.causes[Cause::InvalidBatch as usize]), (2, 1));
    }

    #[test]
    fn what_has_no_verdict_by_the_deadline_is_unknown() {
        let mut report = report(&[Verdict::Stored], &[]);
        report.take(1, b"id1", 0..0, 2);
        report.expire("late");
        assert_eq!((report.status(), &members(&report)["stored"]), (504, &json!([0])));
    }

    #[test]
    fn a_hundred_errors_are_listed_and_all_are_counted() {
        let report = report(&[], &[422; 250]);
        let members = members(&report);
        assert_eq!((members["errors"].as_array().unwrap().len(), &members["rejected"]), (100, &json!(250)));
    }
}
