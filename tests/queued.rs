//! `meteorit_ack queued`: the client has its answer at once, and what it was promised is held until Redis has taken it: in order, from the
//! first command that was not answered, and within bounds that the client is told of.

mod common;

use common::*;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

const COMMAND: &str = "meteorit_command RPUSH list $event_n;";
/// One that neighbours do not share.
const ALONE: &str = "meteorit_command APPEND text $event_n;";

/// Locations that go to `queue` and are answered at once, with these settings of the Redis and of the locations.
fn nginx(url: &str, redis: &str, locations: &str) -> Nginx {
    let locations = locations.replace("PASS", "meteorit_pass queue; meteorit_ack queued;");
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {url}; {redis} }}"))
        .server(&locations)
        .log_format("$uri $status $meteorit_status")
        .allow_log("redis \"queue\"")
        .exit_timeout(SOON)
        .start()
}

#[track_caller]
fn send(nginx: &Nginx, numbers: impl IntoIterator<Item = usize>) {
    let mut http = Http::connect(nginx.port());
    for n in numbers {
        let response = http.post("/", format!(r#"{{"n":{n}}}"#));
        assert_eq!(response.status, 202, "{n}: {}", response.text());
    }
}

fn list(redis: &Redis) -> Vec<String> {
    redis.list("list").into_iter().map(|n| String::from_utf8(n).unwrap()).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// What the scripted Redis was sent, each command as words.
fn texts(commands: &[Received]) -> Vec<String> {
    commands.iter().map(Received::text).collect()
}

#[test]
fn the_answer_does_not_wait_for_redis() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx(
        &fake.url(),
        "",
        &format!("location / {{ PASS {ALONE} }} location /json {{ PASS {ALONE} meteorit_response json; }}"),
    );
    let response = post(nginx.port(), "/", r#"{"n":1}"#);
    assert_eq!((response.status, response.header("Content-Length"), response.text().as_str()), (202, Some("0"), ""));
    assert_eq!(response.header("Content-Type"), None);
    let response = post(nginx.port(), "/json", r#"{"n":2}"#);
    assert_eq!((response.status, &response.json()["accepted"]), (202, &json!(1)));
    assert_eq!(response.json()["ids"].as_array().unwrap().len(), 1);
    assert_eq!(texts(&fake.wait_commands(2)), ["APPEND text 1", "APPEND text 2"]);
    fake.release_all(Action::reply(":1\r\n"));
    nginx.wait_access("/ 202 queued");
    nginx.stop();
    assert_eq!(fake.commands().len(), 2, "nothing is sent twice");
}

#[test]
fn what_comes_while_redis_is_away_is_written_in_order_once_it_is_back() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url(), "", &format!("location / {{ PASS {COMMAND} }}"));
    send(&nginx, 0..10);
    redis.stop();
    send(&nginx, 10..300);
    redis.restart();
    send(&nginx, 300..310);
    redis.wait_len("list", 300);
    assert_eq!(list(&redis), numbers(10..310), "the restart forgot the first ten");
    send(&nginx, 310..320);
    redis.wait_len("list", 310);
    assert_eq!(list(&redis), numbers(10..320));
}

#[test]
fn what_was_sent_and_not_answered_is_sent_again_in_order() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx(&fake.url(), "", &format!("location / {{ PASS {ALONE} }}"));
    send(&nginx, 0..3);
    fake.wait_held(3);
    fake.set_handler(|_, _| Action::reply(":1\r\n"));
    fake.close_all(true);
    let commands = fake.wait_commands(6);
    assert_eq!(texts(&commands[3..]), ["APPEND text 0", "APPEND text 1", "APPEND text 2"]);
    assert!(commands[3..].iter().all(|command| command.connection == 1));
    send(&nginx, 3..4);
    assert_eq!(texts(&fake.wait_commands(7)[6..]), ["APPEND text 3"]);
    nginx.stop();
    assert_eq!(fake.commands().len(), 7);
}

#[test]
fn an_event_goes_on_at_its_first_command_without_an_answer_and_is_published_once() {
    let fake = FakeRedis::start(|_, command| match &command[0][..] {
        b"INCR" => Action::reply(":1\r\n"),
        _ => Action::Hold,
    });
    let nginx = nginx(
        &fake.url(),
        "",
        "location / { PASS meteorit_command INCR n; meteorit_command RPUSH list $event_n; meteorit_command PUBLISH live $event_n;
             meteorit_command SADD set $event_n; }",
    );
    send(&nginx, [7]);
    fake.wait_held(3);
    fake.set_handler(|_, _| Action::reply(":1\r\n"));
    fake.close_all(false);
    assert_eq!(texts(&fake.wait_commands(6)[4..]), ["RPUSH list 7", "SADD set 7"]);
    nginx.stop();
    assert_eq!(fake.commands().len(), 6);
}

