"""The main job, shown: a daemon of its own, a pod, and every value measured on the spot.

Run by deploy/demo.sh. Uses only the sockets of the daemon that it starts, and looks at the kernel for itself.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

sys.path.append(str(Path(__file__).parent.parent))

from api.client import Client
from api.proto import admin_pb2, cri_pb2
from oci.errors import CrispError
from tests import leaks
from tests.images.files import Entry, directory, hard_link, program, text
from tests.images.layout import Image, write

T = TypeVar("T")

NAME = "demo.invalid/crisp/demo:1"
MEMORY_LIMIT = 64 << 20
APPLETS = ("sh", "cat", "echo", "httpd", "sleep", "true", "hostname", "id")
SCRIPT = (
    "trap 'exit 0' TERM; httpd -p 80 -h /www; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.02; done"
)
PAGE = "<p>hello from a pod</p>\n"


def main() -> int:
    """Parse, run, report; 0 when everything was as it should be."""
    parser = argparse.ArgumentParser(description="Runs a pod on a crispd of its own and shows what happens.")
    parser.add_argument("--image", help="pull this image from its registry instead of importing a small one")
    parser.add_argument("--handler", default="", help="the runtime handler (default: the daemon's)")
    parser.add_argument("--keep", action="store_true", help="leave the daemon running, for trying")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, interrupt)
    before = leaks.take()
    status = 0
    with tempfile.TemporaryDirectory(prefix="crisp-demo.", dir="/run") as scratch:
        top = Path(scratch)
        daemon = Daemon(top)
        try:
            with daemon.started():
                show(daemon, options.image, options.handler)
                if options.keep:
                    keep(daemon)
        except CrispError as error:
            print(f"\nthe demo failed: {error}\n--- the end of the daemon's log\n{daemon.log()[-3000:]}")
            status = 1
        except KeyboardInterrupt:
            print("\ninterrupted")
            status = 130
    left = left_of(daemon, before)
    part("after removal")
    for kind in ("process", "mount", "network namespace", "cgroup", "lease"):
        count = sum(entry.startswith(kind) for entry in left)
        say(f"{kind} left", str(count))
    for entry in left:
        print(f"    {entry}")
    return status or (1 if left else 0)


def interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def left_of(daemon: Daemon, before: leaks.Inventory, *, grace: float = 5.0) -> list[str]:
    """What bears the names of this daemon once it is gone; other work on the machine comes and goes."""
    marks = (str(daemon.top), daemon.bridge, daemon.subnet.rpartition(".")[0] + ".", *daemon.pods)
    end = time.monotonic() + grace
    while True:
        new = leaks.diff(before, leaks.take(leaks.Scope(directories=(daemon.top,))))
        left = [entry for entry in new if any(mark in entry for mark in marks)]
        left += [f"process {pid} in a cgroup of the demo" for pid in daemon.contained()]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.05)


class Daemon:
    """One crispd with sockets, state and bridge of its own below `top`."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.run_dir = top / "run"
        self.process: subprocess.Popen[bytes] | None = None
        self.pods: set[str] = set()
        pid = os.getpid()
        self.bridge = f"demo{pid % 100000}"
        self.subnet = f"10.{200 + pid % 50}.{pid // 50 % 256}.0/24"
        (top / "cni").mkdir()
        (top / "config.toml").write_text(
            f'state_dir = "{top}/state"\n'
            f'run_dir = "{self.run_dir}"\n'
            "[network]\n"
            f'conf_dir = "{top}/cni"\n'
            "builtin = true\n"
            f'builtin_bridge = "{self.bridge}"\n'
            f'builtin_subnets = ["{self.subnet}"]\n'
            "[cgroup]\n"
            f'prefix = "{self.bridge}"\n'
        )

    def start(self) -> float:
        """Start it and wait until it serves; seconds until then."""
        began = time.perf_counter()
        self.spawn()
        self.wait_until_it_serves()
        return time.perf_counter() - began

    def spawn(self) -> None:
        with (self.top / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "api.daemon", "--config", str(self.top / "config.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is the demo's: it needs the daemon to remove what there is
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
            )

    def wait_until_it_serves(self) -> None:
        assert self.process is not None
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.process.poll() is not None:
                sys.exit(f"crispd ended with status {self.process.returncode}:\n{self.log()}")
            with contextlib.suppress(CrispError), Client(self.run_dir / "crisp.sock", timeout=5) as client:
                client.runtime.Version(cri_pb2.VersionRequest())
                return
            time.sleep(0.02)
        sys.exit(f"crispd does not serve after 30 s:\n{self.log()}")

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextlib.contextmanager
    def started(self) -> Iterator[None]:
        """Started within the block, stopped at its end with everything removed."""
        try:
            self.ready_after = self.start()
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # from here on it takes a moment only
            self.end()

    def end(self) -> None:
        """Remove what pods there are, wherever the demo was interrupted, and stop."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            self.spawn()
        self.wait_until_it_serves()
        for name in ("crisp.sock", "run.sock"):
            with Client(self.run_dir / name, timeout=60) as cri:
                for pod in cri.runtime.ListPodSandbox(cri_pb2.ListPodSandboxRequest()).items:
                    cri.runtime.RemovePodSandbox(cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id))
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=30)
        self._remove_machinery()

    def contained(self) -> list[int]:
        """The processes in the daemon's and its pods' cgroups."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cgroup"):
            with contextlib.suppress(OSError):
                if f"/{self.bridge}" in path.read_text():
                    found.append(int(path.parent.name))
        return found

    def log(self) -> str:
        """What it logged so far."""
        return (self.top / "log").read_text(errors="replace")

    def _remove_machinery(self) -> None:
        """The monitors' cgroup stays for the next daemon; this one has no next."""
        for root in Path("/sys/fs/cgroup").glob(f"**/{self.bridge}*"):
            with contextlib.suppress(OSError):
                root.rmdir()


