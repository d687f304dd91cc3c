//! What errors of several directives say in the same words, which are nginx's where it has any.

/// A value that the directive does not know.
pub fn invalid(value: &[u8], directive: &str, expected: &str) -> String {
    format!("invalid value \"{}\" in \"{directive}\" directive: expected {expected}", String::from_utf8_lossy(value))
}

/// A directive that has stood in this block before.
pub fn duplicate(directive: &str) -> String {
    format!("\"{directive}\" directive is duplicate")
}
