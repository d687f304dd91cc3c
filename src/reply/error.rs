//! The text of a Redis error comes in, its verdict goes out.
//!
//! Texts are those of Redis 7.0.15, asked by provoking each. They are compared from their start and never searched:
//! some quote what the client sent ("unknown command 'x', with args beginning with: ...").

use std::fmt::Write;

use super::Verdict;

/// As in "ERR unknown command 'X', with args beginning with: 'a' 'b'".
const WITH_ARGS: &[u8] = b", with args beginning with";
/// How many bytes of a text [`printable`] shows.
const MAX_PRINTED: usize = 200;

/// The verdict on the text of an error, without its `-`.
pub(super) fn verdict(text: &[u8]) -> Verdict {
    let (code, message) = split(cause(text));
    match code {
        b"ERR" if starts_with_any(message, EVENTS_FAULT) => Verdict::Rejected,
        b"ERR" if starts_with_any(message, OPERATORS_TASK) => Verdict::Unavailable,
        // An operator can mend it.
        b"NOPERM" | b"NOAUTH" | b"WRONGPASS" | b"DENIED" | b"OOM" | b"MISCONF" | b"NOREPLICAS" => Verdict::Unavailable,
        // It passes.
        b"LOADING" | b"BUSY" | b"TRYAGAIN" | b"CLUSTERDOWN" | b"MASTERDOWN" | b"READONLY" | b"UNKILLABLE" => {
            Verdict::Unavailable
        }
        // WRONGTYPE, CROSSSLOT, NOSCRIPT, MOVED, ASK and what modules and scripts make up.
        _ => Verdict::Refused,
    }
}

/// Whether a new connection may do better than the one that brought this error.
pub(super) fn reopens(text: &[u8]) -> bool {
    let (code, message) = split(cause(text));
    code == b"READONLY" || (code == b"ERR" && message.starts_with(NO_CLIENT_SLOT))
}

/// A text from Redis, fit for a log line: bytes other than printable ASCII, and the backslash, become `\xNN`; what is
/// beyond 200 bytes is cut, shown by `...`, and so are the arguments of a command that Redis does not know: a log is to hold
/// neither events nor passwords. At most 803 bytes.
pub fn printable(text: &[u8]) -> String {
    let arguments = text.windows(WITH_ARGS.len()).position(|window| window == WITH_ARGS);
    let end = arguments.unwrap_or(text.len()).min(MAX_PRINTED);
    let shown = text.get(..end).unwrap_or(text);
    let mut out = String::with_capacity(shown.len() + 3);
    for &byte in shown {
        match byte {
            b'\\' => out.push_str("\\x5c"),
            b' '..=b'~' => out.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => _ = write!(out, "\\x{byte:02x}"),
        }
    }
    if shown.len() < text.len() {
        out.push_str("...");
    }
    out
}

/// The error inside an error: why EXEC was refused, or what stopped a script before Redis 7 (which passes the script's
/// error on as it is).
fn cause(text: &[u8]) -> &[u8] {
    if let Some(inner) = text.strip_prefix(b"EXECABORT Transaction discarded because of: ") {
        return inner;
    }
    let Some(script) = text.strip_prefix(b"ERR Error running script (call to ") else {
        return text;
    };
    let Some(end) = memchr::memmem::find(script, b"): ") else {
        return text;
    };
    let mut inner = script.get(end + 3..).unwrap_or_default();
    // "@user_script:1: @user_script: 1: -OOM command not allowed ..."
    while let Some(place) = inner.strip_prefix(b"@user_script:") {
        let Some(colon) = memchr::memchr(b':', place) else {
            return text;
        };
        inner = place.get(colon + 1..).unwrap_or_default().trim_ascii_start();
    }
    inner.strip_prefix(b"-").unwrap_or(inner)
}

fn split(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', text).and_then(|space| text.split_at_checked(space)) {
        Some((code, message)) => (code, message.get(1..).unwrap_or_default()),
        None => (text, b""),
    }
}

fn starts_with_any(message: &[u8], starts: &[&[u8]]) -> bool {
    starts.iter().any(|start| message.starts_with(start))
}

/// Followed by "reached", in a cluster by "+ cluster connections reached".
const NO_CLIENT_SLOT: &[u8] = b"max number of clients";

/// What an operator can mend although its code is ERR. The second is a script's NOPERM.
const OPERATORS_TASK: &[&[u8]] = &[NO_CLIENT_SLOT, b"The user executing the script can't"];

