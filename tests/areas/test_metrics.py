"""Metrics: one round trip, tails and blocks, exactly once, the latest by MLflow's rule."""

import asyncio
import math
import random
from typing import Any

import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from pymongo.errors import WriteError

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.metrics.documents import BLOCK_FROM, TAIL_LIMIT, MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.remembered import KnownMetrics
from genesis_flow.areas.runs.documents import RunFields
from tests.commands import CommandRecorder
from tests.mongod import Mongod

WRITERS = 8
TOO_LARGE_FOR_CACHE = 388


@pytest.fixture(params=["own", "of another store"])
async def run_id(store: MongoDBStore, request: pytest.FixtureRequest) -> str:
    """A run whose metrics the store knows because it made the run, and one of which it knows nothing."""
    run_id = await new_run(store)
    if request.param != "own":
        store._known_metrics = KnownMetrics()
    return run_id


async def new_run(store: MongoDBStore) -> str:
    return str((await store.create_run("0", "me", 1000, [], "a run")).info.run_id)


async def log_small_batches(store: MongoDBStore, run_id: str, key: str, steps: range) -> None:
    """Points with the value 1, in the tail and not in blocks of their own, with few commands."""
    small = BLOCK_FROM // 2
    for first in range(0, len(steps), small):
        batch = [Metric(key, 1, step, step) for step in steps[first : first + small]]
        await store.log_batch(run_id, batch, [], [])


async def history(store: MongoDBStore, run_id: str, key: str) -> list[tuple[int, int, float]]:
    return [(m.timestamp, m.step, m.value) for m in await store.get_metric_history(run_id, key)]


async def test_single_writes_are_one_round_trip(
    store: MongoDBStore, run_id: str, commands: CommandRecorder
) -> None:
    await store.log_metric(run_id, Metric("loss", 1.0, 1, 0))
    with commands.recording() as sent:
        await store.log_metric(run_id, Metric("loss", 0.5, 2, 1))
    assert [name for name, _ in sent] == ["update"]
    with commands.recording() as sent:
        await store.log_param(run_id, Param("depth", "3"))
    assert [name for name, _ in sent] == ["update"]
    with commands.recording() as sent:
        await store.set_tag(run_id, RunTag("team", "blue"))
    assert [name for name, _ in sent] == ["update"]


async def test_batch_of_known_metrics_is_two_round_trips(
    store: MongoDBStore, run_id: str, commands: CommandRecorder
) -> None:
    for step in range(2):
        batch = [Metric(key, step, step, step) for key in ("a", "b", "c")]
        with commands.recording() as sent:
            await store.log_batch(run_id, batch, [], [])
    assert [name for name, _ in sent] == ["update", "commitTransaction"]


async def test_full_tails_become_blocks_and_nothing_is_lost(store: MongoDBStore, run_id: str) -> None:
    full = TAIL_LIMIT + 1  # the point that finds the tail full goes along
    count = 2 * full + 7
    for step in range(count):
        await store.log_metric(run_id, Metric("loss", step / 2, 1000 + step, step))
    assert await history(store, run_id, "loss") == [(1000 + s, s, s / 2) for s in range(count)]
    blocks = await store.database.collection(MetricBlockFields).find().to_list()
    assert [block["n"] for block in blocks] == [full] * 2
    (head,) = await store.database.collection(MetricHeadFields).find().to_list()
    assert len(head["tail"]) == 7


async def test_crash_between_block_and_tail_leaves_each_point_once(store: MongoDBStore, run_id: str) -> None:
    await log_small_batches(store, run_id, "loss", range(TAIL_LIMIT))
    heads = store.database.collection(MetricHeadFields)
    before = await heads.find_one({})
    assert before is not None
    assert len(before["tail"]) == TAIL_LIMIT
    await store.log_metric(run_id, Metric("loss", -1, 500, 500))  # packs
    # The state of a packer that was killed after it wrote the block: the tail is still there.
    await heads.update_one({"_id": before["_id"]}, {"$set": {"tail": before["tail"]}})
    points = await history(store, run_id, "loss")
    assert len(points) == len(set(points)) == TAIL_LIMIT + 1
    for step in range(3):
        await store.log_metric(run_id, Metric("loss", -1, 600 + step, 600))
    assert len(await history(store, run_id, "loss")) == TAIL_LIMIT + 4


