//! The literal arguments of a command come in, which of its arguments are keys goes out.
//!
//! One table for all commands; one that it does not know has its key as the first argument, as nearly all do. Asked when the
//! configuration is read, for commands that [`check`](super::table::check) let pass.

use super::table::{listed, number_of_keys};

/// Which arguments of a command are keys, ascending, the name being argument 0: an entry for each argument, `None` for one with
/// variables.
///
/// Names and options count in any case. The keys are those that Redis 7.0 names by its `COMMAND GETKEYS`, and the channel of SPUBLISH,
/// which has a slot in a Redis Cluster as a key has; other channels are none. A STORE is found where it is literal.
pub fn key_positions(args: &[Option<&[u8]>]) -> Vec<usize> {
    let Some(Some(name)) = args.first() else {
        return Vec::new();
    };
    if let Some(number) = number_of_keys(name) {
        return counted(name, args, number);
    }
    let keys = TABLE.iter().find(|(_, names)| listed(name, names)).map_or(FIRST, |(keys, _)| *keys);
    match keys {
        Keys::None => Vec::new(),
        Keys::Every { first, last, step } => (first..args.len()).take_while(|&at| at <= last).step_by(step).collect(),
        Keys::FirstAndStore { options } => {
            let stores = (options..args.len()).filter(|&at| is(args, at, "STORE STOREDIST")).map(|at| at + 1);
            (1..=1).chain(stores).filter(|&at| at < args.len()).collect()
        }
        Keys::Streams => streams(args),
    }
}

/// The number stands at `number`, the keys behind it; before it another key or a script.
fn counted(name: &[u8], args: &[Option<&[u8]>], number: usize) -> Vec<usize> {
    let text = args.get(number).copied().flatten().and_then(|number| std::str::from_utf8(number).ok());
    let keys: usize = text.and_then(|number| number.parse().ok()).unwrap_or(0);
    let destination = listed(name, "ZUNIONSTORE ZINTERSTORE ZDIFFSTORE") && args.len() > 1;
    destination.then_some(1).into_iter().chain((number + 1..args.len()).take(keys)).collect()
}

/// The first half of what follows STREAMS; the second are identifiers.
fn streams(args: &[Option<&[u8]>]) -> Vec<usize> {
    let mut at = 1;
    while at < args.len() {
        if is(args, at, "STREAMS") {
            let first = at + 1;
            return (first..first + (args.len() - first) / 2).collect();
        }
        at += if is(args, at, "GROUP") {
            3
        } else if is(args, at, "COUNT BLOCK") {
            2
        } else {
            1
        };
    }
    Vec::new()
}

fn is(args: &[Option<&[u8]>], at: usize, names: &str) -> bool {
    args.get(at).copied().flatten().is_some_and(|arg| listed(arg, names))
}

/// Where keys are.
#[derive(Debug, Clone, Copy)]
enum Keys {
    None,
    /// From the first to the last, as far as there are arguments.
    Every {
        first: usize,
        last: usize,
        step: usize,
    },
    /// The first argument, and from `options` on each behind STORE or STOREDIST.
    FirstAndStore {
        options: usize,
    },
    Streams,
}

const FIRST: Keys = Keys::Every { first: 1, last: 1, step: 1 };
const SECOND: Keys = Keys::Every { first: 2, last: 2, step: 1 };
const THIRD: Keys = Keys::Every { first: 3, last: 3, step: 1 };
const FIRST_TWO: Keys = Keys::Every { first: 1, last: 2, step: 1 };
const ALL: Keys = Keys::Every { first: 1, last: usize::MAX, step: 1 };
const EVERY_OTHER: Keys = Keys::Every { first: 1, last: usize::MAX, step: 2 };
const FROM_SECOND: Keys = Keys::Every { first: 2, last: usize::MAX, step: 1 };