def show(daemon: Daemon, reference: str | None, handler: str) -> None:
    """The pod's whole life."""
    with Client(daemon.run_dir / "crisp.sock") as cri, Client(daemon.run_dir / "admin.sock") as admin:
        image = get_image(daemon, cri, admin, reference)
        describe(daemon, cri, admin)
        part("image")
        found = cri.image.ImageStatus(cri_pb2.ImageStatusRequest(image=cri_pb2.ImageSpec(image=image))).image
        say("name", image)
        say("id", found.id)
        say("size", f"{found.size / 1e6:.1f} MB")
        pod, config = run_pod(daemon, cri, handler)
        container = run_container(daemon, cri, image, pod, config)
        survive(daemon, container)
    with Client(daemon.run_dir / "crisp.sock") as cri:
        refuse(cri, image, pod, config)
        part("the end")
        stop = cri_pb2.StopContainerRequest(container_id=container, timeout=2)
        timed("stop", lambda: cri.runtime.StopContainer(stop))
        status = container_status(cri, container)
        say("exit", f"code {status.exit_code}, reason {status.reason}")
        remove = cri_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod)
        timed("remove the pod", lambda: cri.runtime.RemovePodSandbox(remove))


def get_image(daemon: Daemon, cri: Client, admin: Client, reference: str | None) -> str:
    """Pull the image that is asked for, or import a small one made from this machine's busybox."""
    if reference is not None:
        spec = cri_pb2.ImageSpec(image=reference)
        cri.image.PullImage(cri_pb2.PullImageRequest(image=spec), timeout=600)
        return reference
    busybox = shutil.which("busybox")
    if busybox is None:
        sys.exit("busybox is not installed: apt-get install busybox")
    entries: list[Entry] = [
        *(directory(name) for name in ("dev", "etc", "proc", "sys", "tmp", "run")),
        text("etc/passwd", "root:x:0:0:root:/:/bin/sh\n"),
        text("www/index.html", PAGE),
        *program(Path(busybox).resolve(), "bin/busybox"),
        *(hard_link(f"bin/{applet}", "bin/busybox") for applet in APPLETS),
    ]
    layout = daemon.top / "image"
    layout.mkdir()
    write(layout, [Image(names=(NAME,), layers=[entries], config={"Cmd": ["sh"]})])
    admin.admin.Import(admin_pb2.ImportRequest(path=str(layout)))
    return NAME


