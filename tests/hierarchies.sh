# For shell scripts that give a run cgroups of its own: `. tests/hierarchies.sh`, then
#     hierarchies make_group NAME      in each hierarchy, with the cpuset of its parent
#     hierarchies enter_group NAME     this shell, and what it starts from now on
#     hierarchies remove_group NAME    with all below it; says what stays
#     mount_hierarchies LIST [ROOT]    in a new cgroup namespace: each as seen from the own group
# A machine with version 2 alone has no groups made for it.

hierarchies() { # hierarchies FUNCTION ARGUMENT...: called with each hierarchy's mount point before the arguments
    [ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ] || return 0
    function=$1
    shift
    for hierarchy in $(findmnt --noheadings --raw --output TARGET --types cgroup,cgroup2); do
        "$function" "$hierarchy" "$@"
    done
}

make_group() {
    mkdir -p "$1/$2"
    for name in cpuset.cpus cpuset.mems; do # not inherited by themselves
        [ ! -e "$1/$name" ] || cat "$1/$2/../$name" >"$1/$2/$name"
    done
}

enter_group() {
    echo $$ >"$1/$2/cgroup.procs"
}

remove_group() {
    find "$1/$2" -depth -type d -exec rmdir {} + 2>/dev/null || echo "$1/$2 stays" >&2
}

list_hierarchies() { # what mount_hierarchies takes
    findmnt --noheadings --raw --output TARGET,FSTYPE,FS-OPTIONS --types cgroup,cgroup2
}

mount_hierarchies() { # mount_hierarchies LIST [ROOT]: at the same places, below ROOT if that is not /
    root=${2:-}
    case "$1" in
    "/sys/fs/cgroup "*) ;; # version 2 alone
    *) mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup" ;;
    esac
    echo "$1" | while read -r target type options; do
        mkdir -p "$root$target"
        mount -t "$type" -o "$options" cgroup "$root$target"
    done
}
