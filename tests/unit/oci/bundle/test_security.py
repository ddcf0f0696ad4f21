"""Hidden paths, seccomp, AppArmor and SELinux: exactly what was asked, or a refusal that says why."""

from __future__ import annotations

import re
from typing import Any

import pytest

from oci.bundle import BundleDefaults, BundleInputs, HandlerTraits
from oci.bundle.security import apparmor_profile, hidden_paths, seccomp_filter, selinux_labels
from oci.errors import BadInput, Unsupported
from oci.workload import ContainerSecurity, PodSecurity, ProfileKind, SecurityProfile, SelinuxOption
from tests import bundles

DEFAULT = SecurityProfile(kind=ProfileKind.RUNTIME_DEFAULT)
UNCONFINED = SecurityProfile(kind=ProfileKind.UNCONFINED)
LOCAL = SecurityProfile(kind=ProfileKind.LOCALHOST, ref="/p.json")
OWN = {"defaultAction": "SCMP_ACT_LOG"}


def inputs(
    *, pod: PodSecurity | None = None, more: dict[str, Any] | None = None, **security: Any
) -> BundleInputs:
    return bundles.inputs(
        container=bundles.container(security=ContainerSecurity(**security)),
        pod=bundles.pod(security=pod or PodSecurity(privileged=True)),
        **(more or {}),
    )


def filtered(**changed: Any) -> Any:
    return seccomp_filter(inputs(**changed), frozenset())


def test_paths_are_hidden_exactly_as_asked_and_never_for_the_privileged() -> None:
    asked = {"masked_paths": ("/proc/keys",), "readonly_paths": ("/proc/sys/",)}
    assert hidden_paths(inputs(**asked)) == {"maskedPaths": ["/proc/keys"], "readonlyPaths": ["/proc/sys"]}
    assert hidden_paths(inputs()) == {"maskedPaths": [], "readonlyPaths": []}
    assert hidden_paths(inputs(privileged=True, **asked)) == {}


def test_what_is_hidden_is_not_made_read_only_too() -> None:
    asked = {"masked_paths": ("/proc/keys",), "readonly_paths": ("/proc/keys/", "/proc/sys")}
    assert hidden_paths(inputs(**asked)) == {"maskedPaths": ["/proc/keys"], "readonlyPaths": ["/proc/sys"]}


def test_no_profile_is_no_filter_unless_the_node_says_so() -> None:
    fill = {"defaults": BundleDefaults(seccomp_when_unset=True)}
    assert filtered() is None
    assert filtered(more=fill)["defaultAction"] == "SCMP_ACT_ERRNO"
    assert filtered(more=fill, seccomp=UNCONFINED) is None


def test_each_kind_of_profile_gives_its_filter() -> None:
    assert filtered(seccomp=DEFAULT)["defaultErrnoRet"] == 1
    assert filtered(seccomp=DEFAULT, more={"defaults": BundleDefaults(seccomp_profile=OWN)}) == OWN
    assert filtered(seccomp=LOCAL, more={"localhost_seccomp": OWN}) == OWN
    assert filtered(seccomp=UNCONFINED) is None


@pytest.mark.parametrize("profile", [DEFAULT, LOCAL])
def test_the_privileged_have_no_filter(profile: SecurityProfile) -> None:
    assert filtered(seccomp=profile, privileged=True) is None


@pytest.mark.parametrize(
    ("member", "profile", "message"),
    [
        (
            "seccomp",
            SecurityProfile(kind=ProfileKind.LOCALHOST),
            "seccomp.localhost_ref: empty, with profile type",
        ),
        (
            "seccomp",
            SecurityProfile(kind=ProfileKind.UNCONFINED, ref="/x"),
            "seccomp.localhost_ref: set, with profile",
        ),
        ("seccomp", LOCAL, "seccomp.localhost_ref: no profile '/p.json' was read"),
        ("apparmor", SecurityProfile(kind=ProfileKind.LOCALHOST), "apparmor.localhost_ref: empty"),
        (
            "apparmor",
            SecurityProfile(kind=ProfileKind.LOCALHOST, ref="a b"),
            "apparmor.localhost_ref: 'a b' is not",
        ),
    ],
)
def test_a_profile_that_cannot_be_is_refused(member: str, profile: SecurityProfile, message: str) -> None:
    asked = inputs(**{member: profile}, more={"host": bundles.host(apparmor=True)})
    with pytest.raises(BadInput, match=re.escape(f"config.linux.security_context.{message}")):
        seccomp_filter(asked, frozenset()) if member == "seccomp" else apparmor_profile(asked)


