use std::num::NonZeroU16;

use proptest::prelude::*;

use super::super::record::{Command, MAX_PAYLOAD, encode, header};
use super::*;

const MARKER: Marker = Marker([0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x07, 0x18]);

/// A record with all that it owns.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    unix_ms: u64,
    note: String,
    commands: Vec<(Vec<u8>, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Intact(u64, u64, Owned),
    Damaged(u64, u64),
    Torn(u64, u64),
    Unreadable(Unreadable),
}

impl Owned {
    fn of(record: &Record) -> Owned {
        Owned {
            unix_ms: record.unix_ms,
            note: String::from_utf8(record.note.to_vec()).unwrap(),
            commands: record.commands().map(|c| (c.bytes.to_vec(), c.replies.get())).collect(),
        }
    }

    fn encode(&self, marker: Marker, out: &mut Vec<u8>) {
        let commands =
            self.commands.iter().map(|(bytes, replies)| Command { bytes, replies: NonZeroU16::new(*replies).unwrap() });
        encode(marker, self.unix_ms, &self.note, commands, out).unwrap();
    }
}

/// A segment of these records, and where each begins and ends.
fn segment(records: &[Owned]) -> (Vec<u8>, Vec<(usize, usize)>) {
    let mut bytes = header(MARKER).to_vec();
    let mut places = Vec::new();
    for record in records {
        let start = bytes.len();
        record.encode(MARKER, &mut bytes);
        places.push((start, bytes.len()));
    }
    (bytes, places)
}

fn read_by(mut reader: Reader, bytes: &[u8], chunk: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut chunks = bytes.chunks(chunk);
    loop {
        while let Some(part) = reader.next() {
            seen.push(match part {
                Part::Intact { offset, end, record } => Seen::Intact(offset, end, Owned::of(&record)),
                Part::Damaged { from, to } => Seen::Damaged(from, to),
                Part::Torn { from, to } => Seen::Torn(from, to),
                Part::Unreadable(reason) => Seen::Unreadable(reason),
            });
        }
        match chunks.next() {
            Some(chunk) => reader.push(chunk),
            None if reader.ended => return seen,
            None => reader.end(),
        }
    }
}

fn read(bytes: &[u8], chunk: usize) -> Vec<Seen> {
    read_by(Reader::new(Some(MARKER)), bytes, chunk)
}

fn intact(seen: &[Seen]) -> Vec<Owned> {
    seen.iter()
        .filter_map(|part| match part {
            Seen::Intact(_, _, record) => Some(record.clone()),
            _ => None,
        })
        .collect()
}

/// Parts lie behind one another, from the first byte (or the header's end) to the last.
fn assert_covered(seen: &[Seen], length: usize) {
    let mut at = 0;
    for part in seen {
        let (from, to) = match part {
            Seen::Intact(from, to, _) | Seen::Damaged(from, to) | Seen::Torn(from, to) => (*from, *to),
            Seen::Unreadable(_) => panic!("unreadable"),
        };
        assert!(from == at || (at == 0 && from == HEADER as u64), "{seen:?}");
        assert!(to > from, "{seen:?}");
        at = to;
    }
    assert!(at == length as u64 || (seen.is_empty() && length <= HEADER), "{seen:?} of {length}");
}

fn simple(number: u64) -> Owned {
    let commands = vec![(format!("*1\r\n${}\r\n{number}\r\n", number.to_string().len()).into_bytes(), 1)];
    Owned { unix_ms: number, note: String::new(), commands }
}

#[test]
fn a_segment_gives_its_records_back() {
    let records = [simple(1), Owned { note: "WRONGTYPE".into(), ..simple(2) }, simple(3)];
    let (bytes, places) = segment(&records);
    let expected: Vec<Seen> = records
        .iter()
        .zip(places)
        .map(|(record, (from, to))| Seen::Intact(from as u64, to as u64, record.clone()))
        .collect();
    assert_eq!(read(&bytes, usize::MAX), expected);
    assert_eq!(read_by(Reader::new(None), &bytes, 1), expected, "the header tells the marker");
}

#[test]
fn reading_goes_on_from_where_a_record_begins() {
    let (bytes, places) = segment(&[simple(1), simple(2), simple(3)]);
    let from = places[1].0;
    let seen = read_by(Reader::at(MARKER, from as u64), &bytes[from..], 7);
    assert_eq!(intact(&seen), [simple(2), simple(3)]);
    assert!(matches!(seen[0], Seen::Intact(offset, ..) if offset == from as u64));
    assert_eq!(read_by(Reader::at(MARKER, bytes.len() as u64), b"", 1), []);
    assert_eq!(intact(&read_by(Reader::at(MARKER, 0), &bytes, 64)).len(), 3);
}

