#!/bin/sh
# Stands in for Python where pytest-xdist starts a worker (tests/run.sh): the same interpreter, with mounts,
# processes, network, cgroups and /run of its own, so that each worker has a machine for itself.
# Everything ends with it but its cgroups, which tests/apart/__init__.py removes.
#   CRISP_TESTS_PYTHON   the interpreter
#   CRISP_TESTS_GROUP    a cgroup that is there in every hierarchy; the worker's are made below it
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/../hierarchies.sh"

case "${CRISP_TESTS_STAGE:-}" in
'')
    group=$CRISP_TESTS_GROUP/$$
    hierarchies make_group "$group"
    hierarchies enter_group "$group"
    export CRISP_TESTS_STAGE=mounts
    exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child "$0" "$@"
    ;;
mounts)
    mount --make-rprivate /
    mount -t proc proc /proc
    resolver=$(cat /etc/resolv.conf)
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/lock /run/netns
    if [ ! -e /etc/resolv.conf ]; then # a link into the /run that is hidden now
        mkdir -p "$(dirname "$(readlink -m /etc/resolv.conf)")"
        echo "$resolver" >/etc/resolv.conf
    fi
    # The machine's own network, for the few that download something (tests/machine.py, outside).
    : >/run/outside
    mount --bind /proc/self/ns/net /run/outside
    mkdir -p /var/lib/cni
    mount -t tmpfs tmpfs /var/lib/cni
    mount -t tmpfs tmpfs /dev/shm
    export CRISP_TESTS_STAGE=network
    exec unshare --net "$0" "$@"
    ;;
network)
    kept=$(list_hierarchies)
    mount -t sysfs sysfs /sys # this network's
    mount_hierarchies "$kept"
    mount --make-rshared /
    ip link set lo up
    unset CRISP_TESTS_STAGE CRISP_TESTS_GROUP
    export CRISP_TESTS_OUTSIDE=/run/outside CRISP_TESTS_PATIENCE="${CRISP_TESTS_PATIENCE:-2}"
    # An init that reaps what daemons and containers leave to it.
    exec catatonit -- "$CRISP_TESTS_PYTHON" "$@"
    ;;
esac
