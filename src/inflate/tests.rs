use std::io::{Read, Write};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;
use proptest::sample::Index;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

const EVENT: &[u8] = r#"{"page":"/café","ms":12}"#.as_bytes();
/// The event by Python's gzip and zlib, gzip(1) and zstd(1) without and with a checksum; the last one is `seq 1 300 | zstd -19`.
const BY_TOOLS: [(Coding, &str); 5] = [
    (Coding::Gzip, "1f8b0800000000000203ab562a484c4f55b252d24f4e4c3bbc52494729b758c9cad0a816009861b0f919000000"),
    (Coding::Gzip, "1f8b0800000000000003ab562a484c4f55b252d24f4e4c3bbc52494729b758c9cad0a816009861b0f919000000"),
    (Coding::Deflate, "789cab562a484c4f55b252d24f4e4c3bbc52494729b758c9cad0a816006b28080a"),
    (Coding::Zstd, "28b52ffd0058c900007b2270616765223a222f636166c3a9222c226d73223a31327d"),
    (Coding::Zstd, "28b52ffd0458c900007b2270616765223a222f636166c3a9222c226d73223a31327d58feb1cc"),
];
const NUMBERS: &str = "28b52ffd0468350e004a44040709b0eb244988705298756d006b006b00cb1d776fde709f6d76d9648f2d76d8b569837db5d555533db5d451b7660df5d146174df4d042075d9a34d037db5c33cd33cb1c7367ce309f6c72c9248f2c72c89529837cb1c515533cb1c41137660cf175ebd5a94f971ebd9d1dfa71e3c5890f171ebc9c1cf86dd7f42cc79d01c4837889933810bfe136bc86d3f0192ec363788773380c3fe126bc8493f0112ec2437885533808bfe016bc8253f0092ec1237883333804bf722baf722a9f72298ff296b31cca8fdcc88b9cc8875cc883bce42407f2036ec00b38011fe0023c8017388103f0bbedae9beeb98dcee810fddaadbddaa97ddaa53ddadbce76683f76632f76621f76610ff6b2931dd80fba412fe8047da00bf4805ee8840ed0efb81dafe3747c8ecbf138dee33c0ec7cfb8192fe3647c8c8bf1305ee3340ec6afb815afe2547c8a4bf128dee22c0ec58fb8112fe2447c884b03c477ddaed775ba3ed7e57a5cef755e87eb67ddac9775b23ed6c57a58af755a07eb57ddaa5775aa3ed5a57a546f755687ea47dda81775a23ed4857a502f755207ea37dda6d7749a3ed3657a4cef744e87e927dda49774923ed2457a48af744a07e917dda257748a3ed1257a440f00355e96b1";

fn decoded(coding: Coding, input: &[u8], limit: usize) -> Result<Vec<u8>, InflateError> {
    let mut out = b"kept".to_vec();
    match inflate(coding, input, limit, &mut out) {
        Ok(()) => Ok(out.split_off(4)),
        Err(error) => {
            assert_eq!(out, b"kept", "{error}");
            Err(error)
        }
    }
}

fn fault(coding: Coding, input: &[u8]) -> StreamFault {
    match decoded(coding, input, 1 << 20) {
        Err(InflateError::Broken { fault, coding: named }) => {
            assert_eq!(named, coding);
            fault
        }
        other => panic!("{other:?} from {}", input.escape_ascii()),
    }
}

fn gzipped(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("memory")
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("memory")
}

fn raw(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("memory")
}

fn zstd(data: &[u8]) -> Vec<u8> {
    compress_to_vec(data, CompressionLevel::Fastest)
}

type Encoder = fn(&[u8]) -> Vec<u8>;
const ENCODERS: [(Coding, Encoder); 4] =
    [(Coding::Gzip, gzipped), (Coding::Deflate, zlib), (Coding::Deflate, raw), (Coding::Zstd, zstd)];

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("hexadecimal")).collect()
}

