#!/bin/sh
# Tests an installed Meteorit: nginx's own configuration, and, in a private nginx on a free port, the module with a Redis. See --help.
# It changes nothing but a key of its own in that Redis, and does not touch an nginx that runs.
# shellcheck disable=SC2317 # functions that are called by name only
set -eu

program=self-test
redis_url=${REDIS_URL:-redis://127.0.0.1:6379/0}

usage() {
    cat <<'END'
usage: self-test [--help]

Checks that nginx's configuration is right, that nginx loads the module, that Redis can be written to and read from, and that an
event gets there. Prints a line for each check; exits with 0 when all is well, else with 1.

Environment:
  REDIS_URL      redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE] or redis+unix:///PATH; default: redis://127.0.0.1:6379/0
  NGINX_BINARY   the nginx to test; default: the one in the PATH, or /usr/sbin/nginx
  NGINX_CONF     the configuration to check; default: nginx's own
  MODULE         the module to load; default: ngx_http_meteorit_module.so in nginx's own folder of modules
END
}

failed=no
directory=
nginx_pid=

# Writing may fail, when whoever read the output has gone; the rest has to be done all the same.
say() {
    printf '%-7s %s\n' "$1" "$2" || :
}

ok() {
    say ok "$1"
}

skip() {
    say skipped "$1"
}

fail() {
    say FAILED "$1"
    failed=yes
}

# What cannot be gone on from.
give_up() {
    fail "$1"
    exit 1
}

is_running() {
    kill -0 "$1" 2>/dev/null
}

