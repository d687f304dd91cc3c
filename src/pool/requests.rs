//! The requests that wait in a pool: each until all of its commands have a verdict, or its deadline passes.

use slab::Slab;

use crate::ngx::{Msec, Pending};
use crate::reply::Verdict;
use crate::response::Outcome;

/// Requests by number. A number stays taken until each of the request's commands is settled, so that a window may hold it
/// without fear, whatever became of the client meanwhile.
#[derive(Default)]
pub struct Requests {
    waiting: Slab<Waiting>,
    done: Vec<Done>,
}

struct Waiting {
    /// None when it has been answered before its commands were settled.
    pending: Option<Pending>,
    outcome: Outcome,
    /// Commands without a verdict.
    outstanding: usize,
    since: Msec,
    deadline: Msec,
}

/// A request to be answered.
pub struct Done {
    pub pending: Pending,
    pub outcome: Outcome,
    pub redis_time: Msec,
}

impl Requests {
    /// Takes a request of `commands` commands, at least one; gives its number.
    pub fn insert(&mut self, pending: Pending, commands: usize, now: Msec, deadline: Msec) -> usize {
        let outcome = Outcome::default();
        let pending = Some(pending);
        self.waiting.insert(Waiting { pending, outcome, outstanding: commands, since: now, deadline })
    }

    /// One of the request's commands has its verdict; with the last one the request is done.
    pub fn settle(&mut self, id: usize, verdict: Verdict, reason: impl FnOnce() -> String, now: Msec) {
        let Some(waiting) = self.waiting.get_mut(id) else { return };
        waiting.outstanding = waiting.outstanding.saturating_sub(1);
        if waiting.pending.is_some() {
            waiting.outcome.add(verdict, reason);
        }
        if waiting.outstanding > 0 {
            return;
        }
        if let Some(waiting) = self.waiting.try_remove(id)
            && let Some(pending) = waiting.pending
        {
            self.done.push(Done { pending, outcome: waiting.outcome, redis_time: now.saturating_sub(waiting.since) });
        }
    }

    /// The deadline has passed: the request is done, while its number stays taken.
    pub fn expire(&mut self, id: usize, now: Msec) {
        let Some(waiting) = self.waiting.get_mut(id) else { return };
        let Some(pending) = waiting.pending.take() else { return };
        let mut outcome = std::mem::take(&mut waiting.outcome);
        for _ in 0..waiting.outstanding {
            outcome.add(Verdict::Unknown, || "Redis did not answer in time".into());
        }
        let redis_time = now.saturating_sub(waiting.since);
        self.done.push(Done { pending, outcome, redis_time });
    }

    /// Lets the answer, if it becomes a 503, say to come again in `seconds`.
    pub fn retry_after(&mut self, id: usize, seconds: u32) {
        if let Some(waiting) = self.waiting.get_mut(id) {
            waiting.outcome.retry_after_at_least(seconds);
        }
    }

    pub fn deadline(&self, id: usize) -> Option<Msec> {
        self.waiting.get(id).map(|waiting| waiting.deadline)
    }

    pub fn is_answered(&self, id: usize) -> bool {
        self.waiting.get(id).is_none_or(|waiting| waiting.pending.is_none())
    }

    /// The requests that are done; give the emptied vector back by [`Requests::reuse`].
    pub fn take_done(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.done)
    }

    pub fn reuse(&mut self, emptied: Vec<Done>) {
        if self.done.is_empty() {
            self.done = emptied;
        }
    }

    /// Forgets all of them without an answer.
    pub fn abandon(&mut self) {
        let waiting = self.waiting.drain().filter_map(|waiting| waiting.pending);
        waiting.chain(self.done.drain(..).map(|done| done.pending)).for_each(Pending::abandon);
    }
}
