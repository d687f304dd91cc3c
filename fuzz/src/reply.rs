//! Replies: the parser that goes on where it stopped against a recursive one that needs all at once, whatever the cut points,
//! and against the crate `redis`.

use ngx_http_meteorit_module::reply::{Kind, MAX_DEPTH, MAX_REPLY, Parser, Reply, Verdict, printable};

pub fn check(stream: &[u8]) {
    let expected = framed(stream);
    // As a whole, byte by byte, and in pieces whose lengths the stream chooses.
    assert_eq!(received(stream, |_| stream.len()), expected);
    assert_eq!(received(stream, |_| 1), expected);
    let chosen = |at: usize| usize::from(stream[at] ^ stream[stream.len() - 1 - at]) % 24 + 1;
    assert_eq!(received(stream, chosen), expected);
    for reply in &expected.replies {
        alone(stream, reply);
    }
}

/// What a stream holds: its replies, and how it ends.
#[derive(Debug, PartialEq)]
struct Framed {
    replies: Vec<Known>,
    broken: bool,
}

#[derive(Debug, PartialEq)]
struct Known {
    start: usize,
    end: usize,
    kind: Kind,
    /// Of an error.
    text: Option<Vec<u8>>,
}

/// The replies as the parser gives them while the stream arrives; `next` says how many bytes come at an offset.
fn received(stream: &[u8], next: impl Fn(usize) -> usize) -> Framed {
    let mut parser = Parser::new();
    let mut replies = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        let input = &stream[start..end];
        match parser.next(input) {
            Ok(Some(reply)) => {
                assert_eq!(reply.bytes(), &input[..reply.len()]);
                let text = reply.error().map(<[u8]>::to_vec);
                replies.push(Known { start, end: start + reply.len(), kind: reply.kind(), text });
                start += reply.len();
            }
            Ok(None) if end < stream.len() => end = stream.len().min(end + next(end)),
            Ok(None) => return Framed { replies, broken: false },
            Err(broken) => {
                assert!(!broken.to_string().is_empty());
                return Framed { replies, broken: true };
            }
        }
    }
}

/// A reply that is all there is reads the same, and misses its last byte.
fn alone(stream: &[u8], known: &Known) {
    let bytes = &stream[known.start..known.end];
    let reply = Parser::new().next(bytes).expect("framed before").expect("complete");
    assert_eq!((reply.len(), reply.kind()), (bytes.len(), known.kind));
    assert_eq!(Parser::new().next(&bytes[..bytes.len() - 1]), Ok(None));
    means_something(&reply);
    // It refuses lines that are not UTF-8 and pushes that do not name their kind.
    if str::from_utf8(bytes).is_ok() && !bytes.contains(&b'>') {
        let theirs = redis::parse_redis_value(bytes);
        assert!(theirs.is_ok(), "{theirs:?}");
    }
}

fn means_something(reply: &Reply<'_>) {
    let error = matches!(reply.kind(), Kind::Error | Kind::BulkError);
    assert_eq!(reply.error().is_some(), error);
    let verdict = reply.verdict();
    match reply.kind() {
        Kind::Error | Kind::BulkError => assert!(!matches!(verdict, Verdict::Stored | Verdict::Unknown)),
        Kind::Push => assert_eq!(verdict, Verdict::Unknown),
        Kind::Simple => {}
        _ => assert_eq!(verdict, Verdict::Stored),
    }
    assert!(!reply.reopens() || verdict == Verdict::Unavailable);
    let printed = printable(reply.error().unwrap_or(reply.bytes()));
    assert!(printed.len() <= 803 && printed.bytes().all(|byte| matches!(byte, b' '..=b'~')));
}

/// The replies of a whole stream, by the grammar.
fn framed(stream: &[u8]) -> Framed {
    let mut replies = Vec::new();
    let mut at = 0;
    loop {
        match value(&stream[at..], 0, 0) {
            Ok((length, kind, text)) => {
                let text = matches!(kind, Kind::Error | Kind::BulkError).then(|| text.to_vec());
                replies.push(Known { start: at, end: at + length, kind, text });
                at += length;
            }
            Err(stop) => return Framed { replies, broken: matches!(stop, Stop::Broken) },
        }
    }
}

