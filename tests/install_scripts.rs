//! packaging/env: what the scripts would install on which distribution. Every program they ask or change a system with is a stand-in
//! here, so the tests tell the same on any machine and change none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const RUN: &str = "install-run.sh";
const BUILD: &str = "install-build.sh";
const PACKAGE: &str = "install-package.sh";
const BENCH: &str = "install-bench.sh";

#[test]
fn debian_gets_its_packages_after_one_update() {
    let machine = Machine::new("debian", "ID=debian\n");
    let plan = machine.plan(RUN);
    assert_eq!(plan.iter().filter(|line| line.starts_with("apt-get update")).count(), 1, "{plan:?}");
    assert_eq!(packages(&plan), ["nginx", "redis-server"]);
    assert!(
        plan.iter()
            .any(|line| line.contains("DEBIAN_FRONTEND=noninteractive") && line.contains("--no-install-recommends"))
    );

    let packages = packages(&machine.plan(BUILD));
    for package in ["gcc", "make", "libclang-dev", "libpcre2-dev", "zlib1g-dev", "libssl-dev", "curl", "nginx-dev"] {
        assert!(packages.iter().any(|name| name == package), "{package} is not in {packages:?}");
    }
}

#[test]
fn what_is_compared_comes_on_debian_only() {
    let packages = packages(&Machine::new("bench-debian", "ID=debian\n").plan(BENCH));
    for package in ["wrk", "gnuplot-nox", "valgrind", "libnginx-mod-http-lua", "lua-cjson", "lua-nginx-redis"] {
        assert!(packages.iter().any(|name| name == package), "{package} is not in {packages:?}");
    }
    let output = Machine::new("bench-rhel", "ID=\"rhel\"\n").run(BENCH, &["--dry-run"]);
    assert!(!output.status.success() && text(&output.stderr).contains("Lua"), "{output:?}");
}

#[test]
fn a_browser_and_redis_py_come_with_the_tests_where_there_are_such() {
    let debian = Machine::new("browser-debian", "ID=debian\n");
    debian.stand_in("apt-cache", "printf \"$2:\\n  Candidate: 1.0\\n\"");
    let fedora = Machine::new("browser-fedora", "ID=fedora\n");
    fedora.stand_in("dnf", "case $* in *' chromium' | *' chromedriver' | *' python3-redis') echo found;; esac");
    for (machine, names) in [
        (&debian, ["chromium", "chromium-driver", "python3-redis"]),
        (&fedora, ["chromium", "chromedriver", "python3-redis"]),
    ] {
        let with_tests = packages(&machine.plan(BUILD));
        let output = machine.command(BUILD, &["--dry-run"]).env("TESTS", "no").output().unwrap();
        let without = packages(&lines(&output));
        for name in names {
            assert!(with_tests.iter().any(|package| package == name), "{name} is not in {with_tests:?}");
            assert!(!without.iter().any(|package| package == name), "{name} is in {without:?}");
        }
    }
    // RHEL has both in EPEL, Ubuntu Chromium alone and as a snap: neither stands in the way of the rest.
    for (name, os_release, offered) in
        [("browser-rhel", "ID=rhel\nID_LIKE=fedora\n", ""), ("browser-ubuntu", "ID=ubuntu\n", "chromium")]
    {
        let machine = Machine::new(name, os_release);
        machine.stand_in("apt-cache", &format!("case $* in *' {offered}') printf 'x:\\n  Candidate: 1.0\\n';; esac"));
        let output = machine.run(BUILD, &["--dry-run"]);
        assert!(output.status.success(), "{output:?}");
        assert!(!packages(&lines(&output)).iter().any(|package| package.starts_with("chrom")), "{output:?}");
        assert!(text(&output.stderr).contains("tests/browsers.rs"), "{output:?}");
        assert!(text(&output.stderr).contains("tests/consumers.rs"), "{output:?}");
    }
}

#[test]
fn what_makes_packages_is_installed_where_they_can_be_made() {
    let debian = packages(&Machine::new("package-debian", "ID=debian\n").plan(PACKAGE));
    for package in ["debhelper", "lintian", "rpm", "rpmlint", "mmdebstrap"] {
        assert!(debian.iter().any(|name| name == package), "{package} is not in {debian:?}");
    }
    let fedora = packages(&Machine::new("package-fedora", "ID=fedora\n").plan(PACKAGE));
    assert_eq!(fedora, ["rpm-build", "rpmlint", "cpio"]);
}

#[test]
fn ubuntu_is_treated_as_debian() {
    let machine = Machine::new("ubuntu", "NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n");
    assert_eq!(packages(&machine.plan(RUN)), ["nginx", "redis-server"]);
}

#[test]
fn a_derivative_is_known_by_what_it_is_like() {
    let machine = Machine::new("mint", "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n");
    assert_eq!(packages(&machine.plan(RUN)), ["nginx", "redis-server"]);
    let machine = Machine::new("rocky", "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n");
    assert!(machine.plan(RUN)[0].starts_with("dnf "));
}

