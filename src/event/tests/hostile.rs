//! What nobody sends by accident.

use super::*;

const KEPT_NODES: usize = 64 * 1024;

#[test]
fn open_brackets_end_at_the_bound() {
    let too_deep = Rule::TooDeep { max: 64 };
    let arrays = "[".repeat(100_000);
    assert_eq!(rule(&arrays, &Limits::default()), broken(&"/0".repeat(64), too_deep));
    let objects = r#"{"a":"#.repeat(100_000);
    assert_eq!(rule(&objects, &Limits::default()), broken(&"/a".repeat(64), too_deep));
    let mixed = r#"{"a":[1,"#.repeat(100_000);
    assert_eq!(rule(&mixed, &Limits::default()), broken(&"/a/1".repeat(32), too_deep));

    let mut tape = Tape::new();
    assert!(tape.parse(arrays.as_bytes(), &Limits::default()).is_err());
    assert!(tape.capacity() < 1000, "nothing behind the bound is read: {}", tape.capacity());
}

#[test]
fn depth_costs_no_stack() {
    let limits = Limits { max_depth: u32::MAX, ..Limits::default() };
    let text = r#"{"a":["#.repeat(500_000) + &"]}".repeat(500_000);
    let mut tape = Tape::new();
    let event = tape.parse(text.as_bytes(), &limits).expect("an event");
    let mut depth = 0;
    let mut value = Some(event.root());
    while let Some(inner) = value {
        depth += 1;
        value = inner.member(b"a").or_else(|| inner.elements().next());
    }
    assert_eq!(depth, 1_000_000);

    let bottom = Limits { max_depth: 999_999, ..limits };
    let (pointer, _) = rule(&text, &bottom).expect("too deep by one");
    assert!(pointer.len() < 1000 && pointer.ends_with("/…/a"), "{pointer}");
}

#[test]
fn nul_bytes_are_no_json() {
    let mut tape = Tape::new();
    let error = tape.parse(&[0; 100_000], &Limits::default()).err();
    let problem = Problem::UnexpectedCharacter;
    assert_eq!(error, Some(Error::Syntax { line: 1, column: 1, problem }));
}

