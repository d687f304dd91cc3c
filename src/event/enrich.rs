//! An event and changes to its members come in, the enriched text goes out.
//!
//! Touches the members that are named and nothing else: all other bytes stay as they were sent, numbers, escapes, order and spacing
//! included. Never looks below the event's own members, never checks a value that it adds.

use std::ops::Range;

use super::tape::Event;

/// The name of a member that is added, replaced or removed; encoded once, when the configuration is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldName {
    plain: Box<[u8]>,
    /// As JSON, with the colon.
    encoded: Box<[u8]>,
}

impl FieldName {
    pub fn new(name: &str) -> Self {
        let mut encoded = Vec::with_capacity(name.len() + 3);
        json_string(name.as_bytes(), &mut encoded);
        encoded.push(b':');
        FieldName { plain: name.as_bytes().into(), encoded: encoded.into() }
    }
}

/// What becomes of the members with one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<'a> {
    pub name: &'a FieldName,
    /// The JSON text that becomes the member's value, exactly one; `None` removes the member.
    pub value: Option<&'a [u8]>,
}

/// Appends the event to `out` with the changes made, and with the white space that was around it.
///
/// A value takes the place of the one that the client sent under that name, however it spelled the name; of several members with that
/// name (possible with [`DuplicateNames::Allow`](super::DuplicateNames::Allow)) the first is replaced and the others are removed. Without
/// such a member it is added behind the last one. Where a member is removed, the comma and the white space before it go with it, or those
/// behind it if it was the first.
///
/// The names of `changes` must be distinct, and their values correct JSON. Takes one comparison for each member and change, mostly
/// of lengths; allocates only where `out` has to grow, and where a client sent a member that is replaced.
pub fn enrich<'c>(event: Event<'_>, changes: impl Iterator<Item = Change<'c>> + Clone, out: &mut Vec<u8>) {
    let text = event.source();
    let mut copy = Copy { text, out, span: 0..0 };
    let mut at = event.root().span().start + 1;
    copy.span(0..at);
    // White space before the first member: it stays before whichever is the first then.
    let mut head = None;
    let mut any = false;
    let mut replaced = Vec::new();
    for (name, value) in event.root().members() {
        let (start, span) = (name.start(), value.span());
        let gap = at..start;
        at = span.end;
        let head = head.get_or_insert_with(|| gap.clone());
        let change = changes.clone().enumerate().find(|(_, change)| name.is(&change.name.plain));
        let new = match change {
            None => None,
            Some((_, Change { value: None, .. })) => continue,
            Some((index, _)) if replaced.contains(&index) => continue,
            Some((index, Change { value: Some(value), .. })) => {
                replaced.push(index);
                Some(value)
            }
        };
        copy.span(if any { gap } else { head.clone() });
        any = true;
        match new {
            None => copy.span(start..span.end),
            Some(value) => {
                copy.span(start..span.start);
                copy.write(value);
            }
        }
    }
    for (index, change) in changes.enumerate() {
        let Some(value) = change.value.filter(|_| !replaced.contains(&index)) else {
            continue;
        };
        if any {
            copy.write(b",");
        } else if let Some(head) = &head {
            copy.span(head.clone());
        }
        any = true;
        copy.write(&change.name.encoded);
        copy.write(value);
    }
    copy.span(at..text.len());
    copy.flush();
}

/// Copies spans of the text, neighbouring ones at once.
struct Copy<'a> {
    text: &'a [u8],
    out: &'a mut Vec<u8>,
    /// What is still to be copied.
    span: Range<usize>,
}

impl Copy<'_> {
    fn span(&mut self, span: Range<usize>) {
        if self.span.end != span.start {
            self.flush();
            self.span.start = span.start;
        }
        self.span.end = span.end;
    }

    fn write(&mut self, bytes: &[u8]) {
        self.flush();
        self.out.extend_from_slice(bytes);
    }

    fn flush(&mut self) {
        self.out.extend_from_slice(self.text.get(self.span.clone()).unwrap_or_default());
        self.span.start = self.span.end;
    }
}