/// What an argument's value can bring about. Not here: "hash value is not an integer" and "no such key" blame what the
/// key holds, as WRONGTYPE does; "syntax error", "Unsupported option" and "DB index is out of range" blame the command
/// as configured.
const EVENTS_FAULT: &[&[u8]] = &[
    // INCRBY, HINCRBY, EXPIRE, LSET and whatever takes an integer; of INCR it may be the stored value
    b"value is not an integer",
    b"value is out of range",
    // INCRBYFLOAT, HINCRBYFLOAT, ZADD, GEOADD; HINCRBYFLOAT by inf
    b"value is not a valid float",
    b"value is NaN or Infinity",
    b"weight value is not a float",
    b"min or max is not a float",
    b"min or max not valid string range item",
    // the sum, with the stored value
    b"increment or decrement would overflow",
    b"decrement would overflow",
    b"increment would produce NaN or Infinity",
    b"resulting score is not a number",
    // SET EX, SETEX, EXPIRE: zero, negative or beyond 64 bits of milliseconds
    b"invalid expire time",
    // APPEND, SETRANGE; XADD; LPUSH in 6.2
    b"string exceeds maximum allowed size",
    b"Elements are too large to be stored",
    b"Element too large",
    // SETRANGE, SETBIT, LSET
    b"offset is out of range",
    b"bit offset is not an integer",
    b"bit is not an integer",
    b"The bit argument must be",
    b"index out of range",
    // XADD with an ID of the event's: not above the last one, or no ID at all
    b"The ID specified in XADD",
    b"Invalid stream ID specified",
    b"The MAXLEN argument must be",
    b"The LIMIT argument must be",
    b"invalid longitude,latitude pair",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classifies_what_redis_says() {
        use Verdict::*;
        let rows: &[(&str, Verdict)] = &[
            ("ERR value is not an integer or out of range", Rejected),
            ("ERR value is out of range, must be positive", Rejected),
            ("ERR value is not a valid float", Rejected),
            ("ERR value is NaN or Infinity", Rejected),
            ("ERR weight value is not a float", Rejected),
            ("ERR min or max is not a float", Rejected),
            ("ERR min or max not valid string range item", Rejected),
            ("ERR increment or decrement would overflow", Rejected),
            ("ERR decrement would overflow", Rejected),
            ("ERR increment would produce NaN or Infinity", Rejected),
            ("ERR resulting score is not a number (NaN)", Rejected),
            ("ERR invalid expire time in 'expire' command", Rejected),
            ("ERR invalid expire time in 'set' command", Rejected),
            ("ERR string exceeds maximum allowed size (proto-max-bulk-len)", Rejected),
            ("ERR Elements are too large to be stored", Rejected),
            ("ERR Element too large", Rejected),
            ("ERR offset is out of range", Rejected),
            ("ERR bit offset is not an integer or out of range", Rejected),
            ("ERR bit is not an integer or out of range", Rejected),
            ("ERR The bit argument must be 1 or 0.", Rejected),
            ("ERR index out of range", Rejected),
            ("ERR The ID specified in XADD is equal or smaller than the target stream top item", Rejected),
            ("ERR The ID specified in XADD must be greater than 0-0", Rejected),
            ("ERR Invalid stream ID specified as stream command argument", Rejected),
            ("ERR The MAXLEN argument must be >= 0.", Rejected),
            ("ERR The LIMIT argument must be >= 0.", Rejected),
            ("ERR invalid longitude,latitude pair 500.000000,500.000000", Rejected),
            ("ERR value is not an integer or out of range script: c243b9f46db1, on @user_script:1.", Rejected),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Refused),
            ("WRONGTYPE Key is not a valid HyperLogLog string value.", Refused),
            ("ERR hash value is not an integer", Refused),
            ("ERR hash value is not a float", Refused),
            ("ERR no such key", Refused),
            ("ERR syntax error", Refused),
            ("ERR Unsupported option QQ", Refused),
            ("ERR DB index is out of range", Refused),
            ("ERR unknown command 'NOSUCH', with args beginning with: 'value is not an integer' ", Refused),
            ("ERR unknown subcommand 'NOSUCH'. Try XGROUP HELP.", Refused),
            ("ERR wrong number of arguments for 'xadd' command", Refused),
            ("ERR Protocol error: invalid bulk length", Refused),
            ("ERR Function not found", Refused),
            ("CROSSSLOT Keys in request don't hash to the same slot", Refused),
            ("NOSCRIPT No matching script. Please use EVAL.", Refused),
            ("NOPROTO unsupported protocol version", Refused),
            ("NOGROUP No such consumer group 'g' for key name 'x'", Refused),
            ("BUSYGROUP Consumer Group name already exists", Refused),
            ("BUSYKEY Target key name already exists.", Refused),
            ("MOVED 3999 127.0.0.1:6381", Refused),
            ("ASK 3999 127.0.0.1:6381", Refused),
            ("MY own", Refused),
            ("", Refused),
            ("ERR", Refused),
            ("oom in lower case", Refused),
            ("NOPERM this user has no permissions to run the 'set' command", Unavailable),
            (
                "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments",
                Unavailable,
            ),
            ("NOAUTH Authentication required.", Unavailable),
            ("WRONGPASS invalid username-password pair or user is disabled.", Unavailable),
            ("DENIED Redis is running in protected mode because ...", Unavailable),
            ("OOM command not allowed when used memory > 'maxmemory'.", Unavailable),
            ("MISCONF Redis is configured to save RDB snapshots, but ...", Unavailable),
            ("NOREPLICAS Not enough good replicas to write.", Unavailable),
            ("ERR max number of clients reached", Unavailable),
            ("ERR max number of clients + cluster connections reached", Unavailable),
            ("LOADING Redis is loading the dataset in memory", Unavailable),
            ("BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", Unavailable),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Unavailable),
            ("CLUSTERDOWN The cluster is down", Unavailable),
            ("MASTERDOWN Link with MASTER is down and ...", Unavailable),
            ("READONLY You can't write against a read only replica.", Unavailable),
            ("UNKILLABLE Sorry the script already executed write commands ...", Unavailable),
        ];
        for (text, expected) in rows {
            assert_eq!(verdict(text.as_bytes()), *expected, "{text}");
        }
    }

    #[test]
    fn looks_for_the_error_inside_an_error() {
        let rows: &[(&str, Verdict, bool)] = &[
            ("EXECABORT Transaction discarded because of previous errors.", Verdict::Refused, false),
            (
                "EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.",
                Verdict::Unavailable,
                false,
            ),
            (
                "EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.",
                Verdict::Unavailable,
                true,
            ),
            (
                "ERR Error running script (call to f_2f1b): @user_script:1: @user_script: 1: -OOM command not allowed ...",
                Verdict::Unavailable,
                false,
            ),
            (
                "ERR Error running script (call to f_2f1b): @user_script:1: WRONGTYPE Operation against a key ...",
                Verdict::Refused,
                false,
            ),
            (
                "ERR Error running script (call to f_2f1b): @user_script:12: ERR value is not an integer or out of range",
                Verdict::Rejected,
                false,
            ),
            ("ERR Error running script (call to f_2f1b): @user_script", Verdict::Refused, false),
            ("ERR Error running script (call to f_2f1b): @user_script:", Verdict::Refused, false),
            ("ERR Error running script (call to ", Verdict::Refused, false),
        ];
        for (text, expected, reopening) in rows {
            assert_eq!(verdict(text.as_bytes()), *expected, "{text}");
            assert_eq!(reopens(text.as_bytes()), *reopening, "{text}");
        }
    }

    #[test]
    fn a_demoted_master_and_a_full_server_ask_for_a_new_connection() {
        assert!(reopens(b"READONLY You can't write against a read only replica."));
        assert!(reopens(b"ERR max number of clients reached"));
        assert!(!reopens(b"LOADING Redis is loading the dataset in memory"));
        assert!(!reopens(b"ERR value is not an integer or out of range"));
    }

    #[test]
    fn printable_escapes_and_cuts() {
        assert_eq!(printable(b"ERR can't \"x\""), "ERR can't \"x\"");
        assert_eq!(printable(b"a\x1b[31m\xff\\\n"), "a\\x1b[31m\\xff\\x5c\\x0a");
        assert_eq!(
            printable(b"ERR unknown command 'X', with args beginning with: 's3cret' "),
            "ERR unknown command 'X'..."
        );
        assert_eq!(printable(&[b'a'; 200]), "a".repeat(200));
        assert_eq!(printable(&[b'a'; 201]), "a".repeat(200) + "...");
        assert_eq!(printable(&[0; 1000]).len(), 803);
    }
}
