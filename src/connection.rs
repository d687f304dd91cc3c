//! Connection: moves bytes between a window and a Redis server: connects, greets, sends, receives, closes.
//!
//! It decides nothing: when something ends the connection it says so ([`Lost`]), and the pool knows what follows.

use std::fmt;
use std::io;
use std::rc::Weak;
use std::time::Instant;

use crate::conf::redis::{Greeting, Settings};
use crate::metrics::Redis;
use crate::ngx::{Handler, Msec, Peer, Recv, Send, Timer};
use crate::reply::{Broken, Parser, Transaction, Verdict, printable};
use crate::window::{Command, Waiter, Window};

/// The size of an empty receive buffer, in bytes; one reply that does not fit lets it grow, up to `reply::MAX_REPLY`.
const INBOX: usize = 16 * 1024;

/// A connection of the pool, open or not, with what is to be sent on it.
pub struct Connection {
    link: Link,
    pub window: Window<Waiter>,
    inbox: Inbox,
    parser: Parser,
    /// Of the oldest command in flight, if that is one.
    transaction: Transaction,
    /// The socket took no more when something was last sent.
    blocked: bool,
    /// When Redis last sent something, or the first command after a silence was sent.
    progress: Msec,
    /// What Redis said that makes a new connection the better one: this one sends no more, and ends with its last reply.
    leaving: Option<String>,
    trip: Trip,
    counters: Redis,
    pub timer: Timer,
}

enum Link {
    Closed,
    Connecting { peer: Peer, until: Msec },
    Greeting { peer: Peer, until: Msec, sent: usize, answered: usize },
    Ready { peer: Peer, since: Msec },
}

/// A measurement of how long Redis takes from a write to the reply to its last command; one at a time, and at most one a
/// millisecond, so that it costs nothing under load.
#[derive(Default)]
struct Trip {
    /// Since when, and how many commands are to be answered.
    under_way: Option<(Instant, usize)>,
    begun: Msec,
}

impl Trip {
    fn begin(&mut self, in_flight: usize, now: Msec) {
        if in_flight > 0 && self.under_way.is_none() && self.begun != now {
            self.under_way = Some((Instant::now(), in_flight));
            self.begun = now;
        }
    }

    /// So many commands have been answered.
    fn reply(&mut self, commands: usize, counters: Redis) {
        if let Some((since, due)) = &mut self.under_way {
            *due = due.saturating_sub(commands);
            if *due == 0 {
                counters.round_trip(since.elapsed().as_nanos() as u64);
                self.under_way = None;
            }
        }
    }
}

/// What ended a connection, or an attempt to make one.
#[derive(Debug)]
pub enum Lost {
    Connect(io::Error),
    ConnectTimeout,
    /// Redis did not accept a command of the hand-shake.
    Refused {
        command: &'static str,
        reply: String,
    },
    Closed,
    Receive(io::Error),
    Send(io::Error),
    Protocol(Broken),
    /// A reply, or a push, that no command in flight expects.
    Unexpected,
    /// No reply has made progress for this long, in milliseconds.
    Stalled(Msec),
    /// A reply that says to connect anew.
    Reopen(String),
    /// The worker is on its way out and waits no longer: why.
    Shutdown(&'static str),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Lost::Connect(error) => write!(f, "connect failed: {error}"),
            Lost::ConnectTimeout => f.write_str("connect timed out"),
            Lost::Refused { command, reply } => write!(f, "{command} failed: {reply}"),
            Lost::Closed => f.write_str("closed by Redis"),
            Lost::Receive(error) => write!(f, "receive failed: {error}"),
            Lost::Send(error) => write!(f, "send failed: {error}"),
            Lost::Protocol(broken) => write!(f, "not a reply of Redis: {broken}"),
            Lost::Unexpected => f.write_str("a reply that nothing asked for"),
            Lost::Stalled(time) => write!(f, "no reply for {time} ms"),
            Lost::Reopen(reply) => write!(f, "Redis answered: {reply}"),
            Lost::Shutdown(why) => f.write_str(why),
        }
    }
}

/// Is given a command that was answered, the verdict on it, and the text of the reply: of the error that decides, where one does.
pub type Settle<'a> = dyn FnMut(Command<Waiter>, Verdict, &[u8]) + 'a;

/// What an event brought a connection to.
#[derive(PartialEq, Eq)]
pub enum Progress {
    None,
    /// The hand-shake is done.
    Ready,
}

