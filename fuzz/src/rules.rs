//! The rules that an event must keep beyond correct JSON, applied to a tree, in the order in which the event step promises to.

use std::collections::HashSet;

use ngx_http_meteorit_module::event::{DuplicateNames, Error, Kind, Limits, Rule};

use crate::json::{Content, Json};

/// The error of a text that is the JSON of this tree; `None` if it is an event.
pub fn error(json: &Json<'_>, limits: &Limits) -> Option<Error> {
    let (pointer, rule) = first_excess(json, limits, 1, "")
        .or_else(|| {
            let rule = Rule::NotAnObject { found: json.kind };
            (json.kind != Kind::Object).then(|| (String::new(), rule))
        })
        .or_else(|| {
            let rejected = limits.duplicate_names == DuplicateNames::Reject;
            Some((rejected.then(|| first_duplicate(json, ""))??, Rule::DuplicateName))
        })?;
    Some(Error::Rule { pointer, rule })
}

/// Whether two errors are the same, except for steps that are left out of a very long path.
pub fn same(ours: Option<&Error>, expected: Option<&Error>) -> bool {
    match (ours, expected) {
        (Some(Error::Rule { pointer, rule }), Some(Error::Rule { pointer: whole, rule: expected })) => {
            let cut = whole.len() > 700 && pointer.len() < 1000;
            rule == expected && (pointer == whole || cut)
        }
        (ours, expected) => ours == expected,
    }
}

/// The first container too deep or member too many, in the order of the text.
fn first_excess(json: &Json<'_>, limits: &Limits, depth: u32, path: &str) -> Option<(String, Rule)> {
    if matches!(json.kind, Kind::Object | Kind::Array) && depth > limits.max_depth {
        return Some((path.to_owned(), Rule::TooDeep { max: limits.max_depth }));
    }
    match &json.content {
        Content::Elements(elements) => elements
            .iter()
            .enumerate()
            .find_map(|(index, element)| first_excess(element, limits, depth + 1, &format!("{path}/{index}"))),
        Content::Members(members) => members.iter().zip(0_u32..).find_map(|((name, value), count)| {
            if count >= limits.max_members {
                return Some((path.to_owned(), Rule::TooManyMembers { max: limits.max_members }));
            }
            first_excess(value, limits, depth + 1, &step(path, name))
        }),
        _ => None,
    }
}

/// The first name that its object has twice, in the object that ends first.
fn first_duplicate(json: &Json<'_>, path: &str) -> Option<String> {
    let mut elements = json.elements().iter().enumerate();
    let mut members = json.members().iter();
    elements
        .find_map(|(index, element)| first_duplicate(element, &format!("{path}/{index}")))
        .or_else(|| members.find_map(|(name, value)| first_duplicate(value, &step(path, name))))
        .or_else(|| {
            let mut names = HashSet::new();
            json.members().iter().find(|(name, _)| !names.insert(name)).map(|(name, _)| step(path, name))
        })
}

/// A path with one more step, whose name is cut above 64 bytes.
fn step(path: &str, name: &str) -> String {
    let escape = |text: &str| text.replace('~', "~0").replace('/', "~1");
    let head = (0..=name.len().min(64)).rev().find_map(|end| name.get(..end)).unwrap_or_default();
    let cut = if head.len() < name.len() { "…" } else { "" };
    format!("{path}/{}{cut}", escape(head))
}
