//! Decoders: bounded by the limit whatever comes, right where another decoder or an encoder says what is right.
//!
//! The first byte of an input is the coding, the second the limit, as a power of two and something; the rest is encoded bytes, or with
//! [`ROUND_TRIP`] what is to be encoded and decoded again, whole and with one byte damaged.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use miniz_oxide::inflate::{decompress_to_vec_with_limit, decompress_to_vec_zlib_with_limit};
use ngx_http_meteorit_module::inflate::{Coding, InflateError, inflate};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

const CODINGS: [Coding; 3] = [Coding::Gzip, Coding::Deflate, Coding::Zstd];
const ROUND_TRIP: u8 = 0x80;
/// Above every limit here, so that it is clear what a larger one allows.
const PLENTY: usize = 1 << 20;

pub fn check(input: &[u8]) {
    let [selector, limit, data @ ..] = input else { return };
    let coding = CODINGS[usize::from(selector & 0x7f) % CODINGS.len()];
    let limit = (1_usize << (limit % 16)) - 1 + usize::from(limit >> 4);
    if selector & ROUND_TRIP == 0 {
        decode(coding, data, limit);
        return;
    }
    for encoded in encoded(coding, data) {
        assert_eq!(decoded(coding, &encoded, data.len()).as_deref(), Ok(data));
        decode(coding, &encoded, limit);
        damaged(coding, encoded, data, limit);
    }
}

fn decode(coding: Coding, input: &[u8], limit: usize) {
    let result = decoded(coding, input, limit);
    let more = decoded(coding, input, PLENTY);
    match &result {
        Ok(bytes) => {
            assert_eq!(more.as_ref(), Ok(bytes));
            let exact = decoded(coding, input, bytes.len());
            assert_eq!(exact.as_ref(), Ok(bytes));
            if let Some(less) = bytes.len().checked_sub(1) {
                assert_eq!(decoded(coding, input, less), Err(InflateError::TooLarge { limit: less }));
            }
            compare(coding, input, bytes);
        }
        Err(InflateError::TooLarge { limit: told }) => {
            assert_eq!(*told, limit);
            // More than that, or broken further on.
            assert!(more.is_err() || more.is_ok_and(|bytes| bytes.len() > limit));
        }
        Err(error @ InflateError::Broken { coding: told, .. }) => {
            assert_eq!(*told, coding);
            assert_eq!(more, Err(*error));
        }
    }
    assert!(!format!("{result:?}").is_empty());
}

/// What another decoder makes of the same bytes, if it takes them.
fn compare(coding: Coding, input: &[u8], ours: &[u8]) {
    let theirs = match coding {
        Coding::Deflate => decompress_to_vec_zlib_with_limit(input, PLENTY)
            .or_else(|_| decompress_to_vec_with_limit(input, PLENTY))
            .ok(),
        Coding::Gzip => {
            let mut bytes = Vec::new();
            flate2::read::MultiGzDecoder::new(input).read_to_end(&mut bytes).is_ok().then_some(bytes)
        }
        Coding::Zstd => None,
    };
    if let Some(theirs) = theirs {
        assert!(ours == theirs, "another decoder reads something else");
    }
}

fn encoded(coding: Coding, data: &[u8]) -> Vec<Vec<u8>> {
    let level = Compression::new(u32::from(data.first().copied().unwrap_or_default() % 10));
    let done = "memory";
    match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), level);
            vec![encoder.write_all(data).and_then(|()| encoder.finish()).expect(done)]
        }
        Coding::Deflate => {
            let mut wrapped = ZlibEncoder::new(Vec::new(), level);
            let mut raw = DeflateEncoder::new(Vec::new(), level);
            vec![
                wrapped.write_all(data).and_then(|()| wrapped.finish()).expect(done),
                raw.write_all(data).and_then(|()| raw.finish()).expect(done),
            ]
        }
        Coding::Zstd => vec![compress_to_vec(data, CompressionLevel::Fastest)],
    }
}

/// With one bit flipped, where the data choose, a checksum shows it or it did not matter; without its end it is refused.
fn damaged(coding: Coding, mut encoded: Vec<u8>, data: &[u8], limit: usize) {
    let chosen = data.iter().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let at = chosen % encoded.len();
    encoded[at] ^= 1 << (chosen / encoded.len() % 8);
    decode(coding, &encoded, limit);
    // The sum that goes with deflate is too weak for that, if there is one at all.
    if coding != Coding::Deflate {
        let result = decoded(coding, &encoded, PLENTY);
        assert!(result.is_err() || result.is_ok_and(|bytes| bytes == data));
    }
    encoded.truncate(at);
    assert!(decoded(coding, &encoded, PLENTY).is_err());
}

fn decoded(coding: Coding, input: &[u8], limit: usize) -> Result<Vec<u8>, InflateError> {
    let mut out = b"kept".to_vec();
    let result = inflate(coding, input, limit, &mut out);
    assert!(out.starts_with(b"kept"));
    assert!(out.len() <= 4 + limit);
    assert!(out.capacity() <= 8.max(4 + limit), "{} bytes of room for {limit}", out.capacity());
    assert!(result.is_ok() || out.len() == 4);
    result.map(|()| out.split_off(4))
}
