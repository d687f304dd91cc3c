//! Changes to an event's members against a plain model of them.
//!
//! An input begins with the changes, one a line, `name=JSON` or `-name`; behind an empty line comes the event.

use ngx_http_meteorit_module::event::{Change, Event, FieldName, Tape, enrich, json_string};

use crate::event::LAX;
use crate::json::{self, Json};
use crate::rules;

pub fn check(input: &[u8]) {
    encodes(input);
    let end = input.windows(2).position(|pair| pair == b"\n\n").unwrap_or(0);
    let (lines, text) = (&input[..end], input.get(end + 2..).unwrap_or_default());
    let list = changes(lines);
    let mut tape = Tape::new();
    let (Ok(event), Ok(json)) = (tape.parse(text, &LAX), json::read(text)) else { return };

    let ours = enriched(event, &list);
    let (theirs, members) = model(&json, &list, text);
    assert_eq!(str::from_utf8(&ours), Ok(theirs.as_str()));

    let json = json::read(&ours).expect("JSON");
    let found: Vec<_> = json.members().iter().map(|(name, value)| (name.clone(), value.text)).collect();
    assert_eq!(found, members);
    // What is as it should be stays so.
    match tape.parse(&ours, &LAX) {
        Ok(event) => assert_eq!(enriched(event, &list), ours),
        Err(_) => assert!(rules::error(&json, &LAX).is_some()),
    }
}

/// Any bytes become the string that serde_json makes of them.
fn encodes(bytes: &[u8]) {
    let mut out = b"before".to_vec();
    json_string(bytes, &mut out);
    let expected = serde_json::to_string(&String::from_utf8_lossy(bytes)).expect("a string");
    assert_eq!(out.strip_prefix(b"before"), Some(expected.as_bytes()));
}

type Changes<'a> = Vec<(&'a str, Option<&'a str>)>;

/// With distinct names, and with values that are JSON: this is what the configuration sees to.
fn changes(lines: &[u8]) -> Changes<'_> {
    let mut list = Changes::new();
    for line in str::from_utf8(lines).unwrap_or_default().split('\n') {
        let change = match line.strip_prefix('-') {
            Some(name) => Some((name, None)),
            None => line.split_once('=').map(|(name, value)| (name, Some(value))),
        };
        if let Some((name, value)) = change
            && value.is_none_or(|value| json::read(value.as_bytes()).is_ok_and(|json| json.text == value))
            && list.iter().all(|(other, _)| *other != name)
        {
            list.push((name, value));
        }
    }
    list
}

fn enriched(event: Event<'_>, list: &Changes<'_>) -> Vec<u8> {
    let names: Vec<_> = list.iter().map(|(name, _)| FieldName::new(name)).collect();
    let changes = names.iter().zip(list).map(|(name, (_, value))| Change { name, value: value.map(str::as_bytes) });
    let mut out = b"before".to_vec();
    enrich(event, changes, &mut out);
    assert_eq!(out.drain(..6).collect::<Vec<_>>(), b"before");
    out
}

/// The enriched text and its members, as the description of `enrich` has it.
fn model<'a>(json: &Json<'a>, list: &Changes<'a>, text: &[u8]) -> (String, Vec<(String, &'a str)>) {
    let text = str::from_utf8(text).expect("JSON");
    let mut end = json.offset_in(text.as_bytes()) + 1;
    let mut out = text[..end].to_owned();
    let mut members = Vec::new();
    let mut lead = "";
    for (at, (name, value)) in json.members().iter().enumerate() {
        let start = end + text[end..].find('"').expect("a name");
        let value_start = value.offset_in(text.as_bytes());
        let gap = &text[end..start];
        end = value_start + value.text.len();
        if at == 0 {
            lead = gap;
        }
        let change = list.iter().find(|(changed, _)| changed == name);
        let new = match change {
            None => value.text,
            Some((_, Some(new))) if members.iter().all(|(done, _)| done != name) => new,
            _ => continue,
        };
        out += if members.is_empty() { lead } else { gap };
        out += &text[start..value_start];
        out += new;
        members.push((name.clone(), new));
    }
    for (name, value) in list {
        if let Some(value) = value
            && members.iter().all(|(done, _)| done != name)
        {
            out += if members.is_empty() { lead } else { "," };
            out += &serde_json::to_string(name).expect("a string");
            out += ":";
            out += value;
            members.push(((*name).to_owned(), value));
        }
    }
    (out + &text[end..], members)
}
