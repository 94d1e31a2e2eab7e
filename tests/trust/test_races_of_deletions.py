"""Deletions while others restore and write: one comes first, and nothing is left without its parent.

Where a race can be played at one exact moment it is: one side does all of its work before a certain command
of the other. A bounded number of rounds in which chance decides follows.
"""

import asyncio
import random
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import pymongo
import pytest
from mlflow.entities import Feedback, Metric, Param, ViewType
from mlflow.exceptions import MlflowException
from pymongo.database import Database

from genesis_flow import MongoDBStore as BlockingStore
from genesis_flow.aio import MongoDBStore
from genesis_flow.cli.doctor.consistency import inconsistencies
from tests.contract.trace_scenes import STARTED, span, stated
from tests.emptied import EmptiedDatabase
from tests.faults import failing
from tests.interruption import interrupted
from tests.mongod import Mongod
from tests.trust.soak import amount

ROUNDS = amount(25, 300)
LONG_CONTENT = "x" * 2_000_000
UNAUTHORIZED = 13
Raw = Database[dict[str, Any]]


class Two:
    """A store whose calls are interrupted, one that interrupts them, and the bare database."""

    def __init__(self, uri: str, raw: Raw) -> None:
        self.store = MongoDBStore(uri)
        # Another client, so that they share no lock in the process.
        self.other = BlockingStore(f"{uri}&appName=other")
        self.raw = raw

    def failing(self, command: str, collection: str) -> AbstractContextManager[None]:
        """Such a command of the first store fails for good, as if the process were killed before it."""
        uri, name = self.store.settings.store_uri, f"{self.raw.name}.{collection}"
        return failing(uri, command, namespace=name, errorCode=UNAUTHORIZED)

    async def new_run(self, experiment_id: str = "0") -> str:
        return str((await self.store.create_run(experiment_id, "me", 1, [], None)).info.run_id)

    async def new_trace(self, experiment_id: str = "0") -> str:
        trace_id = f"tr-{uuid.uuid4().hex}"
        await self.store.log_spans(experiment_id, [span(trace_id, 1)])
        await self.store.start_trace(stated(trace_id, experiment_id))
        return trace_id

    async def orphans(self) -> list[tuple[str, str]]:
        return [(each.collection, each.id) async for each in inconsistencies(self.store.database)]

    def children(self, parent: str) -> dict[str, int]:
        """What is left of a run or trace, by collection."""
        counted = {
            name: self.raw[name].count_documents({"_id": {"$gte": f"{parent}|", "$lt": parent + "}"}})
            for name in ("latest_metrics", "metrics", "logged_model_metrics", "spans", "span_payloads")
        }
        counted["assessments"] = self.raw.assessments.count_documents({"trace_id": parent})
        return {name: count for name, count in counted.items() if count}


@pytest.fixture(scope="module")
def emptied_standalone(standalone: Mongod) -> Iterator[EmptiedDatabase]:
    made = EmptiedDatabase(standalone)
    yield made
    made.close()


@asynccontextmanager
async def two_on(database: EmptiedDatabase) -> AsyncIterator[Two]:
    uri = await database.uri()
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        made = Two(uri, client.get_default_database())
        await made.store.open()
        try:
            yield made
        finally:
            await made.store.close()
            made.other.close()
            database.give_back()


@pytest.fixture(params=["emptied", "emptied_standalone"])
async def two(request: pytest.FixtureRequest) -> AsyncIterator[Two]:
    """On a replica set and on a standalone server; each has one database, emptied between the tests."""
    async with two_on(request.getfixturevalue(request.param)) as made:
        yield made


async def outcome(call: Any) -> MlflowException | None:
    try:
        await call
    except MlflowException as error:
        return error
    return None


async def experiment_with_runs(two: Two, name: str, runs: int = 3) -> tuple[str, list[str]]:
    experiment_id = await two.store.create_experiment(name)
    made = [await two.new_run(experiment_id) for _ in range(runs)]
    for run_id in made:
        await two.store.log_metric(run_id, Metric("m", 1, 1, 1))
    return experiment_id, made


# Experiments: for good, and restored.


