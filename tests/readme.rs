//! The README holds: its configurations run, and its reference names exactly the directives and variables that there are.

mod common;

use common::*;
use std::collections::BTreeSet;
use std::fs;

fn readme() -> String {
    source("README.md")
}

fn source(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).expect(path)
}

/// The fenced blocks of nginx configuration, without their fences.
fn configurations(text: &str) -> Vec<String> {
    let blocks = text.split("```nginx\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// Replaces `from`, which has to be there.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the README has no {from:?} any more");
    text.replace(from, to)
}

#[test]
fn its_first_configuration_takes_an_event() {
    let redis = Redis::start();
    let conf = configurations(&readme()).remove(0);
    let conf = replace(&conf, "load_module modules/ngx_http_meteorit_module.so;\n", "");
    let conf = replace(&conf, "server redis://127.0.0.1:6379/0;", &format!("server {};", redis.url()));
    let conf = replace(&conf, "listen 8080;", "listen 127.0.0.1:%PORT%;");
    let nginx = Nginx::builder().whole(&conf).start();
    assert_eq!(post(nginx.port(), "/events?live=1", r#"{"page":"/home"}"#).status, 204);
    assert_eq!(redis.len("events"), 1);
    let keys: Vec<String> = redis.ask(&["KEYS", "visits:*"]);
    assert_eq!(keys.len(), 1);
    assert_eq!(redis.ask::<i64>(&["HGET", &keys[0], "/home"]), 1);
    assert!(redis.ask::<i64>(&["TTL", &keys[0]]) > 2_600_000);
}

#[test]
fn its_other_configurations_pass_nginx_t() {
    let blocks = configurations(&readme());
    assert!(blocks.len() > 1);
    for block in &blocks[1..] {
        let nginx = match block.starts_with("meteorit_redis") {
            true => Nginx::builder().http(&block.replace("/var/spool/meteorit", "spool")),
            false => Nginx::builder().text(block),
        };
        nginx.test().assert_ok();
    }
}

#[test]
fn its_reference_names_every_directive_and_no_other() {
    let documented: BTreeSet<String> =
        readme().lines().filter_map(|line| line.strip_prefix("### meteorit_")).map(str::to_owned).collect();
    let table = source("src/conf.rs");
    let known: BTreeSet<String> =
        table.split("c\"meteorit_").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect();
    assert!(known.len() > 5, "the table of directives is not where it was");
    assert_eq!(documented, known);
}

#[test]
fn its_reference_names_every_variable() {
    let table = source("src/variables.rs");
    let rows = table.split("pub const VARIABLES").nth(1).unwrap().split("];").next().unwrap().to_owned();
    let names: Vec<&str> = rows.split("(\"").skip(1).map(|row| row.split('"').next().unwrap()).collect();
    assert!(names.contains(&"event"), "the table of variables is not where it was");
    let text = readme();
    for name in names {
        assert!(text.contains(&format!("| `${name}` |")), "${name} is not in the README");
    }
}

#[test]
fn the_defaults_that_it_gives_are_accepted() {
    let text = readme();
    let defaults =
        text.lines().filter_map(|line| line.trim().strip_prefix("Default: ")).filter(|text| text.ends_with(';'));
    let (settings, in_block): (Vec<&str>, Vec<&str>) = defaults.partition(|text| text.starts_with("meteorit_"));
    assert!(settings.len() >= 5 && in_block.len() >= 5);
    let conf = format!(
        "meteorit_redis q {{ server redis://127.0.0.1; {} }}
         server {{ listen 127.0.0.1:%PORT%; location / {{ meteorit_pass q; meteorit_command PING; {} }} }}",
        in_block.join(" "),
        settings.join(" "),
    );
    Nginx::builder().text(&conf).test().assert_ok();
}
