#!/bin/sh
# Builds Debian's package `crisp` for the Debian that this runs on (12 or 13), as root: `deploy/debian/build.sh`.
# The private environment is made by deploy/install.sh under its final path /opt/crisp, in a mount namespace of its
# own: a Crisp that is installed here is neither used nor touched. Nothing is built or downloaded when the package
# is installed.
set -eu

tree=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
out=$tree/dist
revision=1
wheels=

usage() {
    cat <<'USAGE'
usage: deploy/debian/build.sh [option...]
  --out DIR        where the package goes (default: dist in the tree)
  --revision N     Debian's revision (default 1)
  --wheels DIR     take Python packages from this folder, ask no index
USAGE
}

fail() {
    echo "build.sh: $1" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --out | --revision | --wheels)
        [ $# -ge 2 ] || fail "$1 needs a value"
        case $1 in
        --out) out=$2 ;;
        --revision) revision=$2 ;;
        --wheels) wheels=$2 ;;
        esac
        shift 2
        ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; fail "unknown option $1" ;;
    esac
done
[ "$(id -u)" = 0 ] || fail "must run as root: files of a package are root's"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
chmod 0755 "$stage"
mkdir -p "$stage/opt/crisp" "$stage/usr/bin" "$stage/usr/lib/systemd/system" "$stage/DEBIAN" "$out" /opt/crisp

export stage tree
# shellcheck disable=SC2016 # for the inner shell
unshare --mount --propagation private sh -eu -c '
    mount --bind "$stage/opt/crisp" /opt/crisp
    "$tree/deploy/install.sh" --no-packages --no-commands --no-service "$@"
' sh ${wheels:+--wheels "$wheels"}
rmdir --ignore-fail-on-non-empty /opt/crisp

# The interpreter by its own name and not by `python3`, which a distribution upgrade points elsewhere.
python=$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
[ -x "/usr/bin/$python" ] || fail "/usr/bin/$python is not here"
ln -sfn "/usr/bin/$python" "$stage/opt/crisp/bin/python3"
rm -f "$stage/opt/crisp/.locked" "$stage/opt/crisp/.sources"

ln -s /opt/crisp/bin/crisp /opt/crisp/bin/crispd "$stage/usr/bin/"
sed 's|@PREFIX@|/opt/crisp|' "$tree/deploy/systemd/crispd.service" >"$stage/usr/lib/systemd/system/crispd.service"
install -D -m 0644 "$tree/LICENSE" "$stage/usr/share/doc/crisp/copyright"

version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$tree/pyproject.toml")-$revision~deb$(sed -n 's/^VERSION_ID="\(.*\)"/\1/p' /etc/os-release)
architecture=$(dpkg --print-architecture)
cat >"$stage/DEBIAN/control" <<CONTROL
Package: crisp
Version: $version
Architecture: $architecture
Maintainer: The Crisp maintainers <crisp@localhost>
Section: admin
Priority: optional
Installed-Size: $(du -sk "$stage" | cut -f 1)
Depends: $python, conmon, runc | crun, containernetworking-plugins, catatonit, iptables, iproute2, ca-certificates
Recommends: apparmor, busybox
Description: Kubernetes container runtime (CRI) over OCI runtimes
 crispd serves kubelet's container runtime interface and runs pods with runc, crun or any runtime with their
 command line; crisp is the command for the people of the node.
CONTROL
for script in postinst prerm postrm; do
    install -m 0755 "$tree/deploy/debian/$script" "$stage/DEBIAN/$script"
done

package=$out/crisp_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz --build "$stage" "$package" >/dev/null
echo "$package"