/// Text that repeats, but not too often.
fn text(length: usize) -> Vec<u8> {
    let lines =
        (0_u32..).flat_map(|n| format!("{{\"n\":{},\"page\":\"/{}\"}}\n", n, n.wrapping_mul(n) % 97).into_bytes());
    lines.take(length).collect()
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn a_coding_is_read_from_its_header() {
    for (header, coding) in [
        ("", None),
        (" ", None),
        ("identity", None),
        ("Identity", None),
        (",", None),
        ("gzip", Some(Coding::Gzip)),
        (" GZip ", Some(Coding::Gzip)),
        ("x-gzip", Some(Coding::Gzip)),
        ("gzip,", Some(Coding::Gzip)),
        ("deflate", Some(Coding::Deflate)),
        ("\tzstd", Some(Coding::Zstd)),
    ] {
        assert_eq!(Coding::parse(header.as_bytes()), Ok(coding), "{header:?}");
    }
    for header in
        ["br", "compress", "gzip, gzip", "gzip,deflate", "identity, gzip", "gzip;q=1", "gzip zstd", "*", "gzi"]
    {
        assert_eq!(Coding::parse(header.as_bytes()), Err(UnknownCoding), "{header:?}");
    }
    assert_eq!(UnknownCoding.to_string(), "unsupported content coding, use one of gzip, deflate, zstd");
}

#[test]
fn what_the_usual_tools_encode_is_decoded() {
    for (coding, encoded) in BY_TOOLS {
        assert_eq!(decoded(coding, &hex(encoded), EVENT.len()).as_deref(), Ok(EVENT), "{encoded}");
    }
    let numbers: Vec<u8> = (1..=300).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    assert_eq!(decoded(Coding::Zstd, &hex(NUMBERS), numbers.len()), Ok(numbers));
}

#[test]
fn the_limit_is_exact() {
    for (coding, encode) in ENCODERS {
        for length in [0, 1, 100, 4095, 4096, 4097, 200_000, 1 << 20] {
            let data = text(length);
            let encoded = encode(&data);
            assert!(decoded(coding, &encoded, length).is_ok_and(|out| out == data), "{coding}, {length}");
            assert!(decoded(coding, &encoded, usize::MAX).is_ok_and(|out| out == data), "{coding}, {length}");
            if let Some(limit) = length.checked_sub(1) {
                assert_eq!(
                    decoded(coding, &encoded, limit),
                    Err(InflateError::TooLarge { limit }),
                    "{coding}, {length}"
                );
            }
        }
        let roomy = &mut Vec::with_capacity(1 << 20);
        assert_eq!(inflate(coding, &encode(&text(100)), 99, roomy), Err(InflateError::TooLarge { limit: 99 }));
        assert!(roomy.is_empty());
    }
    assert_eq!(InflateError::TooLarge { limit: 99 }.to_string(), "larger than 99 bytes when decoded");
}

#[test]
fn members_and_frames_are_joined() {
    let (one, two) = (text(70_000), noise(1000));
    let whole = [&one[..], &two].concat();
    for (coding, encode) in [(Coding::Gzip, gzipped as Encoder), (Coding::Zstd, zstd)] {
        let joined = [encode(&one), encode(b""), encode(&two)].concat();
        assert!(decoded(coding, &joined, whole.len()).is_ok_and(|out| out == whole));
        let limit = whole.len() - 1;
        assert_eq!(decoded(coding, &joined, limit), Err(InflateError::TooLarge { limit }));
    }
    // RFC 8878, section 3.1.2: a frame to skip, of which three bytes follow.
    let skipped = [&hex("502a4d18030000000102ff")[..], &zstd(EVENT), &hex("5f2a4d1800000000")].concat();
    assert_eq!(decoded(Coding::Zstd, &skipped, 100).as_deref(), Ok(EVENT));
    // Two zlib streams are no deflate coding.
    assert_eq!(fault(Coding::Deflate, &[zlib(EVENT), zlib(EVENT)].concat()), StreamFault::TrailingData);
}

#[test]
fn the_number_of_streams_is_bounded() {
    for (coding, encode) in [(Coding::Gzip, gzipped as Encoder), (Coding::Zstd, zstd)] {
        let most = encode(b"").repeat(MAX_STREAMS as usize);
        assert_eq!(decoded(coding, &most, 0), Ok(Vec::new()));
        assert_eq!(fault(coding, &[most, encode(b"")].concat()), StreamFault::TooManyStreams);
    }
}

#[test]
fn a_stream_that_is_cut_anywhere_is_broken() {
    let mut streams: Vec<_> = ENCODERS.iter().map(|(coding, encode)| (*coding, encode(&text(3000)))).collect();
    streams.extend(BY_TOOLS.iter().map(|(coding, encoded)| (*coding, hex(encoded))));
    streams.push((Coding::Zstd, hex(NUMBERS)));
    for (coding, stream) in streams {
        for length in 0..stream.len() {
            let fault = fault(coding, &stream[..length]);
            assert_eq!(fault, StreamFault::UnexpectedEnd, "{coding}, {length} of {}", stream.len());
        }
        // And when another one comes before it. A single byte may be the start of anything.
        if coding != Coding::Deflate {
            for length in 1..stream.len() {
                let fault = fault(coding, &[&stream[..], &stream[..length]].concat());
                assert_eq!(fault, StreamFault::UnexpectedEnd, "{coding}, {length} of {} again", stream.len());
            }
        }
    }
}

#[test]
fn what_follows_a_stream_is_no_part_of_it() {
    for (coding, encode) in ENCODERS {
        for garbage in [&b"\0\0\0\0"[..], b"{\"a\":1}", b"\x1f\x8c\x08\0", b"\n\n\n\n"] {
            let fault = fault(coding, &[&encode(EVENT), garbage].concat());
            let fits =
                matches!(fault, StreamFault::TrailingData) || garbage[0] == 0x1f && fault == StreamFault::Invalid;
            assert!(fits, "{coding}: {fault:?}");
        }
    }
}

#[test]
fn a_zstd_frame_of_one_segment_is_as_large_as_it_says() {
    // Of 9 MiB, of which the first 128 KiB are there: more than the largest window of others.
    let frame = hex("28b52ffda00000900002001000");
    let mut out = Vec::new();
    assert_eq!(inflate(Coding::Zstd, &frame, 1 << 20, &mut out), Err(InflateError::TooLarge { limit: 1 << 20 }));
    let error = inflate(Coding::Zstd, &frame, 16 << 20, &mut out).unwrap_err();
    assert_eq!(error.to_string(), "broken zstd stream: unexpected end");
}

#[test]
fn what_is_no_stream_is_refused() {
    for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
        assert_eq!(fault(coding, b""), StreamFault::UnexpectedEnd);
        for other in [EVENT, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
            assert_eq!(fault(coding, other), StreamFault::Invalid, "{coding}");
        }
    }
    let message = "broken zstd stream: invalid data";
    assert_eq!(decoded(Coding::Zstd, EVENT, 1).map_err(|error| error.to_string()), Err(message.to_owned()));
    // A zlib header that asks for a dictionary, and a frame that does.
    assert_eq!(fault(Coding::Deflate, &hex("78bb000000010300")), StreamFault::Dictionary);
    assert_eq!(fault(Coding::Zstd, &hex("28b52ffd2107190100007b")), StreamFault::Dictionary);
    // A window of 8 MiB is taken, the next larger one is not.
    assert_eq!(decoded(Coding::Zstd, &hex("28b52ffd00680900007b"), 100), Ok(b"{".to_vec()));
    assert_eq!(fault(Coding::Zstd, &hex("28b52ffd00690900007b")), StreamFault::Window);
}

