//! What a client puts into a key comes in; it goes out as it is, as a hash of it, or as a violation.
//!
//! Knows bytes only: which part of a key is the client's, and that none may be empty, is for whoever asks.

use std::fmt;

use sha2::{Digest, Sha256};
use thiserror::Error;

/// Bytes of a hexadecimal SHA-256.
const HASH: usize = 64;

/// What a client's part of a key must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLimit {
    /// How many bytes it may have.
    pub length: usize,
    pub charset: Charset,
    pub on_violation: OnViolation,
}

impl Default for KeyLimit {
    fn default() -> Self {
        KeyLimit { length: 512, charset: Charset::Word, on_violation: OnViolation::Reject }
    }
}

/// Which bytes are allowed. Those from 0x80 on, of which UTF-8 makes every character beyond ASCII, are all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charset {
    /// `word`: no control characters, no white space and no braces, which choose a slot in a Redis Cluster.
    Word,
    /// `printable`: no control characters.
    Printable,
    /// `alnum`: A to Z, a to z, 0 to 9 and `_ . : -`.
    Alnum,
    /// `any`: every byte.
    Any,
}

/// What becomes of a part that breaks the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnViolation {
    /// `reject`: so is the event.
    Reject,
    /// `hash`: its SHA-256 in hexadecimal takes its place.
    Hash,
}

/// How a part of a key breaks the limit; says nothing of its content, which may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyViolation {
    #[error("key value of {length} bytes is longer than {max}")]
    TooLong { length: usize, max: usize },
    #[error("key value of {length} bytes has characters that charset \"{charset}\" does not allow")]
    Charset { length: usize, charset: Charset },
}

/// Why a limit cannot be configured; the caller adds ` in FILE:LINE`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyLimitError {
    #[error("invalid parameter \"{parameter}\"")]
    Parameter { parameter: String },
    #[error("duplicate parameter \"{parameter}\"")]
    Duplicate { parameter: String },
    #[error("invalid length \"{length}\", it must be a number from 1")]
    Length { length: String },
    #[error("length {length} is too short for on_violation=hash, a hash has {HASH} bytes")]
    ShorterThanHash { length: usize },
    #[error("unknown charset \"{charset}\", it must be word, printable, alnum or any")]
    Charset { charset: String },
    #[error("invalid on_violation \"{on_violation}\", it must be reject or hash")]
    OnViolation { on_violation: String },
}

impl KeyLimit {
    /// Reads `length=NUMBER`, `charset=NAME` and `on_violation=reject|hash`, in any order; what is not there has its default.
    ///
    /// # Errors
    ///
    /// For the first parameter that is none of these, comes twice or has no correct value, and for a length that a hash does not keep.
    pub fn parse<'a>(parameters: impl IntoIterator<Item = &'a str>) -> Result<KeyLimit, KeyLimitError> {
        let (mut length, mut charset, mut on_violation) = (None, None, None);
        for parameter in parameters {
            let again = match parameter.split_once('=') {
                Some(("length", value)) => length.replace(parse_length(value)?).is_some(),
                Some(("charset", value)) => charset.replace(Charset::parse(value)?).is_some(),
                Some(("on_violation", value)) => on_violation.replace(OnViolation::parse(value)?).is_some(),
                _ => return Err(KeyLimitError::Parameter { parameter: parameter.to_owned() }),
            };
            if again {
                return Err(KeyLimitError::Duplicate { parameter: parameter.to_owned() });
            }
        }
        let default = KeyLimit::default();
        let limit = KeyLimit {
            length: length.unwrap_or(default.length),
            charset: charset.unwrap_or(default.charset),
            on_violation: on_violation.unwrap_or(default.on_violation),
        };
        if limit.on_violation == OnViolation::Hash && limit.length < HASH {
            return Err(KeyLimitError::ShorterThanHash { length: limit.length });
        }
        Ok(limit)
    }

    /// Whether the limit is kept.
    ///
    /// # Errors
    ///
    /// How it is not, whatever [`on_violation`](KeyLimit::on_violation) says.
    pub fn check(&self, part: &[u8]) -> Result<(), KeyViolation> {
        let length = part.len();
        if length > self.length {
            return Err(KeyViolation::TooLong { length, max: self.length });
        }
        if !part.iter().all(|&byte| self.charset.allows(byte)) {
            return Err(KeyViolation::Charset { length, charset: self.charset });
        }
        Ok(())
    }

    /// Appends to `out` what stands for `part` in a key: `part` itself where it keeps the limit, else what
    /// [`on_violation`](KeyLimit::on_violation) makes of it. Allocates only where `out` has to grow.
    ///
    /// # Errors
    ///
    /// The violation, if it is to be rejected; `out` is as before then.
    pub fn confine(&self, part: &[u8], out: &mut Vec<u8>) -> Result<(), KeyViolation> {
        match (self.check(part), self.on_violation) {
            (Ok(()), _) => out.extend_from_slice(part),
            (Err(_), OnViolation::Hash) => append_hash(part, out),
            (Err(violation), OnViolation::Reject) => return Err(violation),
        }
        Ok(())
    }
}

impl Charset {
    fn parse(name: &str) -> Result<Self, KeyLimitError> {
        let all = [Charset::Word, Charset::Printable, Charset::Alnum, Charset::Any];
        let charset = all.into_iter().find(|charset| charset.name() == name);
        charset.ok_or_else(|| KeyLimitError::Charset { charset: name.to_owned() })
    }

