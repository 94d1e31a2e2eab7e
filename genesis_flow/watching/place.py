"""Where a watch is: a moment in the history of the database, and what was told by then.

A change of a metric's head carries its whole tail, so a watch that goes on must know how many of its points
were told. A token therefore holds a few numbers for each metric that is watched, beside the moment.
"""

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bson import Timestamp

from genesis_flow.core.errors import invalid
from genesis_flow.watching.heads import Head

_VERSION = 1
_LARGEST = 64_000_000
_MERGED_FROM = 1000

Counts = tuple[int, int, int]


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """A place in the stream of changes: what comes behind it is greater."""

    time: tuple[int, int]
    # The server's own text for a change; those of one moment are in its order.
    data: str = ""

    @property
    def timestamp(self) -> Timestamp:
        return Timestamp(*self.time)


def time_of(timestamp: Timestamp) -> tuple[int, int]:
    return timestamp.time, timestamp.inc


@dataclass(slots=True)
class Book:
    """What was told of runs and metrics, as it was behind any event.

    A base and what was noted since: an event keeps only how much of the notes was there.
    """

    base: dict[tuple[str, str], Counts | None] = field(default_factory=dict)
    notes: list[tuple[tuple[str, str], Counts | None]] = field(default_factory=list)

    def note(self, run_id: str, key: str, head: Head | None) -> None:
        """What was told of a metric; of the run itself if the key is empty. None: it is gone."""
        counts = None if head is None else (head.packed, head.count, head.last)
        self.notes.append(((run_id, key), counts))
        if len(self.notes) > max(_MERGED_FROM, len(self.base)):
            # Events that are still held keep the older base and its notes.
            self.base, self.notes = _merged(self.base, self.notes), []


def _merged(
    base: dict[tuple[str, str], Counts | None], notes: Sequence[tuple[tuple[str, str], Counts | None]]
) -> dict[tuple[str, str], Counts | None]:
    merged = {**base, **dict(notes)}
    return {known: counts for known, counts in merged.items() if counts is not None}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a watch is behind an event."""

    scope: str
    moment: Moment
    # What was told may be newer than changes up to here.
    unsure_until: tuple[int, int]
    # Whether there was more to tell of the state in which the watch began.
    is_partial: bool
    base: dict[tuple[str, str], Counts | None]
    notes: Sequence[tuple[tuple[str, str], Counts | None]]
    noted: int

    def token(self) -> str:
        runs: dict[str, dict[str, Counts]] = {}
        for (run_id, key), counts in _merged(self.base, self.notes[: self.noted]).items():
            if counts is not None:
                runs.setdefault(run_id, {})[key] = counts
        content = {
            "v": _VERSION,
            "of": self.scope,
            "at": [*self.moment.time, self.moment.data],
            "unsure": self.unsure_until,
            "partial": self.is_partial,
            "runs": runs,
        }
        packed = zlib.compress(json.dumps(content, separators=(",", ":")).encode())
        return base64.urlsafe_b64encode(packed).decode()


@dataclass(slots=True)
class Resumed:
    """What a token says."""

    moment: Moment
    unsure_until: tuple[int, int]
    is_partial: bool
    heads: dict[str, dict[str, Head]]
    """By run and key; the run itself is there under the empty key."""


def resumed(token: str, scope: str) -> Resumed:
    """The place that a token of a watch of this scope names."""
    try:
        inflated = zlib.decompressobj()
        text = inflated.decompress(base64.urlsafe_b64decode(token), _LARGEST)
        content: dict[str, Any] = json.loads(text)
        if content["v"] != _VERSION:
            raise ValueError("version")
        seconds, number, data = content["at"]
        heads = {
            str(run_id): {str(key): _head(*counts) for key, counts in keys.items()}
            for run_id, keys in content["runs"].items()
        }
        unsure_seconds, unsure_number = content["unsure"]
        place = Resumed(
            Moment((int(seconds), int(number)), str(data)),
            (int(unsure_seconds), int(unsure_number)),
            bool(content["partial"]),
            heads,
        )
        named = content["of"]
    except (binascii.Error, zlib.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise invalid(
            "The token that a watch shall go on behind is none of genesis_flow's. Give the `token` of an "
            "event as it was, or watch without `after`."
        ) from error
    if named != scope:
        raise invalid(
            "The token is of a watch of other runs or experiments, or of another workspace. Watch the same "
            "again, or without `after`."
        )
    return place


def _head(packed: int, count: int, last: int) -> Head:
    return Head(int(packed), int(count), int(last), marks=None)


def scope_name(*parts: object) -> str:
    """A short name for what is watched."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()
