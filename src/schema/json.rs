//! The tape as the validator reads it: implements the traits of `jsonschema::json` for [`Value`], so that nothing is parsed or copied
//! again.
//!
//! Numbers mean what they mean to `serde_json` without arbitrary precision, which the schema itself is read with: exact within 64
//! bits, else the nearest f64; only `multipleOf` divides the digits that were sent. One beyond f64, which `serde_json` refuses, is larger
//! than every bound and equal to nothing but itself.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, JsonNumber, Node, NodeIdentity, Object};
use serde_json::Value as Owned;

use crate::event::{self, Kind, Value};

/// Names the representation.
pub(super) struct Tape;

/// A value of an event, or one of its names where `propertyNames` looks at it as a value.
#[derive(Clone)]
pub(super) enum TapeNode<'a> {
    Value(Value<'a>),
    Name(&'a str),
}

impl Json for Tape {
    type Node<'a> = TapeNode<'a>;
    type PreparedKey = Box<[u8]>;
    type StringBuffer = ();

    // A look-up walks half of the members, a pass all of them.
    const KEYS_PER_LOOKUP: usize = 2;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> Box<[u8]> {
        key.as_bytes().into()
    }

    fn with_string_node<T>((): &mut (), string: &str, f: impl FnOnce(TapeNode<'_>) -> T) -> T {
        f(TapeNode::Name(string))
    }
}

impl<'a> TapeNode<'a> {
    fn kind(&self) -> Kind {
        match self {
            TapeNode::Value(value) => value.kind(),
            TapeNode::Name(_) => Kind::String,
        }
    }

    fn value_of(&self, kind: Kind) -> Option<Value<'a>> {
        match self {
            TapeNode::Value(value) if value.kind() == kind => Some(*value),
            _ => None,
        }
    }
}

impl<'a> Node<'a, Tape> for TapeNode<'a> {
    type Object = Members<'a>;
    type Array = Elements<'a>;
    type Number = Number<'a>;

    fn as_object(&self) -> Option<Members<'a>> {
        self.value_of(Kind::Object).map(Members)
    }

    fn as_array(&self) -> Option<Elements<'a>> {
        self.value_of(Kind::Array).map(Elements)
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            TapeNode::Value(value) => value.string().map(utf8),
            TapeNode::Name(name) => Some(Cow::Borrowed(name)),
        }
    }

    fn as_number(&self) -> Option<Number<'a>> {
        self.value_of(Kind::Number).map(Number::of)
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.kind() {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        self.kind() == Kind::Null
    }

    fn is_number(&self) -> bool {
        self.kind() == Kind::Number
    }

    fn json_type(&self) -> JsonType {
        match self.kind() {
            Kind::Object => JsonType::Object,
            Kind::Array => JsonType::Array,
            Kind::String => JsonType::String,
            Kind::Number => JsonType::Number,
            Kind::True | Kind::False => JsonType::Boolean,
            Kind::Null => JsonType::Null,
        }
    }

    fn equals_value(&self, expected: &Owned) -> bool {
        match self {
            TapeNode::Value(value) => equals(*value, expected),
            TapeNode::Name(name) => expected.as_str() == Some(name),
        }
    }

    /// Nothing: the crate makes its messages of it, which are never read, and a copy of what is wrong would cost more than all the rest.
    /// Where a verdict depends on a value, [`Node::equals_value`] and [`Array::is_unique`] are in its place.
    fn to_value(&self) -> Cow<'a, Owned> {
        Cow::Owned(Owned::Null)
    }

    /// Each value begins at a byte of its own, and no name where a value does.
    fn identity(&self) -> Option<NodeIdentity> {
        let start = match self {
            TapeNode::Value(value) => value.text().as_ptr(),
            TapeNode::Name(name) => name.as_ptr(),
        };
        Some(NodeIdentity::new(start as usize))
    }
}

/// An object; of members with the same name only the last one exists.
pub(super) struct Members<'a>(Value<'a>);

