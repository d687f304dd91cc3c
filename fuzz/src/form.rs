//! Forms and query strings against form_urlencoded, where that does not replace what cannot be decoded.

use ngx_http_meteorit_module::event::{Limits, Tape};
use ngx_http_meteorit_module::form::{Form, FormError};

use crate::json;

const FEW: u32 = 3;

pub fn check(text: &[u8]) {
    let mut form = Form::new();
    let query = written(text, |out| form.query(text, u32::MAX, out));
    match &query {
        Ok(object) => right(text, object),
        Err(FormError::TooManyMembers { .. }) => panic!("no bound"),
        Err(error) => wrong(text, *error),
    }
    let body = written(text, |out| form.body(text, u32::MAX, out));
    match (&body, &query) {
        (Ok(body), Ok(object)) if body != object => alone(text, body),
        (body, query) => assert_eq!(body, query),
    }
    // The bound, or what is wrong before it.
    let members = text.split(|&byte| byte == b'&').filter(|piece| !piece.is_empty()).count();
    let bounded = written(text, |out| form.query(text, FEW, out));
    if members <= FEW as usize {
        assert_eq!(bounded, query);
    } else if bounded != Err(FormError::TooManyMembers { max: FEW }) {
        assert!(bounded.is_err() && bounded == query);
    }
}

fn written(text: &[u8], write: impl FnOnce(&mut Vec<u8>) -> Result<(), FormError>) -> Result<Vec<u8>, FormError> {
    let mut out = b"before".to_vec();
    let result = write(&mut out);
    assert_eq!(out.drain(..6).collect::<Vec<_>>(), b"before");
    assert!(result.is_ok() || out.is_empty(), "{}", text.escape_ascii());
    result.map(|()| out)
}

fn right(text: &[u8], object: &[u8]) {
    assert!(percents(text) && !replaced(text));
    let mut expected: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in form_urlencoded::parse(text).into_owned() {
        match expected.iter_mut().find(|(own, _)| *own == name) {
            Some((_, values)) => values.push(value),
            None => expected.push((name, vec![value])),
        }
    }
    let limits = Limits { max_members: u32::MAX, ..Limits::default() };
    assert!(Tape::new().parse(object, &limits).is_ok());
    let json = json::read(object).expect("JSON");
    assert_eq!(json.text.as_bytes(), object);
    let string = |text: &str| serde_json::from_str::<String>(text).expect("a string");
    let found = json.members().iter().map(|(name, value)| {
        let values = match value.elements() {
            [] => vec![string(value.text)],
            elements => elements.iter().map(|element| string(element.text)).collect(),
        };
        assert_ne!((value.elements().len(), values.len()), (1, 1), "one value needs no array");
        (name.clone(), values)
    });
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

/// A body that is the JSON in it.
fn alone(text: &[u8], body: &[u8]) {
    let pairs: Vec<_> = form_urlencoded::parse(text).collect();
    let [(name, value)] = pairs.as_slice() else { panic!("{} members", pairs.len()) };
    assert_eq!((&**name, value.as_bytes()), ("data", body));
    let first = value.trim_start_matches([' ', '\t', '\n', '\r']).chars().next();
    assert!(matches!(first, Some('{' | '[')));
}

/// The place is that of the first thing wrong; in one name or value, percent signs come before UTF-8.
fn wrong(text: &[u8], error: FormError) {
    match error {
        FormError::Percent { at } => {
            let (before, behind) = text.split_at(at);
            assert!(percents(before) && behind.starts_with(b"%") && !percents(&behind[..behind.len().min(3)]));
            assert!(!replaced(&text[..start_of_part(text, at)]));
        }
        FormError::Utf8 { at } => {
            let (before, behind) = text.split_at(at);
            assert!(percents(before) && !replaced(before) && !behind.is_empty());
            let in_name = !text[start_of_piece(text, at)..at].contains(&b'=');
            let end = behind.iter().position(|&byte| byte == b'&' || byte == b'=' && in_name);
            let part = &behind[..end.unwrap_or(behind.len())];
            assert!(percents(part) && replaced(part));
        }
        FormError::TooManyMembers { .. } => {}
    }
}

fn start_of_piece(text: &[u8], at: usize) -> usize {
    text[..at].iter().rposition(|&byte| byte == b'&').map_or(0, |and| and + 1)
}

/// Where the name or the value begins that `at` is in.
fn start_of_part(text: &[u8], at: usize) -> usize {
    let piece = start_of_piece(text, at);
    text[piece..at].iter().position(|&byte| byte == b'=').map_or(piece, |equals| piece + equals + 1)
}

/// Whether two digits follow every percent sign.
fn percents(text: &[u8]) -> bool {
    let digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_hexdigit);
    text.iter().enumerate().all(|(at, byte)| *byte != b'%' || digit(at + 1) && digit(at + 2))
}

/// Whether form_urlencoded puts replacement characters in: it has more of them than the text stands for.
fn replaced(text: &[u8]) -> bool {
    let decoded = form_urlencoded::parse(text).map(|(name, value)| {
        let count = |text: &str| text.matches('\u{fffd}').count();
        count(&name) + count(&value)
    });
    let plain: Vec<u8> = unescaped(text);
    decoded.sum::<usize>() > plain.windows(3).filter(|bytes| bytes == b"\xef\xbf\xbd").count()
}

/// Every percent-encoding replaced by its byte.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let digits = text.get(at + 1..at + 3).and_then(|digits| str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| byte == b'%' && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        bytes.push(digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or(byte));
        at += if digits.is_some() { 3 } else { 1 };
    }
    bytes
}
