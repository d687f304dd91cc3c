//! Processes under test: started so that they cannot outlive the test run, and read through /proc.

use super::{system, wait_for};
use std::fs;
use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts the command; when the test run ends in whatever way, the kernel sends `signal` to it.
pub fn spawn(mut command: Command, signal: i32) -> io::Result<Child> {
    // The kernel's promise is bound to the thread that forks, and test threads end with their test: one lasting thread starts them all.
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    system::die_with_parent(&mut command, signal);
    let orders = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = mpsc::channel();
    orders.lock().unwrap().send((command, answer)).expect("the spawning thread");
    child.recv().expect("the spawning thread")
}

pub fn wait_exit(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    wait_for(timeout, || child.try_wait().expect("a child of ours"))
}

pub fn children(pid: i32) -> Vec<i32> {
    let list = match fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) {
        Ok(list) => list,
        Err(_) => return children_by_scan(pid),
    };
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// For kernels without the list of children.
fn children_by_scan(parent: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| stat_field(pid, 1).is_some_and(|ppid| ppid == parent.to_string()))
        .collect()
}

/// The command line as `ps` shows it, which nginx rewrites to say what the process is; empty when it is gone.
pub fn title(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_string()
}

/// False for one that is gone, and for one that has ended and nobody has waited for.
pub fn is_running(pid: i32) -> bool {
    stat_field(pid, 0).is_some_and(|state| state != "Z" && state != "X")
}

/// By SIGSTOP.
pub fn is_stopped(pid: i32) -> bool {
    stat_field(pid, 0).is_some_and(|state| state == "T")
}

pub fn rss_kb(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

pub fn open_fds(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count())
}

/// User and system time so far.
pub fn cpu_time(pid: i32) -> Duration {
    let ticks = |index| stat_field(pid, index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 1000 / system::clock_ticks_per_second())
}

/// proc(5): the fields of `stat` after the name, which is in parentheses and may contain anything; 0 is the state.
fn stat_field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = &stat[stat.rfind(')')? + 1..];
    rest.split_whitespace().nth(index).map(str::to_string)
}
