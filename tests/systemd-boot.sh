#!/usr/bin/env bash
# Boots a Debian root that has the package with its own systemd, and tests the service there: killed, hung, misconfigured,
# reloaded, stopped. tests/package.sh (`make test-package`) runs it.
#
#   tests/systemd-boot.sh ROOT
set -euo pipefail
root=$1
log=$(mktemp)
container='' leader=''

ok() { echo "ok    $*"; }
fail() {
    echo "FAIL  $*" >&2
    [ -z "$leader" ] || inside journalctl -u maskcast --no-pager -n 40 >&2 || true
    exit 1
}
is() { if [ "$2" = "$3" ]; then ok "$1: $3"; else fail "$1: $3, expected $2"; fi; }
# await WHAT SECONDS COMMAND...: runs the command repeatedly until it succeeds.
await() {
    local what=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@"; do
        [ $SECONDS -lt $deadline ] || fail "$what: not in time"
        sleep 0.2
    done
    ok "$what"
}
inside() { nsenter --target "$leader" --all -- "$@"; }
# of FILE: mode, owner and group.
of() { inside stat -c '%a %U:%G' "$1"; }
property() { inside systemctl show -P "$1" maskcast; }
# get PATH [CURL_OPTIONS…]
get() { nsenter --target "$leader" --net curl -sf "http://127.0.0.1:8080/$1" "${@:2}"; }
finish() {
    if [ -n "$container" ]; then
        # The shutdown signal of systemd, which takes a few seconds.
        kill -s RTMIN+4 "$leader" 2>/dev/null || true
        timeout 30 tail --pid="$container" -f /dev/null || kill -KILL "$container"
    fi
    rm -f "$log"
}
trap finish EXIT

nspawn=(systemd-nspawn --quiet --register=no --keep-unit --private-network --directory="$root" --machine="maskcast-$$")
if ! reason=$("${nspawn[@]}" /bin/true 2>&1); then
    echo "skip  the boot under systemd: this machine does not allow systemd-nspawn: $reason"
    exit 0
fi
"${nspawn[@]}" --boot --console=read-only >"$log" 2>&1 </dev/null &
container=$!
has_leader() { leader=$(pgrep -P "$container" -f '^/usr/lib/systemd/systemd'); }
await "systemd has started" 30 has_leader
# An address for WebRTC; no other host is in this network.
network() { nsenter --target "$leader" --net ip "$@"; }
network link add eth0 type veth peer name eth1
network addr add 192.0.2.1/24 dev eth0
network link set eth0 up
network link set eth1 up
booted() { case $(inside systemctl is-system-running 2>/dev/null) in running | degraded) ;; *) false ;; esac }
await "the machine is up" 90 booted
is "tmpfiles: /etc/maskcast" "770 root:maskcast" "$(of /etc/maskcast)"
is "the service after boot" inactive "$(inside systemctl is-active maskcast || true)"

inside systemctl enable --now maskcast 2>/dev/null || fail "the service does not start"
is "after enable --now" active "$(inside systemctl is-active maskcast)"
is "status text" "1 of 1 streams live, model on cpu" "$(property StatusText)"
inside systemctl show -p NotifyAccess,StatusText,ActiveState,SubState,NRestarts,WatchdogUSec maskcast | sed 's/^/      /'
is "user of the service" maskcast "$(inside stat -c %U "/proc/$(property MainPID)")"
get readyz >/dev/null || fail "/readyz"
ok "/readyz"
ready=$(inside journalctl -u maskcast --no-pager -o json --grep '^ready$' -n 1)
[[ $ready == *'"_TRANSPORT":"journal"'* ]] || fail "the log entry in the journal has no fields: $ready"
ok "the journal entries have fields"

messages=$(inside journalctl -b --no-pager -o cat -q --grep 'maskcast.*(already exists but|Unknown (key|lvalue))' || true)
is "messages of systemd about the unit" "" "$messages"

# restarted BEFORE: a process other than BEFORE is active.
restarted() { [ "$(property MainPID)" != "$1" ] && [ "$(property ActiveState)" = active ]; }
before=$(property MainPID)
inside systemctl kill -s KILL maskcast
await "killed: restarted" 60 restarted "$before"
is "restarts" 1 "$(property NRestarts)"

before=$(property MainPID)
stopped_at=$SECONDS
inside systemctl kill -s STOP maskcast
await "hung (SIGSTOP): restarted by the watchdog" 120 restarted "$before"
echo "      after $((SECONDS - stopped_at)) s"
inside journalctl -u maskcast --no-pager --grep 'Watchdog timeout' -q | grep -q . || fail "the watchdog did not restart it"
is "restarts" 2 "$(property NRestarts)"

