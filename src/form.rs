//! A form or a query string comes in, an object of strings goes out, as JSON that the event step reads.
//!
//! The format is `application/x-www-form-urlencoded` (<https://url.spec.whatwg.org/#urlencoded-parsing>), and strict where that is
//! lenient: what cannot be decoded is an error, never a replacement character. Never drops a member and never changes their order.

use std::ops::Range;

use thiserror::Error;

use crate::event::json_string;

/// Bytes, and members, that stay allocated from one form to the next.
const KEPT: usize = 64 * 1024;
const KEPT_MEMBERS: usize = 1024;

/// Why a text is no form. Offsets are in the text, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormError {
    /// Two hexadecimal digits must follow the `%` at this offset.
    #[error("invalid percent-encoding at byte {at}")]
    Percent { at: usize },
    /// The offset is where the first malformed sequence begins, which may be a `%`.
    #[error("invalid UTF-8 at byte {at}")]
    Utf8 { at: usize },
    #[error("more than {max} members in a form")]
    TooManyMembers { max: u32 },
}

/// Room for one form, used again for the next.
#[derive(Debug, Default)]
pub struct Form {
    /// Names and values one behind the other.
    decoded: Vec<u8>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: Range<usize>,
    value: Range<usize>,
    /// Its place in the form, and that of the first one with the same name.
    order: u32,
    first: u32,
}

impl Form {
    pub fn new() -> Self {
        Form::default()
    }

    /// Appends a query string to `out` as an object of strings in order of first appearance; a name that comes more than once has an
    /// array of them. A name without `=` has the value `""`, nothing between two `&` is no member, and no member at all is `{}`.
    ///
    /// Takes O(bytes × log members) whatever the names are, and counts each value of a repeated name as a member.
    ///
    /// # Errors
    ///
    /// The first place that cannot be decoded, or the bound when it comes before; `out` is as before then.
    pub fn query(&mut self, text: &[u8], max_members: u32, out: &mut Vec<u8>) -> Result<(), FormError> {
        self.read(text, max_members)?;
        self.write(out);
        Ok(())
    }

    /// Appends the body of a form to `out` as [`query`](Form::query) does, except that a form whose only member is `data` with a
    /// value that begins, behind white space, with `{` or `[` is that value: JSON to be read, checked by nobody here.
    ///
    /// # Errors
    ///
    /// Those of [`query`](Form::query).
    pub fn body(&mut self, text: &[u8], max_members: u32, out: &mut Vec<u8>) -> Result<(), FormError> {
        self.read(text, max_members)?;
        match self.json() {
            Some(json) => out.extend_from_slice(json),
            None => self.write(out),
        }
        Ok(())
    }

    fn read(&mut self, text: &[u8], max_members: u32) -> Result<(), FormError> {
        self.decoded.clear();
        self.decoded.shrink_to(KEPT);
        self.members.clear();
        self.members.shrink_to(KEPT_MEMBERS);
        let mut at = 0;
        let mut order = 0;
        for piece in text.split(|&byte| byte == b'&') {
            let piece_at = at;
            at += piece.len() + 1;
            if piece.is_empty() {
                continue;
            }
            if order >= max_members {
                return Err(FormError::TooManyMembers { max: max_members });
            }
            let (name, value) = match memchr::memchr(b'=', piece).and_then(|equals| piece.split_at_checked(equals)) {
                Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
                None => (piece, &[][..]),
            };
            let value_at = piece_at + name.len() + 1;
            let name = self.decode(name, piece_at)?;
            let value = self.decode(value, value_at)?;
            self.members.push(Member { name, value, order, first: order });
            order += 1;
        }
        Ok(())
    }

