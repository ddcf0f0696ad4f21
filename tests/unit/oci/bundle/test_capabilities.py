"""Capabilities: names, ALL and its exceptions, and what the daemon cannot give."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.bundle.capabilities import KNOWN, CapabilitySets, from_mask, resolve
from oci.bundle.inputs import DEFAULT_CAPABILITIES
from oci.errors import BadInput
from oci.workload import Capabilities

EVERYTHING = frozenset(KNOWN)
DEFAULT = tuple(name for name in KNOWN if name in DEFAULT_CAPABILITIES)


def _resolve(
    *, add: tuple[str, ...] = (), drop: tuple[str, ...] = (), ambient: tuple[str, ...] = (),
    privileged: bool = False, available: frozenset[str] = EVERYTHING,
) -> CapabilitySets:  # fmt: skip
    asked = Capabilities(add=add, drop=drop, add_ambient=ambient)
    return resolve(asked, privileged=privileged, defaults=DEFAULT_CAPABILITIES, available=available)


def test_nothing_asked_is_the_default_set_with_nothing_inheritable() -> None:
    assert _resolve().to_oci() == {
        "bounding": list(DEFAULT),
        "effective": list(DEFAULT),
        "permitted": list(DEFAULT),
        "inheritable": [],
        "ambient": [],
    }


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), ("ALL",), ()),
        (("ALL",), (), KNOWN),
        (("NET_ADMIN",), ("ALL",), ("CAP_NET_ADMIN",)),
        (("all",), ("cap_kill",), tuple(name for name in KNOWN if name != "CAP_KILL")),
        (("ALL",), ("ALL",), ()),
        (("CAP_SYSLOG", "SYSLOG"), ("ALL",), ("CAP_SYSLOG",)),
        (("NET_ADMIN",), ("ALL", "NET_ADMIN"), ()),
        ((), ("NET_RAW",), tuple(name for name in DEFAULT if name != "CAP_NET_RAW")),
    ],
)
def test_all_in_one_list_makes_the_other_its_exceptions(
    add: tuple[str, ...], drop: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert _resolve(add=add, drop=drop) == CapabilitySets(bounding=expected)


@pytest.mark.parametrize("member", ["add", "drop", "ambient"])
def test_a_name_that_no_kernel_has_is_refused_with_its_list(member: str) -> None:
    field = {"add": "add_capabilities", "drop": "drop_capabilities", "ambient": "add_ambient_capabilities"}[
        member
    ]
    with pytest.raises(BadInput, match=re.escape(f"capabilities.{field}: unknown capability 'FLY'")):
        _resolve(**{member: ("FLY",)})  # type: ignore[arg-type]


def test_ambient_capabilities_are_inheritable_too_as_the_kernel_demands() -> None:
    assert _resolve(drop=("ALL",), ambient=("NET_BIND_SERVICE",)) == CapabilitySets(
        bounding=("CAP_NET_BIND_SERVICE",),
        inheritable=("CAP_NET_BIND_SERVICE",),
        ambient=("CAP_NET_BIND_SERVICE",),
    )


def test_privileged_is_everything_whatever_is_dropped() -> None:
    assert _resolve(privileged=True, drop=("ALL",)) == CapabilitySets(bounding=KNOWN)


def test_what_the_daemon_lacks_is_left_out_and_told_only_if_it_was_asked_for() -> None:
    available = EVERYTHING - {"CAP_SYS_RESOURCE", "CAP_MKNOD"}
    assert _resolve(available=available) == CapabilitySets(
        bounding=tuple(name for name in DEFAULT if name != "CAP_MKNOD")
    )
    assert _resolve(add=("SYS_RESOURCE",), drop=("ALL",), available=available) == CapabilitySets(
        bounding=(), missing=("CAP_SYS_RESOURCE",)
    )
    assert _resolve(privileged=True, available=available).missing == ("CAP_SYS_RESOURCE", "CAP_MKNOD")


def test_a_mask_names_its_bits() -> None:
    assert from_mask(0b1001) == {"CAP_CHOWN", "CAP_FOWNER"}
    assert from_mask((1 << 64) - 1) == EVERYTHING
    assert len(KNOWN) == 41 and KNOWN.index("CAP_CHECKPOINT_RESTORE") == 40


names = st.lists(st.sampled_from([*KNOWN, "ALL"]), max_size=5).map(tuple)


@given(add=names, drop=names, privileged=st.booleans(), available=st.frozensets(st.sampled_from(KNOWN)))
def test_no_request_gets_more_than_the_daemon_has(
    add: tuple[str, ...], drop: tuple[str, ...], privileged: bool, available: frozenset[str]
) -> None:
    sets = _resolve(add=add, drop=drop, privileged=privileged, available=available)
    assert set(sets.bounding) <= available
    assert sets.inheritable == () and sets.ambient == ()
    if not privileged:
        assert not set(sets.bounding) & (set(drop) - {"ALL"})
