//! The window of a connection: takes in commands with those who wait for their replies, hands out bytes to send, and
//! owns both until replies acknowledge them, in order. It does no I/O and knows no time.
//!
//! ```text
//!   acknowledged          sent                 end
//!        |  in flight      |    unsent          |
//!   bytes ████████████████████████████████████████
//! ```

use std::collections::VecDeque;

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
}

struct Entry<W> {
    length: usize,
    replies: u32,
    waiter: W,
}

/// A command as it lies in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a, W> {
    pub bytes: &'a [u8],
    /// How many replies Redis gives to it.
    pub replies: u32,
    pub waiter: W,
    /// Whether all of it has been sent. What was sent in part did not run.
    pub sent: bool,
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
        Window { bytes: Vec::new(), start: 0, sent: 0, entries: VecDeque::new(), in_flight: 0, in_flight_bytes: 0 }
    }
}

impl<W: Copy> Window<W> {
    /// Appends a command to which Redis gives so many replies.
    pub fn push(&mut self, command: &[u8], replies: u32, waiter: W) {
        self.bytes.extend_from_slice(command);
        self.entries.push_back(Entry { length: command.len(), replies, waiter });
    }

    /// The bytes to send next.
    pub fn unsent(&self) -> &[u8] {
        self.bytes.get(self.start + self.sent..).unwrap_or_default()
    }

    /// Notes that the first `count` bytes of [`Window::unsent`] have been sent.
    pub fn mark_sent(&mut self, count: usize) {
        self.sent = (self.sent + count).min(self.len());
        while let Some(entry) = self.entries.get(self.in_flight) {
            let end = self.in_flight_bytes + entry.length;
            if end > self.sent {
                break;
            }
            self.in_flight_bytes = end;
            self.in_flight += 1;
        }
    }

