//! Response: the outcome of a request, or what is wrong with it, becomes a status, headers and a body.
//!
//! Errors are problem details (RFC 9457). This step sends nothing; it says what to send.

mod outcome;
mod report;

pub use outcome::{Fate, Outcome};
pub use report::{Error, Report};

use std::borrow::Cow;

use serde_json::json;

use crate::batch;
use crate::command::KeyFault;
use crate::event;
use crate::form::FormError;
use crate::inflate::{Coding, InflateError, UnknownCoding};
#[cfg(feature = "schema")]
use crate::schema::Violation;

/// What goes back to the client.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// None only with 204.
    pub body: Option<Body>,
}

/// A body and its media type.
#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    pub media_type: &'static str,
    pub bytes: Cow<'static, [u8]>,
}

/// What `meteorit_response` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// No body where all is well.
    None,
    /// A JSON object that says what was accepted.
    Json,
    /// A picture of one transparent pixel, whatever became of the event: the status alone tells.
    Pixel,
}

/// GIF89a: one pixel, transparent.
const PIXEL: &[u8] =
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

/// Why a request failed.
#[derive(Debug)]
pub enum Problem {
    /// `allow` lists those that are.
    MethodNotAllowed {
        allow: &'static str,
    },
    UnsupportedMediaType,
    Coding(UnknownCoding),
    /// A body that is not what its Content-Encoding says.
    Encoded(InflateError),
    Form(FormError),
    /// Larger than `limit` bytes.
    TooLarge {
        limit: usize,
    },
    Event(event::Error),
    #[cfg(feature = "schema")]
    Schema(Vec<Violation>),
    /// A command's key cannot be made of this event or request.
    Key(KeyFault),
    /// What `meteorit_field ... json` would add under this name is not JSON.
    Field(String),
    /// As much as `backlog` allows waits for Redis already.
    BacklogFull,
    /// Redis is away; the next attempt to connect is `retry` seconds from now.
    Away {
        retry: u32,
    },
    Redis(Outcome),
    /// What became of a batch.
    Batch(Box<Report>),
    /// A body that is no batch.
    NoBatch(batch::Error),
    /// nginx lacks memory, or cannot read back its temporary file.
    NoResources,
}

impl Answer {
    /// 204: everything was done.
    pub fn no_content() -> Answer {
        Answer { status: 204, headers: Vec::new(), body: None }
    }

    /// A JSON object of these members.
    pub fn json(status: u16, members: &str) -> Answer {
        let bytes = format!("{{{members}}}").into_bytes().into();
        Answer { status, headers: Vec::new(), body: Some(Body { media_type: "application/json", bytes }) }
    }

    /// The same answer in that style; a 200 is one where all is well.
    pub fn styled(mut self, style: Style) -> Answer {
        if style == Style::None && self.status == 200 {
            return Answer::no_content();
        }
        if style == Style::Pixel {
            if self.status == 204 {
                self.status = 200;
            }
            self.headers.push(("Cache-Control", "no-cache, no-store, must-revalidate".into()));
            self.body = Some(Body { media_type: "image/gif", bytes: PIXEL.into() });
        }
        self
    }
}

impl Problem {
    /// What the access log says of it.
    pub fn fate(&self) -> Fate {
        match self {
            Problem::Redis(outcome) => outcome.fate(),
            Problem::Batch(report) => report.fate(),
            Problem::BacklogFull | Problem::Away { .. } | Problem::NoResources => Fate::Unavailable,
            _ => Fate::Rejected,
        }
    }

    /// The status, and what is wrong in one sentence.
    pub fn words(&self) -> (u16, String) {
        let answer = self.answer();
        let body = answer.body.map(|body| body.bytes).unwrap_or_default();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        (answer.status, body["detail"].as_str().unwrap_or_default().to_owned())
    }

