#!/usr/bin/env bash
# Tests the API of a running service against its OpenAPI description: schemathesis sends valid and invalid requests according
# to `/api/v1/openapi.json` and checks every response. `make test-api` runs it.
#
#   tests/api.sh MASKCAST SCHEMATHESIS
set -euo pipefail
cd "$(dirname "$0")/.."
maskcast=$1 schemathesis=$2
work=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true; rm -rf "$work"' EXIT

{
    printf '[model]\npath = "%s"\nproviders = ["cpu"]\nworkers = 1\nthreads = 1\n' "$PWD/models/everyday.onnx"
    printf '[server]\nhttp = "127.0.0.1:0"\nrtsp = "127.0.0.1:0"\n'
    for name in gate yard; do
        printf '[[stream]]\nname = "%s"\nsource = "test://ball?width=64&height=48&fps=2"\n' "$name"
    done
} >"$work/maskcast.toml"
"$maskcast" run "$work/maskcast.toml" 2>"$work/log" &
pid=$!
page() { sed -n 's/.*page \(http:[^ ]*\).*/\1/p' "$work/log" | head -n 1; }
deadline=$((SECONDS + 600))
until [ -n "$(page)" ] && curl -sf -o /dev/null --retry 20 --retry-all-errors --retry-delay 1 "$(page)readyz"; do
    kill -0 "$pid" 2>/dev/null && [ $SECONDS -lt $deadline ] || { cat "$work/log" >&2; exit 1; }
    # The address of the page is only in the log.
    sleep 0.2
done
page=$(page)

# First with the existing stream yard, which is not removed, then with generated names of streams.
cp tests/schemathesis.toml "$work/any.toml"
{
    cat tests/schemathesis.toml
    printf '[parameters]\nname = "yard"\n[phases.stateful]\nenabled = false\n'
    printf '[[operations]]\ninclude-operation-id = "remove_stream"\nenabled = false\n'
} >"$work/one.toml"
failed=0
for config in one any; do
    "$schemathesis" --config-file "$work/$config.toml" run --url "${page%/}" "${page}api/v1/openapi.json" || failed=1
done
kill -TERM "$pid"
status=0
wait "$pid" || status=$?
pid=
if [ "$status" != 0 ] || grep -q 'panicked' "$work/log"; then
    cat "$work/log" >&2
    echo "tests/api.sh: the service ended with status $status" >&2
    exit 1
fi
# The configuration file must be valid after all changes.
"$maskcast" check "$work/maskcast.toml" >/dev/null
exit "$failed"