#[test]
fn rhel_9_gets_redis_by_dnf() {
    let machine = Machine::new("rhel", "ID=\"rhel\"\nID_LIKE=\"fedora\"\nVERSION_ID=\"9.6\"\n");
    machine.stand_in("dnf", "case $* in *' redis') echo redis-6.2;; esac");
    assert_eq!(packages(&machine.plan(RUN)), ["nginx", "redis"]);

    let packages = packages(&machine.plan(BUILD));
    for package in ["gcc", "make", "clang-devel", "pcre2-devel", "zlib-devel", "openssl-devel", "nginx-mod-devel"] {
        assert!(packages.iter().any(|name| name == package), "{package} is not in {packages:?}");
    }
}

#[test]
fn fedora_gets_valkey_where_it_has_no_redis() {
    let machine = Machine::new("fedora", "ID=fedora\nVERSION_ID=42\n");
    machine.stand_in("dnf", "case $* in *' valkey') echo valkey-8.0;; esac");
    assert_eq!(packages(&machine.plan(RUN)), ["nginx", "valkey"]);
}

#[test]
fn what_is_installed_is_left_alone() {
    let machine = Machine::new("complete", "ID=debian\n");
    machine.stand_in("dpkg-query", "echo 'install ok installed'");
    for script in [RUN, BUILD] {
        for arguments in [&[][..], &["--dry-run"][..]] {
            let output = machine.run(script, arguments);
            assert!(output.status.success(), "{output:?}");
            assert_eq!(text(&output.stdout).lines().count(), 1, "{output:?}");
            assert!(text(&output.stdout).contains("is installed"), "{output:?}");
        }
    }
    assert!(machine.changes().is_empty(), "{}", machine.changes());
}

#[test]
fn only_what_is_missing_is_installed() {
    let machine = Machine::new("partial", "ID=debian\n");
    machine.stand_in("dpkg-query", "case $* in *-server) exit 1;; *) echo 'install ok installed';; esac");
    assert_eq!(packages(&machine.plan(RUN)), ["redis-server"]);
}

#[test]
fn a_removed_package_with_its_configuration_left_counts_as_missing() {
    let machine = Machine::new("removed", "ID=debian\n");
    machine.stand_in("dpkg-query", "echo 'deinstall ok config-files'");
    assert_eq!(packages(&machine.plan(RUN)), ["nginx", "redis-server"]);
}

#[test]
fn a_valkey_that_is_there_will_do() {
    let machine = Machine::new("valkey", "ID=debian\n");
    machine.stand_in("dpkg-query", "case $* in *valkey-server) echo 'install ok installed';; *) exit 1;; esac");
    assert_eq!(packages(&machine.plan(RUN)), ["nginx"]);
}

#[test]
fn a_build_for_another_nginx_needs_none_of_the_distribution() {
    let machine = Machine::new("vendored", "ID=debian\n");
    let plan = |script, variable, value| {
        let output = machine.command(script, &["--dry-run"]).env(variable, value).output().unwrap();
        packages(&lines(&output))
    };
    assert_eq!(plan(RUN, "VENDORED", "1"), ["redis-server"]);
    assert!(!plan(BUILD, "VENDORED", "1").contains(&"nginx-dev".to_owned()));
    assert!(!plan(BUILD, "NGINX_SOURCE_DIR", "/usr/src/nginx").contains(&"nginx-dev".to_owned()));
}

#[test]
fn a_dry_run_changes_nothing() {
    for (name, os_release) in [("dry-debian", "ID=debian\n"), ("dry-fedora", "ID=fedora\n")] {
        let machine = Machine::new(name, os_release);
        machine.stand_in("cargo", "echo 'cargo 1.9.0'");
        machine.plan(RUN);
        machine.plan(BUILD);
        assert!(machine.changes().is_empty(), "{}", machine.changes());
    }
}

#[test]
fn a_failing_installation_names_what_is_missing() {
    let machine = Machine::new("failing", "ID=fedora\n");
    machine.stand_in("dnf", "case $* in *install*) exit 1;; esac");
    machine.stand_in("sudo", "exec \"$@\"");
    let output = machine.run(BUILD, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("could not install gcc"), "{output:?}");
    assert!(text(&output.stderr).contains("NGINX_SOURCE_DIR"), "{output:?}");
}

#[test]
fn cargo_is_compared_part_by_part() {
    let machine = Machine::new("cargo", "ID=debian\n");
    machine.stand_in("dpkg-query", "case $* in *cargo) exit 1;; *) echo 'install ok installed';; esac");
    for (version, enough) in [("1.9.0", false), ("1.88.9", false), ("1.89.0", true), ("1.100.0", true), ("2.0.0", true)]
    {
        machine.stand_in("cargo", &format!("echo 'cargo {version} (0123456 2026-01-01)'"));
        let output = machine.run(BUILD, &[]);
        assert_eq!(output.status.success(), enough, "{version}: {output:?}");
    }
}

