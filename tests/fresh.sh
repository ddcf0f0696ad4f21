#!/bin/sh
# Runs the tests, or a command, on a Debian that has nothing but git: `tests/fresh.sh bookworm`,
# `tests/fresh.sh trixie deploy/demo.sh`. Makes the tree (debootstrap), gives it this machine's package source
# settings and a clone of what is committed here, enters it by pivot_root with mounts, processes, cgroups and
# /run of its own, and removes it. Needs root, debootstrap and git. The network is this machine's, since
# packages are fetched.
set -eu

usage() {
    cat <<'USAGE'
usage: tests/fresh.sh [--keep] [--full] SUITE [COMMAND [ARGUMENT...]]
  SUITE      Debian's name: bookworm (12), trixie (13)
  COMMAND    run in the clone (default: tests/run.sh); "deploy/demo.sh && deploy/demo.sh" is run by a shell
  --full     what debootstrap installs by default, instead of the essential packages alone
  --keep     leave the tree, and say where it is
  --in DIR   make the tree below DIR (default /var/tmp)
USAGE
}

fail() {
    echo "fresh.sh: $1" >&2
    exit 2
}

sources=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
. "$sources/tests/hierarchies.sh"

# The second half: inside the new namespaces, outside the tree.
if [ "${1:-}" = --inside ]; then
    tree=$2
    shift 2
    mount --make-rprivate /
    mount --bind "$tree" "$tree"
    cd "$tree"
    mount -t proc proc proc
    mount -t sysfs sysfs sys
    mount -t tmpfs -o mode=755 tmpfs run
    mount --rbind /dev dev
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts dev/pts
    mount -t tmpfs tmpfs dev/shm
    mount_hierarchies "$(list_hierarchies)" "$tree"
    mkdir -p old run/lock run/netns
    pivot_root . old
    umount -l /old
    rmdir /old
    mount --make-rshared /
    cd /root/crisp
    # Not exec: a shell that waits reaps what processes leave behind, as the first one of a machine does.
    sh -c "$*" </dev/null
    exit $?
fi

keep=no
variant=--variant=minbase
place=/var/tmp
while [ $# -gt 0 ]; do
    case $1 in
    --keep) keep=yes; shift ;;
    --full) variant=; shift ;;
    --in) [ $# -ge 2 ] || fail "--in needs a value"; place=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; fail "unknown option $1" ;;
    *) break ;;
    esac
done
[ $# -gt 0 ] || { usage >&2; fail "which Debian?"; }
suite=$1
shift
[ "$(id -u)" = 0 ] || fail "must run as root: a tree has devices and mounts"
for program in debootstrap git pivot_root unshare findmnt; do
    command -v "$program" >/dev/null || fail "$program is not here"
done

top=$(mktemp -d "$place/crisp-fresh.XXXXXX")
tree=$top/tree
group=crisp-fresh-$$

clean() {
    hierarchies remove_group "$group"
    if [ "$keep" = yes ]; then
        echo "the tree is $tree"
    else
        rm -rf --one-file-system "$top"
    fi
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# This machine's settings: from which host packages come, proxies, certificates.
mirror=$(sed -n -E -e 's/^URIs: *(http[^ ]*).*/\1/p' -e 's/^deb +(\[[^]]*\] +)?(http[^ ]*).*/\2/p' \
    /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1)
echo "making a tree of $suite in $tree"
# shellcheck disable=SC2086 # an option, or none
debootstrap $variant --include=git "$suite" "$tree" $mirror >"$top/log" 2>&1 || {
    tail -n 20 "$top/log" >&2
    fail "debootstrap failed"
}
grep -l '^ *Acquire::' /etc/apt/apt.conf.d/* 2>/dev/null | xargs -r grep -L Invoke |
    xargs -r cp -t "$tree/etc/apt/apt.conf.d"
mkdir -p "$tree/usr/local/share/ca-certificates"
find /usr/local/share/ca-certificates -name '*.crt' -exec cp -t "$tree/usr/local/share/ca-certificates" {} + 2>/dev/null || :
[ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$tree/etc"
cp -L /etc/resolv.conf /etc/hosts "$tree/etc"
git clone --quiet --no-local "$sources" "$tree/root/crisp"

hierarchies make_group "$group"
settings=$(env | grep -E -i '^([a-z]*_proxy|GOPROXY|GOSUMDB|PIP_(INDEX_URL|CERT|DEFAULT_TIMEOUT)|SSL_CERT_FILE)=' || :)
# shellcheck disable=SC2016 # expanded by the shell inside
enter='
    . "$1"
    hierarchies enter_group "$2"
    shift 2
    exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child sh "$@"
'
[ $# -gt 0 ] || set -- tests/run.sh
status=0
command=$*
IFS='
' # one setting a word
# shellcheck disable=SC2086
env -i HOME=/root TERM=dumb LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    $settings sh -c "$enter" sh "$sources/tests/hierarchies.sh" "$group" "$sources/tests/fresh.sh" --inside "$tree" "$command" || status=$?
exit "$status"
