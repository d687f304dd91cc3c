//! `cat`: the records as text.

use std::io::{BufWriter, StdoutLock, Write, stdout};
use std::ops::ControlFlow;
use std::path::Path;

use ngx_http_meteorit_module::spool::{Part, Record};
use serde_json::json;

use crate::{Result, scan, text};

pub fn run(path: &Path, json: bool) -> Result<()> {
    let mut out = BufWriter::new(stdout().lock());
    for source in scan::sources(path)? {
        let (file, replayed, live) = (source.path.clone(), source.replayed, source.live);
        source.each(|part| {
            match part {
                Part::Intact { offset, end, record } => {
                    let done = if end <= replayed.0 {
                        record.command_count()
                    } else if offset == replayed.0 {
                        replayed.1 as usize
                    } else {
                        0
                    };
                    let write = if json { as_json } else { as_text };
                    write(&mut out, &file, offset, &record, done)?;
                }
                Part::Torn { .. } if live => {}
                part => {
                    out.flush()?;
                    eprintln!("meteorit-spool: {}", crate::verify::complaint(&file, &part));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(out.flush()?)
}

type Out<'a> = BufWriter<StdoutLock<'a>>;

/// `done` of the record's commands have been replayed.
fn as_text(out: &mut Out, file: &Path, offset: u64, record: &Record, done: usize) -> Result<()> {
    write!(out, "{}:{offset} {}", file.display(), text::time(record.unix_ms))?;
    if !record.note.is_empty() {
        write!(out, " {}", ngx_http_meteorit_module::reply::printable(record.note))?;
    }
    writeln!(out)?;
    for (index, command) in record.commands().enumerate() {
        let remark = if index < done { "  # replayed" } else { "" };
        match text::commands(command.bytes) {
            Some(commands) => {
                for args in commands {
                    let args: Vec<String> = args.into_iter().map(text::quoted).collect();
                    writeln!(out, "    {}{remark}", args.join(" "))?;
                }
            }
            None => writeln!(out, "    not RESP: {}{remark}", text::quoted(command.bytes))?,
        }
    }
    Ok(())
}

fn as_json(out: &mut Out, file: &Path, offset: u64, record: &Record, done: usize) -> Result<()> {
    let commands: Vec<_> = record
        .commands()
        .enumerate()
        .map(|(index, command)| {
            let args: Option<Vec<Vec<_>>> = text::commands(command.bytes)
                .map(|all| all.iter().map(|args| args.iter().map(|arg| text::json_bytes(arg)).collect()).collect());
            let replies = command.replies.get();
            match args {
                Some(commands) => json!({ "commands": commands, "replies": replies, "replayed": index < done }),
                None => {
                    json!({ "bytes": text::json_bytes(command.bytes), "replies": replies, "replayed": index < done })
                }
            }
        })
        .collect();
    let line = json!({
        "file": file.to_string_lossy(),
        "offset": offset,
        "unix_ms": record.unix_ms,
        "note": String::from_utf8_lossy(record.note),
        "entries": commands,
    });
    Ok(writeln!(out, "{line}")?)
}