#[test]
fn without_cargo_the_distributions_rustup_is_taken() {
    let machine = Machine::new("rustup", "ID=debian\n");
    machine.stand_in("cargo", "exit 1");
    machine.stand_in("apt-cache", "case $* in *rustup) printf 'rustup:\\n  Candidate: 1.27.1\\n';; esac");
    let plan = machine.plan(BUILD);
    assert!(plan.iter().any(|line| line.contains("apt-get install") && line.ends_with(" rustup")), "{plan:?}");
    assert_eq!(plan.last().unwrap(), "rustup default stable");
}

#[test]
fn without_cargo_and_rustup_the_official_line_is_told() {
    let machine = Machine::new("no-rustup", "ID=debian\n");
    machine.stand_in("cargo", "exit 1");
    machine.stand_in("apt-cache", "printf 'rustup:\\n  Candidate: (none)\\n'");
    let plan = machine.plan(BUILD);
    assert_eq!(plan.last().unwrap(), "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh");

    machine.stand_in("dpkg-query", "case $* in *cargo) exit 1;; *) echo 'install ok installed';; esac");
    let output = machine.run(BUILD, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("https://sh.rustup.rs | sh"), "{output:?}");
}

#[test]
fn an_unknown_distribution_is_told_what_is_needed() {
    for (name, os_release) in
        [("arch", "ID=arch\n"), ("suse", "ID=opensuse-leap\nID_LIKE=\"suse opensuse\"\n"), ("nameless", "")]
    {
        let machine = Machine::new(name, os_release);
        for (script, need) in [(RUN, "Redis"), (BUILD, "libclang")] {
            let output = machine.run(script, &[]);
            assert_eq!(output.status.code(), Some(1));
            assert!(output.stdout.is_empty(), "{output:?}");
            assert_eq!(text(&output.stderr).lines().count(), 1, "{output:?}");
            assert!(text(&output.stderr).contains(need), "{output:?}");
        }
    }
}

#[test]
fn an_unknown_option_is_an_error_with_the_usage() {
    let machine = Machine::new("option", "ID=debian\n");
    for script in [RUN, BUILD] {
        let output = machine.run(script, &["--force"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(text(&output.stderr).contains("unknown option \"--force\""), "{output:?}");
        assert!(text(&output.stderr).contains("usage: "), "{output:?}");

        let output = machine.run(script, &["--help"]);
        assert!(output.status.success());
        assert!(text(&output.stdout).starts_with("usage: "), "{output:?}");
    }
    assert!(machine.changes().is_empty(), "{}", machine.changes());
}

/// A machine as the scripts see it: the distribution is what `os_release` says, no package is installed, cargo is new enough, and
/// whatever would change something only leaves a note.
struct Machine {
    directory: PathBuf,
}

impl Machine {
    fn new(name: &str, os_release: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("install_scripts").join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("bin")).unwrap();
        fs::write(directory.join("os-release"), os_release).unwrap();
        let machine = Self { directory };
        for asks in ["dpkg-query", "rpm"] {
            machine.stand_in(asks, "exit 1");
        }
        machine.stand_in("apt-cache", "");
        machine.stand_in("cargo", "echo 'cargo 1.999.0 (0123456 2026-01-01)'");
        machine.stand_in("dnf", "case $* in *repoquery*) ;; *) echo dnf \"$@\" >>\"$CHANGES\";; esac");
        for changes in ["apt-get", "sudo", "systemctl", "rustup-init"] {
            machine.stand_in(changes, &format!("echo {changes} \"$@\" >>\"$CHANGES\""));
        }
        machine
    }

    fn stand_in(&self, program: &str, script: &str) {
        let path = self.directory.join("bin").join(program);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/env").join(script));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.directory.join("bin").display()))
            .env("HOME", &self.directory)
            .env("METEORIT_OS_RELEASE", self.directory.join("os-release"))
            .env("CHANGES", self.directory.join("changes"))
            .stdin(std::process::Stdio::null());
        command
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        self.command(script, arguments).output().unwrap()
    }

    /// The commands that a dry run prints, without the sudo that a normal user needs.
    fn plan(&self, script: &str) -> Vec<String> {
        let output = self.run(script, &["--dry-run"]);
        assert!(output.status.success(), "{output:?}");
        lines(&output)
    }

    fn changes(&self) -> String {
        fs::read_to_string(self.directory.join("changes")).unwrap_or_default()
    }
}

fn lines(output: &Output) -> Vec<String> {
    text(&output.stdout).lines().map(|line| line.trim_start_matches("sudo ").to_owned()).collect()
}

/// What the first line with `install` in it installs.
fn packages(plan: &[String]) -> Vec<String> {
    let install =
        plan.iter().find(|line| line.split(' ').any(|word| word == "install")).unwrap_or_else(|| panic!("{plan:?}"));
    let arguments = install.split(' ').skip_while(|&word| word != "install").skip(1);
    arguments.filter(|word| !word.starts_with('-')).map(str::to_owned).collect()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
