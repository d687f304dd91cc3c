//! Agreement with serde_json over documents that are nearly right: the same verdict, and the same content where both accept.
//! `METEORIT_CASES` sets how many documents are tried.

use std::cell::RefCell;
use std::collections::HashMap;
use std::env;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::Value as Json;

use super::*;

const CASES: u32 = 100_000;

/// Below the depth at which serde_json gives up, even with one more level around a document.
const MAX_DEPTH: u32 = 100;

#[test]
fn verdict_and_content_agree_with_serde_json() {
    let cases = env::var("METEORIT_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let seen = RefCell::new(Seen::default());
    let tape = RefCell::new(Tape::new());
    let result = runner.run(&document(), |text| {
        compare(&text, &mut tape.borrow_mut(), &mut seen.borrow_mut()).map_err(TestCaseError::fail)
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    println!("{seen:?}");
    if cases >= 10_000 {
        let per_thousand = |count: u32| u64::from(count) * 1000 / u64::from(cases);
        assert!(per_thousand(seen.accepted) > 100, "{seen:?}");
        assert!(per_thousand(seen.not_json) > 300, "{seen:?}");
        let rare = [seen.duplicates, seen.not_objects, seen.out_of_range, seen.too_deep];
        assert!(rare.into_iter().all(|count| per_thousand(count) >= 1), "{seen:?}");
    }
}

/// How many documents met which end, so that the comparison cannot become an empty one.
#[derive(Debug, Default)]
struct Seen {
    accepted: u32,
    duplicates: u32,
    out_of_range: u32,
    not_objects: u32,
    too_deep: u32,
    not_json: u32,
}

fn compare(text: &[u8], tape: &mut Tape, seen: &mut Seen) -> Result<(), String> {
    let limits = Limits { max_depth: MAX_DEPTH, max_members: u32::MAX, duplicate_names: DuplicateNames::Allow };
    let theirs = serde_json::from_slice::<Json>(text);
    let fail = |what: &str, theirs: &dyn std::fmt::Debug| {
        Err(format!("{what}; serde_json: {theirs:?}; {}", text.escape_ascii()))
    };
    match (tape.parse(text, &limits), theirs) {
        (Ok(event), theirs) => {
            seen.accepted += 1;
            seen.out_of_range += u32::from(theirs.is_err());
            let duplicates = same_content(event, theirs)?;
            if event.text() != text.trim_ascii() {
                return fail("the event's text is not the body's", &());
            }
            seen.duplicates += u32::from(duplicates);
            let strict = Limits { duplicate_names: DuplicateNames::Reject, ..limits.clone() };
            let verdict = tape.parse(text, &strict).map(|_| ());
            match verdict {
                Ok(()) if !duplicates => Ok(()),
                Err(Error::Rule { pointer, rule: Rule::DuplicateName }) if duplicates => {
                    let event = tape.parse(text, &limits).map_err(|error| error.to_string())?;
                    if names_a_duplicate(event, &pointer) {
                        Ok(())
                    } else {
                        fail("a pointer to something else", &pointer)
                    }
                }
                other => fail("duplicate names", &other),
            }
        }
        (Err(Error::Rule { rule: Rule::NotAnObject { found }, .. }), theirs) => {
            seen.not_objects += 1;
            if found == Kind::Object || theirs.as_ref().is_ok_and(|theirs| kind(theirs) != found) {
                return fail("of another kind", &theirs);
            }
            let wrapped = [b"{\"it\":", text, b"}"].concat();
            let theirs = serde_json::from_slice(&wrapped);
            let limits = Limits { max_depth: MAX_DEPTH + 1, ..limits };
            let event = tape.parse(&wrapped, &limits).map_err(|error| format!("refused as a member: {error}"))?;
            same_content(event, theirs).map(|_| ())
        }
        (Err(Error::Rule { rule: Rule::TooDeep { .. }, .. }), theirs) => {
            seen.too_deep += 1;
            if structure(text).depth > MAX_DEPTH { Ok(()) } else { fail("not too deep", &theirs) }
        }
        (Err(Error::Syntax { problem, .. }), Err(error)) => {
            seen.not_json += 1;
            let at_end = problem == Problem::UnexpectedEnd || problem == Problem::Empty;
            // serde_json looks for the end of a string, or four digits of an escape, before it judges their bytes.
            let end_first = matches!(problem, Problem::InvalidUtf8 | Problem::LoneSurrogate | Problem::InvalidEscape);
            let out_of_range = error.to_string().contains("number out of range");
            if at_end == error.is_eof() || error.is_eof() && end_first || out_of_range {
                Ok(())
            } else {
                fail(&format!("{problem}"), &error)
            }
        }
        (Err(ours), theirs) => fail(&format!("{ours}"), &theirs),
    }
}

/// Whether the event has a name twice; an error when its content differs from what serde_json read. A number that only serde_json
/// finds out of range counts as 0, for both.
fn same_content(event: Event<'_>, theirs: Result<Json, serde_json::Error>) -> Result<bool, String> {
    let mut rebuilt = Rebuilt::default();
    let ours = rebuilt.value(event.root());
    let shown = || String::from_utf8_lossy(event.text()).into_owned();
    let theirs = match theirs {
        Ok(theirs) => theirs,
        Err(error) => {
            if rebuilt.out_of_range.is_empty() {
                return Err(format!("accepted; serde_json: {error}; {}", shown()));
            }
            let origin = event.text().as_ptr() as usize;
            let mut text = event.text().to_vec();
            for number in rebuilt.out_of_range.iter().rev() {
                let start = number.as_ptr() as usize - origin;
                text.splice(start..start + number.len(), *b"0");
            }
            serde_json::from_slice(&text).map_err(|error| format!("accepted; serde_json: {error}; {}", shown()))?
        }
    };
    let structure = structure(event.text());
    if ours != theirs {
        return Err(format!("content {ours}; serde_json: {theirs}; {}", shown()));
    }
    if rebuilt.members != structure.members {
        return Err(format!("{} members instead of {}; {}", rebuilt.members, structure.members, shown()));
    }
    if rebuilt.depth != structure.depth {
        return Err(format!("depth {} instead of {}; {}", rebuilt.depth, structure.depth, shown()));
    }
    Ok(rebuilt.duplicates)
}

/// A duplicate's pointer leads to an object, perhaps one among several of the same path, that has the last name twice.
fn names_a_duplicate(event: Event<'_>, pointer: &str) -> bool {
    let mut around = vec![event.root()];
    let mut twice = false;
    for step in pointer.split('/').skip(1) {
        let name = step.replace("~1", "/").replace("~0", "~");
        let cut = name.strip_suffix('…');
        let matches = |own: &[u8]| match cut {
            Some(head) => own.starts_with(head.as_bytes()),
            None => own == name.as_bytes(),
        };
        let mut below = Vec::new();
        twice = false;
        for value in &around {
            let members = value.members().filter(|(own, _)| matches(&own.unescaped())).map(|(_, value)| value);
            let before = below.len();
            below.extend(members);
            twice |= below.len() - before > 1;
            below.extend(name.parse().ok().and_then(|index| value.elements().nth(index)));
        }
        // Steps left out of a very long path cannot be followed.
        if name == "…" {
            return true;
        }
        around = below;
    }
    twice
}

/// What a tape says, as serde_json would have said it.
#[derive(Default)]
struct Rebuilt<'a> {
    duplicates: bool,
    members: u32,
    level: u32,
    depth: u32,
    out_of_range: Vec<&'a [u8]>,
}

impl<'a> Rebuilt<'a> {
    fn value(&mut self, value: Value<'a>) -> Json {
        self.level += u32::from(matches!(value.kind(), Kind::Object | Kind::Array));
        self.depth = self.depth.max(self.level);
        match value.kind() {
            Kind::Null => Json::Null,
            Kind::True => Json::Bool(true),
            Kind::False => Json::Bool(false),
            Kind::String => Json::String(utf8(value.string().expect("a string").into_owned())),
            Kind::Number => serde_json::from_slice(value.text()).unwrap_or_else(|error| {
                assert!(error.to_string().contains("number out of range"), "{error}");
                self.out_of_range.push(value.text());
                Json::from(0)
            }),
            Kind::Array => {
                let elements = value.elements().map(|element| self.value(element)).collect();
                self.level -= 1;
                Json::Array(elements)
            }
            Kind::Object => {
                let mut object = serde_json::Map::new();
                let mut texts = HashMap::new();
                let later = value.members().skip(1);
                for (at, (name, member)) in value.members().enumerate() {
                    self.members += 1;
                    let shadowed = later.clone().skip(at).any(|(later, _)| later.is(&name.unescaped()));
                    assert_eq!(name.is_shadowed(), shadowed, "{name:?}");
                    let name = utf8(name.unescaped().into_owned());
                    texts.insert(name.clone(), member.text());
                    let member = self.value(member);
                    self.duplicates |= object.insert(name, member).is_some();
                }
                self.level -= 1;
                for (name, text) in texts {
                    let found = value.member(name.as_bytes()).map(|found| found.text());
                    assert_eq!(found, Some(text), "a look-up of {name}");
                }
                Json::Object(object)
            }
        }
    }
}

fn utf8(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("the scanner has checked it")
}

fn kind(json: &Json) -> Kind {
    match json {
        Json::Null => Kind::Null,
        Json::Bool(true) => Kind::True,
        Json::Bool(false) => Kind::False,
        Json::Number(_) => Kind::Number,
        Json::String(_) => Kind::String,
        Json::Array(_) => Kind::Array,
        Json::Object(_) => Kind::Object,
    }
}

/// Brackets and colons outside of strings, right for as much of a text as is JSON.
#[derive(Default)]
struct Structure {
    depth: u32,
    members: u32,
}

fn structure(text: &[u8]) -> Structure {
    let mut structure = Structure::default();
    let mut level = 0_u32;
    let mut in_string = false;
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if in_string => drop(bytes.next()),
            _ if in_string => {}
            b'{' | b'[' => {
                level += 1;
                structure.depth = structure.depth.max(level);
            }
            b'}' | b']' => level = level.saturating_sub(1),
            b':' => structure.members += 1,
            _ => {}
        }
    }
    structure
}

