"""Each row of docs/differences.md: both stores really behave as it says."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.entities import (
    Dataset,
    DatasetInput,
    ExperimentTag,
    LoggedModelOutput,
    Metric,
    Param,
    RunTag,
    ViewType,
)
from mlflow.exceptions import MlflowException

from tests.contract.pair import Outcome, Pair
from tests.contract.scenes import new_run

PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
RUN_NAME = "mlflow.runName"
BEYOND = 2**63

Check = Callable[[Pair], None]
CHECKS: dict[str, Check] = {}


def row(what: str) -> Callable[[Check], Check]:
    """Register the check of the row that begins with ``what``."""

    def register(check: Check) -> Check:
        CHECKS[what] = check
        return check

    return register


@pytest.mark.parametrize("what", CHECKS)
def test_the_difference_is_as_said(pair: Pair, what: str) -> None:
    CHECKS[what](pair)


def test_every_row_has_a_check() -> None:
    page = PAGE.read_text().partition("\n## ")[0]  # the sections of other areas have their own checks
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert rows[0] == "what"
    assert rows[1:] == list(CHECKS)


def refused(pair: Pair, method: str, *arguments: object, ours: str, theirs: str | None) -> Outcome:
    """Ours refuses with one code, theirs with another, or accepts when that is None; returns theirs."""
    mine, other = pair.both(method, *arguments)
    assert (mine.code, other.code) == (ours, theirs)
    return other


def accepted(pair: Pair, method: str, *arguments: object, theirs: str) -> Outcome:
    """Ours accepts what theirs refuses; returns ours."""
    mine, other = pair.both(method, *arguments)
    assert (mine.code, other.code) == (None, theirs)
    return mine


def latest(pair: Pair, run_id: str) -> tuple[float, float]:
    mine, other = pair.both("get_run", run_id)
    return mine.result.data.metrics["m"], other.result.data.metrics["m"]


@row("infinite metric values")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    for step, sign in enumerate((1, -1)):
        pair.log_metric(run_id, Metric("m", sign * math.inf, 1, step))
        assert latest(pair, run_id) == (sign * math.inf, sign * sys.float_info.max)
        ours, theirs = (outcome.result[-1] for outcome in pair.both("get_metric_history", run_id, "m"))
        assert (ours.value, theirs.value) == (sign * math.inf, sign * sys.float_info.max)


@row("negative zero as a metric value")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    pair.log_metric(run_id, Metric("m", -0.0, 1, 0))
    assert [math.copysign(1, value) for value in latest(pair, run_id)] == [-1, 1]


@row("NaN and a number at one step and timestamp")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    pair.log_batch(run_id, [Metric("m", math.nan, 1, 0), Metric("m", -1.0, 1, 0)], [], [])
    ours, theirs = latest(pair, run_id)
    assert ours == -1.0
    assert math.isnan(theirs)
    orders = [[m.value for m in outcome.result] for outcome in pair.both("get_metric_history", run_id, "m")]
    assert (orders[0][1], orders[1][0]) == (-1.0, -1.0)


@row("a dataset whose source, schema and profile take more than 16 MB together")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    large = DatasetInput(Dataset("large", "1", "local", "here", profile="x" * 16_777_215), [])
    small = DatasetInput(Dataset("small", "1", "local", "here"), [])
    ours, theirs = pair.both("log_inputs", run_id, [small, large])
    assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE", None)
    assert "The dataset 'large' is too large: its source, schema and profile take 16,777,219" in str(
        ours.error
    )
    assert pair.ours.get_run(run_id).inputs.dataset_inputs == []
    fits = DatasetInput(Dataset("fits", "1", "local", "here", profile="x" * 16_700_000), [])
    pair.log_inputs(run_id, [fits])
    (logged,) = pair.ours.get_run(run_id).inputs.dataset_inputs
    assert logged.dataset.profile == fits.dataset.profile


@row("log_outputs with a model that is an output already")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    model = LoggedModelOutput("m-1", 3)
    pair.log_outputs(run_id, [model])
    accepted(pair, "log_outputs", run_id, [model], theirs="BAD_REQUEST")
    assert len(pair.get_run(run_id).outputs.model_outputs) == 1


@row("renaming an experiment to a taken name")
def _(pair: Pair) -> None:
    experiment_id = pair.create_experiment("one")
    arguments = ("rename_experiment", experiment_id, "Default")
    refused(pair, *arguments, ours="RESOURCE_ALREADY_EXISTS", theirs="BAD_REQUEST")
    assert pair.get_experiment(experiment_id).name == "one"


@row("message for a taken experiment name")
def _(pair: Pair) -> None:
    ours, theirs = pair.both("create_experiment", "Default")
    assert str(ours.error) == "Experiment(name=Default) already exists."
    assert "INSERT INTO" in str(theirs.error)


@row("one tag key twice in create_run")
def _(pair: Pair) -> None:
    tags = [RunTag("k", "1"), RunTag("k", "2")]
    ours = accepted(pair, "create_run", "0", "user", 1, tags, None, theirs="BAD_REQUEST")
    assert ours.result.data.tags["k"] == "2"


@row("one tag key twice in create_experiment")
def _(pair: Pair) -> None:
    tags = [ExperimentTag("k", "1"), ExperimentTag("k", "2")]
    ours = accepted(pair, "create_experiment", "new", None, tags, theirs="RESOURCE_ALREADY_EXISTS")
    assert pair.ours.get_experiment(ours.result).tags == {"k": "2"}


@row("an empty mlflow.runName tag in create_run")
def _(pair: Pair) -> None:
    arguments = ("create_run", "0", "user", 1, [RunTag(RUN_NAME, "")])
    ours = accepted(pair, *arguments, "named", theirs="BAD_REQUEST")
    assert (ours.result.info.run_name, ours.result.data.tags[RUN_NAME]) == ("named", "named")
    ours = accepted(pair, *arguments, None, theirs="BAD_REQUEST")
    assert ours.result.info.run_name == ours.result.data.tags[RUN_NAME] != ""


@row("a tag without a key in create_run")
def _(pair: Pair) -> None:
    arguments = ("create_run", "0", "user", 1, [RunTag(None, "v")], None)
    refused(pair, *arguments, ours="INVALID_PARAMETER_VALUE", theirs="BAD_REQUEST")


@row("a NUL character in a tag key of create_run")
def _(pair: Pair) -> None:
    tag = RunTag("a\0b", "v")
    refused(pair, "create_run", "0", "user", 1, [tag], None, ours="INVALID_PARAMETER_VALUE", theirs=None)
    assert pair.refused("set_tag", new_run(pair), tag).error_code == "INVALID_PARAMETER_VALUE"


@row("no user or no start time in create_run")
def _(pair: Pair) -> None:
    for user, start_time in ((None, 1), ("user", None)):
        arguments = ("create_run", "0", user, start_time, [], None)
        refused(pair, *arguments, ours="INVALID_PARAMETER_VALUE", theirs="INTERNAL_ERROR")
    assert pair.search_runs(["0"], "", ViewType.ALL) == []


@row("times that are text, of runs and of traces")
def _(pair: Pair) -> None:
    refused(pair, "create_run", "0", "user", "now", [], None, ours="INVALID_PARAMETER_VALUE", theirs=None)
    arguments = ("update_run_info", new_run(pair), None, "now", None)
    refused(pair, *arguments, ours="INVALID_PARAMETER_VALUE", theirs=None)
    started = ("deprecated_start_trace_v2", "0", "now", {}, {})
    refused(pair, *started, ours="INVALID_PARAMETER_VALUE", theirs=None)
    assert pair.ours.search_traces(["0"])[0] == []


@row("times with a fraction")
def _(pair: Pair) -> None:
    ours, theirs = pair.both("create_run", "0", "user", 1.75, [], None)
    assert (ours.result.info.start_time, theirs.result.info.start_time) == (1, 1.75)


@row("infinite or NaN timestamps and steps of a metric")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    for time, step, theirs in ((math.inf, 0, None), (1, math.inf, None), (math.nan, 0, "BAD_REQUEST")):
        metric = Metric("m", 1.0, time, step)
        refused(pair, "log_metric", run_id, metric, ours="INVALID_PARAMETER_VALUE", theirs=theirs)


@row("a param whose value is None")
def _(pair: Pair) -> None:
    run_id, param = new_run(pair), Param("p", None)
    refused(pair, "log_param", run_id, param, ours="INVALID_PARAMETER_VALUE", theirs="BAD_REQUEST")
    batch = ("log_batch", run_id, [], [Param("q", "v"), param], [])
    refused(pair, *batch, ours="INVALID_PARAMETER_VALUE", theirs="BAD_REQUEST")
    assert pair.get_run(run_id).data.params == {}


@row("numbers beyond 64 bits")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    for call in (
        ("get_experiment", str(BEYOND)),
        ("filter_active_experiment_ids", [str(BEYOND)]),
        ("create_run", "0", "user", BEYOND, [], None),
        ("update_run_info", run_id, None, BEYOND, None),
        ("log_metric", run_id, Metric("m", 1.0, BEYOND, 0)),
        ("log_metric", run_id, Metric("m", 1.0, 1, BEYOND)),
    ):
        refused(pair, *call, ours="INVALID_PARAMETER_VALUE", theirs="INTERNAL_ERROR")


@row("searching in experiments whose ids are beyond 64 bits")
def _(pair: Pair) -> None:
    new_run(pair)
    ours = accepted(pair, "search_runs", [str(BEYOND)], "", ViewType.ALL, theirs="INTERNAL_ERROR")
    assert ours.result == []


@row("filters with numbers beyond 64 bits")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    for comparator, expected in ((">", []), ("<", [run_id]), ("!=", [run_id])):
        arguments = (["0"], f"start_time {comparator} {BEYOND}", ViewType.ALL)
        ours = accepted(pair, "search_runs", *arguments, theirs="INTERNAL_ERROR")
        assert [run.info.run_id for run in ours.result] == expected
    for comparator, count in ((">", 0), ("=", 0), ("<", 1), ("!=", 1)):
        search = (ViewType.ALL, 10, f"creation_time {comparator} {BEYOND}")
        ours = accepted(pair, "search_experiments", *search, theirs="INTERNAL_ERROR")
        assert len(ours.result) == count


@row("text that is no Unicode (lone surrogates)")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    for call in (
        ("create_experiment", "\ud800"),
        ("set_tag", run_id, RunTag("t", "\ud800")),
        ("log_param", run_id, Param("p", "\ud800")),
    ):
        refused(pair, *call, ours="INVALID_PARAMETER_VALUE", theirs="INTERNAL_ERROR")


@row("an empty experiment id in create_run")
def _(pair: Pair) -> None:
    ours = accepted(pair, "create_run", "", "user", 1, [], None, theirs="BAD_REQUEST")
    assert ours.result.info.experiment_id == "0"


@row("restoring an experiment without naming one")
def _(pair: Pair) -> None:
    for no_id in (None, ""):
        arguments = ("restore_experiment", no_id)
        refused(pair, *arguments, ours="INVALID_PARAMETER_VALUE", theirs="RESOURCE_DOES_NOT_EXIST")
        assert pair.refused("delete_experiment", no_id).error_code == "INVALID_PARAMETER_VALUE"


@row("page tokens")
def _(pair: Pair) -> None:
    runs = [new_run(pair) for _ in range(4)]
    pages = [("0",), "", ViewType.ACTIVE_ONLY, 2, ["start_time ASC"]]
    _, token = pair._search_runs(*pages, None)
    pair.delete_run(runs[0])
    ours, theirs = pair.both("_search_runs", *pages, token)
    assert [run.info.run_id for run in ours.result[0]] == runs[2:]
    assert [run.info.run_id for run in theirs.result[0]] == runs[3:]


@row("a page token used with another search")
def _(pair: Pair) -> None:
    for _number in range(3):
        new_run(pair)
    _, token = pair._search_runs(["0"], "", ViewType.ALL, 1, ["start_time ASC"], None)
    arguments = ("_search_runs", ["0"], "", ViewType.ALL, 1, ["start_time DESC"], token)
    refused(pair, *arguments, ours="INVALID_PARAMETER_VALUE", theirs=None)


@row("get_metric_history with a page size below 1")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    pair.log_metric(run_id, Metric("m", 1.0, 1, 0))
    arguments = ("get_metric_history", run_id, "m", 0)
    theirs = refused(pair, *arguments, ours="INVALID_PARAMETER_VALUE", theirs=None)
    assert theirs.result == []
    with pytest.raises(MlflowException, match="Invalid page token"):
        pair.oracle.get_metric_history(run_id, "m", 0, theirs.result.token)


@row("get_metric_history_bulk with a negative limit")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    pair.log_metric(run_id, Metric("m", 1.0, 1, 0))
    ours, theirs = pair.both("get_metric_history_bulk", [run_id], "m", -1)
    assert (len(ours.result), len(theirs.result)) == (0, 1)


@row("ILIKE and letters beyond ASCII")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    pair.set_tag(run_id, RunTag("t", "naïve"))
    ours, theirs = pair.both("search_runs", ["0"], "tags.t ILIKE 'NAÏVE'", ViewType.ALL)
    assert (len(ours.result), len(theirs.result)) == (1, 0)


@row("restoring a run of a deleted experiment")
def _(pair: Pair) -> None:
    experiment_id = pair.create_experiment("deleted")
    run_id = new_run(pair, experiment_id)
    pair.delete_experiment(experiment_id)
    refused(pair, "restore_run", run_id, ours="INVALID_PARAMETER_VALUE", theirs=None)
    assert pair.ours.get_run(run_id).info.lifecycle_stage == "deleted"


@row("deleting an active run for good")
def _(pair: Pair) -> None:
    run_id = new_run(pair)
    refused(pair, "_hard_delete_run", run_id, ours="INVALID_PARAMETER_VALUE", theirs=None)
    pair.ours.get_run(run_id)


@row("experiment ids after the last experiment is deleted for good")
def _(pair: Pair) -> None:
    experiment_id = pair.create_experiment("last")
    pair.delete_experiment(experiment_id)
    pair._hard_delete_experiment(experiment_id)
    ours, theirs = pair.both("create_experiment", "next")
    assert theirs.result == experiment_id
    assert int(ours.result) == int(experiment_id) + 1
