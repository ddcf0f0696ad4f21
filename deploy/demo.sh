#!/bin/sh
# Shows Crisp at work, from a fresh Debian 12 or 13 with git and sh: installs what is needed, starts a crispd
# of its own, runs a real pod and prints what was measured, removes everything and counts what is left.
# Other runtimes, kubelet and their sockets are not touched. Options: see deploy/demo.py.
set -eu
cd "$(dirname "$0")/.."
prefix=${CRISP_PREFIX:-/opt/crisp}
deploy/install.sh --prefix "$prefix"
exec "$prefix/bin/python" deploy/demo.py "$@"
