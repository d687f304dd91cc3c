//! `meteorit_selftest`: a location that writes a value to its Redis, reads it back and deletes it, and says what came of it.

mod common;

use common::*;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn nginx(server: &str) -> Nginx {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {server}; timeout 300ms; }}"))
        .server(
            "location = /selftest { meteorit_selftest queue; }
             location = /events { meteorit_pass queue; meteorit_command RPUSH list $event; }",
        )
        .log_format("$request_method $uri $status $meteorit_status $meteorit_redis_time")
        .allow_log("redis \"queue\"")
        .start()
}

/// The reason, of a test that failed.
#[track_caller]
fn failure(nginx: &Nginx) -> String {
    let response = get(nginx.port(), "/selftest");
    assert_eq!(response.status, 503, "{}", response.text());
    assert_eq!(response.header("Content-Type"), Some("application/problem+json"));
    assert_eq!((response.header("Cache-Control"), response.header("Retry-After")), (Some("no-store"), Some("1")));
    let problem = response.json();
    assert_eq!(problem["type"], "urn:meteorit:problem:self-test-failed");
    assert_eq!(problem["status"], 503);
    problem["detail"].as_str().expect("a detail").to_owned()
}

#[test]
fn a_redis_that_works_gets_200_with_the_value_and_the_time_and_keeps_nothing() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url());
    let mut values = Vec::new();
    for _ in 0..3 {
        let response = get(nginx.port(), "/selftest");
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(response.header("Content-Type"), Some("application/json"));
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
        let result = response.json();
        assert!(result["round_trip_ms"].as_f64().expect("a number") > 0.0, "{result}");
        values.push(result["value"].as_str().expect("a value").to_owned());
    }
    values.dedup();
    assert_eq!(values.len(), 3, "each test has a value of its own");
    assert_eq!(redis.ask::<i64>(&["DBSIZE"]), 0);
    nginx.wait_access("GET /selftest 200 stored 0.");
    // Over the connection that events take: what is new is the harness's own.
    let connections = || redis.info("total_connections_received").parse::<u32>().expect("a number");
    let before = connections();
    assert_eq!(post(nginx.port(), "/events", "{}").status, 204);
    assert_eq!(connections(), before + 1);
}

#[test]
fn the_key_is_its_own_and_expires() {
    let fake = FakeRedis::start(|_, _| Action::reply("-ERR no\r\n"));
    let nginx = nginx(&fake.url());
    failure(&nginx);
    failure(&nginx);
    let sent: Vec<Vec<String>> = fake
        .commands()
        .iter()
        .map(|command| command.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect())
        .collect();
    let [first, second] = [&sent[0], &sent[3]];
    for set in [first, second] {
        assert_eq!((set[0].as_str(), &set[3..]), ("SET", &["EX".to_owned(), "10".to_owned()][..]));
        assert!(set[1].starts_with("meteorit:selftest:"), "{}", set[1]);
    }
    assert_ne!(first[1], second[1]);
    assert_eq!(sent[1], ["GET", &first[1]]);
    assert_eq!(sent[2], ["DEL", &first[1]]);
}

#[test]
fn a_redis_that_is_down_is_told_with_the_reason_until_it_is_up() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url());
    redis.stop();
    for _ in 0..2 {
        let reason = failure(&nginx);
        assert!(reason.contains("Redis is away: connect failed: Connection refused"), "{reason}");
    }
    nginx.wait_access("GET /selftest 503 unavailable");
    redis.restart();
    eventually(SOON, || get(nginx.port(), "/selftest").status == 200);
}

#[test]
fn a_wrong_password_is_told_and_not_shown() {
    let redis = Redis::with(&["--requirepass", "right"]);
    let nginx = nginx(&redis.url().replace("redis://", "redis://:wr0ng-secret@"));
    let reason = failure(&nginx);
    assert!(reason.contains("AUTH failed: WRONGPASS"), "{reason}");
    assert!(!reason.contains("wr0ng-secret"), "{reason}");
}

#[test]
fn a_replica_is_told() {
    let master = Redis::start();
    let redis = Redis::with(&["--replicaof", "127.0.0.1", &master.port().to_string()]);
    eventually(SOON, || redis.info("master_link_status") == "up");
    let nginx = nginx(&redis.url());
    let reason = failure(&nginx);
    assert!(reason.contains("READONLY"), "{reason}");
}

#[test]
fn a_user_without_the_right_is_told() {
    let redis = Redis::start();
    redis.cmd(&["ACL", "SETUSER", "intake", "on", ">pw", "~list", "+@all"]);
    let nginx = nginx(&redis.url().replace("redis://", "redis://intake:pw@"));
    let reason = failure(&nginx);
    assert!(reason.contains("NOPERM"), "{reason}");
    assert_eq!(post(nginx.port(), "/events", "{}").status, 204, "the connection is as good as before");
}