#[test]
fn a_cut_header_is_torn_and_an_empty_file_has_no_parts() {
    let (bytes, _) = segment(&[]);
    for end in 1..HEADER {
        assert_eq!(read(&bytes[..end], 5), [Seen::Torn(0, end as u64)]);
        assert_eq!(read_by(Reader::new(None), &bytes[..end], 5), [Seen::Torn(0, end as u64)]);
    }
    assert_eq!(read(b"", 5), []);
    assert_eq!(read_by(Reader::new(None), b"", 5), []);
}

#[test]
fn a_foreign_file_is_told_from_a_segment() {
    let text = b"not a segment at all, but long enough to be one";
    assert_eq!(read_by(Reader::new(None), text, 7), [Seen::Unreadable(Unreadable::NoMarker)]);
    assert_eq!(read(text, 7), [Seen::Damaged(0, text.len() as u64)]);

    let mut later = [&record::MAGIC[..], &2u32.to_le_bytes(), &MARKER.0].concat();
    later.extend_from_slice(&crc32fast::hash(&later).to_le_bytes());
    later.extend_from_slice(b"who knows");
    assert_eq!(read(&later, 7), [Seen::Unreadable(Unreadable::Version(2))]);
}

#[test]
fn a_damaged_header_costs_no_record() {
    let (bytes, _) = segment(&[simple(1), simple(2)]);
    for at in 0..HEADER {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert_eq!(read(&damaged, 11)[0], Seen::Damaged(0, HEADER as u64));
        assert_eq!(intact(&read(&damaged, 11)), [simple(1), simple(2)]);
        let without = read(&bytes[at + 1..], 11);
        assert_eq!(intact(&without), [simple(1), simple(2)], "without the first {} bytes", at + 1);
    }
}

#[test]
fn bytes_lost_inside_a_record_cost_only_that_one() {
    let records = [simple(1), Owned { commands: vec![(vec![b'x'; 500], 1)], ..simple(2) }, simple(3), simple(4)];
    let (bytes, places) = segment(&records);
    let (from, to) = places[1];
    for lost in 1..to - from {
        let mut damaged = bytes.clone();
        damaged.drain(from + 4..from + 4 + lost.min(to - from - 4));
        assert_eq!(intact(&read(&damaged, 100)), [simple(1), simple(3), simple(4)], "{lost} bytes lost");
    }
}

#[test]
fn zeros_behind_the_last_record_are_damage() {
    let (mut bytes, places) = segment(&[simple(1)]);
    bytes.extend_from_slice(&[0; 4096]);
    let end = places[0].1 as u64;
    assert_eq!(read(&bytes, 1000)[1..], [Seen::Damaged(end, end + 4096)]);
}

#[test]
fn a_record_inside_an_event_is_never_read() {
    let mut guessed = Vec::new();
    simple(66).encode(Marker([0; 8]), &mut guessed);
    // The whole segment of another worker, too.
    let mut other = header(Marker([7; 8])).to_vec();
    simple(67).encode(Marker([7; 8]), &mut other);
    let carrier = Owned { commands: vec![(guessed, 1), (other, 1)], ..simple(1) };
    let (bytes, places) = segment(&[carrier, simple(2)]);
    assert_eq!(intact(&read(&bytes, 50)).len(), 2);
    let (from, to) = places[0];
    for at in from..to {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xff;
        assert_eq!(intact(&read(&damaged, 50)), [simple(2)], "byte {at} changed");
    }
}

#[test]
fn a_damaged_length_is_seen_before_its_bytes_are_read() {
    let (mut bytes, places) = segment(&[simple(1), simple(2)]);
    let at = places[0].0 + Marker::LENGTH;
    bytes[at..at + 4].copy_from_slice(&(MAX_PAYLOAD as u32).to_le_bytes());
    let mut reader = Reader::new(Some(MARKER));
    reader.push(&bytes);
    assert!(matches!(reader.next(), Some(Part::Damaged { .. })));
    assert!(matches!(reader.next(), Some(Part::Intact { .. })));
}

#[test]
fn the_buffer_holds_the_record_under_way_and_no_more() {
    let large = Owned { commands: vec![(vec![b'x'; 3 * KEEP], 1)], ..simple(1) };
    let (bytes, _) = segment(&[large.clone(), simple(2), large, simple(3)]);
    let mut reader = Reader::new(Some(MARKER));
    let mut count = 0;
    for chunk in bytes.chunks(64 * 1024) {
        reader.push(chunk);
        while reader.next().is_some() {
            count += 1;
        }
        assert!(reader.buffer.len() <= 3 * KEEP + 128 * 1024);
    }
    assert_eq!(count, 4);
    reader.push(b"");
    assert!(reader.buffer.capacity() <= KEEP);
}

