"""What the configuration gives to every container, in the words of the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from config.containers import ContainerSettings
from oci.bundle.inputs import BundleDefaults, DefaultMount, Rlimit

_LOCALTIME = "/etc/localtime"
_ZONES = "/usr/share/zoneinfo"


def bundle_defaults(
    settings: ContainerSettings,
    *,
    apparmor_profile: str = "",
    seccomp_profile: Mapping[str, Any] | None = None,
) -> BundleDefaults:
    """The profiles are what RuntimeDefault means: "" for none loaded, None for the built-in one."""
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
        seccomp_profile=seccomp_profile,
        apparmor_profile=apparmor_profile,
        inheritable_capabilities=settings.inheritable_capabilities,
        masked_paths=settings.masked_paths,
        readonly_paths=settings.readonly_paths,
        mounts=(*_time_zone(settings.timezone), *(_mount(text) for text in settings.default_mounts)),
        umask=int(settings.umask, 8) if settings.umask else None,
        min_memory=int(settings.min_memory),
        device_ownership_from_user=settings.device_ownership_from_user,
    )


def _mount(text: str) -> DefaultMount:
    source, target, *access = text.split(":")
    return DefaultMount(source=source, target=target, readonly=access == ["ro"])


def _time_zone(name: str) -> tuple[DefaultMount, ...]:
    if not name:
        return ()
    source = _LOCALTIME if name == "local" else f"{_ZONES}/{name}"
    return (DefaultMount(source=source, target=_LOCALTIME, readonly=True),)
