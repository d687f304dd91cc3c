//! Names: unescaping, and the search for one that an object has twice.

use std::borrow::Cow;

use super::tape::Node;

/// Up to this many members, fingerprints are compared with each other instead of sorted.
const FEW: u32 = 32;
/// Capacity, in names and in bytes of them, kept from one event to the next.
const KEPT: usize = 64 * 1024;

/// Finds names that occur twice in an object, in O(bytes of names × log members) whatever the names are.
///
/// Names get a fingerprint first. When these differ, so do the names, which is the usual end of it. Fingerprints that coincide, by
/// chance or by design, and names with escapes send the object to an exact comparison by sorting.
#[derive(Debug, Default)]
pub(super) struct NameCheck {
    fingerprints: Vec<u64>,
    keys: Vec<Key>,
    unescaped: Vec<u8>,
}

impl NameCheck {
    /// The value of the first member in `object` whose name an earlier member has. `object` is the last container on the tape:
    /// nothing but its members follows it.
    pub(super) fn duplicate(&mut self, text: &[u8], nodes: &[Node], object: u32, members: u32) -> Option<u32> {
        if members < 2 || self.surely_distinct(text, nodes, object, members) {
            return None;
        }
        self.exact(text, nodes, object)
    }

    /// Marks each name that a later member of `object` has too; of `object` the same holds.
    pub(super) fn shadow(&mut self, text: &[u8], nodes: &mut [Node], object: u32, members: u32) {
        if members < 2 || self.surely_distinct(text, nodes, object, members) {
            return;
        }
        self.sort(text, nodes, object);
        for (one, next) in self.neighbours() {
            if one.bytes(text, &self.unescaped) == next.bytes(text, &self.unescaped)
                && let Some(name) = nodes.get_mut(one.value as usize - 1)
            {
                name.shadowed = true;
            }
        }
    }

    pub(super) fn trim(&mut self) {
        if self.capacity() > KEPT {
            *self = NameCheck::default();
        }
    }

    /// The largest of the three.
    pub(super) fn capacity(&self) -> usize {
        let keys = self.keys.capacity().max(self.unescaped.capacity());
        self.fingerprints.capacity().max(keys)
    }

    fn surely_distinct(&mut self, text: &[u8], nodes: &[Node], object: u32, members: u32) -> bool {
        self.fingerprints.clear();
        let mut seen = 0_u64;
        for (name, _) in names(nodes, object) {
            if name.escaped {
                return false;
            }
            let fingerprint = fingerprint(text, name);
            let bit = 1 << (fingerprint >> 58);
            if members <= FEW && seen & bit != 0 && self.fingerprints.contains(&fingerprint) {
                return false;
            }
            seen |= bit;
            self.fingerprints.push(fingerprint);
        }
        if members <= FEW {
            return true;
        }
        self.fingerprints.sort_unstable();
        self.fingerprints.is_sorted_by(|one, next| one < next)
    }

    fn exact(&mut self, text: &[u8], nodes: &[Node], object: u32) -> Option<u32> {
        self.sort(text, nodes, object);
        let bytes = |key: &Key| key.bytes(text, &self.unescaped);
        self.neighbours().filter(|(one, next)| bytes(one) == bytes(next)).map(|(_, next)| next.value).min()
    }

    /// Lists the names of `object` by their characters, equal ones in the order of the text.
    fn sort(&mut self, text: &[u8], nodes: &[Node], object: u32) {
        self.keys.clear();
        self.unescaped.clear();
        for (name, value) in names(nodes, object) {
            let start = if name.escaped { self.unescaped.len() } else { name.start as usize + 1 };
            let end = if name.escaped {
                unescape_into(name.content(text), &mut self.unescaped);
                self.unescaped.len()
            } else {
                start + name.content(text).len()
            };
            self.keys.push(Key { start, end, value, unescaped: name.escaped });
        }
        let unescaped = self.unescaped.as_slice();
        self.keys.sort_unstable_by(|one, other| {
            let order = one.bytes(text, unescaped).cmp(other.bytes(text, unescaped));
            order.then(one.value.cmp(&other.value))
        });
    }

    fn neighbours(&self) -> impl Iterator<Item = (&Key, &Key)> {
        self.keys.iter().zip(self.keys.iter().skip(1))
    }
}

/// A name in the text or among the unescaped ones, and its member's value.
#[derive(Debug)]
struct Key {
    start: usize,
    end: usize,
    value: u32,
    unescaped: bool,
}

