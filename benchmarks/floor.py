"""The floor: what the programs cost that both sides run (runc, CNI plugins), run by hand one after the other.

Takes the bundle of a container that crispd made, so that runc gets the same configuration, with a network
namespace and a cgroup of its own. Nothing is recorded, monitored or logged.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import place
from benchmarks.sides import PLUGINS, conflist
from benchmarks.work import Stopwatch

_ID = "floor"


class Floor:
    """One container at a time, started, executed in and ended by hand; stages as on the other sides."""

    def __init__(self, directory: Path, *, bundle: Path, top: str) -> None:
        self._directory = directory
        self._bundle = directory / "bundle"
        self._bundle.mkdir(parents=True)
        self._runc = [str(shutil.which("runc")), "--root", str(directory / "runc")]
        self._network = json.loads(conflist(bridge="bench2", subnet="10.212.0.0/16"))
        self._group = f"{top}/burstable/podfloor"
        self._netns = Path("/run/netns/bench-floor")
        place.make_group(self._group)
        config = json.loads((bundle / "config.json").read_bytes())
        config["root"]["path"] = str(bundle / "rootfs")
        config["linux"]["cgroupsPath"] = f"{self._group}/{_ID}"
        for namespace in config["linux"]["namespaces"]:
            if namespace["type"] == "network":
                namespace["path"] = str(self._netns)
        (self._bundle / "config.json").write_text(json.dumps(config))

    @contextmanager
    def cycle(self, watch: Stopwatch) -> Iterator[None]:
        """Start; the body is while it runs; end."""
        subprocess.run(["ip", "netns", "add", self._netns.name], check=True)
        results: list[Any] = []
        try:
            watch("run pod", lambda: results.append(self._add()))
            watch("start", self._start)
            yield
            watch("stop", self._kill)
            watch("remove", lambda: self._run([*self._runc, "delete", _ID]))
            watch("stop pod", lambda: self._delete(results[0]))
        finally:
            subprocess.run([*self._runc, "delete", "--force", _ID], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "delete", self._netns.name], check=True)

    def execute(self, watch: Stopwatch) -> None:
        watch("exec", lambda: self._run([*self._runc, "exec", _ID, "/bin/true"]))

    def _start(self) -> None:
        pid_file = self._directory / "pid"
        self._run([*self._runc, "create", "--bundle", str(self._bundle), "--pid-file", str(pid_file), _ID])
        self._run([*self._runc, "start", _ID])
        self._pid = int(pid_file.read_text())

    def _kill(self) -> None:
        descriptor = os.pidfd_open(self._pid)
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        import select

        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        waiting.poll(10_000)
        os.close(descriptor)

    def _run(self, argv: list[str]) -> None:
        null = subprocess.DEVNULL
        subprocess.run(argv, stdin=null, stdout=null, stderr=null, check=True)

    def _add(self) -> Any:
        previous = None
        for plugin in self._network["plugins"]:
            previous = json.loads(self._plugin("ADD", plugin, previous))
        return previous

    def _delete(self, previous: Any) -> None:
        for plugin in reversed(self._network["plugins"]):
            self._plugin("DEL", plugin, previous)

    def _plugin(self, verb: str, plugin: dict[str, Any], previous: Any) -> bytes:
        document = {**plugin, "cniVersion": self._network["cniVersion"], "name": self._network["name"]}
        if previous is not None:
            document["prevResult"] = previous
        done = subprocess.run(
            [f"{PLUGINS}/{plugin['type']}"],
            input=json.dumps(document).encode(),
            env={
                "PATH": os.environ["PATH"],
                "CNI_COMMAND": verb,
                "CNI_CONTAINERID": _ID,
                "CNI_NETNS": str(self._netns),
                "CNI_IFNAME": "eth0",
                "CNI_PATH": PLUGINS,
            },
            stdout=subprocess.PIPE,
            check=True,
        )
        return done.stdout
