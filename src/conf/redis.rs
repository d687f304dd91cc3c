//! `meteorit_redis NAME { ... }`: one Redis, its settings, and this worker's pool of connections to it.

use std::cell::{Cell, OnceCell};
use std::path::PathBuf;
use std::rc::Rc;

use super::words::{duplicate, invalid};
use super::{Location, Main};
use crate::batch;
use crate::connection::Lost;
use crate::metrics;
use crate::ngx::{Address, Conf, Msec, ThreadPool, parse_msec, parse_size};
use crate::pool::Pool;
use crate::reply::{Reply, printable};
use crate::response::Problem;
use crate::spool::record;
use crate::url::{self, Server};

/// A configured Redis.
pub struct Redis {
    pub settings: Rc<Settings>,
    /// What all workers count of it; None where the zone has no room.
    pub counters: Cell<Option<metrics::Redis>>,
    /// What this worker has of it.
    pub gauges: Cell<metrics::Gauges>,
    /// Whether a `meteorit_ready` asks for it.
    pub is_watched: Cell<bool>,
    /// Made by a worker that begins or by its first request, so that neither `nginx -t` nor the master connects.
    pool: OnceCell<Rc<Pool>>,
}

/// Where events go while Redis does not take them.
pub struct Spool {
    pub dir: PathBuf,
    /// Of all workers together, in bytes.
    pub max_size: u64,
    /// Of a file, in bytes; a record more may follow.
    pub segment: u64,
    pub sync: Sync,
    pub threads: ThreadPool,
}

/// When what was written is brought to the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sync {
    /// Before a client is told.
    Always,
    /// Within a second.
    Second,
    /// When the operating system likes.
    Off,
}

/// The settings of a `meteorit_redis` block, checked.
pub struct Settings {
    /// The block's name, or the address where a URL stands in place of one.
    pub name: String,
    /// By which it is counted: the name, and what tells it from another one that is called the same.
    pub label: String,
    pub addresses: Vec<Address>,
    pub greeting: Greeting,
    /// Per worker.
    pub connections: usize,
    /// For connecting and the hand-shake together, in milliseconds.
    pub connect_timeout: Msec,
    /// From queued to answered, in milliseconds.
    pub timeout: Msec,
    /// How long replies may make no progress before the connection is closed, in milliseconds.
    pub stall_timeout: Msec,
    /// How much may wait or be unanswered, in bytes per worker.
    pub backlog: usize,
    /// How many events may wait or be unanswered, per worker.
    pub max_pending: u32,
    /// How long a worker on its way out waits for Redis to take what was queued, in milliseconds.
    pub drain: Msec,
    pub spool: Option<Spool>,
}

/// The hand-shake: the commands that open a connection, encoded.
pub struct Greeting {
    bytes: Vec<u8>,
    commands: Vec<&'static str>,
}

impl Redis {
    fn new(settings: Settings) -> Rc<Redis> {
        Rc::new(Redis {
            settings: Rc::new(settings),
            counters: Cell::new(None),
            gauges: Cell::new(metrics::Gauges::nowhere()),
            is_watched: Cell::new(false),
            pool: OnceCell::new(),
        })
    }

    /// This worker's pool.
    pub fn pool(&self) -> &Pool {
        self.pool.get_or_init(|| {
            let counters = self.counters.get().unwrap_or(metrics::Redis::nowhere());
            Pool::new(self.settings.clone(), counters, self.gauges.get())
        })
    }

    /// Looks after what the spool holds, and connects where that is asked for, in a worker that begins.
    pub fn start(&self) {
        if self.settings.spool.is_some() {
            self.pool().start();
        }
        if self.is_watched.get() {
            // Nothing is known yet.
            let _ = self.pool().takes_events();
        }
    }

    /// See [`Pool::shut_down`].
    pub fn shut_down(&self) {
        if let Some(pool) = self.pool.get() {
            pool.shut_down();
        }
    }
}

impl Settings {
    /// Whether a request of `length` bytes and so many events could be taken if nothing else waited.
    pub fn fits(&self, length: usize, events: u32) -> Result<(), Problem> {
        if length > self.backlog {
            return Err(Problem::TooLarge { limit: self.backlog });
        }
        if events > self.max_pending {
            return Err(Problem::NoBatch(batch::Error::TooMany { max: self.max_pending }));
        }
        Ok(())
    }

