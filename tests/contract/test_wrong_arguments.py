"""Arguments of wrong types, none at all, and questions that ask for nothing."""

from typing import Any

import pytest
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType

from genesis_flow.aio import MongoDBStore
from tests.contract.pair import Pair
from tests.contract.registry import RegistryPair, registry
from tests.contract.trace_scenes import STARTED, stated, trace_id

__all__ = ["registry"]

INVALID = "INVALID_PARAMETER_VALUE"
NOBODY = "0" * 32


def refused(pair: Pair, method: str, *arguments: Any, **named: Any) -> str:
    """The sentence with which ours refuses as invalid what theirs does not answer either."""
    ours, theirs = pair.both(method, *arguments, **named)
    assert theirs.error is not None, f"theirs came to {theirs.result!r}"
    assert ours.code == INVALID
    return str(ours.error)


def test_a_dataset_without_a_name(pair: Pair) -> None:
    ours, theirs = pair.both("create_dataset", None)
    assert (ours.code, theirs.code) == (INVALID, None)
    assert "needs a name" in str(ours.error)


def test_a_dataset_whose_name_is_a_number(pair: Pair) -> None:
    ours, _ = pair.both("create_dataset", 5)
    assert ours.result.name == "5"
    names = [store.search_datasets(filter_string="name = '5'")[0].name for store in (pair.ours, pair.oracle)]
    assert names == ["5", "5"]


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("experiment_id = '1'", ["in 1"]),
        ("experiment_id = 1", ["in 1"]),
        ("experiment_id != '1'", ["in 0"]),
        ("experiment_id IN ('1', '0')", ["in 1", "in 0"]),
        ("experiment_id NOT IN ('1')", ["in 0"]),
        ("experiment_id = 'x'", []),
        ("experiment_id != 'x'", ["in 1", "in 0"]),
        ("experiment_id = '99999999999999999999'", []),
        ("attributes.experiment_id = '0'", ["in 0"]),
        ("experiment_id = '1' AND name = 'in 0'", []),
    ],
)
def test_logged_models_by_experiment(pair: Pair, condition: str, names: list[str]) -> None:
    pair.create_experiment("other")
    for experiment in ("0", "1"):
        pair.create_logged_model(experiment, f"in {experiment}")
    ours, theirs = pair.both("search_logged_models", ["0", "1"], condition)
    assert sorted(model.name for model in ours.result) == sorted(names)
    if theirs.error is None:  # SQLite has no number beyond 64 bits
        assert sorted(model.name for model in theirs.result) == sorted(names)


@pytest.mark.parametrize("operator", ["<", ">=", "IS NULL"])
def test_experiments_of_logged_models_are_only_the_same_or_not(pair: Pair, operator: str) -> None:
    refused(pair, "search_logged_models", ["0"], f"experiment_id {operator} '0'")


@pytest.mark.parametrize("operator", ["LIKE", "ILIKE"])
def test_experiments_of_logged_models_have_no_pattern(pair: Pair, operator: str) -> None:
    ours, theirs = pair.both("search_logged_models", ["0"], f"experiment_id {operator} '0'")
    assert (ours.code, theirs.code) == (INVALID, None)


@pytest.mark.parametrize(
    ("view", "metric"),
    [
        (MetricViewType.TRACES, "trace_count"),
        (MetricViewType.TRACES, "latency"),
        (MetricViewType.SPANS, "span_count"),
        (MetricViewType.ASSESSMENTS, "assessment_count"),
    ],
)
def test_metrics_without_aggregations(pair: Pair, view: MetricViewType, metric: str) -> None:
    pair.start_trace(stated(trace_id(1), tags={"mlflow.traceName": "n"}))
    assert "at least one aggregation" in refused(pair, "query_trace_metrics", ["0"], view, metric, [])
    buckets = {"time_interval_seconds": 60, "start_time_ms": STARTED - 1, "end_time_ms": STARTED + 60_000}
    assert pair.query_trace_metrics(["0"], view, metric, [], **buckets) == []
    by_name = "trace_name" if view == MetricViewType.TRACES else f"{metric.partition('_')[0]}_name"
    assert pair.query_trace_metrics(["0"], view, metric, [], dimensions=[by_name]) == []


