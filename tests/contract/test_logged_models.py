"""Logged models: their life, and the metrics that come in with those of runs."""

import math

import pytest
from mlflow.entities import (
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelParameter,
    LoggedModelStatus,
    LoggedModelTag,
    Metric,
    Param,
)

from tests.contract.pair import Pair
from tests.contract.scenes import UNKNOWN_RUN, Clock, new_run

pytestmark = pytest.mark.usefixtures("clock")

UNKNOWN_MODEL = "m-" + "0" * 32


def params(**values: str) -> list[LoggedModelParameter]:
    return [LoggedModelParameter(key, value) for key, value in values.items()]


def tags(**values: str) -> list[LoggedModelTag]:
    return [LoggedModelTag(key, value) for key, value in values.items()]


def new_model(pair: Pair, experiment_id: str = "0", **given: object) -> str:
    model_id: str = pair.create_logged_model(experiment_id, **given).model_id
    return model_id


def test_a_new_model(pair: Pair) -> None:
    run_id = new_run(pair)
    model = pair.create_logged_model("0", "model", run_id, tags(t="v"), params(p="1"), "agent")
    assert model.status == LoggedModelStatus.PENDING
    assert model.artifact_location.endswith(f"/models/{model.model_id}/artifacts")
    assert pair.get_logged_model(model.model_id).to_dictionary() == model.to_dictionary()
    unnamed = pair.create_logged_model("0")
    assert unnamed.name
    assert unnamed.model_id != model.model_id


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a.b", "a%b", "a'b", 'a"b'])
def test_bad_names(pair: Pair, name: str) -> None:
    assert pair.refused("create_logged_model", "0", name).error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("name", ["a b", "ünïcode", "a" * 500, "$a"])
def test_odd_names(pair: Pair, name: str) -> None:
    assert pair.get_logged_model(new_model(pair, name=name)).name == name


def test_experiments_must_be_there_and_active(pair: Pair) -> None:
    pair.refused("create_logged_model", "99", "m")
    experiment_id = pair.create_experiment("deleted")
    model_id = new_model(pair, experiment_id)
    pair.delete_experiment(experiment_id)
    pair.refused("create_logged_model", experiment_id, "m")
    pair.get_logged_model(model_id)
    assert len(pair.search_logged_models([experiment_id])) == 1


def test_status(pair: Pair, clock: Clock) -> None:
    model_id = new_model(pair)
    for status in LoggedModelStatus:
        clock.tick()
        model = pair.finalize_logged_model(model_id, status)
        assert (model.status, model.last_updated_timestamp) == (status, clock.now)
    pair.get_logged_model(model_id)


def test_params_and_tags(pair: Pair) -> None:
    model_id = new_model(pair)
    pair.log_logged_model_params(model_id, params(**{"a.b": "1", "$c": "x" * 10_000, "d%": ""}))
    pair.log_logged_model_params(model_id, [])
    pair.set_logged_model_tags(model_id, tags(**{"a.b": "1", "c": "2"}))
    pair.set_logged_model_tags(model_id, [*tags(c="3", d="4"), *tags(c="5")])
    pair.set_logged_model_tags(model_id, [])
    model = pair.get_logged_model(model_id)
    assert model.tags == {"a.b": "1", "c": "5", "d": "4"}
    pair.delete_logged_model_tag(model_id, "a.b")
    assert pair.refused("delete_logged_model_tag", model_id, "a.b").error_code == "RESOURCE_DOES_NOT_EXIST"
    pair.get_logged_model(model_id)


def test_params_do_not_change(pair: Pair) -> None:
    """MLflow's store refuses any param that is there, with the SQL in the message."""
    model_id = new_model(pair, params=params(a="1"))
    ours, theirs = pair.both("log_logged_model_params", model_id, params(a="2", b="1"))
    assert ours.code == "INVALID_PARAMETER_VALUE"
    assert theirs.error is not None
    assert pair.get_logged_model(model_id).params == {"a": "1"}
    pair.ours.log_logged_model_params(model_id, params(a="1"))
    ours, theirs = pair.both("create_logged_model", "0", "m", params=[*params(a="1"), *params(a="2")])
    assert ours.code == "INVALID_PARAMETER_VALUE"
    assert theirs.error is not None


@pytest.mark.parametrize(
    "call",
    [
        ("get_logged_model",),
        ("finalize_logged_model", LoggedModelStatus.READY),
        ("log_logged_model_params", params(a="1")),
        ("log_logged_model_params", []),
        ("set_logged_model_tags", tags(a="1")),
        ("set_logged_model_tags", []),
        ("delete_logged_model_tag", "a"),
        ("delete_logged_model",),
        ("_hard_delete_logged_model",),
    ],
    ids=lambda call: call[0],
)
def test_unknown_models(pair: Pair, call: tuple[object, ...]) -> None:
    method, *arguments = call
    assert pair.refused(str(method), UNKNOWN_MODEL, *arguments).error_code == "RESOURCE_DOES_NOT_EXIST"


def test_deletion(pair: Pair, clock: Clock) -> None:
    gone, kept = new_model(pair, name="gone"), new_model(pair, name="kept")
    clock.tick()
    pair.delete_logged_model(gone)
    pair.delete_logged_model(gone)
    pair.refused("get_logged_model", gone)
    pair.get_logged_model(gone, allow_deleted=True)
    pair.set_logged_model_tags(gone, tags(a="1"))
    pair.finalize_logged_model(gone, LoggedModelStatus.READY)
    assert [model.model_id for model in pair.search_logged_models(["0"])] == [kept]
    pair._hard_delete_logged_model(gone)
    pair.refused("get_logged_model", gone, allow_deleted=True)
    pair.get_logged_model(kept)


