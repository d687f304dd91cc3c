//! Why a request failed, and how that is told: a status, problem details (RFC 9457) and headers.

use serde_json::json;

use super::{Answer, Body, Cause, Error, Fate, Lack, Outcome, Report, Tally, Why};
use crate::batch;
use crate::command::KeyFault;
use crate::event;
use crate::form::FormError;
use crate::inflate::{Coding, InflateError, UnknownCoding};
#[cfg(feature = "schema")]
use crate::schema::Violation;

/// Why a request failed.
#[derive(Debug)]
pub enum Problem {
    /// `allow` lists those that are.
    MethodNotAllowed {
        allow: &'static str,
    },
    UnsupportedMediaType,
    /// From a page of this origin, which `meteorit_cors ... strict` does not list.
    ForeignOrigin(Vec<u8>),
    Coding(UnknownCoding),
    /// A body that is not what its Content-Encoding says.
    Encoded(InflateError),
    Form(FormError),
    /// Larger than `limit` bytes.
    TooLarge {
        limit: usize,
    },
    /// A body of events larger than `limit` bytes.
    BodyTooLarge {
        limit: usize,
    },
    /// An array where `meteorit_batch` is off.
    BatchesOff,
    Event(event::Error),
    #[cfg(feature = "schema")]
    Schema(Vec<Violation>),
    /// A command's key cannot be made of this event or request.
    Key(KeyFault),
    /// What `meteorit_field ... json` would add under this name is not JSON.
    Field(String),
    /// As much as `backlog` or `max_pending` allows waits for Redis already; it may be less `retry` seconds from now.
    BacklogFull {
        retry: u32,
    },
    /// Redis is away; the next attempt to connect is `retry` seconds from now.
    Away {
        retry: u32,
    },
    Redis(Outcome),
    /// What became of a batch.
    Batch(Box<Report>),
    /// A body that is no batch.
    NoBatch(batch::Error),
    /// An event that was rejected, and that the reject commands did not set aside.
    NotSetAside {
        detail: String,
        retry: u32,
    },
    /// A problem with an event, of which the client is told this status (`meteorit_reject_status`).
    Told {
        status: u16,
        problem: Box<Problem>,
    },
    /// nginx lacks memory, or cannot read back its temporary file.
    NoResources,
    /// What `meteorit_ready` asks for does not take events now, for this reason.
    NotReady(String),
    /// Why the test of a Redis failed.
    SelfTestFailed(String),
    /// `meteorit_status` has nothing to tell.
    NothingCounted,
}

/// A status, and what stands in the problem details beside it.
pub struct Words {
    pub status: u16,
    /// The end of the type's URI.
    pub kind: &'static str,
    pub title: &'static str,
    pub detail: String,
}

impl From<batch::Error> for Problem {
    fn from(error: batch::Error) -> Self {
        match error {
            batch::Error::Syntax(error) => Problem::Event(error),
            error => Problem::NoBatch(error),
        }
    }
}

impl Problem {
    /// What the access log says of it.
    pub fn fate(&self) -> Fate {
        match self {
            Problem::Redis(outcome) => outcome.fate(),
            Problem::Batch(report) => report.fate(),
            Problem::BacklogFull { .. }
            | Problem::Away { .. }
            | Problem::NotSetAside { .. }
            | Problem::NoResources
            | Problem::NotReady(_)
            | Problem::SelfTestFailed(_)
            | Problem::NothingCounted => Fate::Unavailable,
            Problem::Told { problem, .. } => problem.fate(),
            _ => Fate::Rejected,
        }
    }

