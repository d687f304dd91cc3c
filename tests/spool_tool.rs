//! meteorit-spool, the program: what it tells of a spool, and what it sends to a real Redis. The files are made here by the letter of
//! docs/spool-format.md, not by the code under test.

mod common;

use common::*;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Runs it: its status, and what it wrote to standard output and standard error.
fn run(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = spool_tool().args(args).output().expect("meteorit-spool runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code().expect("a status"), text(stdout), text(stderr))
}

/// A spool in a folder of its own.
struct Spool {
    dir: TempDir,
}

impl Spool {
    fn new() -> Spool {
        Spool { dir: TempDir::new().unwrap() }
    }

    fn path(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    /// Writes a segment with these records; gives its path.
    fn segment(&self, lane: &str, number: u32, records: &[Vec<u8>]) -> PathBuf {
        let lane = self.dir.path().join(lane);
        fs::create_dir_all(&lane).unwrap();
        let path = lane.join(format!("{number:08}-{}.seg", MARKER.map(|byte| format!("{byte:02x}")).concat()));
        fs::write(&path, [header(), records.concat()].concat()).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Replays it to a Redis.
    fn replay(&self, redis: &Redis, more: &[&str]) -> (i32, String, String) {
        run(&[&["replay", self.path(), "--to", &redis.url()], more].concat())
    }
}

const MARKER: [u8; 8] = [0xa1, 0xb2, 0xc3, 0xd4, 0x05, 0x06, 0x07, 0x08];
const LANE: &str = "1764086400123-4711";
/// 2026-11-25T15:45:48.123Z
const TIME: u64 = 1_795_621_548_123;

fn header() -> Vec<u8> {
    let mut header = [&b"mtrspool"[..], &1u32.to_le_bytes(), &MARKER].concat();
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header
}

/// A record of commands, each with the number of its replies.
fn record_of(commands: &[(Vec<u8>, u16)]) -> Vec<u8> {
    let mut payload = [&TIME.to_le_bytes()[..], &0u16.to_le_bytes(), &(commands.len() as u32).to_le_bytes()].concat();
    for (bytes, replies) in commands {
        payload.extend((bytes.len() as u32).to_le_bytes());
        payload.extend(replies.to_le_bytes());
    }
    payload.extend(commands.iter().flat_map(|(bytes, _)| bytes));
    let checked = [&(payload.len() as u32).to_le_bytes()[..], &payload].concat();
    let checksum = crc32fast::hash(&checked);
    [&MARKER[..], &checked[..4], &checksum.to_le_bytes(), &payload].concat()
}

/// A record of commands of one reply.
fn record(commands: &[&[&str]]) -> Vec<u8> {
    record_of(&commands.iter().map(|args| (resp(args), 1)).collect::<Vec<_>>())
}

fn resp(args: &[&str]) -> Vec<u8> {
    let bulk = |arg: &&str| format!("${}\r\n{arg}\r\n", arg.len());
    format!("*{}\r\n{}", args.len(), args.iter().map(bulk).collect::<String>()).into_bytes()
}

fn push(key: &str, value: &str) -> Vec<u8> {
    record(&[&["RPUSH", key, value]])
}

fn numbers(redis: &Redis, key: &str) -> Vec<String> {
    redis.list(key).into_iter().map(|value| String::from_utf8(value).unwrap()).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn it_tells_what_it_can_do_and_what_was_wrong_with_the_command_line() {
    let (status, out, err) = run(&["--help"]);
    assert!(status == 0 && out.contains("meteorit-spool replay") && err.is_empty(), "{status} {out} {err}");
    let (status, out, _) = run(&["-V"]);
    assert_eq!((status, out.trim_end()), (0, concat!("meteorit-spool ", env!("CARGO_PKG_VERSION"))));
    let redis = "redis://:secret@127.0.0.1:1/x";
    for (args, expected) in [
        (&[][..], "what is to be done"),
        (&["destroy", "x"], "unknown command \"destroy\""),
        (&["list"], "the folder is missing"),
        (&["list", "/nonexistent"], "cannot read \"/nonexistent\": No such file"),
        (&["cat", "/nonexistent"], "cannot look at \"/nonexistent\": No such file"),
        (&["list", "a", "b"], "unexpected argument \"b\""),
        (&["list", "a", "--wrong"], "--wrong"),
        (&["verify", "a", "--json"], "--json is of no use with \"verify\""),
        (&["replay", "a"], "--to is missing"),
        (&["replay", "a", "--to", redis], "the URL behind --to has an invalid database number"),
        (&["replay", "a", "--to", "redis://:secret@127.0.0.1:1"], "cannot connect to 127.0.0.1:1"),
    ] {
        let (status, out, err) = run(args);
        assert!(status == 2 && out.is_empty() && err.contains(expected), "{args:?}: {status} {out} {err}");
        assert!(!err.contains("secret"), "{err}");
    }
}

#[test]
fn list_tells_each_lane_with_its_owner_and_what_is_left_to_replay() {
    let spool = Spool::new();
    spool.segment(LANE, 1, &[push("k", "1"), record(&[&["SET", "a", "b"], &["DEL", "a"]])]);
    let damaged = spool.segment("1764086400124-7", 1, &[push("k", "2"), push("k", "3")]);
    flip(&damaged, 60);
    let held = File::open(spool.dir.path().join(LANE)).unwrap();
    held.try_lock().unwrap();

    let (status, out, err) = run(&["list", "--json", spool.path()]);
    assert!(status == 0 && err.is_empty(), "{status} {err}");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |index: usize| {
        ["lane", "owned", "segments", "records", "commands", "damaged"].map(|name| lines[index][name].to_string())
    };
    assert_eq!(of(0), [r#""1764086400123-4711""#, "true", "1", "2", "3", "0"]);
    assert_eq!(of(1), [r#""1764086400124-7""#, "false", "1", "1", "1", "1"]);
    assert_eq!(lines[0]["oldest_unix_ms"], TIME);

    fs::create_dir(spool.dir.path().join("lost+found")).unwrap();
    let (_, out, err) = run(&["list", spool.path()]);
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..5], [LANE, "yes", "1", "2", "3"], "{out}");
    assert!(err.contains("lost+found\" is not the spool's"), "{err}");
}

#[test]
fn cat_shows_commands_as_redis_cli_takes_them() {
    let spool = Spool::new();
    let transaction = [resp(&["MULTI"]), resp(&["SET", "k", "v"]), resp(&["EXEC"])].concat();
    let one = resp(&["RPUSH", "a b", "{\"x\":\"\\\r\n\t\u{7}\u{8}é\"}"]);
    let path = spool.segment(LANE, 3, &[record_of(&[(one, 1), (transaction, 3)])]);
    let expected = format!(
        "{}:24 2026-11-25T15:45:48.123Z\n    {}\n    \"MULTI\"\n    \"SET\" \"k\" \"v\"\n    \"EXEC\"\n",
        path.display(),
        r#""RPUSH" "a b" "{\"x\":\"\\\r\n\t\a\b\xc3\xa9\"}""#
    );
    let lane = spool.dir.path().join(LANE);
    for place in [spool.path(), lane.to_str().unwrap(), path.to_str().unwrap()] {
        assert_eq!(run(&["cat", place]), (0, expected.clone(), String::new()));
    }
    let (_, out, _) = run(&["cat", "--json", spool.path()]);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&line["offset"], &line["unix_ms"]), (&24.into(), &TIME.into()));
    assert_eq!(line["entries"][0]["commands"][0][2], "{\"x\":\"\\\r\n\t\u{7}\u{8}é\"}");
    assert_eq!(line["entries"][1]["replies"], 3);
}

#[test]
fn what_redis_cli_is_given_it_stores_as_the_event_was() {
    let redis = Redis::start();
    let spool = Spool::new();
    let bytes: Vec<u8> = (0..=255).collect();
    let command = [b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$256\r\n", &bytes[..], b"\r\n"].concat();
    spool.segment(LANE, 1, &[record_of(&[(command, 1)])]);
    let (_, out, _) = run(&["cat", spool.path()]);
    let line = out.lines().nth(1).unwrap().trim_start();
    let mut cli = Command::new("redis-cli");
    cli.args(["-p", &redis.port().to_string()]).stdin(std::process::Stdio::piped());
    let mut cli = cli.stdout(std::process::Stdio::null()).spawn().unwrap();
    std::io::Write::write_all(&mut cli.stdin.take().unwrap(), format!("{line}\n").as_bytes()).unwrap();
    assert!(cli.wait().unwrap().success());
    assert_eq!(redis.get("k"), Some(bytes));
}

#[test]
fn verify_says_where_something_is_damaged() {
    let spool = Spool::new();
    let records = [push("k", "1"), push("k", "2"), push("k", "3")];
    let path = spool.segment(LANE, 1, &records);
    let (status, out, err) = run(&["verify", spool.path()]);
    assert_eq!((status, out.as_str(), err.as_str()), (0, "1 files, 3 intact records, 0 damaged places\n", ""));

    let (from, to) = (24 + records[0].len(), 24 + records[0].len() + records[1].len());
    for at in from..to {
        flip(&path, at);
        let (status, out, _) = run(&["verify", spool.path()]);
        let expected = format!("{}: bytes {from} to {to}: damaged\n1 files, 2 intact records, 1 ", path.display());
        assert!(status == 1 && out.starts_with(&expected), "byte {at}: {out}");
        flip(&path, at);
    }
    fs::write(spool.dir.path().join("text"), "no segment, but of some length").unwrap();
    let text = spool.dir.path().join("text");
    assert_eq!(run(&["verify", text.to_str().unwrap()]).0, 1);
}

#[test]
fn a_torn_end_is_damage_unless_its_owner_may_still_be_writing_it() {
    let spool = Spool::new();
    let path = spool.segment(LANE, 1, &[push("k", "1"), push("k", "2")]);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let (status, out, _) = run(&["verify", spool.path()]);
    assert!(status == 1 && out.contains("the beginning of a record, torn off"), "{out}");
    let lane = File::open(spool.dir.path().join(LANE)).unwrap();
    lane.try_lock().unwrap();
    assert_eq!(run(&["verify", spool.path()]).0, 0);
    let (_, out, err) = run(&["cat", spool.path()]);
    assert!(out.contains("\"1\"") && err.is_empty(), "{err}");
}

#[test]
fn replay_sends_all_in_order_and_leaves_nothing_behind() {
    let redis = Redis::start();
    let spool = Spool::new();
    let all: Vec<String> = (0..3000).map(|number| number.to_string()).collect();
    // The lanes by their age, the segments by their number, not as text.
    for (index, (lane, number)) in
        [("0999999999999-9", 99_999_999), ("0999999999999-9", 100_000_000), (LANE, 2)].into_iter().enumerate()
    {
        let records: Vec<_> = all[index * 1000..(index + 1) * 1000].iter().map(|number| push("k", number)).collect();
        spool.segment(lane, number, &records);
    }
    let (status, out, err) = spool.replay(&redis, &[]);
    assert_eq!((status, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "3 segments and 3000 records done with: 3000 commands acknowledged, 0 rejected; 0 damaged places\n"
    );
    assert_eq!(numbers(&redis, "k"), all);
    assert!(spool.names().is_empty());
    assert_eq!(spool.replay(&redis, &[]).0, 0, "an empty spool");
}

#[test]
fn a_transaction_is_sent_as_one() {
    let redis = Redis::start();
    let spool = Spool::new();
    let transaction = |commands: &[&[&str]]| {
        let inner: Vec<u8> = commands.iter().flat_map(|args| resp(args)).collect();
        let bytes = [resp(&["MULTI"]), inner, resp(&["EXEC"])].concat();
        record_of(&[(bytes, commands.len() as u16 + 2)])
    };
    redis.cmd(&["SET", "text", "x"]);
    spool.segment(
        LANE,
        1,
        &[
            transaction(&[&["RPUSH", "k", "1"], &["RPUSH", "k", "2"]]),
            transaction(&[&["NOSUCH"], &["RPUSH", "k", "3"]]),
            transaction(&[&["RPUSH", "k", "4"], &["RPUSH", "text", "5"]]),
            push("k", "6"),
        ],
    );
    let (status, out, err) = spool.replay(&redis, &[]);
    assert!(status == 0 && out.contains("2 commands acknowledged, 2 rejected"), "{out} {err}");
    assert_eq!(numbers(&redis, "k"), ["1", "2", "4", "6"]);
    let (_, out, _) = run(&["cat", spool.dir.path().join("rejected").to_str().unwrap()]);
    let reasons: Vec<&str> = out.lines().filter_map(|line| line.split_once("Z ")).map(|(_, reason)| reason).collect();
    assert!(reasons[0].starts_with("ERR unknown command 'NOSUCH'") && reasons[1].starts_with("WRONGTYPE"), "{out}");
}

#[test]
fn a_lane_that_a_process_owns_is_left_alone() {
    let redis = Redis::start();
    let spool = Spool::new();
    let path = spool.segment(LANE, 1, &[push("k", "1")]);
    spool.segment("1764086400124-7", 1, &[push("k", "2")]);
    let lane = File::open(path.parent().unwrap()).unwrap();
    lane.try_lock().unwrap();
    let (status, out, _) = spool.replay(&redis, &[]);
    assert!(status == 0 && out.contains(&format!("{LANE}, which a running process owns")), "{out}");
    assert_eq!(numbers(&redis, "k"), ["2"]);
    assert_eq!(spool.names(), [LANE]);
}

#[test]
fn it_stops_where_redis_says_not_now_and_goes_on_there() {
    let redis = Redis::start();
    let spool = Spool::new();
    spool.segment(LANE, 1, &[push("k", "0")]);
    // The second command of the second record is the first that is refused for now.
    spool.segment(LANE, 2, &[push("k", "1"), record(&[&["RPUSH", "k", "2"], &["RPUSH", "k", "3"]]), push("k", "4")]);
    let nobody = &["ACL", "SETUSER", "default", "-rpush"];
    let script = |commands: &[&[&str]]| record(commands);
    spool.segment(LANE, 3, &[script(&[&["PING"], nobody, &["RPUSH", "k", "5"]]), push("k", "6")]);

    let (status, out, err) = spool.replay(&redis, &[]);
    assert!(status == 1 && err.contains("NOPERM") && err.contains(LANE), "{out} {err}");
    assert_eq!(numbers(&redis, "k"), ["0", "1", "2", "3", "4"]);
    let (_, out, _) = run(&["list", "--json", spool.path()]);
    let line: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&line["segments"], &line["records"], &line["commands"]), (&1.into(), &2.into(), &2.into()));
    let (_, out, _) = run(&["cat", spool.path()]);
    assert_eq!(out.matches("# replayed").count(), 2, "{out}");

    redis.cmd(&["ACL", "SETUSER", "default", "+rpush"]);
    let (status, _, err) = spool.replay(&redis, &[]);
    assert!(status == 0, "{err}");
    assert_eq!(numbers(&redis, "k"), ["0", "1", "2", "3", "4", "5", "6"]);
    assert!(spool.names().is_empty());
}

#[test]
fn a_lost_connection_costs_nothing_that_was_not_answered() {
    let redis = Redis::start();
    let spool = Spool::new();
    let kill = record(&[&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"]]);
    spool.segment(LANE, 1, &[push("k", "1"), kill, push("k", "2")]);
    let (status, _, err) = spool.replay(&redis, &[]);
    assert!(status == 1 && err.contains("no reply"), "{err}");
    assert_eq!(spool.replay(&redis, &[]).0, 0);
    assert_eq!(numbers(&redis, "k"), ["1", "2"]);
}

#[test]
fn what_redis_refuses_for_good_is_kept_with_the_reason() {
    let redis = Redis::start();
    redis.cmd(&["SET", "text", "x"]);
    let spool = Spool::new();
    spool.segment(LANE, 1, &[push("k", "1"), record(&[&["RPUSH", "text", "2"], &["RPUSH", "k", "2"]]), push("k", "3")]);
    let (status, out, _) = spool.replay(&redis, &[]);
    assert!(status == 0 && out.contains("3 commands acknowledged, 1 rejected"), "{out}");
    assert_eq!(numbers(&redis, "k"), ["1", "2", "3"]);
    assert_eq!(spool.names(), ["rejected"]);
    let rejected = spool.dir.path().join("rejected");
    let (status, out, _) = run(&["cat", rejected.to_str().unwrap()]);
    let lines: Vec<&str> = out.lines().collect();
    assert!(status == 0 && lines.len() == 2, "{out}");
    assert!(lines[0].contains("2026-11-25T15:45:48.123Z WRONGTYPE Operation against a key"), "{out}");
    assert_eq!(lines[1].trim(), r#""RPUSH" "text" "2""#);
    assert!(run(&["list", spool.path()]).1.contains("rejected"));

    spool.segment(LANE, 1, &[push("text", "again")]);
    assert_eq!(spool.replay(&redis, &[]).0, 0);
    assert_eq!(run(&["verify", rejected.to_str().unwrap()]).1, "1 files, 2 intact records, 0 damaged places\n");
}

#[test]
fn a_damaged_segment_is_kept_once_what_is_intact_in_it_was_sent() {
    let redis = Redis::start();
    let spool = Spool::new();
    let records = [push("k", "1"), push("k", "2"), push("k", "3")];
    let path = spool.segment(LANE, 1, &records);
    flip(&path, 24 + records[0].len() + 20);
    spool.segment(LANE, 2, &[push("k", "4")]);
    let before = fs::read(&path).unwrap();
    let (status, out, err) = spool.replay(&redis, &[]);
    assert!(status == 0 && out.contains("1 damaged places") && err.contains("bytes"), "{out} {err}");
    assert_eq!(numbers(&redis, "k"), ["1", "3", "4"]);
    let aside = format!("{}.damaged", path.display());
    assert_eq!(fs::read(&aside).unwrap(), before);
    assert!(!path.exists());
    assert_eq!(spool.replay(&redis, &[]).0, 0);
    assert_eq!(redis.len("k"), 3, "never read again");
    assert_eq!(run(&["cat", &aside]).1.lines().count(), 4);
}

#[test]
fn with_keep_a_copy_is_sent() {
    let (redis, other) = (Redis::start(), Redis::start());
    let spool = Spool::new();
    let path = spool.segment(LANE, 1, &[push("k", "1"), push("k", "2")]);
    let before = fs::read(&path).unwrap();
    assert_eq!(spool.replay(&other, &["--keep"]).0, 0);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(spool.replay(&redis, &[]).0, 0);
    for redis in [redis, other] {
        assert_eq!(numbers(&redis, "k"), ["1", "2"]);
    }
}

#[test]
fn a_redis_with_a_password_on_a_socket_is_reached() {
    let redis = Redis::with(&["--requirepass", "pass word"]);
    let spool = Spool::new();
    spool.segment(LANE, 1, &[push("k", "1")]);
    let url = format!("redis+unix://{}?db=2&pass=pass%20word", redis.socket().display());
    for wrong in [url.replace("pass%20word", "secret"), url.replace("db=2", "db=99")] {
        let (status, out, err) = run(&["replay", spool.path(), "--to", &wrong]);
        assert!(status == 2 && out.is_empty() && err.contains("does not take us: "), "{err}");
        assert!(!err.contains("secret") && !err.contains("pass word") && !err.contains("%20"), "{err}");
    }
    assert_eq!(run(&["replay", spool.path(), "--to", &url]).0, 0);
    assert_eq!(redis.try_ask::<usize>(&["DBSIZE"]).unwrap(), 0, "database 0");
    assert!(redis.info("db2").starts_with("keys=1"));
    assert!(spool.names().is_empty());
}

#[test]
fn a_reader_that_has_seen_enough_ends_it_quietly() {
    let spool = Spool::new();
    let records: Vec<_> = (0..20_000).map(|number| push("k", &number.to_string())).collect();
    spool.segment(LANE, 1, &records);
    let mut child = spool_tool()
        .args(["cat", spool.path()])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}
