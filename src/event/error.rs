//! What is wrong with an event, and where. The scanner notes a [`Fault`], an offset or a node;
//! only then are lines counted and paths built, so that a correct event pays for neither.

use std::fmt;

use thiserror::Error;

use super::names;
use super::tape::{Kind, Node};

/// Why a text is no event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The text is not JSON (RFC 8259).
    #[error("{problem} at line {line}, column {column}")]
    Syntax {
        /// Counts from 1; a line ends with a line feed.
        line: u32,
        /// Counts characters, not bytes, from 1.
        column: u32,
        problem: Problem,
    },
    /// The text is JSON as far as it was read, and breaks a rule of ours.
    #[error("{rule}{}", Place(pointer))]
    Rule {
        /// A JSON pointer (RFC 6901) to the value that breaks the rule; empty for the event itself. It stays below 1000 bytes:
        /// names above 64 bytes are cut, and steps in the middle of a very long path left out, each with an ellipsis in their place.
        pointer: String,
        rule: Rule,
    },
}

/// How a text departs from the grammar of RFC 8259.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Problem {
    /// Nothing, or nothing but white space.
    #[error("empty body")]
    Empty,
    /// RFC 8259, section 8.1: a sender must not add one.
    #[error("byte order mark")]
    ByteOrderMark,
    #[error("unexpected character")]
    UnexpectedCharacter,
    #[error("unexpected end")]
    UnexpectedEnd,
    #[error("trailing data after the event")]
    TrailingData,
    /// U+0000 to U+001F must be escaped; the place is that of the character.
    #[error("control character in a string")]
    ControlCharacter,
    /// The place is that of the backslash.
    #[error("invalid escape")]
    InvalidEscape,
    /// Half a pair stands for no character, and Redis's clients could not decode it; the place is that of its backslash.
    #[error("lone surrogate")]
    LoneSurrogate,
    /// The place is where the first malformed sequence begins.
    #[error("invalid UTF-8")]
    InvalidUtf8,
    /// A leading zero, or no digit where one is due; the place is that of the digit.
    #[error("invalid number")]
    InvalidNumber,
}

/// What a JSON text must keep to be an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Rule {
    /// Correct JSON, but not an object.
    #[error("an event must be an object, not {found}")]
    NotAnObject { found: Kind },
    /// Reported as soon as the container that is too deep opens, whatever follows.
    #[error("nested deeper than {max}")]
    TooDeep { max: u32 },
    /// Reported as soon as the member that is too many begins, whatever follows; the pointer is the object's.
    #[error("more than {max} members in an object")]
    TooManyMembers { max: u32 },
    /// Two names of one object are equal once unescaped; the pointer is that of the second.
    #[error("duplicate name")]
    DuplicateName,
    /// The tape addresses bytes with 32 bits.
    #[error("larger than {max} bytes")]
    TooLarge { max: u32 },
}

/// The end of a rule's message: nothing for the event itself, else the pointer, quoted and with control characters escaped
/// because names are the client's.
struct Place<'a>(&'a str);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            "" => Ok(()),
            pointer => write!(f, " at {pointer:?}"),
        }
    }
}

/// What the scanner notes when it stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Syntax { at: usize, problem: Problem },
    Rule { node: u32, rule: Rule },
}

impl Fault {
    /// The error of a text that has no tape.
    pub(crate) fn in_text(self, text: &[u8]) -> Error {
        self.explain(text, &[])
    }

    #[cold]
    pub(super) fn explain(self, text: &[u8], nodes: &[Node]) -> Error {
        match self {
            Fault::Syntax { at, problem } => {
                let (line, column) = place(text.get(..at).unwrap_or(text));
                Error::Syntax { line, column, problem }
            }
            Fault::Rule { node, rule } => Error::Rule { pointer: pointer(text, nodes, node), rule },
        }
    }
}

/// Line and column of what follows `before`, which is correct UTF-8.
fn place(before: &[u8]) -> (u32, u32) {
    let line_start = memchr::memrchr(b'\n', before).map_or(0, |feed| feed + 1);
    let (lines, line) = before.split_at_checked(line_start).unwrap_or((before, &[]));
    let feeds = memchr::memchr_iter(b'\n', lines).count();
    let characters = line.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
    let from_one = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
    (from_one(feeds), from_one(characters))
}

/// Where the head of a path is cut; with one more step, an ellipsis and the last step it stays below 1000 bytes.
const HEAD: usize = 700;
/// Where a name is cut, before `~` and `/` are escaped.
const NAME: usize = 64;

/// The path to a node, down from the root through the containers around it, closed ones as well as open ones.
fn pointer(text: &[u8], nodes: &[Node], target: u32) -> String {
    let mut pointer = String::new();
    let mut last = String::new();
    let mut cut = false;
    let mut container = 0;
    while container < target {
        let Some((step, child)) = step_towards(text, nodes, container, target) else {
            break;
        };
        if pointer.len() < HEAD {
            pointer.push_str(&last);
        } else if !cut {
            pointer.push_str("/…");
            cut = true;
        }
        last = step;
        container = child;
    }
    pointer.push_str(&last);
    pointer
}

/// The child of `container` that is or holds `target`, and its step of the path with the slash.
fn step_towards(text: &[u8], nodes: &[Node], container: u32, target: u32) -> Option<(String, u32)> {
    let is_object = nodes.get(container as usize)?.kind == Kind::Object;
    let mut at = container + 1;
    for index in 0_u32.. {
        let value = if is_object { at + 1 } else { at };
        let node = nodes.get(value as usize)?;
        if node.open || node.next > target {
            let step = if is_object {
                let name = nodes.get(at as usize)?;
                name_step(&names::unescaped(name.content(text), name.escaped))
            } else {
                format!("/{index}")
            };
            return Some((step, value));
        }
        at = node.next;
    }
    None
}

/// RFC 6901, section 3: `~` is written `~0` and `/` is written `~1`.
fn name_step(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut step = String::from("/");
    for (offset, character) in name.char_indices() {
        if offset + character.len_utf8() > NAME {
            step.push('…');
            break;
        }
        match character {
            '~' => step.push_str("~0"),
            '/' => step.push_str("~1"),
            other => step.push(other),
        }
    }
    step
}
