//! The batch: takes in a body that carries many events and hands on the text of each, in order, with its place in the body.
//!
//! It never judges an event: each goes through the [`Tape`](crate::event::Tape) alone, with the limits of the location, so that it
//! gets the verdict that it would have got as a body of its own. An array is read once: whoever reads an element finds where it ends,
//! and only of one that is no event it is looked for here. What is wrong with the whole is said where it shows, so nothing is to be
//! written before the last event. Between two events nothing is held but a [`Split`], some words without a borrow of the body, so that
//! a long batch can give way to the event loop.
//!
//! ```
//! use ngx_http_meteorit_module::batch::{Form, Split};
//! use ngx_http_meteorit_module::event::{Limits, Tape};
//!
//! let body = br#"[{"a":1}, {"b":2}, 3]"#;
//! let mut split = Split::new(Form::Array, 1000);
//! let mut tape = Tape::new();
//! while let Some(rest) = split.next(body)? {
//!     let end = tape.parse_first(rest, &Limits::default());
//!     let piece = split.piece(body, end.ok())?;
//!     println!("{}: {}", piece.index, String::from_utf8_lossy(piece.text));
//! }
//! # Ok::<(), ngx_http_meteorit_module::batch::Error>(())
//! ```

#[cfg(test)]
mod tests;

use std::ops::Range;

use thiserror::Error;

use crate::event::scan::{first_value, literal, nothing_more, number, skip_space, string, unexpected};
use crate::event::{self, Fault, Kind};

/// How a body carries its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One JSON array; each element is an event.
    Array,
    /// NDJSON or JSON Lines: each line that is not blank is an event. A line ends with a line feed, the last one perhaps with the
    /// body; a carriage return before it is white space.
    Lines,
}

/// What `meteorit_batch` says, where it is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// Whether the good events are written where others are bad.
    pub partial: bool,
    /// How many events there may be.
    pub max: u32,
}

/// Why a body as a whole is no batch.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// An array that is not JSON, with its place in the body. Lines never give this one: a line that is no JSON is that event's error.
    #[error(transparent)]
    Syntax(event::Error),
    /// `[]`, or blank lines only.
    #[error("a batch without an event")]
    Empty,
    /// Reported as soon as the event that is too many begins, whatever follows.
    #[error("more than {max} events in a batch")]
    TooMany { max: u32 },
}

/// How far a batch has been split.
///
/// It goes with one body: with another, what [`next`](Split::next) gives is some of that body's bytes, nothing or an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    form: Form,
    max: u32,
    /// Where the next event begins, or is looked for.
    at: usize,
    /// Events before that.
    index: u32,
    /// For [`Form::Lines`]: lines before that, and characters in its line.
    lines: u32,
    columns: u32,
    /// The closing bracket was there.
    ended: bool,
}

/// The text of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its number in the batch, from 0.
    pub index: u32,
    /// As it was sent, without white space around it. A line's may be no JSON at all.
    pub text: &'a [u8],
    /// Where in the body the text begins.
    start: usize,
    /// Lines before the text, and characters before it in its line; 0 in an array, where an element cannot be wrong JSON.
    lines: u32,
    columns: u32,
}

impl Split {
    /// Of a body of this form with at most so many events.
    pub fn new(form: Form, max: u32) -> Split {
        Split { form, max, at: 0, index: 0, lines: 0, columns: 0, ended: false }
    }

    /// Where the next event begins; `None` behind the last one. Of a line this is the text of the event, of an array the rest of the
    /// body. [`piece`](Split::piece) is to be called before the next call.
    ///
    /// # Errors
    ///
    /// [`Error::Syntax`] for the first place where an array is not JSON, [`Error::TooMany`] where that event begins, [`Error::Empty`].
    pub fn next<'a>(&mut self, body: &'a [u8]) -> Result<Option<&'a [u8]>, Error> {
        let text = match self.form {
            Form::Array => self.element(body).map_err(|fault| Error::Syntax(fault.in_text(body)))?,
            Form::Lines => self.line(body),
        };
        match text {
            None if self.index == 0 => Err(Error::Empty),
            Some(_) if self.index >= self.max => Err(Error::TooMany { max: self.max }),
            text => Ok(text),
        }
    }

    /// The event that begins where [`next`](Split::next) said. `length` is that of its text, where whoever has read it knows it; of
    /// another element it is looked for, in time proportional to it and with a bit of memory for each open bracket, however deep it
    /// nests: what is too deep is the fault of an element.
    ///
    /// # Errors
    ///
    /// [`Error::Syntax`] for the first place where an array is not JSON.
    pub fn piece<'a>(&mut self, body: &'a [u8], length: Option<usize>) -> Result<Piece<'a>, Error> {
        let Split { at: start, index, lines, columns, .. } = *self;
        self.index = index.saturating_add(1);
        let end = match self.form {
            Form::Array => self.end_element(body, length).map_err(|fault| Error::Syntax(fault.in_text(body)))?,
            Form::Lines => self.end_line(body),
        };
        Ok(Piece { index, text: body.get(start..end).unwrap_or_default(), start, lines, columns })
    }

    /// The rest of an array from its next element on.
    fn element<'a>(&mut self, body: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        if self.index == 0 {
            let start = first_value(body)?;
            if body.get(start) != Some(&b'[') {
                return Err(unexpected(body, start));
            }
            self.at = skip_space(body, start + 1);
            if body.get(self.at) == Some(&b']') {
                nothing_more(body, self.at + 1)?;
                self.ended = true;
            }
        }
        if self.ended {
            return Ok(None);
        }
        kind(body, self.at)?;
        Ok(body.get(self.at..))
    }

    /// Goes on behind an element; gives where that ends.
    fn end_element(&mut self, body: &[u8], length: Option<usize>) -> Result<usize, Fault> {
        let end = match length {
            Some(length) => self.at + length,
            None => value_end(body, self.at)?,
        };
        let at = skip_space(body, end);
        match body.get(at) {
            Some(b',') => self.at = skip_space(body, at + 1),
            Some(b']') => {
                nothing_more(body, at + 1)?;
                self.ended = true;
            }
            _ => return Err(unexpected(body, at)),
        }
        Ok(end)
    }

    /// The next line that is not blank.
    fn line<'a>(&mut self, body: &'a [u8]) -> Option<&'a [u8]> {
        while let Some(rest) = body.get(self.at..).filter(|rest| !rest.is_empty()) {
            let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = rest.get(..length)?;
            let indent = skip_space(line, 0);
            if indent < length {
                self.at += indent;
                self.columns = u32::try_from(indent).unwrap_or(u32::MAX);
                return line.get(indent..).map(trim_end);
            }
            self.at += length + 1;
            self.lines = self.lines.saturating_add(1);
        }
        None
    }

    /// Goes on behind a line; gives where its event ends.
    fn end_line(&mut self, body: &[u8]) -> usize {
        let start = self.at;
        let rest = body.get(start..).unwrap_or_default();
        let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        self.at = start + length + 1;
        self.lines = self.lines.saturating_add(1);
        start + trim_end(rest.get(..length).unwrap_or(rest)).len()
    }
}

