//! The scanner: one pass over a value that checks the grammar of RFC 8259 and writes the tape.
//! It holds no stack; the open containers are nodes that know the one around them.

use super::error::{Fault, Problem, Rule};
use super::names::{NameCheck, code_unit};
use super::tape::{Kind, Node};
use super::{DuplicateNames, Limits};

/// No container: what is around the root.
const TOP: u32 = u32::MAX;

pub(super) struct Scanner<'s> {
    text: &'s [u8],
    limits: &'s Limits,
    nodes: &'s mut Vec<Node>,
    check: &'s mut NameCheck,
    /// The first duplicate name. It waits until the whole text is known to be JSON.
    duplicate: Option<u32>,
    /// The innermost open container, what it is, how many members it has so far and how deep it is.
    open: u32,
    within: Within,
    members: u32,
    depth: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    Object,
    Array,
}

impl<'s> Scanner<'s> {
    /// The tape must be empty, and the text addressable with 32 bits.
    pub(super) fn new(text: &'s [u8], limits: &'s Limits, nodes: &'s mut Vec<Node>, check: &'s mut NameCheck) -> Self {
        Scanner {
            text,
            limits,
            nodes,
            check,
            duplicate: None,
            open: TOP,
            within: Within::Nothing,
            members: 0,
            depth: 0,
        }
    }

    /// Reads the value that the text begins with. Gives where it ends, and the value whose name is a duplicate, if there is one.
    pub(super) fn run(mut self) -> Result<(usize, Option<u32>), Fault> {
        let text = self.text;
        let mut at = first_value(text)?;
        'value: loop {
            match text.get(at) {
                Some(b'"') => {
                    let (end, escaped) = string(text, at)?;
                    self.push(Kind::String, at, end, escaped);
                    at = end;
                }
                Some(b'-' | b'0'..=b'9') => {
                    let end = number(text, at)?;
                    self.push(Kind::Number, at, end, false);
                    at = end;
                }
                Some(b'{') => {
                    self.enter(Kind::Object, at)?;
                    at = skip_space(text, at + 1);
                    if text.get(at) != Some(&b'}') {
                        at = self.name(at)?;
                        continue 'value;
                    }
                }
                Some(b'[') => {
                    self.enter(Kind::Array, at)?;
                    at = skip_space(text, at + 1);
                    if text.get(at) != Some(&b']') {
                        continue 'value;
                    }
                }
                Some(b't') => at = self.literal(Kind::True, b"true", at)?,
                Some(b'f') => at = self.literal(Kind::False, b"false", at)?,
                Some(b'n') => at = self.literal(Kind::Null, b"null", at)?,
                _ => return Err(unexpected(text, at)),
            }
            // Behind a value, or before the end of an empty container.
            loop {
                if self.within == Within::Nothing {
                    return Ok((at, self.duplicate));
                }
                at = skip_space(text, at);
                match (self.within, text.get(at)) {
                    (Within::Object, Some(b',')) => {
                        at = self.name(skip_space(text, at + 1))?;
                        continue 'value;
                    }
                    (Within::Array, Some(b',')) => {
                        at = skip_space(text, at + 1);
                        continue 'value;
                    }
                    (Within::Object, Some(b'}')) | (Within::Array, Some(b']')) => {
                        at += 1;
                        self.leave(at);
                    }
                    _ => return Err(unexpected(text, at)),
                }
            }
        }
    }

    fn enter(&mut self, kind: Kind, at: usize) -> Result<(), Fault> {
        if let Some(around) = self.nodes.get_mut(self.open as usize) {
            around.end = self.members;
        }
        let node = self.nodes.len() as u32;
        self.nodes.push(Node {
            start: at as u32,
            end: 0,
            next: self.open,
            kind,
            escaped: false,
            open: true,
            shadowed: false,
        });
        if self.depth >= self.limits.max_depth {
            let max = self.limits.max_depth;
            return Err(Fault::Rule { node, rule: Rule::TooDeep { max } });
        }
        self.depth += 1;
        self.open = node;
        self.within = if kind == Kind::Object { Within::Object } else { Within::Array };
        self.members = 0;
        Ok(())
    }

    fn leave(&mut self, end: usize) {
        if self.within == Within::Object {
            match self.limits.duplicate_names {
                DuplicateNames::Reject if self.duplicate.is_some() => {}
                DuplicateNames::Reject => {
                    self.duplicate = self.check.duplicate(self.text, self.nodes, self.open, self.members);
                }
                DuplicateNames::Allow => self.check.shadow(self.text, self.nodes, self.open, self.members),
            }
        }
        let next = self.nodes.len() as u32;
        let mut around = TOP;
        if let Some(node) = self.nodes.get_mut(self.open as usize) {
            around = node.next;
            node.end = end as u32;
            node.next = next;
            node.open = false;
        }
        self.depth = self.depth.saturating_sub(1);
        self.open = around;
        match self.nodes.get(around as usize) {
            None => self.within = Within::Nothing,
            Some(node) => {
                self.members = node.end;
                self.within = if node.kind == Kind::Object { Within::Object } else { Within::Array };
            }
        }
    }

    /// A member's name and the colon behind it; gives where the value begins.
    fn name(&mut self, at: usize) -> Result<usize, Fault> {
        let text = self.text;
        if text.get(at) != Some(&b'"') {
            return Err(unexpected(text, at));
        }
        if self.members >= self.limits.max_members {
            let max = self.limits.max_members;
            return Err(Fault::Rule { node: self.open, rule: Rule::TooManyMembers { max } });
        }
        self.members += 1;
        let (end, escaped) = string(text, at)?;
        self.push(Kind::String, at, end, escaped);
        let colon = skip_space(text, end);
        if text.get(colon) != Some(&b':') {
            return Err(unexpected(text, colon));
        }
        Ok(skip_space(text, colon + 1))
    }

    fn literal(&mut self, kind: Kind, word: &[u8], at: usize) -> Result<usize, Fault> {
        let end = literal(self.text, word, at)?;
        self.push(kind, at, end, false);
        Ok(end)
    }

    #[inline]
    fn push(&mut self, kind: Kind, start: usize, end: usize, escaped: bool) {
        let next = self.nodes.len() as u32 + 1;
        self.nodes.push(Node {
            start: start as u32,
            end: end as u32,
            next,
            kind,
            escaped,
            open: false,
            shadowed: false,
        });
    }
}

