"""Packed points come back bit for bit, and what is damaged is refused."""

import math
import struct
from array import array

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genesis_flow.areas.metrics.packing import Packed, encode, little_endian
from genesis_flow.areas.metrics.points import columns_of, pack, pack_columns, unpack

INT64 = st.integers(-(2**63), 2**63 - 1)
WHOLE = st.one_of(INT64, st.integers(-3, 3), st.integers(1_700_000_000_000, 1_700_000_001_000))
# All bit patterns, with every payload of NaN, and those that are frequent.
REAL = st.one_of(
    st.binary(min_size=8, max_size=8).map(lambda bits: struct.unpack("<d", bits)[0]),
    st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308]),
    st.floats(width=32),
)
POINT = st.tuples(WHOLE, WHOLE, REAL)
EXTREMES = [(-(2**63), 2**63 - 1, -0.0), (2**63 - 1, -(2**63), math.nan), (0, 0, 0.0)]

# Written by the first format, and by the second when it was new: both are read for ever.
FIRST = {
    "n": 3,
    "timestamps": bytes.fromhex("e803000000000000e903000000000000ec03000000000000"),
    "steps": bytes.fromhex("00000000000000000100000000000000ffffffffffffffff"),
    "values": bytes.fromhex("000000000000f03f00000000000000800000000000000c40"),
}
SAMPLE = [(1000, 0, 1.0), (1001, 1, -0.0), (1004, -1, 3.5)]
DIGEST = "9ab3357effc7c8e3"
DEFLATED = bytes.fromhex(
    "030100ffff00f0e8030000000000000300000000000000000b000000636020153002c11f1001000900000063602007fc076902000900000063602007fc076902000900000063602007fc076902000900000063602007fc076902000900000063602007fc076902000900000063602007fc076902000900000063602007fc076902000800000063b8f080815c04000800000063b0b76720170100"
)
SECOND = bytes.fromhex(
    "030200aaaa00a0e8030000000000000103000000000000000001fe00ff00ff00ff00ff00ff00ff00fff0000c3f8040"
)


def columns(points: list[tuple[int, int, float]]) -> "tuple[array[int], array[int], array[float]]":
    return (
        array("q", [point[0] for point in points]),
        array("q", [point[1] for point in points]),
        array("d", [point[2] for point in points]),
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(POINT, min_size=1, max_size=300))
@example([EXTREMES[0]])
@example(EXTREMES)
@example([(1000 + step * 250, step, 0.5) for step in range(1024)])
@example([(1000 + step * step % 977, step % 7, step / 3) for step in range(1024)])
def test_points_come_back_bit_for_bit(points: list[tuple[int, int, float]]) -> None:
    given_columns = columns(points)
    data = encode(*given_columns)
    for found, expected in zip(Packed(data, len(points)).columns(), given_columns, strict=True):
        assert little_endian(found) == little_endian(expected)
    assert [*Packed(data, len(points)).steps()] == [*given_columns[1]]
    for index in {0, len(points) // 2, len(points) - 1}:
        time, step, value = Packed(data, len(points)).point(index)
        assert (time, step) == points[index][:2]
        assert struct.pack("<d", value) == struct.pack("<d", points[index][2])


def test_what_a_training_logs_takes_few_bytes() -> None:
    points = []
    for step in range(1024):
        (value,) = struct.unpack("<f", struct.pack("<f", 2 / (1 + step / 9) + math.sin(step * 1.7) / 50))
        points.append((1_700_000_000_000 + step * 250 + step * 7919 % 13, step, value))
    assert len(encode(*columns(points))) < 4.5 * 1024


def test_the_first_format_is_read() -> None:
    assert unpack(FIRST) == SAMPLE
    assert math.copysign(1, unpack(FIRST)[1][2]) == -1


def test_a_block_has_the_same_name_in_both_formats() -> None:
    assert pack_columns("run", "key", *columns_of(FIRST))["_id"] == "run|key|00000000000003e8-" + DIGEST
    assert pack("run", "key", SAMPLE[::-1])["_id"] == "run|key|00000000000003e8-" + DIGEST


def test_the_second_format_is_read_as_it_was_written() -> None:
    assert unpack({"n": 3, "format": 2, "data": SECOND}) == SAMPLE
    assert encode(*columns(SAMPLE)) == SECOND


def test_deflated_planes_are_read_as_they_were_written() -> None:
    points = [(1000 + step * 3, step % 5 * (step // 50), step % 3 / 4) for step in range(60)]
    assert unpack({"n": 60, "format": 2, "data": DEFLATED}) == points


@pytest.mark.parametrize("size", range(0, 120, 7))
def test_what_is_cut_or_has_more_is_refused(size: int) -> None:
    data = encode(*columns([(1000 + step * 3 % 7, step * step, step / 3) for step in range(200)]))
    with pytest.raises(ValueError, match="it "):
        Packed(data[:size], 200)
    with pytest.raises(ValueError, match="it has"):
        Packed(data + b"x" * (size + 1), 200)
    with pytest.raises(ValueError, match="it"):
        Packed(data, 201 + size).columns()


def test_a_damaged_plane_is_refused() -> None:
    data = encode(*columns([(1000, step * 3 // 2, 0.0) for step in range(200)]))
    stream = 7 + 2 * 8 + 4  # behind the head, the first timestamp and step, and the length
    with pytest.raises(ValueError, match="cannot be inflated"):
        Packed(data[:stream] + b"\xff" * (len(data) - stream), 200).columns()
    with pytest.raises(ValueError, match="holds 199 bytes"):
        Packed(data, 201).columns()


def test_a_format_of_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="the format 3"):
        unpack({"n": 3, "format": 3, "data": SECOND})
