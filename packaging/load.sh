#!/bin/sh
# usage: load.sh NGINX MODULE
# Has nginx load the module and read a configuration with its directives; runs nothing. For the checks of the packages.
set -eu
nginx=$1
module=$(realpath "$2")
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
mkdir "$directory/logs"
cat >"$directory/nginx.conf" <<END
load_module $module;
pid nginx.pid;
events {
}
http {
    access_log off;
    client_body_temp_path body;
    client_body_buffer_size 64k;
    meteorit_redis events {
        server redis://127.0.0.1:6379/0;
    }
    server {
        listen 127.0.0.1:8080;
        location = /events {
            meteorit_pass    events;
            meteorit_command XADD events * data \$event;
        }
        location = /selftest {
            meteorit_selftest events;
        }
    }
}
END
"$nginx" -t -p "$directory/" -c "$directory/nginx.conf" -e logs/error.log