@pytest.mark.parametrize(
    "moment", [("delete", "latest_metrics", 0), ("delete", "runs", 1), ("delete", "experiments", 0)]
)
async def test_an_experiment_that_is_being_deleted_for_good_cannot_be_restored(
    two: Two, moment: tuple[str, str, int]
) -> None:
    experiment_id, runs = await experiment_with_runs(two, "gone")
    await two.store.delete_experiment(experiment_id)
    command, collection, skip = moment
    with interrupted(
        command, collection, lambda: two.other.restore_experiment(experiment_id), skip=skip
    ) as restored:
        await two.store._hard_delete_experiment(experiment_id)
    assert isinstance(restored.error, MlflowException)
    assert restored.error.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert two.raw.experiments.count_documents({"name": "gone"}) == 0
    assert two.raw.runs.count_documents({}) == 0
    assert [two.children(run_id) for run_id in runs] == [{}] * len(runs)


async def test_an_experiment_that_was_restored_is_not_deleted_for_good(two: Two) -> None:
    experiment_id, runs = await experiment_with_runs(two, "back")
    await two.store.delete_experiment(experiment_id)
    with interrupted(
        "update", "experiments", lambda: two.other.restore_experiment(experiment_id)
    ) as restored:
        refusal = await outcome(two.store._hard_delete_experiment(experiment_id))
    assert restored.error is None
    assert refusal is not None
    assert refusal.error_code == "RESOURCE_DOES_NOT_EXIST"
    found = await two.store.search_runs([experiment_id], "", ViewType.ACTIVE_ONLY, 100)
    assert sorted(run.info.run_id for run in found) == sorted(runs)


async def test_a_killed_deletion_for_good_is_finished_by_the_next(two: Two) -> None:
    experiment_id, runs = await experiment_with_runs(two, "killed")
    await two.store.delete_experiment(experiment_id)

    with two.failing("delete", "experiments"), pytest.raises(MlflowException):
        await two.store._hard_delete_experiment(experiment_id)
    assert two.raw.experiments.count_documents({"name": "killed"}) == 1
    with pytest.raises(MlflowException):
        await two.store.restore_experiment(experiment_id)
    await two.store._hard_delete_experiment(experiment_id)
    assert two.raw.experiments.count_documents({"name": "killed"}) == 0
    assert two.raw.runs.count_documents({}) == 0
    assert [two.children(run_id) for run_id in runs] == [{}] * len(runs)


@pytest.mark.parametrize("first", ["delete_experiment", "restore_experiment"])
async def test_of_deleting_and_restoring_an_experiment_the_last_has_all_runs(two: Two, first: str) -> None:
    """The first is overtaken before it moves the runs."""
    experiment_id, runs = await experiment_with_runs(two, "to and fro")
    second = "restore_experiment"
    if first == "restore_experiment":
        second = "delete_experiment"
        await two.store.delete_experiment(experiment_id)
    with interrupted("update", "runs", lambda: getattr(two.other, second)(experiment_id)) as overtaking:
        await getattr(two.store, first)(experiment_id)
    assert overtaking.error is None
    experiment = await two.store.get_experiment(experiment_id)
    found = await two.store.search_runs([experiment_id], "", ViewType.ALL, 100)
    assert len(found) == len(runs)
    assert {run.info.lifecycle_stage for run in found} == {experiment.lifecycle_stage}


# Runs in deleted experiments.


async def test_a_run_made_while_its_experiment_is_deleted(two: Two) -> None:
    experiment_id = await two.store.create_experiment("deleted meanwhile")
    with interrupted("insert", "runs", lambda: two.other.delete_experiment(experiment_id)) as deletion:
        refusal = await outcome(two.store.create_run(experiment_id, "me", 1, [], None))
    assert deletion.error is None
    assert refusal is not None
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    assert two.raw.runs.count_documents({"lifecycle_stage": "active"}) == 0


async def test_a_run_made_after_its_experiment_was_deleted_by_others(two: Two) -> None:
    """The store has made runs in it before, and may remember it."""
    experiment_id = await two.store.create_experiment("deleted before")
    await two.new_run(experiment_id)
    two.other.delete_experiment(experiment_id)
    refusal = await outcome(two.store.create_run(experiment_id, "me", 1, [], None))
    assert refusal is not None
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    assert two.raw.runs.count_documents({"lifecycle_stage": "active"}) == 0
    two.other.restore_experiment(experiment_id)
    await two.new_run(experiment_id)
    assert two.raw.runs.count_documents({"lifecycle_stage": "active"}) == 2


