#!/bin/sh
# Runs in the root directory of the machine while its image is made, with the builder's network: what debootstrap
# does not do. Everything here is part of the image's name (tests/node/image.py).
set -eu
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin

echo crisp-node >/etc/hostname
echo '127.0.0.1 localhost crisp-node' >/etc/hosts
echo 'LABEL=crisp-node / ext4 defaults,noatime 0 1' >/etc/fstab
passwd --quiet --delete root

# Only what qemu's machine needs, so that the first second is not spent on unpacking drivers.
printf '%s\n' virtio_pci virtio_blk ext4 crc32c >/etc/initramfs-tools/modules
sed -i -e 's/^MODULES=.*/MODULES=list/' -e 's/^COMPRESS=.*/COMPRESS=lz4/' /etc/initramfs-tools/initramfs.conf
echo 'RESUME=none' >/etc/initramfs-tools/conf.d/resume
update-initramfs -u

# Modules that a node has loaded: nothing in here may depend on a network or on who comes first.
printf '%s\n' overlay br_netfilter erofs >/etc/modules-load.d/node.conf
printf '%s\n' 'net.ipv4.ip_forward = 1' 'net.bridge.bridge-nf-call-iptables = 1' >/etc/sysctl.d/50-node.conf

# The serial lines are the tests'; nothing else of a real machine's housekeeping may run beside them.
systemctl mask --quiet serial-getty@ttyS0.service serial-getty@ttyS1.service getty@tty1.service \
    apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer man-db.timer dpkg-db-backup.timer \
    systemd-networkd-wait-online.service
mkdir -p /etc/systemd/journald.conf.d /var/log/journal
printf '%s\n' '[Journal]' 'RateLimitIntervalSec=0' 'SystemMaxUse=200M' >/etc/systemd/journald.conf.d/node.conf

# Emulated on a busy machine a start takes longer than systemd's patience.
mkdir -p /etc/systemd/system.conf.d
printf '%s\n' '[Manager]' 'DefaultTimeoutStartSec=900s' 'DefaultDeviceTimeoutSec=900s' \
    >/etc/systemd/system.conf.d/node.conf
mkdir -p /etc/systemd/system/systemd-modules-load.service.d # which has a limit of its own
printf '%s\n' '[Service]' 'TimeoutSec=900s' >/etc/systemd/system/systemd-modules-load.service.d/node.conf

cat >/etc/systemd/system/node-job.service <<'UNIT'
[Unit]
Description=What the machine was started for
After=multi-user.target
[Service]
Type=exec
ExecStart=/usr/local/sbin/node-job
KillMode=process
Delegate=yes
LimitNOFILE=1048576
OOMScoreAdjust=-900
[Install]
WantedBy=graphical.target
UNIT
systemctl enable --quiet node-job.service
systemctl set-default --quiet graphical.target

# For tests that call `sudo apparmor_parser`, as critest's do.
printf '%s\n' '#!/bin/sh' 'exec "$@"' >/usr/local/bin/sudo
chmod 0755 /usr/local/bin/sudo

# Programs of the test images, out of packages that would start services if they were installed.
cache=/var/cache/crisp-tests
for package in docker-registry nginx; do
    (cd /var/cache/apt/archives && apt-get -q download "$package")
    mkdir -p "$cache/debian-$package"
    dpkg-deb --extract /var/cache/apt/archives/"$package"_*.deb "$cache/debian-$package"
done
apt-get clean

# What deploy/install.sh and the Debian package are made of, for a machine that has no network.
python3 -m venv /opt/venv
/opt/venv/bin/python -m pip --disable-pip-version-check --no-input --quiet download --require-hashes \
    --only-binary :all: --dest /opt/wheels --requirement /tmp/requirements.lock
/opt/venv/bin/python -m pip --disable-pip-version-check --no-input --quiet install --require-hashes \
    --only-binary :all: --requirement /tmp/requirements-dev.lock
