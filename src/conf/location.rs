//! What a location does with its events: where they go, by which commands, within which bounds.

use std::rc::Rc;

use super::Main;
use super::command::{self, Templates};
use super::content::{self, Content, Declared};
use super::counted::Counted;
use super::definition::{Definition, Definitions};
use super::field::Field;
use super::methods::Methods;
use super::redis::Redis;
use super::words::{duplicate, invalid};
use crate::batch::Mode;
use crate::command::{KeyLimit, OnViolation, Template, Trust};
use crate::cors::Cors;
use crate::event::{DuplicateNames, Limits};
use crate::hold::{Ack, Terms};
use crate::metrics;
use crate::ngx::{Complex, Conf, Position, parse_size};
use crate::response::Style;

/// The largest `meteorit_max_event_size`, in bytes: a span on the tape has 32 bits, and Redis takes bulk strings of at
/// most 512 MB (`proto-max-bulk-len`).
const LARGEST_EVENT: usize = 256 * 1024 * 1024;

/// A location's settings; None is what is inherited from outside, and after the merge has its default.
#[derive(Default)]
pub struct Location {
    /// Until the merge.
    pub(super) declared: Option<Declared>,
    content: Option<Content>,
    pub commands: Templates,
    /// For events that are rejected.
    pub reject_commands: Templates,
    reject_status: Option<RejectStatus>,
    ack: Option<Ack>,
    ambiguous: Option<bool>,
    transaction: Option<bool>,
    spool: Option<bool>,
    dry_run: Option<bool>,
    /// Variables that are made of the event; those of outer levels that are not defined anew come after the own ones.
    pub definitions: Definitions,
    event_id: Option<Rc<Complex>>,
    fields: Option<Rc<Vec<Field>>>,
    key_limit: Option<KeyLimit>,
    #[cfg(feature = "schema")]
    pub schema: Option<Rc<super::schema::Choice>>,
    #[cfg(feature = "schema")]
    schema_dry_run: Option<bool>,
    methods: Option<Methods>,
    /// None inside is `off`.
    cors: Option<Option<Rc<Cors>>>,
    /// Where requests of this location are judged by it.
    cors_in_force: Option<Rc<Cors>>,
    style: Option<Style>,
    /// None inside is `off`.
    batch: Option<Option<Mode>>,
    max_body_size: Option<usize>,
    /// nginx's own limit for the location, in bytes; 0 is none, or not known yet.
    client_max_body_size: usize,
    intercept_errors: Option<bool>,
    duplicate_names: Option<DuplicateNames>,
    max_depth: Option<u32>,
    max_members: Option<u32>,
    max_event_size: Option<usize>,
    /// As the configuration calls it, without the word location: `= /events`.
    written: String,
    counted: Option<Rc<Counted>>,
}

/// `meteorit_reject_status`, and where it stands.
#[derive(Clone)]
struct RejectStatus {
    code: u16,
    position: Position,
}

impl Location {
    /// Of the block that begins with these words.
    pub fn begin(words: &[Vec<u8>]) -> Location {
        let written = match words {
            [name, parts @ ..] if name == b"location" => String::from_utf8_lossy(&parts.join(&b' ')).into_owned(),
            _ => String::new(),
        };
        Location { written, ..Location::default() }
    }

    /// Where its requests and events are counted.
    pub fn counters(&self) -> metrics::Location {
        self.counted.as_ref().map_or(metrics::Location::nowhere(), |counted| counted.counters())
    }

    /// What answers here; None where it is not of this module.
    pub fn content(&self) -> Option<&Content> {
        self.content.as_ref()
    }

    /// The Redis that events go to; None where there is no `meteorit_pass`.
    pub fn redis(&self) -> Option<&Rc<Redis>> {
        match &self.content {
            Some(Content::Events(redis)) => Some(redis),
            _ => None,
        }
    }

