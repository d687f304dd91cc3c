//! The nginx.conf of a test: what it says itself, wrapped in what every test needs (ports, paths below one directory, logs, the module).
//! `%PORT%`, `%PORT2%` to `%PORT9%` and `%DIR%` in any text stand for ports of this instance and its directory.

use super::installed::{binary, module, version};
use super::nginx::Nginx;
use super::port::Port;
use super::redis::Redis;
use super::system;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

#[derive(Clone)]
pub struct NginxBuilder {
    main: String,
    events: String,
    http: String,
    servers: Vec<String>,
    whole: Option<String>,
    http2: bool,
    module: bool,
    log_format: String,
    body_buffer: String,
    files: Vec<(String, Vec<u8>)>,
    pub(super) workers: usize,
    pub(super) daemon: bool,
    pub(super) exit_timeout: Duration,
    connections: usize,
    pub(super) env: Vec<(String, String)>,
    pub(super) allowed: Vec<String>,
}

impl Default for NginxBuilder {
    fn default() -> Self {
        NginxBuilder {
            main: String::new(),
            events: String::new(),
            http: String::new(),
            servers: Vec::new(),
            whole: None,
            http2: false,
            module: true,
            log_format: "$status $request_method $request_uri $body_bytes_sent $request_time".into(),
            body_buffer: "64k".into(),
            files: Vec::new(),
            workers: 1,
            daemon: false,
            exit_timeout: Duration::from_secs(10),
            connections: 512,
            env: Vec::new(),
            allowed: Vec::new(),
        }
    }
}

impl NginxBuilder {
    /// An example in nginx-conf as it stands, with the test's port and Redis.
    #[track_caller]
    pub fn example(name: &str, redis: &Redis) -> Self {
        let text = fs::read_to_string(format!("{}/nginx-conf/{name}", env!("CARGO_MANIFEST_DIR"))).expect(name);
        assert!(text.contains("listen 8080;") && text.contains("redis://127.0.0.1:6379"), "{name}");
        let text =
            text.replace("listen 8080;", "listen 127.0.0.1:%PORT%;").replace("redis://127.0.0.1:6379", &redis.url());
        NginxBuilder::default().http(&text.replace("/var/log/nginx/", "%DIR%/logs/"))
    }

    /// Locations (what stands in a `server`), or, when it has a `server {` of its own, what stands in `http`.
    pub fn text(self, text: &str) -> Self {
        if has_server_block(text) { self.http(text) } else { self.server(text) }
    }

    /// Directives before `events`, after load_module.
    pub fn main(mut self, text: &str) -> Self {
        push(&mut self.main, text);
        self
    }

    pub fn events(mut self, text: &str) -> Self {
        push(&mut self.events, text);
        self
    }

    /// Directives of `http`, before the servers.
    pub fn http(mut self, text: &str) -> Self {
        push(&mut self.http, text);
        self
    }

    /// What stands in a `server`; without a `listen` of its own it listens on `%PORT%`.
    pub fn server(mut self, text: &str) -> Self {
        self.servers.push(text.to_string());
        self
    }

