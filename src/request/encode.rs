//! From an event to the bytes of its commands: validated, enriched, its variables evaluated.

use crate::command::{Commands, Fault, KeyLimit, Source, Template};
use crate::conf::Location;
use crate::current;
use crate::event::{self, Change, is_json, json_string};
use crate::ngx::{Complex, OutOfMemory, Request};
use crate::response::Problem;
#[cfg(feature = "schema")]
use crate::{conf::schema::Rule, ngx::Level, schema::Violation};

/// Appends the commands of the request's current event, which has this text; gives how many there are. On an error none are appended.
pub fn encode<'r>(
    request: &Request<'r>,
    location: &Location,
    text: &'r [u8],
    commands: &mut Commands,
) -> Result<u32, Problem> {
    #[cfg(feature = "schema")]
    validate(request, location)?;
    let text = enrich(request, location, text)?;
    let before = commands.count();
    append(request, location.commands(), &location.key_limit(), text, commands)?;
    if location.transaction() {
        commands.wrap(before);
    }
    Ok((commands.count() - before) as u32)
}

/// How much of a rejected event, in bytes, its commands are given.
const REJECTED: usize = 16 * 1024;

/// Appends the commands that set a rejected event aside, of which the client sent this text; gives how many there are.
pub fn encode_rejected<'r>(
    request: &Request<'r>,
    location: &Location,
    text: &'r [u8],
    problem: &Problem,
    commands: &mut Commands,
) -> Result<u32, Problem> {
    if location.reject_commands().is_empty() {
        return Ok(0);
    }
    let text = text.get(..REJECTED).unwrap_or(text);
    current::set_rejected(request, text);
    let error = request.keep(problem.to_json().as_bytes()).map_err(|OutOfMemory| Problem::NoResources)?;
    request.set_error(error);
    let before = commands.count();
    append(request, location.reject_commands(), &location.reject_key_limit(), text, commands)?;
    Ok((commands.count() - before) as u32)
}

/// Appends what the templates make of an event; on an error nothing.
fn append(
    request: &Request,
    templates: &[Template<Complex>],
    limit: &KeyLimit,
    text: &[u8],
    commands: &mut Commands,
) -> Result<(), Problem> {
    let before = commands.count();
    for template in templates {
        if let Err(fault) = template.encode(text, &Evaluate(request), limit, commands) {
            commands.truncate(before);
            return Err(match fault {
                Fault::Source(OutOfMemory) => Problem::NoResources,
                Fault::Key(fault) => Problem::Key(fault),
            });
        }
    }
    Ok(())
}

/// Holds what the client sent against the location's schema.
#[cfg(feature = "schema")]
fn validate(request: &Request, location: &Location) -> Result<(), Problem> {
    let Some(choice) = &location.schema else { return Ok(()) };
    let violations = match choice.rule(request).map_err(|OutOfMemory| Problem::NoResources)? {
        Rule::Accept => return Ok(()),
        Rule::Reject => {
            vec![Violation { pointer: String::new(), detail: "no schema is known for such an event".into() }]
        }
        Rule::Schema(schema) => {
            let found = current::read(request, |event| match schema.is_valid(event) {
                true => Vec::new(),
                false => schema.violations(event, VIOLATIONS),
            });
            found.unwrap_or_default()
        }
    };
    if violations.is_empty() {
        return Ok(());
    }
    if location.schema_dry_run() {
        location.counters().schema_dry_run();
        // Not where: the names there may be the client's.
        let first = violations.first().map_or("", |first| &first.detail);
        request.log(Level::Info, &format!("meteorit: schema, dry run: {first}"));
        return Ok(());
    }
    Err(Problem::Schema(violations))
}

/// How many violations of a schema an answer lists.
#[cfg(feature = "schema")]
const VIOLATIONS: usize = 20;

/// Adds the members that the location says, and lets the result be the request's event.
fn enrich<'r>(request: &Request<'r>, location: &Location, text: &'r [u8]) -> Result<&'r [u8], Problem> {
    let fields = location.fields();
    if fields.is_empty() {
        return Ok(text);
    }
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        let value = request.evaluate(&field.value).map_err(|OutOfMemory| Problem::NoResources)?;
        if field.json && !value.is_empty() && !is_json(value, &location.limits()) {
            return Err(Problem::Field(field.text.clone()));
        }
        let mut encoded = Vec::new();
        match field.json {
            true => encoded.extend_from_slice(value),
            false => json_string(value, &mut encoded),
        }
        values.push(Some(encoded).filter(|_| !value.is_empty()));
    }
    let changes =
        fields.iter().zip(&values).map(|(field, value)| Change { name: &field.name, value: value.as_deref() });
    let enriched = current::read(request, |event| {
        let mut enriched = Vec::with_capacity(text.len() + 64);
        event::enrich(event, changes, &mut enriched);
        request.keep(&enriched)
    });
    let enriched = enriched.unwrap_or(Ok(text)).map_err(|OutOfMemory| Problem::NoResources)?;
    current::replace(request, enriched).map_err(Problem::Event)?;
    Ok(enriched)
}

/// nginx's variables, seen from a request.
struct Evaluate<'a, 'r>(&'a Request<'r>);

impl Source<Complex> for Evaluate<'_, '_> {
    type Error = OutOfMemory;

    fn value(&self, value: &Complex) -> Result<&[u8], OutOfMemory> {
        self.0.evaluate(value)
    }
}
