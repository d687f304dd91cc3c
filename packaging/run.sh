#!/bin/sh
# Builds the module and tries it out: a private Redis and an nginx with nginx-conf/demo.conf, all of it under target/run and stopped again
# by Ctrl-C. See --help. It stops what it started, by process id, and nothing else.
# shellcheck disable=SC2317 # functions that are called by name only
set -eu

program=run.sh
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-target}
port=${PORT:-8080}
redis_url=${REDIS_URL:-}

usage() {
    cat <<'END'
usage: make run [PORT=8080] [REDIS_URL=URL] [VENDORED=1] [INSTALL=no]

Installs what is missing, builds the module, starts a private Redis and nginx with nginx-conf/demo.conf, prints commands to try,
and follows the logs until Ctrl-C.

  PORT         the port nginx listens on, on 127.0.0.1
  REDIS_URL    your own Redis (redis://... or redis+unix://...); none is started then
  VENDORED=1   build for, and start, the nginx that comes with the crates
  NGINX_BINARY the nginx to start; it has to be the version the module is built for
  INSTALL=no   install nothing
END
}

# Writing may fail, when whoever read the output has gone; the rest has to be done all the same.
say() {
    printf '%s\n' "$*" || :
}

fail() {
    printf '%s: %s\n' "$program" "$*" >&2 || :
    exit 1
}

is_running() {
    kill -0 "$1" 2>/dev/null
}

# within SECONDS COMMAND...: whether the command succeeds in that time.
within() {
    tries=$(($1 * 10))
    shift
    until "$@"; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || return 1
        sleep 0.1
    done
}

# Whether something listens on the port; column 2 of these files is ADDRESS:PORT in hexadecimal, and state 0A is LISTEN.
is_taken() {
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
        awk -v port="$(printf '%04X' "$1")" '$4 == "0A" && $2 ~ (":" port "$") { found = 1 } END { exit !found }'
}

# Takes target/run for this process. The lock is inherited by what is started, so it lasts for as long as anything of it runs.
lock_directory() {
    mkdir -p "$target/run" 2>/dev/null || :
    [ -w "$target/run" ] || fail "cannot write to $target/run: it belongs to $(stat -c %U "$target/run" 2>/dev/null || echo 'somebody else')"
    run=$(cd "$target/run" && pwd)
    [ ! -e "$run/lock" ] || [ -w "$run/lock" ] || fail "cannot write to $target/run/lock: it belongs to $(stat -c %U "$run/lock")"
    exec 9>>"$run/lock"
    if ! flock --nonblock 9; then
        alive=
        while read -r name pid; do
            [ ! -d "/proc/$pid" ] || alive="$alive, $name: process $pid"
        done <"$run/lock"
        fail "$target/run is in use by another make run (${alive#, }); stop that one first"
    fi
    echo "$program $$" >"$run/lock"
}

build() {
    if [ "${INSTALL:-}" != no ]; then
        packaging/env/install-run.sh 9>&-
        TESTS=no packaging/env/install-build.sh 9>&-
    fi
    make --no-print-directory build 9>&-
    module=$target/release/libngx_http_meteorit_module.so
    [ -f "$module" ] || fail "the build made no $module"
}

find_nginx() {
    nginx=${NGINX_BINARY:-}
    if [ -z "$nginx" ] && [ -f "$target/release/nginx-binary" ]; then
        nginx=$(cat "$target/release/nginx-binary")
    fi
    if [ -z "$nginx" ]; then
        nginx=$(command -v nginx || echo /usr/sbin/nginx)
    fi
    [ -x "$nginx" ] || fail "there is no nginx at $nginx"
}

# What REDIS_URL says: sets $redis_cli.
read_redis_url() {
    case $redis_url in
    *[!A-Za-z0-9:/@.,~%?=\&+_\[\]-]*) fail "REDIS_URL has a character that must be written as %XX in a URL" ;;
    redis+unix:///*)
        path=${redis_url#redis+unix://}
        database=$(printf '%s\n' "$path" | sed -n 's/.*[?&]db=\([0-9]*\).*/\1/p')
        redis_cli="redis-cli -s ${path%%\?*}${database:+ -n $database}"
        ;;
    redis://*@*) redis_cli="redis-cli -u \"\$REDIS_URL\"" ;; # not with the password in it
    redis://?*) redis_cli="redis-cli -u $redis_url" ;;
    *) fail "REDIS_URL must begin with redis:// or redis+unix:///" ;;
    esac
}

