"""The kinds of failure that a caller can act on.

Every layer raises these; `api/codes.py` alone knows which gRPC code each becomes. The message names the
stage, the path or id, and the cause; it starts in lower case and has no full stop.
"""

from __future__ import annotations

from typing import ClassVar


class CrispError(Exception):
    """A failure with a kind. `token`, where set, must start the message sent to kubelet (it parses it)."""

    kind: ClassVar[str] = "internal"

    def __init__(self, message: str, *, token: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.token = token

    def __str__(self) -> str:
        return f"{self.token}: {self.message}" if self.token else self.message


class Absent(CrispError):
    """The named object does not exist."""

    kind = "absent"


class Duplicate(CrispError):
    """An object of that name exists and the request differs from the one that made it."""

    kind = "duplicate"


class WrongState(CrispError):
    """The object exists but its state does not allow the operation."""

    kind = "wrong state"


class BadInput(CrispError):
    """A field of the request is wrong; the message begins with the field's path, as the wire names it."""

    kind = "bad input"


class Busy(CrispError):
    """Not now: the daemon recovers, or another operation holds the object. A retry can succeed."""

    kind = "busy"


class Deadline(CrispError):
    """A time limit passed; the message names the stage and the limit."""

    kind = "deadline"


class Full(CrispError):
    """A limit on a resource is reached: disk, tokens, memory."""

    kind = "full"


class Unsupported(CrispError):
    """This kernel, runtime or build cannot do it; the message says which and what would."""

    kind = "unsupported"


class Internal(CrispError):
    """Anything else: a step failed for a reason that the caller cannot change."""

    kind = "internal"


class Untrusted(CrispError):
    """The node's policy, or a verifier of it, does not allow the image. Kubelet knows it by its token."""

    kind = "untrusted"

    def __init__(self, message: str) -> None:
        super().__init__(message, token="SignatureValidationFailed")  # noqa: S106 - a word, no secret


class RuntimeFailed(Internal):
    """A runtime or its monitor failed at a verb. The message holds its own words.

    `verb` is the runtime's ("create", "start", "exec", ...). `program_missing` says that the fault is the
    user's program: not in the image, not executable, or its interpreter is not; a restart cannot help.
    """

    def __init__(self, message: str, *, verb: str, program_missing: bool = False) -> None:
        super().__init__(message)
        self.verb = verb
        self.program_missing = program_missing
