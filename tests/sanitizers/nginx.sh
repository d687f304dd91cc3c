#!/usr/bin/env bash
# Builds an nginx under AddressSanitizer and UndefinedBehaviorSanitizer, from a copy of the nginx source under target/, and prints the
# folder of the copy. The source is the one that comes with the crate nginx-src, or the one in NGINX_SOURCE_DIR.
#
# usage: nginx.sh TARGET_DIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${1:?usage: nginx.sh TARGET_DIR}
copy=$target/nginx-sanitized

fail() {
    printf 'nginx.sh: %s\n' "$1" >&2
    exit 1
}

# The source in the crate, wherever cargo has it.
vendored_source() {
    cargo metadata --manifest-path "$here/../../Cargo.toml" --locked --features vendored --format-version 1 | python3 -c '
import json, os, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "nginx-src":
        print(os.path.join(os.path.dirname(package["manifest_path"]), "nginx"))'
}

# Both runtimes come with gcc on Debian and Ubuntu; elsewhere they are packages of their own.
check_compiler() {
    local probe
    probe=$(mktemp -d)
    if ! printf 'int main(void) { return 0; }\n' | ${CC:-cc} -x c -fsanitize=address,undefined -o "$probe/a.out" - 2>"$probe/why" ||
        ! "$probe/a.out"; then
        cat "$probe/why" >&2
        rm -rf "$probe"
        fail 'the C compiler has no sanitizers; on the RHEL family: dnf install libasan libubsan'
    fi
    rm -rf "$probe"
}

source=${NGINX_SOURCE_DIR:-$(vendored_source)}
[ -f "$source/src/core/nginx.h" ] || fail "no nginx source in $source"
configure=$source/auto/configure
[ -f "$configure" ] || configure=$source/configure
stamp=$(cksum "${BASH_SOURCE[0]}" "$source/src/core/nginx.h" | cksum)
if [ -x "$copy/objs/nginx" ] && [ "$(cat "$copy/stamp" 2>/dev/null)" = "$stamp" ]; then
    echo "$copy"
    exit
fi
check_compiler

rm -rf "$copy"
mkdir -p "$copy"
cp -R "$source/." "$copy/"
chmod -R u+w "$copy"
rm -rf "$copy/objs"
cd "$copy"
{
    # NGX_DEBUG_PALLOC: each allocation from a pool is one that the sanitizer knows. nonnull-attribute: nginx copies no bytes from nowhere.
    "./${configure#"$source/"}" --with-compat --with-debug --with-threads --with-http_ssl_module --with-http_v2_module \
        --with-http_realip_module --with-http_stub_status_module --with-http_auth_request_module --with-stream --with-stream_ssl_module \
        --with-cc="${CC:-cc}" \
        --with-cc-opt='-DNGX_DEBUG_PALLOC=1 -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize=nonnull-attribute' \
        --with-ld-opt='-fsanitize=address,undefined'
    # On x86 nginx reads and writes integers at any address, on purpose; the code for the other processors does not.
    sed -i 's/#define NGX_HAVE_NONALIGNED  1/#undef NGX_HAVE_NONALIGNED/' objs/ngx_auto_config.h
    nice -n 10 make -j "${CARGO_BUILD_JOBS:-2}"
} >build.log 2>&1 || {
    tail -30 build.log >&2
    fail "nginx did not build; all of it is in $copy/build.log"
}
echo "$stamp" >stamp
echo "$copy"
