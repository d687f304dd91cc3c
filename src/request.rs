//! Request: the content handler. It checks method and media type, has the body read, validated and encoded, and hands
//! the commands to the pool; from then on the request waits as a [`Pending`] that is answered exactly once.

pub mod batch;
pub mod cors;
mod encode;
mod intake;
pub mod selftest;

use std::cell::RefCell;

use crate::command::Commands;
use crate::conf::Location;
use crate::current;
use crate::event::{self, Kind};
use crate::hold::Ack;
use crate::ngx::{Handled, Level, Msec, OutOfMemory, Pending, Request, unix_ms};
use crate::pool::{Owner, Pool, Work};
use crate::response::{Answer, Fate, Outcome, Problem, Style, Tally, Words};
use crate::variables;
use intake::{Origin, origin};

thread_local! {
    /// What one request after another is encoded into.
    static COMMANDS: RefCell<Commands> = RefCell::new(Commands::new());
}

/// The content handler of a location with `meteorit_pass`.
pub fn handle(request: Request) -> Handled {
    let location = request.location();
    let limit = location.max_body_size();
    let origin = origin(&request);
    let problem = if !location.methods().has(request.method()) {
        Problem::MethodNotAllowed { allow: location.methods().list() }
    } else if !origin.is_some_and(|origin| origin != Origin::Lines || location.batch().is_some()) {
        Problem::UnsupportedMediaType
    } else if let (true, Err(unknown)) = (origin != Some(Origin::Query), intake::coding(&request)) {
        Problem::Coding(unknown)
    } else if request.content_length().is_some_and(|length| length > limit as u64) {
        intake::too_large(location, limit)
    } else {
        return request.read_body(body_read);
    };
    let answer = tell(&request, &problem);
    request.answer_without_body(&answer, location.intercept_errors())
}

fn body_read(request: Request) {
    let location = request.location();
    if let Some(note) = request.note() {
        note.received.set(Some(unix_ms()));
        note.found.set(0);
        note.commands.set(Some(0));
    }
    // The handler has let none pass without.
    let origin = origin(&request).unwrap_or(Origin::Json);
    let sent = match intake::sent(&request, origin, location) {
        Ok(sent) => sent,
        Err(problem) => return answer(request, &problem),
    };
    let text = match intake::event_text(&request, origin, location, sent) {
        Ok(text) => text,
        Err(problem) => return reject(request, sent, problem),
    };
    if let Some(form) = batch::form(&request, origin, text) {
        return batch::begin(request, text, form);
    }
    // Redis may yet refuse it.
    request.set_body(text);
    let prepared = commit(&request, |commands| match prepare(&request, text, commands) {
        Ok(()) => Ok(Work::Event(Outcome::default())),
        Err(problem) => prepare_rejected(&request, text, problem, commands),
    });
    match prepared {
        Ok(work) => submit(request, work),
        Err(problem) => answer(request, &problem),
    }
}

/// Has the commands set aside what the client sent.
fn reject<'r>(request: Request<'r>, text: &'r [u8], problem: Problem) {
    match commit(&request, |commands| prepare_rejected(&request, text, problem, commands)) {
        Ok(work) => submit(request, work),
        Err(problem) => answer(request, &problem),
    }
}

/// As [`reject`], of a request that waits, for the whole of its body.
fn reject_waiting(pending: Pending, problem: Problem) {
    let rejected = pending.with(|request| {
        request.clear_event();
        let text = request.decoded_body();
        let work = commit(request, |commands| prepare_rejected(request, text, problem, commands))?;
        let location = request.location();
        Ok((work, location.redis().cloned().ok_or(Problem::NoResources)?, location.terms()))
    });
    let (work, redis, terms) = match rejected {
        Some(Ok(rejected)) => rejected,
        Some(Err(problem)) => return finish(pending, problem, None),
        // The client has gone, and nothing was written.
        None => return pending.counters().gone(&Tally::default()),
    };
    match work {
        Work::Rejected(rejected) if terms.ack == Ack::Queued => {
            COMMANDS.with_borrow(|commands| redis.pool().submit(Owner::Queue, terms, commands, &[]));
            let problem = pending.with(|request| told(request.location(), rejected.0)).unwrap_or(Problem::NoResources);
            finish(pending, problem, None);
        }
        work => {
            let owner = Owner::Client(pending, work);
            COMMANDS.with_borrow(|commands| redis.pool().submit(owner, terms, commands, &[]));
        }
    }
}