impl Key {
    fn bytes<'a>(&self, text: &'a [u8], unescaped: &'a [u8]) -> &'a [u8] {
        let source = if self.unescaped { unescaped } else { text };
        source.get(self.start..self.end).unwrap_or_default()
    }
}

/// The names of the last container on the tape, each with the index of its value.
fn names(nodes: &[Node], object: u32) -> impl Iterator<Item = (&Node, u32)> {
    let mut at = object + 1;
    std::iter::from_fn(move || {
        let name = nodes.get(at as usize)?;
        let value = at + 1;
        at = nodes.get(value as usize)?.next;
        Some((name, value))
    })
}

/// Made of a name's first and last eight bytes and its length: names up to 16 bytes share one only by chance.
#[inline]
fn fingerprint(text: &[u8], name: &Node) -> u64 {
    let (start, end) = (name.start as usize + 1, (name.end as usize).saturating_sub(1));
    let length = end.saturating_sub(start);
    let word = |at: usize| text.get(at..).and_then(<[u8]>::first_chunk).copied().map(u64::from_le_bytes);
    let short = || {
        let bytes = text.get(start..end).unwrap_or_default();
        bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
    };
    // Odd constants with well spread bits (the golden ratio, and the first two of xxHash64).
    const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
    const LAST: u64 = 0x9e37_79b1_85eb_ca87;
    const LENGTH: u64 = 0xc2b2_ae3d_27d4_eb4f;
    let (first, last) = if length > 8 {
        (word(start).unwrap_or(0), word(end - 8).unwrap_or(0))
    } else {
        // The word may reach beyond the name, whose bytes are the low ones.
        let kept = u64::MAX.checked_shr(64 - 8 * length as u32).unwrap_or(0);
        (word(start).map_or_else(short, |word| word & kept), 0)
    };
    first.wrapping_mul(FIRST) ^ last.wrapping_mul(LAST).rotate_left(29) ^ (length as u64).wrapping_mul(LENGTH)
}

/// The characters of a string's content.
pub(super) fn unescaped(content: &[u8], escaped: bool) -> Cow<'_, [u8]> {
    if !escaped {
        return Cow::Borrowed(content);
    }
    let mut bytes = Vec::with_capacity(content.len());
    unescape_into(content, &mut bytes);
    Cow::Owned(bytes)
}

/// Whether the unescaped content equals `other`, piece by piece, so that nothing is written.
pub(super) fn equals(content: &[u8], mut other: &[u8], equal: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    for piece in (Pieces { rest: content }) {
        let piece = piece.bytes();
        match other.split_at_checked(piece.len()) {
            Some((head, tail)) if equal(head, piece) => other = tail,
            _ => return false,
        }
    }
    other.is_empty()
}

fn unescape_into(content: &[u8], bytes: &mut Vec<u8>) {
    for piece in (Pieces { rest: content }) {
        bytes.extend_from_slice(piece.bytes());
    }
}

/// A string's content as runs without an escape and characters that were one. The scanner has checked the escapes.
struct Pieces<'a> {
    rest: &'a [u8],
}

enum Piece<'a> {
    Run(&'a [u8]),
    Character { utf8: [u8; 4], length: usize },
}

impl Piece<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Run(run) => run,
            Piece::Character { utf8, length } => utf8.get(..*length).unwrap_or_default(),
        }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let (character, rest) = match self.rest {
            [] => return None,
            [b'\\', b'u', rest @ ..] => match code_unit(rest)? {
                (high @ 0xd800..=0xdbff, [b'\\', b'u', rest @ ..]) => {
                    let (low, rest) = code_unit(rest)?;
                    (0x10000 + ((high & 0x3ff) << 10 | low & 0x3ff), rest)
                }
                (unit, rest) => (unit, rest),
            },
            [b'\\', letter, rest @ ..] => {
                let character = match letter {
                    b'b' => 0x08,
                    b'f' => 0x0c,
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    other => *other,
                };
                (u32::from(character), rest)
            }
            run => {
                let length = memchr::memchr(b'\\', run).unwrap_or(run.len()).max(1);
                let (run, rest) = run.split_at_checked(length)?;
                self.rest = rest;
                return Some(Piece::Run(run));
            }
        };
        self.rest = rest;
        let mut utf8 = [0; 4];
        let length = char::from_u32(character)?.encode_utf8(&mut utf8).len();
        Some(Piece::Character { utf8, length })
    }
}

/// The code unit that four hexadecimal digits stand for, and what follows them.
pub(super) fn code_unit(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<4>()?;
    let mut unit = 0;
    for &digit in digits {
        unit = unit << 4 | char::from(digit).to_digit(16)?;
    }
    Some((unit, rest))
}
