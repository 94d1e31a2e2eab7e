"""Blocks of metrics as a proof reads them: with a reader of its own, which believes nothing they say."""

import hashlib
import struct
import zlib
from array import array
from itertools import accumulate

from genesis_flow.documents.keys import SEPARATOR, is_open, settled_block_id
from genesis_flow.documents.plain import Document
from genesis_flow.importers.verify.documents import is_whole
from genesis_flow.importers.verify.histories import packed

_BOUNDS = ("n", "first_timestamp", "last_timestamp")
_STEPS = ("first_step", "last_step")
_COLUMNS = ("timestamps", "steps", "values")
_SETTLED_POINTS = 1_024
_NUMBER = 8


def rows_of(run_id: str, key: str, block: Document) -> bytes:
    """The points as rows of 24 bytes; ValueError if the block contradicts itself."""
    settled = not is_open(block["_id"])
    points = {"format", "data"} if "format" in block else set(_COLUMNS)
    bounds = [*_BOUNDS, *(_STEPS if settled else ())]
    if set(block) != {"_id", *bounds, *points}:
        raise ValueError(f"its fields are {', '.join(sorted(block))}")
    if not all(is_whole(block[name]) for name in bounds) or block["n"] < 1:
        raise ValueError("its bounds are no whole numbers")
    content = _unpacked(block) if "format" in block else [block[name] for name in _COLUMNS]
    if not all(isinstance(column, bytes) for column in content):
        raise ValueError("its columns are no bytes")
    if {len(column) for column in content} != {_NUMBER * block["n"]}:
        raise ValueError(f"it says {block['n']} points, its columns hold others")
    times, steps, values = array("q"), array("q"), array("d")
    times.frombytes(content[0])
    steps.frombytes(content[1])
    values.frombytes(content[2])
    if [block[name] for name in _BOUNDS[1:]] != [times[0], times[-1]]:
        raise ValueError("its bounds are not those of its points")
    rows = packed(times, steps, values)
    if len(set(struct.iter_unpack("24s", rows))) != len(times):
        raise ValueError("points are in it twice")
    if settled:
        if len(times) != _SETTLED_POINTS or [block[name] for name in _STEPS] != [steps[0], steps[-1]]:
            raise ValueError("it is settled, and has not the points that it says")
        return rows
    digest = hashlib.blake2b(b"".join(content), digest_size=8).hexdigest()
    if block["_id"] != (name := f"{run_id}{SEPARATOR}{key}{SEPARATOR}{times[0]:016x}-{digest}"):
        raise ValueError(f"its name should be {name}, after its content")
    return rows


class SettledBlocks:
    """The settled blocks of a metric, which have to be numbered without a gap and in order."""

    def __init__(self) -> None:
        self._head = ""
        self._count = 0
        self._end: tuple[int, int] | None = None

    def check(self, block: Document) -> None:
        """ValueError if it cannot come behind those that were checked before."""
        if is_open(block["_id"]):
            return
        head = block["_id"].rpartition(SEPARATOR)[0]
        if head != self._head:
            self._head, self._count, self._end = head, 0, None
        if block["_id"] != (name := settled_block_id(head, self._count)):
            raise ValueError(f"{name} is missing before it")
        begin = block["first_step"], block["first_timestamp"]
        if self._end is not None and self._end > begin:
            raise ValueError("its points come before those of the block before it")
        self._count += 1
        self._end = block["last_step"], block["last_timestamp"]


def _unpacked(block: Document) -> list[bytes]:
    """The columns of format 2, eight bytes a number; `areas/metrics/packing.py` describes the layout."""
    data, count = block["data"], block["n"]
    if block["format"] != 2 or not is_whole(block["format"]) or not isinstance(data, bytes):
        raise ValueError(f"its format is {block['format']}, or its points are no bytes")
    rest = memoryview(data)

    def take(size: int) -> bytes:
        nonlocal rest
        if len(rest) < size:
            raise ValueError(f"its points end after {len(data)} bytes")
        taken, rest = bytes(rest[:size]), rest[size:]
        return taken

    differs, kinds = take(1)[0], int.from_bytes(take(6), "little")
    columns = []
    for number in range(len(_COLUMNS)):
        first = take(_NUMBER) if differs >> number & 1 else b""
        length = count - bool(first)
        column = bytearray(_NUMBER * length)
        for place in range(_NUMBER):
            kind = kinds >> 2 * (_NUMBER * number + place) & 3
            if kind == 0:
                plane = bytes(length)
            elif kind == 1:
                plane = take(1) * length
            elif kind == 2:
                plane = take(length)
            else:
                plane = _inflated(take(int.from_bytes(take(4), "little")), length)
            column[place::_NUMBER] = plane
        columns.append(_sums(first, bytes(column)) if first else bytes(column))
    if rest or differs > 0b111:
        raise ValueError("it has more than its points")
    return columns


def _inflated(deflated: bytes, length: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plane = inflater.decompress(deflated, length + 1)
    except zlib.error as exc:
        raise ValueError(f"points cannot be inflated: {exc}") from exc
    if len(plane) != length or not inflater.eof or inflater.unused_data:
        raise ValueError("points are missing or too many")
    return plane


def _sums(first: bytes, differences: bytes) -> bytes:
    numbers = array("q")
    numbers.frombytes(first + differences)
    try:
        return array("q", accumulate(numbers)).tobytes()
    except OverflowError as exc:
        raise ValueError("its differences lead out of 64 bits") from exc
