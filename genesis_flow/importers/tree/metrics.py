"""Metric files: a line for each point, read by the block and turned into columns."""

from array import array
from collections.abc import Iterator
from operator import methodcaller

from genesis_flow.importers.records import SERIES_POINTS, Problem, Series
from genesis_flow.importers.tree.files import Damaged, key_of, open_file, shown

_BLOCK_BYTES = 1024 * 1024
# timestamp value; timestamp value step; timestamp value step dataset digest
_FIELDS = (2, 3, 5)
_SHOWN = 60

_spaces = methodcaller("count", b" ")

Columns = tuple["array[int]", "array[int]", "array[float]"]


def read_metric(run_id: str, folder: str, path: str) -> Iterator[Series | Problem]:
    """The points of a file, in pieces; lines that cannot be read become one problem at the end."""
    try:
        key = key_of(path, folder)
        yield from _Reader(run_id, key, path).read()
    except Damaged as damage:
        yield Problem("metric", shown(path), str(damage))
    except OSError as error:
        yield Problem("metric", shown(path), f"it cannot be read ({error.strerror})")


class _Reader:
    def __init__(self, run_id: str, key: str, path: str) -> None:
        self._run_id = run_id
        self._key = key
        self._path = path
        self._columns: Columns = array("q"), array("q"), array("d")
        self._points = self._lines = self._bad = self._bad_bytes = 0
        self._first_bad = ""

    def read(self) -> Iterator[Series | Problem]:
        rest = b""
        with open_file(self._path) as file:
            while block := file.read(_BLOCK_BYTES):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                if newline:
                    self._take(whole.split(b"\n"))
                    yield from self._full()
        if rest:
            self._take_last(rest)
        if len(self._columns[0]):
            yield self._series(len(self._columns[0]))
        if self._bad:
            more = f", and {self._bad - 1} more lines" if self._bad > 1 else ""
            yield Problem("metric", shown(self._path), f"{self._first_bad}{more}", self._bad_bytes)
        elif not self._points:
            yield Problem("metric", shown(self._path), "it has no points")

    def _full(self) -> Iterator[Series]:
        while len(self._columns[0]) >= SERIES_POINTS:
            yield self._series(SERIES_POINTS)

    def _series(self, count: int) -> Series:
        timestamps, steps, values = self._columns
        self._columns = timestamps[count:], steps[count:], values[count:]
        return Series(self._run_id, self._key, timestamps[:count], steps[:count], values[:count])

    def _take(self, lines: list[bytes]) -> None:
        spaces = list(map(_spaces, lines))
        if spaces.count(2) == len(lines):
            try:
                self._add_tokens(b" ".join(lines).split())
            except (ValueError, OverflowError):
                pass
            else:
                self._lines += len(lines)
                return
        for line in lines:
            self._take_line(line)

    def _add_tokens(self, tokens: list[bytes]) -> None:
        timestamps = array("q", map(int, tokens[0::3]))
        steps = array("q", map(int, tokens[2::3]))
        values = array("d", map(float, tokens[1::3]))
        if not len(timestamps) == len(steps) == len(values):
            raise ValueError("A line has an empty field.")
        self._columns[0].extend(timestamps)
        self._columns[1].extend(steps)
        self._columns[2].extend(values)
        self._points += len(values)

    def _take_line(self, line: bytes) -> None:
        self._lines += 1
        fields = line.split()
        if not fields and not line.strip():
            return  # MLflow skips none, but a blank line is no point
        try:
            if len(fields) not in _FIELDS:
                raise ValueError
            step = fields[2] if len(fields) > 2 else b"0"
            self._add_tokens([fields[0], fields[1], step])
        except (ValueError, OverflowError):
            self._refuse(line, "is not a point")

    def _take_last(self, line: bytes) -> None:
        """A line without an end: a run that goes on may be in the middle of it."""
        if self._points and len(line.split()) < 3:
            self._lines += 1
            self._refuse(line, "breaks off")
        else:
            self._take([line])

    def _refuse(self, line: bytes, what: str) -> None:
        self._bad += 1
        self._bad_bytes += len(line)
        if not self._first_bad:
            content = line[:_SHOWN].decode("utf-8", "backslashreplace")
            self._first_bad = f"line {self._lines} {what}: {content!r}"
