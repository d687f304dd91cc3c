//! The requests that wait in a pool: each until all of its commands are settled, or its deadline passes.

use std::collections::VecDeque;

use slab::Slab;

use super::spooler::{Waits, Write, Written};
use crate::command::{Commands, repeatable};
use crate::hold::{Record, Terms};
use crate::ngx::{Msec, Pending};
use crate::reply::Verdict;
use crate::request::selftest::Running;
use crate::response::{Fate, Outcome, Problem, Report};
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
    /// How many requests no client waits for any more, to whom they were promised.
    promised: usize,
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
    SelfTest(Box<Running>),
}

impl Work {
    /// Counts the verdict on a command of the event with that number; `reason` says what Redis answered, or why nothing.
    fn add(&mut self, event: u32, verdict: Verdict, reason: impl FnOnce() -> String) {
        match self {
            Work::Event(outcome) => outcome.add(verdict, reason),
            Work::Batch(report) => report.add(event, verdict, reason),
            Work::Rejected(rejected) => rejected.1.add(verdict, reason),
            Work::SelfTest(running) => running.test.add(verdict, reason()),
        }
    }

    /// A command of the event with that number went to the spool, or did not.
    pub fn spooled(&mut self, event: u32, written: Written) {
        match (written, &mut *self) {
            (Written::Yes, Work::Event(outcome)) => outcome.spool(),
            (Written::Yes, Work::Batch(report)) => report.spool(event),
            (Written::Yes, Work::Rejected(rejected)) => rejected.1.spool(),
            // Never sent there.
            (Written::Yes, Work::SelfTest(_)) => {}
            (Written::No(reason), work) => {
                work.add(event, Verdict::Unavailable, || format!("Redis is away, and {reason}"))
            }
            (Written::Unknown, work) => work
                .add(event, Verdict::Unknown, || "Redis is away, and the spool's disk did not answer in time".into()),
        }
    }

    /// Whether it is unknown what became of a command of the event with that number.
    fn is_unclear(&self, event: u32) -> bool {
        let fate = match self {
            Work::Event(outcome) => outcome.fate(),
            Work::Batch(report) => report.fate_of(event),
            Work::Rejected(rejected) => rejected.1.fate(),
            Work::SelfTest(_) => return false,
        };
        fate == Fate::Timeout
    }

