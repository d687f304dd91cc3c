#!/bin/sh
# Builds the fuzz targets for libFuzzer, on stable Rust, and runs them one after the other. See --help.
# What is found, and what libFuzzer adds to the corpus, goes under target/fuzz; fuzz/corpus is only read.
set -eu

program=run.sh
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
out=${CARGO_TARGET_DIR:-target}/fuzz

usage() {
    cat <<'END'
usage: make fuzz [SECONDS=60] [TARGET=NAME]
       fuzz/run.sh SECONDS [NAME...]

Runs each fuzz target for a bounded time, or only those that are named: the folders of fuzz/corpus. Fails if one of them finds
something, and says which input it was.
END
}

fail() {
    printf '%s: %s\n' "$program" "$*" >&2
    exit 1
}

# Sets $binaries to where the targets are.
build() {
    command -v "${CXX:-c++}" >/dev/null 2>&1 || fail 'libFuzzer needs a C++ compiler: install g++ (gcc-c++), or set CXX'
    # The coverage that libFuzzer reads; stable Rust can be told to add it as well as nightly. With --target the flags spare build scripts.
    flags=-Cpasses=sancov-module
    for option in level=4 inline-8bit-counters pc-table trace-compares; do
        flags="$flags -Cllvm-args=-sanitizer-coverage-$option"
    done
    host=$(rustc --version --verbose | sed -n 's/^host: //p')
    RUSTFLAGS="$flags" cargo build --locked --release --bins --features libfuzzer --manifest-path fuzz/Cargo.toml \
        --target-dir "$out/build" --target "$host"
    binaries=$out/build/$host/release
}

# Runs one target; whether it found nothing.
run() {
    mkdir -p "$out/corpus/$1" "$out/artifacts/$1"
    log=$out/$1.log
    case $1 in
    batch | enrich | event | fields) dictionary=-dict=fuzz/json.dict ;;
    *) dictionary= ;;
    esac
    printf '== %s for %s s\n' "$1" "$seconds"
    if "$binaries/$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=4096 -artifact_prefix="$out/artifacts/$1/" \
        $dictionary "$out/corpus/$1" "fuzz/corpus/$1" >"$log" 2>&1; then
        grep 'DONE' "$log" || :
        return 0
    fi
    grep --text -A 3 -e 'panicked at' -e '^==[0-9]*== *ERROR' "$log" | head -n 20
    input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    printf '%s: %s found something, see %s; the input is %s, once more: %s\n' \
        "$program" "$1" "$log" "${input:-not known}" "$binaries/$1 $input" >&2
    return 1
}

case ${1:-} in
--help)
    usage
    exit
    ;;
'' | *[!0-9]*)
    usage >&2
    exit 2
    ;;
esac
seconds=$1
shift
if [ $# -eq 0 ]; then
    for corpus in fuzz/corpus/*; do
        set -- "$@" "${corpus##*/}"
    done
fi
for name in "$@"; do
    [ -d "fuzz/corpus/$name" ] || fail "there is no fuzz target \"$name\""
done

build
found=
for name in "$@"; do
    run "$name" || found="$found $name"
done
[ -z "$found" ] || fail "findings in:$found"
