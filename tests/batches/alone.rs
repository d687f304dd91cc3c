//! Each event of a batch is worked on as if it had come alone: with its own variables, its own id and its own verdict.

use super::*;

/// The elements of the list in groups of `N`, one group an event.
#[track_caller]
fn groups<const N: usize>(site: &Site) -> Vec<[String; N]> {
    let written = site.written();
    assert_eq!(written.len() % N, 0, "{written:?}");
    written.chunks(N).map(|group| group.to_vec().try_into().expect("N elements")).collect()
}

#[test]
fn a_map_is_computed_anew_for_each_event_and_the_requests_own_values_stay() {
    let site = Site::start(
        "map $event_kind $class { default other; view seen; ~^x(.*) rest-$1; }
         map $class $outer { default $class/$event_n; seen SEEN; }
         server {
             listen 127.0.0.1:%PORT%;
             location / {
                 meteorit_pass REDIS; meteorit_batch all;
                 meteorit_command RPUSH list $class $outer $request_id;
             }
         }",
    );
    let body = r#"[{"kind":"view","n":1},{"kind":"xyz","n":2},{"n":3},{"kind":"view","n":4},{"kind":"x","n":5}]"#;
    let mut ids = Vec::new();
    for _ in 0..2 {
        assert_eq!(site.array("/", body).status, 204);
        let groups = groups::<3>(&site);
        let values: Vec<[&str; 2]> = groups.iter().map(|[class, outer, _]| [&**class, &**outer]).collect();
        let expected =
            [["seen", "SEEN"], ["rest-yz", "rest-yz/2"], ["other", "other/3"], ["seen", "SEEN"], ["rest-", "rest-/5"]];
        assert_eq!(values, expected);
        assert!(groups.iter().all(|[.., id]| *id == groups[0][2] && id.len() == 32), "{groups:?}");
        ids.push(groups[0][2].clone());
    }
    assert_ne!(ids[0], ids[1]);
}

const EARLY: &str = "
    map e-$event_kind $early { default $event_kind; e- none; }
    limit_req_zone $early zone=early:1m rate=10000r/s;
    map $arg_by $chosen { default fixed; event $event_kind; }
    server {
        listen 127.0.0.1:%PORT%;
        limit_req zone=early burst=10000 nodelay;
        location /early { meteorit_pass REDIS; meteorit_batch all; meteorit_command RPUSH list $early; }
        location /set { set $kept $early; meteorit_pass REDIS; meteorit_batch all; meteorit_command RPUSH list $early $kept; }
        location /chosen { meteorit_pass REDIS; meteorit_batch all; meteorit_command RPUSH list $chosen; }
    }";

