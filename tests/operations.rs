//! docs/operations.md holds: what a pending event takes, how large a record of the spool is, and which rights a user needs.

mod common;

use common::*;
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// The command of the page, and an event of 300 bytes.
const COMMAND: &str = "meteorit_command XADD events MAXLEN ~ 1000000 * id $meteorit_id data $event;";

fn event() -> String {
    format!(r#"{{"page":"/home","text":"{}"}}"#, "x".repeat(300 - 26))
}

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md")).expect("the page")
}

/// Sends so many events that are queued, or spooled.
fn send(nginx: &Nginx, count: usize) {
    let mut http = Http::connect(nginx.port());
    let request = Request::post("/", event());
    let requests = vec![request; 100];
    for _ in 0..count / requests.len() {
        assert!(http.pipeline(&requests).iter().all(|answer| answer.status == 202));
    }
}

#[test]
fn a_pending_event_takes_what_the_page_says() {
    assert!(page().contains("a pending event: its commands, and 145 | 577"));
    assert_eq!(event().len(), 300);
    let redis = Redis::start();
    let nginx = Nginx::builder()
        .http(&format!("meteorit_redis q {{ server {}; backlog 256m; max_pending 1000000; drain 1ms; }}", redis.url()))
        .text(&format!("location / {{ access_log off; meteorit_ack queued; meteorit_pass q; {COMMAND} }}"))
        .allow_log("are lost")
        .allow_log("connection lost")
        .start();
    assert_eq!(post(nginx.port(), "/", event()).status, 202);
    redis.wait_len("events", 1);
    redis.kill();
    send(&nginx, 2000);
    let worker = nginx.worker_pids()[0];
    let before = rss_kb(worker);
    send(&nginx, 40_000);
    let each = (rss_kb(worker) - before) * 1024 / 40_000;
    assert!((435..700).contains(&each), "{each} bytes for each event");
}

#[test]
fn a_record_of_the_spool_takes_what_the_page_says() {
    assert!(page().contains("bytes of its commands + 30 + 6 for each command"));
    let redis = Redis::start();
    redis.stop();
    let nginx = Nginx::builder()
        .http(&format!("meteorit_redis q {{ server {}; spool spool; }}", redis.url()))
        .text(&format!("location / {{ meteorit_pass q; {COMMAND} }}"))
        .start();
    send(&nginx, 100);
    let size: u64 =
        spool_files(&nginx.dir().join("spool")).iter().map(|path| path.metadata().expect("a file").len()).sum();
    // A segment's head is 24 bytes.
    assert_eq!(size - 24, 100 * (435 + 30 + 6));
}

fn spool_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let lanes = fs::read_dir(dir).expect("the spool").map(|entry| entry.expect("a lane").path());
    let files = lanes.filter(|lane| lane.is_dir()).flat_map(|lane| fs::read_dir(lane).expect("a lane"));
    files
        .map(|file| file.expect("a file").path())
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .collect()
}

#[test]
fn the_user_of_the_page_may_do_what_its_configuration_needs_and_nothing_else() {
    let text = page();
    let conf = text.split("```nginx\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a configuration");
    let line = text.lines().find_map(|line| line.strip_prefix("    ACL SETUSER meteorit ")).expect("the user");
    let rights: Vec<&str> = line.split(' ').collect();
    let redis = Redis::start();
    let set_user = |rights: &[&str]| redis.cmd(&[&["ACL", "SETUSER", "meteorit", "reset"], rights].concat());
    set_user(&rights);
    let conf = conf
        .replace("listen 8080;", "listen 127.0.0.1:%PORT%;")
        .replace("127.0.0.1:6379", &format!("127.0.0.1:{}", redis.port()))
        .replace("/etc/nginx/", "");
    let nginx = Nginx::builder().file("meteorit.password", "SECRET").http(&conf).allow_log("NOPERM").start();
    let status = || post(nginx.port(), "/events", r#"{"page":"/home"}"#).status;
    assert_eq!(status(), 204);
    for command in [&["GET", "visits:x"][..], &["XRANGE", "events", "-", "+"], &["XADD", "other", "*", "a", "b"]] {
        let mut client = redis.client();
        redis::cmd("AUTH").arg("meteorit").arg("SECRET").exec(&mut client).expect("AUTH");
        let error = redis::cmd(command[0]).arg(&command[1..]).exec(&mut client).expect_err("no such right");
        assert_eq!(error.code(), Some("NOPERM"), "{command:?}");
    }
    // Each right is needed.
    for right in rights.iter().filter(|right| right.starts_with(['~', '&', '+'])) {
        let others: Vec<&str> = rights.iter().copied().filter(|other| other != right).collect();
        set_user(&others);
        let without = status();
        assert!(matches!(without, 503 | 504), "{without} without {right}");
        set_user(&rights);
        eventually(SOON, || status() == 204);
    }
}
