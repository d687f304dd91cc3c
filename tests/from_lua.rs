//! docs/from-lua.md holds: the configuration does what the Lua handler did, and both stand side by side on the way from one to the other.

mod common;

use common::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

const SCHEMA: &str = r#"{"type":"object","required":["page"],"properties":{"page":{"type":"string"}}}"#;

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/from-lua.md")).expect("the page")
}

/// The fenced block of this language whose text has `mark`.
#[track_caller]
fn block(language: &str, mark: &str) -> String {
    let text = page();
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.filter(|block| block.contains(mark)).map(str::to_owned).next().expect(mark)
}

/// Replaces `from`, which has to be there.
#[track_caller]
fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "there is no {from:?} any more");
    text.replace(from, to)
}

/// A configuration of the page with the test's ports and Redis.
fn configuration(mark: &str, redis: &Redis) -> String {
    let conf = replace(&block("nginx", mark), "listen 8080;", "listen 127.0.0.1:%PORT%;");
    replace(&conf, "redis://127.0.0.1:6379/0", &redis.url()).replace("127.0.0.1:8081", "127.0.0.1:%PORT2%")
}

/// What stands for the old layer in a test without Lua: it says that it was asked.
const OLD_LAYER: &str = "server { listen 127.0.0.1:%PORT2%; location / { add_header Layer old always; return 202; } }";

#[test]
fn the_schema_on_the_page_is_the_one_that_is_tried() {
    assert!(page().contains(SCHEMA));
}

