//! Spooler: hands what Redis does not take to the spool's files, and reads it back when it does, by work that runs in nginx's
//! threads: one after another, each with all that has come up meanwhile.

use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Pool;
use super::requests::Work;
use super::state::{Quiet, State};
use crate::command::Commands;
use crate::conf::redis::{Settings, Spool, Sync};
use crate::hold::{Amount, Hold, Record};
use crate::metrics::{Gauges, Redis, SpoolState, json::Seconds};
use crate::ngx::{self, Level, Msec, Pending};
use crate::spool::disk::{Disk, Kept, Limits, NotKept, Note};

/// How often lanes of dead workers are looked for, in milliseconds.
const ADOPT: Msec = 5000;
/// How soon the rest of what dead workers have left is counted, in milliseconds.
const SURVEY: Msec = 50;
/// How many lines a thread's work brings to the log.
const NOTES: usize = 10;
/// How often `sync=1s` brings to the disk what was written, in milliseconds.
const SYNC: Msec = 1000;
/// How often deadlines are looked at, in milliseconds: as many writes wait as requests may, in no order of theirs.
const LOOK: Msec = 20;

pub struct Spooler {
    pool: Weak<Pool>,
    settings: Rc<Settings>,
    /// With a thread while `is_busy`, and nobody's else.
    disk: Arc<Mutex<Disk>>,
    is_busy: bool,
    /// What is to be written, in order.
    writes: VecDeque<Write>,
    /// What a thread is writing; it has the commands.
    writing: Vec<Write>,
    /// Of both.
    bytes: usize,
    events: usize,
    /// What has been read and is done with.
    done: Vec<u64>,
    part: Option<(u64, u32)>,
    rejected: Vec<(Commands, String)>,
    /// How many of these could not be kept and are not yet told, why the last of them, and when they may be.
    unkept: usize,
    unkept_why: String,
    unkept_at: Msec,
    /// Whether the files hold what was not read yet.
    has_unread: bool,
    is_empty: bool,
    /// When what was written is to be brought to the disk.
    sync_at: Option<Msec>,
    adopt_at: Msec,
    /// Nothing is tried before, after a failure, of which clients are told at once.
    retry_at: Msec,
    /// Why nothing can be written, if so: logged when it changes.
    failing: String,
    /// When the replay that is under way began, and how many records are done with since.
    replay: Option<(Msec, u64)>,
    trouble: Quiet,
    counters: Redis,
    gauges: Gauges,
    /// No client's deadline passes before.
    deadline: Option<Msec>,
}

/// Commands that go to the files, and who waits for that.
pub struct Write {
    pub commands: Commands,
    pub events: u32,
    pub waits: Option<Waits>,
}

/// A client that is answered once its event is written.
pub struct Waits {
    pub pending: Pending,
    pub work: Work,
    /// For each command, the number of its event.
    pub numbers: Vec<u32>,
    pub redis_time: Msec,
    /// When the client is answered, whatever is known by then.
    pub deadline: Msec,
}

/// What became of a client's event.
#[derive(Clone, Copy)]
pub enum Written<'a> {
    Yes,
    /// For this reason.
    No(&'a str),
    /// It may yet be written: its deadline has passed while a thread was at it.
    Unknown,
}

/// Is given each client, and what became of its event.
pub type Answer<'a> = dyn FnMut(Waits, Written) + 'a;

/// What a thread is to do.
struct Job {
    append: Vec<Commands>,
    done: Vec<u64>,
    rejected: Vec<(Commands, String)>,
    unix_ms: u64,
    sync_appended: bool,
    sync: bool,
    adopt: bool,
    read: Option<Amount>,
}

/// What it did.
struct Outcome {
    appended: Result<(), NotKept>,
    /// How many commands that Redis refused for good are kept nowhere, and why.
    unkept: Option<(usize, NotKept)>,
    synced: Result<(), NotKept>,
    records: Vec<Kept>,
    has_unread: bool,
    is_empty: bool,
    notes: Vec<Note>,
    damaged: u64,
    /// How many records wait, and since when.
    waiting: (u64, u64),
    /// Whether some are not counted yet.
    is_uncounted: bool,
    /// What the folder holds, in bytes, where that was looked at.
    usage: Option<u64>,
}

impl Spooler {
    pub fn new(pool: Weak<Pool>, settings: Rc<Settings>, spool: &Spool, counters: Redis, gauges: Gauges) -> Spooler {
        let limits = Limits { dir: spool.dir.clone(), max_size: spool.max_size, segment: spool.segment };
        Spooler {
            pool,
            settings,
            disk: Arc::new(Mutex::new(Disk::new(limits))),
            is_busy: false,
            writes: VecDeque::new(),
            writing: Vec::new(),
            bytes: 0,
            events: 0,
            done: Vec::new(),
            part: None,
            rejected: Vec::new(),
            unkept: 0,
            unkept_why: String::new(),
            unkept_at: 0,
            has_unread: false,
            is_empty: true,
            sync_at: None,
            adopt_at: 0,
            retry_at: 0,
            failing: String::new(),
            replay: None,
            trouble: Quiet::default(),
            counters,
            gauges,
            deadline: None,
        }
    }

