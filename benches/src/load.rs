//! As much load as the server takes: wrk, which sends the next request of a connection when the answer to the last is there.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// What wrk has seen.
pub struct Seen {
    pub requests: u64,
    pub seconds: f64,
    /// Answers that are not 2xx, and connections that failed.
    pub failures: u64,
}

/// Loads `port` over so many connections.
pub fn run(dir: &Path, port: u16, body: &str, connections: usize, seconds: f64) -> io::Result<Seen> {
    let script = dir.join("wrk.lua");
    fs::write(dir.join("body"), body)?;
    fs::write(
        &script,
        format!(
            "local file = io.open(\"{}\", \"rb\")\n\
             wrk.method = \"POST\"\n\
             wrk.body = file:read(\"*a\")\n\
             wrk.headers[\"Content-Type\"] = \"application/json\"\n\
             function done(summary)\n    \
             local errors = summary.errors\n    \
             local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout\n    \
             print(string.format(\"seen %d %d %d\", summary.requests, summary.duration, failures))\nend\n",
            dir.join("body").display()
        ),
    )?;
    let url = format!("http://127.0.0.1:{port}/events");
    let mut command = Command::new("wrk");
    command.args(["--threads", "1", "--connections", &connections.to_string()]);
    command.args(["--duration", &format!("{}s", seconds.ceil()), "--script"]).arg(&script).arg(&url);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = text.lines().find_map(|line| line.strip_prefix("seen ")).map(|line| {
        let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
        (numbers.first().copied(), numbers.get(1).copied(), numbers.get(2).copied())
    });
    match numbers {
        Some((Some(requests), Some(microseconds), Some(failures))) => {
            Ok(Seen { requests, seconds: microseconds as f64 / 1e6, failures })
        }
        _ => Err(io::Error::other(format!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr)))),
    }
}
