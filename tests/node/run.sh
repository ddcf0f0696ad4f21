#!/bin/sh
# Runs tests in the virtual machine (Debian 13: systemd, cgroup v2, AppArmor), without a network in there:
#     tests/node/run.sh tests/component -k cgroup
#     tests/node/run.sh --limit 7200 --results DIR tests/conformance
# The first run makes the image, which takes some minutes and downloads; it is kept in the tests' cache. Needs root.
set -eu
cd "$(dirname "$0")/../.."

cache=${XDG_CACHE_HOME:-/var/cache}/crisp-tests
mkdir -p "$cache"
deploy/install.sh --prefix "$cache/product" --no-commands --package debootstrap --package qemu-system-x86

key=$(/usr/bin/python3 -V | cat - requirements-dev.lock | sha256sum | cut -c 1-16)
python=$cache/venv-$key/bin/python
[ -e "$cache/venv-$key/complete" ] || sh tests/run.sh --collect-only --quiet tests/rules >/dev/null
"$python" -m tests.parts.build cri-tools runc kubelet >/dev/null
exec "$python" -m tests.node "$@"
