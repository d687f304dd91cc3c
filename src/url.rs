//! The URL of a Redis becomes an address, a database and credentials.
//!
//! Parsed by the `redis` crate; what it lets pass in silence (unknown parameters, a negative database, a fragment) is an
//! error here. An error never repeats the URL, which may hold a password; nor a part of one that has a password, which may
//! be a part of that where a character in it should have been escaped.

use std::borrow::Cow;

use redis::{ConnectionAddr, IntoConnectionInfo};
use thiserror::Error;

/// Where a Redis is and how to sign in.
#[derive(Debug, PartialEq, Eq)]
pub struct Server {
    /// As nginx writes addresses: `host:port`, `[v6]:port`, `unix:path`.
    pub endpoint: String,
    pub database: u32,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// What is wrong with a URL.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    #[error("is not text in UTF-8")]
    NotText,
    #[error("must begin with \"redis://\" or \"redis+unix://\"")]
    Scheme,
    #[error("\"{0}\" is not supported yet: TLS to Redis comes in a later version")]
    Tls(String),
    #[error("names several servers, which is not supported yet: give one")]
    SeveralServers,
    #[error("has no host")]
    NoHost,
    #[error("has no path of a socket")]
    NoPath,
    #[error("has an unknown parameter{0}")]
    Parameter(Part),
    #[error("has the parameter{0} twice")]
    DuplicateParameter(Part),
    #[error("has a fragment{0}")]
    Fragment(Part),
    #[error("has an invalid database number{0}")]
    Database(Part),
    #[error("asks for protocol{0}: only \"resp2\" is spoken")]
    Protocol(Part),
    #[error("is invalid: {0}")]
    Invalid(String),
}

/// A part of a URL, in quotes with a blank before them; nothing where a password may be in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Part(String);

