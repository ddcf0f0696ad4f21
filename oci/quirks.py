"""How runtimes differ from runc, as a table: what each rejects, ignores or needs, by its versions.

To teach Crisp about a runtime, add a row to ROWS: its name as `RUNTIME --version` prints it, the versions it
holds for, what it sets (the members of `Quirks` say what there is), and why, with where that is known from.
Nothing here asks what a handler is called. What a runtime tells by `features` is believed before anything
here; `features` rows only fill in for runtimes that have no such verb.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Any

from oci.features import HandlerFeatures, RuntimeVersion


class Ability(Enum):
    """What containers can do with runc, and some runtimes do not have. Where it lacks, people are told."""

    EXEC_SIGNAL = "exec signal"  # an exec that signal n ended reports 128 + n
    GROUP = "group"  # its cgroup holds its processes, and counts what they use
    LIMITS = "limits"  # of a living container can be changed
    OOM = "oom"  # its memory limit is its own: over it, it is killed, and that is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """What is different about one runtime. The defaults are runc's ways.

    `supervise` is "pid" where the pid file names a process that lives as long as the container and ends with
    its status, so that conmon sees the end; "wait" where it names the whole sandbox's process, and only the
    runtime's own `wait` knows.
    """

    supervise: str = "pid"
    inside: bool = False  # containers are no processes of this machine: only the runtime can send signals
    sandbox: bool = False  # each pod has a first container, which makes what the others run in
    console_in_foreground: bool = False  # exec hands its terminal to --console-socket without --detach
    rejects: tuple[str, ...] = ()  # members of config.json that make create fail: left out
    joins_pids_without: tuple[str, ...] = ()  # types of mounts that fail in a joined PID namespace (v1)
    joins_pids_by_path: bool = True  # else a container without an entry for it is in the pod's PID namespace
    rejects_false: tuple[str, ...] = ()  # members that it takes for true by being there: left out if false
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by member: what it calls a value
    refuses_options: tuple[str, ...] = ()  # of create: a handler with one of them cannot be used
    options: tuple[str, ...] = ()  # before every verb; the handler's own come after them
    systemd_cgroup: bool = True  # knows --systemd-cgroup
    takes_no_quota: bool = True  # update sets a CPU quota of -1 on cgroup version 1
    swap_by_name: bool = False  # memory.swap is left out where `unified` has memory.swap.max
    keeps_network: bool = True  # processes in the pod's network namespace reach the containers' ports
    root_mounts: tuple[str, ...] = ()  # what it leaves mounted in its root, of no container
    host_network_options: tuple[str, ...] = ()  # of create, for a pod on the host's network
    port_forward: bool = False  # has a verb `port-forward` that connects to a port of the sandbox
    features: Mapping[str, bool] = field(default_factory=dict)  # of `HandlerFeatures`, over what was found
    lacks: Mapping[Ability, str] = field(default_factory=dict)  # what it cannot do, in words for people
    notes: tuple[str, ...] = ()  # what else the node's people should know

    @property
    def told(self) -> tuple[str, ...]:
        """For `crisp handlers`."""
        return (*self.notes, *dict.fromkeys(self.lacks.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: for `runtime` from version `since` on and under `before`; "" is no bound."""

    runtime: str
    sets: Mapping[str, Any]
    why: str
    since: str = ""
    before: str = ""