impl Piece<'_> {
    /// Where in the body the text is.
    pub fn place(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    /// The error that [`text`](Piece::text) has, with its line and column counted from the start of the body.
    pub fn error_in_body(&self, error: event::Error) -> event::Error {
        match error {
            event::Error::Syntax { line, column, problem } => {
                let columns = if line == 1 { self.columns } else { 0 };
                let (line, column) = (line.saturating_add(self.lines), column.saturating_add(columns));
                event::Error::Syntax { line, column, problem }
            }
            rule => rule,
        }
    }
}

/// Where the value that begins at `start` ends, by the grammar of the event's scanner.
fn value_end(text: &[u8], start: usize) -> Result<usize, Fault> {
    let mut nesting = Nesting::default();
    let mut at = start;
    'value: loop {
        match kind(text, at)? {
            Kind::Object => {
                nesting.enter(true);
                at = skip_space(text, at + 1);
                if text.get(at) != Some(&b'}') {
                    at = name(text, at)?;
                    continue 'value;
                }
            }
            Kind::Array => {
                nesting.enter(false);
                at = skip_space(text, at + 1);
                if text.get(at) != Some(&b']') {
                    continue 'value;
                }
            }
            scalar => at = scalar_end(text, scalar, at)?,
        }
        // Behind a value, or before the end of an empty container.
        loop {
            let Some(in_object) = nesting.in_object() else { return Ok(at) };
            at = skip_space(text, at);
            match (in_object, text.get(at)) {
                (true, Some(b',')) => {
                    at = name(text, skip_space(text, at + 1))?;
                    continue 'value;
                }
                (false, Some(b',')) => {
                    at = skip_space(text, at + 1);
                    continue 'value;
                }
                (true, Some(b'}')) | (false, Some(b']')) => {
                    at += 1;
                    nesting.leave();
                }
                _ => return Err(unexpected(text, at)),
            }
        }
    }
}

/// What is open around a place in the text: one bit each, set for an object.
#[derive(Default)]
struct Nesting {
    words: Vec<u64>,
    depth: usize,
}

impl Nesting {
    #[inline]
    fn enter(&mut self, object: bool) {
        let (word, bit) = (self.depth / 64, self.depth % 64);
        self.depth += 1;
        match self.words.get_mut(word) {
            Some(word) => *word = *word & !(1 << bit) | u64::from(object) << bit,
            None => self.words.push(u64::from(object)),
        }
    }

    #[inline]
    fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    #[inline]
    fn in_object(&self) -> Option<bool> {
        let last = self.depth.checked_sub(1)?;
        self.words.get(last / 64).map(|word| word >> (last % 64) & 1 == 1)
    }
}

/// A member's name and the colon behind it; gives where the value begins.
fn name(text: &[u8], at: usize) -> Result<usize, Fault> {
    if text.get(at) != Some(&b'"') {
        return Err(unexpected(text, at));
    }
    let (end, _) = string(text, at)?;
    let colon = skip_space(text, end);
    if text.get(colon) != Some(&b':') {
        return Err(unexpected(text, colon));
    }
    Ok(skip_space(text, colon + 1))
}

/// Where a value without brackets ends.
fn scalar_end(text: &[u8], kind: Kind, at: usize) -> Result<usize, Fault> {
    match kind {
        Kind::String => string(text, at).map(|(end, _)| end),
        Kind::Number => number(text, at),
        Kind::True => literal(text, b"true", at),
        Kind::False => literal(text, b"false", at),
        Kind::Null => literal(text, b"null", at),
        Kind::Object | Kind::Array => Err(unexpected(text, at)),
    }
}

/// What begins here.
#[inline]
fn kind(text: &[u8], at: usize) -> Result<Kind, Fault> {
    Ok(match text.get(at) {
        Some(b'"') => Kind::String,
        Some(b'-' | b'0'..=b'9') => Kind::Number,
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b't') => Kind::True,
        Some(b'f') => Kind::False,
        Some(b'n') => Kind::Null,
        _ => return Err(unexpected(text, at)),
    })
}

/// `line` without white space behind it.
fn trim_end(mut line: &[u8]) -> &[u8] {
    while let [head @ .., b' ' | b'\t' | b'\r'] = line {
        line = head;
    }
    line
}