@pytest.mark.parametrize("source", [None, ""])
def test_the_place_of_a_version_without_a_source(registry: RegistryPair, source: str | None) -> None:
    registry.create_registered_model("m")
    registry.both("create_model_version", "m", source)
    assert registry.get_model_version_download_uri("m", 1) == source


@pytest.mark.parametrize("key", ["", "a/../b", None])
@pytest.mark.parametrize("model_id", [None, "m-none"])
def test_a_bad_metric_of_an_unknown_run(pair: Pair, key: Any, model_id: str | None) -> None:
    pair.refused("log_metric", NOBODY, Metric(key, 1.0, 1, 1, model_id=model_id))


@pytest.mark.parametrize("name", [{1: 2}, ["a"], 5, None, b"x", True])
def test_an_experiment_whose_name_is_no_text(pair: Pair, name: Any) -> None:
    assert "name" in refused(pair, "create_experiment", name)


@pytest.mark.parametrize(
    ("method", "arguments", "sentence"),
    [
        ("search_runs", (5, "", ViewType.ALL), "experiment_ids must be list[str], not 5."),
        ("search_logged_models", (5,), "experiment_ids must be list[str], not 5."),
        ("_search_datasets", (None,), "experiment_ids must be list[str], not None."),
        ("get_dataset_experiment_ids", (None,), "dataset_id must be str, not None."),
        ("search_entities_by_source", (None, "a", "b"), "source_ids must be str | list[str], not None."),
        ("query_trace_metrics", (["0"], MetricViewType.TRACES, "latency", None), "aggregations must be"),
        ("log_batch", (NOBODY, None, [], []), "metrics must be"),
        ("log_param", (NOBODY, "a"), "param must be Param, not 'a'."),
        ("set_tag", (NOBODY, {"a": 1}), "tag must be RunTag, not {'a': 1}."),
        ("start_trace", ("a",), "trace_info must be TraceInfo, not 'a'."),
        ("set_dataset_tags", ("d-1", 5), "tags must be dict[str, Any], not 5."),
        ("log_inputs", (NOBODY, "a"), "Argument 'datasets' should be a list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_argument_is_named(
    pair: Pair, method: str, arguments: tuple[Any, ...], sentence: str
) -> None:
    said = refused(pair, method, *arguments)
    assert said.startswith(sentence), said


def test_what_is_wrong_inside_of_an_argument_is_an_internal_error(pair: Pair) -> None:
    run = pair.create_run("0", "me", 1, [], "r").info.run_id
    ours, theirs = pair.both("set_tag", run, RunTag(5, "x"))
    assert (ours.code, theirs.code) == ("INTERNAL_ERROR", "INTERNAL_ERROR")
    assert "set_tag cannot work with what it was given" in str(ours.error)
    assert isinstance(ours.error.__cause__ if ours.error else None, TypeError)


@pytest.mark.parametrize("value", [["a"], {"a"}, ("a",)], ids=repr)
def test_several_texts_are_no_text(pair: Pair, value: Any) -> None:
    run = pair.create_run("0", "me", 1, [], "r").info.run_id
    refused(pair, "create_run", "0", value, 1, [], "r")
    refused(pair, "update_run_info", run, None, None, value)
    refused(pair, "get_metric_history", run, value)
    assert pair.get_run(run).info.run_name == "r"


def test_several_texts_are_no_description(registry: RegistryPair) -> None:
    registry.create_registered_model("m")
    refused(registry, "update_registered_model", "m", ["a"])
    assert registry.ours.get_registered_model("m").description is None


def test_the_sql_store_is_stricter_about_unknown_runs(pair: Pair) -> None:
    """A param without a value of a run that is not there: two mistakes, of which each names one."""
    ours, theirs = pair.both("log_param", NOBODY, Param("k", None))
    assert (ours.code, theirs.code) == (INVALID, "RESOURCE_DOES_NOT_EXIST")


async def test_too_few_arguments_are_a_mistake_of_the_program(store: MongoDBStore) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        await store.get_run()  # type: ignore[call-arg]


def test_counting_still_works(pair: Pair) -> None:
    counted = [MetricAggregation(AggregationType.COUNT)]
    assert pair.query_trace_metrics(["0"], MetricViewType.TRACES, "trace_count", counted)
