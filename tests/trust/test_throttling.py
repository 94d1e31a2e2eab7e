"""Azure Cosmos DB (RU) refuses what is beyond its throughput: error 16500, and how long to wait."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from pymongo.errors import (
    BulkWriteError,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
    WriteError,
)

from genesis_flow.mongo.error_edge import retry_delay, translate
from tests.mongod import Mongod
from tests.patience import PATIENCE_SECONDS, answered
from tests.scenes import play
from tests.trust.proxy import Command, FaultyProxy, faulty_proxy
from tests.trust.soak import SOAK
from tests.trust.tour import Made, Undisturbed, World, opened, stored, temporary

TEXT = "Error=16500, RetryAfterMs={}, Details='Response status code does not indicate success: 429'"
WAIT = 120
COMMAND = {"ok": 0.0, "code": 16500, "codeName": "RequestRateTooLarge", "errmsg": TEXT.format(WAIT)}
WRITE = {"ok": 1.0, "n": 0, "writeErrors": [{"index": 0, "code": 16500, "errmsg": TEXT.format(WAIT)}]}
CONCERN = {
    "ok": 1.0,
    "n": 1,
    "nModified": 1,
    "writeConcernError": {"code": 16500, "errmsg": TEXT.format(WAIT)},
}


def bulk(*codes: int) -> BulkWriteError:
    return BulkWriteError(
        {"writeErrors": [{"index": 0, "code": code, "errmsg": TEXT.format(WAIT)} for code in codes]}
    )


@pytest.mark.parametrize(
    "error",
    [
        OperationFailure(TEXT.format(WAIT), 16500),
        WriteError(TEXT.format(WAIT), 16500),
        WriteConcernError(TEXT.format(WAIT), 16500),
        OperationFailure(TEXT.format(WAIT), 429),
        bulk(16500),
        bulk(11000, 16500),
        BulkWriteError(
            {"writeErrors": [], "writeConcernErrors": [{"code": 16500, "errmsg": TEXT.format(WAIT)}]}
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_wait_is_what_was_asked_for_and_some_more(error: PyMongoError) -> None:
    waits = [retry_delay(error, attempt) for attempt in range(8) for _ in range(20)]
    assert all(wait is not None and wait > WAIT / 1000 for wait in waits)
    assert len(set(waits)) > 100  # no two clients come back at the same time
    assert max(wait for wait in waits if wait is not None) < 3


def test_without_a_wait_it_grows() -> None:
    error = OperationFailure("Request rate is large", 16500)
    assert all(0.02 < (retry_delay(error, 0) or 0) < 0.06 for _ in range(50))
    assert all(0.9 < (retry_delay(error, 9) or 0) < 2.1 for _ in range(50))


def test_an_error_that_stays_is_not_repeated() -> None:
    assert retry_delay(bulk(11000), 0) is None
    assert retry_delay(OperationFailure("bad", 2), 0) is None


def test_a_write_that_was_sent_as_if_to_a_replica_set_is_repeated_a_few_times() -> None:
    text = "This MongoDB deployment does not support retryable writes. Please add retryWrites=false."
    assert retry_delay(OperationFailure(text, 20), 0) is not None
    assert retry_delay(OperationFailure(text, 20), 9) is None
    assert retry_delay(OperationFailure("not on a standalone", 20), 0) is None


def test_the_user_is_told_what_to_do() -> None:
    told = translate(OperationFailure(TEXT.format(WAIT), 16500), "mongodb://host/db", 60)
    assert told.error_code == "REQUEST_LIMIT_EXCEEDED"
    assert told.get_http_status_code() == 429
    assert "RU/s" in str(told)


@pytest.fixture
def proxy(standalone: Mongod) -> Iterator[FaultyProxy]:
    """No retryable writes behind it, as is the default for an RU account."""
    with faulty_proxy(standalone.port) as running:
        yield running


@pytest.fixture
async def world(proxy: FaultyProxy, tmp_path: Path) -> AsyncIterator[World]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    made = World(proxy.database_uri(name), str(tmp_path / "artifacts"))
    yield made
    proxy.arm()
    await made.close()
    with pymongo.MongoClient(port=proxy.upstream) as client:
        client.drop_database(name)


def first(count: int, *names: str) -> Callable[[Command], bool]:
    left = count

    def loses(command: Command) -> bool:
        nonlocal left
        left -= (hit := left > 0 and command.name in names)
        return hit

    return loses


@pytest.mark.parametrize("answer", [COMMAND, WRITE], ids=["command error", "write error"])
async def test_throttled_writes_wait_as_long_as_asked(
    world: World, proxy: FaultyProxy, answer: dict[str, Any]
) -> None:
    run_id = (await world.store.create_run("0", "me", 1, [], None)).info.run_id
    await world.store.log_metric(run_id, Metric("m", 0, 0, 0))
    proxy.arm(request_lost=first(3, "update"), instead=answer)
    started = time.monotonic()
    await world.store.log_metric(run_id, Metric("m", 1, 1, 1))
    assert time.monotonic() - started > 3 * WAIT / 1000
    assert len(proxy.lost) == 3
    proxy.arm(request_lost=first(2, "insert"), instead=answer)
    experiment_id = await world.store.create_experiment("throttled")
    proxy.arm()
    assert (await world.store.get_experiment(experiment_id)).name == "throttled"
    assert len(await world.store.get_metric_history(run_id, "m")) == 2


async def test_a_write_that_was_made_and_then_throttled_is_made_once(
    world: World, proxy: FaultyProxy
) -> None:
    run_id = (await world.store.create_run("0", "me", 1, [], None)).info.run_id
    for number in range(4):
        proxy.arm(reply_lost=first(2, "update", "insert", "findAndModify"), instead=CONCERN)
        batch = [Metric("m", number, number, number), Metric(f"n{number}", 1, 1, 1)]
        await world.store.log_batch(run_id, batch, [Param(f"p{number}", "1")], [])
    proxy.arm()
    run = await world.store.get_run(run_id)
    assert len(run.data.params) == 4
    assert len(run.data.metrics) == 5
    assert len(await world.store.get_metric_history(run_id, "m")) == 4


async def test_throttling_past_the_deadline_is_one_clear_error(
    world: World, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = (await world.store.create_run("0", "me", 1, [], None)).info.run_id
    monkeypatch.setenv("GENESIS_FLOW_TIMEOUT", "4")
    hurried = World(world.store.settings.store_uri, "/nowhere")
    await answered(lambda: hurried.store.get_run(run_id))
    proxy.arm(request_lost=first(1000, "update", "find", "aggregate"), instead=COMMAND)
    for call in (
        hurried.store.log_metric(run_id, Metric("m", 1, 1, 1)),
        hurried.store.get_run(run_id),
    ):
        with pytest.raises(MlflowException) as caught:
            await asyncio.wait_for(call, PATIENCE_SECONDS)
        assert caught.value.error_code == "REQUEST_LIMIT_EXCEEDED"
        assert caught.value.__cause__ is not None
    await hurried.close()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", [0.1, 0.25] if SOAK else [0.15])
async def test_a_server_that_throttles_all_the_time(
    proxy: FaultyProxy, short_waits: None, undisturbed: Undisturbed, share: float
) -> None:
    """The whole tour of writes while a share of all commands is refused; nothing is missing or doubled."""
    quick = {**COMMAND, "errmsg": TEXT.format(2)}
    dice = random.Random(5)
    refused = 0

    async def refuse(name: str, make: Made) -> Any:
        nonlocal refused
        proxy.arm(request_lost=lambda command: dice.random() < share, instead=quick)
        try:
            made = await make()
        except MlflowException as error:
            raise AssertionError(f"{name} after {proxy.lost} of {proxy.seen}") from error
        refused += len(proxy.lost)
        return made

    async with temporary(World, proxy.port, undisturbed.artifacts) as world:
        await opened(world)
        world.around = refuse
        try:
            await play(world)
        finally:
            proxy.arm()
        assert refused > 30
        assert stored(world) == await undisturbed.tour(proxy.upstream)
