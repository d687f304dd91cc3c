//! Finds the nginx to build for and makes Rust bindings to its headers.
//!
//! In this order: NGINX_SOURCE_DIR / NGINX_BUILD_DIR, the system's nginx with its development package (Debian's
//! nginx-dev), the source in the crate nginx-src (feature `vendored`). Nothing is written outside target/.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(nginx_threads, nginx_pcre, angie)");
    #[cfg(feature = "nginx")]
    if let Err(reason) = nginx::main() {
        // One sentence, without the debris of a panic around it.
        eprintln!("\nmeteorit: {reason}\n");
        std::process::exit(1);
    }
}

#[cfg(feature = "nginx")]
mod nginx {
    use std::env;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::time::{Duration, SystemTime};

    type Result<T> = std::result::Result<T, String>;

    /// Where Debian's nginx-dev puts the headers and configure of exactly the nginx that it ships.
    const SYSTEM_SOURCE: &str = "/usr/share/nginx/src";

    /// A configured nginx: its source tree and the folder with `ngx_auto_config.h` and `Makefile`.
    struct Nginx {
        source: PathBuf,
        build: PathBuf,
    }

    impl Nginx {
        /// What was built of it, by whatever name its makers give it; None when it was only configured.
        fn binary(&self) -> Option<PathBuf> {
            let paths = ["nginx", "angie"].map(|name| self.build.join(name));
            fs::canonicalize(paths.into_iter().find(|path| path.is_file())?).ok()
        }
    }

    pub fn main() -> Result<()> {
        let started = SystemTime::now();
        for name in ["NGINX_SOURCE_DIR", "NGINX_BUILD_DIR", "NGX_CONFIGURE_ARGS"] {
            println!("cargo::rerun-if-env-changed={name}");
        }
        println!("cargo::rerun-if-changed=src/ngx/nginx.h");
        let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run this through cargo")?);
        let nginx = find(&out)?;
        println!("cargo::rerun-if-changed={}", nginx.source.join("src/core/nginx.h").display());
        // What was configured here just now is newer than this run of the script, and would have it run each time.
        if !nginx.build.starts_with(&out) {
            println!("cargo::rerun-if-changed={}", nginx.build.join("ngx_auto_config.h").display());
        }
        if let Some(binary) = nginx.binary() {
            // The one that the tests run.
            println!("cargo::rerun-if-changed={}", binary.display());
            println!("cargo::rustc-env=METEORIT_NGINX={}", binary.display());
        }
        bind(&nginx, &out)?;
        tell(&nginx, &out, started)
    }

    fn find(out: &Path) -> Result<Nginx> {
        let given = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let nginx = match (given("NGINX_SOURCE_DIR"), given("NGINX_BUILD_DIR")) {
            (Some(source), Some(build)) => Nginx { source, build },
            (Some(source), None) => Nginx { build: source.join("objs"), source },
            (None, Some(build)) => {
                let source = build.parent().map(Path::to_path_buf).unwrap_or_default();
                Nginx { source, build }
            }
            (None, None) if cfg!(feature = "vendored") => vendored(out)?,
            (None, None) if Path::new(SYSTEM_SOURCE).join("conf_flags").is_file() => system(out)?,
            (None, None) => {
                return Err(
                    "no nginx to build for: install its development files (packaging/env/install-build.sh does), \
                     or set NGINX_SOURCE_DIR to a configured nginx source tree, or build with --features vendored"
                        .into(),
                );
            }
        };
        if !nginx.source.join("src/core/nginx.h").is_file() {
            return Err(format!(
                "no nginx source in {}: set NGINX_SOURCE_DIR to the folder that holds src/core/nginx.h",
                nginx.source.display()
            ));
        }
        if !nginx.build.join("ngx_auto_config.h").is_file() {
            return Err(format!(
                "the nginx in {} is not configured: run its configure with --with-compat, or set NGINX_BUILD_DIR to the \
                 folder that holds ngx_auto_config.h",
                nginx.source.display()
            ));
        }
        Ok(nginx)
    }