#[test]
fn a_wrong_sum_or_length_is_found() {
    let mut member = gzipped(EVENT);
    for back in 1..=8 {
        let at = member.len() - back;
        member[at] ^= 1;
        assert_eq!(fault(Coding::Gzip, &member), StreamFault::Invalid);
        member[at] ^= 1;
    }
    let mut wrapped = zlib(EVENT);
    *wrapped.last_mut().expect("a checksum") ^= 1;
    assert_eq!(fault(Coding::Deflate, &wrapped), StreamFault::Invalid);
    let mut frame = hex(BY_TOOLS[4].1);
    *frame.last_mut().expect("a checksum") ^= 1;
    assert_eq!(fault(Coding::Zstd, &frame), StreamFault::Invalid);
    // One byte is declared, and there are two.
    assert_eq!(fault(Coding::Zstd, &hex("28b52ffd20011100007b7d")), StreamFault::Invalid);
}

/// 64 MiB to 1 GiB of zeros in some kilobytes.
fn bombs() -> [(Coding, Vec<u8>); 3] {
    let zeros = |encoder: &mut dyn Write| {
        let block = vec![0; 1 << 20];
        (0..64).try_for_each(|_| encoder.write_all(&block)).expect("memory");
    };
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    zeros(&mut gzip);
    let mut deflate = ZlibEncoder::new(Vec::new(), Compression::best());
    zeros(&mut deflate);
    // A frame with a window of 8 MiB, and 8191 blocks that each repeat a byte 128 Ki times (RFC 8878, section 3.1.1.2).
    let mut zstd = hex("28b52ffd0068");
    for _ in 0..8191 {
        zstd.extend(hex("02001000"));
    }
    zstd.extend(hex("03001000"));
    [
        (Coding::Gzip, gzip.finish().expect("memory").repeat(16)),
        (Coding::Deflate, deflate.finish().expect("memory")),
        (Coding::Zstd, zstd),
    ]
}

