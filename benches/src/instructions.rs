//! Counts instructions, in user space, by callgrind: of each pure step for one event, and of a whole request in the worker.
//! What a run costs beside what is counted goes away by running twice, once with as much again.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::{env, fs, io};

use crate::event::body;
use crate::peer::{Peer, peer};
use crate::process::{Nginx, Redis, Setup, collected};
use crate::{http, machine, places, report};

/// The steps that the program meteorit-steps knows.
const STEPS: [(&str, &str); 6] = [
    ("validate", "validate: the text onto the tape"),
    ("fields", "fields: three members by name"),
    ("schema", "schema: benches/schema.json"),
    ("encode", "encode: XADD with the event and a value"),
    ("window", "window: in, sent, acknowledged"),
    ("reply", "reply: an id of a stream"),
];

/// The requests, each over one connection, one after the other.
const REQUESTS: [&str; 7] = ["return-204", "stored", "queued", "schema", "counting", "batch-10", "batch-100"];

/// Writes `instructions.md`.
pub fn run() -> Result<(), Box<dyn Error>> {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (dir, module) = places(benches)?;
    let redis = Redis::start(&dir)?;
    let mut text =
        "# Instructions\n\nIn user space, of a 300-byte event, as `make bench-instructions` has counted them.\n\n"
            .to_owned();
    machine::describe().into_iter().skip(1).take(2).for_each(|line| text += &format!("- {line}\n"));

    let program = env::current_exe()?.with_file_name("meteorit-steps");
    let mut rows = Vec::new();
    for (step, title) in STEPS {
        let count = |times| step_count(&program, benches, step, times);
        rows.push(vec![title.to_owned(), per(1000, count(1000)?, count(2000)?)]);
    }
    text += &format!("\n{}\n", report::table(&["step", "instructions"], rows));

    let mut rows = Vec::new();
    for peer in REQUESTS.map(peer) {
        let batch = peer.batch.unwrap_or(1);
        let times = 2000 / batch.min(20);
        let setup =
            Setup { redis: redis.port, benches, module: &module, dir: &dir, more: "", connections: 64, counted: true };
        let count = |times| request_count(peer, &setup, times);
        rows.push(vec![peer.title.to_owned(), per(times * batch, count(times)?, count(2 * times)?)]);
    }
    text += &report::table(&["request", "instructions an event"], rows);
    fs::write(benches.join("instructions.md"), &text)?;
    println!("{text}");
    Ok(())
}

fn per(times: usize, once: u64, twice: u64) -> String {
    (twice.saturating_sub(once) / times as u64).to_string()
}

fn step_count(program: &Path, benches: &Path, step: &str, times: usize) -> io::Result<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let output = command.arg(step).arg(times.to_string()).arg(benches.join("schema.json")).output()?;
    collected(&String::from_utf8_lossy(&output.stderr))
}

fn request_count(peer: &'static Peer, setup: &Setup, times: usize) -> io::Result<u64> {
    let nginx = Nginx::start(peer, setup)?;
    http::repeat(nginx.port, &body(300, peer.batch), peer.status, times)?;
    nginx.count()
}
