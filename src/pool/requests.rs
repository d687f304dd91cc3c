//! The requests that wait in a pool: each until all of its commands are settled, or its deadline passes.

use std::collections::VecDeque;

use slab::Slab;

use crate::command::{Commands, repeatable};
use crate::hold::{Record, Terms};
use crate::ngx::{Msec, Pending};
use crate::reply::Verdict;
use crate::response::{Outcome, Problem, Report};
use crate::window::{Command, Waiter};

/// Requests by number. A number stays taken until each of the request's commands is settled, so that a window may hold it
/// without fear, whatever became of the client meanwhile.
#[derive(Default)]
pub struct Requests {
    waiting: Slab<Waiting>,
    done: Vec<Done>,
    /// In the order in which they pass, for all requests of a pool have the same time.
    deadlines: VecDeque<Deadline>,
    /// Counts the requests.
    serial: u64,
    /// How many events wait.
    events: usize,
}

struct Deadline {
    at: Msec,
    number: u32,
    serial: u64,
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

/// Who is told what became of a request.
pub enum Owner {
    /// A client that waits.
    Client(Pending, Work),
    /// A client that has its answer, as `meteorit_ack queued` promises.
    Queue,
    /// What was held, and is sent now.
    Hold,
    /// A client that has had its answer before the end.
    Gone,
}

struct Waiting {
    owner: Owner,
    terms: Terms,
    /// How many events it has.
    events: u32,
    /// Commands that are not settled.
    outstanding: usize,
    since: Msec,
    serial: u64,
    /// Commands that Redis did not take, and is to take later.
    left: Option<Box<Commands>>,
}

/// A request of which each command is settled, or whose deadline has passed.
pub enum Done {
    /// To be answered.
    Client { pending: Pending, work: Work, redis_time: Msec },
    /// What is left of a queued request goes to the hold.
    Queue(Record),
    /// What was held is done, but for this.
    Hold(Option<Record>),
}

impl Requests {
    /// Takes a request of `commands` commands, at least one, that are of `events` events; gives its number.
    pub fn insert(
        &mut self,
        owner: Owner,
        terms: Terms,
        events: u32,
        commands: usize,
        now: Msec,
        deadline: Msec,
    ) -> u32 {
        self.serial += 1;
        self.events += events as usize;
        let serial = self.serial;
        let has_deadline = matches!(owner, Owner::Client(..));
        let waiting = Waiting { owner, terms, events, outstanding: commands, since: now, serial, left: None };
        // Their number is bounded, by `max_pending`.
        let number = self.waiting.insert(waiting) as u32;
        if has_deadline {
            self.deadlines.push_back(Deadline { at: deadline, number, serial });
        }
        number
    }

    /// One of the request's commands has its verdict; with the last one the request is done.
    pub fn settle(&mut self, waiter: Waiter, verdict: Verdict, reason: impl FnOnce() -> String, now: Msec) {
        let Some(waiting) = self.waiting.get_mut(waiter.request as usize) else { return };
        if let Owner::Client(_, work) = &mut waiting.owner {
            work.add(waiter.event, verdict, reason);
        }
        self.count(waiter.request, now);
    }

    /// Redis has not done a command that it is to do later, by the request's terms: `sent` tells whether it may have.
    /// Whether it is kept so; if not, it is to be settled.
    pub fn keep(&mut self, command: &Command<Waiter>, now: Msec) -> bool {
        let Some(waiting) = self.waiting.get_mut(command.waiter.request as usize) else { return false };
        if !matches!(waiting.owner, Owner::Queue | Owner::Hold) {
            return false;
        }
        let Some((bytes, replies)) = repeatable(command.bytes, command.replies) else { return false };
        waiting.left.get_or_insert_default().push(&bytes, replies);
        self.count(command.waiter.request, now);
        true
    }

