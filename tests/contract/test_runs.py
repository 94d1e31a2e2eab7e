"""Runs: create, read, update, delete, restore."""

from itertools import product

import pytest
from mlflow.entities import Metric, Param, RunStatus, RunTag

from tests.contract.pair import Pair
from tests.contract.scenes import UNKNOWN_RUN, new_run

RUN_NAME = "mlflow.runName"
NO_RUNS = [UNKNOWN_RUN, "abc", "", "x" * 300, "with space", "../run", "a|b"]


@pytest.mark.parametrize("name", ["given", "", None, "n" * 300, "ünïcode 𝄞"])
def test_names(pair: Pair, name: str | None) -> None:
    run = pair.create_run("0", "user", 5, [], name)
    assert run.info.run_name == name if name else run.info.run_name
    assert run.data.tags[RUN_NAME] == run.info.run_name
    pair.get_run(run.info.run_id)


@pytest.mark.parametrize(
    "tags",
    [
        None,
        [],
        [RunTag("k", "v"), RunTag("a.b", ""), RunTag("none", None), RunTag("long", "v" * 9000)],
        [RunTag(RUN_NAME, "from tag")],
        [RunTag("mlflow.user", "x"), RunTag("mlflow.parentRunId", UNKNOWN_RUN)],
    ],
)
def test_tags_of_a_new_run(pair: Pair, tags: list[RunTag] | None) -> None:
    pair.get_run(pair.create_run("0", "user", 5, tags, None).info.run_id)


@pytest.mark.parametrize(("name", "tagged"), [("one", "one"), ("", "tagged"), (None, "tagged")])
def test_name_and_tag_agree(pair: Pair, name: str | None, tagged: str) -> None:
    run = pair.create_run("0", "user", 5, [RunTag(RUN_NAME, tagged)], name)
    assert run.info.run_name == tagged
    pair.get_run(run.info.run_id)


def test_a_name_and_a_tag_that_disagree_are_refused(pair: Pair) -> None:
    refusal = pair.refused("create_run", "0", "user", 5, [RunTag(RUN_NAME, "two")], "one")
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    assert pair.search_runs(["0"], "", 3) == []


@pytest.mark.parametrize("start_time", [0, 1, -5, 2**62])
def test_start_times(pair: Pair, start_time: int) -> None:
    assert pair.get_run(new_run(pair, start_time=start_time)).info.start_time == start_time


@pytest.mark.parametrize("experiment_id", ["", None, 0, " 0 "])
def test_a_run_without_an_experiment_goes_to_the_default_one(pair: Pair, experiment_id: object) -> None:
    ours, theirs = pair.both("create_run", experiment_id, "user", 5, [], "r")
    assert ours.error is None
    assert ours.result.info.experiment_id == "0"
    assert theirs.code in (None, "BAD_REQUEST"), "SQL accepts some of these only for reading"


def test_a_deleted_experiment_takes_no_runs(pair: Pair) -> None:
    experiment_id = pair.create_experiment("gone")
    pair.delete_experiment(experiment_id)
    refusal = pair.refused("create_run", experiment_id, "user", 5, [], None)
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"


ON_ONE_RUN: list[tuple[str, list[object]]] = [
    ("get_run", []),
    ("update_run_info", [RunStatus.FINISHED, 5, "name"]),
    ("delete_run", []),
    ("restore_run", []),
    ("_hard_delete_run", []),
    ("log_metric", [Metric("m", 1.0, 1, 0)]),
    ("log_param", [Param("p", "v")]),
    ("set_tag", [RunTag("t", "v")]),
    ("set_tag", [RunTag(RUN_NAME, "v")]),
    ("set_tag", [RunTag(RUN_NAME, "")]),
    ("delete_tag", ["t"]),
    ("log_batch", [[Metric("m", 1.0, 1, 0)], [Param("p", "v")], [RunTag("t", "v")]]),
    ("log_batch", [[], [], []]),
    ("log_inputs", [[]]),
    ("log_outputs", [[]]),
]
# These go on for a deleted run.
ON_ANY_RUN = {"get_run", "delete_run", "restore_run", "_hard_delete_run"}


