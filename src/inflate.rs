//! The decoder: takes in a body with a Content-Encoding and hands on the bytes that were encoded.
//!
//! It never holds more than the limit and a fixed window, however much a body claims or expands to, never stops early in silence, and never
//! takes bytes that belong to no stream. What the body means is the next steps' business.

mod zstd;

#[cfg(test)]
mod tests;

use std::fmt;

use flate2::{Decompress, FlushDecompress, Status};
use thiserror::Error;

/// A content coding of RFC 9110, section 8.4.1, or RFC 8878.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// One or more members, as RFC 1952 allows; each is checked against its CRC and length.
    Gzip,
    /// In zlib's wrapper (RFC 1950) as the name means, or without it (RFC 1951), as some clients send it.
    Deflate,
    /// One or more frames; checked against their checksum, if they have one.
    Zstd,
}

/// A coding that [`Coding::parse`] does not know, or several of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("unsupported content coding, use one of {}", Coding::ACCEPTED)]
pub struct UnknownCoding;

impl Coding {
    /// What an answer to an unknown coding says in Accept-Encoding (RFC 9110, section 15.5.16).
    pub const ACCEPTED: &str = "gzip, deflate, zstd";

    /// Reads the value of Content-Encoding; `None` when the body is as it is: an empty value, or `identity`.
    ///
    /// # Errors
    ///
    /// Another name, and more than one: each could be a bomb inside the next.
    pub fn parse(header: &[u8]) -> Result<Option<Coding>, UnknownCoding> {
        let mut names = header.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
        let name = names.next().unwrap_or(b"identity");
        if names.next().is_some() {
            return Err(UnknownCoding);
        }
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name {
            _ if is("identity") => Ok(None),
            _ if is("gzip") || is("x-gzip") => Ok(Some(Coding::Gzip)),
            _ if is("deflate") => Ok(Some(Coding::Deflate)),
            _ if is("zstd") => Ok(Some(Coding::Zstd)),
            _ => Err(UnknownCoding),
        }
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Zstd => "zstd",
        })
    }
}

/// Why a body could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InflateError {
    /// The request's bound, not the client's syntax: 413.
    #[error("larger than {limit} bytes when decoded")]
    TooLarge { limit: usize },
    /// 400.
    #[error("broken {coding} stream: {fault}")]
    Broken { coding: Coding, fault: StreamFault },
}

/// What is wrong with an encoded stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StreamFault {
    #[error("unexpected end")]
    UnexpectedEnd,
    /// Against the format, or against its own checksum or length.
    #[error("invalid data")]
    Invalid,
    /// Bytes behind the stream that begin no other one.
    #[error("trailing data")]
    TrailingData,
    /// More members or frames than [`MAX_STREAMS`].
    #[error("more than {MAX_STREAMS} streams in one body")]
    TooManyStreams,
    #[error("it needs a dictionary")]
    Dictionary,
    /// RFC 8878, section 3.1.1.1.2 recommends to support 8 MiB, and RFC 9659 forbids senders on the web to ask for more.
    #[error("a window of more than {} MiB", zstd::MAX_WINDOW >> 20)]
    Window,
}

/// How many gzip members or zstd frames one body may have. Each costs some microseconds to begin, and may be as short as nine bytes.
pub const MAX_STREAMS: u32 = 4096;

/// Appends to `out` what `input` decodes to, which may be `limit` bytes and no more.
///
/// `out` grows to `limit` at most, by doubling. Beside it a decoder takes some 50 KiB, for zstd a window of 8 MiB at most and a megabyte of
/// blocks.
///
/// # Errors
///
/// [`InflateError::TooLarge`] as soon as there is one byte too many, or a zstd frame declares so; [`InflateError::Broken`] for all else.
/// `out` is then as it was.
pub fn inflate(coding: Coding, input: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), InflateError> {
    let start = out.len();
    let mut sink = Sink { out, end: start.saturating_add(limit) };
    let result = match coding {
        Coding::Gzip => gzip(input, &mut sink),
        Coding::Deflate => deflate(input, &mut sink),
        Coding::Zstd => zstd::frames(input, &mut sink),
    };
    if result.is_err() {
        out.truncate(start);
    }
    result.map_err(|stop| match stop {
        Stop::Full => InflateError::TooLarge { limit },
        Stop::Fault(fault) => InflateError::Broken { coding, fault },
    })
}