    /// How long sent bytes may go unacknowledged by the server's kernel, in milliseconds.
    pub fn unacknowledged(&self) -> u32 {
        u32::try_from(self.stall_timeout).unwrap_or(u32::MAX)
    }
}

impl Greeting {
    /// Signs in and selects the database where that is called for. The PING at the end lets Redis say why it will not
    /// serve (NOAUTH, LOADING, MASTERDOWN, MISCONF, max number of clients) before an event is sent to it.
    fn new(server: &Server) -> Greeting {
        let mut greeting = Greeting { bytes: Vec::new(), commands: Vec::new() };
        if let Some(password) = &server.password {
            match &server.username {
                Some(username) => greeting.push("AUTH", &[username, password]),
                None => greeting.push("AUTH", &[password]),
            }
        }
        if server.database != 0 {
            greeting.push("SELECT", &[&server.database.to_string()]);
        }
        greeting.push("PING", &[]);
        greeting
    }

    fn push(&mut self, name: &'static str, args: &[&str]) {
        redis::cmd(name).arg(args).write_packed_command(&mut self.bytes);
        self.commands.push(name);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many replies are due.
    pub fn count(&self) -> usize {
        self.commands.len()
    }

    /// Checks the reply to the command at `index`. A user who may not PING may still write.
    pub fn accept(&self, index: usize, reply: &Reply) -> Result<(), Lost> {
        let command = self.commands.get(index).copied().unwrap_or("");
        match reply.error() {
            None => Ok(()),
            Some(error) if command == "PING" && error.starts_with(b"NOPERM ") => Ok(()),
            Some(error) => Err(Lost::Refused { command, reply: printable(error) }),
        }
    }
}

/// `meteorit_redis NAME { ... }`
pub fn block(conf: &mut Conf, main: &mut Main, _: &mut Location) -> Result<(), String> {
    let [_, name] = <[_; 2]>::try_from(conf.words()).map_err(|_| String::new())?;
    let name = String::from_utf8(name).map_err(|_| "the name of a \"meteorit_redis\" must be UTF-8".to_owned())?;
    if is_url(name.as_bytes()) {
        return Err(
            "a \"meteorit_redis\" has no \":\", \"/\" or \"@\" in its name: a URL stands in the \"server\" inside"
                .into(),
        );
    }
    if main.redis.iter().any(|redis| redis.settings.name == name) {
        return Err(format!("duplicate \"meteorit_redis\" \"{name}\""));
    }
    let mut draft = Draft::default();
    if !conf.block(&mut |conf| draft.directive(conf)) {
        return Err(String::new());
    }
    let settings = draft.finish(name.clone(), name)?;
    if let Some(Spool { dir, .. }) = &settings.spool
        && main.redis.iter().any(|redis| redis.settings.spool.as_ref().is_some_and(|spool| spool.dir == *dir))
    {
        return Err(format!("the spool \"{}\" belongs to another \"meteorit_redis\"", dir.display()));
    }
    main.redis.push(Redis::new(settings));
    Ok(())
}

/// Whether `meteorit_pass` gives a URL, perhaps a wrong one, and not a name.
pub fn is_url(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b':' | b'/' | b'@'))
}

/// The Redis that `meteorit_pass URL` means, with the default of every setting. Equal URLs mean the same one.
pub fn from_url(conf: &mut Conf, main: &mut Main, url: &[u8]) -> Result<Rc<Redis>, String> {
    let server = parse(url)?;
    // The hand-shake tells apart what goes to different databases and users.
    let name = server.endpoint.clone();
    let same = |redis: &&Rc<Redis>| {
        redis.settings.name == name && redis.settings.greeting.bytes == Greeting::new(&server).bytes
    };
    if let Some(redis) = main.redis.iter().find(same) {
        return Ok(redis.clone());
    }
    let addresses = resolve(conf, &server)?;
    let label = label(main, &server);
    let draft = Draft { server: Some((server, addresses)), ..Draft::default() };
    let redis = Redis::new(draft.finish(name, label)?);
    main.redis.push(redis.clone());
    Ok(redis)
}

