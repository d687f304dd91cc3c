//! Alert rules, dashboard and docs/monitoring.md name the metrics that there are: those, with those labels and values, that a
//! running nginx tells. Prometheus's promtool, where it is installed, checks the rules and the queries themselves.

mod common;

use common::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

const RULES: &str = "packaging/prometheus/meteorit.rules.yml";
const RULES_TEST: &str = "packaging/prometheus/meteorit.test.yml";
const DASHBOARD: &str = "packaging/grafana/meteorit.json";
const PAGE: &str = "docs/monitoring.md";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn file(name: &str) -> String {
    fs::read_to_string(path(name)).expect(name)
}

/// What an nginx with a location and a spool tells Prometheus.
fn told() -> String {
    // Nobody needs this Redis.
    let nginx = Nginx::builder()
        .http("meteorit_redis queue { server redis://127.0.0.1:1; spool spool; }")
        .server(
            "location = /metrics { meteorit_status prometheus; }
             location = /events { meteorit_pass queue; meteorit_command RPUSH list x; }",
        )
        .start();
    get(nginx.port(), "/metrics").text()
}

/// The families of a text for Prometheus.
fn families(told: &str) -> BTreeSet<&str> {
    told.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

/// The expressions of the alert rules: `expr: ...` on its line, or the more indented lines that follow `expr: |`.
fn expressions_of_rules(rules: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = rules.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        match line.trim_start().strip_prefix("expr: ") {
            Some("|") => {
                let mut expression = String::new();
                while let Some(next) = lines.next_if(|next| indent(next) > indent(line)) {
                    expression.push_str(next);
                    expression.push('\n');
                }
                found.push(expression);
            }
            Some(expression) => found.push(expression.to_owned()),
            None => {}
        }
    }
    found
}

fn panels(dashboard: &Value) -> &[Value] {
    dashboard["panels"].as_array().expect("panels")
}

/// The queries of the panels, and those that fill the lists of the variables.
fn queries_of_dashboard(dashboard: &Value) -> Vec<String> {
    let targets = panels(dashboard).iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let queries =
        targets.map(|target| &target["expr"]).chain(variables.iter().map(|variable| &variable["query"]["query"]));
    queries.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The queries among the indented lines of the page, behind a name of one letter, where they have one.
fn queries_of_page(page: &str) -> Vec<String> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("    ")).filter(|line| line.contains("meteorit_"));
    let lines = lines.filter(|line| !line.contains(';'));
    lines.map(|line| line.get(1..).filter(|rest| rest.starts_with(' ')).unwrap_or(line).trim().to_owned()).collect()
}

/// A metric as a query names it, with its conditions on labels: each a label and the values it may have.
struct Selector {
    metric: String,
    labels: Vec<(String, Vec<String>)>,
}

fn selectors(query: &str) -> Vec<Selector> {
    let is_of_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let starts = query.match_indices("meteorit_").map(|(at, _)| at).filter(|at| !query[..*at].ends_with(is_of_name));
    starts
        .map(|at| {
            let (metric, rest) =
                query[at..].split_at(query[at..].find(|it| !is_of_name(it)).unwrap_or(query.len() - at));
            let conditions = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
            let labels = conditions.split(", ").filter_map(|condition| {
                let (label, value) = condition.split_once('=')?;
                let values = value.trim_start_matches('~').trim_matches('"');
                Some((label.to_owned(), values.split('|').map(str::to_owned).collect()))
            });
            Selector { metric: metric.to_owned(), labels: labels.collect() }
        })
        .collect()
}

