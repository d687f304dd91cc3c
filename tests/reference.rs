//! The documentation holds: its configurations pass `nginx -t`, its links lead somewhere, and the reference names exactly the
//! directives and variables that there are, with the contexts and the numbers of arguments that nginx takes.

mod common;

use common::*;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).expect(path)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README and all pages of docs, by their paths.
fn pages() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let paths = docs.chain([root().join("README.md")]);
    paths.map(|path| (path.clone(), fs::read_to_string(path).expect("text"))).collect()
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
fn the_first_configuration_of_the_readme_takes_an_event() {
    let redis = Redis::start();
    let conf = configurations(&source("README.md")).remove(0);
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
fn the_other_configurations_pass_nginx_t() {
    let blocks: Vec<String> = pages().iter().flat_map(|(_, text)| configurations(text)).collect();
    assert!(blocks.len() > 10, "{}", blocks.len());
    for block in blocks {
        let block = block.replace("/var/spool/meteorit", "spool").replace("/etc/nginx/", "");
        let builder = Nginx::builder().file("event.json", "{}").file("meteorit.password", "secret");
        // What begins with a location stands in a server, anything else in http; the whole nginx.conf is the one above.
        let nginx = match block.trim_start() {
            text if text.starts_with("load_module") => continue,
            text if text.starts_with("location") => builder.text(&block),
            _ => builder.http(&block),
        };
        nginx.test().assert_ok();
    }
}

/// One directive of the reference.
struct Entry {
    name: String,
    syntax: String,
    contexts: Vec<String>,
}

/// The directives of the reference, without those that stand in a block of another one.
fn reference() -> Vec<Entry> {
    let text = source("docs/directives.md");
    let entry = |section: &str| {
        let line = |name: &str| section.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
        let name = section.lines().next().expect("a heading").to_owned();
        let lines = line("Syntax:").zip(line("Context:"));
        let (syntax, contexts) = lines.unwrap_or_else(|| panic!("{name} has no Syntax or Context"));
        assert!(line("Default:").is_some(), "{name} has no Default");
        Entry {
            syntax: syntax.strip_prefix(&name).expect(&name).trim().to_owned(),
            contexts: contexts.split(", ").map(str::to_owned).collect(),
            name,
        }
    };
    text.split("\n### ").skip(1).filter(|section| section.starts_with("meteorit_")).map(entry).collect()
}

#[test]
fn the_reference_names_every_directive_and_no_other() {
    let documented: BTreeSet<String> = reference().into_iter().map(|entry| entry.name).collect();
    let table = source("src/conf.rs");
    let known = table.split("c\"meteorit_").skip(1).map(|rest| rest.split('"').next().unwrap());
    let known: BTreeSet<String> = known.map(|name| format!("meteorit_{name}")).collect();
    assert!(known.len() > 5, "the table of directives is not where it was");
    assert_eq!(documented, known);
}

#[test]
fn the_reference_names_every_directive_of_a_redis_and_no_other() {
    let text = source("docs/directives.md");
    let section = text.split("### meteorit_redis\n").nth(1).expect("meteorit_redis").split("\n### ").next().unwrap();
    let documented = section.lines().filter_map(|line| line.strip_prefix("    Syntax:  ")).skip(1);
    let documented: BTreeSet<&str> = documented.filter_map(|line| line.split([' ', ';']).next()).collect();
    let code = source("src/conf/redis.rs");
    let names = code.split("let known = [").nth(1).expect("the names").split("];").next().unwrap();
    let known: BTreeSet<&str> = names.split('"').skip(1).step_by(2).collect();
    assert_eq!(documented, known);
}

/// What nginx says to a directive in a context.
fn said(context: &str, directive: &str) -> String {
    let builder = Nginx::builder();
    let builder = match context {
        "main" => builder.main(directive),
        "http" => builder.http(directive),
        "server" => builder.server(directive),
        "location" => builder.server(&format!("location / {{ {directive} }}")),
        "if in location" => builder.server(&format!("location / {{ if ($args) {{ {directive} }} }}")),
        "limit_except" => builder.server(&format!("location / {{ limit_except POST {{ {directive} }} }}")),
        other => panic!("{other:?} is no context"),
    };
    builder.test().output
}

#[test]
fn each_directive_stands_where_the_reference_says_and_nowhere_else() {
    for Entry { name, contexts, .. } in reference() {
        for context in ["main", "http", "server", "location", "if in location", "limit_except"] {
            let output = said(context, &format!("{name};"));
            let is_allowed = !output.contains(&format!("\"{name}\" directive is not allowed here"));
            assert_eq!(is_allowed, contexts.iter().any(|allowed| allowed == context), "{name} in {context}: {output}");
        }
    }
}

/// The fewest and the most arguments of a syntax; where it has `...` or options there is no most.
fn arguments(syntax: &str) -> (usize, Option<usize>) {
    let (mut depth, mut required) = (0, String::new());
    for character in syntax.trim_end_matches([';', '}', ' ', '.', '{']).chars() {
        match character {
            '[' => depth += 1,
            ']' => depth -= 1,
            _ if depth == 0 => required.push(character),
            _ => {}
        }
    }
    let required = required.replace(" | ", "|");
    let fewest = required.split_whitespace().filter(|word| *word != "...").count();
    let is_open = syntax.contains('[') || syntax.replace("{ ... }", "").contains("...");
    (fewest, (!is_open).then_some(fewest))
}

#[test]
fn each_directive_takes_as_many_arguments_as_the_reference_says() {
    for Entry { name, syntax, contexts } in reference() {
        let context = contexts.first().expect("a context");
        let end = if syntax.ends_with('}') { "{ }" } else { ";" };
        let complains = |count: usize| {
            let output = said(context, &format!("{name} {} {end}", vec!["x"; count].join(" ")));
            output.contains(&format!("invalid number of arguments in \"{name}\" directive"))
        };
        let (fewest, most) = arguments(&syntax);
        // Options may all be left out, or not.
        assert!(fewest == 0 || !complains(fewest), "{name} {syntax}");
        // Where there may be many the directive itself says what is missing.
        assert!(fewest == 0 || syntax.ends_with("...;") || complains(fewest - 1), "{name} {syntax} with one less");
        if let Some(most) = most {
            assert!(complains(most + 1), "{name} {syntax} with one more");
        }
    }
}

#[test]
fn the_reference_names_every_variable() {
    let table = source("src/variables.rs");
    let rows = table.split("pub const VARIABLES").nth(1).unwrap().split("];").next().unwrap().to_owned();
    let names: Vec<&str> = rows.split("(\"").skip(1).map(|row| row.split('"').next().unwrap()).collect();
    assert!(names.contains(&"event"), "the table of variables is not where it was");
    let text = source("docs/directives.md");
    for name in names {
        assert!(text.contains(&format!("| `${name}` |")), "${name} is not in the reference");
    }
}

#[test]
fn the_defaults_that_the_reference_gives_are_accepted() {
    let text = source("docs/directives.md");
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

/// A default as the code has it: `false`, `64 * 1024`, `10_000`.
fn value_in_code(text: &str) -> Option<u64> {
    match text {
        "true" => Some(1),
        "false" => Some(0),
        _ => text.split(" * ").map(|factor| factor.replace('_', "").parse::<u64>().ok()).product(),
    }
}

/// A default as the reference has it, in bytes and milliseconds.
fn value_in_reference(text: &str) -> Option<u64> {
    let units = [("ms", 1), ("s", 1000), ("k", 1 << 10), ("m", 1 << 20), ("", 1)];
    match text {
        "on" => Some(1),
        "off" => Some(0),
        _ => units.into_iter().find_map(|(unit, size)| Some(text.strip_suffix(unit)?.parse::<u64>().ok()? * size)),
    }
}

#[test]
fn the_defaults_that_the_reference_gives_are_those_of_the_code() {
    let reference = source("docs/directives.md");
    let mut compared = BTreeSet::new();
    for (path, prefix) in [("src/conf/redis.rs", ""), ("src/conf/location.rs", "meteorit_")] {
        for rest in source(path).split("self.").skip(1) {
            let Some((name, rest)) = rest.split_once(".unwrap_or(") else { continue };
            let line = format!("    Default: {prefix}{name} ");
            let documented = reference.lines().find_map(|text| text.strip_prefix(&line)?.strip_suffix(';'));
            let known = rest.split(')').next().and_then(value_in_code);
            if let (Some(documented), Some(known)) = (documented, known) {
                assert_eq!(value_in_reference(documented), Some(known), "{prefix}{name}");
                compared.insert(format!("{prefix}{name}"));
            }
        }
    }
    let some = ["backlog", "connect_timeout", "connections", "meteorit_max_event_size", "meteorit_spool"];
    assert!(some.iter().all(|name| compared.contains(*name)) && compared.len() > 10, "{compared:?}");
}

/// The targets of the links of a page.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn the_links_lead_somewhere() {
    let mut seen = 0;
    for (path, text) in pages() {
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { path.parent().expect("a folder").join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            if let Some(anchor) = anchor {
                let there = anchors(&fs::read_to_string(&target).expect("a page"));
                assert!(there.contains(anchor), "{}: {link}, there is {there:?}", path.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}
