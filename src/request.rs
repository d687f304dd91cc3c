//! Request: the content handler. It checks method and media type, has the body read, validated and encoded, and hands
//! the commands to the pool; from then on the request waits as a [`Pending`] that is answered exactly once.

use std::cell::RefCell;

use crate::body::{self, Unreadable};
use crate::command::{Commands, Source};
use crate::conf::Location;
use crate::event::Tape;
use crate::ngx::{Complex, Handled, Level, Method, OutOfMemory, Pending, Request};
use crate::response::{Answer, Fate, Problem};

/// What one event after another is read and encoded with.
struct Scratch {
    tape: Tape,
    commands: Commands,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch { tape: Tape::new(), commands: Commands::new() });
}

/// The content handler of a location with `meteorit_pass`.
pub fn handle(request: Request) -> Handled {
    let location = request.location();
    let limit = location.max_event_size();
    let problem = if request.method() == Method::Other {
        Problem::MethodNotAllowed
    } else if !request.content_type().is_none_or(is_accepted) {
        Problem::UnsupportedMediaType
    } else if request.content_length().is_some_and(|length| length > limit as u64) {
        Problem::TooLarge { limit }
    } else {
        return request.read_body(body_read);
    };
    let answer = tell(&request, &problem);
    request.answer_without_body(&answer, location.intercept_errors())
}

/// application/json, anything +json, text/plain; parameters do not matter.
fn is_accepted(media_type: &[u8]) -> bool {
    let end = media_type.iter().position(|byte| *byte == b';').unwrap_or(media_type.len());
    let media_type = media_type.get(..end).unwrap_or_default().trim_ascii();
    let suffix = media_type.len().checked_sub(5).and_then(|at| media_type.get(at..));
    media_type.is_empty()
        || media_type.eq_ignore_ascii_case(b"application/json")
        || media_type.eq_ignore_ascii_case(b"text/plain")
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"))
}

fn body_read(request: Request) {
    let location = request.location();
    let result = SCRATCH.with_borrow_mut(|scratch| {
        encode(&request, location, scratch)?;
        if scratch.commands.is_empty() {
            return Ok(None);
        }
        let pool = location.pool().ok_or(Problem::NoResources)?;
        pool.admit(scratch.commands.len())?;
        Ok(Some(pool))
    });
    let answer = match result {
        Ok(Some(pool)) => match request.suspend() {
            Ok(pending) => {
                return SCRATCH.with_borrow(|scratch| {
                    pool.submit(pending, &scratch.commands, location.intercept_errors());
                });
            }
            Err((request, OutOfMemory)) => {
                let answer = tell(&request, &Problem::NoResources);
                return request.answer(&answer, location.intercept_errors());
            }
        },
        // Every command's if= said no.
        Ok(None) => {
            note(&request, Fate::Stored);
            Answer::no_content()
        }
        Err(problem) => tell(&request, &problem),
    };
    request.answer(&answer, location.intercept_errors());
}

/// From the body to the commands' bytes.
fn encode(request: &Request, location: &Location, scratch: &mut Scratch) -> Result<(), Problem> {
    let limit = location.max_event_size();
    let text = body::collect(request, limit).map_err(|unreadable| match unreadable {
        Unreadable::TooLarge => Problem::TooLarge { limit },
        Unreadable::OutOfMemory => Problem::NoResources,
        Unreadable::File => {
            request.log(Level::Error, "meteorit: the body's temporary file cannot be read back");
            Problem::NoResources
        }
    })?;
    scratch.tape.parse(text, &location.limits()).map_err(Problem::Event)?;
    // The whole body, with what white space is around the object.
    request.set_event(text);
    scratch.commands.clear();
    for template in location.commands() {
        let encoded = template.encode(text, &Evaluate(request), &mut scratch.commands);
        encoded.map_err(|OutOfMemory| Problem::NoResources)?;
    }
    Ok(())
}

/// nginx's variables, seen from a request.
struct Evaluate<'a, 'r>(&'a Request<'r>);

impl Source<Complex> for Evaluate<'_, '_> {
    type Error = OutOfMemory;

    fn value(&self, value: &Complex) -> Result<&[u8], OutOfMemory> {
        self.0.evaluate(value)
    }
}

/// Answers a request that waited.
pub fn finish(pending: Pending, problem: Problem, redis_time: u64, intercept: bool) {
    pending.answer(|request| {
        if let Some(note) = request.note() {
            note.redis_time.set(Some(redis_time));
        }
        (tell(request, &problem), intercept)
    });
}

/// Takes note of what becomes of the request, and makes the answer that says it.
fn tell(request: &Request, problem: &Problem) -> Answer {
    note(request, problem.fate());
    let answer = problem.answer();
    if let (400..500, Some(body)) = (answer.status, &answer.body) {
        request.log(Level::Info, &format!("meteorit: event not taken: {body}"));
    }
    answer
}

fn note(request: &Request, fate: Fate) {
    if let Some(note) = request.note() {
        note.fate.set(Some(fate));
    }
}
