"""The search of logged models: filters, datasets, orders, pages."""

import random
from itertools import product
from typing import Any

import pytest
from mlflow.entities import LoggedModelParameter, LoggedModelStatus, LoggedModelTag, Metric

from genesis_flow.areas.logged_models import plans as logged_model_plans
from tests.contract.pair import Pair
from tests.contract.scenes import Clock, new_run

MODELS = 40
EXPERIMENTS = ["0", "1", "2"]


@pytest.fixture(scope="module")
def filled(module_pair: Pair, clock: Clock) -> Pair:
    draw = random.Random(5)
    pair = module_pair
    for name in ("one", "two"):
        pair.create_experiment(name)
    runs = [new_run(pair, experiment_id) for experiment_id in EXPERIMENTS]
    for number in range(MODELS):
        clock.now += number % 3  # some are of the same time
        model_id = pair.create_logged_model(
            EXPERIMENTS[number % 3],
            f"model-{number % 7}",
            draw.choice([None, runs[0], runs[1]]),
            [LoggedModelTag("stage", draw.choice("abc"))] if number % 4 else None,
            [LoggedModelParameter("lr.rate", str(number % 5)), LoggedModelParameter("text", "Ab%c_")],
            draw.choice([None, "agent", "sklearn"]),
        ).model_id
        if number % 2:
            clock.tick()
            pair.finalize_logged_model(model_id, draw.choice(list(LoggedModelStatus)))
        if number % 10 == 9:
            pair.delete_logged_model(model_id)
        metrics = [
            Metric(key, draw.randrange(6) / 5, draw.randrange(3), step, model_id, *dataset)
            for key in ("acc", "loss.x")
            for step, dataset in enumerate([(), ("train", "1"), ("test", "1"), ("test", "2")])
            if draw.random() < 0.6
        ]
        if metrics:
            pair.log_batch(runs[draw.randrange(3)], metrics, [], [])
    return pair


FILTERS = [
    None,
    "name = 'model-1'",
    "name != 'model-1'",
    "name LIKE 'model-%'",
    "name LIKE 'MODEL-%'",
    "name ILIKE '%DEL-3'",
    "name IN ('model-1', 'model-2')",
    "name NOT IN ('model-1', 'model-2')",
    "name IN ('model-1')",
    "name in ('model-1') AND model_type like 'a%'",
    "model_type = 'agent'",
    "model_type != 'agent'",
    "lifecycle_stage = 'active'",
    "creation_timestamp > 0",
    "creation_time >= 1700000000010",
    "creation_timestamp_ms < 1700000000010",
    "last_updated_timestamp != 1700000000010",
    "creation_timestamp > 1e30",
    "params.lr.rate = '3'",
    "params.`lr.rate` = '3'",
    "params.lr.rate != '3'",
    "params.lr.rate IN ('1', '2')",
    "params.text LIKE 'Ab%'",
    "params.text LIKE 'ab%'",
    "params.text ILIKE '%B_c%'",
    "params.nothing = 'x'",
    "tags.stage = 'a'",
    "tags.stage != 'a'",
    "tags.stage NOT IN ('a')",
    "tags.stage = 'a' AND params.lr.rate = '2' AND name LIKE '%'",
    "metrics.acc > 0.5",
    "metrics.acc <= 0.2",
    "metrics.acc = 1",
    "metrics.acc != 1",
    "metrics.loss.x >= 0.8",
    "metrics.acc > 0.5 AND metrics.acc < 0.3",
    "metrics.acc > 0.5 AND metrics.loss.x > 0.5 AND tags.stage != 'b'",
    "metrics.nothing > 0",
    "metrics.acc > 0.9 AND creation_timestamp > 0",
]
DATASETS: list[list[dict[str, str]] | None] = [
    None,
    [],
    [{"dataset_name": "train"}],
    [{"dataset_name": "test", "dataset_digest": "2"}],
    [{"dataset_name": "train"}, {"dataset_name": "test", "dataset_digest": "1"}],
    [{"dataset_name": "none"}],
]
ORDERS: list[list[dict[str, Any]] | None] = [
    None,
    [{"field_name": "creation_timestamp"}],
    [{"field_name": "creation_time", "ascending": False}],
    [{"field_name": "name"}],
    [{"field_name": "model_type", "ascending": False}, {"field_name": "name"}],
    [{"field_name": "source_run_id"}, {"field_name": "last_updated_timestamp", "ascending": False}],
    [{"field_name": "status"}, {"field_name": "model_id", "ascending": False}],
    [{"field_name": "experiment_id", "ascending": False}],
    [{"field_name": "model_id"}],
    [{"field_name": "metrics.acc"}],
    [{"field_name": "metrics.acc", "ascending": False}],
    [{"field_name": "metrics.acc", "dataset_name": "test"}],
    [{"field_name": "metrics.loss.x", "dataset_name": "test", "dataset_digest": "2", "ascending": False}],
    [{"field_name": "name"}, {"field_name": "metrics.acc", "dataset_name": "train", "ascending": False}],
    [{"field_name": "metrics.nothing"}],
]