async def test_a_run_restored_while_its_experiment_is_deleted(two: Two) -> None:
    experiment_id = await two.store.create_experiment("deleted meanwhile")
    run_id = await two.new_run(experiment_id)
    await two.store.log_metric(run_id, Metric("m", 1, 1, 1))
    await two.store.delete_run(run_id)
    with interrupted("find", "runs", lambda: two.other.delete_experiment(experiment_id)):
        refusal = await outcome(two.store.restore_run(run_id))
    assert refusal is not None
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    assert two.raw.runs.count_documents({"lifecycle_stage": "active"}) == 0
    assert two.raw.latest_metrics.count_documents({"active": True}) == 0


# Runs: for good, restored and written.


async def test_a_run_that_was_restored_is_not_deleted_for_good(two: Two) -> None:
    run_id = await two.new_run()
    await two.store.delete_run(run_id)
    with interrupted("delete", "latest_metrics", lambda: two.other.restore_run(run_id)) as restored:
        await two.store._hard_delete_run(run_id)
    assert isinstance(restored.error, MlflowException)
    assert restored.error.error_code == "RESOURCE_DOES_NOT_EXIST"
    await two.store.delete_run(run_id := await two.new_run())
    with interrupted("update", "runs", lambda: two.other.restore_run(run_id)) as restored:
        refusal = await outcome(two.store._hard_delete_run(run_id))
    assert restored.error is None
    assert refusal is not None
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    await two.store.log_metric(run_id, Metric("m", 1, 1, 1))


def many(key: str) -> list[Metric]:
    """Enough for a block."""
    return [Metric(key, step, 1, step) for step in range(80)]


async def test_a_run_is_written_while_it_is_deleted_for_good(two: Two) -> None:
    """The owner restores it and goes on logging in the middle of the deletion."""
    run_id = await two.new_run()
    await two.store.log_batch(run_id, [*many("known"), Metric("one", 1, 1, 1)], [], [])
    await two.store.delete_run(run_id)

    def restore_and_log() -> None:
        two.other.restore_run(run_id)
        two.other.log_batch(run_id, many("new"), [Param("p", "1")], [])

    with interrupted("delete", "runs", restore_and_log) as restored:
        await two.store._hard_delete_run(run_id)
    assert isinstance(restored.error, MlflowException)
    assert two.raw.runs.count_documents({"_id": run_id}) == 0
    assert two.children(run_id) == {}


MOMENTS = {
    "before a block of a known metric": ("update", "metrics"),
    "before the points of known metrics": ("update", "latest_metrics"),
    "before new metrics": ("insert", "latest_metrics"),
}


@pytest.mark.parametrize("moment", MOMENTS)
async def test_a_run_is_deleted_for_good_while_it_is_written(
    emptied_standalone: EmptiedDatabase, moment: str
) -> None:
    """Without transactions; with them the deletion waits for the batch, or the batch is refused whole."""
    async with two_on(emptied_standalone) as two:
        run_id = await two.new_run()
        await two.store.log_batch(run_id, [*many("known"), Metric("one", 1, 1, 1)], [], [])

        def delete() -> None:
            two.other.delete_run(run_id)
            two.other._hard_delete_run(run_id)

        batch = [*many("known"), Metric("one", 2, 2, 2)]
        if moment == "before new metrics":
            batch += many("new")
        with interrupted(*MOMENTS[moment], delete) as deletion:
            refusal = await outcome(two.store.log_batch(run_id, batch, [], []))
        assert deletion.error is None
        assert refusal is not None
        assert refusal.error_code == "RESOURCE_DOES_NOT_EXIST"
        assert two.children(run_id) == {}


async def test_a_tail_is_packed_while_its_run_is_deleted_for_good(two: Two) -> None:
    run_id = await two.new_run()
    for step in range(128):
        await two.store.log_metric(run_id, Metric("m", step, step, step))

    def delete() -> None:
        two.other.delete_run(run_id)
        two.other._hard_delete_run(run_id)

    with interrupted("update", "metrics", delete) as deletion:
        await two.store.log_metric(run_id, Metric("m", 128, 128, 128))
    assert deletion.error is None
    assert two.children(run_id) == {}


# Traces.


