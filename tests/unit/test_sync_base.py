"""What every blocking store inherits: copies, generations, the client, the backstop."""

import asyncio
import copy
import os
import pickle
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED, ErrorCode

from genesis_flow.sync import base
from genesis_flow.sync.base import SyncFacade
from genesis_flow.sync.client import SyncClient
from genesis_flow.sync.portal import portal


@dataclass(frozen=True)
class ToySettings:
    name: str = "toy"
    timeout: float = 5.0
    open_timeout: float = 5.0


class AsyncToys:
    made: list["AsyncToys"] = []

    def __init__(self, settings: ToySettings) -> None:
        self.settings = settings
        self.closed = 0
        self.made.append(self)

    async def name(self, suffix: str = "") -> str:
        await asyncio.sleep(0)
        return self.settings.name + suffix

    async def hang(self) -> None:
        await asyncio.sleep(3600)

    async def close(self) -> None:
        self.closed += 1


class LoudToys(AsyncToys):
    async def name(self, suffix: str = "") -> str:
        return (await super().name(suffix)).upper()


class MlflowsBase:
    """Stands for MLflow's base class, whose instances hold what cannot be pickled."""

    def __init__(self, store_uri: str | None = None) -> None:
        self.store_uri = store_uri
        self.lock = threading.Lock()


class Toys(SyncFacade, MlflowsBase):
    _async_store = AsyncToys

    def __init__(self, name: str) -> None:
        super().__init__(ToySettings(name), store_uri="toy://")  # type: ignore[arg-type]

    def name(self, suffix: str = "") -> str:
        return self._run(AsyncToys.name, suffix)

    def hang(self) -> None:
        return self._run(AsyncToys.hang)

    def hang_long(self) -> None:
        return self._run_long(AsyncToys.hang)


class LouderToys(Toys):
    _async_store = LoudToys


@pytest.fixture(autouse=True)
def _forget_toys() -> None:
    AsyncToys.made.clear()


def test_calls_share_one_async_store() -> None:
    store = Toys("ball")
    assert AsyncToys.made == []
    assert (store.name(), store.name("s"), store.name(suffix="!")) == ("ball", "balls", "ball!")
    assert len(AsyncToys.made) == 1


def test_threads_that_race_share_one_async_store() -> None:
    store = Toys("ball")
    barrier = threading.Barrier(16)
    seen: list[object] = []

    def call() -> None:
        barrier.wait()
        seen.append(store._store())

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 16
    assert len(set(map(id, seen))) == 1


def test_an_override_in_the_async_store_counts() -> None:
    assert LouderToys("ball").name("s") == "BALLS"


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda store: pickle.loads(pickle.dumps(store))]
)
def test_copies_work_and_take_only_the_settings(duplicate: Any) -> None:
    store = LouderToys("ball")
    store.name()
    twin = duplicate(store)
    assert type(twin) is LouderToys
    assert twin.name() == "BALL"
    assert twin.lock is not store.lock
    assert twin._store() is not store._store()


def test_close_closes_once_and_the_next_call_opens_again() -> None:
    store = Toys("ball")
    store.close()
    assert AsyncToys.made == []
    store.name()
    store.close()
    store.close()
    assert [toys.closed for toys in AsyncToys.made] == [1]
    assert store.name() == "ball"
    assert [toys.closed for toys in AsyncToys.made] == [1, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_makes_its_own_async_store_and_leaves_the_inherited_one_alone() -> None:
    store = Toys("ball")
    store.name()
    pid = os.fork()
    if pid == 0:
        store.close()
        worked = store.name() == "ball" and [toys.closed for toys in AsyncToys.made] == [0, 0]
        os._exit(0 if worked else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(AsyncToys.made) == 1


@pytest.mark.parametrize(("call", "patience"), [("hang", 1), ("hang_long", base.LONG)])
def test_the_backstop_comes_after_the_operations_own_deadline(
    monkeypatch: pytest.MonkeyPatch, call: str, patience: int
) -> None:
    allowed: list[float] = []
    run = portal.run

    def impatient(work: Any, timeout: float) -> Any:
        allowed.append(timeout)
        return run(work, 0.05)

    monkeypatch.setattr(portal, "run", impatient)
    with pytest.raises(MlflowException, match=r"did not finish within 0\.05 s") as caught:
        getattr(Toys("ball"), call)()
    assert caught.value.error_code == ErrorCode.Name(DEADLINE_EXCEEDED)
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert allowed == [5.0 * patience + 5.0 + base._BACKSTOP_MARGIN_SECONDS]


class FakeDatabase:
    def __init__(self, name: str) -> None:
        self.name = name

    async def command(self, command: Any, value: Any = 1, **options: Any) -> dict[str, Any]:
        return {"database": self.name, "command": command, "value": value, **options}

    async def list_collection_names(self) -> list[str]:
        return [f"{self.name}.runs"]


class FakeClient:
    def __getitem__(self, name: str) -> FakeDatabase:
        return FakeDatabase(name)

    async def server_info(self) -> dict[str, Any]:
        return {"version": "0"}

    async def list_database_names(self) -> list[str]:
        return ["admin"]


def test_the_client_runs_commands() -> None:
    @asynccontextmanager
    async def open_client() -> AsyncIterator[Any]:
        yield FakeClient()

    client = SyncClient(open_client, portal.run)
    assert client.admin.command("ping") == {"database": "admin", "command": "ping", "value": 1}
    assert client["db"].command("collStats", "runs", scale=1024) == {
        **{"database": "db", "command": "collStats"},
        **{"value": "runs", "scale": 1024},
    }
    assert client["db"].list_collection_names() == ["db.runs"]
    assert client.server_info() == {"version": "0"}
    assert client.list_database_names() == ["admin"]
    assert repr(Toys("secret").client) == "SyncClient()"
