"""The OCI process object: what runs, as whom, with which limits (runtime-spec config.md, "Process")."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from oci.bundle.inputs import DEFAULT_PATH, BundleDefaults, BundleInputs, Rlimit
from oci.bundle.text import absolute_path, json_text, names_descriptor, one_string
from oci.errors import BadInput
from oci.facts import HostFacts, ResolvedUser
from oci.image import ImageConfig
from oci.workload import ContainerSpec

LOWEST_OOM_SCORE_ADJ = -1000
HIGHEST_OOM_SCORE_ADJ = 1000


def args(container: ContainerSpec, image: ImageConfig) -> list[str]:
    """The argument rule of CRI: `command` replaces entrypoint and cmd, `args` alone only cmd."""
    if container.command:
        chosen = [*container.command, *container.args]
    elif container.args:
        chosen = [*image.entrypoint, *container.args]
    else:
        chosen = [*image.entrypoint, *image.cmd]
    if not chosen or not chosen[0]:
        raise BadInput("config.command: neither the request nor the image names a program to run")
    return [one_string(f"config.command, argument {n}", text) for n, text in enumerate(chosen)]


def env(
    container: ContainerSpec,
    image: ImageConfig,
    *,
    hostname: str,
    user: ResolvedUser,
    defaults: BundleDefaults,
    device_env: Iterable[str] = (),
) -> tuple[list[str], list[str]]:
    """Environment strings and notes: HOSTNAME, the node's defaults, the image's, the request's, in order.

    What CDI devices bring (`device_env`, NAME=VALUE) comes last.

    A later value replaces an earlier one in its place, so each name occurs once. PATH, HOME and (with a
    terminal) TERM are filled in where nobody set them, which leaves nothing for the runtime to look up.
    """
    values: dict[str, str] = {"HOSTNAME": hostname}
    values.update(defaults.env)
    for entry in image.env:
        name, separator, value = entry.partition("=")
        if name and separator:  # an entry without "=" says nothing, images have such
            values[name] = value
    for n, (name, value) in enumerate(container.envs):
        if not name or "=" in name:
            raise BadInput(f"config.envs[{n}].key: {name[:80]!r} is empty or contains '='")
        values[name] = value
    for entry in device_env:
        name, _, value = entry.partition("=")
        values[name] = value
    values.setdefault("PATH", DEFAULT_PATH)
    values.setdefault("HOME", user.home or "/")
    if container.tty:
        values.setdefault("TERM", "xterm")
    strings, notes = [], []
    for name, value in values.items():
        text, lossy = json_text(one_string(f"config.envs, variable {name[:80]!r}", f"{name}={value}"))
        if lossy:
            # The value itself may be a secret: the note has the name only.
            shown = json_text(name)[0]
            notes.append(f"environment variable {shown!r}: bytes that are not UTF-8 became U+FFFD")
        strings.append(text)
    return strings, notes


def working_dir(container: ContainerSpec, image: ImageConfig) -> str:
    """The directory to start in, as text; `shim/facts/rootfs.py` checks it in the root file system."""
    if container.working_dir:
        path = absolute_path("config.working_dir", container.working_dir)
    else:
        # Images with a relative WorkingDir exist; the builders meant it from the root.
        path = absolute_path("image working directory", posixpath.join("/", image.working_dir))
    return refuse_descriptors("config.working_dir", path)


def refuse_descriptors(field: str, path: str) -> str:
    """`path`, unless it names an open descriptor or a link of /proc: BadInput."""
    if names_descriptor(path):
        raise BadInput(f"{field}: {path!r} leads through a process's descriptors, which could be the host's")
    return path


def with_groups(user: ResolvedUser, more: Iterable[int]) -> ResolvedUser:
    """The user with groups that devices bring; 0 is none of them, as CDI has it."""
    added = [gid for gid in more if gid]
    return replace(user, groups=tuple(sorted({*user.groups, *added}))) if added else user


def user_object(user: ResolvedUser) -> dict[str, Any]:
    """The `user` member: numbers only, so that no runtime looks into the image again."""
    found: dict[str, Any] = {"uid": user.uid, "gid": user.gid}
    if user.groups:
        found["additionalGids"] = list(user.groups)
    return found


def oom_score_adj(asked: int, host: HostFacts) -> tuple[int, list[str]]:
    """The score that can be given (proc_pid_oom_score_adj(5)), with a note where it is another one."""
    if not LOWEST_OOM_SCORE_ADJ <= asked <= HIGHEST_OOM_SCORE_ADJ:
        raise BadInput(
            f"config.linux.resources.oom_score_adj: {asked} is not between {LOWEST_OOM_SCORE_ADJ} and "
            f"{HIGHEST_OOM_SCORE_ADJ}"
        )
    if asked >= host.lowest_oom_score_adj:
        return asked, []
    return host.lowest_oom_score_adj, [
        f"oom_score_adj {asked} raised to {host.lowest_oom_score_adj}: the daemon has no CAP_SYS_RESOURCE"
    ]


def rlimits(wanted: Mapping[str, Rlimit], host: HostFacts) -> tuple[list[dict[str, Any]], list[str]]:
    """OCI rlimits, lowered to the daemon's own hard limits where it cannot raise them, with notes."""
    made: list[dict[str, Any]] = []
    notes: list[str] = []
    for name, limit in sorted(wanted.items()):
        ceiling = -1 if host.can_raise_limits() else host.rlimits.get(name, -1)
        hard, soft = _least(limit.hard, ceiling), _least(limit.soft, ceiling)
        if hard != limit.hard:
            notes.append(f"{name} hard limit lowered to {hard}: the daemon has no CAP_SYS_RESOURCE")
        made.append({"type": name, "soft": _unsigned(_least(soft, hard)), "hard": _unsigned(hard)})
    return made, notes


