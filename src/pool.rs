//! Pool: the connections of this worker to one Redis. It has room for a whole request or refuses it; it opens what is
//! needed, and knows what becomes of requests and connections when one fails.
//!
//! Requests are answered only after the pool has let go of its state: an answer may run other requests, which come back
//! here.

mod line;
mod requests;
mod spooler;
mod state;

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use crate::backoff;
use crate::command::Commands;
use crate::conf::redis::Settings;
use crate::connection::{Lost, Progress};
use crate::hold::{Ack, Hold, Record, Terms};
use crate::metrics::{Gauges, Redis};
use crate::ngx::{self, Handler, Level, Msec, Posted, Timer};
use crate::reply::{Verdict, printable};
use crate::request;
use crate::response::Problem;
use line::Line;
use requests::{Done, Requests};
pub use requests::{Owner, Work};
use spooler::Spooler;
use state::{Gathered, Quiet, State, TICK};

/// This worker's connections to one Redis, with all that waits for it.
pub struct Pool {
    settings: Rc<Settings>,
    state: RefCell<State>,
    /// One per connection: what nginx calls on the connection's events.
    ports: Vec<Rc<Port>>,
    /// Whether a connection has been made yet.
    reached: Cell<bool>,
    counters: Redis,
    gauges: Gauges,
}

/// How many commands of what is held are sent before what else has come up has its turn.
const BURST: usize = 256;

struct Port {
    pool: Weak<Pool>,
    index: usize,
}

impl Pool {
    /// What all workers count of this Redis goes to `counters`, what this one has of it to `gauges`.
    pub fn new(settings: Rc<Settings>, counters: Redis, gauges: Gauges) -> Rc<Pool> {
        Rc::new_cyclic(|pool: &Weak<Pool>| {
            let port = |index| Rc::new(Port { pool: pool.clone(), index });
            let ports: Vec<Rc<Port>> = (0..settings.connections).map(port).collect();
            let lines =
                ports.iter().map(|port| Line::new(Timer::new(Rc::downgrade(port), Port::timer), counters)).collect();
            let spooler = settings.spool.as_ref();
            let state = State {
                lines,
                requests: Requests::default(),
                hold: Hold::new(settings.backlog, settings.max_pending),
                spooler: spooler.map(|spool| Spooler::new(pool.clone(), settings.clone(), spool, counters, gauges)),
                current: 0,
                replaying: 0,
                replayed: 0,
                go_on: Posted::new(pool.clone(), Pool::go_on),
                flush: Posted::new(pool.clone(), Pool::flush),
                gathered: Gathered::default(),
                timer: Timer::new(pool.clone(), Pool::tick),
                timer_at: None,
                drain_until: None,
                refusals: Quiet::default(),
                losses: Quiet::default(),
            };
            Pool { settings, state: RefCell::new(state), ports, reached: Cell::new(false), counters, gauges }
        })
    }

    /// Looks for what dead workers have left in the spool, in a worker that begins.
    pub fn start(&self) {
        self.with(|_, _, _| {});
    }

    /// Whether a request of `length` bytes and so many events can be taken now; if so it is to be submitted next.
    pub fn admit(&self, length: usize, events: u32, terms: Terms) -> Result<(), Problem> {
        let mut state = self.state.borrow_mut();
        let Settings { backlog, max_pending, .. } = *self.settings;
        self.settings.fits(length, events)?;
        if !state.flush.is_posted() {
            state.choose();
        }
        let retry = state.lines.get(state.current).filter(|line| line.is_away()).map(|line| line.retry_in(ngx::now()));
        if state.len() + length > backlog || state.events() + events as usize > max_pending as usize {
            return Err(Problem::BacklogFull { retry: retry.unwrap_or(1) });
        }
        match retry {
            Some(retry) if terms.ack == Ack::Stored && !terms.spool => Err(Problem::Away { retry }),
            _ => Ok(()),
        }
    }

