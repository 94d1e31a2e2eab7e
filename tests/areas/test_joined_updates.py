"""Calls that come together share commands, and each is told of its own result."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.mongo import joined
from tests.commands import CommandRecorder
from tests.faults import failing
from tests.mongod import Mongod
from tests.threads import InThreads

CALLERS = 64


@pytest.fixture(params=[MongoDBStore, InThreads])
def kind(request: pytest.FixtureRequest) -> Any:
    """Callers on a loop, and in threads."""
    return request.param


@pytest.fixture
async def callers(kind: Any, store_uri: str, tmp_path: Path) -> AsyncIterator[Any]:
    made = kind(store_uri, str(tmp_path / "artifacts"))
    yield made
    await made.close()


async def _new_run(store: MongoDBStore) -> str:
    run = await store.create_run("0", "me", 1, [], "a run")
    return str(run.info.run_id)


async def _together(*calls: Any) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_callers_share_commands(store: MongoDBStore, commands: CommandRecorder) -> None:
    runs = [await _new_run(store) for _ in range(CALLERS)]
    for run in runs:
        await store.log_metric(run, Metric("loss", 1.0, 0, 0))
    with commands.recording() as sent:
        await asyncio.gather(
            *(store.log_metric(run, Metric("loss", float(step), 1, step)) for step, run in enumerate(runs, 1))
        )
        await asyncio.gather(*(store.set_tag(run, RunTag("t", run)) for run in runs))
        await asyncio.gather(*(store.log_param(run, Param("p", run)) for run in runs))
    assert {name for name, _ in sent} == {"update"}
    assert len(sent) <= 3 * (1 + 3), "one alone and the others together, for each kind of call"
    for step, run in enumerate(runs, 1):
        found = await store.get_run(run)
        assert (found.data.metrics, found.data.params["p"], found.data.tags["t"]) == (
            {"loss": float(step)},
            run,
            run,
        )
        assert len(await store.get_metric_history(run, "loss")) == 2


async def test_who_stays_away_holds_nobody_up_for_long(
    store: MongoDBStore, commands: CommandRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined, "_PATIENCE_SECONDS", 0.1)  # however slow the machine is
    runs = [await _new_run(store) for _ in range(4)]
    for run in runs:
        await store.log_metric(run, Metric("loss", 1.0, 0, 0))

    async def train(run: str, steps: range) -> None:
        for step in steps:
            await store.log_metric(run, Metric("loss", 1.0, step, step))

    with commands.recording() as sent:
        await asyncio.gather(*(train(run, range(1, 11)) for run in runs))
        together = len(sent)
        await train(runs[0], range(11, 21))
    assert together < 4 * 10 / 2
    assert len(sent) - together == 10, "alone again, a command a call"
    for run in runs[1:]:
        assert len(await store.get_metric_history(run, "loss")) == 11
    assert len(await store.get_metric_history(runs[0], "loss")) == 21


async def test_who_fails_fails_alone(callers: Any) -> None:
    store = callers
    good = [await _new_run(store) for _ in range(CALLERS)]
    deleted = await _new_run(store)
    await store.delete_run(deleted)
    wrong = {7: deleted, 40: "0" * 32}
    runs = [wrong.get(number, run) for number, run in enumerate(good)]
    for call in (
        lambda run: store.log_metric(run, Metric("first", 1.0, 1, 1)),
        lambda run: store.log_param(run, Param("p", "1")),
        lambda run: store.set_tag(run, RunTag("t", "1")),
    ):
        outcomes = await _together(*(call(run) for run in runs))
        assert {number for number, outcome in enumerate(outcomes) if outcome is not None} == set(wrong)
        assert [outcomes[number].error_code for number in wrong] == [
            "INVALID_PARAMETER_VALUE",
            "RESOURCE_DOES_NOT_EXIST",
        ]


async def test_of_two_values_of_a_param_one_wins(callers: Any) -> None:
    store = callers
    for _ in range(20):
        run = await _new_run(store)
        outcomes = await _together(*(store.log_param(run, Param("p", str(n % 2))) for n in range(CALLERS)))
        value = (await store.get_run(run)).data.params["p"]
        accepted = {n % 2 for n, outcome in enumerate(outcomes) if outcome is None}
        assert accepted == {int(value)}
        refused = [outcome for outcome in outcomes if outcome is not None]
        assert len(refused) == CALLERS // 2
        assert all(isinstance(each, MlflowException) for each in refused)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_lost_connection_loses_and_doubles_nothing(
    mongod: Mongod, database_name: str, kind: Any, times: int
) -> None:
    name = f"joined-{kind.__name__}-{times}"
    store = kind(f"{mongod.database_uri(database_name)}&appName={name}", "s3://bucket")
    run = await _new_run(store)
    await store.log_metric(run, Metric("loss", 0.0, 0, 0))
    with failing(mongod.uri, "update", times=times, app=name, closeConnection=True):
        await asyncio.gather(
            *(store.log_metric(run, Metric("loss", float(n), n, n)) for n in range(1, CALLERS))
        )
    history = await store.get_metric_history(run, "loss")
    assert [point.step for point in history] == list(range(CALLERS))
    await store.close()


async def test_a_caller_that_gives_up_does_not_stop_the_others(store: MongoDBStore) -> None:
    run = await _new_run(store)
    await store.log_metric(run, Metric("loss", 0.0, 0, 0))
    tasks = [
        asyncio.create_task(store.log_metric(run, Metric("loss", float(n), n, n))) for n in range(1, CALLERS)
    ]
    await asyncio.sleep(0)
    for task in tasks[10:20]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    kept = [n for n, outcome in enumerate(outcomes, 1) if outcome is None]
    assert len(kept) == CALLERS - 1 - 10
    steps = {point.step for point in await store.get_metric_history(run, "loss")}
    assert steps >= set(kept), "whoever was told of success has its point"