    fn count(&mut self, number: u32, now: Msec) {
        let Some(waiting) = self.waiting.get_mut(number as usize) else { return };
        waiting.outstanding = waiting.outstanding.saturating_sub(1);
        if waiting.outstanding > 0 {
            return;
        }
        let Some(waiting) = self.waiting.try_remove(number as usize) else { return };
        self.events -= waiting.events as usize;
        let events = waiting.events;
        let record = waiting.left.map(|commands| Record { commands: *commands, events });
        let redis_time = now.saturating_sub(waiting.since);
        match waiting.owner {
            Owner::Client(pending, work) => self.done.push(Done::Client { pending, work, redis_time }),
            Owner::Queue => self.done.extend(record.map(Done::Queue)),
            Owner::Hold => self.done.push(Done::Hold(record)),
            Owner::Gone => {}
        }
        while let Some(first) = self.deadlines.front()
            && !self.is_waiting(first)
        {
            self.deadlines.pop_front();
        }
    }

    fn is_waiting(&self, deadline: &Deadline) -> bool {
        let waiting = self.waiting.get(deadline.number as usize);
        waiting.is_some_and(|waiting| waiting.serial == deadline.serial && matches!(waiting.owner, Owner::Client(..)))
    }

    /// The numbers of the requests whose deadlines have passed.
    pub fn due(&mut self, now: Msec) -> Vec<u32> {
        let mut due = Vec::new();
        while let Some(first) = self.deadlines.front().filter(|first| first.at <= now) {
            if self.is_waiting(first) {
                due.push(first.number);
            }
            self.deadlines.pop_front();
        }
        due
    }

    /// When the next deadline passes.
    pub fn next_deadline(&self) -> Option<Msec> {
        self.deadlines.front().map(|first| first.at)
    }

    /// The deadline has passed: the request is done, while its number stays taken.
    pub fn expire(&mut self, number: u32, now: Msec) {
        let Some(waiting) = self.waiting.get_mut(number as usize) else { return };
        match std::mem::replace(&mut waiting.owner, Owner::Gone) {
            Owner::Client(pending, mut work) => {
                work.expire(waiting.outstanding, "Redis did not answer in time");
                self.done.push(Done::Client { pending, work, redis_time: now.saturating_sub(waiting.since) });
            }
            other => waiting.owner = other,
        }
    }

    /// Lets the answer, if it becomes a 503, say to come again in `seconds`.
    pub fn retry_after(&mut self, waiter: Waiter, seconds: u32) {
        match self.waiting.get_mut(waiter.request as usize).map(|waiting| &mut waiting.owner) {
            Some(Owner::Client(_, Work::Event(outcome))) => outcome.retry_after_at_least(seconds),
            Some(Owner::Client(_, Work::Batch(report))) => report.retry_after_at_least(waiter.event, seconds),
            Some(Owner::Client(_, Work::Rejected(rejected))) => rejected.1.retry_after_at_least(seconds),
            _ => {}
        }
    }

    /// Whether somebody still wants to know what becomes of it.
    pub fn is_wanted(&self, waiter: Waiter) -> bool {
        let waiting = self.waiting.get(waiter.request as usize);
        waiting.is_some_and(|waiting| !matches!(waiting.owner, Owner::Gone))
    }

    /// Whether no client waits to be told of it, who could send it again.
    pub fn is_promised(&self, waiter: Waiter) -> bool {
        let waiting = self.waiting.get(waiter.request as usize);
        waiting.is_some_and(|waiting| matches!(waiting.owner, Owner::Queue | Owner::Hold))
    }

    /// Whether a command of it may be sent again that Redis may have done.
    pub fn is_ambiguous(&self, waiter: Waiter) -> bool {
        self.waiting.get(waiter.request as usize).is_some_and(|waiting| waiting.terms.ambiguous)
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many events wait.
    pub fn events(&self) -> usize {
        self.events
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

    /// Forgets all of them without an answer; how many events had been promised.
    pub fn abandon(&mut self) -> usize {
        let mut promised = 0;
        for waiting in self.waiting.drain() {
            match waiting.owner {
                Owner::Client(pending, _) => pending.abandon(),
                Owner::Queue | Owner::Hold => promised += waiting.events as usize,
                Owner::Gone => {}
            }
        }
        for done in self.done.drain(..) {
            match done {
                Done::Client { pending, .. } => pending.abandon(),
                Done::Queue(record) | Done::Hold(Some(record)) => promised += record.events as usize,
                Done::Hold(None) => {}
            }
        }
        promised
    }
}
