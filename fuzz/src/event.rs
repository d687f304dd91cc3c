//! The event step against serde_json: the same verdict, the same spans, the rules in their order, and an error where one is.

use ngx_http_meteorit_module::event::{
    DuplicateNames, Error, Event, Kind, Limits, Problem, Rule, Tape, Value, is_json,
};

use crate::json::{self, Content, Json, NotJson};
use crate::rules;

const MAX_DEPTH: u32 = json::DEPTH - 2;

/// Nothing that an input of some kilobytes can reach, but for the depth.
pub const LAX: Limits = Limits { max_depth: MAX_DEPTH, max_members: u32::MAX, duplicate_names: DuplicateNames::Allow };
const STRICT: Limits = Limits { max_depth: MAX_DEPTH, max_members: u32::MAX, duplicate_names: DuplicateNames::Reject };
const TIGHT: Limits = Limits { max_depth: 3, max_members: 4, duplicate_names: DuplicateNames::Reject };

pub fn check(text: &[u8]) {
    let mut tape = Tape::new();
    let theirs = json::read(text);
    for limits in [&LAX, &STRICT, &TIGHT] {
        let ours = tape.parse(text, limits);
        match &theirs {
            Ok(json) => right(ours, json, text, limits),
            Err(not_json) => wrong(ours.err(), not_json, text, limits),
        }
        let again = tape.event(text).map(|event| event.text());
        assert_eq!(again.is_some(), theirs.as_ref().is_ok_and(|json| rules::error(json, limits).is_none()));
    }
    let as_member = |limits: &Limits| match json::read(text) {
        Ok(json) => {
            let members = Content::Members(vec![(String::new(), json)]);
            rules::error(&Json { text: "", kind: Kind::Object, content: members }, limits).is_none()
        }
        Err(_) => false,
    };
    for limits in [&LAX, &TIGHT] {
        assert_eq!(is_json(text, limits), as_member(limits));
    }
}

fn right(ours: Result<Event<'_>, Error>, json: &Json<'_>, text: &[u8], limits: &Limits) {
    let expected = rules::error(json, limits);
    match ours {
        Ok(event) => {
            assert_eq!(expected, None);
            assert_eq!(event.source(), text);
            assert_eq!(event.text(), json.text.as_bytes());
            same(event.root(), json, text);
        }
        Err(error) => assert!(rules::same(Some(&error), expected.as_ref()), "{error:?}, not {expected:?}"),
    }
}

/// Whether a value of the tape is that of the tree, and all below it.
pub fn same(ours: Value<'_>, theirs: &Json<'_>, text: &[u8]) {
    assert_eq!(ours.kind(), theirs.kind);
    assert_eq!(ours.text(), theirs.text.as_bytes());
    assert_eq!(ours.text().as_ptr() as usize - text.as_ptr() as usize, theirs.offset_in(text));
    match &theirs.content {
        Content::String(string) => assert_eq!(ours.string().as_deref(), Some(string.as_bytes())),
        Content::Unread => panic!("deeper than the bound"),
        _ => assert_eq!(ours.string(), None),
    }
    let (elements, members) = (theirs.elements(), theirs.members());
    assert_eq!(ours.elements().count(), elements.len());
    assert_eq!(ours.members().count(), members.len());
    for (ours, theirs) in ours.elements().zip(elements) {
        same(ours, theirs, text);
    }
    for ((name, ours), (theirs_name, theirs)) in ours.members().zip(members) {
        assert_eq!(&*name.unescaped(), theirs_name.as_bytes());
        same(ours, theirs, text);
    }
}

fn wrong(ours: Option<Error>, theirs: &NotJson, text: &[u8], limits: &Limits) {
    let error = ours.expect("refused by serde_json");
    let (line, column, problem) = match &error {
        Error::Syntax { line, column, problem } => (*line, *column, *problem),
        // Told as soon as they show.
        Error::Rule { rule: Rule::TooDeep { max }, .. } => {
            assert!(deepest(text) > *max);
            return;
        }
        Error::Rule { rule: Rule::TooManyMembers { max }, .. } => {
            assert_eq!(*max, TIGHT.max_members);
            return;
        }
        other => panic!("{other:?}"),
    };
    if matches!(problem, Problem::UnexpectedEnd | Problem::Empty) {
        // Within a number serde_json misses a digit, not the rest.
        let in_number = text.last().is_some_and(|last| b"-+.eE".contains(last));
        assert!(theirs.ended || in_number, "{error}");
        assert_eq!((line, column), place(text));
        return;
    }
    // serde_json looks for the end of a string, or four digits of an escape, before it judges their bytes.
    let judged_late = matches!(problem, Problem::InvalidUtf8 | Problem::LoneSurrogate | Problem::InvalidEscape);
    assert!(!theirs.ended || judged_late, "{error}");
    begins_right(text, (line, column), problem, limits);
}

/// What is before the place of an error must be the beginning of some JSON text, and with the character there the error remains.
fn begins_right(text: &[u8], at: (u32, u32), problem: Problem, limits: &Limits) {
    let at = offset(text, at).expect("a place in the text");
    let mut tape = Tape::new();
    let head = &text[..at];
    match tape.parse(head, limits) {
        Err(Error::Syntax { problem: Problem::UnexpectedEnd | Problem::Empty, line, column }) => {
            assert_eq!((line, column), place(head));
            assert_ne!(problem, Problem::TrailingData);
        }
        // Complete, and more follows.
        Ok(_) | Err(Error::Rule { rule: Rule::DuplicateName | Rule::NotAnObject { .. }, .. }) => {
            assert!(matches!(problem, Problem::TrailingData | Problem::InvalidNumber), "{problem}");
        }
        Err(other) => panic!("{other} before {problem}"),
    }
    let whole_character = matches!(
        problem,
        Problem::UnexpectedCharacter | Problem::ControlCharacter | Problem::InvalidNumber | Problem::TrailingData
    );
    if whole_character {
        let behind = text[at..].utf8_chunks().next().expect("a character");
        let length = behind.valid().chars().next().map_or(behind.invalid().len().max(1), char::len_utf8);
        let (line, column) = place(head);
        let expected = Error::Syntax { line, column, problem };
        assert_eq!(tape.parse(&text[..at + length], limits).err(), Some(expected));
    }
}

/// The offset of a line and a column, if the text has them and is UTF-8 up to there.
fn offset(text: &[u8], (line, column): (u32, u32)) -> Option<usize> {
    let feeds = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    let mut starts = std::iter::once(0).chain(feeds.map(|(at, _)| at + 1));
    let start = starts.nth(line as usize - 1)?;
    let valid = text.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    let behind = valid.get(start..)?;
    let (length, _) = behind.char_indices().chain([(behind.len(), '\n')]).nth(column as usize - 1)?;
    (!behind[..length].contains('\n')).then_some(start + length)
}

/// Line and column of what would follow the text.
fn place(text: &[u8]) -> (u32, u32) {
    let last = text.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    let lines = text.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let columns = last.iter().filter(|&&byte| byte & 0xc0 != 0x80).count() + 1;
    (lines as u32, columns as u32)
}

/// The most brackets that are open at once, outside of strings.
fn deepest(text: &[u8]) -> u32 {
    let (mut open, mut most) = (0_u32, 0);
    let mut in_string = false;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => drop(bytes.next()),
            _ if in_string => {}
            b'{' | b'[' => open += 1,
            b'}' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}