@pytest.mark.parametrize("moment", ["spans", "assessments", "traces"])
async def test_spans_come_while_their_trace_is_deleted(two: Two, moment: str) -> None:
    trace_id = await two.new_trace()
    late = [span(trace_id, 2, 1), span(trace_id, 3, 1, attributes={"long": LONG_CONTENT})]
    with interrupted("delete", moment, lambda: two.other.log_spans("0", late)) as logged:
        assert await two.store.delete_traces("0", trace_ids=[trace_id]) == 1
    assert isinstance(logged.error, MlflowException)
    assert logged.error.error_code == "TEMPORARILY_UNAVAILABLE"
    assert trace_id in logged.error.message
    assert two.children(trace_id) == {}
    assert two.raw.traces.count_documents({}) == 0
    two.other.log_spans("0", late)
    assert two.children(trace_id) == {"spans": 2, "span_payloads": two.raw.span_payloads.count_documents({})}


async def test_spans_wait_for_a_deletion_that_ends(two: Two) -> None:
    """A deletion takes moments: whoever logs meanwhile is not bothered with it, and starts the trace anew."""
    trace_id = await two.new_trace()
    writers: list[threading.Thread] = []
    errors: list[Exception] = []

    def log() -> None:
        try:
            two.other.log_spans("0", [span(trace_id, 2)])
        except Exception as error:
            errors.append(error)

    def begin() -> None:
        writers.append(threading.Thread(target=log))
        writers[0].start()
        writers[0].join(0.2)  # it finds the trace being deleted

    with interrupted("delete", "spans", begin):
        assert await two.store.delete_traces("0", trace_ids=[trace_id]) == 1
    await asyncio.to_thread(writers[0].join, 150)
    assert not writers[0].is_alive()
    assert errors == []
    assert [each.name for each in (await two.store.get_trace(trace_id)).data.spans] == [
        span(trace_id, 2).name
    ]
    assert await two.orphans() == []


@pytest.mark.parametrize("content", ["", LONG_CONTENT])
@pytest.mark.parametrize("known", [True, False])
async def test_a_trace_is_deleted_while_its_spans_come(two: Two, known: bool, content: str) -> None:
    """Behind the insertion of the spans; they start the trace anew, as in MLflow's SQL store."""
    trace_id = await two.new_trace()
    late = [span(trace_id, 2, attributes={"text": content})]
    store = two.store if known else MongoDBStore(two.store.settings.store_uri + "&appName=third")
    with interrupted(
        "findAndModify", "traces", lambda: two.other.delete_traces("0", trace_ids=[trace_id])
    ) as deletion:
        await store.log_spans("0", late)
    assert (deletion.error, deletion.result) == (None, 1)
    assert len((await two.store.get_trace(trace_id)).data.spans) == 1
    assert await two.orphans() == []
    if not known:
        await store.close()


@pytest.mark.parametrize("moment", ["spans", "traces"])
async def test_assessments_come_while_their_trace_is_deleted(two: Two, moment: str) -> None:
    trace_id = await two.new_trace()
    feedback = Feedback(name="f", value=1, trace_id=trace_id)
    with interrupted("delete", moment, lambda: two.other.create_assessment(feedback)) as judged:
        await two.store.delete_traces("0", trace_ids=[trace_id])
    assert isinstance(judged.error, MlflowException)
    assert judged.error.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert two.children(trace_id) == {}


async def test_a_trace_is_deleted_while_it_is_judged(two: Two) -> None:
    trace_id = await two.new_trace()
    delete = lambda: two.other.delete_traces("0", trace_ids=[trace_id])  # noqa: E731
    with interrupted("insert", "assessments", delete) as deletion:
        refusal = await outcome(two.store.create_assessment(Feedback(name="f", value=1, trace_id=trace_id)))
    assert (deletion.error, deletion.result) == (None, 1)
    assert refusal is not None
    assert two.children(trace_id) == {}


async def test_a_trace_is_deleted_while_it_starts_with_assessments(two: Two) -> None:
    trace_id = f"tr-{uuid.uuid4().hex}"
    given = stated(trace_id, assessments=[Feedback(name="f", value=1, trace_id=trace_id)])
    delete = lambda: two.other.delete_traces("0", trace_ids=[trace_id])  # noqa: E731
    with interrupted("update", "assessments", delete) as deletion:
        await two.store.start_trace(given)
    assert (deletion.error, deletion.result) == (None, 1)
    assert two.raw.traces.count_documents({}) == 0
    assert two.children(trace_id) == {}


