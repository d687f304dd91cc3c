#!/bin/sh
# usage: share.sh ROOT
# Installs below ROOT what packages of every kind have in the same places: the self-test, the annotated configuration, and what
# Prometheus and Grafana take, where there is any. Run from the top of the sources.
set -eu
root=$1

install -D -m 755 packaging/self-test.sh "$root/usr/share/meteorit/self-test"
for kind in prometheus grafana; do
    for file in packaging/"$kind"/*; do
        case $file in
        *.test.yml) continue ;;
        esac
        [ ! -f "$file" ] || install -D -m 644 "$file" "$root/usr/share/meteorit/$kind/${file##*/}"
    done
done

install -d "$root/etc/nginx"
{
    cat <<'END'
# Of the package: the module is loaded already. To take events by this configuration, copy it to where nginx reads it, as
#
#     cp /etc/nginx/meteorit.conf.example /etc/nginx/conf.d/meteorit.conf
#
# and have nginx reload. /usr/share/meteorit/self-test tells whether nginx, the module and Redis work.

END
    cat nginx-conf/meteorit.conf
} >"$root/etc/nginx/meteorit.conf.example"
chmod 644 "$root/etc/nginx/meteorit.conf.example"
