//! The window of a connection: takes in commands with those who wait for their replies, hands out bytes to send, and
//! owns both until a reply acknowledges them, in order. It does no I/O and knows no time.
//!
//! ```text
//!   acknowledged          sent                 end
//!        |  in flight      |    unsent          |
//!   bytes ████████████████████████████████████████
//! ```

use std::collections::VecDeque;
use std::ops::Range;

/// Capacity above which an empty window gives its memory back, in bytes.
const KEEP: usize = 256 * 1024;

/// Commands on their way to Redis, each a sequence of bytes that one reply answers, and whoever (`W`) waits for it.
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
    waiter: W,
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
    /// Appends a command.
    pub fn push(&mut self, command: &[u8], waiter: W) {
        self.bytes.extend_from_slice(command);
        self.entries.push_back(Entry { length: command.len(), waiter });
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

    /// A reply has come: gives whose it is, and forgets the command. None when no command in flight expects one.
    pub fn acknowledge(&mut self) -> Option<W> {
        if self.in_flight == 0 { None } else { self.give_up() }
    }

    /// Forgets the oldest command, sent or not; gives whose it is.
    pub fn give_up(&mut self) -> Option<W> {
        let entry = self.entries.pop_front()?;
        if self.in_flight > 0 {
            self.in_flight -= 1;
            self.in_flight_bytes -= entry.length;
        }
        self.sent = self.sent.saturating_sub(entry.length);
        self.start += entry.length;
        self.reclaim();
        Some(entry.waiter)
    }

    /// The connection is gone: what was partly sent did not run and counts as unsent again. What is in flight is the
    /// caller's to [`Window::acknowledge`] as unknown.
    pub fn rewind(&mut self) {
        self.sent = self.in_flight_bytes;
    }

    /// Takes entries out that have not been sent at all, by their index; gives how many they were. Those of the range
    /// that were sent, or partly, stay.
    pub fn remove_unsent(&mut self, range: Range<usize>) -> usize {
        let range = range.start.max(self.touched())..range.end.min(self.entries.len());
        if range.is_empty() {
            return 0;
        }
        let before: usize = self.entries.range(..range.start).map(|entry| entry.length).sum();
        let length: usize = self.entries.range(range.clone()).map(|entry| entry.length).sum();
        let from = self.start + before;
        self.bytes.drain(from..from + length);
        self.entries.drain(range.clone());
        self.reclaim();
        range.len()
    }

    /// Who waits for the entry at `index`, counted from the oldest.
    pub fn waiter(&self, index: usize) -> Option<W> {
        self.entries.get(index).map(|entry| entry.waiter)
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

    #[test]
    fn entries_are_acknowledged_in_order_once_sent_whole() {
        let mut window = Window::default();
        window.push(b"aaa", 1);
        window.push(b"bb", 2);
        assert_eq!(window.acknowledge(), None, "nothing has been sent");
        window.mark_sent(4);
        assert_eq!((window.in_flight(), window.unsent()), (1, &b"b"[..]));
        assert_eq!(window.acknowledge(), Some(1));
        assert_eq!(window.acknowledge(), None, "the second is sent only in part");
        window.mark_sent(1);
        assert_eq!(window.acknowledge(), Some(2));
        assert!(window.is_empty());
        assert_eq!(window.len(), 0);
    }

    #[test]
    fn what_was_partly_sent_is_sent_again_from_its_beginning() {
        let mut window = Window::default();
        window.push(b"aaa", 1);
        window.push(b"bbbb", 2);
        window.mark_sent(5);
        window.rewind();
        assert_eq!((window.in_flight(), window.unsent()), (1, &b"bbbb"[..]));
        assert_eq!(window.acknowledge(), Some(1));
        assert_eq!(window.unsent(), b"bbbb");
    }

    #[test]
    fn only_what_was_not_sent_at_all_can_be_taken_out() {
        let mut window = Window::default();
        for (command, waiter) in [(b"aa", 1), (b"bb", 2), (b"cc", 3), (b"dd", 4)] {
            window.push(command, waiter);
        }
        window.mark_sent(3);
        assert_eq!(window.remove_unsent(0..3), 1, "one in flight, one partly sent");
        assert_eq!((0..).map_while(|index| window.waiter(index)).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(window.unsent(), b"bdd");
    }

    #[test]
    fn an_emptied_window_gives_a_large_buffer_back() {
        let mut window = Window::default();
        window.push(&vec![b'x'; 4 * KEEP], 1);
        window.mark_sent(4 * KEEP);
        window.acknowledge();
        assert!(window.bytes.capacity() <= KEEP);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<u8>),
        Send(usize),
        Reply,
        Reconnect,
        Remove(usize, usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 1..3000).prop_map(Step::Push),
            4 => (0..5000usize).prop_map(Step::Send),
            3 => Just(Step::Reply),
            1 => Just(Step::Reconnect),
            1 => (0..8usize, 0..4usize).prop_map(|(at, count)| Step::Remove(at, count)),
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
                        window.push(&bytes, number);
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
                        prop_assert_eq!(window.acknowledge(), expected.map(|(_, waiter, _)| waiter));
                    }
                    Step::Reconnect => {
                        window.rewind();
                        for (bytes, _, sent) in &mut model {
                            if *sent < bytes.len() {
                                *sent = 0;
                            }
                        }
                    }
                    Step::Remove(at, count) => {
                        let range = at..at + count;
                        let mut index = 0;
                        let before = model.len();
                        model.retain(|(_, _, sent)| {
                            let keep = !range.contains(&index) || *sent > 0;
                            index += 1;
                            keep
                        });
                        prop_assert_eq!(window.remove_unsent(range), before - model.len());
                    }
                }
                let unsent: Vec<u8> = model.iter().flat_map(|(bytes, _, sent)| bytes[*sent..].to_vec()).collect();
                prop_assert_eq!(window.unsent(), &unsent[..]);
                prop_assert_eq!(window.len(), model.iter().map(|(bytes, ..)| bytes.len()).sum::<usize>());
                prop_assert_eq!(window.in_flight(), model.iter().filter(|(bytes, _, sent)| *sent == bytes.len()).count());
                prop_assert!((0..).map_while(|index| window.waiter(index)).eq(model.iter().map(|(_, waiter, _)| *waiter)));
            }
        }
    }
}
