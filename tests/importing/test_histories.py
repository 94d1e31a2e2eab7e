"""Sets of points: any order, any number of repetitions, in memory or in files."""

import random
import struct
from array import array

import pytest

from genesis_flow.importers.verify import histories
from genesis_flow.importers.verify.histories import Histories, compare, packed, rows_of

POINTS = [(1_000 + n, n % 50, n / 7) for n in range(1_000)]


def _histories(points: list[tuple[int, int, float]], key: str = "loss") -> Histories:
    made = Histories()
    for rows in rows_of(points):
        made.add(key, rows)
    return made


def _shuffled(points: list[tuple[int, int, float]]) -> list[tuple[int, int, float]]:
    mixed = [*points, *points[::3]]
    random.Random(7).shuffle(mixed)
    return mixed


@pytest.mark.parametrize("in_memory", [10, 1_500, 1_000_000])
def test_order_and_repetition_do_not_matter(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(histories, "IN_MEMORY", in_memory)
    result = compare(_histories(POINTS), _histories(_shuffled(POINTS)))["loss"]
    assert result.source == result.target
    assert result.source.points == 1_000
    assert result.source.latest == (49, 1_999, 999 / 7)
    assert (result.only_source, result.only_target) == ([], [])


@pytest.mark.parametrize("in_memory", [10, 990, 1_000_000])
def test_one_changed_digit_is_named(monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    monkeypatch.setattr(histories, "IN_MEMORY", in_memory)
    other = [*POINTS[:500], (POINTS[500][0], POINTS[500][1], POINTS[500][2] + 1e-9), *POINTS[501:990]]
    result = compare(_histories(POINTS[:990]), _histories(other))["loss"]
    assert result.source.checksum != result.target.checksum
    assert result.only_source == [POINTS[500]]
    assert result.only_target == [other[500]]


def test_metrics_of_a_run_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "IN_MEMORY", 100)
    made = _histories(POINTS, "a")
    for rows in rows_of(POINTS[:10]):
        made.add("b", rows)
    other = _histories(POINTS[:10], "b")
    result = compare(made, other)
    assert list(result) == ["a", "b"]
    assert result["b"].source == result["b"].target
    assert (result["a"].source.points, result["a"].target.points) == (1_000, 0)


def test_every_nan_is_one_and_zeros_are_told_apart_unless_they_meet() -> None:
    odd_nan = struct.unpack("<d", b"\x01\x00\x00\x00\x00\x00\xf8\xff")[0]
    same = compare(_histories([(1, 1, float("nan"))]), _histories([(1, 1, odd_nan)]))["loss"]
    assert same.source.checksum == same.target.checksum
    apart = compare(_histories([(1, 1, 0.0)]), _histories([(1, 1, -0.0)]))["loss"]
    assert apart.source.checksum != apart.target.checksum
    both = compare(_histories([(1, 1, 0.0), (1, 1, -0.0)]), _histories([(1, 1, -0.0)]))["loss"]
    assert both.source == both.target


def test_columns_become_rows() -> None:
    times, steps, values = array("q", [1, -2]), array("q", [3, 4]), array("d", [0.5, float("inf")])
    assert packed(times, steps, values) == struct.pack("<qqdqqd", 1, 3, 0.5, -2, 4, float("inf"))
