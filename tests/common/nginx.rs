//! A running nginx, master and workers, in a directory of its own.
//! When it ends it must have ended well: exit status 0, nothing alarming in its log, no core, no sanitizer report; else the test fails.

mod ending;

use super::conf::{ConfigTest, NginxBuilder, Site};
use super::installed::version;
use super::{eventually, process, system, tail, wait_for, within};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, SystemTime};

/// Enough for valgrind on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(10);

pub struct Nginx {
    site: Site,
    master: Mutex<Master>,
    /// Of the master that serves: another one after an upgrade.
    pid: AtomicI32,
    workers: usize,
    exit_timeout: Duration,
    allowed: Mutex<Vec<String>>,
    killed: Mutex<BTreeMap<i32, SystemTime>>,
    sanitizer_prefix: Option<PathBuf>,
    finished: bool,
}

struct Master {
    /// The one that the harness started.
    child: Child,
    /// The one that took over from it.
    heir: Option<i32>,
    exit: Option<ExitStatus>,
    killed: bool,
}

impl Nginx {
    pub fn builder() -> NginxBuilder {
        NginxBuilder::default()
    }

    /// With the module, one worker, and this in a `server` that listens on [`Nginx::port`]; or in `http` when the text has its own `server {`.
    #[track_caller]
    pub fn start(text: &str) -> Nginx {
        Nginx::builder().text(text).start()
    }

    /// Runs `nginx -t` on what [`Nginx::start`] would run.
    #[track_caller]
    pub fn test(text: &str) -> ConfigTest {
        Nginx::builder().text(text).test()
    }

    /// Of the nginx under test, like `(1, 22, 1)`.
    pub fn version() -> (u32, u32, u32) {
        version()
    }

    #[track_caller]
    pub(super) fn start_with(builder: NginxBuilder) -> Nginx {
        // A port is leased among tests; something else on the machine can still have it.
        for _ in 0..5 {
            match Nginx::try_start(&builder) {
                Ok(nginx) => return nginx,
                Err(why) if why.contains("bind()") && why.contains("in use") => continue,
                Err(why) => panic!("nginx did not start\n{why}"),
            }
        }
        panic!("nginx found its ports taken five times");
    }

    fn try_start(builder: &NginxBuilder) -> Result<Nginx, String> {
        let site = builder.lay_out();
        let mut command = builder.command(&site);
        let sanitizer_prefix = std::env::var_os("METEORIT_ASAN_LOG").map(|prefix| {
            let name = site.dir.path().file_name().expect("a directory with a name");
            let prefix = PathBuf::from(format!("{}.{}", prefix.display(), name.display()));
            for variable in ["ASAN_OPTIONS", "UBSAN_OPTIONS"] {
                let options = std::env::var(variable).unwrap_or_default();
                command.env(variable, format!("{options}:log_path={}", prefix.display()));
            }
            prefix
        });
        let stderr = fs::File::create(site.dir.path().join("logs/stderr.log")).expect("a file for stderr");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        if builder.daemon {
            system::adopt_orphans();
        }
        let child = process::spawn(command, libc::SIGTERM).map_err(|error| format!("cannot run nginx: {error}"))?;
        let conf = fs::read_to_string(&site.conf).expect("nginx.conf");
        let mut nginx = Nginx {
            pid: AtomicI32::new(child.id() as i32),
            site,
            master: Mutex::new(Master { child, heir: None, exit: None, killed: false }),
            workers: if conf.contains("master_process off") { 0 } else { builder.workers },
            exit_timeout: builder.exit_timeout,
            allowed: Mutex::new(builder.allowed.clone()),
            killed: Mutex::default(),
            sanitizer_prefix,
            finished: false,
        };
        if builder.daemon {
            nginx.follow_daemon();
        }
        let ready = wait_for(START_TIMEOUT, || {
            if !nginx.is_alive() || nginx.error_log().contains("Address already in use") {
                return Some(false);
            }
            nginx.is_ready().then_some(true)
        });
        if ready == Some(true) {
            return Ok(nginx);
        }
        nginx.kill();
        nginx.finished = true;
        nginx.forget_leaks();
        Err(format!("{}\n{}\n{conf}", nginx.error_log(), nginx.read("logs/stderr.log")))
    }

