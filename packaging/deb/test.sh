#!/bin/sh
# Proves the Debian package on a machine of its own: `make package-test`. As root. A minimal system of this machine's distribution, from
# where this machine's apt gets its packages, is made in target/package-test; the package is installed there by apt with what it needs,
# and deb/trial.sh runs in it, in a network and among processes of its own. See that file for what is looked at.
set -eu
program='package-test'
root=$(cd "$(dirname "$0")/../.." && pwd)
cd "$root"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)

say() {
    printf '%s: %s\n' "$program" "$*"
}

fail() {
    printf '%s: %s\n' "$program" "$*" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || fail "only root can make a system and change into it"
package=$(find "$target/deb" -maxdepth 1 -name 'libnginx-mod-http-meteorit_*.deb' 2>/dev/null | sort | tail -n 1)
[ -n "$package" ] || fail "there is no package in $target/deb: make deb"

work=$target/package-test
system=$work/system
others=$work/others
# A system that an earlier run has left may have something mounted: unshare has taken that with it.
rm -rf --one-file-system "$work"
mkdir -p "$work"

# The same package as a later version, whose module is another file.
later() {
    dpkg-deb --raw-extract "$package" "$work/later"
    version=$(dpkg-deb --field "$package" Version)
    sed -i "s/^Version: .*/Version: $version+later/" "$work/later/DEBIAN/control"
    dpkg-deb --root-owner-group --build "$work/later" "$work/later.deb" >/dev/null
    rm -rf "$work/later"
}

# The sources of the distribution itself, in the form of sources.list.
sources() {
    # shellcheck disable=SC2016 # for apt to fill in
    apt-get indextargets --format '$(ORIGIN) deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        sed -n 's/^\(Debian\|Ubuntu\) deb /deb /p' | sort -u
}

# in_system SYSTEM COMMAND...: with this machine's network.
in_system() {
    chroot="$1"
    shift
    # shellcheck disable=SC2016 # for the shell inside
    unshare --mount --pid --fork sh -c 'mount -t proc proc "$0/proc" && exec chroot "$@"' "$chroot" "$chroot" \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"
}

# What a system holds. Left out is what programs write while they run, and what apt and dpkg remember.
list() {
    (cd "$1" && find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./run -o -path ./tmp -o -path ./trial \
        -o -path ./var/cache -o -path ./var/log -o -path ./var/lib/apt -o -path ./var/lib/dpkg -o -path ./var/lib/redis \
        -o -path ./var/lib/nginx -o -path ./var/lib/systemd \) -prune -o -print | sort)
}

say "makes a minimal system in $system"
# shellcheck disable=SC1091
codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
sources | mmdebstrap --quiet --mode=root --variant=minbase "$codename" "$system" -
# Nothing starts, stops or is reloaded by an installation, but an nginx that runs already, by its own script.
cat >"$system/usr/sbin/policy-rc.d" <<'END'
#!/bin/sh
[ "$1" != --quiet ] || shift
case $1,$2 in
nginx,status | nginx,upgrade | nginx,restart | nginx,reload) exit 0 ;;
esac
exit 101
END
chmod 755 "$system/usr/sbin/policy-rc.d"
cp /etc/resolv.conf "$system/etc/resolv.conf"
in_system "$system" apt-get --quiet --quiet update
cp -a "$system" "$others"

say "installs the package with what it depends on and recommends"
mkdir "$system/trial"
cp "$package" "$system/trial/first.deb"
later
mv "$work/later.deb" "$system/trial/later.deb"
cp packaging/deb/trial.sh "$system/trial/trial.sh"
in_system "$system" apt-get --quiet --quiet --yes install /trial/first.deb >"$work/install.log" 2>&1 || {
    cat "$work/install.log" >&2
    fail "apt-get did not install the package"
}
# The same without the package, to compare with.
installed=$(in_system "$system" dpkg-query --show | cut -f 1 | sort)
before=$(in_system "$others" dpkg-query --show | cut -f 1 | sort)
new=$(printf '%s\n%s\n%s\n' "$before" "$before" "$installed" | sort | uniq -u | grep -v '^libnginx-mod-http-meteorit$' | tr '\n' ' ')
say "what came with it: $new"
# shellcheck disable=SC2086 # a list of words
in_system "$others" apt-get --quiet --quiet --yes install --no-install-recommends $new >"$work/others.log" 2>&1 ||
    fail "apt-get did not install the others; see $work/others.log"

say "runs deb/trial.sh in it"
# shellcheck disable=SC2016 # for the shell inside
unshare --net --mount --pid --fork sh -c 'ip link set lo up && mount -t proc proc "$0/proc" && exec chroot "$0" "$@"' "$system" \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 sh /trial/trial.sh

list "$system" >"$work/after-purge"
list "$others" >"$work/without"
if ! diff "$work/without" "$work/after-purge"; then
    fail "purging the package left something behind, or took something along"
fi
say "all is well: purging it left nothing behind"
