#!/bin/sh
# Installs what is needed to build and test Meteorit: a C compiler, make, libclang, the development files of nginx and of the libraries
# nginx is built with, a browser and redis-py, and Rust where it is missing. See --help.
set -eu

program=install-build.sh
root=$(cd "$(dirname "$0")/../.." && pwd)
rust_needed=$(sed -n 's/^rust-version *= *"\([0-9.]*\)".*/\1/p' "$root/Cargo.toml")
needs="a C compiler, make, libclang, the development files of nginx, PCRE2, zlib and OpenSSL, curl, python3, Chromium with its chromedriver and redis-py for the tests, and Rust $rust_needed or newer"
official_rustup="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"
# shellcheck source=packaging/env/packages.sh
. "$(dirname "$0")/packages.sh"

usage() {
    cat <<END
usage: install-build.sh [--dry-run]

Installs what is missing of: $needs.
For Debian, Ubuntu and the RHEL family; run it as the user who is going to build. It uses sudo for the packages
unless that user is root, and gets Rust for that user, from the distribution's rustup if there is one.

  --dry-run   print the commands that would be run, change nothing
  --help      print this

Environment:
  VENDORED=1             build for the nginx source that comes with the crates: no development files of nginx
  NGINX_SOURCE_DIR=DIR   build for this source: likewise
  TESTS=no               build only: no browser, no redis-py
END
}

# Whether version $1 is $2 or newer; their parts are compared as numbers, so 1.9 is older than 1.89.
is_at_least() {
    printf '%s\n%s\n' "$2" "$1" | sort --version-sort --check=quiet
}

# Sets $rust to what is to be done about it: nothing, toolchain, update or rustup; and $rust_found to the version that is there.
find_rust() {
    # What rustup installs goes before the distribution's, as rustup itself has it.
    PATH=${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH
    rust_found=$(cd "$root" && cargo --version 2>/dev/null | sed -n 's/^cargo \([0-9.]*\).*/\1/p')
    if [ -n "$rust_found" ] && is_at_least "$rust_found" "$rust_needed"; then
        rust=nothing
    elif ! command -v rustup >/dev/null 2>&1; then
        rust=rustup
    elif [ -z "$rust_found" ]; then
        rust=toolchain
    else
        rust=update
    fi
}

# want_for_test FILE NAME...: what only tests/FILE needs, and some distributions do not have. Ubuntu has Chromium as a snap, which cannot
# see the files of the tests; RHEL and its rebuilds have it, and redis-py, in EPEL, which is for its owner to enable.
want_for_test() {
    file=$1
    shift
    for name in "$@"; do
        is_installed "$name" || is_offered "$name" || refresh
        if ! is_installed "$name" && ! is_offered "$name"; then
            say "no package $name here (on RHEL and its rebuilds EPEL has it): the tests that need it, tests/$file, will fail" >&2
            return
        fi
    done
    for name in "$@"; do
        want "$name"
    done
}

# Runs a command as the user who builds, or prints it in a dry run.
as_user() {
    if [ $dry_run = yes ]; then
        printf '%s\n' "$*"
    else
        printf '+ %s\n' "$*"
        "$@"
    fi
}

# What a person has to run: a line of a dry run, else an error.
leave_to_user() {
    if [ $dry_run = yes ]; then
        printf '%s\n' "$2"
    else
        fail "$1; run: $2"
    fi
}

# The distribution's rustup, or the official line where it has none.
install_rustup() {
    # Its packages of rustup and of cargo exclude each other.
    if ! is_installed cargo; then
        is_offered rustup || refresh
        if is_offered rustup; then
            missing=' rustup'
            install_missing
            case $family in
            debian) as_user rustup default stable ;;
            rhel) as_user rustup-init -y ;;
            esac
            return
        fi
    fi
    leave_to_user "${rust_found:+cargo $rust_found is too old, }Rust $rust_needed or newer is needed" "$official_rustup"
}

read_options "$@"
find_distribution
find_rust

case $family in
debian)
    # libc6-dev and ca-certificates are only recommended by what needs them.
    for package in gcc libc6-dev make libclang-dev libpcre2-dev zlib1g-dev libssl-dev ca-certificates curl python3; do
        want $package
    done
    browser='chromium chromium-driver'
    nginx_files=nginx-dev
    ;;
rhel)
    # redhat-rpm-config: the compiler flags of the distribution's nginx name its files.
    for package in gcc make clang-devel redhat-rpm-config pcre2-devel zlib-devel openssl-devel ca-certificates 'curl|curl-minimal' python3; do
        want "$package"
    done
    browser='chromium chromedriver'
    nginx_files=nginx-mod-devel
    ;;
esac
if [ "${VENDORED:-}" != 1 ] && [ -z "${NGINX_SOURCE_DIR:-}" ]; then
    want "$nginx_files"
fi

if [ "${TESTS:-}" != no ]; then
    # shellcheck disable=SC2086 # a list of words
    want_for_test "browsers.rs and tests/status_page.rs" $browser
    want_for_test consumers.rs python3-redis
fi

if [ -z "$missing" ] && [ $rust = nothing ]; then
    say 'what is needed to build and test is installed'
    exit 0
fi
if [ -n "$missing" ]; then
    hint="if $nginx_files is the trouble, because the distribution has none or your nginx comes from elsewhere: NGINX_SOURCE_DIR=DIR builds for the nginx source in DIR, VENDORED=1 for one that comes with the crates"
    install_missing
    hint=
fi
case $rust in
toolchain) as_user rustup default stable ;;
update) leave_to_user "cargo $rust_found is too old, Rust $rust_needed or newer is needed" 'rustup update stable && rustup default stable' ;;
rustup) install_rustup ;;
esac