    /// In the order in which they run.
    pub fn commands(&self) -> &[Template<Complex>] {
        self.commands.as_ref().map_or(&[], |commands| commands)
    }

    /// What runs for an event that is rejected, in order.
    pub fn reject_commands(&self) -> &[Template<Complex>] {
        self.reject_commands.as_ref().map_or(&[], |commands| commands)
    }

    /// What a client is told of a rejected event instead of the error's own status.
    pub fn reject_status(&self) -> Option<u16> {
        self.reject_status.as_ref().map(|status| status.code)
    }

    /// What is promised of the events.
    pub fn terms(&self) -> Terms {
        let has_spool = self.redis().is_some_and(|redis| redis.settings.spool.is_some());
        Terms {
            ack: self.ack.unwrap_or(Ack::Stored),
            ambiguous: self.ambiguous.unwrap_or(false),
            spool: has_spool && self.spool.unwrap_or(true),
        }
    }

    /// Whether the commands of an event are one transaction.
    pub fn transaction(&self) -> bool {
        self.transaction.unwrap_or(false)
    }

    /// Whether nothing is written.
    pub fn dry_run(&self) -> bool {
        self.dry_run.unwrap_or(false)
    }

    /// What the variable at this place in [`Main::defined`] is made of here.
    pub fn definition(&self, index: usize) -> Option<&Definition> {
        self.definitions.iter().find(|(defined, _)| *defined == index).map(|(_, definition)| &**definition)
    }

    /// Where the event's own id comes from, if it has one.
    pub fn event_id(&self) -> Option<&Complex> {
        self.event_id.as_deref()
    }

    /// Members that are added to each event.
    pub fn fields(&self) -> &[Field] {
        self.fields.as_ref().map_or(&[], |fields| fields)
    }

    pub fn key_limit(&self) -> KeyLimit {
        self.key_limit.unwrap_or_default()
    }

    /// The limit for keys of events that are rejected: no event is so bad that it could not be set aside.
    pub fn reject_key_limit(&self) -> KeyLimit {
        KeyLimit { on_violation: OnViolation::Hash, length: KeyLimit::default().length, ..self.key_limit() }
    }

    /// Whether an event that does not fit its schema is taken nonetheless.
    #[cfg(feature = "schema")]
    pub fn schema_dry_run(&self) -> bool {
        self.schema_dry_run.unwrap_or(false)
    }

    pub fn methods(&self) -> Methods {
        self.methods.unwrap_or_default()
    }

    /// What browsers are told; None where nothing of it applies.
    pub fn cors(&self) -> Option<&Cors> {
        self.cors_in_force.as_deref()
    }

    pub fn style(&self) -> Style {
        self.style.unwrap_or(Style::None)
    }

    pub fn intercept_errors(&self) -> bool {
        self.intercept_errors.unwrap_or(false)
    }

    /// None when batches are off.
    pub fn batch(&self) -> Option<Mode> {
        self.batch.flatten()
    }

    /// The largest body, decoded, in bytes: that of one event, or what a batch may have.
    pub fn max_body_size(&self) -> usize {
        match self.batch() {
            None => self.max_event_size(),
            Some(_) => self.max_body_size.unwrap_or(match self.client_max_body_size {
                0 => LARGEST_EVENT,
                size => size,
            }),
        }
    }

    /// In bytes.
    pub fn max_event_size(&self) -> usize {
        self.max_event_size.unwrap_or(64 * 1024)
    }

    pub fn limits(&self) -> Limits {
        let default = Limits::default();
        Limits {
            max_depth: self.max_depth.unwrap_or(default.max_depth),
            max_members: self.max_members.unwrap_or(default.max_members),
            duplicate_names: self.duplicate_names.unwrap_or(default.duplicate_names),
        }
    }