def describe(daemon: Daemon, cri: Client, admin: Client) -> None:
    """Host, daemon and runtime, as they say themselves."""
    checks = admin.admin.Doctor(admin_pb2.DoctorRequest()).checks
    seen = {(check.area, check.name): check.found for check in checks}
    part("host")
    say("kernel", seen["kernel", "version"])
    say("cgroups", seen["cgroups", "version"])
    for name in ("seccomp", "AppArmor", "SELinux"):
        say(name, seen["kernel", name])
    say("layers", seen["kernel", "layers"])
    part("daemon")
    version = cri.runtime.Version(cri_pb2.VersionRequest())
    say("version", f"{version.runtime_name} {version.runtime_version}, CRI {version.runtime_api_version}")
    say("ready after", f"{daemon.ready_after * 1000:.0f} ms")
    assert daemon.process is not None
    say("memory", f"{resident(daemon.process.pid) / 1e6:.0f} MB resident")
    say("socket", str(daemon.run_dir / "crisp.sock"))
    for handler in admin.admin.Handlers(admin_pb2.HandlersRequest()).handlers:
        say(f"handler {handler.name}", f"{handler.binary} {handler.version} ({handler.origin})")


def run_pod(daemon: Daemon, cri: Client, handler: str) -> tuple[str, cri_pb2.PodSandboxConfig]:
    """A READY pod on the default network."""
    part("pod")
    config = cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(name="demo", namespace="default", uid="demo"),
        hostname="demo",
        log_directory=str(daemon.top / "logs"),
        linux=cri_pb2.LinuxPodSandboxConfig(
            cgroup_parent=f"/{daemon.bridge}",
            security_context=cri_pb2.LinuxSandboxSecurityContext(namespace_options=own_pid()),
        ),
    )
    request = cri_pb2.RunPodSandboxRequest(config=config, runtime_handler=handler)
    pod = timed("run pod sandbox", lambda: cri.runtime.RunPodSandbox(request)).pod_sandbox_id
    daemon.pods.add(pod)
    status = cri.runtime.PodSandboxStatus(cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod)).status
    say("state", cri_pb2.PodSandboxState.Name(status.state))
    say("address", status.network.ip)
    return pod, config


def run_container(daemon: Daemon, cri: Client, image: str, pod: str, config: cri_pb2.PodSandboxConfig) -> str:
    """A running container, its log, an exec, its limit in the kernel."""
    part("container")
    wanted = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="main"),
        image=cri_pb2.ImageSpec(image=image),
        command=["sh", "-c", SCRIPT],
        log_path="main.log",
        linux=cri_pb2.LinuxContainerConfig(
            resources=cri_pb2.LinuxContainerResources(memory_limit_in_bytes=MEMORY_LIMIT),
            security_context=cri_pb2.LinuxContainerSecurityContext(namespace_options=own_pid()),
        ),
    )
    create = cri_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=wanted, sandbox_config=config)
    container = timed("create", lambda: cri.runtime.CreateContainer(create)).container_id
    start = cri_pb2.StartContainerRequest(container_id=container)
    timed("start", lambda: cri.runtime.StartContainer(start))
    status = cri.runtime.PodSandboxStatus(cri_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod)).status
    address = f"http://{status.network.ip}/"
    say("GET " + address, eventually(lambda: fetch(address)).strip())
    say("log", eventually(lambda: log_lines(daemon)[0]))
    command = cri_pb2.ExecSyncRequest(container_id=container, cmd=["sh", "-c", "id; hostname"], timeout=10)
    result = timed("exec", lambda: cri.runtime.ExecSync(command))
    say("exec says", result.stdout.decode().replace("\n", "; ").strip("; "))
    say("memory limit", f"{memory_limit(daemon, container)} bytes, from the kernel")
    return container


