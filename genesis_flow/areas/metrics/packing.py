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
from itertools import accumulate, islice
from operator import sub
from typing import Any

Columns = tuple["array[int]", "array[int]", "array[float]"]

_TYPES = ("q", "q", "d")
_VALUES = 2
_WIDTH = 8
_ZEROS, _REPEATED, _PLAIN, _DEFLATED = range(4)
_KINDS_SIZE = _WIDTH * len(_TYPES) // 4
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
        if len(data) < 1 + _KINDS_SIZE:
            raise ValueError("it is too short for its head")
        flags, kinds = data[0], int.from_bytes(data[1 : 1 + _KINDS_SIZE], "little")
        position = 1 + _KINDS_SIZE
        self._columns: list[_Column] = []
        for number, kind in enumerate(_TYPES):
            first = None
            if flags >> number & 1:
                first = int.from_bytes(data[position : position + _WIDTH], "little")
                position += _WIDTH
            column = _Column(kind, first, count)
            position = column.read(data, position, kinds >> 2 * _WIDTH * number)
            self._columns.append(column)
        if position != len(data):
            raise ValueError(f"it has {len(data)} bytes, its points take {position}")

    def columns(self) -> Columns:
        timestamps, steps, values = (column.all() for column in self._columns)
        return timestamps, steps, values

    def steps(self) -> "array[int]":
        return self._columns[1].all()

    def point(self, index: int) -> tuple[int, int, float]:
        timestamps, steps, values = self._columns
        return timestamps.whole(index), steps.whole(index), values.real(index)


class _Column:
    """Eight planes, and the number before the differences if they are of these. One byte may be a plane."""

    __slots__ = ("_deflated", "_first", "_kind", "_length", "_planes")

    def __init__(self, kind: str, first: int | None, count: int) -> None:
        self._kind = kind
        self._first = first
        self._length = count if first is None else count - 1
        self._planes: list[bytes] = []
        self._deflated = 0

    def read(self, data: bytes, position: int, kinds: int) -> int:
        """Take the planes from ``position`` on, and return where they end."""
        for place in range(_WIDTH):
            kind = kinds & 3
            kinds >>= 2
            if kind == _ZEROS:
                self._planes.append(b"\0")
                continue
            size = 1
            if kind == _PLAIN:
                size = self._length
            elif kind == _DEFLATED:
                size = int.from_bytes(data[position : position + _LENGTH_SIZE], "little")
                position += _LENGTH_SIZE
                self._deflated |= 1 << place
            self._planes.append(data[position : position + size])
            position += size
        return position

    def all(self) -> "array[Any]":
        stored = bytearray(_WIDTH * self._length)
        for place, plane in enumerate(self._inflated()):
            stored[place::_WIDTH] = plane if len(plane) == self._length else plane * self._length
        column = from_little_endian(self._kind, bytes(stored))
        if self._first is None:
            return column
        return array("q", accumulate(column, initial=_signed(self._first)))

    def whole(self, index: int) -> int:
        """An integer. Sums of the planes are that of the differences, but for what 64 bits do not hold."""
        if self._first is None:
            return int.from_bytes(self._bytes(index), "little", signed=True)
        total = self._first
        for place, plane in enumerate(self._inflated()):
            if plane != b"\0":
                total += (plane[0] * index if len(plane) == 1 else sum(plane[:index])) << 8 * place
        return _signed(total)

    def real(self, index: int) -> float:
        number: float = _DOUBLE.unpack(self._bytes(index))[0]
        return number

    def _bytes(self, index: int) -> bytes:
        return bytes([plane[0] if len(plane) == 1 else plane[index] for plane in self._inflated()])

    def _inflated(self) -> list[bytes]:
        if self._deflated:
            for place, plane in enumerate(self._planes):
                if self._deflated >> place & 1:
                    self._planes[place] = _inflated(plane, self._length)
            self._deflated = 0
        return self._planes


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
