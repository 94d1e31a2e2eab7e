"""What the driver sends: a listener that every client made after its registration reports to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import bson
from pymongo import monitoring

# Commands of the driver's own upkeep, not of ours.
_UPKEEP = {"hello", "isMaster", "ping", "endSessions", "killCursors"}


@dataclass
class Traffic:
    """What went over the wire: the names of the commands, and bytes in both directions."""

    commands: list[str] = field(default_factory=list)
    sent: int = 0
    received: int = 0


# A transaction: the session and its number there.
Transaction = tuple[bytes, int]


class CommandRecorder(monitoring.CommandListener):
    """Leaves out of recordings the transactions that the server refused for a moment.

    It does so now and then on a busy machine, and they are made again; what a call costs is what was done.
    """

    def __init__(self) -> None:
        self._recordings: list[list[tuple[str, dict[str, Any]]]] = []
        self._measurements: list[Traffic] = []
        self._under_way: dict[int, Transaction] = {}
        self._refused: set[Transaction] = set()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if self._recordings and (transaction := _transaction_of(event.command)) is not None:
            if transaction in self._refused:  # it is aborted
                return
            self._under_way[event.request_id] = transaction
        if event.command_name not in _UPKEEP:
            for recording in self._recordings:
                recording.append((event.command_name, dict(event.command)))
            for traffic in self._measurements:
                traffic.commands.append(event.command_name)
                traffic.sent += len(bson.encode(event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._under_way.pop(event.request_id, None)
        if event.command_name not in _UPKEEP:
            for traffic in self._measurements:
                traffic.received += len(bson.encode(event.reply))

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Only the start of a command counts, unless the server takes nothing of its transaction."""
        transaction = self._under_way.pop(event.request_id, None)
        if transaction is None or not _is_refusal(event.failure):
            return
        self._refused.add(transaction)
        for recording in self._recordings:
            recording[:] = [each for each in recording if _transaction_of(each[1]) != transaction]

    @contextmanager
    def recording(self) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        """The commands sent inside the block, as (name, command)."""
        recorded: list[tuple[str, dict[str, Any]]] = []
        self._recordings.append(recorded)
        try:
            yield recorded
        finally:
            self._recordings.remove(recorded)

    @contextmanager
    def measuring(self) -> Iterator[Traffic]:
        """The traffic of the block."""
        traffic = Traffic()
        self._measurements.append(traffic)
        try:
            yield traffic
        finally:
            self._measurements.remove(traffic)


def _transaction_of(command: Mapping[str, Any]) -> Transaction | None:
    if command.get("autocommit") is not False:
        return None
    return bytes(command["lsid"]["id"]), int(command["txnNumber"])


def _is_refusal(failure: Mapping[str, Any]) -> bool:
    """Whether the server said itself that the transaction may be made again: a lost connection does not."""
    return "code" in failure and "TransientTransactionError" in failure.get("errorLabels", ())


recorder = CommandRecorder()
monitoring.register(recorder)
