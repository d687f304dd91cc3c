//! An event has to fit the schema that its location says, and is told where it does not; a schema that cannot serve stops `nginx -t`.

mod common;

use common::*;
use serde_json::{Value, json};

const VIEW: &str = r#"{"type":"object","required":["page"],"additionalProperties":false,"properties":{
    "type":{"const":"view"},"page":{"type":"string","maxLength":8},"n":{"type":"integer","minimum":1},
    "tags":{"type":"array","items":{"enum":["a","b"]}}}}"#;

fn start(location: &str, files: &[(&str, &str)]) -> (Redis, Nginx) {
    let redis = Redis::start();
    let server =
        format!("location / {{ meteorit_pass {}; meteorit_command RPUSH list $event; {location} }}", redis.url());
    let mut builder = Nginx::builder().server(&server);
    for (name, text) in files {
        builder = builder.file(name, *text);
    }
    (redis, builder.start())
}

/// `pointer` and `detail` of each error.
fn errors(answer: &Response) -> Vec<(String, String)> {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let errors = answer.json()["errors"].as_array().expect("errors").clone();
    errors.iter().map(|error| (text(&error["pointer"]), text(&error["detail"]))).collect()
}

#[test]
fn an_event_that_does_not_fit_is_told_where_and_nothing_of_it_shows() {
    let (redis, nginx) = start("meteorit_schema view.json;", &[("view.json", VIEW)]);
    let mut http = Http::connect(nginx.port());
    for event in [r#"{"page":"/a"}"#, r#"{"page":"/a","n":1.0,"tags":["a","b"]}"#] {
        assert_eq!(http.post("/", event).status, 204, "{event}");
    }
    let answer = http.post("/", r#"{"page":"/s3cret-page","n":0,"tags":["a","s3cret"],"more":"s3cret"}"#);
    assert_eq!(answer.status, 422);
    let pointers: Vec<String> = errors(&answer).into_iter().map(|(pointer, _)| pointer).collect();
    for pointer in ["/page", "/n", "/tags/1", "/more"] {
        assert!(pointers.contains(&pointer.to_owned()), "{pointer} is not in {pointers:?}");
    }
    assert!(!answer.text().contains("s3cret"), "{}", answer.text());
    assert!(!nginx.error_log().contains("s3cret"), "{}", nginx.error_log());
    assert_eq!(errors(&http.post("/", "{}")).len(), 1, "page is required");
    assert_eq!(http.post("/", "{").status, 400, "no JSON comes first");
    assert_eq!(redis.len("list"), 2);
}

#[test]
fn both_drafts_are_known_and_read_their_own_words() {
    let draft7 =
        r#"{"$schema":"http://json-schema.org/draft-07/schema#","properties":{"a":{"items":[{"type":"string"}]}}}"#;
    let draft2020 = r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","properties":{"a":{"prefixItems":[{"type":"string"}]}}}"#;
    for schema in [draft7, draft2020] {
        let (_redis, nginx) = start("meteorit_schema s.json;", &[("s.json", schema)]);
        assert_eq!(post(nginx.port(), "/", r#"{"a":["x"]}"#).status, 204);
        assert_eq!(errors(&post(nginx.port(), "/", r#"{"a":[1]}"#))[0].0, "/a/0");
    }
}

#[test]
fn a_value_chooses_the_schema() {
    let by = "meteorit_schema_by $event_type { view view.json; ping accept; spam reject; }";
    let (redis, nginx) = start(by, &[("view.json", VIEW)]);
    let mut http = Http::connect(nginx.port());
    for (event, status) in [
        (r#"{"type":"view","page":"/a"}"#, 204),
        (r#"{"type":"view"}"#, 422),
        (r#"{"type":"ping","anything":[]}"#, 204),
        (r#"{"type":"spam"}"#, 422),
        (r#"{"type":"unheard of"}"#, 422),
        ("{}", 422),
    ] {
        assert_eq!(http.post("/", event).status, status, "{event}");
    }
    assert_eq!(redis.len("list"), 2);
    let (_redis, nginx) = start("meteorit_schema_by $event_type { spam reject; default accept; }", &[]);
    assert_eq!(post(nginx.port(), "/", "{}").status, 204);
}

#[test]
fn each_event_of_a_batch_has_its_own_schema() {
    let batch = "meteorit_batch partial; meteorit_response json;
        meteorit_schema_by $event_type { view view.json; ping accept; }";
    let (redis, nginx) = start(batch, &[("view.json", VIEW)]);
    let answer = post(nginx.port(), "/", r#"[{"type":"ping"},{"type":"view","page":1},{"type":"view","page":"/"}]"#);
    assert_eq!(answer.status, 207);
    let answer = answer.json();
    assert_eq!((&answer["accepted"], &answer["rejected"]), (&json!(2), &json!(1)));
    assert_eq!((&answer["errors"][0]["index"], &answer["errors"][0]["pointer"]), (&json!(1), &json!("/page")));
    assert_eq!(redis.len("list"), 2);
}

#[test]
fn a_dry_run_takes_the_event_and_says_so() {
    let (redis, nginx) = start("meteorit_schema view.json; meteorit_schema_dry_run on;", &[("view.json", VIEW)]);
    assert_eq!(post(nginx.port(), "/", r#"{"n":"s3cret"}"#).status, 204);
    assert!(nginx.wait_log("schema, dry run").contains("[info]"));
    assert!(!nginx.error_log().contains("s3cret"));
    assert_eq!(redis.len("list"), 1);
}

#[test]
fn the_schema_sees_what_the_client_sent_and_commands_what_was_made_of_it() {
    let (redis, nginx) =
        start("meteorit_schema view.json; meteorit_field more x; meteorit_field page \"\";", &[("view.json", VIEW)]);
    assert_eq!(post(nginx.port(), "/", r#"{"page":"/a"}"#).status, 204);
    assert_eq!(redis.list("list"), [br#"{"more":"x"}"#]);
}

#[test]
fn references_lead_to_files_beside_the_schema_and_nowhere_else() {
    let good = r##"{"properties":{"a":{"$ref":"parts/number.json#/definitions/n"}}}"##;
    let part = r#"{"definitions":{"n":{"type":"number"}}}"#;
    let files = [("s/good.json", good), ("s/parts/number.json", part)];
    let (_redis, nginx) = start("meteorit_schema s/good.json;", &files);
    assert_eq!(post(nginx.port(), "/", r#"{"a":1}"#).status, 204);
    assert_eq!(errors(&post(nginx.port(), "/", r#"{"a":"x"}"#))[0].0, "/a");
    for reference in
        ["../outside.json", "/etc/passwd", "http://127.0.0.1/x.json", "https://example.com/x.json", "absent.json"]
    {
        let schema = format!(r#"{{"properties":{{"a":{{"$ref":"{reference}"}}}}}}"#);
        let location =
            "location / { meteorit_pass redis://127.0.0.1; meteorit_command PING;\nmeteorit_schema s/bad.json;\n}";
        let builder = Nginx::builder().server(location).file("s/bad.json", schema.as_str()).file("outside.json", "{}");
        let test = builder.test();
        assert!(!test.ok && test.output.contains("bad.json"), "{reference}: {}", test.output);
        assert!(test.output.contains(&test.at("meteorit_schema s/bad.json;")), "{reference}: {}", test.output);
    }
}

#[test]
fn a_schema_that_cannot_serve_stops_nginx_t() {
    for (schema, why) in
        [("{\"type\":\n 12}", "/type"), ("{\"type\":\n", "line 2"), ("{\"pattern\": \"(\"}", "/pattern")]
    {
        let location =
            "location / { meteorit_pass redis://127.0.0.1; meteorit_command PING;\nmeteorit_schema s.json;\n}";
        let test = Nginx::builder().server(location).file("s.json", schema).test();
        assert!(!test.ok && test.output.contains("s.json") && test.output.contains(why), "{schema}: {}", test.output);
    }
    for (directives, why) in [
        ("meteorit_schema absent.json;", "absent.json"),
        ("meteorit_schema s.json; meteorit_schema_by $event_a { default accept; }", "one \"meteorit_schema\""),
        ("meteorit_schema_by $event_a { a accept; a reject; }", "twice"),
        ("meteorit_schema_by $event_a { a; }", "meteorit_schema_by"),
    ] {
        let location = format!("location / {{ meteorit_pass redis://127.0.0.1; meteorit_command PING; {directives} }}");
        let test = Nginx::builder().server(&location).file("s.json", "{}").test();
        assert!(!test.ok && test.output.contains(why), "{directives}: {}", test.output);
    }
}

#[test]
fn a_pattern_that_backtracks_elsewhere_takes_linear_time_here() {
    let schema = r#"{"properties":{"a":{"pattern":"^(a+)+$"}}}"#;
    let (_redis, nginx) = start("meteorit_schema s.json;", &[("s.json", schema)]);
    let worker = nginx.worker_pids();
    let event = format!(r#"{{"a":"{}b"}}"#, "a".repeat(50_000));
    assert_eq!(errors(&post(nginx.port(), "/", event))[0].0, "/a");
    assert_eq!(nginx.worker_pids(), worker);
}
