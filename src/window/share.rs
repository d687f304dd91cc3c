//! Neighbours of a window that are the same but for their values share one command while they are sent: it is shorter, Redis
//! carries it out at once, and one reply is for all of them.

use std::collections::VecDeque;
use std::ops::Range;

use super::{Entry, Text, Window};
use crate::command::{self, Division, FIXED};

/// How many arguments a shared command has at most, so that Redis is not kept from other clients for long.
const MAX_ARGUMENTS: usize = 1024;
/// And how many bytes.
const MAX_BYTES: usize = 64 * 1024;

/// One of those that share a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shared<'a> {
    /// How many arguments it has by itself.
    arguments: usize,
    /// The name and the key, which are the same for all.
    name: &'a [u8],
    values: &'a [u8],
}

impl Shared<'_> {
    /// The command as it would be if it did not share.
    pub fn alone(&self) -> Vec<u8> {
        let mut bytes = header(self.arguments);
        bytes.extend_from_slice(self.name);
        bytes.extend_from_slice(self.values);
        bytes
    }
}

/// Shows each of the entries that share the command `bytes`.
pub(super) fn each<'a, W>(
    bytes: &'a [u8],
    entries: &VecDeque<Entry<W>>,
    range: Range<usize>,
    mut show: impl FnMut(Text<'a>, &Entry<W>),
) {
    let count = range.len();
    let division = if count > 1 { command::divide(bytes) } else { None };
    let Some(Division { arguments, name, values }) = division else {
        return entries.range(range).for_each(|entry| show(Text::Own(bytes), entry));
    };
    let arguments = FIXED + (arguments - FIXED) / count;
    let name = bytes.get(name..values).unwrap_or_default();
    let (mut from, mut to) = (values, 0);
    for entry in entries.range(range) {
        to += entry.length;
        show(Text::Shared(Shared { arguments, name, values: bytes.get(from..to).unwrap_or_default() }), entry);
        from = to;
    }
}

impl<W: Copy> Window<W> {
    /// Lets neighbours of which nothing has been sent share commands. Looks at each once, and moves what is unsent.
    pub fn share(&mut self) {
        let mut index = self.touched().max(self.examined);
        if self.entries.len() < index + 2 {
            return;
        }
        let unsent = self.entries.range(index..).map(|entry| entry.length).sum::<usize>();
        let mut from = self.bytes.len() - unsent;
        let mut to = from;
        while let Some(entry) = self.entries.get(index) {
            let length = entry.length;
            match self.alike(index, from) {
                Some((division, count)) => {
                    self.join(index..index + count, division, &mut from, &mut to);
                    index += count;
                }
                None => {
                    if to < from {
                        self.bytes.copy_within(from..from + length, to);
                    }
                    (from, to, index) = (from + length, to + length, index + 1);
                }
            }
        }
        self.bytes.truncate(to);
        self.examined = self.entries.len();
    }

    /// How many entries, from the one at `index` on, can share a command, and where that is divided; None when there is no
    /// second one. The bytes of the first are at `from`.
    fn alike(&self, index: usize, from: usize) -> Option<(Division, usize)> {
        let first = self.entries.get(index).filter(|entry| entry.replies == 1)?;
        self.entries.get(index + 1)?;
        let mut at = from + first.length;
        let command = self.bytes.get(from..at)?;
        let division = command::divide(command)?;
        let same = command.get(..division.values)?;
        let values = division.arguments - FIXED;
        let most = (MAX_ARGUMENTS - FIXED) / values;
        let others = self.entries.range(index + 1..).take(most.saturating_sub(1)).take_while(|entry| {
            let begin = at;
            at += entry.length;
            let command = self.bytes.get(begin..at).unwrap_or_default();
            command.starts_with(same) && entry.replies == 1 && at - from <= MAX_BYTES
        });
        let count = 1 + others.count();
        (count > 1).then_some((division, count))
    }

    /// Makes one command of alike entries, whose bytes are at `from`, and moves it to `to`.
    fn join(&mut self, range: Range<usize>, division: Division, from: &mut usize, to: &mut usize) {
        let header = header(FIXED + (division.arguments - FIXED) * range.len());
        let Window { bytes, entries, .. } = self;
        let mut first = true;
        for entry in entries.range_mut(range) {
            let end = *from + entry.length;
            if first {
                // Where the header is longer than before, this takes room of the next entry's name, which goes.
                bytes.copy_within(*from + division.name..end, *to + header.len());
                bytes.iter_mut().skip(*to).zip(&header).for_each(|(byte, new)| *byte = *new);
                entry.length += header.len() - division.name;
            } else {
                bytes.copy_within(*from + division.values..end, *to);
                entry.length -= division.values;
                entry.joined = true;
            }
            *to += entry.length;
            *from = end;
            first = false;
        }
    }

    /// Gives the entries from the one at `index` on, which begins a command, commands of their own again.
    pub(super) fn part(&mut self, mut index: usize) {
        if !self.entries.range(index..).any(|entry| entry.joined) {
            return;
        }
        let length = self.entries.range(index..).map(|entry| entry.length).sum::<usize>();
        let shared = self.bytes.split_off(self.bytes.len() - length);
        let mut rest = shared.as_slice();
        while let Some((count, length)) = self.extent(index) {
            let Some((command, behind)) = rest.split_at_checked(length) else { return };
            let (bytes, mut lengths) = (&mut self.bytes, Vec::new());
            each(command, &self.entries, index..index + count, |text, _| {
                let own = text.bytes();
                bytes.extend_from_slice(&own);
                lengths.push(own.len());
            });
            for (entry, length) in self.entries.range_mut(index..index + count).zip(lengths) {
                entry.length = length;
                entry.joined = false;
            }
            index += count;
            rest = behind;
        }
    }
}

/// What stands before the name of a command of so many arguments.
fn header(arguments: usize) -> Vec<u8> {
    format!("*{arguments}\r\n").into_bytes()
}

#[cfg(test)]
mod tests;
