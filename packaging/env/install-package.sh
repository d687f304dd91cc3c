#!/bin/sh
# Installs what is needed to make packages of Meteorit, beside what builds it, and to check them. See --help.
set -eu

program=install-package.sh
needs='debhelper, dpkg-dev and lintian for a .deb; rpmbuild, rpmlint and cpio for an .rpm; mmdebstrap to try the .deb out'
# shellcheck source=packaging/env/packages.sh
. "$(dirname "$0")/packages.sh"

usage() {
    cat <<'END'
usage: install-package.sh [--dry-run]

Installs what is missing to make packages: on Debian and Ubuntu for `make deb`, `make rpm` and `make package-test`, on the RHEL
family for `make rpm`. What builds Meteorit itself is installed by install-build.sh.

  --dry-run   print the commands that would be run, change nothing
  --help      print this
END
}

read_options "$@"
find_distribution

case $family in
debian)
    for package in debhelper dpkg-dev fakeroot lintian rpm rpmlint cpio mmdebstrap; do
        want $package
    done
    ;;
rhel)
    for package in rpm-build rpmlint cpio; do
        want $package
    done
    ;;
esac

if [ -z "$missing" ]; then
    say 'what is needed to make packages is installed'
else
    install_missing
fi
