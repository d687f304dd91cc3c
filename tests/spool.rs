//! The spool: what Redis does not take now is kept in files, the client is told 202, and it is replayed in order once Redis is back,
//! whatever becomes of the worker meanwhile.

mod common;
#[path = "spool/replay.rs"]
mod replay;
#[path = "spool/slow_disk.rs"]
mod slow_disk;

use common::*;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// Settings of a `meteorit_redis` whose deadlines pass on no machine, however busy.
const PATIENT: &str = "timeout 1h; stall_timeout 1h;";

const COMMAND: &str = "meteorit_command RPUSH list $event_n;";

struct Site {
    nginx: Nginx,
    dir: PathBuf,
}

impl Site {
    fn start(url: &str, spool: &str, locations: &str) -> Site {
        Site::builder(url, spool, locations, |builder| builder)
    }

    /// Locations that go to a Redis with a spool of these parameters.
    fn builder(url: &str, spool: &str, locations: &str, more: impl FnOnce(NginxBuilder) -> NginxBuilder) -> Site {
        Site::with(url, spool, PATIENT, locations, more)
    }

    /// Likewise, with these settings of `meteorit_redis`.
    fn with(
        url: &str,
        spool: &str,
        settings: &str,
        locations: &str,
        more: impl FnOnce(NginxBuilder) -> NginxBuilder,
    ) -> Site {
        let builder = Nginx::builder()
            .http(&format!("meteorit_redis queue {{ server {url}; spool spool {spool}; {settings} }}"))
            .server(&locations.replace("PASS", "meteorit_pass queue;"))
            .log_format("$uri $status $meteorit_status")
            .allow_log("redis \"queue\"")
            .exit_timeout(SOON);
        let nginx = more(builder).start();
        let dir = nginx.dir().join("spool");
        Site { nginx, dir }
    }

    #[track_caller]
    fn send(&self, numbers: std::ops::Range<usize>, status: u16) {
        let mut http = Http::connect(self.nginx.port());
        for n in numbers {
            let response = http.post("/", format!(r#"{{"n":{n}}}"#));
            assert_eq!(response.status, status, "{n}: {}", response.text());
        }
    }

    /// Every segment there is.
    fn segments(&self) -> Vec<PathBuf> {
        let lanes = fs::read_dir(&self.dir).unwrap().flatten().filter(|lane| lane.path().is_dir());
        let files = lanes.flat_map(|lane| fs::read_dir(lane.path()).into_iter().flatten().flatten());
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "seg")).collect()
    }

    #[track_caller]
    fn wait_empty(&self) {
        eventually(SOON, || self.segments().is_empty());
    }

    fn rejected(&self) -> Vec<u8> {
        fs::read(self.dir.join("rejected")).unwrap_or_default()
    }
}

fn list(redis: &Redis) -> Vec<String> {
    redis.list("list").into_iter().map(|n| String::from_utf8(n).unwrap()).collect()
}

/// A Redis that refuses COMMAND for good, from its first moment on after a restart too.
#[track_caller]
fn no_list() -> Redis {
    let redis = Redis::with(&["--appendonly", "yes"]);
    redis.cmd(&["SET", "list", "no list"]);
    redis
}

