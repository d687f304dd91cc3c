#!/bin/sh
# Installs what Meteorit needs to run, from the distribution's packages: nginx, and Redis or Valkey. See --help.
set -eu

program=install-run.sh
needs='nginx 1.22 or newer, and Redis or Valkey'
# shellcheck source=packaging/env/packages.sh
. "$(dirname "$0")/packages.sh"

usage() {
    cat <<'END'
usage: install-run.sh [--dry-run]

Installs what is missing of: nginx, and Redis or Valkey.
For Debian, Ubuntu and the RHEL family; run it as root, or as a user who may use sudo.
The services of nginx and Redis are neither started nor enabled by it.

  --dry-run   print the commands that would be run, change nothing
  --help      print this

Environment:
  VENDORED=1  the build makes its own nginx: install none
END
}

read_options "$@"
find_distribution

if [ "${VENDORED:-}" != 1 ]; then
    want nginx
fi
case $family in
debian) want 'redis-server|valkey-server' ;;
rhel) want 'redis|valkey' ;;
esac

if [ -z "$missing" ]; then
    say 'what is needed to run is installed'
else
    install_missing
fi
