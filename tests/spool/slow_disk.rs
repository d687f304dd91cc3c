//! A disk that hangs: its clients have their answers in time, and what was being written stays.

use super::*;
use std::process::Command;

/// fdatasync(2) that waits while a file is there.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd) {
    while (access(HANGS, F_OK) == 0)
        usleep(1000);
    return syscall(SYS_fdatasync, fd);
}
"#;

#[test]
fn a_disk_that_hangs_is_504_for_what_it_may_yet_write_and_503_for_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let (source, shim, hangs) = (dir.path().join("shim.c"), dir.path().join("shim.so"), dir.path().join("hangs"));
    fs::write(&source, SHIM).unwrap();
    let define = format!("-DHANGS=\"{}\"", hangs.display());
    let compiled = Command::new("cc").args(["-shared", "-fPIC", &define, "-o"]).args([&shim, &source]).status();
    assert!(compiled.expect("a C compiler").success());
    let redis = Redis::start();
    let preload = |builder: NginxBuilder| builder.env("LD_PRELOAD", shim.to_str().unwrap());
    let locations = format!("location / {{ PASS {COMMAND} }} location /batch {{ PASS {COMMAND} meteorit_batch all; }}");
    let site = Site::with(&redis.url(), "sync=always", "timeout 300ms;", &locations, preload);
    redis.stop();
    site.send(0..3, 202);

    fs::write(&hangs, "").unwrap();
    let response = post(site.nginx.port(), "/", r#"{"n":3}"#);
    assert_eq!(response.status, 504, "{}", response.text());
    assert!(response.text().contains("disk did not answer in time"), "{}", response.text());
    for (path, body) in [("/", r#"{"n":100}"#), ("/batch", r#"[{"n":101},{"n":102}]"#)] {
        let response = post(site.nginx.port(), path, body);
        assert_eq!((response.status, response.header("Retry-After")), (503, Some("1")), "{}", response.text());
    }
    site.nginx.wait_access("/ 504 timeout");

    fs::remove_file(&hangs).unwrap();
    site.send(4..6, 202);
    redis.restart();
    wait_list(&redis, 6);
    site.wait_empty();
    assert_eq!(list(&redis), numbers(0..6), "what was answered 503 was not written");
}
