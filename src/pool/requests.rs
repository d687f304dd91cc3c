//! The requests that wait in a pool: each until all of its commands have a verdict, or its deadline passes.

use slab::Slab;

use crate::ngx::{Msec, Pending};
use crate::reply::Verdict;
use crate::response::{Outcome, Problem, Report};
use crate::window::Waiter;

/// Requests by number. A number stays taken until each of the request's commands is settled, so that a window may hold it
/// without fear, whatever became of the client meanwhile.
#[derive(Default)]
pub struct Requests {
    waiting: Slab<Waiting>,
    done: Vec<Done>,
}

/// What a request asked for, and what became of it so far.
pub enum Work {
    Event(Outcome),
    Batch(Box<Report>),
    /// An event was rejected for this, and its commands set it aside.
    Rejected(Box<(Problem, Outcome)>),
}

impl Work {
    /// Counts the verdict on a command of the event with that number.
    fn add(&mut self, event: u32, verdict: Verdict, reason: impl FnOnce() -> String) {
        match self {
            Work::Event(outcome) => outcome.add(verdict, reason),
            Work::Batch(report) => report.add(event, verdict, reason),
            Work::Rejected(rejected) => rejected.1.add(verdict, reason),
        }
    }

    /// Counts every command without a verdict, `outstanding` in all, as unknown.
    fn expire(&mut self, outstanding: usize, reason: &str) {
        match self {
            Work::Batch(report) => report.expire(reason),
            Work::Event(_) | Work::Rejected(_) => {
                (0..outstanding).for_each(|_| self.add(0, Verdict::Unknown, || reason.into()))
            }
        }
    }
}

struct Waiting {
    /// None when it has been answered before its commands were settled.
    pending: Option<Pending>,
    work: Work,
    /// Commands without a verdict.
    outstanding: usize,
    since: Msec,
    deadline: Msec,
}

/// A request to be answered.
pub struct Done {
    pub pending: Pending,
    pub work: Work,
    pub redis_time: Msec,
}

impl Requests {
    /// Takes a request of `commands` commands, at least one; gives its number.
    pub fn insert(&mut self, pending: Pending, work: Work, commands: usize, now: Msec, deadline: Msec) -> u32 {
        let pending = Some(pending);
        // Each holds a connection of the worker's, of which there are fewer than 2^32.
        self.waiting.insert(Waiting { pending, work, outstanding: commands, since: now, deadline }) as u32
    }

    /// One of the request's commands has its verdict; with the last one the request is done.
    pub fn settle(&mut self, waiter: Waiter, verdict: Verdict, reason: impl FnOnce() -> String, now: Msec) {
        let id = waiter.request as usize;
        let Some(waiting) = self.waiting.get_mut(id) else { return };
        waiting.outstanding = waiting.outstanding.saturating_sub(1);
        if waiting.pending.is_some() {
            waiting.work.add(waiter.event, verdict, reason);
        }
        if waiting.outstanding > 0 {
            return;
        }
        if let Some(waiting) = self.waiting.try_remove(id)
            && let Some(pending) = waiting.pending
        {
            self.done.push(Done { pending, work: waiting.work, redis_time: now.saturating_sub(waiting.since) });
        }
    }

    /// The deadline has passed: the request is done, while its number stays taken.
    pub fn expire(&mut self, waiter: Waiter, now: Msec) {
        const REASON: &str = "Redis did not answer in time";
        let Some(waiting) = self.waiting.get_mut(waiter.request as usize) else { return };
        let Some(pending) = waiting.pending.take() else { return };
        let mut work = std::mem::replace(&mut waiting.work, Work::Event(Outcome::default()));
        work.expire(waiting.outstanding, REASON);
        let redis_time = now.saturating_sub(waiting.since);
        self.done.push(Done { pending, work, redis_time });
    }

    /// Lets the answer, if it becomes a 503, say to come again in `seconds`.
    pub fn retry_after(&mut self, waiter: Waiter, seconds: u32) {
        match self.waiting.get_mut(waiter.request as usize).map(|waiting| &mut waiting.work) {
            Some(Work::Event(outcome)) => outcome.retry_after_at_least(seconds),
            Some(Work::Batch(report)) => report.retry_after_at_least(waiter.event, seconds),
            Some(Work::Rejected(rejected)) => rejected.1.retry_after_at_least(seconds),
            None => {}
        }
    }

    pub fn deadline(&self, waiter: Waiter) -> Option<Msec> {
        self.waiting.get(waiter.request as usize).map(|waiting| waiting.deadline)
    }

    pub fn is_answered(&self, waiter: Waiter) -> bool {
        self.waiting.get(waiter.request as usize).is_none_or(|waiting| waiting.pending.is_none())
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
