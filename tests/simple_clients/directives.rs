//! The directives that say how events come and how they are answered: mistakes are found when nginx reads them, and what
//! is set outside holds inside.

use super::*;

#[track_caller]
fn assert_refused(directive: &str, message: &str) {
    let text = format!("location / {{\nmeteorit_pass redis://127.0.0.1; meteorit_command PING x;\n{directive}\n}}");
    Nginx::test(&text).assert_refused(message, directive.lines().last().unwrap_or_default());
}

#[test]
fn mistakes_in_meteorit_methods() {
    let expected = "in \"meteorit_methods\" directive: expected POST, PUT, GET or HEAD";
    for word in ["DELETE", "get", "Post", "\"\"", "POST,PUT", "$request_method"] {
        let shown = word.trim_matches('"');
        assert_refused(&format!("meteorit_methods PUT {word};"), &format!("invalid value \"{shown}\" {expected}"));
    }
    assert_refused("meteorit_methods GET POST GET;", "\"GET\" is given twice in \"meteorit_methods\" directive");
    assert_refused("meteorit_methods;", "invalid number of arguments in \"meteorit_methods\" directive");
    assert_refused("meteorit_methods GET;\nmeteorit_methods POST;", "\"meteorit_methods\" directive is duplicate");
}

#[test]
fn mistakes_in_meteorit_response() {
    let expected = "in \"meteorit_response\" directive: expected \"none\" or \"json\" or \"pixel\"";
    for word in ["gif", "JSON", "on", "\"\"", "$arg_style"] {
        let shown = word.trim_matches('"');
        assert_refused(&format!("meteorit_response {word};"), &format!("invalid value \"{shown}\" {expected}"));
    }
    assert_refused("meteorit_response;", "invalid number of arguments in \"meteorit_response\" directive");
    assert_refused("meteorit_response json pixel;", "invalid number of arguments in \"meteorit_response\" directive");
    assert_refused("meteorit_response none;\nmeteorit_response json;", "\"meteorit_response\" directive is duplicate");
}

#[test]
fn mistakes_in_meteorit_batch() {
    let expected = "in \"meteorit_batch\" directive: expected \"off\" or \"all\" or \"partial\"";
    for word in ["on", "ALL", "\"\"", "max=3", "$arg_batch"] {
        let shown = word.trim_matches('"');
        assert_refused(&format!("meteorit_batch {word};"), &format!("invalid value \"{shown}\" {expected}"));
    }
    let expected = "in \"meteorit_batch\" directive: expected \"max=\" and a number from 1 to 1000000";
    for word in
        ["max=0", "max=", "max=-1", "max=1k", "max=1000001", "max=99999999999999999999", "1000", "partial", "maximum=3"]
    {
        assert_refused(&format!("meteorit_batch all {word};"), expected);
    }
    assert_refused("meteorit_batch;", "invalid number of arguments in \"meteorit_batch\" directive");
    assert_refused("meteorit_batch all max=1 max=2;", "invalid number of arguments in \"meteorit_batch\" directive");
    assert_refused("meteorit_batch off;\nmeteorit_batch all;", "\"meteorit_batch\" directive is duplicate");
    for good in ["off", "all max=1", "partial max=1000000", "all"] {
        let location = "location / { meteorit_pass redis://127.0.0.1; meteorit_command PING x; meteorit_batch";
        Nginx::test(&format!("{location} {good}; }}")).assert_ok();
    }
}

#[test]
fn mistakes_in_meteorit_max_body_size() {
    let expected = "in \"meteorit_max_body_size\" directive: expected a size from 2 bytes to 256m";
    for word in ["0", "1", "257m", "1g", "-1", "many", "\"\"", "$arg_size", "99999999999999999999"] {
        let shown = word.trim_matches('"');
        assert_refused(&format!("meteorit_max_body_size {word};"), &format!("invalid value \"{shown}\" {expected}"));
    }
    let arguments = "invalid number of arguments in \"meteorit_max_body_size\" directive";
    assert_refused("meteorit_max_body_size;", arguments);
    assert_refused("meteorit_max_body_size 1k 2k;", arguments);
    let duplicate = "\"meteorit_max_body_size\" directive is duplicate";
    assert_refused("meteorit_max_body_size 1k;\nmeteorit_max_body_size 2k;", duplicate);
}

