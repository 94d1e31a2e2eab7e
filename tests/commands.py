"""What the driver sends: a listener that every client made after its registration reports to."""

from collections.abc import Iterator
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


class CommandRecorder(monitoring.CommandListener):
    def __init__(self) -> None:
        self._recordings: list[list[tuple[str, dict[str, Any]]]] = []
        self._measurements: list[Traffic] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name not in _UPKEEP:
            for recording in self._recordings:
                recording.append((event.command_name, dict(event.command)))
            for traffic in self._measurements:
                traffic.commands.append(event.command_name)
                traffic.sent += len(bson.encode(event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        if event.command_name not in _UPKEEP:
            for traffic in self._measurements:
                traffic.received += len(bson.encode(event.reply))

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Only the start of a command counts."""

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


recorder = CommandRecorder()
monitoring.register(recorder)
