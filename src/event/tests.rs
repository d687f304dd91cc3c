use std::borrow::Cow;

use super::error::Fault;
use super::tape::addressable;
use super::*;

mod agreement;
mod hostile;

const SYNTAX: &[(&str, Problem, u32, u32)] = &[
    ("", Problem::Empty, 1, 1),
    (" \n\t", Problem::Empty, 2, 2),
    ("\u{feff}{}", Problem::ByteOrderMark, 1, 1),
    ("\u{feff}", Problem::ByteOrderMark, 1, 1),
    // Structure.
    ("{", Problem::UnexpectedEnd, 1, 2),
    ("}", Problem::UnexpectedCharacter, 1, 1),
    ("]", Problem::UnexpectedCharacter, 1, 1),
    (",", Problem::UnexpectedCharacter, 1, 1),
    ("{]", Problem::UnexpectedCharacter, 1, 2),
    ("[}", Problem::UnexpectedCharacter, 1, 2),
    ("{,}", Problem::UnexpectedCharacter, 1, 2),
    ("{1:2}", Problem::UnexpectedCharacter, 1, 2),
    ("{a:2}", Problem::UnexpectedCharacter, 1, 2),
    ("{'a':2}", Problem::UnexpectedCharacter, 1, 2),
    (r#"{"a"}"#, Problem::UnexpectedCharacter, 1, 5),
    (r#"{"a",}"#, Problem::UnexpectedCharacter, 1, 5),
    (r#"{"a":}"#, Problem::UnexpectedCharacter, 1, 6),
    (r#"{"a"::1}"#, Problem::UnexpectedCharacter, 1, 6),
    (r#"{"a":1,}"#, Problem::UnexpectedCharacter, 1, 8),
    (r#"{"a":1,,"b":2}"#, Problem::UnexpectedCharacter, 1, 8),
    (r#"{"a":1 "b":2}"#, Problem::UnexpectedCharacter, 1, 8),
    (r#"{"a":1:2}"#, Problem::UnexpectedCharacter, 1, 7),
    (r#"{"a":1]"#, Problem::UnexpectedCharacter, 1, 7),
    (r#"{"a":[1}"#, Problem::UnexpectedCharacter, 1, 8),
    (r#"{"a":[1,]}"#, Problem::UnexpectedCharacter, 1, 9),
    (r#"{"a":[,1]}"#, Problem::UnexpectedCharacter, 1, 7),
    (r#"{"a":[1 2]}"#, Problem::UnexpectedCharacter, 1, 9),
    (r#"{"a":[1:2]}"#, Problem::UnexpectedCharacter, 1, 8),
    (r#"{"a":1} x"#, Problem::TrailingData, 1, 9),
    (r#"{"a":1}{}"#, Problem::TrailingData, 1, 8),
    (r#"{"a":1},"#, Problem::TrailingData, 1, 8),
    ("{}}", Problem::TrailingData, 1, 3),
    ("{}\0", Problem::TrailingData, 1, 3),
    ("1 2", Problem::TrailingData, 1, 3),
    ("{/**/}", Problem::UnexpectedCharacter, 1, 2),
    ("\u{b}{}", Problem::UnexpectedCharacter, 1, 1),
    ("\u{a0}{}", Problem::UnexpectedCharacter, 1, 1),
    ("{\u{2028}}", Problem::UnexpectedCharacter, 1, 2),
    // Literals.
    (r#"{"a":tru}"#, Problem::UnexpectedCharacter, 1, 9),
    (r#"{"a":True}"#, Problem::UnexpectedCharacter, 1, 6),
    (r#"{"a":falsy}"#, Problem::UnexpectedCharacter, 1, 10),
    (r#"{"a":nul"#, Problem::UnexpectedEnd, 1, 9),
    (r#"{"a":nulll}"#, Problem::UnexpectedCharacter, 1, 10),
    (r#"{"a":NaN}"#, Problem::UnexpectedCharacter, 1, 6),
    (r#"{"a":undefined}"#, Problem::UnexpectedCharacter, 1, 6),
    // Numbers.
    (r#"{"a":01}"#, Problem::InvalidNumber, 1, 7),
    (r#"{"a":-01}"#, Problem::InvalidNumber, 1, 8),
    (r#"{"a":00}"#, Problem::InvalidNumber, 1, 7),
    (r#"{"a":-}"#, Problem::InvalidNumber, 1, 7),
    (r#"{"a":--1}"#, Problem::InvalidNumber, 1, 7),
    (r#"{"a":-Infinity}"#, Problem::InvalidNumber, 1, 7),
    (r#"{"a":+1}"#, Problem::UnexpectedCharacter, 1, 6),
    (r#"{"a":.5}"#, Problem::UnexpectedCharacter, 1, 6),
    (r#"{"a":1.}"#, Problem::InvalidNumber, 1, 8),
    (r#"{"a":1.e3}"#, Problem::InvalidNumber, 1, 8),
    (r#"{"a":1e}"#, Problem::InvalidNumber, 1, 8),
    (r#"{"a":1e+}"#, Problem::InvalidNumber, 1, 9),
    (r#"{"a":1e+-1}"#, Problem::InvalidNumber, 1, 9),
    (r#"{"a":1e5.2}"#, Problem::UnexpectedCharacter, 1, 9),
    (r#"{"a":1.2.3}"#, Problem::UnexpectedCharacter, 1, 9),
    (r#"{"a":0x10}"#, Problem::UnexpectedCharacter, 1, 7),
    (r#"{"a":1_000}"#, Problem::UnexpectedCharacter, 1, 7),
    ("-", Problem::UnexpectedEnd, 1, 2),
    ("1.", Problem::UnexpectedEnd, 1, 3),
    ("1e", Problem::UnexpectedEnd, 1, 3),
    // Strings.
    (r#"{"a":"b"#, Problem::UnexpectedEnd, 1, 8),
    (r#"{"a":"b\"#, Problem::UnexpectedEnd, 1, 9),
    (r#"{"a":"b\""#, Problem::UnexpectedEnd, 1, 10),
    ("{\"a\":\"b\tc\"}", Problem::ControlCharacter, 1, 8),
    ("{\"a\":\"b\nc\"}", Problem::ControlCharacter, 1, 8),
    ("{\"a\0\":1}", Problem::ControlCharacter, 1, 4),
    ("{\"a\":\"long enough to be read in words\u{1f}\"}", Problem::ControlCharacter, 1, 38),
    (r#"{"a":"\x"}"#, Problem::InvalidEscape, 1, 7),
    (r#"{"a":"\'"}"#, Problem::InvalidEscape, 1, 7),
    (r#"{"a":"\U0041"}"#, Problem::InvalidEscape, 1, 7),
    ("{\"a\":\"\\\n\"}", Problem::InvalidEscape, 1, 7),
    (r#"{"\a":1}"#, Problem::InvalidEscape, 1, 3),
    (r#"{"a":"\u12"}"#, Problem::InvalidEscape, 1, 7),
    (r#"{"a":"\u12g4"}"#, Problem::InvalidEscape, 1, 7),
    (r#"{"a":"\u+123"}"#, Problem::InvalidEscape, 1, 7),
    (r#"{"a":"\u 123"}"#, Problem::InvalidEscape, 1, 7),
    (r#"{"a":"x\u00"#, Problem::UnexpectedEnd, 1, 12),
    // Surrogates.
    (r#"{"a":"\ud83d"}"#, Problem::LoneSurrogate, 1, 7),
    (r#"{"a":"x\ud83dx"}"#, Problem::LoneSurrogate, 1, 8),
    (r#"{"a":"\ud83d\n"}"#, Problem::LoneSurrogate, 1, 7),
    (r#"{"a":"\ud83d\u0041"}"#, Problem::LoneSurrogate, 1, 7),
    (r#"{"a":"\ud83d\ud83d"}"#, Problem::LoneSurrogate, 1, 7),
    (r#"{"a":"\ud83d\ue000"}"#, Problem::LoneSurrogate, 1, 7),
    (r#"{"a":"\ud83d\udbff"}"#, Problem::LoneSurrogate, 1, 7),
    (r#"{"a":"\ude00"}"#, Problem::LoneSurrogate, 1, 7),
    (r#"{"a":"\uDFFF\uD800"}"#, Problem::LoneSurrogate, 1, 7),
    (r#"{"a":"\ud83d\ude0"}"#, Problem::InvalidEscape, 1, 13),
    (r#"{"a":"\ud83d\"#, Problem::UnexpectedEnd, 1, 14),
    // Places: lines end with a line feed, columns count characters.
    ("{\n  \"a\": 1,\n  \"b\": x\n}", Problem::UnexpectedCharacter, 3, 8),
    ("{\r\n\"a\" 1}", Problem::UnexpectedCharacter, 2, 5),
    ("{\"é€😀\": x}", Problem::UnexpectedCharacter, 1, 9),
    ("{\"é\":1,\n\"€\":\"😀\",x}", Problem::UnexpectedCharacter, 2, 9),
    ("\n\n\n", Problem::Empty, 4, 1),
];

#[test]
fn what_is_not_json_is_refused_with_its_place() {
    let mut tape = Tape::new();
    for &(text, problem, line, column) in SYNTAX {
        let error = tape.parse(text.as_bytes(), &Limits::default()).err();
        assert_eq!(error, Some(Error::Syntax { line, column, problem }), "{text}");
    }
}

#[test]
fn what_is_not_utf8_is_refused_with_its_place() {
    let cases: &[(&[u8], u32, Problem)] = &[
        (b"{\"a\":\"\x80\"}", 7, Problem::InvalidUtf8),
        (b"{\"a\":\"\xff\"}", 7, Problem::InvalidUtf8),
        (b"{\"a\xc3\":1}", 4, Problem::InvalidUtf8),
        // Overlong, surrogate, above U+10FFFF, cut short.
        (b"{\"a\":\"x\xc0\xaf\"}", 8, Problem::InvalidUtf8),
        (b"{\"a\":\"x\xe0\x80\xaf\"}", 8, Problem::InvalidUtf8),
        (b"{\"a\":\"x\xed\xa0\x80\"}", 8, Problem::InvalidUtf8),
        (b"{\"a\":\"x\xf4\x90\x80\x80\"}", 8, Problem::InvalidUtf8),
        (b"{\"a\":\"x\xe2\x82\"}", 8, Problem::InvalidUtf8),
        (b"{\"a\":\"\xc3\xa9 and then sixteen or more bytes \xc3\"}", 40, Problem::InvalidUtf8),
        (b"{\"a\":\"eight by\x80tes and a few more of them\"}", 15, Problem::InvalidUtf8),
        // The first of two faults in one string.
        (b"{\"a\":\"\xff\x01\"}", 7, Problem::InvalidUtf8),
        (b"{\"a\":\"\xff\\x\"}", 7, Problem::InvalidUtf8),
        (b"{\"a\":\"\x01\xff\"}", 7, Problem::ControlCharacter),
        (b"{\"a\":\"\xff", 7, Problem::InvalidUtf8),
        (b"{\"a\":\"\xc3\x01\"}", 7, Problem::InvalidUtf8),
        // Broken off in a character, or within one that cannot become right.
        (b"{\"a\":\"\xc3", 8, Problem::UnexpectedEnd),
        (b"{\"a\":\"\xe2\x28", 7, Problem::InvalidUtf8),
        // Outside of strings, and other encodings.
        (b"\xff{}", 1, Problem::InvalidUtf8),
        (b"{\xc3}", 2, Problem::InvalidUtf8),
        (b"\xff\xfe{\0}\0", 1, Problem::InvalidUtf8),
        (b"\0{\0}", 1, Problem::UnexpectedCharacter),
    ];
    let mut tape = Tape::new();
    for &(text, column, problem) in cases {
        let error = tape.parse(text, &Limits::default()).err();
        let expected = Error::Syntax { line: 1, column, problem };
        assert_eq!(error, Some(expected), "{}", text.escape_ascii());
    }
}

#[test]
fn what_the_grammar_allows_is_taken() {
    let texts = [
        "{}",
        " \t\r\n{ \t\r\n} \t\r\n",
        r#"{"":""}"#,
        r#"{"a":[]}"#,
        r#"{"a":[[],{},[ ],{ }]}"#,
        "{ \"a\" : [ 1 , true , false , null , \"\" ] , \"b\" : { } }",
        r#"{"a":0,"b":-0,"c":-0.0,"d":10,"e":1e5,"f":1E+05,"g":1.25e-07,"h":0e0}"#,
        r#"{"a":1e999,"b":-1e-999,"c":123456789012345678901234567890123456789012345678901234567890}"#,
        r#"{"a":"\"\\\/\b\f\n\r\t\u0000\u001f\uABCD\uabcd\ud83d\ude00\uDBFF\uDFFF"}"#,
        "{\"a\":\"\u{7f}\u{80}\u{7ff}\u{800}\u{fffd}\u{feff}\u{ffff}\u{10000}\u{10ffff}\"}",
        "{\"\u{2028}\":\"'/*not a comment*/\"}",
    ];
    let mut tape = Tape::new();
    for text in texts {
        let event = tape.parse(text.as_bytes(), &Limits::default());
        assert_eq!(event.map(|event| event.text()), Ok(text.trim().as_bytes()), "{text}");
    }
}

/// A bit of everything; no value at the top but the root, which only its last byte completes.
const RICH: &str = "{ \"page\": \"/caf\\u00e9?q=\\\"1\\\"\",\n\t\"é\": [-1.50e+10, 0, true, false, null, [], {}],
 \"user\": {\"id\": \"\\ud83d\\ude00😀\", \"a/b~c\": {\"\": [[1], {\"x\": 2}]}}, \"plain\": \"a text of more than eight bytes\"}";

#[test]
fn every_prefix_of_an_event_is_refused_at_its_end() {
    let mut tape = Tape::new();
    assert!(tape.parse(RICH.as_bytes(), &Limits::default()).is_ok());
    for (length, _) in RICH.bytes().enumerate().skip(1) {
        let prefix = &RICH.as_bytes()[..length];
        let complete = String::from_utf8_lossy(prefix);
        let line = complete.matches('\n').count() as u32 + 1;
        let column = complete.split('\n').next_back().map_or(0, |last| last.chars().count()) as u32 + 1;
        let problem = Problem::UnexpectedEnd;
        let error = tape.parse(prefix, &Limits::default()).err();
        assert_eq!(error, Some(Error::Syntax { line, column, problem }), "{complete}");
    }
}

fn rule(text: &str, limits: &Limits) -> Option<(String, Rule)> {
    match Tape::new().parse(text.as_bytes(), limits) {
        Err(Error::Rule { pointer, rule }) => Some((pointer, rule)),
        Err(error) => panic!("{text}: {error}"),
        Ok(_) => None,
    }
}

fn broken(pointer: &str, rule: Rule) -> Option<(String, Rule)> {
    Some((pointer.to_owned(), rule))
}

#[test]
fn only_an_object_is_an_event() {
    let cases = [
        ("[]", Kind::Array),
        (r#" [{"a":1},{"a":1}] "#, Kind::Array),
        (r#"[{"a":1,"a":2}]"#, Kind::Array),
        (r#""text""#, Kind::String),
        ("12", Kind::Number),
        ("true", Kind::True),
        ("false", Kind::False),
        ("null", Kind::Null),
    ];
    for (text, found) in cases {
        assert_eq!(rule(text, &Limits::default()), broken("", Rule::NotAnObject { found }), "{text}");
    }
    let error = Tape::new().parse(b"[1,]", &Limits::default()).err();
    let problem = Problem::UnexpectedCharacter;
    assert_eq!(error, Some(Error::Syntax { line: 1, column: 4, problem }), "bad JSON comes first");
}

#[test]
fn depth_is_bounded() {
    let limits = |max_depth| Limits { max_depth, ..Limits::default() };
    assert_eq!(rule("{}", &limits(1)), None);
    assert_eq!(rule("{}", &limits(0)), broken("", Rule::TooDeep { max: 0 }));
    assert_eq!(rule(r#"{"a":1,"b":{}}"#, &limits(1)), broken("/b", Rule::TooDeep { max: 1 }));
    let text = r#"{"a":[{},[]],"b":{"c":[]}}"#;
    assert_eq!(rule(text, &limits(3)), None);
    assert_eq!(rule(text, &limits(2)), broken("/a/0", Rule::TooDeep { max: 2 }));
    let siblings = r#"{"a":[[],[1],{},[0,{"x":3},[[]]]]}"#;
    assert_eq!(rule(siblings, &limits(4)), broken("/a/3/2/0", Rule::TooDeep { max: 4 }));
    assert_eq!(rule("[[1],[[]]]", &limits(2)), broken("/1/0", Rule::TooDeep { max: 2 }));
    // What follows is not read.
    assert_eq!(rule("{\"a\":{\u{1}", &limits(1)), broken("/a", Rule::TooDeep { max: 1 }));
}

#[test]
fn the_members_of_each_object_are_bounded_and_elements_are_not() {
    let limits = Limits { max_members: 2, ..Limits::default() };
    let too_many = Rule::TooManyMembers { max: 2 };
    assert_eq!(rule(r#"{"a":{"b":1,"c":2},"d":[1,2,3,{"b":1,"c":2}]}"#, &limits), None);
    assert_eq!(rule(r#"{"a":1,"b":2,"c":3}"#, &limits), broken("", too_many));
    assert_eq!(rule(r#"{"a":1,"b":[0,{"x":1,"y":{},"z":3}]}"#, &limits), broken("/b/1", too_many));
    // Members before and behind a nested object count together.
    assert_eq!(rule(r#"{"a":{"x":1},"b":[],"c":1}"#, &limits), broken("", too_many));
    assert_eq!(rule("{\"a\":1,\"b\":2,\"\u{1}", &limits), broken("", too_many));
    let none = Limits { max_members: 0, ..Limits::default() };
    assert_eq!(rule("{}", &none), None);
    assert_eq!(rule(r#"{"a":1}"#, &none), broken("", Rule::TooManyMembers { max: 0 }));
    let repeated = Limits { duplicate_names: DuplicateNames::Allow, ..limits };
    assert_eq!(rule(r#"{"a":1,"a":2,"a":3}"#, &repeated), broken("", too_many));
}

#[test]
fn duplicate_names_are_found_unescaped() {
    let cases = [
        (r#"{"a":1,"b":2}"#, None),
        (r#"{"a":1,"A":2,"á":3,"":4," ":5,"a ":6}"#, None),
        (r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}"#, None),
        (r#"{"a":1,"a":1}"#, Some("/a")),
        (r#"{"":1,"":1}"#, Some("/")),
        (r#"{"a":1,"b":{},"a":[]}"#, Some("/a")),
        (r#"{"a":1,"\u0061":2}"#, Some("/a")),
        (r#"{"\u0061":1,"a":2}"#, Some("/a")),
        (r#"{"\u0061":1,"\u0062":2}"#, None),
        (r#"{"a\/b":1,"a/b":2}"#, Some("/a~1b")),
        (r#"{"~":1,"\u007e":2}"#, Some("/~0")),
        (r#"{"😀":1,"\ud83d\ude00":2}"#, Some("/😀")),
        (r#"{"\\u0061":1,"a":2}"#, None),
        (r#"{"x":{"deep":[0,{"k":1,"l":2,"k":3}]}}"#, Some("/x/deep/1/k")),
        // The second name is named; of two duplicates in an object, the first.
        (r#"{"b":1,"a":1,"a":2,"b":2}"#, Some("/a")),
        (r#"{"\u0062":1,"a":1,"b":2,"a":2}"#, Some("/b")),
        // Equal at both ends and in length, but not in the middle.
        (r#"{"12345678a12345678":1,"12345678b12345678":2}"#, None),
        (r#"{"12345678a12345678":1,"12345678b12345678":2,"12345678a12345678":3}"#, Some("/12345678a12345678")),
        (r#"{"12345678":1,"123456789":2,"1234567":3}"#, None),
    ];
    let allow = Limits { duplicate_names: DuplicateNames::Allow, ..Limits::default() };
    for (text, pointer) in cases {
        let expected = pointer.and_then(|pointer| broken(pointer, Rule::DuplicateName));
        assert_eq!(rule(text, &Limits::default()), expected, "{text}");
        assert_eq!(rule(text, &allow), None, "{text}");
    }
    let error = Tape::new().parse(br#"{"a":1,"a":2,}"#, &Limits::default()).err();
    let problem = Problem::UnexpectedCharacter;
    assert_eq!(error, Some(Error::Syntax { line: 1, column: 14, problem }), "bad JSON comes first");
}

#[test]
fn pointers_stay_short() {
    let name = "é/".repeat(1000);
    let text = format!(r#"{{"{name}":1,"{name}":2}}"#);
    let cut = format!("/{}…", "é~1".repeat(21));
    assert_eq!(rule(&text, &Limits::default()), broken(&cut, Rule::DuplicateName));

    let exact = "n".repeat(64);
    let text = format!(r#"{{"{exact}":1,"{exact}":2}}"#);
    assert_eq!(rule(&text, &Limits::default()), broken(&format!("/{exact}"), Rule::DuplicateName));

    let escaped = "~".repeat(200);
    let text = format!(r#"{{"{escaped}":"#).repeat(50) + r#"{"last":1,"last":2}"# + &"}".repeat(50);
    let (pointer, _) = rule(&text, &Limits::default()).expect("a duplicate name");
    assert!(pointer.len() < 1000, "{}", pointer.len());
    assert!(pointer.starts_with(&format!("/{}…/", "~0".repeat(64))), "{pointer}");
    assert!(pointer.ends_with("…/…/last"), "{pointer}");
}

#[test]
fn errors_read_well() {
    let show =
        |text: &str, limits: &Limits| Tape::new().parse(text.as_bytes(), limits).err().map(|error| error.to_string());
    let limits = Limits { max_depth: 2, max_members: 2, ..Limits::default() };
    let cases = [
        ("{\"a\":\n 01}", "invalid number at line 2, column 3"),
        ("", "empty body at line 1, column 1"),
        ("{} {}", "trailing data after the event at line 1, column 4"),
        ("[]", "an event must be an object, not an array"),
        (r#"{"a":{"b":[]}}"#, "nested deeper than 2 at \"/a/b\""),
        (r#"{"a":{"x":1,"y":2,"z":3}}"#, "more than 2 members in an object at \"/a\""),
        (r#"{"a":1,"b":2,"c":3}"#, "more than 2 members in an object"),
        (r#"{"a\n\"":1,"a\n\"":2}"#, r#"duplicate name at "/a\n\"""#),
    ];
    for (text, message) in cases {
        assert_eq!(show(text, &limits).as_deref(), Some(message));
    }
}

#[test]
fn a_text_that_32_bits_cannot_address_is_refused() {
    assert_eq!(addressable(u32::MAX as usize), Ok(()));
    let rule = Rule::TooLarge { max: u32::MAX };
    assert_eq!(addressable(u32::MAX as usize + 1), Err(Fault::Rule { node: 0, rule }));
}

#[test]
fn the_tape_gives_every_value_as_it_was_sent() {
    let mut tape = Tape::new();
    let event = tape.parse(RICH.as_bytes(), &Limits::default()).expect("an event");
    assert_eq!(event.text(), RICH.as_bytes());
    assert_eq!(event.root().kind(), Kind::Object);
    assert_eq!(event.root().string(), None);
    assert_eq!(event.root().elements().count(), 0);

    let names: Vec<_> = event.root().members().map(|(name, _)| name.unescaped()).collect();
    assert_eq!(names, [&b"page"[..], "é".as_bytes(), b"user", b"plain"]);

    let page = event.member(b"page").expect("page");
    assert_eq!(page.text(), br#""/caf\u00e9?q=\"1\"""#);
    assert_eq!(page.string().as_deref(), Some("/café?q=\"1\"".as_bytes()));
    assert_eq!(page.members().count() + page.elements().count(), 0);

    let list = event.member("é".as_bytes()).expect("a list");
    assert_eq!(list.text(), b"[-1.50e+10, 0, true, false, null, [], {}]");
    assert_eq!(list.members().count(), 0);
    let elements: Vec<_> = list.elements().map(|element| (element.kind(), element.text())).collect();
    assert_eq!(
        elements,
        [
            (Kind::Number, &b"-1.50e+10"[..]),
            (Kind::Number, b"0"),
            (Kind::True, b"true"),
            (Kind::False, b"false"),
            (Kind::Null, b"null"),
            (Kind::Array, b"[]"),
            (Kind::Object, b"{}"),
        ]
    );

    let user = event.member(b"user").expect("user");
    assert_eq!(user.member(b"id").and_then(|id| id.string()).as_deref(), Some("😀😀".as_bytes()));
    let inner = user.member(b"a/b~c").and_then(|value| value.member(b"")).expect("a list");
    let second = inner.elements().nth(1).expect("two elements");
    assert_eq!(second.member(b"x").map(|x| x.text()), Some(&b"2"[..]));

    let plain = event.member(b"plain").and_then(|plain| plain.string());
    assert!(matches!(plain, Some(Cow::Borrowed(b"a text of more than eight bytes"))));
    assert!(event.member(b"absent").is_none());
}

#[test]
fn every_escape_becomes_its_character() {
    let cases = [
        (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r"\u0000\u001F\u007f\u0080\u07ff\u0800", "\0\u{1f}\u{7f}\u{80}\u{7ff}\u{800}"),
        (r"\ud7ff\ue000\ufeff\uFFFF", "\u{d7ff}\u{e000}\u{feff}\u{ffff}"),
        (r"\ud800\udc00\ud83d\ude00\ud840\udc00\uDBFF\uDFFF", "\u{10000}😀\u{20000}\u{10ffff}"),
        (r"a\u0062c\\u0064é\u00e9", "abc\\u0064éé"),
    ];
    let mut tape = Tape::new();
    for (escaped, plain) in cases {
        let text = format!(r#"{{"value":"{escaped}","{escaped}":0}}"#);
        let event = tape.parse(text.as_bytes(), &Limits::default()).expect("an event");
        let string = event.member(b"value").and_then(|value| value.string());
        assert_eq!(string.as_deref(), Some(plain.as_bytes()), "{escaped}");
        assert!(event.member(plain.as_bytes()).is_some(), "{escaped}");
    }
}

#[test]
fn a_member_is_found_by_its_exact_unescaped_name() {
    let mut tape = Tape::new();
    let text = r#"{"caf\u00e9":1,"CAF\u00c9":2,"Page":3,"page":4,"pa":5,"p\"q":6,"\ud83d\ude00":7}"#;
    let event = tape.parse(text.as_bytes(), &Limits::default()).expect("an event");
    let get = |name: &str| event.member(name.as_bytes()).map(|value| value.text());
    assert_eq!(get("café"), Some(&b"1"[..]));
    assert_eq!(get("CAFÉ"), Some(&b"2"[..]));
    assert_eq!(get("page"), Some(&b"4"[..]));
    assert_eq!(get("Page"), Some(&b"3"[..]));
    assert_eq!(get("p\"q"), Some(&b"6"[..]));
    assert_eq!(get("😀"), Some(&b"7"[..]));
    for absent in ["", "pag", "pages", "PAGE", "caf", "caf\\u00e9", "café "] {
        assert_eq!(get(absent), None, "{absent}");
    }
    let matching = |name: &str| {
        let members = event.root().members().filter(|(own, _)| own.is_ignoring_ascii_case(name.as_bytes()));
        members.map(|(_, value)| value.text()).collect::<Vec<_>>()
    };
    assert_eq!(matching("PAGE"), [&b"3"[..], b"4"]);
    assert_eq!(matching("Café"), [b"1"]);
    assert_eq!(matching("P\"Q"), [b"6"]);
    assert_eq!(matching("pages"), [b""; 0]);
    let raw: Vec<_> = event.root().members().map(|(name, _)| name.raw()).collect();
    assert_eq!(raw.first(), Some(&&br"caf\u00e9"[..]));
}

#[test]
fn of_allowed_duplicates_the_last_is_found_and_all_are_listed() {
    let mut tape = Tape::new();
    let limits = Limits { duplicate_names: DuplicateNames::Allow, ..Limits::default() };
    let event = tape.parse(br#"{"a":1,"b":2,"\u0061":[3]}"#, &limits).expect("an event");
    assert_eq!(event.member(b"a").map(|value| value.text()), Some(&b"[3]"[..]));
    assert_eq!(event.root().members().count(), 3);
    let shadowed: Vec<_> = event.root().members().map(|(name, _)| name.is_shadowed()).collect();
    assert_eq!(shadowed, [true, false, false]);
}

#[test]
fn a_tape_is_used_again_after_events_and_errors_alike() {
    let mut tape = Tape::new();
    let limits = Limits::default();
    let texts = [RICH, r#"{"a":1}"#, r#"{"a":[{"b":1"#, "[1,2]", r#"{"a":1,"a":2}"#, "{}", ""];
    let alone: Vec<_> =
        texts.iter().map(|text| Tape::new().parse(text.as_bytes(), &limits).map(|e| format!("{e:?}"))).collect();
    for _ in 0..3 {
        for (text, alone) in texts.iter().zip(&alone) {
            assert_eq!(&tape.parse(text.as_bytes(), &limits).map(|e| format!("{e:?}")), alone, "{text}");
        }
    }
    let capacity = tape.capacity();
    let escaped = r#"{"\u0061":1,"\u0062":2}"#;
    for _ in 0..1000 {
        for text in texts.iter().chain([&escaped]) {
            let _ = tape.parse(text.as_bytes(), &limits);
            assert_eq!(tape.capacity(), capacity, "{text}");
        }
    }
}

#[test]
fn the_example_of_the_module_page_holds() {
    let mut tape = Tape::new();
    let event = tape.parse(br#"{"page": "/caf\u00e9", "ms": 12.50}"#, &Limits::default()).expect("an event");
    assert_eq!(event.member(b"page").and_then(|page| page.string()).as_deref(), Some("/café".as_bytes()));
    assert_eq!(event.member(b"ms").map(|ms| ms.text()), Some(&b"12.50"[..]));
    let error = tape.parse(br#"{"page": 1, "page": 2}"#, &Limits::default()).err();
    assert_eq!(error.map(|error| error.to_string()).as_deref(), Some("duplicate name at \"/page\""));
}

#[test]
fn one_value_is_told_from_none_and_from_several() {
    let is = |text: &str| super::is_json(text.as_bytes(), &Limits::default());
    for text in ["1", " [1, {}] ", "\"a\"", "null", "{\"a\":1}", "-0.5e9"] {
        assert!(is(text), "{text}");
    }
    for text in ["", " ", "1,\"a\":2", "1}", "1} ", "{}}", "\"\\ud800\"", "{\"a\":1,\"a\":2}", "nul", "1 2", "1,"] {
        assert!(!is(text), "{text}");
    }
    assert!(!super::is_json(b"\"\xff\"", &Limits::default()));
}