impl<'a> Object<'a, Tape> for Members<'a> {
    type Node = TapeNode<'a>;
    type MemberName = Cow<'a, str>;
    type MembersIter = MembersIter<'a>;

    fn len(&self) -> usize {
        visible(self.0).count()
    }

    fn is_empty(&self) -> bool {
        self.0.members().next().is_none()
    }

    fn get(&self, key: &Box<[u8]>) -> Option<TapeNode<'a>> {
        self.0.member(key).map(TapeNode::Value)
    }

    fn members(&self) -> MembersIter<'a> {
        MembersIter(self.0.members())
    }
}

pub(super) struct MembersIter<'a>(event::Members<'a>);

impl<'a> Iterator for MembersIter<'a> {
    type Item = (Cow<'a, str>, TapeNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.0.find(|(name, _)| !name.is_shadowed())?;
        Some((utf8(name.unescaped()), TapeNode::Value(value)))
    }
}

/// An array.
pub(super) struct Elements<'a>(Value<'a>);

impl<'a> Array<'a, Tape> for Elements<'a> {
    type Node = TapeNode<'a>;
    type ElementsIter = ElementsIter<'a>;

    fn len(&self) -> usize {
        self.0.elements().count()
    }

    fn elements(&self) -> ElementsIter<'a> {
        ElementsIter(self.0.elements())
    }

    fn is_unique(&self) -> bool {
        unique(self.0)
    }
}

pub(super) struct ElementsIter<'a>(event::Elements<'a>);

impl<'a> Iterator for ElementsIter<'a> {
    type Item = TapeNode<'a>;

    fn next(&mut self) -> Option<TapeNode<'a>> {
        self.0.next().map(TapeNode::Value)
    }
}

/// A number as it was sent.
#[derive(Clone, Copy)]
pub(super) struct Number<'a>(&'a str);

impl<'a> Number<'a> {
    fn of(value: Value<'a>) -> Self {
        Number(std::str::from_utf8(value.text()).unwrap_or("0"))
    }

    /// Neither a fraction nor an exponent.
    fn is_plain(&self) -> bool {
        !self.0.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
    }

    /// What 64 bits hold, with or without a sign.
    fn integer(&self) -> Option<i128> {
        self.as_u64().map(i128::from).or_else(|| self.as_i64().map(i128::from))
    }
}

impl JsonNumber for Number<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    fn as_f64(&self) -> Option<f64> {
        self.0.parse().ok().filter(|number: &f64| number.is_finite())
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    fn to_number(&self) -> Cow<'_, serde_json::Number> {
        Cow::Owned(serde_json::from_str(self.0).unwrap_or_else(|_| serde_json::Number::from(0)))
    }

    /// 1.0 is one, and so is whatever f64 cannot tell from a whole number.
    fn is_integer(&self) -> bool {
        self.is_plain() || self.as_f64().is_none_or(|number| number.fract() == 0.0)
    }

    fn is_written_as_integer(&self) -> bool {
        self.is_plain()
    }
}

/// The members that a look-up can find.
fn visible(object: Value<'_>) -> impl Iterator<Item = (event::Name<'_>, Value<'_>)> {
    object.members().filter(|(name, _)| !name.is_shadowed())
}

/// The scanner has checked the bytes.
fn utf8(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => Cow::Borrowed(std::str::from_utf8(bytes).unwrap_or_default()),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8(bytes).unwrap_or_default()),
    }
}

/// Equality of JSON Schema (2020-12 Core, section 4.2.2) with a value of the schema.
fn equals(value: Value<'_>, expected: &Owned) -> bool {
    match (value.kind(), expected) {
        (Kind::Null, Owned::Null) => true,
        (Kind::True, Owned::Bool(expected)) => *expected,
        (Kind::False, Owned::Bool(expected)) => !expected,
        (Kind::String, Owned::String(expected)) => value.string().as_deref() == Some(expected.as_bytes()),
        (Kind::Number, Owned::Number(expected)) => {
            let integer = expected.as_u64().map(i128::from).or_else(|| expected.as_i64().map(i128::from));
            let number = Number::of(value);
            same_number((number.integer(), number.as_f64()), (integer, expected.as_f64()))
        }
        (Kind::Array, Owned::Array(expected)) => {
            let mut expected = expected.iter();
            value.elements().all(|element| expected.next().is_some_and(|expected| equals(element, expected)))
                && expected.next().is_none()
        }
        (Kind::Object, Owned::Object(expected)) => {
            let expects = |name: event::Name<'_>, value| {
                let name = utf8(name.unescaped());
                expected.get(&*name).is_some_and(|expected| equals(value, expected))
            };
            visible(value).count() == expected.len() && visible(value).all(|(name, value)| expects(name, value))
        }
        _ => false,
    }
}

