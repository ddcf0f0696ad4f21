"""The common client of the field works: crictl against a running daemon, as an operator types it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.daemon import Daemon
from tests.images import catalogue
from tests.parts.build import program


def crictl(daemon: Daemon, *words: str) -> str:
    done = subprocess.run(
        [program("cri-tools", "crictl"), "--runtime-endpoint", daemon.endpoint, "--timeout", "60s", *words],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, f"crictl {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def written(path: Path, document: dict[str, Any]) -> str:
    path.write_text(json.dumps(document))
    return str(path)


def test_a_pod_is_run_looked_at_and_removed(served: Daemon, tmp_path: Path) -> None:
    pod_file = written(
        tmp_path / "pod.json",
        {
            "metadata": {"name": "smoke", "namespace": "default", "uid": "smoke", "attempt": 0},
            "hostname": "smoke-host",
            "log_directory": str(tmp_path / "logs"),
            "linux": {},
        },
    )
    container_file = written(
        tmp_path / "container.json",
        {
            "metadata": {"name": "main", "attempt": 0},
            "image": {"image": catalogue.BUSYBOX},
            "command": ["sh", "-c", "echo hello from the container; exec sleep 1000"],
            "log_path": "main.log",
            "linux": {},
        },
    )
    version = crictl(served, "version")
    assert "RuntimeName:  crisp" in version
    assert "RuntimeApiVersion:  v1" in version

    crictl(served, "pull", catalogue.BUSYBOX)
    assert catalogue.BUSYBOX.rpartition(":")[0] in crictl(served, "images")

    pod = crictl(served, "runp", pod_file)
    container = crictl(served, "create", pod, container_file, pod_file)
    crictl(served, "start", container)
    assert crictl(served, "pods", "--quiet", "--no-trunc") == pod
    assert crictl(served, "ps", "--quiet", "--no-trunc") == container
    inspected = json.loads(crictl(served, "inspect", container))
    assert (inspected["status"]["state"], inspected["status"]["metadata"]["name"]) == (
        "CONTAINER_RUNNING",
        "main",
    )
    assert crictl(served, "exec", "--sync", container, "hostname") == "smoke-host"
    assert json.loads(crictl(served, "inspectp", pod))["status"]["metadata"]["name"] == "smoke"
    assert crictl(served, "logs", container) == "hello from the container"
    assert container[:13] in crictl(served, "stats")

    crictl(served, "stop", "--timeout", "1", container)
    crictl(served, "rm", container)
    crictl(served, "stopp", pod)
    crictl(served, "rmp", pod)
    assert crictl(served, "pods", "--quiet") == ""
