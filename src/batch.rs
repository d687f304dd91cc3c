//! The batch: takes in a body that carries many events and hands on the text of each, in order, with its place in the body.
//!
//! It never judges an event: each text goes through [`Tape::parse`](crate::event::Tape::parse) alone, with the limits of the location,
//! so that it gets the verdict that it would have got as a body of its own. What is wrong with the whole is said before the first
//! event is handed on. Between two events nothing is held but a [`Split`], some words without a borrow of the body, so that a long
//! batch can give way to the event loop.
//!
//! ```
//! use ngx_http_meteorit_module::batch::{Form, Split};
//!
//! let body = b"{\"a\":1}\r\n\n{\"b\":2}";
//! let mut split = Split::begin(body, Form::Lines, 1000)?;
//! while let Some(piece) = split.next(body) {
//!     println!("{}: {}", piece.index, String::from_utf8_lossy(piece.text));
//! }
//! # Ok::<(), ngx_http_meteorit_module::batch::Error>(())
//! ```

#[cfg(test)]
mod tests;

use std::ops::Range;

use thiserror::Error;

use crate::event::scan::{first_value, literal, number, skip_space, string, syntax, unexpected};
use crate::event::{self, Fault, Kind, Problem};

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
    /// Correct JSON, but not an array.
    #[error("a batch must be an array, not {found}")]
    NotAnArray { found: Kind },
    /// `[]`, or blank lines only.
    #[error("a batch without an event")]
    Empty,
    /// Reported as soon as the event that is too many begins, whatever follows.
    #[error("more than {max} events in a batch")]
    TooMany { max: u32 },
}

