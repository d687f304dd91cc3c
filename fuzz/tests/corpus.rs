//! The inputs in `corpus/` pass their checks, without libFuzzer; and what is fuzzed is what is shipped.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use meteorit_fuzz::TARGETS;

#[test]
fn every_input_of_the_corpus_passes_its_check() {
    for (name, check) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut count = 0;
        for file in files {
            let path = file.expect("a file").path();
            println!("{}", path.display());
            check(&fs::read(&path).expect("a file to read"));
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}

#[test]
fn dependencies_are_of_the_versions_that_the_module_has() {
    let ours = versions("Cargo.lock");
    let module = versions("../Cargo.lock");
    assert!(module.contains_key("serde_json"));
    for (name, versions) in ours {
        if let Some(module) = module.get(&name) {
            assert!(versions.is_subset(module), "{name}: {versions:?} in fuzz/Cargo.lock, {module:?} in Cargo.lock");
        }
    }
}

/// The packages of a lock file.
fn versions(file: &str) -> HashMap<String, HashSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut packages: HashMap<_, HashSet<_>> = HashMap::new();
    let mut name = "";
    for line in text.lines() {
        let quoted = |key| line.strip_prefix(key).and_then(|rest: &str| rest.strip_suffix('"'));
        if let Some(package) = quoted("name = \"") {
            name = package;
        } else if let Some(version) = quoted("version = \"") {
            packages.entry(name.to_owned()).or_default().insert(version.to_owned());
        }
    }
    packages
}
