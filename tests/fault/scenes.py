"""The verbs of a pod's life as sweeps play them: what must stand before, the act, what it must reach."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from api.composition import Assembly
from oci.errors import CrispError
from oci.workload import ContainerSpec, PodSpec
from shim.records import ContainerRecord, ContainerState, PodRecord, PodState
from tests.fault.rig import REALM, Rig

VERBS = (
    "RunPodSandbox",
    "CreateContainer",
    "StartContainer",
    "StopContainer",
    "RemoveContainer",
    "StopPodSandbox",
    "RemovePodSandbox",
)
_LIMIT = 60.0


@dataclass(slots=True, kw_only=True)
class Scene:
    """One pod with one container, on its way to and through one verb."""

    rig: Rig
    verb: str
    shared_pids: bool = False
    pod_spec: PodSpec = field(init=False)
    container_spec: ContainerSpec = field(init=False)
    pod_id: str = ""
    container_id: str = ""

    def __post_init__(self) -> None:
        self.pod_spec = self.rig.pod(shared_pids=self.shared_pids)
        self.container_spec = self.rig.container(self.pod_spec)

    async def prepare(self, parts: Assembly) -> None:
        """Bring about what the verb needs."""
        wanted = VERBS.index(self.verb)
        for verb in VERBS[: min(wanted, 3)]:
            await self.play(parts, verb)

    async def act(self, parts: Assembly) -> None:
        await self.play(parts, self.verb)

    async def play(self, parts: Assembly, verb: str) -> None:
        async with asyncio.timeout(_LIMIT):
            match verb:
                case "RunPodSandbox":
                    self.pod_id = (await parts.pods.run(self.pod_spec, realm=REALM)).id
                case "CreateContainer":
                    made = await parts.containers.create(
                        REALM, self.pod_id, self.container_spec, self.pod_spec
                    )
                    self.container_id = made.id
                case "StartContainer":
                    await parts.containers.start(REALM, self.container_id)
                case "StopContainer":
                    await parts.containers.stop(REALM, self.container_id, 2.0)
                case "RemoveContainer":
                    await parts.containers.remove(REALM, self.container_id)
                case "StopPodSandbox":
                    await parts.pods.stop(REALM, self.pod_id)
                case "RemovePodSandbox":
                    await parts.pods.remove(REALM, self.pod_id)

    async def retry(self, parts: Assembly) -> None:
        """The same request again. A container whose start failed is replaced first, as kubelet does."""
        if self.verb == "StartContainer" and self._container(parts) is ContainerState.EXITED:
            record = parts.containers.get(REALM, self.container_id)
            # 137 where only the failure, not the end of what it killed, could be recorded.
            assert record.exit_code in (128, 137), record
            await parts.containers.remove(REALM, self.container_id)
            self.container_spec = self.rig.container(self.pod_spec, attempt=1)
            await self.play(parts, "CreateContainer")
        await self.act(parts)
        assert self.reached(parts), f"{self.verb} succeeded and is not there: {self.states(parts)}"

    def reached(self, parts: Assembly) -> bool:
        """Whether the verb's work is done, as the records say it."""
        pod, container = self.states(parts)
        match self.verb:
            case "RunPodSandbox":
                return pod is PodState.READY
            case "CreateContainer":
                return container is ContainerState.CREATED
            case "StartContainer":
                return container is ContainerState.RUNNING
            case "StopContainer":
                return container is ContainerState.EXITED
            case "RemoveContainer":
                return container is None and pod is PodState.READY
            case "StopPodSandbox":
                return pod is PodState.NOTREADY and container is ContainerState.EXITED
        return pod is None and container is None

    def states(self, parts: Assembly) -> tuple[PodState | None, ContainerState | None]:
        pod = next((p.state for p in parts.pods.all(REALM) if p.id == self.pod_id), None)
        return pod, self._container(parts)

    def _container(self, parts: Assembly) -> ContainerState | None:
        return next((c.state for c in parts.containers.all(REALM) if c.id == self.container_id), None)


STANDING = ("exit of a task", "log process")
"""Tasks that last as long as a shim's containers do: they wait for an end, and for the log process's."""


async def quiet() -> None:
    """Return when no task runs but the caller's and those that stand."""
    this = asyncio.current_task()
    async with asyncio.timeout(_LIMIT):
        while others := {t for t in asyncio.all_tasks() - {this} if t.get_name() not in STANDING}:
            await asyncio.wait(others)


async def pay(parts: Assembly) -> None:
    """Let the janitor pay everything; it must manage at once when nothing fails any more."""
    if await parts.janitor.pay():
        raise AssertionError(f"debts are left: {debts(parts)}")


def debts(parts: Assembly) -> list[PodRecord | ContainerRecord]:
    store = parts.node.store
    return [record for record in (*store.pods.values(), *store.containers.values()) if record.fault]


async def clear(parts: Assembly) -> None:
    """Remove every pod, known or half made."""
    await pay(parts)
    for pod in list(parts.pods.all(REALM)):
        try:
            await parts.pods.remove(REALM, pod.id)
        except CrispError as error:
            raise AssertionError(f"pod {pod.id} cannot be removed: {error}") from error
    assert not parts.node.store.pods, parts.node.store.pods
    assert not parts.node.store.containers, parts.node.store.containers