    /// Servers without a `listen` of their own speak HTTP/2 in plain text too, on [`Nginx::h2_port`].
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    pub fn worker_processes(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// In the background, which [`Nginx::upgrade`] needs: nginx takes no SIGUSR2 while the process that started it lives. When a test is
    /// killed, a daemon outlives it.
    pub fn daemon(mut self) -> Self {
        self.daemon = true;
        self
    }

    pub fn worker_connections(mut self, count: usize) -> Self {
        self.connections = count;
        self
    }

    /// The `log_format` of logs/access.log, without quotes around it.
    pub fn log_format(mut self, format: &str) -> Self {
        self.log_format = format.to_string();
        self
    }

    /// `client_body_buffer_size` of `http`.
    pub fn body_buffer(mut self, size: &str) -> Self {
        self.body_buffer = size.to_string();
        self
    }

    /// The whole nginx.conf. `%PREAMBLE%` stands for what must come first (load_module, pid, user, error_log, no daemon) and
    /// `%PATHS%` for what `http` needs (temporary directories, access log); both are put in front of it, and after `http {`, when they are missing.
    pub fn whole(mut self, text: &str) -> Self {
        self.whole = Some(text.to_string());
        self
    }

    pub fn without_module(mut self) -> Self {
        self.module = false;
        self
    }

    /// A file below the directory, there before nginx starts.
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Self {
        self.files.push((path.to_string(), content.into()));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_string(), value.to_string()));
        self
    }

    /// See [`Nginx::allow_log`]; here for lines that nginx may log while it starts.
    pub fn allow_log(mut self, substring: &str) -> Self {
        self.allowed.push(substring.to_string());
        self
    }

    /// How long it may take to quit, 10 s unless said otherwise: clients that linger hold a worker for up to `lingering_timeout`, 5 s.
    pub fn exit_timeout(mut self, timeout: Duration) -> Self {
        self.exit_timeout = timeout;
        self
    }

    #[track_caller]
    pub fn start(self) -> Nginx {
        Nginx::start_with(self)
    }

    /// Runs `nginx -t` on this configuration.
    #[track_caller]
    pub fn test(self) -> ConfigTest {
        let site = self.lay_out();
        let mut command = self.command(&site);
        command.arg("-t");
        if std::env::var_os("METEORIT_ASAN_LOG").is_some() {
            // nginx -t ends without freeing its cycle, by design.
            let options = std::env::var("ASAN_OPTIONS").unwrap_or_default();
            command.env("ASAN_OPTIONS", format!("{options}:detect_leaks=0"));
        }
        let output = command.output().expect("nginx -t runs");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text += &String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("runtime error: "), "a sanitizer's report:\n{text}");
        let conf = fs::read_to_string(&site.conf).expect("the nginx.conf just written");
        ConfigTest { ok: output.status.success(), output: text, path: site.conf.clone(), conf }
    }

    /// A fresh directory with everything in it that nginx needs, on fresh ports.
    pub(super) fn lay_out(&self) -> Site {
        let mut dir = tempfile::Builder::new().prefix("meteorit-nginx-").tempdir().expect("a temporary directory");
        dir.disable_cleanup(std::env::var_os("METEORIT_TEST_KEEP").is_some());
        for name in ["logs", "temp", "html"] {
            fs::create_dir(dir.path().join(name)).expect("a directory for nginx");
        }
        let mut ports = Vec::new();
        let text = self.render();
        let names = (2..=9).map(|n| format!("%PORT{n}%")).chain(["%PORT%".into(), "%PORT_H2%".into()]);
        let uses = |name: &str| text.contains(name) || self.files.iter().any(|(_, file)| contains(file, name));
        for name in names.filter(|name| uses(name)) {
            ports.push((name, Port::lease()));
        }
        let conf = dir.path().join("nginx.conf");
        let site = Site { conf, dir, ports };
        fs::write(&site.conf, site.fill_in(&text)).expect("nginx.conf");
        for (path, content) in &self.files {
            let path = site.dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a path below the directory")).expect("a directory for a file");
            let content = match std::str::from_utf8(content) {
                Ok(text) => site.fill_in(text).into_bytes(),
                Err(_) => content.clone(),
            };
            fs::write(path, content).expect("a file for nginx");
        }
        site
    }

    /// `nginx -p DIR -c nginx.conf`, by absolute path, which an upgrade by USR2 needs.
    pub(super) fn command(&self, site: &Site) -> Command {
        let mut command = Command::new(binary());
        command.arg("-p").arg(site.dir.path()).arg("-c").arg(&site.conf).args(["-e", "logs/error.log"]);
        command.current_dir(site.dir.path()).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    fn render(&self) -> String {
        if let Some(whole) = &self.whole {
            let mut text = whole.clone();
            if !text.contains("%PREAMBLE%") {
                text = format!("%PREAMBLE%{text}");
            }
            if !text.contains("%PATHS%") {
                text = text.replacen("http {", "http { %PATHS%", 1);
            }
            // On one line each, so that the line numbers are those of the text given.
            let on_one_line = |text: String| text.replace('\n', " ");
            return text
                .replace("%PREAMBLE%", &on_one_line(self.preamble()))
                .replace("%PATHS%", &on_one_line(self.paths()));
        }
        let mut text = self.preamble();
        text += &format!("worker_processes {};\n{}", self.workers, self.main);
        text += &format!("events {{\nworker_connections {};\n{}}}\n", self.connections, self.events);
        text += &format!("http {{\n{}", self.paths());
        text += &format!(
            "client_body_buffer_size {};\nkeepalive_timeout 60s;\nkeepalive_requests 1000000;\n",
            self.body_buffer
        );
        text += &self.http;
        for server in &self.servers {
            text += &format!("server {{\n{}{}\n}}\n", self.listen_for(server), server.trim_matches('\n'));
        }
        text + "}\n"
    }

    fn listen_for(&self, server: &str) -> &'static str {
        if server.lines().any(|line| line.trim_start().starts_with("listen")) {
            return "";
        }
        match self.http2 {
            false => "listen 127.0.0.1:%PORT%;\n",
            true if version() < (1, 25, 1) => "listen 127.0.0.1:%PORT%;\nlisten 127.0.0.1:%PORT_H2% http2;\n",
            true => "listen 127.0.0.1:%PORT%;\nlisten 127.0.0.1:%PORT_H2%;\nhttp2 on;\n",
        }
    }

    fn preamble(&self) -> String {
        let level = if std::env::var_os("METEORIT_TEST_DEBUG").is_some() { "debug" } else { "info" };
        let mut text = String::new();
        if self.module {
            text += &format!("load_module {};\n", module().display());
        }
        if std::env::var_os("METEORIT_ASAN_LOG").is_some() {
            // What an upgrade starts gets only what is named here.
            text += "env ASAN_OPTIONS;\nenv UBSAN_OPTIONS;\nenv LSAN_OPTIONS;\n";
        }
        if system::is_root() {
            // Else nginx gives its workers to nobody, who cannot enter the directory.
            text += "user root;\n";
        }
        let master = if self.whole.as_deref().is_some_and(|text| text.contains("master_process")) {
            ""
        } else {
            "master_process on;\n"
        };
        text + &format!(
            "daemon {};\n{master}pid nginx.pid;\nlock_file nginx.lock;\nerror_log logs/error.log {level};\n",
            if self.daemon { "on" } else { "off" }
        )
    }

    fn paths(&self) -> String {
        let mut text = String::new();
        for name in ["client_body", "proxy", "fastcgi", "scgi", "uwsgi"] {
            text += &format!("{name}_temp_path temp/{name};\n");
        }
        text + &format!("log_format test '{}';\naccess_log logs/access.log test;\n", self.log_format)
    }
}