#[test]
fn both_leave_the_same_in_redis() {
    let Some(lua) = Lua::installed() else {
        eprintln!("no Lua module for this nginx: the handler was not tried");
        return;
    };
    let redis = [Redis::start(), Redis::start()];
    let handler = replace(&block("lua", "resty.redis"), "\"resty.redis\"", &format!("{:?}", lua.client));
    let handler = replace(&handler, "6379", &redis[0].port().to_string());
    let old = Nginx::builder()
        .main(&lua.load)
        .file("events.lua", handler)
        .text("location = /events { content_by_lua_file events.lua; }")
        .start();
    let new = Nginx::builder().file("event.json", SCHEMA).http(&configuration("meteorit_schema", &redis[1])).start();
    let send = |request: &dyn Fn() -> Request| {
        let statuses = [&old, &new].map(|nginx| Http::connect(nginx.port()).call(&request()).status);
        (statuses[0], statuses[1])
    };
    let url = "/events?key=demo-key";
    for event in [
        r#"{"page":"/a","user":"ann"}"#,
        r#"{"page":"/a","user":"bob","password":"secret"}"#,
        r#"{"n":1.5,"page":"/b","list":["x",{"y":null}],"addr":"pretended"}"#,
    ] {
        assert_eq!(send(&|| Request::post(url, event)), (204, 204), "{event}");
    }
    let large = format!(r#"{{"page":"/a","text":"{}"}}"#, "x".repeat(40_000));
    assert_eq!(send(&|| Request::post(url, &large)), (204, 204));
    assert_eq!(send(&|| Request::post("/events", "{}")), (401, 401));
    assert_eq!(send(&|| Request::get(url)), (405, 405));
    // As the page says of what changes.
    assert_eq!(send(&|| Request::post(url, "{")), (400, 400));
    assert_eq!(send(&|| Request::post(url, r#"{"page":1}"#)), (400, 422));

    let left = redis.each_ref().map(|redis| {
        let mut keys: Vec<String> = redis.ask(&["KEYS", "*"]);
        keys.sort();
        let kept: Vec<BTreeMap<String, Value>> =
            redis.list("events").iter().map(|event| serde_json::from_slice(event).expect("JSON")).collect();
        let key = |prefix: &str| keys.iter().find(|key| key.starts_with(prefix)).expect(prefix).clone();
        let expires = redis.ask::<i64>(&["TTL", &key("visits:")]) > 2_600_000;
        let counts = (redis.hash(&key("visits:")), redis.ask::<i64>(&["PFCOUNT", &key("visitors:")]), expires);
        let without_time: Vec<_> = kept.into_iter().map(|mut event| event.remove("received").map(|_| event)).collect();
        (keys, counts, without_time)
    });
    assert_eq!(left[0], left[1]);
    let (_, (visits, visitors, _), events) = &left[1];
    assert_eq!((visits.get("/a").map(String::as_str), *visitors, events.len()), (Some("3"), 2, 4));
    drop(old);
}

#[test]
fn a_dry_run_beside_the_old_layer_writes_nothing_and_says_what_it_would_have_said() {
    let redis = Redis::start();
    let nginx = Nginx::builder().http(&configuration("meteorit_dry_run", &redis)).http(OLD_LAYER).start();
    for event in [r#"{"a":1}"#, "{", r#"{"a":1,"a":2}"#] {
        let answer = post(nginx.port(), "/events", event);
        assert_eq!((answer.status, answer.header("Layer")), (202, Some("old")), "{event}");
    }
    assert_eq!(get(nginx.port(), "/events-trial").status, 404, "it is open to clients");
    // nginx 1.30 logs there what it refuses a client, too.
    let log = || {
        let text = nginx.read("logs/trial.log");
        text.lines().filter(|line| !line.ends_with(" 404  ")).map(|line| format!("{line}\n")).collect::<String>()
    };
    eventually(SOON, || log().lines().count() == 3);
    let log = log();
    let lines: Vec<&str> = log.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
    assert_eq!(lines.iter().filter(|line| line.starts_with("204 dry_run")).count(), 1, "{log}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("400 rejected {")).count(), 1, "{log}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("422 rejected {")).count(), 1, "{log}");
    assert_eq!(redis.ask::<i64>(&["DBSIZE"]), 0);
}

#[test]
fn split_clients_sends_a_part_to_each_layer() {
    let redis = Redis::start();
    let conf = configuration("split_clients", &redis);
    for (share, by, expected) in
        [("1%   meteorit;", "$request_id", 1..40), ("50%   meteorit;", "$request_id", 300..700)]
    {
        redis.cmd(&["DEL", "events"]);
        let conf = replace(&conf, "1%   meteorit;", share)
            .replace("split_clients $remote_addr", &format!("split_clients {by}"));
        let nginx = Nginx::builder().http(&conf).http(OLD_LAYER).start();
        let mut http = Http::connect(nginx.port());
        let answers: Vec<Response> = (0..1000).map(|_| http.post("/events", "{}")).collect();
        let old = answers.iter().filter(|answer| answer.status == 202 && answer.header("Layer").is_some()).count();
        let new = answers.iter().filter(|answer| answer.status == 204).count();
        assert_eq!((old + new, redis.len("events")), (1000, new));
        assert!(expected.contains(&new), "{new} of 1000 with {share}");
    }
    // All of them, and as it stands a client keeps to one side.
    let all = replace(&conf, "    1%   meteorit;\n    *    lua;\n", "    * meteorit;\n");
    let nginx = Nginx::builder().http(&all).http(OLD_LAYER).start();
    assert_eq!(post(nginx.port(), "/events", "{}").status, 204);
    let nginx = Nginx::builder().http(&conf).http(OLD_LAYER).start();
    let mut http = Http::connect(nginx.port());
    let first = http.post("/events", "{}").status;
    assert!((0..20).all(|_| http.post("/events", "{}").status == first));
}

/// The Lua module of the nginx under test.
struct Lua {
    /// What loads it.
    load: String,
    /// What it calls its client of Redis.
    client: &'static str,
}

impl Lua {
    fn installed() -> Option<Lua> {
        let modules = ["/usr/share/nginx/modules", "/usr/lib/nginx/modules", "/usr/lib64/nginx/modules"];
        let folder = modules.into_iter().find(|folder| Path::new(folder).join("ngx_http_lua_module.so").exists())?;
        let load = ["ndk_http_module", "ngx_http_lua_module"];
        let load: String = load.iter().map(|name| format!("load_module {folder}/{name}.so;\n")).collect();
        // The OpenResty project's name, and Debian's.
        let clients = [
            ("/usr/share/lua/5.1/resty/redis.lua", "resty.redis"),
            ("/usr/share/lua/5.1/nginx/redis.lua", "nginx.redis"),
        ];
        let (_, client) = clients.into_iter().find(|(file, _)| Path::new(file).exists())?;
        let lua = Lua { load, client };
        // Built for the nginx under test, or not.
        Nginx::builder().main(&lua.load).text("location / { return 200; }").test().ok.then_some(lua)
    }
}
