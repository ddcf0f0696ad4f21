"""The table of what is different about each runtime, and what becomes of a configuration by it."""

from __future__ import annotations

from typing import Any

import pytest

from oci.features import HandlerFeatures, RuntimeVersion
from oci.quirks import (
    ROWS,
    Quirks,
    Row,
    corrected,
    fitted,
    fitted_limits,
    fitted_process,
    members,
    quirks_of,
    refused_options,
)


def of(name: str, version: str) -> Quirks:
    return quirks_of(RuntimeVersion(name=name, version=version))


def test_a_runtime_that_the_table_does_not_know_is_taken_for_runc() -> None:
    assert of("new-runtime", "0.1") == of("runc", "1.1.5+ds1") == Quirks()


def test_every_row_sets_what_there_is_and_says_why() -> None:
    assert [row for row in ROWS if not row.sets or not row.sets.keys() <= members() or not row.why] == []
    for row in ROWS:
        features = row.sets.get("features", {})
        assert corrected(HandlerFeatures(), Quirks(features=features)) is not None


def test_rows_hold_for_the_versions_that_they_name() -> None:
    rows = (
        Row(runtime="r", sets={"sandbox": True}, since="1.2", why="w"),
        Row(runtime="r", sets={"keeps_network": False}, before="1.10", why="w"),
        Row(runtime="r", sets={"notes": ("one",)}, why="w"),
        Row(runtime="r", sets={"notes": ("two",)}, why="w"),
    )
    seen = {
        version: quirks_of(RuntimeVersion(name="r", version=version), rows)
        for version in ("1.1.9", "1.2", "1.9.1-dev", "1.10.0+ds1")
    }
    assert {version: (one.sandbox, one.keeps_network) for version, one in seen.items()} == {
        "1.1.9": (False, False),
        "1.2": (True, False),
        "1.9.1-dev": (True, False),
        "1.10.0+ds1": (True, True),
    }
    assert seen["1.2"].notes == ("one", "two")


def test_the_recorded_versions_get_their_quirks() -> None:
    assert (of("crun", "1.8.1").notes != (), of("crun", "1.21").notes) == (True, ())
    assert of("crun", "1.8.1").console_in_foreground
    old, new = of("runsc", "0.0~20221219.0"), of("runsc", "release-20260905.0")
    assert (old.supervise, old.sandbox, old.port_forward) == ("wait", True, False)
    assert (new.supervise, new.sandbox, new.port_forward) == ("wait", True, True)
    assert of("kata-runtime", "1.13.0").supervise == "pid"


def test_what_a_runtime_rejects_is_left_out_and_nothing_else() -> None:
    config: dict[str, Any] = {
        "process": {"selinuxLabel": "l", "args": ["a"]},
        "linux": {"mountLabel": "l", "namespaces": []},
        "root": {"path": "rootfs"},
    }
    before = repr(config)
    assert fitted(config, of("runsc", "release-20260905.0"), cgroup_version=1) == {
        "process": {"args": ["a"]},
        "linux": {"namespaces": []},
        "root": {"path": "rootfs"},
    }
    assert repr(config) == before
    assert fitted(config, of("runc", "1.5.2"), cgroup_version=1) is config
    assert fitted({"process": 5}, Quirks(rejects=("process.x", "a.b.c")), cgroup_version=2) == {"process": 5}


def test_crun_is_told_of_swap_by_one_name_alone() -> None:
    limits: dict[str, Any] = {"memory": {"limit": 5, "swap": 5}, "unified": {"memory.swap.max": "0"}}
    fit = {"memory": {"limit": 5}, "unified": {"memory.swap.max": "0"}}
    crun = of("crun", "1.21")
    assert fitted_limits(limits, crun) == fit
    assert fitted({"linux": {"resources": limits}}, crun, cgroup_version=2) == {"linux": {"resources": fit}}
    assert fitted_limits(limits, of("runc", "1.1.15")) is limits
    alone = {"memory": limits["memory"], "unified": {"memory.high": "4"}}
    assert fitted_limits(alone, crun) is alone
    assert fitted_limits({"cpu": {"shares": 5}}, crun) == {"cpu": {"shares": 5}}


def test_a_mount_that_fails_in_a_joined_pid_namespace_is_left_out_where_it_fails() -> None:
    youki = of("youki", "0.7.0")
    mounts = [{"destination": "/proc", "type": "proc"}, {"destination": "/sys/fs/cgroup", "type": "cgroup"}]
    joined: dict[str, Any] = {
        "mounts": mounts,
        "linux": {"namespaces": [{"type": "pid", "path": "/proc/5/ns/pid"}, {"type": "mount"}]},
    }
    own = {"mounts": mounts, "linux": {"namespaces": [{"type": "pid"}]}}
    assert fitted(joined, youki, cgroup_version=1) == {**joined, "mounts": mounts[:1]}
    assert fitted(joined, youki, cgroup_version=2) is joined
    assert fitted(own, youki, cgroup_version=1) is own
    assert fitted(joined, of("runc", "1.5.2"), cgroup_version=1) is joined


def test_a_shared_pid_namespace_is_not_named_to_a_runtime_that_knows_it_by_no_path() -> None:
    runsc = of("runsc", "release-20260905.0")
    joined: dict[str, Any] = {
        "linux": {"namespaces": [{"type": "pid", "path": "/proc/5/ns/pid"}, {"type": "mount"}]}
    }
    own = {"linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]}}
    assert fitted(joined, runsc, cgroup_version=2) == {"linux": {"namespaces": [{"type": "mount"}]}}
    assert fitted(own, runsc, cgroup_version=2) is own
    assert fitted(joined, of("runc", "1.5.2"), cgroup_version=2) is joined


def test_what_a_runtime_takes_amiss_is_said_in_its_own_words() -> None:
    youki = of("youki", "0.7.0")
    config: dict[str, Any] = {
        "process": {"noNewPrivileges": False, "args": []},
        "linux": {"rootfsPropagation": "rslave", "namespaces": []},
    }
    assert fitted(config, youki, cgroup_version=1) == {
        "process": {"args": []},
        "linux": {"rootfsPropagation": "slave", "namespaces": []},
    }
    kept = {"process": {"noNewPrivileges": True}, "linux": {"rootfsPropagation": "shared"}}
    assert fitted(kept, youki, cgroup_version=1) is kept
    assert fitted_process({"noNewPrivileges": False, "cwd": "/"}, youki) == {"cwd": "/"}


@pytest.mark.parametrize(("options", "refused"), [((), ()), (("--no-pivot", "--x=1"), ("--no-pivot",))])
def test_options_that_a_runtime_does_not_have_are_found(
    options: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    assert refused_options(of("runsc", "release-20260905.0"), options) == refused
    assert refused_options(of("runc", "1.1.5"), options) == ()


def test_what_the_table_knows_goes_over_what_was_found() -> None:
    found = HandlerFeatures(idmapped_mounts=True)
    assert corrected(found, of("runc", "1.5.2")) == found
    assert corrected(found, of("runsc", "release-20260905.0")) == HandlerFeatures(
        idmapped_mounts=True, apparmor=False, selinux=False
    )
