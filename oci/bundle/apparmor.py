"""The AppArmor profile that RuntimeDefault means, as apparmor_parser(8) reads it (apparmor.d(5)). Pure.

It lets a container do what its capabilities and its file system let it, except what is dangerous even to a
confined root: to mount, to write to files of /proc and /sys that are the node's, to read a few of them, to
signal or trace what is not of the same profile.
"""

from __future__ import annotations

from collections.abc import Iterable

NAME = "crisp-default"

WRITABLE_PROC = (
    "sys/net/",
    "sys/fs/mqueue/",
    "sys/kernel/shm",
    "sys/kernel/msg",
    "sys/kernel/sem",
)
"""What of /proc beside the processes' own directories is a container's: settings of its namespaces."""

WRITABLE_SYS = ("fs/cgroup/",)

UNREADABLE = (
    "/proc/kcore",
    "/proc/sysrq-trigger",
    "/sys/firmware/**",
    "/sys/kernel/security/**",
    "/sys/devices/virtual/powercap/**",
)

_SIGNALLERS = ("unconfined", "runc", "crun")
"""Who may end a container: the daemon, and runtimes that a distribution confines."""


def default_profile(name: str = NAME) -> str:
    """The text of the profile. `name` has no quotes, blanks or slashes."""
    rules = [
        "network,",
        "capability,",
        "file,",
        "umount,",
        "deny mount,",
        f'signal (send, receive) peer="{name}",',
        *(f"signal (receive) peer={peer}," for peer in _SIGNALLERS),
        f'ptrace (trace, read, tracedby, readby) peer="{name}",',
        *(f"deny {path} rwklx," for path in UNREADABLE),
        *(f"deny {path} wkl," for path in all_but("/proc/", WRITABLE_PROC, besides="1-9")),
        *(f"deny {path} wkl," for path in all_but("/sys/", WRITABLE_SYS)),
    ]
    lines = "".join(f"  {rule}\n" for rule in rules)
    return f'profile "{name}" flags=(attach_disconnected,mediate_deleted) {{\n{lines}}}\n'


def all_but(root: str, allowed: Iterable[str], *, besides: str = "") -> tuple[str, ...]:
    """Patterns that match every path below `root` except those that begin with one of `allowed`.

    AppArmor has no exceptions from a `deny`, so each pattern leaves the allowed texts at another character.
    `besides` are characters, or a range, that a name directly below the root may begin with.
    """
    texts = tuple(allowed)
    prefixes = {text[:length] for text in texts for length in range(len(text))}
    patterns = []
    for prefix in sorted(prefixes):
        following = "".join(
            sorted({text[len(prefix)] for text in texts if text.startswith(prefix) and text != prefix})
        )
        patterns.append(f"{root}{prefix}[^{besides if not prefix else ''}{following}]**")
    return tuple(patterns)