async def test_replayed_batches_are_one_batch(store: MongoDBStore, run_id: str) -> None:
    batch = [Metric("few", i, i, i) for i in range(10)] + [Metric("many", i, i, i) for i in range(500)]
    for _ in range(3):
        await store.log_batch(run_id, batch, [Param("p", "1")], [RunTag("t", "2")])
    assert len(await history(store, run_id, "few")) == 10
    assert len(await history(store, run_id, "many")) == 500
    assert await store.database.collection(MetricBlockFields).count_documents({}) == 1


async def test_replay_long_after_is_still_one_batch(store: MongoDBStore, run_id: str) -> None:
    batch = [Metric("loss", i, i, i) for i in range(10)]
    await store.log_batch(run_id, batch, [], [])
    await log_small_batches(store, run_id, "loss", range(1000, 1000 + 2 * TAIL_LIMIT))
    (head,) = await store.database.collection(MetricHeadFields).find().to_list()
    assert not {0, 9} & {step for _, step, *_ in head["tail"]}, "the first points are packed away"
    await store.log_batch(run_id, batch, [], [])
    assert len(await history(store, run_id, "loss")) == 10 + 2 * TAIL_LIMIT


async def test_special_values_come_back_exactly(store: MongoDBStore, run_id: str) -> None:
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308]
    for step, value in enumerate(values):
        await store.log_metric(run_id, Metric("single", value, step, step))
    await store.log_batch(run_id, [Metric("block", v, i, i) for i, v in enumerate(values * 20)], [], [])
    for key, expected in (("single", values), ("block", values * 20)):
        found = [value for _, _, value in await history(store, run_id, key)]
        assert [repr(value) for value in found] == [repr(value) for value in expected]


@pytest.mark.parametrize("many", [False, True])
async def test_latest_is_the_greatest_step_whatever_the_order(store: MongoDBStore, many: bool) -> None:
    rng = random.Random(7)
    points = [
        Metric("m", rng.choice([1.0, 2.0, -3.0]), rng.randrange(4), rng.randrange(5)) for _ in range(60)
    ]
    expected = max(points, key=lambda p: (p.step, p.timestamp, p.value)).value
    for _ in range(3):
        rng.shuffle(points)
        run_id = await new_run(store)
        if many:
            await store.log_batch(run_id, points, [], [])
        else:
            for point in points:
                await store.log_metric(run_id, point)
        assert (await store.get_run(run_id)).data.metrics["m"] == expected


async def test_pages_of_a_history_are_the_history(store: MongoDBStore, run_id: str) -> None:
    rng = random.Random(3)
    for _ in range(4):
        batch = [
            Metric("m", rng.randrange(5), rng.randrange(300), rng.randrange(9)) for _ in range(BLOCK_FROM * 3)
        ]
        await store.log_batch(run_id, batch, [], [])
    for step in range(20):
        await store.log_metric(run_id, Metric("m", step, rng.randrange(300), step))
    whole = await history(store, run_id, "m")
    assert whole == sorted(set(whole))
    paged: list[Any] = []
    token = None
    while True:
        page = await store.get_metric_history(run_id, "m", 37, token)
        paged += [(m.timestamp, m.step, m.value) for m in page]
        token = page.token
        if not token:
            break
    assert paged == whole


async def test_concurrent_writers_of_new_and_full_metrics_lose_nothing(
    store: MongoDBStore, run_id: str
) -> None:
    before = TAIL_LIMIT - 4
    points = TAIL_LIMIT // WRITERS + 4  # a metric that all of them write fills its tail, and another
    for key in ("shared", "both"):
        await log_small_batches(store, run_id, key, range(1000, 1000 + before))

    async def writer(number: int) -> None:
        for step in range(points):
            await store.log_metric(run_id, Metric("shared", number, step, step))
            batch = [Metric(f"k{(number + step) % 7}", number, step, step) for _ in range(2)]
            await store.log_batch(run_id, [*batch, Metric("both", number, step, step)], [], [])

    await asyncio.gather(*(writer(number) for number in range(WRITERS)))
    assert len(await history(store, run_id, "shared")) == before + WRITERS * points
    assert len(await history(store, run_id, "both")) == before + WRITERS * points
    rest = [len(await history(store, run_id, f"k{key}")) for key in range(7)]
    assert sum(rest) == WRITERS * points


async def test_a_refused_batch_leaves_nothing(store: MongoDBStore, run_id: str) -> None:
    await store.log_param(run_id, Param("depth", "3"))
    with pytest.raises(MlflowException, match="Changing param values"):
        await store.log_batch(
            run_id, [Metric("m", 1, 1, 1)], [Param("new", "1"), Param("depth", "4")], [RunTag("t", "1")]
        )
    run = await store.get_run(run_id)
    assert run.data.params == {"depth": "3"}
    assert run.data.metrics == {}
    assert "t" not in run.data.tags


