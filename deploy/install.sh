#!/bin/sh
# Installs Crisp from this tree on Debian 12 or 13, as root: Debian's packages for what it runs, a private
# Python environment from requirements.lock (each file checked by hash), the `crisp` and `crispd` commands.
# Where systemd runs the machine and the prefix is the default one, the unit crispd.service too. May be run again
# at any time; does nothing, quickly, when nothing changed. Starts no service and leaves kubelet and other
# runtimes alone.
set -eu

prefix=/opt/crisp
commands=/usr/local/bin
packages=yes
service=auto
unit=/etc/systemd/system/crispd.service
wheels=
download=
further=
tree=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
python=/usr/bin/python3

usage() {
    cat <<'USAGE'
usage: deploy/install.sh [option...]
  --prefix DIR          where the private environment goes (default /opt/crisp)
  --commands DIR        where links to crisp and crispd go (default /usr/local/bin)
  --no-commands         make no links
  --service, --no-service
                        put crispd.service into /etc/systemd/system, or do not (default: where systemd runs and
                        the prefix is /opt/crisp); it is not started
  --no-packages         leave Debian's packages as they are
  --package NAME        install this Debian package too, such as crun (may be repeated)
  --wheels DIR          take Python packages from this folder, ask no index
  --download-wheels DIR fill such a folder for this Python and machine, and stop
USAGE
}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

value() { # value OPTION COUNT: the option has an argument
    [ "$2" -ge 2 ] || fail "$1 needs a value"
}

while [ $# -gt 0 ]; do
    case $1 in
    --prefix) value "$1" $#; prefix=$2; shift 2 ;;
    --commands) value "$1" $#; commands=$2; shift 2 ;;
    --no-commands) commands=; shift ;;
    --no-packages) packages=no; shift ;;
    --service) service=yes; shift ;;
    --no-service) service=no; shift ;;
    --package) value "$1" $#; further="$further $2"; shift 2 ;;
    --wheels) value "$1" $#; wheels=$2; shift 2 ;;
    --download-wheels) value "$1" $#; download=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown option $1" ;;
    esac
