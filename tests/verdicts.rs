//! What Redis answers decides what the client is told: every row of the table of verdicts, told by a scripted Redis that
//! answers each event with the reply the event itself names.

mod common;

use common::*;
use std::time::Duration;

const ONE: &str = "location / { meteorit_pass queue; meteorit_command RPUSH a $event; }";
const THREE: &str = "location / { meteorit_pass queue; meteorit_command RPUSH a $event; \
                     meteorit_command RPUSH b $event; meteorit_command RPUSH c $event; }";

/// Answers a command by what its event has under the name of its key.
fn echoing() -> FakeRedis {
    FakeRedis::start(|_, command| Action::Reply(wanted(command)))
}

fn wanted(command: &[Vec<u8>]) -> Vec<u8> {
    let event: serde_json::Value = serde_json::from_slice(&command[2]).expect("an event");
    let key = std::str::from_utf8(&command[1]).expect("a key");
    event[key].as_str().expect("a reply in the event").as_bytes().to_vec()
}

fn nginx(fake: &FakeRedis, settings: &str, locations: &str) -> Nginx {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; {settings} }}", fake.url()))
        .server(locations)
        .log_format("$uri $status $meteorit_status $meteorit_redis_time")
        .start()
}

fn event(members: &[(&str, &str)]) -> String {
    serde_json::Value::Object(members.iter().map(|(name, text)| (name.to_string(), (*text).into())).collect())
        .to_string()
}

struct Row {
    reply: &'static str,
    status: u16,
    fate: &'static str,
    detail: &'static str,
}

/// What Redis says of an event's value comes back whole.
const fn rejected(reply: &'static str, detail: &'static str) -> Row {
    Row { reply, status: 422, fate: "rejected", detail }
}

const fn refused(reply: &'static str, detail: &'static str) -> Row {
    Row { reply, status: 502, fate: "refused", detail }
}

const fn unavailable(reply: &'static str, detail: &'static str) -> Row {
    Row { reply, status: 503, fate: "unavailable", detail }
}

