"""The largest that is legal works; what is larger is one clear error before anything is written.

GENESIS_FLOW_LONG=1 logs ten million points instead of a hundred thousand.
"""

import os
import time
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore

LONG = bool(os.environ.get("GENESIS_FLOW_LONG"))
POINTS = 10_000_000 if LONG else 100_000
KEYS = 20_000 if LONG else 4_000
BATCH = 1_000
LONGEST_VALUE = "v" * 6_000
LONGEST_KEY = "k" * 250
INVALID = "INVALID_PARAMETER_VALUE"


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri


@pytest.fixture
async def run_id(store: MongoDBStore) -> str:
    return str((await store.create_run("0", "u", 1, [], "r")).info.run_id)


def contents(store_uri: str, run_id: str) -> list[Any]:
    """All that belongs to the run in the database."""
    with pymongo.MongoClient[dict[str, Any]](store_uri) as client:
        db = client.get_default_database()
        of_run = {"_id": {"$gte": run_id, "$lt": f"{run_id}~"}}
        return [list(db[name].find(of_run).sort("_id")) for name in ("runs", "latest_metrics", "metrics")]


async def test_the_largest_legal_batches(store: MongoDBStore, run_id: str) -> None:
    """1,000 metrics; and 800 with 100 params and 100 tags, all keys and values as long as they may be."""
    await store.log_batch(run_id, [Metric(f"m{each}", 1.0, 1, 0) for each in range(BATCH)], [], [])
    longest = [
        [Metric(f"n{each:03}{LONGEST_KEY[4:]}", 1e308, 2**63 - 1, -(2**63)) for each in range(800)],
        [Param(f"{each:03}{LONGEST_KEY[3:]}", LONGEST_VALUE) for each in range(100)],
        [RunTag(f"{each:03}{LONGEST_KEY[3:]}", "t" * 8_000) for each in range(100)],
    ]
    await store.log_batch(run_id, *longest)  # type: ignore[arg-type]
    data = (await store.get_run(run_id)).data
    assert (len(data.metrics), len(data.params), len(data.tags)) == (1_800, 100, 101)
    assert set(data.params.values()) == {LONGEST_VALUE}
    found, _ = await store._search_runs(
        ["0"], f"params.`000{LONGEST_KEY[3:]}` = '{LONGEST_VALUE}'", ViewType.ALL, 5, None, None
    )
    assert len(found) == 1


@pytest.mark.parametrize(
    "batch",
    [
        ([Metric("m", 1.0, 1, step) for step in range(BATCH + 1)], [], []),
        ([], [Param(str(number), "v") for number in range(101)], []),
        ([], [], [RunTag(str(number), "v") for number in range(101)]),
        (
            [Metric("m", 1.0, 1, step) for step in range(900)],
            [Param(str(each), "") for each in range(60)],
            [RunTag(str(each), "") for each in range(60)],
        ),
        ([Metric("m" * 251, 1.0, 1, 0)], [Param("p", "v")], []),
        ([Metric("m", 1.0, 2**63, 0)], [Param("p", "v")], [RunTag("t", "v")]),
        ([Metric("m", 1.0, 1, 0)], [Param("p", "v")], [RunTag("t" * 251, "v")]),
    ],
    ids=["metrics", "params", "tags", "together", "long key", "number", "long tag"],
)
async def test_one_more_is_refused_and_nothing_is_written(
    store: MongoDBStore, run_id: str, store_uri: str, batch: tuple[Any, Any, Any]
) -> None:
    before = contents(store_uri, run_id)
    with pytest.raises(MlflowException) as caught:
        await store.log_batch(run_id, *batch)
    assert caught.value.error_code == INVALID
    assert contents(store_uri, run_id) == before


