"""Columns of points in few bytes: differences, planes of bytes, and each plane in its shortest form.

A column is split into eight planes: the lowest bytes of all its numbers, then the next ones, and so on.
Timestamps and steps are replaced by their differences before, where these fit 64 bits. A plane of what a
training logs is often one byte repeated (steps rise by one, a float32 ends in zeros), or noise that nothing
shortens; the others are deflated. Noise is kept as it is, so that a value is found without unpacking it.

The layout is that of format 2, and is read for ever: one byte says which columns are differences, six say
the kinds of the planes, two bits each; then, column by column, the first number if differences follow, and
the planes that are not zero. A deflated plane has its length before it.
"""

import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, islice
from operator import sub
from typing import Any

Columns = tuple["array[int]", "array[int]", "array[float]"]

_TYPES = ("q", "q", "d")
_VALUES = 2
_WIDTH = 8
_ZEROS, _REPEATED, _PLAIN, _DEFLATED = range(4)
_KINDS_SIZE = _WIDTH * len(_TYPES) // 4
_HEAD_SIZE = 1 + _KINDS_SIZE
_LENGTH_SIZE = 4
_MASK = 2**64 - 1
_DOUBLE = struct.Struct("<d")
# More than this costs processor time in the call that logs, and saves hardly a byte.
_LEVEL = 1
# Planes are short: a small window and small tables are made in a fraction of the time of zlib's usual ones.
_WINDOW, _MEMORY = -11, 6


def encode(timestamps: "array[int]", steps: "array[int]", values: "array[float]") -> bytes:
    flags, kinds, shift, content = 0, 0, 0, []
    columns: tuple[array[Any], ...] = timestamps, steps, values
    for number, column in enumerate(columns):
        differences = None if number == _VALUES else _differences(column)
        if differences is not None:
            flags |= 1 << number
            content.append(little_endian(column[:1]))
            column = differences
        whole = little_endian(column)
        for place in range(_WIDTH):
            kind, plane = _shortest(whole[place::_WIDTH])
            kinds |= kind << shift
            shift += 2
            content.append(plane)
    return bytes([flags]) + kinds.to_bytes(_KINDS_SIZE, "little") + b"".join(content)


class Packed:
    """Packed points. Whoever needs few of them unpacks no more than what leads to these."""

    def __init__(self, data: bytes, count: int) -> None:
        """ValueError if ``data`` cannot be ``count`` points."""
        if len(data) < _HEAD_SIZE:
            raise ValueError("it is too short for its head")
        position = _HEAD_SIZE
        self._steps: Sequence[int] | None = None
        self._columns: list[_Column] = []
        for layout in _layouts(data[:_HEAD_SIZE]):
            column = _Column(layout, count)
            position = column.read(data, position)
            self._columns.append(column)
        if position != len(data):
            raise ValueError(f"it has {len(data)} bytes, its points take {position}")

    def columns(self) -> Columns:
        timestamps, steps, values = (column.all() for column in self._columns)
        return timestamps, steps, values

    def steps(self) -> Sequence[int]:
        if self._steps is None:
            self._steps = self._columns[1].numbers()
        return self._steps

    def point(self, index: int) -> tuple[int, int, float]:
        timestamps, steps, values = self._columns
        return timestamps.whole(index), steps.whole(index), values.real(index)


@dataclass(frozen=True, slots=True)
class _Layout:
    """What the head says of a column: its type, and the planes that are not zero, by place and kind."""

    type: str
    is_differences: bool
    planes: tuple[tuple[int, int], ...]


@lru_cache(maxsize=256)
def _layouts(head: bytes) -> list[_Layout]:
    """Kept, since the blocks of a metric are mostly alike in this."""
    kinds = int.from_bytes(head[1:], "little")
    layouts = []
    for number, type_ in enumerate(_TYPES):
        of_column = [kinds >> 2 * (_WIDTH * number + place) & 3 for place in range(_WIDTH)]
        planes = tuple((place, kind) for place, kind in enumerate(of_column) if kind != _ZEROS)
        layouts.append(_Layout(type_, bool(head[0] >> number & 1), planes))
    return layouts