    /// Takes what is to be written behind all that is there; not what a client waits for, right after a failure.
    pub fn push(&mut self, mut write: Write, now: Msec, answer: &mut Answer) {
        if now < self.retry_at
            && let Some(waits) = write.waits.take()
        {
            self.counters.spool_failed(u64::from(write.events));
            return answer(waits, Written::No(&self.failing));
        }
        self.bytes += write.commands.len();
        self.events += write.events as usize;
        self.deadline = [self.deadline, write.deadline()].into_iter().flatten().min();
        self.writes.push_back(write);
    }

    /// Answers the clients whose deadline has passed. What a thread is writing may yet be in the spool; what none has begun
    /// with will not be.
    pub fn expire(&mut self, now: Msec, answer: &mut Answer) {
        if self.deadline.is_none_or(|at| now < at) {
            return;
        }
        for write in &mut self.writing {
            if let Some(waits) = write.waits.take_if(|waits| waits.deadline <= now) {
                answer(waits, Written::Unknown);
            }
        }
        self.refuse("it could not be written in time", |waits| waits.deadline <= now, answer);
        let next = self.writing.iter().chain(&self.writes).filter_map(Write::deadline).min();
        self.deadline = next.map(|at| at.max(now + LOOK));
    }

    /// A record that was read is done with.
    pub fn acknowledge(&mut self, number: u64) {
        self.done.push(number);
        self.counters.spool_replayed(1);
        if let Some((_, records)) = &mut self.replay {
            *records += 1;
        }
    }

    /// What Redis refuses for good, and nobody waits to be told of.
    pub fn reject(&mut self, commands: Commands, note: String) {
        self.counters.spool_rejected(commands.count() as u64);
        self.rejected.push((commands, note));
    }

    /// Whether new events have to go behind others.
    pub fn is_active(&self) -> bool {
        !self.is_empty || self.events > 0
    }

    /// Of what is not written yet, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many events are not written yet.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Whether nothing has failed just now.
    pub fn takes(&self, now: Msec) -> bool {
        now >= self.retry_at
    }

    /// When there is something to do next, if nothing happens before.
    pub fn due_at(&self) -> Option<Msec> {
        let unkept = (self.unkept > 0).then_some(self.unkept_at);
        let always = [self.deadline, unkept];
        let writes = (!self.writes.is_empty()).then_some(self.retry_at);
        let idle = [writes, self.sync_at, Some(self.adopt_at)].into_iter().filter(|_| !self.is_busy);
        always.into_iter().chain(idle).flatten().min()
    }

    /// Whether a worker on its way out has to stay.
    pub fn must_stay(&self) -> bool {
        self.is_busy || !self.writes.is_empty()
    }

    /// Lets a thread do what has come up, if none is at work; `read` says how much of what the files hold Redis takes.
    pub fn run(&mut self, now: Msec, read: Option<Amount>, answer: &mut Answer) {
        self.tell_unkept(now);
        let Some(spool) = &self.settings.spool else { return };
        let writes = !self.writes.is_empty() && now >= self.retry_at;
        let sync = self.sync_at.is_some_and(|at| at <= now);
        // Who is on his way out takes over nothing.
        let looks = self.adopt_at <= now;
        let adopt = looks && !ngx::exiting();
        if looks && !self.is_busy {
            self.adopt_at = now + ADOPT;
        }
        let read = read.filter(|_| self.has_unread);
        let acknowledges = !self.done.is_empty() || !self.rejected.is_empty();
        if self.is_busy || !(writes || sync || adopt || read.is_some() || acknowledges) {
            return;
        }
        // As many as make one write, and at most what a thread has to have in memory anyway.
        if writes {
            self.writing.extend(self.writes.drain(..));
        }
        let job = Job {
            append: self.writing.iter_mut().map(|write| std::mem::take(&mut write.commands)).collect(),
            done: std::mem::take(&mut self.done),
            rejected: std::mem::take(&mut self.rejected),
            unix_ms: ngx::unix_ms(),
            sync_appended: spool.sync == Sync::Always,
            sync,
            adopt,
            read,
        };
        if sync {
            self.sync_at = None;
        }
        if writes && spool.sync == Sync::Second {
            self.sync_at.get_or_insert(now + SYNC);
        }
        let shared = Arc::new(Mutex::new(job));
        let (disk, its_job, pool) = (self.disk.clone(), shared.clone(), self.pool.clone());
        let work = move || lock(&its_job).run(&mut lock(&disk));
        let whose = shared.clone();
        let done = move |outcome: Option<Outcome>| {
            if let Some(pool) = pool.upgrade() {
                pool.spooled(std::mem::take(&mut lock(&whose).append), outcome);
            }
        };
        if spool.threads.run(work, done).is_ok() {
            self.is_busy = true;
            return;
        }
        let mut job = lock(&shared);
        self.done = std::mem::take(&mut job.done);
        self.rejected = std::mem::take(&mut job.rejected);
        self.adopt_at = self.adopt_at.max(now + SYNC);
        self.settle(std::mem::take(&mut job.append), Some("nginx's threads take no more work".into()), now, answer);
    }