#[test]
fn what_is_no_record_is_not_encoded() {
    use super::super::record::Unencodable::*;
    let one = NonZeroU16::MIN;
    let mut out = b"before".to_vec();
    let large = vec![b'x'; MAX_PAYLOAD];
    for (commands, expected) in [(vec![], Empty), (vec![&b""[..]], Empty), (vec![&large[..]], TooLarge)] {
        let commands = commands.into_iter().map(|bytes| Command { bytes, replies: one });
        assert_eq!(encode(MARKER, 1, "", commands, &mut out), Err(expected));
    }
    assert_eq!(out, b"before");
}

#[test]
fn a_long_note_is_cut_between_characters() {
    let note = "é".repeat(record::MAX_NOTE);
    let (bytes, _) = segment(&[Owned { note, ..simple(1) }]);
    assert_eq!(intact(&read(&bytes, 50))[0].note, "é".repeat(record::MAX_NOTE / 2));
}

fn owned() -> impl Strategy<Value = Owned> {
    let command = (prop::collection::vec(any::<u8>(), 1..80), 1u16..);
    let commands = prop::collection::vec(command, 1..5);
    (any::<u64>(), "[a-z é]{0,9}", commands).prop_map(|(unix_ms, note, commands)| Owned { unix_ms, note, commands })
}

/// The records that lie outside of `damage` altogether.
fn untouched(records: &[Owned], places: &[(usize, usize)], damage: std::ops::Range<usize>) -> Vec<Owned> {
    let outside = |(from, to): (usize, usize)| to <= damage.start || from >= damage.end;
    records.iter().zip(places).filter(|(_, place)| outside(**place)).map(|(record, _)| record.clone()).collect()
}

proptest! {
    #[test]
    fn any_chunks_give_the_same_parts(records in prop::collection::vec(owned(), 0..6), chunk in 1..200usize) {
        let (bytes, _) = segment(&records);
        prop_assert_eq!(read(&bytes, chunk), read(&bytes, usize::MAX));
        prop_assert_eq!(intact(&read(&bytes, chunk)), records);
    }

    #[test]
    fn truncation_anywhere_leaves_every_whole_record(
        records in prop::collection::vec(owned(), 1..6), chunk in 1..200usize,
    ) {
        let (bytes, places) = segment(&records);
        for end in 0..bytes.len() {
            let seen = read(&bytes[..end], chunk);
            prop_assert_eq!(intact(&seen), untouched(&records, &places, end..bytes.len()));
            assert_covered(&seen, end);
            // Being cut is no damage.
            prop_assert!(!seen.iter().any(|part| matches!(part, Seen::Damaged(..))), "{:?} cut at {}", seen, end);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_leaves_every_other_record(
        records in prop::collection::vec(owned(), 1..6), bit in 0..8u8, chunk in 1..200usize,
    ) {
        let (bytes, places) = segment(&records);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1u8 << bit;
            let seen = read(&damaged, chunk);
            prop_assert_eq!(intact(&seen), untouched(&records, &places, at..at + 1));
            assert_covered(&seen, bytes.len());
            prop_assert!(seen.iter().any(|part| !matches!(part, Seen::Intact(..))), "{at} unnoticed");
        }
    }

    #[test]
    fn an_overwritten_stretch_leaves_every_other_record(
        records in prop::collection::vec(owned(), 1..8), chunk in 1..200usize,
        at in any::<prop::sample::Index>(), rubbish in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let (mut bytes, places) = segment(&records);
        let from = at.index(bytes.len());
        let to = bytes.len().min(from + rubbish.len());
        bytes[from..to].copy_from_slice(&rubbish[..to - from]);
        let seen = read(&bytes, chunk);
        assert_covered(&seen, bytes.len());
        // What was overwritten with itself is intact.
        let found = intact(&seen);
        for record in untouched(&records, &places, from..to) {
            prop_assert!(found.contains(&record));
        }
        prop_assert!(found.iter().all(|record| records.contains(record)));
    }

    #[test]
    fn a_missing_stretch_leaves_every_other_record(
        records in prop::collection::vec(owned(), 1..8), chunk in 1..200usize,
        at in any::<prop::sample::Index>(), length in 1..300usize,
    ) {
        let (mut bytes, places) = segment(&records);
        let from = at.index(bytes.len());
        let to = bytes.len().min(from + length);
        bytes.drain(from..to);
        // What is left of two may make one of them whole.
        let found = intact(&read(&bytes, chunk));
        for record in untouched(&records, &places, from..to) {
            prop_assert!(found.contains(&record));
        }
        prop_assert!(found.iter().all(|record| records.contains(record)));
    }

    #[test]
    fn rubbish_is_read_without_a_record(bytes in prop::collection::vec(any::<u8>(), 0..600), chunk in 1..200usize) {
        prop_assert_eq!(intact(&read(&bytes, chunk)), []);
        let mut behind = header(MARKER).to_vec();
        behind.extend_from_slice(&MARKER.0);
        behind.extend_from_slice(&bytes);
        prop_assert_eq!(intact(&read(&behind, chunk)), []);
    }
}
