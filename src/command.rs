//! Command: a template, an event and a source of variables come in, the RESP bytes of the commands go out.
//!
//! Whatever an event brings becomes one bulk string of one argument: never a command, never a second argument
//! (<https://redis.io/docs/latest/develop/reference/protocol-spec/>). Never sends anything, never evaluates a variable
//! itself.

mod commands;
mod key;
mod keys;
mod replay;
mod resp;
pub mod table;
mod variadic;

pub use commands::Commands;
pub use key::{Charset, KeyLimit, KeyLimitError, KeyViolation, OnViolation};
pub use keys::key_positions;
pub use replay::repeatable;
pub use variadic::{Division, FIXED, divide};

/// One argument of a command, its name included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arg<V> {
    /// The same for every event.
    Literal(Vec<u8>),
    /// Exactly the event's JSON.
    Event,
    /// What the host evaluates anew for each event.
    Value(V),
    /// A key with variables in it.
    Key(Vec<KeyPart<V>>),
}

/// A part of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPart<V> {
    Literal(Vec<u8>),
    /// `name` is the variable's.
    Value {
        value: V,
        name: Box<str>,
        trust: Trust,
    },
}

/// How far a variable is trusted inside a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// The configuration decides what it can be.
    Configured,
    /// A client decides: the [`KeyLimit`] holds for it.
    Client,
    /// As `Client`, and it is a member of the event, without which the key would be another one: it may not be empty.
    Event,
}

/// Why a command cannot be encoded.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault<E> {
    Source(E),
    Key(KeyFault),
}

/// What is wrong with a key that an event or a request makes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    #[error("empty key")]
    Empty,
    #[error("a member of the event that the key needs is missing or empty")]
    EmptyMember,
    #[error(transparent)]
    Violation(KeyViolation),
}

/// Where the values of variable arguments come from, for one event.
pub trait Source<V> {
    type Error;

    /// The bytes of `value`, any at all, valid until the source is dropped.
    fn value(&self, value: &V) -> Result<&[u8], Self::Error>;
}

/// A command as configured, its constant bytes encoded once.
#[derive(Debug)]
pub struct Template<V> {
    condition: Option<V>,
    parts: Vec<Part<V>>,
}

/// Between constants stand the variable bulk strings, from the digits of their length to the last byte of their payload:
/// their `$` ends the constant before them and their last CRLF begins the one behind.
#[derive(Debug)]
enum Part<V> {
    Constant(Box<[u8]>),
    Event,
    Value(V),
    Key(Vec<KeyPart<V>>),
}

impl<V> Template<V> {
    /// A command of `args`, the name first, skipped where `condition` is empty or "0". Expects what [`table::check`]
    /// let pass; without arguments it is no command and encodes as nothing.
    pub fn new(condition: Option<V>, args: Vec<Arg<V>>) -> Self {
        let mut parts = Vec::new();
        if args.is_empty() {
            return Self { condition, parts };
        }
        let mut constant = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            constant.push(b'$');
            let variable = match arg {
                Arg::Literal(bytes) => {
                    append(&mut constant, &bytes);
                    constant.extend_from_slice(END);
                    continue;
                }
                Arg::Event => Part::Event,
                Arg::Value(value) => Part::Value(value),
                Arg::Key(parts) => Part::Key(parts),
            };
            let before = std::mem::replace(&mut constant, END.to_vec());
            parts.push(Part::Constant(before.into()));
            parts.push(variable);
        }
        parts.push(Part::Constant(constant.into()));
        Self { condition, parts }
    }

    /// Decides anew how far the variables in the command's keys are trusted, by their names.
    pub fn judge(&mut self, trust_in: impl Fn(&str) -> Trust) {
        for part in &mut self.parts {
            let Part::Key(parts) = part else { continue };
            for part in parts {
                if let KeyPart::Value { name, trust, .. } = part {
                    *trust = trust_in(name);
                }
            }
        }
    }

    /// Appends the command for one event to `out`, unless its condition says no. Copies, and allocates only where `out`
    /// has to grow. On an error `out` is as before.
    pub fn encode<S: Source<V>>(
        &self,
        event: &[u8],
        source: &S,
        limit: &KeyLimit,
        out: &mut Commands,
    ) -> Result<(), Fault<S::Error>> {
        let value = |value| source.value(value).map_err(Fault::Source);
        if let Some(condition) = &self.condition
            && matches!(value(condition)?, b"" | b"0")
        {
            return Ok(());
        }
        out.append(|bytes, key| {
            for part in &self.parts {
                match part {
                    Part::Constant(constant) => bytes.extend_from_slice(constant),
                    Part::Event => append(bytes, event),
                    Part::Value(variable) => append(bytes, value(variable)?),
                    Part::Key(parts) => {
                        key.clear();
                        for part in parts {
                            match part {
                                KeyPart::Literal(literal) => key.extend_from_slice(literal),
                                KeyPart::Value { value: variable, trust, .. } => {
                                    confine(value(variable)?, *trust, limit, key).map_err(Fault::Key)?;
                                }
                            }
                        }
                        if key.is_empty() {
                            return Err(Fault::Key(KeyFault::Empty));
                        }
                        append(bytes, key);
                    }
                }
            }
            Ok(())
        })
    }
}