#[test]
fn what_redis_does_not_take_now_is_sent_again_until_it_does() {
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    let fake = FakeRedis::start(|_, _| match REFUSED.fetch_add(1, Ordering::SeqCst) {
        0..4 => Action::reply("-OOM command not allowed when used memory > 'maxmemory'.\r\n"),
        _ => Action::reply(":1\r\n"),
    });
    let nginx = nginx(&fake.url(), "", &format!("location / {{ PASS {ALONE} }}"));
    let mut http = Http::connect(nginx.port());
    http.pipeline(&["{\"n\":0}", "{\"n\":1}", "{\"n\":2}"].map(|event| Request::post("/", event)));
    // Three of them, then the first alone, to see whether it is taken: no; and then yes.
    let commands = texts(&fake.wait_commands(7));
    let expected = [0, 1, 2, 0, 0, 1, 2].map(|n| format!("APPEND text {n}"));
    assert_eq!(commands, expected);
    nginx.stop();
    assert_eq!(fake.commands().len(), 7);
}

#[test]
fn what_redis_refuses_for_good_is_told_once_in_the_log() {
    let redis = Redis::start();
    redis.cmd(&["SET", "list", "no list"]);
    let nginx =
        nginx(&redis.url(), "", &format!("location / {{ PASS {COMMAND} meteorit_command RPUSH other $event_n; }}"));
    send(&nginx, 0..50);
    redis.wait_len("other", 50);
    let told = "refused for good a command of an event that was accepted: WRONGTYPE";
    nginx.wait_log(told);
    assert!(nginx.count_log(told) <= 3, "{}", nginx.error_log());
}

