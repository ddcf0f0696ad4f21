"""mountinfo lines as values, and the order in which mounts are undone."""

from __future__ import annotations

from shim.kernel.mountinfo import Mount, below, parse_mountinfo

TEXT = rb"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 22 0:25 / /run rw,nosuid shared:2 master:7 propagate_from:3 - tmpfs tmpfs rw,mode=755
41 30 0:4 net:[4026532] /run/netns/with\040space\134back rw - nsfs nsfs rw
42 22 0:50 / /var/lib/a rw,nosuid - overlay overlay rw,lowerdir=/x:/y
43 22 0:51 / /var/lib/ab rw - tmpfs tmpfs rw
no mount line
"""


def test_every_field_of_a_line_is_read() -> None:
    assert parse_mountinfo(TEXT)[1] == Mount(
        id=30,
        parent=22,
        device="0:25",
        root="/",
        target="/run",
        options=("rw", "nosuid"),
        propagation=("shared:2", "master:7", "propagate_from:3"),
        type="tmpfs",
        source="tmpfs",
        super_options=("rw", "mode=755"),
    )


def test_escapes_in_paths_are_undone_and_other_lines_left_out() -> None:
    assert [mount.target for mount in parse_mountinfo(TEXT)] == [
        "/",
        "/run",
        "/run/netns/with space\\back",
        "/var/lib/a",
        "/var/lib/ab",
    ]


def test_mounts_below_a_path_come_newest_first_without_its_namesakes() -> None:
    table = parse_mountinfo(TEXT)
    assert [mount.id for mount in below("/run", table)] == [41, 30]
    assert [mount.id for mount in below("/var/lib/a/", table)] == [42]
    assert [mount.id for mount in below("/var/lib/a/b", table)] == []
    assert [mount.id for mount in below("/", table)] == [43, 42, 41, 30, 22]
