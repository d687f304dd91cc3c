//! A real redis-server on a TCP port and a unix socket of its own, keeping nothing on disk unless asked to.
//! It can be stopped, killed, paused and started again on the same port; what it holds is read with the `redis` crate.

use super::port::Port;
use super::{process, system, tail, wait_for, within};
use ::redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisResult, Value,
};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

const START_TIMEOUT: Duration = Duration::from_secs(20);
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Default)]
pub struct RedisBuilder {
    args: Vec<String>,
    files: Vec<(String, String)>,
}

impl RedisBuilder {
    /// Options of redis-server; `%DIR%` stands for its directory. They win over the defaults.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| arg.to_string()));
        self
    }

    /// A file in its directory, an ACL file for example.
    pub fn file(mut self, name: &str, content: &str) -> Self {
        self.files.push((name.to_string(), content.to_string()));
        self
    }

    #[track_caller]
    pub fn start(self) -> Redis {
        // A port is leased among tests; something else on the machine can still have it.
        for _ in 0..5 {
            let redis = Redis::lay_out(&self);
            match redis.launch() {
                Ok(()) => return redis,
                Err(log) if log.contains("Address already in use") => continue,
                Err(log) => panic!("redis-server did not start\n{log}"),
            }
        }
        panic!("redis-server found its port taken five times");
    }
}

pub struct Redis {
    dir: TempDir,
    port: Port,
    args: Vec<String>,
    child: Mutex<Option<Child>>,
}

impl Redis {
    #[track_caller]
    pub fn start() -> Redis {
        RedisBuilder::default().start()
    }

    /// With more options: `Redis::with(&["--requirepass", "secret"])`.
    #[track_caller]
    pub fn with(args: &[&str]) -> Redis {
        RedisBuilder::default().args(args).start()
    }

    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    fn lay_out(builder: &RedisBuilder) -> Redis {
        let dir = tempfile::Builder::new().prefix("meteorit-redis-").tempdir().expect("a temporary directory");
        for (name, content) in &builder.files {
            fs::write(dir.path().join(name), content).expect("a file for redis-server");
        }
        let path = dir.path().display().to_string();
        let args = builder.args.iter().map(|arg| arg.replace("%DIR%", &path)).collect();
        Redis { dir, port: Port::lease(), args, child: Mutex::new(None) }
    }

