//! `meteorit_schema`, `meteorit_schema_by`: the JSON Schema that an event has to fit.

use std::rc::Rc;

use super::location::compile;
use super::{Location, Main};
use crate::ngx::{Complex, Conf, OutOfMemory, Request};
use crate::schema::Schema;

/// What decides over an event.
#[derive(Clone)]
pub enum Rule {
    Accept,
    Reject,
    Schema(Rc<Schema>),
}

/// Which rule holds for an event.
pub enum Choice {
    One(Rule),
    /// By a value: the rule of the first that is equal, else the last.
    By(Complex, Vec<(Vec<u8>, Rule)>, Rule),
}

impl Choice {
    pub fn rule(&self, request: &Request) -> Result<&Rule, OutOfMemory> {
        match self {
            Choice::One(rule) => Ok(rule),
            Choice::By(value, rules, default) => {
                let value = request.evaluate(value)?;
                Ok(rules.iter().find(|(known, _)| known == value).map_or(default, |(_, rule)| rule))
            }
        }
    }
}

/// `meteorit_schema FILE`
pub fn schema(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let file = conf.words().into_iter().nth(1).unwrap_or_default();
    let rule = load(conf, &file)?;
    give(location, Choice::One(rule))
}

/// `meteorit_schema_by VALUE { TEXT FILE | accept | reject; ... default FILE | accept | reject; }`
pub fn schema_by(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let value = compile(conf, &conf.words().into_iter().nth(1).unwrap_or_default())?;
    let (mut rules, mut default) = (Vec::new(), None);
    let read = conf.block(&mut |conf| {
        let words = conf.words();
        let [text, what] = &*words else {
            return Err("a line of \"meteorit_schema_by\" is a text and a FILE, \"accept\" or \"reject\"".into());
        };
        let rule = match &**what {
            b"accept" => Rule::Accept,
            b"reject" => Rule::Reject,
            file => load(conf, file)?,
        };
        let again = match &**text {
            b"default" => default.replace(rule).is_some(),
            text => {
                let again = rules.iter().any(|(known, _)| known == text);
                rules.push((text.to_vec(), rule));
                again
            }
        };
        match again {
            true => Err(format!("\"{}\" stands twice in \"meteorit_schema_by\"", String::from_utf8_lossy(text))),
            false => Ok(()),
        }
    });
    if !read {
        return Err(String::new());
    }
    give(location, Choice::By(value, rules, default.unwrap_or(Rule::Reject)))
}

fn give(location: &mut Location, choice: Choice) -> Result<(), String> {
    match location.schema.replace(Rc::new(choice)) {
        None => Ok(()),
        Some(_) => Err("a location has one \"meteorit_schema\" or \"meteorit_schema_by\"".into()),
    }
}

fn load(conf: &mut Conf, file: &[u8]) -> Result<Rule, String> {
    let path = conf.full_path(file)?;
    let schema = Schema::load(&path).map_err(|error| error.to_string())?;
    Ok(Rule::Schema(Rc::new(schema)))
}