#[test]
fn they_stand_where_settings_stand() {
    for directive in
        ["meteorit_methods GET;", "meteorit_response json;", "meteorit_batch all;", "meteorit_max_body_size 1k;"]
    {
        let name = directive.split(' ').next().expect("a name");
        let outside = Nginx::builder().main(directive).test();
        outside.assert_refused(&format!("\"{name}\" directive is not allowed here"), directive);
        let in_if = Nginx::test(&format!("location / {{ if ($arg_a) {{\n{directive}\n}} }}"));
        in_if.assert_refused(&format!("\"{name}\" directive is not allowed here"), directive);
        Nginx::builder()
            .http(directive)
            .server(directive)
            .server(&format!("location / {{ {directive} }}"))
            .test()
            .assert_ok();
    }
}

#[test]
fn they_are_inherited_until_a_level_says_otherwise() {
    let redis = Redis::start();
    let pass = format!("meteorit_pass {}; meteorit_command RPUSH list $event;", redis.url());
    let nginx = Nginx::start(
        &"meteorit_methods GET POST; meteorit_response json; meteorit_batch partial max=2; meteorit_max_body_size 20;
          server {
              listen 127.0.0.1:%PORT%;
              location /http { PASS }
              location /own {
                  PASS meteorit_methods POST; meteorit_response none; meteorit_batch off; meteorit_max_body_size 100;
              }
              location /outer {
                  meteorit_response pixel; meteorit_batch all max=3; meteorit_max_body_size 30;
                  location /outer/inner { PASS if ($arg_x) { add_header X-If yes always; } }
              }
          }
          server {
              listen 127.0.0.1:%PORT2%;
              meteorit_methods POST PUT HEAD; meteorit_batch all;
              location /server { PASS }
          }"
        .replace("PASS", &pass),
    );
    let kind = |response: Response| (response.status, response.header("Content-Type").unwrap_or_default().to_owned());
    let allow = |port: u16, path: &str| {
        let response = Http::connect(port).request("DELETE", path, &[], "");
        response.header("Allow").unwrap_or_default().to_owned()
    };
    let (first, second) = (nginx.port(), nginx.port_n(2));
    let (problem, answer, pixel) = ("application/problem+json", "application/json", "image/gif");

    assert_eq!(allow(first, "/http"), "GET, POST");
    assert_eq!(kind(post(first, "/http", "[{},7]")), (207, answer.into()));
    assert_eq!(kind(post(first, "/http", "[1,{},{}]")), (413, problem.into()));
    assert_eq!(kind(post(first, "/http", "[{},{}             ]")), (200, answer.into()));
    assert_eq!(kind(post(first, "/http", "[{},{}              ]")), (413, problem.into()));

    assert_eq!(allow(first, "/own"), "POST");
    assert_eq!(kind(post(first, "/own", "[{}]")), (422, problem.into()));
    assert_eq!(kind(post(first, "/own", "{}")).0, 204);
    assert_eq!(kind(post(first, "/own", "{\"a\":\"                      \"}")).0, 204);

    assert_eq!(allow(first, "/outer/inner"), "GET, POST");
    for path in ["/outer/inner", "/outer/inner?x=1"] {
        assert_eq!(kind(post(first, path, "[{},{},{}]")), (200, pixel.into()));
        assert_eq!(kind(post(first, path, "[{},{},7]")), (422, pixel.into()));
        assert_eq!(kind(post(first, path, "[{},{},{},{}]")), (413, pixel.into()));
        assert_eq!(kind(post(first, path, "[{},{}                        ]")), (413, pixel.into()));
    }
    assert_eq!(get(first, "/outer/inner?x=1").header("X-If"), Some("yes"));

    assert_eq!(allow(second, "/server"), "HEAD, POST, PUT");
    assert_eq!(kind(post(second, "/server", "[{},7]")), (422, problem.into()));
    assert_eq!(kind(post(second, "/server", "[{},{}]")), (200, answer.into()));
    assert_eq!(kind(post(second, "/server", "[{},{},{}]")), (200, answer.into()));
    assert_eq!(kind(post(second, "/server", "[{},{}              ]")), (413, problem.into()));
}
