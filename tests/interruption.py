"""What others do between two commands of a call: all of it, at one exact moment, in every run of the test."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pymongo import monitoring


@dataclass
class _Awaited:
    command: str
    collection: str
    skip: int
    thread: int
    act: Callable[[], Any]
    result: Any = None
    error: Exception | None = None
    done: bool = False


class Interrupter(monitoring.CommandListener):
    """Tells when a command is about to be sent; every client made after its registration reports to it."""

    def __init__(self) -> None:
        self.awaited: _Awaited | None = None

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        awaited = self.awaited
        if (
            awaited is None
            or awaited.done
            or threading.get_ident() != awaited.thread
            or event.command_name != awaited.command
            or event.command.get(awaited.command) != awaited.collection
        ):
            return
        if awaited.skip:
            awaited.skip -= 1
            return
        awaited.done = True
        try:
            awaited.result = awaited.act()
        except Exception as error:
            awaited.error = error

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Only the start of a command counts."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Only the start of a command counts."""


_interrupter = Interrupter()
monitoring.register(_interrupter)


@contextmanager
def interrupted(
    command: str, collection: str, act: Callable[[], Any], *, skip: int = 0
) -> Iterator[_Awaited]:
    """Before this thread sends such a command, after ``skip`` of them, ``act`` is done by others.

    ``act`` must use another client: a blocking store, whose work is done on a thread of its own.
    """
    assert _interrupter.awaited is None
    awaited = _interrupter.awaited = _Awaited(command, collection, skip, threading.get_ident(), act)
    try:
        yield awaited
    finally:
        _interrupter.awaited = None
    assert awaited.done, f"no {command} of {collection} was sent"
