//! CORS: from which pages of other origins a browser may send events here and read the answers.
//!
//! Made of the words of `meteorit_cors`; judges a request by its Origin and says which headers follow from that (the Fetch
//! standard's "HTTP CORS protocol"). Sends nothing.

use std::net::Ipv6Addr;

/// How long a browser may remember what a preflight was told, in seconds. Firefox keeps it so long, Chromium two hours.
const MAX_AGE: &str = "86400";

/// The longest list of header names that a preflight may ask for, in bytes.
const LONGEST_NAMES: usize = 1024;

/// What `meteorit_cors` says.
#[derive(Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Origins,
    credentials: bool,
    strict: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Origins {
    Any,
    Listed(Vec<Pattern>),
}

/// An origin as RFC 6454 serialises it, or what is around the labels that may be any.
#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    /// `https://` and `.example.com`.
    Below {
        scheme: String,
        domain: String,
    },
}

/// A header of an answer: its name and its value.
pub type Header<'a> = (&'static str, &'a [u8]);

impl Cors {
    /// Reads the arguments of `meteorit_cors`; None for `off`.
    pub fn parse(words: &[Vec<u8>]) -> Result<Option<Cors>, String> {
        if words == [b"off"] {
            return Ok(None);
        }
        let (mut any, mut listed, mut credentials, mut strict) = (false, Vec::new(), false, false);
        for word in words {
            let twice = || Err(format!("\"{}\" is given twice", String::from_utf8_lossy(word)));
            let flag = match word.as_slice() {
                b"*" => &mut any,
                b"credentials" => &mut credentials,
                b"strict" => &mut strict,
                word => {
                    let pattern = Pattern::parse(word)?;
                    if listed.contains(&pattern) {
                        return twice();
                    }
                    listed.push(pattern);
                    continue;
                }
            };
            if std::mem::replace(flag, true) {
                return twice();
            }
        }
        match any {
            true if !listed.is_empty() => Err("\"*\" leaves no place for other origins".into()),
            true if credentials => {
                Err("\"credentials\" needs the origins to be listed: browsers refuse it with \"*\"".into())
            }
            true if strict => Err("\"strict\" needs the origins to be listed: with \"*\" none is foreign".into()),
            true => Ok(Some(Cors { origins: Origins::Any, credentials, strict })),
            false if listed.is_empty() => Err("no origin is given".into()),
            false => Ok(Some(Cors { origins: Origins::Listed(listed), credentials, strict })),
        }
    }

    /// Whether pages of the origin may read the answers.
    pub fn allows(&self, origin: &[u8]) -> bool {
        match &self.origins {
            Origins::Any => true,
            Origins::Listed(listed) => listed.iter().any(|pattern| pattern.matches(origin)),
        }
    }

    /// Whether a request from there is refused altogether; `host` is the request's own Host, whose pages are never foreign.
    pub fn refuses(&self, origin: &[u8], host: &[u8]) -> bool {
        self.strict && !self.allows(origin) && !is_own(origin, host)
    }

    /// What is added to every answer, whatever its status.
    pub fn headers<'a>(&self, origin: Option<&'a [u8]>) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let allowed = origin.filter(|origin| self.allows(origin));
        let origin = allowed.map(|origin| match self.origins {
            Origins::Any => &b"*"[..],
            Origins::Listed(_) => origin,
        });
        let headers = [
            // Of every answer, for a cache must not give one page's answer to another.
            Some(("Vary", &b"Origin"[..])),
            origin.map(|origin| ("Access-Control-Allow-Origin", origin)),
            origin.filter(|_| self.credentials).map(|_| ("Access-Control-Allow-Credentials", &b"true"[..])),
            origin.map(|_| ("Access-Control-Expose-Headers", &b"Retry-After"[..])),
        ];
        headers.into_iter().flatten()
    }

    /// What a preflight is told beyond that, by its Origin and its Access-Control-Request-Headers: every header that the
    /// page asks for is granted, for a page that may send events may send them with any header.
    pub fn preflight<'a>(
        &self,
        origin: &[u8],
        methods: &'static str,
        names: Option<&'a [u8]>,
    ) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let headers = [
            Some(("Access-Control-Allow-Methods", methods.as_bytes())),
            names.filter(|names| is_list_of_names(names)).map(|names| ("Access-Control-Allow-Headers", names)),
            Some(("Access-Control-Max-Age", MAX_AGE.as_bytes())),
        ];
        headers.into_iter().flatten().filter({
            let allowed = self.allows(origin);
            move |_| allowed
        })
    }
}