    /// The process that was started ends, and its child is the master.
    fn follow_daemon(&mut self) {
        let master = self.master.get_mut().unwrap();
        let started = process::wait_exit(&mut master.child, START_TIMEOUT);
        let path = self.site.dir.path().join("nginx.pid");
        let pid = wait_for(TIMEOUT, || match started {
            Some(exit) if exit.success() => fs::read_to_string(&path).ok()?.trim().parse().ok().map(Some),
            _ => Some(None),
        });
        match pid.flatten() {
            Some(pid) => {
                master.heir = Some(pid);
                *self.pid.get_mut() = pid;
            }
            None => master.exit = started,
        }
    }

    /// The pid file is written after the listening sockets are bound, so what answers on the port is this nginx.
    fn is_ready(&self) -> bool {
        fs::metadata(self.dir().join("nginx.pid")).is_ok_and(|file| file.len() > 0)
            && self.worker_pids().len() >= self.workers
            && self.port_named("%PORT%").is_none_or(|port| TcpStream::connect(("127.0.0.1", port)).is_ok())
    }

    #[track_caller]
    pub fn port(&self) -> u16 {
        self.port_named("%PORT%").expect("a configuration with %PORT%")
    }

    /// `%PORT2%` and so on.
    #[track_caller]
    pub fn port_n(&self, n: usize) -> u16 {
        self.port_named(&format!("%PORT{n}%")).expect("a configuration with that port")
    }

    #[track_caller]
    pub fn h2_port(&self) -> u16 {
        self.port_named("%PORT_H2%").expect("a configuration with http2()")
    }