@pytest.mark.parametrize(("method", "arguments"), ON_ONE_RUN)
def test_unknown_runs_are_refused(pair: Pair, method: str, arguments: list[object]) -> None:
    for run_id in NO_RUNS:
        pair.refused(method, run_id, *arguments)


@pytest.mark.parametrize(("method", "arguments"), [row for row in ON_ONE_RUN if row[0] not in ON_ANY_RUN])
def test_deleted_runs_take_no_writes(pair: Pair, method: str, arguments: list[object]) -> None:
    run_id = new_run(pair)
    pair.log_batch(run_id, [Metric("m", 1.0, 1, 0)], [Param("p", "v")], [RunTag("t", "v")])
    pair.delete_run(run_id)
    before = pair.get_run(run_id)
    assert pair.refused(method, run_id, *arguments).error_code == "INVALID_PARAMETER_VALUE"
    assert dict(pair.get_run(run_id).data) == dict(before.data)
    assert len(pair.get_metric_history(run_id, "m")) == 1


def test_delete_and_restore_may_be_repeated(pair: Pair) -> None:
    run_id = new_run(pair)
    pair.restore_run(run_id)
    for _ in range(2):
        pair.delete_run(run_id)
        assert pair.get_run(run_id).info.lifecycle_stage == "deleted"
    for _ in range(2):
        pair.restore_run(run_id)
        assert pair.get_run(run_id).info.lifecycle_stage == "active"
    pair.log_metric(run_id, Metric("m", 1.0, 1, 0))
    pair.get_run(run_id)


def test_a_restored_run_takes_metrics_it_had_and_new_ones(pair: Pair) -> None:
    run_id = new_run(pair)
    pair.log_metric(run_id, Metric("old", 1.0, 1, 0))
    pair.delete_run(run_id)
    pair.restore_run(run_id)
    pair.log_metric(run_id, Metric("old", 2.0, 2, 1))
    pair.log_metric(run_id, Metric("new", 3.0, 3, 0))
    assert pair.get_run(run_id).data.metrics == {"old": 2.0, "new": 3.0}


@pytest.mark.parametrize("status", [None, *RunStatus.all_status()])
def test_update_run_info(pair: Pair, status: int | None) -> None:
    for end_time, name in product((None, 0, 99), (None, "", "new name")):
        run_id = new_run(pair, name="first")
        info = pair.update_run_info(run_id, status, end_time, name)
        assert info.run_name == (name or "first")
        assert pair.get_run(run_id).data.tags[RUN_NAME] == info.run_name
        pair.update_run_info(run_id, None, None, None)


@pytest.mark.parametrize("status", [99, -1, "FINISHED"])
def test_an_unknown_status_changes_nothing(pair: Pair, status: object) -> None:
    run_id = new_run(pair)
    ours, theirs = pair.both("update_run_info", run_id, status, 5, "renamed")
    assert ours.error is not None
    assert theirs.error is not None
    assert pair.get_run(run_id).info.end_time is None


def test_the_name_is_the_tag(pair: Pair) -> None:
    run_id = new_run(pair, name="first")
    pair.set_tag(run_id, RunTag(RUN_NAME, "by tag"))
    assert pair.get_run(run_id).info.run_name == "by tag"
    pair.set_tag(run_id, RunTag(RUN_NAME, ""))
    assert pair.get_run(run_id).info.run_name == "by tag"
    pair.log_batch(run_id, [], [], [RunTag(RUN_NAME, "by batch"), RunTag("other", "x")])
    assert pair.get_run(run_id).info.run_name == "by batch"
    pair.update_run_info(run_id, None, None, "by info")
    assert pair.get_run(run_id).data.tags[RUN_NAME] == "by info"
    pair.delete_tag(run_id, RUN_NAME)
    assert pair.get_run(run_id).info.run_name == "by info"
    pair.update_run_info(run_id, None, None, "again")
    assert pair.get_run(run_id).data.tags[RUN_NAME] == "again"


def test_a_long_name_in_a_tag_is_cut(pair: Pair) -> None:
    run_id = new_run(pair)
    pair.set_tag(run_id, RunTag(RUN_NAME, "n" * 9000))
    assert len(pair.get_run(run_id).info.run_name) == 8000