/// A label that no other Redis has, for one that a URL stands for.
fn label(main: &Main, server: &Server) -> String {
    let endpoint = &server.endpoint;
    let plain = match server.database {
        0 => endpoint.clone(),
        database => format!("{endpoint}/{database}"),
    };
    let is_free = |label: &String| main.redis.iter().all(|redis| redis.settings.label != *label);
    // Those that differ in their users.
    let mut labels = std::iter::once(plain.clone()).chain((2..).map(|n| format!("{plain} ({n})")));
    labels.find(is_free).unwrap_or(plain)
}

/// A block while it is read.
#[derive(Default)]
struct Draft {
    server: Option<(Server, Vec<Address>)>,
    password: Option<String>,
    connections: Option<usize>,
    connect_timeout: Option<Msec>,
    timeout: Option<Msec>,
    stall_timeout: Option<Msec>,
    backlog: Option<usize>,
    max_pending: Option<u32>,
    drain: Option<Msec>,
    spool: Option<Spool>,
}

impl Draft {
    fn directive(&mut self, conf: &mut Conf) -> Result<(), String> {
        let words = conf.words();
        let word = |index: usize| words.get(index).map_or(&b""[..], Vec::as_slice);
        let name = String::from_utf8_lossy(word(0)).into_owned();
        let known = [
            "server",
            "password_file",
            "connections",
            "connect_timeout",
            "timeout",
            "stall_timeout",
            "backlog",
            "max_pending",
            "drain",
            "spool",
        ];
        if !known.contains(&name.as_str()) {
            return Err(format!("unknown directive \"{name}\" in \"meteorit_redis\""));
        }
        if name == "spool" {
            let spool = Spool::read(conf, words.get(1..).unwrap_or_default())?;
            return set(&mut self.spool, spool, &name);
        }
        if words.len() != 2 {
            return Err(format!("invalid number of arguments in \"{name}\" directive"));
        }
        let value = word(1);
        match name.as_str() {
            "server" if self.server.is_some() => {
                Err("several \"server\" directives are not supported yet: give one".into())
            }
            "server" => {
                let server = parse(value)?;
                let addresses = resolve(conf, &server)?;
                set(&mut self.server, (server, addresses), &name)
            }
            "password_file" => {
                let text = conf.read_secret(value)?;
                let path = String::from_utf8_lossy(value);
                let password = String::from_utf8(text).map_err(|_| format!("\"{path}\" is not UTF-8"))?;
                if password.is_empty() {
                    return Err(format!("no password in \"{path}\""));
                }
                set(&mut self.password, password, &name)
            }
            "connections" => {
                let count = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                let count = count.filter(|count| (1..=64).contains(count));
                set(&mut self.connections, count.ok_or_else(|| invalid(value, &name, "a number from 1 to 64"))?, &name)
            }
            "connect_timeout" => set(&mut self.connect_timeout, time(value, &name)?, &name),
            "timeout" => set(&mut self.timeout, time(value, &name)?, &name),
            "drain" => set(&mut self.drain, time(value, &name)?, &name),
            "max_pending" => {
                let count = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                let count = count.filter(|count| (1..=10_000_000).contains(count));
                let count = count.ok_or_else(|| invalid(value, &name, "a number from 1 to 10000000"))?;
                set(&mut self.max_pending, count, &name)
            }
            "stall_timeout" => set(&mut self.stall_timeout, time(value, &name)?, &name),
            _ => {
                let size = parse_size(value).filter(|size| *size > 0);
                set(&mut self.backlog, size.ok_or_else(|| invalid(value, &name, "a size, as 16m"))?, &name)
            }
        }
    }

