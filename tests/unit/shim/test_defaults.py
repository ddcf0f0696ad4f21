from __future__ import annotations

from config.containers import ContainerSettings, Ulimit
from config.units import Bytes
from oci.bundle.inputs import BundleDefaults, DefaultMount, Rlimit
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
        inheritable_capabilities=True,
        masked_paths=("/sys/a",),
        readonly_paths=("/sys/b",),
        timezone="Europe/Vienna",
        default_mounts=("/a:/b", "/c:/d:ro"),
        umask="0027",
        min_memory=Bytes(12 << 20),
        device_ownership_from_user=True,
    )
    assert bundle_defaults(settings, apparmor_profile="crisp-default") == BundleDefaults(
        capabilities=("CAP_KILL",),
        rlimits={"RLIMIT_CORE": Rlimit(soft=0, hard=-1)},
        env=(("A", "b=c"), ("EMPTY", "")),
        pids_limit=7,
        seccomp_when_unset=True,
        apparmor_profile="crisp-default",
        inheritable_capabilities=True,
        masked_paths=("/sys/a",),
        readonly_paths=("/sys/b",),
        mounts=(
            DefaultMount(source="/usr/share/zoneinfo/Europe/Vienna", target="/etc/localtime", readonly=True),
            DefaultMount(source="/a", target="/b"),
            DefaultMount(source="/c", target="/d", readonly=True),
        ),
        umask=0o027,
        min_memory=12 << 20,
        device_ownership_from_user=True,
    )
