//! `meteorit_methods`: by which methods events are taken.

use super::words::invalid;
use crate::ngx::Method;

/// A set of methods.
#[derive(Clone, Copy)]
pub struct Methods(u8);

/// In the order in which `Allow` lists them.
const NAMES: [(&str, Method); 4] =
    [("GET", Method::Get), ("HEAD", Method::Head), ("POST", Method::Post), ("PUT", Method::Put)];

/// Every set's list, by its bits.
const LISTS: [&str; 16] = [
    "",
    "GET",
    "HEAD",
    "GET, HEAD",
    "POST",
    "GET, POST",
    "HEAD, POST",
    "GET, HEAD, POST",
    "PUT",
    "GET, PUT",
    "HEAD, PUT",
    "GET, HEAD, PUT",
    "POST, PUT",
    "GET, POST, PUT",
    "HEAD, POST, PUT",
    "GET, HEAD, POST, PUT",
];

impl Default for Methods {
    /// POST and PUT.
    fn default() -> Self {
        Methods(0b1100)
    }
}

impl Methods {
    pub fn parse(words: &[Vec<u8>]) -> Result<Methods, String> {
        let mut bits = 0;
        for word in words {
            let Some(at) = NAMES.iter().position(|(name, _)| name.as_bytes() == word) else {
                return Err(invalid(word, "meteorit_methods", "POST, PUT, GET or HEAD"));
            };
            if bits & 1 << at != 0 {
                return Err(format!(
                    "\"{}\" is given twice in \"meteorit_methods\" directive",
                    String::from_utf8_lossy(word)
                ));
            }
            bits |= 1 << at;
        }
        Ok(Methods(bits))
    }

    pub fn has(self, method: Method) -> bool {
        NAMES.iter().position(|(_, known)| *known == method).is_some_and(|at| self.0 & 1 << at != 0)
    }

    /// For the header `Allow`.
    pub fn list(self) -> &'static str {
        LISTS.get(usize::from(self.0)).copied().unwrap_or_default()
    }
}
