"""Changes of documents of metrics, as new points: the one place that knows how points are stored.

A change of a head carries its whole tail, so what is new in it depends on what was told before: how many
points of the tail. A tail that is packed becomes a block, of which nothing is new; a block of many points
that were logged at once comes in one transaction with a change of its head, which says that it is complete.
Points that waited in a place were told from there (waiting.py): the changes that fold them say so, and tell
nothing. Nor do settled blocks, or blocks that are replaced: such points were in other blocks before.
"""

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from genesis_flow.areas.metrics.documents import TAIL_LIMIT
from genesis_flow.areas.metrics.points import Point, unpack
from genesis_flow.documents.keys import SEPARATOR, is_open
from genesis_flow.documents.plain import Document

_SHORT = 0xFFFF_FFFF


def mark(point: Point) -> int:
    """A number that two points share only if they are the same; it is the same in every process."""
    timestamp, step, value = point
    return hash((timestamp, step, value, 0)) if value == value else hash((timestamp, step, 0, 1))


def marks_of(points: Iterable[Point]) -> "array[int]":
    return array("q", map(mark, points))


@dataclass(slots=True)
class Head:
    """What was told of a metric: so much of its tail, and what is not told twice."""

    packed: int = 0
    count: int = 0
    last: int = 0
    """The mark of the last point of the tail that was told, shortened."""
    marks: "array[int] | None" = field(default_factory=lambda: array("q"))
    """Those of the tail; None behind a token, which only knows how many there were."""
    before: "array[int]" = field(default_factory=lambda: array("q"))
    """Those of points that left the tail lately, which a repeated call may log again."""
    until: tuple[int, int] = (0, 0)
    """Changes up to this time are in the state that was told."""
    held: list[Point] = field(default_factory=list)
    """Points of blocks whose head has not said yet whether they are new."""

    def has_told(self, tail: list[Point]) -> None:
        """All of this tail is told."""
        self.count = len(tail)
        self.last = mark(tail[-1]) & _SHORT if tail else 0
        self.marks = marks_of(tail)

    def continues(self, tail: list[Point]) -> bool:
        """Whether ``tail`` begins with what was told."""
        if not self.count:
            return True
        return len(tail) >= self.count and mark(tail[self.count - 1]) & _SHORT == self.last

    def is_packed_now(self) -> None:
        if self.marks is not None:
            self.before = (self.before + self.marks)[-2 * TAIL_LIMIT :]
        self.count, self.last, self.marks = 0, 0, array("q")
        self.held = []

    def remember(self, points: Iterable[Point]) -> None:
        """Those of them that came last, at least, are not told again."""
        self.before = (self.before + marks_of(points))[-2 * TAIL_LIMIT :]

    def unknown(self, points: Iterable[Point]) -> list[Point]:
        """Those that were not told lately."""
        told = {*self.before, *(self.marks or ())}
        return [point for point in points if mark(point) not in told]


def run_and_key(identity: str) -> tuple[str, str]:
    """Of the id of a head or a block."""
    parts = identity.split(SEPARATOR, 2)
    return parts[0], parts[1] if len(parts) > 1 else ""


def of_tail(tail: Iterable[Iterable[float]]) -> list[Point]:
    return [(int(timestamp), int(step), float(value)) for timestamp, step, value in tail]


def is_head(document: Document) -> bool:
    """Whether a document of the heads' collection is one: it may hold documents of other kinds."""
    return "tail" in document and "packed" in document


def is_of_head(fields: Document) -> bool:
    """Whether updated fields may tell points of a head: others say that its run was deleted, say."""
    return any(path in ("tail", "packed") or path.startswith("tail.") for path in fields)


def of_new_head(document: Document, head: Head) -> list[Point]:
    """The new points of a head that was inserted, or replaced; ``head`` is new or has what was told of it."""
    tail, packed = of_tail(document["tail"]), int(document["packed"])
    points = head.unknown([*head.held, *tail])
    head.held, head.packed = [], packed
    head.has_told(tail)
    return points


def of_head(fields: Document, head: Head) -> list[Point]:
    """The new points among the updated fields of a head."""
    if "folds" in fields:
        head.packed = int(fields.get("packed", head.packed))
        if "tail" in fields or any(path.startswith("tail.") for path in fields):
            _of_longer_tail(fields, head)
        return []
    packed = fields.get("packed")
    if packed is None:
        return _of_longer_tail(fields, head)
    if packed <= head.packed:
        head.held = []
        return []
    head.packed = int(packed)
    if fields.get("tail") == []:
        head.is_packed_now()
        return []
    points, head.held = head.unknown(head.held), []
    head.remember(points)
    return points


def _of_longer_tail(fields: Document, head: Head) -> list[Point]:
    if "tail" in fields:
        tail = of_tail(fields["tail"])
        if head.continues(tail):
            fresh = set(head.before)
            points = [point for point in tail[head.count :] if mark(point) not in fresh]
        else:
            points = head.unknown(tail)
        head.has_told(tail)
        return points
    # A server may also say which elements are new.
    added = sorted((int(path[5:]), point) for path, point in fields.items() if path.startswith("tail."))
    points = of_tail(point for index, point in added if index >= head.count)
    if points:
        marks = None if head.marks is None else head.marks + marks_of(points)
        head.count, head.last, head.marks = added[-1][0] + 1, mark(points[-1]) & _SHORT, marks
    return points


def may_be_new(block: Document, operation: str) -> bool:
    """Whether a block that was written may have points that were in none before."""
    return operation == "insert" and is_open(block["_id"]) and not block.get("folded")


def of_block(block: Document, head: Head) -> None:
    """A block that may be new was written: its points are new once its head says so."""
    points = unpack(block)
    is_full = head.marks is None and len(points) == head.count >= TAIL_LIMIT
    if is_full and any(mark(point) & _SHORT == head.last for point in points):
        head.marks = marks_of(points)  # the tail that the token counted, on its way into a block
        return
    # A block may be written twice, by a call that was repeated.
    known = {*head.before, *(head.marks or ()), *map(mark, head.held)}
    head.held += [point for point in points if mark(point) not in known]
