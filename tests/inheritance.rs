//! The directives are inherited and combined as nginx users expect, and the location works with nginx's other modules as any other does.

mod common;

use common::*;
use std::time::{Duration, Instant};

impl Site {
    fn start(text: &str) -> Site {
        Site::with(text, |builder| builder)
    }

    fn with(text: &str, change: impl FnOnce(NginxBuilder) -> NginxBuilder) -> Site {
        let builder = Nginx::builder().log_format("$request_uri $status $meteorit_status $meteorit_redis_time");
        Site::of(change(builder), text)
    }

    /// The status of an event sent there.
    #[track_caller]
    fn post(&self, path: &str) -> u16 {
        post(self.nginx.port(), path, "{}").status
    }

    /// What became of an event sent there: the status, and how many elements each list got.
    #[track_caller]
    fn put_into<const N: usize>(&self, method: &str, path: &str, lists: [&str; N]) -> (u16, [usize; N]) {
        self.redis.cmd(&["FLUSHDB"]);
        let status = Http::connect(self.nginx.port()).request(method, path, &[], "{}").status;
        (status, lists.map(|list| self.redis.len(list)))
    }
}

#[test]
fn commands_are_inherited_until_a_level_has_its_own() {
    let site = Site::start(
        "meteorit_command RPUSH http $event;
         meteorit_command RPUSH http2 $event;
         server {
             listen 127.0.0.1:%PORT%;
             location /http { meteorit_pass REDIS; }
             location /own { meteorit_pass REDIS; meteorit_command RPUSH own $event; }
             location /outer {
                 meteorit_command RPUSH outer $event;
                 location /outer/inner { meteorit_pass REDIS; }
                 location /outer/own { meteorit_pass REDIS; meteorit_command RPUSH own $event; }
             }
         }
         server {
             listen 127.0.0.1:%PORT2%;
             location /server { meteorit_pass REDIS; }
             meteorit_command RPUSH server $event;
         }",
    );
    let lists = ["http", "http2", "own", "outer", "server"];
    assert_eq!(site.put_into("POST", "/http", lists), (204, [1, 1, 0, 0, 0]));
    assert_eq!(site.put_into("POST", "/own", lists), (204, [0, 0, 1, 0, 0]));
    assert_eq!(site.put_into("POST", "/outer/inner", lists), (204, [0, 0, 0, 1, 0]));
    assert_eq!(site.put_into("POST", "/outer/own", lists), (204, [0, 0, 1, 0, 0]));
    site.redis.cmd(&["FLUSHDB"]);
    assert_eq!(post(site.nginx.port_n(2), "/server", "{}").status, 204);
    assert_eq!(lists.map(|list| site.redis.len(list)), [0, 0, 0, 0, 1]);
}

#[test]
fn commands_run_in_the_order_they_are_given() {
    let site = Site::start(
        "location / {
             meteorit_pass REDIS;
             meteorit_command SET key first;
             meteorit_command APPEND key -second;
             meteorit_command if=1 APPEND key -third;
             meteorit_command APPEND key -fourth;
         }",
    );
    assert_eq!(site.post("/"), 204);
    assert_eq!(site.redis.get("key").unwrap(), b"first-second-third-fourth");
}

#[test]
fn an_if_in_a_location_goes_on_where_its_location_goes() {
    let site = Site::start(
        "location /events {
             meteorit_pass REDIS;
             meteorit_command RPUSH plain $event;
             if ($arg_kind = special) { meteorit_command RPUSH special $event; }
             if ($arg_kind = header) { add_header X-Kind header always; }
         }",
    );
    let lists = ["plain", "special"];
    assert_eq!(site.put_into("POST", "/events", lists), (204, [1, 0]));
    assert_eq!(site.put_into("POST", "/events?kind=special", lists), (204, [0, 1]));
    assert_eq!(site.put_into("POST", "/events?kind=header", lists), (204, [1, 0]));
    let response = post(site.nginx.port(), "/events?kind=header", "{}");
    assert_eq!(response.header("X-Kind"), Some("header"));
    assert_eq!(site.put_into("GET", "/events?kind=special", lists), (405, [0, 0]));
}

