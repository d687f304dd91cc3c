//! What is under test: the nginx binary, its version, and the module that cargo built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// METEORIT_TEST_NGINX, else the nginx of the source that this build is for, else the one installed.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("METEORIT_TEST_NGINX") {
            return fs::canonicalize(&path)
                .unwrap_or_else(|error| panic!("METEORIT_TEST_NGINX={}: {error}", path.display()));
        }
        if let Some(path) = option_env!("METEORIT_NGINX") {
            return PathBuf::from(path);
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
        let found = dirs.map(|dir| dir.join("nginx")).find(|path| path.is_file());
        found.expect("nginx in PATH or /usr/sbin, or METEORIT_TEST_NGINX")
    })
}

/// What `nginx -V` says of the nginx under test.
fn about() -> String {
    let output = Command::new(binary()).arg("-V").output().expect("nginx -V runs");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Whether the nginx under test was built with this option of its configure.
pub fn built_with(option: &str) -> bool {
    about().split_whitespace().any(|word| word == option)
}

/// The version of the nginx under test.
pub fn version() -> (u32, u32, u32) {
    static VERSION: OnceLock<(u32, u32, u32)> = OnceLock::new();
    *VERSION.get_or_init(|| {
        // Angie says only by -V which nginx it is made of; OpenResty has a name of its own before the number.
        let text = about();
        let line = text.lines().find_map(|line| line.strip_prefix("nginx version: ")).expect("a version");
        let (_, number) = line.split_once('/').expect("a version behind a name");
        let digits = number.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
        let mut parts = digits.split('.').map(|part| part.parse().expect("a number in the version"));
        let mut next = || parts.next().expect("three numbers in the version");
        (next(), next(), next())
    })
}

/// METEORIT_TEST_MODULE, else what cargo built beside this test.
pub fn module() -> &'static Path {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| {
        let path = std::env::var_os("METEORIT_TEST_MODULE").map(PathBuf::from).unwrap_or_else(|| {
            let test = std::env::current_exe().expect("the path of this test");
            // Not target/PROFILE: there `cargo build` leaves a copy, and `cargo test` an old one.
            test.with_file_name("libngx_http_meteorit_module.so")
        });
        fs::canonicalize(&path)
            .unwrap_or_else(|error| panic!("the module {}: {error}; cargo build makes it", path.display()))
    })
}
