"""A control plane in miniature: etcd and kube-apiserver, on loopback, for one node and kubectl.

No scheduler and no controllers: pods name their node. Everything it writes is below one directory, but a link
with an address of its own, for the API server does not speak to kubelets at 127.0.0.1.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests import machine
from tests.kubelet.kubelet import free_port
from tests.parts.build import program

TOKEN = "test-token"
READY_LIMIT = 60.0 * machine.PATIENCE  # seconds until both answer
COMMAND_LIMIT = 60.0 * machine.PATIENCE
STOP_LIMIT = 20.0 * machine.PATIENCE
SERVICES = "10.96.0.0/24"


class Failed(RuntimeError):
    """kubectl ended with another status than 0; `code` is that, the text is what it said."""

    def __init__(self, words: Sequence[str], code: int, said: str) -> None:
        super().__init__(f"kubectl {' '.join(words)} ended with {code}: {said}")
        self.code = code


@dataclass(slots=True, kw_only=True)
class ControlPlane:
    """The two processes, between `start` and `stop`; `kubectl` speaks with them."""

    directory: Path
    address: str
    port: int = 0
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def link(self) -> str:
        return f"kt{os.getpid()}"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def start(self) -> None:
        """Start both; return when the API says that it is ready."""
        self.port = free_port()
        _ip("link", "add", "name", self.link, "type", "bridge")
        _ip("addr", "add", f"{self.address}/32", "dev", self.link)
        _ip("link", "set", self.link, "up")
        self.kubeconfig.write_text(json.dumps(self._kubeconfig()))
        store = self._start_store()
        self._start_api(store)

    def _kubeconfig(self) -> dict[str, Any]:
        cluster = {"server": f"https://127.0.0.1:{self.port}", "insecure-skip-tls-verify": True}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }

    def _start_store(self) -> str:
        clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._spawn(
            "etcd", program("etcd", "etcd"),
            f"--data-dir={self.directory / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
            f"--listen-client-urls={clients}", f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}", f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        )  # fmt: skip
        return clients

    def _start_api(self, store: str) -> None:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        signing, tokens = self.directory / "signing.pem", self.directory / "tokens.csv"
        signing.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        tokens.write_text(f'{TOKEN},tester,tester,"system:masters"\n')
        self._spawn(
            "kube-apiserver", program("kube-apiserver", "kube-apiserver"),
            f"--etcd-servers={store}", f"--secure-port={self.port}", "--bind-address=127.0.0.1",
            f"--advertise-address={self.address}", "--endpoint-reconciler-type=none",
            f"--cert-dir={self.directory / 'pki'}", f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC", "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={signing}", f"--service-account-signing-key-file={signing}",
            f"--service-cluster-ip-range={SERVICES}",
            # Nobody makes service accounts here.
            "--disable-admission-plugins=ServiceAccount",
            "--kubelet-preferred-address-types=InternalIP",
        )  # fmt: skip
        deadline = time.monotonic() + READY_LIMIT
        while not self._is_ready():
            if any(process.poll() is not None for process in self.processes):
                raise RuntimeError(
                    f"it ended:\n{self.log('etcd')[-3000:]}{self.log('kube-apiserver')[-3000:]}"
                )
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready in {READY_LIMIT:g} s:\n{self.log('kube-apiserver')[-6000:]}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        trusting = ssl.create_default_context()  # its certificate is signed by itself
        trusting.check_hostname = False
        trusting.verify_mode = ssl.CERT_NONE
        asked = urllib.request.Request(
            f"https://127.0.0.1:{self.port}/readyz", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        try:
            with urllib.request.urlopen(asked, timeout=5 * machine.PATIENCE, context=trusting) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _spawn(self, name: str, *words: str | Path) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                words,
                env={"PATH": machine.SYSTEM_PATH, "HOME": str(self.directory)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)

    def kubectl(self, *words: str | Path, given: str = "", limit: float = COMMAND_LIMIT) -> str:
        """What a command says on standard output. Raises Failed with what it said on the other."""
        done = subprocess.run(
            self.command(*words), env=self.environment, input=given.encode(), capture_output=True,
            check=False, timeout=limit,
        )  # fmt: skip
        if done.returncode != 0:
            raise Failed([str(word) for word in words], done.returncode, (done.stderr + done.stdout).decode())
        return done.stdout.decode()

    def command(self, *words: str | Path) -> list[str | Path]:
        return [program("kubectl", "kubectl"), f"--kubeconfig={self.kubeconfig}", *words]

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": machine.SYSTEM_PATH, "HOME": str(self.directory)}

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create objects, or make them as given."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--filename=-", given=json.dumps(listed))

    def get(self, *words: str) -> Any:
        """An object or a list, as JSON has it."""
        return json.loads(self.kubectl("get", "--output=json", *words))

    def stop(self) -> None:
        """The API first, for it waits long for a store that is gone."""
        while self.processes:
            process = self.processes.pop()
            process.terminate()
            try:
                process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def purge(self) -> None:
        while self.processes:
            process = self.processes.pop()
            process.kill()
            process.wait()
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "delete", self.link)
        shutil.rmtree(self.directory, ignore_errors=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def running(address: str) -> Iterator[ControlPlane]:
    """A control plane that serves within the block; `address` becomes the node's, on a link of its own."""
    own = ControlPlane(directory=Path(tempfile.mkdtemp(prefix="control-plane-")), address=address)
    try:
        own.start()
        yield own
        own.stop()
    finally:
        own.purge()