/// Where one instance lives.
pub(super) struct Site {
    pub dir: TempDir,
    pub conf: PathBuf,
    pub ports: Vec<(String, Port)>,
}

impl Site {
    pub fn fill_in(&self, text: &str) -> String {
        let mut text = text.replace("%DIR%", &self.dir.path().display().to_string());
        for (name, port) in &self.ports {
            text = text.replace(name, &port.number().to_string());
        }
        text
    }
}

/// What `nginx -t` said.
pub struct ConfigTest {
    pub ok: bool,
    pub output: String,
    pub path: PathBuf,
    /// The configuration as nginx read it.
    pub conf: String,
}

impl ConfigTest {
    /// `…/nginx.conf:LINE` of the first line that contains `text`, as nginx's messages name it.
    #[track_caller]
    pub fn at(&self, text: &str) -> String {
        let line = self.conf.lines().position(|line| line.contains(text));
        let line = line.unwrap_or_else(|| panic!("no line with {text:?} in\n{}", self.conf));
        format!("{}:{}", self.path.display(), line + 1)
    }

    /// The configuration is refused with this message, at the line that contains `text`.
    #[track_caller]
    pub fn assert_refused(&self, message: &str, text: &str) {
        let at = self.at(text);
        assert!(!self.ok, "nginx -t accepts\n{}", self.conf);
        let found =
            self.output.lines().any(|line| line.contains("[emerg]") && line.contains(message) && line.ends_with(&at));
        assert!(found, "expected {message:?} at {at}, got\n{}", self.output);
    }

    #[track_caller]
    pub fn assert_ok(&self) {
        assert!(self.ok, "nginx -t refuses\n{}\n{}", self.conf, self.output);
    }
}

fn has_server_block(text: &str) -> bool {
    text.lines()
        .any(|line| line.trim_start().strip_prefix("server").is_some_and(|rest| rest.trim_start().starts_with('{')))
}

fn push(to: &mut String, text: &str) {
    to.push_str(text.trim_matches('\n'));
    to.push('\n');
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
