//! Measures Meteorit beside nginx's own `return 204` and beside the Lua that it replaces: see README.md in this folder.

mod case;
mod event;
mod figures;
mod http;
mod instructions;
mod load;
mod machine;
mod measure;
mod pace;
mod peer;
mod plot;
mod process;
mod report;

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use case::{Case, Group, cases};
use figures::{Measured, figures};
use measure::{Bench, full, memory, paced};
use process::Redis;

/// How many events show whether memory stays flat.
const MANY: u64 = 10_000_000;

fn main() -> ExitCode {
    let done = match env::args().nth(1).as_deref() {
        Some("instructions") => instructions::run(),
        _ => run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let seconds = number("SECONDS", 3)?;
    let rounds = number("ROUNDS", 5)?;
    let only = env::var("ONLY").unwrap_or_default();
    let name = env::var("NAME").ok().filter(|name| !name.is_empty()).unwrap_or_else(machine::name);
    let cases = cases(&only)?;

    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (dir, module) = places(benches)?;
    leave_first_core()?;
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;

    let bench = Bench { redis: Redis::start(&dir)?, benches: benches.to_owned(), module, dir, seconds: seconds as f64 };
    let mut measured: Vec<Measured> = cases.iter().map(|case| Measured { case: *case, samples: Vec::new() }).collect();
    for round in 1..=rounds {
        for one in &mut measured {
            eprintln!("round {round} of {rounds}: {}", one.case.title());
            let mut sample = full(&bench, &one.case)?;
            if one.case.group == Group::Peers {
                sample.latency = Some(paced(&bench, &one.case, sample.requests / 2.0)?);
            }
            one.samples.push(sample);
        }
    }
    let figures = figures(&measured);
    let mut text = format!("# {name}\n\n");
    machine::describe().into_iter().for_each(|line| text += &format!("- {line}\n"));
    text += &format!(
        "- medians of {rounds} rounds of {seconds} seconds each; the columns are explained in [../README.md](../README.md)\n\n"
    );
    text += &report::targets(&figures);
    text += &report::tables(&figures);
    if let Some(case) = cases.iter().find(|case| case.group == Group::Growth) {
        text += &flat(&bench, case)?;
    }
    let results = benches.join("results");
    fs::create_dir_all(&results)?;
    for file in plot::plot(&figures, &results, &name)? {
        text += &format!("![{file}]({file})\n");
    }
    fs::write(results.join(format!("{name}.md")), &text)?;
    println!("{text}");
    Ok(())
}

/// Resident memory over many events.
fn flat(bench: &Bench, case: &Case) -> Result<String, Box<dyn Error>> {
    eprintln!("{MANY} events, in batches of 100");
    let seen = memory(bench, &Case { peer: peer::peer("batch-100"), ..*case }, MANY)?;
    let rows = seen.iter().map(|(events, kilobytes)| {
        vec![format!("{:.1} million events", *events as f64 / 1e6), format!("{:.1}", *kilobytes as f64 / 1024.0)]
    });
    let table = report::table(&["", "resident MB"], rows.collect());
    Ok(format!("## Memory of the worker over many events, in batches of 100\n\n{table}\n"))
}

/// A folder to work in, and the module.
fn places(benches: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let target = env::var("CARGO_TARGET_DIR").map_or(benches.join("../target"), Into::into);
    let dir = target.join("bench/run");
    fs::create_dir_all(&dir)?;
    Ok((dir.canonicalize()?, target.join("release/libngx_http_meteorit_module.so").canonicalize()?))
}

/// The worker has it for itself; all that is started from here runs on the others.
fn leave_first_core() -> Result<(), Box<dyn Error>> {
    let mut cores = rustix::thread::sched_getaffinity(None)?;
    cores.unset(0);
    if cores.count() == 0 {
        return Err("a machine with one core cannot tell the server from the load".into());
    }
    rustix::thread::sched_setaffinity(None, &cores)?;
    Ok(())
}

fn number(name: &str, default: u64) -> Result<u64, Box<dyn Error>> {
    match env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().map_err(|_| format!("{name} is a number").into()),
        _ => Ok(default),
    }
}
