"""The search of runs: every comparator, order, view and page over one set of runs."""

from itertools import product

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag, ViewType

from tests.contract.pair import Pair
from tests.contract.search_cases import FILTERS, MALFORMED_FILTERS, MALFORMED_ORDERS, ORDERS

LOSSES = [0.5, 0.0, -200.0, 0.25, 0.5, 2.0, 1e-4, float("nan"), -0.5, 0.75]
STAGES = ["prod", "Prod", "preprod", None, "proto", "p%"]
STATUSES = [RunStatus.FINISHED, None, RunStatus.FAILED, RunStatus.KILLED]
RUNS = 24


@pytest.fixture(scope="module")
def filled(module_pair: Pair) -> Pair:
    """24 runs in two experiments; every property is missing from some and tied among others."""
    module_pair.create_experiment("other")
    for number in range(RUNS):
        _add_run(module_pair, number)
    return module_pair


def _add_run(pair: Pair, number: int) -> None:
    tags = [RunTag("stage", stage)] if (stage := STAGES[number % 6]) else []
    if number % 4 == 0:
        tags += [RunTag("team.name", 'a"b'), RunTag("pattern", "new\nline (x)+[y]")]
    user, start_time = ("ann", "bob")[number % 2], 1000 + number // 2
    run = pair.create_run(str(number % 3 % 2), user, start_time, tags, f"run-{number}")
    run_id = run.info.run_id
    metrics = [Metric("loss", LOSSES[number % 10], 1, 0)] if number % 7 else []
    if number % 2:
        metrics += [
            Metric("odd", value, 1, step)
            for step, value in enumerate((9.0, (0.0, float("nan"), 5.0)[number % 3]))
        ]
    if number % 5 == 0:
        metrics.append(Metric("val/acc.x", number / 10, 1, 0))
    params = [Param("model", ("tree", "linear", "Tree")[number % 3])] if number % 5 else []
    params += [Param("lr", "0.1"), Param("a.b", "dotted")] if number % 4 else [Param("empty", "")]
    pair.log_batch(run_id, metrics, params, [])
    if (status := STATUSES[number % 4]) is not None:
        pair.update_run_info(run_id, status, 4000 + number % 3, None)
    if number % 3 == 0:
        context = [InputTag("mlflow.data.context", ("training", "evaluation")[number % 2])]
        train = DatasetInput(Dataset("train", f"d{number % 2}", "local", "here"), context)
        test = DatasetInput(Dataset("test", "d1", "local", "here"), [])
        pair.log_inputs(run_id, [train, test])
    if number % 8 == 5:
        pair.delete_run(run_id)


@pytest.mark.parametrize("filter_string", FILTERS)
def test_filters(filled: Pair, filter_string: str | None) -> None:
    filled._search_runs(["0", "1"], filter_string, ViewType.ALL, 100, None, None)
    filled._search_runs(["0"], filter_string, ViewType.ACTIVE_ONLY, 100, ["metrics.loss DESC"], None)


@pytest.mark.parametrize("filter_string", FILTERS[::3])
def test_filtered_pages(filled: Pair, filter_string: str | None) -> None:
    for order_by in (["metrics.odd"], ["params.model", "start_time"]):
        filled.pages("_search_runs", ["0", "1"], filter_string, ViewType.ALL, 7, order_by)


@pytest.mark.parametrize("order_by", ORDERS, ids=str)
def test_orders_and_pages(filled: Pair, order_by: list[str] | None) -> None:
    everything = filled._search_runs(["0", "1"], "", ViewType.ALL, 1000, order_by, None)[0]
    assert len(everything) == RUNS
    found = filled.pages("_search_runs", ["0", "1"], "", ViewType.ALL, 7, order_by)
    assert [run.info.run_id for run in found] == [run.info.run_id for run in everything]


@pytest.mark.parametrize(
    "order_by", [None, ["metrics.odd DESC"], ["start_time"], ["params.model DESC", "status"]]
)
def test_pages_of_one(filled: Pair, order_by: list[str] | None) -> None:
    assert len(filled.pages("_search_runs", ["0", "1"], "", ViewType.ALL, 1, order_by)) == RUNS


