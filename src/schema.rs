//! The schema: takes in an event and says whether it is what a JSON Schema of draft 7 or 2020-12 describes, and where not.
//!
//! It reads the event's tape, converts nothing and allocates nothing for a valid event, except for strings with escapes and `uniqueItems`
//! of more than a few elements. It never follows a reference to the network nor out of the schema's own directory, and never repeats a
//! value of the event.

mod files;
mod json;
#[cfg(test)]
mod tests;
mod violation;

use std::path::Path;

use jsonschema::Validator;

use crate::event::Event;

pub use files::SchemaError;
pub use violation::Violation;

/// A compiled schema. It holds plain memory only: no thread, no handle, no lazily opened file, so the workers share what the master
/// compiled.
pub struct Schema {
    validator: Validator<json::Tape>,
    /// Whether a validation that stops at the first violation has looked at no other one: it must describe what is wrong with each
    /// of several alternatives.
    stops: bool,
}

/// Up to this many bytes of an event, all violations are looked for.
const LISTED: usize = 16 * 1024;

impl Schema {
    /// Reads and compiles a schema with all that it refers to. Without a `$schema` it is 2020-12; formats are not asserted.
    ///
    /// A `$ref` may lead to other files in the directory of `path`, or below it. Patterns are those of the crate `regex`, whose
    /// time is linear in the text: no look-around and no back-references.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is no JSON, and what is wrong in a schema, with the file and the JSON pointer in it.
    pub fn load(path: &Path) -> Result<Schema, SchemaError> {
        files::compile(path).map(|(validator, stops)| Schema { validator, stops })
    }

    /// Whether the event is valid.
    pub fn is_valid(&self, event: Event<'_>) -> bool {
        self.validator.is_valid(json::TapeNode::Value(event.root()))
    }

    /// What is wrong with an event, in the order of the schema, up to `max`, and nothing of its values.
    ///
    /// The crate describes each violation before it gives the first, in half a microsecond and half a KiB each: a million wrong elements
    /// would be a long time. Of an event beyond 16 KiB there is hence only the first one; and where the schema has `anyOf` or `oneOf`,
    /// which cannot be stopped, one without a place.
    pub fn violations(&self, event: Event<'_>, max: usize) -> Vec<Violation> {
        let root = json::TapeNode::Value(event.root());
        if event.text().len() <= LISTED {
            let errors = self.validator.iter_errors(root);
            return errors.flat_map(|error| violation::explain(&error)).take(max).collect();
        }
        let mut found = match self.stops {
            true => self.validator.validate(root).map_or_else(|error| violation::explain(&error), |()| Vec::new()),
            false if self.is_valid(event) => Vec::new(),
            false => vec![Violation::somewhere()],
        };
        found.truncate(max.min(1));
        found
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Schema").finish_non_exhaustive()
    }
}