enum Stop {
    Incomplete,
    Broken,
}

/// The value at an offset of its reply, inside of so many aggregates: the offset behind it, its kind and its text.
fn value(reply: &[u8], mut at: usize, depth: usize) -> Result<(usize, Kind, &[u8]), Stop> {
    loop {
        let kind = kind(*reply.get(at).ok_or(Stop::Incomplete)?)?;
        if kind == Kind::Push && depth > 0 {
            return Err(Stop::Broken);
        }
        let text = line(&reply[at + 1..])?;
        let behind = at + 1 + text.len() + 2;
        let (per, least) = match kind {
            Kind::Bulk | Kind::Verbatim | Kind::BulkError => (0, 2),
            Kind::Array | Kind::Set | Kind::Push => (1, 3),
            Kind::Map | Kind::Attribute => (2, 3),
            _ => return if fits(kind, text) { Ok((behind, kind, text)) } else { Err(Stop::Broken) },
        };
        if text == b"-1" && matches!(kind, Kind::Bulk | Kind::Array) {
            return Ok((behind, kind, b""));
        }
        let count = length(text).ok_or(Stop::Broken)?;
        if behind + if per == 0 { count + least } else { count * per * least } > MAX_REPLY {
            return Err(Stop::Broken);
        }
        if per == 0 {
            let payload = reply.get(behind..behind + count).ok_or(Stop::Incomplete)?;
            match &reply[behind + count..] {
                [b'\r', b'\n', ..] => {}
                [] | [b'\r'] => return Err(Stop::Incomplete),
                _ => return Err(Stop::Broken),
            }
            let formatted = kind != Kind::Verbatim || payload.get(3) == Some(&b':');
            return if formatted { Ok((behind + count + 2, kind, payload)) } else { Err(Stop::Broken) };
        }
        if count > 0 && depth == MAX_DEPTH {
            return Err(Stop::Broken);
        }
        at = behind;
        for _ in 0..count * per {
            (at, _, _) = value(reply, at, depth + 1)?;
        }
        if kind != Kind::Attribute {
            return Ok((at, kind, b""));
        }
    }
}

fn kind(byte: u8) -> Result<Kind, Stop> {
    const KINDS: [(u8, Kind); 15] = [
        (b'+', Kind::Simple),
        (b'-', Kind::Error),
        (b':', Kind::Integer),
        (b'$', Kind::Bulk),
        (b'*', Kind::Array),
        (b'_', Kind::Null),
        (b'#', Kind::Boolean),
        (b',', Kind::Double),
        (b'(', Kind::BigNumber),
        (b'!', Kind::BulkError),
        (b'=', Kind::Verbatim),
        (b'%', Kind::Map),
        (b'~', Kind::Set),
        (b'>', Kind::Push),
        (b'|', Kind::Attribute),
    ];
    KINDS.iter().find(|(own, _)| *own == byte).map(|(_, kind)| *kind).ok_or(Stop::Broken)
}

fn line(rest: &[u8]) -> Result<&[u8], Stop> {
    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).ok_or(Stop::Incomplete)?;
    match &rest[end..] {
        [b'\r'] => Err(Stop::Incomplete),
        [b'\r', b'\n', ..] => Ok(&rest[..end]),
        _ => Err(Stop::Broken),
    }
}

/// A length in its one spelling, if it is at all near what a reply may have.
fn length(text: &[u8]) -> Option<usize> {
    let text = str::from_utf8(text).ok()?;
    let length: usize = text.parse().ok()?;
    (length <= MAX_REPLY && length.to_string() == text).then_some(length)
}

/// Whether a line is of its kind.
fn fits(kind: Kind, line: &[u8]) -> bool {
    let text = str::from_utf8(line);
    match kind {
        Kind::Integer => text.is_ok_and(|text| text.parse::<i64>().is_ok()),
        Kind::Double => text.is_ok_and(|text| text.parse::<f64>().is_ok()),
        Kind::Boolean => line == b"t" || line == b"f",
        Kind::Null => line.is_empty(),
        Kind::BigNumber => {
            let digits = text.unwrap_or_default().trim_start_matches(['-', '+']);
            let signs = line.len() - digits.len();
            signs <= 1 && !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        }
        _ => true,
    }
}
