"""A registry on loopback (Debian's docker-registry) with every image of the catalogue, and the way to it.

A client is pointed at it by `certs.d/HOST/hosts.toml` files, as an operator would do it for a mirror.
"""

from __future__ import annotations

import http.client
import json
import queue
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.images import catalogue, layout
from tests.images.layout import INDEX, blob_path
from tests.machine import PATIENCE
from tests.parts.build import cache

HOSTS = ("registry.k8s.io", "k8s.gcr.io", "gcr.io", "docker.io", "registry.example")

_CONFIG = """\
version: 0.1
log: {{level: info, formatter: json, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {storage}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:0"}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """A running registry: `address` is "127.0.0.1:PORT"; it speaks plain HTTP."""

    address: str

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def reference(self, name: str) -> str:
        """The name of an image of the catalogue at the registry itself, without a mirror configuration."""
        return f"{self.address}/{name.partition('/')[2]}"

    def push(self, top: Path, name: str, descriptor: dict[str, Any]) -> None:
        """Upload one image of a layout, with everything it consists of, under a full name with a tag."""
        repository, _, tag = name.partition("/")[2].rpartition(":")
        connection = http.client.HTTPConnection(self.address, timeout=60 * PATIENCE)
        try:
            self._push_manifest(connection, top, repository, tag, descriptor)
        finally:
            connection.close()

    def _push_manifest(
        self,
        connection: http.client.HTTPConnection,
        top: Path,
        repository: str,
        reference: str,
        descriptor: dict[str, Any],
    ) -> None:
        content = blob_path(top, descriptor["digest"]).read_bytes()
        manifest = json.loads(content)
        for child in manifest.get("manifests", ()):
            self._push_manifest(connection, top, repository, child["digest"], child)
        if descriptor["mediaType"] != INDEX:
            for blob in (manifest["config"], *manifest["layers"]):
                _upload(connection, top, repository, blob["digest"])
        _ask(
            connection, "PUT", f"/v2/{repository}/manifests/{reference}", content,
            {"Content-Type": descriptor["mediaType"]}, expected=(201,),
        )  # fmt: skip


@contextmanager
def serving(storage: Path | None = None) -> Iterator[Registry]:
    """A registry that ends with the block. Without `storage` it has the catalogue, kept in the cache."""
    if storage is not None:
        with _running(storage) as registry:
            yield registry
        return
    top = catalogue.written()
    kept = cache() / f"registry-{top.name}"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=cache(), prefix="registry.") as scratch:
            made = Path(scratch, "made")
            with _running(made) as registry:
                for name, descriptor in layout.read_names(top).items():
                    registry.push(top, name, descriptor)
            try:
                made.rename(kept)
            except OSError:  # another run was first
                if not kept.exists():
                    raise
    with _running(kept) as registry:
        yield registry


def write_hosts(
    directory: Path,
    registry: Registry,
    hosts: tuple[str, ...] = HOSTS,
) -> None:
    """Point each host name at the registry, in containerd's `certs.d` layout below `directory`."""
    for host in hosts:
        (directory / host).mkdir(parents=True, exist_ok=True)
        (directory / host / "hosts.toml").write_text(
            f'server = "{registry.url}"\n\n[host."{registry.url}"]\ncapabilities = ["pull", "resolve"]\n'
        )


@contextmanager
def _running(storage: Path) -> Iterator[Registry]:
    # Out of its package, because installing it would start a service.
    program = catalogue.unpacked("docker-registry") / "usr/bin/docker-registry"
    with tempfile.TemporaryDirectory(prefix="crisp-registry.") as scratch:
        config = Path(scratch, "config.yml")
        config.write_text(_CONFIG.format(storage=storage))
        process = subprocess.Popen(
            [program, "serve", config],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_log, args=(process, addresses), daemon=True)
        reader.start()
        try:
            address = addresses.get(timeout=30 * PATIENCE)
            if not address:
                raise RuntimeError("docker-registry ended before it listened")
            yield Registry(address=address)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            reader.join()


def _read_log(process: subprocess.Popen[bytes], addresses: queue.SimpleQueue[str]) -> None:
    """Hand over where it listens, "" if it never does, and read on: a full pipe would stop it."""
    assert process.stderr is not None
    with process.stderr as log:
        for line in log:
            match = re.search(rb"listening on (127\.0\.0\.1:\d+)", line)
            if match:
                addresses.put(match.group(1).decode())
    addresses.put("")


def _upload(connection: http.client.HTTPConnection, top: Path, repository: str, digest: str) -> None:
    if _ask(connection, "HEAD", f"/v2/{repository}/blobs/{digest}", expected=(200, 404)).status == 200:
        return
    location = _ask(connection, "POST", f"/v2/{repository}/blobs/uploads/", expected=(202,)).headers[
        "Location"
    ]
    path = re.sub(r"^https?://[^/]+", "", location)
    mark = "&" if "?" in path else "?"
    _ask(
        connection,
        "PUT",
        f"{path}{mark}digest={digest}",
        blob_path(top, digest).read_bytes(),
        expected=(201,),
    )


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    *,
    expected: tuple[int, ...],
) -> http.client.HTTPResponse:
    connection.request(method, path, body, headers or {})
    response = connection.getresponse()
    content = response.read()
    if response.status not in expected:
        raise RuntimeError(f"{method} {path}: registry answered {response.status}: {content[:500]!r}")
    return response
