"""From what people type to the object that they mean: NAMESPACE/POD[/CONTAINER], POD[/CONTAINER], or an id.

A name means the newest pod and the newest attempt of a container; older ones are reached by their ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cli.inventory import Container, Inventory, Pod
from oci.errors import Absent, BadInput

_HEX = frozenset("0123456789abcdef")
FORMS = "NAMESPACE/POD[/CONTAINER], POD[/CONTAINER] or the beginning of an id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A pod, or a container and its pod (None when only the container is left)."""

    pod: Pod | None
    container: Container | None = None

    @property
    def realm(self) -> str:
        owner = self.container or self.pod
        assert owner is not None
        return owner.realm

    @property
    def id(self) -> str:
        owner = self.container or self.pod
        assert owner is not None
        return owner.id

    @property
    def name(self) -> str:
        """As it can be typed again."""
        if self.pod is None:
            return self.id
        return f"{self.pod.path}/{self.container.name}" if self.container else self.pod.path


def find(text: str, inventory: Inventory) -> Target:
    """The pod or container that `text` names. Raises Absent, or BadInput when it names several or nothing."""
    found = _matches(text, inventory)
    if not found:
        raise Absent(f"no pod or container is called {text!r}{_meant(text, inventory)}")
    if len(found) > 1:
        raise BadInput(f"{text!r} is ambiguous: {_list(found)}; write more of the name, or an id")
    return found[0]


def find_container(text: str, inventory: Inventory) -> Target:
    """As `find`; a pod stands for its only container."""
    found = {target.id: target for each in _matches(text, inventory) for target in _inside(each, inventory)}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        whole = find(text, inventory)
        raise Absent(f"pod {whole.name} has no container")
    raise BadInput(f"{text!r} is ambiguous: {_list(found.values())}; name the container too, or give an id")


def _matches(text: str, inventory: Inventory) -> list[Target]:
    parts = text.split("/")
    if len(parts) > 3 or not all(parts):
        raise BadInput(f"{text!r} is not a name: write {FORMS}")
    named = list(_by_name(parts, inventory))
    if len(parts) > 1:
        return named
    by_id = list(_by_id(text, inventory))
    # A whole id is nobody's name; a short one may be the name of a pod, which then wins.
    return by_id if not named or len(text) == 64 else named


def _by_name(parts: list[str], inventory: Inventory) -> Iterable[Target]:
    pods = _newest_pods(inventory)
    for pod in pods:
        match parts:
            case [name] if name == pod.name:
                yield Target(pod=pod)
            case [namespace, name] if (namespace, name) == (pod.namespace, pod.name):
                yield Target(pod=pod)
            case [name, container] if name == pod.name:
                yield from _container(pod, container, inventory)
            case [namespace, name, container] if (namespace, name) == (pod.namespace, pod.name):
                yield from _container(pod, container, inventory)


def _newest_pods(inventory: Inventory) -> Iterable[Pod]:
    newest: dict[tuple[str, str, str], Pod] = {}
    for pod in inventory.pods.values():
        key = (pod.realm, pod.namespace, pod.name)
        if key not in newest or (newest[key].created_at, newest[key].attempt) < (pod.created_at, pod.attempt):
            newest[key] = pod
    return newest.values()


def _container(pod: Pod, name: str, inventory: Inventory) -> Iterable[Target]:
    attempts = [one for one in inventory.containers_of(pod) if one.name == name]
    if attempts:
        yield Target(pod=pod, container=max(attempts, key=lambda one: (one.attempt, one.created_at)))


def _by_id(text: str, inventory: Inventory) -> Iterable[Target]:
    if not _HEX.issuperset(text):
        return
    for pod in inventory.pods.values():
        if pod.id.startswith(text):
            yield Target(pod=pod)
    for container in inventory.containers.values():
        if container.id.startswith(text):
            yield Target(pod=inventory.pod_of(container), container=container)


def _inside(target: Target, inventory: Inventory) -> Iterable[Target]:
    """The containers that a target stands for, the newest attempt of each."""
    if target.container is not None or target.pod is None:
        yield target
        return
    for name in {one.name for one in inventory.containers_of(target.pod)}:
        yield from _container(target.pod, name, inventory)


def _list(targets: Iterable[Target]) -> str:
    names = sorted(f"{target.name} ({target.realm}, {target.id[:12]})" for target in targets)
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more


def _meant(text: str, inventory: Inventory) -> str:
    import difflib

    known = {name for full in inventory.names() for name in (full, full.partition("/")[2])}
    near = difflib.get_close_matches(text, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else "; `crisp pods -a` lists all"
