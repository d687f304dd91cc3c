//! The tape: one node for each value and each name, in the order of the text, and the read-only view of them that other steps use.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::Limits;
use super::error::{Error, Fault, Rule};
use super::names::{self, NameCheck};
use super::scan::{Scanner, nothing_more};

/// Capacity, in nodes, that a tape keeps from one event to the next: 1 MiB of them.
const KEPT_NODES: usize = 64 * 1024;

/// Room for the nodes of one event, used again for the next.
///
/// A node takes 16 bytes, and an event of `n` bytes has at most `n / 2 + 1` of them, a usual one `n / 12`. Above 64 Ki nodes the
/// room is given back by the next [`parse`](Tape::parse), by one that fails, or by [`trim`](Tape::trim).
#[derive(Debug, Default)]
pub struct Tape {
    nodes: Vec<Node>,
    names: NameCheck,
}

impl Tape {
    pub fn new() -> Self {
        Tape::default()
    }

    /// Reads one event, in time proportional to its length; an object with names that only differ far from their ends takes
    /// up to log(members) times as long.
    ///
    /// # Errors
    ///
    /// [`Error::Syntax`] for the first place where the text is not JSON, and then [`Error::Rule`] when it is not an object or
    /// has a duplicate name. Nesting and the number of members are bounded while reading, so these rules come before what follows them.
    pub fn parse<'a>(&'a mut self, text: &'a [u8], limits: &Limits) -> Result<Event<'a>, Error> {
        self.read(text, limits, nothing_more)?;
        Ok(Event { root: Value { text, nodes: &self.nodes, index: 0 } })
    }

    /// Reads the event that `text` begins with, whatever follows it. Gives where it ends; [`event`](Tape::event) has it, by its text.
    ///
    /// # Errors
    ///
    /// As [`parse`](Tape::parse).
    pub fn parse_first(&mut self, text: &[u8], limits: &Limits) -> Result<usize, Error> {
        self.read(text, limits, |_, _| Ok(()))
    }

    /// The event that [`parse`](Tape::parse) read last, once more, if `text` is what it read; `None` when that was no event.
    pub fn event<'a>(&'a self, text: &'a [u8]) -> Option<Event<'a>> {
        let root = self.nodes.first()?;
        (root.kind == Kind::Object && root.end as usize <= text.len())
            .then_some(Event { root: Value { text, nodes: &self.nodes, index: 0 } })
    }

    /// Gives back the room that only an unusually large event needed. The values of that event are gone then.
    pub fn trim(&mut self) {
        if self.nodes.capacity() > KEPT_NODES {
            self.nodes = Vec::new();
        }
        self.names.trim();
    }

    /// Gives where the event ends; `behind` says whether what is there is allowed.
    fn read(
        &mut self,
        text: &[u8],
        limits: &Limits,
        behind: impl FnOnce(&[u8], usize) -> Result<(), Fault>,
    ) -> Result<usize, Error> {
        self.trim();
        self.nodes.clear();
        self.scan(text, limits, behind).map_err(|fault| {
            let error = fault.explain(text, &self.nodes);
            self.nodes.clear();
            self.trim();
            error
        })
    }

    fn scan(
        &mut self,
        text: &[u8],
        limits: &Limits,
        behind: impl FnOnce(&[u8], usize) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        addressable(text.len())?;
        let (end, duplicate) = Scanner::new(text, limits, &mut self.nodes, &mut self.names).run()?;
        behind(text, end)?;
        match (self.nodes.first(), duplicate) {
            (Some(root), _) if root.kind != Kind::Object => {
                Err(Fault::Rule { node: 0, rule: Rule::NotAnObject { found: root.kind } })
            }
            (_, Some(node)) => Err(Fault::Rule { node, rule: Rule::DuplicateName }),
            _ => Ok(end),
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.nodes.capacity().max(self.names.capacity())
    }
}

/// Every offset into a text, its end included, and every index of a node must fit in 32 bits.
pub(super) fn addressable(length: usize) -> Result<(), Fault> {
    match u32::try_from(length) {
        Ok(_) => Ok(()),
        Err(_) => Err(Fault::Rule { node: 0, rule: Rule::TooLarge { max: u32::MAX } }),
    }
}

/// An event that was read: always an object. Borrows the text and the tape.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    root: Value<'a>,
}

impl<'a> Event<'a> {
    /// The object as it was sent, byte for byte, without white space around it.
    pub fn text(&self) -> &'a [u8] {
        self.root.text()
    }

    /// The whole text that was read: the object and the white space around it.
    pub fn source(&self) -> &'a [u8] {
        self.root.text
    }

    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// The member with this name, as [`Value::member`].
    pub fn member(&self, name: &[u8]) -> Option<Value<'a>> {
        self.root.member(name)
    }
}

/// One value of an event. Reading it allocates nothing but the text of a string that has escapes.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    text: &'a [u8],
    nodes: &'a [Node],
    index: u32,
}

impl<'a> Value<'a> {
    pub fn kind(&self) -> Kind {
        self.node().kind
    }

