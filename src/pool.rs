//! Pool: the connections of this worker to one Redis. It has room for a whole request or refuses it; it opens what is
//! needed, and knows what becomes of requests and connections when one fails.
//!
//! Requests are answered only after the pool has let go of its state: an answer may run other requests, which come back
//! here.

mod requests;

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::backoff::{self, Backoff};
use crate::command::Commands;
use crate::conf::redis::Settings;
use crate::connection::{Connection, Lost, Progress};
use crate::ngx::{self, Handler, Level, Msec, Pending, Posted, Timer};
use crate::reply::{Verdict, printable};
use crate::request;
use crate::response::Problem;
use crate::window::Waiter;
use requests::Requests;
pub use requests::Work;

/// This worker's connections to one Redis, with all that waits for it.
pub struct Pool {
    settings: Rc<Settings>,
    state: RefCell<State>,
    /// One per connection: what nginx calls on the connection's events.
    ports: Vec<Rc<Port>>,
}

struct State {
    lines: Vec<Line>,
    requests: Requests,
    /// The connection that requests of this loop iteration go to.
    current: usize,
    /// Sends, at the end of the iteration, what all of its requests have appended.
    flush: Posted,
    refusals: Quiet,
}

/// A connection with what the pool knows about it.
struct Line {
    connection: Connection,
    /// The address in use, or to be tried next.
    address: usize,
    backoff: Backoff,
    /// When to try again after a failure; None while connecting or connected.
    retry_at: Option<Msec>,
    /// Why the last attempt failed: logged when it changes.
    away_for: String,
    /// A connection that was lost too soon counts as good again only when a command has succeeded on it.
    on_trial: bool,
    /// How many entries, from the oldest, have had their 504: their replies are swallowed.
    expired: usize,
    timer_at: Option<Msec>,
}

struct Port {
    pool: Weak<Pool>,
    index: usize,
}

/// At most one log line a second; the next one says how many were held back.
#[derive(Default)]
struct Quiet {
    until: Msec,
    held_back: u32,
}

impl Pool {
    pub fn new(settings: Rc<Settings>) -> Rc<Pool> {
        Rc::new_cyclic(|pool: &Weak<Pool>| {
            let port = |index| Rc::new(Port { pool: pool.clone(), index });
            let ports: Vec<Rc<Port>> = (0..settings.connections).map(port).collect();
            let lines = ports.iter().map(|port| Line::new(Timer::new(Rc::downgrade(port), Port::timer))).collect();
            let flush = Posted::new(pool.clone(), Pool::flush);
            let state = State { lines, requests: Requests::default(), current: 0, flush, refusals: Quiet::default() };
            Pool { settings, state: RefCell::new(state), ports }
        })
    }

    /// Whether a request of `length` bytes can be taken now; if so it is to be submitted next.
    pub fn admit(&self, length: usize) -> Result<(), Problem> {
        let mut state = self.state.borrow_mut();
        let held: usize = state.lines.iter().map(|line| line.connection.window.len()).sum();
        if length > self.settings.backlog {
            return Err(Problem::TooLarge { limit: self.settings.backlog });
        }
        if held + length > self.settings.backlog {
            return Err(Problem::BacklogFull);
        }
        let now = ngx::now();
        if !state.flush.is_posted() {
            state.choose();
        }
        match state.lines.get(state.current) {
            Some(line) if line.is_away() => Err(Problem::Away { retry: line.retry_in(now) }),
            _ => Ok(()),
        }
    }

    /// Takes an admitted request, which waits here until each of its commands has its verdict.
    ///
    /// `counts` says how many commands each event has, where there is more than one event.
    pub fn submit(&self, pending: Pending, work: Work, commands: &Commands, counts: &[u32]) {
        let mut state = self.state.borrow_mut();
        let State { lines, requests, current, flush, .. } = &mut *state;
        let Some(line) = lines.get_mut(*current) else { return };
        let now = ngx::now();
        let deadline = now + self.settings.timeout;
        let request = requests.insert(pending, work, commands.count(), now, deadline);
        if line.connection.window.is_empty() {
            line.connection.set_idle(false);
        }
        let events = counts.iter().zip(0u32..).flat_map(|(count, event)| (0..*count).map(move |_| event));
        for (command, event) in commands.iter().zip(events.chain(std::iter::repeat(0))) {
            line.connection.window.push(command, Waiter { request, event });
        }
        line.set_timer_before(deadline.min(now + self.settings.stall_timeout), now);
        flush.post();
    }

