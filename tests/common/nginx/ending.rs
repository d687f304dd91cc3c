//! The end of an nginx, asked for or by drop, and what must hold then.

use super::Nginx;
use crate::common::{process, system, tail};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

/// What must not be in error.log, whatever the test was about.
/// "runtime error" is a sanitizer's, which says it on stderr: nginx makes its error.log of that.
const ALARMS: [&str; 6] = ["[alert]", "[crit]", "[emerg]", "open socket", "exited on signal", "runtime error: "];

impl Nginx {
    /// Ends nginx and checks how it ended; dropping it does the same. Connections of the test are best closed before.
    #[track_caller]
    pub fn stop(mut self) {
        self.finish();
    }

    #[track_caller]
    fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let failing = std::thread::panicking();
        let mut faults = Vec::new();
        if self.is_alive() {
            let _ = system::kill(self.master_pid(), if failing { libc::SIGTERM } else { libc::SIGQUIT });
        }
        if self.exit_within(self.exit_timeout).is_none() {
            let left =
                process::children(self.master_pid()).into_iter().map(|pid| format!("{pid} {}", process::title(pid)));
            faults.push(format!(
                "no exit within {:?} of SIGQUIT: {}",
                self.exit_timeout,
                left.collect::<Vec<_>>().join(", ")
            ));
            self.kill();
        }
        let (exit, killed) = {
            let master = self.master.lock().unwrap();
            (master.exit, master.killed)
        };
        match exit {
            Some(exit) if !killed && !exit.success() => {
                faults.push(format!("exit status {:?}, signal {:?}", exit.code(), exit.signal()))
            }
            _ => {}
        }
        faults.extend(self.alarms());
        faults.extend(self.leftovers());
        let log = tail(&self.error_log(), 40);
        if failing {
            eprintln!("--- the end of error.log of the nginx in {}\n{log}\n---", self.dir().display());
        } else if !faults.is_empty() {
            panic!("nginx did not end well:\n  {}\nthe end of its log:\n{log}", faults.join("\n  "));
        }
    }

    fn alarms(&self) -> Vec<String> {
        let allowed = self.allowed.lock().unwrap();
        let log = self.error_log() + &self.read("logs/stderr.log");
        let alarming = log.lines().filter(|line| ALARMS.iter().any(|alarm| line.contains(alarm)));
        let unexpected = alarming.filter(|line| !allowed.iter().any(|allowed| line.contains(allowed.as_str())));
        unexpected.map(str::to_string).collect()
    }

    /// An nginx that does not start leaves to the kernel what it began with; whatever else a sanitizer found stays.
    pub(super) fn forget_leaks(&self) {
        for path in self.sanitizer_prefix.iter().flat_map(|prefix| files_starting_with(prefix)) {
            if fs::read_to_string(&path).is_ok_and(|report| report.contains("LeakSanitizer")) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Cores in the directory, and reports of this instance's processes beside METEORIT_ASAN_LOG.
    fn leftovers(&self) -> Vec<String> {
        let mut found = files_starting_with(&self.dir().join("core"));
        if let Some(prefix) = &self.sanitizer_prefix {
            let reports = files_starting_with(prefix);
            found.extend(
                reports.iter().map(|path| format!("{path}:\n{}", fs::read_to_string(path).unwrap_or_default())),
            );
        }
        found
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.finish();
    }
}

fn files_starting_with(prefix: &Path) -> Vec<String> {
    let (Some(dir), Some(start)) = (prefix.parent(), prefix.file_name()) else {
        return Vec::new();
    };
    let start = start.to_string_lossy();
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&*start));
    names.map(|entry| entry.path().display().to_string()).collect()
}
