//! The parts of an encoded command: an array of bulk strings, as this crate encodes them.
//!
//! What is no such command has no such part: never fails otherwise.

/// The number behind the type at `at`, and where its line ends. Not beyond what fits any command.
pub(super) fn number(command: &[u8], at: usize) -> Option<(usize, usize)> {
    let digits = command.get(at + 1..)?;
    let mut number = 0usize;
    for (count, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => number = number.checked_mul(10)?.checked_add(usize::from(byte - b'0'))?,
            b'\r' if count > 0 => return Some((number, at + 1 + count + 2)),
            _ => return None,
        }
    }
    None
}

/// The bulk string at `at`, and where it ends.
pub(super) fn argument(command: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (length, start) = number(command, at)?;
    let end = start.checked_add(length)?;
    Some((command.get(start..end)?, end + 2))
}

/// How long the first of these commands is.
pub(super) fn length(commands: &[u8]) -> Option<usize> {
    let (count, mut at) = number(commands, 0)?;
    for _ in 0..count {
        (_, at) = argument(commands, at)?;
    }
    Some(at)
}