#[test]
fn alerts_dashboard_and_page_ask_for_what_is_told() {
    let told = told();
    let dashboard: Value = serde_json::from_str(&file(DASHBOARD)).expect("JSON");
    for (name, queries) in [
        (RULES, expressions_of_rules(&file(RULES))),
        (DASHBOARD, queries_of_dashboard(&dashboard)),
        (PAGE, queries_of_page(&file(PAGE))),
    ] {
        let selectors: Vec<Selector> = queries.iter().flat_map(|query| selectors(query)).collect();
        assert!(selectors.len() > 3, "{name}: the queries are not where they were");
        for Selector { metric, labels } in selectors {
            let of_metric = |line: &&str| line.strip_prefix(&metric).is_some_and(|rest| rest.starts_with(['{', ' ']));
            let series: Vec<&str> = told.lines().filter(of_metric).collect();
            assert!(!series.is_empty(), "{name}: no {metric} is told");
            for (label, values) in labels {
                for value in values {
                    // A variable of the dashboard.
                    let condition =
                        if value.starts_with('$') { format!("{label}=\"") } else { format!("{label}=\"{value}\"") };
                    let holds = label == "instance" || series.iter().any(|line| line.contains(&condition));
                    assert!(holds, "{name}: no {metric} with {condition} is told");
                }
            }
        }
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    let told = told();
    let dashboard: Value = serde_json::from_str(&file(DASHBOARD)).expect("JSON");
    let shown: BTreeSet<String> =
        queries_of_dashboard(&dashboard).iter().flat_map(|query| selectors(query)).map(|it| it.metric).collect();
    let is_shown = |family: &&str| shown.iter().any(|name| name.starts_with(family));
    let missing: Vec<&str> = families(&told).into_iter().filter(|family| !is_shown(family)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn panels_have_names_of_their_own_and_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(&file(DASHBOARD)).expect("JSON");
    let panels = panels(&dashboard);
    let mut cells = BTreeSet::new();
    for panel in panels {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
        assert!(x + w <= 24, "{panel}");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(cells.insert(cell), "{} lies on another panel", panel["title"]);
        }
    }
    for member in ["id", "title"] {
        let names: BTreeSet<String> = panels.iter().map(|panel| panel[member].to_string()).collect();
        assert_eq!(names.len(), panels.len(), "{member}");
    }
}

/// The names in the first column of the page's tables that begin so.
fn documented(prefix: &str) -> BTreeSet<String> {
    let page = file(PAGE);
    let firsts = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    firsts.map(|first| first.trim_matches('`').to_owned()).filter(|first| first.starts_with(prefix)).collect()
}

#[test]
fn the_page_explains_every_metric_and_no_other() {
    let told = told();
    let told: BTreeSet<String> = families(&told).into_iter().map(str::to_owned).collect();
    assert_eq!(documented("meteorit_"), told);
}

#[test]
fn the_page_explains_every_alert_with_its_severity_and_a_test_raises_each() {
    let (rules, test, page) = (file(RULES), file(RULES_TEST), file(PAGE));
    let mut alerts = BTreeSet::new();
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().expect("a name");
        let severity = rule.split("severity: ").nth(1).and_then(|rest| rest.lines().next()).expect("a severity");
        assert!(page.contains(&format!("| {name} | {severity} |")), "{name} is not {severity} in {PAGE}");
        assert!(test.contains(&format!("alertname=\"{name}\"")), "{name} is not in {RULES_TEST}");
        alerts.insert(name.to_owned());
    }
    assert_eq!(documented("Meteorit"), alerts);
}

/// What promtool says against it, if anything. It reads the input, and runs in the folder of the rules.
/// Debian has it in the package prometheus; where it is missing nothing is checked.
fn objection_of_promtool(args: &[&str], input: &str) -> Option<String> {
    let mut stdin = tempfile::tempfile().expect("a temporary file");
    stdin.write_all(input.as_bytes()).and_then(|()| stdin.rewind()).expect("a temporary file");
    let mut command = Command::new("promtool");
    command.current_dir(path(RULES).parent().expect("a folder")).args(args).stdin(stdin);
    let Ok(output) = command.output() else {
        eprintln!("no promtool in PATH: not checked by it");
        return None;
    };
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (!output.status.success()).then_some(said)
}

#[test]
fn promtool_agrees_with_the_rules_and_their_tests() {
    assert_eq!(objection_of_promtool(&["check", "rules", "meteorit.rules.yml"], ""), None);
    assert_eq!(objection_of_promtool(&["test", "rules", "meteorit.test.yml"], ""), None);
}

#[test]
fn promtool_agrees_with_the_names_that_are_told() {
    assert_eq!(objection_of_promtool(&["check", "metrics"], &told()), None);
}

#[test]
fn promtool_understands_the_queries_of_dashboard_and_page() {
    let dashboard: Value = serde_json::from_str(&file(DASHBOARD)).expect("JSON");
    let is_list = |query: &String| query.starts_with("label_values(");
    let queries = queries_of_dashboard(&dashboard).into_iter().filter(|query| !is_list(query));
    let queries = queries.chain(queries_of_page(&file(PAGE))).map(|query| {
        // What Grafana puts in.
        query.replace("$__rate_interval", "5m").replace("$__range", "1h")
    });
    let rules: Vec<Value> =
        queries.enumerate().map(|(at, query)| json!({"record": format!("query{at}"), "expr": query})).collect();
    assert!(rules.len() > 40, "{}", rules.len());
    // JSON is YAML.
    let rules = json!({"groups": [{"name": "queries", "rules": rules}]});
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(rules.to_string().as_bytes()).expect("a temporary file");
    let name = file.path().to_str().expect("a name");
    assert_eq!(objection_of_promtool(&["check", "rules", name], ""), None);
}
