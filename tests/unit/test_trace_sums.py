"""Sums of traces: percentiles are exact, and packed values stay packed."""

import random
import tracemalloc
from collections import Counter

import pytest
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType

from genesis_flow.areas.traces.sums.merging import Tallies, packed, regrouped, tallied_values, unpacked
from genesis_flow.areas.traces.sums.metrics import _TRACES, Grouping, percentile

LATENCY = Grouping(MetricViewType.TRACES, _TRACES["latency"], [], None)
PERCENTS = [0.0, 0.1, 25.0, 50.0, 95.0, 99.9, 100.0]


def kept(values: list[int]) -> list[dict[str, object]]:
    """What is kept of a day with these values."""
    tallies: Tallies = {}
    finest = Grouping(LATENCY.view, LATENCY.metric, list(LATENCY.metric.dimensions), None)
    rows = [{"_id": {"g0": "n", "value": value}, "n": times} for value, times in Counter(values).items()]
    tallied_values(rows, finest, tallies)
    made = packed(tallies, LATENCY.metric)
    assert made is not None
    return made


def percentiles(days: list[list[dict[str, object]]], from_traces: list[int]) -> list[float | int | None]:
    tallies: Tallies = {}
    for number, rows in enumerate(days):
        unpacked(regrouped(number, rows, LATENCY), tallies, with_values=True)
    found = [{"_id": {"value": value}, "n": times} for value, times in Counter(from_traces).items()]
    tallied_values(found, LATENCY, tallies)
    (tally,) = tallies.values()
    return [tally.outcome(MetricAggregation(AggregationType.PERCENTILE, each)) for each in PERCENTS]


@pytest.mark.parametrize("reach", [1, 5, 1000, 2**31, 2**40])
@pytest.mark.parametrize("count", [1, 2, 3, 50])
@pytest.mark.parametrize("seed", range(4))
def test_percentiles_are_those_of_all_values(reach: int, count: int, seed: int) -> None:
    dice = random.Random(seed)
    days = [[dice.randint(-reach, reach) for _ in range(count)] for _ in range(dice.randint(0, 4))]
    from_traces = [dice.randint(-reach, reach) for _ in range(count if seed % 2 or not days else 0)]
    everything = sorted([value for day in days for value in day] + from_traces)
    expected = [percentile(lambda n: everything[n], len(everything), each) for each in PERCENTS]
    assert percentiles([kept(day) for day in days], from_traces) == expected


def test_packed_values_stay_packed() -> None:
    """A million values; as Python's own numbers they would take some 36 MB."""
    dice = random.Random(1)
    days = [kept([dice.randrange(100_000) for _ in range(20_000)]) for _ in range(50)]
    tracemalloc.start()
    try:
        found = percentiles(days, [1, 2, 3])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found[0] == 0
    assert peak < 1_000_000


def test_values_that_are_too_many_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genesis_flow.areas.traces.sums.merging._MOST_BYTES", 40)
    assert "values" in kept(list(range(10)))[0]
    row = kept(list(range(11)))[0]
    assert "values" not in row
    assert (row["count"], row["total"], row["low"], row["high"]) == (11, 55, 0, 10)
