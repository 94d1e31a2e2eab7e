"""A network that neither carries what is sent nor says so costs a call a share of its time, not all."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.embedded import EmbeddedUnavailable
from genesis_flow.mongo import operation, patience
from tests.commands import CommandRecorder
from tests.faults import failing
from tests.mongod import Mongod
from tests.trust.proxy import Command, FaultyProxy, Silence, faulty_proxy
from tests.trust.tour import World, WorldOfThreads

# What a call gives the network before it sends again, and what it has in all: it fails where it does not.
SHARE = 2
TIMEOUT = 60
# Only so that a call that hangs ends the test.
HANGS = 120
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(params=["replica set", "standalone"])
def proxy(request: pytest.FixtureRequest) -> Iterator[FaultyProxy]:
    server: Mongod = request.getfixturevalue("mongod" if request.param == "replica set" else "standalone")
    with faulty_proxy(server.port) as running:
        yield running


@pytest.fixture(params=[World, WorldOfThreads], ids=["on the loop", "in threads"])
async def world(
    request: pytest.FixtureRequest, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    # A slow machine may need longer for the collections than the calls of these tests have.
    async with MongoDBStore(f"mongodb://127.0.0.1:{proxy.upstream}/{name}?directConnection=true") as store:
        await store.get_experiment("0")
    monkeypatch.setattr(patience, "SHARE_SECONDS", SHARE)
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", str(TIMEOUT))
    made: World = request.param(proxy.database_uri(name), str(tmp_path / "artifacts"))
    yield made
    proxy.arm()
    await made.close()
    with pymongo.MongoClient(port=proxy.upstream, directConnection=True) as client:
        client.drop_database(name)


def the_first(command: Command) -> bool:
    return command.number == 0


@pytest.mark.parametrize(
    ("lost", "silence"),
    [
        ("request", Silence.NOTHING),
        ("reply", Silence.NOTHING),
        ("reply", Silence.HALF_A_REPLY),
    ],
    ids=["the request", "the reply", "half of the reply"],
)
async def test_a_command_that_is_swallowed_is_sent_again(
    world: World, proxy: FaultyProxy, lost: str, silence: Silence
) -> None:
    store = world.store
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    await store.log_metric(run_id, Metric("m", 0, 0, 0))
    for call in (
        lambda: store.log_metric(run_id, Metric("m", 1, 1, 1)),
        lambda: store.log_batch(run_id, [Metric("n", 1, 1, 1)], [Param("p", "1")], [RunTag("t", "v")]),
        lambda: store.create_run("0", "me", 2, [], "second"),
        lambda: store.search_runs(["0"], "", 1, 10),
    ):
        proxy.arm(**{f"{lost}_lost": the_first}, silent=silence)
        await asyncio.wait_for(call(), HANGS)
        assert len(proxy.lost) == 1
    proxy.arm()
    run = await store.get_run(run_id)
    assert run.data.metrics == {"m": 1, "n": 1}
    assert (run.data.params, run.data.tags["t"]) == ({"p": "1"}, "v")
    assert [metric.step for metric in await store.get_metric_history(run_id, "m")] == [0, 1]
    assert len(await store.search_runs(["0"], "", 1, 10)) == 2


async def test_calls_that_are_joined_are_sent_again(world: World, proxy: FaultyProxy) -> None:
    """Those of a command that many callers share."""
    store = world.store
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    await store.log_metric(run_id, Metric("m", 0, 0, 0))
    proxy.arm(reply_lost=the_first, silent=Silence.NOTHING)
    await asyncio.wait_for(
        asyncio.gather(*(store.log_metric(run_id, Metric("m", step, step, step)) for step in range(1, 20))),
        HANGS,
    )
    assert proxy.lost == ["update"]
    assert len(await store.get_metric_history(run_id, "m")) == 20


async def test_a_version_whose_reply_is_swallowed_is_made_once(world: World, proxy: FaultyProxy) -> None:
    """Although somebody else makes the next one meanwhile."""
    await world.registry.create_registered_model("model")
    lost = asyncio.Event()
    loop = asyncio.get_running_loop()

    def the_first_insert(command: Command) -> bool:
        if command.name != "insert" or lost.is_set():
            return False
        loop.call_soon_threadsafe(lost.set)
        return True

    proxy.arm(reply_lost=the_first_insert, silent=Silence.NOTHING)
    slow = asyncio.create_task(world.registry.create_model_version("model", "s3://slow"))
    await asyncio.wait_for(lost.wait(), HANGS)
    direct = world.uri.replace(str(proxy.port), str(proxy.upstream))
    async with MongoDBModelRegistryStore(direct) as another:
        second = await another.create_model_version("model", "s3://meanwhile")
        first = await asyncio.wait_for(slow, HANGS)
        found = await another.search_model_versions("name = 'model'")
    assert (int(first.version), int(second.version)) == (1, 2)
    assert {(int(version.version), version.source) for version in found} == {
        (1, "s3://slow"),
        (2, "s3://meanwhile"),
    }


async def test_connections_that_a_firewall_has_forgotten_are_left(
    mongod: Mongod, tmp_path: Path, database_name: str
) -> None:
    """All at once, those that watch the server among them; only new ones get through."""
    with faulty_proxy(mongod.port) as proxy:
        world = World(proxy.database_uri(database_name), str(tmp_path))
        runs = await asyncio.gather(
            *(world.store.create_run("0", "me", number, [], None) for number in range(8))
        )
        with proxy.dead():
            calls = [
                asyncio.create_task(world.store.log_param(run.info.run_id, Param("p", str(number))))
                for number, run in enumerate(runs)
            ]
            await asyncio.sleep(3)
        await asyncio.wait_for(asyncio.gather(*calls), HANGS * 2)
        for number, run in enumerate(runs):
            assert (await world.store.get_run(run.info.run_id)).data.params == {"p": str(number)}
        await world.close()
    with pymongo.MongoClient(mongod.uri) as client:
        client.drop_database(database_name)


@pytest.mark.parametrize("kind", [World, WorldOfThreads], ids=["on the loop", "in threads"])
async def test_a_command_at_which_the_server_works_is_not_begun_anew_for_ever(
    mongod: Mongod,
    store_uri: str,
    tmp_path: Path,
    kind: type[World],
    commands: CommandRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is cut twice, whoever makes its attempts. Then it has the rest of the time; and later calls of its
    kind are not cut."""
    monkeypatch.setattr(patience, "SHARE_SECONDS", 3)
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", str(TIMEOUT))
    world = kind(store_uri, str(tmp_path))
    store: Any = world.store
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    await store.set_tag(run_id, RunTag("t", "quick"))
    delay = {"blockConnection": True, "blockTimeMS": 4000}
    with failing(mongod.uri, "update", **delay):
        for value, sent in (("first", 3), ("second", 1)):
            with commands.recording() as seen:
                await asyncio.wait_for(store.set_tag(run_id, RunTag("t", value)), HANGS)
            assert [name for name, _ in seen if name == "update"] == ["update"] * sent
    assert (await store.get_run(run_id)).data.tags["t"] == "second"
    await world.close()


async def test_a_long_call_is_not_cut_short(store: MongoDBStore, mongod: Mongod) -> None:
    """Its deadline is far, and so is what it may take at a time."""
    experiment_id = await store.create_experiment("long")
    await store.create_run(experiment_id, "me", 1, [], None)
    with failing(mongod.uri, "update", times=1, blockConnection=True, blockTimeMS=6500):
        await store.delete_experiment(experiment_id)
    assert (await store.get_experiment(experiment_id)).lifecycle_stage == "deleted"


async def test_a_server_that_cannot_be_brought_back_is_an_error_of_mlflow(
    store_uri: str, mongod: Mongod, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def revive(_: object) -> None:
        raise EmbeddedUnavailable("The disk is full.")

    monkeypatch.setattr(operation, "revive", revive)
    store = MongoDBStore(store_uri)
    await store.get_experiment("0")
    with (
        failing(mongod.uri, "find", "aggregate", times=1, errorCode=112),
        pytest.raises(MlflowException, match="The disk is full") as caught,
    ):
        await store.get_experiment("0")
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    assert isinstance(caught.value.__cause__, EmbeddedUnavailable)
    await store.close()
