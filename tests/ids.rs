//! Each event has an id, `$meteorit_id`: one of its own, or the one that its client gave.

mod common;

use common::*;
use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn texts(list: Vec<Vec<u8>>) -> Vec<String> {
    list.into_iter().map(|element| String::from_utf8(element).unwrap()).collect()
}

/// Locations in which `REDIS` stands for the URL of a Redis; the access log has `URI [ID]`.
fn start(text: &str) -> (Nginx, Redis) {
    let redis = Redis::start();
    let nginx = Nginx::builder().log_format("$uri [$meteorit_id]").text(&text.replace("REDIS", &redis.url())).start();
    (nginx, redis)
}

/// The milliseconds in a UUID of version 7 (RFC 9562, section 5.7), in lower case with hyphens.
#[track_caller]
fn time_of(id: &str) -> u64 {
    let groups: Vec<&str> = id.split('-').collect();
    assert_eq!(groups.iter().map(|group| group.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
    assert!(id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-')), "{id}");
    assert!(groups[2].starts_with('7'), "the version of {id}");
    assert!(groups[3].starts_with(['8', '9', 'a', 'b']), "the variant of {id}");
    u64::from_str_radix(&groups[..2].concat(), 16).unwrap()
}

#[test]
fn an_id_is_a_uuid_of_version_7_and_the_same_wherever_an_event_uses_it() {
    let (nginx, redis) = start(
        "location / {
             meteorit_field   id $meteorit_id;
             meteorit_pass    REDIS;
             meteorit_command XADD stream * id $meteorit_id again \"$meteorit_id/${meteorit_id}\";
             meteorit_command RPUSH list $event;
             meteorit_command if=$meteorit_id SET id:$meteorit_id 1;
             add_header       X-Id $meteorit_id always;
         }",
    );
    let before = unix_ms();
    let mut ids = HashSet::new();
    for n in 0..20 {
        let response = post(nginx.port(), &format!("/{n}"), format!("{{\"n\":{n}}}"));
        assert_eq!(response.status, 204);
        let id = response.header("X-Id").unwrap().to_owned();
        assert!((before..=unix_ms()).contains(&time_of(&id)), "{id}");
        let (_, entry) = redis.stream("stream").pop().unwrap();
        assert_eq!(texts(entry), ["id", &id, "again", &format!("{id}/{id}")]);
        assert_eq!(texts(redis.list("list")).pop().unwrap(), format!("{{\"n\":{n},\"id\":\"{id}\"}}"));
        assert!(redis.get(&format!("id:{id}")).is_some());
        assert_eq!(nginx.wait_access(&format!("/{n} ")), format!("/{n} [{id}]"));
        assert!(ids.insert(id));
    }
}

#[test]
fn a_rejected_event_has_an_id_and_what_is_no_event_has_none() {
    let (nginx, _redis) = start(
        "location / { meteorit_pass REDIS; meteorit_command SET key:$event_x $meteorit_id; }
         location /other { return 200 x; }",
    );
    let mut http = Http::connect(nginx.port());
    assert_eq!(http.post("/rejected", r#"{"x":"a b"}"#).status, 422);
    assert_eq!(http.post("/no-json", "{").status, 400);
    assert_eq!(http.get("/other").status, 200);
    drop(http);
    let line = nginx.wait_access("/rejected");
    time_of(line.trim_start_matches("/rejected [").trim_end_matches(']'));
    assert_eq!(nginx.wait_access("/no-json"), "/no-json [-]");
    assert_eq!(nginx.wait_access("/other"), "/other [-]");
}

#[test]
fn two_requests_that_wait_at_once_keep_their_ids() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = Nginx::builder()
        .log_format("$uri [$meteorit_id]")
        .server(&format!("location / {{ meteorit_pass {}; meteorit_command RPUSH list $meteorit_id; }}", fake.url()))
        .start();
    let mut clients = ["/a", "/b", "/c"].map(|path| {
        let mut client = Http::connect(nginx.port());
        let waiting = fake.held().len();
        client.send_raw(&Request::post(path, "{}").to_bytes());
        fake.wait_held(waiting + 1);
        client
    });
    let ids: Vec<String> =
        fake.commands().iter().map(|command| String::from_utf8_lossy(&command.args[2]).into()).collect();
    fake.release_all(Action::reply(":1\r\n"));
    for (path, (client, id)) in ["/a", "/b", "/c"].into_iter().zip(clients.iter_mut().zip(&ids)) {
        assert_eq!(client.read_response().status, 204);
        assert_eq!(nginx.wait_access(path), format!("{path} [{id}]"));
    }
    assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
    drop(clients);
    nginx.stop();
}

#[test]
fn ids_of_four_workers_under_load_are_distinct_and_grow_in_each() {
    const CONNECTIONS: usize = 20;
    const EVENTS: usize = 10_000;
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .worker_processes(4)
        .text(
            &"server {
                  listen 127.0.0.1:%PORT% reuseport;
                  location / { meteorit_pass REDIS; meteorit_command RPUSH ids:$pid $meteorit_id; }
              }"
            .replace("REDIS", &redis.url()),
        )
        .start();
    let before = unix_ms();
    let sent = load(nginx.port(), CONNECTIONS, Until::PerConnection((EVENTS / CONNECTIONS) as u64), |n| {
        Request::post("/", format!("{{\"n\":{n}}}")).to_bytes()
    });
    assert!(sent.iter().all(|sent| sent.has_status(204)));
    let after = unix_ms();
    let workers: Vec<Vec<String>> =
        nginx.worker_pids().iter().map(|pid| texts(redis.list(&format!("ids:{pid}")))).collect();
    let busy = workers.iter().filter(|ids| ids.len() > 100).count();
    assert!(busy >= 2, "the load reached only {busy} workers");
    for ids in &workers {
        // One connection to Redis, so the list has them as they were made.
        assert!(ids.is_sorted_by(|one, next| one < next));
        // More than a millisecond holds borrow from the next ones.
        assert!(ids.iter().all(|id| (before..=after + 100).contains(&time_of(id))));
    }
    let distinct: HashSet<String> = workers.into_iter().flatten().collect();
    assert_eq!(distinct.len(), EVENTS);
}

#[test]
fn the_id_that_a_client_gives_is_taken() {
    let (nginx, redis) = start(
        "meteorit_event_id $event_id;
         location / { meteorit_pass REDIS; meteorit_command RPUSH list $meteorit_id; }
         location /header {
             meteorit_event_id $http_x_request_id;
             location /header/inner { meteorit_pass REDIS; meteorit_command RPUSH list $meteorit_id; }
         }
         location /joined {
             meteorit_event_id \"$arg_tenant:$event_id\";
             meteorit_pass REDIS; meteorit_command RPUSH list $meteorit_id;
         }",
    );
    let mut http = Http::connect(nginx.port());
    let mut id_of = |request: &Request| {
        assert_eq!(http.call(request).status, 204);
        let path = request.path.split('?').next().unwrap();
        let id = texts(redis.list("list")).pop().unwrap();
        assert_eq!(nginx.wait_access(&format!("{path} ")), format!("{path} [{id}]"));
        id
    };
    assert_eq!(id_of(&Request::post("/a", r#"{"id":"order-17"}"#)), "order-17");
    // The retry of an event carries its id.
    assert_eq!(id_of(&Request::post("/b", r#"{"id":"order-17"}"#)), "order-17");
    assert_eq!(id_of(&Request::post("/c", r#"{"id":12345678901234567890}"#)), "12345678901234567890");
    for (path, event) in [("/d", "{}"), ("/e", r#"{"id":null}"#), ("/f", r#"{"id":""}"#)] {
        time_of(&id_of(&Request::post(path, event)));
    }
    assert_eq!(id_of(&Request::post("/header/inner/a", r#"{"id":"x"}"#).header("X-Request-Id", "h")), "h");
    time_of(&id_of(&Request::post("/header/inner/b", r#"{"id":"x"}"#)));
    assert_eq!(id_of(&Request::post("/joined?tenant=t", r#"{"id":"x"}"#)), "t:x");
}

const OF_ITSELF: &str = "map $meteorit_id $mapped { default $meteorit_id; }
    server {
        listen 127.0.0.1:%PORT%;
        meteorit_command RPUSH list $meteorit_id;
        location /itself { meteorit_event_id $meteorit_id; meteorit_pass REDIS; }
        location /around { meteorit_event_id \"$event_id$meteorit_id\"; meteorit_pass REDIS; }
        location /mapped { meteorit_event_id $mapped; meteorit_pass REDIS; }
    }";

#[test]
fn an_id_that_is_made_of_itself_is_a_new_one() {
    let (nginx, redis) = start(OF_ITSELF);
    let workers = nginx.worker_pids();
    let mut ids = HashSet::new();
    for path in ["/itself", "/around", "/mapped", "/itself"] {
        assert_eq!(post(nginx.port(), path, "{}").status, 204, "{path}");
        let id = texts(redis.list("list")).pop().unwrap();
        time_of(&id);
        assert!(ids.insert(id), "{path}");
    }
    assert_eq!(nginx.worker_pids(), workers);
}

#[test]
fn an_id_that_is_made_of_itself_does_not_fill_the_log() {
    let (nginx, _redis) = start(OF_ITSELF);
    for path in ["/itself", "/around", "/mapped"] {
        assert_eq!(post(nginx.port(), path, r#"{"id":"x"}"#).status, 204, "{path}");
    }
    assert_eq!(nginx.count_log("cycle while evaluating"), 0, "{}", nginx.error_log());
}

#[test]
fn mistakes_of_meteorit_event_id_are_refused() {
    let test = Nginx::test("location / {\nmeteorit_event_id $event_id;\nmeteorit_event_id $arg_id;\n}");
    test.assert_refused("\"meteorit_event_id\" directive is duplicate", "$arg_id");
    let test = Nginx::test("location / {\nmeteorit_event_id $no_such_variable;\n}");
    assert!(!test.ok && test.output.contains("unknown \"no_such_variable\" variable"), "{}", test.output);
}
