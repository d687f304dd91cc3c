//! The bytes of a spool's segment: the reader, which gets them in pieces, against docs/spool-format.md read word by word with all of them at
//! hand. Whatever they are it ends, tells of each byte once, gives only what is intact, and all of it.

use flate2::Crc;
use ngx_http_meteorit_module::spool::{Marker, Part, Reader, Unreadable};

/// What the name of the segment says.
const MARKER: [u8; 8] = *b"<marker>";
const HEADER: usize = 24;
const PREFIX: usize = 16;

/// The first byte says how the rest is taken: 1, the name does not tell the marker; 2, every record gets a checksum that fits; 4, so does
/// the header.
pub fn check(input: &[u8]) {
    let Some((mode, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    let named = (mode & 1 == 0).then_some(MARKER);
    if mode & 4 != 0 {
        mend_header(&mut bytes);
    }
    if mode & 2 != 0 {
        mend_records(&mut bytes);
    }
    let expected = parts(&bytes, named);
    let new = || Reader::new(named.map(Marker));
    // As a whole, byte by byte, and in pieces whose lengths the bytes choose.
    assert_eq!(read(new(), &bytes, |_| bytes.len()), expected);
    assert_eq!(read(new(), &bytes, |_| 1), expected);
    assert_eq!(read(new(), &bytes, |at| usize::from(bytes[at] ^ bytes[bytes.len() - 1 - at]) % 24 + 1), expected);
    if matches!(expected[..], [Known::Version(_) | Known::NoMarker]) {
        return;
    }
    each_byte_once(&bytes, &expected);
    let Some(marker) = marker(&bytes, named) else { return };
    all_that_is_intact(&bytes, marker, &expected);
    // From behind any record it goes on as if it had come there.
    for (index, known) in expected.iter().enumerate().filter(|(_, known)| matches!(known, Known::Intact { .. })).take(3)
    {
        let (_, end) = known.range();
        let rest = read(Reader::at(Marker(marker), end as u64), &bytes[end..], |_| bytes.len());
        assert_eq!(rest, expected[index + 1..]);
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Known {
    Intact { from: usize, to: usize, unix_ms: u64, note: Vec<u8>, commands: Vec<(Vec<u8>, u16)> },
    Damaged { from: usize, to: usize },
    Torn { from: usize, to: usize },
    Version(u32),
    NoMarker,
}

impl Known {
    fn range(&self) -> (usize, usize) {
        match self {
            Known::Intact { from, to, .. } | Known::Damaged { from, to } | Known::Torn { from, to } => (*from, *to),
            Known::Version(_) | Known::NoMarker => (0, 0),
        }
    }
}

/// The parts as the reader gives them while the bytes arrive; `next` says how many come at an offset.
fn read(mut reader: Reader, bytes: &[u8], next: impl Fn(usize) -> usize) -> Vec<Known> {
    let (mut parts, mut at, mut ended) = (Vec::new(), 0, false);
    loop {
        match reader.next() {
            Some(part) => parts.push(known(part)),
            None if ended => return parts,
            None if at == bytes.len() => {
                reader.end();
                ended = true;
            }
            None => {
                let end = bytes.len().min(at + next(at));
                reader.push(&bytes[at..end]);
                at = end;
            }
        }
        assert!(parts.len() <= bytes.len() + 1, "it does not end");
    }
}

fn known(part: Part<'_>) -> Known {
    match part {
        Part::Intact { offset, end, record } => {
            let commands = record.commands().map(|command| (command.bytes.to_vec(), command.replies.get()));
            let commands: Vec<_> = commands.collect();
            assert_eq!(commands.len(), record.command_count());
            assert_eq!(commands.iter().flat_map(|(bytes, _)| bytes.clone()).collect::<Vec<_>>(), record.bytes());
            let (unix_ms, note) = (record.unix_ms, record.note.to_vec());
            Known::Intact { from: offset as usize, to: end as usize, unix_ms, note, commands }
        }
        Part::Damaged { from, to } => Known::Damaged { from: from as usize, to: to as usize },
        Part::Torn { from, to } => Known::Torn { from: from as usize, to: to as usize },
        Part::Unreadable(Unreadable::Version(version)) => Known::Version(version),
        Part::Unreadable(Unreadable::NoMarker) => Known::NoMarker,
    }
}

fn each_byte_once(bytes: &[u8], parts: &[Known]) {
    let mut at = if header(bytes).is_some() { HEADER } else { 0 };
    for part in parts {
        let (from, to) = part.range();
        assert!(from == at && to > from, "{part:?} at {at}");
        at = to;
    }
    assert_eq!(at, bytes.len());
}

/// An intact record is given, wherever it begins, but for what is inside of another that is.
fn all_that_is_intact(bytes: &[u8], marker: [u8; 8], parts: &[Known]) {
    let start = if header(bytes).is_some() { HEADER } else { 0 };
    let given = |at: usize| {
        parts.iter().any(|part| matches!(part, Known::Intact { from, to, .. } if (*from..*to).contains(&at)))
    };
    let missing = (start..bytes.len()).find(|at| intact(&bytes[*at..], marker).is_some() && !given(*at));
    assert_eq!(missing, None, "of {parts:?}");
}

/// What the page says of these bytes.
fn parts(bytes: &[u8], named: Option<[u8; 8]>) -> Vec<Known> {
    match header(bytes) {
        Some((version, _)) if version != 1 => return vec![Known::Version(version)],
        None if bytes.is_empty() => return Vec::new(),
        None if is_torn_header(bytes, named) => return vec![Known::Torn { from: 0, to: bytes.len() }],
        _ => {}
    }
    let Some(marker) = marker(bytes, named) else { return vec![Known::NoMarker] };
    let mut at = if header(bytes).is_some() { HEADER } else { 0 };
    let mut damaged = at;
    let mut parts = Vec::new();
    while at < bytes.len() {
        let rest = &bytes[at..];
        let record = intact(rest, marker);
        let is_cut = rest.get(8..12).is_none_or(|length| PREFIX + number(length) > rest.len());
        let torn = is_cut && begins(rest, marker) && !has(&rest[1..], marker);
        if record.is_none() && !torn {
            at += 1 + next(&rest[1..], marker);
            continue;
        }
        if damaged < at {
            parts.push(Known::Damaged { from: damaged, to: at });
        }
        let to = record.map_or(bytes.len(), |length| at + length);
        parts.push(if torn { Known::Torn { from: at, to } } else { decoded(bytes, at, to) });
        (at, damaged) = (to, to);
    }
    if damaged < at {
        parts.push(Known::Damaged { from: damaged, to: at });
    }
    parts
}

/// Version and marker of an intact header.
fn header(bytes: &[u8]) -> Option<(u32, [u8; 8])> {
    let header = bytes.get(..HEADER)?;
    let intact = header.starts_with(b"mtrspool") && number(&header[20..]) == sum(&header[..20]) as usize;
    intact.then(|| (number(&header[8..]) as u32, header[12..20].try_into().unwrap()))
}

/// That of the header goes before that of the name.
fn marker(bytes: &[u8], named: Option<[u8; 8]>) -> Option<[u8; 8]> {
    header(bytes).map(|(_, marker)| marker).or(named)
}

fn is_torn_header(bytes: &[u8], named: Option<[u8; 8]>) -> bool {
    let mut whole = [b"mtrspool", &1u32.to_le_bytes()[..], &named.unwrap_or_default(), &[0; 4]].concat();
    mend_header(&mut whole);
    let known = if named.is_some() { HEADER - 1 } else { 8 };
    let compared = bytes.len().min(known);
    bytes.len() < HEADER && bytes[..compared] == whole[..compared]
}

/// How long the record is that stands at the beginning.
fn intact(bytes: &[u8], marker: [u8; 8]) -> Option<usize> {
    if !bytes.starts_with(&marker) || bytes.len() < PREFIX || !begins(bytes, marker) {
        return None;
    }
    let end = PREFIX + number(&bytes[8..]);
    let payload = bytes.get(PREFIX..end)?;
    (sum(&[&bytes[8..12], payload].concat()) as usize == number(&bytes[12..])).then_some(end)
}

/// Whether a record may begin so: nothing of what is there contradicts its marker and lengths.
fn begins(bytes: &[u8], marker: [u8; 8]) -> bool {
    let shared = bytes.len().min(8);
    if bytes[..shared] != marker[..shared] {
        return false;
    }
    let Some(length) = bytes.get(8..12).map(number) else { return true };
    if !(21..=64 << 20).contains(&length) {
        return false;
    }
    let Some(fixed) = bytes.get(PREFIX..PREFIX + 14) else { return true };
    let (note, count) = (usize::from(u16::from_le_bytes([fixed[8], fixed[9]])), number(&fixed[10..]));
    if !(1..=1 << 20).contains(&count) || 14 + 6 * count + note > length {
        return false;
    }
    let Some(table) = bytes.get(PREFIX + 14..PREFIX + 14 + 6 * count) else { return true };
    let lengths: Vec<usize> = table.chunks(6).map(number).collect();
    let replies = table.chunks(6).all(|entry| entry[4..] != [0, 0]);
    replies && !lengths.contains(&0) && 14 + 6 * count + note + lengths.iter().sum::<usize>() == length
}

fn decoded(bytes: &[u8], from: usize, to: usize) -> Known {
    let payload = &bytes[from + PREFIX..to];
    let note = usize::from(u16::from_le_bytes([payload[8], payload[9]]));
    let table = &payload[14..14 + 6 * number(&payload[10..])];
    let mut at = 14 + table.len() + note;
    let note = payload[at - note..at].to_vec();
    let mut commands = Vec::new();
    for entry in table.chunks(6) {
        commands.push((payload[at..at + number(entry)].to_vec(), u16::from_le_bytes([entry[4], entry[5]])));
        at += number(entry);
    }
    Known::Intact { from, to, unix_ms: u64::from_le_bytes(payload[..8].try_into().unwrap()), note, commands }
}

fn has(bytes: &[u8], marker: [u8; 8]) -> bool {
    bytes.windows(8).any(|window| window == marker)
}

/// Where the next marker begins, or what the end may cut off of one.
fn next(bytes: &[u8], marker: [u8; 8]) -> usize {
    (0..bytes.len())
        .find(|at| bytes[*at..].starts_with(&marker) || marker.starts_with(&bytes[*at..]))
        .unwrap_or(bytes.len())
}

/// 4 bytes.
fn number(bytes: &[u8]) -> usize {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize
}

fn sum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn mend_header(bytes: &mut [u8]) {
    if bytes.len() >= HEADER {
        let sum = sum(&bytes[..20]);
        bytes[20..HEADER].copy_from_slice(&sum.to_le_bytes());
    }
}

/// From the last to the first, for a record may have another inside of it.
fn mend_records(bytes: &mut [u8]) {
    let marker = marker(bytes, Some(MARKER)).unwrap_or(MARKER);
    for at in (0..bytes.len().saturating_sub(PREFIX))
        .rev()
        .filter(|at| *at >= HEADER || header(bytes).is_none())
        .collect::<Vec<_>>()
    {
        let record = &bytes[at..];
        if !record.starts_with(&marker) {
            continue;
        }
        let Some(payload) = record.get(PREFIX..PREFIX + number(&record[8..])) else { continue };
        let sum = sum(&[&record[8..12], payload].concat());
        bytes[at + 12..at + PREFIX].copy_from_slice(&sum.to_le_bytes());
    }
}
