//! What operators see: the numbers of `meteorit_status` against a load that is known, and what they outlive.

mod common;

use common::*;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

const STATUS: &str = "location = /status { meteorit_status; }";

fn redis_block(redis: &Redis) -> String {
    format!("meteorit_redis queue {{ server {}; }}", redis.url())
}

fn site(http: &str, locations: &str) -> NginxBuilder {
    Nginx::builder().http(http).server(&format!("{STATUS} {locations}")).allow_log("redis \"queue\"")
}

fn status(nginx: &Nginx) -> Value {
    let response = get(nginx.port(), "/status");
    assert_eq!((response.status, response.header("Content-Type")), (200, Some("application/json")));
    assert_eq!((response.header("Cache-Control"), response.header("Vary")), (Some("no-store"), Some("Accept")));
    response.json()
}

/// The entry of a location, by how it is written.
fn location(nginx: &Nginx, written: &str) -> Value {
    let status = status(nginx);
    let locations = status["locations"].as_array().unwrap();
    locations.iter().find(|it| it["location"] == written).unwrap_or_else(|| panic!("{written} in {status}")).clone()
}

/// The members that are not 0.
fn counts(of: &Value) -> Value {
    let counts = of.as_object().unwrap().iter().filter(|(_, count)| **count != 0);
    Value::Object(counts.map(|(name, count)| (name.clone(), count.clone())).collect())
}

