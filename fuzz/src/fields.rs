//! Look-ups in an event against serde_json. The first line of an input is a name and a pointer, the rest is the event.

use ngx_http_meteorit_module::event::{Pointer, PointerError, Tape, Value};
use serde_json::Value as Serde;

use crate::event::LAX;
use crate::json::{self, Json};
use crate::rules;

pub fn check(input: &[u8]) {
    let line = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (line, text) = input.split_at(line);
    let text = text.get(1..).unwrap_or_default();
    let path = str::from_utf8(line).ok();
    let pointer = path.and_then(|path| pointer(path).map(|pointer| (path, pointer)));

    let mut tape = Tape::new();
    let (Ok(event), Ok(json)) = (tape.parse(text, &LAX), json::read(text)) else { return };
    assert_eq!(rules::error(&json, &LAX), None);
    members(event.root(), &json, line);
    if let Some((path, pointer)) = pointer {
        let found = pointer.find(event.root()).map(|value| value.text());
        assert_eq!(found, follow(&json, path).map(|json| json.text.as_bytes()));
        // It has no number beyond f64.
        if let Ok(theirs) = serde_json::from_slice::<Serde>(text) {
            let ours = found.map(|text| serde_json::from_slice::<Serde>(text).expect("JSON"));
            assert_eq!(ours.as_ref(), theirs.pointer(path));
        }
    }
}

/// A pointer is read if RFC 6901 has it.
fn pointer(path: &str) -> Option<Pointer> {
    let starts = path.is_empty() || path.starts_with('/');
    let escapes = !path.replace("~0", "0").replace("~1", "1").contains('~');
    match Pointer::parse(path) {
        Ok(pointer) => {
            assert!(starts && escapes);
            Some(pointer)
        }
        Err(PointerError::Start { .. }) => {
            assert!(!starts);
            None
        }
        Err(PointerError::Escape { escape, .. }) => {
            assert!(starts && !escapes && path.contains(&escape) && escape.starts_with('~'));
            None
        }
    }
}

/// RFC 6901, section 4, step by step in the tree.
fn follow<'j>(json: &'j Json<'j>, path: &str) -> Option<&'j Json<'j>> {
    path.split('/').skip(1).try_fold(json, |json, step| {
        let name = step.replace("~1", "/").replace("~0", "~");
        let index = name.parse::<usize>().ok().filter(|index| index.to_string() == name);
        let member = json.members().iter().rev().find(|(own, _)| *own == name).map(|(_, value)| value);
        member.or_else(|| json.elements().get(index?))
    })
}

/// Look-ups of every name, of `other` and of every name in another case, here and below.
fn members(ours: Value<'_>, theirs: &Json<'_>, other: &[u8]) {
    let list = theirs.members();
    let last = |name: &[u8]| list.iter().rposition(|(own, _)| own.as_bytes() == name);
    let text = |name| last(name).map(|last| list[last].1.text.as_bytes());
    let found = |name: &[u8]| ours.member(name).map(|value| value.text());
    assert_eq!(found(other), text(other));
    for (at, ((name, value), (theirs_name, theirs))) in ours.members().zip(list).enumerate() {
        let plain = theirs_name.as_bytes();
        assert_eq!(found(plain), text(plain));
        assert_eq!(name.is_shadowed(), last(plain) != Some(at));
        assert!(name.is(plain) && name.is_ignoring_ascii_case(plain));
        assert_eq!(name.is(other), plain == other);
        assert_eq!(name.is_ignoring_ascii_case(other), plain.eq_ignore_ascii_case(other));
        assert!(name.is_ignoring_ascii_case(theirs_name.to_ascii_uppercase().as_bytes()));
        let longer = [plain, b"x"].concat();
        assert!(!name.is(&longer) && !name.is_ignoring_ascii_case(&longer));
        members(value, theirs, other);
    }
    for (ours, theirs) in ours.elements().zip(theirs.elements()) {
        members(ours, theirs, other);
    }
}
