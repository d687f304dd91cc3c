//! Hold: the events that were promised to a client and that Redis has not taken yet, in order, until it is back.
//!
//! Knows no nginx; time comes in as an argument.

use std::collections::VecDeque;
use std::ops::{AddAssign, SubAssign};

use crate::backoff::Backoff;
use crate::command::Commands;

/// When a client is told that all is well (`meteorit_ack`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// Once Redis has answered every command.
    Stored,
    /// At once; the event is held until Redis has taken it.
    Queued,
}

/// What a location promises of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    pub ack: Ack,
    /// Whether a command is sent again of which nobody knows whether Redis did it (`meteorit_retry ambiguous`).
    pub ambiguous: bool,
    /// Whether what Redis does not take now goes to the spool.
    pub spool: bool,
}

/// The commands of a request that Redis is still to take.
#[derive(Debug)]
pub struct Record {
    pub commands: Commands,
    /// Of how many events they are.
    pub events: u32,
    /// Whether they may go to the spool.
    pub spool: bool,
    /// Where they lie in the spool, if they do.
    pub kept: Option<u64>,
}

/// An amount of what is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    pub bytes: usize,
    pub commands: usize,
}

/// How much is on its way at a time at most, once Redis has proved that it takes it: enough for a Redis that is far away. So much
/// of the spool is also read ahead.
const IN_FLIGHT: Amount = Amount { bytes: 512 * 1024, commands: 4096 };

/// Records that wait, and those on their way.
pub struct Hold {
    /// On its way at a time, and read ahead.
    limit: Amount,
    /// Those that were sent and came back, before all others.
    returned: VecDeque<Record>,
    waiting: VecDeque<Record>,
    /// Of those that wait.
    amount: Amount,
    events: usize,
    /// Those on their way, in order, and how much they are together.
    in_flight: VecDeque<Amount>,
    sent: Amount,
    backoff: Backoff,
    /// Not before; in milliseconds on the worker's clock.
    retry_at: u64,
}

impl Amount {
    fn of(record: &Record) -> Amount {
        Amount { bytes: record.commands.len(), commands: record.commands.count() }
    }

    /// Whether there is room for more in a limit of so much.
    fn is_below(self, limit: Amount) -> bool {
        self.bytes < limit.bytes && self.commands < limit.commands
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        self.bytes += other.bytes;
        self.commands += other.commands;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Amount) {
        self.bytes -= other.bytes;
        self.commands -= other.commands;
    }
}

impl Hold {
    /// For a pool that holds so many bytes and events in all: new requests find half of both free, whatever was read ahead.
    pub fn new(backlog: usize, max_pending: u32) -> Hold {
        let bytes = IN_FLIGHT.bytes.min(backlog / 4);
        let commands = IN_FLIGHT.commands.min(max_pending as usize / 4);
        Hold {
            limit: Amount { bytes: bytes.max(1), commands: commands.max(1) },
            returned: VecDeque::new(),
            waiting: VecDeque::new(),
            amount: Amount::default(),
            events: 0,
            in_flight: VecDeque::new(),
            sent: Amount::default(),
            backoff: Backoff::default(),
            retry_at: 0,
        }
    }

    /// Takes in a record behind all others.
    pub fn push(&mut self, record: Record) {
        self.count(&record);
        self.waiting.push_back(record);
    }

    /// Takes in a record that was sent and that Redis has not taken; `random` is any 32 random bits.
    pub fn push_refused(&mut self, record: Record, now: u64, random: u32) {
        self.fail(now, random);
        self.push(record);
    }

    /// The next record to send, if one is due.
    pub fn next(&mut self, now: u64) -> Option<Record> {
        // After a failure one goes first, to see whether Redis takes it.
        let has_room = match self.backoff.is_failing() {
            true => self.in_flight.is_empty(),
            false => self.sent.is_below(self.limit),
        };
        if !has_room || now < self.retry_at {
            return None;
        }
        let record = self.returned.pop_front().or_else(|| self.waiting.pop_front())?;
        let amount = Amount::of(&record);
        self.amount -= amount;
        self.events -= record.events as usize;
        self.sent += amount;
        self.in_flight.push_back(amount);
        Some(record)
    }

    /// Redis has done all that a record on its way asked for, or never will.
    pub fn done(&mut self) {
        self.arrive();
        self.backoff.reset();
        self.retry_at = 0;
    }

    /// Redis has not taken this part of a record that was on its way; `random` as above.
    pub fn give_back(&mut self, record: Record, now: u64, random: u32) {
        self.arrive();
        self.fail(now, random);
        self.count(&record);
        self.returned.push_back(record);
    }

    /// The oldest record on its way is there.
    fn arrive(&mut self) {
        if let Some(amount) = self.in_flight.pop_front() {
            self.sent -= amount;
        }
    }

    /// Of many failures at a time one counts.
    fn fail(&mut self, now: u64, random: u32) {
        if now >= self.retry_at {
            self.retry_at = now + self.backoff.fail(random);
        }
    }

    /// Redis is back: what waits need not wait longer.
    pub fn retry_now(&mut self) {
        self.retry_at = 0;
    }