    /// Closes all connections and forgets all requests, in a worker that is about to exit.
    pub fn shut_down(&self) {
        let mut state = self.state.borrow_mut();
        for line in &mut state.lines {
            line.connection.close();
        }
        state.requests.abandon();
    }

    fn flush(&self) {
        self.with(|pool, state, now| {
            for index in 0..pool.ports.len() {
                let Some(line) = state.lines.get_mut(index) else { continue };
                if line.connection.window.is_empty() || line.retry_at.is_some() {
                    continue;
                }
                if line.connection.is_closed() {
                    line.address = 0;
                    pool.open(state, index, now);
                } else if let Err(lost) = line.connection.flush(now) {
                    pool.lost(state, index, lost, now);
                }
            }
        });
    }

    fn readable(&self, index: usize) {
        self.with(|pool, state, now| {
            let State { lines, requests, refusals, .. } = state;
            let Some(line) = lines.get_mut(index) else { return };
            if line.connection.must_close() {
                match line.connection.window.is_empty() {
                    true => line.connection.close(),
                    false => pool.lost(state, index, Lost::Shutdown, now),
                }
                return;
            }
            let mut stored = false;
            let result = line.connection.readable(&pool.settings.greeting, now, &mut |waiter, reply| {
                line.expired = line.expired.saturating_sub(1);
                let verdict = reply.verdict();
                stored |= verdict == Verdict::Stored;
                if matches!(verdict, Verdict::Refused | Verdict::Unavailable) {
                    refusals.log(now, &pool.settings.name, reply.error().unwrap_or_default());
                }
                requests.settle(waiter, verdict, || words(verdict, reply.error().unwrap_or_default()), now);
            });
            if stored && line.on_trial {
                pool.prove(line);
            }
            match result {
                Ok(Progress::Ready) => pool.ready(state, index, now),
                Ok(Progress::None) => {}
                Err(lost) => pool.lost(state, index, lost, now),
            }
            pool.rest(state, index);
        });
    }

    fn writable(&self, index: usize) {
        self.with(|pool, state, now| {
            let Some(line) = state.lines.get_mut(index) else { return };
            match line.connection.writable(&pool.settings.greeting, now) {
                Ok(Progress::Ready) => pool.ready(state, index, now),
                Ok(Progress::None) => {}
                Err(lost) => pool.lost(state, index, lost, now),
            }
        });
    }

    fn timer(&self, index: usize) {
        self.with(|pool, state, now| {
            let Some(line) = state.lines.get_mut(index) else { return };
            line.timer_at = None;
            line.expire(&mut state.requests, now);
            if line.connection.overdue_at(&pool.settings).is_some_and(|at| at <= now) {
                let lost = line.connection.overdue(&pool.settings);
                pool.lost(state, index, lost, now);
            } else if line.retry_at.is_some_and(|at| at <= now) {
                line.retry_at = None;
                line.address = 0;
                pool.open(state, index, now);
            }
            pool.rest(state, index);
            if let Some(line) = state.lines.get_mut(index)
                && let Some(at) = line.wake_at(&pool.settings, &state.requests)
            {
                line.set_timer_before(at, now);
            }
        });
    }

    /// Connects to the line's address, or to the next one that lets itself be connected to.
    fn open(&self, state: &mut State, index: usize, now: Msec) {
        let Some(port) = self.ports.get(index) else { return };
        let Some(line) = state.lines.get_mut(index) else { return };
        let handler = Rc::downgrade(port) as Weak<dyn Handler>;
        match line.connection.open(&self.settings, line.address, handler, now) {
            Err(lost) => self.lost(state, index, lost, now),
            Ok(()) => {
                line.connection.set_idle(line.connection.window.is_empty());
                if let Some(at) = line.connection.overdue_at(&self.settings) {
                    line.set_timer_before(at, now);
                }
            }
        }
    }

