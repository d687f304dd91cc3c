//! The check: each row of its tables, and what it has to let pass.

use super::*;

/// Words of a command line; `$x` is a variable.
fn line(text: &str) -> Result<(), String> {
    let args: Vec<_> = text.split(' ').map(|word| (!word.starts_with('$')).then_some(word.as_bytes())).collect();
    check(&args).map_err(|error| error.to_string())
}

fn refuses(rows: &[(&str, &str)]) {
    for (text, error) in rows {
        assert_eq!(line(text), Err((*error).to_owned()), "{text}");
    }
}

fn allows(rows: &[&str]) {
    for text in rows {
        assert_eq!(line(text), Ok(()), "{text}");
    }
}

#[test]
fn a_name_is_literal() {
    assert_eq!(check(&[]), Err(CommandError::Empty));
    refuses(&[
        ("", "command name is empty"),
        ("$x", "command name must be literal"),
        ("$x a b", "command name must be literal"),
    ]);
}

#[test]
fn what_events_usually_need_is_allowed() {
    allows(&[
        "XADD events MAXLEN ~ 1000000 * id $id data $event",
        "XADD $key $id f $v",
        "HINCRBY visits:$day $page 1",
        "PFADD $key $user",
        "EXPIRE $key 2678400 NX",
        "PUBLISH live $event",
        "LPUSH queue $event",
        "SET $k $v EX 10",
        "ZADD $k $score $member",
        "JSON.SET $k . $event",
        "TS.ADD $k * 1",
        "TOMORROW $a $b",
        "PING",
        "FLUSHALL",
        "COMMAND",
    ]);
}