#[test]
fn an_if_can_take_events_where_its_location_does_not() {
    let site = Site::start(
        "location /a {
             empty_gif;
             meteorit_command RPUSH list $event;
             if ($arg_to = redis) { meteorit_pass REDIS; }
         }
         location /b {
             meteorit_command RPUSH list $event;
             meteorit_pass REDIS;
             if ($arg_db = 1) { meteorit_pass REDIS/1; }
         }",
    );
    assert_eq!(site.put_into("POST", "/a?to=redis", ["list"]), (204, [1]));
    assert_eq!(site.put_into("POST", "/a", ["list"]), (405, [0]));
    assert_eq!(site.put_into("POST", "/b", ["list"]), (204, [1]));
    assert_eq!(site.put_into("POST", "/b?db=1", ["list"]), (204, [0]));
    assert_eq!(site.redis.ask::<u64>(&["MOVE", "list", "1"]), 0);
    let keys: String = site.redis.info("db1");
    assert!(keys.starts_with("keys=1,"), "{keys}");
}

#[test]
fn limit_except_goes_on_where_its_location_goes() {
    let site = Site::start(
        "location /denied {
             meteorit_pass REDIS; meteorit_command RPUSH list $event;
             limit_except POST { deny all; }
         }
         location /allowed {
             meteorit_pass REDIS; meteorit_command RPUSH list $event;
             limit_except POST { allow all; }
         }
         location /elsewhere {
             meteorit_pass REDIS; meteorit_command RPUSH list $event;
             limit_except POST { meteorit_pass REDIS/1; }
         }",
    );
    assert_eq!(site.put_into("POST", "/denied", ["list"]), (204, [1]));
    assert_eq!(site.put_into("PUT", "/denied", ["list"]), (403, [0]));
    assert_eq!(site.put_into("GET", "/denied", ["list"]), (403, [0]));
    assert_eq!(site.put_into("POST", "/allowed", ["list"]), (204, [1]));
    assert_eq!(site.put_into("PUT", "/allowed", ["list"]), (204, [1]));
    assert_eq!(site.put_into("GET", "/allowed", ["list"]), (405, [0]));
    assert_eq!(site.put_into("POST", "/elsewhere", ["list"]), (204, [1]));
    assert_eq!(site.put_into("PUT", "/elsewhere", ["list"]), (204, [0]));
    assert!(site.redis.info("db1").starts_with("keys=1,"));
}

#[test]
fn limit_except_keeps_a_handler_of_its_own() {
    let site = Site::with(
        "location /events {
             meteorit_pass REDIS; meteorit_command RPUSH list $event;
             limit_except POST { proxy_pass http://127.0.0.1:%PORT2%; }
         }",
        |builder| builder.http(PAGE),
    );
    assert_eq!(site.put_into("POST", "/events", ["list"]), (204, [1]));
    let response = Http::connect(site.nginx.port()).request("PUT", "/events", &[], "{}");
    assert_eq!((response.status, response.text().as_str()), (200, "page"));
}

#[test]
fn a_location_in_a_location_does_not_inherit_meteorit_pass() {
    let site = Site::start(
        "location /a {
             meteorit_pass REDIS;
             meteorit_command RPUSH list $event;
             location /a/inner { empty_gif; }
             location /a/answer { default_type text/plain; return 200 inner; }
             location /a/own { meteorit_pass REDIS; }
         }",
    );
    assert_eq!(site.put_into("POST", "/a/x", ["list"]), (204, [1]));
    assert_eq!(site.put_into("POST", "/a/inner", ["list"]), (405, [0]));
    assert_eq!(site.put_into("GET", "/a/inner", ["list"]), (200, [0]));
    assert_eq!(site.put_into("POST", "/a/answer", ["list"]), (200, [0]));
    assert_eq!(site.put_into("POST", "/a/own", ["list"]), (204, [1]));
}

#[test]
fn a_location_takes_events_whatever_kind_it_is() {
    let site = Site::start(
        r"meteorit_command RPUSH list $uri;
          location = /exact { meteorit_pass REDIS; }
          location /prefix/ { meteorit_pass REDIS; }
          location ^~ /first/ { meteorit_pass REDIS; }
          location ~ ^/regex/\d+$ { meteorit_pass REDIS; }
          location @named { meteorit_pass REDIS; }
          location /try { try_files /nothing @named; }",
    );
    let paths = ["/exact", "/prefix/a", "/first/b", "/regex/12", "/try"];
    assert_eq!(paths.map(|path| site.post(path)), [204; 5]);
    assert_eq!(site.list("list"), paths);
    // A prefix location of proxied content redirects to itself with a slash; ours has no such meaning.
    assert_eq!(site.post("/prefix"), 404);
}

