//! Batches: both forms of them against serde_json, and against the event step, which reads each piece alone.

use ngx_http_meteorit_module::batch::{Error, Form, Piece, Split};
use ngx_http_meteorit_module::event::{self, DuplicateNames, Kind, Limits, Problem, Rule, Tape, is_json};

use crate::json::{self, Content};

const FEW: u32 = 3;
const NO_LIMITS: Limits = Limits { max_depth: u32::MAX, max_members: u32::MAX, duplicate_names: DuplicateNames::Allow };

pub fn check(body: &[u8]) {
    array(body);
    lines(body);
}

fn array(body: &[u8]) {
    let result = pieces(body, Form::Array);
    if !trim(body).starts_with(b"[") {
        assert!(matches!(result, Err(Error::Syntax(_))));
        return;
    }
    // The event step knows nothing but objects as a whole; below that it reads what the batch reads.
    match Tape::new().parse(body, &NO_LIMITS).map(|_| ()) {
        Err(event::Error::Rule { rule: Rule::NotAnObject { found: Kind::Array }, .. }) => {}
        Err(wrong @ event::Error::Syntax { .. }) => {
            assert_eq!(result, Err(Error::Syntax(wrong)));
            bounded(body, Form::Array, None);
            return;
        }
        other => panic!("{other:?}"),
    }
    match result {
        Ok(texts) => {
            covered(body, &texts);
            assert!(texts.iter().all(|text| is_json(text, &NO_LIMITS)));
            if let Ok(json) = json::read(body) {
                assert!(matches!(json.content, Content::Elements(_)));
                let elements: Vec<_> = json.elements().iter().map(|element| element.text.as_bytes()).collect();
                assert_eq!(texts, elements);
            }
            bounded(body, Form::Array, Some(texts.len()));
        }
        Err(Error::Empty) => assert!(json::read(body).is_ok_and(|json| json.elements().is_empty())),
        Err(other) => panic!("{other}"),
    }
}

/// Nothing is between the pieces but a comma, nothing around them but the brackets; and white space.
fn covered(body: &[u8], texts: &[&[u8]]) {
    let mut rest = body;
    for (at, text) in texts.iter().enumerate() {
        let start = text.as_ptr() as usize - rest.as_ptr() as usize;
        assert_eq!(trim(&rest[..start]), if at == 0 { b"[" } else { b"," });
        rest = &rest[start + text.len()..];
    }
    assert_eq!(trim(rest), b"]");
}

fn lines(body: &[u8]) {
    let expected: Vec<_> = body.split(|&byte| byte == b'\n').map(trim).filter(|line| !line.is_empty()).collect();
    match pieces(body, Form::Lines) {
        Ok(texts) => assert_eq!(texts, expected),
        Err(error) => assert_eq!((error, expected.len()), (Error::Empty, 0)),
    }
    if expected.is_empty() {
        return;
    }
    bounded(body, Form::Lines, Some(expected.len()));
    let mut split = Split::new(Form::Lines, u32::MAX);
    while split.next(body).expect("a batch").is_some() {
        placed(body, split.piece(body, None).expect("a line"));
    }
}

/// The error of a line is where it would be if all before that line were blank.
fn placed(body: &[u8], piece: Piece<'_>) {
    let mut tape = Tape::new();
    let Err(error) = tape.parse(piece.text, &NO_LIMITS) else { return };
    let start = piece.text.as_ptr() as usize - body.as_ptr() as usize;
    let (before, text) = (&body[..start], &body[..start + piece.text.len()]);
    let line = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |feed| feed + 1);
    let blank = text.iter().enumerate().map(|(at, &byte)| if at < line && byte != b'\n' { b' ' } else { byte });
    let expected = match error {
        // Not at the start there.
        event::Error::Syntax { problem: Problem::ByteOrderMark, .. } if start > 0 => return,
        _ => tape.parse(&blank.collect::<Vec<_>>(), &NO_LIMITS).err(),
    };
    assert_eq!(Some(piece.error_in_body(error)), expected);
}

/// With room for a few events: as before if they are no more, else an error that says so, or what is wrong before the one too many.
fn bounded(body: &[u8], form: Form, count: Option<usize>) {
    let verdict = split(body, form, FEW, |_| None).map(|texts| texts.len());
    match count {
        Some(count) if count > FEW as usize => assert_eq!(verdict, Err(Error::TooMany { max: FEW })),
        Some(count) => assert_eq!(verdict, Ok(count)),
        None => match verdict {
            Err(Error::TooMany { .. }) => {}
            other => assert_eq!(other.err(), pieces(body, form).err()),
        },
    }
}

/// The same whether each element has been read before or not.
fn pieces(body: &[u8], form: Form) -> Result<Vec<&[u8]>, Error> {
    let looked_for = split(body, form, u32::MAX, |_| None);
    for limits in [NO_LIMITS, Limits { max_depth: 2, max_members: 2, ..Limits::default() }] {
        let mut tape = Tape::new();
        let read = split(body, form, u32::MAX, |text| tape.parse_first(text, &limits).ok());
        assert_eq!(read, looked_for);
    }
    looked_for
}

fn split<'a>(
    body: &'a [u8],
    form: Form,
    max: u32,
    mut length: impl FnMut(&'a [u8]) -> Option<usize>,
) -> Result<Vec<&'a [u8]>, Error> {
    let mut split = Split::new(form, max);
    let mut texts = Vec::new();
    while let Some(text) = split.next(body)? {
        let length = length(text);
        // Another body is of no use, and no harm.
        let (mut other, half) = (split.clone(), &body[body.len() / 2..]);
        if other.piece(half, length).is_ok() {
            _ = other.next(half);
        }
        let piece = split.piece(body, length)?;
        assert_eq!(piece.index as usize, texts.len());
        assert!(std::ptr::eq(&body[piece.place()], piece.text));
        texts.push(piece.text);
    }
    assert_eq!(split.next(body), Ok(None), "the end stays the end");
    Ok(texts)
}

/// Without the white space of JSON at both ends.
fn trim(text: &[u8]) -> &[u8] {
    let space = |byte: &u8| b" \t\r\n".contains(byte);
    let start = text.iter().position(|byte| !space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}
