//! The step as a whole: against design.md's table, and against the parser of the crate `redis`.

use proptest::prelude::*;
use redis::parse_redis_value;

use super::*;

fn only(input: &[u8]) -> Reply<'_> {
    let reply = Parser::new().next(input).unwrap().unwrap();
    assert_eq!(reply.bytes(), input);
    assert_eq!(reply.len(), input.len());
    reply
}

/// One row for each reply that the design's table names.
#[test]
fn every_row_of_the_table_of_replies() {
    let rows: &[(&[u8], Verdict, bool)] = &[
        (b"+OK\r\n", Verdict::Stored, false),
        (b"+PONG\r\n", Verdict::Stored, false),
        (b":1\r\n", Verdict::Stored, false),
        (b":0\r\n", Verdict::Stored, false),
        (b"$15\r\n1732450000000-0\r\n", Verdict::Stored, false),
        (b"$6\r\nQUEUED\r\n", Verdict::Stored, false),
        (b"$-1\r\n", Verdict::Stored, false),
        (b"*-1\r\n", Verdict::Stored, false),
        (b"*2\r\n:1\r\n+QUEUED\r\n", Verdict::Stored, false),
        (b"_\r\n", Verdict::Stored, false),
        (b"#t\r\n", Verdict::Stored, false),
        (b",1e+20\r\n", Verdict::Stored, false),
        (b"(123456789012345678901234567890\r\n", Verdict::Stored, false),
        (b"=7\r\ntxt:abc\r\n", Verdict::Stored, false),
        (b"%1\r\n+a\r\n:1\r\n", Verdict::Stored, false),
        (b"~1\r\n+a\r\n", Verdict::Stored, false),
        (b"|1\r\n+a\r\n:1\r\n+OK\r\n", Verdict::Stored, false),
        (b"-ERR value is not an integer or out of range\r\n", Verdict::Rejected, false),
        (b"-ERR value is not a valid float\r\n", Verdict::Rejected, false),
        (b"-ERR bit offset is not an integer or out of range\r\n", Verdict::Rejected, false),
        (b"-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n", Verdict::Rejected, false),
        (b"-ERR Invalid stream ID specified as stream command argument\r\n", Verdict::Rejected, false),
        (b"-WRONGTYPE Operation against a key ...\r\n", Verdict::Refused, false),
        (b"-ERR unknown command 'X', with args beginning with: \r\n", Verdict::Refused, false),
        (b"-ERR wrong number of arguments for 'xadd' command\r\n", Verdict::Refused, false),
        (b"-CROSSSLOT Keys in request don't hash to the same slot\r\n", Verdict::Refused, false),
        (b"-EXECABORT Transaction discarded because of previous errors.\r\n", Verdict::Refused, false),
        (b"-NOSCRIPT No matching script. Please use EVAL.\r\n", Verdict::Refused, false),
        (b"!21\r\nSYNTAX invalid syntax\r\n", Verdict::Refused, false),
        (b"-NOPERM this user has no permissions ...\r\n", Verdict::Unavailable, false),
        (b"-NOAUTH Authentication required.\r\n", Verdict::Unavailable, false),
        (b"-WRONGPASS invalid username-password pair ...\r\n", Verdict::Unavailable, false),
        (b"-OOM command not allowed ...\r\n", Verdict::Unavailable, false),
        (b"|1\r\n+a\r\n:1\r\n-OOM command not allowed ...\r\n", Verdict::Unavailable, false),
        (b"!6\r\nOOM \xff\n\r\n", Verdict::Unavailable, false),
        (b"-MISCONF Errors writing to the AOF file: ...\r\n", Verdict::Unavailable, false),
        (b"-NOREPLICAS Not enough good replicas to write.\r\n", Verdict::Unavailable, false),
        (b"-ERR max number of clients reached\r\n", Verdict::Unavailable, true),
        (b"-LOADING Redis is loading the dataset in memory\r\n", Verdict::Unavailable, false),
        (b"-BUSY Redis is busy running a script. ...\r\n", Verdict::Unavailable, false),
        (b"-TRYAGAIN Multiple keys request ...\r\n", Verdict::Unavailable, false),
        (b"-CLUSTERDOWN Hash slot not served\r\n", Verdict::Unavailable, false),
        (b"-MASTERDOWN Link with MASTER is down ...\r\n", Verdict::Unavailable, false),
        (b"-READONLY You can't write against a read only replica.\r\n", Verdict::Unavailable, true),
        (b"-UNKILLABLE Sorry ...\r\n", Verdict::Unavailable, false),
        (b"-MOVED 3999 127.0.0.1:6381\r\n", Verdict::Refused, false),
        (b"-ASK 3999 127.0.0.1:6381\r\n", Verdict::Refused, false),
        (b"+QUEUED\r\n", Verdict::Unknown, false),
        (b">2\r\n$10\r\ninvalidate\r\n*0\r\n", Verdict::Unknown, false),
    ];
    for (input, verdict, reopens) in rows {
        let reply = only(input);
        assert_eq!(reply.verdict(), *verdict, "{}", input.escape_ascii());
        assert_eq!(reply.reopens(), *reopens, "{}", input.escape_ascii());
    }
}

