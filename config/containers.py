"""Settings of containers: what they get when their request does not say."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from config.table import Table, between_keys
from config.units import Bytes, Seconds
from config.values import (
    AbsolutePath,
    AppArmorName,
    CapabilityNames,
    ContainerPaths,
    Duration,
    EnvironmentTexts,
    MountTexts,
    Paths,
    PositiveDuration,
    Size,
    SysctlTexts,
    TimeZone,
    Umask,
)


class Ulimit(Table):
    """One resource limit, as setrlimit(2) takes it; -1 is unlimited."""

    soft: int = Field(default=-1, ge=-1, description="The soft limit.")
    hard: int = Field(default=-1, ge=-1, description="The hard limit.")

    @model_validator(mode="after")
    def _soft_below_hard(self) -> Ulimit:
        if self.hard != -1 and (self.soft == -1 or self.soft > self.hard):
            raise between_keys("soft", f"the soft limit {self.soft} is above the hard limit {self.hard}")
        return self


UlimitName = Literal[
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
]  # fmt: skip


class ContainerSettings(Table):
    """What containers get when their request does not say, and how long the daemon waits for runtimes."""

    default_capabilities: CapabilityNames = Field(
        default=(
            "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
            "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
            "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
        ),
        description="Capabilities of a container before its request adds and drops.",
    )  # fmt: skip
    default_ulimits: dict[UlimitName, Ulimit] = Field(
        default={"nofile": Ulimit(soft=1024, hard=524288)},
        description="Resource limits of containers, a table for each name of getrlimit(2) in lower case."
        " Setting one replaces the default; limits that are not named are the daemon's own.",
    )
    default_env: EnvironmentTexts = Field(
        default=(),
        description="Environment of containers, `NAME=VALUE`, before the image's and the request's.",
    )
    default_pids_limit: int = Field(
        default=0, ge=0, description="The most processes of a container; 0 sets no limit."
    )
    unset_seccomp: Literal["unconfined", "runtime-default"] = Field(
        default="unconfined",
        description="The seccomp profile of a container whose request has none; Kubernetes expects"
        " `unconfined`.",
    )
    inheritable_capabilities: bool = Field(
        default=False,
        description="Put a container's capabilities into the inheritable set too, so that programs with file"
        " capabilities gain them for users other than root.",
    )
    default_sysctls: SysctlTexts = Field(
        default=(),
        description="Sysctls of every pod, `NAME=VALUE`, such as `net.ipv4.ip_unprivileged_port_start=0`;"
        " those of a namespace that the pod shares with the node are left out, the request's win.",
    )
    masked_paths: ContainerPaths = Field(
        default=(), description="Paths that are hidden from every container that is not privileged."
    )
    readonly_paths: ContainerPaths = Field(
        default=(), description="Paths that are read-only in every container that is not privileged."
    )
    seccomp_profile: AbsolutePath | None = Field(
        default=None,
        description="A seccomp profile (JSON, as `linux.seccomp` of the OCI runtime specification) that"
        " RuntimeDefault means. Unset: the built-in one.",
    )
    apparmor_profile: AppArmorName = Field(
        default="crisp-default",
        description="The AppArmor profile that RuntimeDefault means, and that containers get whose request"
        " names none. `crisp-default` is loaded at start; another must be loaded already.",
    )
    default_mounts: MountTexts = Field(
        default=(),
        description="Mounts of every container, `SOURCE:TARGET` or `SOURCE:TARGET:ro`; a source that is not"
        " there refuses the container, a mount of the request at the same path wins.",
    )
    timezone: TimeZone = Field(
        default="",
        description="The time zone of containers, put at /etc/localtime: a name of /usr/share/zoneinfo, or"
        " `local` for the node's. Empty: the image's.",
    )
    umask: Umask = Field(
        default="", description="The umask of containers, octal, such as `0027`. Empty: the runtime's, 0022."
    )
    min_memory: Size = Field(
        default=Bytes(0), description="The least memory limit that a container may ask for; `0B` takes all."
    )
    device_ownership_from_user: bool = Field(
        default=False,
        description="Devices that a container asks for belong to the user that it runs as, where that is not"
        " root, so that it may use them.",
    )
    hooks_dirs: Paths = Field(
        default=(),
        description="Directories of hooks (oci-hooks(5), `*.json`), read at each creation of a container. Of"
        " two files of one name the one in the later directory counts.",
    )
    cdi_spec_dirs: Paths = Field(
        default=(Path("/etc/cdi"), Path("/var/run/cdi")),
        description="Where CDI specifications (`*.json`, `*.yaml`) are read, at each request for a device."
        " Of two that have a device of one name the one in the later directory counts. Empty: no CDI.",
    )
    shm_size: Size = Field(default=Bytes(64 * 2**20), description="The size of a pod's /dev/shm.")
    init_binary: AbsolutePath | None = Field(
        default=None,
        description="The first process of pods that need one (catatonit). Unset: `catatonit` on PATH.",
    )
    runtime_timeout: PositiveDuration = Field(
        default=Seconds(120), description="The longest that one call of a runtime may take (not exec)."
    )
    kill_timeout: PositiveDuration = Field(
        default=Seconds(10), description="How long after SIGKILL a container may take to be gone."
    )
    exec_drain_timeout: Duration = Field(
        default=Seconds(10),
        description="How long ExecSync waits for output after its process ended, if others keep the pipe.",
    )
