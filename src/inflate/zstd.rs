//! Frames of zstd (RFC 8878), decoded a megabyte of blocks at a time.

use std::io::{self, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{MAX_STREAMS, Sink, Stop, StreamFault};

/// The largest window that a frame may ask for.
pub(super) const MAX_WINDOW: u64 = 8 << 20;

/// How much is decoded before the limit is looked at again; a block more may follow.
const STEP: usize = 1 << 20;

pub(super) fn frames(input: &[u8], sink: &mut Sink<'_>) -> Result<(), Stop> {
    let mut input = Input { rest: input, ended: false };
    for count in 0..MAX_STREAMS {
        if count > 0 && input.rest.is_empty() {
            return Ok(());
        }
        let first = count == 0;
        match frame(&mut input, sink) {
            Err(Stop::Fault(StreamFault::Invalid)) if input.ended => return Err(StreamFault::UnexpectedEnd.into()),
            Err(Stop::Fault(StreamFault::TrailingData)) if first => return Err(StreamFault::Invalid.into()),
            result => result?,
        }
    }
    if input.rest.is_empty() { Ok(()) } else { Err(StreamFault::TooManyStreams.into()) }
}

/// One frame, or one to skip.
fn frame(input: &mut Input<'_>, sink: &mut Sink<'_>) -> Result<(), Stop> {
    // A decoder that is used again reserves the whole window that a frame asks for; a new one, what it needs.
    let mut decoder = FrameDecoder::new();
    // The window of a frame of a single segment is all that it has, for which there is room or not (RFC 8878, 3.1.1.1.1.2).
    let single_segment = input.rest.get(4).is_some_and(|descriptor| descriptor & 0x20 != 0);
    let room = sink.room();
    decoder.set_max_window_size(if single_segment { MAX_WINDOW.max(room as u64) } else { MAX_WINDOW });
    if let Err(error) = decoder.init(&mut *input) {
        return match error {
            FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. }) => {
                input.skip(length as usize)
            }
            FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::BadMagicNumber(_)) => {
                Err(StreamFault::TrailingData.into())
            }
            FrameDecoderError::WindowSizeTooBig { .. } if single_segment => Err(Stop::Full),
            FrameDecoderError::WindowSizeTooBig { .. } => Err(StreamFault::Window.into()),
            FrameDecoderError::DictNotProvided { .. } => Err(StreamFault::Dictionary.into()),
            _ => Err(StreamFault::Invalid.into()),
        };
    }
    // 0 also when the frame does not say.
    let declared = decoder.content_size();
    if declared > room as u64 {
        return Err(Stop::Full);
    }
    let start = sink.out.len();
    let mut decoded = 0_usize;
    loop {
        let step = BlockDecodingStrategy::UptoBytes(STEP);
        let finished = decoder.decode_blocks(&mut *input, step).map_err(|_| StreamFault::Invalid)?;
        let ready = decoder.can_collect();
        if ready > sink.room() {
            return Err(Stop::Full);
        }
        sink.reserve(ready);
        decoder.collect_to_writer(&mut *sink.out).map_err(|_| StreamFault::Invalid)?;
        if finished {
            break;
        }
        // The window keeps what it may still need, which counts too.
        decoded = decoded.saturating_add(STEP);
        if decoded > room {
            return Err(Stop::Full);
        }
    }
    let length = (sink.out.len() - start) as u64;
    let sum = decoder.get_checksum_from_data();
    if declared != 0 && declared != length || sum.is_some() && sum != decoder.get_calculated_checksum() {
        return Err(StreamFault::Invalid.into());
    }
    Ok(())
}

/// The encoded bytes, and whether more were wanted than there are.
struct Input<'a> {
    rest: &'a [u8],
    ended: bool,
}

impl Input<'_> {
    fn skip(&mut self, length: usize) -> Result<(), Stop> {
        self.rest = self.rest.get(length..).ok_or(StreamFault::UnexpectedEnd)?;
        Ok(())
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.ended |= buffer.len() > self.rest.len();
        self.rest.read(buffer)
    }
}
