//! What is wrong with an event, in words of ours: those of the crate quote the event.

use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use jsonschema::{JsonType, ValidationError};

/// One thing that is wrong with an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The JSON pointer (RFC 6901) of the value that is wrong, or of the one that lacks something; cut with an ellipsis at 1000 bytes.
    pub pointer: String,
    /// What the schema asks for, in at most 200 characters. It repeats texts of the schema, and no text of the event.
    pub detail: String,
}

impl Violation {
    /// In an event that is too large to look for the place.
    pub(super) fn somewhere() -> Violation {
        Violation { pointer: String::new(), detail: "not what the schema describes".into() }
    }
}

const POINTER: usize = 1000;
const DETAIL: usize = 200;

/// A violation for each member that the schema does not allow, else one.
pub(super) fn explain(error: &ValidationError<'_>) -> Vec<Violation> {
    let pointer = error.instance_path().as_str();
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let below = |name: &String| {
                let name = name.replace('~', "~0").replace('/', "~1");
                violation(format!("{pointer}/{name}"), "not a member that the schema allows".into())
            };
            unexpected.iter().map(below).collect()
        }
        kind => vec![violation(pointer.to_owned(), detail(kind))],
    }
}

fn violation(pointer: String, detail: String) -> Violation {
    let pointer = if pointer.len() < POINTER { pointer } else { cut(&pointer, POINTER / 4) };
    let detail = if detail.len() <= DETAIL { detail } else { cut(&detail, DETAIL) };
    Violation { pointer, detail }
}

/// The first `characters` of a text, the last of them an ellipsis; the text itself if it has fewer.
fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some(_) => text.chars().take(characters - 1).chain(['…']).collect(),
    }
}

fn detail(kind: &Kind) -> String {
    match kind {
        Kind::Type { kind: TypeKind::Single(one) } => format!("must be {}", of_type(*one)),
        Kind::Type { kind: TypeKind::Multiple(some) } => {
            let types: Vec<_> = some.iter().map(of_type).collect();
            format!("must be {}", types.join(" or "))
        }
        Kind::Required { property } => format!("must have a member {property}"),
        Kind::Enum { options } => format!("must be one of {options}"),
        Kind::Constant { expected_value } => format!("must be {expected_value}"),
        Kind::Pattern { pattern } => format!("must match {pattern}"),
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("must have at least {}", many(*limit, "character")),
        Kind::MaxLength { limit } => format!("must have at most {}", many(*limit, "character")),
        Kind::MinItems { limit } => format!("must have at least {}", many(*limit, "element")),
        Kind::MaxItems { limit } => format!("must have at most {}", many(*limit, "element")),
        Kind::AdditionalItems { limit } => format!("must have at most {}", many(*limit as u64, "element")),
        Kind::MinProperties { limit } => format!("must have at least {}", many(*limit, "member")),
        Kind::MaxProperties { limit } => format!("must have at most {}", many(*limit, "member")),
        Kind::UniqueItems => "must not have two equal elements".into(),
        Kind::UnevaluatedItems { .. } => "has elements that the schema does not allow".into(),
        Kind::Contains => "must contain other elements, or another number of them".into(),
        Kind::PropertyNames { error } => format!("a member's name {}", detail(error.kind())),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => "must be one of the alternatives of the schema".into(),
        Kind::OneOfMultipleValid { .. } => "must be only one of the alternatives of the schema".into(),
        Kind::Not { .. } => "must not be what the schema excludes".into(),
        Kind::FalseSchema => "not allowed by the schema".into(),
        Kind::Format { format } => format!("must be of the format {format}"),
        Kind::ContentEncoding { content_encoding } => format!("must be encoded as {content_encoding}"),
        Kind::ContentMediaType { content_media_type } => format!("must be {content_media_type}"),
        other => format!("breaks \"{}\"", other.keyword()),
    }
}

fn of_type(of: JsonType) -> &'static str {
    match of {
        JsonType::Array => "an array",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "an integer",
        JsonType::Null => "null",
        JsonType::Number => "a number",
        JsonType::Object => "an object",
        JsonType::String => "a string",
    }
}

fn many(number: u64, of: &str) -> String {
    format!("{number} {of}{}", if number == 1 { "" } else { "s" })
}
