//! How long to wait before the next attempt to connect: longer after each failure, never in step with other workers.

/// The first delay, in milliseconds.
pub const FIRST: u64 = 500;
/// The longest delay, in milliseconds, before jitter.
const LONGEST: u64 = 10_000;
/// The share of a delay, in percent, by which it is lengthened or shortened at random.
const JITTER: u64 = 10;

/// Exponential backoff with jitter. The numbers are those that nchan came to (`redis_reconnect_delay` and its kin).
#[derive(Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Notes a failure and gives the delay before the next attempt, in milliseconds; `random` is any 32 random bits.
    pub fn fail(&mut self, random: u32) -> u64 {
        let mut delay = FIRST;
        for _ in 0..self.failures {
            delay = (delay + delay / 2).min(LONGEST);
            if delay == LONGEST {
                break;
            }
        }
        self.failures = self.failures.saturating_add(1);
        let spread = delay * JITTER / 100;
        delay - spread + u64::from(random) % (2 * spread + 1)
    }

    /// Whether the last attempt failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// An attempt succeeded; gives how many failed before it.
    pub fn reset(&mut self) -> u32 {
        std::mem::take(&mut self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_by_half_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let middle = 50; // spread of the first delay: no jitter
        assert_eq!(backoff.fail(middle), 500);
        assert_eq!(backoff.fail(75), 750);
        for _ in 0..20 {
            backoff.fail(0);
        }
        assert_eq!(backoff.fail(1000), 10_000);
        assert_eq!(backoff.reset(), 23);
        assert!(!backoff.is_failing());
        assert_eq!(backoff.fail(middle), 500);
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        for random in [0, 1, 99, 100, 101, u32::MAX / 2, u32::MAX] {
            let delay = Backoff::default().fail(random);
            assert!((450..=550).contains(&delay), "{delay}");
        }
    }
}
