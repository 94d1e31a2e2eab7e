"""Each point once: from the state, from the stream, and from where the two meet; behind every token, too."""

import asyncio
import random

from mlflow.entities import Metric, Param, RunStatus, RunTag

from genesis_flow.aio import MongoDBStore
from genesis_flow.watching import MetricLogged, RunChanged, RunCreated, RunDeleted, RunFound
from tests.watch.conftest import log, logs, new_run, points_of, stored, tags, until


async def test_first_what_there_is_and_then_what_changes(store: MongoDBStore) -> None:
    run_id = await new_run(store, "first")
    await store.log_batch(run_id, [Metric("loss", 0.5, 1, 0)], [Param("a.b", "1")], [RunTag("c.d", "2")])
    async with store.watch(experiment_ids=["0"]) as watch:
        found = await until(watch, logs("loss"))
        assert [type(event) for event in found] == [RunFound, MetricLogged]
        assert isinstance(found[0], RunFound)
        assert (found[0].name, found[0].status, found[0].params) == ("first", "RUNNING", {"a.b": "1"})
        assert found[0].tags["c.d"] == "2"
        await store.log_metric(run_id, Metric("loss", float("nan"), 2, 1))
        await store.log_batch(run_id, [], [Param("e", "3")], [RunTag("f", "4")])
        await store.delete_tag(run_id, "c.d")
        await store.update_run_info(run_id, RunStatus.FINISHED, 99, "renamed")
        other = await new_run(store, "second")
        await store.delete_run(other)
        await store.restore_run(other)
        await store.delete_run(other)
        await store._hard_delete_run(other)
        await store.log_batch(run_id, [Metric("last", 1.0, 1, 1)])
        events = await until(watch, logs("last"))
    shown = [event.to_json(with_token=False) for event in events]
    assert shown[0] == {
        "event": "metric_logged",
        "run_id": run_id,
        "key": "loss",
        "points": [[2, 1, "NaN"]],
    }
    params, tag, finished = (
        event for event in events if isinstance(event, RunChanged) and event.run_id == run_id
    )
    assert (params.params, params.tags, params.status) == ({"e": "3"}, {"f": "4"}, None)
    assert tag.removed_tags == ("c.d",)
    assert (finished.status, finished.end_time, finished.name) == ("FINISHED", 99, "renamed")
    of_other = [event for event in events if event.run_id == other]
    assert isinstance(of_other[0], RunCreated)
    assert [event.lifecycle_stage for event in of_other if isinstance(event, RunChanged)] == [
        "deleted",
        "active",
        "deleted",
    ]
    assert isinstance(of_other[-1], RunDeleted)


