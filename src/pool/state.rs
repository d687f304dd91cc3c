//! What a pool holds: its connections, the requests that wait, and what was promised. It changes only while nobody is answered.

use super::line::Line;
use super::requests::{Done, Owner, Requests, Work};
use super::spooler::{Spooler, Waits, Write, Written};
use crate::command::{Commands, repeatable};
use crate::conf::redis::Settings;
use crate::hold::{Hold, Record, Terms};
use crate::metrics::{Connections, Gauges};
use crate::ngx::{self, Level, Msec, Pending, Posted, Timer};
use crate::reply::Verdict;
use crate::window::Waiter;

pub struct State {
    pub lines: Vec<Line>,
    pub requests: Requests,
    /// What was promised and could not be sent, or was not taken.
    pub hold: Hold,
    /// Where there is a spool.
    pub spooler: Option<Spooler>,
    /// The connection that requests go to until the next write.
    pub current: usize,
    /// The connection that what was held goes to.
    pub replaying: usize,
    /// How many commands of it, since `go_on`, which lets more of it go in the next iteration of the loop.
    pub replayed: usize,
    pub go_on: Posted,
    /// Sends, at the end of an iteration, what requests have appended, unless more of them are coming.
    pub flush: Posted,
    pub gathered: Gathered,
    /// For deadlines, and for what is held.
    pub timer: Timer,
    pub timer_at: Option<Msec>,
    /// When a worker on its way out gives up what is held.
    pub drain_until: Option<Msec>,
    pub refusals: Quiet,
    pub losses: Quiet,
}

/// How often, in milliseconds, a worker that holds events looks whether it is to exit, and how long it then waits at most
/// between two attempts to connect.
pub const TICK: Msec = 500;

/// What waits to be sent while iterations of the loop go on to bring more, so that all of it shares a write.
#[derive(Default)]
pub struct Gathered {
    /// In bytes.
    unsent: usize,
    iterations: u32,
}

/// So many bytes are worth a write of their own: fewer where clients wait, so that Redis is at work on one while the next one comes
/// together. After so many iterations there is one in any case. The next iteration does not wait for events, so where none are
/// there it costs one look.
const ENOUGH: usize = 12 * 1024;
const ENOUGH_PROMISED: usize = 32 * 1024;
const ITERATIONS: u32 = 16;

impl State {
    /// Picks the connection for the requests of this write: the one with the least to do that is not away.
    pub fn choose(&mut self) {
        let load = |line: &Line| (line.is_away(), line.connection.window.len());
        let least = self.lines.iter().enumerate().min_by_key(|(_, line)| load(line));
        self.current = least.map_or(0, |(index, _)| index);
    }

    /// Whether this iteration has brought more to send and the next one may, too; if so `flush` comes again then.
    pub fn gathers(&mut self) -> bool {
        let unsent = self.lines.iter().map(|line| line.connection.window.unsent().len()).sum();
        let Gathered { unsent: before, iterations } = self.gathered;
        let enough = if self.requests.has_clients() { ENOUGH } else { ENOUGH_PROMISED };
        let gathers = unsent > before && unsent < enough && iterations < ITERATIONS;
        self.gathered = match gathers {
            true => Gathered { unsent, iterations: iterations + 1 },
            false => Gathered::default(),
        };
        if gathers {
            self.flush.post_next();
        }
        gathers
    }

    /// How much waits or is unanswered, in bytes.
    pub fn len(&self) -> usize {
        let spooler = self.spooler.as_ref().map_or(0, Spooler::bytes);
        self.lines.iter().map(|line| line.connection.window.len()).sum::<usize>() + self.hold.bytes() + spooler
    }

    /// How many events wait or are unanswered.
    pub fn events(&self) -> usize {
        self.requests.events() + self.hold.events() + self.spooler.as_ref().map_or(0, Spooler::events)
    }

    /// Lets others see what there is.
    pub fn show(&self, gauges: Gauges) {
        let mut connections = Connections::default();
        self.lines.iter().for_each(|line| line.count(&mut connections));
        gauges.set(connections, self.events(), self.len());
    }

