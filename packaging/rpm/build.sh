#!/bin/sh
# Builds the RPM package from a copy of these sources, and has rpmlint look at it: `make rpm`. Where there is no nginx-mod-devel, or
# with VENDORED=1, it is for the nginx that comes with the crates. What it makes is in target/rpm.
set -eu
program=build.sh
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/rpm/SOURCES"
target=$(cd "$target" && pwd)

spec=packaging/rpm/nginx-mod-http-meteorit.spec
version=$(sed -n 's/^Version: *//p' $spec)
tar -cz --exclude=./target --exclude=./fuzz/target --exclude=./.git --transform "s|^\.|meteorit-$version|" \
    -f "$target/rpm/SOURCES/meteorit-$version.tar.gz" .

set -- --define "_topdir $target/rpm" --define 'packager Meteorit maintainers'
if [ "${VENDORED:-}" = 1 ] || [ -z "$(rpm --eval '%{?_nginx_srcdir}')" ]; then
    set -- "$@" --with vendored
fi
# Debian's rpmbuild knows no packages that could be required.
if ! command -v dnf >/dev/null 2>&1; then
    set -- "$@" --nodeps
fi
export CARGO_HOME="${CARGO_HOME:-$HOME/.cargo}" RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}" CARGO_TARGET_DIR="$target/rpm/cargo"
rm -rf "$target/rpm/RPMS"
rpmbuild -bb "$@" $spec
package=$(find "$target/rpm/RPMS" -name '*.rpm')
rpmlint --config packaging/rpm/rpmlint.toml $spec "$package"
printf '%s: %s\n' "$program" "$package"