async def test_tails_that_are_packed_and_batches_of_many_points(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    await log(store, run_id, "long", range(100))
    watch = store.watch(run_ids=[run_id])
    begun = await until(watch, logs("long"))
    await log(store, run_id, "long", range(100, 300))
    for begin in (0, 1000, 1500):  # the second half of the second batch is that of the first
        many = [Metric("many", float(step), step, step) for step in range(begin, begin + 1000)]
        await store.log_batch(run_id, many)
    await log(store, run_id, "long", range(280, 320))  # some again
    await log(store, run_id, "last", [1])
    told = points_of(begun + await until(watch, logs("last")))
    expected = await stored(store, run_id, "long", "many", "last")
    assert set(told) == set(expected)
    assert {key: count for key, count in told.items() if key[1] == "long" and count > 1} == {}
    await watch.close()


async def test_a_watch_that_begins_while_others_log(store: MongoDBStore) -> None:
    """Watches begin at all moments; what the state has is not told again by the stream."""
    run_id = await new_run(store)
    keys = [f"metric {number}" for number in range(4)]

    async def write(key: str) -> None:
        draw = random.Random(key)
        step = 0
        while step < 400:
            size = draw.choice([1, 1, 1, 5, 40, 70])
            batch = [Metric(key, float(each), each, each) for each in range(step, step + size)]
            await store.log_batch(run_id, batch)
            step += size
        await store.set_tag(run_id, RunTag(key, "done"))

    async def watch(delay: float) -> None:
        await asyncio.sleep(delay)
        async with store.watch(experiment_ids=["0"]) as watching:
            events = await until(watching, logs("last"))
        told = points_of(events)
        assert told == await stored(store, run_id, *keys, "last")
        tags = [event.tags for event in events if isinstance(event, RunFound | RunChanged)]
        assert {key for each in tags for key in each} >= set(keys)

    watching = [asyncio.create_task(watch(number * 0.04)) for number in range(25)]
    await asyncio.gather(*map(write, keys))
    await asyncio.sleep(1)
    await log(store, run_id, "last", [1])
    await asyncio.gather(*watching)


async def test_behind_every_token_comes_what_came(store: MongoDBStore, store_uri: str) -> None:
    run_id = await new_run(store)
    await log(store, run_id, "before", range(130))
    await store.log_batch(run_id, [Metric("both", float(each), each, each) for each in range(70)])
    first = store.watch(experiment_ids=["0"])
    events = await until(first, logs("both"))
    await log(store, run_id, "before", range(130, 265))
    await store.log_batch(run_id, [Metric("both", float(each), each, each) for each in range(70, 150)])
    other = await new_run(store, "other")
    await store.log_batch(other, [Metric(f"m{each}", 1.0, 1, 1) for each in range(10)])
    await store.log_batch(other, [Metric(f"m{each}", 2.0, 2, 2) for each in range(10)], [Param("p", "1")])
    two = [Metric(key, float(each), each, each) for key in ("x", "y", "z") for each in range(70)]
    for more in (0, 1000):
        await store.log_batch(other, [Metric(each.key, each.value + more, 1, each.step) for each in two])
    await log(store, run_id, "last", [1])
    events += await until(first, logs("last"))
    await first.close()
    shown = [event.to_json(with_token=False) for event in events]
    for index, event in enumerate(events[:-1]):
        if index % 7 and 10 < index < len(events) - 30:
            continue
        async with MongoDBStore(store_uri) as again:
            watch = again.watch(experiment_ids=["0"], after=event.token)
            await watch.begin()
            await store.set_tag(run_id, RunTag("end", str(index)))
            came = await until(watch, tags("end", str(index)))
            came = [event for event in came if "end" not in getattr(event, "tags", {})]
            assert points_of(came) == points_of(events[index + 1 :]), index
            if index > 3:  # else it is told in another way what was there
                assert [each.to_json(with_token=False) for each in came] == shown[index + 1 :], index
            await watch.close()


async def test_a_run_that_comes_behind_its_metrics(store: MongoDBStore) -> None:
    """As an import may write it."""
    run_id = await new_run(store)
    await log(store, run_id, "long", range(300))
    watch = store.watch(experiment_ids=["0"])
    await until(watch, logs("long"))
    copy = "c" * 32
    for name, ids in (
        ("metrics", {"$regex": f"^{run_id}"}),
        ("latest_metrics", {"$regex": f"^{run_id}"}),
        ("runs", run_id),
    ):
        collection = store.database.client.get_database(store.settings.database)[name]
        async for document in collection.find({"_id": ids}):
            document["_id"] = document["_id"].replace(run_id, copy)
            if "run_uuid" in document:
                document["run_uuid"] = copy
            await collection.insert_one(document)
    await log(store, copy, "z last", [1])
    events = await until(watch, logs("z last"))
    assert isinstance(events[0], RunFound)
    assert points_of(events) == await stored(store, copy, "long", "z last")
    await watch.close()


async def test_from_now_on(store: MongoDBStore) -> None:
    run_id = await new_run(store)
    await log(store, run_id, "a", range(140))
    async with store.watch(run_ids=[run_id], start="now") as watch:
        await log(store, run_id, "a", range(140, 143))
        await log(store, run_id, "last", [1])
        events = await until(watch, logs("last"))
    assert [event.points[0].step for event in events if isinstance(event, MetricLogged)] == [140, 141, 142, 1]
