//! What a user starts from: each file of nginx-conf runs as it is, but for its ports and paths, and takes events; `make run`
//! builds and starts the demo, the commands it prints do what they promise, and Ctrl-C leaves nothing behind.

mod common;
#[path = "demo/make_run.rs"]
mod make_run;

use common::*;
use std::fs;
use std::path::Path;
use std::time::Duration;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A file of nginx-conf, with what the harness gives by itself left out: the module's path, logs and temporary files.
fn configuration(path: &Path, redis: &Redis) -> NginxBuilder {
    let text = fs::read_to_string(path).expect("a configuration");
    assert!(text.contains("redis://127.0.0.1:6379"), "no Redis to replace in {}", path.display());
    let whole = text.lines().any(|line| line.starts_with("load_module "));
    let ours = ["load_module ", "pid ", "error_log ", "user "];
    let is_ours = |line: &str| {
        let line = line.trim_start();
        ours.iter().any(|name| line.starts_with(name)) || line.split(' ').next().unwrap().ends_with("_temp_path")
    };
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = match line.trim_start() {
            "listen 8081;" => "listen 127.0.0.1:%PORT2%;".to_string(),
            directive if directive.starts_with("listen ") => "listen 127.0.0.1:%PORT%;".to_string(),
            // As they are numbered in the file, for nginx's messages.
            _ if is_ours(line) => String::new(),
            _ => line.replace("redis://127.0.0.1:6379", &redis.url()).replace("/var/log/nginx/", "%DIR%/logs/"),
        };
        lines.push(line);
    }
    let text = lines.join("\n");
    let builder = Nginx::builder().file("beacon.key", "0123456789abcdef\n");
    if whole { builder.whole(&text) } else { builder.http(&text) }
}

/// The locations in which events are taken.
fn locations(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a configuration");
    let mut found = Vec::new();
    let mut current = None;
    for line in text.lines().map(str::trim_start) {
        if let Some(rest) = line.strip_prefix("location ") {
            current = rest.split([' ', '{']).rfind(|word| word.starts_with('/')).map(str::to_string);
        } else if line.starts_with("meteorit_pass ") {
            found.push(current.clone().expect("a location around meteorit_pass"));
        }
    }
    found
}

#[test]
fn every_file_of_nginx_conf_takes_events() {
    let mut files: Vec<_> =
        fs::read_dir(format!("{ROOT}/nginx-conf")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert!(names.contains(&"demo.conf") && names.contains(&"meteorit.conf"), "{names:?}");
    for file in &files {
        let redis = Redis::start();
        let builder = configuration(file, &redis);
        builder.clone().test().assert_ok();
        let nginx = builder.start();
        let locations = locations(file);
        assert!(!locations.is_empty(), "no location takes events in {}", file.display());
        for location in &locations {
            let send = |event: &str| {
                let request = Request::post(location, event).header("X-Api-Key", "demo-key");
                Http::connect(nginx.port()).call(&request)
            };
            let answer = send(r#"{"page":"/home","name":"render","value":1.5,"host":"web-1"}"#);
            assert!(matches!(answer.status, 200 | 202 | 204), "{location} of {}: {}", file.display(), answer.text());
            let answer = send(r#"{"page":}"#);
            assert_eq!((answer.status, &answer.json()["line"]), (400, &1.into()), "{location}");
        }
        // What is queued comes behind its answer.
        let has_keys = || redis.ask::<usize>(&["DBSIZE"]) >= locations.len();
        assert!(within(Duration::from_secs(10), has_keys), "less than a key for each of {locations:?}");
        assert!(!nginx.error_log().contains("[warn]"), "{} warns: {}", file.display(), nginx.error_log());
    }
}

#[test]
fn the_demo_writes_what_it_says() {
    let redis = Redis::start();
    let nginx = configuration(Path::new(&format!("{ROOT}/nginx-conf/demo.conf")), &redis).start();
    let mut http = Http::connect(nginx.port());
    assert_eq!(http.post("/events", r#"{"page": "/home"}"#).status, 204);
    let stream = redis.stream("events");
    assert_eq!(
        (stream.len(), stream[0].1.as_slice()),
        (1, [b"data".to_vec(), br#"{"page": "/home"}"#.to_vec()].as_slice())
    );
    assert_eq!(http.post("/queue", r#"{"job":42}"#).status, 204);
    assert_eq!(redis.list("queue"), [br#"{"job":42}"#.to_vec()]);
    for path in ["/count", "/count?page=/home", "/count?page=/home&site=shop", "/count?page=/home&site=anything"] {
        assert_eq!(http.post(path, "{}").status, 204, "{path}");
    }
    let mut keys: Vec<String> = redis.ask(&["KEYS", "*:2*"]);
    keys.sort();
    let day = keys[0].strip_prefix("events:").expect("the counter of the day").to_string();
    assert_eq!(keys, [format!("events:{day}"), format!("visits:other:{day}"), format!("visits:shop:{day}")]);
    assert_eq!(redis.get(&keys[0]).unwrap(), b"4");
    assert_eq!((redis.hash(&keys[1])["/home"].as_str(), redis.hash(&keys[2])["/home"].as_str()), ("2", "1"));
    for key in &keys {
        assert!(redis.ask::<i64>(&["TTL", key]) > 30 * 86_400, "{key} has no end");
    }
    assert!(http.get("/").text().contains("curl -i"));
    assert_eq!(http.post("/elsewhere", "{}").status, 404);
}
