#!/bin/sh
# The one service of the machine: take the job from the second disk, do it, put what it left in
# /run/results on the third, turn the machine off. A job that ends with 75 (EX_TEMPFAIL) is done again after a
# reboot, with the count of boots in NODE_BOOT.
output=/dev/ttyS1
job=/var/lib/node-job
results=$job/results

exec </dev/null >$output 2>&1
stty -F $output raw 2>/dev/null
boot=$(($(cat $job/boot 2>/dev/null || echo 0) + 1))
mkdir -p $results
echo $boot >$job/boot
[ $boot -gt 1 ] || tar -xf /dev/disk/by-id/virtio-job -C /
cd /crisp || systemctl poweroff
export NODE_BOOT=$boot NODE_RESULTS=$results HOME=/root LANG=C.UTF-8
export PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
sh -eu /crisp-job
status=$?
if [ $status = 75 ]; then
    systemctl reboot
    exit
fi
echo $status >$results/status
journalctl --no-pager --output short-precise >$results/journal.log
systemctl --failed --no-pager --plain >$results/failed-units
tar -cf /dev/disk/by-id/virtio-results -C $results .
sync
systemctl poweroff
