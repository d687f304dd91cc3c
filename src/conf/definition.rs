//! Variables that the configuration defines from the event: `meteorit_set`, `meteorit_time`, `meteorit_hash`.
//!
//! A definition holds for its location and what is inside; two locations may define the same variable differently.

use std::cell::RefCell;
use std::ffi::CString;
use std::rc::Rc;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::location::compile;
use super::words::invalid;
use super::{Defined, Location, Main};
use crate::current;
use crate::event::Pointer;
use crate::ngx::{Complex, Conf, OutOfMemory, Request, strftime, unix_ms};
use crate::variables::text_of;

/// The least length of a key file, in bytes.
const SHORTEST_KEY: usize = 16;

/// A time with the longest names of a day and a month, a Wednesday in September, in seconds since 1970.
const LONGEST: i64 = 1_790_812_799;

/// What a defined variable is made of.
pub enum Definition {
    Member { pointer: Pointer, default: Vec<u8> },
    Time(Time),
    Hash { keyed: Hmac<Sha256>, parts: Vec<Complex> },
}

/// Definitions by the variable's place in [`Main::defined`].
pub type Definitions = Vec<(usize, Rc<Definition>)>;

/// A time in the words of a format, which last for a second.
pub struct Time {
    format: CString,
    local: bool,
    latest: RefCell<(u64, Vec<u8>)>,
}

impl Definition {
    /// The variable's text for a request.
    pub fn text<'r>(&self, request: &Request<'r>) -> Result<Option<&'r [u8]>, OutOfMemory> {
        match self {
            Definition::Member { pointer, default } => {
                let text = current::read(request, |event| text_of(request, pointer.find(event.root())));
                match text.transpose()?.flatten() {
                    Some(text) if !text.is_empty() => Ok(Some(text)),
                    _ => request.keep(default).map(Some),
                }
            }
            Definition::Time(time) => time.text(request).map(Some),
            Definition::Hash { keyed, parts } => {
                let mut mac = keyed.clone();
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        mac.update(b"\0");
                    }
                    mac.update(request.evaluate(part)?);
                }
                let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
                request.keep(hex.as_bytes()).map(Some)
            }
        }
    }
}

impl Time {
    fn text<'r>(&self, request: &Request<'r>) -> Result<&'r [u8], OutOfMemory> {
        let ms = request.note().and_then(|note| note.received.get()).unwrap_or_else(unix_ms);
        let seconds = ms / 1000;
        let mut latest = self.latest.borrow_mut();
        if latest.0 != seconds {
            *latest = (seconds, strftime(&self.format, i64::try_from(seconds).unwrap_or(0), self.local));
        }
        request.keep(&latest.1)
    }
}

/// `meteorit_set $VARIABLE POINTER [default=VALUE]`
pub fn set(conf: &mut Conf, main: &mut Main, location: &mut Location) -> Result<(), String> {
    let words = conf.words();
    let pointer = word(&words, 2);
    let pointer = std::str::from_utf8(pointer).map_err(|_| "a JSON pointer is UTF-8".to_owned())?;
    let pointer = Pointer::parse(pointer).map_err(|error| format!("{error} in \"meteorit_set\" directive"))?;
    let default = match words.get(3) {
        None => Vec::new(),
        Some(text) => match text.strip_prefix(b"default=") {
            Some(default) if default.contains(&b'$') => {
                return Err("the default of \"meteorit_set\" is literal: no variables in it".into());
            }
            Some(default) => default.to_vec(),
            None => return Err(invalid(text, "meteorit_set", "default=VALUE")),
        },
    };
    define(conf, main, location, word(&words, 1), Definition::Member { pointer, default })
}

/// `meteorit_time $VARIABLE FORMAT [utc | local]`
pub fn time(conf: &mut Conf, main: &mut Main, location: &mut Location) -> Result<(), String> {
    let words = conf.words();
    let format = CString::new(word(&words, 2)).map_err(|_| "a NUL byte in a format".to_owned())?;
    if format.is_empty() || strftime(&format, LONGEST, false).is_empty() {
        return Err(invalid(format.as_bytes(), "meteorit_time", "a format of strftime that gives 1 to 255 bytes"));
    }
    let local = match words.get(3).map(Vec::as_slice) {
        None | Some(b"utc") => false,
        Some(b"local") => true,
        Some(text) => return Err(invalid(text, "meteorit_time", "\"utc\" or \"local\"")),
    };
    let time = Time { format, local, latest: RefCell::new((u64::MAX, Vec::new())) };
    define(conf, main, location, word(&words, 1), Definition::Time(time))
}

/// `meteorit_hash $VARIABLE key_file=FILE VALUE...`
pub fn hash(conf: &mut Conf, main: &mut Main, location: &mut Location) -> Result<(), String> {
    let words = conf.words();
    let Some(path) = word(&words, 2).strip_prefix(b"key_file=") else {
        return Err(invalid(word(&words, 2), "meteorit_hash", "key_file=FILE"));
    };
    let key = conf.read_secret(path)?;
    if key.len() < SHORTEST_KEY {
        let path = String::from_utf8_lossy(path);
        return Err(format!("the key in \"{path}\" has less than {SHORTEST_KEY} bytes"));
    }
    let keyed = Hmac::<Sha256>::new_from_slice(&key).map_err(|error| error.to_string())?;
    let parts =
        words.get(3..).unwrap_or_default().iter().map(|part| compile(conf, part)).collect::<Result<Vec<_>, _>>()?;
    if parts.is_empty() {
        return Err("\"meteorit_hash\" has nothing to hash: give a VALUE after the key_file".into());
    }
    define(conf, main, location, word(&words, 1), Definition::Hash { keyed, parts })
}

fn define(
    conf: &mut Conf,
    main: &mut Main,
    location: &mut Location,
    variable: &[u8],
    definition: Definition,
) -> Result<(), String> {
    let Some(name) = variable.strip_prefix(b"$").filter(|name| !name.is_empty()) else {
        return Err(format!("invalid variable name \"{}\"", String::from_utf8_lossy(variable)));
    };
    // nginx makes the names of variables lower case.
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let index = main.defined.iter().position(|known| known.name == name).unwrap_or(main.defined.len());
    conf.define_variable(name.as_bytes(), index)?;
    let is_member = matches!(definition, Definition::Member { .. });
    match main.defined.get_mut(index) {
        Some(known) => known.is_member |= is_member,
        None => main.defined.push(Defined { name, is_member }),
    }
    if location.definitions.iter().any(|(known, _)| *known == index) {
        return Err(format!("the variable \"{}\" is defined twice here", String::from_utf8_lossy(variable)));
    }
    location.definitions.push((index, Rc::new(definition)));
    Ok(())
}

fn word(words: &[Vec<u8>], index: usize) -> &[u8] {
    words.get(index).map_or(&[], Vec::as_slice)
}