    /// The hand-shake is done.
    fn ready(&self, state: &mut State, index: usize, now: Msec) {
        let Some(line) = state.lines.get_mut(index) else { return };
        if !line.on_trial {
            self.prove(line);
        }
        line.connection.set_idle(line.connection.window.is_empty());
        if let Err(lost) = line.connection.flush(now) {
            self.lost(state, index, lost, now);
        }
    }

    /// The line works.
    fn prove(&self, line: &mut Line) {
        line.on_trial = false;
        line.away_for.clear();
        if line.backoff.reset() > 0 {
            let Settings { name, .. } = &*self.settings;
            ngx::log(Level::Notice, &format!("redis \"{name}\" is back at {}", self.address(line)));
        }
    }

    /// A connection, or an attempt to make one, has ended.
    fn lost(&self, state: &mut State, index: usize, lost: Lost, now: Msec) {
        let State { lines, requests, .. } = state;
        let Some(line) = lines.get_mut(index) else { return };
        let ready_since = line.connection.ready_since();
        line.connection.close();
        while line.connection.window.in_flight() > 0 || line.expired > 0 {
            let Some(waiter) = line.connection.window.give_up() else { break };
            line.expired = line.expired.saturating_sub(1);
            requests.settle(
                waiter,
                Verdict::Unknown,
                || "the connection to Redis was lost before it answered".into(),
                now,
            );
        }
        let name = &self.settings.name;
        let text = self.address(line).to_owned();
        if let Some(since) = ready_since {
            // Redis closes what has been idle for its `timeout`: nothing to worry about.
            let usual = line.connection.window.is_empty() && matches!(lost, Lost::Closed);
            let level = if usual { Level::Info } else { Level::Error };
            ngx::log(level, &format!("redis \"{name}\" at {text}: connection lost: {lost}"));
            let sound = now.saturating_sub(since) >= backoff::FIRST;
            if sound && !matches!(lost, Lost::Reopen(_) | Lost::Stalled(_) | Lost::Shutdown) {
                // One that lived may have been closed for its idleness, or the server restarted: connect anew, at once
                // if something waits, else when something does.
                if !line.connection.window.is_empty() {
                    line.address = 0;
                    self.open(state, index, now);
                }
                return;
            }
            line.on_trial = true;
        } else if line.address + 1 < self.settings.addresses.len() {
            line.address += 1;
            return self.open(state, index, now);
        }
        let reason = lost.to_string();
        if line.away_for != reason && !matches!(lost, Lost::Shutdown) {
            ngx::log(Level::Error, &format!("redis \"{name}\" at {text} is away: {reason}"));
        }
        line.away_for = reason;
        let retry_at = now + line.backoff.fail(ngx::random());
        line.retry_at = Some(retry_at);
        let retry = line.retry_in(now);
        line.expired = 0;
        while let Some(waiter) = line.connection.window.give_up() {
            requests.retry_after(waiter, retry);
            requests.settle(waiter, Verdict::Unavailable, || "Redis is away".into(), now);
        }
        line.connection.set_idle(true);
        if !ngx::exiting() {
            line.set_timer_before(retry_at, now);
        }
    }

    /// After something was answered: a worker on its way out closes what nobody waits for.
    fn rest(&self, state: &mut State, index: usize) {
        let Some(line) = state.lines.get_mut(index) else { return };
        if line.connection.window.is_empty() {
            line.connection.set_idle(true);
            if ngx::exiting() {
                line.connection.close();
            }
        }
    }

    fn address(&self, line: &Line) -> &str {
        self.settings.addresses.get(line.address).map_or("", |address| address.text())
    }

    /// Runs `work` on the state, and then, with the state free again, answers the requests that are done.
    fn with(&self, work: impl FnOnce(&Pool, &mut State, Msec)) {
        let mut done = {
            let mut state = self.state.borrow_mut();
            work(self, &mut state, ngx::now());
            state.requests.take_done()
        };
        for done in done.drain(..) {
            request::settled(self, done.pending, done.work, done.redis_time);
        }
        self.state.borrow_mut().requests.reuse(done);
    }
}