impl Part {
    fn of(url: &str, part: &str) -> Part {
        let secret = url.contains('@') || url.contains("pass=");
        Part(if secret { String::new() } else { format!(" \"{part}\"") })
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Parses `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]` or `redis+unix:///PATH[?db=DB&user=USER&pass=PASSWORD]`; `unix://`,
/// `valkey://` and `valkey+unix://` are other names of the same. Parts of the URL are percent-decoded.
pub fn parse(text: &[u8]) -> Result<Server, UrlError> {
    let text = std::str::from_utf8(text).map_err(|_| UrlError::NotText)?;
    let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
    let unix = match scheme {
        "redis" | "valkey" => false,
        "redis+unix" | "valkey+unix" | "unix" => true,
        "rediss" | "valkeys" => return Err(UrlError::Tls(scheme.to_owned())),
        _ => return Err(UrlError::Scheme),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if !unix && host.contains(',') {
        return Err(UrlError::SeveralServers);
    }
    if !unix && (host.is_empty() || host.starts_with(':')) {
        return Err(UrlError::NoHost);
    }
    let url = redis::parse_redis_url(text).ok_or_else(|| UrlError::Invalid("not a URL".into()))?;
    if unix && url.path().trim_start_matches('/').is_empty() {
        return Err(UrlError::NoPath);
    }
    if let Some(fragment) = url.fragment() {
        return Err(UrlError::Fragment(Part::of(text, &format!("#{fragment}"))));
    }
    check_parameters(text, url.query_pairs(), unix)?;
    if !unix {
        let database = url.path().trim_start_matches('/');
        if !database.is_empty() && !is_number(database) {
            return Err(UrlError::Database(Part::of(text, database)));
        }
    }
    let info = url.into_connection_info().map_err(|error| UrlError::Invalid(error.category().to_owned()))?;
    let endpoint = match info.addr() {
        ConnectionAddr::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
        ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
        ConnectionAddr::Unix(path) => format!("unix:{}", path.display()),
        _ => return Err(UrlError::Scheme),
    };
    let settings = info.redis_settings();
    let database = settings.db();
    let server = Server {
        endpoint,
        database: u32::try_from(database).map_err(|_| UrlError::Database(Part::of(text, &database.to_string())))?,
        username: settings.username().filter(|name| !name.is_empty()).map(str::to_owned),
        password: settings.password().filter(|password| !password.is_empty()).map(str::to_owned),
    };
    Ok(server)
}

fn check_parameters<'u>(
    text: &str,
    pairs: impl Iterator<Item = (Cow<'u, str>, Cow<'u, str>)>,
    unix: bool,
) -> Result<(), UrlError> {
    let mut seen: Vec<String> = Vec::new();
    for (name, value) in pairs {
        match (&*name, unix) {
            ("protocol", _) if value == "resp2" || value == "2" => {}
            ("protocol", _) => return Err(UrlError::Protocol(Part::of(text, &value))),
            ("db", true) if !is_number(&value) => return Err(UrlError::Database(Part::of(text, &value))),
            ("db" | "user" | "pass", true) => {}
            _ => return Err(UrlError::Parameter(Part::of(text, &name))),
        }
        if seen.iter().any(|known| *known == name) {
            return Err(UrlError::DuplicateParameter(Part::of(text, &name)));
        }
        seen.push(name.into_owned());
    }
    Ok(())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(endpoint: &str, database: u32, username: Option<&str>, password: Option<&str>) -> Server {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Server { endpoint: endpoint.into(), database, username: owned(username), password: owned(password) }
    }

    fn part(text: &str) -> Part {
        Part(format!(" \"{text}\""))
    }

    #[test]
    fn urls_that_are_understood() {
        for (url, expected) in [
            ("redis://127.0.0.1", server("127.0.0.1:6379", 0, None, None)),
            ("redis://127.0.0.1:6379/0", server("127.0.0.1:6379", 0, None, None)),
            ("redis://u:p%40ss@h:6380/3", server("h:6380", 3, Some("u"), Some("p@ss"))),
            ("redis://:pw@[::1]:7000/2", server("[::1]:7000", 2, None, Some("pw"))),
            ("valkey://cache.local/7?protocol=resp2", server("cache.local:6379", 7, None, None)),
            ("redis+unix:///run/r.sock", server("unix:/run/r.sock", 0, None, None)),
            ("redis+unix:///r.sock?db=2&user=u&pass=p", server("unix:/r.sock", 2, Some("u"), Some("p"))),
            ("unix:///r.sock?db=1", server("unix:/r.sock", 1, None, None)),
        ] {
            assert_eq!(parse(url.as_bytes()), Ok(expected), "{url}");
        }
    }

    #[test]
    fn urls_that_are_refused_each_with_its_reason() {
        for (url, expected) in [
            (&b"127.0.0.1:6379"[..], UrlError::Scheme),
            (b"http://h", UrlError::Scheme),
            (b"rediss://h", UrlError::Tls("rediss".into())),
            (b"redis://h1:1,h2:2", UrlError::SeveralServers),
            (b"redis:///1", UrlError::NoHost),
            (b"redis://:6379", UrlError::NoHost),
            (b"redis://u:p@/1", UrlError::NoHost),
            (b"redis://h/-1", UrlError::Database(part("-1"))),
            (b"redis://h/x", UrlError::Database(part("x"))),
            (b"redis://h/1/2", UrlError::Database(part("1/2"))),
            (b"redis://h/99999999999", UrlError::Database(part("99999999999"))),
            (b"redis://h/1?db=3", UrlError::Parameter(part("db"))),
            (b"redis://h?timeout=5", UrlError::Parameter(part("timeout"))),
            (b"redis+unix:///r.sock?db=-1", UrlError::Database(part("-1"))),
            (b"redis+unix:///r.sock?db=1&db=2", UrlError::DuplicateParameter(part("db"))),
            (b"redis+unix://", UrlError::NoPath),
            (b"redis+unix:///?db=1", UrlError::NoPath),
            (b"redis://h?protocol=resp3", UrlError::Protocol(part("resp3"))),
            (b"redis://h/1#insecure", UrlError::Fragment(part("#insecure"))),
            (b"redis://\xff", UrlError::NotText),
        ] {
            assert_eq!(parse(url), Err(expected), "{}", String::from_utf8_lossy(url));
        }
        assert!(matches!(parse(b"redis://h:99999"), Err(UrlError::Invalid(_))));
    }

    #[test]
    fn an_error_never_repeats_a_password() {
        for url in [
            "rediss://u:secret@h",
            "redis://u:secret@h:port",
            "redis://:secret@h/x",
            "http://u:secret@h",
            "redis://u:1#secret@h",
            "redis://u:1/secret@h",
            "redis://u:1?secret@h",
            "redis://u:1?db=secret@h",
            "redis+unix:///s?pass=1&secret=x",
        ] {
            let error = parse(url.as_bytes()).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