fn confine(text: &[u8], trust: Trust, limit: &KeyLimit, key: &mut Vec<u8>) -> Result<(), KeyFault> {
    match trust {
        Trust::Configured => {
            key.extend_from_slice(text);
            Ok(())
        }
        Trust::Event if text.is_empty() => Err(KeyFault::EmptyMember),
        Trust::Client | Trust::Event => limit.confine(text, key).map_err(KeyFault::Violation),
    }
}

const END: &[u8] = b"\r\n";

/// A bulk string between its `$` and its last line end.
fn append(out: &mut Vec<u8>, payload: &[u8]) {
    out.extend_from_slice(itoa::Buffer::new().format(payload.len()).as_bytes());
    out.extend_from_slice(END);
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// A variable is the index of its value; there is none beyond the last.
    struct Values(Vec<Vec<u8>>);

    #[derive(Debug, PartialEq, Eq)]
    struct Missing;

    impl Source<usize> for Values {
        type Error = Missing;

        fn value(&self, value: &usize) -> Result<&[u8], Missing> {
            self.0.get(*value).map(Vec::as_slice).ok_or(Missing)
        }
    }

    /// A variable is its own value.
    struct Itself(&'static [u8]);

    impl Source<()> for Itself {
        type Error = Infallible;

        fn value(&self, (): &()) -> Result<&[u8], Infallible> {
            Ok(self.0)
        }
    }

    fn literal<V>(text: &str) -> Arg<V> {
        Arg::Literal(text.into())
    }

    fn encoded<V, S: Source<V>>(template: &Template<V>, event: &[u8], source: &S) -> Vec<Vec<u8>>
    where
        S::Error: std::fmt::Debug,
    {
        let mut out = Commands::new();
        template.encode(event, source, &KeyLimit::default(), &mut out).unwrap();
        assert_eq!(out.count(), out.iter().count());
        assert_eq!(out.len(), out.iter().map(<[u8]>::len).sum::<usize>());
        out.iter().map(<[u8]>::to_vec).collect()
    }

    fn payload() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..30),
            2 => "[\r\n$*0-9]{0,12}".prop_map(String::into),
            1 => (any::<u8>(), 0..70_000usize).prop_map(|(byte, len)| vec![byte; len]),
        ]
    }

    proptest! {
        #[test]
        fn encodes_as_redis_rs_does(
            args in prop::collection::vec(
                prop_oneof![
                    2 => payload().prop_map(|bytes| (Some(bytes), None)),
                    2 => payload().prop_map(|bytes| (None, Some(bytes))),
                    1 => Just((None, None)),
                ],
                1..25,
            ),
            event in payload(),
        ) {
            let mut expected = redis::Cmd::new();
            let mut values = Values(Vec::new());
            let args = args.into_iter().map(|arg| match arg {
                (Some(bytes), _) => {
                    expected.arg(bytes.as_slice());
                    Arg::Literal(bytes)
                }
                (_, Some(value)) => {
                    expected.arg(value.as_slice());
                    values.0.push(value);
                    Arg::Value(values.0.len() - 1)
                }
                _ => {
                    expected.arg(event.as_slice());
                    Arg::Event
                }
            }).collect();
            let template = Template::new(None, args);
            prop_assert_eq!(encoded(&template, &event, &values), [expected.get_packed_command()]);
        }
    }

    #[test]
    fn neighbouring_constants_are_one() {
        let args = vec![literal("XADD"), literal("events"), literal("*"), literal("data"), Arg::<()>::Event];
        let template = Template::new(None, args);
        assert_eq!(template.parts.len(), 3);
        let expected = b"*5\r\n$4\r\nXADD\r\n$6\r\nevents\r\n$1\r\n*\r\n$4\r\ndata\r\n$2\r\n{}\r\n";
        assert_eq!(encoded(&template, b"{}", &Itself(b"")), [expected]);
    }

    #[test]
    fn a_condition_that_is_empty_or_0_skips_the_command() {
        let template = Template::new(Some(()), vec![literal("PING")]);
        for no in [&b""[..], b"0"] {
            assert!(encoded(&template, b"{}", &Itself(no)).is_empty(), "{no:?}");
        }
        for yes in [&b"1"[..], b"00", b"0.0", b" ", b"\0", b"false", b"-"] {
            assert_eq!(encoded(&template, b"{}", &Itself(yes)).len(), 1, "{yes:?}");
        }
    }

    #[test]
    fn no_arguments_are_no_command() {
        assert!(encoded(&Template::new(None, Vec::new()), b"{}", &Itself(b"")).is_empty());
    }

    #[test]
    fn an_error_leaves_what_was_encoded_before() {
        let values = Values(vec![b"first".to_vec()]);
        let fine = Template::new(None, vec![literal("ECHO"), Arg::Value(0)]);
        let fails = Template::new(None, vec![literal("MSET"), Arg::Value(0), Arg::Value(1)]);
        let unclear = Template::new(Some(1), vec![literal("PING")]);
        let limit = KeyLimit::default();
        let mut out = Commands::new();
        assert_eq!(fine.encode(b"{}", &values, &limit, &mut out), Ok(()));
        assert_eq!(fails.encode(b"{}", &values, &limit, &mut out), Err(Fault::Source(Missing)));
        assert_eq!(unclear.encode(b"{}", &values, &limit, &mut out), Err(Fault::Source(Missing)));
        let echo: &[u8] = b"*2\r\n$4\r\nECHO\r\n$5\r\nfirst\r\n";
        assert_eq!(out.iter().collect::<Vec<_>>(), [echo]);
        assert_eq!(out.len(), echo.len());
        assert_eq!(fine.encode(b"{}", &values, &limit, &mut out), Ok(()));
        assert_eq!(out.iter().collect::<Vec<_>>(), [echo, echo]);
    }

    #[test]
    fn a_key_is_confined_where_a_client_decides() {
        let part = |value, trust| KeyPart::Value { value, name: "v".into(), trust };
        let key = |parts| Template::new(None, vec![literal("INCR"), Arg::Key(parts)]);
        let encode = |template: &Template<usize>, text: &[u8]| {
            let mut out = Commands::new();
            let values = Values(vec![text.to_vec()]);
            let done = template.encode(b"{}", &values, &KeyLimit::default(), &mut out);
            done.map(|()| out.iter().next().unwrap().to_vec())
        };
        let client = key(vec![KeyPart::Literal(b"{v}:".to_vec()), part(0, Trust::Client)]);
        assert_eq!(encode(&client, b"a"), Ok(b"*2\r\n$4\r\nINCR\r\n$5\r\n{v}:a\r\n".to_vec()));
        assert!(encode(&client, b"").is_ok());
        assert!(matches!(encode(&client, b"a b"), Err(Fault::Key(KeyFault::Violation(_)))));
        assert!(matches!(encode(&client, b"a}"), Err(Fault::Key(KeyFault::Violation(_)))));
        let event = key(vec![KeyPart::Literal(b"v:".to_vec()), part(0, Trust::Event)]);
        assert_eq!(encode(&event, b""), Err(Fault::Key(KeyFault::EmptyMember)));
        let bare = key(vec![part(0, Trust::Client)]);
        assert_eq!(encode(&bare, b""), Err(Fault::Key(KeyFault::Empty)));
        let mut configured = key(vec![part(0, Trust::Configured)]);
        assert_eq!(encode(&configured, b"{a} b"), Ok(b"*2\r\n$4\r\nINCR\r\n$5\r\n{a} b\r\n".to_vec()));
        configured.judge(|_| Trust::Event);
        assert_eq!(encode(&configured, b""), Err(Fault::Key(KeyFault::EmptyMember)));
    }
}