@pytest.mark.parametrize(
    ("more", "who"),
    [
        ({"host": bundles.host(seccomp=False)}, "the kernel"),
        ({"handler": HandlerTraits(name="k", seccomp=False)}, "handler 'k'"),
    ],
)
def test_a_filter_that_was_asked_for_and_cannot_be_had_is_an_error(more: dict[str, Any], who: str) -> None:
    with pytest.raises(Unsupported, match=f"{who} has no seccomp filters, runtime-default was asked for"):
        filtered(seccomp=DEFAULT, more=more)
    assert filtered(more={**more, "defaults": BundleDefaults(seccomp_when_unset=True)}) is None


def test_apparmor_profiles_are_named_where_the_kernel_has_it() -> None:
    more = {"host": bundles.host(apparmor=True), "defaults": BundleDefaults(apparmor_profile="crisp-default")}
    mine = SecurityProfile(kind=ProfileKind.LOCALHOST, ref="localhost/mine")
    assert apparmor_profile(inputs(more=more)) == "crisp-default"
    assert apparmor_profile(inputs(more=more, apparmor=DEFAULT)) == "crisp-default"
    assert apparmor_profile(inputs(more=more, apparmor=mine)) == "mine"
    assert apparmor_profile(inputs(more=more, apparmor=UNCONFINED)) == ""
    assert apparmor_profile(inputs(more=more, apparmor=mine, privileged=True)) == ""


def test_apparmor_that_was_asked_for_and_cannot_be_had_is_an_error() -> None:
    with pytest.raises(
        Unsupported, match="apparmor: the kernel has no AppArmor, runtime-default was asked for"
    ):
        apparmor_profile(inputs(apparmor=DEFAULT))
    with pytest.raises(Unsupported, match="apparmor: no default profile is loaded"):
        apparmor_profile(inputs(apparmor=DEFAULT, more={"host": bundles.host(apparmor=True)}))
    assert apparmor_profile(inputs()) == ""
    assert apparmor_profile(inputs(apparmor=UNCONFINED)) == ""


SELINUX = {"host": bundles.host(selinux=True), "selinux_level": "s0:c1,c2"}


def test_labels_take_the_containers_options_then_the_pods_then_the_customary_ones() -> None:
    pod = PodSecurity(privileged=True, selinux=SelinuxOption(role="r", level="s0:c3,c4"))
    assert selinux_labels(inputs(more=SELINUX)) == (
        "system_u:system_r:container_t:s0:c1,c2",
        "system_u:object_r:container_file_t:s0:c1,c2",
        [],
    )
    assert (
        selinux_labels(inputs(more=SELINUX, pod=pod, selinux=SelinuxOption(type="t")))[0]
        == "system_u:r:t:s0:c3,c4"
    )
    assert selinux_labels(inputs(more=SELINUX, privileged=True))[0] == "system_u:system_r:spc_t:s0"


def test_selinux_options_without_selinux_have_no_effect_and_are_told() -> None:
    assert selinux_labels(inputs()) == ("", "", [])
    assert selinux_labels(inputs(selinux=SelinuxOption(type="spc_t"))) == (
        "",
        "",
        ["SELinux options have no effect: SELinux is off here"],
    )


@pytest.mark.parametrize(
    ("option", "member"),
    [
        (SelinuxOption(level="nonsense"), "level"),
        (SelinuxOption(type="a:b"), "type"),
        (SelinuxOption(user="\n"), "user"),
    ],
)
def test_a_label_that_cannot_be_is_refused_everywhere(option: SelinuxOption, member: str) -> None:
    for more in ({}, SELINUX):
        with pytest.raises(BadInput, match=re.escape(f"security_context.selinux_options.{member}: ")):
            selinux_labels(inputs(more=more, selinux=option))


@pytest.mark.parametrize("level", ["s0", "s0:c1", "s0-s0:c0.c1023", "s0:c1,c2", "s0-s15:c0.c5,c7"])
def test_levels_of_every_form_are_taken(level: str) -> None:
    assert selinux_labels(inputs(more=SELINUX, selinux=SelinuxOption(level=level)))[0].endswith(
        f"container_t:{level}"
    )
