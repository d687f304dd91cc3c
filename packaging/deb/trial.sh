#!/bin/sh
# Runs inside the system that deb/test.sh makes, where the package is installed and nothing runs: nginx keeps running while the package
# comes, an event arrives in Redis, the self-test passes, an upgrade puts the new module in place of the old one and into use, and after
# removal and purge nothing is left of it.
set -eu

say() {
    printf 'trial: %s\n' "$*"
}

fail() {
    printf 'trial: FAILED: %s\n' "$*" >&2
    tail -n 20 /var/log/nginx/error.log >&2 || :
    exit 1
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

answers() {
    [ "$(redis-cli ping 2>/dev/null)" = PONG ]
}

# Whether nginx answers on port 80, where the distribution's own site is.
serves() {
    curl -s -o /dev/null http://127.0.0.1/
}

post() {
    curl -s -o /tmp/answer -w '%{http_code}' -H 'Content-Type: application/json' -d "$1" http://127.0.0.1:8080/events
}

module=/usr/lib/nginx/modules/ngx_http_meteorit_module.so
enabled=/etc/nginx/modules-enabled/50-mod-http-meteorit.conf

# Which file the workers have mapped as the module, by its inode.
mapped() {
    for pid in $(pgrep_nginx); do
        awk -v module="$module" '$6 == module { print $5 }' "/proc/$pid/maps"
    done | sort -u
}

# The processes of nginx, by /proc: a minimal system has no pgrep.
pgrep_nginx() {
    for directory in /proc/[0-9]*; do
        if [ "$(cat "$directory/comm" 2>/dev/null)" = nginx ]; then
            echo "${directory#/proc/}"
        fi
    done
}

uses_new_module() {
    [ "$(mapped)" = "$(stat -c %i $module)" ]
}

is_down() {
    [ -z "$(pgrep_nginx)" ]
}

for file in $module $enabled /usr/bin/meteorit-spool /usr/share/meteorit/self-test /etc/nginx/meteorit.conf.example; do
    [ -e "$file" ] || fail "the package has not installed $file"
done
dpkg --verify libnginx-mod-http-meteorit || fail "files differ from those of the package"
meteorit-spool --version

# What a page links to has to be where the page is; what is in packaging/ in the sources has another place.
cd /usr/share/doc/libnginx-mod-http-meteorit/docs
links=$(grep -oh ']([^):#]*' ./*.md | sed 's/^](//' | grep -v '^$\|^https*$\|packaging/' | sort -u)
[ "$(echo "$links" | wc -l)" -gt 20 ] || fail "the pages have no links: $links"
for link in $links; do
    [ -e "$link" ] || fail "a page links to $link, which is not installed"
done
cd /

redis-server --daemonize yes --bind 127.0.0.1 --save '' --dir /tmp >/dev/null
within 20 answers || fail "redis-server does not answer"

# As it is on a machine where nginx runs before the package comes: taken out and installed again.
dpkg --remove libnginx-mod-http-meteorit >/dev/null
[ ! -e $module ] || fail "removal left $module"
/etc/init.d/nginx start >/dev/null
within 20 serves || fail "the nginx of the distribution does not serve"
master=$(cat /run/nginx.pid)
dpkg --install /trial/first.deb >/tmp/dpkg.log 2>&1 || fail "dpkg --install: $(cat /tmp/dpkg.log)"
within 20 serves || fail "nginx does not serve after the package was installed"
[ "$(cat /run/nginx.pid)" = "$master" ] || fail "installing the package has ended nginx"
within 20 uses_new_module || fail "nginx was not reloaded: it has not loaded the module"
say "nginx went on and has loaded the module"

cp /etc/nginx/meteorit.conf.example /etc/nginx/conf.d/meteorit.conf
nginx -t -q
nginx -s reload
within 20 curl -s -o /dev/null http://127.0.0.1:8080/ || fail "nothing listens on the port of the example"
status=$(post '{"page":"/home"}')
[ "$status" = 204 ] || fail "an event was answered with $status: $(cat /tmp/answer)"
redis-cli --raw XRANGE events - + | grep -qx '{"page":"/home"}' || fail "the event is not in Redis"
say "an event arrived"

/usr/share/meteorit/self-test || fail "the self-test as root"
setpriv --reuid nobody --regid nogroup --clear-groups /usr/share/meteorit/self-test || fail "the self-test as an ordinary user"

inode=$(stat -c %i $module)
dpkg --install /trial/later.deb >/tmp/dpkg.log 2>&1 || fail "the upgrade: $(cat /tmp/dpkg.log)"
[ "$(stat -c %i $module)" != "$inode" ] || fail "the upgrade has written into the module that is in use"
within 20 uses_new_module || fail "after the upgrade nginx has the old module: $(mapped)"
[ "$(cat /run/nginx.pid)" != "$master" ] || fail "the upgrade has left the old master"
within 20 serves || fail "nginx does not serve after the upgrade"
status=$(post '{"page":"/after"}')
[ "$status" = 204 ] || fail "an event after the upgrade was answered with $status: $(cat /tmp/answer)"
say "the upgrade is in use"

rm /etc/nginx/conf.d/meteorit.conf
nginx -s reload
dpkg --remove libnginx-mod-http-meteorit >/tmp/dpkg.log 2>&1 || fail "removal: $(cat /tmp/dpkg.log)"
[ ! -e $module ] || fail "removal left $module"
[ ! -e $enabled ] || fail "removal left $enabled"
[ -e /etc/nginx/meteorit.conf.example ] || fail "removal took a file of the configuration along, which purge does"
nginx -t -q || fail "nginx does not accept its configuration after the removal"
within 20 serves || fail "nginx does not serve after the removal"
dpkg --purge libnginx-mod-http-meteorit >/tmp/dpkg.log 2>&1 || fail "purge: $(cat /tmp/dpkg.log)"
found=$(find / -xdev \( -path /proc -o -path /trial -o -path /var/log -o -path /var/lib/apt \) -prune -o -iname '*meteorit*' -print)
[ -z "$found" ] || fail "purge left $found"
nginx -s quit
within 20 is_down || fail "nginx does not end"
redis-cli shutdown nosave || :
say "removed and purged"
