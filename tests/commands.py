"""What the driver sends: a listener that every client made after its registration reports to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pymongo import monitoring

# Commands of the driver's own upkeep, not of ours.
_UPKEEP = {"hello", "isMaster", "ping", "endSessions", "killCursors"}


class CommandRecorder(monitoring.CommandListener):
    def __init__(self) -> None:
        self._recordings: list[list[tuple[str, dict[str, Any]]]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name not in _UPKEEP:
            for recording in self._recordings:
                recording.append((event.command_name, dict(event.command)))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Only the start of a command counts."""

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


recorder = CommandRecorder()
monitoring.register(recorder)