const SEEDS: &[&str] = &[
    RICH,
    "{}",
    r#"{"a":1,"b":{"a":[1,2,{"a":null}],"c":"\u0061"},"\u0063":true}"#,
    r#"{"type":"page_view","ts":1732450000123,"page":"/product/12345","user":{"id":"u-8842","country":"DE"},"price":19.90,"tags":["a","b"]}"#,
    r#"{"n":[0,-0,1,-1,10,1.5,-2.25e-3,6.02E+23,1e308,12345678901234567890,0.1,18446744073709551615,-9223372036854775808]}"#,
    "{\"s\":\"é€😀 \\ud83d\\ude00\\u00e9\\n\\\\\\\"\\/\",\"日本語\":\"\u{10ffff}\\uDBFF\\uDFFF\",\"\":\"\"}",
    "[ { \"a\" : 1 } ,\r\n\t[ ] , [ [ ] ] , \"x\" , false ]",
    r#""a top-level string \u20ac""#,
    "-12.5e3",
    r#"{"same length 1 tail":1,"same length 2 tail":2,"x":{"same length 1 tail":[{"y":{"z":{}}}]}}"#,
    "null",
    r#"{"k01":0,"k02":0,"k03":0,"k04":0,"k05":0,"k06":0,"k07":0,"k08":0,"k09":0,"k10":0,"k11":0,"k12":0,"k13":0,"k14":0,"k15":0,"k16":0,"k17":0,"k18":0,"k19":0,"k20":0,"k21":0,"k22":0,"k23":0,"k24":0,"k25":0,"k26":0,"k27":0,"k28":0,"k29":0,"k30":0,"k31":0,"k32":0,"k33":0,"k34":0}"#,
];