ROWS: tuple[Row, ...] = (
    Row(
        runtime="crun",
        sets={"console_in_foreground": True},
        why="crun sends the terminal over --console-socket in the foreground too; its own copying loses the"
        " last words of a process that ends at once",
    ),
    Row(
        runtime="crun",
        sets={"takes_no_quota": False},
        why="crun 1.8.1 writes -1 as an unsigned number, which the kernel refuses (ERANGE); its update keeps"
        " nothing, so that the file can be written beside it",
    ),
    Row(
        runtime="crun",
        sets={"swap_by_name": True},
        why="crun 1.21 tells systemd the sum of memory and swap as the swap, in force from the next change",
    ),
    Row(
        runtime="crun",
        before="1.8.6",
        sets={"notes": ("has no `features`: promises neither user namespaces nor recursive read-only",)},
        why="the verb came with 1.8.6",
    ),
    Row(
        runtime="youki",
        sets={
            "lacks": {Ability.EXEC_SIGNAL: "an exec that signal n ended reports n, not 128 + n"},
            "notes": ("processes of exec run without the container's seccomp filter",),
        },
        why="youki passes the number on as it is, and a status of n cannot be told from it; its exec takes"
        " nothing of `linux` over but the namespaces",
    ),
    Row(
        runtime="youki",
        sets={
            "rejects_false": ("process.noNewPrivileges",),
            "words": {
                "linux.rootfsPropagation": {"rshared": "shared", "rslave": "slave", "rprivate": "private"}
            },
        },
        why="0.7.0 loads the filter before it drops capabilities only where noNewPrivileges is not there"
        " ('failed to load seccomp context'), and knows only the specification's words for propagation",
    ),
    Row(
        runtime="youki",
        sets={
            "joins_pids_without": ("cgroup",),
            "notes": ("on cgroup version 1, containers that join a PID namespace see no /sys/fs/cgroup",),
        },
        why="to mount cgroups of version 1 it looks up its number of the new PID namespace in the old /proc:"
        " 'failed to mount cgroup v1: procfs failed', seen with 0.7.0",
    ),
    Row(
        runtime="runsc",
        sets={
            "supervise": "wait",
            "inside": True,
            "sandbox": True,
            "keeps_network": False,
            "rejects": ("process.selinuxLabel", "linux.mountLabel"),
            "refuses_options": ("--no-pivot", "--no-new-keyring", "--preserve-fds"),
            "systemd_cgroup": False,
            "root_mounts": ("null-netns",),
            "host_network_options": ("--network=host",),
            "features": {"apparmor": False, "selinux": False, "user_namespaces": False},
            "lacks": {
                Ability.GROUP: "what a container uses is counted for its sandbox as a whole",
                Ability.LIMITS: "a container's limits are not enforced, the sandbox has them all",
                Ability.OOM: "a container's limits are not enforced, the sandbox has them all",
            },
            "notes": (
                "ignores AppArmor profiles",
                "every container of a pod runs in the process of its first one",
            ),
        },
        why="gVisor: one sentry a pod; `state` and the pid file give its pid for every container; it refuses"
        " process.selinuxLabel, cannot join a user namespace that is pinned, has a network of its own unless"
        " told, and knows no keyring, pivot or passed descriptors",
    ),
    Row(
        runtime="runsc",
        sets={"joins_pids_by_path": False},
        why="gVisor knows a PID namespace's path only with the sandbox's own pid in it, which is not the one"
        " that is supervised; who is given no PID namespace shares the first container's (boot/loader.go)",
    ),
    Row(
        runtime="runsc",
        sets={"options": ("--oci-seccomp",)},
        why="gVisor puts a container's own filter into force only when it is told to",
    ),
    Row(
        runtime="runsc",
        since="20230101",
        sets={"port_forward": True},
        why="the verb port-forward came after the release of December 2022",
    ),
    Row(
        runtime="kata-runtime",
        sets={
            "inside": True,
            "sandbox": True,
            "refuses_options": ("--no-new-keyring", "--preserve-fds"),
            "keeps_network": False,
            "features": {"apparmor": False, "selinux": False},
            "lacks": {
                Ability.GROUP: "what a container uses is counted for its virtual machine as a whole",
                Ability.OOM: "a container without memory is killed in its guest, which does not tell why",
            },
            "notes": ("runs each pod in a virtual machine", "the pid file names a kata-shim"),
        },
        why="Kata 1.x: the pid file holds a kata-shim for each container, which ends with its status",
    ),
)


def quirks_of(version: RuntimeVersion, rows: tuple[Row, ...] = ROWS) -> Quirks:
    """What the table says of the runtime that calls itself so; later rows win, notes and lacks add up."""
    sets: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    lacks: dict[Ability, str] = {}
    for row in rows:
        if row.runtime == version.name and _within(version.version, row):
            sets |= row.sets
            notes += tuple(row.sets.get("notes", ()))
            lacks |= row.sets.get("lacks", {})
    return replace(Quirks(**sets), notes=notes, lacks=lacks)


