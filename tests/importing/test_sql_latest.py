"""``latest_metrics`` beside a history: one more point of a pruned history, named if it contradicts it."""

import math
from pathlib import Path
from typing import Any

import pytest

from genesis_flow.importers.engine import Outcome
from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.jobs import Job
from tests.importing.sql_databases import connected, oracle


class Pruned:
    """A database of MLflow whose rows were changed by hand, and what the import makes of it."""

    def __init__(self, path: Path, job: Job) -> None:
        self.path, self.job = path, job
        self.run_id = str(self.rows("SELECT run_uuid FROM runs WHERE name = 'run finished'")[0][0])
        self.long = str(self.rows("SELECT run_uuid FROM latest_metrics WHERE key = 'long'")[0][0])

    def rows(self, query: str) -> list[Any]:
        with connected(self.path) as connection:
            return connection.execute(query).fetchall()

    def execute(self, statement: str) -> None:
        with connected(self.path) as connection:
            assert connection.execute(statement).rowcount

    def imported(self) -> Outcome:
        return self.job.run(f"sqlite:///{self.path}")

    def in_sql(self, run_id: str) -> dict[str, float]:
        with oracle(self.path) as (tracking, _):
            found: dict[str, float] = tracking.get_run(run_id).data.metrics
        return found

    def in_ours(self, run_id: str) -> dict[str, float]:
        found: dict[str, float] = MongoDBStore(self.job.uri).get_run(run_id).data.metrics
        return found

    def steps(self, run_id: str, key: str) -> list[int]:
        return [point.step for point in MongoDBStore(self.job.uri).get_metric_history(run_id, key)]


@pytest.fixture
def pruned(newest: Path, job: Job) -> Pruned:
    return Pruned(newest, job)


@pytest.mark.parametrize(("key", "kept"), [("loss", 5), ("long", 1000)])
def test_the_latest_row_is_one_more_point_of_a_pruned_history(pruned: Pruned, key: str, kept: int) -> None:
    run_id = pruned.long if key == "long" else pruned.run_id
    (last,) = pruned.rows(f"SELECT step FROM latest_metrics WHERE run_uuid = '{run_id}' AND key = '{key}'")[0]
    assert last > kept
    pruned.execute(f"DELETE FROM metrics WHERE run_uuid = '{run_id}' AND key = '{key}' AND step >= {kept}")
    assert pruned.imported().problems == 0
    assert pruned.steps(run_id, key) == [*range(kept), last]
    assert pruned.in_ours(run_id)[key] == pruned.in_sql(run_id)[key]


def test_a_latest_row_that_the_history_has_is_no_second_point(pruned: Pruned) -> None:
    pruned.execute(
        f"UPDATE metrics SET value = 0, is_nan = 1 WHERE run_uuid = '{pruned.run_id}' "
        "AND key = 'loss' AND step = 19"
    )
    pruned.execute(
        f"UPDATE latest_metrics SET value = 0, is_nan = 1 WHERE run_uuid = '{pruned.run_id}' AND key = 'loss'"
    )
    assert pruned.imported().problems == 0
    assert pruned.steps(pruned.run_id, "loss") == list(range(20))
    assert math.isnan(pruned.in_ours(pruned.run_id)["loss"])


def test_a_history_that_goes_on_behind_the_latest_row_is_named(pruned: Pruned) -> None:
    pruned.execute(
        f"UPDATE latest_metrics SET step = 3, value = 77 WHERE run_uuid = '{pruned.run_id}' AND key = 'loss'"
    )
    outcome = pruned.imported()
    (problem,) = outcome.first_problems
    assert problem.kind == "metric"
    assert problem.where == f"table latest_metrics, run_uuid={pruned.run_id}, key='loss'"
    assert problem.reason == (
        "it says that 77.0 at step 3 is the latest, but the history goes on to "
        f"{pruned.in_ours(pruned.run_id)['loss']} at step 19, which is the latest in the target"
    )
    assert pruned.in_sql(pruned.run_id)["loss"] == 77
    assert len(pruned.steps(pruned.run_id, "loss")) == 21


def test_a_history_without_a_latest_row_is_named(pruned: Pruned) -> None:
    """MLflow answers as if there were no such metric."""
    pruned.execute(f"DELETE FROM latest_metrics WHERE run_uuid = '{pruned.run_id}' AND key = 'loss'")
    (problem,) = pruned.imported().first_problems
    assert problem.where == f"table latest_metrics, run_uuid={pruned.run_id}, key='loss'"
    assert problem.reason == (
        "it has no such row, so that MLflow does not show the metric; the target shows the latest point of "
        "its history"
    )
    assert "loss" not in pruned.in_sql(pruned.run_id)
    assert len(pruned.steps(pruned.run_id, "loss")) == 20


def test_a_latest_row_that_cannot_be_read_is_named(pruned: Pruned) -> None:
    pruned.execute(
        f"UPDATE latest_metrics SET value = 'low' WHERE run_uuid = '{pruned.run_id}' AND key = 'loss'"
    )
    (problem,) = pruned.imported().first_problems
    assert problem.where == f"table latest_metrics, run_uuid={pruned.run_id}, key='loss'"
    assert problem.reason == "value is not a number: 'low'"
    assert pruned.steps(pruned.run_id, "loss") == list(range(20))
