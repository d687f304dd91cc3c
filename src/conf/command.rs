//! `meteorit_command`: a Redis command as one types it, with nginx's variables in its arguments.

use std::rc::Rc;

use super::location::compile;
use super::{Location, Main};
use crate::command::{Arg, KeyPart, Template, Trust, key_positions, table};
use crate::ngx::{Complex, Conf};
use crate::variables::MEMBER_PREFIX;

/// `meteorit_command [if=VALUE] COMMAND ARG...`
pub fn command(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let template = read(conf)?;
    add(&mut location.commands, template)
}

/// `meteorit_reject_command [if=VALUE] COMMAND ARG...`
pub fn reject_command(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let template = read(conf)?;
    add(&mut location.reject_commands, template)
}

/// A location's commands, in order; shared with the locations inside that have none of their own.
pub type Templates = Option<Rc<Vec<Template<Complex>>>>;

fn add(commands: &mut Templates, template: Template<Complex>) -> Result<(), String> {
    let commands = Rc::get_mut(commands.get_or_insert_default());
    commands.ok_or("internal error: commands are shared")?.push(template);
    Ok(())
}

fn read(conf: &mut Conf) -> Result<Template<Complex>, String> {
    let words = conf.words();
    let directive = words.first().map(|word| String::from_utf8_lossy(word)).unwrap_or_default();
    let mut args = words.get(1..).unwrap_or_default();
    let mut condition = None;
    if let [first, rest @ ..] = args
        && let Some(value) = first.strip_prefix(b"if=")
    {
        condition = Some(compile(conf, value)?);
        args = rest;
    }
    if args.is_empty() {
        return Err(format!("\"{directive}\" has an \"if=\" but no command"));
    }
    let literals: Vec<Option<&[u8]>> = args.iter().map(|arg| Some(&**arg).filter(|arg| !arg.contains(&b'$'))).collect();
    table::check(&literals).map_err(|error| format!("{error} in \"{directive}\""))?;
    let keys = key_positions(&literals);
    let mut parts = Vec::with_capacity(args.len());
    for (position, arg) in args.iter().enumerate() {
        parts.push(match &**arg {
            text if !text.contains(&b'$') => Arg::Literal(text.to_vec()),
            // No command has a whole event for its key: this is one that is not known and has its key elsewhere, or none.
            b"$event" | b"${event}" => Arg::Event,
            text if keys.contains(&position) => Arg::Key(key(conf, text)?),
            text => Arg::Value(compile(conf, text)?),
        });
    }
    Ok(Template::new(condition, parts))
}

/// A key, taken apart so that each of its variables is seen by itself.
fn key(conf: &mut Conf, text: &[u8]) -> Result<Vec<KeyPart<Complex>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let literal = rest.iter().position(|byte| *byte == b'$').unwrap_or(rest.len());
        let (before, from) = rest.split_at(literal);
        if !before.is_empty() {
            parts.push(KeyPart::Literal(before.to_vec()));
        }
        if from.is_empty() {
            break;
        }
        let found =
            variable(from).ok_or_else(|| format!("invalid variable in \"{}\"", String::from_utf8_lossy(text)))?;
        let (variable, after) = from.split_at(found.end);
        let name = String::from_utf8_lossy(found.text).to_ascii_lowercase();
        parts.push(KeyPart::Value { value: compile(conf, variable)?, trust: Trust::Client, name: name.into() });
        rest = after;
    }
    Ok(parts)
}

struct Variable<'a> {
    text: &'a [u8],
    /// Where it ends, the dollar sign and braces included.
    end: usize,
}

/// The variable that `text` begins with, as nginx reads it (`ngx_http_script_compile`): `$name`, `${name}`, `$1`.
fn variable(text: &[u8]) -> Option<Variable<'_>> {
    match text.get(1)? {
        b'{' => {
            let close = text.iter().position(|byte| *byte == b'}')?;
            Some(Variable { text: text.get(2..close)?, end: close + 1 })
        }
        b'1'..=b'9' => Some(Variable { text: text.get(1..2)?, end: 2 }),
        _ => {
            let name = text.get(1..)?;
            let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let length = name.iter().position(|byte| !is_name(byte)).unwrap_or(name.len());
            (length > 0).then_some(Variable { text: name.get(..length)?, end: length + 1 })
        }
    }
}

/// How far a variable is trusted in a key, once the whole configuration is read. What a client can decide is not, and of
/// that there is no end: so only what is known to be the server's own choice is trusted.
pub fn trust(conf: &Conf, main: &Main, name: &str) -> Trust {
    const OWN: [&str; 21] = [
        "binary_remote_addr",
        "connection",
        "connection_requests",
        "hostname",
        "meteorit_masked_addr",
        "meteorit_received",
        "msec",
        "nginx_version",
        "pid",
        "realip_remote_addr",
        "realip_remote_port",
        "remote_addr",
        "remote_port",
        "request_id",
        "scheme",
        "server_addr",
        "server_name",
        "server_port",
        "status",
        "time_iso8601",
        "time_local",
    ];
    if let Some(defined) = main.defined.iter().find(|defined| defined.name == name) {
        return if defined.is_member { Trust::Event } else { Trust::Configured };
    }
    if name.starts_with(MEMBER_PREFIX) {
        Trust::Event
    } else if OWN.contains(&name) || conf.is_chosen_by_a_table(name) {
        Trust::Configured
    } else {
        Trust::Client
    }
}