    fn launch(&self) -> Result<(), String> {
        let _ = fs::remove_file(self.socket());
        let log_before = self.log().len();
        let mut command = Command::new(std::env::var_os("METEORIT_TEST_REDIS").unwrap_or("redis-server".into()));
        command.args(["--bind", "127.0.0.1", "--port", &self.port().to_string(), "--daemonize", "no"]);
        command
            .arg("--dir")
            .arg(self.dir())
            .arg("--logfile")
            .arg(self.dir().join("redis.log"))
            .args(["--loglevel", "notice"]);
        command.arg("--unixsocket").arg(self.socket()).args(["--unixsocketperm", "777"]);
        command.args(["--save", "", "--appendonly", "no"]).args(&self.args);
        command.current_dir(self.dir()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // It may be stopped by SIGSTOP, which no milder signal gets through.
        let child =
            process::spawn(command, libc::SIGKILL).map_err(|error| format!("cannot run redis-server: {error}"))?;
        *self.child.lock().unwrap() = Some(child);
        let ready = wait_for(START_TIMEOUT, || {
            if self.pid().is_none() {
                return Some(false);
            }
            // An unauthenticated client is told NOAUTH while the data is still being loaded; the log knows.
            let quiet = self.args.iter().any(|arg| arg == "--loglevel");
            let loaded = quiet || self.log()[log_before..].contains("eady to accept connections");
            (loaded && self.answers()).then_some(true)
        });
        if ready == Some(true) {
            return Ok(());
        }
        self.kill();
        Err(tail(&self.log()[log_before..], 40))
    }

    /// It binds the port before the socket, and only it can have made the socket in this directory.
    fn answers(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.socket())?;
            stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
            stream.write_all(b"PING\r\n")?;
            let mut reply = [0; 128];
            let n = stream.read(&mut reply)?;
            Ok(String::from_utf8_lossy(&reply[..n]).into_owned())
        };
        // An error other than LOADING, such as NOAUTH, is what this configuration answers.
        ask().is_ok_and(|reply| !reply.is_empty() && !reply.starts_with("-LOADING"))
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir().join("redis.sock")
    }

    /// `redis://127.0.0.1:PORT`, without user and password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("redis.log")).unwrap_or_default()
    }

    /// A connection of its own, by the unix socket, with the password of `--requirepass`.
    #[track_caller]
    pub fn client(&self) -> Connection {
        self.try_client().expect("a connection to redis-server")
    }

    pub fn try_client(&self) -> RedisResult<Connection> {
        let info: ConnectionInfo = ConnectionAddr::Unix(self.socket()).into_connection_info()?;
        // Nothing but what the test asks for shall show in CLIENT LIST, MONITOR or commandstats.
        let mut settings = info.redis_settings().clone().set_skip_set_lib_name();
        if let Some(password) =
            self.args.iter().position(|arg| arg == "--requirepass").and_then(|i| self.args.get(i + 1))
        {
            settings = settings.set_password(password);
        }
        let client = Client::open(info.set_redis_settings(settings))?;
        let connection = client.get_connection_with_timeout(REPLY_TIMEOUT)?;
        connection.set_read_timeout(Some(REPLY_TIMEOUT))?;
        Ok(connection)
    }

    /// Runs one command on a new connection; an error reply fails the test.
    #[track_caller]
    pub fn cmd(&self, args: &[&str]) -> Value {
        self.ask(args)
    }

    /// Like [`Redis::cmd`], for any type the `redis` crate can make of the reply.
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, args: &[&str]) -> T {
        self.try_ask(args).unwrap_or_else(|error| panic!("{args:?}: {error}"))
    }

    pub fn try_ask<T: FromRedisValue>(&self, args: &[&str]) -> RedisResult<T> {
        let mut command = ::redis::cmd(args[0]);
        for arg in &args[1..] {
            command.arg(arg);
        }
        command.query(&mut self.try_client()?)
    }

    #[track_caller]
    pub fn list(&self, key: &str) -> Vec<Vec<u8>> {
        self.ask(&["LRANGE", key, "0", "-1"])
    }

    #[track_caller]
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.ask(&["GET", key])
    }

    #[track_caller]
    pub fn hash(&self, key: &str) -> BTreeMap<String, String> {
        self.ask(&["HGETALL", key])
    }

    /// The entries of a stream: id, then fields and values in turn.
    #[track_caller]
    pub fn stream(&self, key: &str) -> Vec<(String, Vec<Vec<u8>>)> {
        self.ask(&["XRANGE", key, "-", "+"])
    }

    /// The number of elements of a list, stream, hash, set, sorted set or string; 0 for a key that is not there.
    #[track_caller]
    pub fn len(&self, key: &str) -> usize {
        let kind: String = self.ask(&["TYPE", key]);
        let command = match kind.as_str() {
            "none" => return 0,
            "list" => "LLEN",
            "stream" => "XLEN",
            "hash" => "HLEN",
            "set" => "SCARD",
            "zset" => "ZCARD",
            "string" => "STRLEN",
            other => panic!("{key} is a {other}"),
        };
        self.ask(&[command, key])
    }

    #[track_caller]
    pub fn wait_len(&self, key: &str, count: usize) {
        let reached = within(REPLY_TIMEOUT, || self.len(key) == count);
        assert!(reached, "{key} has {} elements, not {count}", self.len(key));
    }

    /// One field of INFO, such as `total_connections_received`.
    #[track_caller]
    pub fn info(&self, field: &str) -> String {
        let text: String = self.ask(&["INFO", "everything"]);
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {field} in INFO")).to_string()
    }

    /// `None` when it does not run.
    pub fn pid(&self) -> Option<i32> {
        let mut child = self.child.lock().unwrap();
        let child = child.as_mut()?;
        match child.try_wait() {
            Ok(None) => Some(child.id() as i32),
            _ => None,
        }
    }

    /// SIGTERM, and waits until it is gone.
    #[track_caller]
    pub fn stop(&self) {
        self.end(libc::SIGTERM);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&self) {
        self.end(libc::SIGKILL);
    }

    fn end(&self, signal: i32) {
        let Some(mut child) = self.child.lock().unwrap().take() else {
            return;
        };
        if child.try_wait().is_ok_and(|exit| exit.is_some()) {
            return;
        }
        let _ = system::kill(child.id() as i32, signal);
        if process::wait_exit(&mut child, REPLY_TIMEOUT).is_none() {
            let _ = child.kill();
            let _ = child.wait();
            panic!("redis-server did not end within {REPLY_TIMEOUT:?} of signal {signal}");
        }
    }

    /// SIGSTOP: it keeps its connections and takes new ones into the kernel's queue, but answers nothing.
    #[track_caller]
    pub fn pause(&self) {
        let pid = self.signal(libc::SIGSTOP);
        assert!(within(REPLY_TIMEOUT, || process::is_stopped(pid)), "redis-server did not stop");
    }

    #[track_caller]
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    #[track_caller]
    fn signal(&self, signal: i32) -> i32 {
        let pid = self.pid().expect("redis-server runs");
        system::kill(pid, signal).expect("a signal to redis-server");
        pid
    }

    /// Starts it again, after stopping it if it runs, on the same port and socket with the same options.
    #[track_caller]
    pub fn restart(&self) {
        self.stop();
        self.launch().unwrap_or_else(|log| panic!("redis-server did not start again\n{log}"));
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of the log of redis-server on port {}\n{}\n---", self.port(), tail(&self.log(), 10));
        }
        self.kill();
    }
}
