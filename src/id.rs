//! The time comes in, an identifier for one event goes out: a UUID of version 7 (RFC 9562, section 5.7).
//!
//! Identifiers of one generator only ever grow. It never reads a clock and never gathers entropy: both are the caller's.

use std::fmt;

use chacha20::ChaCha8Rng;
use chacha20::rand_core::{Rng, SeedableRng};
use uuid::Builder;
use uuid::fmt::Hyphenated;

/// A UUID in its text form: lower case, with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; Id::LENGTH]);

impl Id {
    /// Bytes of the text form.
    pub const LENGTH: usize = Hyphenated::LENGTH;

    /// The text form, ASCII. Two of the same generator compare as they were made.
    pub fn as_bytes(&self) -> &[u8; Id::LENGTH] {
        &self.0
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({})", self.0.escape_ascii())
    }
}

/// Makes identifiers that are unique everywhere and grow within this generator, also when the clock steps back.
///
/// Behind the 48 bits of milliseconds stands a counter in the 12 bits of `rand_a` (RFC 9562, section 6.2, method 1), which begins anew with
/// each millisecond at a random number whose top bit is 0, so that at least 2048 identifiers fit; what is more takes its time from the
/// milliseconds to come, and a clock that stepped back is waited for. The other 62 bits are random for each identifier, from a
/// cryptographic generator as section 6.9 asks for.
#[derive(Debug)]
pub struct Ids {
    random: ChaCha8Rng,
    /// The time of the last identifier.
    unix_ms: u64,
    counter: u16,
}

/// The largest number that `rand_a` holds.
const COUNTER_MAX: u16 = 0xfff;

impl Ids {
    /// `seed` must be random and differ from every other generator's: a worker makes its own after the fork.
    pub fn new(seed: [u8; 32]) -> Self {
        Ids { random: ChaCha8Rng::from_seed(seed), unix_ms: 0, counter: 0 }
    }

    /// The next identifier, greater than every one before it. `unix_ms` is the time in milliseconds since 1970, below 2^48 (the year 10889).
    /// Allocates nothing.
    pub fn next(&mut self, unix_ms: u64) -> Id {
        if unix_ms > self.unix_ms {
            self.begin(unix_ms);
        } else if self.counter < COUNTER_MAX {
            self.counter += 1;
        } else {
            self.begin(self.unix_ms + 1);
        }
        let mut behind_time = [0; 10];
        if let Some((counter, random)) = behind_time.split_first_chunk_mut() {
            *counter = self.counter.to_be_bytes();
            random.copy_from_slice(&self.random.next_u64().to_le_bytes());
        }
        let mut text = [0; Id::LENGTH];
        Builder::from_unix_timestamp_millis(self.unix_ms, &behind_time)
            .into_uuid()
            .hyphenated()
            .encode_lower(&mut text);
        Id(text)
    }

    fn begin(&mut self, unix_ms: u64) {
        self.unix_ms = unix_ms;
        self.counter = self.random.next_u32() as u16 & COUNTER_MAX >> 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_790_000_000_123;

    /// The fields of RFC 9562, section 5.7, read from the text by its section 4: time, version, counter, variant, the rest.
    fn fields(id: Id) -> (u64, u64, u64, u64, u64) {
        let text = std::str::from_utf8(id.as_bytes()).expect("ASCII");
        let groups: Vec<_> = text.split('-').collect();
        assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{text}");
        assert!(text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{text}");
        let number = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
        let group = |index: usize| number(groups.get(index).expect("five groups"));
        let (third, fourth) = (group(2), group(3));
        let random = (fourth & 0x3fff) << 48 | group(4);
        (group(0) << 16 | group(1), third >> 12, third & 0xfff, fourth >> 14, random)
    }

    #[test]
    fn has_the_fields_of_version_7() {
        let mut ids = Ids::new([1; 32]);
        let mut random = (0, u64::MAX);
        for step in 0..1000 {
            let (time, version, counter, variant, rest) = fields(ids.next(NOW + step));
            assert_eq!((time, version, variant), (NOW + step, 7, 0b10));
            assert!(counter < 2048, "{counter} has the top bit");
            random = (random.0 | rest, random.1 & rest);
        }
        assert_eq!(random, ((1 << 62) - 1, 0), "a bit never changes");
        assert_eq!(fields(Ids::new([1; 32]).next((1 << 48) - 1)).0, (1 << 48) - 1);
    }

    #[test]
    fn counts_within_a_millisecond_and_borrows_from_the_next() {
        let mut ids = Ids::new([2; 32]);
        let mut last = fields(ids.next(NOW));
        let mut borrowed = 0;
        for _ in 0..20_000 {
            let next = fields(ids.next(NOW));
            if last.2 == 0xfff {
                assert_eq!(next.0, last.0 + 1);
                assert!(next.2 < 2048);
                borrowed += 1;
            } else {
                assert_eq!((next.0, next.2), (last.0, last.2 + 1));
            }
            last = next;
        }
        assert!((4..=10).contains(&borrowed), "{borrowed}");
        // The clock catches up.
        assert_eq!(fields(ids.next(NOW + 100)).0, NOW + 100);
    }

    #[test]
    fn a_clock_that_steps_back_changes_nothing() {
        let mut ids = Ids::new([3; 32]);
        let before = ids.next(NOW);
        let back = ids.next(NOW - 3_600_000);
        assert!(back > before);
        assert_eq!(fields(back).0, NOW);
        assert!(ids.next(0) > back);
    }

    #[test]
    fn a_million_of_two_generators_are_distinct_and_grow_in_each() {
        let mut seen = HashSet::new();
        for seed in [[4; 32], [5; 32]] {
            let mut ids = Ids::new(seed);
            let mut last = None;
            for step in 0..500_000 {
                let id = ids.next(NOW + step / 1000);
                assert!(Some(id) > last);
                last = Some(id);
                assert!(seen.insert(id), "{id:?} is a duplicate");
            }
        }
    }

    proptest! {
        #[test]
        fn grows_whatever_the_clock_does(
            seed in any::<[u8; 32]>(),
            times in prop::collection::vec((NOW - 5..NOW + 5, 1..3000_usize), 1..20),
        ) {
            let mut ids = Ids::new(seed);
            let mut last = None;
            for (time, count) in times {
                for _ in 0..count {
                    let id = ids.next(time);
                    prop_assert!(Some(id) > last);
                    prop_assert!(fields(id).0 >= time);
                    last = Some(id);
                }
            }
        }
    }
}
