//! Framing: each reply at its bounds, each breach by its name, and no byte twice.

use super::*;

fn one(input: &[u8]) -> Result<Option<Reply<'_>>, Broken> {
    Parser::new().next(input)
}

#[test]
fn short_replies_are_framed_as_the_full_parser_frames_them() {
    let rows: &[&[u8]] = &[
        b":0\r\n",
        b":1\r\n",
        b":-1\r\n",
        b":+7\r\n",
        b":007\r\n",
        b":999999999999999999\r\n",
        b":9223372036854775807\r\n",
        b":9223372036854775808\r\n",
        b":\r\n",
        b":1\n",
        b":1\r",
        b":1",
        b":",
        b":1x\r\n",
        b":1\rx",
        b"+OK\r\n",
        b"+OK\r",
        b"+OKAY\r\n",
        b"+OK\rx",
        b"+\r\n",
        b"_\r\n",
        b"_",
        b"_x\r\n",
        b"$0\r\n\r\n",
        b"$3\r\nabc\r\n",
        b"$3\r\nabcde\r\n",
        b"$3\r\nabc\n\n",
        b"$03\r\nabc\r\n",
        b"$-1\r\n",
        b"$-2\r\n",
        b"$+3\r\nabc\r\n",
        b"$\r\n",
        b"$1048576\r\n",
        b"$3\r\nab",
        b"$00\r\n\r\n",
        b"$3",
        b"$3\r",
        b"$?\r\n",
        b"$999999\r\n",
        b"$1234567\r\n",
    ];
    let mut framed = 0;
    for row in rows {
        let long = Parser::new().frame(row);
        if let Some(reply) = short(row) {
            framed += 1;
            assert_eq!(long, Ok(Some(reply)), "{}", row.escape_ascii());
        }
        assert_eq!(one(row), long, "{}", row.escape_ascii());
    }
    assert_eq!(framed, 8);
}

#[test]
fn says_what_is_broken() {
    let rows: &[(&[u8], Broken)] = &[
        (b"OK\r\n", Broken::Type(b'O')),
        (b"\r\n", Broken::Type(b'\r')),
        (b"+a\nb\r\n", Broken::LineEnd),
        (b"+a\rb\r\n", Broken::LineEnd),
        (b"-ERR x\n", Broken::LineEnd),
        (b"$3\r\nabcd\r\n", Broken::BulkEnd),
        (b"$3\r\nabcd", Broken::BulkEnd),
        (b"$3\r\nabc\rx", Broken::BulkEnd),
        (b"$-2\r\n", Broken::Length),
        (b"*-2\r\n", Broken::Length),
        (b"*-0\r\n", Broken::Length),
        (b"$+1\r\na\r\n", Broken::Length),
        (b"$ 1\r\na\r\n", Broken::Length),
        (b"$01\r\na\r\n", Broken::Length),
        (b"*\r\n", Broken::Length),
        (b"%-1\r\n", Broken::Length),
        (b"~-1\r\n", Broken::Length),
        (b"=-1\r\n", Broken::Length),
        (b"!-1\r\n", Broken::Length),
        (b"|-1\r\n", Broken::Length),
        (b">-1\r\n", Broken::Length),
        (b"$99999999999999999999999\r\n", Broken::Length),
        (b"$18446744073709551615\r\n", Broken::TooLarge),
        (b"*18446744073709551615\r\n", Broken::TooLarge),
        (b"*1000000\r\n", Broken::TooLarge),
        (b"%200000\r\n", Broken::TooLarge),
        (b"$1048576\r\n", Broken::TooLarge),
        (b"$?\r\n", Broken::Streamed),
        (b"*?\r\n", Broken::Streamed),
        (b"%?\r\n", Broken::Streamed),
        (b":\r\n", Broken::Value(Kind::Integer)),
        (b":1.5\r\n", Broken::Value(Kind::Integer)),
        (b": 1\r\n", Broken::Value(Kind::Integer)),
        (b":9223372036854775808\r\n", Broken::Value(Kind::Integer)),
        (b",one\r\n", Broken::Value(Kind::Double)),
        (b"#x\r\n", Broken::Value(Kind::Boolean)),
        (b"_x\r\n", Broken::Value(Kind::Null)),
        (b"(-\r\n", Broken::Value(Kind::BigNumber)),
        (b"(12a\r\n", Broken::Value(Kind::BigNumber)),
        (b"=3\r\ntxt\r\n", Broken::Value(Kind::Verbatim)),
        (b"*1\r\n>1\r\n+x\r\n", Broken::NestedPush),
        (b"*2\r\n:1\r\nx", Broken::Type(b'x')),
    ];
    for (input, expected) in rows {
        assert_eq!(one(input), Err(*expected), "{}", input.escape_ascii());
    }
}