#[test]
fn at_a_bound_the_client_is_told_when_to_come_again() {
    let port = Port::lease();
    let url = format!("redis://127.0.0.1:{}", port.number());
    let locations = format!("location / {{ PASS {COMMAND} }} location /batch {{ PASS {COMMAND} meteorit_batch all; }}");
    let limited = nginx(&url, "max_pending 5; drain 1ms;", &locations);
    send(&limited, 0..4);
    let response = post(limited.port(), "/batch", r#"[{"n":1},{"n":2}]"#);
    assert_eq!(response.status, 503, "a whole request is taken or none of it");
    send(&limited, 4..5);
    let response = post(limited.port(), "/", r#"{"n":5}"#);
    assert_eq!(response.status, 503, "{}", response.text());
    assert!(response.header("Retry-After").unwrap().parse::<u32>().unwrap() >= 1);
    let response = post(limited.port(), "/batch", r#"[{"n":1},{"n":2},{"n":3},{"n":4},{"n":5},{"n":6}]"#);
    assert_eq!((response.status, response.text().contains("more than 5 events")), (413, true), "{}", response.text());

    let limited = nginx(&url, "backlog 1k; drain 1ms;", &locations);
    let mut http = Http::connect(limited.port());
    let statuses: Vec<u16> = (0..100).map(|_| http.post("/", r#"{"n":"0123456789"}"#).status).collect();
    let taken = statuses.iter().filter(|status| **status == 202).count();
    assert!((15..30).contains(&taken), "{taken} of some 40 bytes each");
    assert!(statuses[taken..].iter().all(|status| *status == 503));
}

#[test]
fn batches_are_queued_whole() {
    let redis = Redis::start();
    let nginx = nginx(
        &redis.url(),
        "",
        &format!(
            "location /all {{ PASS {COMMAND} meteorit_batch all; meteorit_response json; }}
             location /partial {{ PASS {COMMAND} meteorit_batch partial; meteorit_reject_command RPUSH rejected $event; }}"
        ),
    );
    redis.stop();
    let response = post(nginx.port(), "/all", r#"[{"n":1},{"n":2}]"#);
    assert_eq!((response.status, &response.json()["accepted"]), (202, &json!(2)), "{}", response.text());
    let response = post(nginx.port(), "/partial", r#"[{"n":3},4,{"n":5}]"#);
    assert_eq!((response.status, &response.json()["accepted"]), (207, &json!(2)), "{}", response.text());
    assert_eq!(response.json()["errors"][0]["index"], 1);
    assert_eq!(post(nginx.port(), "/partial", r#"[4]"#).status, 422);
    redis.restart();
    redis.wait_len("rejected", 2);
    assert_eq!(list(&redis), ["1", "2", "3", "5"]);
    nginx.wait_access("/all 202 queued");
}

#[test]
fn a_long_batch_is_queued_after_its_last_event() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url(), "", &format!("location / {{ PASS {COMMAND} meteorit_batch all max=5000; }}"));
    let body: Vec<String> = (0..5000).map(|n| format!(r#"{{"n":{n}}}"#)).collect();
    assert_eq!(post(nginx.port(), "/", format!("[{}]", body.join(","))).status, 202);
    redis.wait_len("list", 5000);
    assert_eq!(list(&redis), numbers(0..5000));
}

#[test]
fn a_worker_that_quits_stays_until_redis_has_taken_what_was_queued() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url(), "", &format!("location / {{ PASS {COMMAND} }}"));
    send(&nginx, [0]);
    redis.stop();
    send(&nginx, 1..100);
    let old = nginx.reload();
    redis.restart();
    nginx.wait_gone(&old);
    assert_eq!(list(&redis), numbers(1..100));
    redis.stop();
    send(&nginx, 100..200);
    redis.restart();
    assert!(nginx.quit().success());
    assert_eq!(list(&redis), numbers(100..200));
}

#[test]
fn a_worker_that_quits_gives_up_after_drain_and_says_how_much_is_lost() {
    let port = Port::lease();
    let url = format!("redis://127.0.0.1:{}", port.number());
    let nginx = nginx(&url, "drain 100ms;", &format!("location / {{ PASS {COMMAND} }}"));
    send(&nginx, 0..7);
    assert!(nginx.quit().success());
    nginx.wait_log("7 events that were accepted are lost");
}

#[test]
fn a_worker_that_quits_gives_up_after_drain_what_redis_does_not_answer() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let settings = "drain 100ms; timeout 1h; stall_timeout 1h;";
    let nginx = nginx(&fake.url(), settings, &format!("location / {{ PASS {ALONE} }}"));
    send(&nginx, 0..4);
    fake.wait_held(4);
    assert!(nginx.quit().success());
    nginx.wait_log("4 events that were accepted are lost");
}

#[test]
fn a_worker_that_is_terminated_says_how_much_is_lost() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = nginx(&fake.url(), "", &format!("location / {{ PASS {ALONE} }}"));
    send(&nginx, 0..3);
    fake.wait_held(3);
    nginx.signal(nginx.master_pid(), libc::SIGTERM);
    assert!(nginx.wait_exit().success());
    nginx.wait_log("3 events that were accepted are lost");
}

#[test]
fn a_silent_redis_costs_a_queued_event_a_second_attempt_and_not_its_promise() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url(), "stall_timeout 200ms;", &format!("location / {{ PASS {COMMAND} }}"));
    send(&nginx, 0..5);
    redis.wait_len("list", 5);
    redis.pause();
    send(&nginx, 5..20);
    nginx.wait_log("no reply for 200 ms");
    send(&nginx, 20..25);
    redis.resume();
    eventually(SOON, || list(&redis).last().is_some_and(|last| last == "24"));
    // Redis had them in its socket, and did them when it went on: documented as at least once.
    let mut unique: Vec<usize> = list(&redis).iter().map(|n| n.parse().unwrap()).collect();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique, (0..25).collect::<Vec<_>>());
}

#[test]
fn ambiguous_lets_a_stored_event_be_sent_again() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = Nginx::builder()
        .server(
            &"location / { meteorit_pass REDIS; meteorit_retry ambiguous; meteorit_command RPUSH list $event_n; }
              location /publish { meteorit_pass REDIS; meteorit_retry ambiguous; meteorit_command PUBLISH live $event_n; }"
                .replace("REDIS", &fake.url()),
        )
        .allow_log("redis \"")
        .start();
    let mut http = Http::connect(nginx.port());
    http.send_raw(&Request::post("/", r#"{"n":1}"#).to_bytes());
    let mut other = Http::connect(nginx.port());
    fake.wait_held(1);
    other.send_raw(&Request::post("/publish", r#"{"n":2}"#).to_bytes());
    fake.wait_held(2);
    // A connection that lived for less than half a second is not replaced at once.
    std::thread::sleep(Duration::from_millis(600));
    fake.set_handler(|_, _| Action::reply(":1\r\n"));
    fake.close_all(true);
    assert_eq!(http.read_response().status, 204);
    assert_eq!(other.read_response().status, 504, "what is published is news, and no news twice");
    assert_eq!(texts(&fake.commands()), ["RPUSH list 1", "PUBLISH live 2", "RPUSH list 1"]);
}

#[test]
fn mistakes_are_found_by_nginx_t() {
    let test = |text: &str| {
        let http = "meteorit_redis queue { server redis://127.0.0.1:1; SETTING }".replace("SETTING", text);
        Nginx::builder().http(&http).server("location / { meteorit_pass queue; meteorit_command PING; }").test()
    };
    test("max_pending 0;").assert_refused("invalid value \"0\" in \"max_pending\" directive", "max_pending");
    test("drain soon;").assert_refused("invalid value \"soon\" in \"drain\" directive", "drain");
    test("max_pending 7; drain 5s;").assert_ok();
    for (text, message) in [
        (
            "meteorit_ack later;",
            "invalid value \"later\" in \"meteorit_ack\" directive: expected \"stored\" or \"queued\"",
        ),
        ("meteorit_retry always;", "expected \"safe\" or \"ambiguous\""),
        ("meteorit_transaction perhaps;", "expected \"on\" or \"off\""),
    ] {
        Nginx::test(&format!("location / {{ {text} }}")).assert_refused(message, text);
    }
}
