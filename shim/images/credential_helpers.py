"""Asking `docker-credential-NAME` for a login: the secret comes over a pipe and goes nowhere else.

The server is named on standard input, so that no command line has anything; the output is bounded and never
part of an error or of the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from oci.errors import BadInput, Deadline, Internal
from oci.registries.logins import Helper, Source, parse_helper, told
from oci.registry_auth import Login
from shim import process

log = logging.getLogger(__name__)

TIMEOUT: Final = 30.0
"""Seconds that a helper may take: those of clouds ask a token service."""

_OUTPUT = 256 << 10


class Logins:
    """Logins for one pull: each helper is asked once, however many endpoints want it.

    `environment` is what helpers get beside HOME and PATH: the proxies.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._answers: dict[Helper, Login | None] = {}

    async def first(self, sources: tuple[Source, ...]) -> Login | None:
        """The login of the first source that has one; None: anonymous.

        A helper that is missing, fails or hangs is an error that names it and the line that named it
        (BadInput, Internal, Deadline): going on without it would be refused for a reason that nobody
        understands.
        """
        for source in sources:
            login = source if isinstance(source, Login) else await self._answer(source)
            if login is not None:
                return login
        return None

    async def _answer(self, helper: Helper) -> Login | None:
        if helper not in self._answers:
            self._answers[helper] = await _ask(helper, self._environment)
        return self._answers[helper]


async def _ask(helper: Helper, environment: Mapping[str, str]) -> Login | None:
    program = f"docker-credential-{helper.name}"
    try:
        result = await process.run(
            [program, "get"],
            env={"HOME": "/root", **environment},
            timeout=TIMEOUT,
            ok=range(-64, 256),
            stdin=helper.server.encode(),
            output_limit=_OUTPUT,
        )
    except process.CommandMissing:
        raise BadInput(f"{helper.origin}: {program} is not among the programs in {process.PATH}") from None
    except process.CommandTimedOut:
        raise Deadline(f"{told(helper)} did not answer within {TIMEOUT:.0f} s") from None
    if len(result.stdout) >= _OUTPUT:
        raise Internal(f"{told(helper)} answered with more than {_OUTPUT} bytes")
    login = parse_helper(result.stdout, helper, status=result.returncode)
    log.debug("asked a credential helper", extra={"helper": program, "found": login is not None})
    return login