#[test]
fn an_error_tells_its_text() {
    assert_eq!(only(b"-ERR x\xff\r\n").error(), Some(&b"ERR x\xff"[..]));
    assert_eq!(only(b"!5\r\nERR x\r\n").error(), Some(&b"ERR x"[..]));
    assert_eq!(only(b"*1\r\n-ERR x\r\n").error(), None);
    assert_eq!(only(b"+ERR x\r\n").error(), None);
}

fn bulk(kind: char, payload: &[u8]) -> Vec<u8> {
    [format!("{kind}{}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat()
}

fn scalar() -> impl Strategy<Value = Vec<u8>> {
    let text = || "[ -~äö€]{0,20}";
    let bytes = || prop_oneof![prop::collection::vec(any::<u8>(), 0..40), "[\r\n$*+a-z]{0,20}".prop_map(String::into)];
    prop_oneof![
        Just(b"+OK\r\n".to_vec()),
        text().prop_map(|text| format!("+{text}\r\n").into()),
        text().prop_map(|text| format!("-ERR {text}\r\n").into()),
        any::<i64>().prop_map(|number| format!(":{number}\r\n").into()),
        (0..1000i64).prop_map(|number| format!(":{number}\r\n").into()),
        bytes().prop_map(|payload| bulk('$', &payload)),
        text().prop_map(|text| bulk('!', text.as_bytes())),
        text().prop_map(|text| bulk('=', format!("txt:{text}").as_bytes())),
        Just(b"$-1\r\n".to_vec()),
        Just(b"*-1\r\n".to_vec()),
        Just(b"_\r\n".to_vec()),
        any::<bool>().prop_map(|truth| format!("#{}\r\n", if truth { 't' } else { 'f' }).into()),
        any::<f64>().prop_map(|number| format!(",{number:e}\r\n").into()),
        prop_oneof![Just(",inf\r\n"), Just(",-inf\r\n"), Just(",nan\r\n")].prop_map(Into::into),
        "[-+]?[0-9]{1,40}".prop_map(|digits| format!("({digits}\r\n").into()),
    ]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        let values = || prop::collection::vec(inner.clone(), 0..4);
        let pairs = || prop::collection::vec((inner.clone(), inner.clone()), 0..3);
        let encode =
            |kind, count, parts: &[Vec<u8>]| [format!("{kind}{count}\r\n").into_bytes(), parts.concat()].concat();
        let encode_pairs = move |kind, pairs: Vec<(Vec<u8>, Vec<u8>)>| {
            let parts: Vec<_> = pairs.into_iter().flat_map(|(key, value)| [key, value]).collect();
            encode(kind, parts.len() / 2, &parts)
        };
        prop_oneof![
            values().prop_map(move |parts| encode('*', parts.len(), &parts)),
            values().prop_map(move |parts| encode('~', parts.len(), &parts)),
            pairs().prop_map(move |pairs| encode_pairs('%', pairs)),
            (pairs(), inner.clone()).prop_map(move |(pairs, value)| [encode_pairs('|', pairs), value].concat()),
        ]
    })
}