impl Connection {
    pub fn new(timer: Timer, counters: Redis) -> Connection {
        Connection {
            link: Link::Closed,
            window: Window::default(),
            inbox: Inbox { bytes: Vec::new(), filled: 0 },
            parser: Parser::new(),
            transaction: Transaction::default(),
            blocked: false,
            progress: 0,
            leaving: None,
            trip: Trip::default(),
            counters,
            timer,
        }
    }

    /// Starts to connect to the address at `index`.
    pub fn open(
        &mut self,
        settings: &Settings,
        index: usize,
        handler: Weak<dyn Handler>,
        now: Msec,
    ) -> Result<(), Lost> {
        let address = settings.addresses.get(index).ok_or(Lost::Closed)?;
        let peer = Peer::connect(address, settings.unacknowledged(), handler).map_err(Lost::Connect)?;
        self.link = Link::Connecting { peer, until: now + settings.connect_timeout };
        // A unix socket is connected at once.
        self.writable(&settings.greeting, now).map(|_| ())
    }

    /// Closes; what was partly sent counts as unsent again, what is in flight stays in the window.
    pub fn close(&mut self) {
        self.link = Link::Closed;
        self.inbox.filled = 0;
        self.parser = Parser::new();
        self.transaction = Transaction::default();
        self.leaving = None;
        self.trip.under_way = None;
        self.blocked = false;
        self.window.rewind();
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.link, Link::Closed)
    }

    /// Whether commands can be sent; says since when.
    pub fn ready_since(&self) -> Option<Msec> {
        match self.link {
            Link::Ready { since, .. } => Some(since),
            _ => None,
        }
    }

    /// Whether nginx asks for the connection to be closed.
    pub fn must_close(&self) -> bool {
        self.peer().is_some_and(Peer::must_close)
    }

    /// Nothing waits here: let nginx close the connection when the worker quits, and do not hold that up by a timer.
    pub fn set_idle(&self, idle: bool) {
        self.timer.set_cancelable(idle);
        if let Some(peer) = self.peer() {
            peer.set_idle(idle);
        }
    }

    /// When an attempt to connect, or silence, has lasted too long; None while neither can.
    pub fn overdue_at(&self, settings: &Settings) -> Option<Msec> {
        match self.link {
            Link::Connecting { until, .. } | Link::Greeting { until, .. } => Some(until),
            Link::Ready { .. } if self.window.touched() > 0 => Some(self.progress + settings.stall_timeout),
            _ => None,
        }
    }

    /// The error that [`Connection::overdue_at`] stands for.
    pub fn overdue(&self, settings: &Settings) -> Lost {
        match self.link {
            Link::Ready { .. } => Lost::Stalled(settings.stall_timeout),
            _ => Lost::ConnectTimeout,
        }
    }

    /// The connection is made or takes bytes again.
    pub fn writable(&mut self, greeting: &Greeting, now: Msec) -> Result<Progress, Lost> {
        match &mut self.link {
            Link::Closed => Ok(Progress::None),
            Link::Connecting { peer, .. } => {
                if !peer.established().map_err(Lost::Connect)? {
                    return Ok(Progress::None);
                }
                if let Link::Connecting { peer, until } = std::mem::replace(&mut self.link, Link::Closed) {
                    self.link = Link::Greeting { peer, until, sent: 0, answered: 0 };
                }
                self.writable(greeting, now)?;
                // What the server said at once may have come with the connection itself: no later event tells of it.
                self.readable(greeting, now, &mut |_, _, _| {})
            }
            Link::Greeting { peer, sent, .. } => {
                while let Some(rest @ [_, ..]) = greeting.bytes().get(*sent..) {
                    match peer.send(rest) {
                        Send::Bytes(count) => *sent += count,
                        Send::Again => break,
                        Send::Failed(error) => return Err(Lost::Send(error)),
                    }
                }
                Ok(Progress::None)
            }
            Link::Ready { .. } if self.blocked => self.flush(now).map(|()| Progress::None),
            // epoll tells of it with each event for reading, too; what is unsent has its time at the end of the iteration.
            Link::Ready { .. } => Ok(Progress::None),
        }
    }

    /// Sends what the window holds, as far as the socket takes it.
    pub fn flush(&mut self, now: Msec) -> Result<(), Lost> {
        let Link::Ready { peer, .. } = &mut self.link else { return Ok(()) };
        if self.leaving.is_some() {
            return Ok(());
        }
        self.window.share();
        self.blocked = false;
        while let unsent @ [_, ..] = self.window.unsent() {
            match peer.send(unsent) {
                Send::Bytes(count) => {
                    if self.window.in_flight() == 0 {
                        self.progress = now;
                    }
                    let before = self.window.in_flight();
                    self.window.mark_sent(count);
                    self.counters.wrote(self.window.in_flight() - before);
                    self.trip.begin(self.window.in_flight(), now);
                }
                Send::Again => {
                    self.blocked = true;
                    break;
                }
                Send::Failed(error) => return Err(Lost::Send(error)),
            }
        }
        Ok(())
    }

    /// Receives what is there; `settle` is given each command that was answered.
    pub fn readable(&mut self, greeting: &Greeting, now: Msec, settle: &mut Settle) -> Result<Progress, Lost> {
        let mut progress = Progress::None;
        loop {
            let peer = match &mut self.link {
                Link::Closed => return Ok(progress),
                // An event for reading may be the first to tell that the connection failed.
                Link::Connecting { peer, .. } => {
                    return peer.established().map(|_| progress).map_err(Lost::Connect);
                }
                Link::Greeting { peer, .. } | Link::Ready { peer, .. } => peer,
            };
            match peer.recv(self.inbox.room()) {
                Recv::Bytes(count) => self.inbox.filled += count,
                Recv::Again => return Ok(progress),
                Recv::Closed => return Err(Lost::Closed),
                Recv::Failed(error) => return Err(Lost::Receive(error)),
            }
            self.progress = now;
            if self.replies(greeting, now, settle)? == Progress::Ready {
                progress = Progress::Ready;
            }
        }
    }

    fn replies(&mut self, greeting: &Greeting, now: Msec, settle: &mut Settle) -> Result<Progress, Lost> {
        let mut progress = Progress::None;
        let mut from = 0;
        while let Some(reply) = self.parser.next(self.inbox.received(from)).map_err(Lost::Protocol)? {
            from += reply.len();
            if reply.is_push() {
                return Err(Lost::Unexpected);
            }
            if let Link::Greeting { answered, .. } = &mut self.link {
                greeting.accept(*answered, &reply)?;
                *answered += 1;
                if *answered == greeting.count() {
                    if let Link::Greeting { peer, .. } = std::mem::replace(&mut self.link, Link::Closed) {
                        self.link = Link::Ready { peer, since: now };
                    }
                    progress = Progress::Ready;
                }
                continue;
            }
            if reply.reopens() {
                self.leaving = reply.error().map(printable);
            }
            let due = self.window.due().ok_or(Lost::Unexpected)?;
            let in_flight = self.window.in_flight();
            if due > 1 {
                let Some((verdict, error)) = self.transaction.take(due, &reply) else { continue };
                self.window.acknowledge(|command| settle(command, verdict, &error));
                self.trip.reply(in_flight - self.window.in_flight(), self.counters);
                continue;
            }
            let verdict = reply.verdict();
            // What does not belong here is not told on.
            let text = if verdict == Verdict::Unknown { &[] } else { reply.text() };
            self.window.acknowledge(|command| settle(command, verdict, text));
            self.trip.reply(in_flight - self.window.in_flight(), self.counters);
            if verdict == Verdict::Unknown {
                // +QUEUED: the connection is in a state that nobody asked for.
                return Err(Lost::Unexpected);
            }
        }
        self.inbox.consume(from);
        match &self.leaving {
            Some(reply) if self.window.in_flight() == 0 => Err(Lost::Reopen(reply.clone())),
            _ => Ok(progress),
        }
    }

    fn peer(&self) -> Option<&Peer> {
        match &self.link {
            Link::Closed => None,
            Link::Connecting { peer, .. } | Link::Greeting { peer, .. } | Link::Ready { peer, .. } => Some(peer),
        }
    }
}

/// The receive buffer: bytes of replies that are not whole yet.
struct Inbox {
    bytes: Vec<u8>,
    filled: usize,
}

impl Inbox {
    fn room(&mut self) -> &mut [u8] {
        if self.filled == self.bytes.len() {
            self.bytes.resize((self.bytes.len() * 2).max(INBOX), 0);
        }
        self.bytes.get_mut(self.filled..).unwrap_or_default()
    }

    fn received(&self, from: usize) -> &[u8] {
        self.bytes.get(from..self.filled).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        self.bytes.copy_within(count.min(self.filled)..self.filled, 0);
        self.filled -= count.min(self.filled);
        if self.filled == 0 && self.bytes.len() > INBOX {
            self.bytes = Vec::new();
        }
    }
}