def corrected(features: HandlerFeatures, quirks: Quirks) -> HandlerFeatures:
    """Features as the table corrects them."""
    return replace(features, **quirks.features)


def fitted(config: Mapping[str, Any], quirks: Quirks, *, cgroup_version: int) -> Mapping[str, Any]:
    """A config.json without the members that this runtime rejects; the same object if it has none."""
    made = config
    for path in quirks.rejects:
        made = _without(made, path.split("."))
    for path in quirks.rejects_false:
        if _member(made, path) is False:
            made = _without(made, path.split("."))
    for path, words in quirks.words.items():
        if (word := words.get(str(_member(made, path)))) is not None:
            made = _with(made, path.split("."), word)
    if quirks.swap_by_name and "memory.swap.max" in (_member(made, "linux.resources.unified") or ()):
        made = _without(made, ["linux", "resources", "memory", "swap"])
    if quirks.joins_pids_without and cgroup_version == 1 and _joins_pids(config):
        mounts = [m for m in config.get("mounts", ()) if m.get("type") not in quirks.joins_pids_without]
        made = {**made, "mounts": mounts}
    if not quirks.joins_pids_by_path and _joins_pids(config):
        left = [n for n in config["linux"]["namespaces"] if n.get("type") != "pid"]
        made = _with(made, ["linux", "namespaces"], left)
    return made


def fitted_process(process: Mapping[str, Any], quirks: Quirks) -> Mapping[str, Any]:
    """The same for the process object of an exec."""
    made = fitted({"process": process}, quirks, cgroup_version=2)["process"]
    assert isinstance(made, Mapping)
    return made


def fitted_limits(limits: Mapping[str, Any], quirks: Quirks) -> Mapping[str, Any]:
    """The same for the linux.resources object of an update."""
    made = fitted({"linux": {"resources": limits}}, quirks, cgroup_version=2)["linux"]["resources"]
    assert isinstance(made, Mapping)
    return made


def _member(config: Mapping[str, Any], path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def _with(config: Mapping[str, Any], path: list[str], value: Any) -> Mapping[str, Any]:
    head, *rest = path
    return {**config, head: value if not rest else _with(config[head], rest, value)}


def _joins_pids(config: Mapping[str, Any]) -> bool:
    namespaces = config.get("linux", {}).get("namespaces", ())
    return any(namespace.get("type") == "pid" and namespace.get("path") for namespace in namespaces)


def refused_options(quirks: Quirks, options: tuple[str, ...]) -> tuple[str, ...]:
    """Those of a handler's create options that this runtime does not know."""
    return tuple(option for option in options if option.split("=", 1)[0] in quirks.refuses_options)


def members() -> frozenset[str]:
    """What a row may set."""
    return frozenset(f.name for f in fields(Quirks))


def _without(config: Mapping[str, Any], path: list[str]) -> Mapping[str, Any]:
    head, *rest = path
    if head not in config:
        return config
    if not rest:
        return {key: value for key, value in config.items() if key != head}
    inner = config[head]
    if not isinstance(inner, Mapping):
        return config
    smaller = _without(inner, rest)
    return config if smaller is inner else {**config, head: smaller}


def _within(version: str, row: Row) -> bool:
    number = _number(version)
    return not (row.since and number < _number(row.since)) and not (
        row.before and number >= _number(row.before)
    )


def _number(version: str) -> tuple[int, ...]:
    """Comparable; a release named by its day (runsc) counts as that day, whatever stands before it.

    One without any number was built from a tree and is taken for the newest.
    """
    if not re.search(r"\d", version):
        return (1 << 31,)
    day = re.search(r"20\d{6}", version)
    text = version[day.start() :] if day else re.split(r"[+~-]", version, maxsplit=1)[0]
    return tuple(int(part) for part in re.findall(r"\d+", text))
