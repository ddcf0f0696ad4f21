"""From a name to its routes: configuration is read, decided upon, and logins are fetched."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from oci.errors import BadInput
from oci.reference import Reference
from oci.registries.containers import Registries
from oci.registries.resolver import Decision, Plan, check, decide, explain
from oci.registries.short_names import meaning
from oci.registry_auth import Credentials
from oci.registry_transfer import proxy_for, shown_url
from shim.images.credential_helpers import Logins
from shim.images.registry_files import read_files, read_names
from shim.images.routes import Route, Way
from shim.images.settings import StoreSettings
from shim.images.threads import Threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who pulls: the request's credentials and the pod's namespace; no value for who comes with neither."""

    credentials: Credentials | None = None
    namespace: str = ""


class Asking:
    """Decides anew for each pull, so that a changed file needs no restart; belongs to the event loop."""

    def __init__(self, settings: StoreSettings, threads: Threads) -> None:
        self._settings = settings
        self._threads = threads
        # what short names mean, as read by the latest decision: the store's images are looked up from memory
        self._names = Registries()

    async def recover(self) -> None:
        """At start: read what short names mean. Files that are not right are told at the next pull."""
        with contextlib.suppress(BadInput):
            self._names = await self._threads.do(read_names, self._settings.registries)

    def meaning(self, name: str) -> tuple[Reference, ...]:
        """The references that a name may stand for. Raises BadInput."""
        return meaning(name, self._names).references

    async def decide(self, name: str, asker: Asker) -> Decision:
        """Who is asked. Raises BadInput (name, AuthConfig, a file that has a say and is not right)."""

        def read_and_decide() -> Decision:
            files = read_files(self._settings.registries, name, asker.namespace)
            return decide(name, files, asker.credentials)

        decision = await self._threads.do(read_and_decide)
        self._names = decision.names
        return decision

    async def plans(self, name: str, asker: Asker) -> list[Plan]:
        """The ways to go for a name, the first before the others; more than one only for short names.

        Raises BadInput, also where none is allowed.
        """
        decision = await self.decide(name, asker)
        check(decision)
        return [plan for plan in decision.plans if not plan.refusal]

    async def route(self, plan: Plan) -> Route:
        """The route of a plan, with its logins: credential helpers are called here."""
        logins = Logins(self._settings.environment)
        ways = [Way(endpoint=ask.endpoint, login=await logins.first(ask.sources)) for ask in plan.asks]
        return Route(plan.reference, ways, self._settings)

    def explain(self, decision: Decision) -> tuple[str, ...]:
        """The decision in lines."""

        def proxy(url: str) -> str:
            found = proxy_for(url, self._settings.environment)
            return shown_url(found) if found else ""

        return explain(decision, proxy)