    /// At most one line a second.
    fn tell_unkept(&mut self, now: Msec) {
        if self.unkept == 0 || now < self.unkept_at {
            return;
        }
        let Spooler { unkept, unkept_why, .. } = self;
        let name = &self.settings.name;
        let text =
            format!("redis \"{name}\": spool: {unkept} commands that Redis refused for good are lost: {unkept_why}");
        ngx::log(Level::Error, &text);
        self.unkept = 0;
        self.unkept_at = now + SYNC;
    }

    /// A thread is done.
    fn finish(
        &mut self,
        append: Vec<Commands>,
        outcome: Option<Outcome>,
        hold: &mut Hold,
        now: Msec,
        answer: &mut Answer,
    ) {
        self.is_busy = false;
        let Some(outcome) = outcome else {
            return self.settle(append, Some("a thread has failed".into()), now, answer);
        };
        let name = &self.settings.name;
        let more = outcome.notes.len().saturating_sub(NOTES);
        for Note { is_problem, text } in outcome.notes.into_iter().take(NOTES) {
            let level = if is_problem { Level::Error } else { Level::Notice };
            ngx::log(level, &format!("redis \"{name}\": spool: {text}"));
        }
        if more > 0 {
            ngx::log(Level::Error, &format!("redis \"{name}\": spool: {more} more such lines are left out"));
        }
        if let Some(failed) = outcome.synced.err() {
            self.trouble.log(now, || format!("redis \"{name}\": spool: {failed}"));
        }
        if let Some((count, why)) = outcome.unkept {
            self.unkept += count;
            self.unkept_why = why.to_string();
        }
        self.counters.spool_damaged(outcome.damaged);
        self.gauges.set_spool(SpoolState { records: outcome.waiting.0, oldest: outcome.waiting.1 });
        if let Some(bytes) = outcome.usage {
            self.counters.set_spool_bytes(bytes);
        }
        if outcome.is_uncounted {
            self.adopt_at = self.adopt_at.min(now + SURVEY);
        }
        if self.is_empty && !outcome.is_empty && !append.is_empty() {
            ngx::log(Level::Warn, &format!("redis \"{name}\": events go to the spool"));
        } else if !self.is_empty && outcome.is_empty {
            let (since, records) = self.replay.take().unwrap_or((now, 0));
            let time = Seconds(now.saturating_sub(since));
            let text = format!("the spool is empty: {records} records were replayed in {time} s");
            ngx::log(Level::Notice, &format!("redis \"{name}\": {text}"));
        }
        if !outcome.records.is_empty() {
            self.replay.get_or_insert((now, 0));
        }
        (self.has_unread, self.is_empty) = (outcome.has_unread, outcome.is_empty);
        for Kept { number, commands } in outcome.records {
            hold.push(Record { commands, events: 1, spool: true, kept: Some(number) });
        }
        self.settle(append, outcome.appended.err().map(|error| error.to_string()), now, answer);
    }

    /// What a thread had to write is written, or was not for this reason.
    fn settle(&mut self, append: Vec<Commands>, failure: Option<String>, now: Msec, answer: &mut Answer) {
        let name = &self.settings.name;
        match &failure {
            Some(failure) => {
                if self.failing != *failure {
                    self.trouble.log(now, || format!("redis \"{name}\": spool: {failure}"));
                    self.failing.clone_from(failure);
                }
                self.retry_at = now + SYNC;
                let events = self.writing.iter().filter(|write| write.waits.is_some());
                self.counters.spool_failed(events.map(|write| u64::from(write.events)).sum());
            }
            None if append.is_empty() => {}
            None => {
                if !std::mem::take(&mut self.failing).is_empty() {
                    ngx::log(Level::Notice, &format!("redis \"{name}\": spool: events are written again"));
                }
                self.counters.spool_wrote(append.len() as u64);
            }
        }
        let mut promised = VecDeque::new();
        for (mut write, commands) in self.writing.drain(..).zip(append) {
            match write.waits {
                // Promised: it is tried again.
                None if failure.is_some() => {
                    write.commands = commands;
                    promised.push_back(write);
                    continue;
                }
                None => {}
                Some(waits) => answer(waits, failure.as_deref().map_or(Written::Yes, Written::No)),
            }
            self.bytes -= commands.len();
            self.events -= write.events as usize;
        }
        promised.append(&mut self.writes);
        self.writes = promised;
        if let Some(failure) = failure {
            self.refuse(&failure, |_| true, answer);
        }
    }

