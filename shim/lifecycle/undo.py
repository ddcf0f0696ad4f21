"""Cleanup as a structure: push before acquiring, commit once, otherwise everything is undone.

Each step is idempotent ("absent" is success) and has its own time budget. One that fails is reported and the
others still run; the exception that made the stack unwind is never replaced, so the caller's code is right.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

from oci.errors import CrispError

log = logging.getLogger(__name__)

T = TypeVar("T")

Step = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Debt:
    """A step that could not be undone: its name and why."""

    step: str
    error: str


async def to_the_end(work: Awaitable[T]) -> T:
    """Wait for `work` whatever cancels the caller; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:  # noqa: BLE001 - raised below, from the task itself
            break
    if cancelled is not None and not task.cancelled():
        task.exception()
        raise cancelled
    return task.result()


async def run_all(steps: list[tuple[str, float, Step]]) -> tuple[Debt, ...]:
    """Run every step in the order given, each within its budget in seconds, whatever the others do."""
    debts: list[Debt] = []
    for name, budget, step in steps:
        try:
            async with asyncio.timeout(budget):
                await step()
        except TimeoutError:
            debts.append(Debt(name, f"no end within {budget:g} s"))
        except Exception as error:  # noqa: BLE001 - whatever a step raises, the next one must run
            debts.append(Debt(name, str(error) or type(error).__name__))
    for debt in debts:
        log.warning("undo step failed", extra={"step": debt.step, "error": debt.error})
    return tuple(debts)


class Undo:
    """`async with Undo(settle) as undo: undo.push(...); acquire(); …; undo.commit()`.

    Leaving without `commit` runs the steps, the last pushed first, and then `settle` with what is still owed:
    it forgets the record, or keeps it with the debts. Both run to their end even if the task is cancelled.
    """

    def __init__(self, settle: Callable[[tuple[Debt, ...]], Awaitable[None]] | None = None) -> None:
        self._steps: list[tuple[str, float, Step]] = []
        self._settle = settle
        self._committed = False

    def push(self, name: str, step: Step, *, budget: float = 30.0) -> None:
        """Remember how to undo what is acquired next; `name` says it in the log and in the record."""
        self._steps.append((name, budget, step))

    def commit(self) -> None:
        """Everything acquired stays."""
        self._committed = True

    async def __aenter__(self) -> Undo:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._committed:
            return
        try:
            await to_the_end(self._unwind())
        except asyncio.CancelledError:
            if error is None:
                raise
            # a second cancellation while unwinding: the first exception is the one that counts

    async def _unwind(self) -> None:
        debts = await run_all(list(reversed(self._steps)))
        if self._settle is not None:
            try:
                await self._settle(debts)
            except CrispError as failure:
                # The record still says that its making is under way; the janitor knows better.
                log.error("the record could not be settled", extra={"error": str(failure)})