#[test]
fn a_bomb_stops_at_the_limit() {
    for (coding, bomb) in bombs() {
        assert!(bomb.len() < 2 << 20, "{}", bomb.len());
        for limit in [0, 1000, 1 << 20, 12 << 20] {
            let started = Instant::now();
            let mut out = Vec::new();
            assert_eq!(inflate(coding, &bomb, limit, &mut out), Err(InflateError::TooLarge { limit }));
            assert!(out.capacity() <= limit.max(64), "{coding}: {} for {limit}", out.capacity());
            assert!(started.elapsed() < Duration::from_secs(2), "{coding}: {:?}", started.elapsed());
        }
    }
    // A frame that only says that it is large: eight bytes of length.
    let limit = 1 << 20;
    let claim = hex("28b52ffdc068ffffffffffffff7f0900007b");
    assert_eq!(decoded(Coding::Zstd, &claim, limit), Err(InflateError::TooLarge { limit }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_encoded_is_decoded(data in prop::collection::vec(prop_oneof![0_u8..4, any::<u8>()], 0..3000)) {
        for (coding, encode) in ENCODERS {
            prop_assert_eq!(decoded(coding, &encode(&data), data.len()), Ok(data.clone()));
        }
    }

    /// And agrees with the crates' own readers on what remains.
    #[test]
    fn flipped_bytes_are_no_panic(
        length in 0_usize..4000,
        which in 0_usize..5,
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let data = text(length);
        let (coding, mut stream) = match ENCODERS.get(which) {
            Some((coding, encode)) => (*coding, encode(&data)),
            None => (Coding::Zstd, hex(NUMBERS)),
        };
        for (at, byte) in flips {
            let at = at.index(stream.len().min(300));
            stream[at] = byte;
        }
        let ours = decoded(coding, &stream, 1 << 16);
        if let (Coding::Gzip, Ok(ours)) = (coding, &ours) {
            let mut theirs = Vec::new();
            flate2::read::MultiGzDecoder::new(&stream[..]).read_to_end(&mut theirs).expect("as we took it");
            prop_assert_eq!(ours, &theirs);
        }
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd] {
            let _ = decoded(coding, &stream, 1 << 10);
        }
    }
}