#[test]
fn limit_req_answers_503_itself() {
    let site = Site::with(
        "location /events {
             limit_req zone=few;
             meteorit_pass REDIS;
             meteorit_command RPUSH list $event;
         }",
        |builder| builder.http("limit_req_zone $server_port zone=few:1m rate=1r/m;"),
    );
    assert_eq!(site.post("/events?1"), 204);
    let response = post(site.nginx.port(), "/events?2", "{}");
    assert_eq!((response.status, response.header("Content-Type")), (503, Some("text/html")));
    site.nginx.wait_access("/events?2 503 - -");
    assert_eq!(site.redis.len("list"), 1);
}

#[test]
fn limit_req_can_delay_an_event() {
    let site = Site::with(
        "location /events {
             limit_req zone=slow burst=10;
             meteorit_pass REDIS;
             meteorit_command RPUSH list $event;
         }",
        |builder| builder.http("limit_req_zone $server_port zone=slow:1m rate=20r/s;"),
    );
    let started = Instant::now();
    let mut http = Http::connect(site.nginx.port());
    let events: Vec<String> = (0..5).map(|n| format!("{{\"n\":{n}}}")).collect();
    for event in &events {
        assert_eq!(http.post("/events", event).status, 204);
    }
    assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
    assert_eq!(site.list("list"), events);
}

#[test]
fn auth_basic_lets_only_the_known_in() {
    let site = Site::with(
        "location /events {
             auth_basic events;
             auth_basic_user_file users;
             meteorit_pass REDIS;
             meteorit_command RPUSH list $remote_user;
         }",
        |builder| builder.file("users", "ann:{PLAIN}word\n"),
    );
    let mut http = Http::connect(site.nginx.port());
    let send = |http: &mut Http, credentials: &str| {
        let headers: &[(&str, &str)] = if credentials.is_empty() { &[] } else { &[("Authorization", credentials)] };
        http.request("POST", "/events", headers, "{}")
    };
    let refused = send(&mut http, "");
    assert_eq!((refused.status, refused.header("WWW-Authenticate")), (401, Some("Basic realm=\"events\"")));
    assert_eq!(send(&mut http, "Basic YW5uOndyb25n").status, 401);
    assert_eq!(send(&mut http, "Basic YW5uOndvcmQ=").status, 204);
    assert_eq!(site.list("list"), ["ann"]);
}

#[test]
fn access_rules_decide_who_may_send() {
    let site = Site::start(
        "meteorit_command RPUSH list $event;
         location /allowed { allow 127.0.0.1; deny all; meteorit_pass REDIS; }
         location /denied { deny 127.0.0.1; meteorit_pass REDIS; }
         location /either { satisfy any; deny all; auth_basic x; auth_basic_user_file none; meteorit_pass REDIS; }
         location /internal { internal; meteorit_pass REDIS; }",
    );
    let paths = ["/allowed", "/denied", "/either", "/internal"];
    assert_eq!(paths.map(|path| site.post(path)), [204, 403, 401, 404]);
    assert_eq!(site.redis.len("list"), 1);
    site.nginx.wait_access("/denied 403 - -");
    site.nginx.allow_log("none\" failed (2: No such file");
}

#[test]
fn a_rewrite_brings_events_with_their_body() {
    let site = Site::start(
        r"location / { rewrite ^/old/(.*)$ /events/$1?from=old last; return 404; }
          location /events/ { meteorit_pass REDIS; meteorit_command RPUSH list $uri $arg_from $request_uri $event; }
          location /inside { rewrite ^ /elsewhere break; meteorit_pass REDIS; meteorit_command RPUSH list $uri $event; }",
    );
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(50_000));
    assert_eq!(post(site.nginx.port(), "/old/page", &large).status, 204);
    assert_eq!(site.list("list"), ["/events/page", "old", "/old/page", large.as_str()]);
    site.redis.cmd(&["DEL", "list"]);
    assert_eq!(site.post("/inside"), 204);
    assert_eq!(site.list("list"), ["/elsewhere", "{}"]);
}