    fn finish(self, name: String, label: String) -> Result<Settings, String> {
        let Some((mut server, addresses)) = self.server else {
            return Err(format!("no \"server\" in \"meteorit_redis\" \"{name}\""));
        };
        if self.password.is_some() {
            if server.password.is_some() {
                return Err(format!("\"meteorit_redis\" \"{name}\" has a password in its URL and a \"password_file\""));
            }
            server.password = self.password;
        }
        if server.username.is_some() && server.password.is_none() {
            return Err(format!("\"meteorit_redis\" \"{name}\" has a user name but no password"));
        }
        let backlog = self.backlog.unwrap_or(16 * 1024 * 1024);
        if self.spool.is_some() && backlog > MAX_RECORD {
            return Err(format!("a \"spool\" goes with a \"backlog\" of {}m at most", MAX_RECORD >> 20));
        }
        Ok(Settings {
            name,
            label,
            addresses,
            greeting: Greeting::new(&server),
            connections: self.connections.unwrap_or(1),
            connect_timeout: self.connect_timeout.unwrap_or(1000),
            timeout: self.timeout.unwrap_or(1000),
            stall_timeout: self.stall_timeout.unwrap_or(5000),
            backlog,
            max_pending: self.max_pending.unwrap_or(100_000),
            drain: self.drain.unwrap_or(10_000),
            spool: self.spool,
        })
    }
}

/// What a record of the spool may have, less room for its table: no request is larger than the backlog.
const MAX_RECORD: usize = record::MAX_PAYLOAD - record::MAX_PAYLOAD / 8;

impl Spool {
    /// `spool DIR [max_size=SIZE] [segment=SIZE] [sync=always | 1s | off]`
    fn read(conf: &mut Conf, words: &[Vec<u8>]) -> Result<Spool, String> {
        let Some((dir, parameters)) = words.split_first() else {
            return Err("invalid number of arguments in \"spool\" directive".into());
        };
        let (mut max_size, mut segment, mut sync) = (None, None, None);
        for parameter in parameters {
            let text = String::from_utf8_lossy(parameter);
            let known = match text.split_once('=') {
                Some(("max_size", value)) => spool_size(value).map(|size| max_size.replace(size).is_some()),
                Some(("segment", value)) => spool_size(value).map(|size| segment.replace(size).is_some()),
                Some(("sync", value)) => Sync::parse(value).map(|value| sync.replace(value).is_some()),
                _ => None,
            };
            match known {
                None => {
                    return Err(format!(
                        "invalid parameter \"{text}\" in \"spool\" directive: expected \"max_size=SIZE\" or \
                         \"segment=SIZE\" of 64k at least, or \"sync=always\", \"sync=1s\" or \"sync=off\""
                    ));
                }
                Some(true) => return Err(format!("duplicate parameter \"{text}\" in \"spool\" directive")),
                Some(false) => {}
            }
        }
        let dir = conf.folder(dir)?;
        let threads = conf.thread_pool().map_err(|error| format!("a \"spool\" cannot be used: {error}"))?;
        let (max_size, segment) = (max_size.unwrap_or(1 << 30), segment.unwrap_or(16 << 20));
        Ok(Spool { dir, max_size, segment, sync: sync.unwrap_or(Sync::Second), threads })
    }
}

impl Sync {
    fn parse(value: &str) -> Option<Sync> {
        match value {
            "always" => Some(Sync::Always),
            "1s" => Some(Sync::Second),
            "off" => Some(Sync::Off),
            _ => None,
        }
    }
}

/// As nginx's offsets, with `g` too; at least 64k.
fn spool_size(value: &str) -> Option<u64> {
    let size = match value.strip_suffix(['g', 'G']) {
        Some(number) => number.parse::<u64>().ok()?.checked_mul(1 << 30),
        None => parse_size(value.as_bytes()).map(|size| size as u64),
    };
    size.filter(|size| *size >= 64 * 1024)
}

fn parse(url: &[u8]) -> Result<Server, String> {
    url::parse(url).map_err(|error| format!("the URL of a Redis {error}"))
}

fn resolve(conf: &mut Conf, server: &Server) -> Result<Vec<Address>, String> {
    let addresses = conf.resolve(&server.endpoint)?;
    match addresses.is_empty() {
        true => Err(format!("no address for \"{}\"", server.endpoint)),
        false => Ok(addresses),
    }
}

fn set<T>(slot: &mut Option<T>, value: T, name: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(duplicate(name)),
    }
}

fn time(value: &[u8], name: &str) -> Result<Msec, String> {
    // A day is more than any of these can mean.
    let time = parse_msec(value).filter(|time| (1..=86_400_000).contains(time));
    time.ok_or_else(|| invalid(value, name, "a time from 1ms to 1d"))
}
