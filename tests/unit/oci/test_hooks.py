"""Hook files: which containers they are for, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oci.bundle import build
from oci.cdi import Hook
from oci.errors import BadInput
from oci.hooks import HookFile, by_name, parse
from tests import bundles


def file(stages: tuple[str, ...] = ("poststop",), path: str = "/usr/libexec/hook", **when: Any) -> HookFile:
    document = {"version": "1.0.0", "hook": {"path": path}, "when": when, "stages": stages}
    return parse(json.dumps(document).encode(), source="/etc/hooks/a.json")


@pytest.mark.parametrize(
    ("when", "applies"),
    [
        ({}, False),
        ({"always": True}, True),
        ({"always": False}, False),
        ({"commands": ["/sh$"]}, True),
        ({"commands": ["^sh$", "python"]}, False),
        ({"annotations": {"^a$": "^1"}}, True),
        ({"annotations": {"^a$": "^2"}}, False),
        ({"annotations": {"^a$": "^1", "^b$": ""}}, False),
        ({"hasBindMounts": True}, False),
        ({"hasBindMounts": False}, True),
        ({"always": True, "hasBindMounts": True}, False),
    ],
)
def test_all_that_is_set_must_hold(when: dict[str, Any], applies: bool) -> None:
    asked = file(**when).applies(command="/bin/sh", annotations={"a": "1"}, bind_mounts=False)
    assert asked is applies


def test_a_later_directory_replaces_a_file_and_names_give_the_order() -> None:
    low, high, other = file(path="/low"), file(path="/high"), file(path="/other")
    assert by_name([[("b.json", low), ("a.json", other)], [("b.json", high)]]) == (other, high)


def test_hooks_reach_the_configuration_at_each_of_their_stages() -> None:
    hooked = file(("createRuntime", "poststop"), always=True)
    made = build(bundles.inputs(hooks=(hooked, file(always=False)))).config

    assert hooked.hooks[0] == Hook(hookName="createRuntime", path="/usr/libexec/hook")
    assert made["hooks"] == {
        "createRuntime": [{"path": "/usr/libexec/hook"}],
        "poststop": [{"path": "/usr/libexec/hook"}],
    }
    assert "hooks" not in build(bundles.inputs(hooks=(file(always=False),))).config


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"version": "0.1.0"}, "version: '0.1.0' is not 1.0.0"),
        ({"hook": {"path": "hook"}}, "hook.path:"),
        ({"hook": {"path": "/a", "timeout": 0}}, "hook.timeout:"),
        ({"stages": []}, "stages:"),
        ({"stages": ["later"]}, "stages.0:"),
        ({"when": {"commands": ["("]}}, "when.commands: '(' is not a regular expression"),
        ({"when": {"annotations": {"a": "["}}}, "when.annotations: '[' is not a regular expression"),
        ({"when": {"never": True}}, "when.never: extra inputs"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_member(changed: dict[str, Any], words: str) -> None:
    document = {"version": "1.0.0", "hook": {"path": "/a"}, "when": {"always": True}, "stages": ["poststop"]}
    with pytest.raises(BadInput) as caught:
        parse(json.dumps({**document, **changed}).encode(), source="/etc/hooks/a.json")
    assert caught.value.message.startswith("hook /etc/hooks/a.json: ")
    assert words in caught.value.message