const ERRORS: &[Row] = &[
    rejected("-ERR value is not an integer or out of range\r\n", "ERR value is not an integer or out of range"),
    rejected("-ERR value is not a valid float\r\n", "ERR value is not a valid float"),
    rejected("-ERR value is out of range, must be positive\r\n", "ERR value is out of range, must be positive"),
    rejected("-ERR increment or decrement would overflow\r\n", "ERR increment or decrement would overflow"),
    rejected(
        "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n",
        "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
    ),
    rejected("-ERR invalid expire time in 'expire' command\r\n", "ERR invalid expire time in 'expire' command"),
    rejected(
        "-ERR The ID specified in XADD is equal or smaller than the target stream top item\r\n",
        "ERR The ID specified in XADD is equal or smaller than the target stream top item",
    ),
    // A bulk error of RESP3 counts as any other.
    rejected("!36\r\nERR value is not a valid float \"abc\"\r\n", "ERR value is not a valid float \"abc\""),
    // What a text has that no log should show is escaped.
    rejected("-ERR value is not a valid float \u{1b}[31m\r\n", "ERR value is not a valid float \\x1b[31m"),
    refused("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n", "Redis answered WRONGTYPE"),
    refused("-ERR unknown command 'NOSUCH', with args beginning with: 'x'\r\n", "Redis answered ERR"),
    refused("-ERR unknown command 'X', with args beginning with: 'value is not an integer'\r\n", "Redis answered ERR"),
    refused("-ERR wrong number of arguments for 'echo' command\r\n", "Redis answered ERR"),
    refused("-ERR hash value is not an integer\r\n", "Redis answered ERR"),
    refused("-CROSSSLOT Keys in request don't hash to the same slot\r\n", "Redis answered CROSSSLOT"),
    refused("-NOSCRIPT No matching script. Please use EVAL.\r\n", "Redis answered NOSCRIPT"),
    refused("-EXECABORT Transaction discarded because of previous errors.\r\n", "Redis answered EXECABORT"),
    refused("-MOVED 3999 10.0.0.7:6381\r\n", "Redis answered MOVED"),
    refused("-ASK 3999 10.0.0.7:6381\r\n", "Redis answered ASK"),
    refused("-MYOWN words of a script\r\n", "Redis answered MYOWN"),
    refused("-\r\n", "Redis answered "),
    unavailable("-NOPERM this user has no permissions to run the 'echo' command\r\n", "Redis answered NOPERM"),
    unavailable("-NOAUTH Authentication required.\r\n", "Redis answered NOAUTH"),
    unavailable("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "Redis answered WRONGPASS"),
    unavailable("-OOM command not allowed when used memory > 'maxmemory'.\r\n", "Redis answered OOM"),
    unavailable("-MISCONF Redis is configured to save RDB snapshots, but it can't\r\n", "Redis answered MISCONF"),
    unavailable("-NOREPLICAS Not enough good replicas to write.\r\n", "Redis answered NOREPLICAS"),
    unavailable("-LOADING Redis is loading the dataset in memory\r\n", "Redis answered LOADING"),
    unavailable("-BUSY Redis is busy running a script.\r\n", "Redis answered BUSY"),
    unavailable("-TRYAGAIN Multiple keys request during rehashing of slot\r\n", "Redis answered TRYAGAIN"),
    unavailable("-CLUSTERDOWN The cluster is down\r\n", "Redis answered CLUSTERDOWN"),
    unavailable("-MASTERDOWN Link with MASTER is down\r\n", "Redis answered MASTERDOWN"),
    unavailable("-UNKILLABLE Sorry the script already executed write commands\r\n", "Redis answered UNKILLABLE"),
    // By its inner error.
    unavailable(
        "-EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.\r\n",
        "Redis answered EXECABORT",
    ),
];

fn kind(status: u16) -> &'static str {
    match status {
        422 => "urn:meteorit:problem:rejected-by-redis",
        502 => "urn:meteorit:problem:refused-by-redis",
        503 => "urn:meteorit:problem:unavailable",
        504 => "urn:meteorit:problem:outcome-unknown",
        _ => panic!("no problem has status {status}"),
    }
}

#[track_caller]
fn assert_problem(what: &str, response: &Response, status: u16, detail: &str) {
    assert_eq!(response.status, status, "{what:?}: {}", response.text());
    assert_eq!(response.header("Content-Type"), Some("application/problem+json"), "{what:?}");
    let body = response.json();
    assert_eq!((&body["status"], &body["type"]), (&status.into(), &kind(status).into()), "{what:?}");
    assert_eq!(body["detail"], detail, "{what:?}");
    assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()), "{what:?}: {body}");
    let retry = response.header("Retry-After");
    match status {
        503 => assert!(retry.is_some_and(|text| text.parse::<u32>().is_ok_and(|n| n >= 1)), "{what:?}: {retry:?}"),
        _ => assert_eq!(retry, None, "{what:?}"),
    }
}

