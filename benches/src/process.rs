//! The processes that are measured: a private Redis, and an nginx for each peer; and what the kernel knows of them.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::peer::{Modules, Peer};

/// What a process has used so far.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    /// Of all its threads, in nanoseconds.
    pub total: u64,
    /// In clock ticks: coarse, good for their proportion only.
    pub user: u64,
    pub system: u64,
}

impl Cpu {
    pub fn since(self, before: Cpu) -> Cpu {
        Cpu { total: self.total - before.total, user: self.user - before.user, system: self.system - before.system }
    }
}

/// What a process has used so far.
pub fn cpu(pid: u32) -> io::Result<Cpu> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name in brackets: the 12th and 13th field are utime and stime (proc(5)).
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let field = |index: usize| fields.get(index).and_then(|field| field.parse().ok()).unwrap_or(0);
    Ok(Cpu { total, user: field(11), system: field(12) })
}

/// Resident memory in kilobytes.
pub fn resident(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.split_whitespace().next().and_then(|kb| kb.parse().ok()).unwrap_or(0))
}

/// How long a start may take: under callgrind all takes long.
const STARTS: Duration = Duration::from_secs(30);

/// A child that ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        // An nginx without a master that is told just before it waits for events notices when it is told again.
        for _ in 0..30 {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            if wait_for("its end", Duration::from_secs(1), || !matches!(self.0.try_wait(), Ok(None))).is_ok() {
                return;
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Redis {
    child: Running,
    pub port: u16,
}

/// What a Redis has counted.
#[derive(Clone, Copy)]
pub struct Counted {
    pub commands: u64,
    pub reads: u64,
}

impl Redis {
    pub fn start(dir: &Path) -> io::Result<Redis> {
        let port = free_port()?;
        let log = fs::File::create(dir.join("redis.log"))?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.arg("--unixsocket").arg(dir.join("redis.sock"));
        let child = command.arg("--dir").arg(dir).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let redis = Redis { child: Running(child), port };
        wait_for("Redis", STARTS, || redis.ask("PING").is_ok())?;
        Ok(redis)
    }

    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// The reply to an inline command: a line, or a bulk string.
    pub fn ask(&self, command: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = line.strip_prefix('$').and_then(|length| length.trim_end().parse().ok());
        let Some(length) = length else {
            return Ok(line);
        };
        let mut bytes = vec![0; length];
        reader.read_exact(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub fn counted(&self) -> io::Result<Counted> {
        let info = self.ask("INFO stats")?;
        let number = |name: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|number| number.trim_end().parse().ok()).unwrap_or(0)
        };
        Ok(Counted { commands: number("total_commands_processed"), reads: number("total_reads_processed") })
    }
}

pub struct Nginx {
    child: Running,
    pub port: u16,
    pub worker: u32,
    dir: PathBuf,
}

/// How the nginx of a peer is set up.
pub struct Setup<'a> {
    pub redis: u16,
    /// The folder that this package is in.
    pub benches: &'a Path,
    pub module: &'a Path,
    /// Where nginx keeps what it writes.
    pub dir: &'a Path,
    /// Locations besides the peer's, before it.
    pub more: &'a str,
    pub connections: usize,
    /// One process, whose instructions callgrind counts.
    pub counted: bool,
}

impl Nginx {
    /// Starts one worker, on the first core.
    ///
    /// A counted one is at work without a master, and tells in `output.log` what was counted when it ends.
    pub fn start(peer: &Peer, setup: &Setup) -> io::Result<Nginx> {
        let dir = setup.dir.join(format!("nginx-{}", peer.name));
        fs::create_dir_all(&dir)?;
        let port = free_port()?;
        let modules = match peer.modules {
            Modules::None => String::new(),
            Modules::Echo => load("ngx_http_echo_module.so"),
            Modules::Lua => load("ndk_http_module.so") + &load("ngx_http_lua_module.so"),
            Modules::Meteorit => format!("load_module {};\n", setup.module.display()),
        };
        let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
        let conf = format!(
            "{modules}{user}daemon off;\n{alone}pid {dir}/nginx.pid;\nerror_log {dir}/error.log;\n\
             worker_processes 1;\nworker_cpu_affinity 1;\nworker_rlimit_nofile {files};\n\
             events {{ worker_connections {connections}; }}\n\
             http {{\n    access_log off;\n    keepalive_requests 1000000000;\n    keepalive_timeout 600s;\n    \
             client_body_buffer_size 1m;\n    client_max_body_size 1m;\n    \
             client_body_temp_path {dir}/body;\n    proxy_temp_path {dir}/proxy;\n    fastcgi_temp_path {dir}/fastcgi;\n    \
             uwsgi_temp_path {dir}/uwsgi;\n    scgi_temp_path {dir}/scgi;\n    {http}\n    \
             server {{\n        listen 127.0.0.1:{port} backlog=4096;\n        {more}\n        \
             location = /events {{ {location} }}\n    }}\n}}\n",
            alone = if setup.counted { "master_process off;\n" } else { "" },
            dir = dir.display(),
            files = setup.connections + 100,
            connections = setup.connections,
            more = setup.more,
            http = peer.http,
            location = peer.location,
        );
        let conf = conf
            .replace("@REDIS@", &setup.redis.to_string())
            .replace("@BENCHES@", &setup.benches.display().to_string())
            .replace("@RUN@", &setup.dir.display().to_string())
            .replace("@DIR@", &dir.display().to_string());
        fs::write(dir.join("nginx.conf"), conf)?;
        let log = fs::File::create(dir.join("output.log"))?;
        let mut command = match setup.counted {
            true => counting(&dir),
            false => Command::new("nginx"),
        };
        command.arg("-p").arg(&dir).arg("-c").arg(dir.join("nginx.conf"));
        command.arg("-e").arg(dir.join("error.log"));
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut nginx = Nginx { child: Running(child), port, worker: 0, dir };
        wait_for("nginx", STARTS, || {
            nginx.worker = match setup.counted {
                true => nginx.child.0.id(),
                false => worker_of(nginx.child.0.id()).unwrap_or(0),
            };
            nginx.worker != 0 && TcpStream::connect(("127.0.0.1", port)).is_ok()
        })
        .map_err(|error| io::Error::other(format!("{error}: {}", nginx.complaints())))?;
        Ok(nginx)
    }

    /// Ends it; gives what callgrind has counted from its start to its end.
    pub fn count(self) -> io::Result<u64> {
        let dir = self.dir.clone();
        drop(self);
        collected(&fs::read_to_string(dir.join("output.log"))?)
    }

    /// What it has written to its logs.
    pub fn complaints(&self) -> String {
        ["output.log", "error.log"].map(|name| fs::read_to_string(self.dir.join(name)).unwrap_or_default()).concat()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.dir.join("spool"));
    }
}

fn load(name: &str) -> String {
    let places = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    format!("load_module {};\n", found.unwrap_or_else(|| name.into()).display())
}

/// callgrind, to run nginx.
fn counting(dir: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", dir.join("callgrind.out").display()));
    command.arg("nginx");
    command
}

/// How many instructions callgrind says that it has counted.
pub fn collected(output: &str) -> io::Result<u64> {
    let line = output.lines().find_map(|line| line.split_once("Collected : "));
    let count = line.and_then(|(_, count)| count.trim().parse().ok());
    count.ok_or_else(|| io::Error::other(format!("callgrind has counted nothing: {output}")))
}

fn worker_of(master: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

fn wait_for(what: &str, most: Duration, mut ready: impl FnMut() -> bool) -> io::Result<()> {
    let end = Instant::now() + most;
    while !ready() {
        if Instant::now() > end {
            return Err(io::Error::other(format!("waited in vain for {what}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