    /// Hands a request to the spool, but for what it publishes. The client, if one waits, is answered once it is written,
    /// or at its deadline.
    pub fn spool(
        &mut self,
        client: Option<(Pending, Work, Msec)>,
        events: u32,
        commands: &Commands,
        counts: &[u32],
        now: Msec,
    ) {
        let Some(spooler) = &mut self.spooler else { return };
        let (mut kept, mut numbers) = (Commands::new(), Vec::new());
        for ((command, replies), number) in commands.entries().zip(numbers_of(counts)) {
            if let Some((command, replies)) = repeatable(command, replies) {
                kept.push(&command, replies);
                numbers.push(number);
            }
        }
        let waits = client.map(|(pending, mut work, deadline)| {
            // An event that only publishes cannot be kept.
            let lost = |number: &u32| numbers.binary_search(number).is_err();
            let all = numbers_of(counts).take(commands.count());
            all.filter(lost).for_each(|number| work.spooled(number, Written::No("what it publishes is not kept")));
            Waits { pending, work, numbers, redis_time: 0, deadline }
        });
        match waits {
            Some(waits) if kept.is_empty() => self.requests.spooled(waits, Written::Yes),
            None if kept.is_empty() => {}
            waits => {
                let write = Write { commands: kept, events, waits };
                spooler.push(write, now, &mut |waits, written| self.requests.spooled(waits, written));
            }
        }
        self.flush.post();
    }

    /// Lets a thread write to, and read from, the spool what is due.
    pub fn run_spooler(&mut self, now: Msec) {
        let State { spooler: Some(spooler), requests, hold, lines, .. } = self else { return };
        let ready = lines.iter().any(|line| line.connection.ready_since().is_some());
        let room = hold.room().filter(|_| ready && !ngx::exiting());
        spooler.run(now, room, &mut |waits, written| requests.spooled(waits, written));
    }

    /// Appends a request to what a connection is to send.
    #[allow(clippy::too_many_arguments, reason = "a request is all of these")]
    pub fn append(
        &mut self,
        settings: &Settings,
        index: usize,
        owner: Owner,
        terms: Terms,
        events: u32,
        commands: &Commands,
        counts: &[u32],
        now: Msec,
    ) {
        let Some(line) = self.lines.get_mut(index) else { return };
        let request = self.requests.insert(owner, terms, events, commands.count(), now, now + settings.timeout);
        if line.connection.window.is_empty() {
            line.connection.set_idle(false);
        }
        for ((command, replies), event) in commands.entries().zip(numbers_of(counts)) {
            line.connection.window.push(command, replies, Waiter { request, event });
        }
        line.set_timer_before(now + settings.stall_timeout, now);
        self.flush.post();
    }

    /// After the end of a connection: what may be sent again stays in its window. When none can be made for `retry` seconds,
    /// nothing does.
    pub fn sift(&mut self, index: usize, retry: Option<u32>, now: Msec) {
        let Some(line) = self.lines.get_mut(index) else { return };
        let requests = &mut self.requests;
        line.connection.window.sift(|command| {
            let waiter = command.waiter;
            // Where a new connection is made, what a client waits for takes it.
            let waits = retry.is_none() && !requests.is_promised(waiter);
            if !waits && requests.keep(&command, command.sent, now) {
                return false;
            }
            let repeats = !command.sent
                || requests.is_ambiguous(waiter) && repeatable(&command.bytes(), command.replies).is_some();
            match retry {
                None if repeats && waits && requests.is_wanted(waiter) => return true,
                Some(seconds) if !command.sent => {
                    requests.retry_after(waiter, seconds);
                    requests.settle(waiter, Verdict::Unavailable, || "Redis is away".into(), now);
                }
                _ => {
                    let reason = "the connection to Redis was lost before it answered";
                    requests.settle(waiter, Verdict::Unknown, || reason.into(), now);
                }
            }
            false
        });
        line.connection.set_idle(line.connection.window.is_empty());
    }

    /// Answers the requests whose deadline has passed. What has been sent, if only in part, leaves a tombstone that swallows
    /// its reply; what has not is taken back, so that nothing of it will be written.
    pub fn expire(&mut self, now: Msec) {
        let State { spooler, requests, .. } = self;
        if let Some(spooler) = spooler {
            spooler.expire(now, &mut |waits, written| requests.spooled(waits, written));
        }
        let mut due = self.requests.due(now);
        if due.is_empty() {
            return;
        }
        due.sort_unstable();
        let mut sent = vec![false; due.len()];
        for line in &self.lines {
            for (waiter, touched) in line.connection.window.waiters() {
                if touched && let Ok(found) = due.binary_search(&waiter.request) {
                    sent.get_mut(found).map(|sent| *sent = true).unwrap_or_default();
                }
            }
        }
        let mut untouched = Vec::new();
        for (number, sent) in due.into_iter().zip(sent) {
            match sent {
                true => self.requests.expire(number, now),
                false => untouched.push(number),
            }
        }
        if untouched.is_empty() {
            return;
        }
        for line in &mut self.lines {
            line.connection.window.sift_unsent(|command| {
                let late = untouched.binary_search(&command.waiter.request).is_ok();
                if late {
                    if self.requests.keep(&command, false, now) {
                        return false;
                    }
                    let reason = || "Redis did not take it in time".into();
                    self.requests.settle(command.waiter, Verdict::Unavailable, reason, now);
                }
                !late
            });
        }
    }