    /// The oldest command, whose reply comes next; None when no command in flight expects one.
    pub fn oldest(&self) -> Option<Command<'_, W>> {
        let entry = self.entries.front().filter(|_| self.in_flight > 0)?;
        let bytes = self.bytes.get(self.start..self.start + entry.length).unwrap_or_default();
        Some(Command { bytes, replies: entry.replies, waiter: entry.waiter, sent: true })
    }

    /// All replies to the oldest command have come: forgets it.
    pub fn acknowledge(&mut self) {
        if self.in_flight == 0 {
            return;
        }
        let Some(entry) = self.entries.pop_front() else { return };
        self.in_flight -= 1;
        self.in_flight_bytes -= entry.length;
        self.sent -= entry.length;
        self.start += entry.length;
        self.reclaim();
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
            let kept = keep(Command { bytes: bytes.get(from..at).unwrap_or_default(), replies, waiter, sent });
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
        self.in_flight + usize::from(self.sent > self.in_flight_bytes)
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn acknowledge(window: &mut Window<usize>) -> Option<usize> {
        let waiter = window.oldest().map(|command| command.waiter);
        window.acknowledge();
        waiter
    }

    #[test]
    fn entries_are_acknowledged_in_order_once_sent_whole() {
        let mut window = Window::default();
        window.push(b"aaa", 1, 1);
        window.push(b"bb", 3, 2);
        assert_eq!(acknowledge(&mut window), None, "nothing has been sent");
        window.mark_sent(4);
        assert_eq!((window.in_flight(), window.unsent()), (1, &b"b"[..]));
        assert_eq!(acknowledge(&mut window), Some(1));
        assert_eq!(acknowledge(&mut window), None, "the second is sent only in part");
        window.mark_sent(1);
        assert_eq!(window.oldest(), Some(Command { bytes: b"bb", replies: 3, waiter: 2, sent: true }));
        assert_eq!(acknowledge(&mut window), Some(2));
        assert!(window.is_empty());
        assert_eq!(window.len(), 0);
    }

    #[test]
    fn what_is_kept_is_sent_again_from_its_beginning() {
        let mut window = Window::default();
        for (command, waiter) in [(b"aaa", 1), (b"bbb", 2), (b"ccc", 3), (b"ddd", 4)] {
            window.push(command, 1, waiter);
        }
        window.mark_sent(7);
        window.rewind();
        let mut seen = Vec::new();
        window.sift(|command| {
            seen.push((command.bytes.to_vec(), command.waiter, command.sent));
            command.waiter % 2 == 0
        });
        let expected = [(b"aaa", 1, true), (b"bbb", 2, true), (b"ccc", 3, false), (b"ddd", 4, false)];
        assert_eq!(seen, expected.map(|(bytes, waiter, sent)| (bytes.to_vec(), waiter, sent)));
        assert_eq!((window.in_flight(), window.unsent()), (0, &b"bbbddd"[..]));
    }

    #[test]
    fn only_what_was_not_sent_at_all_can_be_taken_out() {
        let mut window = Window::default();
        for (command, waiter) in [(b"aa", 1), (b"bb", 2), (b"cc", 3), (b"dd", 4)] {
            window.push(command, 1, waiter);
        }
        window.mark_sent(3);
        window.sift_unsent(|command| command.waiter == 4);
        assert_eq!(window.waiters().collect::<Vec<_>>(), [(1, true), (2, true), (4, false)]);
        assert_eq!(window.unsent(), b"bdd");
    }

    #[test]
    fn an_emptied_window_gives_a_large_buffer_back() {
        let mut window = Window::default();
        window.push(&vec![b'x'; 4 * KEEP], 1, 1);
        window.mark_sent(4 * KEEP);
        window.acknowledge();
        assert!(window.bytes.capacity() <= KEEP);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<u8>),
        Send(usize),
        Reply,
        Lose(usize),
        Remove(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => prop::collection::vec(any::<u8>(), 1..3000).prop_map(Step::Push),
            4 => (0..5000usize).prop_map(Step::Send),
            3 => Just(Step::Reply),
            1 => (1..5usize).prop_map(Step::Lose),
            1 => (1..5usize).prop_map(Step::Remove),
        ]
    }

    proptest! {
        /// Against a plain list of (bytes, waiter, bytes sent): the same bytes go out, the same waiters come back.
        #[test]
        fn behaves_as_a_list_of_commands(steps in prop::collection::vec(step(), 1..200)) {
            let mut window = Window::default();
            let mut model: VecDeque<(Vec<u8>, usize, usize)> = VecDeque::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Push(bytes) => {
                        window.push(&bytes, 1, number);
                        model.push_back((bytes, number, 0));
                    }
                    Step::Send(count) => {
                        let mut left = count.min(window.unsent().len());
                        window.mark_sent(left);
                        for (bytes, _, sent) in &mut model {
                            let now = left.min(bytes.len() - *sent);
                            *sent += now;
                            left -= now;
                        }
                    }
                    Step::Reply => {
                        let whole = model.front().is_some_and(|(bytes, _, sent)| *sent == bytes.len());
                        let expected = if whole { model.pop_front() } else { None };
                        prop_assert_eq!(acknowledge(&mut window), expected.map(|(_, waiter, _)| waiter));
                    }
                    Step::Lose(nth) => {
                        window.rewind();
                        window.sift(|command| command.waiter % nth != 0 || !command.sent);
                        model.retain(|(bytes, waiter, sent)| waiter % nth != 0 || *sent < bytes.len());
                        model.iter_mut().for_each(|(_, _, sent)| *sent = 0);
                    }
                    Step::Remove(nth) => {
                        window.sift_unsent(|command| {
                            assert!(!command.sent);
                            command.waiter % nth != 0
                        });
                        model.retain(|(_, waiter, sent)| *sent > 0 || waiter % nth != 0);
                    }
                }
                let unsent: Vec<u8> = model.iter().flat_map(|(bytes, _, sent)| bytes[*sent..].to_vec()).collect();
                prop_assert_eq!(window.unsent(), &unsent[..]);
                prop_assert_eq!(window.len(), model.iter().map(|(bytes, ..)| bytes.len()).sum::<usize>());
                prop_assert_eq!(window.in_flight(), model.iter().filter(|(bytes, _, sent)| *sent == bytes.len()).count());
                let touched = model.iter().map(|(_, waiter, sent)| (*waiter, *sent > 0));
                prop_assert!(window.waiters().eq(touched));
                if let Some(oldest) = window.oldest() {
                    prop_assert_eq!(oldest.bytes, &model[0].0[..]);
                }
            }
        }
    }
}
