"""Metrics: logging them, which one is the latest, and their histories."""

import math
import random
from itertools import product

import pytest
from mlflow.entities import Metric, Param, RunTag

from tests.contract.pair import Pair
from tests.contract.scenes import UNKNOWN_RUN, new_run
from tests.versions import SINCE_3_18

NAN = float("nan")


@pytest.fixture
def run_id(pair: Pair) -> str:
    return new_run(pair)


def points(key: str, *values: tuple[float, int, int]) -> list[Metric]:
    return [Metric(key, value, timestamp, step) for value, timestamp, step in values]


@pytest.mark.parametrize("value", [0.0, 1, -1.5, 1e308, 5e-324, 2**53, 2**63, True + 0.5, NAN])
def test_values(pair: Pair, run_id: str, value: float) -> None:
    pair.log_metric(run_id, Metric("m", value, 1, 0))
    pair.get_run(run_id)
    pair.get_metric_history(run_id, "m")


@pytest.mark.parametrize(
    "metric",
    [
        Metric(None, 1.0, 1, 0),
        Metric("", 1.0, 1, 0),
        Metric("a//b", 1.0, 1, 0),
        Metric("../m", 1.0, 1, 0),
        Metric("/m", 1.0, 1, 0),
        Metric("m|x", 1.0, 1, 0),
        Metric("$m", 1.0, 1, 0),
        Metric("m" * 251, 1.0, 1, 0),
        Metric("m", None, 1, 0),
        Metric("m", "1.0", 1, 0),
        Metric("m", True, 1, 0),
        Metric("m", [1], 1, 0),
        Metric("m", 1.0, -1, 0),
        Metric("m", 1.0, "now", 0),
        Metric("m", 1.0, None, 0),
        Metric("m", 1.0, 1, None),
        Metric("m", 1.0, 1, "first"),
    ],
    ids=lambda metric: f"{str(metric.key)[:8]}-{metric.value}-{metric.timestamp}-{metric.step}",
)
def test_bad_metrics_are_refused(pair: Pair, run_id: str, metric: Metric) -> None:
    assert pair.refused("log_metric", run_id, metric).error_code == "INVALID_PARAMETER_VALUE"
    good = Metric("good", 1.0, 1, 0)
    refusal = pair.refused("log_batch", run_id, [good, metric], [Param("p", "v")], [RunTag("t", "v")])
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    run = pair.get_run(run_id)
    assert (run.data.metrics, run.data.params, "t" in run.data.tags) == ({}, {}, False)


@pytest.mark.parametrize("key", ["m" * 250, "a.b", "a b", "a/b/c", "a:b", "ünïcode", "-_.", "0"])
def test_keys(pair: Pair, run_id: str, key: str) -> None:
    pair.log_metric(run_id, Metric(key, 1.0, 1, 0))
    pair.log_metric(run_id, Metric(key, 2.0, 2, 1))
    assert pair.get_run(run_id).data.metrics == {key: 2.0}
    assert len(pair.get_metric_history(run_id, key)) == 2


def test_a_line_feed_at_the_end_of_a_key(pair: Pair, run_id: str) -> None:
    metric, param, tag = Metric("m\n", 1.0, 1, 0), Param("p\n", "1"), RunTag("t\n", "1")
    calls = [("log_metric", metric), ("log_param", param), ("set_tag", tag)]
    if SINCE_3_18:
        for method, value in calls:
            assert pair.refused(method, run_id, value).error_code == "INVALID_PARAMETER_VALUE"
        pair.refused("log_batch", run_id, [metric], [param], [tag])
    else:
        for method, value in calls:
            getattr(pair, method)(run_id, value)
    pair.get_run(run_id)


def test_keys_that_begin_alike_are_kept_apart(pair: Pair, run_id: str) -> None:
    for key in ("m", "m1", "m.1", "m 1", "M", "m/1"):
        pair.log_metric(run_id, Metric(key, float(len(key)), 1, 0))
    for key in ("m", "m1", "m.1", "m 1", "M", "m/1", "m/"):
        pair.get_metric_history(run_id, key)
    pair.get_run(run_id)


@pytest.mark.parametrize("seed", range(8))
def test_the_latest_is_the_greatest_by_step_timestamp_value(pair: Pair, run_id: str, seed: int) -> None:
    grid = points("m", *((v, t, s) for v in (-1.0, 0.0, 2.0) for t in (1, 2) for s in (-1, 0, 3)))
    random.Random(seed).shuffle(grid)
    for metric in grid[:9]:
        pair.log_metric(run_id, metric)
    pair.log_batch(run_id, grid[9:], [], [])
    assert pair.get_run(run_id).data.metrics == {"m": 2.0}
    history = [(m.timestamp, m.step, m.value) for m in pair.get_metric_history(run_id, "m")]
    assert history == sorted(history)
    assert len(history) == len(grid)


def test_a_point_logged_again_is_one_point(pair: Pair, run_id: str) -> None:
    metric = Metric("m", 1.0, 1, 0)
    for _ in range(3):
        pair.log_metric(run_id, metric)
    pair.log_batch(run_id, [metric, metric, Metric("m", NAN, 1, 0), Metric("m", NAN, 1, 0)], [], [])
    pair.log_batch(run_id, [metric, Metric("m", 2.0, 1, 0)], [], [])
    assert sum(1 for m in pair.get_metric_history(run_id, "m") if m.value == 1.0) == 1


