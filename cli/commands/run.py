"""`crisp run`: a container in the foreground, in a pod of its own, that ends as its process does."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import completion, exits
from cli.arguments import Image, session
from cli.commands.execute import EVERYTHING_AFTER
from cli.form import age, note
from cli.inventory import RUN
from cli.session import READ_TIMEOUT, Session
from oci.errors import Absent, BadInput, CrispError, Duplicate

if TYPE_CHECKING:
    from api.proto import cri_pb2
    from cli.runrequest import Request
    from cli.watching import ExitWatch

GRACE = 10
"""Seconds between SIGTERM and SIGKILL after the first Ctrl-C."""

_START_TIMEOUT = 240.0  # seconds, as kubelet gives RunPodSandbox
_POLL = 0.05  # seconds between two looks at the log
_LONG = 3600.0  # seconds; a wait without a limit could not be interrupted


class Pull(StrEnum):
    MISSING = "missing"
    ALWAYS = "always"
    NEVER = "never"


def register(app: typer.Typer) -> None:
    app.command(context_settings=EVERYTHING_AFTER)(run)


def run(
    context: typer.Context,
    image: Image,
    command: Annotated[
        list[str] | None, typer.Argument(metavar="[COMMAND...]", help="In place of the image's.")
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the pod.")] = "",
    remove: Annotated[
        bool, typer.Option("--rm", help="Remove the pod when its container has ended.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Say the pod's name, do not wait.")] = False,
    handler: Annotated[
        str,
        typer.Option("--handler", metavar="NAME", help="The runtime.", autocompletion=completion.handlers),
    ] = "",
    publish: Annotated[
        list[str] | None,
        typer.Option("--publish", "-p", metavar="[IP:]HOST:PORT[/PROTO]", help="A port of the node."),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option("--volume", "-v", metavar="HOST:PATH[:ro]", help="A directory or file of the node."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="K=V", help="A variable; K alone takes it from here."),
    ] = None,
    host_network: Annotated[bool, typer.Option("--host-network", help="The node's own network.")] = False,
    memory: Annotated[str, typer.Option("--memory", "-m", metavar="SIZE", help="Limit, such as 64MiB.")] = "",
    cpus: Annotated[float, typer.Option("--cpus", metavar="N", help="Limit, such as 0.5.")] = 0.0,
    user: Annotated[str, typer.Option("--user", "-u", metavar="USER[:GID]", help="Name or number.")] = "",
    workdir: Annotated[str, typer.Option("--workdir", "-w", metavar="PATH", help="To start in.")] = "",
    entrypoint: Annotated[
        str, typer.Option("--entrypoint", metavar="PROGRAM", help="In place of the image's.")
    ] = "",
    pull: Annotated[Pull, typer.Option("--pull", help="When to ask the registry.")] = Pull.MISSING,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing about pulling.")] = False,
) -> None:
    """Run an image in a pod of its own, which kubelet does not see, and end with its exit status.

    Ctrl-C stops the container; a second one kills it. It has no input and no terminal.
    """
    from cli.runrequest import Wanted, build

    if remove and detach:
        raise BadInput("--rm and --detach: nobody would be there to remove it; use `crisp rm` later")
    here = session(context)
    wanted = Wanted(
        image=image,
        command=tuple(command or ()),
        entrypoint=entrypoint,
        name=name,
        ports=tuple(publish or ()),
        volumes=tuple(volume or ()),
        environment=tuple(env or ()),
        host_network=host_network,
        memory=memory,
        cpus=cpus,
        user=user,
        workdir=workdir,
    )
    request = build(
        wanted,
        logs=here.logs_of_run,
        suffix=secrets.token_hex(3),
        environment=os.environ,
        directory=Path.cwd(),
    )
    with _terminating_as_interrupt():
        _fetch(here, image, pull, quiet=quiet)
        running = _Running(here, request)
        running.start(handler)
        if detach:
            print(request.path)
            return
        code = running.follow()
        running.clean_up(remove=remove)
    raise typer.Exit(code)


def _fetch(here: Session, image: str, policy: Pull, *, quiet: bool) -> None:
    from api.proto import cri_pb2
    from cli import pulling

    if policy is not Pull.ALWAYS:
        request = cri_pb2.ImageStatusRequest(image=cri_pb2.ImageSpec(image=image))
        found = here.realm(RUN).image.ImageStatus(request, timeout=READ_TIMEOUT)
        if found.HasField("image"):
            return
        if policy is Pull.NEVER:
            raise Absent(f"image {image!r} is not in the store, and --pull never forbids to fetch it")
    pulling.pull(here, image, quiet=quiet)


class _Running:
    """One pod with its container, from its start to its end."""

    def __init__(self, here: Session, request: Request) -> None:
        self._here = here
        self._request = request
        self._pod = ""
        self._container = ""
        self._watch: ExitWatch | None = None

    def start(self, handler: str) -> None:
        """Make and start it. What was made is removed again when that fails or is interrupted."""
        from api.proto import cri_pb2
        from cli.runlogs import clear
        from cli.watching import ExitWatch

        runtime = self._here.realm(RUN).runtime
        pod = cri_pb2.RunPodSandboxRequest(config=self._request.pod, runtime_handler=handler)
        try:
            self._pod = runtime.RunPodSandbox(pod, timeout=_START_TIMEOUT).pod_sandbox_id
            # The name is ours from here on. What an earlier pod of that name left must not look like output.
            clear(Path(self._request.pod.log_directory))
            container = cri_pb2.CreateContainerRequest(
                pod_sandbox_id=self._pod, config=self._request.container, sandbox_config=self._request.pod
            )
            self._container = runtime.CreateContainer(container, timeout=_START_TIMEOUT).container_id
            self._watch = ExitWatch(self._here.another(), RUN, self._container)
            runtime.StartContainer(cri_pb2.StartContainerRequest(container_id=self._container))
        except Duplicate as error:
            if self._pod:
                self._undo()
                raise
            raise Duplicate(self._taken()) from error
        except CrispError as error:
            if self._pod:
                self._undo()
                raise
            if hint := self._network_hint():
                raise type(error)(f"{error}\n{hint}") from error
            raise
        except KeyboardInterrupt:
            note(f"{self._request.path}: interrupted while it started, removing it")
            if not self._pod:
                # The daemon goes on with what its caller left. The same request joins that work.
                self._pod = runtime.RunPodSandbox(pod, timeout=_START_TIMEOUT).pod_sandbox_id
            self._undo()
            raise

    def follow(self) -> int:
        """Show its output until it ends; returns its exit status."""
        from cli import logfiles
        from cli.commands.logs import write

        assert self._watch is not None
        watch = self._watch
        with _counting_interrupts() as interrupts:
            seen = 0
            told = False

            def keep_on() -> bool:
                nonlocal seen, told
                if interrupts() > seen:
                    seen = interrupts()
                    self._end(seen)
                if watch.silent.is_set() and not told:
                    told = True
                    note(f"the daemon does not answer; {self._request.path} runs on, waiting for it")
                return not watch.wait(_POLL)

            outputs = logfiles.read(self._log_path(), keep_on=keep_on)
            try:
                write(outputs)
            except BrokenPipeError:
                # Nobody reads us any more: as for any other program of a pipeline, that ends it. It is still
                # waited for, so that what was to be removed is.
                os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
                self._end(1)
                while not watch.wait(_LONG):
                    pass
        return self._exit_code()

    def _log_path(self) -> Path:
        return Path(self._request.pod.log_directory) / self._request.container.log_path

    def _end(self, count: int) -> None:
        """What an interrupt asks for: stop, then kill, then leave it alone and go."""
        import threading

        from cli.commands.remove import stop_container

        if count > 2:
            note(f"leaving {self._request.path} as it is; `crisp ps` shows it")
            raise KeyboardInterrupt
        grace = GRACE if count == 1 else 0
        note(f"stopping {self._request.path}" if count == 1 else f"killing {self._request.path}")

        def stop() -> None:
            try:
                stop_container(self._here.another(), RUN, self._container, grace)
            except CrispError as error:
                note(f"{self._request.path}: {error}")

        # Beside the output, which goes on until the container has ended.
        threading.Thread(target=stop, name="stop", daemon=True).start()

    def _exit_code(self) -> int:
        status = self._status()
        if status is None:
            note(f"{self._request.path} was removed by somebody else, its exit status is lost")
            return exits.FAILED
        if status.reason == "OOMKilled":
            note(f"{self._request.path} was killed: it needed more memory than its limit")
        elif status.reason not in ("Completed", "Error", ""):
            note(f"{self._request.path}: {status.reason} {status.message}".rstrip())
        return int(status.exit_code) & 0xFF

    def _status(self) -> cri_pb2.ContainerStatus | None:
        from api.proto import cri_pb2

        request = cri_pb2.ContainerStatusRequest(container_id=self._container)
        try:
            return self._here.realm(RUN).runtime.ContainerStatus(request, timeout=READ_TIMEOUT).status
        except Absent:
            return None

    def clean_up(self, *, remove: bool) -> None:
        """After its end: give back its network; with `remove`, everything."""
        from api.proto import cri_pb2

        if remove:
            self._undo()
            return
        try:
            runtime = self._here.realm(RUN).runtime
            runtime.StopPodSandbox(cri_pb2.StopPodSandboxRequest(pod_sandbox_id=self._pod))
        except CrispError as error:  # the container has ended well or not, and that is what counts
            note(f"{self._request.path} keeps its network: {error}; `crisp stop {self._request.path}`")

    def _undo(self) -> None:
        from cli.commands.remove import remove_pod
        from cli.inventory import Pod

        metadata = self._request.pod.metadata
        pod = Pod(id=self._pod, realm=RUN, namespace=metadata.namespace, name=metadata.name, uid=metadata.uid)
        try:
            remove_pod(self._here, pod)
        except CrispError as error:
            note(f"{self._request.path} could not be removed: {error}; `crisp rm -f {self._request.path}`")

    def _network_hint(self) -> str:
        """What to do where no pod can have a network; "" where that is not what is wrong."""
        from api.proto import cri_pb2

        if self._request.pod.linux.security_context.namespace_options.network == cri_pb2.NODE:
            return ""
        runtime = self._here.realm(RUN).runtime
        conditions = runtime.Status(cri_pb2.StatusRequest(), timeout=READ_TIMEOUT).status.conditions
        if all(one.status for one in conditions if one.type == "NetworkReady"):
            return ""
        return (
            f"use --host-network, or let Crisp make a network: `builtin = true` in the table [network] of"
            f" {self._here.places.config}, and restart crispd"
        )

    def _taken(self) -> str:
        path = self._request.path
        old = [pod for pod in self._here.inventory(RUN).pods.values() if pod.path == path]
        since = f", {age(old[0].created_at, self._here.now())} old" if old else ""
        return f"{path} exists already{since}: remove it with `crisp rm {path}` or choose another --name"


@contextmanager
def _terminating_as_interrupt() -> Iterator[None]:
    """SIGTERM is taken like Ctrl-C, so that it leaves nothing half made."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _counting_interrupts() -> Iterator[Callable[[], int]]:
    """Yields how many interrupts have come; they interrupt nothing meanwhile."""
    count = 0

    def note_it(*_: object) -> None:
        nonlocal count
        count += 1

    before = {number: signal.signal(number, note_it) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: count
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