#[test]
fn an_error_page_of_another_location_can_be_ours() {
    let site = Site::start(
        "meteorit_command RPUSH list $uri $request_method $event;
         location /gone { error_page 404 = @collect; return 404; }
         location /proxied { error_page 502 = @collect; proxy_pass http://127.0.0.1:%PORT9%; }
         location /by-uri { error_page 404 = /collect; return 404; }
         location @collect { meteorit_pass REDIS; }
         location /collect { internal; meteorit_pass REDIS; }",
    );
    assert_eq!(site.post("/gone"), 204);
    assert_eq!(site.list("list"), ["/gone", "POST", "{}"]);
    site.redis.cmd(&["DEL", "list"]);
    // The body has been read by then.
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(50_000));
    assert_eq!(post(site.nginx.port(), "/proxied", &large).status, 204);
    assert_eq!(site.list("list"), ["/proxied", "POST", large.as_str()]);
    // To a URI nginx goes on with GET.
    assert_eq!(site.post("/by-uri"), 405);
    assert_eq!(site.redis.len("list"), 3);
}

#[test]
fn our_own_error_page_can_be_another_location_that_takes_events() {
    let site = Site::start(
        "location /first {
             meteorit_pass REDIS; meteorit_command LPUSH wrong $event;
             meteorit_intercept_errors on;
             error_page 502 = @second;
         }
         location @second { meteorit_pass REDIS; meteorit_command RPUSH second $event; }",
    );
    site.redis.cmd(&["SET", "wrong", "a string"]);
    let response = post(site.nginx.port(), "/first", r#"{"a":1}"#);
    assert_eq!(response.status, 204, "{}", response.text());
    assert_eq!(site.list("second"), [r#"{"a":1}"#]);
    // The last word counts.
    let line = site.nginx.wait_access("/first");
    assert!(line.starts_with("/first 204 stored 0."), "{line}");
}

/// A server that answers, and mirrors what it gets to a location that takes events.
const MIRROR: &str = "
    location /page { mirror /mirror; proxy_pass http://127.0.0.1:%PORT2%; }
    location /static { mirror /mirror; empty_gif; }
    location /twice { mirror /mirror; mirror /mirror; proxy_pass http://127.0.0.1:%PORT2%; }
    location = /mirror {
        internal; log_subrequest on;
        meteorit_pass REDIS; meteorit_command RPUSH list $event; meteorit_command RPUSH from $request_uri;
    }";
const PAGE: &str = "server {\nlisten 127.0.0.1:%PORT2%;\nlocation / { return 200 page; }\n}";

#[test]
fn a_mirrored_request_is_an_event_and_is_answered_as_ever() {
    let site = Site::with(MIRROR, |builder| builder.http(PAGE));
    let mut http = Http::connect(site.nginx.port());
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(60_000));
    for body in ["{\"small\":1}", &large] {
        let response = http.post("/page?q", body);
        assert_eq!((response.status, response.text().as_str()), (200, "page"));
        site.redis.wait_len("list", 1);
        assert_eq!(site.list("list"), [body]);
        site.redis.cmd(&["DEL", "list"]);
    }
    assert_eq!(site.list("from"), ["/page?q", "/page?q"]);
    assert_eq!(http.post("/twice", "{}").status, 200);
    site.redis.wait_len("list", 2);
    // What is no event is told to nobody but the log.
    assert_eq!(http.post("/page", "[]").text(), "page");
    assert_eq!(http.get("/page").text(), "page");
    assert_eq!(http.request("POST", "/page", &[("Content-Type", "text/html")], "{}").text(), "page");
    assert_eq!(http.get("/static").status, 200);
    drop(http);
    for status in [422, 405, 415] {
        site.nginx.wait_access(&format!("/page {status} rejected -"));
    }
    site.nginx.wait_access("/static 405 rejected -");
    assert_eq!(site.redis.len("list"), 2);
}

#[test]
fn mirrored_requests_over_http2() {
    let site = Site::with(MIRROR, |builder| builder.http2().http(PAGE));
    let url = format!("http://127.0.0.1:{}/page", site.nginx.h2_port());
    for n in 1..=3 {
        let output = curl(&["--http2-prior-knowledge", "--json", "{}", &url]);
        assert_eq!((output.status, output.text().as_str()), (200, "page"), "{output:?}");
        site.redis.wait_len("list", n);
    }
}

#[test]
fn a_mirror_disturbs_nothing_while_redis_is_down() {
    let site = Site::with(MIRROR, |builder| builder.http(PAGE));
    site.redis.stop();
    let mut http = Http::connect(site.nginx.port());
    for _ in 0..20 {
        let response = http.post("/page", "{}");
        assert_eq!((response.status, response.text().as_str()), (200, "page"));
    }
    drop(http);
    eventually(Duration::from_secs(10), || {
        site.nginx.access_log().lines().filter(|line| line.starts_with("/page 503 unavailable")).count() == 20
    });
}

#[test]
fn a_mirror_lets_the_answer_go_before_redis_has_answered() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let locations = MIRROR.replace("REDIS", &fake.url());
    let builder = Nginx::builder().log_format("$request_uri $status $meteorit_status").http(PAGE);
    let nginx = builder.server(&locations).start();
    let mut http = Http::connect(nginx.port());
    let response = http.post("/page", "{}");
    assert_eq!((response.status, response.text().as_str()), (200, "page"));
    fake.wait_held(2);
    fake.release_all(Action::reply(":1\r\n"));
    nginx.wait_access("/page 204 stored");
    // A client that does not wait for the mirror takes nothing away from it.
    assert_eq!(http.post("/page?gone", "{}").status, 200);
    fake.wait_held(2);
    http.abort();
    fake.release_all(Action::reply(":1\r\n"));
    nginx.wait_access("/page?gone 204 stored");
}

#[test]
fn variables_of_nginx_in_every_argument() {
    let site = Site::with(
        r"location ~ ^/collect/(?<site>\w+)/(\d+)$ {
              add_header X-Request-Id $request_id always;
              meteorit_pass REDIS;
              meteorit_command RPUSH list:$site $2 $arg_x $http_x_tag $kind $request_id $remote_addr $content_length;
              meteorit_command HSET $site:$kind field-$arg_x prefix-${arg_x}-suffix id $request_id;
              meteorit_command SET event:$2 before-$event-after;
          }",
        |builder| builder.http("map $arg_x $kind { default other; a first; '' none; }"),
    );
    let mut http = Http::connect(site.nginx.port());
    let response = http.request("POST", "/collect/shop/7?x=a", &[("X-Tag", "t\u{e9}g $event")], r#"{"n":1}"#);
    assert_eq!(response.status, 204, "{}", response.text());
    let id = response.header("X-Request-Id").unwrap();
    assert_eq!(id.len(), 32);
    assert_eq!(site.list("list:shop"), ["7", "a", "t\u{e9}g $event", "first", id, "127.0.0.1", "7"]);
    let hash = site.redis.hash("shop:first");
    assert_eq!(hash.get("field-a").map(String::as_str), Some("prefix-a-suffix"));
    assert_eq!(hash.get("id").map(String::as_str), Some(id));
    assert_eq!(site.redis.get("event:7").unwrap(), br#"before-{"n":1}-after"#);
    // Each request is evaluated anew; what is absent is an empty argument, not a missing one.
    assert_eq!(http.request("POST", "/collect/shop/8", &[], "{}").status, 204);
    let second = site.list("list:shop").split_off(7);
    assert_eq!((second[0].as_str(), second[1].as_str(), second[3].as_str()), ("8", "", "none"));
    assert_ne!(second[4], id);
}

#[test]
fn what_a_client_sends_stays_one_argument() {
    let site = Site::start("location / { meteorit_pass REDIS; meteorit_command RPUSH list $http_x $args $arg_a; }");
    let mut http = Http::connect(site.nginx.port());
    let tricky = "a b \"c\" '\\r\\n' *1 $4 ; FLUSHALL";
    let response = http.request("POST", "/?a=%0d%0a*1%0d%0a$8%0d%0aFLUSHALL%0d%0a", &[("X", tricky)], "{}");
    assert_eq!(response.status, 204);
    let query = "a=%0d%0a*1%0d%0a$8%0d%0aFLUSHALL%0d%0a";
    assert_eq!(site.list("list"), [tricky, query, &query[2..]]);
}

#[test]
fn a_condition_skips_a_command_when_it_is_empty_or_0() {
    let site = Site::start(
        "location / {
             meteorit_pass REDIS;
             meteorit_command RPUSH always 1;
             meteorit_command if=$arg_a RPUSH a $arg_a;
             meteorit_command if=$arg_a$arg_b RPUSH either 1;
             meteorit_command if=0 RPUSH never 1;
             meteorit_command if= RPUSH never 1;
             meteorit_command if=yes RPUSH always 2;
         }",
    );
    let lists = ["always", "a", "either", "never"];
    for (query, expected) in [
        ("", [2, 0, 0, 0]),
        ("?a=", [2, 0, 0, 0]),
        ("?a=0", [2, 0, 0, 0]),
        ("?a=00", [2, 1, 1, 0]),
        ("?a=1", [2, 1, 1, 0]),
        ("?a=false", [2, 1, 1, 0]),
        ("?a=%30", [2, 1, 1, 0]),
        ("?b=x", [2, 0, 1, 0]),
        ("?a=0&b=0", [2, 0, 1, 0]),
    ] {
        assert_eq!(site.put_into("POST", &format!("/{query}"), lists), (204, expected), "{query}");
    }
}

#[test]
fn an_event_of_which_every_command_is_skipped_gets_204_and_needs_no_redis() {
    let fake = FakeRedis::start(|_, _| Action::reply(":1\r\n"));
    let text = format!("location / {{ meteorit_pass {}; meteorit_command if=$arg_a RPUSH list $event; }}", fake.url());
    let nginx =
        Nginx::builder().log_format("$request_uri $status $meteorit_status $meteorit_redis_time").text(&text).start();
    let mut http = Http::connect(nginx.port());
    assert_eq!(http.post("/", "{}").status, 204);
    assert_eq!(http.post("/", "{").status, 400);
    assert_eq!(fake.connections(), 0);
    assert_eq!(http.post("/?a=1", "{}").status, 204);
    assert_eq!(fake.wait_commands(1).len(), 1);
    drop(http);
    nginx.wait_access("/ 204 stored -");
}

#[test]
fn the_event_is_a_variable_everywhere_once_it_is_read() {
    let site = Site::with(
        "location / {
             access_log logs/event.log event;
             add_header X-Kind $by_event always;
             meteorit_pass REDIS;
             meteorit_command if=$by_event RPUSH list $by_event;
         }",
        |builder| {
            builder
                .http("map $event $by_event { default ''; '~\"kind\":\"buy\"' buy; }")
                .http("log_format event escape=none '[$event]';")
        },
    );
    let mut http = Http::connect(site.nginx.port());
    let response = http.post("/", r#"{"kind":"buy"}"#);
    assert_eq!((response.status, response.header("X-Kind")), (204, Some("buy")));
    let response = http.post("/", r#"{"kind":"look"}"#);
    assert_eq!((response.status, response.header("X-Kind")), (204, None));
    assert_eq!(site.list("list"), ["buy"]);
    drop(http);
    eventually(Duration::from_secs(10), || {
        site.nginx.read("logs/event.log") == "[{\"kind\":\"buy\"}]\n[{\"kind\":\"look\"}]\n"
    });
}

#[test]
fn the_event_is_empty_before_it_is_read() {
    let site = Site::start(
        "location /early {
             set $early \"[$event]\";
             meteorit_pass REDIS;
             meteorit_command RPUSH list $early $event;
         }
         location /other { return 200 \"[$event][$meteorit_status]\"; }",
    );
    assert_eq!(site.post("/early"), 204);
    assert_eq!(site.list("list"), ["[]", "{}"]);
    assert_eq!(get(site.nginx.port(), "/other").text(), "[][]");
}

#[test]
fn headers_and_other_modules_work_on_the_answers() {
    let site = Site::start(
        "location / {
             add_header X-Always yes always;
             add_header X-Good yes;
             expires 0;
             gzip on; gzip_types *; gzip_min_length 1;
             meteorit_pass REDIS;
             meteorit_command RPUSH list $event;
         }",
    );
    let mut http = Http::connect(site.nginx.port());
    let good = http.post("/", "{}");
    assert_eq!((good.status, good.header("X-Always"), good.header("X-Good")), (204, Some("yes"), Some("yes")));
    let bad = http.request("POST", "/", &[("Accept-Encoding", "gzip")], "{");
    assert_eq!((bad.status, bad.header("X-Always"), bad.header("X-Good")), (400, Some("yes"), None));
    assert_eq!(bad.json()["status"], 400);
    assert!(http.is_silent(Duration::from_millis(20)));
}