    /// Why the events were not taken, as far as that is counted.
    pub fn why(&self) -> Why {
        Why::Rejected(match self {
            Problem::MethodNotAllowed { .. } => Cause::MethodNotAllowed,
            Problem::UnsupportedMediaType => Cause::UnsupportedMediaType,
            Problem::ForeignOrigin(_) => Cause::ForeignOrigin,
            Problem::Coding(_) => Cause::UnsupportedCoding,
            Problem::Encoded(_) => Cause::BrokenCoding,
            Problem::Form(FormError::TooManyMembers { .. }) => Cause::InvalidEvent,
            Problem::Form(_) => Cause::NotAForm,
            Problem::TooLarge { .. } => Cause::EventTooLarge,
            Problem::BodyTooLarge { .. } => Cause::BodyTooLarge,
            Problem::BatchesOff | Problem::Event(event::Error::Rule { .. }) => Cause::InvalidEvent,
            Problem::Event(event::Error::Syntax { .. }) => Cause::NotJson,
            #[cfg(feature = "schema")]
            Problem::Schema(_) => Cause::Schema,
            Problem::Key(_) => Cause::InvalidKey,
            Problem::Field(_) => Cause::InvalidField,
            Problem::NoBatch(batch::Error::TooMany { .. }) => Cause::BatchTooLarge,
            Problem::NoBatch(_) => Cause::InvalidBatch,
            Problem::Redis(outcome) if outcome.fate() == Fate::Rejected => Cause::RejectedByRedis,
            Problem::BacklogFull { .. } => return Why::Unavailable(Lack::BacklogFull),
            Problem::Away { .. } => return Why::Unavailable(Lack::Away),
            Problem::NotSetAside { .. } => return Why::Unavailable(Lack::NotSetAside),
            Problem::NoResources => return Why::Unavailable(Lack::NoResources),
            Problem::Redis(_) => return Why::Unavailable(Lack::Redis),
            // The first says it of each event; the others are of no event.
            Problem::Batch(_) | Problem::NotReady(_) | Problem::SelfTestFailed(_) | Problem::NothingCounted => {
                return Why::Else;
            }
            Problem::Told { problem, .. } => return problem.why(),
        })
    }

    /// Whether the events of a batch are told of one by one.
    pub fn is_of_batch(&self) -> bool {
        match self {
            Problem::Batch(_) => true,
            Problem::Told { problem, .. } => problem.is_of_batch(),
            _ => false,
        }
    }

    /// Where a body is no JSON, for a log that is to hold nothing of the body.
    pub fn line_and_column(&self) -> String {
        match self {
            Problem::Event(event::Error::Syntax { line, column, .. }) => format!(", line {line}, column {column}"),
            _ => String::new(),
        }
    }

    /// What became of so many events, all of them if this is not said of each.
    pub fn tally(&self, events: u32) -> Tally {
        match self {
            Problem::Batch(report) => report.tally(),
            Problem::Told { problem, .. } => problem.tally(events),
            _ => {
                let mut tally = Tally::default();
                tally.add(self.fate(), self.why(), events);
                tally
            }
        }
    }

    /// Whether the event is at fault, once its body is there, and not the request or the server.
    pub fn is_of_event(&self) -> bool {
        match self {
            #[cfg(feature = "schema")]
            Problem::Schema(_) => true,
            Problem::Event(_)
            | Problem::Form(_)
            | Problem::TooLarge { .. }
            | Problem::BatchesOff
            | Problem::Key(_)
            | Problem::Field(_) => true,
            Problem::Redis(outcome) => matches!(outcome.fate(), Fate::Rejected | Fate::Refused),
            _ => false,
        }
    }

    /// The problem with an event that for this one could not be set aside; `rejected` says what is wrong with the event.
    pub fn not_set_aside(&self, rejected: &str) -> Problem {
        let retry = match self {
            Problem::Away { retry } | Problem::BacklogFull { retry } => *retry,
            Problem::Redis(outcome) => outcome.retry_after(),
            _ => 1,
        };
        let detail = format!("{rejected}; it could not be set aside: {}", self.words().detail);
        Problem::NotSetAside { detail, retry }
    }

    /// Where in the event; empty for the whole.
    fn pointer(&self) -> &str {
        match self {
            Problem::Event(event::Error::Rule { pointer, .. }) => pointer,
            #[cfg(feature = "schema")]
            Problem::Schema(violations) => violations.first().map_or("", |first| &first.pointer),
            _ => "",
        }
    }