/// How far a batch has been split.
///
/// It goes with one body: with another, what [`next`](Split::next) gives is some of that body's bytes or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    form: Form,
    /// Where the next piece is looked for: after an opening bracket, a comma or a line feed.
    at: usize,
    /// Lines before that, for [`Form::Lines`].
    lines: u32,
    index: u32,
    total: u32,
    /// Where each element ends: a second look for it would cost nearly what the first one did.
    ends: Vec<usize>,
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
    /// Checks what concerns the whole, and counts the events.
    ///
    /// An array is read to its end, in time proportional to its length and with a word of memory for each element and a bit for each open
    /// bracket, however deep it nests: what is too deep is the fault of an element. Of lines only the feeds are looked for.
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`] where it shows; else [`Error::Syntax`] for the first place where an array is not JSON, then the others.
    pub fn begin(body: &[u8], form: Form, max: u32) -> Result<Split, Error> {
        match form {
            Form::Array => Check { text: body, max, ends: Vec::new(), nesting: Nesting::default() }.run(),
            Form::Lines => Ok(Split { total: count_lines(body, max)?, ..Split::new(form) }),
        }
    }

    fn new(form: Form) -> Split {
        Split { form, at: 0, lines: 0, index: 0, total: 0, ends: Vec::new() }
    }

    /// How many events the whole batch has.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// The next event of the body that [`begin`](Split::begin) checked; `None` behind the last one.
    pub fn next<'a>(&mut self, body: &'a [u8]) -> Option<Piece<'a>> {
        match self.form {
            Form::Array => self.element(body),
            Form::Lines => self.line(body),
        }
    }

    fn element<'a>(&mut self, body: &'a [u8]) -> Option<Piece<'a>> {
        let end = *self.ends.get(self.index as usize)?;
        let start = skip_space(body, self.at);
        // Over the comma, or over the closing bracket when this was the last one.
        self.at = skip_space(body, end) + 1;
        self.piece(body.get(start..end)?, start, 0, 0)
    }

    fn line<'a>(&mut self, body: &'a [u8]) -> Option<Piece<'a>> {
        while let Some(rest) = body.get(self.at..).filter(|rest| !rest.is_empty()) {
            let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = rest.get(..length)?;
            let (start, lines) = (self.at, self.lines);
            self.at += length + 1;
            self.lines = lines.saturating_add(1);
            let indent = skip_space(line, 0);
            if indent < line.len() {
                let text = trim_end(line.get(indent..)?);
                return self.piece(text, start + indent, lines, u32::try_from(indent).unwrap_or(u32::MAX));
            }
        }
        None
    }

    fn piece<'a>(&mut self, text: &'a [u8], start: usize, lines: u32, columns: u32) -> Option<Piece<'a>> {
        let index = self.index;
        self.index = index.saturating_add(1);
        Some(Piece { index, text, start, lines, columns })
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

fn count_lines(body: &[u8], max: u32) -> Result<u32, Error> {
    let mut split = Split::new(Form::Lines);
    while split.line(body).is_some() {
        if split.index > max {
            return Err(Error::TooMany { max });
        }
    }
    if split.index == 0 { Err(Error::Empty) } else { Ok(split.index) }
}

/// One pass over the text of an array, with the grammar of the event's scanner.
struct Check<'a> {
    text: &'a [u8],
    max: u32,
    ends: Vec<usize>,
    nesting: Nesting,
}

impl Check<'_> {
    fn run(mut self) -> Result<Split, Error> {
        let text = self.text;
        let wrong = |fault: Fault| Error::Syntax(fault.in_text(text));
        let start = first_value(text).map_err(wrong)?;
        let found = kind(text, start).map_err(wrong)?;
        let mut at = start;
        'value: loop {
            let kind = kind(text, at).map_err(wrong)?;
            if self.at_top(found) && self.ends.len() >= self.max as usize {
                return Err(Error::TooMany { max: self.max });
            }
            match kind {
                Kind::Object => {
                    self.nesting.enter(true);
                    at = skip_space(text, at + 1);
                    if text.get(at) != Some(&b'}') {
                        at = name(text, at).map_err(wrong)?;
                        continue 'value;
                    }
                }
                Kind::Array => {
                    self.nesting.enter(false);
                    at = skip_space(text, at + 1);
                    if text.get(at) != Some(&b']') {
                        continue 'value;
                    }
                }
                scalar => {
                    at = scalar_end(text, scalar, at).map_err(wrong)?;
                    self.close(found, at);
                }
            }
            // Behind a value, or before the end of an empty container.
            loop {
                at = skip_space(text, at);
                match (self.nesting.in_object(), text.get(at)) {
                    (None, None) => return self.verdict(found, start + 1),
                    (None, Some(_)) => return Err(wrong(syntax(at, Problem::TrailingData))),
                    (Some(true), Some(b',')) => {
                        at = name(text, skip_space(text, at + 1)).map_err(wrong)?;
                        continue 'value;
                    }
                    (Some(false), Some(b',')) => {
                        at = skip_space(text, at + 1);
                        continue 'value;
                    }
                    (Some(true), Some(b'}')) | (Some(false), Some(b']')) => {
                        at += 1;
                        self.nesting.leave();
                        self.close(found, at);
                    }
                    _ => return Err(wrong(unexpected(text, at))),
                }
            }
        }
    }

    /// Whether a value here is an element of the batch.
    fn at_top(&self, whole: Kind) -> bool {
        self.nesting.depth == 1 && whole == Kind::Array
    }

    /// Behind a value.
    fn close(&mut self, whole: Kind, end: usize) {
        if self.at_top(whole) {
            self.ends.push(end);
        }
    }

    fn verdict(self, found: Kind, at: usize) -> Result<Split, Error> {
        match (found, self.ends.len()) {
            (Kind::Array, 0) => Err(Error::Empty),
            (Kind::Array, count) => {
                let total = u32::try_from(count).unwrap_or(u32::MAX);
                Ok(Split { at, total, ends: self.ends, ..Split::new(Form::Array) })
            }
            (found, _) => Err(Error::NotAnArray { found }),
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
