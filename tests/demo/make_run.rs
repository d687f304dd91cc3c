//! `make run`. It makes the release build first, which may take a minute the first time, and owns target/run while it lasts:
//! one after another, and not beside a `make run` of the user's own.

use super::*;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const SOON: Duration = Duration::from_secs(20);

/// What cargo built this test into: the same for `make run`.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    test.ancestors().nth(3).expect("target/PROFILE/deps/TEST").to_path_buf()
}

/// `make run` in a process group of its own, as a shell gives it one.
struct MakeRun {
    make: Child,
    output: BufReader<ChildStdout>,
    _turn: MutexGuard<'static, ()>,
}

impl MakeRun {
    fn start(variables: &[String]) -> MakeRun {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = Command::new("env");
        // A test that runs in the background of a shell may have inherited that Ctrl-C is ignored.
        command.args(["--default-signal=INT", "make", "--no-print-directory", "-C", ROOT, "run", "INSTALL=no"]);
        command.args(variables).env("CARGO_TARGET_DIR", target());
        if cfg!(feature = "vendored") {
            command.arg("VENDORED=1");
        }
        // cargo and make tell their children things that are not for this one.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MAKE") || name == "MFLAGS") {
            command.env_remove(name);
        }
        let log = fs::File::create(target().join("make-run.log")).expect("a file for messages");
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut make = command.spawn().expect("make runs");
        let output = BufReader::new(make.stdout.take().expect("its output"));
        MakeRun { make, output, _turn: turn }
    }

    /// The commands it prints to try, once all is up.
    fn commands(&mut self) -> Vec<String> {
        let mut commands = Vec::new();
        let mut line = String::new();
        loop {
            line.clear();
            if self.output.read_line(&mut line).expect("its output") == 0 {
                panic!("make run ended: {}", MakeRun::messages());
            }
            if let Some(command) = line.strip_prefix("    ") {
                commands.push(command.trim_end().to_string());
            }
            if line.contains("Ctrl-C stops") {
                return commands;
            }
        }
    }

    fn messages() -> String {
        fs::read_to_string(target().join("make-run.log")).unwrap_or_default()
    }

    /// The processes it started, by name, as its lock file lists them.
    fn started() -> Vec<(String, i32)> {
        let list = fs::read_to_string(target().join("run/lock")).expect("the list of processes");
        let entry = |line: &str| {
            let (name, pid) = line.split_once(' ')?;
            Some((name.to_string(), pid.parse().ok()?))
        };
        list.lines().filter_map(entry).collect()
    }

    /// What Ctrl-C does: SIGINT to the whole group.
    fn interrupt(&self) {
        let kill = format!("kill -s INT -- -{}", self.make.id());
        let _ = Command::new("sh").args(["-c", &kill]).status();
    }

    fn wait(&mut self) -> ExitStatus {
        wait_for(SOON, || self.make.try_wait().expect("a child of ours")).expect("make run ends")
    }
}

impl Drop for MakeRun {
    fn drop(&mut self) {
        if self.make.try_wait().is_ok_and(|exit| exit.is_none()) {
            self.interrupt();
            let ended = within(SOON, || self.make.try_wait().is_ok_and(|exit| exit.is_some()));
            assert!(ended || std::thread::panicking(), "make run does not end: {}", MakeRun::messages());
        }
    }
}

/// As a user pastes it into a shell.
fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().expect("sh runs");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_served(port: u16) -> bool {
    Http::try_connect(port).is_ok()
}

#[test]
fn make_run_prints_commands_that_work_and_stops_what_it_started() {
    let port = Port::lease();
    let mut run = MakeRun::start(&[format!("PORT={}", port.number())]);
    let commands = run.commands();
    let [event, find, more] = &commands[..] else { panic!("{commands:?}") };

    let answer = sh(event);
    assert!(answer.starts_with("HTTP/1.1 204"), "{event}: {answer}");
    let found = sh(find);
    assert!(found.contains(r#"{"page":"/home"}"#), "{find}: {found}");
    let page = sh(more);
    let hints: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("  curl ")).collect();
    let answers: Vec<String> = hints.iter().map(|hint| sh(&format!("curl {hint}"))).collect();
    let statuses: Vec<&str> = answers.iter().map(|answer| &answer[9..12]).collect();
    assert_eq!(statuses, ["204", "204", "204", "400"], "{page}");
    assert!(answers[3].contains("application/problem+json") && answers[3].contains("line 1"), "{}", answers[3]);

    let started = MakeRun::started();
    for name in ["nginx", "redis"] {
        assert!(started.iter().any(|(known, pid)| known == name && is_running(*pid)), "no {name} in {started:?}");
    }
    run.interrupt();
    run.wait();
    eventually(SOON, || !started.iter().any(|(_, pid)| is_running(*pid)));
    assert!(!is_served(port.number()));
    let socket = find.split(' ').find(|word| word.ends_with(".sock")).expect("the socket of its Redis");
    assert!(!Path::new(socket).exists());
}

#[test]
fn make_run_uses_a_redis_of_the_users_own() {
    let redis = Redis::start();
    let port = Port::lease();
    let mut run = MakeRun::start(&[format!("PORT={}", port.number()), format!("REDIS_URL={}/3", redis.url())]);
    let commands = run.commands();
    assert!(sh(&commands[0]).starts_with("HTTP/1.1 204"));
    assert!(sh(&commands[1]).contains(r#"{"page":"/home"}"#), "{commands:?}");
    assert!(redis.info("keyspace_hits").parse::<u32>().unwrap() > 0 && redis.len("events") == 0, "in database 3");
    let started = MakeRun::started();
    assert!(!started.iter().any(|(name, _)| name == "redis"), "{started:?}");
    run.interrupt();
    run.wait();
    eventually(SOON, || !is_served(port.number()));
    assert!(redis.pid().is_some(), "it was not its own to stop");
}

#[test]
fn make_run_tells_that_the_port_is_taken() {
    let port = Port::lease();
    let _taken = TcpListener::bind(("127.0.0.1", port.number())).unwrap();
    let mut run = MakeRun::start(&[format!("PORT={}", port.number())]);
    assert!(!run.wait().success());
    let messages = MakeRun::messages();
    assert!(messages.contains(&format!("port {} is taken", port.number())), "{messages}");
    assert!(messages.contains("make run PORT="), "{messages}");
}

#[test]
fn a_second_make_run_says_that_the_first_one_runs() {
    let (first, second) = (Port::lease(), Port::lease());
    let mut run = MakeRun::start(&[format!("PORT={}", first.number())]);
    run.commands();
    let output = Command::new("make")
        .args(["-C", ROOT, "run", "INSTALL=no", &format!("PORT={}", second.number())])
        .env("CARGO_TARGET_DIR", target())
        .output()
        .expect("make runs");
    assert!(!output.status.success());
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(messages.contains("in use by another make run") && messages.contains("nginx: process"), "{messages}");
    assert!(is_served(first.number()), "the first one goes on");
}
