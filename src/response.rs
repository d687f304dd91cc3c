//! Response: the outcome of a request, or what is wrong with it, becomes a status, headers and a body.
//!
//! Errors are problem details (RFC 9457). This step sends nothing; it says what to send.

mod cause;
mod outcome;
mod problem;
mod report;
mod tally;

pub use cause::{Cause, Lack};
pub use outcome::{Fate, Outcome};
pub use problem::{Problem, Words};
pub use report::{Error, Report};
pub use tally::{Tally, Why};

use std::borrow::Cow;

/// What goes back to the client.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// None only with 204; that of a 202 may be empty, and has no media type then.
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

impl Answer {
    /// 204: everything was done.
    pub fn no_content() -> Answer {
        Answer { status: 204, headers: Vec::new(), body: None }
    }

    /// 202: all is well, and will be done.
    pub fn accepted() -> Answer {
        Answer { status: 202, headers: Vec::new(), body: Some(Body { media_type: "", bytes: Cow::Borrowed(&[]) }) }
    }

    /// A JSON object of these members.
    pub fn json(status: u16, members: &str) -> Answer {
        let bytes = format!("{{{members}}}").into_bytes().into();
        Answer { status, headers: Vec::new(), body: Some(Body { media_type: "application/json", bytes }) }
    }

    /// The same answer in that style.
    pub fn styled(mut self, style: Style) -> Answer {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Limits, Tape};
    use crate::reply::Verdict;
    use serde_json::{Value, json};

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
        assert_eq!(Problem::BacklogFull { retry: 1 }.answer().headers, [("Retry-After", "1".into())]);
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