    /// Decides how far variables are trusted in the keys of the commands that stand here, which is known only once all of
    /// the configuration has been read.
    pub fn judge_commands(&mut self, conf: &Conf, main: &Main) {
        let trust = |name: &str| command::trust(conf, main, name);
        judge(&mut self.commands, trust);
        // A member that is missing may be why the event was rejected.
        judge(&mut self.reject_commands, |name| match trust(name) {
            Trust::Event => Trust::Client,
            other => other,
        });
    }

    /// Takes over from `outer` what is not set here, and checks what can only be checked now.
    pub fn merge(&mut self, conf: &mut Conf, main: &mut Main, outer: &Location) -> Result<(), String> {
        self.judge_commands(conf, main);
        self.commands = self.commands.take().or_else(|| outer.commands.clone());
        self.reject_commands = self.reject_commands.take().or_else(|| outer.reject_commands.clone());
        self.reject_status = self.reject_status.take().or_else(|| outer.reject_status.clone());
        self.ack = self.ack.or(outer.ack);
        self.ambiguous = self.ambiguous.or(outer.ambiguous);
        self.transaction = self.transaction.or(outer.transaction);
        self.spool = self.spool.or(outer.spool);
        self.dry_run = self.dry_run.or(outer.dry_run);
        for (index, definition) in &outer.definitions {
            if self.definition(*index).is_none() {
                self.definitions.push((*index, definition.clone()));
            }
        }
        self.fields = self.fields.take().or_else(|| outer.fields.clone());
        #[cfg(feature = "schema")]
        {
            self.schema = self.schema.take().or_else(|| outer.schema.clone());
            self.schema_dry_run = self.schema_dry_run.or(outer.schema_dry_run);
        }
        self.key_limit = self.key_limit.or(outer.key_limit);
        self.event_id = self.event_id.take().or_else(|| outer.event_id.clone());
        self.methods = self.methods.or(outer.methods);
        self.style = self.style.or(outer.style);
        self.batch = self.batch.or(outer.batch);
        self.max_body_size = self.max_body_size.or(outer.max_body_size);
        self.intercept_errors = self.intercept_errors.or(outer.intercept_errors);
        self.duplicate_names = self.duplicate_names.or(outer.duplicate_names);
        self.max_depth = self.max_depth.or(outer.max_depth);
        self.max_members = self.max_members.or(outer.max_members);
        self.max_event_size = self.max_event_size.or(outer.max_event_size);

        self.client_max_body_size = usize::try_from(conf.core().max_body()).unwrap_or(0);
        let declared_at;
        (self.content, declared_at) = content::merge(conf, main, self.declared.take(), outer.content.as_ref())?;
        self.merge_cors(conf, outer)?;
        let Some(redis) = self.redis().cloned() else { return Ok(()) };
        if self.written.is_empty() {
            self.written = outer.written.clone();
        }
        self.counted = Some(main.count(&conf.server_name(), &self.written, &redis.settings.label));
        declared_at.map_or(Ok(()), |position| self.check(conf, &position))
    }

    /// Checks a location that takes events, by a `meteorit_pass` that stands there.
    fn check(&self, conf: &mut Conf, position: &Position) -> Result<(), String> {
        if self.commands().is_empty() {
            return Err(format!("\"meteorit_pass\" without a \"meteorit_command\" in {position}"));
        }
        if let Some(RejectStatus { code: code @ ..300, position }) = &self.reject_status
            && self.reject_commands().is_empty()
        {
            return Err(format!(
                "\"meteorit_reject_status\" {code} without a \"meteorit_reject_command\" would lose events, in {position}"
            ));
        }
        let largest = match self.client_max_body_size {
            0 => self.max_body_size(),
            size => size.min(self.max_body_size()),
        };
        let buffer = conf.core().body_buffer();
        if buffer < largest {
            conf.warn_elsewhere(&format!(
                "\"client_body_buffer_size\" of {buffer} bytes is smaller than the largest event of {largest} bytes: larger \
                 events go through temporary files; set it to {largest}, in {position}"
            ));
        }
        Ok(())
    }

