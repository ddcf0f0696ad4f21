"""What runtimes say of themselves, from recorded outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from oci.errors import BadInput
from oci.features import (
    ExecGroup,
    HandlerFeatures,
    RuntimeVersion,
    assumed_features,
    parse_exec_help,
    parse_features,
    parse_version,
)

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "runtimes"
RUNC = (GOLDEN / "runc-1.1.5-features.json").read_bytes()
CRUN_WORDS = frozenset({"SYSTEMD", "SELINUX", "APPARMOR", "CAP", "SECCOMP", "EBPF", "YAJL"})


def changed(path: str, value: Any) -> str:
    """The recorded features of runc with one member replaced, or taken away with None."""
    document = json.loads(RUNC)
    *parents, last = path.split("/")
    table = document
    for key in parents:
        table = table.setdefault(key, {})
    if value is None:
        del table[last]
    else:
        table[last] = value
    return json.dumps(document)


def test_runc_1_1_5_has_recursive_read_only_but_no_idmap_and_so_no_user_namespaces() -> None:
    assert parse_features(RUNC, kernel=(6, 1, 0)) == HandlerFeatures(
        recursive_read_only_mounts=True,
        user_namespaces=False,
        idmapped_mounts=False,
        seccomp=True,
        apparmor=True,
        selinux=True,
        checkpoint=True,
    )


def test_user_namespaces_need_the_namespace_and_idmapped_mounts() -> None:
    idmap = changed("linux/mountExtensions", {"idmap": {"enabled": True}})
    assert parse_features(idmap, kernel=(6, 1)).user_namespaces is True
    document = json.loads(idmap)
    document["linux"]["namespaces"].remove("user")
    without = parse_features(json.dumps(document), kernel=(6, 1))
    assert (without.user_namespaces, without.idmapped_mounts) == (False, True)


@pytest.mark.parametrize(
    ("kernel", "there"), [((5, 11, 99), False), ((5, 12, 0), True), ((6, 1, 0), True), ((4, 19), False)]
)
def test_recursive_read_only_needs_a_kernel_that_knows_it(kernel: tuple[int, ...], there: bool) -> None:
    assert parse_features(RUNC, kernel=kernel).recursive_read_only_mounts is there


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("mountOptions", ["ro"], {"recursive_read_only_mounts": False}),
        ("mountOptions", None, {"recursive_read_only_mounts": False}),
        ("linux/seccomp", {"enabled": False}, {"seccomp": False}),
        ("linux/apparmor/enabled", False, {"apparmor": False}),
        ("linux/selinux/enabled", False, {"selinux": False}),
        ("annotations/org.opencontainers.runc.checkpoint.enabled", "false", {"checkpoint": False}),
        ("annotations", None, {"checkpoint": False}),
        ("linux", [], {}),
        ("linux/mountExtensions", {"idmap": True}, {}),
        ("linux/mountExtensions", {"idmap": {"enabled": "true"}}, {}),
    ],
)  # fmt: skip
def test_each_feature_comes_from_its_own_member(path: str, value: Any, expected: dict[str, bool]) -> None:
    recorded = {
        "recursive_read_only_mounts": True, "user_namespaces": False, "idmapped_mounts": False,
        "seccomp": True, "apparmor": True, "selinux": True, "checkpoint": True,
    }  # fmt: skip
    assert parse_features(changed(path, value), kernel=(6, 1)) == HandlerFeatures(**{**recorded, **expected})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "features printed no JSON: Expecting value"),
        ("unknown command features", "features printed no JSON: Expecting value"),
        ("[]", "features printed a JSON list, not an object"),
        ("{}", "features printed no ociVersionMin, which the specification demands"),
        (changed("ociVersionMax", ""), "features printed no ociVersionMax, which the specification demands"),
        (changed("ociVersionMin", 1), "features printed no ociVersionMin, which the specification demands"),
        (b"\xff", "features printed no JSON: "),
    ],
)
def test_what_is_no_features_document_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse_features(text, kernel=(6, 1))
    assert refused.value.message.startswith(message)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            (GOLDEN / "runc-1.1.5-version.txt").read_text(),
            RuntimeVersion(name="runc", version="1.1.5+ds1", spec="1.0.2-dev"),
        ),
        (
            (GOLDEN / "crun-1.8.1-version.txt").read_text(),
            RuntimeVersion(name="crun", version="1.8.1", spec="1.0.0", built_with=CRUN_WORDS),
        ),
        (
            (GOLDEN / "conmon-2.1.6-version.txt").read_text(),
            RuntimeVersion(name="conmon", version="2.1.6"),
        ),
        (
            "runsc version release-20221219.0\nspec: 1.0.2\n",
            RuntimeVersion(name="runsc", version="release-20221219.0", spec="1.0.2"),
        ),
        ("kata-runtime  : 1.13.0\n", RuntimeVersion(name="kata-runtime", version="1.13.0")),
        ("youki version: 0.5.7\n", RuntimeVersion(name="youki", version="0.5.7")),
        ("youki 0.3.0\n", RuntimeVersion(name="youki", version="0.3.0")),
        ("crun version 1.21-dirty\n-CAP +SECCOMP a+b\n",
         RuntimeVersion(name="crun", version="1.21-dirty", built_with=frozenset({"SECCOMP"}))),
    ],
)  # fmt: skip
def test_a_version_is_read_from_its_first_line(text: str, version: RuntimeVersion) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    "text", ["", "\n", "true (GNU coreutils) 9.1", "usage: thing [OPTIONS]", "runc version unknown"]
)
def test_a_program_that_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="which names no version"):
        parse_version(text)


def test_a_runtime_without_features_has_what_its_version_says_and_neither_user_namespaces_nor_rro() -> None:
    crun = parse_version((GOLDEN / "crun-1.8.1-version.txt").read_text())
    assert assumed_features(crun) == HandlerFeatures(recursive_read_only_mounts=False, user_namespaces=False)
    bare = RuntimeVersion(name="crun", version="1.8.1", built_with=frozenset({"CAP"}))
    assert assumed_features(bare) == HandlerFeatures(seccomp=False, apparmor=False, selinux=False)
    assert assumed_features(RuntimeVersion(name="kata-runtime", version="1.13.0")) == HandlerFeatures()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "   --pid-file value    specify the file\n"
            "   --cgroup value      run the process in an (existing) sub-cgroup(s)."
            " Format is [<controller>:]<cgroup>.\n   --ignore-paused     allow exec\n",
            ExecGroup.CONTROLLER,
        ),
        ("      --cgroup=PATH          sub-cgroup in the container\n", ExecGroup.PATH),
        ("      --cgroup <CGROUP>\n          [<controller>:]<cgroup>\n", ExecGroup.CONTROLLER),
        ("      --cgroup <CGROUP>\n      --other  [<controller>:]\n", ExecGroup.PATH),
        ("   -e, --env\n   --no-cgroup of <controller>:\n", ExecGroup.NONE),
        ("", ExecGroup.NONE),
    ],
)
def test_whether_an_exec_gets_a_group_is_read_from_its_help(text: str, found: ExecGroup) -> None:
    assert parse_exec_help(text) is found
