//! The same verdicts, provoked in a real Redis: each state or mistake that makes it refuse gets the status of the table, and
//! where the state can end, the next event is taken without a reload.

mod common;

use common::*;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const PUSH: &str = "location = /push { meteorit_pass queue; meteorit_command RPUSH list $event; }";

fn nginx(server: &str, locations: &str) -> Nginx {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {server}; }}"))
        .server(locations)
        .log_format("$uri $status $meteorit_status $meteorit_redis_time")
        .start()
}

#[track_caller]
fn assert_answer(nginx: &Nginx, path: &str, status: u16, detail: &str) {
    let response = post(nginx.port(), path, r#"{"a":1}"#);
    assert_eq!(response.status, status, "{path}: {}", response.text());
    if status == 204 {
        return;
    }
    assert_eq!(response.header("Content-Type"), Some("application/problem+json"));
    assert_eq!(response.json()["detail"], detail, "{path}");
    assert_eq!(response.header("Retry-After").is_some(), status == 503, "{path}");
}

/// 503 now, with nothing written; once `mend` is called, 204 before long.
#[track_caller]
fn assert_unavailable_until(nginx: &Nginx, redis: &Redis, code: &str, mend: impl FnOnce()) {
    let before = redis.len("list");
    assert_answer(nginx, "/push", 503, &format!("Redis answered {code}; nothing was written"));
    nginx.wait_log(&format!("redis \"queue\" answered: {code}"));
    assert_eq!(redis.len("list"), before);
    mend();
    assert_recovers(nginx);
    assert_eq!(redis.len("list"), before + 1);
}

/// Until it is taken an event gets 503, and nothing else.
#[track_caller]
fn assert_recovers(nginx: &Nginx) {
    let taken = within(SOON, || {
        let response = post(nginx.port(), "/push", "{}");
        assert!(matches!(response.status, 204 | 503), "{}: {}", response.status, response.text());
        response.status == 204
    });
    assert!(taken, "no event was taken; the log:\n{}", nginx.error_log());
}

#[test]
fn a_mistake_in_the_configuration_or_the_data_is_502() {
    let redis = Redis::start();
    redis.cmd(&["SET", "text", "abc"]);
    redis.cmd(&["HSET", "hash", "field", "abc"]);
    let nginx = nginx(
        &redis.url(),
        "location = /wrongtype { meteorit_pass queue; meteorit_command RPUSH text $event; }
         location = /unknown { meteorit_pass queue; meteorit_command NOSUCHCOMMAND $event; }
         location = /arguments { meteorit_pass queue; meteorit_command GET a $event; }
         location = /script { meteorit_pass queue; meteorit_command EVALSHA ffffffffffffffffffffffffffffffffffffffff 0 $event; }
         location = /function { meteorit_pass queue; meteorit_command FCALL nosuch 0 $event; }
         location = /hash { meteorit_pass queue; meteorit_command HINCRBY hash field 1; }
         location = /syntax { meteorit_pass queue; meteorit_command SET a $event NOSUCHOPTION; }",
    );
    for (path, code) in [
        ("/wrongtype", "WRONGTYPE"),
        ("/unknown", "ERR"),
        ("/arguments", "ERR"),
        ("/script", "NOSCRIPT"),
        ("/function", "ERR"),
        ("/hash", "ERR"),
        ("/syntax", "ERR"),
    ] {
        assert_answer(&nginx, path, 502, &format!("Redis answered {code}"));
        nginx.wait_access(&format!("{path} 502 refused 0."));
    }
    assert_eq!(redis.get("text").unwrap(), b"abc");
}

#[test]
fn a_value_that_redis_cannot_take_is_422_with_the_words_of_redis() {
    let redis = Redis::with(&["--proto-max-bulk-len", "1mb"]);
    redis.cmd(&["SET", "most", "9223372036854775807"]);
    let nginx = nginx(
        &redis.url(),
        "location = /integer { meteorit_pass queue; meteorit_command INCRBY n $arg_by; }
         location = /most { meteorit_pass queue; meteorit_command INCRBY most 1; }
         location = /float { meteorit_pass queue; meteorit_command INCRBYFLOAT f $arg_by; }
         location = /score { meteorit_pass queue; meteorit_command ZADD z $arg_by m; }
         location = /expire { meteorit_pass queue; meteorit_command SET e x EX $arg_by; }
         location = /offset { meteorit_pass queue; meteorit_command SETRANGE r $arg_by x; }",
    );
    let integer = "ERR value is not an integer or out of range";
    for (path, text) in [
        ("/integer?by=ten", integer),
        ("/integer?by=", integer),
        ("/integer?by=1e3", integer),
        ("/integer?by=9223372036854775808", integer),
        ("/most", "ERR increment or decrement would overflow"),
        ("/float?by=x", "ERR value is not a valid float"),
        ("/score?by=x", "ERR value is not a valid float"),
        ("/expire?by=-1", "ERR invalid expire time in 'set' command"),
        ("/expire?by=x", integer),
        ("/offset?by=-1", "ERR offset is out of range"),
        ("/offset?by=2000000", "ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
    ] {
        assert_answer(&nginx, path, 422, text);
    }
    nginx.wait_access("/integer 422 rejected 0.");
    for path in ["/integer?by=9223372036854775807", "/float?by=1.5", "/score?by=-inf"] {
        assert_answer(&nginx, path, 204, "");
    }
    assert_eq!(redis.get("n").unwrap(), b"9223372036854775807");
}

#[test]
fn a_reply_of_nothing_is_success() {
    let redis = Redis::start();
    redis.cmd(&["SET", "taken", "1"]);
    let nginx = nginx(
        &redis.url(),
        "location = /publish { meteorit_pass queue; meteorit_command PUBLISH live $event; }
         location = /nil { meteorit_pass queue; meteorit_command SET taken $event NX; }
         location = /get { meteorit_pass queue; meteorit_command GET nosuch; }
         location = /zero { meteorit_pass queue; meteorit_command EXPIRE nosuch 10; }
         location = /array { meteorit_pass queue; meteorit_command XRANGE nosuch - +; }
         location = /nested { meteorit_pass queue; meteorit_command COMMAND INFO GET NOSUCH; }",
    );
    for path in ["/publish", "/nil", "/get", "/zero", "/array", "/nested"] {
        assert_answer(&nginx, path, 204, "");
        nginx.wait_access(&format!("{path} 204 stored 0."));
    }
    assert_eq!(redis.get("taken").unwrap(), b"1");
}

#[test]
fn out_of_memory_is_503_until_there_is_some() {
    let redis = Redis::with(&["--maxmemory-policy", "noeviction"]);
    let nginx = nginx(&redis.url(), PUSH);
    redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_unavailable_until(&nginx, &redis, "OOM", || drop(redis.cmd(&["CONFIG", "SET", "maxmemory", "0"])));
}

#[test]
fn too_few_replicas_are_503_until_fewer_will_do() {
    let redis = Redis::with(&["--min-replicas-to-write", "1"]);
    let nginx = nginx(&redis.url(), PUSH);
    assert_unavailable_until(&nginx, &redis, "NOREPLICAS", || {
        redis.cmd(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    });
}

#[test]
fn a_command_that_the_user_may_not_run_is_503_until_he_may() {
    let redis = Redis::builder()
        .args(&["--aclfile", "%DIR%/users.acl"])
        .file("users.acl", "user default on nopass ~* &* +@all\nuser writer on >word ~list +ping\n")
        .start();
    let nginx = nginx(&format!("redis://writer:word@127.0.0.1:{}", redis.port()), PUSH);
    assert_unavailable_until(&nginx, &redis, "NOPERM", || drop(redis.cmd(&["ACL", "SETUSER", "writer", "+rpush"])));
}

#[test]
fn a_demoted_master_is_503_until_it_is_one_again() {
    let redis = Redis::start();
    let nginx = nginx(&redis.url(), PUSH);
    assert_answer(&nginx, "/push", 204, "");
    // A master that nobody is at: what matters is that this one takes no writes.
    redis.cmd(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_unavailable_until(&nginx, &redis, "READONLY", || drop(redis.cmd(&["REPLICAOF", "NO", "ONE"])));
}

#[test]
fn a_failing_snapshot_is_503_until_one_succeeds() {
    let redis = Redis::with(&["--save", "3600 1000000"]);
    let nginx = nginx(&redis.url(), PUSH);
    assert_answer(&nginx, "/push", 204, "");
    // A snapshot is renamed to its name, which a directory has.
    let in_the_way = redis.dir().join("dump.rdb");
    std::fs::create_dir(&in_the_way).unwrap();
    redis.cmd(&["BGSAVE"]);
    eventually(SOON, || redis.info("rdb_last_bgsave_status") == "err");
    assert_unavailable_until(&nginx, &redis, "MISCONF", || {
        std::fs::remove_dir(&in_the_way).unwrap();
        redis.cmd(&["BGSAVE"]);
        eventually(SOON, || redis.info("rdb_last_bgsave_status") == "ok");
    });
}

#[test]
fn a_redis_that_loads_its_data_is_503_until_it_has_them() {
    let redis = Redis::with(&["--enable-debug-command", "yes", "--loading-process-events-interval-bytes", "1024"]);
    redis.cmd(&["DEBUG", "POPULATE", "2000", "key", "100"]);
    let nginx = nginx(&redis.url(), PUSH);
    assert_answer(&nginx, "/push", 204, "");
    // In microseconds for each key.
    redis.cmd(&["CONFIG", "SET", "key-load-delay", "1000"]);
    std::thread::scope(|scope| {
        let mut client = redis.client();
        let loading = scope.spawn(move || {
            client.set_read_timeout(None).unwrap();
            redis::cmd("DEBUG").arg("RELOAD").query::<()>(&mut client).expect("DEBUG RELOAD")
        });
        let seen = wait_for(SOON, || {
            let response = post(nginx.port(), "/push", "{}");
            assert!(matches!(response.status, 204 | 503 | 504), "{}", response.text());
            (response.status == 503).then_some(response)
        });
        let response = seen.expect("a 503 while Redis loads");
        assert_eq!(response.json()["detail"], "Redis answered LOADING; nothing was written");
        assert!(response.header("Retry-After").is_some());
        loading.join().unwrap();
    });
    redis.cmd(&["CONFIG", "SET", "key-load-delay", "0"]);
    assert_recovers(&nginx);
}

#[test]
fn a_script_that_keeps_redis_busy_is_503_until_it_ends() {
    let redis = Redis::with(&["--busy-reply-threshold", "100"]);
    let nginx = nginx(&redis.url(), PUSH);
    assert_answer(&nginx, "/push", 204, "");
    std::thread::scope(|scope| {
        let mut client = redis.client();
        let script = scope.spawn(move || {
            client.set_read_timeout(None).unwrap();
            redis::cmd("EVAL").arg("while true do end").arg(0).query::<()>(&mut client).expect_err("killed")
        });
        let seen = wait_for(SOON, || {
            let response = post(nginx.port(), "/push", "{}");
            assert!(matches!(response.status, 204 | 503), "{}", response.text());
            (response.status == 503).then_some(response)
        });
        assert_eq!(seen.expect("a 503").json()["detail"], "Redis answered BUSY; nothing was written");
        redis.cmd(&["SCRIPT", "KILL"]);
        script.join().unwrap();
    });
    assert_recovers(&nginx);
}

#[test]
fn partly_written_is_504_and_says_how_much() {
    let redis = Redis::builder()
        .args(&["--aclfile", "%DIR%/users.acl"])
        .file("users.acl", "user default on nopass ~* &* +@all\nuser writer on >word ~* &* +@all -publish\n")
        .start();
    redis.cmd(&["SET", "text", "abc"]);
    let nginx = nginx(
        &format!("redis://writer:word@127.0.0.1:{}", redis.port()),
        "location = /first { meteorit_pass queue; meteorit_command PUBLISH live $event;
            meteorit_command RPUSH first $event; meteorit_command INCR first:count; }
         location = /last { meteorit_pass queue; meteorit_command RPUSH last $event;
            meteorit_command INCR last:count; meteorit_command PUBLISH live $event; }
         location = /wrong { meteorit_pass queue; meteorit_command RPUSH wrong $event;
            meteorit_command INCR text; meteorit_command INCR wrong:count; }
         location = /type { meteorit_pass queue; meteorit_command RPUSH type $event;
            meteorit_command RPUSH text $event; meteorit_command INCR type:count; }",
    );
    let two = "2 of 3 commands were carried out";
    let integer = "ERR value is not an integer or out of range";
    for (path, status, reason) in [
        ("/first", 504, "Redis answered NOPERM"),
        ("/last", 504, "Redis answered NOPERM"),
        ("/wrong", 422, integer),
        ("/type", 502, "Redis answered WRONGTYPE"),
    ] {
        assert_answer(&nginx, path, status, &format!("{reason}; {two}"));
        let key = &path[1..];
        assert_eq!(redis.list(key), [br#"{"a":1}"#], "{path}");
        assert_eq!(redis.get(&format!("{key}:count")).unwrap(), b"1", "{path}");
    }
    nginx.wait_access("/first 504 timeout 0.");
}
