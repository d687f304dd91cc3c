//! From a request to the JSON that it brings: the body as it is, or what a form or the query string says.

use std::cell::RefCell;

use crate::body::{self, Unreadable};
use crate::conf::Location;
use crate::form::Form;
use crate::inflate::{Coding, InflateError, UnknownCoding, inflate};
use crate::ngx::{Level, Method, OutOfMemory, Request};
use crate::response::Problem;

/// What events are made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Json,
    /// One event a line.
    Lines,
    Form,
    Query,
}

/// By method and media type, whose parameters do not matter; None for a type that is not taken.
pub fn origin(request: &Request) -> Option<Origin> {
    if matches!(request.method(), Method::Get | Method::Head) {
        return Some(Origin::Query);
    }
    let media_type = request.content_type().unwrap_or_default();
    if media_type == b"application/json" {
        // As nearly all of them say it.
        return Some(Origin::Json);
    }
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
    } else if ["application/x-ndjson", "application/jsonl", "application/x-jsonlines"].into_iter().any(is) {
        Some(Origin::Lines)
    } else {
        None
    }
}

/// What the client sent: the body, decoded, or the query string.
pub fn sent<'r>(request: &Request<'r>, origin: Origin, location: &Location) -> Result<&'r [u8], Problem> {
    let limit = location.max_body_size();
    if origin == Origin::Query {
        location.counters().read(request.args().len());
        return Ok(request.args());
    }
    let text = body::collect(request, limit).map_err(|unreadable| match unreadable {
        Unreadable::TooLarge => too_large(location, limit),
        Unreadable::OutOfMemory => Problem::NoResources,
        Unreadable::File => {
            request.log(Level::Error, "meteorit: the body's temporary file cannot be read back");
            Problem::NoResources
        }
    })?;
    location.counters().read(text.len());
    decoded(request, text, location)
}

/// The event's text: what was sent, as it is or, of a form or a query string, as JSON.
pub fn event_text<'r>(
    request: &Request<'r>,
    origin: Origin,
    location: &Location,
    sent: &'r [u8],
) -> Result<&'r [u8], Problem> {
    match origin {
        Origin::Form | Origin::Query => form_text(request, origin, sent, location),
        _ => Ok(sent),
    }
}

/// A body that is too large is an event that is, unless it may be a batch.
pub fn too_large(location: &Location, limit: usize) -> Problem {
    match location.batch() {
        None => Problem::TooLarge { limit },
        Some(_) => Problem::BodyTooLarge { limit },
    }
}

/// How the body is encoded; several codings are refused like an unknown one.
pub fn coding(request: &Request) -> Result<Option<Coding>, UnknownCoding> {
    let mut lines = request.header("content-encoding");
    let first = lines.next().map_or(Ok(None), Coding::parse)?;
    lines.next().map_or(Ok(first), |_| Err(UnknownCoding))
}

fn decoded<'r>(request: &Request<'r>, text: &'r [u8], location: &Location) -> Result<&'r [u8], Problem> {
    let Some(coding) = coding(request).map_err(Problem::Coding)? else { return Ok(text) };
    let mut bytes = Vec::new();
    inflate(coding, text, location.max_body_size(), &mut bytes).map_err(|error| match error {
        InflateError::TooLarge { limit } => too_large(location, limit),
        broken => Problem::Encoded(broken),
    })?;
    request.keep(&bytes).map_err(|OutOfMemory| Problem::NoResources)
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
        let limit = location.max_body_size();
        if json.len() > limit {
            return Err(too_large(location, limit));
        }
        request.keep(json).map_err(|OutOfMemory| Problem::NoResources)
    })
}
