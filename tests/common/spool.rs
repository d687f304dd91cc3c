//! What a spool holds, as meteorit-spool tells it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The program: METEORIT_TEST_SPOOL_TOOL, else what `make test` built for the profile `tool`.
#[track_caller]
pub fn spool_tool() -> Command {
    let path = std::env::var_os("METEORIT_TEST_SPOOL_TOOL").map(PathBuf::from).unwrap_or_else(|| {
        let test = std::env::current_exe().expect("the path of this test");
        test.ancestors().nth(3).expect("target").join("tool/meteorit-spool")
    });
    assert!(path.is_file(), "no {}: `make build` makes it", path.display());
    Command::new(path)
}

/// How many commands wait in the spool in `dir` to be replayed, or to be acknowledged, and what is said of each lane. Nothing, where
/// there is no such folder yet.
#[track_caller]
pub fn spooled(dir: &Path) -> (u64, String) {
    if !dir.exists() {
        return (0, String::new());
    }
    let output = spool_tool().arg("list").arg(dir).arg("--json").output().expect("meteorit-spool runs");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let lines = told.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let lanes = lines.filter(|line| line["lane"].is_string());
    (lanes.map(|lane| lane["commands"].as_u64().expect("a number")).sum(), told)
}
