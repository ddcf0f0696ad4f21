"""What the configuration gives to every container, in the words of the bundle."""

from __future__ import annotations

from config.models import ContainerSettings
from oci.bundle.inputs import BundleDefaults, Rlimit


def bundle_defaults(settings: ContainerSettings, *, apparmor_profile: str = "") -> BundleDefaults:
    """`apparmor_profile` is the loaded profile that RuntimeDefault means, "" if none is."""
    environment = (entry.partition("=") for entry in settings.default_env)
    return BundleDefaults(
        capabilities=settings.default_capabilities,
        rlimits={
            f"RLIMIT_{name.upper()}": Rlimit(soft=limit.soft, hard=limit.hard)
            for name, limit in settings.default_ulimits.items()
        },
        env=tuple((name, value) for name, _, value in environment),
        pids_limit=settings.default_pids_limit,
        seccomp_when_unset=settings.unset_seccomp == "runtime-default",
        apparmor_profile=apparmor_profile,
    )
