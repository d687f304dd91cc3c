//! Request: the content handler. It checks method and media type, has the body read, validated and encoded, and hands
//! the commands to the pool; from then on the request waits as a [`Pending`] that is answered exactly once.

use std::cell::RefCell;

use serde::de::IgnoredAny;

use crate::body::{self, Unreadable};
use crate::command::{Commands, Fault, Source};
use crate::conf::{Field, Location};
use crate::current;
use crate::event::{self, Change, json_string};
use crate::form::Form;
use crate::ngx::{Complex, Handled, Level, Method, OutOfMemory, Pending, Request, unix_ms};
use crate::response::{Answer, Fate, Outcome, Problem};

thread_local! {
    /// What one request after another is encoded into.
    static COMMANDS: RefCell<Commands> = RefCell::new(Commands::new());
}

/// What an event is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Json,
    Form,
    Query,
}

/// The content handler of a location with `meteorit_pass`.
pub fn handle(request: Request) -> Handled {
    let location = request.location();
    let limit = location.max_event_size();
    let problem = if !location.methods().has(request.method()) {
        Problem::MethodNotAllowed { allow: location.methods().list() }
    } else if origin(&request).is_none() {
        Problem::UnsupportedMediaType
    } else if request.content_length().is_some_and(|length| length > limit as u64) {
        Problem::TooLarge { limit }
    } else {
        return request.read_body(body_read);
    };
    let answer = tell(&request, &problem);
    request.answer_without_body(&answer, location.intercept_errors())
}

/// By method and media type, whose parameters do not matter; None for a type that is not taken.
fn origin(request: &Request) -> Option<Origin> {
    if matches!(request.method(), Method::Get | Method::Head) {
        return Some(Origin::Query);
    }
    let media_type = request.content_type().unwrap_or_default();
    let end = media_type.iter().position(|byte| *byte == b';').unwrap_or(media_type.len());
    let media_type = media_type.get(..end).unwrap_or_default().trim_ascii();
    let is = |name: &str| media_type.eq_ignore_ascii_case(name.as_bytes());
    let suffix = media_type.len().checked_sub(5).and_then(|at| media_type.get(at..));
    if media_type.is_empty()
        || is("application/json")
        || is("text/plain")
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"))
    {
        Some(Origin::Json)
    } else if is("application/x-www-form-urlencoded") {
        Some(Origin::Form)
    } else {
        None
    }
}

fn body_read(request: Request) {
    let location = request.location();
    if let Some(note) = request.note() {
        note.received.set(Some(unix_ms()));
    }
    let result = COMMANDS.with_borrow_mut(|commands| {
        encode(&request, location, commands)?;
        if commands.is_empty() {
            return Ok(None);
        }
        let pool = location.pool().ok_or(Problem::NoResources)?;
        pool.admit(commands.len())?;
        Ok(Some(pool))
    });
    let answer = match result {
        Ok(Some(pool)) => match request.suspend() {
            Ok(pending) => return COMMANDS.with_borrow(|commands| pool.submit(pending, commands)),
            Err((request, OutOfMemory)) => {
                let answer = tell(&request, &Problem::NoResources);
                return request.answer(&answer, location.intercept_errors());
            }
        },
        // Every command's if= said no.
        Ok(None) => tell(&request, &Problem::Redis(Outcome::default())),
        Err(problem) => tell(&request, &problem),
    };
    request.answer(&answer, location.intercept_errors());
}

/// The event's text: the body as it is, or what a form or the query string says, as JSON.
fn event_text<'r>(request: &Request<'r>, location: &Location) -> Result<&'r [u8], Problem> {
    let limit = location.max_event_size();
    let origin = origin(request).unwrap_or(Origin::Json);
    if origin == Origin::Query {
        return form_text(request, origin, request.args(), location);
    }
    let text = body::collect(request, limit).map_err(|unreadable| match unreadable {
        Unreadable::TooLarge => Problem::TooLarge { limit },
        Unreadable::OutOfMemory => Problem::NoResources,
        Unreadable::File => {
            request.log(Level::Error, "meteorit: the body's temporary file cannot be read back");
            Problem::NoResources
        }
    })?;
    match origin {
        Origin::Form => form_text(request, origin, text, location),
        _ => Ok(text),
    }
}

fn form_text<'r>(request: &Request<'r>, origin: Origin, text: &[u8], location: &Location) -> Result<&'r [u8], Problem> {
    thread_local! {
        static FORM: RefCell<(Form, Vec<u8>)> = RefCell::default();
    }
    FORM.with_borrow_mut(|(form, json)| {
        let max_members = location.limits().max_members;
        json.clear();
        match origin {
            Origin::Form => form.body(text, max_members, json),
            _ => form.query(text, max_members, json),
        }
        .map_err(Problem::Form)?;
        let limit = location.max_event_size();
        if json.len() > limit {
            return Err(Problem::TooLarge { limit });
        }
        request.keep(json).map_err(|OutOfMemory| Problem::NoResources)
    })
}

/// From the body to the commands' bytes.
fn encode(request: &Request, location: &Location, commands: &mut Commands) -> Result<(), Problem> {
    let text = event_text(request, location)?;
    // The whole body, with what white space is around the object.
    current::set(request, text, &location.limits()).map_err(Problem::Event)?;
    request.forget_values();
    let text = enrich(request, text, location.fields())?;
    commands.clear();
    let limit = location.key_limit();
    for template in location.commands() {
        template.encode(text, &Evaluate(request), &limit, commands).map_err(|fault| match fault {
            Fault::Source(OutOfMemory) => Problem::NoResources,
            Fault::Key(fault) => Problem::Key(fault),
        })?;
    }
    Ok(())
}

/// Adds the members that the location says, and lets the result be the request's event.
fn enrich<'r>(request: &Request<'r>, text: &'r [u8], fields: &[Field]) -> Result<&'r [u8], Problem> {
    if fields.is_empty() {
        return Ok(text);
    }
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        let value = request.evaluate(&field.value).map_err(|OutOfMemory| Problem::NoResources)?;
        if field.json && !value.is_empty() && serde_json::from_slice::<IgnoredAny>(value).is_err() {
            return Err(Problem::Field(field.text.clone()));
        }
        let mut encoded = Vec::new();
        match field.json {
            true => encoded.extend_from_slice(value),
            false => json_string(value, &mut encoded),
        }
        values.push(Some(encoded).filter(|_| !value.is_empty()));
    }
    let changes =
        fields.iter().zip(&values).map(|(field, value)| Change { name: &field.name, value: value.as_deref() });
    let enriched = current::read(request, |event| {
        let mut enriched = Vec::with_capacity(text.len() + 64);
        event::enrich(event, changes, &mut enriched);
        request.keep(&enriched)
    });
    let enriched = enriched.unwrap_or(Ok(text)).map_err(|OutOfMemory| Problem::NoResources)?;
    current::replace(request, enriched).map_err(Problem::Event)?;
    request.forget_values();
    Ok(enriched)
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
pub fn finish(pending: Pending, problem: Problem, redis_time: u64) {
    pending.answer(|request| {
        if let Some(note) = request.note() {
            note.redis_time.set(Some(redis_time));
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
    answer.styled(request.location().style())
}