#[test]
fn what_cannot_work_on_a_shared_connection_is_refused() {
    let rows: &[(&str, &[&str])] = &[
        (
            "on a shared connection, commands of other requests would fall into the transaction",
            &["MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH"],
        ),
        (
            "on a shared connection, its messages would be taken for replies",
            &[
                "SUBSCRIBE",
                "PSUBSCRIBE",
                "SSUBSCRIBE",
                "UNSUBSCRIBE",
                "PUNSUBSCRIBE",
                "SUNSUBSCRIBE",
                "MONITOR",
                "SYNC",
                "PSYNC",
                "CLIENT TRACKING",
            ],
        ),
        (
            "on a shared connection, it would change the connection for every request",
            &[
                "SELECT",
                "AUTH",
                "HELLO",
                "RESET",
                "ASKING",
                "READONLY",
                "READWRITE",
                "CLIENT CACHING",
                "CLIENT NO-EVICT",
                "CLIENT NO-TOUCH",
                "SCRIPT DEBUG",
            ],
        ),
        ("on a shared connection, replies of other requests would be missing", &["REPLCONF", "CLIENT REPLY"]),
        (
            "on a shared connection, every request behind it would wait",
            &["BLPOP", "BRPOP", "BRPOPLPUSH", "BLMOVE", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP", "WAIT", "WAITAOF"],
        ),
        (
            "on a shared connection, it closes connections with the requests on them",
            &["QUIT", "POST", "HOST:", "CLIENT KILL"],
        ),
        (
            "for events, it can take the server away from every client",
            &["SHUTDOWN", "DEBUG", "FAILOVER", "REPLICAOF", "SLAVEOF", "CLIENT PAUSE"],
        ),
    ];
    let mut denied = 0;
    for (reason, commands) in rows {
        for command in *commands {
            denied += 1;
            for command in [(*command).to_owned(), command.to_lowercase()] {
                let error = format!("\"{command}\" cannot be used {reason}");
                assert_eq!(line(&command), Err(error.clone()), "{command}");
                assert_eq!(line(&format!("{command} $a b c d e f")), Err(error), "{command}");
            }
        }
    }
    let names = DENIED.iter().map(|(_, names)| names);
    let subcommands = DENIED_SUBCOMMANDS.iter().map(|(_, _, names)| names);
    let all = names.chain(subcommands).flat_map(|names| names.split_ascii_whitespace());
    assert_eq!(denied, all.count());
    allows(&["CLIENT SETNAME x", "CLIENT ID", "SCRIPT EXISTS $sha", "KILL x", "REPLY"]);
}

#[test]
fn a_subcommand_is_literal() {
    for container in CONTAINERS.split_ascii_whitespace() {
        let error = format!("subcommand of \"{container}\" must be literal");
        assert_eq!(line(&format!("{container} $x y")), Err(error));
        assert_eq!(line(&format!("{container} HELP $x")), Ok(()));
    }
    refuses(&[("xgroup $x k g", "subcommand of \"xgroup\" must be literal")]);
    allows(&["XGROUP CREATE $stream $group $id MKSTREAM", "OBJECT FREQ $key"]);
}

#[test]
fn the_number_of_keys_is_literal_and_possible() {
    for name in ["EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"] {
        assert_eq!(line(&format!("{name} s 0")), Ok(()));
    }
    for name in
        ["EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO", "ZUNIONSTORE", "ZINTERSTORE", "ZDIFFSTORE"]
    {
        let literal = format!("number of keys of \"{name}\" must be literal");
        assert_eq!(line(&format!("{name} $s $n k v")), Err(literal));
        let exceeds = format!("number of keys \"3\" in \"{name}\" exceeds the 2 arguments after it");
        assert_eq!(line(&format!("{name} $s 3 k $v")), Err(exceeds));
        assert_eq!(line(&format!("{name} $s 2 k $v")), Ok(()));
    }
    for name in ["SINTERCARD", "ZUNION", "ZINTER", "ZDIFF", "ZINTERCARD", "LMPOP", "ZMPOP"] {
        let literal = format!("number of keys of \"{name}\" must be literal");
        assert_eq!(line(&format!("{name} $n k v")), Err(literal));
        let exceeds = format!("number of keys \"3\" in \"{name}\" exceeds the 2 arguments after it");
        assert_eq!(line(&format!("{name} 3 k v")), Err(exceeds));
        assert_eq!(line(&format!("{name} 2 k $v")), Ok(()));
    }
    refuses(&[
        ("EVAL s x k", "invalid number of keys \"x\" in \"EVAL\""),
        ("EVAL s -1 k", "invalid number of keys \"-1\" in \"EVAL\""),
        ("EVAL s +1 k", "invalid number of keys \"+1\" in \"EVAL\""),
        ("EVAL s  k", "invalid number of keys \"\" in \"EVAL\""),
        ("fcall f 99999999999999999999999 k", "invalid number of keys \"99999999999999999999999\" in \"fcall\""),
        ("ZUNIONSTORE d 0 k", "invalid number of keys \"0\" in \"ZUNIONSTORE\""),
        ("ZMPOP 0 k MIN", "invalid number of keys \"0\" in \"ZMPOP\""),
    ]);
}

#[test]
fn streams_are_read_without_blocking() {
    let blocks = "cannot be used on a shared connection, every request behind it would wait";
    refuses(&[
        ("XREAD BLOCK 0 STREAMS s 0", &format!("\"XREAD BLOCK\" {blocks}")),
        ("xread COUNT 1 block $ms STREAMS s 0", &format!("\"xread block\" {blocks}")),
        ("XREAD COUNT $n BLOCK 0 STREAMS s 0", &format!("\"XREAD BLOCK\" {blocks}")),
        ("XREADGROUP GROUP $g $c NOACK BLOCK 0 STREAMS s >", &format!("\"XREADGROUP BLOCK\" {blocks}")),
        ("XREAD TOMORROW BLOCK 0 STREAMS s 0", &format!("\"XREAD BLOCK\" {blocks}")),
        ("XREAD $option 0 STREAMS s 0", "options of \"XREAD\" must be literal"),
        ("XREAD TOMORROW $x STREAMS s 0", "options of \"XREAD\" must be literal"),
        ("XREADGROUP GROUP g c $option 0 STREAMS s >", "options of \"XREADGROUP\" must be literal"),
    ]);
    allows(&[
        "XREAD STREAMS $s 0",
        "XREAD COUNT $n STREAMS block $id",
        "XREAD COUNT BLOCK STREAMS s 0",
        "XREADGROUP GROUP block BLOCK COUNT $n NOACK STREAMS $s >",
    ]);
}

#[test]
fn too_few_arguments_are_found() {
    refuses(&[
        ("XADD s * f", "not enough arguments for \"XADD\", it takes at least 4"),
        ("hset h f", "not enough arguments for \"hset\", it takes at least 3"),
        ("PUBLISH live", "not enough arguments for \"PUBLISH\", it takes at least 2"),
        ("EVAL s", "not enough arguments for \"EVAL\", it takes at least 2"),
        ("XGROUP", "not enough arguments for \"XGROUP\", it takes at least 1"),
    ]);
    for (fewest, names) in FEWEST {
        for name in names.split_ascii_whitespace() {
            let error = format!("not enough arguments for \"{name}\", it takes at least {fewest}");
            assert_eq!(line(&format!("{name}{}", " $x".repeat(fewest - 1))), Err(error));
        }
    }
}

#[test]
fn what_is_not_printable_is_escaped() {
    let args = [Some(&b"EVAL"[..]), Some(b"s"), Some(b"\x1b\xff")];
    let error = check(&args).unwrap_err().to_string();
    assert_eq!(error, "invalid number of keys \"\\x1b\\xff\" in \"EVAL\"");
}