config=/etc/maskcast/maskcast.toml
inside cp -p $config $config.good
inside sed -i 's/^name = "test"/nam = "test"/' $config
! inside systemctl restart maskcast 2>/dev/null || fail "the service starts with an invalid configuration"
# A unit that systemd restarts would be in the state auto-restart.
is "invalid configuration" "failed exit-code 78" "$(property SubState) $(property Result) $(property ExecMainStatus)"
is "restarts since" 0 "$(property NRestarts)"
inside journalctl -u maskcast --no-pager -o cat -b --grep 'stream\[0\]' -n 2 | sed 's/^/      /'
inside mv $config.good $config
# From here on the service records, which tests encoder and disk access within the restrictions of the unit.
inside sed -i 's|^source = "test:.*|&\nrecord = { dir = "/var/lib/maskcast/test" }|' $config
inside systemctl start maskcast || fail "the service does not start again"
ok "valid configuration: started"
recording() { inside find /var/lib/maskcast/test -name 'test-*.mp4' -size +1k -user maskcast | grep -q .; }
await "a recording is written" 30 recording
get api/v1/streams/test/snapshot.jpg | head -c 2 | grep -q $'\xff\xd8' || fail "no snapshot"
ok "snapshot"
get api/v1/streams/test/overlay -X PATCH -H 'content-type: application/json' -d '{"alpha": 0.3}' >/dev/null ||
    fail "the overlay cannot be changed"
written() { inside grep -q 'alpha = 0.3' $config; }
await "a change of the overlay by the API is in the configuration file" 10 written
is "mode and owner of the configuration" "640 maskcast:maskcast" "$(of $config)"
# A shortened offer of a browser. If a part of WebRTC is not installed, the response names it.
offer=$(printf '%s\r\n' v=0 'o=- 1 1 IN IP4 127.0.0.1' s=- 't=0 0' 'm=video 9 UDP/TLS/RTP/SAVPF 96' 'c=IN IP4 0.0.0.0' \
    a=ice-ufrag:abcd a=ice-pwd:0123456789012345678901 "a=fingerprint:sha-256 $(printf '00:%.0s' {1..31})00" \
    a=setup:actpass a=mid:0 a=recvonly a=rtcp-mux 'a=rtpmap:96 H264/90000' \
    'a=fmtp:96 packetization-mode=1;profile-level-id=42e01f')
answer=$(nsenter --target "$leader" --net curl -s http://127.0.0.1:8080/whep/test -w '%{http_code}' \
    -H 'content-type: application/sdp' --data-binary "$offer") || fail "no WHEP"
[[ $answer == v=0*m=video*a=fingerprint*201 ]] || fail "response to WHEP: $answer"
ok "a WebRTC viewer gets an answer"

before=$(property MainPID)
inside sh -c "printf '[[stream]]\nname = \"more\"\nsource = \"test://ball?width=320&height=240&fps=5\"\n' >>$config"
inside systemctl reload maskcast || fail "reload"
more() { get api/v1/streams/more | grep -q '"state":"live"'; }
await "reload: the new stream is live" 60 more
inside sh -c "echo nonsense >>$config"
inside systemctl reload maskcast || fail "reload"
refused() { inside journalctl -u maskcast --no-pager -o cat -b --grep 'is not used' | sed 's/^/      /' | grep .; }
await "reload with an invalid configuration: refused" 30 refused
more || fail "the streams were interrupted"
inside sed -i '$d' $config
is "the same process" "active $before" "$(property ActiveState) $(property MainPID)"

# Users and TLS, as described in the comments of the configuration.
inside sh -c 'echo "correct horse battery" | maskcast user add anna --role operator --password-stdin' >/dev/null 2>&1 ||
    fail "maskcast user add"
inside maskcast cert -o /etc/maskcast/tls >/dev/null || fail "maskcast cert"
is "users and key" "640 root:maskcast 640 root:maskcast" "$(of /etc/maskcast/users.toml) $(of /etc/maskcast/tls/key.pem)"
inside sh -c "printf '[server.tls]\ncert = \"tls/cert.pem\"\nkey = \"tls/key.pem\"\n' >>$config"
inside systemctl restart maskcast || fail "the service does not start with users and TLS"
# status PATH [CURL_OPTIONS…]
status() {
    nsenter --target "$leader" --net curl -s --cacert "$root/etc/maskcast/tls/cert.pem" -o /dev/null -w '%{http_code}' \
        "https://127.0.0.1:8080/$1" "${@:2}" || true
}
is "status with TLS, without and with a password" "401 200" \
    "$(status api/v1/streams) $(status api/v1/streams -u 'anna:correct horse battery')"
is "status of a change by a user" 200 "$(status api/v1/streams/test/overlay -u 'anna:correct horse battery' -X PATCH \
    -H 'content-type: application/json' -d '{"alpha": 0.6}')"
written() { inside grep -q 'alpha = 0.6' $config; }
await "the change is in the configuration file" 10 written

stop_at=$(date +%s%3N)
inside systemctl stop maskcast
took=$(($(date +%s%3N) - stop_at))
[ $took -lt 5000 ] || fail "stopping took $took ms"
is "stopped in $took ms" "inactive success 0" "$(property ActiveState) $(property Result) $(property ExecMainStatus)"
inside systemctl disable maskcast 2>/dev/null
