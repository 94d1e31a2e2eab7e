"""Histories of metrics as sets of points, compared in bounded memory.

A point is 24 bytes: timestamp, step, value. Of a history a store keeps the set of its points, so sets are
compared. While they are few they stay in memory; many are spread over files by a hash of their bytes, and the
files of both sides are compared pair by pair.
"""

import hashlib
import struct
import tempfile
import zlib
from array import array
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple

POINT = struct.Struct("<qqd")
_NAN = POINT.pack(0, 0, float("nan"))[16:]
_ZEROS = (struct.pack("<d", 0.0), struct.pack("<d", -0.0))

# Points of one run in memory, on each side; a point costs about 120 bytes there.
IN_MEMORY = 200_000
FILES = 64
# In a file: the number of the metric before the point.
_ROW = struct.Struct("<I24s")

Point = tuple[int, int, float]
Points = dict[str, set[bytes]]


def packed(timestamps: "array[int]", steps: "array[int]", values: "array[float]") -> bytes:
    """Three columns as rows."""
    rows = array("q", bytes(POINT.size * len(values)))
    rows[0::3], rows[1::3], rows[2::3] = timestamps, steps, array("q", values.tobytes())
    return rows.tobytes()


class Summary(NamedTuple):
    """A history, told so that two equal ones are told alike."""

    points: int
    checksum: str
    # step, timestamp, value
    latest: tuple[int, int, float] | None


class Histories:
    """The points that one side has of the metrics of one run."""

    def __init__(self) -> None:
        self._few: Points = {}
        self._count = 0
        self._files: list[IO[bytes]] = []
        self._keys: list[str] = []
        self._numbers: dict[str, int] = {}

    def add(self, key: str, rows: bytes) -> None:
        """Points of a metric as rows of 24 bytes."""
        points = (_plain(point) for (point,) in struct.iter_unpack("24s", rows))
        if self._files:
            self._spill(key, points)
            return
        known = self._few.setdefault(key, set())
        self._count -= len(known)
        known.update(points)
        self._count += len(known)
        if self._count > IN_MEMORY:
            self._files = [tempfile.TemporaryFile() for _ in range(FILES)]  # noqa: SIM115 - see close
            for name, few in self._few.items():
                self._spill(name, few)
            self._few = {}

    def _spill(self, key: str, points: Iterable[bytes]) -> None:
        if key not in self._numbers:
            self._numbers[key] = len(self._keys)
            self._keys.append(key)
        portions: list[list[bytes]] = [[] for _ in self._files]
        for point in points:
            portions[_part(point)].append(_ROW.pack(self._numbers[key], point))
        for file, portion in zip(self._files, portions, strict=True):
            file.write(b"".join(portion))

    @property
    def parts(self) -> int:
        return FILES if self._files else 1

    def portion(self, number: int, parts: int) -> Points:
        """The points of one of ``parts`` disjoint parts; equal points are in the same part."""
        if self._files:
            return self._read(self._files[number])
        if parts == 1:
            return self._few
        return {key: {point for point in few if _part(point) == number} for key, few in self._few.items()}

    def _read(self, file: IO[bytes]) -> Points:
        points: Points = {}
        file.seek(0)
        for number, point in _ROW.iter_unpack(file.read()):
            points.setdefault(self._keys[number], set()).add(point)
        return points

    def close(self) -> None:
        for file in self._files:
            file.close()
        self._files, self._few = [], {}


def _part(point: bytes) -> int:
    return zlib.crc32(point[:16]) % FILES


def _plain(point: bytes) -> bytes:
    """Every NaN is one NaN, whatever its bits."""
    if point[22] & 0xF0 == 0xF0 and point[23] & 0x7F == 0x7F:
        value = POINT.unpack(point)[2]
        if value != value:
            return point[:16] + _NAN
    return point


class Comparison(NamedTuple):
    source: Summary
    target: Summary
    # The first few points that only one side has.
    only_source: list[Point]
    only_target: list[Point]


def compare(source: Histories, target: Histories, shown: int = 3) -> dict[str, Comparison]:
    """Each metric that either side has."""
    parts = max(source.parts, target.parts)
    pairs: dict[str, _Pair] = {}
    for number in range(parts):
        here, there = source.portion(number, parts), target.portion(number, parts)
        for key in here.keys() | there.keys():
            pairs.setdefault(key, _Pair(shown)).add(here.get(key, set()), there.get(key, set()))
    return {key: pairs[key].comparison() for key in sorted(pairs)}


class _Pair:
    """One metric on both sides, portion by portion."""

    def __init__(self, shown: int) -> None:
        self._shown = shown
        self._source, self._target = _Sum(), _Sum()
        self._missing: list[bytes] = []
        self._extra: list[bytes] = []

    def add(self, ours: set[bytes], theirs: set[bytes]) -> None:
        if ours != theirs:
            ours = ours - _twin_zeros(ours, theirs)
        self._source.add(ours)
        if ours == theirs:
            self._target.add_same(self._source)
            return
        self._target.add(theirs)
        self._missing = self._first([*self._missing, *(ours - theirs)])
        self._extra = self._first([*self._extra, *(theirs - ours)])

    def _first(self, points: list[bytes]) -> list[bytes]:
        return sorted(points, key=POINT.unpack)[: self._shown]

    def comparison(self) -> Comparison:
        missing, extra = ([POINT.unpack(point) for point in some] for some in (self._missing, self._extra))
        return Comparison(self._source.summary(), self._target.summary(), missing, extra)


def _twin_zeros(ours: set[bytes], theirs: set[bytes]) -> set[bytes]:
    """0.0 and -0.0 at one time and step are one point, of which a store keeps either."""
    twin = {_ZEROS[0]: _ZEROS[1], _ZEROS[1]: _ZEROS[0]}
    return {
        point
        for point in ours - theirs
        if point[16:] in twin and (other := point[:16] + twin[point[16:]]) in ours and other in theirs
    }


# step, timestamp, whether it is a number, value
_StepOrder = tuple[int, int, bool, float]


class _Sum:
    """Count, latest point and a checksum that does not depend on the order."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0
        self.latest: _StepOrder | None = None
        self.last: tuple[int, int, _StepOrder | None] = (0, 0, None)

    def add(self, points: set[bytes]) -> None:
        total = 0
        for point in points:
            total += int.from_bytes(hashlib.blake2b(point, digest_size=16).digest(), "little")
        self._take(len(points), total, max(map(_step_order, map(POINT.unpack, points)), default=None))

    def add_same(self, other: "_Sum") -> None:
        """Once more what was just added to the other."""
        self._take(*other.last)

    def _take(self, count: int, total: int, latest: _StepOrder | None) -> None:
        self.last = count, total, latest
        self.count += count
        self.sum = (self.sum + total) % 2**128
        if latest is not None:
            self.latest = max(self.latest or latest, latest)

    def summary(self) -> Summary:
        latest = (self.latest[0], self.latest[1], self.latest[3]) if self.latest else None
        return Summary(self.count, f"{self.sum:032x}", latest)


def _step_order(point: Point) -> _StepOrder:
    """NaN before the numbers."""
    timestamp, step, value = point
    return step, timestamp, value == value, value


def rows_of(points: Iterable[Point]) -> Iterator[bytes]:
    """Portions of rows for (timestamp, step, value)."""
    portion: list[bytes] = []
    for timestamp, step, value in points:
        portion.append(POINT.pack(timestamp, step, value))
        if len(portion) == 10_000:
            yield b"".join(portion)
            portion = []
    if portion:
        yield b"".join(portion)
