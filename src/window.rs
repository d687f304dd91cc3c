//! The window of a connection: takes in commands with those who wait for their replies, hands out bytes to send, and
//! owns both until replies acknowledge them, in order. Neighbours that can share a command do, on their way out. It does no
//! I/O and knows no time.
//!
//! ```text
//!   acknowledged          sent                 end
//!        |  in flight      |    unsent          |
//!   bytes ████████████████████████████████████████
//! ```

mod share;

use std::borrow::Cow;
use std::collections::VecDeque;

use share::Shared;

/// Capacity above which an empty window gives its memory back, in bytes.
const KEEP: usize = 256 * 1024;

/// Commands on their way to Redis, each a sequence of bytes that one reply answers, or several (a transaction), and
/// whoever (`W`) waits for them.
pub struct Window<W> {
    /// The entries' bytes, one after another; those before `start` belong to entries that are gone.
    bytes: Vec<u8>,
    start: usize,
    /// How many bytes have been sent, from `start` on.
    sent: usize,
    entries: VecDeque<Entry<W>>,
    /// How many entries, from the front, have been sent whole.
    in_flight: usize,
    /// How many bytes those have.
    in_flight_bytes: usize,
    /// How many entries, from the front, have been looked at for what they share.
    examined: usize,
}

struct Entry<W> {
    length: usize,
    replies: u32,
    /// Its bytes are only values, which belong to the command that the entry before it begins or goes on with.
    joined: bool,
    waiter: W,
}

/// A command as it was put into the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a, W> {
    text: Text<'a>,
    /// How many replies Redis gives to it.
    pub replies: u32,
    pub waiter: W,
    /// Whether all of it has been sent. What was sent in part did not run.
    pub sent: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text<'a> {
    Own(&'a [u8]),
    Shared(Shared<'a>),
}

impl<'a> Text<'a> {
    fn bytes(&self) -> Cow<'a, [u8]> {
        match self {
            Text::Own(bytes) => Cow::Borrowed(bytes),
            Text::Shared(shared) => Cow::Owned(shared.alone()),
        }
    }
}

impl<'a, W> Command<'a, W> {
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        self.text.bytes()
    }
}

/// Who waits for the reply to a command, where the entries are those of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// The number of the request in its pool.
    pub request: u32,
    /// The number of its event in the request's [report](crate::response::Report); 0 for a request of one event.
    pub event: u32,
}

impl<W: Copy> Default for Window<W> {
    fn default() -> Self {
        Window {
            bytes: Vec::new(),
            start: 0,
            sent: 0,
            entries: VecDeque::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            examined: 0,
        }
    }
}

impl<W: Copy> Window<W> {
    /// Appends a command to which Redis gives so many replies.
    pub fn push(&mut self, command: &[u8], replies: u32, waiter: W) {
        self.bytes.extend_from_slice(command);
        self.entries.push_back(Entry { length: command.len(), replies, joined: false, waiter });
    }

    /// The bytes to send next.
    pub fn unsent(&self) -> &[u8] {
        self.bytes.get(self.start + self.sent..).unwrap_or_default()
    }

    /// Notes that the first `count` bytes of [`Window::unsent`] have been sent.
    pub fn mark_sent(&mut self, count: usize) {
        self.sent = (self.sent + count).min(self.len());
        while let Some((count, length)) = self.extent(self.in_flight) {
            let end = self.in_flight_bytes + length;
            if end > self.sent {
                break;
            }
            self.in_flight_bytes = end;
            self.in_flight += count;
        }
    }

    /// How many replies Redis gives to the oldest command, which comes next; None when nothing in flight expects one.
    pub fn due(&self) -> Option<u32> {
        self.entries.front().filter(|_| self.in_flight > 0).map(|entry| entry.replies)
    }

