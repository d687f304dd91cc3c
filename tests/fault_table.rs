//! The table of faults in tests/README.md is true to the tests: all rows are there, and every test that it names exists.

use std::path::Path;

const TABLE: &str = include_str!("README.md");

/// The rows: a number, and the names of tests in the row.
fn rows() -> Vec<(usize, Vec<&'static str>)> {
    let rows = TABLE.lines().filter_map(|line| {
        let (number, rest) = line.strip_prefix("| F")?.split_once(" |")?;
        let names = rest.split('`').skip(1).step_by(2).filter(|text| text.contains("::")).collect();
        Some((number.parse().expect("the number of a fault"), names))
    });
    rows.collect()
}

#[test]
fn every_fault_has_its_row() {
    let numbers: Vec<usize> = rows().into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, (1..=42).collect::<Vec<_>>());
}

#[test]
fn every_row_names_a_test_or_says_why_it_has_none() {
    for (number, names) in rows() {
        let line = TABLE.lines().find(|line| line.starts_with(&format!("| F{number} |"))).expect("its line");
        let excused = ["does not apply", "not there yet"].iter().any(|reason| line.contains(reason));
        assert!(!names.is_empty() || excused, "{line}");
    }
}

#[test]
fn every_test_in_the_table_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut missing = Vec::new();
    for name in rows().into_iter().flat_map(|(_, names)| names) {
        let (file, test) = name.split_once("::").expect("file::test");
        let dir = if file.starts_with("src/") { root.to_path_buf() } else { root.join("tests") };
        let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
        // Indented in a module, or with arguments where a property is tested.
        if !text.contains("#[test]") || !text.contains(&format!("fn {test}(")) {
            missing.push(name);
        }
    }
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn every_test_named_after_a_fault_is_in_its_row() {
    let table = rows();
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(path.read_dir().expect("a folder").map(|entry| entry.expect("an entry").path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let named = text.split("#[test]\nfn f").skip(1).filter_map(|rest| rest.split_once("()")).map(|(name, _)| name);
        for name in named {
            let Some(number) = name.get(..2).and_then(|digits| digits.parse::<usize>().ok()) else { continue };
            let listed = |names: &[&str]| names.iter().any(|listed| listed.ends_with(&format!("::f{name}")));
            let found = table.iter().any(|(row, names)| *row == number && listed(names));
            assert!(found, "f{name} in {} is not in the row of F{number}", path.display());
        }
    }
}