/// Why a decoder stopped before its end.
enum Stop {
    Full,
    Fault(StreamFault),
}

impl From<StreamFault> for Stop {
    fn from(fault: StreamFault) -> Stop {
        Stop::Fault(fault)
    }
}

/// Where decoded bytes go, up to the limit.
struct Sink<'a> {
    out: &'a mut Vec<u8>,
    /// The length that `out` may reach.
    end: usize,
}

impl Sink<'_> {
    fn room(&self) -> usize {
        self.end.saturating_sub(self.out.len())
    }

    /// Capacity for `wanted` bytes more, for as much again as there is, or up to the end.
    fn reserve(&mut self, wanted: usize) {
        let wanted = wanted.max(self.out.len()).min(self.room());
        self.out.reserve_exact(wanted);
    }
}

fn gzip(mut input: &[u8], sink: &mut Sink<'_>) -> Result<(), Stop> {
    for _ in 0..MAX_STREAMS {
        // Window bits as in zlib's inflateInit2; 15 is what every encoder may use.
        input = stream(Decompress::new_gzip(15), input, sink)?;
        match input {
            [] => return Ok(()),
            // The first two bytes of a member (RFC 1952, section 2.3.1).
            [0x1f, 0x8b, ..] | [0x1f] => {}
            _ => return Err(StreamFault::TrailingData.into()),
        }
    }
    Err(StreamFault::TooManyStreams.into())
}

fn deflate(input: &[u8], sink: &mut Sink<'_>) -> Result<(), Stop> {
    // RFC 1950, section 2.2: the method is 8, the window at most 32 KiB, and both bytes together a multiple of 31.
    let wrapped = match *input {
        [method, flags, ..] => method & 0x8f == 0x08 && u16::from_be_bytes([method, flags]).is_multiple_of(31),
        _ => true,
    };
    match stream(Decompress::new(wrapped), input, sink)? {
        [] => Ok(()),
        _ => Err(StreamFault::TrailingData.into()),
    }
}

/// Decodes one stream; gives what is behind it.
fn stream<'i>(mut decoder: Decompress, mut input: &'i [u8], sink: &mut Sink<'_>) -> Result<&'i [u8], Stop> {
    // What JSON usually makes of it.
    sink.reserve(input.len().saturating_mul(4).max(256));
    loop {
        let (read, written) = (decoder.total_in(), decoder.total_out());
        let full = sink.out.len() == sink.out.capacity();
        let mut beyond = [0];
        let status = if full {
            // The end of a stream may take no room, one byte would be one too many.
            decoder.decompress(input, &mut beyond, FlushDecompress::None)
        } else {
            decoder.decompress_vec(input, sink.out, FlushDecompress::None)
        };
        let status = status.map_err(|error| match error.needs_dictionary() {
            Some(_) => StreamFault::Dictionary,
            None => StreamFault::Invalid,
        })?;
        let moved = |now: u64, before: u64| usize::try_from(now - before).unwrap_or(usize::MAX);
        let (read, written) = (moved(decoder.total_in(), read), moved(decoder.total_out(), written));
        input = input.get(read..).unwrap_or_default();
        if full && written > 0 {
            if sink.room() == 0 {
                return Err(Stop::Full);
            }
            sink.reserve(1);
            sink.out.extend_from_slice(&beyond);
        }
        // The buffer may have had more capacity than the limit allows.
        if sink.out.len() > sink.end {
            return Err(Stop::Full);
        }
        match status {
            Status::StreamEnd => return Ok(input),
            Status::Ok | Status::BufError if read > 0 || written > 0 => {}
            _ => return Err(StreamFault::UnexpectedEnd.into()),
        }
    }
}
