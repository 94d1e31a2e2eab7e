"""Changes of places, in which wide steps wait (ADR 36), as new rows of points.

A change says which row came, so a watcher needs to know little of a place: its metrics, which rows name by
their position; how many rows wait, for a server that tells all rows at once; and marks of the last rows, as
a call that is repeated adds the same row again.
"""

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from genesis_flow.areas.metrics.places import PLACE, ROWS, points_of
from genesis_flow.areas.metrics.points import Point
from genesis_flow.documents.plain import Document

_KEYS, _ROWS = "keys.", "rows."
# Short enough for every reader of JSON.
_MARK_BYTES = 6


def mark_of_row(row: Document) -> int:
    """A number that two rows of a place share only if they are the same; it is the same in every process."""
    content = repr([row.get(name) for name in ("n", "timestamps", "steps", "keys", "values")])
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=_MARK_BYTES).digest())


@dataclass(slots=True)
class Waiting:
    """What was told of a place."""

    keys: tuple[str, ...]
    count: int = 0
    last: int = 0
    marks: "deque[int]" = field(default_factory=lambda: deque(maxlen=2 * ROWS))
    """Those of the last rows, folded ones too; behind a token only that of the last one is known."""

    @classmethod
    def of(cls, place: Document) -> "Waiting":
        """A place all of whose rows are told."""
        waiting = cls(tuple(place["keys"]))
        waiting.unknown(place["rows"])
        waiting.count = len(place["rows"])
        return waiting

    def unknown(self, rows: Iterable[Document]) -> list[Document]:
        """Those of the rows that were not told lately; now they are."""
        new = []
        for row in rows:
            mark = mark_of_row(row)
            if mark != self.last and mark not in self.marks:
                new.append(row)
                self.marks.append(mark)
                self.last = mark
        return new

    def points(self, rows: Iterable[Document]) -> dict[str, list[Point]]:
        """The points of rows, by metric."""
        points: dict[str, list[Point]] = {}
        for row in rows:
            for key, point in points_of(self.keys, row):
                points.setdefault(key, []).append(point)
        return points


def is_place(document: Document) -> bool:
    return document.get("key") == PLACE


def of_place(fields: Document, place: Waiting) -> list[Document]:
    """The new rows among the updated fields of a place."""
    if "keys" in fields:
        place.keys = tuple(fields["keys"])
    place.keys += tuple(key for _, key in _added(fields, _KEYS, len(place.keys)))
    if "rows" in fields:
        rows: Sequence[Document] = fields["rows"]
        new, place.count = rows[place.count :], len(rows)
        return place.unknown(new)
    added = _added(fields, _ROWS, 0)
    if added:
        place.count = added[-1][0] + 1
    return place.unknown(row for _, row in added)


def _added(fields: Document, prefix: str, begin: int) -> list[tuple[int, Any]]:
    """The elements of an array that were added, from this position on."""
    added = [(int(path.removeprefix(prefix)), fields[path]) for path in fields if path.startswith(prefix)]
    return sorted((each for each in added if each[0] >= begin), key=lambda each: each[0])