    /// `at` is where `source` begins in the form.
    fn decode(&mut self, source: &[u8], at: usize) -> Result<Range<usize>, FormError> {
        let start = self.decoded.len();
        let mut rest = source;
        while !rest.is_empty() {
            let Some((byte, behind)) = first(rest) else {
                return Err(FormError::Percent { at: at + source.len() - rest.len() });
            };
            self.decoded.push(byte);
            rest = behind;
        }
        let decoded = self.decoded.get(start..).unwrap_or_default();
        match std::str::from_utf8(decoded) {
            Ok(_) => Ok(start..self.decoded.len()),
            Err(error) => {
                let valid = (0..error.valid_up_to()).try_fold(source, |rest, _| first(rest).map(|(_, behind)| behind));
                Err(FormError::Utf8 { at: at + source.len() - valid.map_or(0, <[u8]>::len) })
            }
        }
    }

    fn json(&self) -> Option<&[u8]> {
        match self.members.as_slice() {
            [only] if self.bytes(&only.name) == b"data" => {
                let json = self.bytes(&only.value);
                // The white space of JSON: RFC 8259, section 2.
                let first = json.iter().find(|byte| !b" \t\n\r".contains(byte))?;
                b"{[".contains(first).then_some(json)
            }
            _ => None,
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        self.group();
        out.push(b'{');
        for (index, group) in self.members.chunk_by(|one, next| one.first == next.first).enumerate() {
            if index > 0 {
                out.push(b',');
            }
            for (index, member) in group.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                } else {
                    json_string(self.bytes(&member.name), out);
                    out.push(b':');
                    if group.len() > 1 {
                        out.push(b'[');
                    }
                }
                json_string(self.bytes(&member.value), out);
            }
            if group.len() > 1 {
                out.push(b']');
            }
        }
        out.push(b'}');
    }

    /// Brings members with the same name together. Sorted, not hashed: names are the client's.
    fn group(&mut self) {
        let decoded = self.decoded.as_slice();
        let name = |member: &Member| decoded.get(member.name.clone()).unwrap_or_default();
        self.members.sort_unstable_by(|one, other| name(one).cmp(name(other)).then(one.order.cmp(&other.order)));
        for group in self.members.chunk_by_mut(|one, next| name(one) == name(next)) {
            let first = group.first().map_or(0, |first| first.order);
            group.iter_mut().for_each(|member| member.first = first);
        }
        self.members.sort_unstable_by_key(|member| (member.first, member.order));
    }

    fn bytes(&self, span: &Range<usize>) -> &[u8] {
        self.decoded.get(span.clone()).unwrap_or_default()
    }
}

