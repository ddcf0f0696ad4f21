"""The one decision: who is asked for an image, in what order, with which credentials, and why.

Pure: all files of all dialects come in as texts. The dialect that knows a registry by its name decides alone,
in the order containerd, containers, Docker; after them containerd's `_default`; else the registry itself is
asked. What registries.conf blocks is blocked whoever decides (docs/decisions/registries.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from oci.errors import BadInput
from oci.reference import Reference
from oci.registries import containers, docker, hosts_toml
from oci.registries.document import ConfigFile
from oci.registries.endpoint import PULL, RESOLVE, Endpoint, Resolution, Step, asked_host
from oci.registries.hosts_toml import HostDirectory, certificates, directory_names, routing_directory
from oci.registries.logins import Source, sources, told
from oci.registries.short_names import meaning
from oci.registry_auth import Credentials
from oci.registry_transfer import is_loopback


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryFiles:
    """Every file that has a say, as it is now."""

    directories: tuple[HostDirectory, ...] = ()  # of all certs.d, those of the first root first
    registries_conf: tuple[ConfigFile, ...] = ()  # the main file, then the drop-ins by name
    daemon_json: ConfigFile | None = None
    auth: tuple[ConfigFile, ...] = ()  # the namespace's own first


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One endpoint, and where its credentials come from: the first source that has any; none is anonymous."""

    endpoint: Endpoint
    sources: tuple[Source, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How one reference is asked for; a `refusal` says why it is not."""

    reference: Reference
    asks: tuple[Ask, ...] = ()
    steps: tuple[Step, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The plans of a name, to be followed until one finds the image; several only for a short name."""

    plans: tuple[Plan, ...]
    steps: tuple[Step, ...] = ()
    names: containers.Registries = field(default_factory=containers.Registries, repr=False)


def decide(
    name: str, files: RegistryFiles, credentials: Credentials | None = None, *, field: str = "image"
) -> Decision:
    """The whole decision for an image's name as it was written.

    Raises BadInput for a name that is none, and, with file, line and key, for a file that has a say in this
    and is not right. Nothing is guessed from what is left of such a file.
    """
    configured = containers.read(files.registries_conf)
    meant = meaning(name, configured, field=field)
    plans = tuple(_plan(reference, files, configured, credentials) for reference in meant.references)
    return Decision(plans=plans, steps=meant.steps, names=configured)


def _plan(
    reference: Reference,
    files: RegistryFiles,
    configured: containers.Registries,
    credentials: Credentials | None,
) -> Plan:
    registry = containers.match(reference, configured.registries)
    if registry is not None and registry.blocked:
        return Plan(reference=reference, refusal=f"{registry.prefix} is blocked in {registry.blocked}")
    found, dialect = _resolve(reference, files, registry)
    asks = tuple(
        Ask(
            endpoint=endpoint,
            sources=sources(
                endpoint,
                registry=reference.registry,
                repository=endpoint.repository or reference.repository,
                request=credentials,
                files=files.auth,
                helpers=configured.helpers,
            ),
        )
        for endpoint in found.endpoints
    )
    return Plan(reference=reference, asks=asks, steps=(dialect, *found.steps))


def _resolve(
    reference: Reference, files: RegistryFiles, registry: containers.Registry | None
) -> tuple[Resolution, Step]:
    name = reference.registry
    itself = _itself(name, files)
    named = routing_directory(files.directories, directory_names(name))
    if named is not None:
        step = Step(text=f"hosts.toml of {name} decides", origin=f"{named.path}/hosts.toml:1")
        return hosts_toml.resolve(name, named, itself), step
    if registry is not None:
        found = containers.resolve(reference, registry, itself)
        return _certified(found, files), Step(text="registries.conf decides", origin=registry.origin)
    if files.daemon_json is not None:
        of_docker = docker.resolve(name, files.daemon_json, itself)
        if of_docker is not None:
            return _certified(of_docker, files), Step(
                text="daemon.json decides", origin=f"{files.daemon_json.path}:1"
            )
    default = routing_directory(files.directories, (hosts_toml.DEFAULT_DIRECTORY,))
    if default is not None:
        step = Step(text="hosts.toml for all registries decides", origin=f"{default.path}/hosts.toml:1")
        return hosts_toml.resolve(name, default, itself), step
    return Resolution(endpoints=itself), Step(text=f"no file speaks of {name}, it is asked itself")


def _itself(registry: str, files: RegistryFiles) -> tuple[Endpoint, ...]:
    """The registry without any configuration, but for certificates that lie ready for it."""
    found = certificates(files.directories, registry)
    endpoint = Endpoint(
        scheme="https", host=asked_host(registry), ca=found.ca, client=found.client, origin=found.origin
    )
    if is_loopback(urlsplit(f"//{registry}").hostname or "") and not found.origin:
        return (replace(endpoint, scheme="http"), replace(endpoint, fallback=True))
    return (endpoint,)


def _certified(found: Resolution, files: RegistryFiles) -> Resolution:
    """With the certificates that lie ready for each host: the dialects that name none themselves."""

    def certified(endpoint: Endpoint) -> Endpoint:
        own = certificates(files.directories, endpoint.host)
        return replace(endpoint, ca=own.ca, client=own.client) if own.origin else endpoint

    return replace(found, endpoints=tuple(certified(endpoint) for endpoint in found.endpoints))


def explain(decision: Decision, proxy: Callable[[str], str] = lambda _: "") -> tuple[str, ...]:
    """The decision in lines; never a secret. `proxy` tells the proxy for a URL, in words, "" for none."""
    lines: list[str] = [str(step) for step in decision.steps]
    for plan in decision.plans:
        if plan.refusal:
            lines.append(f"{plan.reference} is refused: {plan.refusal}")
            continue
        lines.append(f"{plan.reference} is asked for at {len(plan.asks)} endpoint(s), in this order:")
        lines += [f"{number}. {_told(ask, plan.reference, proxy)}" for number, ask in enumerate(plan.asks, 1)]
        lines += [str(step) for step in plan.steps]
    return tuple(lines)


def _told(ask: Ask, reference: Reference, proxy: Callable[[str], str]) -> str:
    endpoint = ask.endpoint
    does = ", ".join(word for word in (RESOLVE, PULL) if word in endpoint.capabilities)
    parts = [
        f"{endpoint.url}/{endpoint.repository or reference.repository} [{does}]",
        "mirror" if endpoint.mirror else "registry",
        _who(ask),
    ]
    if through := proxy(endpoint.url):
        parts.append(f"through proxy {through}")
    if endpoint.skip_verify:
        parts.append("certificate not verified")
    if endpoint.fallback:
        parts.append("only if nothing there answers before")
    return f"{', '.join(parts)} ({endpoint.origin or 'default'})"


def _who(ask: Ask) -> str:
    if ask.sources:
        return "credentials of " + ", else of ".join(
            "the request" if told(source) == "request" else told(source) for source in ask.sources
        )
    header = any(name.lower() == "authorization" for name, _ in ask.endpoint.headers)
    return "header of hosts.toml" if header else "anonymous"


def check(decision: Decision) -> None:
    """Refuse a name that may be asked for nowhere. Raises BadInput."""
    refusals = [f"{plan.reference}: {plan.refusal}" for plan in decision.plans if plan.refusal]
    if len(refusals) == len(decision.plans):
        raise BadInput("image " + "; ".join(refusals))
