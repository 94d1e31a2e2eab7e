"""What happens between a store and its server, told to whoever counts it: nobody, unless metrics are on.

A seam and no more: with metrics off nothing is imported for them, and a call pays nothing. The commands
themselves are counted by the driver's listeners, which the clients have only if somebody counts.
"""

import os
from typing import Any, Protocol

VARIABLE = "GENESIS_FLOW_METRICS"


class Observer(Protocol):
    """Counts; is called in any thread, and never raises."""

    def listeners(self) -> list[Any]:
        """The driver's event listeners for a client that is about to be made."""

    def retried(self, method: str) -> None:
        """A call of a store is made again after a passing failure."""

    def missed_deadline(self, method: str) -> None:
        """A call of a store has failed since its time has passed."""

    def answered_from_sums(self, sums: bool) -> None:
        """A question about many traces was answered, with the help of kept sums or without."""


observer: Observer | None = None


def listeners() -> list[Any]:
    """For a new client; the variable has every process of a server count from its first client on."""
    if observer is None and os.environ.get(VARIABLE, "").strip():
        from genesis_flow.core import options

        if options.value(VARIABLE):
            from genesis_flow.mongo import counting

            counting.start()
    return [] if observer is None else observer.listeners()


def retried(method: str) -> None:
    if observer is not None:
        observer.retried(method)


def missed_deadline(method: str) -> None:
    if observer is not None:
        observer.missed_deadline(method)


def answered_from_sums(sums: bool) -> None:
    if observer is not None:
        observer.answered_from_sums(sums)
