"""Those who make sums of traces, when others do so at once, or they die, or their experiment goes."""

import asyncio
import random
from typing import Any

import pytest
from pymongo.errors import PyMongoError

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.traces.sums import kept as kept_sums
from genesis_flow.areas.traces.sums.documents import TraceSumsFields
from tests.areas.test_kept_sums import COUNT, OF_EXPERIMENTS, compare, kept_count, question
from tests.areas.trace_writer import TraceWriter
from tests.contract.trace_scenes import stated, trace_id


async def test_sums_that_others_change_meanwhile_are_not_confirmed(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A maker finds them right; then the sums of a slower one, which began earlier, come in their place."""
    monkeypatch.setattr(kept_sums, "REFRESH_SECONDS", -2)
    for number in (1, 2):
        await store.start_trace(stated(trace_id(number)))
    days = store.database.collection(TraceSumsFields)
    await store.query_trace_metrics(*COUNT)
    slow = await days.find_one({"made": {"$exists": True}})
    assert slow is not None
    await store.delete_traces("0", trace_ids=[trace_id(1)])
    assert await kept_count(store) == 1
    confirm = kept_sums._Maker._confirm

    async def late(self: Any, current: Any) -> None:
        assert current
        await days.replace_one({"_id": slow["_id"]}, slow)
        await confirm(self, current)

    with monkeypatch.context() as patch:
        patch.setattr(kept_sums._Maker, "_confirm", late)
        await store.query_trace_metrics(*COUNT)
    assert await days.distinct("made") == [slow["made"]]
    assert await kept_count(store) == 1


@pytest.mark.parametrize("moment", ["_confirm", "_keep"])
async def test_a_maker_leaves_nothing_of_an_experiment_that_goes(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Deleted with all that is its own while somebody makes sums of it."""
    number = await store.create_experiment("short", None, [])
    await store.start_trace(stated(trace_id(1), number))
    method, gone = getattr(kept_sums._Maker, moment), list[str]()

    async def and_then_it_goes(self: Any, *args: Any) -> None:
        if not gone:
            gone.append(number)
            await store.delete_experiment(number)
            await store._hard_delete_experiment(number)
        await method(self, *args)

    monkeypatch.setattr(kept_sums._Maker, moment, and_then_it_goes)
    await store.query_trace_metrics([number], *COUNT[1:])
    assert gone
    assert await store.database.collection(TraceSumsFields).count_documents(OF_EXPERIMENTS) == 0


async def test_a_maker_that_others_overtake(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums are made while a trace goes and others make sums; then the first maker wants to go on."""
    for number in (1, 2):
        await store.start_trace(stated(trace_id(number)))
    tally = kept_sums._Maker._tally
    begun, newer = asyncio.Event(), list[Any]()

    async def slowly(self: Any, *args: Any) -> None:
        await tally(self, *args)
        if not begun.is_set():
            begun.set()
            await store.delete_traces("0", trace_ids=[trace_id(1)])
            assert await kept_count(store) == 1
            newer.append(await made())

    async def made() -> Any:
        return await store.database.collection(TraceSumsFields).distinct("made")

    monkeypatch.setattr(kept_sums._Maker, "_tally", slowly)
    await store.query_trace_metrics(*COUNT)
    # The sums of the first to begin are there last, and nobody takes them for more than they are.
    assert len(newer) == 1
    assert await made() < newer[0]
    assert await kept_count(store) == 1
    assert await made() > newer[0]


@pytest.mark.parametrize("stage", ["_begin", "_confirm", "_tally", "_keep", "_go_on"])
async def test_a_maker_that_dies_leaves_nothing_wrong(
    store: MongoDBStore, keen: None, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    dice = random.Random(5)
    await store.create_experiment("second", None, [])
    writer = TraceWriter(store, dice)
    for _ in range(15):
        await writer.step()
    questions = [question(dice) for _ in range(6)]
    method, deaths = getattr(kept_sums._Maker, stage), []

    async def last(self: Any, *args: Any) -> Any:
        found = await method(self, *args)
        if dice.random() < 0.7:
            deaths.append(stage)
            raise PyMongoError("killed")
        return found

    for asked in questions * 2:
        await compare(store, asked)
    monkeypatch.setattr(kept_sums._Maker, stage, last)
    for _ in range(10):
        await writer.step()
        for asked in dice.sample(questions, 2):
            await compare(store, asked)
    assert deaths