@pytest.fixture(params=[1_000, 3], ids=["candidates", "checked"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many models as the plans were made for, and more than that."""
    monkeypatch.setattr(logged_model_plans, "FEW", request.param)
    monkeypatch.setattr(logged_model_plans, "CHUNK", max(5, request.param))


def ids(models: Any) -> list[str]:
    return [model.model_id for model in models]


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("filter_string", FILTERS)
def test_filters(filled: Pair, filter_string: str | None) -> None:
    for datasets in DATASETS if "metrics" in (filter_string or "") else DATASETS[:3]:
        filled.search_logged_models(EXPERIMENTS, filter_string, datasets)
    filled.pages("search_logged_models", ["1"], filter_string, max_results=2)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("order_by", ORDERS, ids=str)
def test_orders(filled: Pair, order_by: list[dict[str, Any]] | None) -> None:
    whole = filled.search_logged_models(EXPERIMENTS, order_by=order_by)
    assert len(whole) == MODELS - MODELS // 10
    for size in (7, 36):
        paged = filled.pages("search_logged_models", EXPERIMENTS, order_by=order_by, max_results=size)
        assert ids(paged) == ids(whole)
    for filter_string, datasets in product(("metrics.acc > 0.5", "tags.stage != 'a'"), DATASETS[2:4]):
        question = {"filter_string": filter_string, "datasets": datasets, "order_by": order_by}
        filled.pages("search_logged_models", EXPERIMENTS, **question, max_results=5)


def test_experiments(filled: Pair) -> None:
    for experiments in ([], ["0"], ["1", "2"], ["99"], ["1", "1"]):
        filled.search_logged_models(experiments)
    filled.refused("search_logged_models", ["abc"])
    assert len(filled.search_logged_models(EXPERIMENTS, "", max_results=0)) == 36


@pytest.mark.parametrize(
    "filter_string",
    [
        "name = ",
        "name",
        "name > 'a'",
        "metrics.acc LIKE '1'",
        "metrics.acc IN ('1')",
        "creation_timestamp LIKE '1'",
        "name = 'a' OR name = 'b'",
        "name = 'a'; name = 'b'",
        "params.lr.rate > '3'",
        "datasets.name = 'x'",
        "run.x = '1'",
        "params.lr.rate IS NULL",
        "AND",
        "(name = 'a')",
    ],
)
def test_filters_that_both_refuse(filled: Pair, filter_string: str) -> None:
    ours, theirs = filled.both("search_logged_models", EXPERIMENTS, filter_string)
    if theirs.error is None:
        assert ours.code is None
        assert ids(ours.result) == ids(theirs.result)
    else:
        assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE", "INVALID_PARAMETER_VALUE")


@pytest.mark.parametrize(
    "filter_string",
    [
        "nothing = 'x'",
        "Params.x = '1'",
        "tags = 'x'",
        "metadata = 'x'",
        "metrics.acc > abc",
        "metrics.acc > '1'",
        "creation_timestamp > abc",
        "name IN ('a'",
        "name IN (a)",
        "name = ('a', 'b')",
        "name IN 'a'",
        "status = 'NOTHING'",
        "status LIKE 'R%'",
    ],
)
def test_filters_on_which_sql_stumbles(filled: Pair, filter_string: str) -> None:
    """MLflow's store raises Python's or SQLAlchemy's own errors, or finds nothing."""
    ours, _ = filled.both("search_logged_models", EXPERIMENTS, filter_string)
    assert ours.code == "INVALID_PARAMETER_VALUE"


def test_status_by_name(filled: Pair) -> None:
    """MLflow's store compares its number with the text, and so finds nothing."""
    everything = filled.ours.search_logged_models(EXPERIMENTS)
    for status in LoggedModelStatus:
        wanted = [model.model_id for model in everything if model.status == status]
        for text in (status.value, str(status.to_int())):
            assert ids(filled.ours.search_logged_models(EXPERIMENTS, f"status = '{text}'")) == wanted
            others = filled.ours.search_logged_models(EXPERIMENTS, f"status NOT IN ('{text}')")
            assert sorted(ids(others) + wanted) == sorted(ids(everything))


def test_a_dataset_without_a_digest_is_any_with_the_name(filled: Pair) -> None:
    """MLflow's server passes None where the client gave no digest, and its store then finds nothing."""
    by_name = filled.search_logged_models(EXPERIMENTS, datasets=[{"dataset_name": "test"}])
    asked = [{"dataset_name": "test", "dataset_digest": None}]
    assert ids(filled.ours.search_logged_models(EXPERIMENTS, datasets=asked)) == ids(by_name) != []


@pytest.mark.parametrize(
    "order_by",
    [
        [{"field_name": "nothing"}],
        [{"field_name": "params.lr"}],
        [{"field_name": "tags.stage"}],
    ],
    ids=str,
)
def test_orders_that_are_refused(filled: Pair, order_by: list[dict[str, Any]]) -> None:
    refusal = filled.refused("search_logged_models", EXPERIMENTS, order_by=order_by)
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"


def test_datasets_need_a_name(filled: Pair) -> None:
    refusal = filled.refused("search_logged_models", EXPERIMENTS, datasets=[{"dataset_digest": "1"}])
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"


def test_tokens_belong_to_their_search(filled: Pair) -> None:
    token = filled.search_logged_models(EXPERIMENTS, max_results=2).token
    for experiments, filter_string, order_by in (
        (["0"], None, None),
        (EXPERIMENTS, "name = 'model-1'", None),
        (EXPERIMENTS, None, [{"field_name": "name"}]),
    ):
        ours, theirs = filled.both(
            "search_logged_models", experiments, filter_string, None, 2, order_by, token
        )
        assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE", "INVALID_PARAMETER_VALUE")
    for garbage in ("garbage", "e30=", "W10="):
        ours, _ = filled.both("search_logged_models", EXPERIMENTS, page_token=garbage)
        assert ours.code == "INVALID_PARAMETER_VALUE"


def test_pages_stay_whole_while_models_come(filled: Pair, clock: Clock) -> None:
    """Offsets would repeat the last model of a page when a newer one moves all down."""
    before = ids(filled.ours.search_logged_models(EXPERIMENTS))
    first = filled.ours.search_logged_models(EXPERIMENTS, max_results=10)
    clock.now += 100
    newer = filled.ours.create_logged_model("0", "newer").model_id
    rest = filled.ours.search_logged_models(EXPERIMENTS, max_results=100, page_token=first.token)
    assert ids(first) + ids(rest) == before
    filled.ours.delete_logged_model(newer)
