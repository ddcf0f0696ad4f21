#!/bin/sh
# Whether the Debian package outlives an upgrade of Debian 12 to 13: builds and installs it, runs a pod by it, upgrades
# everything, runs a pod again. It changes the Debian that it runs on: `tests/fresh.sh bookworm tests/upgrade.sh`.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "upgrade.sh: $1" >&2
    exit 1
}

[ "$(cat /etc/debian_version | cut -d . -f 1)" = 12 ] || fail "only for a tree of Debian 12: see above"
[ ! -e /run/systemd/system ] || fail "only for a tree, not for a machine: see above"
export DEBIAN_FRONTEND=noninteractive

install_quietly() {
    apt-get -q -y -o Dpkg::Options::=--force-confold "$@" >/tmp/apt.log 2>&1 || {
        tail -n 30 /tmp/apt.log >&2
        fail "apt-get $*"
    }
}

state() {
    echo "Debian $(cat /etc/debian_version), $(dpkg-query --show --showformat '${db:Status-Status} ${Version}' crisp)," \
        "/usr/bin/python3 is $(/usr/bin/python3 -V), crisp's $(/opt/crisp/bin/python -V)"
}

apt-get -q -q update
install_quietly install python3-venv
package=$(deploy/debian/build.sh --out /tmp/packages | tail -n 1)
install_quietly install "$package"
before=$(state)
echo "$before"
/opt/crisp/bin/python deploy/demo.py

echo "upgrading"
find /etc/apt -name '*.list' -o -name '*.sources' | xargs -r sed -i 's/bookworm/trixie/g'
apt-get -q -q update
install_quietly full-upgrade
install_quietly autoremove
state
[ "$(cut -d . -f 1 /etc/debian_version)" = 13 ] || fail "Debian is still $(cat /etc/debian_version)"
[ "$(/usr/bin/python3 -V)" != "$(/opt/crisp/bin/python -V)" ] || fail "the system's Python is still crisp's: nothing was shown"
[ "$(dpkg-query --show --showformat '${db:Status-Status}' crisp)" = installed ] || fail "the package is gone"
crisp --version
/opt/crisp/bin/python deploy/demo.py
echo "the package of Debian 12 runs pods on Debian 13"