impl Pattern {
    fn parse(word: &[u8]) -> Result<Pattern, String> {
        let invalid = |why: &str| format!("invalid origin \"{}\": {why}", String::from_utf8_lossy(word));
        if word == b"null" {
            return Ok(Pattern::Exact("null".into()));
        }
        let form = || invalid("expected scheme://host[:port], without a path");
        let text = std::str::from_utf8(word).map_err(|_| form())?.to_ascii_lowercase();
        if !text.is_ascii() {
            return Err(invalid("a browser sends the host's ASCII form, xn--..."));
        }
        let (scheme, authority) = text.split_once("://").ok_or_else(form)?;
        let first = scheme.bytes().next();
        if !first.is_some_and(|byte| byte.is_ascii_lowercase())
            || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        {
            return Err(form());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let port = match port.map(|port| port.parse::<u16>().ok().filter(|_| port.bytes().all(|b| b.is_ascii_digit())))
        {
            None => String::new(),
            Some(Some(port)) if Some(port) == default_port(scheme) => String::new(),
            Some(Some(port)) if port > 0 => format!(":{port}"),
            Some(_) => return Err(invalid("a port is a number from 1 to 65535")),
        };
        let scheme = format!("{scheme}://");
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            let address: Ipv6Addr = address.parse().map_err(|_| invalid("not an IPv6 address"))?;
            return Ok(Pattern::Exact(format!("{scheme}[{address}]{port}")));
        }
        let labels = host.strip_prefix("*.").unwrap_or(host);
        if labels.contains('*') {
            return Err(invalid("a \"*\" stands for whole labels at the beginning of the host: https://*.example.com"));
        }
        if !are_labels(labels) {
            return Err(form());
        }
        Ok(match labels.len() == host.len() {
            true => Pattern::Exact(format!("{scheme}{host}{port}")),
            false => Pattern::Below { scheme, domain: format!(".{labels}{port}") },
        })
    }

    fn matches(&self, origin: &[u8]) -> bool {
        match self {
            Pattern::Exact(exact) => origin.eq_ignore_ascii_case(exact.as_bytes()),
            Pattern::Below { scheme, domain } => {
                let labels = without_prefix(origin, scheme).and_then(|rest| without_suffix(rest, domain));
                labels.and_then(|labels| std::str::from_utf8(labels).ok()).is_some_and(are_labels)
            }
        }
    }
}

/// A host name's labels, with dots between them; in a chrome-extension:// or the like a name of its own.
fn are_labels(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    text.split('.').all(is_label)
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Whether the origin's host and port are those that the request was sent to. The scheme is left aside: what stands before
/// nginx may have ended the TLS.
fn is_own(origin: &[u8], host: &[u8]) -> bool {
    [("http://", ":80"), ("https://", ":443")].into_iter().any(|(scheme, default)| {
        let host = without_suffix(host, default).unwrap_or(host);
        without_prefix(origin, scheme).is_some_and(|own| !own.is_empty() && own.eq_ignore_ascii_case(host))
    })
}

fn without_prefix<'a>(text: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix.as_bytes()).then_some(rest)
}

fn without_suffix<'a>(text: &'a [u8], suffix: &str) -> Option<&'a [u8]> {
    let (rest, end) = text.split_at_checked(text.len().checked_sub(suffix.len())?)?;
    end.eq_ignore_ascii_case(suffix.as_bytes()).then_some(rest)
}

