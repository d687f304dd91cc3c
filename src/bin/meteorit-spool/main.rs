//! meteorit-spool: looks into the spool of nginx's module Meteorit, and replays it, without nginx.
#![deny(unsafe_code)]

mod cat;
mod link;
mod list;
mod replay;
mod scan;
mod text;
mod verify;

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::Arg;

const HELP: &str = "\
Looks into the spool of nginx's module Meteorit, and replays it.

Usage:
  meteorit-spool list [--json] DIR
      The lanes in DIR: whether a process owns each, and what is still to be replayed.
  meteorit-spool cat [--json] DIR|FILE
      The records, oldest first: place, time and commands, as redis-cli takes them; or a line of JSON for each.
  meteorit-spool verify DIR|FILE
      Reads everything. Status 1 when something is damaged, which it tells, file and place.
  meteorit-spool replay [--keep] DIR --to URL
      Sends the records of all lanes that no process owns to a Redis, in their order, and deletes what that has
      acknowledged. With --keep everything stays as it is. Status 1 when something is left that could not be sent.

Options:
  --json        JSON, a line each
  --keep        do not delete, nor remember how far the replay got
  --to URL      redis://[[USER]:PASSWORD@]HOST[:PORT][/DB] or redis+unix:///PATH[?db=DB&user=USER&pass=PASSWORD]
  -h, --help    this text
  -V, --version

DIR is the folder of the directive spool, or one lane in it; FILE is a segment (*.seg), one that was set aside
(*.seg.damaged) or the file rejected. All but replay may be used on the spool of a running nginx. Run it as the user
of nginx's workers. Status 2 is an error, told on the standard error.
";

/// Something is wrong with the spool, or left in it; it has been told.
const UNSOUND: u8 = 1;
/// The program could not do what it was asked for.
const FAILED: u8 = 2;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let done = parse(lexopt::Parser::from_env()).and_then(run);
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(UNSOUND),
        // Whoever read the output has seen enough.
        Err(error) if error.downcast_ref().is_some_and(|e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("meteorit-spool: {error}");
            ExitCode::from(FAILED)
        }
    }
}

enum Task {
    Print(&'static str),
    List { dir: PathBuf, json: bool },
    Cat { path: PathBuf, json: bool },
    Verify { path: PathBuf },
    Replay { dir: PathBuf, url: String, keep: bool },
}

/// Does it; whether all is well.
fn run(task: Task) -> Result<bool> {
    match task {
        Task::Print(text) => text::out(text).map(|()| true),
        Task::List { dir, json } => list::run(&dir, json).map(|()| true),
        Task::Cat { path, json } => cat::run(&path, json).map(|()| true),
        Task::Verify { path } => verify::run(&path),
        Task::Replay { dir, url, keep } => replay::run(&dir, &url, keep),
    }
}

fn parse(mut args: lexopt::Parser) -> Result<Task> {
    let (mut json, mut keep, mut to) = (false, false, None);
    let mut words: Vec<OsString> = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Short('h') | Arg::Long("help") => return Ok(Task::Print(HELP)),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Task::Print(concat!("meteorit-spool ", env!("CARGO_PKG_VERSION"), "\n")));
            }
            Arg::Long("json") => json = true,
            Arg::Long("keep") => keep = true,
            Arg::Long("to") => to = Some(args.value()?),
            Arg::Value(word) => words.push(word),
            arg => return Err(arg.unexpected().into()),
        }
    }
    let mut words = words.into_iter();
    let command = words.next().ok_or("what is to be done? --help tells what there is")?;
    let path = words.next().map(PathBuf::from);
    if let Some(word) = words.next() {
        return Err(format!("unexpected argument \"{}\"", word.display()).into());
    }
    let command = command.to_str().unwrap_or_default();
    let replay = command == "replay";
    for (given, name, fits) in
        [(json, "--json", matches!(command, "list" | "cat")), (keep, "--keep", replay), (to.is_some(), "--to", replay)]
    {
        if given && !fits {
            return Err(format!("{name} is of no use with \"{command}\"").into());
        }
    }
    let path = move || path.ok_or("of which spool? the folder is missing");
    Ok(match command {
        "list" => Task::List { dir: path()?, json },
        "cat" => Task::Cat { path: path()?, json },
        "verify" => Task::Verify { path: path()? },
        "replay" => {
            let url = to.ok_or("to which Redis? --to is missing")?;
            // Not repeated: it may hold a password.
            let url = url.into_string().map_err(|_| "the URL behind --to is not text in UTF-8")?;
            Task::Replay { dir: path()?, url, keep }
        }
        _ => return Err(format!("unknown command \"{command}\"; --help tells what there is").into()),
    })
}
