"""The UI's searches stay on their indexes, however large the collections grow."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pymongo
import pytest
from mlflow.entities import ViewType

from genesis_flow.areas.runs import plans
from genesis_flow.areas.runs.search import RunSearch
from genesis_flow.core.settings import Settings
from tests.areas.explain import Query, profiled
from tests.areas.run_samples import Sample, load_mongo
from tests.mongod import Mongod

RUNS = 3000
EXPERIMENTS = ["1", "2", "3"]
PAGE = 100
METRIC_KEYS = 3


@pytest.fixture(scope="module")
async def ours(mongod: Mongod) -> AsyncIterator[RunSearch]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    ours = RunSearch(Settings.resolve(f"{mongod.database_uri(name)}&appName=explain"))
    await ours.open()
    await load_mongo(ours.database, [_sample(number) for number in range(RUNS)], EXPERIMENTS)
    yield ours
    await ours.close()
    with pymongo.MongoClient(mongod.uri) as client:
        client.drop_database(name)


def _sample(number: int) -> Sample:
    return Sample(
        experiment=number % 3,
        name=f"run {number}",
        start_time=number // 2,
        end_time=None,
        deleted=number % 50 == 49,
        params={"lr": str(number % 10), "seed": str(number)},
        tags={"version": f"v{number % 100}"} | ({"mlflow.parentRunId": "parent"} if number % 300 < 3 else {}),
        metrics={"accuracy": (number * 7919 % RUNS) / RUNS, "loss": number % 20, "other": 1.0},
        inputs=[("rare", "digest", "train")] if number % 300 < 3 else [],
        run_id=f"run-{number:05}",
        artifact_uri="file:///artifacts",
    )


@dataclass
class Searched:
    run_ids: list[str]
    token: str | None
    queries: list[Query] = field(default_factory=list)

    def on(self, collection: str) -> list[Query]:
        return [query for query in self.queries if query.collection == collection]


async def searched(ours: RunSearch, experiments: list[str], **asked: Any) -> Searched:
    async with profiled(ours.database) as queries:
        runs, token = await ours._search_runs(
            experiments,
            asked.get("filter_string"),
            asked.get("view", ViewType.ACTIVE_ONLY),
            asked.get("max_results", PAGE),
            asked.get("order_by"),
            asked.get("token"),
        )
    answer = Searched([run.info.run_id for run in runs], token, queries)
    assert answer.queries
    assert not [query for query in answer.queries if query.scans_collection]
    return answer


UNFILTERED = [
    pytest.param({}, id="newest"),
    pytest.param({"order_by": ["start_time ASC"]}, id="oldest"),
    pytest.param({"order_by": ["metrics.accuracy DESC"]}, id="best"),
    pytest.param({"order_by": ["metrics.accuracy"]}, id="worst"),
    pytest.param({"order_by": ["metrics.loss DESC"]}, id="ties"),
    pytest.param({"order_by": ["metrics.other DESC"]}, id="all-equal"),
    pytest.param({"order_by": ["metrics.nobody DESC"]}, id="metric-of-none"),
    pytest.param({"view": ViewType.ALL}, id="newest-with-deleted"),
    pytest.param({"filter_string": "metrics.accuracy > 0.1"}, id="metric-of-most"),
    pytest.param(
        {"filter_string": "metrics.accuracy > 0.5", "order_by": ["metrics.accuracy"]}, id="own-range"
    ),
]


@pytest.mark.parametrize("asked", UNFILTERED)
@pytest.mark.parametrize("experiments", [EXPERIMENTS[:1], EXPERIMENTS], ids=["one", "three"])
async def test_index_orders_read_little_and_sort_nothing(
    ours: RunSearch, asked: dict[str, Any], experiments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "FEW", 50)  # 3,000 runs stand for many
    token = None
    for _ in range(3):
        answer = await searched(ours, experiments, token=token, **asked)
        assert len(answer.run_ids) == PAGE
        assert not [query for query in answer.queries if query.blocking_sort]
        # A constant number of pages' worth, not the experiment: 1,000 runs with three heads each.
        assert sum(query.documents for query in answer.on("runs")) <= 4 * PAGE
        assert sum(query.keys for query in answer.on("latest_metrics")) <= (3 + METRIC_KEYS * 3) * PAGE
        token = answer.token


SELECTIVE = [
    pytest.param("params.seed = '42'", 1, id="param"),
    pytest.param("tags.version = 'v7'", 30, id="tag"),
    pytest.param("tags.mlflow.parentRunId = 'parent'", 30, id="children"),
    pytest.param("datasets.name = 'rare'", 30, id="dataset"),
    pytest.param("metrics.accuracy > 0.99", 29, id="metric"),
    pytest.param("run_id IN ('run-00001', 'run-00002', 'run-00003')", 3, id="ids"),
]


@pytest.mark.parametrize(("clause", "matching"), SELECTIVE)
@pytest.mark.parametrize("order", ["start_time DESC", "metrics.loss", "params.lr", "status"])
async def test_selective_filters_read_their_candidates(
    ours: RunSearch, clause: str, matching: int, order: str
) -> None:
    answer = await searched(ours, EXPERIMENTS, filter_string=clause, order_by=[order])
    assert 0 < len(answer.run_ids) <= matching
    # Once to choose, once to read; the planner tries a few entries of other plans.
    assert sum(query.documents for query in answer.on("runs")) <= 4 * matching + PAGE


async def test_heads_of_a_page_are_prefix_ranges(ours: RunSearch) -> None:
    answer = await searched(ours, EXPERIMENTS[:1])
    [heads] = answer.on("latest_metrics")
    assert heads.returned == METRIC_KEYS * PAGE
    assert heads.documents == heads.returned
    assert heads.keys <= heads.returned + 3 * PAGE  # a seek or two for each prefix


async def test_behind_the_last_run_with_a_metric_heads_are_looked_for_and_not_read(ours: RunSearch) -> None:
    answer = await searched(ours, EXPERIMENTS[:1], order_by=["metrics.accuracy"], max_results=2 * RUNS)
    *_, looked_for, page = answer.on("latest_metrics")
    assert looked_for.returned == len(answer.run_ids) == page.returned // METRIC_KEYS
    assert looked_for.documents == 0


@pytest.mark.parametrize(
    ("asked", "round_trips"),
    [
        # The last one reads datasets, where the page has any; the first one steps that wait, of metrics.
        ({}, 3),
        ({"order_by": ["metrics.accuracy DESC"]}, 5),
        ({"filter_string": "params.lr = '3'"}, 2),
        ({"filter_string": "metrics.accuracy > 0.99"}, 5),
    ],
)
async def test_round_trips(ours: RunSearch, asked: dict[str, Any], round_trips: int) -> None:
    assert len((await searched(ours, EXPERIMENTS[:1], **asked)).queries) == round_trips


@pytest.mark.parametrize("count", [plans.MOST_MERGED_EXPERIMENTS, plans.MOST_MERGED_EXPERIMENTS + 1, 300])
@pytest.mark.parametrize("view", [ViewType.ACTIVE_ONLY, ViewType.ALL])
@pytest.mark.parametrize("order", ["start_time DESC", "start_time"])
async def test_many_experiments_come_in_index_order(
    ours: RunSearch, count: int, view: int, order: str
) -> None:
    experiments = [str(number) for number in range(1, count + 1)]
    token = None
    for _ in range(2):
        answer = await searched(ours, experiments, view=view, order_by=[order], token=token)
        assert len(answer.run_ids) == PAGE
        assert not [query for query in answer.on("runs") if query.blocking_sort]
        assert sum(query.documents for query in answer.on("runs")) <= 4 * PAGE
        token = answer.token
