//! packaging/deb and packaging/rpm: what they say agrees with the sources. That the packages build, install and go away without a
//! trace is what `make deb`, `make rpm` and `make package-test` show.

mod common;

use common::*;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SPEC: &str = "packaging/rpm/nginx-mod-http-meteorit.spec";
const DEBIAN: &str = "packaging/deb/debian/libnginx-mod-http-meteorit";

fn source(path: &str) -> String {
    fs::read_to_string(format!("{ROOT}/{path}")).expect(path)
}

/// The rest of the first line that begins with this.
#[track_caller]
fn value(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no line begins with {name:?}")).trim().to_owned()
}

/// The files that a pattern with at most one star in its last part stands for.
fn files(pattern: &str) -> Vec<PathBuf> {
    let path = Path::new(ROOT).join(pattern);
    let name = path.file_name().expect("a name").to_str().expect("UTF-8");
    let Some((start, end)) = name.split_once('*') else {
        return vec![path].into_iter().filter(|path| path.exists()).collect();
    };
    let entries = fs::read_dir(path.parent().expect("a folder")).expect(pattern);
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(start) && name.ends_with(end)
    };
    paths.filter(fits).collect()
}

#[test]
fn the_version_is_that_of_cargo_toml() {
    let spec = source(SPEC);
    assert_eq!(value(&spec, "Version:"), env!("CARGO_PKG_VERSION"));
    let changelog = spec.split("%changelog").nth(1).expect("a changelog");
    assert!(
        changelog.lines().nth(1).unwrap().ends_with(concat!(" - ", env!("CARGO_PKG_VERSION"), "-1")),
        "{changelog}"
    );
    assert!(source("CHANGELOG.md").contains(concat!("\n## ", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_vendored_nginx_is_the_one_that_is_locked() {
    let lock = source("Cargo.lock");
    let version = value(lock.split("name = \"nginx-src\"\n").nth(1).expect("nginx-src"), "version = ");
    let nginx = version.trim_matches('"').split_once('+').expect("the version of nginx behind that of the crate").1;
    assert_eq!(value(&source(SPEC), "%global vendored_nginx "), nginx);
    assert!(
        source("README.md").contains(&format!("| {nginx} (vendored) |")),
        "the table of the README has no nginx {nginx}"
    );
}

#[test]
fn every_file_that_the_packages_install_is_there() {
    let mut patterns: Vec<String> = Vec::new();
    for list in ["docs", "examples", "manpages"] {
        patterns.extend(source(&format!("{DEBIAN}.{list}")).lines().map(str::to_owned));
    }
    let spec = source(SPEC);
    for name in ["%license ", "%doc "] {
        patterns.extend(value(&spec, name).split(' ').map(str::to_owned));
    }
    for text in [source("packaging/deb/debian/rules"), spec, source("packaging/share.sh")] {
        let words =
            text.split([' ', '"', '\n', '\t']).filter(|word| word.starts_with("packaging/") && !word.contains('$'));
        patterns.extend(words.map(str::to_owned));
    }
    assert!(patterns.len() > 12, "{patterns:?}");
    for pattern in patterns {
        assert!(!files(&pattern).is_empty(), "there is no {pattern}");
    }
}

#[test]
fn the_scripts_are_posix_and_executable() {
    let mut scripts = Vec::new();
    for pattern in ["packaging/*.sh", "packaging/env/install-*.sh", "packaging/deb/*.sh", "packaging/rpm/*.sh"] {
        scripts.extend(files(pattern));
    }
    scripts.push(PathBuf::from(format!("{ROOT}/packaging/deb/debian/rules")));
    assert!(scripts.len() > 8, "{scripts:?}");
    for script in scripts {
        let mode = fs::metadata(&script).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{} is not executable", script.display());
        if script.extension().is_some() {
            let shell = if Path::new("/bin/dash").exists() { "/bin/dash" } else { "sh" };
            let status = Command::new(shell).arg("-n").arg(&script).status().unwrap();
            assert!(status.success(), "{}", script.display());
        }
    }
    assert!(source(&format!("{DEBIAN}.postinst")).contains("\n#DEBHELPER#\n"), "debhelper's part has no place");
}

#[test]
fn the_manual_names_every_directive_and_no_other() {
    let table = source("src/conf.rs");
    let known = table.split("c\"meteorit_").skip(1).map(|rest| rest.split('"').next().unwrap());
    let known: BTreeSet<String> = known.map(|name| format!("meteorit_{name}")).collect();
    let page = source("packaging/man/ngx_http_meteorit_module.5");
    let directives = page.split(".SH DIRECTIVES").nth(1).unwrap().split(".SH ").next().unwrap();
    let named = directives.split_whitespace().filter(|word| word.starts_with("meteorit_")).map(str::to_owned);
    assert_eq!(named.collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_manual_of_meteorit_spool_has_its_commands_and_options() {
    let help = source("src/bin/meteorit-spool/main.rs");
    let help = help.split("const HELP").nth(1).unwrap().split("\";").next().unwrap();
    let page = source("packaging/man/meteorit-spool.1").replace('\\', "");
    let words = help.split_whitespace().map(|word| word.trim_matches(['[', ']', ',', '.']));
    let options: BTreeSet<&str> = words.filter(|word| word.starts_with("--")).collect();
    assert!(options.len() >= 5, "{options:?}");
    for word in options.into_iter().chain(["list", "cat", "verify", "replay"]) {
        assert!(page.contains(word), "{word} is not in the manual");
    }
}

#[test]
fn what_all_packages_share_is_laid_out_and_its_configuration_accepted() {
    let root = tempfile::TempDir::new().unwrap();
    let status = Command::new("packaging/share.sh").arg(root.path()).current_dir(ROOT).status().unwrap();
    assert!(status.success());
    let example = fs::read_to_string(root.path().join("etc/nginx/meteorit.conf.example")).unwrap();
    assert!(example.ends_with(&source("nginx-conf/meteorit.conf")));
    let example =
        example.replace("listen      8080;", "listen 127.0.0.1:%PORT%;").replace("/var/log/nginx/", "%DIR%/logs/");
    Nginx::builder().http(&example).test().assert_ok();
    assert!(root.path().join("usr/share/meteorit/prometheus/meteorit.rules.yml").is_file());
    assert!(root.path().join("usr/share/meteorit/grafana/meteorit.json").is_file());
    let self_test = fs::read(root.path().join("usr/share/meteorit/self-test")).unwrap();
    assert_eq!(self_test, source("packaging/self-test.sh").into_bytes());
}

#[test]
fn the_module_loads_by_the_script_that_the_packages_check_it_with() {
    let load = |module: &Path| {
        let output = Command::new(format!("{ROOT}/packaging/load.sh")).arg(binary()).arg(module).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (loads, output) = load(module());
    assert!(loads, "{output}");
    let (loads, output) = load(Path::new("/bin/true"));
    assert!(!loads && output.contains("dlopen()"), "{output}");
}
