"""The way to a repository: the endpoints that may be asked, each with its login and TLS trust.

Values that can be sent to another process, and what is made of them there; who may be asked was decided
before (`asking.py`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from oci.reference import Reference
from oci.registries.endpoint import Endpoint
from oci.registry_auth import Login
from shim.images.cancellation import Cancellation
from shim.images.connections import Connections, Trust
from shim.images.session import Access, Session
from shim.images.settings import StoreSettings

_REMEMBERED = 16


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
    ) -> None:
        self.reference = reference
        self._settings = settings
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

        Once one has answered, the fallbacks at its host have no meaning any more.
        """
        ways = [
            way
            for way in self._ways
            if capability in way[0].capabilities
            and (first is None or way[0] == first or not (way[0].fallback and way[0].host == first.host))
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
                repository=endpoint.repository or self.reference.repository,
                access=access,
                transfer=self._settings.transfer,
                limits=self._settings.limits,
                cancellation=cancellation,
            )
            for endpoint, access, trust in ways
        ]


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