    /// Configures the system's nginx source with the flags that its package was built with.
    fn system(out: &Path) -> Result<Nginx> {
        let build = out.join("objs");
        let source = PathBuf::from(SYSTEM_SOURCE);
        println!("cargo::rerun-if-changed={SYSTEM_SOURCE}/conf_flags");
        // conf_flags is an assignment of a bash array.
        let script = r#". ./conf_flags && exec ./configure "${NGX_CONF_FLAGS[@]}" --builddir="$0""#;
        let output = Command::new("bash")
            .args(["-c", script])
            .arg(&build)
            .current_dir(&source)
            .output()
            .map_err(|e| format!("cannot run bash, which the configure of {SYSTEM_SOURCE} needs: {e}"))?;
        if !output.status.success() {
            return Err(format!(
                "the configure of the system's nginx failed (install what its last lines miss; \
                 packaging/env/install-build.sh does):\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        Ok(Nginx { source, build })
    }

    #[cfg(feature = "vendored")]
    fn vendored(out: &Path) -> Result<Nginx> {
        nginx_src::print_cargo_metadata();
        let (source, build) = nginx_src::build(out.join("objs")).map_err(|e| {
            format!("the vendored nginx did not build (packaging/env/install-build.sh installs what it needs): {e}")
        })?;
        Ok(Nginx { source, build })
    }

    #[cfg(not(feature = "vendored"))]
    fn vendored(_: &Path) -> Result<Nginx> {
        Err("the feature vendored is off".into())
    }

    fn bind(nginx: &Nginx, out: &Path) -> Result<()> {
        let flags = compiler_flags(nginx)?;
        // A test compiles the same headers with the C compiler and compares the two.
        println!("cargo::rustc-env=METEORIT_NGINX_CFLAGS={}", flags.join("\x1f"));
        let bindings = bindgen::Builder::default()
            .header("src/ngx/nginx.h")
            .clang_args(&flags)
            .allowlist_item("(ngx|NGX|meteorit)_.*")
            .allowlist_item("(NGINX_VERSION|random)")
            // An expression of sizeof, which bindgen leaves out or gets as a wrong type, depending on its version.
            .blocklist_item("NGX_ALIGNMENT")
            // OpenSSL comes in through ngx_event_openssl.h and is of no use as a thousand structs.
            .opaque_type("(SSL|X509|EVP|OCSP|ssl|x509|evp|ocsp|bio|BIO|ASN1|asn1|stack_st).*")
            .generate_cstr(true)
            .layout_tests(false)
            .derive_debug(false)
            .use_core()
            .rust_edition(bindgen::RustEdition::Edition2024)
            .generate()
            .map_err(|e| {
                format!(
                    "no bindings to nginx's headers (is libclang installed? packaging/env/install-build.sh does): {e}"
                )
            })?;
        let text = bindings.to_string();
        for (constant, cfg) in [
            ("NGX_THREADS: u32 = 1;", "nginx_threads"),
            ("NGX_PCRE: u32 = 1;", "nginx_pcre"),
            ("meteorit_angie_sign:", "angie"),
        ] {
            if text.contains(&format!("pub const {constant}")) {
                println!("cargo::rustc-cfg={cfg}");
            }
        }
        fs::write(out.join("bindings.rs"), text).map_err(|e| format!("cannot write bindings.rs: {e}"))
    }

    /// The -I and -D of nginx's own Makefile, with its relative folders made absolute.
    fn compiler_flags(nginx: &Nginx) -> Result<Vec<String>> {
        let makefile = nginx.build.join("Makefile");
        let text = fs::read_to_string(&makefile).map_err(|e| format!("cannot read {}: {e}", makefile.display()))?;
        let mut flags = Vec::new();
        for line in text.replace("\\\n", " ").lines() {
            if !line.starts_with("ALL_INCS") && !line.starts_with("CFLAGS") {
                continue;
            }
            let mut words = shlex::Shlex::new(line);
            while let Some(word) = words.next() {
                let (flag, rest) = match word.split_at_checked(2) {
                    Some((flag @ ("-I" | "-D"), "")) => (flag.to_owned(), words.next().unwrap_or_default()),
                    Some((flag @ ("-I" | "-D"), rest)) => (flag.to_owned(), rest.to_owned()),
                    _ => continue,
                };
                match flag.as_str() {
                    "-I" => flags.push(format!("-I{}", nginx.source.join(rest).display())),
                    _ => flags.push(format!("-D{rest}")),
                }
            }
        }
        Ok(flags)
    }

    /// Leaves the version (and the binary, where there is one for these headers) beside the library, for `make` to say. A build for
    /// another nginx leaves its own in the same place: then this script is to run again, as it is when the version is newer than its
    /// last run.
    fn tell(nginx: &Nginx, out: &Path, started: SystemTime) -> Result<()> {
        let core = nginx.source.join("src/core");
        let (name, header, prefix) = match core.join("angie.h") {
            header if header.is_file() => ("Angie", header, "#define ANGIE_VERSION"),
            _ => ("nginx", core.join("nginx.h"), "#define NGINX_VERSION"),
        };
        let text = fs::read_to_string(&header).map_err(|e| format!("cannot read {}: {e}", header.display()))?;
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix(prefix)?.trim().strip_prefix('"')?.strip_suffix('"'))
            .ok_or_else(|| format!("no version in {}", header.display()))?;
        // OUT_DIR is target/PROFILE/build/meteorit-HASH/out.
        let profile = out.ancestors().nth(3).ok_or("OUT_DIR is not below target/")?;
        let leave = |name: &str, text: &str| {
            let path = profile.join(name);
            let file = fs::write(&path, text).and_then(|()| fs::File::options().write(true).open(&path));
            // For cargo a run begins a moment before the script does.
            let before = started - Duration::from_secs(2);
            file.and_then(|file| file.set_modified(before))
                .map_err(|e| format!("cannot write {name} in {}: {e}", profile.display()))
        };
        leave("nginx-version", &format!("{name} {version}"))?;
        println!("cargo::rerun-if-changed={}", profile.join("nginx-version").display());
        match nginx.binary() {
            Some(binary) => leave("nginx-binary", &binary.to_string_lossy()),
            None => {
                let _ = fs::remove_file(profile.join("nginx-binary"));
                Ok(())
            }
        }
    }
}
