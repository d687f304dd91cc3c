//! The Content-Security-Policy of the page: what it may run and how it may look is what it holds itself, by hash; it may ask
//! its own host, and no other.

use sha2::{Digest, Sha256};

pub fn of(page: &str) -> String {
    let (scripts, styles) = (hashes(page, "script"), hashes(page, "style"));
    format!(
        "default-src 'none'; script-src{scripts}; style-src{styles}; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    )
}

/// Of the text in each element of that name; 'none' where there is none.
fn hashes(page: &str, name: &str) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let texts = page.split(&open).skip(1).filter_map(|rest| Some(rest.split_once(&close)?.0));
    let hashes: String = texts.map(|text| format!(" 'sha256-{}'", base64(&Sha256::digest(text)))).collect();
    if hashes.is_empty() { " 'none'".into() } else { hashes }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = (0..3).fold(0, |word, at| word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let six = (word >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= chunk.len() { char::from(ALPHABET.get(six).copied().unwrap_or(b'=')) } else { '=' });
        }
    }
    text
}
