#!/bin/sh
# Runs after prepare.sh where the machine is to have SELinux in place of AppArmor, enforcing: Debian's policy. Files
# get their labels when all are there (image.py).
set -eu
export DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin

apt-get --yes --quiet install --no-install-recommends selinux-policy-default selinux-utils policycoreutils
apt-get clean
sed -i 's/^SELINUX=.*/SELINUX=enforcing/' /etc/selinux/config

# As root's shell on such a machine: what a service is started as could not even mount.
mkdir -p /etc/systemd/system/node-job.service.d
printf '%s\n' '[Service]' 'SELinuxContext=unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023' \
    >/etc/systemd/system/node-job.service.d/selinux.conf