/// Without the commands that say how many keys they have.
const TABLE: &[(Keys, &str)] = &[
    (
        Keys::None,
        "ACL BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND CONFIG DBSIZE ECHO FLUSHALL FLUSHDB FUNCTION INFO KEYS LASTSAVE LATENCY \
         LOLWUT MODULE PFSELFTEST PING PUBLISH PUBSUB RANDOMKEY ROLE SAVE SCAN SCRIPT SENTINEL SLOWLOG SWAPDB TIME",
    ),
    // Those of their subcommands that have no key have no second argument.
    (SECOND, "MEMORY OBJECT PFDEBUG XGROUP XINFO"),
    // Behind host and port; empty when the keys follow KEYS, which is not looked at.
    (THIRD, "MIGRATE"),
    (FIRST_TWO, "COPY GEOSEARCHSTORE LCS LMOVE RENAME RENAMENX RPOPLPUSH SMOVE ZRANGESTORE"),
    (ALL, "DEL EXISTS MGET PFCOUNT PFMERGE SDIFF SDIFFSTORE SINTER SINTERSTORE SUNION SUNIONSTORE TOUCH UNLINK"),
    (EVERY_OTHER, "MSET MSETNX"),
    (FROM_SECOND, "BITOP"),
    (Keys::FirstAndStore { options: 2 }, "SORT"),
    (Keys::FirstAndStore { options: 6 }, "GEORADIUS"),
    (Keys::FirstAndStore { options: 5 }, "GEORADIUSBYMEMBER"),
    (Keys::Streams, "XREAD XREADGROUP"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Command lines of each kind and their keys; `COMMAND GETKEYS` of redis-server 7.0.15 gives the same.
    const LINES: &[(&str, &str)] = &[
        ("SET k v EX 10", "k"),
        ("xadd k MAXLEN ~ 10 * id 1 data x", "k"),
        ("HINCRBY k page 1", "k"),
        ("EXPIRE k 10 NX", "k"),
        ("XACK k g 1-0 2-0", "k"),
        ("PING", ""),
        ("PING hello", ""),
        ("ECHO hello", ""),
        ("PUBLISH live hello", ""),
        ("SCRIPT LOAD x", ""),
        ("function list LIBRARYNAME x", ""),
        ("FLUSHDB ASYNC", ""),
        ("SCAN 0 MATCH x", ""),
        ("MSET k1 v k2 v k3 v", "k1 k2 k3"),
        ("MSETNX k1 v", "k1"),
        ("del k1 k2 k3", "k1 k2 k3"),
        ("UNLINK k1", "k1"),
        ("EXISTS k1 k2", "k1 k2"),
        ("TOUCH k1 k2", "k1 k2"),
        ("MGET k1 k2", "k1 k2"),
        ("PFCOUNT k1 k2", "k1 k2"),
        ("PFMERGE k1 k2 k3", "k1 k2 k3"),
        ("SINTER k1 k2", "k1 k2"),
        ("SINTERSTORE k1 k2 k3", "k1 k2 k3"),
        ("SUNIONSTORE k1 k2 k3", "k1 k2 k3"),
        ("SDIFFSTORE k1 k2 k3", "k1 k2 k3"),
        ("RENAME k1 k2", "k1 k2"),
        ("COPY k1 k2 DB 1 REPLACE", "k1 k2"),
        ("LMOVE k1 k2 LEFT RIGHT", "k1 k2"),
        ("RPOPLPUSH k1 k2", "k1 k2"),
        ("SMOVE k1 k2 member", "k1 k2"),
        ("LCS k1 k2 LEN", "k1 k2"),
        ("ZRANGESTORE k1 k2 0 -1", "k1 k2"),
        ("GEOSEARCHSTORE k1 k2 FROMLONLAT 1 2 BYRADIUS 1 m", "k1 k2"),
        ("BITOP AND k1 k2 k3", "k1 k2 k3"),
        ("ZUNIONSTORE k1 2 k2 k3 WEIGHTS 1 2", "k1 k2 k3"),
        ("ZINTERSTORE k1 1 k2", "k1 k2"),
        ("ZDIFFSTORE k1 2 k2 k3", "k1 k2 k3"),
        ("ZUNION 2 k1 k2 WITHSCORES", "k1 k2"),
        ("SINTERCARD 2 k1 k2 LIMIT 1", "k1 k2"),
        ("LMPOP 2 k1 k2 LEFT", "k1 k2"),
        ("ZMPOP 1 k1 MIN", "k1"),
        ("EVAL return 2 k1 k2 a", "k1 k2"),
        ("EVAL return 0 a", ""),
        ("evalsha abc 1 k1 a", "k1"),
        ("FCALL f 1 k1 a b", "k1"),
        ("FCALL_RO f 2 k1 k2", "k1 k2"),
        ("XREAD COUNT 2 STREAMS k1 k2 0-0 0-0", "k1 k2"),
        ("XREADGROUP GROUP STREAMS c COUNT 1 NOACK streams k1 k2 > >", "k1 k2"),
        ("XGROUP CREATE k1 g $", "k1"),
        ("XINFO STREAM k1 FULL", "k1"),
        ("OBJECT FREQ k1", "k1"),
        ("OBJECT HELP", ""),
        ("MEMORY USAGE k1 SAMPLES 1", "k1"),
        ("MEMORY DOCTOR", ""),
        ("SORT k1 BY x LIMIT 0 1", "k1"),
        ("SORT k1 DESC store k2", "k1 k2"),
        ("GEORADIUS k1 1 2 3 m STORE k2", "k1 k2"),
        ("GEORADIUSBYMEMBER k1 STORE 3 m STOREDIST k2", "k1 k2"),
        ("MIGRATE host 6379 k1 0 1000", "k1"),
    ];

    fn positions(line: &str) -> Vec<usize> {
        let args: Vec<_> = line.split_whitespace().map(|word| (word != "$x").then_some(word.as_bytes())).collect();
        key_positions(&args)
    }

    #[test]
    fn the_keys_are_those_that_redis_names() {
        for (line, keys) in LINES {
            let words: Vec<_> = line.split(' ').collect();
            let found: Vec<_> = positions(line).into_iter().filter_map(|at| words.get(at)).copied().collect();
            assert_eq!(found.join(" "), *keys, "{line}");
        }
    }

    #[test]
    fn unknown_commands_and_sharded_channels_have_one_key() {
        for line in ["TOMORROW k a b", "JSON.SET k . {}", "SPUBLISH k hello"] {
            assert_eq!(positions(line), [1], "{line}");
        }
    }

    #[test]
    fn a_key_may_be_a_variable() {
        let cases: &[(&str, &[usize])] = &[
            ("INCR $x", &[1]),
            ("MSET $x $x k v", &[1, 3]),
            ("DEL $x $x", &[1, 2]),
            ("XREAD STREAMS $x $x", &[2]),
            ("EVAL $x 1 $x $x", &[3]),
            ("SORT $x $x", &[1]),
            ("SORT $x STORE $x", &[1, 3]),
            ("ECHO $x", &[]),
            ("$x $x", &[]),
            ("", &[]),
        ];
        for (line, keys) in cases {
            assert_eq!(positions(line), *keys, "{line}");
        }
    }

    proptest! {
        #[test]
        fn positions_are_ascending_arguments(
            name in prop::sample::select(LINES.iter().filter_map(|(line, _)| line.split(' ').next()).collect::<Vec<_>>()),
            rest in prop::collection::vec(
                prop::sample::select(vec!["$x", "1", "3", "18446744073709551615", "STORE", "STREAMS", "GROUP", "k"]),
                0..8,
            ),
        ) {
            let found = positions(&format!("{name} {}", rest.join(" ")));
            prop_assert!(found.is_sorted_by(|one, next| one < next), "{:?}", found);
            prop_assert!(found.iter().all(|at| (1..=rest.len()).contains(at)), "{:?}", found);
        }
    }
}
