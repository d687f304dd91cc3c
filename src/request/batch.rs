//! Many events in one body. Each is encoded as if it had come alone; all their commands go to Redis in one pipeline, in
//! order, or none does. A long batch gives way to the event loop after every few events.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::encode::{encode, encode_rejected};
use super::intake::Origin;
use super::{answer, finish, made, reject, reject_waiting, told};
use crate::batch::{self, Form, Mode, Piece, Split};
use crate::command::Commands;
use crate::conf::{Location, redis::Redis};
use crate::current;
use crate::hold::{Ack, Terms};
use crate::ngx::{Msec, OutOfMemory, Pending, Posted, Request, Timer};
use crate::pool::{Owner, Work};
use crate::response::{Problem, Report, Tally};
use crate::variables;

/// How many events are worked on before other requests have their turn.
const STEP: u32 = 64;

/// About how many bytes an event has: room is made for so many events of a body.
const USUAL: usize = 256;

/// A batch that is being worked on.
struct Batch {
    redis: Rc<Redis>,
    form: Form,
    split: Split,
    mode: Mode,
    commands: Commands,
    /// How many commands each event has that the report has taken or set aside.
    counts: Vec<u32>,
    report: Report,
    /// One is bad, and that is the end of all.
    failed: bool,
}

/// How the body carries several events; None when it is one event, or batches are off.
pub fn form(request: &Request, origin: Origin, text: &[u8]) -> Option<Form> {
    request.location().batch()?;
    match origin {
        Origin::Lines => Some(Form::Lines),
        Origin::Json | Origin::Form => {
            let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
            (first == Some(&b'[')).then_some(Form::Array)
        }
        Origin::Query => None,
    }
}

/// Works on a batch from the callback of the body.
pub fn begin<'r>(request: Request<'r>, text: &'r [u8], form: Form) {
    let location = request.location();
    let (Some(mode), Some(redis)) = (location.batch(), location.redis().cloned()) else {
        return answer(request, &Problem::NoResources);
    };
    request.set_body(text);
    if let Err(OutOfMemory) = request.save_values() {
        return answer(request, &Problem::NoResources);
    }
    // Room for what a command or two say beside the event.
    let (bytes, events) = (text.len() * 5 / 4, (text.len() / USUAL).min(mode.max as usize) + 1);
    let (commands, counts) = (Commands::with_capacity(bytes, events), Vec::with_capacity(events));
    let report = Report::with_capacity(events);
    let split = Split::new(form, mode.max);
    let mut batch = Box::new(Batch { redis, form, split, mode, commands, counts, report, failed: false });
    match batch.work(&request) {
        Ok(Turn::Again) => match request.suspend() {
            Ok(pending) => YARD.with(|yard| yard.wait(pending, batch)),
            Err((request, OutOfMemory)) => answer(request, &Problem::NoResources),
        },
        Ok(Turn::Write) if location.terms().ack == Ack::Queued => {
            let report = batch.queue(location.terms());
            answer(request, &told_of(location, report))
        }
        Ok(Turn::Write) => match request.suspend() {
            Ok(pending) => batch.submit(pending, location.terms()),
            Err((request, OutOfMemory)) => answer(request, &Problem::NoResources),
        },
        Ok(Turn::Nothing) => answer(request, &told_of(location, Box::new(batch.report))),
        Ok(Turn::NoBatch(error)) => {
            request.clear_event();
            reject(request, text, Problem::from(error))
        }
        Err(problem) => {
            found(&request, &batch.report);
            answer(request, &problem)
        }
    }
}

/// What follows on some events of a batch.
enum Turn {
    /// There are more events.
    Again,
    /// All commands are there, and the pool has room for them.
    Write,
    /// There is nothing to write.
    Nothing,
    /// The body as a whole is no batch.
    NoBatch(batch::Error),
}

impl Batch {
    /// Works on the next few events, and after the last one finds room for their commands.
    fn work(&mut self, request: &Request) -> Result<Turn, Problem> {
        for _ in 0..STEP {
            match self.next(request) {
                Ok(Some((piece, wrong))) => self.take(request, piece, wrong)?,
                Ok(None) => {
                    // The log has no event to speak of.
                    request.clear_event();
                    request.forget_values();
                    return Ok(if self.admit(request)? { Turn::Write } else { Turn::Nothing });
                }
                Err(error) => return Ok(Turn::NoBatch(error)),
            }
        }
        Ok(Turn::Again)
    }

