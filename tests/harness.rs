//! The harness proves itself: nginx, redis-server, the scripted Redis, the HTTP client and the load do what the other tests rely on,
//! and a test whose nginx ends badly does fail. Nothing here needs the module.

mod common;
#[path = "harness/ledger.rs"]
mod ledger;
// Beside this file it would be a test of its own.
#[path = "harness/redis_servers.rs"]
mod redis_servers;

use common::*;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);
const NO_CONTENT: &str = "location / { return 204; }";

fn plain(text: &str) -> Nginx {
    Nginx::builder().without_module().text(text).start()
}

/// What a failing assertion says.
fn failure_of(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("this must fail");
    panic.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn nginx_serves_and_quits() {
    let nginx = plain(NO_CONTENT);
    assert_eq!(get(nginx.port(), "/").status, 204);
    nginx.wait_access("204 GET /");
    assert_eq!(nginx.worker_pids().len(), 1);
    assert!((nginx.worker_rss_kb() > 0 || std::env::var_os("METEORIT_ASAN_LOG").is_some()) && nginx.worker_fds() > 3);
    assert!(nginx.quit().success());
    assert!(Http::try_connect(nginx.port()).is_err());
    nginx.stop();
}

#[test]
fn nginx_takes_every_level_of_configuration() {
    let nginx = Nginx::builder()
        .without_module()
        .main("worker_rlimit_nofile 1000;")
        .events("multi_accept on;")
        .http("map $uri $greeting { default hello; }")
        .server("location / { return 200 $greeting; }")
        .server("listen 127.0.0.1:%PORT2%;\nroot %DIR%/html;")
        .file("html/page", "on %PORT2%")
        .log_format("$uri=$status")
        .worker_processes(2)
        .worker_connections(64)
        .start();
    assert_eq!(get(nginx.port(), "/a").text(), "hello");
    assert_eq!(get(nginx.port_n(2), "/page").text(), format!("on {}", nginx.port_n(2)));
    assert_eq!(get(nginx.port_n(2), "/none").status, 404);
    nginx.wait_access("/a=200");
    assert_eq!(nginx.worker_pids().len(), 2);
}

#[test]
fn nginx_takes_a_text_with_servers_and_a_whole_configuration() {
    let nginx = plain("map $uri $m { default mapped; }\nserver {\n listen 127.0.0.1:%PORT%;\n return 200 $m;\n}");
    assert_eq!(get(nginx.port(), "/").text(), "mapped");

    let whole =
        "worker_processes 1;\nevents { }\nhttp {\n server {\n listen 127.0.0.1:%PORT%;\n return 200 whole;\n }\n}\n";
    let nginx = Nginx::builder().without_module().whole(whole).start();
    assert_eq!(get(nginx.port(), "/").text(), "whole");
    let test = Nginx::builder().without_module().whole(&whole.replace("return 200", "retrun 200")).test();
    test.assert_refused("unknown directive \"retrun\"", "retrun");
    assert!(test.at("retrun").ends_with("nginx.conf:6"), "{}", test.at("retrun"));
}

#[test]
fn nginx_t_tells_file_and_line() {
    let builder = Nginx::builder().without_module();
    builder.clone().text(NO_CONTENT).test().assert_ok();
    let test = builder.text("location / {\n  return 204;\n  retrun 204;\n}").test();
    test.assert_refused("unknown directive \"retrun\"", "retrun 204");
    assert!(failure_of(|| test.assert_refused("unknown directive \"retrun\"", "return 204")).contains("expected"));
}

#[test]
fn reload_changes_workers_and_configuration_under_load() {
    let nginx = plain("location / { return 204; }");
    let load = Load::start(nginx.port(), 3, Until::Elapsed(SOON), |id| Request::get(&format!("/{id}")).to_bytes());
    load.wait_more(50);
    let before = nginx.worker_pids();
    nginx.rewrite_conf(|conf| conf.replace("return 204", "return 202"));
    nginx.reload_and_drain();
    assert!(nginx.worker_pids().iter().all(|pid| !before.contains(pid)));
    load.wait_more(50);
    let sent = load.stop();
    assert_eq!(sent.iter().map(|sent| sent.id).collect::<HashSet<_>>().len(), sent.len());
    assert!(sent.iter().any(|sent| sent.has_status(204)) && sent.last().unwrap().has_status(202));
    // A connection closed while a request was on its way is HTTP's own race; an answer of any other kind is not.
    assert!(sent.iter().all(|sent| matches!(sent.result, Ok(204 | 202) | Err(_))));
    assert_eq!(get(nginx.port(), "/").status, 202);
}

#[test]
fn a_failed_reload_fails_the_test() {
    let nginx = plain(NO_CONTENT);
    nginx.allow_log("unknown directive \"retrun\"");
    nginx.rewrite_conf(|conf| conf.replace("return", "retrun"));
    assert!(failure_of(|| drop(nginx.reload())).contains("did not reload"));
    assert_eq!(get(nginx.port(), "/").status, 204);
}

#[test]
fn an_alert_in_the_log_fails_the_test_unless_allowed() {
    for allowed in [false, true] {
        let nginx = plain(NO_CONTENT);
        let old = nginx.worker_pids();
        nginx.signal(old[0], libc::SIGKILL);
        nginx.wait_log("exited on signal 9");
        assert_eq!(nginx.wait_respawn(&old).len(), 1);
        if allowed {
            nginx.allow_log("exited on signal 9");
            nginx.stop();
        } else {
            let why = failure_of(|| drop(nginx));
            assert!(why.contains("[alert]") && why.contains("exited on signal 9"), "{why}");
        }
    }
}

#[test]
fn an_nginx_that_does_not_quit_fails_the_test() {
    let builder = Nginx::builder().without_module().exit_timeout(Duration::from_millis(300));
    let nginx = builder.text(NO_CONTENT).start();
    let worker = nginx.worker_pids()[0];
    let master = nginx.master_pid();
    nginx.signal(worker, libc::SIGSTOP);
    assert!(failure_of(|| nginx.stop()).contains("no exit within"));
    assert!(!is_running(master) && !is_running(worker));
}

#[test]
fn a_core_file_fails_the_test() {
    let nginx = plain(NO_CONTENT);
    std::fs::write(nginx.dir().join("core.1"), "").unwrap();
    assert!(failure_of(|| nginx.stop()).contains("core.1"));
}

#[test]
fn a_configuration_that_does_not_start_shows_the_log() {
    let builder = Nginx::builder().without_module().text("retrun 204;");
    let why = failure_of(|| drop(builder.start()));
    assert!(why.contains("unknown directive \"retrun\""), "{why}");
}

#[test]
fn a_killed_nginx_leaves_no_process() {
    let nginx = Nginx::builder().without_module().worker_processes(2).text(NO_CONTENT).start();
    let pids: Vec<i32> = nginx.worker_pids().into_iter().chain([nginx.master_pid()]).collect();
    nginx.kill();
    assert!(!pids.into_iter().any(is_running));
}

#[test]
fn many_nginx_find_ports_at_once() {
    let ports: Vec<u16> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| plain(NO_CONTENT))).collect();
        let all: Vec<Nginx> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        all.iter().map(|nginx| (get(nginx.port(), "/").status == 204).then_some(nginx.port()).unwrap()).collect()
    });
    assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 8);
}