#[test]
fn a_map_that_was_used_before_the_body_is_not_stale() {
    let site = Site::start(EARLY);
    for _ in 0..2 {
        assert_eq!(site.array("/early", r#"{"kind":"one"}"#).status, 204);
        assert_eq!(site.written(), ["one"]);
        assert_eq!(site.array("/early", r#"[{"kind":"a"},{},{"kind":"b"}]"#).status, 204);
        assert_eq!(site.written(), ["a", "none", "b"]);
        // What `set` has put into a variable stays.
        assert_eq!(site.array("/set", r#"[{"kind":"a"},{"kind":"b"}]"#).status, 204);
        assert_eq!(site.written(), ["a", "none", "b", "none"]);
    }
}

#[test]
fn a_map_that_reads_the_event_for_some_requests_only_is_not_stale_for_them() {
    let site = Site::start(EARLY);
    let body = r#"[{"kind":"a"},{"kind":"b"},{"kind":"c"}]"#;
    for _ in 0..2 {
        assert_eq!(site.array("/chosen", body).status, 204);
        assert_eq!(site.written(), ["fixed"; 3]);
        assert_eq!(site.array("/chosen?by=event", body).status, 204);
        assert_eq!(site.written(), ["a", "b", "c"]);
    }
}

#[test]
fn a_named_capture_of_one_event_does_not_reach_the_next() {
    let site = Site::start(
        "map $event_url $matched { default no; ~^https://[^/]+(?<path>/.*)$ yes; }
         server {
             listen 127.0.0.1:%PORT%;
             location / { meteorit_pass REDIS; meteorit_batch all; meteorit_command RPUSH list $matched [$path]; }
         }",
    );
    assert_eq!(site.array("/", r#"[{"url":"https://a/b"},{"url":"/c"},{"url":"https://a/d"}]"#).status, 204);
    assert_eq!(site.written(), ["yes", "[/b]", "no", "[]", "yes", "[/d]"]);
}

#[test]
fn each_event_has_an_id_that_is_the_same_in_the_stream_and_in_the_answer() {
    let site = Site::start(
        "map $meteorit_id $mapped { default $meteorit_id; }
         server {
             listen 127.0.0.1:%PORT%;
             location / {
                 meteorit_pass REDIS; meteorit_batch partial; meteorit_response json;
                 meteorit_field id $meteorit_id;
                 meteorit_command XADD stream * id $meteorit_id mapped $mapped event $event;
                 meteorit_command RPUSH list $meteorit_id;
             }
         }",
    );
    let body: String = (0..200).map(|n| if n % 3 == 1 { "7\n".into() } else { format!("{{\"n\":{n}}}\n") }).collect();
    let report = assert_report(&site.lines("/", &body), 207, 133, 67);
    let ids: Vec<String> = serde_json::from_value(report["ids"].clone()).expect("strings");
    assert!(ids.is_sorted_by(|one, next| one < next), "{ids:?}");
    assert!(ids.iter().all(|id| id.len() == 36 && id.as_bytes()[14] == b'7'), "{ids:?}");
    assert_eq!(site.written(), ids);
    let stream = site.redis.stream("stream");
    assert_eq!(stream.len(), ids.len());
    for ((_, fields), id) in stream.iter().zip(&ids) {
        let event: Value = serde_json::from_slice(&fields[5]).expect("an event");
        assert_eq!((&fields[1], &fields[3]), (&id.clone().into_bytes(), &id.clone().into_bytes()));
        assert_eq!(event["id"], **id);
    }
}

#[test]
fn an_events_own_id_is_the_one_in_the_answer() {
    let site = Site::start(
        "location / {
             meteorit_pass REDIS; meteorit_batch all; meteorit_response json; meteorit_event_id $event_id;
             meteorit_command RPUSH list $meteorit_id;
         }",
    );
    let report = assert_report(&site.array("/", r#"[{"id":"one \"1\""},{},{"id":3}]"#), 200, 3, 0);
    assert_eq!((&report["ids"][0], &report["ids"][2]), (&json!("one \"1\""), &json!("3")));
    assert_eq!(report["ids"][1].as_str().map(str::len), Some(36));
    let written: Vec<Value> = site.written().into_iter().map(Value::from).collect();
    assert_eq!(report["ids"], json!(written));
}

#[test]
fn if_is_asked_for_each_event() {
    let site = Site::start(
        "location /some {
             meteorit_pass REDIS; meteorit_batch all; meteorit_response json;
             meteorit_command if=$event_keep RPUSH list $event_n;
             meteorit_command if=$event_count INCRBY count $event_count;
         }",
    );
    let body =
        r#"[{"n":0,"keep":1},{"n":1},{"n":2,"keep":0},{"n":3,"keep":"","count":7},{"n":4,"keep":"yes","count":2}]"#;
    assert_report(&site.array("/some", body), 200, 5, 0);
    assert_eq!(site.written(), ["0", "4"]);
    assert_eq!(site.redis.get("count").as_deref(), Some(&b"9"[..]));
    // Nothing to write is no failure.
    assert_report(&site.array("/some", "[{},{}]"), 200, 2, 0);
    assert_eq!(site.written(), [""; 0]);
}

#[test]
fn variables_and_fields_are_made_of_each_event() {
    let site = Site::start(
        "location / {
             meteorit_pass REDIS; meteorit_batch all;
             meteorit_set $deep /a/b default=none; meteorit_time $year %Y;
             meteorit_field deep $deep; meteorit_field kind ''; meteorit_field request $request_id;
             meteorit_command RPUSH list $deep $event_n $event_kind $event_deep $event;
             meteorit_command HINCRBY hits:$year $deep 1;
         }",
    );
    let body = r#"[{"n":1,"a":{"b":"x"}},{"n":2,"kind":"gone"},{"n":3,"a":{"b":[1]},"deep":"theirs"}]"#;
    assert_eq!(site.array("/", body).status, 204);
    let groups = groups::<5>(&site);
    let values: Vec<[&str; 4]> = groups.iter().map(|group| [0, 1, 2, 3].map(|at| &*group[at])).collect();
    assert_eq!(values, [["x", "1", "", "x"], ["none", "2", "", "none"], ["[1]", "3", "", "[1]"]]);
    let request = serde_json::from_str::<Value>(&groups[0][4]).expect("an event")["request"].clone();
    for ([deep, n, .., event], kept) in groups.iter().zip([json!({"b": "x"}), json!(null), json!({"b": [1]})]) {
        let event: Value = serde_json::from_str(event).expect("an event");
        assert_eq!((&event["deep"], event["n"].to_string(), event.get("kind")), (&json!(deep), n.clone(), None));
        assert_eq!((&event["a"], &event["request"]), (&kept, &request));
    }
    let years: Vec<String> = site.redis.ask(&["KEYS", "hits:20*"]);
    assert_eq!(years.len(), 1, "{years:?}");
    let hits = site.redis.hash(&years[0]);
    assert_eq!(
        hits.into_iter().collect::<Vec<_>>(),
        ["[1]", "none", "x"].map(|deep| (deep.to_string(), "1".to_string()))
    );
}

#[test]
fn what_is_empty_in_a_key_is_the_fault_of_that_event_of_which_nothing_is_written() {
    let site = Site::start(
        "location / {
             meteorit_pass REDIS; meteorit_batch partial;
             meteorit_command RPUSH list $event_n;
             meteorit_command INCR hits:$event_page;
         }",
    );
    let body =
        r#"[{"n":0,"page":"a"},{"n":1},{"n":2,"page":""},{"n":3,"page":"a b"},{"n":4,"page":null},{"n":5,"page":"a"}]"#;
    let report = assert_report(&site.array("/", body), 207, 2, 4);
    assert_eq!(errors(&report), [1, 2, 3, 4].map(|index| (index, 422, String::new())));
    assert_eq!(site.written(), ["0", "5"]);
    assert_eq!(site.redis.get("hits:a").as_deref(), Some(&b"2"[..]));
}

/// A line that is an event, or nearly one.
fn random_line(random: &mut Random, n: usize) -> String {
    let texts = ["", "a", "view", "\\u00e9", "\u{1f600}", "x y", "}\\n{", "w", "[", "\\\"", "wrong", "nan"];
    let text = texts[random.below(texts.len())];
    let value =
        ["1", "-0.5e3", "null", "true", "[]", "{\"b\":[1,{}]}", "\"s\"", "12345678901234567890"][random.below(8)];
    let good = format!(r#"{{"n":{n}, "kind":"{text}","page":"p{}","value":{value}}}"#, random.below(3));
    match random.below(45) {
        0 => good[..1 + random.below(7)].to_owned(),
        1 => good.replacen(':', [" ", ",", "::"][random.below(3)], 1),
        2 => format!(r#"{{"n":{n},"page":"a","o":{{"x~/":1,"x~/":{value}}}}}"#),
        // An array alone would be a batch.
        3 => value.replace("[]", "false"),
        4 => format!(r#"{{"n":{n},"page":"a","pad":"{}"}}"#, "x".repeat(180 + random.below(20))),
        5 => format!(r#"{{"n":{n},"page":{}}}"#, ["\"\"", "null", "\"a b\"", "\"\\u0000\""][random.below(4)]),
        6 => format!(r#"{{"n":{n},"page":"a","deep":{}{}}}"#, "[".repeat(n % 9), "]".repeat(n % 9)),
        _ => good,
    }
}

/// What a Redis might say to a command, decided by the command alone.
fn reply_to(command: &[Vec<u8>]) -> Action {
    let last = String::from_utf8_lossy(command.last().expect("arguments")).into_owned();
    if last.contains("wrong") {
        Action::reply("-WRONGTYPE Operation against a key holding the wrong kind of value\r\n")
    } else if last.contains("nan") {
        Action::reply("-ERR value is not an integer or out of range\r\n")
    } else {
        Action::reply(":1\r\n")
    }
}

#[test]
fn any_batch_has_the_verdicts_and_the_commands_of_its_events_sent_one_by_one() {
    let fake = FakeRedis::start(|_, command| reply_to(command));
    let nginx = Nginx::builder()
        .http("map $event_kind $class { default other; view seen; ~^w $event_page; }")
        .server(
            &"location / {
                  meteorit_pass REDIS; meteorit_batch partial max=300;
                  meteorit_max_event_size 200; meteorit_max_depth 6;
                  meteorit_set $inner /value/b/0 default=-;
                  meteorit_field class $class;
                  meteorit_command HINCRBY hits:$event_page $class 1;
                  meteorit_command if=$event_value RPUSH list $inner $event_kind $event;
              }"
            .replace("REDIS", &fake.url()),
        )
        .start();
    let mut http = Http::connect(nginx.port());
    for seed in [1, 2, 3] {
        let mut random = Random(seed);
        let events: Vec<String> = (0..300).map(|n| random_line(&mut random, n)).collect();
        let from = fake.commands().len();
        let alone: Vec<Response> = events.iter().map(|event| http.post("/", event)).collect();
        let between = fake.commands().len();
        let report = http.call(&lines_request("/", &events.join("\n")));
        let commands: Vec<Vec<Vec<u8>>> = fake.commands().into_iter().map(|command| command.args).collect();

        let failed: Vec<_> = alone.iter().enumerate().filter(|(_, response)| response.status != 204).collect();
        assert!((20..=100).contains(&failed.len()), "{} of 300 fail: too few, or too many to be listed", failed.len());
        let report = assert_report(&report, 207, 300 - failed.len(), failed.len());
        assert_eq!(report["errors"].as_array().map(Vec::len), Some(failed.len()), "{report}");
        for ((index, response), error) in failed.iter().zip(report["errors"].as_array().expect("errors")) {
            let problem = response.json();
            assert_eq!(
                (&error["index"], &error["status"]),
                (&json!(index), &json!(response.status)),
                "{}",
                events[*index]
            );
            let pointer = problem.get("pointer").cloned().unwrap_or(json!(""));
            assert_eq!(error["pointer"], pointer, "{}", events[*index]);
            // Line and column are those in the body.
            let words = |value: &Value| {
                let detail = value["detail"].as_str().unwrap_or_default().to_owned();
                detail.split_once(" at line ").map_or(detail.clone(), |(words, _)| words.to_owned())
            };
            assert_eq!(words(error), words(&problem), "{}", events[*index]);
            if response.status == 400 {
                let place = format!("line {}, column {}", index + 1, problem["column"]);
                assert!(
                    error["detail"].as_str().is_some_and(|detail| detail.ends_with(&place)),
                    "{error}, not {place}"
                );
            }
        }
        assert_eq!(commands[from..between], commands[between..]);
        assert!(between - from > 400, "too few commands to tell");
    }
}