/// A lane changes hands within 5 s, and a worker that is away from Redis tries again within some more.
#[track_caller]
fn wait_list(redis: &Redis, count: usize) {
    eventually(SOON, || redis.len("list") >= count);
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn texts(commands: &[Received]) -> Vec<String> {
    commands.iter().map(Received::text).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_comes_while_redis_is_away_is_kept_and_replayed_in_order() {
    let redis = Redis::start();
    let site = Site::start(&redis.url(), "", &format!("location / {{ PASS {COMMAND} }}"));
    assert_eq!(mode(&site.dir), 0o700);
    site.send(0..10, 204);
    assert_eq!(site.segments(), Vec::<PathBuf>::new());
    redis.stop();
    site.send(10..300, 202);
    site.nginx.wait_access("/ 202 spooled");
    let segment = site.segments().pop().expect("a segment");
    assert_eq!((mode(&segment), mode(segment.parent().unwrap())), (0o600, 0o700));
    redis.restart();
    wait_list(&redis, 290);
    assert_eq!(list(&redis), numbers(10..300), "the restart forgot the first ten");
    site.wait_empty();
    eventually(SOON, || post(site.nginx.port(), "/", r#"{"n":300}"#).status == 204);
    site.nginx.wait_log("events go to the spool");
    site.nginx.wait_log("the spool is empty");
}

#[test]
fn what_comes_during_the_replay_goes_behind_it() {
    let redis = Redis::start();
    let site = Site::start(&redis.url(), "segment=64k", &format!("location / {{ PASS {COMMAND} }}"));
    redis.stop();
    site.send(0..3000, 202);
    assert!(site.segments().len() > 1, "several segments");
    redis.restart();
    // One client, so that its order is the order of the events.
    let mut http = Http::connect(site.nginx.port());
    let mut sent = 3000;
    let mut stored = 0;
    while stored < 20 {
        let status = http.post("/", format!(r#"{{"n":{sent}}}"#)).status;
        assert!(matches!(status, 202 | 204), "{status}");
        stored += usize::from(status == 204);
        sent += 1;
    }
    wait_list(&redis, sent);
    assert_eq!(list(&redis), numbers(0..sent));
    site.wait_empty();
}

#[test]
fn a_killed_worker_loses_nothing_that_was_spooled() {
    let redis = Redis::start();
    let site = Site::start(&redis.url(), "", &format!("location / {{ PASS {COMMAND} }}"));
    site.nginx.allow_log("exited on signal 9");
    redis.stop();
    site.send(0..100, 202);
    let old = site.nginx.worker_pids();
    site.nginx.signal(old[0], libc::SIGKILL);
    site.nginx.wait_respawn(&old);
    site.send(100..150, 202);
    redis.restart();
    wait_list(&redis, 150);
    assert_eq!(list(&redis), numbers(0..150));
    site.wait_empty();
    site.nginx.wait_log("of a worker that is gone");
}

#[test]
fn a_worker_that_quits_leaves_the_spool_to_the_next_one() {
    let redis = Redis::start();
    let site = Site::start(&redis.url(), "", &format!("location / {{ PASS {COMMAND} }}"));
    redis.stop();
    site.send(0..50, 202);
    let old = site.nginx.reload();
    site.nginx.wait_gone(&old);
    site.send(50..100, 202);
    redis.restart();
    wait_list(&redis, 100);
    let mut seen = list(&redis);
    assert_eq!(seen.len(), 100);
    seen.sort_by_key(|n| n.parse::<usize>().unwrap());
    assert_eq!(seen, numbers(0..100));
    site.wait_empty();
    assert!(site.nginx.quit().success());
    assert_eq!(fs::read_dir(&site.dir).unwrap().count(), 0, "no lane is left");
}

#[test]
fn what_was_queued_goes_to_the_spool_when_the_worker_is_terminated() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let redis = Redis::start();
    let site = Site::start(&fake.url(), "", &format!("location / {{ PASS meteorit_ack queued; {COMMAND} }}"));
    for n in 0..5 {
        site.send(n..n + 1, 202);
        fake.wait_held(n + 1);
    }
    let (old, url) = (site.nginx.worker_pids(), fake.url());
    site.nginx.rewrite_conf(|conf| conf.replace(&url, &redis.url()));
    site.nginx.signal(old[0], libc::SIGTERM);
    site.nginx.wait_gone(&old);
    assert_eq!(site.segments().len(), 1);
    site.nginx.reload();
    wait_list(&redis, 5);
    assert_eq!(list(&redis), numbers(0..5));
    site.wait_empty();
}

#[test]
fn what_redis_does_not_take_now_is_kept() {
    let redis = Redis::start();
    let site = Site::start(&redis.url(), "sync=always", &format!("location / {{ PASS {COMMAND} }}"));
    site.send(0..1, 204);
    redis.cmd(&["CONFIG", "SET", "maxmemory", "1"]);
    site.send(1..20, 202);
    redis.cmd(&["CONFIG", "SET", "maxmemory", "0"]);
    wait_list(&redis, 20);
    assert_eq!(list(&redis), numbers(0..20));
    site.wait_empty();
    eventually(SOON, || post(site.nginx.port(), "/", r#"{"n":20}"#).status == 204);
}

#[test]
fn only_what_redis_has_not_done_is_replayed_and_nothing_is_published_late() {
    let fake = FakeRedis::start(|_, command| match &command[0][..] {
        b"INCR" => Action::reply(":1\r\n"),
        _ => Action::reply("-OOM no\r\n"),
    });
    let site = Site::start(
        &fake.url(),
        "",
        "location / { PASS meteorit_command INCR n; meteorit_command RPUSH list $event_n; meteorit_command PUBLISH live $event_n; }
         location /publish { PASS meteorit_command PUBLISH live $event_n; }",
    );
    site.send(7..8, 202);
    fake.set_handler(|_, _| Action::reply(":1\r\n"));
    site.wait_empty();
    assert_eq!(texts(&fake.commands())[..3], ["INCR n", "RPUSH list 7", "PUBLISH live 7"]);
    assert!(texts(&fake.commands())[3..].iter().all(|command| command == "RPUSH list 7"), "{:?}", fake.commands());
    fake.set_handler(|_, _| Action::reply("-OOM no\r\n"));
    assert_eq!(post(site.nginx.port(), "/publish", r#"{"n":1}"#).status, 503, "news are not kept");
    assert_eq!(site.segments().len(), 0);
}

#[test]
fn what_was_sent_and_not_answered_is_504_unless_ambiguous_says_otherwise() {
    let fake = FakeRedis::start(|_, _| Action::Hold);
    let site = Site::start(
        &fake.url(),
        "",
        &format!(
            "location /safe {{ PASS {COMMAND} }} location /ambiguous {{ PASS meteorit_retry ambiguous; {COMMAND} }}"
        ),
    );
    let mut clients = [(1, "/safe"), (2, "/ambiguous")].map(|(count, path)| {
        let mut http = Http::connect(site.nginx.port());
        http.send_raw(&Request::post(path, r#"{"n":1}"#).to_bytes());
        fake.wait_held(count);
        http
    });
    fake.stop_listening();
    fake.close_all(true);
    let statuses = clients.each_mut().map(|http| http.read_response().status);
    assert_eq!(statuses, [504, 202]);
    fake.set_handler(|_, _| Action::reply(":1\r\n"));
    fake.resume_listening();
    site.wait_empty();
    assert_eq!(texts(&fake.commands()), ["RPUSH list 1", "RPUSH list 1", "RPUSH list 1"]);
}

#[test]
fn what_redis_refuses_for_good_in_the_replay_is_kept_beside_the_spool() {
    let redis = no_list();
    let site = Site::start(
        &redis.url(),
        "",
        &format!("location / {{ PASS {COMMAND} meteorit_command RPUSH other $event_n; }}"),
    );
    redis.stop();
    site.send(0..20, 202);
    redis.restart();
    eventually(SOON, || redis.len("other") == 20);
    site.wait_empty();
    eventually(SOON, || site.rejected().windows(9).filter(|bytes| *bytes == b"WRONGTYPE").count() == 20);
    site.nginx.wait_log("refused for good a command of an event that was accepted: WRONGTYPE");
}

#[test]
fn what_was_refused_for_good_has_its_share_of_the_spool_and_the_log_says_what_is_lost() {
    let redis = no_list();
    let site = Site::start(&redis.url(), "max_size=128k segment=64k", &format!("location / {{ PASS {COMMAND} }}"));
    redis.stop();
    site.send(0..400, 202);
    redis.restart();
    site.wait_empty();
    let kept = || site.rejected().windows(9).filter(|bytes| *bytes == b"WRONGTYPE").count();
    let told = || -> usize {
        let log = site.nginx.error_log();
        let counts = log.lines().filter_map(|line| line.split_once(" commands that Redis refused for good are lost"));
        counts.map(|(before, _)| before.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
    };
    eventually(SOON, || kept() + told() == 400);
    assert!(told() > 100 && kept() > 50 && site.rejected().len() <= 16 * 1024, "{} told, {} kept", told(), kept());
}

#[test]
fn a_full_spool_and_a_folder_without_rights_are_503() {
    let redis = Redis::start();
    let site = Site::start(&redis.url(), "max_size=64k segment=64k", &format!("location / {{ PASS {COMMAND} }}"));
    redis.stop();
    let mut http = Http::connect(site.nginx.port());
    let event = format!(r#"{{"n":"{}"}}"#, "x".repeat(1000));
    let statuses: Vec<u16> = (0..100).map(|_| http.post("/", &event).status).collect();
    let taken = statuses.iter().filter(|status| **status == 202).count();
    assert!((50..65).contains(&taken), "{taken} of some 1000 bytes");
    assert!(statuses.iter().all(|status| matches!(status, 202 | 503)), "{statuses:?}");
    let response = http.post("/", &event);
    assert!(response.text().contains("max_size") && response.header("Retry-After").is_some(), "{}", response.text());
    redis.restart();
    wait_list(&redis, taken);
    site.wait_empty();
    redis.stop();
    fs::remove_dir_all(&site.dir).unwrap();
    eventually(SOON, || post(site.nginx.port(), "/", r#"{"n":1}"#).status == 503);
    fs::create_dir(&site.dir).unwrap();
    eventually(SOON, || post(site.nginx.port(), "/", r#"{"n":1}"#).status == 202);
}

#[test]
fn a_damaged_segment_is_kept_aside_and_costs_only_what_is_damaged() {
    let redis = Redis::start();
    let site = Site::start(&redis.url(), "", &format!("location / {{ PASS {COMMAND} }}"));
    redis.stop();
    site.send(0..50, 202);
    let segment = site.segments().pop().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(&segment, bytes).unwrap();
    redis.restart();
    wait_list(&redis, 49);
    let damaged = format!("{}.damaged", segment.display());
    eventually(SOON, || Path::new(&damaged).exists());
    site.nginx.wait_log("are damaged and are skipped");
}

#[test]
fn a_location_may_do_without_the_spool() {
    let redis = Redis::start();
    let site = Site::start(
        &redis.url(),
        "",
        &format!("location / {{ PASS {COMMAND} }} location /off {{ PASS meteorit_spool off; {COMMAND} }}"),
    );
    redis.stop();
    eventually(SOON, || post(site.nginx.port(), "/off", r#"{"n":1}"#).status == 503);
    site.send(0..1, 202);
    assert_eq!(post(site.nginx.port(), "/off", r#"{"n":1}"#).status, 503);
}

#[test]
fn batches_transactions_and_rejected_events_are_kept_too() {
    let redis = Redis::start();
    let site = Site::start(
        &redis.url(),
        "",
        &format!(
            "location /batch {{ PASS {COMMAND} meteorit_batch partial; meteorit_response json; }}
             location /transaction {{ PASS {COMMAND} meteorit_transaction on; meteorit_command INCR n; meteorit_command PUBLISH live x; }}
             location /reject {{ PASS {COMMAND} meteorit_reject_command RPUSH rejected $event; meteorit_reject_status 204; }}"
        ),
    );
    redis.stop();
    let port = site.nginx.port();
    let response = post(port, "/batch", r#"[{"n":1},2,{"n":3}]"#);
    assert_eq!((response.status, &response.json()["accepted"]), (207, &json!(2)), "{}", response.text());
    let response = post(port, "/batch", r#"[{"n":4}]"#);
    assert_eq!((response.status, &response.json()["accepted"]), (202, &json!(1)), "{}", response.text());
    assert_eq!(post(port, "/transaction", r#"{"n":5}"#).status, 202);
    assert_eq!(post(port, "/reject", "{").status, 204);
    redis.restart();
    eventually(SOON, || redis.len("rejected") == 1);
    assert_eq!(list(&redis), ["1", "3", "4", "5"]);
    assert_eq!(redis.get("n").unwrap(), b"1");
    site.wait_empty();
}

#[test]
fn several_workers_share_a_spool() {
    let redis = Redis::start();
    let location = format!("location / {{ PASS {COMMAND} }}");
    let site = Site::builder(&redis.url(), "", &location, |builder| builder.worker_processes(4));
    site.nginx.allow_log("exited on signal 9");
    redis.stop();
    let sent = load(site.nginx.port(), 8, Until::PerConnection(100), |id| {
        Request::post("/", format!(r#"{{"n":{id}}}"#)).to_bytes()
    });
    assert!(sent.iter().all(|sent| sent.has_status(202)), "{sent:?}");
    let old = site.nginx.worker_pids();
    for pid in &old[..2] {
        site.nginx.signal(*pid, libc::SIGKILL);
    }
    redis.restart();
    wait_list(&redis, 800);
    site.wait_empty();
    let mut seen: Vec<usize> = list(&redis).iter().map(|n| n.parse().unwrap()).collect();
    seen.sort_unstable();
    let mut expected: Vec<usize> = sent.iter().map(|sent| sent.id as usize).collect();
    expected.sort_unstable();
    assert_eq!(seen, expected, "each of them once");
}

#[test]
fn mistakes_are_found_by_nginx_t() {
    let test = |text: &str| {
        let http = format!("meteorit_redis queue {{ server redis://127.0.0.1:1; {text} }}");
        Nginx::builder().http(&http).server("location / { meteorit_pass queue; meteorit_command PING; }").test()
    };
    test("spool;").assert_refused("invalid number of arguments in \"spool\" directive", "spool;");
    for parameter in ["max_size=1", "segment=x", "sync=never", "size=1g"] {
        let text = format!("spool dir {parameter};");
        test(&text).assert_refused(&format!("invalid parameter \"{parameter}\" in \"spool\" directive"), &text);
    }
    test("spool dir sync=1s sync=off;").assert_refused("duplicate parameter \"sync=off\"", "spool dir");
    test("backlog 100m; spool dir;").assert_refused("\"backlog\" of 56m at most", "meteorit_redis");
    test("spool dir max_size=1m segment=64k sync=off;").assert_ok();
    test("spool dir; } meteorit_redis other { server redis://127.0.0.1:2; spool dir;")
        .assert_refused("belongs to another \"meteorit_redis\"", "other");
    Nginx::test("location / { meteorit_spool maybe; }").assert_refused("expected \"on\" or \"off\"", "maybe");
}