    /// Answers clients whose events no thread has begun to write, and will not.
    fn refuse(&mut self, reason: &str, which: impl Fn(&Waits) -> bool, answer: &mut Answer) {
        self.writes.retain_mut(|write| {
            let Some(waits) = write.waits.take_if(|waits| which(waits)) else { return true };
            self.counters.spool_failed(u64::from(write.events));
            answer(waits, Written::No(reason));
            self.bytes -= write.commands.len();
            self.events -= write.events as usize;
            false
        });
    }

    /// Of a record that is not done with, so many commands are.
    pub fn acknowledge_part(&mut self, number: u64, commands: u32) {
        self.part = Some((number, commands));
    }

    /// At a worker's end: writes what was promised, without a thread, and lets others have the files. How many events are
    /// lost, and why.
    pub fn close(&mut self, promised: impl Iterator<Item = Record>) -> (usize, String) {
        let mut disk = lock(&self.disk);
        std::mem::take(&mut self.done).into_iter().for_each(|number| disk.acknowledge(number));
        if let Some((number, commands)) = self.part.take() {
            disk.acknowledge_part(number, commands);
        }
        let (mut lost, mut why) = (0, String::new());
        let mut writes = Vec::new();
        self.writing.drain(..).filter_map(|write| write.waits).for_each(|waits| waits.pending.abandon());
        for Write { commands, events, waits } in self.writes.drain(..) {
            match waits {
                None => writes.push((commands, events)),
                Some(waits) => waits.pending.abandon(),
            }
        }
        let records = promised.map(|record| (record.commands, record.events));
        for (commands, events) in writes.into_iter().chain(records) {
            match disk.append(&[commands], ngx::unix_ms(), false) {
                Ok(()) => self.counters.spool_wrote(1),
                Err(error) => {
                    lost += events as usize;
                    why = error.to_string();
                }
            }
        }
        for (commands, note) in self.rejected.drain(..) {
            if let Err(why) = disk.reject(&commands, ngx::unix_ms(), &note) {
                self.unkept += commands.count();
                self.unkept_why = why.to_string();
            }
        }
        if let Err(error) = disk.sync() {
            ngx::log(Level::Error, &format!("redis \"{}\": spool: {error}", self.settings.name));
        }
        disk.close();
        drop(disk);
        self.unkept_at = 0;
        self.tell_unkept(0);
        (lost, why)
    }
}

impl Write {
    fn deadline(&self) -> Option<Msec> {
        self.waits.as_ref().map(|waits| waits.deadline)
    }
}

impl Job {
    fn run(&mut self, disk: &mut Disk) -> Outcome {
        if self.adopt {
            disk.adopt();
        }
        self.done.drain(..).for_each(|number| disk.acknowledge(number));
        let mut unkept = None;
        for (commands, note) in self.rejected.drain(..) {
            if let Err(why) = disk.reject(&commands, self.unix_ms, &note) {
                unkept = Some((unkept.map_or(0, |(count, _)| count) + commands.count(), why));
            }
        }
        let appended = match self.append.is_empty() {
            true => Ok(()),
            false => disk.append(&self.append, self.unix_ms, self.sync_appended),
        };
        let synced = if self.sync { disk.sync() } else { Ok(()) };
        let records = self.read.map_or_else(Vec::new, |room| disk.read(room.bytes, room.commands));
        let is_uncounted = disk.survey();
        let has_unread = disk.has_unread();
        let looks = self.adopt || !self.append.is_empty() || disk.is_empty();
        Outcome {
            appended,
            unkept,
            synced,
            records,
            has_unread,
            is_empty: disk.is_empty(),
            notes: disk.take_notes(),
            damaged: disk.take_damaged(),
            waiting: disk.waiting(),
            is_uncounted,
            usage: looks.then(|| disk.usage()),
        }
    }
}

impl Pool {
    /// A thread has done its part for the spool.
    fn spooled(&self, append: Vec<Commands>, outcome: Option<Outcome>) {
        self.with(|_, state, now| {
            let State { spooler, hold, requests, .. } = state;
            let Some(spooler) = spooler else { return };
            spooler.finish(append, outcome, hold, now, &mut |waits, written| requests.spooled(waits, written));
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
