//! Table: blocks of words in memory that processes share, found by a key.
//!
//! A block is never taken from its key while it may be written, but for those of workers that are gone. All access is
//! atomic and relaxed but where a block changes hands; a word is a count of its own, and nothing depends on two of them.

use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};

/// How many words a block has: 512 bytes.
pub const WORDS: usize = 64;

/// A block. Its first words say whose it is; the others are its owner's.
#[derive(Clone, Copy)]
pub struct Block(&'static [AtomicU64; WORDS]);

/// Behind the first word, which has the kind.
const KEY: [usize; 2] = [1, 2];
/// Of a worker's blocks.
const OWNER: usize = 3;
/// The first word that is for counts, but in blocks of a worker.
pub const FIRST: usize = 3;

/// What a block is for. Its number stands in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Kind {
    /// Being given to an owner, or taken from one.
    Changing = 1,
    Location = 2,
    Redis = 3,
    Worker = 4,
    Gauges = 5,
}

const FREE: u64 = 0;

/// Whose a block is, in 128 bits: no two names that a configuration can have are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u64; 2]);

impl Key {
    /// Of names, which may hold anything.
    pub fn of(names: &[&str]) -> Key {
        let mut hash = Sha256::new();
        for name in names {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
        }
        let hash = hash.finalize();
        let word = |at: usize| hash.iter().skip(at).take(8).fold(0, |word, byte| word << 8 | u64::from(*byte));
        Key([word(0), word(8)])
    }

    /// Of two numbers.
    pub fn numbers(first: u64, second: u64) -> Key {
        Key([first, second])
    }
}

impl Block {
    /// One that nobody reads, for what has no other.
    pub fn nowhere() -> Block {
        static NOWHERE: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
        Block(&NOWHERE)
    }

