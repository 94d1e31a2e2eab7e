"""Wide steps: what is sent for one, where it waits, what becomes of it, and who sees it."""

import asyncio
import random
from typing import Any

import pytest
from mlflow.entities import Metric, Param, RunStatus, ViewType
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.metrics import places as metric_places
from genesis_flow.areas.metrics import wide
from genesis_flow.areas.metrics.documents import BLOCK_FROM, MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.places import PLACE, ROWS
from genesis_flow.areas.metrics.remembered import KnownMetrics, KnownPlace, KnownPlaces
from genesis_flow.areas.metrics.wide import WIDE_FROM, fold
from tests.areas.explain import profiled
from tests.commands import CommandRecorder

NAMES = [f"m{number}" for number in range(WIDE_FROM)]


def step(number: int, names: list[str] = NAMES) -> list[Metric]:
    return [Metric(name, number + index, 1_000 + number, number) for index, name in enumerate(names)]


async def new_run(store: MongoDBStore, start: int = 1) -> str:
    return str((await store.create_run("0", "me", start, [], "a run")).info.run_id)


async def log(store: MongoDBStore, run_id: str, steps: range, names: list[str] = NAMES) -> None:
    for number in steps:
        await store.log_batch(run_id, step(number, names), [], [])


async def steps_of(store: MongoDBStore, run_id: str, key: str = NAMES[1]) -> list[int]:
    return [metric.step for metric in await store.get_metric_history(run_id, key)]


async def places(store: MongoDBStore) -> list[dict[str, Any]]:
    return await store.database.everywhere(MetricHeadFields).find({"key": PLACE}).to_list()


async def check(store: MongoDBStore, run_id: str, steps: range) -> None:
    """Every reader sees all points of the steps once, and the last one as the latest."""
    latest = (await store.get_run(run_id)).data.metrics
    assert latest == {name: steps[-1] + index for index, name in enumerate(NAMES)}
    for name in (NAMES[0], NAMES[-1]):
        assert await steps_of(store, run_id, name) == list(steps)
    found, _ = await store._search_runs(
        ["0"], f"metrics.m1 >= {steps[-1] + 1}", ViewType.ALL, 9, ["metrics.m1"], None
    )
    assert {run.info.run_id: run.data.metrics for run in found}[run_id] == latest


async def test_a_wide_step_is_one_command(store: MongoDBStore, commands: CommandRecorder) -> None:
    run_id = await new_run(store)
    sent_by_step = []
    for number in range(4):
        with commands.recording() as sent:
            await store.log_batch(run_id, step(number), [], [])
        sent_by_step.append([name for name, _ in sent])
    assert sent_by_step == [
        ["findAndModify", "insert", "commitTransaction"],
        ["find", "findAndModify", "insert", "commitTransaction", "update"],
        ["update"],
        ["update"],
    ]
    await check(store, run_id, range(4))


async def test_another_store_looks_for_the_place_once(
    store: MongoDBStore, store_uri: str, commands: CommandRecorder
) -> None:
    run_id = await new_run(store)
    await log(store, run_id, range(3))
    async with MongoDBStore(store_uri) as other:
        await other.get_experiment("0")
        with commands.recording() as sent:
            await log(other, run_id, range(3, 5))
        assert [name for name, _ in sent] == ["find", "update", "update"]
        assert len(await places(store)) == 1
        await log(store, run_id, range(5, 7))
        await check(other, run_id, range(7))