/// Encodes the one event of a body.
fn prepare<'r>(request: &Request<'r>, text: &'r [u8], commands: &mut Commands) -> Result<(), Problem> {
    let location = request.location();
    let limit = location.max_event_size();
    if text.len() > limit {
        return Err(Problem::TooLarge { limit });
    }
    // The whole body, with what white space is around the object.
    current::set(request, text, &location.limits()).map_err(|error| match error {
        event::Error::Rule { rule: event::Rule::NotAnObject { found: Kind::Array }, .. }
            if location.batch().is_none() =>
        {
            Problem::BatchesOff
        }
        error => Problem::Event(error),
    })?;
    encode::encode(request, location, text, commands)?;
    Ok(())
}

/// Encodes what sets a rejected event aside, of which the client sent this text. With nothing to do so, and with what is
/// not the event's fault, the problem comes back.
fn prepare_rejected<'r>(
    request: &Request<'r>,
    text: &'r [u8],
    problem: Problem,
    commands: &mut Commands,
) -> Result<Work, Problem> {
    if !problem.is_of_event() {
        return Err(problem);
    }
    let location = request.location();
    match encode::encode_rejected(request, location, text, &problem, commands)? {
        0 => Err(told(location, problem)),
        _ => Ok(Work::Rejected(Box::new((problem, Outcome::default())))),
    }
}

/// Has commands encoded, and finds room for them in the pool.
fn commit(request: &Request, encode: impl FnOnce(&mut Commands) -> Result<Work, Problem>) -> Result<Work, Problem> {
    COMMANDS.with_borrow_mut(|commands| {
        commands.clear();
        let work = encode(commands)?;
        if request.location().dry_run() {
            return Err(dry_run(request, work, commands));
        }
        if commands.is_empty() {
            // Every command's if= said no.
            return Err(Problem::Redis(Outcome::default()));
        }
        pool(request)?.admit(commands.len(), 1, request.location().terms())?;
        made(request, commands);
        Ok(work)
    })
}

fn pool<'r>(request: &Request<'r>) -> Result<&'r Pool, Problem> {
    Ok(request.location().redis().ok_or(Problem::NoResources)?.pool())
}

/// What a request is told whose commands are not written.
fn dry_run(request: &Request, work: Work, commands: &Commands) -> Problem {
    let location = request.location();
    let Some(redis) = location.redis() else { return Problem::NoResources };
    if let Err(problem) = redis.settings.fits(commands.len(), 1) {
        return problem;
    }
    made(request, commands);
    match work {
        Work::Rejected(rejected) => told(location, rejected.0),
        _ => Problem::Redis(Outcome::dry_run()),
    }
}

/// Takes note of the commands that the request has brought forth.
fn made(request: &Request, commands: &Commands) {
    if let Some(note) = request.note() {
        note.commands.set(Some(note.commands.get().unwrap_or(0) + commands.count()));
    }
}

/// Hands the commands that were encoded to the pool, and lets the request wait for the verdicts on them, unless it is to be
/// answered at once.
fn submit(request: Request, work: Work) {
    let (location, terms) = (request.location(), request.location().terms());
    let pool = match pool(&request) {
        Ok(pool) => pool,
        Err(problem) => return answer(request, &problem),
    };
    if terms.ack == Ack::Queued {
        COMMANDS.with_borrow(|commands| pool.submit(Owner::Queue, terms, commands, &[]));
        return match work {
            Work::Rejected(rejected) => answer(request, &told(location, rejected.0)),
            _ => answer(request, &Problem::Redis(Outcome::queued())),
        };
    }
    match request.suspend() {
        Ok(pending) => {
            let owner = Owner::Client(pending, work);
            COMMANDS.with_borrow(|commands| pool.submit(owner, terms, commands, &[]));
        }
        Err((request, OutOfMemory)) => answer(request, &Problem::NoResources),
    }
}