    /// What is inherited holds where events are taken: other locations of a server have not asked for it.
    fn merge_cors(&mut self, conf: &mut Conf, outer: &Location) -> Result<(), String> {
        let core = conf.core();
        let stands_here = self.cors.is_some() && !core.name().is_empty();
        let is_inside = core.is_nameless() && outer.cors_in_force.is_some();
        self.cors = self.cors.take().or_else(|| outer.cors.clone());
        if stands_here || is_inside || self.redis().is_some() {
            self.cors_in_force = self.cors.clone().flatten();
        }
        match self.cors_in_force {
            None => Ok(()),
            Some(_) => conf.watch_error_pages(),
        }
    }
}

fn judge(commands: &mut Templates, trust: impl Fn(&str) -> Trust) {
    if let Some(commands) = commands.as_mut().and_then(Rc::get_mut) {
        commands.iter_mut().for_each(|command| command.judge(&trust));
    }
}

/// `meteorit_reject_status CODE`
pub fn reject_status(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let value = argument(conf);
    let code = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
    let code = code.filter(|code| matches!(code, 200..300 | 400..600));
    let status = code.map(|code| RejectStatus { code, position: conf.position() });
    set(conf, &mut location.reject_status, status, "a status from 200 to 299 or from 400 to 599")
}

/// `meteorit_ack stored | queued`
pub fn ack(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    choose(conf, &mut location.ack, &[("stored", Ack::Stored), ("queued", Ack::Queued)])
}

/// `meteorit_retry safe | ambiguous`
pub fn retry(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    choose(conf, &mut location.ambiguous, &[("safe", false), ("ambiguous", true)])
}

/// `meteorit_transaction on | off`
pub fn transaction(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    choose(conf, &mut location.transaction, &[("on", true), ("off", false)])
}

/// `meteorit_spool on | off`
pub fn spool(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    choose(conf, &mut location.spool, &[("on", true), ("off", false)])
}

/// `meteorit_dry_run on | off`
pub fn dry_run(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    choose(conf, &mut location.dry_run, &[("on", true), ("off", false)])
}

/// `meteorit_event_id VALUE`
pub fn event_id(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let value = compile(conf, &argument(conf))?;
    set(conf, &mut location.event_id, Some(Rc::new(value)), "a value")
}

/// `meteorit_field NAME VALUE [json]`
pub fn field(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let field = Field::read(conf)?;
    let fields = location.fields.get_or_insert_default();
    if fields.iter().any(|known| known.text == field.text) {
        return Err(format!("the member \"{}\" is added twice here", field.text));
    }
    Rc::get_mut(fields).ok_or("internal error: fields are shared")?.push(field);
    Ok(())
}

/// `meteorit_key_limit [length=NUMBER] [charset=NAME] [on_violation=reject | hash]`
pub fn key_limit(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let words = conf.words();
    let words: Vec<_> = words.iter().skip(1).map(|word| String::from_utf8_lossy(word)).collect();
    let limit = KeyLimit::parse(words.iter().map(|word| &**word));
    let limit = limit.map_err(|error| format!("{error} in \"meteorit_key_limit\" directive"))?;
    set(conf, &mut location.key_limit, Some(limit), "")
}

/// `meteorit_schema_dry_run on | off`
#[cfg(feature = "schema")]
pub fn schema_dry_run(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    choose(conf, &mut location.schema_dry_run, &[("on", true), ("off", false)])
}

/// `meteorit_methods METHOD...`
pub fn methods(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let words = conf.words();
    let methods = Methods::parse(words.get(1..).unwrap_or_default())?;
    set(conf, &mut location.methods, Some(methods), "")
}

/// `meteorit_cors ORIGIN... | * [credentials] [strict]`, `meteorit_cors off`
pub fn cors(conf: &mut Conf, main: &mut Main, location: &mut Location) -> Result<(), String> {
    let words = conf.words();
    let cors = Cors::parse(words.get(1..).unwrap_or_default());
    let cors = cors.map_err(|error| format!("{error} in \"meteorit_cors\" directive"))?;
    main.has_cors |= cors.is_some();
    set(conf, &mut location.cors, Some(cors.map(Rc::new)), "")
}

