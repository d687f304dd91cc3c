//! packaging/self-test.sh, which packages install as /usr/share/meteorit/self-test: it passes with a Redis, says in a line what is
//! wrong when something is, and leaves nothing behind.

mod common;

use common::*;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/self-test.sh");

/// A run of the script with the nginx and the module under test; its temporary files are in the directory.
struct Run {
    directory: TempDir,
    command: Command,
}

impl Run {
    fn new() -> Run {
        let directory = TempDir::new().expect("a directory");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let conf = directory.path().join("system.conf");
        fs::write(&conf, "pid /dev/null; error_log stderr; events {}\n").unwrap();
        let mut command = Command::new(if Path::new("/bin/dash").exists() { "/bin/dash" } else { "sh" });
        command.arg(SCRIPT).env("TMPDIR", directory.path()).env("NGINX_CONF", conf);
        command.env("NGINX_BINARY", binary()).env("MODULE", module());
        // What an earlier check of the harness has set is not for a second nginx.
        command.env_remove("REDIS_URL").env_remove("http_proxy");
        Run { directory, command }
    }

    fn with(url: &str) -> Run {
        Run::new().env("REDIS_URL", url)
    }

    fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Run {
        self.command.env(name, value);
        self
    }

    /// A PATH with these programs and nothing else.
    fn only(self, programs: &[&str]) -> Run {
        let bin = self.directory.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for name in programs {
            let path = std::env::var_os("PATH").unwrap();
            let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|path| path.is_file());
            symlink(found.unwrap_or_else(|| panic!("{name} is not in the PATH")), bin.join(name)).unwrap();
        }
        self.env("PATH", bin)
    }

    /// The lines it prints, after it has ended as it should, with nothing of it left.
    #[track_caller]
    fn ends(mut self, status: i32) -> Vec<String> {
        let before = names(self.directory.path());
        let Output { status: ended, stdout, stderr } = self.command.output().expect("the script runs");
        let text = String::from_utf8_lossy(&stdout).into_owned();
        assert_eq!(ended.code(), Some(status), "{text}{}", String::from_utf8_lossy(&stderr));
        assert_eq!(String::from_utf8_lossy(&stderr), "");
        assert_eq!(names(self.directory.path()), before, "something is left");
        // A process of it has the directory among its arguments.
        let directory = self.directory.path().display().to_string();
        let processes =
            fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
        let left =
            processes.map(|line| String::from_utf8_lossy(&line).into_owned()).find(|line| line.contains(&directory));
        assert_eq!(left, None, "a process is left");
        text.lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn fails(self, line: &str) {
        let lines = self.ends(1);
        assert!(lines.iter().any(|found| found.starts_with(&format!("FAILED  {line}"))), "no {line:?} in {lines:#?}");
    }
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// Each line's first two words.
fn checks(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect()
}

const ALL_WELL: [&str; 5] = ["ok nginx:", "ok configuration:", "ok module:", "ok redis:", "ok event:"];

#[test]
fn all_is_well_with_a_redis_and_nothing_stays_in_it() {
    let redis = Redis::start();
    let lines = Run::with(&redis.url()).ends(0);
    assert_eq!(checks(&lines), ALL_WELL);
    assert!(lines[4].contains("is in Redis as it was sent"), "{lines:#?}");
    assert_eq!(redis.ask::<i64>(&["DBSIZE"]), 0);
}

#[test]
fn a_password_a_database_and_a_socket_are_taken_from_the_url() {
    let redis = Redis::with(&["--requirepass", "p@ss w%rd'\\"]);
    let password = "p%40ss%20w%25rd'%5C";
    let tcp = redis.url().replace("redis://", &format!("redis://:{password}@")) + "/2";
    let unix = format!("redis+unix://{}?db=3&pass={password}", redis.socket().display());
    for url in [tcp, unix] {
        let lines = Run::with(&url).ends(0);
        assert!(lines[4].contains("is in Redis as it was sent"), "{url}: {lines:#?}");
    }
}

#[test]
fn without_redis_cli_it_says_what_it_could_not_see() {
    let redis = Redis::start();
    let programs = ["sed", "tr", "tail", "mktemp", "mkdir", "od", "rm", "cat", "id", "grep", "awk", "sleep", "curl"];
    let lines = Run::with(&redis.url()).only(&programs).ends(0);
    assert_eq!(checks(&lines), ALL_WELL);
    assert!(lines[4].contains("without redis-cli"), "{lines:#?}");
    assert_eq!(redis.ask::<i64>(&["DBSIZE"]), 0);
    Run::with(&redis.url()).only(&programs[..programs.len() - 1]).fails("client: this needs curl or wget");
}

#[test]
fn without_a_redis_it_fails_and_says_why() {
    let redis = Redis::start();
    redis.stop();
    Run::with(&redis.url()).fails("redis: Redis is away: connect failed: Connection refused");
}

#[test]
fn a_redis_that_refuses_is_a_failure_with_its_words() {
    let redis = Redis::with(&["--requirepass", "right"]);
    Run::with(&redis.url()).fails("redis: Redis is away: PING failed: NOAUTH");
    let url = redis.url().replace("redis://", "redis://:wr0ng-secret@");
    let lines = Run::with(&url).ends(1);
    assert!(lines.iter().any(|line| line.contains("WRONGPASS")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("wr0ng-secret")), "{lines:#?}");
}

#[test]
fn a_url_that_is_none_is_a_failure_of_redis() {
    Run::with("redis://").fails("redis: ");
    Run::with("redis://x'; evil on; '").fails("redis: ");
}

#[test]
fn a_wrong_module_is_a_failure() {
    let run = Run::new();
    let path = run.directory.path().join("not-a-module.so");
    fs::write(&path, "text").unwrap();
    run.env("MODULE", &path).fails(&format!("module: nginx does not load {}: dlopen()", path.display()));
    Run::new().env("MODULE", "/nonexistent.so").fails("module: there is none at /nonexistent.so");
}

#[test]
fn no_nginx_is_a_failure() {
    Run::new().env("NGINX_BINARY", "/nonexistent").fails("nginx: there is none at /nonexistent");
}

#[test]
fn a_mistake_in_the_configuration_of_the_system_is_a_failure_and_the_other_checks_go_on() {
    let redis = Redis::start();
    let run = Run::with(&redis.url());
    let conf = run.directory.path().join("system.conf");
    fs::write(&conf, "events {}\nbad on;\n").unwrap();
    let lines = run.ends(1);
    assert_eq!(checks(&lines), ["ok nginx:", "FAILED configuration:", "ok module:", "ok redis:", "ok event:"]);
    assert!(lines[1].contains("unknown directive \"bad\""), "{lines:#?}");
    let lines = Run::with(&redis.url()).env("NGINX_CONF", "/nonexistent").ends(0);
    assert_eq!(checks(&lines)[1], "skipped configuration:");
}

#[test]
fn an_unknown_argument_is_told_and_help_is_given() {
    let mut run = Run::new();
    let output = run.command.arg("--wrong").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown argument \"--wrong\""));
    let output = Run::new().command.arg("--help").output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).starts_with("usage: self-test"));
}
