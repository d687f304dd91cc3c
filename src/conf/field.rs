//! `meteorit_field NAME VALUE [json]`: a member that the server adds to each event.

use super::location::compile;
use super::words::invalid;
use crate::event::{FieldName, Limits, is_json};
use crate::ngx::{Complex, Conf};

/// A member to add, replace or, where its value is empty, remove.
pub struct Field {
    /// The member's name, plain.
    pub text: String,
    pub name: FieldName,
    pub value: Complex,
    /// Whether the value is JSON already, and not the text of a string.
    pub json: bool,
}

impl Field {
    pub fn read(conf: &mut Conf) -> Result<Field, String> {
        let words = conf.words();
        let [_, name, value, rest @ ..] = &*words else { return Err(String::new()) };
        let json = match rest {
            [] => false,
            [word] if word == b"json" => true,
            [word, ..] => return Err(invalid(word, "meteorit_field", "\"json\"")),
        };
        let text = String::from_utf8(name.clone()).map_err(|_| "the name of a member is UTF-8".to_owned())?;
        if text.contains('$') {
            return Err(format!("invalid name \"{text}\" in \"meteorit_field\" directive: it must be literal"));
        }
        if json && !value.is_empty() && !value.contains(&b'$') && !is_json(value, &Limits::default()) {
            let value = String::from_utf8_lossy(value);
            return Err(format!("the value \"{value}\" in \"meteorit_field\" directive is not JSON"));
        }
        Ok(Field { name: FieldName::new(&text), text, value: compile(conf, value)?, json })
    }
}