impl State {
    /// Picks the connection for the requests of this iteration: the one with the least to do that is not away.
    fn choose(&mut self) {
        let load = |line: &Line| (line.is_away(), line.connection.window.len());
        let least = self.lines.iter().enumerate().min_by_key(|(_, line)| load(line));
        self.current = least.map_or(0, |(index, _)| index);
    }
}

impl Line {
    fn new(timer: Timer) -> Line {
        Line {
            connection: Connection::new(timer),
            address: 0,
            backoff: Backoff::default(),
            retry_at: None,
            away_for: String::new(),
            on_trial: false,
            expired: 0,
            timer_at: None,
        }
    }

    /// Whether a request would wait in vain: the last attempt failed, and none has succeeded since.
    fn is_away(&self) -> bool {
        self.backoff.is_failing() && self.connection.ready_since().is_none()
    }

    /// Seconds until the next attempt, at least 1.
    fn retry_in(&self, now: Msec) -> u32 {
        let left = self.retry_at.map_or(0, |at| at.saturating_sub(now));
        u32::try_from(left.div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }

    /// Lets the timer fire at `at`, unless it fires earlier anyway and will then be set anew.
    fn set_timer_before(&mut self, at: Msec, now: Msec) {
        if self.timer_at.is_none_or(|earlier| earlier > at) {
            self.timer_at = Some(at);
            self.connection.timer.set(at.saturating_sub(now));
        }
    }

    /// When there is something to do next, if nothing happens before.
    fn wake_at(&self, settings: &Settings, requests: &Requests) -> Option<Msec> {
        let deadline = self.connection.window.waiter(self.expired).and_then(|waiter| requests.deadline(waiter));
        [deadline, self.connection.overdue_at(settings), self.retry_at].into_iter().flatten().min()
    }

    /// Answers the requests whose deadline has passed. Deadlines lie in the order of the window, for all requests of a
    /// pool have the same time. What has been sent, if only in part, leaves a tombstone that swallows its reply; what has
    /// not is taken back, so that nothing of it will be written.
    fn expire(&mut self, requests: &mut Requests, now: Msec) {
        let window = &mut self.connection.window;
        let is_due = |requests: &Requests, waiter| requests.deadline(waiter).is_none_or(|deadline| deadline <= now);
        while let Some(waiter) = window.waiter(self.expired) {
            let sent = self.expired < window.touched() || requests.is_answered(waiter);
            if !sent || !is_due(requests, waiter) {
                break;
            }
            requests.expire(waiter, now);
            self.expired += 1;
        }
        let due: Vec<Waiter> = (self.expired..)
            .map_while(|index| window.waiter(index))
            .take_while(|waiter| is_due(requests, *waiter))
            .collect();
        if self.expired >= window.touched() && !due.is_empty() {
            window.remove_unsent(self.expired..self.expired + due.len());
            for waiter in due {
                requests.settle(waiter, Verdict::Unavailable, || "Redis did not take it in time".into(), now);
            }
        }
    }
}

impl Port {
    fn timer(&self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.timer(self.index);
        }
    }
}

impl Handler for Port {
    fn readable(&self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.readable(self.index);
        }
    }

    fn writable(&self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.writable(self.index);
        }
    }
}

impl Quiet {
    fn log(&mut self, now: Msec, name: &str, error: &[u8]) {
        if now < self.until {
            self.held_back += 1;
            return;
        }
        let more = match std::mem::take(&mut self.held_back) {
            0 => String::new(),
            count => format!(" ({count} more refused since the last such line)"),
        };
        ngx::log(Level::Error, &format!("redis \"{name}\" answered: {}{more}", printable(error)));
        self.until = now + 1000;
    }
}

/// What the client is told of Redis's error: all of it when its event is at fault, else only the code, for the rest may
/// tell of the server.
fn words(verdict: Verdict, error: &[u8]) -> String {
    match verdict {
        Verdict::Rejected => printable(error),
        Verdict::Unknown => "Redis gave a reply that does not belong here".into(),
        _ => {
            let code = error.split(|byte| *byte == b' ').next().unwrap_or_default();
            format!("Redis answered {}", printable(code))
        }
    }
}