    fn name(self) -> &'static str {
        match self {
            Charset::Word => "word",
            Charset::Printable => "printable",
            Charset::Alnum => "alnum",
            Charset::Any => "any",
        }
    }

    fn allows(self, byte: u8) -> bool {
        match self {
            Charset::Word => !matches!(byte, 0..=0x20 | 0x7f | b'{' | b'}'),
            Charset::Printable => !byte.is_ascii_control(),
            Charset::Alnum => byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte),
            Charset::Any => true,
        }
    }
}

impl fmt::Display for Charset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl OnViolation {
    fn parse(name: &str) -> Result<Self, KeyLimitError> {
        match name {
            "reject" => Ok(OnViolation::Reject),
            "hash" => Ok(OnViolation::Hash),
            _ => Err(KeyLimitError::OnViolation { on_violation: name.to_owned() }),
        }
    }
}

fn parse_length(text: &str) -> Result<usize, KeyLimitError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text.parse().ok().filter(|&length| digits && length > 0);
    length.ok_or_else(|| KeyLimitError::Length { length: text.to_owned() })
}

fn append_hash(part: &[u8], out: &mut Vec<u8>) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    out.extend(Sha256::digest(part).iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<KeyLimit, String> {
        KeyLimit::parse(text.split_whitespace()).map_err(|error| error.to_string())
    }

    #[test]
    fn parameters_come_in_any_order_and_have_defaults() {
        let limit = |length, charset, on_violation| Ok(KeyLimit { length, charset, on_violation });
        assert_eq!(parse(""), limit(512, Charset::Word, OnViolation::Reject));
        assert_eq!(parse("length=512 charset=word on_violation=reject"), Ok(KeyLimit::default()));
        assert_eq!(parse("on_violation=hash charset=alnum length=64"), limit(64, Charset::Alnum, OnViolation::Hash));
        assert_eq!(parse("charset=printable length=1"), limit(1, Charset::Printable, OnViolation::Reject));
        assert_eq!(parse("charset=any"), limit(512, Charset::Any, OnViolation::Reject));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cases = [
            ("size=1", r#"invalid parameter "size=1""#),
            ("512", r#"invalid parameter "512""#),
            ("Length=1", r#"invalid parameter "Length=1""#),
            ("length=1 charset=any length=2", r#"duplicate parameter "length=2""#),
            ("length=0", r#"invalid length "0", it must be a number from 1"#),
            ("length=+1", r#"invalid length "+1", it must be a number from 1"#),
            ("length=", r#"invalid length "", it must be a number from 1"#),
            ("length=99999999999999999999", r#"invalid length "99999999999999999999", it must be a number from 1"#),
            ("charset=utf8", r#"unknown charset "utf8", it must be word, printable, alnum or any"#),
            ("on_violation=drop", r#"invalid on_violation "drop", it must be reject or hash"#),
            ("length=63 on_violation=hash", "length 63 is too short for on_violation=hash, a hash has 64 bytes"),
        ];
        for (text, message) in cases {
            assert_eq!(parse(text), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn each_charset_allows_what_it_says() {
        let refused = |charset: Charset| (0..=u8::MAX).filter(move |&byte| !charset.allows(byte)).collect::<Vec<_>>();
        let controls: Vec<_> = (0..0x20).chain([0x7f]).collect();
        assert!(refused(Charset::Any).is_empty());
        assert_eq!(refused(Charset::Printable), controls);
        let mut word = [controls, b" {}".to_vec()].concat();
        word.sort_unstable();
        assert_eq!(refused(Charset::Word), word);
        let alnum = b"-.0123456789:ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
        assert_eq!((0..=u8::MAX).filter(|&byte| Charset::Alnum.allows(byte)).collect::<Vec<_>>(), alnum);
    }

    #[test]
    fn a_violation_tells_the_length_and_not_the_content() {
        let limit = KeyLimit { length: 5, ..KeyLimit::default() };
        assert_eq!(limit.check(b"12345"), Ok(()));
        assert_eq!(limit.check(b""), Ok(()));
        let message = |part| limit.check(part).expect_err("a violation").to_string();
        assert_eq!(message(b"123456"), "key value of 6 bytes is longer than 5");
        assert_eq!(message(b"a b"), "key value of 3 bytes has characters that charset \"word\" does not allow");
    }

    #[test]
    fn a_part_is_kept_hashed_or_rejected() {
        let hash = KeyLimit { on_violation: OnViolation::Hash, ..KeyLimit::default() };
        let mut out = b"visits:".to_vec();
        assert_eq!(hash.confine("/café".as_bytes(), &mut out), Ok(()));
        assert_eq!(out, "visits:/café".as_bytes());
        out.clear();
        // FIPS 180-2, appendix B.2: of 56 bytes.
        let reject = KeyLimit { length: 55, ..KeyLimit::default() };
        let example = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(reject.confine(example, &mut out), Err(KeyViolation::TooLong { length: 56, max: 55 }));
        assert!(out.is_empty());
        assert_eq!(KeyLimit { length: 55, ..hash }.confine(example, &mut out), Ok(()));
        assert_eq!(out, b"248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    }

    proptest! {
        #[test]
        fn whatever_comes_out_keeps_the_limit(
            part in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), "[a-z{} ]{0,80}".prop_map(String::into_bytes)],
            length in 64..150_usize,
            charset in prop::sample::select(vec!["word", "printable", "alnum", "any"]),
        ) {
            let limit = parse(&format!("on_violation=hash length={length} charset={charset}")).expect("a limit");
            let mut out = Vec::new();
            prop_assert_eq!(limit.confine(&part, &mut out), Ok(()));
            prop_assert_eq!(limit.check(&out), Ok(()));
            prop_assert_eq!(out == part, limit.check(&part).is_ok());
        }
    }
}