async def test_of_conflicting_params_one_wins(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    for attempt in range(50):
        outcomes = await asyncio.gather(
            *(store.log_param(run_id, Param(f"p{attempt}", str(value))) for value in range(4)),
            return_exceptions=True,
        )
        assert sum(outcome is None for outcome in outcomes) == 1
        refused = [outcome for outcome in outcomes if outcome is not None]
        assert all(isinstance(error, MlflowException) for error in refused)


async def almost_fill(store: MongoDBStore, run_id: str) -> None:
    """As often as the server's small cache is still full of what earlier tests wrote."""
    almost_full = {"$set": {"params.before": "x" * 14_000_000}}
    while True:
        try:
            await store.database.collection(RunFields).update_one({"_id": run_id}, almost_full)
            return
        except WriteError as error:
            if error.code != TOO_LARGE_FOR_CACHE:
                raise


async def test_params_too_large_for_a_document_are_refused_whole(store: MongoDBStore, run_id: str) -> None:
    value = "x" * 6000
    await store.log_param(run_id, Param("before", "1"))
    await almost_fill(store, run_id)

    async def fill() -> None:
        for batch in range(10):
            params = [Param(f"p{batch}_{index}", value) for index in range(100)]
            await store.log_batch(run_id, [Metric(f"m{batch}", 1, 1, 1)], params, [])

    with pytest.raises(MlflowException, match="16 MB") as refused:
        await fill()
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    run = await store.get_run(run_id)
    assert len(run.data.params) == 1 + 100 * len(run.data.metrics) > 1
    await store.log_metric(run_id, Metric("after", 1, 1, 1))


async def test_writes_to_a_deleted_run_are_refused(store: MongoDBStore, run_id: str) -> None:
    await store.log_batch(run_id, [Metric("a", 1, 1, 1), Metric("b", 1, 1, 1)], [], [])
    await store.delete_run(run_id)
    for write in (
        store.log_metric(run_id, Metric("a", 2, 2, 2)),
        store.log_metric(run_id, Metric("new", 2, 2, 2)),
        store.log_batch(run_id, [Metric("a", 2, 2, 2), Metric("b", 2, 2, 2)], [], []),
        store.log_param(run_id, Param("p", "1")),
        store.set_tag(run_id, RunTag("t", "1")),
    ):
        with pytest.raises(MlflowException, match="must be in the 'active' state") as refused:
            await write
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    await store.restore_run(run_id)
    await store.log_metric(run_id, Metric("a", 2, 2, 2))
    assert len(await history(store, run_id, "a")) == 2


async def test_deleting_while_metrics_are_logged_leaves_no_writable_head(store: MongoDBStore) -> None:
    for attempt in range(10):
        run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
        if attempt % 2:
            store._known_metrics = KnownMetrics()

        async def log(run_id: str = run_id) -> None:
            for step in range(30):
                await store.log_batch(
                    run_id, [Metric(f"m{step}", 1, 1, 1), Metric("x", step, step, step)], [], []
                )

        await asyncio.gather(log(), store.delete_run(run_id), return_exceptions=True)
        heads = store.database.collection(MetricHeadFields)
        assert await heads.count_documents({"run_uuid": run_id, "active": True}) == 0


async def test_everything_works_without_transactions(standalone: Mongod, database_name: str) -> None:
    store = MongoDBStore(standalone.database_uri(database_name), "/tmp/artifacts")
    try:
        run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
        assert not store.database.has_transactions
        await log_small_batches(store, run_id, "a", range(TAIL_LIMIT - 5))
        for step in range(TAIL_LIMIT - 5, TAIL_LIMIT + 5):
            await store.log_batch(
                run_id, [Metric("a", step, step, step), Metric("b", step, step, step)], [Param("p", "1")], []
            )
        assert len(await history(store, run_id, "a")) == TAIL_LIMIT + 5
        await store.delete_run(run_id)
        with pytest.raises(MlflowException, match="active"):
            await store.log_metric(run_id, Metric("a", 1, 1, 1))
        await store.restore_run(run_id)
        await store.log_metric(run_id, Metric("a", 1, 1, 1))
        await store.delete_experiment("0")
        with pytest.raises(MlflowException, match="active"):
            await store.log_metric(run_id, Metric("a", 1, 1, 1))
    finally:
        await store.close()
