//! Tally: how many events of a request became what, for counting and for the access log.

use super::{Cause, Fate, Lack};

/// Counts of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub fates: [u32; Fate::ALL.len()],
    /// Of the rejected ones.
    pub causes: [u32; Cause::ALL.len()],
    /// Of the unavailable ones.
    pub lacks: [u32; Lack::ALL.len()],
}

impl Tally {
    /// Counts events that had this fate; `why` says which [`Cause`] or [`Lack`], where the fate has one.
    pub fn add(&mut self, fate: Fate, why: Why, count: u32) {
        add(&mut self.fates, fate as usize, count);
        match (fate, why) {
            (Fate::Rejected, Why::Rejected(cause)) => add(&mut self.causes, cause as usize, count),
            (Fate::Unavailable, Why::Unavailable(lack)) => add(&mut self.lacks, lack as usize, count),
            _ => {}
        }
    }

    pub fn accepted(&self) -> u32 {
        self.sum(Fate::is_accepted)
    }

    /// Those at fault themselves, and those that Redis refused: a retry is in vain.
    pub fn rejected(&self) -> u32 {
        self.sum(|fate| matches!(fate, Fate::Rejected | Fate::Refused))
    }

    fn sum(&self, of: impl Fn(Fate) -> bool) -> u32 {
        Fate::ALL.iter().zip(self.fates).filter(|(fate, _)| of(**fate)).map(|(_, count)| count).sum()
    }
}

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    Rejected(Cause),
    Unavailable(Lack),
    /// The fate says it.
    Else,
}

fn add(counts: &mut [u32], at: usize, count: u32) {
    if let Some(entry) = counts.get_mut(at) {
        *entry += count;
    }
}