    /// When the next record is due, if one waits and none is on its way.
    pub fn due_at(&self) -> Option<u64> {
        (self.events > 0 && self.in_flight.is_empty()).then_some(self.retry_at)
    }

    /// Whether a new event has to go behind others.
    pub fn is_active(&self) -> bool {
        !self.in_flight.is_empty() || !self.returned.is_empty() || !self.waiting.is_empty()
    }

    /// How much more may be read from the spool, once half of what was read ahead is on its way.
    pub fn room(&self) -> Option<Amount> {
        let Amount { bytes, commands } = self.limit;
        let half = Amount { bytes: bytes.div_ceil(2), commands: commands.div_ceil(2) };
        self.amount.is_below(half).then_some(half)
    }

    /// How many records are on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Of those that wait, in bytes.
    pub fn bytes(&self) -> usize {
        self.amount.bytes
    }

    /// How many events wait.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Whether something waits that no file holds.
    pub fn has_unkept(&self) -> bool {
        self.returned.iter().chain(&self.waiting).any(|record| record.kept.is_none())
    }

    /// Redis has not taken what is not held here; `random` as above.
    pub fn refused(&mut self, now: u64, random: u32) {
        self.fail(now, random);
    }

    /// Gives up what waits.
    pub fn take_all(&mut self) -> impl Iterator<Item = Record> {
        (self.amount, self.events) = (Amount::default(), 0);
        std::mem::take(&mut self.returned).into_iter().chain(std::mem::take(&mut self.waiting))
    }

    fn count(&mut self, record: &Record) {
        self.amount += Amount::of(record);
        self.events += record.events as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> Record {
        let mut commands = Commands::new();
        commands.push(name.as_bytes(), 1);
        Record { commands, events: 1, spool: false, kept: None }
    }

    fn name(record: &Record) -> String {
        record.commands.iter().map(|command| String::from_utf8_lossy(command).into_owned()).collect()
    }

    fn hold(names: &[&str]) -> Hold {
        let mut hold = Hold::new(1 << 20, 1000);
        names.iter().for_each(|name| hold.push(record(name)));
        hold
    }

    #[test]
    fn what_came_back_goes_first_and_in_order() {
        let mut hold = hold(&["a", "b", "c"]);
        let sent = [hold.next(0).unwrap(), hold.next(0).unwrap()];
        assert_eq!((hold.events(), hold.bytes(), hold.is_active()), (1, 1, true));
        let later = sent.map(|record| hold.give_back(record, 0, 0)).len() as u64 * 1000;
        hold.push(record("d"));
        assert_eq!((hold.events(), hold.bytes()), (4, 4));
        assert!(hold.next(0).is_none(), "not before its time");
        let mut order = Vec::new();
        while let Some(record) = hold.next(later) {
            order.push(name(&record));
            hold.done();
        }
        assert_eq!(order, ["a", "b", "c", "d"]);
        assert!(!hold.is_active());
    }

    #[test]
    fn after_a_failure_one_record_tries_for_all() {
        let mut hold = hold(&["a", "b", "c"]);
        let first = hold.next(0).unwrap();
        hold.give_back(first, 0, 0);
        let due = hold.due_at().unwrap();
        assert!((450..550).contains(&due), "{due}");
        assert!(hold.next(due - 1).is_none());
        assert_eq!(name(&hold.next(due).unwrap()), "a");
        assert!(hold.next(due).is_none(), "one is on its way");
        assert_eq!(hold.due_at(), None);
        hold.done();
        assert_eq!([hold.next(due), hold.next(due)].map(|record| name(&record.unwrap())), ["b", "c"]);
    }

    #[test]
    fn what_is_on_its_way_and_read_ahead_leaves_half_of_all_free() {
        let sent = |hold: &mut Hold| std::iter::from_fn(|| hold.next(0)).count();
        // By their number, and by their bytes.
        for (backlog, max_pending, ahead) in [(1 << 20, 40, 5), (40, 1000, 5)] {
            let mut hold = Hold::new(backlog, max_pending);
            let mut count = 0;
            while let Some(room) = hold.room() {
                assert_eq!(room.commands.min(room.bytes), ahead);
                (0..ahead).for_each(|_| hold.push(record("x")));
                count += ahead;
                assert!(count <= 10);
            }
            (0..20).for_each(|_| hold.push(record("x")));
            assert_eq!(sent(&mut hold), 10);
            (0..4).for_each(|_| hold.done());
            assert_eq!(sent(&mut hold), 4, "as many as were answered");
        }
        let mut tiny = Hold::new(1, 1);
        assert!(tiny.room().is_some());
        (0..2).for_each(|_| tiny.push(record("larger than that")));
        assert_eq!(sent(&mut tiny), 1, "one at a time, whatever its size");
    }

    #[test]
    fn a_failure_of_many_counts_once() {
        let mut hold = hold(&["a", "b", "c"]);
        let sent = [hold.next(0), hold.next(0), hold.next(0)].map(Option::unwrap);
        sent.into_iter().for_each(|record| hold.give_back(record, 0, 0));
        assert!(hold.due_at().unwrap() < 600);
        hold.retry_now();
        assert_eq!(hold.due_at(), Some(0));
        assert_eq!(hold.take_all().map(|record| name(&record)).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert!(!hold.is_active());
    }
}