/// Tokens (RFC 9110, section 5.6.2), with commas between them.
fn is_list_of_names(list: &[u8]) -> bool {
    let is_token = |name: &[u8]| {
        let name = name.trim_ascii();
        !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
    };
    list.len() <= LONGEST_NAMES && list.split(|byte| *byte == b',').all(is_token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Cors>, String> {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        Cors::parse(&words)
    }

    #[track_caller]
    fn cors(line: &str) -> Cors {
        parse(line).unwrap().expect("not off")
    }

    fn text(headers: impl Iterator<Item = Header<'static>>) -> Vec<String> {
        headers.map(|(name, value)| format!("{name}: {}", std::str::from_utf8(value).unwrap())).collect()
    }

    #[test]
    fn an_origin_is_compared_as_a_browser_writes_it() {
        for (listed, sent, allowed) in [
            ("https://a.example", "https://a.example", true),
            ("https://a.example", "HTTPS://A.Example", true),
            ("HTTPS://A.Example:443", "https://a.example", true),
            ("http://a.example:80", "http://a.example", true),
            ("http://a.example:443", "http://a.example:443", true),
            ("https://a.example:8443", "https://a.example:8443", true),
            ("http://[0:0::1]:8080", "http://[::1]:8080", true),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080", true),
            ("chrome-extension://abcdef", "chrome-extension://abcdef", true),
            ("null", "null", true),
            ("https://a.example", "null", false),
            ("https://a.example", "", false),
            ("https://a.example", "http://a.example", false),
            ("https://a.example", "https://a.example:8443", false),
            ("https://a.example", "https://a.example.evil.example", false),
            ("https://a.example", "https://a.example/", false),
            ("https://a.example", "https://b.a.example", false),
            ("https://a.example", "https://a.example https://a.example", false),
        ] {
            assert_eq!(cors(listed).allows(sent.as_bytes()), allowed, "{sent} by {listed}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label_or_more() {
        let cors = cors("https://*.shop.example:8443");
        for (sent, allowed) in [
            ("https://a.shop.example:8443", true),
            ("https://A.b-1.SHOP.example:8443", true),
            ("https://shop.example:8443", false),
            ("https://.shop.example:8443", false),
            ("https://a..shop.example:8443", false),
            ("https://a.shop.example", false),
            ("http://a.shop.example:8443", false),
            ("https://evilshop.example:8443", false),
            ("https://evil.example/.shop.example:8443", false),
            ("https://evil.example:1@a.shop.example:8443", false),
            ("https://", false),
        ] {
            assert_eq!(cors.allows(sent.as_bytes()), allowed, "{sent}");
        }
        assert!(!cors.allows(b"https://\xff.shop.example:8443"));
    }

    #[test]
    fn what_is_no_origin_is_refused_with_the_reason() {
        for (line, why) in [
            ("shop.example", "expected scheme://host[:port]"),
            ("https://shop.example/", "without a path"),
            ("https://shop.example/a", "without a path"),
            ("https://", "expected scheme://host[:port]"),
            ("://a", "expected scheme://host[:port]"),
            ("1http://a", "expected scheme://host[:port]"),
            ("https://user@a.example", "expected scheme://host[:port]"),
            ("https://$host", "expected scheme://host[:port]"),
            ("https://a..example", "expected scheme://host[:port]"),
            ("https://b\u{fc}cher.example", "xn--"),
            ("https://a.example:", "a port is a number"),
            ("https://a.example:0", "a port is a number"),
            ("https://a.example:+1", "a port is a number"),
            ("https://a.example:65536", "a port is a number"),
            ("https://[::g]", "not an IPv6 address"),
            ("https://a.*.example", "whole labels at the beginning"),
            ("https://*a.example", "whole labels at the beginning"),
            ("https://*", "whole labels at the beginning"),
            ("https://*.", "expected scheme://host[:port]"),
            ("https://a.example https://A.EXAMPLE:443", "is given twice"),
            ("https://a.example strict strict", "is given twice"),
            ("* https://a.example", "no place for other origins"),
            ("* credentials", "browsers refuse it"),
            ("credentials *", "browsers refuse it"),
            ("* strict", "none is foreign"),
            ("credentials strict", "no origin"),
            ("off https://a.example", "expected scheme://host[:port]"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        assert_eq!(parse("off"), Ok(None));
    }

    #[test]
    fn every_answer_varies_and_an_allowed_one_names_its_origin() {
        let shop: Option<&[u8]> = Some(b"https://shop.example");
        let exposed = "Access-Control-Expose-Headers: Retry-After";
        let cors = cors("https://shop.example");
        assert_eq!(
            text(cors.headers(shop)),
            ["Vary: Origin", "Access-Control-Allow-Origin: https://shop.example", exposed]
        );
        assert_eq!(text(cors.headers(Some(b"https://evil.example"))), ["Vary: Origin"]);
        assert_eq!(text(cors.headers(None)), ["Vary: Origin"]);

        let headers = text(super::tests::cors("https://shop.example credentials").headers(shop));
        assert_eq!(headers[2], "Access-Control-Allow-Credentials: true");
        let any = super::tests::cors("*");
        assert_eq!(text(any.headers(Some(b"null"))), ["Vary: Origin", "Access-Control-Allow-Origin: *", exposed]);
        assert_eq!(text(any.headers(None)), ["Vary: Origin"]);
    }

    #[test]
    fn a_preflight_is_granted_the_headers_that_it_asks_for() {
        let cors = cors("https://shop.example");
        let told = |names: Option<&'static [u8]>| text(cors.preflight(b"https://shop.example", "POST, PUT", names));
        let (methods, age) = ("Access-Control-Allow-Methods: POST, PUT", "Access-Control-Max-Age: 86400");
        for names in [&b"content-type"[..], b"content-type,x-api-key , X_y"] {
            let granted = format!("Access-Control-Allow-Headers: {}", std::str::from_utf8(names).unwrap());
            assert_eq!(told(Some(names)), [methods, &granted, age]);
        }
        let long: &'static [u8] = &[b'a'; LONGEST_NAMES + 1];
        for names in [None, Some(&b""[..]), Some(b"a b"), Some(b"a,,b"), Some(b"a;b"), Some(b"\xe9"), Some(long)] {
            assert_eq!(told(names), [methods, age]);
        }
        assert_eq!(text(cors.preflight(b"https://evil.example", "POST", None)), [""; 0]);
    }

    #[test]
    fn strict_refuses_foreign_pages_but_not_the_hosts_own() {
        let strict = cors("https://shop.example strict");
        for (origin, host, refused) in [
            ("https://shop.example", "intake.example", false),
            ("https://evil.example", "intake.example", true),
            ("null", "intake.example", true),
            ("null", "null", true),
            ("", "", true),
            ("https://", "", true),
            ("https://intake.example", "intake.example", false),
            ("https://Intake.example", "intake.example:443", false),
            ("http://intake.example", "intake.example:80", false),
            ("http://intake.example:8080", "intake.example:8080", false),
            ("http://intake.example:8081", "intake.example:8080", true),
            ("http://intake.example", "intake.example:443", true),
            ("https://intake.example.evil.example", "intake.example", true),
        ] {
            assert_eq!(strict.refuses(origin.as_bytes(), host.as_bytes()), refused, "{origin} at {host}");
        }
        assert!(!cors("https://shop.example").refuses(b"https://evil.example", b"intake.example"));
    }
}
