#!/bin/sh
# Unpacks the RPM package into a folder and has the self-test in it run its module, with the nginx it was built for and a Redis of its
# own: an event arrives. Installs nothing.
set -eu
program='rpm/test.sh'
root=$(cd "$(dirname "$0")/../.." && pwd)
target=$(cd "$root" && cd "${CARGO_TARGET_DIR:-target}" && pwd)

fail() {
    printf '%s: %s\n' "$program" "$*" >&2
    exit 1
}

package=$(find "$target/rpm/RPMS" -name 'nginx-mod-http-meteorit-*.rpm' 2>/dev/null | head -n 1)
[ -n "$package" ] || fail "there is no package in $target/rpm: make rpm"
nginx=${NGINX_BINARY:-}
if [ -z "$nginx" ] && [ -f "$target/rpm/cargo/release/nginx-binary" ]; then
    nginx=$(cat "$target/rpm/cargo/release/nginx-binary")
fi
nginx=${nginx:-$(command -v nginx || echo /usr/sbin/nginx)}

scratch=$target/rpm/root
rm -rf "$scratch"
mkdir -p "$scratch"
rpm2cpio "$package" | (cd "$scratch" && cpio --quiet --extract --make-directories --preserve-modification-time)
module=$(find "$scratch" -name ngx_http_meteorit_module.so)
load=$(find "$scratch" -name mod-http-meteorit.conf)
# What nginx includes names the module where it will be.
[ "$(cat "$load")" = "load_module \"${module#"$scratch"}\";" ] || fail "$load does not load ${module#"$scratch"}: $(cat "$load")"
"$scratch/usr/bin/meteorit-spool" --version

server=$(command -v redis-server || command -v valkey-server) || fail 'there is no redis-server and no valkey-server'
directory=$(mktemp -d)
redis_pid=
clean_up() {
    [ -z "$redis_pid" ] || kill "$redis_pid" 2>/dev/null || :
    rm -rf "$directory"
}
trap clean_up EXIT
(cd "$directory" && exec "$server" --port 0 --unixsocket redis.sock --unixsocketperm 700 --save '') >"$directory/log" 2>&1 &
redis_pid=$!
tries=100
until [ -S "$directory/redis.sock" ]; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || fail "redis-server did not start: $(cat "$directory/log")"
    sleep 0.1
done
NGINX_BINARY=$nginx MODULE=$module REDIS_URL=redis+unix://$directory/redis.sock "$scratch/usr/share/meteorit/self-test"
printf '%s: all is well with %s\n' "$program" "$package"
