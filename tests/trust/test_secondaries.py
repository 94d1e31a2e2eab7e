"""``readPreference``: searches and histories by a member that is behind, and what the client has seen."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, ViewType
from pymongo import monitoring

from genesis_flow.aio import MongoDBStore
from genesis_flow.mongo import following
from tests.contract.trace_scenes import span, stated, trace_id
from tests.mongod import Mongod, unique
from tests.trust.cluster import ReplicaSet

PATIENCE = 150


class Answered(monitoring.CommandListener):
    """The commands that were sent, with the port of the member that they were sent to."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.sent.append((event.connection_id[1], event.command_name, event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Only what is sent counts."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Only what is sent counts."""

    def members(self, *collections: str) -> set[int]:
        return {
            port
            for port, name, command in self.sent
            if name in ("find", "aggregate") and command[name] in collections
        }


answered = Answered()
monitoring.register(answered)


class Late:
    """A replica set of three, one of which can stop taking over what the others have."""

    def __init__(self, members: ReplicaSet) -> None:
        self.members = members
        self.primary = members.wait_for_primary()
        self.member = next(each for each in members.members if each is not self.primary)
        with pymongo.MongoClient(self.primary.uri) as client:
            config = client.admin.command("replSetGetConfig")["config"]
            for each in config["members"]:
                if each["host"].endswith(f":{self.member.port}"):
                    each.update(priority=0, tags={"use": "dashboards"})
            # The primary stays, although the machine stands still for seconds. Members that wait longer for
            # an election also wait longer for each other: with more, these tests are slow.
            config["settings"]["electionTimeoutMillis"] = 10_000
            config["version"] += 1
            client.admin.command({"replSetReconfig": config})

    def uri(self, name: str) -> str:
        uri = self.members.database_uri(name)
        return f"{uri}&readPreference=secondary&readPreferenceTags=use:dashboards"

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """The member takes nothing over meanwhile, from the next entry on."""
        _fail_point(self.member, "alwaysOn")
        try:
            yield
        finally:
            _fail_point(self.member, "off")


def _fail_point(member: Mongod, mode: str) -> None:
    with pymongo.MongoClient[Any](member.uri) as client:
        client.admin.command({"configureFailPoint": "rsSyncApplyStop", "mode": mode})
        if mode == "alwaysOn":
            client.admin.command(
                {"waitForFailPoint": "rsSyncApplyStop", "timesEntered": 1, "maxTimeMS": 30_000}
            )


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Late]:
    members = ReplicaSet(tmp_path_factory.mktemp("secondaries"))
    try:
        members.start()
        yield Late(members)
    finally:
        members.kill()


@pytest.fixture
async def store(late: Late, tmp_path: Path) -> AsyncIterator[MongoDBStore]:
    async with MongoDBStore(late.uri(unique("secondaries")), str(tmp_path)) as made:
        await made.get_experiment("0")
        yield made


async def _new_run(store: MongoDBStore) -> str:
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    await store.log_metric(run_id, Metric("loss", 1.0, 1, 1))
    return run_id


async def _found(store: MongoDBStore) -> list[str]:
    runs, _ = await store._search_runs(["0"], "", ViewType.ACTIVE_ONLY, 10, [], None)
    return [run.info.run_id for run in runs]


async def test_who_answers_what(late: Late, store: MongoDBStore) -> None:
    run_id = await _new_run(store)
    await store.start_trace(stated(trace_id(1)))
    await store.log_spans("0", [span(trace_id(1), 1)])
    answered.sent.clear()
    assert await _found(store) == [run_id]
    assert len(await store.get_metric_history(run_id, "loss")) == 1
    assert len((await store.search_traces(locations=["0"], filter_string="span.name = 'step'"))[0]) == 1
    await store.search_logged_models(["0"])
    places = ("runs", "latest_metrics", "traces", "spans", "logged_models")
    assert answered.members(*places) == {late.member.port}
    answered.sent.clear()
    await store.get_run(run_id)
    await store.get_trace(trace_id(1))
    assert answered.members(*places) == {late.primary.port}


async def test_a_client_sees_its_own_run_where_the_member_is_behind(late: Late, store: MongoDBStore) -> None:
    with late.stopped():
        run_id = await _new_run(store)
        answered.sent.clear()
        searching = asyncio.create_task(_found(store))
        async with asyncio.timeout(PATIENCE):
            while not answered.members("runs"):  # noqa: ASYNC110 - a driver's listener sets no event
                await asyncio.sleep(0.01)
        assert not searching.done()
    assert await searching == [run_id]
    assert answered.members("runs") == {late.member.port}
    history = await store.get_metric_history(run_id, "loss")
    assert [point.value for point in history] == [1.0]


async def test_the_primary_answers_for_a_member_that_is_late_too_long(
    late: Late, store: MongoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE_SECONDS", 0.5)
    with late.stopped():
        run_id = await _new_run(store)
        answered.sent.clear()
        assert await _found(store) == [run_id]
        assert late.primary.port in answered.members("runs")
        answered.sent.clear()
        assert len(await store.get_metric_history(run_id, "loss")) == 1
        assert answered.members("latest_metrics") == {late.primary.port}, "it is not asked again so soon"


async def test_what_another_client_writes_may_be_late_and_what_was_seen_stays(
    late: Late, store: MongoDBStore, tmp_path: Path
) -> None:
    first = await _new_run(store)
    assert await _found(store) == [first]
    async with MongoDBStore(late.members.database_uri(store.settings.database), str(tmp_path)) as other:
        await other.get_experiment("0")
        with late.stopped():
            second = await _new_run(other)
            assert await _found(store) == [first]
        assert set(await _found(other)) == {first, second}
