from __future__ import annotations

from config.models import ContainerSettings, Ulimit
from oci.bundle.inputs import BundleDefaults, Rlimit
from shim.defaults import bundle_defaults


def test_the_settings_defaults_are_the_bundles_defaults() -> None:
    assert bundle_defaults(ContainerSettings()) == BundleDefaults()


def test_what_is_configured_reaches_the_bundle() -> None:
    settings = ContainerSettings(
        default_capabilities=("CAP_KILL",),
        default_ulimits={"core": Ulimit(soft=0, hard=-1)},
        default_env=("A=b=c", "EMPTY="),
        default_pids_limit=7,
        unset_seccomp="runtime-default",
    )
    assert bundle_defaults(settings, apparmor_profile="crisp-default") == BundleDefaults(
        capabilities=("CAP_KILL",),
        rlimits={"RLIMIT_CORE": Rlimit(soft=0, hard=-1)},
        env=(("A", "b=c"), ("EMPTY", "")),
        pids_limit=7,
        seccomp_when_unset=True,
        apparmor_profile="crisp-default",
    )
