//! A command as configured comes in, what is wrong with it goes out: the check that `nginx -t` makes.
//!
//! Knows what cannot work on a connection that pipelines the commands of many requests and expects one reply for each,
//! and what an event must not decide. A command it does not know is allowed: modules and later versions bring their own.

use thiserror::Error;

/// Why a command cannot be configured; the caller adds ` in FILE:LINE`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CommandError {
    #[error("command name is empty")]
    Empty,
    #[error("command name must be literal")]
    Name,
    #[error("\"{command}\" cannot be used {reason}")]
    Denied { command: String, reason: &'static str },
    #[error("subcommand of \"{command}\" must be literal")]
    Subcommand { command: String },
    #[error("options of \"{command}\" must be literal")]
    Options { command: String },
    #[error("number of keys of \"{command}\" must be literal")]
    Keys { command: String },
    #[error("invalid number of keys \"{keys}\" in \"{command}\"")]
    InvalidKeys { command: String, keys: String },
    #[error("number of keys \"{keys}\" in \"{command}\" exceeds the {left} arguments after it")]
    TooManyKeys { command: String, keys: usize, left: usize },
    #[error("not enough arguments for \"{command}\", it takes at least {fewest}")]
    TooFew { command: String, fewest: usize },
}

/// Checks one command: an entry for each argument, the name first, `None` for one with variables.
///
/// Names, subcommands and options count in any case, as in Redis. The fewest arguments a command takes are those of
/// Redis 7.0, by its `COMMAND`.
pub fn check(args: &[Option<&[u8]>]) -> Result<(), CommandError> {
    let (name, rest) = match args {
        [] | [Some(b""), ..] => return Err(CommandError::Empty),
        [None, ..] => return Err(CommandError::Name),
        [Some(name), rest @ ..] => (*name, rest),
    };
    if let Some((reason, _)) = DENIED.iter().find(|(_, names)| listed(name, names)) {
        return Err(CommandError::Denied { command: shown(name), reason });
    }
    if let Some((fewest, _)) = FEWEST.iter().find(|(_, names)| listed(name, names))
        && rest.len() < *fewest
    {
        return Err(CommandError::TooFew { command: shown(name), fewest: *fewest });
    }
    if listed(name, CONTAINERS) {
        check_subcommand(name, rest)?;
    }
    if listed(name, "XREAD XREADGROUP") {
        check_reading(name, rest)?;
    }
    if let Some((at, least, _)) = KEYS_COUNTED.iter().find(|(_, _, names)| listed(name, names)) {
        check_keys(name, rest.get(*at..).unwrap_or_default(), *least)?;
    }
    Ok(())
}

fn check_subcommand(name: &[u8], rest: &[Option<&[u8]>]) -> Result<(), CommandError> {
    let subcommand = match rest.first() {
        // `COMMAND` alone is one.
        None => return Ok(()),
        Some(None) => {
            return Err(CommandError::Subcommand { command: shown(name) });
        }
        Some(Some(subcommand)) => subcommand,
    };
    let denied =
        DENIED_SUBCOMMANDS.iter().find(|(_, container, names)| listed(name, container) && listed(subcommand, names));
    match denied {
        Some((reason, ..)) => {
            let command = format!("{} {}", shown(name), shown(subcommand));
            Err(CommandError::Denied { command, reason })
        }
        None => Ok(()),
    }
}

/// Of the options before STREAMS none may be BLOCK, or become it. An option not known here has values of unknown number:
/// each may be the next option.
fn check_reading(name: &[u8], rest: &[Option<&[u8]>]) -> Result<(), CommandError> {
    let mut rest = rest.iter();
    while let Some(option) = rest.next() {
        let Some(option) = option else {
            return Err(CommandError::Options { command: shown(name) });
        };
        if listed(option, "BLOCK") {
            let command = format!("{} {}", shown(name), shown(option));
            return Err(CommandError::Denied { command, reason: BLOCKS });
        }
        if listed(option, "STREAMS") {
            break;
        }
        if listed(option, "GROUP") {
            rest.next();
            rest.next();
        }
        if listed(option, "COUNT") {
            rest.next();
        }
    }
    Ok(())
}

/// `rest` starts at the number of keys.
fn check_keys(name: &[u8], rest: &[Option<&[u8]>], least: usize) -> Result<(), CommandError> {
    let command = shown(name);
    let (number, left) = match rest {
        [Some(number), left @ ..] => (*number, left.len()),
        [None, ..] => return Err(CommandError::Keys { command }),
        // Too few arguments, which is found before.
        [] => return Ok(()),
    };
    let keys = std::str::from_utf8(number)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok());
    match keys {
        Some(keys) if keys < least => Err(CommandError::InvalidKeys { command, keys: shown(number) }),
        Some(keys) if keys > left => Err(CommandError::TooManyKeys { command, keys, left }),
        Some(_) => Ok(()),
        None => Err(CommandError::InvalidKeys { command, keys: shown(number) }),
    }
}

/// Which argument says how many keys a command has, the name being argument 0; the keys are behind it.
pub(super) fn number_of_keys(name: &[u8]) -> Option<usize> {
    KEYS_COUNTED.iter().find(|(_, _, names)| listed(name, names)).map(|(at, ..)| at + 1)
}

