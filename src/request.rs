//! Request: the content handler. It checks method and media type, has the body read, validated and encoded, and hands
//! the commands to the pool; from then on the request waits as a [`Pending`] that is answered exactly once.

pub mod batch;
mod encode;
mod intake;

use std::cell::RefCell;

use crate::command::Commands;
use crate::conf::Location;
use crate::event::{self, Kind};
use crate::ngx::{Handled, Level, Msec, OutOfMemory, Pending, Request, unix_ms};
use crate::pool::{Pool, Work};
use crate::response::{Answer, Fate, Outcome, Problem, Style};
use crate::variables;
use intake::{Origin, event_text, origin};

thread_local! {
    /// What one request after another is encoded into.
    static COMMANDS: RefCell<Commands> = RefCell::new(Commands::new());
}

/// The content handler of a location with `meteorit_pass`.
pub fn handle(request: Request) -> Handled {
    let location = request.location();
    let limit = location.max_body_size();
    let problem = if !location.methods().has(request.method()) {
        Problem::MethodNotAllowed { allow: location.methods().list() }
    } else if !origin(&request).is_some_and(|origin| origin != Origin::Lines || location.batch().is_some()) {
        Problem::UnsupportedMediaType
    } else if let Err(unknown) = intake::coding(&request) {
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
    }
    let text = match event_text(&request, location) {
        Ok(text) => text,
        Err(problem) => return answer(request, &problem),
    };
    if let Some(form) = batch::form(&request, text) {
        return batch::begin(request, text, form);
    }
    match COMMANDS.with_borrow_mut(|commands| prepare(&request, location, text, commands)) {
        Ok(Some(pool)) => match request.suspend() {
            Ok(pending) => {
                let work = Work::Event(Outcome::default());
                COMMANDS.with_borrow(|commands| pool.submit(pending, work, commands, &[]));
            }
            Err((request, OutOfMemory)) => answer(request, &Problem::NoResources),
        },
        // Every command's if= said no.
        Ok(None) => answer(request, &Problem::Redis(Outcome::default())),
        Err(problem) => answer(request, &problem),
    }
}

/// Encodes the one event of a body and finds room for its commands; None when it has none.
fn prepare<'r>(
    request: &Request<'r>,
    location: &'r Location,
    text: &'r [u8],
    commands: &mut Commands,
) -> Result<Option<&'r Pool>, Problem> {
    let limit = location.max_event_size();
    if text.len() > limit {
        return Err(Problem::TooLarge { limit });
    }
    commands.clear();
    // The whole body, with what white space is around the object.
    encode::encode(request, location, text, commands).map_err(|problem| match problem {
        Problem::Event(event::Error::Rule { rule: event::Rule::NotAnObject { found: Kind::Array }, .. })
            if location.batch().is_none() =>
        {
            Problem::BatchesOff
        }
        problem => problem,
    })?;
    if commands.is_empty() {
        return Ok(None);
    }
    let pool = location.redis().ok_or(Problem::NoResources)?.pool();
    pool.admit(commands.len())?;
    Ok(Some(pool))
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
    if let Some(note) = request.note() {
        note.fate.set(Some(fate));
    }
    let answer = problem.answer();
    if let (Fate::Rejected, Some(body)) = (fate, &answer.body) {
        request.log(Level::Info, &format!("meteorit: event not taken: {}", String::from_utf8_lossy(&body.bytes)));
    }
    match (problem, request.location().style()) {
        (Problem::Redis(_), Style::Json) if answer.status == 204 => Answer::json(200, &accepted(request)),
        (_, style) => answer.styled(style),
    }
}

/// What a JSON answer says of a single event that was stored.
fn accepted(request: &Request) -> String {
    let id = variables::id(request).ok().flatten().map(String::from_utf8_lossy).unwrap_or_default();
    format!(r#""accepted":1,"rejected":0,"ids":[{}],"errors":[]"#, serde_json::json!(id))
}