    /// Reads the next event: its text, and what is wrong with it. With nothing wrong it is the request's current event.
    fn next<'r>(&mut self, request: &Request<'r>) -> Result<Option<(Piece<'r>, Option<Problem>)>, batch::Error> {
        let (body, location) = (request.decoded_body(), request.location());
        let Some(text) = self.split.next(body)? else { return Ok(None) };
        let (limit, limits) = (location.max_event_size(), location.limits());
        // A byte more is enough to be too large.
        let text = text.get(..=limit).unwrap_or(text);
        let read = match self.form {
            Form::Array => current::set_first(request, text, &limits),
            Form::Lines => current::set(request, text, &limits).map(|()| text.len()),
        };
        let piece = self.split.piece(body, read.as_ref().ok().copied())?;
        if piece.text.len() > limit {
            request.clear_event();
            return Ok(Some((piece, Some(Problem::TooLarge { limit }))));
        }
        Ok(Some((piece, read.err().map(|error| Problem::Event(piece.error_in_body(error))))))
    }

    /// Has an event's commands encoded, or takes note of what is wrong with it.
    fn take<'r>(&mut self, request: &Request<'r>, piece: Piece<'r>, wrong: Option<Problem>) -> Result<(), Problem> {
        let before = self.commands.count();
        let encoded = match wrong {
            Some(problem) => Err(problem),
            None => encode(request, request.location(), piece.text, &mut self.commands),
        };
        match encoded {
            Ok(_) if self.failed => {
                self.commands.truncate(before);
                self.report.leave();
            }
            Ok(count) => {
                let id = variables::id(request).map_err(|OutOfMemory| Problem::NoResources)?.unwrap_or_default();
                self.report.take(piece.index, id, piece.place(), count);
                self.counts.push(count);
            }
            Err(Problem::NoResources) => return Err(Problem::NoResources),
            Err(problem) => self.refuse(request, piece, problem)?,
        }
        // Before more is piled up: it will not be taken.
        if self.commands.len() > self.redis.settings.backlog {
            return Err(Problem::BodyTooLarge { limit: self.redis.settings.backlog });
        }
        Ok(())
    }

    fn refuse<'r>(&mut self, request: &Request<'r>, piece: Piece<'r>, problem: Problem) -> Result<(), Problem> {
        if !self.mode.partial && !self.failed {
            self.failed = true;
            self.commands.clear();
            self.counts.clear();
            self.report.take_none();
        }
        let error = problem.at(piece.index);
        match encode_rejected(request, request.location(), piece.text, &problem, &mut self.commands)? {
            0 => self.report.refuse(error),
            count => {
                self.report.set_aside(error, count);
                self.counts.push(count);
            }
        }
        Ok(())
    }

    /// After the last event: whether there is something to write, and room for it.
    fn admit(&mut self, request: &Request) -> Result<bool, Problem> {
        let terms = request.location().terms();
        if request.location().dry_run() {
            self.redis.settings.fits(self.commands.len(), self.report.taken())?;
            made(request, &self.commands);
            self.report.dry_run();
            return Ok(false);
        }
        if self.report.taken() == 0 || self.commands.is_empty() {
            return Ok(false);
        }
        self.redis.pool().admit(self.commands.len(), self.report.taken(), terms)?;
        made(request, &self.commands);
        Ok(true)
    }

    /// Hands the admitted commands of a batch that waited to the pool.
    fn write(self, pending: Pending) {
        // The client may have gone, and nothing was written.
        let Some(terms) = pending.with(|request| request.location().terms()) else {
            return pending.counters().gone(&Tally::default());
        };
        if terms.ack == Ack::Stored {
            return self.submit(pending, terms);
        }
        settled(pending, self.queue(terms), None);
    }

    /// Hands the admitted commands to the pool.
    fn submit(self, pending: Pending, terms: Terms) {
        let owner = Owner::Client(pending, Work::Batch(Box::new(self.report)));
        self.redis.pool().submit(owner, terms, &self.commands, &self.counts);
    }

    /// Hands the admitted commands to the pool, to be held until Redis takes them.
    fn queue(mut self, terms: Terms) -> Box<Report> {
        self.redis.pool().submit(Owner::Queue, terms, &self.commands, &self.counts);
        self.report.queue();
        Box::new(self.report)
    }
}