    /// Whether events can be taken now; says why not. Opens a connection, where no event has called for one: what becomes
    /// of it shows the next time.
    pub fn takes_events(&self) -> Result<(), &'static str> {
        let mut ready = Ok(());
        self.with(|pool, state, now| {
            let idle = |line: &Line| line.connection.is_closed() && line.retry_at.is_none();
            if state.lines.iter().all(idle) {
                pool.open(state, 0, now);
            }
            let Settings { backlog, max_pending, .. } = *pool.settings;
            let connected = state.lines.iter().any(|line| line.connection.ready_since().is_some());
            let spools = state.spooler.as_ref().is_some_and(|spooler| spooler.takes(now));
            ready = if state.len() >= backlog || state.events() >= max_pending as usize {
                Err("too much is waiting")
            } else if connected || spools {
                Ok(())
            } else if state.lines.iter().any(Line::is_away) {
                Err("it is away")
            } else if !pool.reached.get() {
                Err("no connection has been made yet")
            } else {
                // Redis has closed what was idle.
                Ok(())
            };
        });
        ready
    }

    /// Takes an admitted request, which waits here until each of its commands has its verdict.
    ///
    /// `counts` says how many commands each event has, where there is more than one event.
    pub fn submit(&self, owner: Owner, terms: Terms, commands: &Commands, counts: &[u32]) {
        let mut state = self.state.borrow_mut();
        let now = ngx::now();
        let events = counts.len().max(1) as u32;
        let is_away = state.lines.get(state.current).is_none_or(Line::is_away);
        let behind = is_away || state.hold.is_active() || state.spooler.as_ref().is_some_and(Spooler::is_active);
        match owner {
            Owner::Client(pending, work) if behind && terms.spool => {
                state.spool(Some((pending, work, now + self.settings.timeout)), events, commands, counts, now)
            }
            Owner::Queue if behind && terms.spool => state.spool(None, events, commands, counts, now),
            Owner::Queue if behind => {
                state.hold.push(Record { commands: commands.clone(), events, spool: false, kept: None });
            }
            owner => {
                let current = state.current;
                state.append(&self.settings, current, owner, terms, events, commands, counts, now);
            }
        }
        state.schedule(now);
    }

    /// Why no connection can be made now; None where none is known not to be.
    pub fn away_for(&self) -> Option<String> {
        let state = self.state.borrow();
        state.lines.get(state.current).filter(|line| line.is_away()).map(|line| line.away_for.clone())
    }

    /// Closes all connections and forgets all requests, in a worker that is about to exit.
    pub fn shut_down(&self) {
        let mut state = self.state.borrow_mut();
        let now = ngx::now();
        for index in 0..self.ports.len() {
            state.lines.get_mut(index).into_iter().for_each(|line| line.connection.close());
            state.sift(index, Some(1), now);
        }
        let State { requests, hold, spooler, .. } = &mut *state;
        let mut promised = Vec::new();
        for done in requests.take_done() {
            match (done, &mut *spooler) {
                (Done::Client { pending, .. }, _) => pending.abandon(),
                (Done::Spool(write), _) => write.waits.into_iter().for_each(|waits| waits.pending.abandon()),
                (Done::Queue(record), _) => promised.push(record),
                (Done::Hold(kept), Some(spooler)) => kept.into_iter().for_each(|kept| spooler.acknowledge(kept)),
                (Done::HoldLeft(Record { kept: Some(kept), commands, .. }, count), Some(spooler)) => {
                    spooler.acknowledge_part(kept, (count - commands.count()) as u32)
                }
                (Done::HoldLeft(record, _), _) => promised.push(record),
                (Done::Hold(_), None) => {}
            }
        }
        promised.extend(hold.take_all().filter(|record| record.kept.is_none()));
        requests.abandon();
        let (may_spool, others): (Vec<_>, Vec<_>) = promised.into_iter().partition(|record| record.spool);
        let count = |records: &[Record]| records.iter().map(|record| record.events as usize).sum();
        let (lost, why) = match spooler {
            Some(spooler) => spooler.close(may_spool.into_iter()),
            None => (count(&may_spool), String::new()),
        };
        self.log_loss(lost, if why.is_empty() { "the worker ends" } else { &why });
        self.log_loss(count(&others), "the worker ends");
    }

    fn flush(&self) {
        if self.state.borrow_mut().gathers() {
            return;
        }
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
            let State { lines, requests, refusals, losses, spooler, .. } = state;
            let Some(line) = lines.get_mut(index) else { return };
            if line.connection.must_close() {
                match line.connection.window.is_empty() {
                    true => line.connection.close(),
                    false => pool.lost(state, index, Lost::Shutdown("worker_shutdown_timeout is over"), now),
                }
                return;
            }
            let name = &pool.settings.name;
            let mut stored = false;
            let result = line.connection.readable(&pool.settings.greeting, now, &mut |command, verdict, error| {
                let waiter = command.waiter;
                stored |= verdict == Verdict::Stored;
                if matches!(verdict, Verdict::Refused | Verdict::Unavailable) {
                    refusals.log(now, || format!("redis \"{name}\" answered: {}", printable(error)));
                }
                match verdict {
                    Verdict::Stored => {}
                    Verdict::Unavailable if requests.keep(&command, false, now) => return,
                    Verdict::Unknown if requests.keep(&command, true, now) => return,
                    Verdict::Rejected | Verdict::Refused if requests.is_promised(waiter) => {
                        let error = printable(error);
                        losses.log(now, || {
                            format!(
                                "redis \"{name}\" refused for good a command of an event that was accepted: {error}"
                            )
                        });
                        if let Some(spooler) = spooler.as_mut().filter(|_| requests.may_spool(waiter)) {
                            let mut commands = Commands::new();
                            commands.push(&command.bytes(), command.replies);
                            spooler.reject(commands, error);
                        }
                    }
                    _ => {}
                }
                requests.settle(waiter, verdict, || words(verdict, error), now);
            });
            if stored && line.on_trial {
                pool.prove(line);
            }
            match result {
                Ok(Progress::Ready) => pool.ready(state, index, now),
                Ok(Progress::None) => {}
                Err(lost) => pool.lost(state, index, lost, now),
            }
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

    /// A connection's timer.
    fn timer(&self, index: usize) {
        self.with(|pool, state, now| {
            let Some(line) = state.lines.get_mut(index) else { return };
            line.timer_fired();
            if line.connection.overdue_at(&pool.settings).is_some_and(|at| at <= now) {
                let lost = line.connection.overdue(&pool.settings);
                pool.lost(state, index, lost, now);
            } else if line.retry_at.is_some_and(|at| at <= now) {
                line.retry_at = None;
                line.address = 0;
                pool.open(state, index, now);
            }
            if let Some(line) = state.lines.get_mut(index)
                && let Some(at) = line.wake_at(&pool.settings)
            {
                line.set_timer_before(at, now);
            }
        });
    }

    /// The timer for deadlines, and for what is held.
    fn tick(&self) {
        self.with(|pool, state, now| {
            state.timer_at = None;
            state.expire(now);
            if ngx::exiting() && state.holds() {
                let until = *state.drain_until.get_or_insert(now + pool.settings.drain);
                if now >= until {
                    pool.give_up(state, now);
                }
            }
        });
    }

    /// In a worker on its way out: what was promised has waited long enough. What is on its way comes back to the hold first, and has
    /// its turn the next time.
    fn give_up(&self, state: &mut State, now: Msec) {
        let lost = state.hold.take_all().filter(|record| record.kept.is_none());
        let lost = lost.map(|record| record.events as usize).sum();
        self.log_loss(lost, "Redis did not take them while the worker was on its way out");
        for index in 0..self.ports.len() {
            if state.lines.get(index).is_some_and(|line| !line.connection.window.is_empty()) {
                self.lost(state, index, Lost::Shutdown("drain is over"), now);
            }
        }
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
        self.reached.set(true);
        self.counters.connected(std::mem::take(&mut line.has_failed));
        if !line.on_trial {
            self.prove(line);
        }
        state.hold.retry_now();
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
        let Some(line) = state.lines.get_mut(index) else { return };
        let ready_since = line.connection.ready_since();
        line.connection.close();
        let sound = ready_since.is_some_and(|since| now.saturating_sub(since) >= backoff::FIRST);
        // Redis closes what has been idle for its `timeout`: nothing to worry about.
        let usual = line.connection.window.is_empty() && matches!(lost, Lost::Closed);
        if !(usual && sound) {
            line.has_failed = true;
            self.counters.failed();
        }
        let name = &self.settings.name;
        let text = self.address(line).to_owned();
        if ready_since.is_some() {
            let level = if usual { Level::Info } else { Level::Error };
            ngx::log(level, &format!("redis \"{name}\" at {text}: connection lost: {lost}"));
            if sound && !matches!(lost, Lost::Reopen(_) | Lost::Stalled(_) | Lost::Shutdown(_)) {
                // One that lived may have been closed for its idleness, or the server restarted: connect anew, at once
                // if something waits, else when something does.
                state.sift(index, None, now);
                if let Some(line) = state.lines.get_mut(index).filter(|line| !line.connection.window.is_empty()) {
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
        if line.away_for != reason && !matches!(lost, Lost::Shutdown(_)) {
            ngx::log(Level::Error, &format!("redis \"{name}\" at {text} is away: {reason}"));
        }
        line.away_for = reason;
        let delay = line.backoff.fail(ngx::random());
        let retry_at = now + if ngx::exiting() { delay.min(TICK) } else { delay };
        line.retry_at = Some(retry_at);
        let retry = line.retry_in(now);
        line.set_timer_before(retry_at, now);
        state.sift(index, Some(retry), now);
        if matches!(lost, Lost::Shutdown(_)) {
            state.drain_until = Some(now);
        }
    }

    /// Sends what is held, as far as it is due and a connection takes it.
    fn replay(&self, state: &mut State, now: Msec) {
        let active = state.hold.is_active() || state.spooler.as_ref().is_some_and(Spooler::is_active);
        if !active || state.drain_until.is_some_and(|until| until <= now) {
            return;
        }
        if state.hold.in_flight() == 0 {
            state.choose();
            state.replaying = state.current;
        }
        let index = state.replaying;
        let Some(line) = state.lines.get_mut(index) else { return };
        if line.connection.is_closed() && line.retry_at.is_none() {
            line.address = 0;
            return self.open(state, index, now);
        }
        if line.connection.ready_since().is_none() {
            return;
        }
        while state.replayed < BURST
            && let Some(Record { commands, events, spool, kept }) = state.hold.next(now)
        {
            state.replayed += commands.count();
            let terms = Terms { ack: Ack::Queued, ambiguous: true, spool };
            state.append(&self.settings, index, Owner::Hold(kept), terms, events, &commands, &[], now);
        }
        if state.replayed >= BURST {
            state.go_on.post_next();
        }
    }

    /// In the next iteration of the loop.
    fn go_on(&self) {
        self.with(|_, state, _| state.replayed = 0);
    }

    fn log_loss(&self, events: usize, why: &str) {
        if events > 0 {
            let name = &self.settings.name;
            let text = format!("redis \"{name}\": {events} events that were accepted are lost: {why}");
            ngx::log(Level::Alert, &text);
        }
    }

    fn address(&self, line: &Line) -> &str {
        self.settings.addresses.get(line.address).map_or("", |address| address.text())
    }

    /// Runs `work` on the state, and then, with the state free again, answers the requests that are done.
    fn with(&self, work: impl FnOnce(&Pool, &mut State, Msec)) {
        let mut answers = Vec::new();
        {
            let mut state = self.state.borrow_mut();
            let now = ngx::now();
            work(self, &mut state, now);
            state.sort_done(&mut answers, now);
            self.replay(&mut state, now);
            state.run_spooler(now);
            state.sort_done(&mut answers, now);
            state.rest();
            state.schedule(now);
            state.show(self.gauges);
        }
        for done in answers.drain(..) {
            if let Done::Client { pending, work, redis_time } = done {
                request::settled(self, pending, work, redis_time);
            }
        }
        self.state.borrow_mut().requests.reuse(answers);
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

/// What the client is told of Redis's reply: all of it when its event is at fault, of another error only the code, for the
/// rest may tell of the server.
fn words(verdict: Verdict, error: &[u8]) -> String {
    match verdict {
        Verdict::Stored | Verdict::Rejected => printable(error),
        Verdict::Unknown if error.is_empty() => "Redis gave a reply that does not belong here".into(),
        _ => {
            let code = error.split(|byte| *byte == b' ').next().unwrap_or_default();
            format!("Redis answered {}", printable(code))
        }
    }
}
