//! A JSON pointer (RFC 6901) from the configuration comes in, the value of an event that it points to goes out.
//!
//! Parsed once, followed for every event. Never changes an event and never guesses: a step that leads nowhere gives nothing.

use thiserror::Error;

use super::tape::{Kind, Value};

/// The way from an event down to one of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer {
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Step {
    /// Unescaped; any text is a name.
    name: Box<[u8]>,
    /// What the same text means in an array, if it can be an index.
    index: Option<usize>,
}

/// Why a text is no JSON pointer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PointerError {
    #[error("pointer \"{pointer}\" must be empty or begin with \"/\"")]
    Start { pointer: String },
    /// `~` stands before 0 or 1 only.
    #[error("invalid escape \"{escape}\" in pointer \"{pointer}\"")]
    Escape { escape: String, pointer: String },
}

impl Pointer {
    /// Reads a pointer in its string form (RFC 6901, section 3): `/` before each step, `~1` for `/` and `~0` for `~` in it.
    /// The empty text points to the event itself.
    ///
    /// # Errors
    ///
    /// [`PointerError::Start`] where the first step has no `/` before it, [`PointerError::Escape`] for the first `~` that is followed
    /// by anything else.
    pub fn parse(text: &str) -> Result<Pointer, PointerError> {
        if text.is_empty() {
            return Ok(Pointer { steps: Vec::new() });
        }
        let Some(steps) = text.strip_prefix('/') else {
            return Err(PointerError::Start { pointer: text.to_owned() });
        };
        let step = |step| match unescaped(step) {
            Ok(name) => Ok(Step { index: index(&name), name: name.into_bytes().into() }),
            Err(escape) => Err(PointerError::Escape { escape, pointer: text.to_owned() }),
        };
        Ok(Pointer { steps: steps.split('/').map(step).collect::<Result<_, _>>()? })
    }

    /// Follows the pointer down from `root` (RFC 6901, section 4): a member of an object by its unescaped name, the last one when
    /// duplicate names are allowed, and an element of an array by its index from 0, without leading zeros. `None` where there is none;
    /// `-`, the element behind an array's last, is none.
    ///
    /// Allocates nothing. Walks the members or elements of each container on the way, not what is in them.
    pub fn find<'a>(&self, root: Value<'a>) -> Option<Value<'a>> {
        self.steps.iter().try_fold(root, |value, step| match value.kind() {
            Kind::Object => value.member(&step.name),
            Kind::Array => value.elements().nth(step.index?),
            _ => None,
        })
    }
}

/// The text of a step, or the escape that is none.
fn unescaped(step: &str) -> Result<String, String> {
    let mut name = String::with_capacity(step.len());
    let mut characters = step.chars();
    while let Some(character) = characters.next() {
        name.push(match character {
            '~' => match characters.next() {
                Some('0') => '~',
                Some('1') => '/',
                other => return Err(['~'].into_iter().chain(other).collect()),
            },
            other => other,
        });
    }
    Ok(name)
}