pub(super) fn listed(name: &[u8], names: &str) -> bool {
    names.split_ascii_whitespace().any(|listed| name.eq_ignore_ascii_case(listed.as_bytes()))
}

fn shown(text: &[u8]) -> String {
    text.escape_ascii().to_string()
}

const TRANSACTS: &str = "on a shared connection, commands of other requests would fall into the transaction";
const PUSHES: &str = "on a shared connection, its messages would be taken for replies";
const CHANGES: &str = "on a shared connection, it would change the connection for every request";
const SILENCES: &str = "on a shared connection, replies of other requests would be missing";
const BLOCKS: &str = "on a shared connection, every request behind it would wait";
const CLOSES: &str = "on a shared connection, it closes connections with the requests on them";
const STOPS: &str = "for events, it can take the server away from every client";

const DENIED: &[(&str, &str)] = &[
    (TRANSACTS, "MULTI EXEC DISCARD WATCH UNWATCH"),
    (PUSHES, "SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE MONITOR SYNC PSYNC"),
    (CHANGES, "SELECT AUTH HELLO RESET ASKING READONLY READWRITE"),
    // REPLCONF ACK has no reply.
    (SILENCES, "REPLCONF"),
    (BLOCKS, "BLPOP BRPOP BRPOPLPUSH BLMOVE BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF"),
    // Redis takes the last two for an HTTP request and hangs up.
    (CLOSES, "QUIT POST HOST:"),
    (STOPS, "SHUTDOWN DEBUG FAILOVER REPLICAOF SLAVEOF"),
];

const DENIED_SUBCOMMANDS: &[(&str, &str, &str)] = &[
    (SILENCES, "CLIENT", "REPLY"),
    (PUSHES, "CLIENT", "TRACKING"),
    (CHANGES, "CLIENT", "CACHING NO-EVICT NO-TOUCH"),
    (CLOSES, "CLIENT", "KILL"),
    (STOPS, "CLIENT", "PAUSE"),
    // The next EVAL would start a debugger that talks on the connection.
    (CHANGES, "SCRIPT", "DEBUG"),
];

/// Commands that are only a prefix: their first argument decides what they do.
const CONTAINERS: &str = "ACL CLIENT CLUSTER COMMAND CONFIG FUNCTION LATENCY MEMORY MODULE OBJECT PUBSUB SCRIPT SENTINEL \
    SLOWLOG XGROUP XINFO";

/// Where, counted from behind the name, stands a number of keys, and the least it can be: were it the event's, so would
/// be what is a key.
const KEYS_COUNTED: &[(usize, usize, &str)] = &[
    (1, 0, "EVAL EVALSHA EVAL_RO EVALSHA_RO FCALL FCALL_RO"),
    (1, 1, "ZUNIONSTORE ZINTERSTORE ZDIFFSTORE"),
    (0, 1, "SINTERCARD ZUNION ZINTER ZDIFF ZINTERCARD LMPOP ZMPOP"),
];

/// The fewest arguments behind the name.
const FEWEST: &[(usize, &str)] = &[
    (
        1,
        "ACL CLIENT CLUSTER CONFIG FUNCTION LATENCY MEMORY MODULE OBJECT PUBSUB SCRIPT SLOWLOG XGROUP XINFO \
         BITCOUNT BITFIELD DECR DEL DUMP ECHO EXISTS GET GETDEL GETEX HGETALL INCR LLEN LPOP MGET PERSIST PFADD PFCOUNT \
         PFMERGE RPOP SCARD SMEMBERS SORT SPOP STRLEN TOUCH TTL TYPE UNLINK XLEN ZCARD ZPOPMAX ZPOPMIN",
    ),
    (
        2,
        "APPEND COPY DECRBY EVAL EVALSHA EVAL_RO EVALSHA_RO EXPIRE EXPIREAT FCALL FCALL_RO GETBIT GETSET HDEL HEXISTS \
         HGET HMGET INCRBY INCRBYFLOAT LPUSH LPUSHX MOVE MSET MSETNX PEXPIRE PEXPIREAT PUBLISH RENAME RENAMENX RPOPLPUSH \
         RPUSH RPUSHX SADD SDIFFSTORE SET SETNX SINTERCARD SINTERSTORE SISMEMBER SPUBLISH SREM SUNIONSTORE SWAPDB XDEL \
         XSETID ZDIFF ZINTER ZINTERCARD ZREM ZSCORE ZUNION",
    ),
    (
        3,
        "BITOP GETRANGE HINCRBY HINCRBYFLOAT HMSET HSET HSETNX LMPOP LRANGE LREM LSET LTRIM PSETEX RESTORE SETBIT SETEX \
         SETRANGE SMOVE XACK XRANGE XREAD XTRIM ZADD ZDIFFSTORE ZINCRBY ZINTERSTORE ZMPOP ZRANGE ZREMRANGEBYLEX \
         ZREMRANGEBYRANK ZREMRANGEBYSCORE ZUNIONSTORE",
    ),
    (4, "GEOADD LINSERT LMOVE XADD ZRANGESTORE"),
    (5, "MIGRATE XAUTOCLAIM XCLAIM"),
    (6, "XREADGROUP"),
];

#[cfg(test)]
mod tests;