#[test]
fn another_value_than_the_one_written_is_told() {
    let fake = FakeRedis::start(|_, command| match &command[0][..] {
        b"GET" => Action::reply("$5\r\nother\r\n"),
        b"DEL" => Action::reply(":1\r\n"),
        _ => Action::Default,
    });
    let reason = failure(&nginx(&fake.url()));
    assert!(reason.starts_with("Redis gave back \"other\" and not \""), "{reason}");
}

#[test]
fn a_key_that_could_not_be_deleted_is_told() {
    let mut value = Vec::new();
    let fake = FakeRedis::start(move |_, command| match &command[0][..] {
        b"SET" => {
            value = command[2].clone();
            Action::Default
        }
        b"GET" => Action::Reply([format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat()),
        _ => Action::reply(":0\r\n"),
    });
    let reason = failure(&nginx(&fake.url()));
    assert!(reason.contains("DEL"), "{reason}");
}

#[test]
fn a_redis_that_does_not_answer_is_told_in_time() {
    let fake = FakeRedis::start(|_, _| Action::Nothing);
    let reason = failure(&nginx(&fake.url()));
    assert!(reason.contains("did not answer in time"), "{reason}");
}

#[test]
fn nothing_of_it_goes_to_the_spool() {
    let redis = Redis::start();
    redis.stop();
    let nginx = Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; spool spool; }}", redis.url()))
        .server(
            "location = /selftest { meteorit_selftest queue; }
             location = /events { meteorit_pass queue; meteorit_command RPUSH list $event; }",
        )
        .allow_log("redis \"queue\"")
        .start();
    assert!(failure(&nginx).contains("Redis is away"));
    assert_eq!(post(nginx.port(), "/events", "{}").status, 202);
    assert!(failure(&nginx).contains("Redis is away"));
    redis.restart();
    redis.wait_len("list", 1);
    assert_eq!(redis.ask::<i64>(&["DBSIZE"]), 1);
}

#[test]
fn head_is_answered_and_what_would_send_something_is_not() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url());
    let response = Http::connect(nginx.port()).request("HEAD", "/selftest", &[], "");
    assert_eq!((response.status, response.text().as_str()), (200, ""));
    let response = post(nginx.port(), "/selftest", "{}");
    assert_eq!((response.status, response.header("Allow")), (405, Some("GET, HEAD")));
    assert_eq!(response.json()["detail"], "the methods here are GET, HEAD");
}

#[test]
fn error_page_has_its_say_where_errors_are_intercepted() {
    let redis = Redis::start();
    redis.stop();
    let text = format!(
        "meteorit_intercept_errors on; error_page 503 /sorry;
         location = /selftest {{ meteorit_selftest {}; }} location = /sorry {{ return 200 sorry; }}",
        redis.url()
    );
    let nginx = Nginx::builder().server(&text).allow_log("redis \"").start();
    let response = get(nginx.port(), "/selftest");
    assert_eq!((response.status, response.text().as_str()), (503, "sorry"));
}

#[test]
fn an_if_and_a_limit_except_go_on_with_the_test_of_their_location() {
    let redis = Redis::start();
    let text = format!(
        "location = /if {{ meteorit_selftest {url}; if ($arg_a) {{ add_header X-If yes; }} }}
         location = /except {{ meteorit_selftest {url}; limit_except GET {{ allow all; }} }}",
        url = redis.url()
    );
    let nginx = Nginx::builder().server(&text).start();
    let response = get(nginx.port(), "/if?a=1");
    assert_eq!((response.status, response.header("X-If")), (200, Some("yes")));
    assert_eq!(get(nginx.port(), "/except").status, 200);
    assert_eq!(post(nginx.port(), "/except", "{}").status, 405);
}

#[test]
fn mistakes_are_found_by_nginx_t() {
    let test =
        |text: &str| Nginx::builder().http("meteorit_redis queue { server redis://127.0.0.1; }").text(text).test();
    let location = |text: &str| format!("location = /a {{\n{text}\n}}");
    let directive = "meteorit_selftest other;";
    test(&location(directive)).assert_refused("unknown \"meteorit_redis\" \"other\"", directive);
    let twice = "meteorit_selftest queue; # again";
    test(&location(&format!("meteorit_selftest queue;\n{twice}")))
        .assert_refused("\"meteorit_selftest\" directive is duplicate", twice);
    let pass = "meteorit_pass queue;";
    test(&location(&format!("meteorit_selftest queue;\n{pass}")))
        .assert_refused("\"meteorit_pass\" conflicts with another content handler", pass);
    let directive = "meteorit_selftest queue;";
    test(&location(&format!("proxy_pass http://127.0.0.1;\n{directive}")))
        .assert_refused("\"meteorit_selftest\" conflicts with another content handler", directive);
    test(&location(&format!("{directive}\nempty_gif;")))
        .assert_refused("\"meteorit_selftest\" and another content handler", directive);
    test(&location("meteorit_selftest $arg_a;")).assert_refused("without variables", "meteorit_selftest $arg_a");
    test(directive).assert_refused("directive is not allowed here", directive);
}
