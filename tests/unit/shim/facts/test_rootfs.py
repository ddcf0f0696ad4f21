"""Users, working directories and mount targets in root file systems that may be hostile."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from oci.errors import BadInput
from oci.facts import ResolvedUser
from oci.workload import UserChoice
from shim.facts.rootfs import check_mount_targets, check_working_dir, read_regular, resolve_user

PASSWD = """root:x:0:0:root:/root:/bin/sh
# a comment
broken line
web:x:1000:1000:Web:/home/web:/bin/sh
dev:x:2000:3000::/home/dev:/bin/sh
1500:x:0:0:a number for a name:/root:/bin/sh
huge:x:4294967296:0::/:/bin/sh
hugegid:x:5:4294967296::/:/bin/sh
sly:x:7:7::/x
evil:x:8:8::relative:/bin/sh
"""
GROUP = """root:x:0:root
web:x:1000:
extra:x:50000:web,dev
other:x:60000:dev
hugegroup:x:4294967296:root2
"""


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    (root / "etc").mkdir(parents=True)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    return root


@pytest.mark.parametrize(
    ("image_user", "expected"),
    [
        ("", ResolvedUser(uid=0, gid=0, groups=(0,), home="/root", name="root")),
        ("web", ResolvedUser(uid=1000, gid=1000, groups=(1000, 50000), home="/home/web", name="web")),
        ("1000", ResolvedUser(uid=1000, gid=1000, groups=(1000, 50000), home="/home/web", name="web")),
        ("001000", ResolvedUser(uid=1000, gid=1000, groups=(1000, 50000), home="/home/web", name="web")),
        ("web:extra", ResolvedUser(uid=1000, gid=50000, groups=(50000,), home="/home/web", name="web")),
        ("web:9", ResolvedUser(uid=1000, gid=9, groups=(9, 50000), home="/home/web", name="web")),
        ("4000", ResolvedUser(uid=4000, gid=0, groups=(0,), home="/", name="")),
        ("4000:4001", ResolvedUser(uid=4000, gid=4001, groups=(4001,), home="/", name="")),
        ("1500", ResolvedUser(uid=1500, gid=0, groups=(0,), home="/", name="")),
        ("2147483647", ResolvedUser(uid=2147483647, gid=0, groups=(0,), home="/", name="")),
        ("evil", ResolvedUser(uid=8, gid=8, groups=(8,), home="/", name="evil")),
    ],
)
def test_every_form_of_user_is_looked_up_in_the_image(
    rootfs: Path, image_user: str, expected: ResolvedUser
) -> None:
    assert resolve_user(rootfs, UserChoice(), image_user) == expected


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            UserChoice(username="nobody-here"),
            "config.linux.security_context.run_as_username: user 'nobody-here' is not",
        ),
        (UserChoice(username="0"), "run_as_username: '0' is a number"),
        (UserChoice(username="4294967296"), "run_as_username: '4294967296' is a number"),
        (
            UserChoice(username="huge"),
            "uid of 'huge' in the image's /etc/passwd: '4294967296' is not a number from 0",
        ),
        (UserChoice(username="hugegid"), "gid of 'hugegid' in the image's /etc/passwd: '4294967296'"),
        (UserChoice(uid=-1), "run_as_user: '-1' is not a number from 0 to 2147483647"),
        (UserChoice(uid=2**31), "run_as_user: '2147483648' is not"),
        (UserChoice(uid=2**32), "run_as_user: '4294967296' is not"),
        (UserChoice(gid=5), "config.linux.security_context.run_as_group: set without"),
        (UserChoice(uid=5, gid=2**32 - 1), "run_as_user, group: '4294967295' is not"),
        (UserChoice(uid=6, supplemental_groups=(-1,)), "supplemental_groups: '-1' is not"),
    ],
)
def test_a_request_that_could_become_root_by_accident_is_refused(
    rootfs: Path, choice: UserChoice, message: str
) -> None:
    with pytest.raises(BadInput, match=re.escape(message)):
        resolve_user(rootfs, choice, "web")


@pytest.mark.parametrize(
    "user", ["-1", "+0", "2147483648", "4294967295", "4294967296", "9" * 5000, "huge", "x" * 99]
)
def test_an_image_user_outside_the_range_is_refused(rootfs: Path, user: str) -> None:
    with pytest.raises(BadInput, match=r"^image USER: "):
        resolve_user(rootfs, UserChoice(), user)


@pytest.mark.parametrize("group", ["nope", "-1", "4294967296", "hugegroup", "a:b"])
def test_an_image_group_outside_the_range_is_refused(rootfs: Path, group: str) -> None:
    with pytest.raises(BadInput, match=r"^image USER"):
        resolve_user(rootfs, UserChoice(), f"web:{group}")


def test_merge_joins_the_groups_of_the_image_and_strict_does_not(rootfs: Path) -> None:
    merge = resolve_user(rootfs, UserChoice(uid=1000, supplemental_groups=(1234,)), "")
    strict = resolve_user(rootfs, UserChoice(uid=1000, supplemental_groups=(1234,), strict_groups=True), "")

    assert (merge.groups, strict.groups) == ((1000, 1234, 50000), (1000, 1234))


def test_an_image_without_passwd_has_root_and_numbers_only(tmp_path: Path) -> None:
    assert resolve_user(tmp_path, UserChoice(), "") == ResolvedUser(groups=(0,))
    assert resolve_user(tmp_path, UserChoice(), "root") == ResolvedUser(groups=(0,))
    assert resolve_user(tmp_path, UserChoice(), "7:8") == ResolvedUser(uid=7, gid=8, groups=(8,))
    with pytest.raises(BadInput, match="user 'web' is not in"):
        resolve_user(tmp_path, UserChoice(), "web")


def test_an_account_called_root_with_another_number_does_not_take_the_place_of_no_user(rootfs: Path) -> None:
    (rootfs / "etc/passwd").write_text("root:x:1000:1000::/r:/bin/sh\n")
    assert resolve_user(rootfs, UserChoice(), "").uid == 0


@pytest.mark.parametrize("home", ["/a\x01b", "/a\x7fb", "\\n/x", ""])
def test_a_home_that_is_no_clean_path_becomes_the_root(rootfs: Path, home: str) -> None:
    (rootfs / "etc/passwd").write_text(f"web:x:1:1::{home}:/bin/sh\n")
    assert resolve_user(rootfs, UserChoice(), "web").home == "/"


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_a_pipe_in_place_of_the_file_is_refused_without_waiting(rootfs: Path, name: str) -> None:
    (rootfs / "etc" / name).unlink()
    os.mkfifo(rootfs / "etc" / name)
    begun = time.monotonic()
    with pytest.raises(BadInput, match=f"the image's /etc/{name}: not a regular file"):
        resolve_user(rootfs, UserChoice(), "0")
    assert time.monotonic() - begun < 1


def test_a_directory_or_a_loop_of_links_in_place_of_the_file_is_refused(rootfs: Path) -> None:
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").mkdir()
    with pytest.raises(BadInput, match="not a regular file"):
        resolve_user(rootfs, UserChoice(), "0")
    (rootfs / "etc/passwd").rmdir()
    (rootfs / "etc/passwd").symlink_to("passwd")
    with pytest.raises(BadInput, match=r"cannot be opened \(Too many levels of symbolic links\)"):
        resolve_user(rootfs, UserChoice(), "0")


def test_a_file_of_ten_gigabytes_is_refused_at_once(rootfs: Path) -> None:
    os.truncate(rootfs / "etc/passwd", 10 << 30)
    begun = time.monotonic()
    with pytest.raises(BadInput, match="10737418240 bytes, over the 1048576"):
        resolve_user(rootfs, UserChoice(), "web")
    assert time.monotonic() - begun < 1


def test_an_endless_line_hides_nothing_but_itself(rootfs: Path) -> None:
    line = "x" * (1 << 19)
    (rootfs / "etc/passwd").write_text(f"{line}\nweb:x:1000:1000::/home/web:/bin/sh\n")
    assert resolve_user(rootfs, UserChoice(), "web").uid == 1000
    with pytest.raises(BadInput, match="is not in the image"):
        resolve_user(rootfs, UserChoice(), line)


def test_links_of_the_image_stay_inside_the_image(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("host:x:0:0::/:/bin/sh\n")
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").symlink_to("../../../../../../" + str(tmp_path / "secret"))
    assert resolve_user(rootfs, UserChoice(), "0") == ResolvedUser(groups=(0,))
    (rootfs / "real").write_text("in:x:3:4::/in:/bin/sh\n")
    (rootfs / "etc/passwd").unlink()
    (rootfs / "etc/passwd").symlink_to("/real")
    assert resolve_user(rootfs, UserChoice(), "in").uid == 3


def test_absent_files_are_none_and_large_ones_are_refused(rootfs: Path) -> None:
    assert read_regular(rootfs, "/etc/none", most=10) is None
    assert read_regular(rootfs, "/etc/passwd/below", most=10) is None
    (rootfs / "ten").write_text("0123456789")
    assert read_regular(rootfs, "/ten", most=10) == b"0123456789"
    with pytest.raises(BadInput, match="10 bytes, over the 9"):
        read_regular(rootfs, "/ten", most=9)


def test_a_working_directory_is_normalised_and_need_not_exist(rootfs: Path) -> None:
    (rootfs / "app").mkdir()
    (rootfs / "link").symlink_to("/app")
    assert [check_working_dir(rootfs, path) for path in ("/app/", "/link", "/a/../new", "//")] == [
        "/app",
        "/link",
        "/new",
        "/",
    ]


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("../../../etc", "leads above the root file system"),
        ("/proc/self/fd/7", "leads through a process's descriptors"),
        ("/proc/1/root", "leads through a process's descriptors"),
        ("/dev/fd/8", "leads through a process's descriptors"),
        ("work", "over 40 symbolic links"),
        ("etc/passwd", "is not a directory in the image"),
    ],
)
def test_a_working_directory_through_a_bad_link_is_refused(rootfs: Path, link: str, message: str) -> None:
    (rootfs / "work").symlink_to(link)
    with pytest.raises(BadInput, match=f"^config.working_dir: .*{message}"):
        check_working_dir(rootfs, "/work")


@pytest.mark.parametrize("number", range(0, 300, 7))
def test_no_descriptor_can_be_the_working_directory(rootfs: Path, number: int) -> None:
    for path in (
        f"/proc/self/fd/{number}",
        f"/proc/thread-self/fd/{number}/..",
        f"/proc/../proc/9/fd/{number}",
    ):
        with pytest.raises(BadInput, match="leads through a process's descriptors"):
            check_working_dir(rootfs, path)


def test_a_working_directory_must_be_absolute(rootfs: Path) -> None:
    with pytest.raises(BadInput, match="'app' is not an absolute path"):
        check_working_dir(rootfs, "app")


@pytest.mark.parametrize("path", ["proc", "sys", "dev"])
def test_a_kernel_file_system_on_a_link_is_refused(rootfs: Path, path: str) -> None:
    (rootfs / path).symlink_to("etc")
    with pytest.raises(BadInput, match=f"the image's /{path} is a symbolic link"):
        check_mount_targets(rootfs, [])


@pytest.mark.parametrize("link", ["/", "../../..", "/proc/sys", "proc"])
def test_a_mount_target_that_links_lead_astray_is_refused(rootfs: Path, link: str) -> None:
    (rootfs / "proc").mkdir()
    (rootfs / "data").symlink_to(link)
    with pytest.raises(BadInput, match="mount target '/data': links in the image lead it to"):
        check_mount_targets(rootfs, ["/data/"])


def test_a_pod_file_that_links_into_proc_is_refused(rootfs: Path) -> None:
    (rootfs / "etc/hostname").symlink_to("/proc/sys/kernel/hostname")
    with pytest.raises(BadInput, match="mount target '/etc/hostname'"):
        check_mount_targets(rootfs, [])


def test_harmless_links_to_mount_targets_are_followed(rootfs: Path) -> None:
    (rootfs / "etc/resolv.conf").symlink_to("../../run/systemd/resolve/stub-resolv.conf")
    (rootfs / "var").mkdir()
    (rootfs / "var/run").symlink_to("/run")
    check_mount_targets(rootfs, ["/var/run/secrets", "/proc/cpuinfo", "/new/place"])