def _least(a: int, b: int) -> int:
    if a < 0 or b < 0:
        return max(a, b)
    return min(a, b)


def _unsigned(limit: int) -> int:
    """RLIM_INFINITY as the specification's uint64."""
    return (1 << 64) - 1 if limit < 0 else limit


def process(
    inputs: BundleInputs, *, capabilities: Mapping[str, Iterable[str]]
) -> tuple[dict[str, Any], list[str]]:
    """The whole process object, without what `security.py` adds (labels and profiles)."""
    container = inputs.container
    hostname = pod_hostname(inputs)
    environment, notes = env(
        container,
        inputs.image,
        hostname=hostname,
        user=inputs.user,
        defaults=inputs.defaults,
        device_env=inputs.edits.env,
    )
    score, score_notes = oom_score_adj(container.resources.oom_score_adj, inputs.host)
    limits, limit_notes = rlimits(inputs.defaults.rlimits, inputs.host)
    cwd = inputs.working_dir or working_dir(container, inputs.image)
    made: dict[str, Any] = {
        "terminal": container.tty,
        "user": user_object(inputs.user),
        "args": [_text("config.command", text) for text in args(container, inputs.image)],
        "env": environment,
        "cwd": refuse_descriptors("config.working_dir", absolute_path("config.working_dir", cwd)),
        "capabilities": {name: list(names) for name, names in capabilities.items()},
        "noNewPrivileges": container.security.no_new_privs,
        "oomScoreAdj": score,
    }
    if inputs.defaults.umask is not None:
        made["user"]["umask"] = inputs.defaults.umask
    if limits:
        made["rlimits"] = limits
    return made, notes + score_notes + limit_notes


def pod_hostname(inputs: BundleInputs) -> str:
    """What `hostname` says in the pod."""
    return inputs.pod.hostname or inputs.host.hostname


def _text(field: str, value: str) -> str:
    text, lossy = json_text(value)
    if lossy:
        raise BadInput(f"{field}: not UTF-8, which a runtime's configuration cannot carry")
    return text


def exec_process(
    container_process: Mapping[str, Any], command: Iterable[str], *, terminal: bool = False
) -> dict[str, Any]:
    """The process of an exec: the container's own (its config.json `process`) with other arguments.

    Environment, user, groups, directory, capabilities and labels stay. The OOM score and rlimits too: an exec
    belongs to its container. Raises BadInput for an empty command or one that execve cannot take.
    """
    words = [_text("cmd", one_string(f"cmd[{n}]", word)) for n, word in enumerate(command)]
    if not words or not words[0]:
        raise BadInput("cmd: empty")
    made = dict(container_process)
    made["args"] = words
    made["terminal"] = terminal
    made.pop("commandLine", None)
    made.pop("consoleSize", None)
    return made