/// Appends any bytes as a JSON string. What is no UTF-8 becomes U+FFFD, one for each malformed sequence, as
/// [`String::from_utf8_lossy`] does it; nothing is escaped that need not be (RFC 8259, section 7).
pub fn json_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        escape(chunk.valid().as_bytes(), out);
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        let Some((run, [byte, tail @ ..])) = rest.split_at_checked(at) else {
            break;
        };
        out.extend_from_slice(run);
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            // Below 0x20: the first hexadecimal digit is 0 or 1.
            control => {
                let low = control & 0xf;
                let digit = if low < 10 { b'0' + low } else { b'a' + low - 10 };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (control >> 4), digit]);
            }
        }
        rest = tail;
    }
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::super::{DuplicateNames, Limits, Tape};
    use super::*;

    fn enriched(text: &str, changes: &[(&str, Option<&str>)]) -> String {
        let mut tape = Tape::new();
        let limits = Limits { duplicate_names: DuplicateNames::Allow, ..Limits::default() };
        let event = tape.parse(text.as_bytes(), &limits).expect(text);
        let names: Vec<_> = changes.iter().map(|(name, _)| FieldName::new(name)).collect();
        let changes = names.iter().zip(changes);
        let changes = changes.map(|(name, (_, value))| Change { name, value: value.map(str::as_bytes) });
        let mut out = b"before".to_vec();
        enrich(event, changes, &mut out);
        let out = String::from_utf8(out).expect("UTF-8");
        out.strip_prefix("before").expect("appended").to_owned()
    }

    #[test]
    fn a_value_replaces_what_the_client_sent_or_is_added_at_the_end() {
        let cases = [
            (r#"{"a":1}"#, r#"{"a":"x"}"#),
            (r#"{"b":1}"#, r#"{"b":1,"a":"x"}"#),
            (r#"{ "b" : 1 }"#, r#"{ "b" : 1,"a":"x" }"#),
            ("{}", r#"{"a":"x"}"#),
            (" { \n} ", " {\"a\":\"x\" \n} "),
            (r#"{"a":1,"a":2,"b":3,"\u0061" : 4 }"#, r#"{"a":"x","b":3 }"#),
            (r#"{"b":0,"\u0061" : [1] ,"a":2}"#, r#"{"b":0,"\u0061" : "x"}"#),
            (r#"{"b":{"a":1},"c":["a"]}"#, r#"{"b":{"a":1},"c":["a"],"a":"x"}"#),
            (r#"{"A":1}"#, r#"{"A":1,"a":"x"}"#),
        ];
        for (text, expected) in cases {
            assert_eq!(enriched(text, &[("a", Some(r#""x""#))]), expected, "{text}");
        }
    }

    #[test]
    fn a_member_is_removed_with_one_comma_and_its_white_space() {
        let cases = [
            (r#"{"a":1}"#, "{}"),
            (r#"{ "a" : 1 }"#, "{ }"),
            ("{\n  \"a\": 1,\n  \"b\": 2\n}", "{\n  \"b\": 2\n}"),
            ("{\n  \"b\": 1,\n  \"a\": 2\n}", "{\n  \"b\": 1\n}"),
            ("{\n  \"b\": 1,\n  \"a\": 2,\n  \"c\": 3\n}", "{\n  \"b\": 1,\n  \"c\": 3\n}"),
            ("{\n  \"a\": 1\n}", "{\n}"),
            (r#"{"a":1 ,"a":2 , "b":3, "a":4}"#, r#"{"b":3}"#),
            (r#"{"b":[],"A":1}"#, r#"{"b":[],"A":1}"#),
            ("{ }", "{ }"),
        ];
        for (text, expected) in cases {
            assert_eq!(enriched(text, &[("a", None)]), expected, "{text}");
        }
    }

    #[test]
    fn several_changes_are_made_in_one_go() {
        let changes = [("ip", None), ("t", Some("1700000000000")), ("é\"", Some("[ ]")), ("id", None)];
        assert_eq!(
            enriched("\n{ \"ip\": \"::1\", \"n\": 9007199254740993, \"t\": 0, \"e\": [] }\n", &changes),
            "\n{ \"n\": 9007199254740993, \"t\": 1700000000000, \"e\": [],\"é\\\"\":[ ] }\n"
        );
        assert_eq!(enriched(r#"{ "ip":1, "id":2 }"#, &changes), r#"{ "t":1700000000000,"é\"":[ ] }"#);
        assert_eq!(enriched(r#"{"a":1}"#, &[]), r#"{"a":1}"#);
    }

    /// Names as they are, and as they may be spelled.
    const NAMES: &[(&str, &[&str])] = &[
        ("", &["\"\""]),
        ("a", &["\"a\"", "\"\\u0061\""]),
        ("aa", &["\"aa\"", "\"a\\u0061\""]),
        ("é", &["\"é\"", "\"\\u00E9\""]),
        ("\"", &["\"\\\"\"", "\"\\u0022\""]),
        ("b,}", &["\"b,}\""]),
    ];
    const VALUES: &[&str] = &[
        "9007199254740993",
        "-0.10e+05",
        "[]",
        "{ }",
        "[1 , {\"a\":2}]",
        "{\"a\":[{\"aa\":null}],\"a\":1}",
        "\"\\u00e9 \\/ }, \\\"a\\\":1\"",
        "\"\"",
        "true",
        "null",
    ];

    fn space() -> impl Strategy<Value = String> {
        prop_oneof![2 => Just(String::new()), 1 => "[ \t\r\n]{0,3}"]
    }

    #[derive(Debug, Clone)]
    struct Member {
        name: &'static str,
        /// What stands before the name, from the name up to the value, the value, what stands behind it.
        lead: String,
        start: String,
        value: &'static str,
        trail: String,
    }

    fn member() -> impl Strategy<Value = Member> {
        (select(NAMES), any::<prop::sample::Index>(), select(VALUES), [space(), space(), space(), space()]).prop_map(
            |((name, spelled), index, value, [lead, before, behind, trail])| {
                let start = format!("{}{before}:{behind}", index.get(spelled));
                Member { name, lead, start, value, trail }
            },
        )
    }

    /// What the page and the function's description say, over a list of members instead of bytes: an object's text, and the values.
    fn model(
        members: &[Member],
        changes: &BTreeMap<&str, Option<&str>>,
        order: &[&str],
    ) -> (String, Vec<(String, String)>) {
        let mut done = Vec::new();
        let mut object = String::new();
        let mut list = Vec::new();
        let lead = members.first().map_or("", |first| &first.lead);
        let mut trail = String::new();
        for member in members {
            let gap = format!("{trail},{}", member.lead);
            trail.clone_from(&member.trail);
            let value = match changes.get(member.name) {
                Some(Some(_)) if done.contains(&member.name) => continue,
                Some(Some(value)) => value,
                Some(None) => continue,
                None => member.value,
            };
            done.push(member.name);
            object += if list.is_empty() { lead } else { &gap };
            object += &format!("{}{value}", member.start);
            list.push((member.name.to_owned(), value.to_owned()));
        }
        for name in order {
            if let Some(Some(value)) = changes.get(name)
                && !done.contains(name)
            {
                object += if list.is_empty() { lead } else { "," };
                object += &format!("{}:{value}", serde_json::json!(name));
                list.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        (object + &trail, list)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

        #[test]
        fn every_other_byte_stays(
            members in prop::collection::vec(member(), 0..8),
            [before, inside, behind] in [space(), space(), space()],
            names in subsequence(NAMES, 0..=NAMES.len()).prop_shuffle(),
            values in prop::collection::vec(prop::option::of(select(VALUES)), NAMES.len()),
        ) {
            let inner = members.iter().map(|Member { lead, start, value, trail, .. }| format!("{lead}{start}{value}{trail}"));
            let inside = if members.is_empty() { inside } else { String::new() };
            let text = format!("{before}{{{}{inside}}}{behind}", inner.collect::<Vec<_>>().join(","));
            let order: Vec<_> = names.iter().map(|(name, _)| *name).collect();
            let list: Vec<_> = order.iter().copied().zip(values).collect();
            let changes = list.iter().copied().collect();
            let (object, expected) = model(&members, &changes, &order);
            let out = enriched(&text, &list);
            prop_assert_eq!(&out, &format!("{before}{{{object}{inside}}}{behind}"), "from {}", text);

            let mut tape = Tape::new();
            let limits = Limits { duplicate_names: DuplicateNames::Allow, ..Limits::default() };
            let event = tape.parse(out.as_bytes(), &limits).expect("an event");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
            let found: Vec<_> = event.root().members().map(|(name, value)| (text(&name.unescaped()), text(value.text()))).collect();
            prop_assert_eq!(&found, &expected);
            let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
            for (name, value) in expected.into_iter().collect::<BTreeMap<_, _>>() {
                prop_assert_eq!(json.get(&name).cloned(), serde_json::from_str(&value).ok());
            }
        }

        #[test]
        fn any_bytes_become_the_string_that_serde_json_reads(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(select(&b"a\"\\/\n\x00\x1f\x7f\xc3\xa9\xf0\x9f\x98\x80\xed\xa0\xff"[..]), 0..12),
            any::<String>().prop_map(String::into_bytes),
        ]) {
            let mut out = Vec::new();
            json_string(&bytes, &mut out);
            let lossy = String::from_utf8_lossy(&bytes);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).expect("a string"), lossy.as_ref());
            prop_assert_eq!(String::from_utf8(out).expect("UTF-8"), serde_json::json!(lossy).to_string());
        }
    }
}