# Where a Redis of our own is to listen: sets $socket, $redis_url and $redis_cli. A path that is too long for a socket's address (108
# bytes), or would have to be quoted in a URL, is replaced by one in /tmp.
choose_socket() {
    redis_server=$(command -v redis-server || command -v valkey-server) || fail "there is no redis-server and no valkey-server"
    cli=${redis_server%-server}-cli
    socket=$run/redis.sock
    case $socket in
    *[!A-Za-z0-9/._-]*) socket= ;;
    esac
    if [ -z "$socket" ] || [ ${#socket} -gt 100 ]; then
        socket_directory=$(mktemp -d /tmp/meteorit.XXXXXX)
        socket=$socket_directory/redis.sock
    fi
    redis_url=redis+unix://$socket
    redis_cli="$(basename "$cli") -s $socket"
}

# Lays out nginx's prefix: the module, and the demo's configuration with this port and this Redis.
configure() {
    rm -rf "$run/modules" "$run/nginx.pid" "$run/redis.sock"
    mkdir -p "$run/modules" "$run/logs" "$run/tmp"
    ln -s "$(cd "$(dirname "$module")" && pwd)/$(basename "$module")" "$run/modules/ngx_http_meteorit_module.so"
    : >"$run/logs/error.log"
    : >"$run/logs/access.log"

    listen="listen 127.0.0.1:$port;"
    server="server $redis_url;"
    sed -e "s|listen 127\.0\.0\.1:8080;\$|$listen|" \
        -e "s|server redis://127\.0\.0\.1:6379/0;\$|$(printf '%s' "$server" | sed 's/&/\\&/g')|" nginx-conf/demo.conf >"$run/nginx.conf"
    for directive in "$listen" "$server"; do
        [ "$(grep -cF " $directive" "$run/nginx.conf")" = 1 ] || fail "nginx-conf/demo.conf has lost its line for \"${directive%% *}\""
    done

    # As root the workers stay root: the directory above may be closed to everybody else, as /root is.
    globals='daemon off;'
    [ "$(id -u)" -ne 0 ] || globals="$globals user root;"
    check=$(run_nginx -t 2>&1 9>&-) || fail "nginx ($nginx) does not take the configuration:
$check"
}

run_nginx() {
    "$nginx" -p "$run/" -c nginx.conf -e logs/error.log -g "$globals" "$@"
}

# setsid: Ctrl-C reaches this script alone, which then stops nginx before Redis.
start_redis() {
    (cd "$(dirname "$socket")" && exec setsid "$redis_server" --port 0 --unixsocket redis.sock --unixsocketperm 700 --save '') \
        >"$run/logs/redis.log" 2>&1 </dev/null &
    redis_pid=$!
    echo "redis $redis_pid" >>"$run/lock"
    within 10 redis_answers || fail "Redis did not start:
$(tail -n 5 "$run/logs/redis.log")"
}

redis_answers() {
    is_running "$redis_pid" || fail "Redis did not start:
$(tail -n 5 "$run/logs/redis.log")"
    [ "$("$cli" -s "$socket" ping 2>/dev/null)" = PONG ]
}

start_nginx() {
    setsid "$nginx" -p "$run/" -c nginx.conf -e logs/error.log -g "$globals" </dev/null >/dev/null 2>&1 &
    nginx_pid=$!
    echo "nginx $nginx_pid" >>"$run/lock"
    within 10 nginx_is_up || fail "nginx did not start, see $run/logs/error.log"
}

# nginx writes its process id when it listens.
nginx_is_up() {
    is_running "$nginx_pid" || fail "nginx did not start:
$(tail -n 5 "$run/logs/error.log")"
    [ -s "$run/nginx.pid" ]
}

is_gone() {
    ! is_running "$1"
}

# Requests on their way are answered first.
stop_all() {
    trap '' INT TERM HUP
    if [ -n "$nginx_pid" ]; then
        kill -QUIT "$nginx_pid" 2>/dev/null || :
        within 5 is_gone "$nginx_pid" || kill -TERM "$nginx_pid" || :
        # The group that setsid made: workers, where the master was killed and could not stop them.
        within 5 is_gone "-$nginx_pid" || kill -KILL "-$nginx_pid" || :
    fi
    if [ -n "$redis_pid" ]; then
        kill -TERM "$redis_pid" 2>/dev/null || :
        within 5 is_gone "$redis_pid" || kill -KILL "$redis_pid" || :
    fi
    [ -z "$tail_pid" ] || kill "$tail_pid" 2>/dev/null || :
    [ -z "$socket_directory" ] || rm -rf "$socket_directory"
    rm -f "$run/redis.sock"
}

case ${1:-} in
'') ;;
--help)
    usage
    exit 0
    ;;
*)
    printf '%s: unknown argument "%s"\n' "$program" "$1" >&2
    usage >&2
    exit 2
    ;;
esac
case $port in
0* | *[!0-9]* | '' | ??????*) port=0 ;;
esac
if [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then
    fail "PORT must be a number from 1 to 65535"
fi

if [ -n "$redis_url" ]; then
    read_redis_url
fi
lock_directory
if is_taken "$port"; then
    fail "port $port is taken by another program; choose another one: make run PORT=$((port < 65535 ? port + 1 : 8081))"
fi
build
find_nginx

nginx_pid=
redis_pid=
tail_pid=
socket_directory=
trap stop_all EXIT
trap 'say "stopping"; exit 0' INT TERM HUP
trap '' PIPE
umask 077
if [ -z "$redis_url" ]; then
    choose_socket
    configure
    start_redis
else
    configure
fi
start_nginx

url=http://127.0.0.1:$port
say "
Meteorit is running: $url
Send it an event:
    curl -i -H 'Content-Type: application/json' -d '{\"page\":\"/home\"}' $url/events
See it in Redis:
    $redis_cli XRANGE events - +
More to try:
    curl $url/
The configuration is nginx-conf/demo.conf. The logs follow, they are in $run/logs. Ctrl-C stops.
"
tail -q -n 0 --pid="$nginx_pid" -F "$run/logs/error.log" "$run/logs/access.log" 9>&- &
tail_pid=$!

status=0
wait "$nginx_pid" || status=$?
fail "nginx ended by itself, with status $status; see $run/logs/error.log"
