//! `verify`: reads everything, and says where something is not as it was written.

use std::ops::ControlFlow;
use std::path::Path;

use ngx_http_meteorit_module::spool::Part;

use crate::{Result, scan, text};

/// Whether nothing is damaged.
pub fn run(path: &Path) -> Result<bool> {
    let (mut files, mut records, mut damaged) = (0, 0, 0);
    for source in scan::sources(path)? {
        let (file, live) = (source.path.clone(), source.live);
        files += 1;
        source.each(|part| {
            match part {
                Part::Intact { .. } => records += 1,
                // It is being written.
                Part::Torn { .. } if live => {}
                part => {
                    damaged += 1;
                    text::out(&format!("{}\n", complaint(&file, &part)))?;
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
    }
    text::out(&format!("{files} files, {records} intact records, {damaged} damaged places\n"))?;
    Ok(damaged == 0)
}

/// What is wrong with a part.
pub fn complaint(file: &Path, part: &Part) -> String {
    let file = file.display();
    match part {
        Part::Intact { offset, end, .. } => format!("{file}: bytes {offset} to {end}: intact"),
        Part::Damaged { from, to } => format!("{file}: bytes {from} to {to}: damaged"),
        Part::Torn { from, to } => format!("{file}: bytes {from} to {to}: the beginning of a record, torn off"),
        Part::Unreadable(reason) => format!("{file}: {reason}"),
    }
}