/// Each as an integer of 64 bits and as an f64, so far as it is one.
fn same_number(one: (Option<i128>, Option<f64>), other: (Option<i128>, Option<f64>)) -> bool {
    // The conversion to i128 is exact wherever it matters: other f64 are no whole numbers, or far beyond 64 bits.
    let is = |integer: i128, float: f64| float.fract() == 0.0 && float as i128 == integer;
    match (one, other) {
        ((Some(one), _), (Some(other), _)) => one == other,
        ((Some(integer), _), (None, Some(float))) | ((None, Some(float)), (Some(integer), _)) => is(integer, float),
        ((None, Some(one)), (None, Some(other))) => one == other,
        _ => false,
    }
}

/// The same between two values of an event.
fn same(one: Value<'_>, other: Value<'_>) -> bool {
    match (one.kind(), other.kind()) {
        (Kind::String, Kind::String) => one.string() == other.string(),
        (Kind::Number, Kind::Number) => {
            let (left, right) = (Number::of(one), Number::of(other));
            one.text() == other.text()
                || same_number((left.integer(), left.as_f64()), (right.integer(), right.as_f64()))
        }
        (Kind::Array, Kind::Array) => {
            let mut others = other.elements();
            one.elements().all(|one| others.next().is_some_and(|other| same(one, other))) && others.next().is_none()
        }
        (Kind::Object, Kind::Object) => {
            visible(one).count() == visible(other).count()
                && visible(one).all(|(name, one)| other.member(&name.unescaped()).is_some_and(|other| same(one, other)))
        }
        (one, other) => one == other,
    }
}

/// Up to this many strings, numbers and the like are compared with each other.
const FEW: usize = 16;

/// Whether no element of an array equals another one, in time proportional to its length.
fn unique(array: Value<'_>) -> bool {
    let mut elements = array.elements();
    let is_scalar = |value: Value<'_>| !matches!(value.kind(), Kind::Object | Kind::Array);
    if elements.clone().count() <= FEW && elements.clone().all(is_scalar) {
        while let Some(one) = elements.next() {
            if elements.clone().any(|other| same(one, other)) {
                return false;
            }
        }
        return true;
    }
    // Keyed, so that nobody can send what collides.
    let state = RandomState::new();
    let mut seen = HashSet::with_hasher(state.clone());
    elements.all(|value| seen.insert(Hashed { value, state: &state }))
}

struct Hashed<'a> {
    value: Value<'a>,
    state: &'a RandomState,
}

impl PartialEq for Hashed<'_> {
    fn eq(&self, other: &Self) -> bool {
        same(self.value, other.value)
    }
}

impl Eq for Hashed<'_> {}

impl Hash for Hashed<'_> {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let hashed = |value| Hashed { value, state: self.state };
        match self.value.kind() {
            Kind::String => self.value.string().hash(hasher),
            // Equal numbers are the same f64, and -0.0 is 0.
            Kind::Number => {
                let number = Number::of(self.value).as_f64().unwrap_or(f64::INFINITY);
                if number == 0.0 { 0_u64.hash(hasher) } else { number.to_bits().hash(hasher) }
            }
            Kind::Array => self.value.elements().for_each(|element| hashed(element).hash(hasher)),
            // Whatever the order.
            Kind::Object => {
                let member =
                    |(name, value): (event::Name<'_>, _)| self.state.hash_one((name.unescaped(), hashed(value)));
                let sum = visible(self.value).map(member).fold(0_u64, u64::wrapping_add);
                sum.hash(hasher);
            }
            kind => kind.hash(hasher),
        }
    }
}