class _Column:
    """The planes that are not zero, and the number before the differences if they are of these."""

    __slots__ = ("_first", "_layout", "_length", "_planes")

    def __init__(self, layout: _Layout, count: int) -> None:
        self._layout = layout
        self._first = 0
        self._length = count - 1 if layout.is_differences else count
        self._planes: list[tuple[int, int, bytes]] = []

    def read(self, data: bytes, position: int) -> int:
        """Take the planes from ``position`` on, and return where they end."""
        if self._layout.is_differences:
            self._first = int.from_bytes(data[position : position + _WIDTH], "little")
            position += _WIDTH
        for place, kind in self._layout.planes:
            size = 1 if kind == _REPEATED else self._length
            if kind == _DEFLATED:
                size = int.from_bytes(data[position : position + _LENGTH_SIZE], "little")
                position += _LENGTH_SIZE
            self._planes.append((place, kind, data[position : position + size]))
            position += size
        return position

    def all(self) -> "array[Any]":
        stored = bytearray(_WIDTH * self._length)
        for place, kind, content in self._planes:
            if kind == _REPEATED:
                stored[place::_WIDTH] = content * self._length
            else:
                stored[place::_WIDTH] = _inflated(content, self._length) if kind == _DEFLATED else content
        column = from_little_endian(self._layout.type, bytes(stored))
        if not self._layout.is_differences:
            return column
        return array("q", accumulate(column, initial=_signed(self._first)))

    def numbers(self) -> Sequence[int]:
        """All of them, as a range where they rise evenly: the steps of a training mostly do."""
        if self._layout.is_differences and all(kind == _REPEATED for _, kind, _ in self._planes):
            rise = _signed(sum(content[0] << 8 * place for place, _, content in self._planes))
            first = _signed(self._first)
            if rise > 0:
                return range(first, first + rise * (self._length + 1), rise)
        return self.all()

    def whole(self, index: int) -> int:
        """An integer. Sums of the planes are that of the differences, but for what 64 bits do not hold."""
        if not self._layout.is_differences:
            return _signed(self._bits(index))
        total = self._first
        if index:
            for place, kind, content in self._planes:
                if kind == _REPEATED:
                    total += content[0] * index << 8 * place
                else:
                    plane = _begin(content, index) if kind == _DEFLATED else content
                    total += sum(plane[:index]) << 8 * place
        return _signed(total)

    def real(self, index: int) -> float:
        number: float = _DOUBLE.unpack(self._bits(index).to_bytes(_WIDTH, "little"))[0]
        return number

    def _bits(self, index: int) -> int:
        bits = 0
        for place, kind, content in self._planes:
            if kind == _DEFLATED:
                byte = _begin(content, index + 1)[index]
            else:
                byte = content[0 if kind == _REPEATED else index]
            bits |= byte << 8 * place
        return bits


def _signed(number: int) -> int:
    number &= _MASK
    return number - _MASK - 1 if number > _MASK >> 1 else number


def _shortest(plane: bytes) -> tuple[int, bytes]:
    if not plane or plane.count(plane[0]) == len(plane):
        return (_REPEATED, plane[:1]) if any(plane[:1]) else (_ZEROS, b"")
    deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY)
    deflated = deflater.compress(plane) + deflater.flush()
    if len(deflated) + _LENGTH_SIZE < len(plane):
        return _DEFLATED, len(deflated).to_bytes(_LENGTH_SIZE, "little") + deflated
    return _PLAIN, plane


def _inflated(deflated: bytes, length: int) -> bytes:
    try:
        plane = zlib.decompress(deflated, _WINDOW, length)
    except zlib.error as error:
        raise ValueError(f"a plane of it cannot be inflated: {error}") from error
    return _checked(plane, length)


def _begin(deflated: bytes, length: int) -> bytes:
    """Its first ``length`` bytes, one at least: inflating is most of what it takes to find a point."""
    try:
        plane = zlib.decompressobj(_WINDOW).decompress(deflated, length)
    except zlib.error as error:
        raise ValueError(f"a plane of it cannot be inflated: {error}") from error
    return _checked(plane, length)


def _checked(plane: bytes, length: int) -> bytes:
    if len(plane) != length:
        raise ValueError(f"a plane of it holds {len(plane)} bytes, not {length}")
    return plane


def _differences(column: "array[int]") -> "array[int] | None":
    """None if they do not fit; they would take more bytes anyway."""
    try:
        return array("q", map(sub, islice(column, 1, None), column))
    except OverflowError:
        return None


def little_endian(column: "array[Any]") -> bytes:
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def from_little_endian(kind: str, content: bytes) -> "array[Any]":
    column: array[Any] = array(kind)
    column.frombytes(content)
    if sys.byteorder == "big":
        column.byteswap()
    return column
