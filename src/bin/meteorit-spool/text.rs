//! Commands, times and sizes as a person reads them, and what goes to the standard output.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::Result;

/// Writes to the standard output; an error where nobody reads it any more.
pub fn out(text: &str) -> Result<()> {
    std::io::stdout().lock().write_all(text.as_bytes()).map_err(Into::into)
}

/// The arguments of each command in `bytes`: one, or all of a transaction. None when they are not RESP.
pub fn commands(mut bytes: &[u8]) -> Option<Vec<Vec<&[u8]>>> {
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        let mut args = Vec::new();
        for _ in 0..number(&mut bytes, b'*')? {
            let length = number(&mut bytes, b'$')?;
            let (arg, rest) = bytes.split_at_checked(length)?;
            bytes = rest.strip_prefix(b"\r\n")?;
            args.push(arg);
        }
        commands.push(args);
    }
    Some(commands)
}

/// Takes a line of RESP off `bytes`: its type and a number.
fn number(bytes: &mut &[u8], kind: u8) -> Option<usize> {
    let end = memchr::memchr(b'\r', bytes)?;
    let (line, rest) = bytes.split_at_checked(end)?;
    *bytes = rest.strip_prefix(b"\r\n")?;
    let (first, digits) = line.split_first()?;
    (*first == kind).then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

/// In quotes, as redis-cli shows it and takes it.
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(byte)]),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x07 => text.push_str("\\a"),
            0x08 => text.push_str("\\b"),
            b' '..=b'~' => text.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => _ = write!(text, "\\x{byte:02x}"),
        }
    }
    text.push('"');
    text
}

/// A string; an object with the bytes in hex for what is not UTF-8.
pub fn json_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => {
            let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            json!({ "hex": hex })
        }
    }
}

/// `2026-11-25T15:45:48.123Z`, for milliseconds since 1970.
pub fn time(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from the 1st of March of a year that 400 divides: a leap day is the last of its year. Of 400 years
    // 146097 days, of 4 years 1461; the months from March on have 153 days in each five.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// How long ago, in its two largest units: `3d4h`.
pub fn age(unix_ms: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
    duration(now.saturating_sub(unix_ms) / 1000)
}

fn duration(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];
    for (index, (unit, length)) in UNITS.iter().enumerate() {
        if seconds >= *length {
            let first = format!("{}{unit}", seconds / length);
            return match UNITS.get(index + 1) {
                Some((unit, smaller)) if seconds % length >= *smaller => {
                    format!("{first}{}{unit}", seconds % length / smaller)
                }
                _ => first,
            };
        }
    }
    "0s".into()
}

/// `1.2M`, in powers of 1024.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["", "K", "M", "G"] {
        if value < 1024.0 {
            return if unit.is_empty() { bytes.to_string() } else { format!("{value:.1}{unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1}T")
}