def test_a_batch_may_be_repeated(pair: Pair, run_id: str) -> None:
    batch = [Metric(f"m{i % 3}", float(i), i, i % 7) for i in range(300)]
    for _ in range(2):
        pair.log_batch(run_id, batch, [Param("p", "v")], [RunTag("t", "v")])
    for key in ("m0", "m1", "m2"):
        assert len(pair.get_metric_history(run_id, key)) == 100
    pair.get_run(run_id)


def test_nan_among_numbers(pair: Pair, run_id: str) -> None:
    for metric in points("m", (1.0, 1, 0), (NAN, 2, 1), (3.0, 3, 2), (NAN, 4, 3)):
        pair.log_metric(run_id, metric)
    assert math.isnan(pair.get_run(run_id).data.metrics["m"])
    assert len(pair.get_metric_history(run_id, "m")) == 4
    pair.log_metric(run_id, Metric("m", 5.0, 5, 4))
    assert pair.get_run(run_id).data.metrics["m"] == 5.0


@pytest.mark.parametrize("count", [1, 63, 64, 127, 128, 129, 300, 1000])
def test_histories_around_the_size_of_a_block(pair: Pair, run_id: str, count: int) -> None:
    shuffled = [Metric("m", float(i % 11), i % 50, i) for i in range(count)]
    random.Random(count).shuffle(shuffled)
    pair.log_batch(run_id, shuffled[: count // 2], [], [])
    pair.log_batch(run_id, shuffled[count // 2 :], [], [])
    pair.log_metric(run_id, Metric("m", 7.0, 25, count))
    assert len(pair.get_metric_history(run_id, "m")) == count + 1
    for size in (1, 7, 100) if count < 200 else (100,):
        assert len(pair.pages("get_metric_history", run_id, "m", max_results=size)) == count + 1
    pair.get_run(run_id)


def test_a_page_that_ends_with_the_history_has_no_token(pair: Pair, run_id: str) -> None:
    pair.log_batch(run_id, points("m", (1.0, 1, 0), (2.0, 2, 1)), [], [])
    assert pair.get_metric_history(run_id, "m", max_results=2).token is None
    assert pair.get_metric_history(run_id, "m", max_results=1).token


def test_histories_of_what_is_not_there_are_empty(pair: Pair, run_id: str) -> None:
    assert pair.get_metric_history(run_id, "never") == []
    assert pair.get_metric_history(UNKNOWN_RUN, "m") == []
    assert pair.get_metric_history_bulk([UNKNOWN_RUN], "m", 5) == []
    assert pair.get_metric_history_bulk([], "m", 5) == []
    assert pair.get_metric_history_bulk_interval([UNKNOWN_RUN], "m", 5, None, None) == []
    assert pair.get_metric_history_bulk_interval_from_steps(run_id, "m", [1, 2], 5) == []
    assert pair.get_metric_history_bulk_interval_from_steps(run_id, "m", [], 5) == []


@pytest.fixture
def three_runs(pair: Pair) -> list[str]:
    """Histories of 30 and 5 points with gaps and equal steps, and one run without."""
    runs = [new_run(pair) for _ in range(3)]
    pair.log_batch(runs[0], [Metric("m", float(i % 4), 100 - i, i // 3 * 2) for i in range(30)], [], [])
    pair.log_batch(runs[1], [Metric("m", float(i), 5, 3) for i in range(5)], [], [])
    pair.log_metric(runs[2], Metric("other", 1.0, 1, 1))
    return runs


@pytest.mark.parametrize("max_results", [1, 4, 30, 33, 35, 1000])
def test_bulk_histories(pair: Pair, three_runs: list[str], max_results: int) -> None:
    for runs in (three_runs, three_runs[::-1], [*three_runs, *three_runs]):
        found = pair.get_metric_history_bulk(runs, "m", max_results)
        assert len(found) == min(max_results, 35)


@pytest.mark.parametrize(("start", "end"), [(None, None), (0, 18), (3, 3), (4, 9), (5, 1), (-5, 100)])
def test_sampled_histories(pair: Pair, three_runs: list[str], start: int | None, end: int | None) -> None:
    for max_results in (-1, 0, 1, 2, 3, 4, 7, 16, 29, 30, 31, 100):
        found = pair.get_metric_history_bulk_interval(three_runs, "m", max_results, start, end)
        for run_id in three_runs:
            assert sum(1 for metric in found if metric.run_id == run_id) <= max(1, max_results)


@pytest.mark.parametrize(("start", "end"), [(1, None), (None, 1)])
def test_half_an_interval_is_refused(
    pair: Pair, three_runs: list[str], start: int | None, end: int | None
) -> None:
    refusal = pair.refused("get_metric_history_bulk_interval", three_runs, "m", 5, start, end)
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"


def test_histories_at_steps(pair: Pair, three_runs: list[str]) -> None:
    for run_id, steps, limit in product(three_runs, ([0], [2, 0, 4], [1, 3, 5], [18, 18, 99]), (1, 4, 100)):
        pair.get_metric_history_bulk_interval_from_steps(run_id, "m", steps, limit)


def test_histories_of_a_deleted_run_can_be_read(pair: Pair, three_runs: list[str]) -> None:
    pair.delete_run(three_runs[0])
    assert len(pair.get_metric_history(three_runs[0], "m")) == 30
    assert len(pair.get_metric_history_bulk(three_runs, "m", 100)) == 35