/// Takes note of how many events there are in a batch that is refused as a whole.
fn found(request: &Request, report: &Report) {
    if let Some(note) = request.note() {
        note.found.set(report.total());
    }
}

/// The problem of a batch of which nothing is left to do.
fn told_of(location: &Location, report: Box<Report>) -> Problem {
    match report.is_rejected() {
        true => told(location, Problem::Batch(report)),
        false => Problem::Batch(report),
    }
}

/// Each command of a batch has its verdict. What Redis refused for good is set aside, where that is called for.
pub fn settled(pending: Pending, mut report: Box<Report>, redis_time: Option<Msec>) {
    let mut commands = Commands::new();
    let mut counts = Vec::new();
    let Some(terms) = pending.with(|request| request.location().terms()) else {
        return pending.counters().gone(&report.tally());
    };
    let set_aside = |request: &Request| -> Result<(), Problem> {
        let location = request.location();
        if location.reject_commands().is_empty() {
            return Ok(());
        }
        let body = request.decoded_body();
        for (number, place) in report.refused_by_redis() {
            let text = body.get(place).unwrap_or_default();
            request.clear_event();
            let problem = Problem::Redis(report.outcome(number));
            let count = encode_rejected(request, location, text, &problem, &mut commands)?;
            report.set_refused_aside(number, problem.at(0), count);
            counts.resize(number as usize, 0);
            counts.push(count);
        }
        request.clear_event();
        Ok(())
    };
    let problem = match pending.with(set_aside) {
        // The client has gone.
        None => return,
        Some(Err(problem)) => {
            pending.with(|request| found(request, &report));
            problem
        }
        Some(Ok(())) => {
            let redis = pending.with(|request| request.location().redis().cloned()).flatten();
            match redis.filter(|_| !commands.is_empty()) {
                Some(redis) => match redis.pool().admit(commands.len(), counts.len() as u32, terms) {
                    Ok(()) => {
                        let owner = Owner::Client(pending, Work::Batch(report));
                        return redis.pool().submit(owner, terms, &commands, &counts);
                    }
                    Err(problem) => {
                        report.fail(&problem.words().detail);
                        Problem::Batch(report)
                    }
                },
                None => pending.with(|request| told_of(request.location(), report)).unwrap_or(Problem::NoResources),
            }
        }
    };
    finish(pending, problem, redis_time);
}

/// The batches of this worker that wait for their next turn.
struct Yard {
    waiting: RefCell<VecDeque<(Pending, Box<Batch>)>>,
    turn: Posted,
    /// A posted event does not keep a worker from exiting, a timer does.
    stay: Timer,
    staying: Cell<bool>,
}

thread_local! {
    static YARD: Rc<Yard> = Rc::new_cyclic(|yard| Yard {
        waiting: RefCell::default(),
        turn: Posted::new(yard.clone(), Yard::turn),
        stay: Timer::new(yard.clone(), |yard| yard.staying.set(false)),
        staying: Cell::new(false),
    });
}

impl Yard {
    fn wait(&self, pending: Pending, batch: Box<Batch>) {
        self.waiting.borrow_mut().push_back((pending, batch));
        self.turn.post_next();
        if !self.staying.replace(true) {
            self.stay.set(1000);
        }
    }

    /// Each batch that waits has its next events worked on.
    fn turn(&self) {
        let count = self.waiting.borrow().len();
        for _ in 0..count {
            let Some((pending, mut batch)) = self.waiting.borrow_mut().pop_front() else { break };
            match pending.with(|request| batch.work(request)) {
                // The client has gone, and nothing was written.
                None => pending.counters().gone(&Tally::default()),
                Some(Ok(Turn::Again)) => self.wait(pending, batch),
                Some(Ok(Turn::Write)) => batch.write(pending),
                Some(Ok(Turn::Nothing)) => settled(pending, Box::new(batch.report), None),
                Some(Ok(Turn::NoBatch(error))) => reject_waiting(pending, Problem::from(error)),
                Some(Err(problem)) => {
                    pending.with(|request| found(request, &batch.report));
                    finish(pending, problem, None);
                }
            }
        }
        if self.waiting.borrow().is_empty() {
            self.stay.cancel();
            self.staying.set(false);
        }
    }
}

/// Forgets the batches that wait, in a worker that is about to exit.
pub fn shut_down() {
    YARD.with(|yard| yard.waiting.borrow_mut().drain(..).for_each(|(pending, _)| pending.abandon()));
}
