//! What Redis says to a batch, or does not say: the answer names exactly the events that are stored.

use super::*;

fn site_with(fake: &FakeRedis, settings: &str) -> Nginx {
    Nginx::builder()
        .http(&format!("meteorit_redis queue {{ server {}; {settings} }}", fake.url()))
        .server(
            "location / { meteorit_pass queue; meteorit_command APPEND list $event; meteorit_batch partial; }
             location /two {
                 meteorit_pass queue; meteorit_batch partial;
                 meteorit_command RPUSH list $event_n; meteorit_command INCR count:$event_n;
             }",
        )
        .start()
}

fn events(count: usize) -> String {
    (0..count).map(|n| format!("{{\"n\":{n}}}\n")).collect()
}

/// Whether the command is about the event with this number.
fn is_about(command: &[Vec<u8>], n: usize) -> bool {
    let last = command.last().expect("arguments");
    *last == format!("{{\"n\":{n}}}").into_bytes() || *last == n.to_string().into_bytes()
}

#[test]
fn what_redis_refuses_is_the_failure_of_those_events() {
    let site = Site::start(
        "location / {
             meteorit_pass REDIS; meteorit_batch partial; meteorit_response json;
             meteorit_command HINCRBY $event_key sum $event_by;
         }",
    );
    site.redis.cmd(&["SET", "text", "x"]);
    let body = r#"[{"key":"h","by":1},{"key":"text","by":1},{"key":"h","by":"many"},7,{"key":"h","by":4}]"#;
    let report = assert_report(&site.array("/", body), 207, 2, 3);
    assert_eq!(errors(&report), [(1, 502, "".into()), (2, 422, "".into()), (3, 422, "".into())]);
    assert_eq!(report["errors"][1]["detail"], "ERR value is not an integer or out of range");
    assert!(report["errors"][0]["detail"].as_str().is_some_and(|detail| detail.contains("WRONGTYPE")), "{report}");
    assert_eq!(site.redis.hash("h")["sum"], "5");

    let report = assert_report(&site.array("/", r#"[{"key":"text","by":1},{"key":"h","by":"many"}]"#), 502, 0, 2);
    assert_eq!(report["stored"], json!([]));
    assert_report(&site.array("/", r#"[{"key":"h","by":"many"}]"#), 422, 0, 1);
    // The one is JSON and rejected by Redis: not all of them are 400.
    assert_report(&site.lines("/", "{\"key\":\"h\",\"by\":\"many\"}\n{"), 422, 0, 2);
    assert_eq!(site.redis.hash("h")["sum"], "5");
}

#[test]
fn one_refused_command_of_an_event_is_its_failure_once() {
    let site = Site::start(
        "location / {
             meteorit_pass REDIS; meteorit_batch partial;
             meteorit_command RPUSH list $event_n;
             meteorit_command INCR $event_key;
             meteorit_command RPUSH after $event_n;
         }",
    );
    site.redis.cmd(&["RPUSH", "other", "x"]);
    let body = r#"[{"n":0,"key":"k"},{"n":1,"key":"other"},{"n":2,"key":"k"}]"#;
    let report = assert_report(&site.array("/", body), 207, 2, 1);
    assert_eq!(errors(&report), [(1, 502, "".into())]);
    assert_eq!(site.written(), ["0", "1", "2"]);
    assert_eq!(site.redis.get("k").as_deref(), Some(&b"2"[..]));
    assert_eq!(site.redis.len("after"), 3);
}

#[test]
fn a_full_redis_takes_nothing_and_the_client_may_come_again() {
    let site = Site::start("location / { PASS meteorit_batch partial; }");
    site.redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    let report = assert_report(&site.array("/", "[{},7,{}]"), 503, 0, 1);
    assert_eq!(errors(&report), [(0, 503, "".into()), (1, 422, "".into()), (2, 503, "".into())]);
    assert_eq!(report["stored"], json!([]));
    assert_eq!(site.array("/", "[{},{}]").header("Retry-After"), Some("1"));
    site.redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(site.written(), [""; 0]);
    assert_eq!(site.array("/", "[{},{}]").status, 204);
}

#[test]
fn a_redis_that_is_away_gets_nothing() {
    let fake = FakeRedis::start(|_, _| Action::Default);
    fake.stop_listening();
    let nginx = site_with(&fake, "connect_timeout 1s;");
    for _ in 0..3 {
        let response = lines(nginx.port(), "/", &events(3));
        assert_eq!(response.status, 503, "{}", response.text());
        assert!(response.header("Retry-After").is_some_and(|value| value.parse::<u32>().is_ok_and(|time| time > 0)));
    }
    // What is wrong with the events is said all the same.
    assert_eq!(lines(nginx.port(), "/", "7\n").status, 422);
    assert_eq!(fake.commands().len(), 0);
}

#[test]
fn what_redis_refused_for_now_beside_what_it_stored_is_504_with_what_is_stored() {
    let fake = FakeRedis::start(|_, command| match is_about(command, 1) || is_about(command, 4) {
        true => Action::reply("-OOM command not allowed when used memory > 'maxmemory'.\r\n"),
        false => Action::reply(":1\r\n"),
    });
    let nginx = site_with(&fake, "");
    let response = lines(nginx.port(), "/", &events(5).replace("{\"n\":2}", "7"));
    let report = assert_report(&response, 504, 2, 1);
    assert_eq!(report["stored"], json!([0, 3]));
    assert_eq!(errors(&report), [(1, 503, "".into()), (2, 422, "".into()), (4, 503, "".into())]);
    assert_eq!(response.header("Retry-After"), None, "a retry would write some of them twice");
}

#[test]
fn a_connection_lost_in_the_middle_is_504_with_what_is_stored() {
    for exit in [Action::Close, Action::Reset] {
        let fake = FakeRedis::start(move |_, command| match is_about(command, 3) {
            true => Action::after(Duration::from_millis(50), exit.clone()),
            false => Action::reply(":1\r\n"),
        });
        let nginx = site_with(&fake, "timeout 60s; stall_timeout 60s;");
        let report = assert_report(&lines(nginx.port(), "/", &events(6).replacen("{\"n\":1}", "7", 1)), 504, 2, 1);
        assert_eq!(report["stored"], json!([0, 2]));
        let expected = [(1, 422, "".into()), (3, 504, "".into()), (4, 504, "".into()), (5, 504, "".into())];
        assert_eq!(errors(&report), expected);
        eventually(SOON, || lines(nginx.port(), "/", &events(3)).status == 204);
        let again = fake.commands().iter().filter(|command| is_about(&command.args, 5)).count();
        assert!(again <= 1, "what may have been written must not be sent again");
    }
}

#[test]
fn with_two_commands_each_the_events_before_the_loss_are_stored() {
    let fake = FakeRedis::start(|_, command| match is_about(command, 3) {
        true => Action::after(Duration::from_millis(50), Action::Close),
        false => Action::reply(":1\r\n"),
    });
    let nginx = site_with(&fake, "timeout 60s; stall_timeout 60s;");
    let report = assert_report(&lines(nginx.port(), "/two", &events(5)), 504, 3, 0);
    assert_eq!(report["stored"], json!([0, 1, 2]));
    assert_eq!(errors(&report), [3, 4].map(|index| (index, 504, String::new())));
}

#[test]
fn an_event_of_which_only_a_part_is_stored_is_not_stored() {
    let fake = FakeRedis::start(|_, command| match command[0] == b"INCR" && command[1] == b"count:2" {
        true => Action::after(Duration::from_millis(50), Action::Close),
        false => Action::reply(":1\r\n"),
    });
    let nginx = site_with(&fake, "timeout 60s; stall_timeout 60s;");
    let report = assert_report(&lines(nginx.port(), "/two", &events(4)), 504, 2, 0);
    assert_eq!(report["stored"], json!([0, 1]));
    assert_eq!(errors(&report), [2, 3].map(|index| (index, 504, String::new())));
}

#[test]
fn a_deadline_is_504_with_what_is_stored_and_late_replies_are_nobodys() {
    let fake = FakeRedis::start(|_, command| match is_about(command, 2) {
        true => Action::Hold,
        false => Action::reply(":1\r\n"),
    });
    let nginx = site_with(&fake, "timeout 400ms; stall_timeout 60s;");
    let report = assert_report(&lines(nginx.port(), "/", &events(5)), 504, 2, 0);
    assert_eq!(report["stored"], json!([0, 1]));
    assert_eq!(errors(&report), [2, 3, 4].map(|index| (index, 504, String::new())));
    let late = "-ERR value is not an integer or out of range\r\n";
    fake.set_handler(|_, _| Action::reply(":1\r\n"));
    fake.release_all(Action::reply(late));
    for _ in 0..3 {
        assert_eq!(lines(nginx.port(), "/", &events(5)).status, 204);
    }
    assert_eq!(fake.connections(), 1);
}

#[test]
fn a_batch_is_one_pipeline_in_order() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = site_with(&fake, "timeout 60s; stall_timeout 60s;");
    let mut http = Http::connect(nginx.port());
    http.send_raw(&lines_request("/two", &events(500)).to_bytes());
    // None of them waits for the reply to another.
    let held = fake.wait_held(1000);
    let commands: Vec<String> = held.iter().map(|held| held.command.text()).collect();
    let expected = (0..500).flat_map(|n| [format!("RPUSH list {n}"), format!("INCR count:{n}")]);
    assert!(commands.iter().cloned().eq(expected), "{commands:?}");
    fake.release_all(Action::reply(":1\r\n"));
    assert_eq!(http.read_response().status, 204);
    assert_eq!(fake.connections(), 1);
}

#[test]
fn redis_reads_a_batch_in_few_pieces() {
    let site = Site::start("location / { PASS meteorit_batch all; }");
    assert_eq!(site.array("/", "{}").status, 204);
    let reads = || site.redis.info("total_reads_processed").parse::<usize>().expect("a number");
    // What the look itself costs.
    let (first, second) = (reads(), reads());
    assert_eq!(site.lines("/", &events(300)).status, 204);
    let used = reads() - second - (second - first);
    assert!(used <= 10, "{used} reads for 300 events");
    assert_eq!(site.redis.len("list"), 301);
}

#[test]
fn batches_and_single_events_of_many_clients_keep_their_own_answers() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let nginx = site_with(&fake, "timeout 60s; stall_timeout 60s;");
    let mut clients = Vec::new();
    for round in 0..6 {
        let mut http = Http::connect(nginx.port());
        let request = if round % 2 == 0 { lines_request("/", &events(3)) } else { Request::post("/", "{\"n\":0}") };
        http.send_raw(&request.to_bytes());
        fake.wait_held(clients.len() / 2 * 4 + if round % 2 == 0 { 3 } else { 4 });
        clients.push(http);
    }
    // The second event of the second batch, and the third client's neighbour.
    for number in 0..12 {
        let refused = number == 5 || number == 7;
        let reply = if refused { "-WRONGTYPE Operation\r\n" } else { ":1\r\n" };
        fake.release(0, Action::reply(reply));
    }
    let answers: Vec<Response> = clients.iter_mut().map(Http::read_response).collect();
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [204, 204, 207, 502, 204, 204]);
    assert_eq!(errors(&answers[2].json()), [(1, 502, "".into())]);
}