/// The access log has the status, what became of the event, and how long Redis took.
#[track_caller]
fn assert_logged(nginx: &Nginx, uri: &str, status: u16, fate: &str) {
    let start = format!("{uri} {status} {fate} ");
    let line = nginx.wait_access(&start);
    let time = line.strip_prefix(&start).unwrap_or_else(|| panic!("{line:?} does not begin with {start:?}"));
    let (seconds, fraction) = time.split_once('.').unwrap_or_else(|| panic!("no time in {line:?}"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    assert!(is_number(seconds) && is_number(fraction) && fraction.len() == 3, "no time in {line:?}");
}

#[test]
fn an_error_is_never_success_and_says_whose_fault_it_is() {
    let fake = echoing();
    let nginx = nginx(&fake, "", ONE);
    let mut http = Http::connect(nginx.port());
    for (number, row) in ERRORS.iter().enumerate() {
        let uri = format!("/row/{number}");
        let response = http.post(&uri, event(&[("a", row.reply)]));
        let detail = match row.status {
            503 => format!("{}; nothing was written", row.detail),
            _ => row.detail.to_string(),
        };
        assert_problem(row.reply, &response, row.status, &detail);
        assert_logged(&nginx, &uri, row.status, row.fate);
    }
    assert_eq!(fake.connections(), 1, "none of these errors closes the connection");
}

#[test]
fn whatever_is_no_error_is_success() {
    let fake = echoing();
    let nginx = nginx(&fake, "", ONE);
    let mut http = Http::connect(nginx.port());
    let replies = [
        "+OK\r\n",
        "+\r\n",
        ":0\r\n",
        ":-1\r\n",
        ":9223372036854775807\r\n",
        "$-1\r\n",
        "$0\r\n\r\n",
        "$6\r\n-ERR x\r\n",
        "$6\r\nQUEUED\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*3\r\n:1\r\n$1\r\na\r\n*1\r\n+OK\r\n",
        // An error inside an array is not the reply's own.
        "*2\r\n:1\r\n-ERR value is not an integer\r\n",
        "_\r\n",
        "#t\r\n",
        "#f\r\n",
        ",1.5\r\n",
        ",inf\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "=7\r\ntxt:abc\r\n",
        "%1\r\n+a\r\n:1\r\n",
        "~2\r\n:1\r\n:2\r\n",
        "|1\r\n+ttl\r\n:3600\r\n:1\r\n",
    ];
    for (number, reply) in replies.iter().enumerate() {
        let uri = format!("/row/{number}");
        let response = http.post(&uri, event(&[("a", reply)]));
        assert_eq!((response.status, response.text().as_str()), (204, ""), "{reply:?}");
        assert_eq!(response.header("Retry-After"), None);
        assert_logged(&nginx, &uri, 204, "stored");
    }
    assert_eq!(fake.connections(), 1);
}

#[test]
fn of_several_commands_the_worst_verdict_decides_and_the_client_learns_how_many_were_done() {
    const OK: &str = ":1\r\n";
    const REJECTED: &str = "-ERR value is not a valid float\r\n";
    const REFUSED: &str = "-WRONGTYPE Operation against a key\r\n";
    const UNAVAILABLE: &str = "-OOM command not allowed\r\n";
    const BROKEN: &str = "+QUEUED\r\n";
    let two = "; 2 of 3 commands were carried out";
    let one = "; 1 of 3 commands were carried out";
    let nothing = "; nothing was written";
    let rows: &[([&str; 3], u16, &str, &str, &str)] = &[
        ([REJECTED, OK, OK], 422, "rejected", "ERR value is not a valid float", two),
        ([OK, OK, REJECTED], 422, "rejected", "ERR value is not a valid float", two),
        ([REJECTED, REJECTED, REJECTED], 422, "rejected", "ERR value is not a valid float", ""),
        ([OK, REFUSED, OK], 502, "refused", "Redis answered WRONGTYPE", two),
        ([REJECTED, REFUSED, OK], 502, "refused", "Redis answered WRONGTYPE", one),
        ([REFUSED, REJECTED, REFUSED], 502, "refused", "Redis answered WRONGTYPE", ""),
        // 503 says that nothing was written.
        ([UNAVAILABLE, UNAVAILABLE, UNAVAILABLE], 503, "unavailable", "Redis answered OOM", nothing),
        ([REJECTED, UNAVAILABLE, REFUSED], 503, "unavailable", "Redis answered OOM", nothing),
        // With anything written it is partly written.
        ([UNAVAILABLE, OK, OK], 504, "timeout", "Redis answered OOM", two),
        ([OK, OK, UNAVAILABLE], 504, "timeout", "Redis answered OOM", two),
        ([REFUSED, UNAVAILABLE, OK], 504, "timeout", "Redis answered OOM", one),
        ([OK, REFUSED, UNAVAILABLE], 504, "timeout", "Redis answered OOM", one),
        // Last, for it closes the connection.
        ([OK, REFUSED, BROKEN], 504, "timeout", "Redis gave a reply that does not belong here", one),
    ];
    let fake = echoing();
    let nginx = nginx(&fake, "", THREE);
    let mut http = Http::connect(nginx.port());
    assert_eq!(http.post("/good", event(&[("a", OK), ("b", OK), ("c", OK)])).status, 204);
    for (number, (replies, status, fate, reason, written)) in rows.iter().enumerate() {
        let uri = format!("/row/{number}");
        let response = http.post(&uri, event(&[("a", replies[0]), ("b", replies[1]), ("c", replies[2])]));
        assert_problem(&format!("{replies:?}"), &response, *status, &format!("{reason}{written}"));
        assert_logged(&nginx, &uri, *status, fate);
    }
}

#[test]
fn a_deadline_counts_every_command_of_the_request() {
    let fake = FakeRedis::start(|_, command| match wanted(command) {
        reply if reply == b"never" => Action::Hold,
        reply => Action::Reply(reply),
    });
    let nginx = nginx(&fake, "timeout 200ms;", THREE);
    let response = post(nginx.port(), "/part", event(&[("a", ":1\r\n"), ("b", "never"), ("c", "never")]));
    let detail = "Redis did not answer in time; 1 of 3 commands were carried out";
    assert_problem("one answered, two not", &response, 504, detail);
    assert_logged(&nginx, "/part", 504, "timeout");
    fake.wait_held(1);
    fake.release_all(Action::reply(":1\r\n"));
    let response = post(nginx.port(), "/none", event(&[("a", "never"), ("b", "never"), ("c", "never")]));
    assert_problem("none answered", &response, 504, "Redis did not answer in time");
}

#[test]
fn an_error_that_asks_for_a_new_connection_gets_one() {
    for (reply, code) in [
        ("-READONLY You can't write against a read only replica.\r\n", "READONLY"),
        ("-EXECABORT Transaction discarded because of: READONLY You can't write.\r\n", "EXECABORT"),
        ("-ERR max number of clients reached\r\n", "ERR"),
    ] {
        let fake = echoing();
        let nginx = nginx(&fake, "", ONE);
        let mut http = Http::connect(nginx.port());
        let response = http.post("/bad", event(&[("a", reply)]));
        assert_problem(reply, &response, 503, &format!("Redis answered {code}; nothing was written"));
        assert_logged(&nginx, "/bad", 503, "unavailable");
        eventually(Duration::from_secs(10), || fake.open_connections() == 0);
        let again = wait_for(Duration::from_secs(10), || {
            let response = http.post("/good", event(&[("a", "+OK\r\n")]));
            assert!(matches!(response.status, 204 | 503), "{reply:?}: {}", response.text());
            (response.status == 204).then_some(())
        });
        assert!(again.is_some(), "no new connection after {reply:?}");
        assert_eq!(fake.connections(), 2, "{reply:?}");
    }
}

#[test]
fn a_refusal_is_logged_at_most_once_a_second_with_the_words_of_redis() {
    let fake = echoing();
    let nginx = nginx(&fake, "", ONE);
    let reply = event(&[("a", "-NOPERM this user has no permissions to run the 'echo' command\r\n")]);
    let started = std::time::Instant::now();
    let sent = load(nginx.port(), 4, Until::PerConnection(100), move |_| Request::post("/x", &reply).to_bytes());
    let seconds = started.elapsed().as_secs() as usize;
    assert!(sent.iter().all(|sent| sent.has_status(503)));
    nginx.wait_log("redis \"queue\" answered: NOPERM this user has no permissions to run the 'echo' command");
    let lines = nginx.count_log("answered: NOPERM");
    assert!(lines <= seconds + 2, "{lines} lines in {seconds} s");
}
