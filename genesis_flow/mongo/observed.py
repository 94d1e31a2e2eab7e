"""What happens between a store and its server, told to whoever counts it: nobody, unless metrics are on.

A seam and no more: with metrics off nothing is imported for them. The commands of a loop's client are counted
by listeners of the driver, which the client has only if somebody counts; those that threads send themselves
where they are sent, since a listener would cost a ``log_metric`` several times as much.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

VARIABLE = "GENESIS_FLOW_METRICS"


class Observer(Protocol):
    """Counts; is called in any thread, and never raises."""

    def listeners(self, pool_size: int, *, of_commands: bool) -> list[Any]:
        """The driver's event listeners for a client that is about to be made."""

    def timed(self, command: str) -> AbstractContextManager[object]:
        """Counts a command that is sent in the block."""

    def retried(self, method: str) -> None:
        """A call of a store is made again after a passing failure."""

    def missed_deadline(self, method: str) -> None:
        """A call of a store has failed since its time has passed."""

    def answered_from_sums(self, sums: bool) -> None:
        """A question about many traces was answered, with the help of kept sums or without."""


observer: Observer | None = None
_UNTIMED = nullcontext()


def listeners(pool_size: int, *, of_commands: bool) -> list[Any]:
    """For a new client; the variable has every process of a server count from its first client on."""
    if observer is None and os.environ.get(VARIABLE, "").strip():
        from genesis_flow.core import options

        if options.value(VARIABLE):
            from genesis_flow.mongo import counting

            counting.start()
    return [] if observer is None else observer.listeners(pool_size, of_commands=of_commands)


def timed(command: str) -> AbstractContextManager[object]:
    """The block in which a thread sends a command of this name."""
    return _UNTIMED if observer is None else observer.timed(command)


def retried(method: str) -> None:
    if observer is not None:
        observer.retried(method)


def missed_deadline(method: str) -> None:
    if observer is not None:
        observer.missed_deadline(method)


def answered_from_sums(sums: bool) -> None:
    if observer is not None:
        observer.answered_from_sums(sums)