async def test_a_trace_starts_while_it_is_deleted(two: Two) -> None:
    trace_id = await two.new_trace()
    with interrupted("delete", "spans", lambda: two.other.start_trace(stated(trace_id))) as started:
        await two.store.delete_traces("0", trace_ids=[trace_id])
    assert isinstance(started.error, MlflowException)
    assert started.error.error_code == "TEMPORARILY_UNAVAILABLE"
    assert two.raw.traces.count_documents({}) == 0


@pytest.mark.parametrize("moment", ["span_payloads", "spans", "traces"])
async def test_a_killed_deletion_of_traces_shows_none_and_is_finished_by_the_next(
    two: Two, moment: str
) -> None:
    trace_id, kept = await two.new_trace(), await two.new_trace()

    with two.failing("delete", moment), pytest.raises(MlflowException):
        await two.store.delete_traces("0", trace_ids=[trace_id])
    found = two.other.search_traces(locations=["0"])[0]
    assert [trace.trace_id for trace in found] == [kept]
    assert await two.store.delete_traces("0", max_timestamp_millis=STARTED + 1) == 2
    assert two.children(trace_id) == {}
    assert two.raw.traces.count_documents({}) == 0


async def test_two_deletions_of_the_same_traces(two: Two) -> None:
    trace_ids = [await two.new_trace() for _ in range(3)]
    with interrupted("delete", "spans", lambda: two.other.delete_traces("0", trace_ids=trace_ids)) as other:
        first = await two.store.delete_traces("0", trace_ids=trace_ids)
    assert other.error is None
    assert first + other.result == len(trace_ids)
    assert two.raw.traces.count_documents({}) == 0
    assert await two.orphans() == []


# By chance.


async def test_rounds_of_deletions_against_writes(two: Two) -> None:
    """All at once, in any order: at the end nothing is without its parent, and what is answered is true."""
    dice = random.Random(14)
    store = two.store
    third = MongoDBStore(f"{store.settings.store_uri}&appName=third")
    for number in range(ROUNDS):
        experiment_id, (run_id,) = await experiment_with_runs(two, f"e{number}", 1)
        trace_id = await two.new_trace(experiment_id)
        await store.delete_experiment(experiment_id)
        feedback = Feedback(name="f", value=1, trace_id=trace_id)
        calls = {
            "gc": store._hard_delete_experiment(experiment_id),
            "gc of the run": store._hard_delete_run(run_id),
            "restore": third.restore_experiment(experiment_id),
            "restore the run": third.restore_run(run_id),
            "batch": third.log_batch(run_id, [*many("m"), *many("n")], [Param("p", "1")], []),
            "new run": third.create_run(experiment_id, "me", 1, [], None),
            "traces": store.delete_traces(experiment_id, trace_ids=[trace_id]),
            "spans": third.log_spans(experiment_id, [span(trace_id, 2, 1)]),
            "assessment": third.create_assessment(feedback),
        }
        order = dice.sample(list(calls), len(calls))
        results = dict(
            zip(order, await asyncio.gather(*(outcome(calls[name]) for name in order)), strict=True)
        )
        if results["restore"] is None:
            assert results["gc"] is not None, "both said ok"
            assert (await store.get_experiment(experiment_id)).lifecycle_stage == "active"
        if results["gc"] is None:
            assert two.raw.experiments.count_documents({"_id": int(experiment_id)}) == 0
            assert two.raw.runs.count_documents({"experiment_id": int(experiment_id)}) == 0
        if results["gc of the run"] is None:
            assert two.raw.runs.count_documents({"_id": run_id}) == 0
        assert await two.orphans() == [], results
    await third.close()


async def test_rounds_of_runs_against_the_deletion_of_their_experiment(two: Two) -> None:
    third = MongoDBStore(f"{two.store.settings.store_uri}&appName=third")
    for number in range(ROUNDS):
        experiment_id, (run_id,) = await experiment_with_runs(two, f"e{number}", 1)
        await two.store.delete_run(run_id)
        deletion, *_ = await asyncio.gather(
            outcome(two.store.delete_experiment(experiment_id)),
            *(outcome(third.create_run(experiment_id, "me", 1, [], None)) for _ in range(3)),
            outcome(third.restore_run(run_id)),
        )
        assert deletion is None
        active = {"experiment_id": int(experiment_id), "lifecycle_stage": "active"}
        assert two.raw.runs.count_documents(active) == 0
    await third.close()
