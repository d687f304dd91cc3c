//! Locations that tell instead of taking events: `meteorit_status`, `meteorit_ready`.

use std::rc::Rc;

use super::redis::Redis;
use super::{Location, Main};
use crate::metrics::Form;
use crate::ngx::{Conf, Position};

/// What a location tells.
#[derive(Clone)]
pub enum Page {
    /// What was counted; in this form, or in that which is asked for.
    Status(Option<Form>),
    /// Whether events for these are taken.
    Ready(Vec<Rc<Redis>>),
}

/// A page, and the names that are looked up once everything is read.
#[derive(Clone)]
pub struct Draft {
    page: Page,
    names: Vec<String>,
    position: Position,
}

impl Draft {
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Looks up the names; without any all that there are.
    pub fn finish(&mut self, main: &Main) -> Result<(), String> {
        let Page::Ready(redis) = &mut self.page else { return Ok(()) };
        *redis = match self.names.is_empty() {
            true => main.redis.clone(),
            false => self.names.iter().map(|name| main.named(name, &self.position)).collect::<Result<_, _>>()?,
        };
        Ok(())
    }
}

/// `meteorit_status [json | prometheus]`
pub fn status(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let words = conf.words();
    let form = match words.get(1).map(Vec::as_slice) {
        None => None,
        Some(b"json") => Some(Form::Json),
        Some(b"prometheus") => Some(Form::Text),
        Some(text) => {
            let text = String::from_utf8_lossy(text);
            return Err(format!(
                "invalid value \"{text}\" in \"meteorit_status\" directive: expected \"json\" or \"prometheus\""
            ));
        }
    };
    set(conf, location, Page::Status(form), Vec::new())
}

/// `meteorit_ready [NAME ...]`
pub fn ready(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let words = conf.words();
    let names = words.iter().skip(1).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    set(conf, location, Page::Ready(Vec::new()), names)
}

fn set(conf: &mut Conf, location: &mut Location, page: Page, names: Vec<String>) -> Result<(), String> {
    let position = conf.position();
    let directive = conf.words().into_iter().next().unwrap_or_default();
    let mut core = conf.core();
    if core.has_handler() {
        let directive = String::from_utf8_lossy(&directive);
        return Err(format!("\"{directive}\" conflicts with another content handler of the location"));
    }
    core.set_page_handler();
    location.page = Some(Draft { page, names, position });
    Ok(())
}
