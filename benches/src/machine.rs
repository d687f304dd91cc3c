//! What the figures were measured on.

use std::fs;
use std::process::Command;

/// One line each.
pub fn describe() -> Vec<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    vec![
        format!("{}, Linux {}", processor(), kernel.trim()),
        first_line("nginx", &["-v"]),
        first_line("redis-server", &["--version"]),
        first_line("wrk", &["-v"]),
    ]
}

/// A name for files, of the processor and how many cores there are.
pub fn name() -> String {
    let text = processor().to_lowercase();
    let words: Vec<&str> = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("-")
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut models = info.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = models.next().map_or("unnamed processor", |(_, model)| model).to_owned();
    format!("{model}, {} cores", models.count() + 1)
}

/// Some programs say it on their standard error.
fn first_line(program: &str, args: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(args).output() else {
        return format!("{program}: not found");
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    // Redis adds where it allocates and what it was built from.
    line.split(" sha=").next().unwrap_or_default().split(" [epoll]").next().unwrap_or_default().to_owned()
}