#[test]
fn requests_and_events_are_counted_by_what_became_of_them() {
    let redis = Redis::start();
    let nginx = site(
        &redis_block(&redis),
        "location = /events { meteorit_pass queue; meteorit_command RPUSH list $event_n; }
         location ~ ^/batch { meteorit_pass queue; meteorit_batch partial max=5; meteorit_command RPUSH list $event_n; }
         location /wrong { meteorit_pass queue; meteorit_command INCR list; }
         location /queued { meteorit_pass queue; meteorit_ack queued; meteorit_command RPUSH list $event_n; }",
    )
    .start();
    let mut http = Http::connect(nginx.port());
    let mut bytes = 0;
    let mut send = |path: &str, body: &str, status: u16| {
        let response = http.post(path, body);
        assert_eq!(response.status, status, "{path} {body}: {}", response.text());
    };
    for n in 0..10 {
        let event = format!(r#"{{"n":{n}}}"#);
        bytes += event.len();
        send("/events", &event, 204);
    }
    for (body, status) in [("{", 400), ("[]", 422), (r#"{"a":1,"a":2}"#, 422)] {
        bytes += body.len();
        send("/events", body, status);
    }
    let get = Http::connect(nginx.port()).get("/events");
    assert_eq!(get.status, 405);
    let events = location(&nginx, "= /events");
    assert_eq!(counts(&events["requests"]), json!({"stored": 10, "rejected": 4}));
    assert_eq!(events["events"], events["requests"]);
    assert_eq!(counts(&events["rejected_by"]), json!({"not-json": 1, "invalid-event": 2, "method-not-allowed": 1}));
    assert_eq!(
        (&events["bytes_in"], &events["batches"], &events["redis"]),
        (&json!(bytes), &json!(0), &json!("queue"))
    );

    send("/batch", r#"[{"n":1},{"n":2},{"n":3}]"#, 204);
    send("/batch", r#"[{"n":1},{"n":2},[],3]"#, 207);
    send("/batch", "[{},{},{},{},{},{}]", 413);
    send("/batch", r#"{"n":1}"#, 204);
    let batch = location(&nginx, "~ ^/batch");
    assert_eq!(counts(&batch["requests"]), json!({"stored": 3, "rejected": 1}));
    assert_eq!(counts(&batch["events"]), json!({"stored": 6, "rejected": 3}));
    assert_eq!(counts(&batch["rejected_by"]), json!({"invalid-event": 2, "batch-too-large": 1}));

    send("/wrong", "{}", 502);
    assert_eq!(counts(&location(&nginx, "/wrong")["events"]), json!({"refused": 1}));
    send("/queued", "{}", 202);
    assert_eq!(counts(&location(&nginx, "/queued")["events"]), json!({"queued": 1}));

    redis.stop();
    eventually(SOON, || post(nginx.port(), "/events", "{}").status == 503);
    let events = location(&nginx, "= /events");
    assert_eq!(events["requests"]["unavailable"], events["events"]["unavailable"]);
    let lacks = events["unavailable_by"].as_object().unwrap();
    assert_eq!(lacks.values().map(|it| it.as_u64().unwrap()).sum::<u64>(), events["events"]["unavailable"]);
}

#[test]
fn counters_outlive_a_reload_and_the_death_of_a_worker() {
    let redis = Redis::start();
    let events = "location = /events { meteorit_pass queue; meteorit_command RPUSH list x; }";
    let nginx = site(&redis_block(&redis), events).start();
    nginx.allow_log("exited on signal 9");
    let since = status(&nginx)["since"].clone();
    let send = |count: usize| (0..count).for_each(|_| assert_eq!(post(nginx.port(), "/events", "{}").status, 204));
    send(3);
    nginx.rewrite_conf(|conf| {
        conf.replace(
            "location = /events",
            "location /new { meteorit_pass queue; meteorit_command PING; } location = /events",
        )
    });
    nginx.reload_and_drain();
    send(2);
    assert_eq!(counts(&location(&nginx, "= /events")["requests"]), json!({"stored": 5}));
    assert_eq!(counts(&location(&nginx, "/new")["requests"]), json!({}));
    let before = status(&nginx);
    assert_eq!((&before["worker_restarts"], &before["since"]), (&json!(0), &since));
    let old = nginx.worker_pids();
    assert_eq!(before["workers"][0]["pid"], old[0]);
    nginx.signal(old[0], libc::SIGKILL);
    let new = nginx.wait_respawn(&old);
    let after = status(&nginx);
    assert_eq!(counts(&location(&nginx, "= /events")["requests"]), json!({"stored": 5}));
    assert_eq!(after["worker_restarts"], 1);
    let workers = after["workers"].as_array().unwrap();
    assert_eq!((workers.len(), &workers[0]["pid"], &workers[0]["slot"]), (1, &json!(new[0]), &json!(0)));
    let gauges = |status: &Value| status["redis"][0]["connections"].clone();
    assert_eq!(gauges(&before), json!({"ready": 1, "connecting": 0, "closed": 0}));
    assert_eq!(gauges(&after), json!({"ready": 0, "connecting": 0, "closed": 0}), "of the dead nothing is left");
    send(1);
    assert_eq!(gauges(&status(&nginx)), json!({"ready": 1, "connecting": 0, "closed": 0}));
    assert_eq!(status(&nginx)["redis"][0]["commands"], 6);
}

#[test]
fn what_waits_in_an_old_worker_is_shown_until_it_is_gone() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = site(
        &format!("meteorit_redis queue {{ server {}; timeout 60s; stall_timeout 60s; }}", fake.url()),
        "location = /events { meteorit_pass queue; meteorit_command RPUSH list x; }",
    )
    .start();
    let mut waiting = Http::connect(nginx.port());
    waiting.send_raw(&Request::post("/events", "{}").to_bytes());
    fake.wait_held(1);
    let old = nginx.reload();
    let now = status(&nginx);
    let workers = now["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2, "{now}");
    assert!(workers.iter().all(|it| it["slot"] == 0 && (it["exiting"] == true) == (it["pid"] == old[0])), "{now}");
    assert_eq!(now["redis"][0]["pending"]["events"], 1);
    fake.release_all(Action::reply(":1\r\n"));
    assert_eq!(waiting.read_response().status, 204);
    nginx.wait_gone(&old);
    let now = status(&nginx);
    assert_eq!((&now["worker_restarts"], &now["redis"][0]["pending"]["events"]), (&json!(0), &json!(0)), "{now}");
    assert_eq!(now["workers"].as_array().unwrap().len(), 1);
    assert_eq!(counts(&location(&nginx, "= /events")["requests"]), json!({"stored": 1}));
}

#[test]
fn connections_writes_and_round_trips_are_counted() {
    let redis = Redis::start();
    let nginx = site(
        &redis_block(&redis),
        "location = /events { meteorit_pass queue; meteorit_command RPUSH list x; meteorit_command INCR n; }",
    )
    .start();
    let of = |name: &str| status(&nginx)["redis"][0][name].clone();
    assert_eq!((of("commands"), of("connects")), (json!(0), json!(0)));
    for _ in 0..5 {
        assert_eq!(post(nginx.port(), "/events", "{}").status, 204);
    }
    assert_eq!(
        (of("commands"), of("connects"), of("reconnects"), of("failures")),
        (json!(10), json!(1), json!(0), json!(0))
    );
    let trips = of("round_trip");
    let count: u64 = trips["count"].as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).sum();
    assert!((1..=5).contains(&count) && of("writes") == 5 && trips["sum"].as_f64() > Some(0.0), "{trips}");
    assert_eq!(trips["count"].as_array().unwrap().len(), trips["le"].as_array().unwrap().len() + 1);
    redis.stop();
    eventually(SOON, || post(nginx.port(), "/events", "{}").status == 503 && of("breaker")["open"] == 1);
    assert_eq!((of("connections"), of("connects")), (json!({"ready": 0, "connecting": 0, "closed": 1}), json!(1)));
    redis.restart();
    eventually(SOON, || post(nginx.port(), "/events", "{}").status == 204);
    assert_eq!((of("connects"), of("reconnects")), (json!(2), json!(1)));
    assert!(of("failures").as_u64() >= Some(1));
    assert_eq!(of("breaker"), json!({"closed": 1, "open": 0, "half_open": 0}));
}

#[test]
fn an_event_whose_client_has_gone_is_counted_as_what_it_became() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let events = "location = /events { meteorit_pass queue; meteorit_command RPUSH list x; }";
    let nginx = site(&format!("meteorit_redis queue {{ server {}; timeout 60s; }}", fake.url()), events).start();
    let mut http = Http::connect(nginx.port());
    http.send_raw(&Request::post("/events", "{}").to_bytes());
    fake.wait_held(1);
    http.abort();
    nginx.wait_access("499");
    fake.release_all(Action::reply(":1\r\n"));
    eventually(SOON, || location(&nginx, "= /events")["clients_gone"] == 1);
    let events = location(&nginx, "= /events");
    assert_eq!((counts(&events["requests"]), counts(&events["events"])), (json!({}), json!({"stored": 1})));
}

#[test]
fn locations_that_a_zone_has_no_room_for_are_counted_together() {
    let redis = Redis::start();
    let locations: String = (0..100)
        .map(|n| format!("location = /{n} {{ meteorit_pass queue; meteorit_command RPUSH list x; }}\n"))
        .collect();
    let nginx = site(&format!("meteorit_zone small 32k; {}", redis_block(&redis)), &locations).start();
    let warning = nginx.wait_log("\"meteorit_zone\" is full");
    assert!(warning.contains("[warn]") && !warning.contains("Redises"), "{warning}");
    for n in 0..100 {
        assert_eq!(post(nginx.port(), &format!("/{n}"), "{}").status, 204);
    }
    let now = status(&nginx);
    let stored = |it: &Value| it["events"]["stored"].as_u64().unwrap();
    let entries = now["locations"].as_array().unwrap();
    let other = entries.last().unwrap();
    assert_eq!(
        (&other["server"], &other["location"], &other["redis"]),
        (&json!("other"), &json!("other"), &json!("other"))
    );
    assert_eq!(entries.iter().map(stored).sum::<u64>(), 100);
    assert!(stored(other) > 1 && stored(&entries[0]) == 1, "{now}");
    assert_eq!(nginx.count_log("is full"), 1);
    // Of those told of one stands for all that have no place of their own.
    let left = 100 - (entries.len() - 1);
    assert!(warning.contains(&format!("locations counted as \"other\" only: {left}")), "{warning}");
}

#[test]
fn a_zone_without_room_for_all_redises_tells_them_from_locations() {
    let redises = |count: usize| -> String {
        (0..count).map(|n| format!("meteorit_redis r{n} {{ server redis://127.0.0.1:1; }}\n")).collect()
    };
    let locations: String =
        (0..3).map(|n| format!("location = /{n} {{ meteorit_pass r{n}; meteorit_command RPUSH list x; }}\n")).collect();
    let nginx = site(&format!("meteorit_zone small 32k; {}", redises(100)), &locations).start();
    let warning = nginx.wait_log("\"meteorit_zone\" is full");
    assert!(warning.contains("; locations counted as \"other\" only: 3, Redises not counted: "), "{warning}");
    // Nor are they told of.
    let left = 100 - status(&nginx)["redis"].as_array().unwrap().len();
    assert!(left > 0 && warning.contains(&format!("Redises not counted: {left}")), "{warning}");
}

#[test]
fn a_zone_can_be_named_and_sized_once() {
    let conf = |zone: &str| {
        format!("{zone}\nmeteorit_redis queue {{ server redis://127.0.0.1:1; }}\nserver {{ listen 127.0.0.1:%PORT%; }}")
    };
    Nginx::test(&conf("meteorit_zone counters 2m;")).assert_ok();
    Nginx::test(&conf("meteorit_zone counters 8k;")).assert_refused("is too small", "counters 8k");
    Nginx::test(&conf("meteorit_zone counters much;")).assert_refused("invalid size \"much\"", "much");
    Nginx::test(&conf("meteorit_zone a 1m;\nmeteorit_zone b 1m;")).assert_refused("is duplicate", "zone b");
    Nginx::test(&conf("meteorit_zone taken 1m;\nlimit_req_zone $uri zone=taken:1m rate=1r/s;"))
        .assert_refused("taken", "limit_req");
}

#[test]
fn a_page_is_only_for_reading_and_alone_in_its_location() {
    let redis = Redis::start();
    let nginx =
        site(&redis_block(&redis), "location = /json { meteorit_status json; limit_except GET { deny all; } }").start();
    let refused = post(nginx.port(), "/status", "{}");
    assert_eq!((refused.status, refused.header("Allow")), (405, Some("GET, HEAD")));
    assert_eq!(post(nginx.port(), "/json", "{}").status, 403);
    let head = Http::connect(nginx.port()).request("HEAD", "/status", &[], "");
    assert!(head.status == 200 && head.header("Content-Length").unwrap().parse::<usize>().unwrap() > 100);
    let json = Http::connect(nginx.port()).request("GET", "/json", &[("Accept", "text/html")], "");
    assert_eq!(json.header("Content-Type"), Some("application/json"));
    let page = Http::connect(nginx.port()).request("GET", "/status", &[("Accept", "text/html")], "");
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    let policy = page.header("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && policy.contains("connect-src 'self'"), "{policy}");
    for (text, message) in [
        (
            "location / { meteorit_status; meteorit_ready; }",
            "\"meteorit_ready\" conflicts with another content handler",
        ),
        ("location / { proxy_pass http://127.0.0.1:1; meteorit_status; }", "\"meteorit_status\" conflicts"),
        ("location / { meteorit_status; meteorit_status json; }", "\"meteorit_status\" directive is duplicate"),
        (
            "location / { meteorit_status; empty_gif; }",
            "location \"/\" has \"meteorit_status\" and another content handler",
        ),
        ("location / { meteorit_status xml; }", "expected \"json\" or \"prometheus\""),
    ] {
        Nginx::test(text).assert_refused(message, "location /");
    }
    Nginx::test("location / { meteorit_ready nobody; }")
        .assert_refused("unknown \"meteorit_redis\" \"nobody\"", "meteorit_ready");
}

#[test]
fn a_thousand_locations_are_told_of() {
    let redis = Redis::start();
    let locations: String = (0..1000)
        .map(|n| format!("location = /{n} {{ meteorit_pass queue; meteorit_command RPUSH list x; }}\n"))
        .collect();
    let nginx = site(&redis_block(&redis), &locations).start();
    assert_eq!(post(nginx.port(), "/999", "{}").status, 204);
    let now = status(&nginx);
    let names: Vec<_> =
        now["locations"].as_array().unwrap().iter().map(|it| it["location"].as_str().unwrap()).collect();
    assert_eq!(names, (0..1000).map(|n| format!("= /{n}")).collect::<Vec<_>>(), "in the order of the configuration");
    assert_eq!(counts(&location(&nginx, "= /999")["requests"]), json!({"stored": 1}));
}

/// What a spool has, once it has nothing to do.
fn spool(nginx: &Nginx) -> Value {
    status(nginx)["redis"][0]["spool"].clone()
}

#[test]
fn a_spool_tells_what_it_holds_and_what_became_of_it() {
    let redis = Redis::start();
    let nginx = site(
        &format!("meteorit_redis queue {{ server {}; spool spool max_size=1m; }}", redis.url()),
        "location = /events { meteorit_pass queue; meteorit_command RPUSH list $event_n; }
         location = /wrong { meteorit_pass queue; meteorit_command INCR list; }",
    )
    .exit_timeout(SOON)
    .start();
    nginx.allow_log("exited on signal 9");
    assert_eq!(post(nginx.port(), "/events", "{}").status, 204);
    redis.stop();
    let mut http = Http::connect(nginx.port());
    for n in 0..20 {
        assert_eq!(http.post("/events", format!(r#"{{"n":{n}}}"#)).status, 202);
    }
    assert_eq!(http.post("/wrong", "{}").status, 202);
    let holds = |records: u64| {
        let spool = spool(&nginx);
        spool["records"] == records && spool["bytes"].as_u64() > Some(500) && spool["oldest"].as_f64() > Some(0.0)
    };
    eventually(SOON, || holds(21));
    let spool_now = spool(&nginx);
    assert_eq!((&spool_now["written"], &spool_now["replayed"]), (&json!(21), &json!(0)), "{spool_now}");
    assert_eq!(spool_now["max_bytes"], 1 << 20);
    assert_eq!(counts(&location(&nginx, "= /events")["events"]), json!({"stored": 1, "spooled": 20}));

    // Whoever takes over counts what there is.
    let old = nginx.worker_pids();
    nginx.signal(old[0], libc::SIGKILL);
    nginx.wait_respawn(&old);
    eventually(SOON, || holds(21));
    redis.restart();
    eventually(SOON, || spool(&nginx)["replayed"] == 21 && spool(&nginx)["records"] == 0);
    eventually(SOON, || {
        redis.len("list") == 20 && nginx.count_log("the spool is empty: 21 records were replayed in") == 1
    });
    let spool_now = spool(&nginx);
    assert_eq!(
        (&spool_now["written"], &spool_now["rejected"], &spool_now["oldest"]),
        (&json!(21), &json!(1), &json!(0.0))
    );
    eventually(SOON, || spool(&nginx)["bytes"].as_u64() < Some(500));
    assert_eq!(nginx.count_log("events go to the spool"), 1);
}

#[test]
fn a_spool_that_takes_no_more_says_so_once_and_counts_each_event() {
    let redis = Redis::start();
    redis.stop();
    let nginx = site(
        &format!("meteorit_redis queue {{ server {}; spool spool max_size=64k segment=64k; }}", redis.url()),
        "location = /events { meteorit_pass queue; meteorit_command RPUSH list $event; }",
    )
    .exit_timeout(SOON)
    .start();
    let event = format!(r#"{{"n":"{}"}}"#, "x".repeat(30_000));
    let mut http = Http::connect(nginx.port());
    let statuses: Vec<u16> = (0..6).map(|_| http.post("/events", &event).status).collect();
    assert_eq!((statuses[0], statuses[5]), (202, 503), "{statuses:?}");
    let failed = statuses.iter().filter(|status| **status == 503).count();
    assert!(nginx.wait_log("max_size").contains("[error]"));
    // What waits for the next attempt to write.
    eventually(SOON, || spool(&nginx)["failed"] == failed);
    assert_eq!(nginx.count_log("the spool has its max_size"), 1, "{}", nginx.error_log());
    let events = location(&nginx, "= /events");
    assert_eq!(
        (&events["events"]["unavailable"], &events["unavailable_by"]["redis"]),
        (&json!(failed), &json!(failed))
    );
}

#[test]
fn the_log_of_a_request_that_error_page_has_led_elsewhere_tells_of_it() {
    let redis = Redis::start();
    let nginx = site(
        &redis_block(&redis),
        "location = /events { meteorit_pass queue; meteorit_intercept_errors on; error_page 422 /sorry; error_page 400 = @named;
             meteorit_command RPUSH list x; }
         location = /sorry { return 418; } location @named { return 419; }",
    )
    .log_format("$request_uri $uri $status $meteorit_status $meteorit_accepted $meteorit_rejected $meteorit_commands")
    .start();
    let mut http = Http::connect(nginx.port());
    assert_eq!(http.post("/events", "[]").status, 418);
    assert_eq!(http.post("/events", "{").status, 419);
    nginx.wait_access("/events /sorry 418 rejected 0 1 0");
    nginx.wait_access("/events /events 419 rejected 0 1 0");
    // After a 400 nginx closes the connection.
    assert_eq!(Http::connect(nginx.port()).get("/status").status, 200);
    nginx.wait_access("/status /status 200 - - - -");
}

#[test]
fn the_error_log_has_nothing_of_events_and_passwords() {
    let fake = FakeRedis::start(|_, command| match &command[0][..] {
        b"RPUSH" => Action::reply("-ERR unknown command 'RPUSH', with args beginning with: 'list' 's3cret' \r\n"),
        _ => Action::reply("-OOM command not allowed\r\n"),
    });
    let nginx = site(
        &format!("meteorit_redis queue {{ server {}; }}", fake.url()),
        "location = /events { meteorit_pass queue; meteorit_batch partial; meteorit_command RPUSH list $event; }
         location = /oom { meteorit_pass queue; meteorit_command SET a $event; }",
    )
    .start();
    for body in [
        r#"{"s3cret":1}"#,
        r#"{"s3cret":1,"s3cret":2}"#,
        r#"{"a":{"s3cret":[{"s3cret":1,"s3cret":2}]}}"#,
        "s3cret",
        r#"["s3cret",{"s3cret":1,"s3cret":1}]"#,
    ] {
        assert!(post(nginx.port(), "/events", body).status >= 400, "{body}");
        assert!(post(nginx.port(), "/oom", body).status >= 400, "{body}");
    }
    nginx.wait_log("answered: ERR unknown command 'RPUSH'...");
    nginx.wait_log("event not taken: invalid-event, status 422");
    assert_eq!(nginx.count_log("s3cret"), 0, "{}", nginx.error_log());
}