/// `meteorit_response none | json | pixel`
pub fn response(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let choices = [("none", Style::None), ("json", Style::Json), ("pixel", Style::Pixel)];
    choose(conf, &mut location.style, &choices)
}

/// `meteorit_batch off | all | partial [max=NUMBER]`
pub fn batch(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let words = conf.words();
    let max = match words.get(2) {
        None => Some(1000),
        Some(text) => text
            .strip_prefix(b"max=")
            .and_then(|number| std::str::from_utf8(number).ok()?.parse().ok())
            .filter(|max| (1..=1_000_000).contains(max)),
    };
    let max = max
        .ok_or("invalid parameter in \"meteorit_batch\" directive: expected \"max=\" and a number from 1 to 1000000")?;
    let on = |partial| Some(Mode { partial, max });
    choose(conf, &mut location.batch, &[("off", None), ("all", on(false)), ("partial", on(true))])
}

/// `meteorit_max_body_size SIZE`
pub fn max_body_size(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let value = argument(conf);
    let size = parse_size(&value).filter(|size| (2..=LARGEST_EVENT).contains(size));
    set(conf, &mut location.max_body_size, size, "a size from 2 bytes to 256m")
}

/// `meteorit_intercept_errors on | off`
pub fn intercept_errors(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    choose(conf, &mut location.intercept_errors, &[("on", true), ("off", false)])
}

/// `meteorit_duplicate_names reject | allow`
pub fn duplicate_names(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let choices = [("reject", DuplicateNames::Reject), ("allow", DuplicateNames::Allow)];
    choose(conf, &mut location.duplicate_names, &choices)
}

/// `meteorit_max_depth NUMBER`
pub fn max_depth(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    number(conf, &mut location.max_depth, 10_000)
}

/// `meteorit_max_members NUMBER`
pub fn max_members(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    number(conf, &mut location.max_members, 1_000_000)
}

/// `meteorit_max_event_size SIZE`
pub fn max_event_size(conf: &mut Conf, _: &mut Main, location: &mut Location) -> Result<(), String> {
    let value = argument(conf);
    let size = parse_size(&value).filter(|size| (2..=LARGEST_EVENT).contains(size));
    set(conf, &mut location.max_event_size, size, "a size from 2 bytes to 256m")
}

fn choose<T: Copy>(conf: &Conf, slot: &mut Option<T>, choices: &[(&str, T)]) -> Result<(), String> {
    let value = argument(conf);
    let choice = choices.iter().find(|(name, _)| name.as_bytes() == value).map(|(_, choice)| *choice);
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    set(conf, slot, choice, &names.join(" or "))
}

fn number(conf: &Conf, slot: &mut Option<u32>, largest: u32) -> Result<(), String> {
    let value = argument(conf);
    let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
    set(conf, slot, number.filter(|number| (1..=largest).contains(number)), &format!("a number from 1 to {largest}"))
}

fn set<T>(conf: &Conf, slot: &mut Option<T>, value: Option<T>, expected: &str) -> Result<(), String> {
    let words = conf.words();
    let directive = words.first().map(|word| String::from_utf8_lossy(word)).unwrap_or_default();
    if slot.is_some() {
        return Err(duplicate(&directive));
    }
    if value.is_none() {
        return Err(invalid(&argument(conf), &directive, expected));
    }
    *slot = value;
    Ok(())
}

fn argument(conf: &Conf) -> Vec<u8> {
    conf.words().into_iter().nth(1).unwrap_or_default()
}

/// An empty error says that nginx has logged it.
pub fn compile(conf: &mut Conf, value: &[u8]) -> Result<Complex, String> {
    conf.compile(value).map_err(|()| String::new())
}