    /// Counts every command without a verdict, `outstanding` in all, as unknown.
    fn expire(&mut self, outstanding: usize, reason: &str) {
        match self {
            Work::Batch(report) => report.expire(reason),
            Work::Event(_) | Work::Rejected(_) | Work::SelfTest(_) => {
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
    /// What was held, and is sent now; with where it lies in the spool, if it does.
    Hold(Option<u64>),
    /// A client that has had its answer before the end.
    Gone,
}

impl Owner {
    /// Whether no client waits to be told of it, who could send it again.
    fn is_promised(&self) -> bool {
        matches!(self, Owner::Queue | Owner::Hold(_))
    }
}

struct Waiting {
    owner: Owner,
    terms: Terms,
    /// How many events it has.
    events: u32,
    /// How many commands it has.
    commands: usize,
    /// Commands that are not settled.
    outstanding: usize,
    since: Msec,
    deadline: Msec,
    serial: u64,
    left: Option<Box<Left>>,
}

/// Commands that Redis did not take, and is to take later.
#[derive(Default)]
struct Left {
    commands: Commands,
    /// For each of them the number of its event; they grow.
    numbers: Vec<u32>,
    /// The events of those that are not sent later than at their time.
    dropped: Vec<u32>,
}

/// A request of which each command is settled, or whose deadline has passed.
pub enum Done {
    /// To be answered.
    Client { pending: Pending, work: Work, redis_time: Msec },
    /// What is left of a client's request goes to the spool.
    Spool(Write),
    /// What is left of a queued request goes to the hold.
    Queue(Record),
    /// What was held, and where it lies in the spool if it does, is done.
    Hold(Option<u64>),
    /// This is left of what was held, of so many commands.
    HoldLeft(Record, usize),
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
        self.promised += usize::from(owner.is_promised());
        let outstanding = commands;
        let waiting = Waiting { owner, terms, events, commands, outstanding, since: now, deadline, serial, left: None };
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

    /// Redis has not done a command, or, where `command` was sent and not answered, may have: whether it is to do it later,
    /// by the request's terms. If so the command is settled.
    pub fn keep(&mut self, command: &Command<Waiter>, is_unclear: bool, now: Msec) -> bool {
        let Waiter { request, event } = command.waiter;
        let Some(waiting) = self.waiting.get_mut(request as usize) else { return false };
        let keeps = match waiting.owner {
            Owner::Queue | Owner::Hold(_) => true,
            Owner::Client(..) => waiting.terms.spool && (!is_unclear || waiting.terms.ambiguous),
            Owner::Gone => false,
        };
        if !keeps {
            return false;
        }
        let left = waiting.left.get_or_insert_default();
        match repeatable(&command.bytes(), command.replies) {
            Some((bytes, replies)) => {
                left.commands.push(&bytes, replies);
                left.numbers.push(event);
            }
            None => left.dropped.push(event),
        }
        self.count(request, now);
        true
    }

    fn count(&mut self, number: u32, now: Msec) {
        let Some(waiting) = self.waiting.get_mut(number as usize) else { return };
        waiting.outstanding = waiting.outstanding.saturating_sub(1);
        if waiting.outstanding > 0 {
            return;
        }
        let Some(waiting) = self.waiting.try_remove(number as usize) else { return };
        let Waiting { owner, terms, events, commands, left, since, deadline, .. } = waiting;
        self.events -= events as usize;
        self.promised -= usize::from(owner.is_promised());
        let redis_time = now.saturating_sub(since);
        let record = |left: Box<Left>, kept| {
            let record = Record { commands: left.commands, events, spool: terms.spool, kept };
            (!record.commands.is_empty()).then_some(record)
        };
        match (owner, left) {
            (Owner::Client(pending, work), None) => self.done.push(Done::Client { pending, work, redis_time }),
            (Owner::Client(pending, work), Some(left)) => {
                let waits = Waits { pending, work, numbers: Vec::new(), redis_time, deadline };
                self.leave(waits, *left, events);
            }
            (Owner::Queue, left) => {
                self.done.extend(left.and_then(|left| record(left, None)).map(Done::Queue));
            }
            (Owner::Hold(kept), left) => match left.and_then(|left| record(left, kept)) {
                None => self.done.push(Done::Hold(kept)),
                Some(record) => self.done.push(Done::HoldLeft(record, commands)),
            },
            (Owner::Gone, _) => {}
        }
        while let Some(first) = self.deadlines.front()
            && !self.is_waiting(first)
        {
            self.deadlines.pop_front();
        }
    }

    /// All that Redis takes now of a client's request is done: what is left goes to the spool, but for events of which it is
    /// unknown what became of them.
    fn leave(&mut self, mut waits: Waits, left: Left, events: u32) {
        const REASON: &str = "Redis is away";
        let mut commands = Commands::new();
        let Waits { work, numbers, .. } = &mut waits;
        for ((command, replies), number) in left.commands.entries().zip(left.numbers) {
            match work.is_unclear(number) {
                true => work.add(number, Verdict::Unavailable, || REASON.into()),
                false => {
                    commands.push(command, replies);
                    numbers.push(number);
                }
            }
        }
        for number in left.dropped {
            // An event of which more is kept is accepted without what was to be published of it.
            if numbers.binary_search(&number).is_err() {
                work.add(number, Verdict::Unavailable, || REASON.into());
            }
        }
        self.done.push(match commands.is_empty() {
            true => Done::Client { pending: waits.pending, work: waits.work, redis_time: waits.redis_time },
            false => Done::Spool(Write { commands, events, waits: Some(waits) }),
        });
    }

    /// A client's event was written to the spool, or was not.
    pub fn spooled(&mut self, waits: Waits, written: Written) {
        let Waits { pending, mut work, numbers, redis_time, .. } = waits;
        for number in numbers {
            work.spooled(number, written);
        }
        self.done.push(Done::Client { pending, work, redis_time });
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
        waiting.is_some_and(|waiting| waiting.owner.is_promised())
    }

    /// Whether commands of it may go to the spool.
    pub fn may_spool(&self, waiter: Waiter) -> bool {
        self.waiting.get(waiter.request as usize).is_some_and(|waiting| waiting.terms.spool)
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

    /// Whether there are requests that a client waits for, or has waited for.
    pub fn has_clients(&self) -> bool {
        self.waiting.len() > self.promised
    }

    /// How many requests no client waits for any more, to whom they were promised.
    pub fn promised(&self) -> usize {
        self.promised
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
        for waiting in self.waiting.drain() {
            if let Owner::Client(pending, _) = waiting.owner {
                pending.abandon();
            }
        }
    }
}