/// Nothing but white space from `at` on.
pub(crate) fn nothing_more(text: &[u8], at: usize) -> Result<(), Fault> {
    let at = skip_space(text, at);
    if at < text.len() { Err(syntax(at, Problem::TrailingData)) } else { Ok(()) }
}

pub(crate) fn first_value(text: &[u8]) -> Result<usize, Fault> {
    if text.starts_with(b"\xef\xbb\xbf") {
        return Err(syntax(0, Problem::ByteOrderMark));
    }
    let at = skip_space(text, 0);
    if at >= text.len() {
        return Err(syntax(at, Problem::Empty));
    }
    Ok(at)
}

#[inline]
pub(crate) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// The string whose first quote is at `start`: where it ends, and whether it has an escape.
// Inlined into both of its callers, which saves a tenth of an event's time.
#[inline(always)]
pub(crate) fn string(text: &[u8], start: usize) -> Result<(usize, bool), Fault> {
    let mut at = start + 1;
    let mut escaped = false;
    let mut high = 0;
    loop {
        while let Some(word) = word_at(text, at) {
            let stops = stops(word);
            if stops == 0 {
                high |= word & HIGH_BITS;
                at += 8;
                continue;
            }
            // Only the bytes before the first stop belong to the string for certain.
            high |= word & HIGH_BITS & (stops & stops.wrapping_neg()).wrapping_sub(1);
            at += stops.trailing_zeros() as usize / 8;
            break;
        }
        match text.get(at) {
            Some(b'"') => break,
            Some(b'\\') => {
                escaped = true;
                at = escape(text, at).map_err(|fault| earlier(text, start, fault))?;
            }
            Some(0..=0x1f) => {
                return Err(earlier(text, start, syntax(at, Problem::ControlCharacter)));
            }
            // One of the last seven bytes.
            Some(byte) => {
                high |= u64::from(byte & 0x80);
                at += 1;
            }
            None => return Err(earlier(text, start, syntax(at, Problem::UnexpectedEnd))),
        }
    }
    if high != 0 {
        utf8(text, start, at)?;
    }
    Ok((at + 1, escaped))
}

const LOW_BITS: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGH_BITS: u64 = u64::from_ne_bytes([0x80; 8]);

#[inline]
fn word_at(text: &[u8], at: usize) -> Option<u64> {
    text.get(at..).and_then(<[u8]>::first_chunk).copied().map(u64::from_le_bytes)
}

/// The high bit of every byte that ends a plain run: quote, backslash, control character. Borrows between bytes can only add bits
/// above a right one, so the lowest bit is exact (Hacker's Delight, section 6-1).
#[inline]
fn stops(word: u64) -> u64 {
    let zero_bytes = |word: u64| word.wrapping_sub(LOW_BITS) & !word;
    let quotes = zero_bytes(word ^ (LOW_BITS * b'"' as u64));
    let backslashes = zero_bytes(word ^ (LOW_BITS * b'\\' as u64));
    let controls = word.wrapping_sub(LOW_BITS * 0x20) & !word;
    (quotes | backslashes | controls) & HIGH_BITS
}