async def test_few_metrics_and_params_go_the_old_way(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    await log(store, run_id, range(3), NAMES[: WIDE_FROM - 1])
    await store.log_batch(run_id, step(1), [Param("p", "1")], [])
    await store.log_batch(run_id, step(2), [Param("p", "1")], [])
    await store.log_batch(run_id, [Metric(NAMES[0], 1, 1, number) for number in range(300)], [], [])
    assert await places(store) == []


async def test_a_full_place_is_folded_into_blocks(store: MongoDBStore, commands: CommandRecorder) -> None:
    run_id = await new_run(store)
    await log(store, run_id, range(ROWS + 1))
    with commands.recording() as sent:
        await log(store, run_id, range(ROWS + 1, ROWS + 2))
    # It does not fit; then blocks before heads, of which some may settle, before the place is emptied.
    full, emptied = ["update", "update", "find", "find"], ["insert", "update", "find", "update"]
    assert [name for name, _ in sent] == [*full, *emptied, "update"]
    assert [command.get("insert") for _, command in sent if "insert" in command] == ["metrics"]
    await log(store, run_id, range(ROWS + 2, 2 * ROWS + 3))
    (place,) = await places(store)
    assert (len(place["rows"]), place["folded"]) == (2, 2)
    blocks = store.database.collection(MetricBlockFields)
    assert [block["n"] async for block in blocks.find({"_id": {"$regex": r"\|m1\|"}})] == [ROWS, ROWS]
    await check(store, run_id, range(2 * ROWS + 3))
    head = await store.database.collection(MetricHeadFields).find_one({"_id": f"{run_id}|m1"})
    assert head is not None
    assert (head["latest"]["step"], len(head["tail"]), head["packed"]) == (2 * ROWS, 1, 2)


async def test_few_rows_become_part_of_tails_that_are_packed_when_full(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    count, portion = 400, BLOCK_FROM - 4
    for first in range(0, count, portion):
        await log(store, run_id, range(first, min(first + portion, count)))
        await store._fold_wide_steps(run_id)
    assert await places(store) == []
    await check(store, run_id, range(count))
    async for head in store.database.collection(MetricHeadFields).find({"run_uuid": run_id}):
        assert len(head["tail"]) < 200
        assert head["packed"] > 0


async def test_the_end_of_a_run_folds_what_waits(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    await log(store, run_id, range(5))
    await store.update_run_info(run_id, RunStatus.RUNNING, None, "other name")
    assert len(await places(store)) == 1
    await store.update_run_info(run_id, RunStatus.FINISHED, 9, None)
    assert await places(store) == []
    await check(store, run_id, range(5))
    await log(store, run_id, range(5, 9))  # nobody forbids it
    await check(store, run_id, range(9))


async def test_the_end_of_other_runs_is_one_command(store: MongoDBStore, commands: CommandRecorder) -> None:
    run_id = await new_run(store)
    await store.log_batch(run_id, step(0), [], [])
    with commands.recording() as sent:
        await store.update_run_info(run_id, RunStatus.FINISHED, 9, None)
    assert [name for name, _ in sent] == ["findAndModify"]


async def test_folds_at_the_same_time_lose_and_double_nothing(store: MongoDBStore, store_uri: str) -> None:
    run_id = await new_run(store)
    await log(store, run_id, range(3))
    async with MongoDBStore(store_uri) as other:
        for first in range(3, 63, 10):
            (place,) = await places(store)
            await asyncio.gather(
                fold(store.database, place["_id"]),
                fold(other.database if first > 3 else store.database, place["_id"]),
                log(store, run_id, range(first, first + 5)),
                log(other, run_id, range(first + 5, first + 10)),
            )
            await check(other, run_id, range(first + 10))


async def test_readers_miss_no_point_on_its_way(
    store: MongoDBStore, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged before a reader asks is in its answer, while places are folded and removed."""
    monkeypatch.setattr(wide, "ROWS", 3)
    monkeypatch.setattr(metric_places, "BLOCK_FROM", 3)
    run_id = await new_run(store)
    await store.log_batch(run_id, step(0), [], [])
    acknowledged = 0

    async def write(other: MongoDBStore) -> None:
        nonlocal acknowledged
        for number in range(1, 120):
            await other.log_batch(run_id, step(number), [], [])
            acknowledged = number
            if number % 10 == 0:
                await other.update_run_info(run_id, RunStatus.FINISHED, 9, None)
        acknowledged = -1

    async def read(reads: str) -> None:
        while (before := acknowledged) >= 0:
            match reads:
                case "run":
                    seen = (await store.get_run(run_id)).data.metrics["m0"]
                case "history":
                    # Of later ones any: blocks are read after heads.
                    steps = await steps_of(store, run_id)
                    assert steps[: before + 1] == list(range(before + 1))
                    seen = steps[-1]
                case _:
                    found, _ = await store._search_runs(
                        ["0"], f"metrics.m0 >= {before}", ViewType.ALL, 5, ["metrics.m0"], None
                    )
                    seen = found[0].data.metrics["m0"]
            assert seen >= before

    async with MongoDBStore(store_uri) as other:
        await asyncio.gather(write(other), *map(read, ("run", "history", "search")))
    await check(store, run_id, range(120))


async def test_writers_at_once_share_a_place(
    store: MongoDBStore, store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wide, "ROWS", 7)
    run_id = await new_run(store)
    await store.log_batch(run_id, step(0), [], [])
    async with MongoDBStore(store_uri) as other:
        numbers = list(range(1, 100))
        random.Random(1).shuffle(numbers)
        await asyncio.gather(
            *(log((store, other)[number % 2], run_id, range(number, number + 1)) for number in numbers),
            *(
                store.log_metric(run_id, Metric("m1", number + 1, 1_000 + number, number))
                for number in range(100)
            ),
        )
        await check(other, run_id, range(100))


async def test_a_fold_that_was_cut_short_is_made_again(store: MongoDBStore) -> None:
    """Killed after the blocks, and after the heads: the next one finds the place as it was."""
    run_id = await new_run(store)
    await log(store, run_id, range(ROWS + 1))
    (place,) = await places(store)
    rows = place["rows"]
    assert len(rows) == ROWS
    await fold(store.database, place["_id"])
    heads = store.database.everywhere(MetricHeadFields)
    await heads.update_one({"_id": place["_id"]}, {"$set": {"rows": rows, "folded": 0}})
    await check(store, run_id, range(ROWS + 1))
    await log(store, run_id, range(ROWS + 1, ROWS + 3))
    await check(store, run_id, range(ROWS + 3))
    blocks = store.database.collection(MetricBlockFields)
    assert await blocks.count_documents({"_id": {"$regex": r"\|m1\|"}}) == 1


async def test_a_fold_of_an_erased_run_leaves_nothing(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    await log(store, run_id, range(ROWS + 1))
    (place,) = await places(store)
    await store.delete_run(run_id)
    await store._hard_delete_run(run_id)
    await fold(store.database, place["_id"])
    assert await store.database.collection(MetricBlockFields).count_documents({}) == 0
    assert await store.database.everywhere(MetricHeadFields).count_documents({}) == 0


@pytest.mark.parametrize("known", [True, False])
async def test_a_deleted_run_takes_no_step(store: MongoDBStore, known: bool) -> None:
    run_id = await new_run(store)
    await log(store, run_id, range(3))
    await store.delete_run(run_id)
    if not known:
        store._known_places, store._known_metrics = KnownPlaces(), KnownMetrics()
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        await log(store, run_id, range(3, 4))
    await store.restore_run(run_id)
    await check(store, run_id, range(3))
    await log(store, run_id, range(3, 5))
    await check(store, run_id, range(5))


async def test_a_step_that_rows_cannot_hold_is_refused_as_before(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    await log(store, run_id, range(3))
    with pytest.raises(MlflowException) as refused:
        await store.log_batch(run_id, [*step(3), Metric(NAMES[0], 1.0, 1, 2**64)], [], [])
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
    await check(store, run_id, range(3))


async def test_a_place_takes_more_metrics_until_it_has_enough(
    store: MongoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wide, "KEYS", WIDE_FROM + 5)
    run_id = await new_run(store)
    more = [f"n{number}" for number in range(WIDE_FROM)]
    for _ in range(2):
        await log(store, run_id, range(2), NAMES)
        await log(store, run_id, range(2), [*NAMES[3:], *more[:3]])
        await log(store, run_id, range(2), more)
    assert sorted(len(place["keys"]) for place in await places(store)) == [WIDE_FROM, WIDE_FROM + 3]
    for name in (*NAMES, *more):
        assert len(await steps_of(store, run_id, name)) in (2, 4)


async def test_searches_find_runs_with_waiting_steps_by_an_index(
    store: MongoDBStore,
) -> None:
    runs = [await new_run(store, start) for start in range(8)]
    for number, run_id in enumerate(runs):
        await log(store, run_id, range(number, number + 2))
        if number % 2:
            await store.update_run_info(run_id, RunStatus.FINISHED, 9, None)
    asked = (["0"], "metrics.m1 > 4", ViewType.ACTIVE_ONLY, 3, ["metrics.m1 DESC"])
    async with profiled(store.database) as queries:
        page, token = await store._search_runs(*asked, None)
    assert [run.info.run_id for run in page] == runs[:4:-1]
    page, token = await store._search_runs(*asked, token)
    assert ([run.info.run_id for run in page], token) == (runs[4:2:-1], None)
    assert queries[0].documents == 4
    # Of numbers that are NaN as well the server reads nothing, by a plan that would sort it.
    assert [
        query for query in queries if query.scans_collection or (query.blocking_sort and query.keys)
    ] == []
    assert "experiment_id: 1, key: 1" in queries[0].plan


async def test_places_come_first_by_an_index(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    await log(store, run_id, range(3))
    heads = store.database.everywhere(MetricHeadFields)
    pipeline = store._with_heads(run_id)[1]["$unionWith"]["pipeline"]
    assert [head["key"] async for head in await heads.aggregate(pipeline)] == [PLACE, *sorted(NAMES)]
    async with profiled(store.database) as queries:
        await (await heads.aggregate(pipeline)).to_list()
        await store.get_metric_history(run_id, "m1")
    assert [(query.plan, query.blocking_sort) for query in queries] == [("IXSCAN { _id: 1 }", False)] * 2
    assert (queries[1].returned, queries[1].documents) == (2, 2)


async def test_a_search_without_metrics_asks_for_no_places(
    store: MongoDBStore, commands: CommandRecorder
) -> None:
    run_id = await new_run(store)
    await log(store, run_id, range(3))
    with commands.recording() as sent:
        page, _ = await store._search_runs(["0"], "", ViewType.ALL, 5, [], None)
    assert page[0].data.metrics == (await store.get_run(run_id)).data.metrics
    assert not any(command.get("filter", {}).get("key") == PLACE for _, command in sent)


async def test_portable_stores_have_no_places(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENESIS_FLOW_PROFILE", "portable")
    async with MongoDBStore(store_uri) as store:
        run_id = await new_run(store)
        await log(store, run_id, range(4))
        assert await steps_of(store, run_id) == list(range(4))
        assert await store.database.everywhere(MetricHeadFields).count_documents({"key": PLACE}) == 0


def test_places_are_remembered_up_to_a_bound() -> None:
    known = KnownPlaces(size=10)
    for number in range(5):
        known.replace(f"run{number}", [KnownPlace(f"p{number}", {"a": 0, "b": 1, "c": 2})])
    assert len(known) <= 10
    assert known.having("run0", {"a": 1}.keys()) is None
    assert known.having("run4", {"a": 1, "c": 1}.keys()) == KnownPlace("p4", {"a": 0, "b": 1, "c": 2})
    assert known.having("run4", {"d": 1}.keys()) is None
    known.forget("run4")
    assert known.having("run4", {"a": 1}.keys()) is None