fn reply() -> impl Strategy<Value = Vec<u8>> {
    let push = prop::collection::vec(value(), 0..3)
        .prop_map(|parts| [format!(">{}\r\n+message\r\n", parts.len() + 1).into(), parts.concat()].concat());
    prop_oneof![8 => value(), 1 => push]
}

fn incomplete(input: &[u8]) -> bool {
    parse_redis_value(input).is_err_and(|error| error.is_connection_dropped())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn frames_every_stream_however_it_is_cut(
        replies in prop::collection::vec(reply(), 1..6),
        cuts in prop::collection::vec(1..50usize, 1..20),
    ) {
        let stream = replies.concat();
        for reply in &replies {
            prop_assert!(parse_redis_value(reply).is_ok(), "{}", reply.escape_ascii());
            prop_assert!(incomplete(&reply[..reply.len() - 1]));
        }
        // As a whole, byte by byte, and in random pieces.
        for pieces in [vec![stream.len()], vec![1], cuts] {
            let mut parser = Parser::new();
            let mut pieces = pieces.iter().cycle();
            let (mut start, mut end) = (0, 0);
            let mut framed = Vec::new();
            while end < stream.len() {
                end = stream.len().min(end + pieces.next().unwrap());
                while let Some(reply) = parser.next(&stream[start..end]).unwrap() {
                    framed.push(reply.bytes().to_vec());
                    start += reply.len();
                }
            }
            prop_assert_eq!(&framed, &replies);
        }
    }

    #[test]
    fn any_bytes_at_all_are_framed_or_broken(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut parser = Parser::new();
        for end in 0..=input.len() {
            // Goes on after an error as no caller should.
            if let Ok(Some(reply)) = parser.next(&input[..end]) {
                prop_assert!(reply.len() <= end);
                reply.verdict();
            }
        }
    }

    #[test]
    fn protocol_bytes_in_any_order_are_framed_or_broken(input in "[-+:$*_#,(!=%~>|0-9\r\nOKtf]{0,80}") {
        let mut parser = Parser::new();
        let mut rest = input.as_bytes();
        while let Ok(Some(reply)) = parser.next(rest) {
            rest = &rest[reply.len()..];
        }
    }

    #[test]
    fn a_damaged_reply_is_framed_as_redis_rs_frames_it_or_not_at_all(
        reply in reply(),
        place in any::<prop::sample::Index>(),
        change in 0..3,
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"\r\n0123456789-+:$*%|>"[..])],
    ) {
        let mut damaged = reply;
        let place = place.index(damaged.len());
        match change {
            0 => damaged[place] = byte,
            1 => damaged.insert(place, byte),
            _ => _ = damaged.remove(place),
        }
        match Parser::new().next(&damaged) {
            // It refuses lines that are not UTF-8 and pushes that do not name their kind.
            Ok(Some(reply)) => if std::str::from_utf8(reply.bytes()).is_ok() && !reply.bytes().contains(&b'>') {
                prop_assert!(parse_redis_value(reply.bytes()).is_ok(), "{}", damaged.escape_ascii());
                prop_assert!(incomplete(&reply.bytes()[..reply.len() - 1]), "{}", damaged.escape_ascii());
            },
            Ok(None) => prop_assert!(parse_redis_value(&damaged).is_err(), "{}", damaged.escape_ascii()),
            Err(_) => {}
        }
    }
}
