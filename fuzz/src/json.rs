//! What serde_json says a text is: a tree with the span of every value.
//!
//! Spans come from its raw values, so that no number is converted and none can be out of range, and all members are kept, in order.

use std::fmt;

use ngx_http_meteorit_module::event::Kind;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// How many levels are read; the containers below are [`Content::Unread`].
pub const DEPTH: u32 = 66;

#[derive(Debug)]
pub struct Json<'a> {
    /// As it stands in the text, without white space around it.
    pub text: &'a str,
    pub kind: Kind,
    pub content: Content<'a>,
}

#[derive(Debug)]
pub enum Content<'a> {
    /// A number, true, false or null.
    Plain,
    String(String),
    Elements(Vec<Json<'a>>),
    Members(Vec<(String, Json<'a>)>),
    Unread,
}

/// Why a text is no JSON.
#[derive(Debug)]
pub struct NotJson {
    /// Whether it only ends too soon.
    pub ended: bool,
}

pub fn read(text: &[u8]) -> Result<Json<'_>, NotJson> {
    serde_json::from_slice(text).and_then(|raw| tree(raw, DEPTH)).map_err(|error| NotJson { ended: error.is_eof() })
}

impl<'a> Json<'a> {
    /// The members of an object, none of another value.
    pub fn members(&self) -> &[(String, Json<'a>)] {
        match &self.content {
            Content::Members(members) => members,
            _ => &[],
        }
    }

    /// The elements of an array, none of another value.
    pub fn elements(&self) -> &[Json<'a>] {
        match &self.content {
            Content::Elements(elements) => elements,
            _ => &[],
        }
    }

    /// Where the value begins in the text that was read.
    pub fn offset_in(&self, text: &[u8]) -> usize {
        self.text.as_ptr() as usize - text.as_ptr() as usize
    }
}

fn tree(raw: &RawValue, levels: u32) -> Result<Json<'_>, serde_json::Error> {
    let text = raw.get();
    let below = levels.saturating_sub(1);
    let (kind, content) = match text.as_bytes()[0] {
        b'{' | b'[' if levels == 0 => (if text.starts_with('{') { Kind::Object } else { Kind::Array }, Content::Unread),
        b'{' => {
            let members = serde_json::from_str::<Members>(text)?.0.into_iter();
            let members = members.map(|(name, value)| Ok((name, tree(value, below)?)));
            (Kind::Object, Content::Members(members.collect::<Result<_, serde_json::Error>>()?))
        }
        b'[' => {
            let elements = serde_json::from_str::<Vec<&RawValue>>(text)?.into_iter();
            (Kind::Array, Content::Elements(elements.map(|value| tree(value, below)).collect::<Result<_, _>>()?))
        }
        b'"' => (Kind::String, Content::String(serde_json::from_str(text)?)),
        b't' => (Kind::True, Content::Plain),
        b'f' => (Kind::False, Content::Plain),
        b'n' => (Kind::Null, Content::Plain),
        _ => (Kind::Number, Content::Plain),
    };
    Ok(Json { text, kind, content })
}

/// All members of an object, those with the same name too.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}
