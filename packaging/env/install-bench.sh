#!/bin/sh
# Installs what `make bench` needs beside what a build and a run do: what Meteorit is compared with, and what loads and draws. See --help.
set -eu

program=install-bench.sh
needs='wrk, gnuplot, valgrind, and for nginx the modules of Lua and echo, with the Lua libraries cjson and nginx-redis'
# shellcheck source=packaging/env/packages.sh
. "$(dirname "$0")/packages.sh"

usage() {
    cat <<END
usage: install-bench.sh [--dry-run]

Installs what is missing of: $needs.
For Debian and Ubuntu; run it as root, or as a user who may use sudo. Its packages may bring more modules of nginx along,
which nginx then loads where its configuration includes modules-enabled.

  --dry-run   print the commands that would be run, change nothing
  --help      print this
END
}

read_options "$@"
find_distribution

case $family in
debian)
    for package in wrk gnuplot-nox valgrind libnginx-mod-http-lua libnginx-mod-http-echo lua-cjson lua-nginx-redis; do
        want "$package"
    done
    ;;
rhel) fail "the RHEL family has no packages of the Lua module of nginx; needed: $needs. Once they are there, INSTALL=no makes make skip this step" ;;
esac

if [ -z "$missing" ]; then
    say 'what is needed to measure is installed'
else
    install_missing
fi
