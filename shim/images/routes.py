"""The way to a repository: the endpoints that may be asked, each with its login and TLS trust.

Reads the certs.d directories anew each time, so a change needs no restart; what they mean is decided in
`oci/registry_hosts.py`, who gets which credentials in `oci/registry_auth.py`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from oci.errors import BadInput
from oci.reference import Reference
from oci.registry_auth import Credentials, Login, login_for
from oci.registry_hosts import PULL, RESOLVE, Endpoint, HostDirectory, directory_names, resolve
from oci.registry_transfer import proxy_for, shown_url
from shim.images.cancellation import Cancellation
from shim.images.connections import Connections, Trust
from shim.images.session import Access, Session
from shim.images.settings import StoreSettings

_MAXIMUM_CONFIGURATION = 1 << 20
_REMEMBERED = 16


def read_host_directory(registry: str, roots: Iterable[Path]) -> HostDirectory | None:
    """The first directory that knows `registry` by name, else the first `_default`. Blocking.

    Raises BadInput for one that cannot be read.
    """
    roots = tuple(roots)
    for names in (directory_names(registry), ("_default",)):
        for root in roots:
            for name in names:
                found = _read(root / name)
                if found is not None:
                    return found
    return None


def _read(directory: Path) -> HostDirectory | None:
    try:
        names = tuple(sorted(entry.name for entry in directory.iterdir()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as failure:
        raise BadInput(f"{directory}: {failure.strerror}") from failure
    text = None
    if "hosts.toml" in names:
        path = directory / "hosts.toml"
        try:
            with path.open("rb") as file:
                text = file.read(_MAXIMUM_CONFIGURATION).decode("utf-8")
        except (OSError, UnicodeDecodeError) as failure:
            raise BadInput(f"{path}: {failure}") from failure
    if text is None and not any(name.endswith((".crt", ".cert")) for name in names):
        return None
    return HostDirectory(path=str(directory), names=names, hosts_toml=text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One endpoint with what opens it: the login, and the Authorization header that came of it so far."""

    endpoint: Endpoint
    login: Login | None = field(default=None, repr=False)
    authorization: str = field(default="", repr=False)


class Route:
    """Endpoints for one repository in the order in which they are asked. Made once for a pull."""

    def __init__(
        self,
        reference: Reference,
        ways: Iterable[Way],
        settings: StoreSettings,
        *,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.reference = reference
        self._settings = settings
        self._notes = notes
        self._ways = [
            (way.endpoint, Access(way.login, way.authorization), Trust(way.endpoint)) for way in ways
        ]

    @property
    def ways(self) -> tuple[Way, ...]:
        """What the route is made of, with the tokens that it has by now: another process can go on."""
        return tuple(
            Way(endpoint=endpoint, login=access.login, authorization=access.authorization)
            for endpoint, access, _ in self._ways
        )

    def sessions(
        self, cancellation: Cancellation, *, capability: str, first: Endpoint | None = None
    ) -> list[Session]:
        """New sessions with the endpoints that have `capability`, `first` before the others.

        Once one has answered, the fallbacks have no meaning any more.
        """
        ways = [
            way
            for way in self._ways
            if capability in way[0].capabilities and (first is None or way[0] == first or not way[0].fallback)
        ]
        ways.sort(key=lambda way: way[0] != first)
        return [
            Session(
                Connections(
                    endpoint,
                    trust,
                    transfer=self._settings.transfer,
                    environment=self._settings.environment,
                    cancellation=cancellation,
                ),
                endpoint,
                repository=self.reference.repository,
                access=access,
                transfer=self._settings.transfer,
                limits=self._settings.limits,
                cancellation=cancellation,
            )
            for endpoint, access, trust in ways
        ]

    def explain(self) -> tuple[str, ...]:
        """One line an endpoint, then notes on the configuration; never a secret."""
        lines = [f"{self.reference} is asked for at {len(self._ways)} endpoint(s), in this order:"]
        for number, (endpoint, access, _) in enumerate(self._ways, 1):
            does = [word for word in (RESOLVE, PULL) if word in endpoint.capabilities]
            login = access.login
            header = any(name.lower() == "authorization" for name, _ in endpoint.headers)
            who = (
                f"credentials of the {login.source}"
                if login
                else "configured header"
                if header
                else "anonymous"
            )
            proxy = proxy_for(endpoint.url, self._settings.environment)
            through = f", through proxy {shown_url(proxy)}" if proxy else ""
            trust = ", certificate not verified" if endpoint.skip_verify else ""
            origin = f" ({endpoint.origin})" if endpoint.origin else " (default)"
            lines.append(f"{number}. {endpoint.url} [{', '.join(does)}], {who}{through}{trust}{origin}")
        return (*lines, *self._notes)


class Routes:
    """The routes of the latest pulls, by the pulls' names; for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._routes: OrderedDict[str, Route] = OrderedDict()

    def of(self, pull: str, make: Callable[[], Route]) -> Route:
        """The route of a pull, made for its first layer."""
        with self._lock:
            route = self._routes.get(pull)
            if route is None:
                route = self._routes[pull] = make()
            self._routes.move_to_end(pull)
            if len(self._routes) > _REMEMBERED:
                self._routes.popitem(last=False)
            return route


def make_route(reference: Reference, credentials: Credentials | None, settings: StoreSettings) -> Route:
    """Read the configuration and decide. Blocking. Raises BadInput (configuration, AuthConfig)."""
    directory = read_host_directory(reference.registry, settings.registry_dirs)
    resolution = resolve(reference.registry, directory)
    ways = [
        Way(
            endpoint=endpoint,
            login=login_for(credentials, registry=reference.registry, endpoint=endpoint.host),
        )
        for endpoint in resolution.endpoints
    ]
    return Route(reference, ways, settings, notes=resolution.notes)