    fn port_named(&self, name: &str) -> Option<u16> {
        self.site.ports.iter().find(|(known, _)| known == name).map(|(_, port)| port.number())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    pub fn dir(&self) -> &Path {
        self.site.dir.path()
    }

    /// A text file below the directory; empty when there is none.
    pub fn read(&self, path: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.dir().join(path)).unwrap_or_default()).into_owned()
    }

    pub fn error_log(&self) -> String {
        self.read("logs/error.log")
    }

    /// A line appears when nginx has finalized the request, which may be after the client has its answer: see [`Nginx::wait_access`].
    pub fn access_log(&self) -> String {
        self.read("logs/access.log")
    }

    /// The first line of error.log that contains this, waiting for it.
    #[track_caller]
    pub fn wait_log(&self, substring: &str) -> String {
        self.wait_line("logs/error.log", substring)
    }

    #[track_caller]
    pub fn wait_access(&self, substring: &str) -> String {
        self.wait_line("logs/access.log", substring)
    }

    #[track_caller]
    fn wait_line(&self, path: &str, substring: &str) -> String {
        let line =
            wait_for(TIMEOUT, || self.read(path).lines().find(|line| line.contains(substring)).map(str::to_string));
        line.unwrap_or_else(|| {
            panic!("no {substring:?} in {path} after {TIMEOUT:?}; its end:\n{}", tail(&self.read(path), 30))
        })
    }

    /// How many lines of error.log contain this now.
    pub fn count_log(&self, substring: &str) -> usize {
        self.error_log().lines().filter(|line| line.contains(substring)).count()
    }

    /// This test expects alarming lines that contain this.
    pub fn allow_log(&self, substring: &str) {
        self.allowed.lock().unwrap().push(substring.to_string());
    }

    pub fn master_pid(&self) -> i32 {
        self.pid.load(Ordering::SeqCst)
    }

    /// The workers that serve, not those that are shutting down.
    pub fn worker_pids(&self) -> Vec<i32> {
        if std::env::var_os("METEORIT_VALGRIND").is_some() {
            // The title is valgrind's.
            let log = self.error_log();
            let says = |text: String| log.lines().any(|line| line.ends_with(&text));
            let serves = |pid: &i32| {
                says(format!(": start worker process {pid}"))
                    && !says(format!(" {pid}#{pid}: gracefully shutting down"))
            };
            return process::children(self.master_pid()).into_iter().filter(serves).collect();
        }
        let serves = |pid: &i32| {
            let title = process::title(*pid);
            title.contains(": worker process") && !title.contains("shutting down")
        };
        process::children(self.master_pid()).into_iter().filter(serves).collect()
    }

    /// 0 under a sanitizer, which keeps what was freed.
    pub fn worker_rss_kb(&self) -> u64 {
        if self.sanitizer_prefix.is_some() {
            return 0;
        }
        self.worker_pids().into_iter().map(process::rss_kb).sum()
    }

    pub fn worker_fds(&self) -> usize {
        self.worker_pids().into_iter().map(process::open_fds).sum()
    }

    pub fn worker_cpu(&self) -> Duration {
        self.worker_pids().into_iter().map(process::cpu_time).sum()
    }

    #[track_caller]
    pub fn signal(&self, pid: i32, signal: i32) {
        let ours = pid == self.master_pid() || process::children(self.master_pid()).contains(&pid);
        assert!(ours, "{pid} is no process of this nginx");
        if signal == libc::SIGKILL {
            self.killed.lock().unwrap().insert(pid, SystemTime::now());
        }
        system::kill(pid, signal).expect("a signal to a process of this nginx");
    }

    /// The processes to which [`Nginx::signal`] has sent SIGKILL, and when.
    pub fn killed(&self) -> BTreeMap<i32, SystemTime> {
        self.killed.lock().unwrap().clone()
    }

    /// Changes nginx.conf for the next reload; the text given and returned has its placeholders filled in, new ones are filled in too.
    pub fn rewrite_conf(&self, change: impl FnOnce(String) -> String) {
        let conf = fs::read_to_string(&self.site.conf).expect("nginx.conf");
        fs::write(&self.site.conf, self.site.fill_in(&change(conf))).expect("nginx.conf");
    }

    /// SIGHUP; on return new connections are served by new workers. Returns the old workers, which may still be finishing.
    #[track_caller]
    pub fn reload(&self) -> Vec<i32> {
        let old = self.worker_pids();
        let emergencies = self.count_log("[emerg]");
        self.signal(self.master_pid(), libc::SIGHUP);
        let reloaded = wait_for(TIMEOUT, || {
            if self.count_log("[emerg]") > emergencies {
                return Some(false);
            }
            // The master starts all the new workers before it tells the old ones to quit.
            let serving = self.worker_pids();
            (!serving.is_empty() && serving.iter().all(|pid| !old.contains(pid))).then_some(true)
        });
        assert_eq!(reloaded, Some(true), "nginx did not reload; the end of its log:\n{}", tail(&self.error_log(), 30));
        old
    }

    /// [`Nginx::reload`], and the old workers are gone.
    #[track_caller]
    pub fn reload_and_drain(&self) {
        let old = self.reload();
        self.wait_gone(&old);
    }

    #[track_caller]
    pub fn wait_gone(&self, pids: &[i32]) {
        let gone = within(TIMEOUT, || !pids.iter().any(|&pid| process::is_running(pid)));
        assert!(gone, "of {pids:?} some still run; the end of the log:\n{}", tail(&self.error_log(), 30));
    }

    /// Waits until no worker is there but those that serve.
    #[track_caller]
    pub fn wait_drained(&self) {
        let drained = within(TIMEOUT, || {
            let serving = self.worker_pids();
            process::children(self.master_pid()).iter().all(|pid| serving.contains(pid))
        });
        assert!(drained, "some workers do not serve; the end of the log:\n{}", tail(&self.error_log(), 30));
    }

    /// The upgrade of a running nginx, which must be a [daemon](NginxBuilder::daemon): SIGUSR2 has the master start another on the same sockets, SIGQUIT ends the old one with its
    /// workers, which may still be finishing on return. Returns them.
    #[track_caller]
    pub fn upgrade(&self) -> Vec<i32> {
        let (old, workers) = (self.master_pid(), self.worker_pids());
        self.signal(old, libc::SIGUSR2);
        let heir = wait_for(TIMEOUT, || {
            let masters = process::children(old).into_iter().filter(|pid| process::title(*pid).contains("master"));
            masters.into_iter().find(|pid| self.read("nginx.pid").trim() == pid.to_string())
        });
        let heir =
            heir.unwrap_or_else(|| panic!("no new master; the end of the log:\n{}", tail(&self.error_log(), 30)));
        let serves = |pid: &i32| process::title(*pid).contains(": worker process");
        eventually(TIMEOUT, || process::children(heir).iter().filter(|pid| serves(pid)).count() >= self.workers);
        self.signal(old, libc::SIGQUIT);
        let mut master = self.master.lock().unwrap();
        // The new one's workers serve beside the old ones meanwhile.
        self.pid.store(heir, Ordering::SeqCst);
        let exit = match master.heir.replace(heir) {
            None => process::wait_exit(&mut master.child, self.exit_timeout),
            Some(pid) => wait_for(self.exit_timeout, || system::exit_of(pid)),
        };
        assert!(exit.is_some_and(|exit| exit.success()), "the old master ended with {exit:?}");
        workers
    }

    /// After a worker died: waits until all are there again, none of them one of `old`.
    #[track_caller]
    pub fn wait_respawn(&self, old: &[i32]) -> Vec<i32> {
        eventually(TIMEOUT, || {
            let serving = self.worker_pids();
            serving.len() >= self.workers && !serving.iter().any(|pid| old.contains(pid))
        });
        self.worker_pids()
    }

    /// SIGQUIT, and waits for the exit. The checks at the end come with [`Nginx::stop`] or the drop.
    #[track_caller]
    pub fn quit(&self) -> ExitStatus {
        self.signal(self.master_pid(), libc::SIGQUIT);
        self.wait_exit()
    }

    /// Waits for an exit that a signal of the test has caused.
    #[track_caller]
    pub fn wait_exit(&self) -> ExitStatus {
        let exit = self.exit_within(self.exit_timeout);
        exit.unwrap_or_else(|| {
            panic!(
                "nginx did not exit within {:?}; the end of its log:\n{}",
                self.exit_timeout,
                tail(&self.error_log(), 30)
            )
        })
    }

    pub fn is_alive(&self) -> bool {
        self.exit_within(Duration::ZERO).is_none()
    }

    fn exit_within(&self, timeout: Duration) -> Option<ExitStatus> {
        let mut master = self.master.lock().unwrap();
        if master.exit.is_none() {
            master.exit = match master.heir {
                None => process::wait_exit(&mut master.child, timeout),
                Some(pid) => wait_for(timeout, || system::exit_of(pid)),
            };
        }
        master.exit
    }

    /// SIGKILL to the master and then to its workers, as a power cut would.
    pub fn kill(&self) {
        let mut pids = process::children(self.master_pid());
        if self.is_alive() {
            self.master.lock().unwrap().killed = true;
            system::kill(self.master_pid(), libc::SIGKILL).expect("SIGKILL to the master");
            self.exit_within(TIMEOUT);
        }
        pids.retain(|&pid| process::is_running(pid) && system::kill(pid, libc::SIGKILL).is_ok());
        within(TIMEOUT, || !pids.iter().any(|&pid| process::is_running(pid)));
    }
}