#[test]
fn a_port_nobody_listens_on_refuses() {
    let port = Port::lease();
    assert_eq!(Http::try_connect(port.number()).err().unwrap().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn curl_speaks_http2() {
    let nginx = Nginx::builder().without_module().http2().text("location / { return 200 $server_protocol; }").start();
    let url = format!("http://127.0.0.1:{}/", nginx.h2_port());
    let output = curl(&["--http2-prior-knowledge", &url]);
    assert_eq!((output.status, output.text().as_str()), (200, "HTTP/2.0"), "{output:?}");
    assert_eq!(get(nginx.port(), "/").text(), "HTTP/1.1");
    let refused = curl(&[&format!("http://127.0.0.1:{}/", Port::lease().number())]);
    assert_eq!((refused.status, refused.exit), (0, 7), "{refused:?}");
}

/// The first server reads the body whole, logs it and passes it on; the second tells its length.
const ECHO: &str = r#"
    log_format body escape=none '[$request_body]';
    server {
        listen 127.0.0.1:%PORT%;
        access_log logs/body.log body;
        location / { proxy_pass http://127.0.0.1:%PORT2%; }
    }
    server {
        listen 127.0.0.1:%PORT2%;
        location / { return 200 "$http_content_length $request_method"; }
    }
"#;

#[test]
fn http_sends_bodies_in_every_way() {
    let nginx = plain(ECHO);
    let mut http = Http::connect(nginx.port());
    assert_eq!(http.post("/", "whole").text(), "5 POST");
    assert_eq!(http.post_chunked("/", &[b"a", b"bc", b"def"]).text(), "6 POST");
    let response = http.call_expecting_continue(&Request::post("/", "continued"));
    assert_eq!((response.text().as_str(), response.interim.as_slice()), ("9 POST", [100].as_slice()));
    http.send_slowly(&Request::post("/", "slow").to_bytes(), 16, Duration::from_millis(1));
    let response = http.read_response();
    assert_eq!((response.text().as_str(), response.header("content-TYPE")), ("4 POST", Some("text/plain")));
    let response = http.request("PUT", "/", &[("X-A", "b"), ("Connection", "close")], "put");
    assert!(response.closes() && response.text() == "3 PUT");
    assert!(http.is_closed());
    drop(http);
    for body in ["[whole]", "[abcdef]", "[continued]", "[slow]", "[put]"] {
        eventually(SOON, || nginx.read("logs/body.log").contains(body));
    }
}

#[test]
fn http_reads_responses_of_every_shape() {
    let nginx = plain(
        "location = /json { default_type application/json; return 200 '{\"a\": [1]}'; }\n\
         location = /none { return 204; }\n\
         location = /chunks { root %DIR%/html; ssi on; ssi_types *; }\n\
         location = /old { return 200 old; keepalive_timeout 0; }",
    );
    std::fs::write(nginx.dir().join("html/chunks"), "chunk <!--#echo var=\"uri\" --> end").unwrap();
    let mut http = Http::connect(nginx.port());
    assert_eq!(http.get("/json").json()["a"][0], 1);
    assert_eq!(http.get("/none").body, b"");
    let head = http.request("HEAD", "/json", &[], "");
    assert_eq!((head.header("Content-Length"), head.body.len()), (Some("10"), 0));
    let chunked = http.get("/chunks");
    assert_eq!((chunked.header("Transfer-Encoding"), chunked.text().as_str()), (Some("chunked"), "chunk /chunks end"));
    let mut old = Http::connect(nginx.port());
    old.send_raw(b"GET /chunks HTTP/1.0\r\n\r\n");
    assert_eq!(old.read_response().text(), "chunk /chunks end");
    http.send_raw(b"NONSENSE\r\n\r\n");
    assert_eq!(http.read_response().status, 400);
}

#[test]
fn http_pipelines() {
    let nginx = plain("location / { return 200 $uri; }");
    let requests: Vec<Request> = (0..2000).map(|i| Request::get(&format!("/{i}"))).collect();
    let responses = Http::connect(nginx.port()).pipeline(&requests);
    assert!(responses.iter().enumerate().all(|(i, response)| response.text() == format!("/{i}")));
}

#[test]
fn http_half_closes_aborts_and_times_out() {
    let nginx = plain(ECHO);
    let mut http = Http::connect(nginx.port_n(2));
    http.send_raw(&Request::get("/").to_bytes());
    http.half_close();
    assert_eq!(http.read_response().status, 200);
    assert!(http.is_closed());

    let mut http = Http::connect(nginx.port());
    http.send_raw(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    assert!(http.is_silent(Duration::from_millis(50)));
    http.set_timeout(Duration::from_millis(50));
    let why = failure_of(|| drop(http.read_response()));
    assert!(why.contains("no whole response within 50ms"), "{why}");
    http.abort();
    nginx.wait_log("Connection reset by peer");
}

#[test]
fn load_knows_what_became_of_every_event() {
    let nginx = plain(NO_CONTENT);
    let sent = load(nginx.port(), 4, Until::PerConnection(100), |id| Request::post(&format!("/{id}"), "{}").to_bytes());
    assert_eq!(sent.iter().map(|sent| sent.id).collect::<Vec<_>>(), (0..400).collect::<Vec<_>>());
    assert!(sent.iter().all(|sent| sent.has_status(204)));
    eventually(SOON, || nginx.access_log().lines().filter(|line| line.starts_with("204 POST /")).count() == 400);
}