    /// All replies to the oldest command have come: shows it, and each that shares it, and forgets them.
    pub fn acknowledge(&mut self, mut show: impl FnMut(Command<W>)) {
        let Some((count, length)) = self.extent(0).filter(|_| self.in_flight > 0) else { return };
        let bytes = self.bytes.get(self.start..self.start + length).unwrap_or_default();
        share::each(bytes, &self.entries, 0..count, |text, entry| {
            show(Command { text, replies: entry.replies, waiter: entry.waiter, sent: true });
        });
        self.entries.drain(..count);
        self.in_flight -= count;
        self.examined = self.examined.saturating_sub(count);
        self.in_flight_bytes -= length;
        self.sent -= length;
        self.start += length;
        self.reclaim();
    }

    /// How many entries share the command that the entry at `index` begins, and how many bytes it has.
    fn extent(&self, index: usize) -> Option<(usize, usize)> {
        let mut extent = (1, self.entries.get(index)?.length);
        while let Some(entry) = self.entries.get(index + extent.0).filter(|entry| entry.joined) {
            extent = (extent.0 + 1, extent.1 + entry.length);
        }
        Some(extent)
    }

    /// The connection is gone: shows each command, the oldest first. Those that `keep` says are to be sent, all of them
    /// again, and the others are forgotten.
    pub fn sift(&mut self, keep: impl FnMut(Command<W>) -> bool) {
        self.retain(0, keep);
        self.sent = 0;
        self.in_flight = 0;
        self.in_flight_bytes = 0;
    }

    /// Shows each command of which nothing has been sent, and forgets those that `keep` does not want.
    pub fn sift_unsent(&mut self, keep: impl FnMut(Command<W>) -> bool) {
        self.retain(self.touched(), keep);
    }

    /// Shows the commands from the one at `index` on, and forgets those that are not kept. In the order of their ages, and
    /// with one move of the bytes behind the first that goes.
    fn retain(&mut self, index: usize, mut keep: impl FnMut(Command<W>) -> bool) {
        self.part(index);
        self.examined = self.examined.min(index);
        let mut at = self.start + self.entries.range(..index).map(|entry| entry.length).sum::<usize>();
        let (mut end, mut number) = (at, 0);
        let Window { bytes, entries, in_flight, .. } = self;
        entries.retain(|entry| {
            number += 1;
            if number <= index {
                return true;
            }
            let from = at;
            at += entry.length;
            let Entry { replies, waiter, .. } = *entry;
            let sent = number <= *in_flight;
            let text = Text::Own(bytes.get(from..at).unwrap_or_default());
            let kept = keep(Command { text, replies, waiter, sent });
            if kept {
                if end < from {
                    bytes.copy_within(from..at, end);
                }
                end += entry.length;
            }
            kept
        });
        self.bytes.truncate(end);
        self.reclaim();
    }

    /// Who waits for each command, the oldest first, and whether anything of it has been sent.
    pub fn waiters(&self) -> impl Iterator<Item = (W, bool)> {
        let touched = self.touched();
        self.entries.iter().zip(0..).map(move |(entry, index)| (entry.waiter, index < touched))
    }

    /// How many entries have been sent whole and wait for their replies.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many entries, from the oldest, have been sent at least in part.
    pub fn touched(&self) -> usize {
        match self.extent(self.in_flight) {
            Some((count, _)) if self.sent > self.in_flight_bytes => self.in_flight + count,
            _ => self.in_flight,
        }
    }

    /// How many bytes there are, sent or not.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The connection is gone: what was partly sent did not run and counts as unsent again. What is in flight stays so
    /// until [`Window::sift`].
    pub fn rewind(&mut self) {
        self.sent = self.in_flight_bytes;
    }

    /// Makes room of what was acknowledged. Bytes are moved only once half of the vector is free: each at most once for
    /// each time that its length is acknowledged before it.
    fn reclaim(&mut self) {
        if self.entries.is_empty() {
            self.bytes.clear();
            self.start = 0;
            if self.bytes.capacity() > KEEP {
                self.bytes = Vec::new();
                self.entries = VecDeque::new();
            }
        } else if self.start >= 4096 && self.start * 2 >= self.bytes.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests;
