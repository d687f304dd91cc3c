//! Which form of a reading a client asks for by its header Accept (RFC 9110, section 12.5.1).

/// A form of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    /// Prometheus's own.
    Text,
    OpenMetrics,
    /// The page for a browser.
    Html,
}

/// The one that the lines of the header like best, the first of those they like the same; JSON where they do not say.
pub fn choose<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Form {
    let (mut best, mut form) = (0, Form::Json);
    for range in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
        let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let quality = parts.find_map(|part| quality(part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="))?));
        let quality = quality.unwrap_or(1000);
        let named = match &name[..] {
            b"application/openmetrics-text" => Form::OpenMetrics,
            b"text/plain" | b"text/*" => Form::Text,
            b"text/html" | b"application/xhtml+xml" => Form::Html,
            b"application/json" | b"application/*" | b"*/*" => Form::Json,
            _ => continue,
        };
        if quality > best {
            (best, form) = (quality, named);
        }
    }
    form
}

/// In thousandths; None for what is none.
fn quality(text: &[u8]) -> Option<u32> {
    let value: f32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (0.0..=1.0).contains(&value).then_some((value * 1000.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_gets_the_form_that_it_asks_for() {
        const PROMETHEUS: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (accept, form) in [
            ("*/*", Form::Json),
            ("application/json", Form::Json),
            ("text/plain", Form::Text),
            ("Text/Plain; version=0.0.4", Form::Text),
            ("text/plain;version=0.0.4;q=1,*/*;q=0.1", Form::Text),
            (PROMETHEUS, Form::OpenMetrics),
            (BROWSER, Form::Html),
            ("image/png", Form::Json),
            ("text/html;q=0", Form::Json),
            ("text/html;q=nonsense", Form::Html),
            ("", Form::Json),
        ] {
            assert_eq!(choose([accept.as_bytes()].into_iter()), form, "{accept}");
        }
        assert_eq!(choose([].into_iter()), Form::Json);
        assert_eq!(choose([&b"application/json;q=0.5"[..], b"text/html"].into_iter()), Form::Html, "two lines");
    }
}