async def test_params_beyond_16_mb_are_refused_and_nothing_is_written(
    store: MongoDBStore, run_id: str, store_uri: str
) -> None:
    """4,000 params of 6,000 characters are 24 MB; a run holds about 2,700 of them, and stays usable."""
    written = 0
    refusal: MlflowException | None = None
    while refusal is None and written < 4_000:
        before = contents(store_uri, run_id) if written >= 2_500 else []
        params = [Param(f"p{written + each}", LONGEST_VALUE) for each in range(100)]
        try:
            await store.log_batch(run_id, [Metric("m", 1.0, 1, written)], params, [])
        except MlflowException as error:
            refusal = error
        else:
            written += 100
    assert refusal is not None
    assert 2_500 < written < 2_800
    assert refusal.error_code == INVALID
    assert "16 MB" in str(refusal)
    assert contents(store_uri, run_id) == before

    async def fill_up() -> None:
        for each in range(100):
            await store.log_param(run_id, Param(f"single {each}", LONGEST_VALUE))

    with pytest.raises(MlflowException, match="16 MB"):
        await fill_up()
    await store.log_metric(run_id, Metric("m", 2.0, 2, 10**6))
    await store.update_run_info(run_id, 3, 2, None)
    run = await store.get_run(run_id)
    assert len(run.data.params) >= written
    assert run.data.metrics == {"m": 2.0}


@pytest.mark.timeout(3600)
async def test_many_metric_keys(store: MongoDBStore, run_id: str) -> None:
    """The last thousand keys cost what the first did, and all are read and searched."""
    taken = []
    for start in range(0, KEYS, BATCH):
        begin = time.monotonic()
        batch = [Metric(f"m{number}", float(number), 1, 0) for number in range(start, start + BATCH)]
        await store.log_batch(run_id, batch, [], [])
        taken.append(time.monotonic() - begin)
    print([f"{each:.2f}" for each in taken])
    metrics = (await store.get_run(run_id)).data.metrics
    assert metrics == {f"m{number}": float(number) for number in range(KEYS)}
    asked = f"metrics.m{KEYS - 1} = {KEYS - 1} AND metrics.m0 = 0"
    assert len((await store._search_runs(["0"], asked, ViewType.ALL, 5, None, None))[0]) == 1
    assert min(taken[-3:]) < 10 * min(taken[:3]), taken


@pytest.mark.timeout(7200)
async def test_many_points_in_one_run(store: MongoDBStore, run_id: str, store_uri: str) -> None:
    """Each once, in order, read in pages; the cost of a batch and the memory of a page do not grow."""
    taken = []
    for start in range(0, POINTS, BATCH):
        begin = time.monotonic()
        batch = [Metric("m", float(step), step, step) for step in range(start, start + BATCH)]
        await store.log_batch(run_id, batch, [], [])
        taken.append(time.monotonic() - begin)
    middle = len(taken) // 2
    first, last = sorted(taken[:middle])[middle // 2], sorted(taken[middle:])[middle // 2]
    print(f"{POINTS} points: {POINTS / sum(taken):.0f} a second; a batch {first:.4f} s, later {last:.4f} s")
    assert last < 3 * first
    assert (await store.get_run(run_id)).data.metrics == {"m": POINTS - 1.0}
    sampled = await store.get_metric_history_bulk_interval([run_id], "m", 320, 0, POINTS)
    assert len(sampled) <= 320
    assert sampled[-1].step == POINTS - 1
    begin, token, seen = time.monotonic(), None, 0
    while True:
        page = await store.get_metric_history(run_id, "m", 25_000, token)
        assert [metric.step for metric in page] == list(range(seen, seen + len(page)))
        seen, token = seen + len(page), page.token
        if token is None or seen >= 250_000:  # a page costs the same wherever it is
            break
    print(f"{seen / (time.monotonic() - begin):.0f} points read a second")
    assert seen == min(POINTS, 250_000)
    with pymongo.MongoClient[dict[str, Any]](store_uri) as client:
        largest = client.get_default_database()["metrics"].aggregate(
            [{"$group": {"_id": None, "largest": {"$max": {"$bsonSize": "$$ROOT"}}}}]
        )
        assert next(largest)["largest"] < 1_000_000