    pub fn add(self, word: usize, count: u64) {
        if let Some(word) = self.0.get(word) {
            word.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub fn set(self, word: usize, value: u64) {
        if let Some(word) = self.0.get(word) {
            word.store(value, Ordering::Relaxed);
        }
    }

    pub fn get(self, word: usize) -> u64 {
        self.0.get(word).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// The numbers of [`Key::numbers`].
    pub fn key(self) -> [u64; 2] {
        KEY.map(|word| self.get(word))
    }

    pub fn is_of(self, key: Key) -> bool {
        self.key() == key.0
    }

    /// The process of a worker's block.
    pub fn owner(self) -> u32 {
        self.get(OWNER) as u32
    }

    fn is(self, kind: Kind) -> bool {
        self.0.first().is_some_and(|word| word.load(Ordering::Acquire) == kind as u64)
    }

    fn change(self, from: u64, to: u64) -> bool {
        let Some(word) = self.0.first() else { return false };
        word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Makes it the block of this key, unless another process was faster.
    fn take(self, kind: Kind, key: Key, owner: u32) -> bool {
        if !self.change(FREE, Kind::Changing as u64) {
            return false;
        }
        (KEY.into_iter().zip(key.0)).for_each(|(word, value)| self.set(word, value));
        if owner > 0 {
            self.set(OWNER, owner.into());
        }
        self.change(Kind::Changing as u64, kind as u64)
    }

    /// Makes it free; false when another process was faster.
    fn give_back(self, kind: Kind) -> bool {
        if !self.change(kind as u64, Kind::Changing as u64) {
            return false;
        }
        (1..WORDS).for_each(|word| self.set(word, 0));
        self.change(Kind::Changing as u64, FREE)
    }
}

/// The blocks of a zone. The first one is the table's own.
#[derive(Clone, Copy)]
pub struct Table {
    head: Block,
    blocks: &'static [[AtomicU64; WORDS]],
}

/// Words of the table's own block.
const SINCE: usize = 1;
const CONFIGURATIONS: usize = 2;
const RESTARTS: usize = 3;

impl Table {
    /// Over memory that is all zero, or was a table before; None when it is too small for anything.
    pub fn over(memory: &'static [AtomicU64], unix_ms: u64) -> Option<Table> {
        let (blocks, _) = memory.as_chunks::<WORDS>();
        let (head, blocks) = blocks.split_first()?;
        let head = Block(head);
        if head.get(SINCE) == 0 {
            head.set(SINCE, unix_ms);
        }
        Some(Table { head, blocks })
    }

    /// When counting began, in milliseconds since 1970.
    pub fn since(&self) -> u64 {
        self.head.get(SINCE)
    }

    /// How many workers came in place of one that had died.
    pub fn restarts(&self) -> u64 {
        self.head.get(RESTARTS)
    }

    /// A number for each configuration, that grows.
    pub fn next_configuration(&self) -> u64 {
        self.head.add(CONFIGURATIONS, 1);
        self.head.get(CONFIGURATIONS)
    }

    /// The block of that key, a free one if there is none yet; None when there is no room. To be called by one process at a
    /// time: the master.
    pub fn find_or_take(&self, kind: Kind, key: Key) -> Option<Block> {
        let mut blocks = self.blocks();
        if let Some(block) = blocks.find(|block| block.is(kind) && block.is_of(key)) {
            return Some(block);
        }
        // A quarter is left for what workers need.
        let mut free = self.blocks().take(self.blocks.len() - self.blocks.len() / 4);
        free.find(|block| block.take(kind, key, 0))
    }

    /// A block that is its process's own; from behind, where no others are.
    pub fn take_for(&self, owner: u32, kind: Kind, key: Key) -> Option<Block> {
        self.blocks().rev().find(|block| block.take(kind, key, owner))
    }

    /// The blocks of that kind.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = Block> {
        self.blocks().filter(move |block| block.is(kind))
    }

    /// Gives back what dead workers have left, and counts these.
    pub fn clear_dead(&self, lives: impl Fn(u32) -> bool) {
        for block in self.all(Kind::Worker).filter(|block| !lives(block.owner())) {
            if block.give_back(Kind::Worker) {
                self.head.add(RESTARTS, 1);
            }
        }
        for block in self.all(Kind::Gauges).filter(|block| !lives(block.owner())) {
            block.give_back(Kind::Gauges);
        }
    }

    /// Gives back what a worker has, at its end.
    pub fn clear_own(&self, owner: u32) {
        for kind in [Kind::Worker, Kind::Gauges] {
            self.all(kind).filter(|block| block.owner() == owner).for_each(|block| {
                block.give_back(kind);
            });
        }
    }

    fn blocks(&self) -> impl DoubleEndedIterator<Item = Block> + ExactSizeIterator + use<> {
        self.blocks.iter().map(Block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(blocks: usize) -> &'static [AtomicU64] {
        Box::leak((0..blocks * WORDS).map(|_| AtomicU64::new(0)).collect())
    }

    #[test]
    fn a_block_is_found_again_by_its_key_in_a_table_over_the_same_memory() {
        let memory = memory(9);
        let table = Table::over(memory, 1000).unwrap();
        let [a, b] = ["a", "b"].map(|name| Key::of(&[name]));
        table.find_or_take(Kind::Location, a).unwrap().add(FIRST, 3);
        table.find_or_take(Kind::Location, b).unwrap().add(FIRST, 4);
        let again = Table::over(memory, 2000).unwrap();
        assert_eq!(again.since(), 1000);
        let found = |kind, key| again.find_or_take(kind, key).unwrap().get(FIRST);
        assert_eq!((found(Kind::Location, a), found(Kind::Location, b), found(Kind::Redis, a)), (3, 4, 0));
    }

    #[test]
    fn names_are_told_apart_by_where_they_end() {
        assert_ne!(Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
        assert_ne!(Key::of(&["a", ""]), Key::of(&["", "a"]));
    }

    #[test]
    fn a_full_table_takes_no_more_and_leaves_room_for_workers() {
        let table = Table::over(memory(9), 1).unwrap();
        let take = |n: u64| table.find_or_take(Kind::Location, Key::numbers(n, 0));
        assert_eq!((0..8).filter(|n| take(*n).is_some()).count(), 6);
        assert!(take(0).is_some(), "one that is there is found");
        assert!(table.take_for(7, Kind::Worker, Key::numbers(0, 0)).is_some());
        assert!(table.take_for(7, Kind::Gauges, Key::numbers(0, 0)).is_some());
        assert!(table.take_for(7, Kind::Gauges, Key::numbers(0, 0)).is_none());
        assert!(Table::over(memory(0), 1).is_none());
    }

    #[test]
    fn what_a_dead_worker_leaves_is_taken_back_and_counted_once() {
        let table = Table::over(memory(20), 1).unwrap();
        for pid in [7, 8] {
            table.take_for(pid, Kind::Worker, Key::numbers(0, 1)).unwrap();
            table.take_for(pid, Kind::Gauges, Key::of(&["queue"])).unwrap().set(OWNER + 1, 5);
        }
        table.clear_dead(|pid| pid == 8);
        table.clear_dead(|pid| pid == 8);
        let owners = |kind| table.all(kind).map(Block::owner).collect::<Vec<_>>();
        assert_eq!((table.restarts(), owners(Kind::Worker), owners(Kind::Gauges)), (1, vec![8], vec![8]));
        table.clear_own(8);
        assert_eq!((table.restarts(), table.all(Kind::Gauges).count()), (1, 0));
        assert_eq!(table.take_for(9, Kind::Gauges, Key::of(&["queue"])).unwrap().get(OWNER + 1), 0, "it is cleared");
    }

    #[test]
    fn no_two_processes_get_the_same_block() {
        let table = Table::over(memory(400), 1).unwrap();
        let take = |owner| (0..100).filter_map(|_| table.take_for(owner, Kind::Gauges, Key::numbers(0, 0))).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (1..5).map(|owner| scope.spawn(move || take(owner))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, table.all(Kind::Gauges).count()), (399, 399));
    }
}