    /// The JSON text as it was sent, byte for byte, without white space around it; correct UTF-8.
    pub fn text(&self) -> &'a [u8] {
        self.node().span(self.text)
    }

    /// Where [`text`](Value::text) is in the event's [`source`](Event::source).
    pub(super) fn span(&self) -> Range<usize> {
        let node = self.node();
        node.start as usize..node.end as usize
    }

    /// The characters of a string in UTF-8, borrowed when it has no escape; `None` for any other kind.
    pub fn string(&self) -> Option<Cow<'a, [u8]>> {
        let node = self.node();
        match node.kind {
            Kind::String => Some(names::unescaped(node.content(self.text), node.escaped)),
            _ => None,
        }
    }

    /// The member of an object whose unescaped name is exactly this; the last one when duplicate names are allowed.
    /// Walks the members, not what is in them. `None` for any other kind.
    pub fn member(&self, name: &[u8]) -> Option<Value<'a>> {
        let members = self.children_of(Kind::Object);
        let mut at = members.next;
        while at < members.end {
            let own = self.nodes.get(at as usize)?;
            // Most names differ in length; with their quotes here.
            let length = (own.end as usize).wrapping_sub(own.start as usize);
            let equal = match own.escaped {
                true => names::equals(own.content(self.text), name, <[u8]>::eq),
                false => length == name.len() + 2 && own.content(self.text) == name,
            };
            let value = at + 1;
            if equal && !own.shadowed {
                return Some(Value { index: value, ..*self });
            }
            at = self.nodes.get(value as usize)?.next;
        }
        None
    }

    /// The members of an object in the order they were sent; none for any other kind.
    pub fn members(&self) -> Members<'a> {
        Members(self.children_of(Kind::Object))
    }

    /// The elements of an array in order; none for any other kind.
    pub fn elements(&self) -> Elements<'a> {
        Elements(self.children_of(Kind::Array))
    }

    fn children_of(&self, kind: Kind) -> Children<'a> {
        let node = self.node();
        let first = self.index + 1;
        Children {
            text: self.text,
            nodes: self.nodes,
            next: first,
            end: if node.kind == kind { node.next } else { first },
        }
    }

    fn node(&self) -> Node {
        self.nodes.get(self.index as usize).copied().unwrap_or(Node::NULL)
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({})", String::from_utf8_lossy(self.text()))
    }
}

/// The name of a member.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    content: &'a [u8],
    /// Offset of the quote before it.
    start: u32,
    escaped: bool,
    shadowed: bool,
}

impl<'a> Name<'a> {
    /// The name as it was sent, without its quotes: escapes are still escapes.
    pub fn raw(&self) -> &'a [u8] {
        self.content
    }

    /// Where its first quote is in the event's [`source`](Event::source).
    pub(super) fn start(&self) -> usize {
        self.start as usize
    }

    /// The characters of the name in UTF-8, borrowed when it has no escape.
    pub fn unescaped(&self) -> Cow<'a, [u8]> {
        names::unescaped(self.content, self.escaped)
    }

    /// Whether a later member of the same object has this name too, so that a look-up never finds this one. It can be so only
    /// when duplicate names are allowed.
    pub fn is_shadowed(&self) -> bool {
        self.shadowed
    }

    /// Whether the unescaped name is exactly `name`. Allocates nothing.
    pub fn is(&self, name: &[u8]) -> bool {
        if self.escaped { names::equals(self.content, name, <[u8]>::eq) } else { self.content == name }
    }

    /// Whether the unescaped name is `name` when A to Z count as a to z. Allocates nothing.
    pub fn is_ignoring_ascii_case(&self, name: &[u8]) -> bool {
        if self.escaped {
            names::equals(self.content, name, <[u8]>::eq_ignore_ascii_case)
        } else {
            self.content.eq_ignore_ascii_case(name)
        }
    }
}

impl fmt::Debug for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", String::from_utf8_lossy(self.content))
    }
}

/// The members of an object, see [`Value::members`].
#[derive(Debug, Clone)]
pub struct Members<'a>(Children<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (Name<'a>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.0.next()?.node();
        let value = self.0.next()?;
        let (content, start) = (name.content(self.0.text), name.start);
        let name = Name { content, start, escaped: name.escaped, shadowed: name.shadowed };
        Some((name, value))
    }
}

/// The elements of an array, see [`Value::elements`].
#[derive(Debug, Clone)]
pub struct Elements<'a>(Children<'a>);

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next()
    }
}

/// The nodes directly below a container: values, and in an object each one's name before it.
#[derive(Clone)]
struct Children<'a> {
    text: &'a [u8],
    nodes: &'a [Node],
    next: u32,
    end: u32,
}

impl<'a> Children<'a> {
    fn next(&mut self) -> Option<Value<'a>> {
        if self.next >= self.end {
            return None;
        }
        let child = Value { text: self.text, nodes: self.nodes, index: self.next };
        self.next = self.nodes.get(self.next as usize)?.next;
        Some(child)
    }
}

impl fmt::Debug for Children<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nodes {}..{}", self.next, self.end)
    }
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    True,
    False,
    Null,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Object => "an object",
            Kind::Array => "an array",
            Kind::String => "a string",
            Kind::Number => "a number",
            Kind::True => "true",
            Kind::False => "false",
            Kind::Null => "null",
        })
    }
}

/// A span of the text. Containers that are still open are the scanner's stack, linked through `next`, so that it needs no other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// Offset of the first byte; of the quote for a string.
    pub(super) start: u32,
    /// Offset after the last byte; the number of members so far while open.
    pub(super) end: u32,
    /// The node after this one and all below it; the container around it while open.
    pub(super) next: u32,
    pub(super) kind: Kind,
    /// A string with at least one escape.
    pub(super) escaped: bool,
    pub(super) open: bool,
    /// A name that a later member of the same object has too.
    pub(super) shadowed: bool,
}

impl Node {
    const NULL: Node =
        Node { start: 0, end: 0, next: 0, kind: Kind::Null, escaped: false, open: false, shadowed: false };

    pub(super) fn span<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// What is between the quotes of a string.
    pub(super) fn content<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        match self.span(text) {
            [b'"', content @ .., b'"'] => content,
            _ => &[],
        }
    }
}