/// The first byte of what `source` stands for, and what is behind it; `None` at its end and at a `%` without two digits.
fn first(source: &[u8]) -> Option<(u8, &[u8])> {
    match source {
        [b'+', rest @ ..] => Some((b' ', rest)),
        [b'%', rest @ ..] => {
            let ([high, low], rest) = rest.split_first_chunk()?;
            Some((digit(*high)? << 4 | digit(*low)?, rest))
        }
        [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const MANY: u32 = 1000;

    fn query(text: &str) -> Result<String, FormError> {
        let mut out = b"before".to_vec();
        let result = Form::new().query(text.as_bytes(), MANY, &mut out);
        let out = String::from_utf8(out).expect("UTF-8");
        let object = out.strip_prefix("before").expect("appended").to_owned();
        assert_eq!(result.is_err(), object.is_empty());
        result.map(|()| object)
    }

    fn body(text: &str) -> String {
        let mut out = Vec::new();
        Form::new().body(text.as_bytes(), MANY, &mut out).expect(text);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn members_become_strings_in_order_of_first_appearance() {
        let cases = [
            ("", "{}"),
            ("&&", "{}"),
            ("a=1", r#"{"a":"1"}"#),
            ("b=1&a=2", r#"{"b":"1","a":"2"}"#),
            ("a", r#"{"a":""}"#),
            ("a=", r#"{"a":""}"#),
            ("=", r#"{"":""}"#),
            ("=x&", r#"{"":"x"}"#),
            ("a=b=c", r#"{"a":"b=c"}"#),
            ("=&=x&a", r#"{"":["","x"],"a":""}"#),
            ("z=1&a=2&z=3&m&z=", r#"{"z":["1","3",""],"a":"2","m":""}"#),
            ("a=1&%61=2", r#"{"a":["1","2"]}"#),
            ("a+b=c%20d+%2B", r#"{"a b":"c d +"}"#),
            ("q=%22%5C%0A%00/%26%3d", r#"{"q":"\"\\\n\u0000/&="}"#),
            ("caf%C3%A9=%f0%9f%98%80é", r#"{"café":"😀é"}"#),
            ("?a;b=1;c", r#"{"?a;b":"1;c"}"#),
        ];
        for (text, object) in cases {
            assert_eq!(query(text).as_deref(), Ok(object), "{text}");
            assert_eq!(body(text), object, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_decoded_is_refused_with_its_place() {
        let percent = |at| FormError::Percent { at };
        let utf8 = |at| FormError::Utf8 { at };
        let cases = [
            ("%", percent(0)),
            ("a=%", percent(2)),
            ("a=1&b=%4", percent(6)),
            ("a=%4&b", percent(2)),
            ("a%=1", percent(1)),
            ("a=%zz", percent(2)),
            ("a=%%20", percent(2)),
            ("a=%+1", percent(2)),
            ("a=%ff", utf8(2)),
            ("&a=+%41x%C3&b", utf8(8)),
            ("a%C3=%A9", utf8(1)),
            ("a=%ed%a0%80", utf8(2)),
            ("a=1&%C3%28=%zz", utf8(4)),
        ];
        for (text, error) in cases {
            assert_eq!(query(text), Err(error), "{text}");
        }
        assert_eq!(percent(3).to_string(), "invalid percent-encoding at byte 3");
        let raw = Form::new().query(b"a=\xff", MANY, &mut Vec::new());
        assert_eq!(raw, Err(utf8(2)));
    }

    #[test]
    fn every_value_counts_against_the_bound() {
        let mut form = Form::new();
        let mut out = Vec::new();
        assert_eq!(form.query(b"a&&b&a", 3, &mut out), Ok(()));
        let error = FormError::TooManyMembers { max: 3 };
        assert_eq!(form.query(b"a&b&a&a", 3, &mut out), Err(error));
        assert_eq!(form.query(b"a&b&a&%", 3, &mut out), Err(error));
        assert_eq!(form.query(b"", 0, &mut out), Ok(()));
        assert_eq!(out, br#"{"a":["",""],"b":""}{}"#);
        assert_eq!(error.to_string(), "more than 3 members in a form");
    }

    #[test]
    fn a_form_of_data_alone_is_the_json_in_it() {
        let cases = [
            ("data=%7B%22a%22:+1%7D", r#"{"a": 1}"#),
            ("&d%61ta={\"a\":\"%2B\"}&", r#"{"a":"+"}"#),
            ("data=+%0A%5b1", " \n[1"),
            ("data={", "{"),
            ("data=1", r#"{"data":"1"}"#),
            ("data=%0B{}", r#"{"data":"\u000b{}"}"#),
            ("data=", r#"{"data":""}"#),
            ("data={}&x=1", r#"{"data":"{}","x":"1"}"#),
            ("data={}&data={}", r#"{"data":["{}","{}"]}"#),
            ("Data={}", r#"{"Data":"{}"}"#),
        ];
        for (text, json) in cases {
            assert_eq!(body(text), json, "{text}");
        }
        assert_eq!(query("data={}").as_deref(), Ok(r#"{"data":"{}"}"#));
    }

    #[test]
    fn hostile_names_cost_no_more_than_sorting_them() {
        let prefix = "x".repeat(200);
        let shapes: [&dyn Fn(usize) -> String; 3] =
            [&|_| "a=1".to_owned(), &|index| format!("{index}=1"), &|index| format!("{prefix}{index}=1")];
        for shape in shapes {
            let text = (0..50_000).map(shape).collect::<Vec<_>>().join("&");
            let started = Instant::now();
            Form::new().query(text.as_bytes(), u32::MAX, &mut Vec::new()).expect("a form");
            // Quadratic would be minutes.
            assert!(started.elapsed() < Duration::from_secs(5));
        }
    }

    #[test]
    fn gives_back_what_only_a_large_form_needed() {
        let mut form = Form::new();
        form.query("a=1&".repeat(100_000).as_bytes(), u32::MAX, &mut Vec::new()).expect("a form");
        form.query(b"a", MANY, &mut Vec::new()).expect("a form");
        assert!(form.decoded.capacity() <= KEPT && form.members.capacity() <= KEPT_MEMBERS);
    }

    /// The object that a list of pairs stands for; serde_json's maps are sorted, so order is compared apart.
    fn object(pairs: &[(String, String)]) -> (Vec<String>, serde_json::Value) {
        let mut names: Vec<String> = Vec::new();
        let mut object = serde_json::Map::new();
        for (name, value) in pairs {
            match object.get_mut(name) {
                None => {
                    names.push(name.clone());
                    object.insert(name.clone(), json!(value));
                }
                Some(serde_json::Value::Array(values)) => values.push(json!(value)),
                Some(before) => *before = json!([before.take(), value]),
            }
        }
        (names, object.into())
    }

    fn same(text: &str, ours: &str) -> Result<(), TestCaseError> {
        let pairs: Vec<(String, String)> = form_urlencoded::parse(text.as_bytes()).into_owned().collect();
        let (names, expected) = object(&pairs);
        prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(ours).expect("JSON"), &expected, "{}", text);
        let mut tape = crate::event::Tape::new();
        let event = tape.parse(ours.as_bytes(), &crate::event::Limits::default()).expect("an event");
        let found: Vec<_> = event.root().members().map(|(name, _)| name.unescaped().into_owned()).collect();
        prop_assert_eq!(found, names.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, ..ProptestConfig::default() })]

        #[test]
        fn reads_what_form_urlencoded_writes(pairs in prop::collection::vec(("[ab é&=%+]{0,2}", any::<String>()), 0..8)) {
            let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
            same(&text, &query(&text).expect("a form"))?;
        }

        #[test]
        fn reads_any_text_as_form_urlencoded_does_or_refuses_it_at_the_right_byte(text in "([ab=&+é]|%[0-9a-fA-F]{2}|%C3%A9|%4|%){0,12}") {
            let valid = |text: &str| {
                let hex = |at: usize| text.as_bytes().get(at).is_some_and(u8::is_ascii_hexdigit);
                text.match_indices('%').all(|(at, _)| hex(at + 1) && hex(at + 2))
            };
            let replaced = |text: &str| {
                form_urlencoded::parse(text.as_bytes()).any(|(name, value)| format!("{name}{value}").contains('\u{fffd}'))
            };
            match query(&text) {
                Ok(ours) => {
                    prop_assert!(valid(&text) && !replaced(&text));
                    same(&text, &ours)?;
                }
                Err(FormError::Percent { at }) => {
                    let (before, behind) = text.split_at(at);
                    let escape: String = behind.chars().take(3).collect();
                    prop_assert!(valid(before) && escape.starts_with('%') && !valid(&escape));
                    let piece = before.rfind('&').map_or(0, |and| and + 1);
                    let field = before[piece..].find('=').map_or(piece, |equals| piece + equals + 1);
                    let (ended, _) = before.split_at(field);
                    prop_assert!(!replaced(ended));
                }
                Err(FormError::Utf8 { at }) => {
                    let (before, behind) = text.split_at(at);
                    prop_assert!(valid(before) && !replaced(before) && behind.starts_with('%'));
                    let end = behind.find(['&', '=']).unwrap_or(behind.len());
                    prop_assert!(replaced(&text[at..at + end]));
                }
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
    }
}