fn index(name: &str) -> Option<usize> {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    if digits && (name == "0" || !name.starts_with('0')) { name.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::super::{DuplicateNames, Limits, Tape};
    use super::*;

    fn found(text: &str, pointer: &str) -> Option<String> {
        let mut tape = Tape::new();
        let limits = Limits { duplicate_names: DuplicateNames::Allow, ..Limits::default() };
        let event = tape.parse(text.as_bytes(), &limits).expect("an event");
        let value = Pointer::parse(pointer).expect("a pointer").find(event.root())?;
        Some(String::from_utf8(value.text().to_vec()).expect("UTF-8"))
    }

    #[test]
    fn the_examples_of_rfc_6901_lead_where_it_says() {
        let text = r#"{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}"#;
        let cases = [
            ("", text),
            ("/foo", r#"["bar","baz"]"#),
            ("/foo/0", r#""bar""#),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ];
        for (pointer, value) in cases {
            assert_eq!(found(text, pointer).as_deref(), Some(value), "{pointer}");
        }
    }

    #[test]
    fn a_step_that_leads_nowhere_finds_nothing() {
        let text = r#"{"list":[[1],2],"0":"zero","deep":{"01":1,"-":2},"text":"t"}"#;
        let nowhere = [
            "/absent",
            "/list/2",
            "/list/-",
            "/list/00",
            "/list/01",
            "/list/+1",
            "/list/-1",
            "/list/",
            "/list/ 1",
            "/list/\u{0661}",
            "/list/18446744073709551616",
            "/list/1/0",
            "/text/0",
            "/text/",
            "/List",
            "/deep/",
        ];
        for pointer in nowhere {
            assert_eq!(found(text, pointer), None, "{pointer}");
        }
        for (pointer, value) in [("/0", "\"zero\""), ("/list/0/0", "1"), ("/deep/01", "1"), ("/deep/-", "2")] {
            assert_eq!(found(text, pointer).as_deref(), Some(value), "{pointer}");
        }
    }

    #[test]
    fn names_are_compared_unescaped_and_the_last_duplicate_is_found() {
        assert_eq!(found(r#"{"caf\u00e9":1}"#, "/café").as_deref(), Some("1"));
        assert_eq!(found(r#"{"\u007e\u002f":1}"#, "/~0~1").as_deref(), Some("1"));
        assert_eq!(found(r#"{"~1":1,"/":2}"#, "/~01").as_deref(), Some("1"));
        assert_eq!(found(r#"{"a":{"b":1},"\u0061":{"c":2}}"#, "/a").as_deref(), Some(r#"{"c":2}"#));
        assert_eq!(found(r#"{"a":{"b":1},"a":{"c":2}}"#, "/a/b"), None);
    }

    #[test]
    fn what_is_no_pointer_is_refused_with_the_offending_part() {
        let cases = [
            ("a/b", r#"pointer "a/b" must be empty or begin with "/""#),
            ("#/a", r##"pointer "#/a" must be empty or begin with "/""##),
            (" /a", r#"pointer " /a" must be empty or begin with "/""#),
            ("/a~2b", r#"invalid escape "~2" in pointer "/a~2b""#),
            ("/a~/b", r#"invalid escape "~" in pointer "/a~/b""#),
            ("/a/b~", r#"invalid escape "~" in pointer "/a/b~""#),
            ("/~0~é~3", r#"invalid escape "~é" in pointer "/~0~é~3""#),
        ];
        for (pointer, message) in cases {
            let error = Pointer::parse(pointer).expect_err(pointer);
            assert_eq!(error.to_string(), message);
        }
    }

    fn json() -> impl Strategy<Value = Json> {
        let leaf =
            prop_oneof![Just(Json::Null), any::<u64>().prop_map(Json::from), "[a~/\"é]{0,3}".prop_map(Json::from)];
        leaf.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
                prop::collection::btree_map("[a-c01~/é\n]{0,2}", inner, 0..5)
                    .prop_map(|members| Json::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn finds_what_serde_json_finds(json in json(), steps in prop::collection::vec("[a-c01~/é\n-]{0,2}", 0..5)) {
            let json = Json::Object([("a".to_owned(), json)].into_iter().collect());
            let text = json.to_string();
            let mut tape = Tape::new();
            let event = tape.parse(text.as_bytes(), &Limits::default()).expect("an event");
            let steps = steps.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1")));
            let pointer = steps.fold("/a".to_owned(), |pointer, step| pointer + &step);
            let ours = Pointer::parse(&pointer).expect("a pointer").find(event.root());
            let ours = ours.map(|value| serde_json::from_slice::<Json>(value.text()).expect("JSON"));
            prop_assert_eq!(ours.as_ref(), json.pointer(&pointer));
        }

        #[test]
        fn accepts_exactly_the_grammar_of_rfc_6901(text in "[/~012a]{0,8}") {
            let escapes = text.replace("~0", "0").replace("~1", "1");
            let valid = (text.is_empty() || text.starts_with('/')) && !escapes.contains('~');
            prop_assert_eq!(Pointer::parse(&text).is_ok(), valid);
        }
    }
}
