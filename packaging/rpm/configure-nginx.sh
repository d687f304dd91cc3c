#!/bin/sh
# usage: configure-nginx.sh SOURCE COPY
# Copies nginx's source to the folder COPY and configures it there with those options of the installed nginx that say what is in its
# headers. --with-compat makes the rest alike; paths, and modules whose libraries would have to be there, do not matter to a module.
set -eu
source=$1
copy=$2
nginx=${NGINX_BINARY:-$(command -v nginx || echo /usr/sbin/nginx)}

options=$("$nginx" -V 2>&1 | tr ' ' '\n' |
    grep -xE -- '--with-(debug|threads|file-aio|pcre|pcre-jit|http_(ssl|v2|v3|realip|auth_request|slice|dav|stub_status)_module)' || :)
rm -rf "$copy"
cp -R "$source" "$copy"
cd "$copy"
# A source that comes from nginx's repository has it one level down.
configure=./configure
[ -x "$configure" ] || configure=auto/configure
# shellcheck disable=SC2086 # a list of words
"$configure" --with-compat $options
