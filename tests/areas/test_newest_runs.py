"""The newest runs as their caller's thread reads them, beside what the loop makes of the same question."""

from collections.abc import Iterator
from typing import Any

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag, ViewType

from genesis_flow import MongoDBStore
from genesis_flow.aio import MongoDBStore as AsyncStore
from tests.commands import CommandRecorder

RUNS = 7


@pytest.fixture
def blocking(store_uri: str) -> Iterator[MongoDBStore]:
    with_runs = MongoDBStore(store_uri)
    yield with_runs
    with_runs.close()


@pytest.fixture
def by_loop(blocking: MongoDBStore, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls that the loop has made for the blocking store."""
    blocking.get_experiment("0")  # opens the database
    calls: list[Any] = []
    of_loop = blocking._in_portal

    def noted(work: Any) -> Any:
        calls.append(work)
        return of_loop(work)

    monkeypatch.setattr(blocking, "_in_portal", noted)
    return calls


def fill(store: MongoDBStore) -> list[str]:
    """Runs of which some start at once, one is deleted, and two have no metrics; the newest first."""
    ids = []
    for number in range(RUNS):
        run = store.create_run("0", "me", 1_000 + number // 2, [RunTag("a.b%", str(number))], f"run {number}")
        ids.append(run.info.run_id)
        metrics = [Metric(f"m{index}", number / 7, 5, index) for index in range(number % 4)]
        store.log_batch(ids[-1], metrics, [Param("p.q", str(number))], [])
    store.delete_run(ids[3])
    return ids


def plain(runs: Any) -> list[Any]:
    return [
        (run.to_dictionary(), sorted(vars(metric).items() for metric in run.data._metric_objs))
        for run in runs
    ]


async def compared(blocking: MongoDBStore, store: AsyncStore, **asked: Any) -> tuple[Any, Any]:
    ours = blocking.search_runs(["0"], "", **asked)
    expected = await store.search_runs(["0"], "", **asked)
    assert plain(ours) == plain(expected)
    assert ours.token == expected.token
    return ours, expected


@pytest.mark.parametrize("order_by", [None, [], ["attributes.start_time DESC"]])
@pytest.mark.parametrize("view", [ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL])
async def test_a_thread_reads_what_the_loop_reads(
    blocking: MongoDBStore, store: AsyncStore, by_loop: list[Any], order_by: Any, view: str
) -> None:
    fill(blocking)
    by_loop.clear()
    for size in (1, 3, RUNS, 100):
        await compared(blocking, store, run_view_type=view, max_results=size, order_by=order_by)
    assert by_loop == []


async def test_pages_follow_each_other(blocking: MongoDBStore, store: AsyncStore, by_loop: list[Any]) -> None:
    fill(blocking)
    by_loop.clear()
    seen: list[str] = []
    token = None
    while True:
        page = blocking.search_runs(["0"], "", ViewType.ALL, 3, page_token=token)
        seen += [run.info.run_id for run in page]
        if (token := page.token) is None:
            break
    everything = await store.search_runs(["0"], "", ViewType.ALL, 100)
    assert seen == [run.info.run_id for run in everything]
    assert by_loop == []


async def test_steps_that_wait_and_datasets_are_seen(
    blocking: MongoDBStore, store: AsyncStore, by_loop: list[Any], commands: CommandRecorder
) -> None:
    ids = fill(blocking)
    for step in range(3):
        wide = [Metric(f"layer {index}", step + index / 7, 10 + step, step) for index in range(200)]
        blocking.log_batch(ids[1], wide, [], [])
    used = Dataset("d", "1", "local", "{}", None, None)
    blocking.log_inputs(ids[2], [DatasetInput(used, [InputTag("k", "v")])])
    by_loop.clear()
    with commands.recording() as sent:
        ours = blocking.search_runs(["0"], "", ViewType.ALL, 100)
    assert [name for name, _ in sent] == ["find", "aggregate", "find"]
    expected = await store.search_runs(["0"], "", ViewType.ALL, 100)
    assert plain(ours) == plain(expected)
    by_id = {run.info.run_id: run for run in ours}
    assert by_id[ids[1]].data.metrics["layer 7"] == 3.0
    assert by_id[ids[2]].inputs.dataset_inputs[0].dataset.name == "d"
    assert by_loop == []


@pytest.mark.parametrize(
    ("asked", "is_loops"),
    [
        ({"filter_string": "params.`p.q` = '1'"}, False),
        ({"max_results": 1_001}, False),
        ({"experiment_ids": ["99"]}, False),
        ({"order_by": ["metrics.m1"]}, True),
        ({"filter_string": "metrics.m1 > 0.1"}, True),
        ({"order_by": ["attributes.start_time ASC"]}, True),
    ],
)
async def test_questions_whose_reads_go_side_by_side_are_the_loops(
    blocking: MongoDBStore, store: AsyncStore, by_loop: list[Any], asked: dict[str, Any], is_loops: bool
) -> None:
    fill(blocking)
    by_loop.clear()
    question = {"experiment_ids": ["0"], "filter_string": "", "run_view_type": ViewType.ALL, **asked}
    ours = blocking.search_runs(**question)
    assert (len(by_loop) == 1) is is_loops
    assert plain(ours) == plain(await store.search_runs(**question))
