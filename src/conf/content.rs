//! What answers in a location: `meteorit_pass`, `meteorit_selftest`, `meteorit_status`, `meteorit_ready`.

use std::rc::Rc;

use super::redis::{self, Redis};
use super::words::{duplicate, invalid};
use super::{Location, Main};
use crate::metrics::Form;
use crate::ngx::{Conf, Position};

/// What answers in a location, a directive each; `R` is how it knows its Redis.
#[derive(Clone)]
pub enum Content<R = Rc<Redis>> {
    /// Takes events for this one.
    Events(R),
    /// Tests this one.
    SelfTest(R),
    /// Tells what was counted; in this form, or in that which is asked for.
    Status(Option<Form>),
    /// Tells whether events for these are taken.
    Ready(Vec<R>),
}

/// What a directive says, until everything is read, so that the order of blocks does not matter.
pub struct Declared {
    content: Content<Target>,
    directive: String,
    position: Position,
}

/// A Redis by its name, or the one that a URL makes.
enum Target {
    Name(String),
    Redis(Rc<Redis>),
}

impl Declared {
    /// Looks up what has only a name so far.
    fn resolve(self, main: &Main) -> Result<Content, String> {
        let find = |target| match target {
            Target::Name(name) => main.named(&name, &self.position),
            Target::Redis(redis) => Ok(redis),
        };
        let content = match self.content {
            Content::Events(target) => Content::Events(find(target)?),
            Content::SelfTest(target) => Content::SelfTest(find(target)?),
            Content::Status(form) => Content::Status(form),
            Content::Ready(targets) if targets.is_empty() => Content::Ready(main.redis.clone()),
            Content::Ready(targets) => Content::Ready(targets.into_iter().map(find).collect::<Result<_, _>>()?),
        };
        if let Content::Ready(redis) = &content {
            redis.iter().for_each(|redis| redis.is_watched.set(true));
        }
        Ok(content)
    }
}

/// What answers in the location that is being merged, and where it says so itself.
///
/// As proxy_pass: the block of an `if` or a limit_except goes on with what its location does, a location in a location
/// does not (ngx_http_proxy_merge_loc_conf).
pub fn merge(
    conf: &mut Conf,
    main: &Main,
    declared: Option<Declared>,
    outer: Option<&Content>,
) -> Result<(Option<Content>, Option<Position>), String> {
    let mut core = conf.core();
    let Some(declared) = declared else {
        let content = outer.filter(|_| core.is_nameless()).cloned();
        if content.is_some() && core.is_limit_except() && !core.has_handler() {
            core.set_our_handler();
        }
        return Ok((content, None));
    };
    let (directive, position) = (declared.directive.clone(), declared.position.clone());
    let content = declared.resolve(main)?;
    if !core.has_our_handler() {
        let name = core.name();
        return Err(format!("location \"{name}\" has \"{directive}\" and another content handler, in {position}"));
    }
    Ok((Some(content), Some(position)))
}

/// `meteorit_pass NAME | URL`
pub fn pass(conf: &mut Conf, main: &mut Main, location: &mut Location) -> Result<(), String> {
    let target = target(conf, main)?;
    declare(conf, location, Content::Events(target))
}

/// `meteorit_selftest NAME | URL`
pub fn selftest(conf: &mut Conf, main: &mut Main, location: &mut Location) -> Result<(), String> {
    let target = target(conf, main)?;
    declare(conf, location, Content::SelfTest(target))
}

/// `meteorit_status [json | prometheus]`
pub fn status(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let words = conf.words();
    let form = match words.get(1).map(Vec::as_slice) {
        None => None,
        Some(b"json") => Some(Form::Json),
        Some(b"prometheus") => Some(Form::Text),
        Some(text) => return Err(invalid(text, "meteorit_status", "\"json\" or \"prometheus\"")),
    };
    declare(conf, location, Content::Status(form))
}

/// `meteorit_ready [NAME ...]`; without a name it is all that there are.
pub fn ready(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let words = conf.words();
    let names = words.iter().skip(1).map(|word| Target::Name(String::from_utf8_lossy(word).into_owned()));
    declare(conf, location, Content::Ready(names.collect()))
}

/// The one Redis that the directive names, or gives the URL of.
fn target(conf: &mut Conf, main: &mut Main) -> Result<Target, String> {
    let words = conf.words();
    let [directive, text] = &*words else { return Err(String::new()) };
    if text.is_empty() || text.contains(&b'$') {
        let directive = String::from_utf8_lossy(directive);
        return Err(format!("\"{directive}\" takes the name or the URL of a Redis, without variables"));
    }
    Ok(match redis::is_url(text) {
        true => Target::Redis(redis::from_url(conf, main, text)?),
        false => Target::Name(String::from_utf8_lossy(text).into_owned()),
    })
}

/// Makes this module answer in the location.
fn declare(conf: &mut Conf, location: &mut Location, content: Content<Target>) -> Result<(), String> {
    let directive = conf.words().into_iter().next().unwrap_or_default();
    let directive = String::from_utf8_lossy(&directive).into_owned();
    if location.declared.as_ref().is_some_and(|known| known.directive == directive) {
        return Err(duplicate(&directive));
    }
    let position = conf.position();
    let mut core = conf.core();
    if core.has_handler() {
        return Err(format!("\"{directive}\" conflicts with another content handler of the location"));
    }
    core.set_our_handler();
    location.declared = Some(Declared { content, directive, position });
    Ok(())
}
