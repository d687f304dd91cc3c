//! The event: takes in the bytes of a body and hands on a tape, the spans of every value in them, or says precisely what is wrong.
//!
//! One pass, no recursion, no copy, and no allocation once the [`Tape`] is warm: fields, enrichment and schemas read the tape
//! instead of parsing again. It never changes a byte of the event, never converts a number and never guesses:
//! the grammar is RFC 8259 to the letter, in UTF-8 only, without a byte order mark.
//!
//! ```
//! use ngx_http_meteorit_module::event::{Limits, Tape};
//!
//! let mut tape = Tape::new();
//! let event = tape.parse(br#"{"page": "/caf\u00e9", "ms": 12.50}"#, &Limits::default())?;
//! assert_eq!(event.member(b"page").and_then(|page| page.string()).as_deref(), Some("/café".as_bytes()));
//! assert_eq!(event.member(b"ms").map(|ms| ms.text()), Some(&b"12.50"[..]));
//!
//! let error = tape.parse(br#"{"page": 1, "page": 2}"#, &Limits::default()).err();
//! assert_eq!(error.map(|error| error.to_string()).as_deref(), Some("duplicate name at \"/page\""));
//! # Ok::<(), ngx_http_meteorit_module::event::Error>(())
//! ```

mod enrich;
mod error;
mod names;
mod pointer;
pub(crate) mod scan;
mod tape;
#[cfg(test)]
mod tests;

pub use enrich::{Change, FieldName, enrich, json_string};
pub(crate) use error::Fault;
pub use error::{Error, Problem, Rule};
pub use pointer::{Pointer, PointerError};
pub use tape::{Elements, Event, Kind, Members, Name, Tape, Value};

/// Whether `text` is one JSON value, of any kind, that a member of an event with these limits may have.
pub fn is_json(text: &[u8], limits: &Limits) -> bool {
    let mut object = Vec::with_capacity(text.len() + 8);
    object.extend_from_slice(b"{\"\":");
    object.extend_from_slice(text);
    object.push(b'}');
    let mut tape = Tape::new();
    let Ok(event) = tape.parse(&object, limits) else { return false };
    // Two members, or an object that ends inside the text, are more than one value.
    let mut members = event.root().members();
    members.next().is_some_and(|(_, value)| value.text() == text.trim_ascii()) && members.next().is_none()
}

/// What an event may be beyond correct JSON. Its size in bytes is bounded by whoever reads the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// How deep objects and arrays may nest; the event itself is at depth 1.
    pub max_depth: u32,
    /// How many members each single object may have. Elements of arrays are bounded by the size of the event only.
    pub max_members: u32,
    /// Whether one object may have the same name twice.
    pub duplicate_names: DuplicateNames,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { max_depth: 64, max_members: 1024, duplicate_names: DuplicateNames::Reject }
    }
}

/// What becomes of an object with the same name twice, which RFC 8259 (section 4) leaves open and readers understand differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateNames {
    /// The event breaks a rule: [`Rule::DuplicateName`].
    Reject,
    /// All of them are on the tape; a look-up by name gives the last one.
    Allow,
}
