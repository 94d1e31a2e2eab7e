"""Wide steps beside MLflow's SQL store: whatever waits, is folded or comes between, answers are the same."""

import random
from typing import Any

import pytest
from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType

from genesis_flow.areas.metrics import wide
from genesis_flow.areas.metrics.wide import WIDE_FROM
from tests.contract.pair import Pair
from tests.contract.scenes import new_run

NAN = float("nan")
NAMES = [f"layer.{number}/loss" for number in range(WIDE_FROM + 4)]


@pytest.fixture(autouse=True)
def small_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """Places that are full after five steps, and take only a few metrics more than a step has."""
    monkeypatch.setattr(wide, "ROWS", 5)
    monkeypatch.setattr(wide, "KEYS", WIDE_FROM + 2)


def step(number: int, names: list[str] = NAMES[:WIDE_FROM], shift: float = 0.0) -> list[Metric]:
    return [Metric(name, number + index + shift, 1_000 + number, number) for index, name in enumerate(names)]


def compare(pair: Pair, run_id: str, *keys: str) -> None:
    pair.get_run(run_id)
    for key in keys or NAMES[:3]:
        pair.get_metric_history(run_id, key)
        pair.pages("get_metric_history", run_id, key, max_results=3)
        pair.get_metric_history_bulk([run_id], key, 4)
        pair.get_metric_history_bulk_interval([run_id], key, 3, 1, 6)
        pair.get_metric_history_bulk_interval_from_steps(run_id, key, [0, 2, 5], 10)


def searches(pair: Pair, *, experiment: str = "0") -> None:
    key = f"metrics.`{NAMES[1]}`"
    for clause in (
        "",
        f"{key} > 3",
        f"{key} <= 4",
        f"{key} = 5",
        f"{key} != 5",
        f"{key} > 2 and params.p = '1'",
    ):
        for order in ([], [key], [f"{key} DESC"], [f"metrics.`{NAMES[2]}` DESC", "start_time ASC"]):
            pair.pages("search_runs", [experiment], clause, ViewType.ALL, 2, order)


def test_steps_wait_and_are_folded(pair: Pair) -> None:
    run_id = new_run(pair)
    for number in range(13):
        pair.log_batch(run_id, step(number), [], [])
        compare(pair, run_id, NAMES[0])
    compare(pair, run_id)
    pair.update_run_info(run_id, RunStatus.FINISHED, 5, None)
    compare(pair, run_id)
    pair.log_batch(run_id, step(20), [], [])
    pair.log_batch(run_id, step(21), [], [])
    compare(pair, run_id)


def test_narrow_calls_in_between(pair: Pair) -> None:
    run_id = new_run(pair)
    for number in range(12):
        pair.log_batch(run_id, step(number), [], [])
        pair.log_metric(run_id, Metric(NAMES[0], -1.0, 1_000 + number, number))
        pair.log_metric(run_id, Metric(NAMES[1], 50.0, 1, 100 - number))
        pair.log_batch(run_id, [Metric(NAMES[2], number, 5, number), Metric("other", 1, 1, number)], [], [])
        pair.log_batch(
            run_id, step(number, shift=0.5), [Param(f"p{number}", "x")], [RunTag("t", str(number))]
        )
        compare(pair, run_id)


def test_points_of_all_kinds(pair: Pair) -> None:
    run_id = new_run(pair)
    pair.log_batch(run_id, step(0), [], [])
    pair.log_batch(run_id, step(0), [], [])
    pair.log_batch(run_id, [Metric(name, NAN, 1, 1) for name in NAMES[:WIDE_FROM]], [], [])
    pair.log_batch(run_id, [*step(2), *step(2), *step(3, shift=1), Metric(NAMES[0], 1e300, 9, 2)], [], [])
    pair.log_batch(
        run_id,
        [Metric(name, -1e308, 50 - index, index) for index, name in enumerate(NAMES[:WIDE_FROM])],
        [],
        [],
    )
    compare(pair, run_id, *NAMES[:WIDE_FROM])


def test_metrics_come_in_changing_company(pair: Pair) -> None:
    run_id, dice = new_run(pair), random.Random(3)
    for number in range(25):
        pair.log_batch(run_id, step(number, dice.sample(NAMES, dice.randint(WIDE_FROM, len(NAMES)))), [], [])
    compare(pair, run_id, *NAMES)


@pytest.mark.timeout(400)
def test_searches_see_what_waits(pair: Pair) -> None:
    runs = [new_run(pair) for _ in range(6)]
    for place, run_id in enumerate(runs):
        pair.log_batch(run_id, [], [Param("p", str(place % 2))], [])
        for number in range(place):
            pair.log_batch(run_id, step(number, shift=place % 3), [], [])
            if number == 2:
                searches(pair)
    pair.log_batch(runs[5], step(9, NAMES[:WIDE_FROM], NAN), [], [])
    searches(pair)
    pair.log_metric(runs[4], Metric(NAMES[1], 4.0, 1, 1_000))
    searches(pair)
    for run_id in runs[::2]:
        pair.update_run_info(run_id, RunStatus.FINISHED, 5, None)
        searches(pair)


def test_deleted_runs_take_no_steps(pair: Pair) -> None:
    run_id = new_run(pair)
    for number in range(4):
        pair.log_batch(run_id, step(number), [], [])
    pair.delete_run(run_id)
    assert pair.refused("log_batch", run_id, step(4), [], []).error_code == "INVALID_PARAMETER_VALUE"
    compare(pair, run_id)
    searches(pair)
    pair.restore_run(run_id)
    for number in range(4, 9):
        pair.log_batch(run_id, step(number), [], [])
        compare(pair, run_id)
    pair.delete_run(run_id)
    pair._hard_delete_run(run_id)
    pair.refused("log_batch", run_id, step(9), [], [])
    pair.refused("get_run", run_id)
    searches(pair)


def test_experiments_take_their_steps_along(pair: Pair) -> None:
    number = pair.create_experiment("wide")
    run_id = pair.create_run(number, "me", 1, [], "a run").info.run_id
    for each in range(3):
        pair.log_batch(run_id, step(each), [], [])
    pair.delete_experiment(number)
    pair.refused("log_batch", run_id, step(3), [], [])
    pair.restore_experiment(number)
    pair.log_batch(run_id, step(3), [], [])
    compare(pair, run_id)
    searches(pair, experiment=number)


@pytest.mark.parametrize(
    "bad",
    [
        Metric("m|x", 1.0, 1, 0),
        Metric(NAMES[0], None, 1, 0),
        Metric(NAMES[0], 1.0, -1, 0),
        Metric(NAMES[0], "1", 1, 0),
        Metric(NAMES[0], 1.0, 1, "first"),
    ],
    ids=lambda metric: f"{metric.key[:3]}-{metric.value}-{metric.timestamp}-{metric.step}",
)
def test_a_bad_point_spoils_the_whole_step(pair: Pair, bad: Any) -> None:
    run_id = new_run(pair)
    for number in range(3):
        pair.log_batch(run_id, step(number), [], [])
    pair.refused("log_batch", run_id, [*step(3), bad], [], [])
    pair.refused("log_batch", run_id, [Metric(f"m{number}", 1.0, 1, 1) for number in range(1_001)], [], [])
    compare(pair, run_id)