def survive(daemon: Daemon, container: str) -> None:
    """kill -9 of the daemon: the same process goes on, and no line of its log is missing."""
    part("kill -9 of the daemon")
    before = container_pid(daemon, container)
    daemon.kill()
    count = len(log_lines(daemon))
    eventually(lambda: len(log_lines(daemon)) > count + 10 or None)
    back = daemon.start()
    say("back after", f"{back * 1000:.0f} ms")
    after = container_pid(daemon, container)
    say("container's process", f"{before} before, {after} after")
    numbers = [int(line.rsplit(" ", 1)[1]) for line in log_lines(daemon)]
    missing = len(set(range(1, numbers[-1] + 1)) - set(numbers))
    say("log", f"lines 1 to {numbers[-1]}, {missing} missing, {len(numbers) - count} since the kill")
    if before != after or missing:
        sys.exit("the container did not survive the daemon unharmed")


def refuse(cri: Client, image: str, pod: str, config: cri_pb2.PodSandboxConfig) -> None:
    """A wrong request, and the words that it gets."""
    part("a wrong request")
    wanted = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="wrong"),
        image=cri_pb2.ImageSpec(image=image),
        mounts=[cri_pb2.Mount(host_path="/no/such/directory", container_path="/data")],
        linux=cri_pb2.LinuxContainerConfig(
            security_context=cri_pb2.LinuxContainerSecurityContext(namespace_options=own_pid())
        ),
    )
    try:
        cri.runtime.CreateContainer(
            cri_pb2.CreateContainerRequest(pod_sandbox_id=pod, config=wanted, sandbox_config=config)
        )
    except CrispError as error:
        say(error.kind, str(error))
        return
    sys.exit("a container with a mount source that does not exist was created")


def keep(daemon: Daemon) -> None:
    """Wait for Ctrl-C with the daemon running."""
    part("kept for trying, until Ctrl-C")
    print(f"  crisp --config {daemon.top}/config.toml ps")
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


def own_pid() -> cri_pb2.NamespaceOption:
    """As kubelet asks for a pod that does not share its process namespace."""
    return cri_pb2.NamespaceOption(pid=cri_pb2.CONTAINER)


def container_status(cri: Client, container: str) -> cri_pb2.ContainerStatus:
    return cri.runtime.ContainerStatus(cri_pb2.ContainerStatusRequest(container_id=container)).status


def container_pid(daemon: Daemon, container: str) -> int:
    """The container's first process, found in the kernel: the parent shell of its cgroup."""
    return min(int(pid) for pid in (container_cgroup(daemon, container) / "cgroup.procs").read_text().split())


def container_cgroup(daemon: Daemon, container: str) -> Path:
    found = [
        path
        for root in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
        for path in root.glob(f"{daemon.bridge}*/**/*{container}*")
    ]
    return found[0]


def memory_limit(daemon: Daemon, container: str) -> str:
    group = container_cgroup(daemon, container)
    file = next(f for f in (group / "memory.max", group / "memory.limit_in_bytes") if f.exists())
    return file.read_text().strip()


def log_lines(daemon: Daemon) -> list[str]:
    """The content of the container's complete log lines."""
    text_ = (daemon.top / "logs/main.log").read_text()
    return re.findall(r"^\S+ stdout F (line \d+)$", text_, re.MULTILINE)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds (VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024  # type: ignore[index]


def fetch(address: str) -> str:
    with urllib.request.urlopen(address, timeout=2) as answer:
        return str(answer.read().decode())


def eventually(look: Callable[[], T | None], seconds: float = 10.0) -> T:
    """The first answer that is one; an OSError or IndexError means that it is too early."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, IndexError):
            found = look()
            if found is not None:
                return found
        if time.monotonic() > end:
            sys.exit(f"nothing came within {seconds:g} s")
        time.sleep(0.02)


def timed(name: str, work: Callable[[], T]) -> T:
    began = time.perf_counter()
    result = work()
    say(name, f"{(time.perf_counter() - began) * 1000:.0f} ms")
    return result


def part(name: str) -> None:
    print(f"\n{name}")


def say(name: str, value: str) -> None:
    print(f"  {name:22} {value}")


if __name__ == "__main__":
    sys.exit(main())
