# `make` lists what there is to make.

# VENDORED=1 builds for the nginx source that comes with the crates, NGINX_SOURCE_DIR=DIR for the one in DIR; without either it is the
# nginx of the distribution. INSTALL=no installs nothing. CARGO_BUILD_JOBS=N limits cargo, as always.
CARGO_FEATURES := $(if $(filter 1,$(VENDORED)),--features vendored)
CARGO_TARGET_DIR ?= target
SECONDS ?= 60
RUST_BINARIES := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# What rustup installed goes before the distribution's, and need not be in the PATH.
export PATH := $(RUST_BINARIES):$(PATH)

.PHONY: help build run test fuzz ledger soak asan valgrind bench bench-instructions deb rpm package-test install install-bench install-package \
	fmt-check lint clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 20
	@echo
	@echo 'Variables: VENDORED=1, NGINX_SOURCE_DIR=DIR, CARGO_BUILD_JOBS=N, INSTALL=no; for run: PORT=8080, REDIS_URL=URL; for fuzz: SECONDS=60, TARGET=NAME;' \
		'for ledger: SECONDS=600, SEED=1; for soak: SECONDS=1200;' \
		'for bench: ROUNDS=5, SECONDS=3, ONLY=WHAT, NAME=NAME'

# meteorit-spool, without nginx: in a profile, and so in a folder, of its own, for the library that it is built from has the module's name.
SPOOL_TOOL := --profile tool --locked --no-default-features --features spool-tool --bin meteorit-spool

# What measures: a package of its own, in a folder of its own.
BENCH := --release --locked --manifest-path benches/Cargo.toml --target-dir $(CARGO_TARGET_DIR)/bench

build: ## the module for this machine's nginx, in target/release, and meteorit-spool, in target/tool
	cargo build $(SPOOL_TOOL)
	cargo build --release --locked $(CARGO_FEATURES)
	@version=$$(cat $(CARGO_TARGET_DIR)/release/nginx-version 2>/dev/null) || version='(version not recorded)'; \
	echo "$(CARGO_TARGET_DIR)/release/libngx_http_meteorit_module.so: for $$version, and no other version"

run: ## try it out: builds, starts nginx and a private Redis, prints commands to try; Ctrl-C stops
	@exec packaging/run.sh

test: install ## everything that should be green: installs what is missing, unit tests, tests with nginx and Redis
	cargo test --locked --no-default-features --features schema --lib
	cargo test --locked --manifest-path fuzz/Cargo.toml --target-dir $(CARGO_TARGET_DIR) --test corpus
	cargo build $(SPOOL_TOOL)
	cargo build --locked --lib --examples $(CARGO_FEATURES)
	cargo test --locked --tests --no-fail-fast $(CARGO_FEATURES)

fuzz: ## looks for inputs that break what must hold for any, SECONDS for each target; needs a C++ compiler
	@exec fuzz/run.sh $(SECONDS) $(TARGET)

ledger: ## ten minutes of every trouble at random, against what was promised; SECONDS=N, SEED=N
	cargo build $(SPOOL_TOOL)
	METEORIT_LEDGER_SECONDS=$(if $(filter file undefined,$(origin SECONDS)),600,$(SECONDS)) METEORIT_LEDGER_SEED=$(or $(SEED),1) \
		nice -n 10 cargo test --locked --test ledger $(CARGO_FEATURES) -- --nocapture all_troubles

soak: ## twenty minutes of load with a spool, Redis started anew each minute; SECONDS=N
	METEORIT_SOAK_SECONDS=$(if $(filter file undefined,$(origin SECONDS)),1200,$(SECONDS)) \
		cargo test --locked --test soak $(CARGO_FEATURES) -- --nocapture

asan: ## all tests under AddressSanitizer and UndefinedBehaviorSanitizer, no finding; needs their runtimes, which come with gcc
	cargo build $(SPOOL_TOOL)
	FEATURES='$(CARGO_FEATURES)' tests/sanitizers/asan.sh

valgrind: ## some tests under valgrind, no finding; needs the package valgrind
	FEATURES='$(CARGO_FEATURES)' tests/sanitizers/valgrind.sh

bench: install-bench ## side by side with the Lua layer and `return 204`, into benches/results; see benches/README.md
	cargo build --release --locked $(CARGO_FEATURES)
	cargo build $(BENCH)
	ROUNDS=$(ROUNDS) SECONDS=$(if $(filter file undefined,$(origin SECONDS)),3,$(SECONDS)) ONLY='$(ONLY)' NAME='$(NAME)' \
		CARGO_TARGET_DIR=$(abspath $(CARGO_TARGET_DIR)) $(CARGO_TARGET_DIR)/bench/release/meteorit-bench

bench-instructions: install-bench ## counts instructions of the pure steps and of whole requests, into benches/instructions.md
	cargo build --release --locked $(CARGO_FEATURES)
	cargo build $(BENCH) --features steps
	CARGO_TARGET_DIR=$(abspath $(CARGO_TARGET_DIR)) $(CARGO_TARGET_DIR)/bench/release/meteorit-bench instructions

deb: install-package ## the Debian package for this machine's nginx, looked at by lintian, in target/deb
	packaging/deb/build.sh

rpm: install-package ## the RPM package, looked at by rpmlint, in target/rpm, and tried out; for the vendored nginx where there is no nginx-mod-devel
	packaging/rpm/build.sh
	packaging/rpm/test.sh

package-test: deb ## the Debian package on a minimal system of its own: installed, used, upgraded, purged; as root
	packaging/deb/test.sh

install-package: # what is missing to make packages
ifneq ($(INSTALL),no)
	@TESTS=no packaging/env/install-build.sh
	@packaging/env/install-package.sh
endif

install: ## what is missing to build, run and test, from the distribution's packages
ifneq ($(INSTALL),no)
	@packaging/env/install-run.sh
	@packaging/env/install-build.sh
endif

install-bench:
ifneq ($(INSTALL),no)
	@packaging/env/install-run.sh
	@TESTS=no packaging/env/install-build.sh
	@packaging/env/install-bench.sh
endif

fmt-check: ## formatting
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo fmt --check --manifest-path benches/Cargo.toml

lint: fmt-check ## formatting and clippy, warnings are errors
	cargo clippy --locked --all-targets $(CARGO_FEATURES) -- -D warnings
	cargo clippy --locked --manifest-path fuzz/Cargo.toml --target-dir $(CARGO_TARGET_DIR) --all-targets -- -D warnings
	cargo clippy $(BENCH) --all-targets -- -D warnings
	cargo clippy --locked --no-default-features --features schema,spool-tool --lib --bins --tests -- -D warnings

clean: ## removes target
	cargo clean
