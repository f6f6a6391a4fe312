#!/usr/bin/env bash
# Installs the package in a clean Debian, runs it there, upgrades it, removes it and purges it, and checks that no files
# remain. `make test-package` runs it. Needs root; mounts and network are in their own namespaces.
#
#   tests/package.sh PACKAGE.deb NEWER.deb
set -euo pipefail
cd "$(dirname "$0")/.."
package=$1 newer=$2
[ "$(id -u)" = 0 ] || { echo "tests/package.sh: needs root" >&2; exit 1; }

suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
base=.testdata/root-$suite.tar
work=$(mktemp -d /var/tmp/maskcast-package.XXXXXX)
root=$work/root
trap 'rm -rf --one-file-system "$work"' EXIT

ok() { echo "ok    $*"; }
fail() { echo "FAIL  $*" >&2; exit 1; }
# is WHAT EXPECTED ACTUAL
is() { if [ "$2" = "$3" ]; then ok "$1: $3"; else fail "$1: $3, expected $2"; fi; }

# Runs a command in the root with its own PID namespace and /proc.
in_root() {
    unshare --mount --pid --fork --kill-child --root="$root" --mount-proc \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}
installed() { in_root dpkg-query -W -f='${db:Status-Status} ${Version}' maskcast 2>/dev/null || true; }
install() {
    cp "$1" "$root/var/cache/apt/package.deb"
    in_root apt-get install -q -y --no-install-recommends /var/cache/apt/package.deb >"$work/apt.log" 2>&1 ||
        { tail -n 30 "$work/apt.log" >&2; fail "apt-get install $1"; }
    rm "$root/var/cache/apt/package.deb"
}

if [ ! -e "$base" ]; then
    echo "creating a clean Debian $suite; later runs use it again"
    mkdir -p .testdata
    debootstrap --variant=minbase "$suite" "$work/base" >"$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log" >&2; fail "debootstrap"; }
    tar -cf "$base.part" -C "$work/base" .
    mv "$base.part" "$base"
    rm -rf "$work/base"
fi
mkdir "$root"
tar -xf "$base" -C "$root"
cp /etc/resolv.conf "$root/etc/resolv.conf"
in_root apt-get update -q >"$work/apt.log" 2>&1 || { cat "$work/apt.log" >&2; fail "apt-get update"; }

echo "--- install"
install "$package"
version=$(dpkg-deb -f "$package" Version)
is "dpkg status" "installed $version" "$(installed)"
changed=$(in_root dpkg -V maskcast)
is "files that differ from the package's" "" "$changed"
for file in usr/bin/maskcast usr/lib/systemd/system/maskcast.service usr/lib/sysusers.d/maskcast.conf \
    usr/lib/tmpfiles.d/maskcast.conf etc/maskcast/maskcast.toml usr/share/maskcast/models/everyday.{onnx,toml} \
    usr/share/man/man1/maskcast{,-run,-segment,-check,-doctor,-model,-model-show,-model-use,-bench,-user,-cert,-completions}.1.gz \
    usr/share/bash-completion/completions/maskcast usr/share/zsh/vendor-completions/_maskcast \
    usr/share/fish/vendor_completions.d/maskcast.fish \
    usr/share/maskcast/monitoring/{grafana-dashboard.json,maskcast.rules.yaml}; do
    # minbase excludes no paths, so documentation and manual pages must be there, too.
    [ -s "$root/$file" ] || fail "/$file is missing"
done
ls "$root"/usr/lib/maskcast/libonnxruntime.so.* >/dev/null || fail "ONNX Runtime is missing"
ok "files"
conffiles=$(in_root dpkg-query -W -f='${Conffiles}' maskcast | awk 'NF { print $1 }')
is "conffiles" "/etc/maskcast/maskcast.toml" "$conffiles"
user=$(in_root getent passwd maskcast)
[[ $user == *:/var/lib/maskcast:/usr/sbin/nologin ]] || fail "the user: $user"
ok "user $(in_root id maskcast)"
# systemd does this at boot and, when it is running, after the installation.
in_root systemd-tmpfiles --create maskcast.conf
is "/etc/maskcast" "770 root:maskcast" "$(in_root stat -c '%a %U:%G' /etc/maskcast)"
is "the configuration" "640 maskcast:maskcast" "$(in_root stat -c '%a %U:%G' /etc/maskcast/maskcast.toml)"
is "/var/lib/maskcast" "750 maskcast:maskcast" "$(in_root stat -c '%a %U:%G' /var/lib/maskcast)"
is "the service after installation" "disabled" "$(in_root systemctl is-enabled maskcast || true)"

echo "--- run"
as_user() { in_root setpriv --reuid=maskcast --regid=maskcast --init-groups env HOME=/var/lib/maskcast "$@"; }
as_user maskcast doctor
as_user maskcast check /etc/maskcast/maskcast.toml
in_root bash -n /usr/share/bash-completion/completions/maskcast
# In its own network namespace, because the ports of the packaged configuration may be in use on this machine.
export root
unshare --net --mount --pid --fork --kill-child bash -euo pipefail -c '
    ip link set lo up
    mount -t proc proc "$root/proc"
    chroot "$root" setpriv --reuid=maskcast --regid=maskcast --init-groups env HOME=/var/lib/maskcast \
        maskcast run /etc/maskcast/maskcast.toml &
    service=$!
    curl -sf --retry 100 --retry-all-errors --retry-delay 1 --retry-max-time 100 http://127.0.0.1:8080/readyz
    echo
    curl -sf http://127.0.0.1:8080/api/v1/streams
    echo
    kill -TERM "$service"
    wait "$service"' 2>"$work/run.log" ||
    { cat "$work/run.log" >&2; fail "the service does not become ready or does not end with status 0"; }
ok "ready as user maskcast, exit 0 after SIGTERM"

echo "--- under systemd"
tests/systemd-boot.sh "$root"

echo "--- upgrade"
echo "# A line of the operator." >>"$root/etc/maskcast/maskcast.toml"
sum=$(sha256sum <"$root/etc/maskcast/maskcast.toml")
touch "$root/var/lib/maskcast/recording.mp4"
install "$newer"
is "dpkg status" "installed $(dpkg-deb -f "$newer" Version)" "$(installed)"
is "the changed conffile" "$sum" "$(sha256sum <"$root/etc/maskcast/maskcast.toml")"
is "its owners" "640 maskcast:maskcast" "$(in_root stat -c '%a %U:%G' /etc/maskcast/maskcast.toml)"

echo "--- remove"
in_root apt-get remove -q -y maskcast >"$work/apt.log" 2>&1 || { cat "$work/apt.log" >&2; fail "apt-get remove"; }
[ ! -e "$root/usr/bin/maskcast" ] || fail "/usr/bin/maskcast is still there"
is "the conffile after removal" "$sum" "$(sha256sum <"$root/etc/maskcast/maskcast.toml")"
[ -e "$root/var/lib/maskcast/recording.mp4" ] || fail "recordings were deleted by the removal"
ok "recordings remain"

echo "--- purge"
in_root apt-get purge -q -y maskcast >"$work/apt.log" 2>&1 || { cat "$work/apt.log" >&2; fail "apt-get purge"; }
is "dpkg status" "" "$(installed)"
# Logs and the user remain (the reason is in systemd/debian/postrm).
is "remaining files" "" "$(cd "$root" && find . -xdev -ipath '*maskcast*' ! -path './var/log/*' ! -path './tmp/*')"
is "the user after purge" "/usr/sbin/nologin" "$(in_root getent passwd maskcast | cut -d: -f7)"
echo "all checks of the package passed"