const TOKENS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\u",
    b"\\n",
    b"\\ud83d",
    b"\\ude00",
    b"\\ud83d\\ude00",
    b"\\u0061",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"[]",
    b"{}",
    b"-",
    b"0",
    b".",
    b"e",
    b"E+",
    b"1e999",
    b"-1e-999",
    b"true",
    b"false",
    b"null",
    b"nul",
    b"\xef\xbb\xbf",
    b"\xc3\xa9",
    b"\xff",
    b"\xe2\x82",
    b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80",
    b"\0",
    b"\n",
    b" ",
    b"\t",
    b"\x1f",
    b"\x7f",
    b"/",
    b"'",
    b"//",
];

/// What may stand before a member or an element and leave the whole correct, or nearly so.
const MEMBERS: &[&[u8]] = &[
    b"\"a\":1,",
    b"\"\\u0061\":2,",
    b"\"\":0,",
    b"\"x\":{\"a\":1,\"a\":2},",
    b"\"k07\":1,",
    b"\"y\":1e999,",
    b"\"z\":[-1E+400,{\"b\":0}],",
    b"1e999,",
    b"\"same length 2 tail\":[],",
    b"\"same length 3 tail\":[],",
];

/// A seed with up to four changes.
fn document() -> impl Strategy<Value = Vec<u8>> {
    let change = (0..9_u8, any::<u16>(), any::<u16>(), any::<u8>());
    (0..SEEDS.len(), prop::collection::vec(change, 0..5)).prop_map(|(seed, changes)| {
        let mut text = SEEDS[seed].as_bytes().to_vec();
        for (which, place, amount, byte) in changes {
            let place = usize::from(place) % (text.len() + 1);
            let amount = usize::from(amount);
            let end = (place + amount % 24).min(text.len());
            match which {
                0 if place < text.len() => text[place] ^= 1 << (byte % 8),
                1 => text.insert(place, byte),
                2 => drop(text.drain(place..end)),
                3 => drop(text.splice(place..place, TOKENS[amount % TOKENS.len()].iter().copied())),
                4 => drop(text.splice(place..end, TOKENS[amount % TOKENS.len()].iter().copied())),
                5 if byte < 64 => text.truncate(place),
                6 => {
                    let chunk = text[place..end].to_vec();
                    let target = usize::from(byte) * text.len() / 256;
                    text.splice(target..target, chunk);
                }
                7 => {
                    let mut starts = (0..text.len()).filter(|&at| matches!(text[at], b'{' | b'['));
                    if let Some(start) = starts.nth(usize::from(byte % 4)) {
                        text.splice(start + 1..start + 1, MEMBERS[amount % MEMBERS.len()].iter().copied());
                    }
                }
                // Around the whole, so that the depth comes near its bound, and beyond.
                8 if byte < 48 => {
                    let levels = 80 + amount % 40;
                    let (open, close): (&[u8], &[u8]) = if byte % 2 == 0 { (b"{\"a\":", b"}") } else { (b"[", b"]") };
                    text = [open.repeat(levels), text, close.repeat(levels)].concat();
                }
                _ => {}
            }
        }
        text
    })
}