#[test]
fn bounds_hold_exactly() {
    let line = |len: usize| [b"+", vec![b'x'; len].as_slice(), b"\r\n"].concat();
    assert!(matches!(one(&line(MAX_LINE)), Ok(Some(_))));
    assert_eq!(one(&line(MAX_LINE + 1)), Err(Broken::LineTooLong));
    let endless = [b"+", vec![b'x'; MAX_LINE + 1].as_slice()].concat();
    assert_eq!(one(&endless), Err(Broken::LineTooLong));

    let bulk = |len: usize| [format!("${len}\r\n").as_bytes(), &vec![b'x'; len], b"\r\n"].concat();
    let most = MAX_REPLY - "$1048000\r\n".len() - 2;
    assert!(matches!(one(&bulk(most)), Ok(Some(reply)) if reply.len() == MAX_REPLY));
    assert_eq!(one(&bulk(most + 1)), Err(Broken::TooLarge));

    let nested = |depth: usize| [b"*1\r\n".repeat(depth).as_slice(), b":1\r\n"].concat();
    assert!(matches!(one(&nested(MAX_DEPTH)), Ok(Some(_))));
    assert_eq!(one(&nested(MAX_DEPTH + 1)), Err(Broken::TooDeep));
    assert_eq!(one(&b"*1\r\n".repeat(200_000)), Err(Broken::TooDeep));

    // Each within its own bound, too much together.
    let many = [b"*20\r\n", bulk(60_000).repeat(20).as_slice()].concat();
    assert_eq!(one(&many), Err(Broken::TooLarge));
    let lines = |last: usize| {
        let first = line(MAX_LINE).repeat(15);
        [b"*16\r\n", first.as_slice(), line(last).as_slice()].concat()
    };
    let most = MAX_REPLY - lines(0).len();
    assert!(matches!(one(&lines(most)), Ok(Some(reply)) if reply.len() == MAX_REPLY));
    assert_eq!(one(&lines(most + 1)), Err(Broken::TooLarge));
    let unended = lines(most + 9);
    assert_eq!(one(&unended[..MAX_REPLY + 1]), Err(Broken::TooLarge));
    assert_eq!(one(&b"|0\r\n".repeat(MAX_REPLY / 4 + 1)), Err(Broken::TooLarge));
}

#[test]
fn an_attribute_belongs_to_the_reply_behind_it() {
    let rows: &[(&[u8], Kind)] = &[
        (b"|1\r\n+ttl\r\n:3\r\n:1\r\n", Kind::Integer),
        (b"|0\r\n+OK\r\n", Kind::Simple),
        (b"|1\r\n+a\r\n|1\r\n+b\r\n+c\r\n+d\r\n*0\r\n", Kind::Array),
        (b"|1\r\n+a\r\n*1\r\n+b\r\n*2\r\n|1\r\n+k\r\n+v\r\n:1\r\n:2\r\n", Kind::Array),
        (b"|1\r\n+a\r\n:1\r\n|1\r\n+b\r\n:2\r\n-ERR x\r\n", Kind::Error),
    ];
    for (input, kind) in rows {
        let followed = [*input, b":77\r\n"].concat();
        let reply = one(&followed).unwrap().unwrap();
        assert_eq!(reply.len(), input.len(), "{}", input.escape_ascii());
        assert_eq!(reply.kind(), *kind);
        for end in 0..input.len() {
            assert_eq!(one(&input[..end]), Ok(None), "{}", input[..end].escape_ascii());
        }
    }
    assert_eq!(one(rows[4].0).unwrap().unwrap().error(), Some(&b"ERR x"[..]));
}

/// Bytes that are done with are overwritten with what no reply may hold: whoever read them again would notice.
#[test]
fn scanned_bytes_are_not_read_again() {
    let payload = 300_000;
    let bulk = [b"$300000\r\n", vec![b'x'; payload].as_slice(), b"\r\n"].concat();
    // Type and length are done with as soon as they are whole.
    let bulk_done = |received: usize| {
        if received < 9 { 0..0 } else { 0..received.min(9 + payload) }
    };

    let line = [b"+", vec![b'x'; MAX_LINE].as_slice(), b"\r\n"].concat();
    let line_done = |received: usize| 1..received.clamp(1, 1 + MAX_LINE);

    let row = b"*2\r\n:123\r\n$2\r\nab\r\n";
    let array = [b"*3000\r\n", row.repeat(3000).as_slice()].concat();
    let array_done = |received: usize| match received.checked_sub(7) {
        Some(rows) => 0..received - rows % row.len(),
        None => 0..0,
    };

    type Done<'a> = &'a dyn Fn(usize) -> std::ops::Range<usize>;
    let rows: [(Vec<u8>, Done<'_>); 3] = [(bulk, &bulk_done), (line, &line_done), (array, &array_done)];
    for (stream, done) in rows {
        let mut parser = Parser::new();
        let mut buffer = Vec::new();
        let mut spoilt = 0;
        for received in 1..stream.len() {
            buffer.push(stream[received - 1]);
            assert_eq!(parser.next(&buffer), Ok(None), "at {received}");
            let done = done(received);
            buffer[done.start.max(spoilt)..done.end].fill(b'\n');
            spoilt = done.end.max(spoilt);
        }
        buffer.extend(stream.last());
        assert_eq!(parser.next(&buffer).unwrap().map(|reply| reply.len()), Some(stream.len()));
    }
}

#[test]
fn goes_on_with_the_next_reply() {
    let mut parser = Parser::new();
    let mut input: &[u8] = b"*2\r\n:1\r\n:2\r\n+OK\r\n$-1\r\n%1\r\n+k\r\n_\r\n>2\r\n+pubsub\r\n+x\r\n:5\r\n:";
    let mut seen = Vec::new();
    while let Some(reply) = parser.next(input).unwrap() {
        seen.push((reply.kind(), reply.is_push()));
        input = &input[reply.len()..];
    }
    let kinds = [Kind::Array, Kind::Simple, Kind::Bulk, Kind::Map, Kind::Push, Kind::Integer];
    assert_eq!(seen, kinds.map(|kind| (kind, kind == Kind::Push)));
    assert_eq!(input, b":");
}
