#!/bin/sh
# Runs every test, from a fresh Debian 12 or 13 with git and sh to pytest's summary: `tests/run.sh`.
# Arguments go to pytest: `tests/run.sh tests/unit -k cgroup`. What it builds or downloads is kept in
# ${XDG_CACHE_HOME:-/var/cache}/crisp-tests and made once. Needs root.
set -eu
cd "$(dirname "$0")/.."

HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d : -f 6)}
export HOME
cache=${XDG_CACHE_HOME:-/var/cache}/crisp-tests
mkdir -p "$cache"

# The product as it is installed, with the Debian packages of product and tests.
packages=$(sed -e 's/#.*//' -e '/^ *$/d' -e 's/^/--package /' tests/parts/debian.txt)
node=no
case " $* " in *" --node "*) node=yes packages="$packages --package debootstrap --package qemu-system-x86" ;; esac
# shellcheck disable=SC2086 # a list of options
deploy/install.sh --prefix "$cache/product" --no-commands $packages

key=$(/usr/bin/python3 -V | cat - requirements-dev.lock | sha256sum | cut -c 1-16)
venv=$cache/venv-$key
if [ ! -e "$venv/complete" ]; then
    echo "installing the tests' Python packages into $venv"
    /usr/bin/python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input --quiet install --require-hashes \
        --only-binary :all: --requirement requirements-dev.lock
    : >"$venv/complete"
fi

# Go programs take a minute or two when they are not in the cache; before the tests, whose time is limited.
echo "building the parts that Debian does not have, if they are not in $cache"
"$venv/bin/python" -m tests.parts.build cri-tools containerd etcd kube-apiserver kubeadm kubectl kubelet runc runsc youki

# The virtual machine's image takes minutes and the network when it is not in the cache.
[ "$node" = no ] || "$venv/bin/python" -m tests.node.image >/dev/null

# Hundreds of daemons and commands are started from this tree: their bytecode is made once.
"$venv/bin/python" -m compileall -q api benchmarks cli config oci shim tests
unset PYTHONDONTWRITEBYTECODE

# Everything, perhaps with options of one word: by two workers, each in namespaces and cgroups of its own.
# Their groups are made as version 1 has them.
workers=2
for argument in "$@"; do
    case $argument in -*) ;; *) workers=0 ;; esac
done
[ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ] || workers=0
if [ $workers != 0 ]; then
    CRISP_TESTS_PYTHON=$venv/bin/python
    export CRISP_TESTS_PYTHON
    set -- --dist worksteal --tx "$workers*popen//python=tests/apart/python.sh" "$@"
fi
exec "$venv/bin/python" -m pytest "$@" </dev/null