    /// The answer that tells the client.
    pub fn answer(&self) -> Answer {
        let (status, kind, title, detail) = match self {
            Problem::MethodNotAllowed { allow } => {
                (405, "method-not-allowed", "Method not allowed", format!("an event is sent here by {allow}"))
            }
            Problem::Coding(error) => (415, "unsupported-coding", "Unsupported content coding", error.to_string()),
            Problem::Encoded(error) => (400, "broken-coding", "Broken content coding", error.to_string()),
            Problem::Form(error @ FormError::TooManyMembers { .. }) => {
                (422, "invalid-event", "Invalid event", error.to_string())
            }
            Problem::Form(error) => (400, "not-a-form", "Not a form", error.to_string()),
            Problem::UnsupportedMediaType => (
                415,
                "unsupported-media-type",
                "Unsupported media type",
                "an event is application/json, another type that ends in +json, text/plain, a form, or has no type"
                    .to_owned(),
            ),
            Problem::TooLarge { limit } => {
                (413, "event-too-large", "Event too large", format!("an event has at most {limit} bytes"))
            }
            Problem::Event(error @ event::Error::Syntax { .. }) => (400, "not-json", "Not JSON", error.to_string()),
            Problem::Event(error @ event::Error::Rule { .. }) => {
                (422, "invalid-event", "Invalid event", error.to_string())
            }
            #[cfg(feature = "schema")]
            Problem::Schema(violations) => {
                let first = violations.first().map_or("", |first| &first.detail);
                (422, "schema", "Event does not fit its schema", first.to_owned())
            }
            Problem::NoBatch(batch::Error::Syntax(error)) => return Problem::Event(error.clone()).answer(),
            Problem::NoBatch(error @ batch::Error::TooMany { .. }) => {
                (413, "batch-too-large", "Batch too large", error.to_string())
            }
            Problem::NoBatch(error) => (422, "invalid-batch", "Invalid batch", error.to_string()),
            Problem::Batch(report) => {
                let (kind, title) = match report.status() {
                    status @ (200 | 207) => return Answer::json(status, &report.members()),
                    503 => ("unavailable", "Temporarily unavailable"),
                    504 => ("outcome-unknown", "Outcome unknown"),
                    502 => ("refused-by-redis", "Refused by Redis"),
                    _ => ("invalid-batch", "Invalid batch"),
                };
                (report.status(), kind, title, report.detail())
            }
            Problem::Key(fault) => (422, "invalid-key", "Invalid key", fault.to_string()),
            Problem::Field(name) => {
                (422, "invalid-field", "Invalid field", format!("the value of the member \"{name}\" is not JSON"))
            }
            Problem::BacklogFull => (
                503,
                "unavailable",
                "Temporarily unavailable",
                "too much is waiting for Redis; nothing was written".to_owned(),
            ),
            Problem::Away { .. } => {
                (503, "unavailable", "Temporarily unavailable", "Redis is away; nothing was written".to_owned())
            }
            Problem::NoResources => (
                503,
                "unavailable",
                "Temporarily unavailable",
                "the server lacks memory or disk; nothing was written".to_owned(),
            ),
            Problem::Redis(outcome) => {
                let (status, kind, title) = match outcome.fate() {
                    Fate::Stored => return Answer::no_content(),
                    Fate::Rejected => (422, "rejected-by-redis", "Event rejected by Redis"),
                    Fate::Refused => (502, "refused-by-redis", "Refused by Redis"),
                    Fate::Unavailable => (503, "unavailable", "Temporarily unavailable"),
                    Fate::Timeout => (504, "outcome-unknown", "Outcome unknown"),
                };
                (status, kind, title, outcome.detail())
            }
        };
        let place = match self {
            Problem::Event(event::Error::Syntax { line, column, .. }) => {
                format!(r#","line":{line},"column":{column}"#)
            }
            Problem::Event(event::Error::Rule { pointer, .. }) => format!(r#","pointer":{}"#, json!(pointer)),
            Problem::Batch(report) => format!(",{}", report.members()),
            #[cfg(feature = "schema")]
            Problem::Schema(violations) => {
                let error = |it: &Violation| json!({"pointer": it.pointer, "detail": it.detail}).to_string();
                let errors: Vec<String> = violations.iter().map(error).collect();
                format!(r#","errors":[{}]"#, errors.join(","))
            }
            _ => String::new(),
        };
        let body = format!(
            r#"{{"type":"urn:meteorit:problem:{kind}","title":"{title}","status":{status},"detail":{}{place}}}"#,
            json!(detail)
        );
        let headers = match (self, status) {
            (Problem::MethodNotAllowed { allow }, _) => vec![("Allow", (*allow).into())],
            (Problem::Coding(_), _) => vec![("Accept-Encoding", Coding::ACCEPTED.into())],
            (Problem::Away { retry }, _) => vec![("Retry-After", retry.to_string().into())],
            (Problem::Redis(outcome), 503) => vec![("Retry-After", outcome.retry_after().to_string().into())],
            (Problem::Batch(report), 503) => vec![("Retry-After", report.retry_after().to_string().into())],
            (_, 503) => vec![("Retry-After", "1".into())],
            _ => Vec::new(),
        };
        let body = Body { media_type: "application/problem+json", bytes: body.into_bytes().into() };
        Answer { status, headers, body: Some(body) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Limits, Tape};
    use crate::reply::Verdict;
    use serde_json::Value;

    fn body(answer: &Answer) -> Value {
        serde_json::from_slice(&answer.body.as_ref().unwrap().bytes).unwrap()
    }

    fn event_error(text: &[u8]) -> Answer {
        Problem::Event(Tape::new().parse(text, &Limits::default()).map(|_| ()).unwrap_err()).answer()
    }

    #[test]
    fn a_syntax_error_says_line_and_column() {
        let answer = event_error(b"{\n  \"a\" 1}");
        assert_eq!(answer.status, 400);
        let body = body(&answer);
        assert_eq!((&body["line"], &body["column"]), (&json!(2), &json!(7)));
        assert_eq!(body["status"], 400);
        assert_eq!(body["type"], "urn:meteorit:problem:not-json");
    }

    #[test]
    fn a_broken_rule_says_the_pointer() {
        let answer = event_error(br#"{"a":[{"b":1,"b":2}]}"#);
        assert_eq!((answer.status, &body(&answer)["pointer"]), (422, &json!("/a/0/b")));
    }

    #[test]
    fn headers_go_with_their_status() {
        assert_eq!(Problem::MethodNotAllowed { allow: "POST, PUT" }.answer().headers, [("Allow", "POST, PUT".into())]);
        assert_eq!(Problem::Away { retry: 7 }.answer().headers, [("Retry-After", "7".into())]);
        assert_eq!(Problem::BacklogFull.answer().headers, [("Retry-After", "1".into())]);
    }

    #[test]
    fn a_pixel_keeps_the_status_and_is_not_cached() {
        let answer = Answer::no_content().styled(Style::Pixel);
        assert_eq!((answer.status, answer.body.as_ref().unwrap().bytes.len()), (200, PIXEL.len()));
        let answer = Problem::Away { retry: 7 }.answer().styled(Style::Pixel);
        assert_eq!((answer.status, answer.body.unwrap().media_type), (503, "image/gif"));
        let names: Vec<&str> = answer.headers.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["Retry-After", "Cache-Control"]);
    }

    #[test]
    fn the_outcome_decides_the_status() {
        let answer = |verdicts: &[Verdict]| {
            let mut outcome = Outcome::default();
            verdicts.iter().for_each(|verdict| outcome.add(*verdict, || "X".into()));
            Problem::Redis(outcome).answer()
        };
        use Verdict::*;
        for (verdicts, status) in [
            (&[Stored, Stored][..], 204),
            (&[], 204),
            (&[Rejected, Stored], 422),
            (&[Stored, Refused, Rejected], 502),
            (&[Unavailable, Unavailable], 503),
            (&[Unavailable, Stored], 504),
            (&[Unavailable, Refused], 503),
            (&[Unknown, Refused, Stored], 504),
        ] {
            assert_eq!(answer(verdicts).status, status, "{verdicts:?}");
        }
        assert!(answer(&[Stored]).body.is_none());
        assert_eq!(answer(&[Unavailable]).headers, [("Retry-After", "1".into())]);
    }
}
