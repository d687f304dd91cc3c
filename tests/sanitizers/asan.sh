#!/usr/bin/env bash
# Runs the integration tests with an nginx and a module under AddressSanitizer (and nginx under UndefinedBehaviorSanitizer), where each
# allocation from a pool is one that the sanitizer knows. Every report fails the test that caused it. Arguments are those of `cargo test`.
#
# What is built is below target/: nginx-sanitized, the nginx; asan, the module. The tests themselves are the ordinary ones.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
features=${FEATURES:-}

nginx=$(tests/sanitizers/nginx.sh "$target")
# The runtime is gcc's, which nginx brings; RUSTC_BOOTSTRAP lets a stable compiler instrument.
# shellcheck disable=SC2086
RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zsanitizer=address -Zexternal-clangrt -Cforce-frame-pointers=yes' \
    NGINX_SOURCE_DIR=$nginx NGINX_BUILD_DIR=$nginx/objs CARGO_TARGET_DIR=$target/asan \
    cargo build --locked --lib --target "$host"
# shellcheck disable=SC2086
cargo build --locked --examples $features
# shellcheck disable=SC2086
cargo test --locked --tests --no-run $features

reports=$target/asan-reports
rm -rf "$reports"
mkdir -p "$reports"
export METEORIT_TEST_NGINX=$nginx/objs/nginx
export METEORIT_TEST_MODULE=$target/asan/$host/debug/libngx_http_meteorit_module.so
export METEORIT_ASAN_LOG=$reports/report
# A test preloads a library of its own, which comes before the runtime then.
export ASAN_OPTIONS=detect_stack_use_after_return=1:strict_string_checks=1:detect_odr_violation=0:verify_asan_link_order=0
export UBSAN_OPTIONS=print_stacktrace=1
export LSAN_OPTIONS=suppressions=$root/tests/sanitizers/lsan.supp:print_suppressions=0
if [ $# -eq 0 ]; then
    for file in tests/*.rs; do
        name=$(basename "$file" .rs)
        # Those that start no nginx, or by scripts, whose nginx -t ends without freeing its cycle.
        case $name in install_scripts | packages | self_test | spool_tool) ;; *) set -- "$@" --test "$name" ;; esac
    done
fi
# Without what builds for itself, and what measures memory.
# shellcheck disable=SC2086
nice -n 10 cargo test --locked --no-fail-fast $features "$@" -- --skip make_run --skip a_pending_event_takes_what_the_page_says
left=$(find "$reports" -type f)
if [ -n "$left" ]; then
    printf '%s\n' "$left" | xargs cat
    echo 'asan.sh: reports that no test saw' >&2
    exit 1
fi
echo 'No finding.'
