#!/bin/sh
# Shows Crisp at work, from a fresh Debian 12 or 13 with git and sh: installs what is needed, starts a crispd
# of its own, runs a real pod and prints what was measured, removes everything and counts what is left.
# Other runtimes, kubelet and their sockets are not touched. May be interrupted, and run more than once at a
# time.
set -eu

usage() {
    cat <<'USAGE'
usage: deploy/demo.sh [option...]
  --image REF     pull this image instead of importing a small one; it needs a shell with httpd, as busybox has
  --handler NAME  the runtime handler (default: the daemon's)
  --keep          leave the daemon running, for trying, until Ctrl-C
USAGE
}

fail() {
    usage >&2
    echo "demo.sh: $1" >&2
    exit 2
}

# Before anything is installed: a mistake should cost nothing.
wanted=
for option in "$@"; do
    if [ -n "$wanted" ]; then
        wanted=
        continue
    fi
    case $option in
    --image | --handler) wanted=$option ;;
    --image=?* | --handler=?* | --keep) ;;
    -h | --help) usage; exit 0 ;;
    *) fail "unknown option $option" ;;
    esac
done
[ -z "$wanted" ] || fail "$wanted needs a value"
[ "$(id -u)" = 0 ] || { echo "demo.sh: must run as root: a pod is namespaces, mounts and cgroups" >&2; exit 1; }

cd "$(dirname "$0")/.."
prefix=${CRISP_PREFIX:-/opt/crisp}
deploy/install.sh --prefix "$prefix" --no-service
exec "$prefix/bin/python" deploy/demo.py "$@"