def test_metrics_of_a_model(pair: Pair) -> None:
    run_id, other_run, model_id = new_run(pair), new_run(pair), new_model(pair)
    pair.log_metric(run_id, Metric("m", 1.0, 1, 0, model_id=model_id))
    pair.log_metric(run_id, Metric("m", 2.0, 2, 1, model_id, "data", "1"))
    pair.log_metric(other_run, Metric("m", 2.0, 2, 1, model_id, "data", "1"))
    pair.log_metric(run_id, Metric("plain", 2.0, 2, 1))
    batch = [Metric("n", float(step), step, step, model_id, "data", "2") for step in range(200)]
    pair.log_batch(run_id, [*batch, Metric("other", 1.0, 1, 1)], [Param("p", "v")], [])
    model = pair.get_logged_model(model_id)
    assert len(model.metrics) == 203
    assert pair.get_run(run_id).data.metrics == {"m": 2.0, "n": 199.0, "other": 1.0, "plain": 2.0}
    assert len(pair.get_metric_history(run_id, "n")) == 200


def test_a_point_of_a_model_logged_again_is_one_point(pair: Pair) -> None:
    run_id, model_id = new_run(pair), new_model(pair)
    metric = Metric("m", 1.0, 1, 0, model_id, "data", "1")
    for _ in range(3):
        pair.log_metric(run_id, metric)
        pair.log_batch(run_id, [metric, metric, Metric("n", 1.0, 1, 0, model_id)], [], [])
    assert len(pair.get_logged_model(model_id).metrics) == 2


def test_several_models_in_a_batch(pair: Pair) -> None:
    run_id = new_run(pair)
    first, second = new_model(pair), new_model(pair, pair.create_experiment("other"))
    metrics = [Metric("m", 1.0, 1, 0, first), Metric("m", 2.0, 1, 1, second), Metric("m", 3.0, 1, 2)]
    pair.log_batch(run_id, metrics, [], [])
    assert [metric.value for metric in pair.get_logged_model(first).metrics] == [1.0]
    assert [metric.value for metric in pair.get_logged_model(second).metrics] == [2.0]


def test_metrics_are_for_active_runs(pair: Pair) -> None:
    run_id, model_id = new_run(pair), new_model(pair)
    pair.refused("log_metric", UNKNOWN_RUN, Metric("m", 1.0, 1, 0, model_id))
    pair.delete_run(run_id)
    pair.refused("log_metric", run_id, Metric("m", 1.0, 1, 0, model_id))
    pair.refused("log_batch", run_id, [Metric("m", 1.0, 1, 0, model_id)], [], [])
    assert pair.get_logged_model(model_id).metrics is None


def test_metrics_of_an_unknown_model_are_refused_and_not_written(pair: Pair) -> None:
    """MLflow's store fails, too, but with the SQL and its constraint."""
    run_id = new_run(pair)
    metric = Metric("m", 1.0, 1, 0, UNKNOWN_MODEL)
    for call in (("log_metric", run_id, metric), ("log_batch", run_id, [metric], [Param("p", "v")], [])):
        ours, theirs = pair.both(*call)
        assert ours.code == "RESOURCE_DOES_NOT_EXIST"
        assert theirs.error is not None
    run = pair.ours.get_run(run_id)
    assert (run.data.metrics, run.data.params) == ({}, {})


def test_numbers_that_sql_cannot_hold(pair: Pair) -> None:
    """MLflow's store makes 0 of NaN and the greatest number of infinity; ours keeps them."""
    run_id, model_id = new_run(pair), new_model(pair)
    for key, value in (("nan", math.nan), ("inf", math.inf)):
        pair.both("log_metric", run_id, Metric(key, value, 1, 0, model_id))
    kept = {metric.key: metric.value for metric in pair.ours.get_logged_model(model_id).metrics}
    assert kept["inf"] == math.inf
    assert math.isnan(kept["nan"])


def test_one_time_with_two_values_is_two_points(pair: Pair) -> None:
    """MLflow's store has room for one point of a run at one time and step, and fails on the second."""
    run_id, model_id = new_run(pair), new_model(pair)
    pair.log_metric(run_id, Metric("m", 1.0, 1, 0, model_id, "data", "1"))
    ours, theirs = pair.both("log_metric", run_id, Metric("m", 2.0, 1, 0, model_id, "data", "2"))
    assert ours.error is None
    assert theirs.error is not None
    points = {(m.value, m.dataset_digest) for m in pair.ours.get_logged_model(model_id).metrics}
    assert points == {(1.0, "1"), (2.0, "2")}


def test_models_of_runs(pair: Pair) -> None:
    run_id, model_id = new_run(pair), new_model(pair)
    pair.log_outputs(run_id, [LoggedModelOutput(model_id, 3)])
    reader = new_run(pair)
    pair.log_inputs(reader, models=[LoggedModelInput(model_id)])
    assert pair.get_run(run_id).outputs.model_outputs == [LoggedModelOutput(model_id, 3)]
    pair.get_run(reader)


def test_deleted_models_by_age(pair: Pair, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genesis_flow.areas.runs.garbage.get_current_time_millis", clock.read)
    old, new, kept = (new_model(pair) for _ in range(3))
    pair.delete_logged_model(old)
    clock.now += 1000
    pair.delete_logged_model(new)
    assert set(pair._get_deleted_logged_models()) == {old, new}
    assert pair._get_deleted_logged_models(older_than=500) == [old]
    assert pair._get_deleted_logged_models(older_than=5000) == []
    pair.get_logged_model(kept)
