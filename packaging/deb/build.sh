#!/bin/sh
# Builds the Debian package for this machine's nginx from a copy of these sources, and has lintian look at it: `make deb`.
# DEB_REVISION=N gives it another revision than 1. What it makes is in target/deb.
set -eu
program=build.sh
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/deb"
target=$(cd "$target" && pwd)

version=$(sed -n '/^\[package\]/,/^\[/ s/^version *= *"\(.*\)"/\1/p' Cargo.toml)
if [ -z "$version" ]; then
    printf '%s: no version in Cargo.toml\n' "$program" >&2
    exit 1
fi
tree=$target/deb/meteorit
rm -rf "$tree"
mkdir -p "$tree"
# Everything but what cargo, git and this script make.
tar -c --exclude=./target --exclude=./fuzz/target --exclude=./.git . | tar -x -C "$tree"
cp -R packaging/deb/debian "$tree/debian"

maintainer=$(sed -n 's/^Maintainer: //p' "$tree/debian/control")
time=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)
cat >"$tree/debian/changelog" <<END
meteorit ($version-${DEB_REVISION:-1}) unstable; urgency=medium

  * See changelog.gz for what is new in Meteorit $version.

 -- $maintainer  $(LC_ALL=C date -u -R -d "@$time")
END

cd "$tree"
export CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" CARGO_TARGET_DIR="$target/deb/cargo"
dpkg-buildpackage --build=binary --unsigned-changes --no-pre-clean
cd "$target/deb"
lintian --fail-on error --info --tag-display-limit 0 "meteorit_$version-${DEB_REVISION:-1}_$(dpkg --print-architecture).changes"
printf '%s: %s\n' "$program" "$target/deb/libnginx-mod-http-meteorit_$version-${DEB_REVISION:-1}_$(dpkg --print-architecture).deb"