    /// As one JSON object: `type`, `status`, `pointer` and `detail`.
    pub fn to_json(&self) -> String {
        let Words { status, kind, detail, .. } = self.words();
        let (pointer, detail) = (json!(self.pointer()), json!(detail));
        format!(r#"{{"type":"urn:meteorit:problem:{kind}","status":{status},"pointer":{pointer},"detail":{detail}}}"#)
    }

    /// As the error of the event at `index` of a batch.
    pub fn at(&self, index: u32) -> Error {
        let Words { status, detail, .. } = self.words();
        Error { index, status, pointer: self.pointer().to_owned(), detail, why: self.why() }
    }

    /// The answer that says by its status alone that all is well; None where there is more to say.
    pub fn assent(&self) -> Option<Answer> {
        let status = match self {
            Problem::Redis(outcome) => outcome.fate().status(),
            Problem::Batch(report) => report.status(),
            _ => return None,
        };
        match status {
            200 | 204 => Some(Answer::no_content()),
            202 => Some(Answer::accepted()),
            _ => None,
        }
    }

    /// The answer that tells the client.
    pub fn answer(&self) -> Answer {
        self.answer_as(self.words().status)
    }

    fn answer_as(&self, status: u16) -> Answer {
        let Words { kind, title, detail, .. } = self.words();
        match self {
            _ if status == 204 => return Answer::no_content(),
            Problem::Told { status: 200..300, problem } => {
                let members = match &**problem {
                    Problem::Batch(report) => report.members(),
                    problem => {
                        let error = problem.at(0).json();
                        format!(r#""accepted":0,"rejected":1,"ids":[],"errors":[{error}]"#)
                    }
                };
                return Answer::json(status, &members);
            }
            Problem::Told { problem, .. } => return problem.answer_as(status),
            Problem::Redis(_) if status == 202 => return Answer::accepted(),
            Problem::Batch(report) if status < 300 => return Answer::json(status, &report.members()),
            _ => {}
        }
        let place = match self {
            Problem::Event(event::Error::Syntax { line, column, .. }) => {
                format!(r#","line":{line},"column":{column}"#)
            }
            Problem::Event(event::Error::Rule { pointer, .. }) => format!(r#","pointer":{}"#, json!(pointer)),
            Problem::BatchesOff => r#","pointer":"""#.to_owned(),
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
            (Problem::Away { retry } | Problem::BacklogFull { retry } | Problem::NotSetAside { retry, .. }, _) => {
                vec![("Retry-After", retry.to_string().into())]
            }
            (Problem::Redis(outcome), 503) => vec![("Retry-After", outcome.retry_after().to_string().into())],
            (Problem::Batch(report), 503) => vec![("Retry-After", report.retry_after().to_string().into())],
            (_, 503) => vec![("Retry-After", "1".into())],
            _ => Vec::new(),
        };
        let body = Body { media_type: "application/problem+json", bytes: body.into_bytes().into() };
        Answer { status, headers, body: Some(body) }
    }

    /// What is wrong.
    pub fn words(&self) -> Words {
        let (status, kind, title, detail) = match self {
            Problem::MethodNotAllowed { allow } => {
                (405, "method-not-allowed", "Method not allowed", format!("the methods here are {allow}"))
            }
            Problem::ForeignOrigin(origin) => {
                let origin = String::from_utf8_lossy(origin);
                let shown: String = origin.chars().take(100).collect();
                let detail = format!("events are not taken here from pages of \"{shown}\"");
                (403, "foreign-origin", "Foreign origin", detail)
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
            Problem::BodyTooLarge { limit } => {
                (413, "body-too-large", "Body too large", format!("a body of events has at most {limit} bytes"))
            }
            Problem::BatchesOff => {
                let detail = "an event must be an object, not an array: meteorit_batch is off here";
                (422, "invalid-event", "Invalid event", detail.to_owned())
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
            Problem::NoBatch(error @ batch::Error::TooMany { .. }) => {
                (413, "batch-too-large", "Batch too large", error.to_string())
            }
            Problem::NoBatch(error) => (422, "invalid-batch", "Invalid batch", error.to_string()),
            Problem::Batch(report) => {
                let (kind, title) = match report.status() {
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
            Problem::BacklogFull { .. } => (
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
            Problem::NotReady(detail) => (503, "not-ready", "Not ready", detail.clone()),
            Problem::SelfTestFailed(detail) => (503, "self-test-failed", "Self-test failed", detail.clone()),
            Problem::NothingCounted => {
                (503, "unavailable", "Temporarily unavailable", "there is nothing to count here".to_owned())
            }
            Problem::NotSetAside { detail, .. } => {
                (503, "not-set-aside", "Rejected event not set aside", detail.clone())
            }
            Problem::Told { status, problem } => return Words { status: *status, ..problem.words() },
            Problem::Redis(outcome) => {
                let (status, kind, title) = match outcome.fate() {
                    fate @ (Fate::DryRun | Fate::Stored | Fate::Queued | Fate::Spooled) => {
                        return Words { status: fate.status(), kind: "", title: "", detail: String::new() };
                    }
                    Fate::Rejected => (422, "rejected-by-redis", "Event rejected by Redis"),
                    Fate::Refused => (502, "refused-by-redis", "Refused by Redis"),
                    Fate::Unavailable => (503, "unavailable", "Temporarily unavailable"),
                    Fate::Timeout => (504, "outcome-unknown", "Outcome unknown"),
                };
                (status, kind, title, outcome.detail())
            }
        };
        Words { status, kind, title, detail }
    }
}
