use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value as Json;

use super::*;
use crate::event::{Limits, Rule, Tape};

fn pieces(body: &[u8], form: Form) -> Result<Vec<&[u8]>, Error> {
    few_pieces(body, form, u32::MAX)
}

/// The texts, which are the same whether somebody has read them before or not.
fn few_pieces(body: &[u8], form: Form, max: u32) -> Result<Vec<&[u8]>, Error> {
    let mut tape = Tape::new();
    let looked_for = split(body, form, max, |_| None);
    let read = split(body, form, max, |text| tape.parse_first(text, &Limits::default()).ok());
    assert_eq!(looked_for, read, "{}", body.escape_ascii());
    read
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
        let piece = split.piece(body, length(text))?;
        assert_eq!(piece.index as usize, texts.len());
        assert_eq!(&body[piece.place()], piece.text);
        assert!(text.starts_with(piece.text) && (form == Form::Array || text == piece.text));
        texts.push(piece.text);
    }
    assert_eq!(split.next(body), Ok(None), "the end stays the end");
    Ok(texts)
}

fn refused(body: &[u8], form: Form) -> String {
    match pieces(body, form) {
        Ok(texts) => panic!("{} texts in {}", texts.len(), body.escape_ascii()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn an_array_gives_its_elements() {
    let body = b" \r\n[ {\"a\":[1,{\"b\":\"],}\\\"[\"}]} ,\t[],\"x\\\\\", -1.5e3,true\n,false,null,{ } ]\n ";
    let texts =
        [&b"{\"a\":[1,{\"b\":\"],}\\\"[\"}]}"[..], b"[]", b"\"x\\\\\"", b"-1.5e3", b"true", b"false", b"null", b"{ }"];
    assert_eq!(pieces(body, Form::Array), Ok(texts.to_vec()));
    assert_eq!(pieces(b"[0]", Form::Array), Ok(vec![&b"0"[..]]));
}

#[test]
fn lines_give_what_is_not_blank() {
    let body = b"\n {\"a\":1}\t\r\n\r\n \t\n{\"b\"\n\"c\"}\r\nnot json\n{}";
    let texts = [&b"{\"a\":1}"[..], b"{\"b\"", b"\"c\"}", b"not json", b"{}"];
    assert_eq!(pieces(body, Form::Lines), Ok(texts.to_vec()));
    assert_eq!(pieces(b"{}\n", Form::Lines), Ok(vec![&b"{}"[..]]));
    // A carriage return alone ends no line, and other white space is no white space of JSON.
    assert_eq!(pieces(b"{}\r{}\n\x0c\n", Form::Lines), Ok(vec![&b"{}\r{}"[..], b"\x0c"]));
}

#[test]
fn an_array_that_is_not_json_is_refused_as_an_event_would_be() {
    let bodies = [
        &b""[..],
        b" \n ",
        b"\xef\xbb\xbf[]",
        b"[",
        b"[1",
        b"[1,",
        b"[1,]",
        b"[,1]",
        b"[1 2]",
        b"[1}",
        b"[{]",
        b"[{\"a\"]",
        b"[{\"a\":}]",
        b"[{\"a\":1,}]",
        b"[{\"a\":1]}",
        b"[{a:1}]",
        b"[1]]",
        b"[1],[2]",
        b"[1]\n{}",
        b"[01]",
        b"[1.]",
        b"[\"\x01\"]",
        b"[\"\xff\"]",
        b"[\"\\x\"]",
        b"[\"\\ud800\"]",
        b"[\xc3\xa9]",
        b"[tru]",
        b"]",
        b"[\n\n  {\"\xc3\xa9\": 1},\n {\"\xc3\xa9\": x}]",
    ];
    for body in bodies {
        let alone = Tape::new().parse(body, &Limits::default()).expect_err("no event");
        assert_eq!(pieces(body, Form::Array), Err(Error::Syntax(alone)), "{}", body.escape_ascii());
    }
    for body in [&b"{\"a\":[1,2]}"[..], b"{\"a\":1},{}", b"1", b"\"[]\""] {
        assert_eq!(refused(body, Form::Array), "unexpected character at line 1, column 1", "{}", body.escape_ascii());
    }
    let last = "unexpected character at line 4, column 8";
    assert_eq!(refused(bodies[bodies.len() - 1], Form::Array), last);
}

#[test]
fn without_an_event_it_is_no_batch() {
    assert_eq!(refused(b" [ ] ", Form::Array), "a batch without an event");
    for body in [&b""[..], b"\n", b" \r\n\t\n"] {
        assert_eq!(refused(body, Form::Lines), "a batch without an event");
    }
}

#[test]
fn the_number_of_events_is_bounded() {
    for (body, form) in [(&b"[{},[1,2,3],{\"a\":[1,2,3]}]"[..], Form::Array), (b"{}\n\n[1]\n \n2\n", Form::Lines)] {
        assert_eq!(few_pieces(body, form, 3).map(|texts| texts.len()), Ok(3));
        assert_eq!(few_pieces(body, form, 2), Err(Error::TooMany { max: 2 }));
    }
    // What follows is not read, and a comma begins no event.
    assert_eq!(few_pieces(b"[1,2,\x01", Form::Array, 1), Err(Error::TooMany { max: 1 }));
    assert!(matches!(few_pieces(b"[1,]", Form::Array, 1), Err(Error::Syntax(_))));
    assert_eq!(Error::TooMany { max: 1000 }.to_string(), "more than 1000 events in a batch");
}

#[test]
fn an_error_in_a_line_is_placed_in_the_body() {
    let body = "{\"a\":1}\r\n\n  {\"é\": x}\n{\"b\":{}}\n\u{feff}{}\n\t\t{\"c\":".as_bytes();
    let mut split = Split::new(Form::Lines, 10);
    let mut tape = Tape::new();
    let limits = Limits { max_depth: 1, ..Limits::default() };
    let mut verdicts = Vec::new();
    while split.next(body).expect("a batch").is_some() {
        let piece = split.piece(body, None).expect("a line");
        let error = tape.parse(piece.text, &limits).err();
        verdicts.push(error.map(|error| piece.error_in_body(error).to_string()));
    }
    let verdicts: Vec<_> = verdicts.iter().map(|verdict| verdict.as_deref()).collect();
    assert_eq!(
        verdicts,
        [
            None,
            Some("unexpected character at line 3, column 9"),
            Some("nested deeper than 1 at \"/b\""),
            Some("byte order mark at line 5, column 1"),
            Some("unexpected end at line 6, column 8"),
        ]
    );
    // As the error counts in the whole body, were it one text.
    let (before, text) = (b"\n\n ", b"{\"a\" 1}");
    let whole = [&before[..], text].concat();
    let mut split = Split::new(Form::Lines, 1);
    assert_eq!(split.next(&whole), Ok(Some(&text[..])));
    let piece = split.piece(&whole, None).expect("a line");
    let error = tape.parse(piece.text, &limits).expect_err("no colon");
    assert_eq!(Some(piece.error_in_body(error)), tape.parse(&whole, &limits).err());
}

#[test]
fn an_element_that_is_too_deep_is_its_own_fault() {
    let body = format!("[{{\"a\":1}},{}{},{{}}]", "[".repeat(1000), "]".repeat(1000));
    let texts = pieces(body.as_bytes(), Form::Array).expect("a batch");
    let mut tape = Tape::new();
    let limits = Limits::default();
    assert_eq!(texts.len(), 3);
    assert!(tape.parse(texts[0], &limits).is_ok() && tape.parse(texts[2], &limits).is_ok());
    let error = tape.parse(texts[1], &limits).err();
    assert!(matches!(error, Some(event::Error::Rule { rule: Rule::TooDeep { max: 64 }, .. })), "{error:?}");
}

#[test]
fn hostile_nesting_costs_bounded_time_and_one_bit_a_bracket() {
    let deep = 1_000_000;
    let started = Instant::now();
    let open = "[".repeat(deep);
    assert_eq!(refused(open.as_bytes(), Form::Array), "unexpected end at line 1, column 1000001");
    let objects = "[".to_owned() + &"{\"\":".repeat(deep);
    assert!(refused(objects.as_bytes(), Form::Array).starts_with("unexpected end"));
    let closed = open.clone() + &"]".repeat(deep);
    assert_eq!(pieces(closed.as_bytes(), Form::Array).map(|texts| texts[0].len()), Ok(2 * deep - 2));
    let commas = "[".to_owned() + &"0,".repeat(deep) + "0]";
    assert_eq!(pieces(commas.as_bytes(), Form::Array).map(|texts| texts.len()), Ok(deep + 1));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    let mut nesting = Nesting::default();
    for _ in 0..deep {
        nesting.enter(true);
    }
    assert!(nesting.words.capacity() * 64 <= 2 * deep.next_power_of_two());
}

#[test]
fn brackets_are_remembered_apart() {
    let mut nesting = Nesting::default();
    let kinds: Vec<bool> = (0..300_u32).map(|n| n.wrapping_mul(2_654_435_761) >> 31 == 1).collect();
    for _ in 0..2 {
        for &kind in &kinds {
            nesting.enter(kind);
            assert_eq!(nesting.in_object(), Some(kind));
            nesting.enter(!kind);
            nesting.leave();
        }
        for &kind in kinds.iter().rev() {
            assert_eq!(nesting.in_object(), Some(kind));
            nesting.leave();
        }
        assert_eq!(nesting.in_object(), None);
    }
}

#[test]
fn a_split_and_another_body_give_nothing_wrong() {
    for (body, form) in [(&b"[1,[2,3],{\"a\":4}]"[..], Form::Array), (b"1\n2\n3\n", Form::Lines)] {
        for other in [&b""[..], b"]", b"                        ", b"[[[[[[[[", b"\n\n\n\n\n\n", body] {
            for length in [None, Some(0), Some(3), Some(100)] {
                let mut split = Split::new(form, 10);
                split.next(body).expect("a batch").expect("an event");
                while split.piece(other, length).is_ok() && matches!(split.next(other), Ok(Some(_))) {}
                assert!(split.index <= 10, "{}", other.escape_ascii());
            }
        }
    }
}

/// JSON in every spelling, without a line feed.
fn json() -> impl Strategy<Value = String> {
    let space = || prop::sample::select(vec!["", "", "", " ", "\t", " \r "]);
    let name = r#""([a-z\[\]{},:é😀]|\\"|\\\\|\\u00[0-7][0-9a-f]|\\ud83d\\ude00){0,6}""#;
    let number = "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,3})?([eE][+-]?[0-9]{1,2})?";
    let leaf = prop_oneof![name, number, Just("true".to_owned()), Just("false".to_owned()), Just("null".to_owned())];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let spaced = (space(), inner, space()).prop_map(|(before, value, after)| format!("{before}{value}{after}"));
        let member = (space(), name, space(), spaced.clone());
        let member = member.prop_map(|(before, name, after, value)| format!("{before}{name}{after}:{value}"));
        prop_oneof![
            prop::collection::vec(spaced, 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            prop::collection::vec(member, 0..4).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

fn padded(text: &str, space: &str) -> String {
    format!("{space}{text}{space}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rendered_batch_gives_exactly_its_events(
        events in prop::collection::vec(json(), 1..8),
        space in prop::sample::select(vec!["", " ", "\t \r", "\r"]),
        feed in any::<bool>(),
    ) {
        let texts: Vec<_> = events.iter().map(|text| text.as_bytes()).collect();
        let elements: Vec<_> = events.iter().map(|text| padded(text, space)).collect();
        let array = padded(&format!("[{}]", elements.join(if feed { ",\n" } else { "," })), space);
        prop_assert_eq!(pieces(array.as_bytes(), Form::Array), Ok(texts.clone()));

        let blank = if feed { "\n\r\n \n" } else { "\n" };
        let lines = elements.join(blank) + if feed { "\n" } else { "" };
        prop_assert_eq!(pieces(lines.as_bytes(), Form::Lines), Ok(texts));
    }

    #[test]
    fn arrays_are_taken_and_refused_as_serde_json_does(
        events in prop::collection::vec(json(), 0..4),
        edits in prop::collection::vec((any::<Index>(), edit()), 0..3),
    ) {
        let mut body = format!("[{}]", events.join(",")).into_bytes();
        for (at, edit) in edits {
            let at = at.index(body.len() + 1);
            let end = (at + edit.0).min(body.len());
            body.splice(at..end, edit.1);
        }
        let theirs = serde_json::from_slice::<Json>(&body);
        match (pieces(&body, Form::Array), theirs) {
            (Ok(texts), Ok(Json::Array(values))) => {
                let read: Vec<Json> = texts.iter().map(|text| serde_json::from_slice(text).expect("JSON")).collect();
                prop_assert_eq!(read, values);
            }
            (Err(Error::Empty), Ok(Json::Array(values))) => prop_assert!(values.is_empty()),
            (Err(Error::Syntax(_)), _) if !body.trim_ascii().starts_with(b"[") => {}
            (Err(Error::Syntax(ours)), Err(_)) => {
                // And as the same text is refused as an event, nesting apart.
                let limits = Limits { max_depth: u32::MAX, max_members: u32::MAX, ..Limits::default() };
                prop_assert_eq!(Tape::new().parse(&body, &limits).err(), Some(ours));
            }
            // An exponent beyond f64 is JSON.
            (_, Err(error)) if error.to_string().contains("number out of range") => {}
            (ours, theirs) => {
                let body = String::from_utf8_lossy(&body).into_owned();
                prop_assert!(false, "{:?}; serde_json: {:?}; {}", ours, theirs, body);
            }
        }
    }

    /// A batch of good and bad events is as good as each of them alone.
    #[test]
    fn every_event_gets_the_verdict_that_it_gets_alone(
        events in prop::collection::vec(prop_oneof![json().prop_map(|value| format!("{{\"it\":{value}}}")), json()], 1..6),
        cut in any::<Index>(),
    ) {
        let limits = Limits { max_depth: 3, max_members: 3, ..Limits::default() };
        let mut lines = events;
        let broken = cut.index(lines.len());
        lines[broken].pop();
        lines.retain(|line| !line.is_empty());
        lines.push("{}".to_owned());
        let body = lines.join("\n");
        let texts = pieces(body.as_bytes(), Form::Lines).expect("a batch");
        let mut tape = Tape::new();
        for (line, text) in lines.iter().zip(texts) {
            let alone = tape.parse(line.trim().as_bytes(), &limits).map(|event| format!("{event:?}"));
            let ours = tape.parse(text, &limits).map(|event| format!("{event:?}"));
            prop_assert_eq!(ours, alone);
        }
    }
}

/// How many bytes to replace, and by what.
fn edit() -> impl Strategy<Value = (usize, Vec<u8>)> {
    let text = prop_oneof![
        prop::sample::select(b"[]{},:\"\\ \n019.eE-tn\x00\xff".to_vec()).prop_map(|byte| vec![byte]),
        Just(Vec::new()),
        Just(b"\"\\ud800\"".to_vec()),
        Just(b"1e999".to_vec()),
    ];
    (0_usize..3, text)
}