done
case $prefix in /*) ;; *) fail "--prefix $prefix: must be an absolute path" ;; esac

log=$(mktemp)
copy=
trap 'rm -rf "$log" $copy' EXIT

quietly() { # quietly WHAT COMMAND...: run it; show what it said only if it fails
    what=$1
    shift
    "$@" >"$log" 2>&1 9<&- && return
    status=$?
    cat "$log" >&2
    fail "$what failed with status $status: $*"
}

apt_get() { # a fresh machine may be upgrading itself: wait for it
    apt-get --yes --quiet -o DPkg::Lock::Timeout=300 "$@"
}

install_packages() { # install_packages NAME...: those that are missing, the lists fetched only if needed
    missing=
    for name in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing="$missing $name"
    done
    [ -n "$missing" ] || return 0
    [ "$(id -u)" = 0 ] || fail "these Debian packages are missing and only root can install them:$missing"
    echo "installing Debian packages:$missing"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # a list of names
    if ! apt_get install --no-install-recommends $missing >"$log" 2>&1 9<&-; then
        quietly "apt-get update" apt_get update
        # shellcheck disable=SC2086
        quietly "apt-get install" apt_get install --no-install-recommends $missing
    fi
}

pip() {
    "$prefix/bin/python" -m pip --disable-pip-version-check --no-input "$@"
}

make_environment() {
    "$prefix/bin/python" -m pip --version >/dev/null 2>&1 && return
    quietly "making the environment $prefix" "$python" -m venv --clear "$prefix"
}

# One at a time: the lock is on the directory above, since making the environment clears its own. No child
# inherits it, for a service that a package starts would keep it.
mkdir -p "$(dirname -- "$prefix")"
exec 9<"$(dirname -- "$prefix")"
flock 9

if [ "$packages" = yes ]; then
    command -v apt-get >/dev/null || fail "apt-get is not here; install the packages yourself and use --no-packages"
    # conmon, runc, the CNI plugins and catatonit are what a pod is made of; iptables is what the plugins
    # call; busybox is what the first image is made of.
    # shellcheck disable=SC2086 # a list of names
    install_packages python3 python3-venv ca-certificates \
        conmon runc containernetworking-plugins catatonit iptables iproute2 busybox $further
fi
[ -x "$python" ] || fail "$python is not here; install python3 and python3-venv"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is $("$python" -V 2>&1); Crisp needs Python 3.11 or newer (Debian 12 or newer)"
for name in crisp crispd; do
    [ -z "$commands" ] || [ ! -e "$commands/$name" ] || [ -L "$commands/$name" ] ||
        fail "$commands/$name is there and is not a link of ours; remove it or use --no-commands"
done
[ -z "$wheels" ] || [ -d "$wheels" ] || fail "--wheels $wheels: no such directory"

if [ -n "$download" ]; then
    mkdir -p "$download"
    make_environment
    quietly "downloading wheels" pip download --require-hashes --only-binary :all: --dest "$download" \
        --requirement "$tree/requirements.lock"
    echo "the wheels are in $download; install with: deploy/install.sh --wheels $download"
    exit 0
fi

# What the environment is made from: if it is the same, so is the environment.
locked=$("$python" -V | cat - "$tree/requirements.lock" | sha256sum)
sources=$(cd "$tree" && find api cli config oci shim pyproject.toml requirements.lock LICENSE README.md \
    -type f ! -path '*/__pycache__/*' -exec sha256sum {} + | sort -k 2 | sha256sum)

if [ "$(cat "$prefix/.locked" 2>/dev/null)" != "$locked" ]; then
    echo "installing Python packages into $prefix"
    mkdir -p "$prefix"
    rm -f "$prefix/.locked" "$prefix/.sources"
    make_environment
    source=
    [ -z "$wheels" ] || source="--no-index --find-links $wheels"
    # shellcheck disable=SC2086 # options
    quietly "pip" pip install --require-hashes --only-binary :all: $source --requirement "$tree/requirements.lock"
    echo "$locked" >"$prefix/.locked"
fi

if [ "$(cat "$prefix/.sources" 2>/dev/null)" != "$sources" ]; then
    rm -f "$prefix/.sources"
    # A copy, since building leaves files beside the sources, and old ones would get into the wheel.
    copy=$(mktemp -d)
    (cd "$tree" && cp -R api cli config oci shim pyproject.toml README.md LICENSE "$copy")
    # The build backend is one of the locked packages: nothing is downloaded here.
    quietly "pip" pip install --no-index --no-deps --no-build-isolation --force-reinstall "$copy"
    echo "$sources" >"$prefix/.sources"
    echo "installed $("$prefix/bin/python" -c 'from importlib.metadata import version; print("crisp", version("crisp-cri"))') in $prefix"
fi

if [ -n "$commands" ]; then
    mkdir -p "$commands"
    for name in crisp crispd; do
        [ "$(readlink "$commands/$name" 2>/dev/null)" = "$prefix/bin/$name" ] || ln -sfn "$prefix/bin/$name" "$commands/$name"
    done
fi

if [ "$service" = auto ]; then
    service=no
    [ ! -d /run/systemd/system ] || [ "$prefix" != /opt/crisp ] || [ "$(id -u)" != 0 ] || service=yes
fi
if [ "$service" = yes ]; then
    sed "s|@PREFIX@|$prefix|" "$tree/deploy/systemd/crispd.service" >"$log"
    if ! cmp -s "$log" "$unit"; then
        install -D -m 0644 "$log" "$unit"
        [ ! -d /run/systemd/system ] || quietly "systemctl daemon-reload" systemctl daemon-reload
        echo "installed $unit; start it with: systemctl enable --now crispd"
    fi
fi