/// The escape whose backslash is at `start`: where it ends, the second half of a surrogate pair included.
fn escape(text: &[u8], start: usize) -> Result<usize, Fault> {
    match text.get(start + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(start + 2),
        Some(b'u') => match unit(text, start)? {
            0xd800..=0xdbff => {
                let second = start + 6;
                match (text.get(second), text.get(second + 1)) {
                    (Some(b'\\'), Some(b'u')) => match unit(text, second)? {
                        0xdc00..=0xdfff => Ok(second + 6),
                        _ => Err(syntax(start, Problem::LoneSurrogate)),
                    },
                    (None, _) | (Some(b'\\'), None) => Err(syntax(text.len(), Problem::UnexpectedEnd)),
                    _ => Err(syntax(start, Problem::LoneSurrogate)),
                }
            }
            0xdc00..=0xdfff => Err(syntax(start, Problem::LoneSurrogate)),
            _ => Ok(start + 6),
        },
        Some(_) => Err(syntax(start, Problem::InvalidEscape)),
        None => Err(syntax(start + 1, Problem::UnexpectedEnd)),
    }
}

/// The code unit of the `\u` escape at `start`.
fn unit(text: &[u8], start: usize) -> Result<u32, Fault> {
    let digits = text.get(start + 2..).unwrap_or_default();
    match code_unit(digits) {
        Some((unit, _)) => Ok(unit),
        None if digits.iter().all(u8::is_ascii_hexdigit) => Err(syntax(text.len(), Problem::UnexpectedEnd)),
        None => Err(syntax(start, Problem::InvalidEscape)),
    }
}

#[inline(never)]
fn utf8(text: &[u8], start: usize, end: usize) -> Result<(), Fault> {
    match std::str::from_utf8(text.get(start..end).unwrap_or_default()) {
        Ok(_) => Ok(()),
        Err(error) => Err(syntax(start + error.valid_up_to(), Problem::InvalidUtf8)),
    }
}

/// A fault in the string that begins at `start`, or invalid UTF-8 when that comes first: bytes are checked when a string ends.
#[cold]
fn earlier(text: &[u8], start: usize, fault: Fault) -> Fault {
    let Fault::Syntax { at, problem } = fault else {
        return fault;
    };
    match std::str::from_utf8(text.get(start..at).unwrap_or_default()) {
        // A character that the text breaks off in is no invalid one.
        Err(error) if problem != Problem::UnexpectedEnd || error.error_len().is_some() => {
            syntax(start + error.valid_up_to(), Problem::InvalidUtf8)
        }
        _ => fault,
    }
}

/// The number that begins at `start`: where it ends. Its size is nobody's business here (RFC 8259, section 6).
#[inline]
pub(crate) fn number(text: &[u8], start: usize) -> Result<usize, Fault> {
    let mut at = start;
    if text.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match (text.get(at), text.get(at + 1)) {
        (Some(b'0'), Some(b'0'..=b'9')) => return Err(syntax(at + 1, Problem::InvalidNumber)),
        (Some(b'0'), _) => at + 1,
        _ => digits(text, at)?,
    };
    if text.get(at) == Some(&b'.') {
        at = digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = digits(text, at)?;
    }
    Ok(at)
}

/// At least one digit at `start`.
#[inline]
fn digits(text: &[u8], start: usize) -> Result<usize, Fault> {
    let mut at = start;
    while let Some(b'0'..=b'9') = text.get(at) {
        at += 1;
    }
    match text.get(at) {
        None if at == start => Err(syntax(at, Problem::UnexpectedEnd)),
        Some(_) if at == start => Err(syntax(at, Problem::InvalidNumber)),
        _ => Ok(at),
    }
}

/// `true`, `false` or `null` at `start`: where it ends.
#[inline]
pub(crate) fn literal(text: &[u8], word: &[u8], start: usize) -> Result<usize, Fault> {
    let rest = text.get(start..).unwrap_or_default();
    if !rest.starts_with(word) {
        let same = rest.iter().zip(word).take_while(|(one, other)| one == other).count();
        return Err(unexpected(text, start + same));
    }
    Ok(start + word.len())
}

#[cold]
pub(crate) fn unexpected(text: &[u8], at: usize) -> Fault {
    let rest = text.get(at..).unwrap_or_default();
    let character = rest.get(..4).unwrap_or(rest);
    let problem = match std::str::from_utf8(character) {
        _ if rest.is_empty() => Problem::UnexpectedEnd,
        Err(error) if error.valid_up_to() == 0 => Problem::InvalidUtf8,
        _ => Problem::UnexpectedCharacter,
    };
    syntax(at, problem)
}

pub(crate) fn syntax(at: usize, problem: Problem) -> Fault {
    Fault::Syntax { at, problem }
}