is_gone() {
    ! is_running "$1"
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

# The last thing that nginx says is wrong in these files or its input, on one line.
last_error() {
    sed -n 's/^[a-z]*: \[\(emerg\|alert\|error\)\] //p; s/^[0-9/]* [0-9:]* \[\(emerg\|alert\|error\|crit\)\] [0-9#]*: \(\*[0-9]* \)\{0,1\}//p' "$@" 2>/dev/null |
        sed "s| in $directory/nginx.conf:[0-9]*\$||" | tail -n 1
}

find_nginx() {
    nginx=${NGINX_BINARY:-$(command -v nginx || echo /usr/sbin/nginx)}
    [ -x "$nginx" ] || give_up "nginx: there is none at $nginx; install it, or say where it is by NGINX_BINARY"
    version=$("$nginx" -v 2>&1) || give_up "nginx: $nginx does not run: $version"
    ok "nginx: $nginx is ${version#*version: }"
}

# The value of a configure option of this nginx.
configured() {
    "$nginx" -V 2>&1 | tr ' ' '\n' | sed -n "s/^--$1=//p" | tail -n 1
}

find_module() {
    module=${MODULE:-}
    if [ -z "$module" ]; then
        folder=$(configured modules-path)
        [ -n "$folder" ] || folder=$(configured prefix)/modules
        module=$folder/ngx_http_meteorit_module.so
    fi
    [ -r "$module" ] || give_up "module: there is none at $module; say where it is by MODULE"
    case $module in
    /*) ;;
    *) module=$(pwd)/$module ;;
    esac
}

check_configuration() {
    conf=${NGINX_CONF:-$(configured conf-path)}
    [ -n "$conf" ] || conf=$(configured prefix)/conf/nginx.conf
    if [ ! -f "$conf" ] || [ ! -r "$conf" ]; then
        skip "configuration: cannot read $conf"
    elif output=$("$nginx" -t -c "$conf" 2>&1); then
        ok "configuration: nginx -t accepts $conf"
    else
        reason=$(printf '%s\n' "$output" | last_error)
        # It opens logs, keys and the file with the process number.
        case $(id -u),$reason in
        0,*) fail "configuration: nginx -t: $reason" ;;
        *'Permission denied'*) skip "configuration: only root can run nginx -t on $conf" ;;
        *) fail "configuration: nginx -t: $reason" ;;
        esac
    fi
}

# A directory that the workers may use, whoever they are: as root they stay root, for the one above may be closed to others.
lay_out() {
    directory=$(mktemp -d "${TMPDIR:-/tmp}/meteorit-self-test.XXXXXX") || give_up "cannot make a temporary directory"
    mkdir "$directory/logs" "$directory/tmp"
    globals='daemon off;'
    [ "$(id -u)" -ne 0 ] || globals="$globals user root;"
    key=meteorit:selftest:event:$(od -An -N 8 -t x1 /dev/urandom | tr -d ' \n')
}

# quoted TEXT: as one word of nginx's configuration.
quoted() {
    printf "'%s'" "$(printf '%s' "$1" | sed "s/[\\\\']/\\\\&/g")"
}

# temporary_paths: the directives for them; a module that this nginx was built without has none.
temporary_paths() {
    arguments=$("$nginx" -V 2>&1)
    for name in client_body proxy fastcgi uwsgi scgi; do
        case $arguments in
        *"--without-http_${name}_module"*) ;;
        *) printf ' %s_temp_path tmp/%s;' "$name" "$name" ;;
        esac
    done
}

# configure PORT
configure() {
    (umask 077 && cat >"$directory/nginx.conf") <<END
load_module $(quoted "$module");
pid nginx.pid;
error_log logs/error.log;
worker_processes 1;
events {
    worker_connections 64;
}
http {
    access_log off;
   $(temporary_paths)
    client_body_buffer_size 64k;
    meteorit_redis self_test {
        server          $(quoted "$redis_url");
        connect_timeout 5s;
        timeout         5s;
    }
    server {
        listen 127.0.0.1:$1;
        location = /selftest {
            meteorit_selftest self_test;
        }
        location = /events {
            meteorit_pass    self_test;
            meteorit_command RPUSH  $key \$event;
            meteorit_command EXPIRE $key 60;
        }
        location = /clean {
            meteorit_pass    self_test;
            meteorit_command DEL $key;
        }
    }
}
END
}

# A number from 20000 to 52767.
random_port() {
    echo $((20000 + $(od -An -N 2 -t u2 /dev/urandom) % 32768))
}

# Why nginx does not take the configuration that this script has made.
check_module() {
    configure "$(random_port)"
    output=$("$nginx" -t -p "$directory/" -c "$directory/nginx.conf" -e logs/error.log -g "$globals" 2>&1) && return
    reason=$(printf '%s\n' "$output" | last_error)
    case $reason in
    *Redis* | *'no address'* | *'host not found'*) give_up "redis: $reason" ;;
    esac
    give_up "module: nginx does not load $module: ${reason:-$output}"
}

# Whether the private nginx listens, or has ended; when it listens it writes its process number.
has_started() {
    is_gone "$nginx_pid" || [ -s "$directory/nginx.pid" ]
}

start_nginx() {
    attempts=5
    while :; do
        port=$(random_port)
        configure "$port"
        : >"$directory/logs/error.log"
        # No function: $! is to be nginx itself, not a shell around it.
        "$nginx" -p "$directory/" -c "$directory/nginx.conf" -e logs/error.log -g "$globals" >"$directory/logs/output" 2>&1 </dev/null &
        nginx_pid=$!
        within 10 has_started || :
        if is_running "$nginx_pid" && [ -s "$directory/nginx.pid" ]; then
            break
        fi
        stop_nginx
        reason=$(last_error "$directory/logs/output" "$directory/logs/error.log")
        attempts=$((attempts - 1))
        case $attempts,$reason in
        [1-9]*bind*'in use'* | [1-9]*'still could not bind'*) continue ;;
        esac
        give_up "module: a private nginx with it does not start: $reason"
    done
    ok "module: nginx loads and runs $module"
}

stop_nginx() {
    [ -n "$nginx_pid" ] || return 0
    kill -QUIT "$nginx_pid" 2>/dev/null || :
    within 5 is_gone "$nginx_pid" || kill -TERM "$nginx_pid" 2>/dev/null || :
    within 5 is_gone "$nginx_pid" || kill -KILL "$nginx_pid" 2>/dev/null || :
    nginx_pid=
}

clean_up() {
    trap '' INT TERM HUP
    stop_nginx
    [ -z "$directory" ] || rm -rf "$directory"
}

find_client() {
    for client in curl wget; do
        ! command -v $client >/dev/null 2>&1 || return 0
    done
    give_up "client: this needs curl or wget"
}

# send PATH [EVENT]: sets $status and $answer; without an event it is a GET.
send() {
    url=http://127.0.0.1:$port$1
    type='Content-Type: application/json'
    if [ $client = curl ]; then
        status=$(curl -q -sS --noproxy '*' -m 20 ${2:+-H "$type" -d "$2"} -o "$directory/answer" -w '%{http_code}' "$url" 2>"$directory/logs/client") || :
    else
        wget -q -S -T 20 -t 1 --no-proxy --content-on-error ${2:+--header="$type" --post-data="$2"} -O "$directory/answer" "$url" 2>"$directory/logs/client" || :
        status=$(sed -n 's/^ *HTTP\/[0-9.]* \([0-9]*\).*/\1/p' "$directory/logs/client" | tail -n 1)
    fi
    answer=$(cat "$directory/answer" 2>/dev/null) || :
}

# What the answer says is wrong: its member `detail`, or, where there is none, all of it.
reason() {
    detail=$(printf '%s' "$answer" | sed -n 's/.*"detail":"\(\([^"\\]\|\\.\)*\)".*/\1/p')
    printf '%s' "${detail:-status ${status:-unknown} $answer}"
}

check_redis() {
    send /selftest
    if [ "$status" = 200 ]; then
        took=$(printf '%s' "$answer" | sed -n 's/.*"round_trip_ms":\([0-9.]*\).*/\1/p')
        ok "redis: a value was written, read back and deleted in $took ms"
    else
        fail "redis: $(reason)"
    fi
}

# The part of the URL that redis-cli is told in another way, so that no password is seen among its arguments.
decoded() {
    printf '%s\n' "$1" | awk '
        function digit(c) { return index("0123456789abcdef", tolower(c)) - 1 }
        {
            text = ""
            while ((at = index($0, "%")) > 0) {
                text = text substr($0, 1, at - 1) sprintf("%c", digit(substr($0, at + 1, 1)) * 16 + digit(substr($0, at + 2, 1)))
                $0 = substr($0, at + 3)
            }
            print text $0
        }'
}

# parameter NAME: of a URL's query.
parameter() {
    decoded "$(printf '%s\n' "$redis_url" | sed -n "s/^[^?]*?\(.*&\)\{0,1\}$1=\([^&]*\).*/\2/p")"
}

# redis_cli ARGUMENT...: on the Redis of the URL.
redis_cli() {
    case $redis_url in
    redis+unix://*)
        path=${redis_url#redis+unix://}
        set -- -s "$(decoded "${path%%\?*}")" -n "$(parameter db | grep . || echo 0)" "$@"
        user=$(parameter user)
        password=$(parameter pass)
        ;;
    *)
        address=${redis_url#redis://}
        user=
        password=
        case $address in
        *@*)
            user=$(decoded "${address%%:*}")
            password=${address%@*}
            password=$(decoded "${password#*:}")
            address=${address##*@}
            ;;
        esac
        set -- -u "redis://$address" "$@"
        ;;
    esac
    [ -z "$user" ] || set -- --user "$user" "$@"
    if [ -n "$password" ]; then
        REDISCLI_AUTH=$password "$cli" "$@" 2>&1
    else
        "$cli" "$@" 2>&1
    fi
}

check_event() {
    event="{\"self_test\":\"$key\"}"
    send /events "$event"
    if [ "$status" != 204 ]; then
        fail "event: $(reason)"
        return
    fi
    cli=$(command -v redis-cli || command -v valkey-cli) || cli=
    if [ -z "$cli" ]; then
        ok "event: it was taken, with Redis's word that it is stored; without redis-cli only the value above was read back"
    else
        found=$(redis_cli LRANGE "$key" 0 -1) || :
        if [ "$found" = "$event" ]; then
            ok "event: it was sent, and is in Redis as it was sent"
        else
            fail "event: Redis has \"$found\" in place of $event"
        fi
    fi
    send /clean '{}'
    [ "$status" = 204 ] || fail "event: it stays in Redis as $key for a minute: $(reason)"
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

trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
trap '' PIPE
find_nginx
check_configuration
find_module
find_client
lay_out
check_module
start_nginx
check_redis
check_event
[ $failed = no ]
