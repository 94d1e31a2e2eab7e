"""Where a watch is: a moment in the history of the database, and what was told by then.

A change of a metric's head carries its whole tail, so a watch that goes on must know how many of its points
were told. A token therefore holds a few numbers for each metric that is watched, beside the moment; and for
each place in which wide steps wait what its rows mean, so that they can be read when the place is gone.
"""

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bson import Timestamp

from genesis_flow.core.errors import invalid
from genesis_flow.watching.heads import Head
from genesis_flow.watching.waiting import Waiting

_VERSION = 1
_LARGEST = 64_000_000
_MERGED_FROM = 1000

Time = tuple[int, int]
_NEVER = (0, 0)


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


class Counts(NamedTuple):
    """What was told of a metric; of a run, only until when its changes are told."""

    packed: int
    told: int
    last: int
    until: Time


class Rows(NamedTuple):
    """What was told of a place."""

    told: int
    last: int
    keys: tuple[str, ...]


Noted = dict[tuple[str, str], Counts | Rows | None]
Notes = Sequence[tuple[tuple[str, str], Counts | Rows | None]]


@dataclass(slots=True)
class Book:
    """What was told of runs and metrics, as it was behind any event.

    A base and what was noted since: an event keeps only how much of the notes was there.
    """

    base: Noted = field(default_factory=dict)
    notes: list[tuple[tuple[str, str], Counts | Rows | None]] = field(default_factory=list)

    def note(self, run_id: str, key: str, head: Head) -> None:
        """What was told of a metric; of the run itself if the key is empty."""
        self._add(run_id, key, Counts(head.packed, head.count, head.last, head.until))

    def note_place(self, run_id: str, name: str, place: Waiting) -> None:
        self._add(run_id, name, Rows(place.count, place.last, place.keys))

    def strike(self, run_id: str, key: str) -> None:
        """A metric, a place or a run is gone."""
        self._add(run_id, key, None)

    def _add(self, run_id: str, key: str, note: Counts | Rows | None) -> None:
        self.notes.append(((run_id, key), note))
        if len(self.notes) > max(_MERGED_FROM, len(self.base)):
            # Events that are still held keep the older base and its notes.
            self.base, self.notes = _merged(self.base, self.notes), []


def _merged(base: Noted, notes: Notes) -> Noted:
    merged = {**base, **dict(notes)}
    return {known: note for known, note in merged.items() if note is not None}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a watch is behind an event."""

    scope: str
    moment: Moment
    # Whether there was more to tell of the state in which the watch began.
    is_partial: bool
    base: Noted
    notes: Notes
    noted: int
    # How many events of the change at this moment were told; None: all.
    part: int | None = None

    def token(self) -> str:
        runs: dict[str, dict[str, list[int]]] = {}
        places: dict[str, dict[str, Rows]] = {}
        for (run_id, key), note in _merged(self.base, self.notes[: self.noted]).items():
            if isinstance(note, Rows):
                places.setdefault(run_id, {})[key] = note
            elif note is not None:
                until = note.until if note.until >= self.moment.time else ()
                runs.setdefault(run_id, {})[key] = [note.packed, note.told, note.last, *until]
        content = {
            "v": _VERSION,
            "of": self.scope,
            "at": [*self.moment.time, self.moment.data],
            "part": self.part,
            "partial": self.is_partial,
            "runs": runs,
            "places": {
                run_id: {
                    name: [rows.told, rows.last, _positions(rows.keys, runs.get(run_id, {}))]
                    for name, rows in each.items()
                }
                for run_id, each in places.items()
            },
        }
        packed = zlib.compress(json.dumps(content, separators=(",", ":")).encode())
        return base64.urlsafe_b64encode(packed).decode()


def _positions(keys: Iterable[str], metrics: Iterable[str]) -> list[Any]:
    """Where the metrics of a place are among those of its run: first positions and lengths, or else names."""
    position = {key: index for index, key in enumerate(metrics)}
    found: list[Any] = []
    for key in keys:
        at = position.get(key)
        if at is None:
            found.append(key)
        elif found and isinstance(found[-1], list) and sum(found[-1]) == at:
            found[-1][1] += 1
        else:
            found.append([at, 1])
    return found


def _names(positions: Iterable[Any], metrics: Sequence[str]) -> Iterator[str]:
    for each in positions:
        if isinstance(each, str):
            yield each
        else:
            first, length = each
            yield from (metrics[index] for index in range(int(first), int(first) + int(length)))


@dataclass(slots=True)
class Resumed:
    """What a token says."""

    moment: Moment
    part: int | None
    is_partial: bool
    heads: dict[str, dict[str, Head]]
    """By run and key; the run itself is there under the empty key."""
    places: dict[str, dict[str, Waiting]]


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
        if any("" not in known for known in heads.values()):
            raise ValueError("runs")
        places = {
            str(run_id): {
                str(name): Waiting(tuple(_names(positions, list(heads[run_id]))), int(count), int(last))
                for name, (count, last, positions) in each.items()
            }
            for run_id, each in content["places"].items()
        }
        part = content["part"]
        place = Resumed(
            Moment((int(seconds), int(number)), str(data)),
            None if part is None else int(part),
            bool(content["partial"]),
            heads,
            places,
        )
        named = content["of"]
    except (binascii.Error, zlib.error, ValueError, TypeError, LookupError, AttributeError) as error:
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


def _head(packed: int, count: int, last: int, *until: int) -> Head:
    seconds, number = until or _NEVER
    return Head(int(packed), int(count), int(last), marks=None, until=(int(seconds), int(number)))


def scope_name(*parts: object) -> str:
    """A short name for what is watched."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()