    /// Moves what was promised to where it is held, and the rest to `answers`.
    pub fn sort_done(&mut self, answers: &mut Vec<Done>, now: Msec) {
        let mut done = self.requests.take_done();
        for done in done.drain(..) {
            match (done, &mut self.spooler) {
                (Done::Spool(write), Some(spooler)) => {
                    self.hold.refused(now, ngx::random());
                    spooler.push(write, now, &mut |waits, written| self.requests.spooled(waits, written));
                }
                (Done::Queue(Record { commands, events, spool: true, .. }), Some(spooler)) => {
                    self.hold.refused(now, ngx::random());
                    spooler.push(Write { commands, events, waits: None }, now, &mut |_, _| {});
                }
                (Done::Queue(record), _) => self.hold.push_refused(record, now, ngx::random()),
                (Done::Hold(kept), spooler) => {
                    self.hold.done();
                    kept.zip(spooler.as_mut()).into_iter().for_each(|(kept, spooler)| spooler.acknowledge(kept));
                }
                (Done::HoldLeft(record, _), _) => self.hold.give_back(record, now, ngx::random()),
                (client, _) => answers.push(client),
            }
        }
        self.requests.reuse(done);
    }

    /// What nobody waits for must not keep a worker from exiting.
    pub fn rest(&mut self) {
        let ends = ngx::exiting() && !self.holds();
        for line in self.lines.iter_mut().filter(|line| line.connection.window.is_empty()) {
            line.connection.set_idle(true);
            if ends {
                line.connection.close();
            }
        }
    }

    /// Whether a worker on its way out has to stay for what was promised: what the spool has as well can wait there.
    pub fn holds(&self) -> bool {
        let waits = match self.spooler {
            Some(_) if ngx::exiting() => self.hold.has_unkept(),
            _ => self.hold.is_active(),
        };
        waits || self.requests.promised() > 0
    }

    /// Sets the timer for what is due next, by which a worker on its way out stays as long as it has to.
    pub fn schedule(&mut self, now: Msec) {
        let holds = self.holds();
        let ready = self.lines.iter().any(|line| line.connection.ready_since().is_some());
        let held = match self.hold.due_at() {
            Some(at) if ready => Some(at.max(now + 1)),
            _ => holds.then_some(now + TICK),
        };
        let writes = self.spooler.as_ref().is_some_and(Spooler::must_stay);
        self.timer.set_cancelable(self.requests.is_empty() && !holds && !writes);
        let spools = self.spooler.as_ref().and_then(Spooler::due_at).map(|at| at.max(now + 1));
        if let Some(at) = [self.requests.next_deadline(), held, spools].into_iter().flatten().min()
            && self.timer_at.is_none_or(|earlier| earlier > at)
        {
            self.timer_at = Some(at);
            self.timer.set(at.saturating_sub(now));
        }
    }
}

/// At most one log line a second; the next one says how many were held back.
#[derive(Default)]
pub struct Quiet {
    until: Msec,
    held_back: u32,
}

impl Quiet {
    pub fn log(&mut self, now: Msec, text: impl FnOnce() -> String) {
        if now < self.until {
            self.held_back += 1;
            return;
        }
        let more = match std::mem::take(&mut self.held_back) {
            0 => String::new(),
            count => format!(" ({count} more since the last such line)"),
        };
        ngx::log(Level::Error, &format!("{}{more}", text()));
        self.until = now + 1000;
    }
}

/// For each command of a request, the number of its event, by how many commands each has; without any it is one event.
fn numbers_of(counts: &[u32]) -> impl Iterator<Item = u32> {
    let numbers = counts.iter().zip(0u32..).flat_map(|(count, event)| (0..*count).map(move |_| event));
    numbers.chain(std::iter::repeat(0))
}