#[test]
fn long_strings_and_numbers_are_read_whole() {
    let mut tape = Tape::new();
    let strings = [
        "x".repeat(5_000_000),
        "€".repeat(2_000_000),
        r"\ud83d\ude00".repeat(400_000),
        String::from(r#"\\\"ends in escapes\""#),
    ];
    for content in strings {
        let text = format!(r#"{{"a":"{content}"}}"#);
        let event = tape.parse(text.as_bytes(), &Limits::default()).expect("an event");
        let expected: String = serde_json::from_str(&format!("\"{content}\"")).expect("a string");
        let string = event.member(b"a").and_then(|a| a.string());
        assert!(string.as_deref() == Some(expected.as_bytes()));

        let name = format!(r#"{{"{content}":1,"b":2}}"#);
        let event = tape.parse(name.as_bytes(), &Limits::default()).expect("an event");
        assert_eq!(event.member(expected.as_bytes()).map(|value| value.text()), Some(&b"1"[..]));
    }
    for number in ["9".repeat(5_000_000), format!("-0.{}e-{}", "0".repeat(1_000_000), "1".repeat(1_000_000))] {
        let text = format!(r#"{{"a":{number}}}"#);
        let event = tape.parse(text.as_bytes(), &Limits::default()).expect("an event");
        assert!(event.member(b"a").map(|a| a.text()) == Some(number.as_bytes()));
    }
}

#[test]
fn every_byte_is_judged_at_every_offset_of_a_word() {
    let mut tape = Tape::new();
    for before in 0..18 {
        for byte in 0..=255_u8 {
            for after in [0, 1, 9, 20] {
                let mut text = b"{\"a\":\"".to_vec();
                text.extend(std::iter::repeat_n(b'x', before));
                text.push(byte);
                text.extend(std::iter::repeat_n(b'y', after));
                text.extend(b"\"}");
                let problem = match byte {
                    0..=0x1f => Some(Problem::ControlCharacter),
                    b'"' => Some(Problem::UnexpectedCharacter),
                    b'\\' if after > 0 => Some(Problem::InvalidEscape),
                    b'\\' => Some(Problem::UnexpectedEnd),
                    0x80.. => Some(Problem::InvalidUtf8),
                    _ => None,
                };
                let column = match byte {
                    b'\\' if after == 0 => text.len() + 1,
                    b'"' => before + 8,
                    _ => before + 7,
                } as u32;
                let expected = problem.map(|problem| Error::Syntax { line: 1, column, problem });
                let error = tape.parse(&text, &Limits::default()).err();
                assert_eq!(error, expected, "{}", text.escape_ascii());
            }
        }
    }
}

#[test]
fn members_are_counted_up_to_the_bound() {
    let members = |count: usize| {
        let members: Vec<_> = (0..count).map(|number| format!(r#""name{number}":{number}"#)).collect();
        format!("{{{}}}", members.join(","))
    };
    assert_eq!(rule(&members(1024), &Limits::default()), None);
    assert_eq!(rule(&members(10_000), &Limits::default()), broken("", Rule::TooManyMembers { max: 1024 }));
    let limits = Limits { max_members: 10_000, ..Limits::default() };
    assert_eq!(rule(&members(10_000), &limits), None);
    let elements = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(1_000_000));
    assert_eq!(rule(&elements, &Limits::default()), None);
}

/// An object with these names, in order.
fn object(names: impl IntoIterator<Item = String>) -> String {
    let members: Vec<_> = names.into_iter().map(|name| format!(r#""{name}":0"#)).collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn duplicates_are_found_in_objects_of_every_size() {
    let limits = Limits { max_members: 5000, ..Limits::default() };
    let kinds: [fn(usize) -> String; 5] = [
        |number| format!("{number}"),
        |number| format!("name{number}"),
        // The same length and the same sixteen outer bytes, so that all fingerprints are one.
        |number| format!("startstart{number:06}endofendof"),
        |number| format!(r"\u006eame{number}"),
        |number| format!("{}{number}", "long name ".repeat(number % 7)),
    ];
    for count in (2..80).chain([500, 1024, 1025, 3000]) {
        for kind in kinds {
            assert_eq!(rule(&object((0..count).map(kind)), &limits), None, "{count}");
            for (first, second) in
                [(0, count), (count - 1, count), (count / 2, count), (0, 1), (count / 3, count / 2 + 1)]
            {
                let mut names: Vec<_> = (0..count).map(kind).collect();
                names.insert(second, names[first].clone());
                let pointer = format!("/{}", names[first].replace(r"\u006e", "n"));
                let pointer = if pointer.len() > 65 { pointer[..65].to_owned() + "…" } else { pointer };
                assert_eq!(rule(&object(names), &limits), broken(&pointer, Rule::DuplicateName), "{count}");
            }
        }
    }
}

#[test]
fn of_several_duplicates_the_first_in_the_text_is_named() {
    for count in 2..200 {
        // An escape, so that all names are sorted, and many equal ones, which must stay in their order.
        let mut names = vec![r"\u0078".to_owned(), "y".to_owned(), "y".to_owned()];
        for number in 0..count {
            names.extend([format!("{}", number * 7919 % 1000), "x".to_owned()]);
        }
        let expected = broken("/y", Rule::DuplicateName);
        assert_eq!(rule(&object(names), &Limits::default()), expected, "{count}");
    }
}

#[test]
fn colliding_names_are_not_compared_pair_by_pair() {
    // Pairs would take 10^10 comparisons of 40 bytes.
    let limits = Limits { max_members: u32::MAX, ..Limits::default() };
    let names = (0..100_000).map(|number| format!("a name like others {number:06} behind and before"));
    assert_eq!(rule(&object(names), &limits), None);
    let escaped = (0..100_000).map(|number| format!(r"\u0061 name like others {number:06} behind and before"));
    assert_eq!(rule(&object(escaped), &limits), None);
    // Objects within objects are each walked once, whatever is below them.
    let nested = r#"{"one":1,"two":{"three":3},"four":"#.repeat(20_000) + "4" + &"}".repeat(20_000);
    let limits = Limits { max_depth: u32::MAX, ..limits };
    assert_eq!(rule(&nested, &limits), None);
}

#[test]
fn room_for_an_unusual_event_is_given_back() {
    let mut tape = Tape::new();
    let large = format!(r#"{{"a":[{}1]}}"#, "1,".repeat(200_000));
    assert!(tape.parse(large.as_bytes(), &Limits::default()).is_ok());
    assert!(tape.capacity() > 200_000);
    assert!(tape.parse(b"{}", &Limits::default()).is_ok());
    assert!(tape.capacity() <= KEPT_NODES);

    assert!(tape.parse(large.replace("]}", "]").as_bytes(), &Limits::default()).is_err());
    assert!(tape.capacity() <= KEPT_NODES, "at once after an error");

    assert!(tape.parse(large.as_bytes(), &Limits::default()).is_ok());
    tape.trim();
    assert!(tape.capacity() <= KEPT_NODES, "when asked to");

    let names = object((0..100_000).map(|number| format!(r"\u006eame{number}")));
    let limits = Limits { max_members: u32::MAX, ..Limits::default() };
    assert!(tape.parse(names.as_bytes(), &limits).is_ok());
    tape.trim();
    assert!(tape.capacity() <= KEPT_NODES, "names and their scratch space too");
}
