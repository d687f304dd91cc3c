//! What the examples in nginx-conf are for: what they promise in their comments is counted, kept apart and answered.

mod common;

use common::*;

#[test]
fn page_views_are_counted_by_visit_visitor_page_and_session() {
    let redis = Redis::start();
    let nginx = NginxBuilder::example("page-views.conf", &redis).start();
    let mut http = Http::connect(nginx.port());
    for (page, visitor) in [("/a", "ann"), ("/a", "bob"), ("/b", "ann"), ("/a", "ann")] {
        let event = format!(r#"{{"page":"{page}","visitor":"{visitor}"}}"#);
        assert_eq!(http.post("/views", event).status, 204);
    }
    assert_eq!(http.post("/views", r#"{"page":"/c"}"#).status, 204, "without a visitor");
    assert_eq!(http.post("/views", r#"{"page":"/c","visitor":"a b"}"#).status, 422, "no id for a key");
    let key = |prefix: &str| redis.ask::<Vec<String>>(&["KEYS", &format!("{prefix}:2*")]).remove(0);
    assert_eq!(redis.ask::<i64>(&["GET", &key("visits")]), 5);
    assert_eq!(redis.ask::<i64>(&["PFCOUNT", &key("visitors")]), 2);
    assert_eq!(redis.ask::<i64>(&["GET", &key("sessions")]), 2);
    let pages: Vec<String> = redis.ask(&["ZREVRANGE", &key("pages"), "0", "-1"]);
    assert_eq!(pages[0], "/a");
    for prefix in ["visits", "visitors", "sessions", "pages"] {
        assert!(redis.ask::<i64>(&["TTL", &key(prefix)]) > 86_400, "{prefix} has no end");
    }
    // Half an hour later.
    assert_eq!(redis.ask::<i64>(&["DEL", "session:ann"]), 1);
    assert_eq!(http.post("/views", r#"{"page":"/a","visitor":"ann"}"#).status, 204);
    assert_eq!(redis.ask::<i64>(&["GET", &key("sessions")]), 3);
}

#[test]
fn tenants_have_streams_of_their_own_and_cannot_pretend() {
    let redis = Redis::start();
    let nginx = NginxBuilder::example("tenants.conf", &redis).start();
    let mut http = Http::connect(nginx.port());
    let mut send = |key: &str, event: &str| http.call(&Request::post("/events", event).header("X-Api-Key", key)).status;
    assert_eq!(send("demo-key", r#"{"id":"7","tenant":"other"}"#), 204);
    assert_eq!(send("other-key", r#"{"n":[]}"#), 204);
    assert_eq!(send("nobody", "{}"), 401);
    let [demo, other] = ["events:{demo}", "events:{other}"].map(|key| redis.stream(key));
    assert_eq!((demo.len(), other.len()), (1, 1));
    let text = |index: usize| String::from_utf8(demo[0].1[index].clone()).unwrap();
    assert_eq!((text(0).as_str(), text(1).as_str()), ("id", "7"));
    assert!(text(3).starts_with(r#"{"id":"7","tenant":"demo","received":1"#), "{}", text(3));
}

#[test]
fn the_batch_api_says_what_became_of_each_event() {
    let redis = Redis::start();
    let nginx = NginxBuilder::example("batch-api.conf", &redis).start();
    let mut http = Http::connect(nginx.port());
    let lines = "{\"id\":\"a\"}\n[1]\n{\"id\":\"b\"}\n";
    let request = Request::new("POST", "/bulk").header("Content-Type", "application/x-ndjson").body(lines);
    let answer = http.call(&request);
    assert_eq!(answer.status, 207, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["accepted"], &answer["ids"]), (&2.into(), &serde_json::json!(["a", "b"])));
    assert_eq!(answer["errors"][0]["index"], 1);
    assert_eq!(redis.stream("bulk").len(), 2);
    let [(_, rejected)] = &redis.stream("rejected")[..] else { panic!("one event is set aside") };
    let text = |index: usize| String::from_utf8_lossy(&rejected[index]).into_owned();
    assert_eq!((text(2).as_str(), text(4).as_str(), text(5).as_str()), ("error", "event", "[1]"));
    assert!(text(3).contains("an event must be an object"), "{}", text(3));
}

#[test]
fn an_observed_intake_logs_a_json_line_for_each_request_and_tells_of_itself() {
    let redis = Redis::start();
    let nginx = NginxBuilder::example("observed.conf", &redis).start();
    let mut http = Http::connect(nginx.port());
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let event = r#"{"page":"/\"home\""}"#;
    assert_eq!(http.call(&Request::post("/observed", event).header("traceparent", TRACE)).status, 204);
    assert_eq!(http.post("/observed", "{").status, 400);
    let [(_, fields)] = &redis.stream("observed")[..] else { panic!("one event") };
    assert_eq!((&fields[2][..], &fields[3][..]), (&b"traceparent"[..], TRACE.as_bytes()));
    eventually(std::time::Duration::from_secs(10), || nginx.read("logs/observed.log").lines().count() == 2);
    let log = nginx.read("logs/observed.log");
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of = |line: usize, names: [&str; 5]| names.map(|name| lines[line][name].clone());
    let names = ["status", "outcome", "accepted", "rejected", "commands"];
    assert_eq!(serde_json::json!(of(0, names)), serde_json::json!([204, "stored", "1", "0", "1"]));
    assert_eq!(serde_json::json!(of(1, names)), serde_json::json!([400, "rejected", "0", "1", "0"]));
    assert_eq!((&lines[0]["traceparent"], &lines[1]["traceparent"]), (&TRACE.into(), &"".into()));
    assert_eq!(lines[0]["id"].as_str().unwrap().as_bytes(), fields[1]);
    let status = http.get("/status").json();
    assert_eq!(status["locations"][0]["requests"]["stored"], 1);
    assert_eq!(http.get("/ready").status, 200);
}

#[test]
fn metrics_are_answered_while_redis_is_away_and_written_when_it_is_back() {
    let redis = Redis::start();
    let nginx = NginxBuilder::example("metrics.conf", &redis).allow_log("connection lost").start();
    redis.stop();
    let mut http = Http::connect(nginx.port());
    let mut send = |event: &str| http.post("/metrics", event).status;
    for (host, value) in [("web-1", "12.5"), ("web-2", "40"), ("web-1", "7")] {
        let event = format!(r#"{{"name":"render","unit":"ms","value":{value},"host":"{host}"}}"#);
        assert_eq!(send(&event), 202);
    }
    assert_eq!(send(r#"{"name":"made-up","value":1,"host":"web-1"}"#), 204, "nothing to be written");
    assert_eq!(send("{\"name\":\"job_mail\",\"value\":1,\"host\":\"web-3\"}"), 202);
    assert_eq!(send("{"), 400);
    redis.restart();
    let keys = |prefix: &str| redis.try_ask::<Vec<String>>(&["KEYS", &format!("{prefix}:*")]).unwrap_or_default();
    eventually(std::time::Duration::from_secs(30), || keys("max:job_mail").len() == 1);
    assert_eq!(keys("max").len(), 2, "keys of a client's making");
    let slowest: Vec<String> = redis.ask(&["ZREVRANGE", &keys("max:render")[0], "0", "-1", "WITHSCORES"]);
    assert_eq!(slowest, ["web-2", "40", "web-1", "12.5"]);
    assert_eq!(redis.ask::<i64>(&["PFCOUNT", &keys("hosts")[0]]), 3);
    assert_eq!(redis.hash(&keys("count")[0])["render"], "3");
    for key in ["max", "hosts", "count"].into_iter().flat_map(keys) {
        eventually(std::time::Duration::from_secs(30), || redis.ask::<i64>(&["TTL", &key]) > 86_400);
    }
}