/// Each command of the request has its verdict.
pub fn settled(pool: &Pool, pending: Pending, work: Work, redis_time: Msec) {
    if pending.is_gone() {
        return pending.counters().gone(&tally(work));
    }
    let problem = match work {
        Work::Event(outcome) => {
            let problem = Problem::Redis(outcome);
            let rejected = pending.with(|request| match problem.is_of_event() {
                true => {
                    let (text, words) = (request.decoded_body(), problem.words());
                    let work = commit(request, |commands| prepare_rejected(request, text, problem, commands));
                    let work = work.map_err(|problem| match problem.fate() {
                        Fate::Unavailable => problem.not_set_aside(&words.detail),
                        _ => problem,
                    })?;
                    Ok((work, request.location().terms()))
                }
                false => Err(problem),
            });
            match rejected {
                // The client has gone.
                None => return,
                Some(Ok((work, terms))) => {
                    let owner = Owner::Client(pending, work);
                    return COMMANDS.with_borrow(|commands| pool.submit(owner, terms, commands, &[]));
                }
                Some(Err(problem)) => problem,
            }
        }
        Work::Rejected(rejected) => {
            let (problem, outcome) = *rejected;
            match outcome.fate() {
                fate if fate.is_accepted() => {
                    pending.with(|request| told(request.location(), problem)).unwrap_or(Problem::NoResources)
                }
                _ => Problem::Redis(outcome).not_set_aside(&problem.words().detail),
            }
        }
        Work::Batch(report) => return batch::settled(pending, report, Some(redis_time)),
        Work::SelfTest(running) => return selftest::settled(pool, pending, *running, redis_time),
    };
    finish(pending, problem, Some(redis_time));
}

/// What became of the events of a request.
fn tally(work: Work) -> Tally {
    match work {
        Work::Event(outcome) => Problem::Redis(outcome).tally(1),
        Work::Batch(report) => report.tally(),
        Work::SelfTest(_) => Tally::default(),
        Work::Rejected(rejected) => {
            let (problem, outcome) = *rejected;
            let aside = outcome.fate().is_accepted();
            if aside { problem } else { Problem::Redis(outcome).not_set_aside("") }.tally(1)
        }
    }
}

/// The problem with an event, of which the client may be told another status.
fn told(location: &Location, problem: Problem) -> Problem {
    match location.reject_status() {
        Some(status) => Problem::Told { status, problem: Box::new(problem) },
        None => problem,
    }
}

/// Answers a request from the callback of its body.
fn answer(request: Request, problem: &Problem) {
    let answer = tell(&request, problem);
    let intercept = request.location().intercept_errors();
    request.answer(&answer, intercept);
}

/// Answers a request that waited.
pub fn finish(pending: Pending, problem: Problem, redis_time: Option<Msec>) {
    pending.answer(|request| {
        if let Some(note) = request.note() {
            note.redis_time.set(redis_time);
        }
        (tell(request, &problem), request.location().intercept_errors())
    });
}

/// Takes note of what becomes of the request, and makes the answer that says it.
fn tell(request: &Request, problem: &Problem) -> Answer {
    let fate = problem.fate();
    count(request, problem, fate);
    let style = request.location().style();
    if let (Style::None, Some(answer)) = (style, problem.assent()) {
        return answer;
    }
    let answer = problem.answer();
    let own = match problem {
        Problem::Told { problem, .. } => problem,
        problem => problem,
    };
    if own.is_of_event()
        && request.error().is_empty()
        && let Ok(error) = request.keep(own.to_json().as_bytes())
    {
        request.set_error(error);
    }
    if fate == Fate::Rejected {
        // Nothing of what the client sent, such as the names in a pointer.
        let (Words { kind, .. }, status) = (own.words(), answer.status);
        request
            .log(Level::Info, &format!("meteorit: event not taken: {kind}, status {status}{}", own.line_and_column()));
    }
    match (problem, style) {
        (Problem::Redis(_), Style::Json) if answer.status == 204 => Answer::json(200, &accepted(request)),
        (Problem::Redis(_), Style::Json) if answer.status == 202 => Answer::json(202, &accepted(request)),
        (Problem::Told { .. }, Style::None | Style::Json) => answer,
        (_, style) => answer.styled(style),
    }
}

/// Counts the request and its events, and takes note of what becomes of them.
fn count(request: &Request, problem: &Problem, fate: Fate) {
    let counters = request.location().counters();
    let note = request.note();
    let found = note.map_or(0, |note| note.found.get());
    let events = match found == 0 && !problem.is_of_batch() {
        true => {
            counters.event(fate, problem.why());
            [fate.is_accepted().into(), matches!(fate, Fate::Rejected | Fate::Refused).into()]
        }
        false => {
            let tally = problem.tally(found);
            counters.batch(fate, &tally);
            [tally.accepted(), tally.rejected()]
        }
    };
    if let Some(note) = note {
        note.fate.set(Some(fate));
        note.events.set(Some(events));
    }
}

/// What a JSON answer says of a single event that was accepted.
fn accepted(request: &Request) -> String {
    let id = variables::id(request).ok().flatten().map(String::from_utf8_lossy).unwrap_or_default();
    format!(r#""accepted":1,"rejected":0,"ids":[{}],"errors":[]"#, serde_json::json!(id))
}
