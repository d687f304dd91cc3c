//! A real Chromium without a screen, in a profile of its own, that does what it is told through chromedriver (W3C WebDriver).

use super::http::Http;
use super::message::Request;
use super::port::Port;
use super::{process, system, within};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// Enough for a browser on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

pub struct Browser {
    driver: Child,
    port: Port,
    session: String,
    /// Profile and temporary files.
    _dir: TempDir,
    /// One at a time: a browser is as busy as the rest of the tests together.
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// Names that end in `.test` are this machine to it, and there is no other.
    #[track_caller]
    pub fn start() -> Browser {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let chromium = find(&["chromium", "chromium-browser"]);
        let dir = tempfile::Builder::new().prefix("meteorit-browser-").tempdir().expect("a temporary directory");
        let port = Port::lease();
        let mut command = Command::new(find(&["chromedriver"]));
        command.arg(format!("--port={}", port.number())).env("HOME", dir.path()).env("TMPDIR", dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let driver = process::spawn(command, libc::SIGTERM).expect("chromedriver runs");
        let mut browser = Browser { driver, port, session: String::new(), _dir: dir, _turn: turn };
        let is_ready = || {
            let answer =
                Http::try_connect(browser.port.number()).and_then(|mut http| http.try_call(&Request::get("/status")));
            answer.is_ok_and(|answer| answer.status == 200 && answer.json()["value"]["ready"] == true)
        };
        assert!(within(TIMEOUT, is_ready), "chromedriver did not start");

        let mut args = vec![
            "--headless=new".to_owned(),
            // It opens the pages of tests and no other, and its sandbox works neither for root nor in most containers.
            "--no-sandbox".into(),
            format!("--user-data-dir={}/profile", browser._dir.path().display()),
            "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1".into(),
        ];
        args.extend(
            [
                "no-proxy-server",
                "no-first-run",
                "disable-background-networking",
                "disable-component-update",
                "disable-sync",
            ]
            .map(|arg| format!("--{arg}")),
        );
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium, "args": args },
            "goog:loggingPrefs": { "browser": "WARNING" },
        }}});
        let made = browser.command("POST", "", &wanted);
        browser.session = format!("/{}", made["sessionId"].as_str().expect("a session"));
        browser
    }

    /// Leaves the page that is open, and is back when the other one is loaded.
    #[track_caller]
    pub fn open(&self, url: &str) {
        self.command("POST", "/url", &json!({ "url": url }));
    }

    /// Runs the body of an async function in the page, and gives what it returns. What it throws fails the test.
    #[track_caller]
    pub fn run(&self, body: &str) -> Value {
        let script = format!("return (async () => {{ {body} }})()");
        self.command("POST", "/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// What the console of the page says since the last look: errors, and what a Content-Security-Policy forbade.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", &json!({"type": "browser"}));
        log.as_array().expect("a log").iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// Presses a key and lets go of it: a character, or one of WebDriver's for a key without one (U+E004 is Tab).
    #[track_caller]
    pub fn press(&self, key: char) {
        let keys = ["keyDown", "keyUp"].map(|action| json!({"type": action, "value": key}));
        self.command("POST", "/actions", &json!({"actions": [{"type": "key", "id": "keyboard", "actions": keys}]}));
    }

    /// Shows pages as on a screen so wide and high, in pixels, of somebody who likes it light or dark.
    #[track_caller]
    pub fn set_screen(&self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.devtools("Emulation.setEmulatedMedia", &features);
    }

    /// Leaves a picture of the whole page in target/tmp.
    #[track_caller]
    pub fn photograph(&self, name: &str) {
        let options = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.devtools("Page.captureScreenshot", &options);
        let picture = decode_base64(picture["data"].as_str().expect("a picture"));
        std::fs::write(format!("{}/{name}.png", env!("CARGO_TARGET_TMPDIR")), picture).expect("a file in target/tmp");
    }

    /// A command of the Chrome DevTools Protocol.
    #[track_caller]
    fn devtools(&self, name: &str, options: &Value) -> Value {
        self.command("POST", "/goog/cdp/execute", &json!({"cmd": name, "params": options}))
    }

    #[track_caller]
    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut http = Http::connect(self.port.number());
        http.set_timeout(TIMEOUT);
        let request = Request::new(method, &format!("/session{}{path}", self.session));
        let answer = http.call(&request.header("Content-Type", "application/json").body(body.to_string()));
        let value = answer.json()["value"].take();
        assert_eq!(answer.status, 200, "{}: {}", value["error"], value["message"]);
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser goes with its session, the driver does not.
        if !self.session.is_empty()
            && let Ok(mut http) = Http::try_connect(self.port.number())
        {
            let _ = http.try_call(&Request::new("DELETE", &format!("/session{}", self.session)));
        }
        let _ = system::kill(self.driver.id() as i32, libc::SIGTERM);
        if process::wait_exit(&mut self.driver, TIMEOUT).is_none() {
            let _ = self.driver.kill();
            let _ = self.driver.wait();
        }
    }
}

/// RFC 4648, section 4.
fn decode_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<usize> = text.bytes().filter_map(|byte| ALPHABET.iter().position(|digit| *digit == byte)).collect();
    let bytes = |digits: &[usize]| {
        let word = (0..4).fold(0, |word, at| word << 6 | digits.get(at).copied().unwrap_or(0));
        (0..digits.len() - 1).map(move |at| (word >> (16 - 8 * at)) as u8)
    };
    digits.chunks(4).flat_map(bytes).collect()
}

/// The first of these programs that is in the PATH.
#[track_caller]
fn find(names: &[&str]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = names.iter().find_map(|name| dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file()));
    found.unwrap_or_else(|| {
        panic!(
            "no {} in PATH: these tests need a real browser. packaging/env/install-build.sh installs it, from the packages \
             chromium and chromium-driver on Debian, chromium and chromedriver on Fedora and, with EPEL, on RHEL",
            names[0]
        )
    })
}
