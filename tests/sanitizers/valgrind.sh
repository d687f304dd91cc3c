#!/usr/bin/env bash
# Runs some of the integration tests with nginx and the module under valgrind: memory that is used before it is set or after it is freed,
# and memory that is lost. Arguments are those of `cargo test`, `--test NAME ...` for other files than these.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$root"
smoke=(bodies batches fields replies late_replies unexpected_replies verdicts handshake)
features=${FEATURES:-}
command -v valgrind >/dev/null || {
    echo 'valgrind.sh: no valgrind; its package is called so on every distribution' >&2
    exit 1
}
target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
[ $# -gt 0 ] || set -- $(printf -- '--test %s ' "${smoke[@]}")
# shellcheck disable=SC2086
cargo test --locked --no-run $features "$@"

reports=$target/valgrind
rm -rf "$reports"
mkdir -p "$reports"
nginx=${METEORIT_TEST_NGINX:-}
[ -n "$nginx" ] || nginx=$(cat "$target/debug/nginx-binary" 2>/dev/null) || nginx=$(PATH=$PATH:/usr/sbin command -v nginx)
cat >"$reports/nginx" <<END
#!/bin/sh
# A question about the version needs no valgrind, and nginx -t ends without freeing what it read.
for argument; do
    case \$argument in -v | -t) exec "$nginx" "\$@" ;; esac
done
exec valgrind --quiet --suppressions="$root/tests/valgrind.supp" --leak-check=full \\
    --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect --keep-debuginfo=yes --num-callers=30 \\
    --log-file="$reports/found.%p" "$nginx" "\$@"
END
chmod +x "$reports/nginx"
export METEORIT_TEST_NGINX=$reports/nginx METEORIT_VALGRIND=1
status=0
# What measures memory would measure valgrind's.
# shellcheck disable=SC2086
RUST_TEST_THREADS=${RUST_TEST_THREADS:-2} nice -n 10 cargo test --locked --no-fail-fast $features "$@" -- --skip memory \
    --skip a_client_that_leaves_in_the_middle || status=$?
# A quiet valgrind writes only what it finds.
if [ -n "$(find "$reports" -name 'found.*' -size +0)" ]; then
    find "$reports" -name 'found.*' -size +0 -exec cat {} +
    echo 'valgrind.sh: there are findings' >&2
    exit 1
fi
[ $status -eq 0 ] || exit $status
echo 'No finding.'
