//! `meteorit_transaction on`: the commands of one event are MULTI ... EXEC, contiguous on one connection, with one verdict on all of them.

mod common;

use common::*;
use serde_json::json;

impl Site {
    fn start(location: &str) -> Site {
        let text = format!("location / {{ meteorit_pass REDIS; meteorit_transaction on; {location} }}");
        Site::of(Nginx::builder().allow_log("redis \""), &text)
    }

    #[track_caller]
    fn post(&self, event: &str) -> Response {
        post(self.nginx.port(), "/", event)
    }
}

const COUNT: &str =
    "meteorit_command INCR n; meteorit_command if=$event_x HINCRBY h x $event_x; meteorit_command SADD s $event_y;";

#[test]
fn the_commands_of_an_event_are_one_transaction() {
    let fake = FakeRedis::start(|_, command| match &command[0][..] {
        b"MULTI" => Action::reply("+OK\r\n"),
        b"EXEC" => Action::reply("*2\r\n:1\r\n:1\r\n"),
        _ => Action::reply("+QUEUED\r\n"),
    });
    let text = format!(
        "location / {{ meteorit_pass {}; meteorit_transaction on; meteorit_batch all; meteorit_response json; {COUNT} }}",
        fake.url()
    );
    let nginx = Nginx::builder().server(&text).start();
    assert_eq!(post(nginx.port(), "/", r#"{"y":"a"}"#).status, 200);
    assert_eq!(post(nginx.port(), "/", r#"[{"y":"b"},{"y":"c"}]"#).json()["accepted"], json!(2));
    let expected = ["a", "b", "c"].map(|y| ["MULTI".into(), "INCR n".into(), format!("SADD s {y}"), "EXEC".into()]);
    let sent: Vec<String> = fake.commands().iter().map(Received::text).collect();
    assert_eq!(sent, expected.concat());
}

#[test]
fn a_real_redis_does_all_of_it() {
    let site = Site::start(COUNT);
    for n in 1..=20 {
        assert_eq!(site.post(&format!(r#"{{"x":2,"y":{n}}}"#)).status, 204);
    }
    assert_eq!(
        site.redis.ask::<(i64, i64)>(&["EVAL", "return {redis.call('GET','n')+0, redis.call('SCARD','s')}", "0"]),
        (20, 20)
    );
    assert_eq!(site.redis.hash("h")["x"], "40");
}

#[test]
fn a_command_that_fails_in_exec_is_told_and_the_others_are_done() {
    let site = Site::start(COUNT);
    let response = site.post(r#"{"x":"many","y":1}"#);
    assert_eq!(response.status, 422, "{}", response.text());
    assert!(response.text().contains("not an integer"), "{}", response.text());
    assert_eq!(site.redis.get("n").unwrap(), b"1", "Redis does not undo");
    site.redis.cmd(&["SET", "s", "no set"]);
    let response = site.post(r#"{"y":1}"#);
    assert_eq!((response.status, response.text().contains("WRONGTYPE")), (502, true), "{}", response.text());
}

#[test]
fn a_transaction_that_is_not_begun_tells_the_first_error() {
    let site = Site::start(COUNT);
    site.redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    let response = site.post(r#"{"y":1}"#);
    assert_eq!((response.status, response.text().contains("OOM")), (503, true), "{}", response.text());
    site.redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(site.redis.get("n"), None, "nothing is done");
    assert_eq!(site.post(r#"{"y":1}"#).status, 204);
    site.redis.cmd(&["ACL", "SETUSER", "default", "-sadd"]);
    let response = site.post(r#"{"y":1}"#);
    assert_eq!((response.status, response.text().contains("NOPERM")), (503, true), "{}", response.text());
    assert_eq!(site.redis.get("n").unwrap(), b"1");
}

#[test]
fn without_multi_nothing_is_success() {
    let site = Site::start(COUNT);
    site.redis.cmd(&["ACL", "SETUSER", "default", "-multi"]);
    let response = site.post(r#"{"y":1}"#);
    assert_eq!((response.status, response.text().contains("NOPERM")), (504, true), "{}", response.text());
}

#[test]
fn a_connection_lost_before_exec_has_done_nothing() {
    let fake = FakeRedis::start(|_, command| match &command[0][..] {
        b"EXEC" => Action::Close,
        b"MULTI" => Action::reply("+OK\r\n"),
        _ => Action::reply("+QUEUED\r\n"),
    });
    let text = format!("location / {{ meteorit_pass {}; meteorit_transaction on; {COUNT} }}", fake.url());
    let nginx = Nginx::builder().server(&text).allow_log("redis \"").start();
    assert_eq!(post(nginx.port(), "/", r#"{"y":1}"#).status, 504, "whether EXEC was done nobody knows");
}

#[test]
fn a_queued_transaction_is_sent_again_whole_and_without_its_publish() {
    let fake = FakeRedis::start(|_, command| match &command[0][..] {
        b"EXEC" => Action::Close,
        b"MULTI" => Action::reply("+OK\r\n"),
        _ => Action::reply("+QUEUED\r\n"),
    });
    let text = format!(
        "location / {{ meteorit_pass {}; meteorit_transaction on; meteorit_ack queued; meteorit_command INCR n;
             meteorit_command PUBLISH live $event; }}",
        fake.url()
    );
    let nginx = Nginx::builder().server(&text).allow_log("redis \"").start();
    assert_eq!(post(nginx.port(), "/", "{}").status, 202);
    fake.wait_commands(4);
    fake.set_handler(|_, command| match &command[0][..] {
        b"EXEC" => Action::reply("*1\r\n:1\r\n"),
        b"MULTI" => Action::reply("+OK\r\n"),
        _ => Action::reply("+QUEUED\r\n"),
    });
    let sent: Vec<String> = fake.wait_commands(7).iter().map(Received::text).collect();
    assert_eq!(sent, ["MULTI", "INCR n", "PUBLISH live {}", "EXEC", "MULTI", "INCR n", "EXEC"]);
}