@pytest.mark.parametrize("order_by", ORDERS, ids=str)
def test_filtered_orders(filled: Pair, order_by: list[str] | None) -> None:
    for filter_string in ("metrics.loss >= 0", "params.model != 'linear' AND tags.stage LIKE 'p%'"):
        filled.pages("_search_runs", ["1", "0", "0"], filter_string, ViewType.ACTIVE_ONLY, 8, order_by)


@pytest.mark.parametrize("filter_string", MALFORMED_FILTERS)
def test_malformed_filters_are_treated_alike(filled: Pair, filter_string: str) -> None:
    arguments = (["0", "1"], filter_string, ViewType.ALL, 100, None, None)
    _, theirs = filled.both("_search_runs", *arguments)
    if theirs.error is None:
        filled._search_runs(*arguments)
    elif theirs.code == "INVALID_PARAMETER_VALUE":
        filled.refused("_search_runs", *arguments)
    else:
        ours, _ = filled.both("_search_runs", *arguments)
        assert ours.code == "INVALID_PARAMETER_VALUE", f"MLflow's parser slipped: {theirs.error!r}"


@pytest.mark.parametrize("order_by", MALFORMED_ORDERS, ids=str)
def test_malformed_orders_are_refused(filled: Pair, order_by: list[str]) -> None:
    filled.refused("_search_runs", ["0"], "", ViewType.ALL, 10, order_by, None)


def test_views_and_experiments(filled: Pair) -> None:
    views = (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL)
    for view, experiments in product(
        views, ([], ["0"], ["1"], ["0", "1"], ["1", "0", "1"], ["99"], [0], ["01"])
    ):
        filled._search_runs(experiments, None, view, 100, None, None)
        filled.pages("_search_runs", experiments, None, view, 3, ["params.model"])


def test_the_public_search_takes_its_defaults(filled: Pair) -> None:
    assert len(filled.search_runs(["0", "1"], None, ViewType.ACTIVE_ONLY)) == RUNS - 3
    assert filled.search_runs(["0"], "", ViewType.ALL, max_results=3).token
    filled.search_runs(
        experiment_ids=["0"], filter_string="metrics.loss > 0", run_view_type=3, order_by=["metrics.loss"]
    )


@pytest.mark.parametrize("max_results", [0, -1, 50_001])
def test_page_sizes_out_of_range_are_refused(filled: Pair, max_results: int) -> None:
    refusal = filled.refused("_search_runs", ["0"], "", 1, max_results, None, None)
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"


def test_no_page_size_means_all(filled: Pair) -> None:
    found, token = filled._search_runs(["0", "1"], "", ViewType.ALL, None, None, None)
    assert (len(found), token) == (RUNS, None)
    assert filled._search_runs(["0", "1"], "", ViewType.ALL, RUNS, None, None)[1] is None


@pytest.mark.parametrize("ids", [["x"], ["0", ""], [None], ["1.5"]])
def test_bad_experiment_ids_are_refused(filled: Pair, ids: list[str]) -> None:
    assert filled.refused("_search_runs", ids, "", 1, 10, None, None).error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    "token", ["garbage", "eyJvZmZzZXQiOiAtMX0=", "e30=", "bnVsbA==", "¡", "W10=", b"e30="]
)
def test_foreign_tokens_are_refused(filled: Pair, token: str) -> None:
    ours, _ = filled.both("_search_runs", ["0"], "", 1, 10, None, token)
    assert ours.code == "INVALID_PARAMETER_VALUE"


def test_a_token_is_bound_to_its_search(filled: Pair) -> None:
    _, token = filled.ours._search_runs(["0"], "", ViewType.ALL, 2, ["metrics.loss"], None)
    for changed in (
        (["1"], "", ViewType.ALL, 2, ["metrics.loss"]),
        (["0"], "metrics.loss > 0", ViewType.ALL, 2, ["metrics.loss"]),
        (["0"], "", ViewType.ACTIVE_ONLY, 2, ["metrics.loss"]),
        (["0"], "", ViewType.ALL, 2, ["metrics.odd"]),
    ):
        ours, _ = filled.both("_search_runs", *changed, token)
        assert ours.code == "INVALID_PARAMETER_VALUE"
    assert filled.ours._search_runs(["0"], "", ViewType.ALL, 5, ["metrics.loss"], token)[0]
