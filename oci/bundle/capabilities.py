"""Which capabilities a container's process gets (capabilities(7), CRI Capability)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from oci.errors import BadInput
from oci.workload import Capabilities

KNOWN = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
    "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
    "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
"""Names in the order of their numbers (linux/capability.h): the index is the bit."""

_NUMBERS = {name: number for number, name in enumerate(KNOWN)}


def from_mask(mask: int) -> frozenset[str]:
    """The names of a bit mask as /proc/PID/status prints it; bits newer than this table are left out."""
    return frozenset(name for number, name in enumerate(KNOWN) if mask >> number & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilitySets:
    """What is asked for, reduced to what can be given, and what the reduction took away."""

    bounding: tuple[str, ...]
    inheritable: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # asked for by name, or by privileged, and not the daemon's to give

    def to_oci(self) -> dict[str, list[str]]:
        """The `capabilities` member of an OCI process."""
        return {
            "bounding": list(self.bounding),
            "effective": list(self.bounding),
            "permitted": list(self.bounding),
            "inheritable": list(self.inheritable),
            "ambient": list(self.ambient),
        }


def resolve(
    asked: Capabilities,
    *,
    privileged: bool,
    defaults: Iterable[str],
    available: Collection[str],
    inheritable: bool = False,
) -> CapabilitySets:
    """Defaults, plus `add`, minus `drop`; ALL in either makes the other list its exceptions.

    The inheritable set stays empty, unless the node says `inheritable`: programs with file capabilities must
    not gain by inheritance. Only add_ambient fills it, since the kernel demands it of ambient capabilities;
    those go to users other than root too. Privileged means every capability, whatever the lists say. Raises
    BadInput for a name that no kernel has.
    """
    add, add_all = _names(asked.add, "add_capabilities")
    drop, drop_all = _names(asked.drop, "drop_capabilities")
    ambient, ambient_all = _names(asked.add_ambient, "add_ambient_capabilities")
    if ambient_all:
        raise BadInput(f"{_FIELD}.add_ambient_capabilities: ALL is not possible here, name each capability")
    if privileged:
        wanted, named = set(KNOWN), set(KNOWN)
        ambient = set()
    else:
        wanted = set(KNOWN) if add_all else set(defaults) & set(KNOWN)
        if drop_all:
            # With ALL on both sides the drop wins, and the names in `add` are the exceptions.
            wanted = set()
        named = add | ambient
        wanted = (wanted | named) - drop
        named -= drop
        ambient -= drop
    given = wanted & set(available)
    return CapabilitySets(
        bounding=_ordered(given),
        inheritable=_ordered(given if inheritable else ambient & given),
        ambient=_ordered(ambient & given),
        missing=_ordered((named if not add_all else wanted) - given),
    )


_FIELD = "config.linux.security_context.capabilities"


def _names(names: Iterable[str], member: str) -> tuple[set[str], bool]:
    found: set[str] = set()
    everything = False
    for name in names:
        upper = name.upper()
        full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if full == "CAP_ALL":
            everything = True
        elif full in _NUMBERS:
            found.add(full)
        else:
            raise BadInput(f"{_FIELD}.{member}: unknown capability {name[:80]!r}")
    return found, everything


def _ordered(names: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=_NUMBERS.__getitem__))
