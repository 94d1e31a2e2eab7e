"""Fixtures: one mongod for the session, a fresh database for each test."""

import gc
import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pymongo
import pytest

from genesis_flow.aio import MongoDBStore as AsyncStore
from tests.commands import CommandRecorder, recorder
from tests.emptied import EmptiedDatabase
from tests.forgetting import forgotten
from tests.mongod import Mongod, running_mongod


def pytest_collection_finish() -> None:
    """What is loaded by now stays: collections of garbage, of which some tests ask for many, pass it over."""
    gc.freeze()


@pytest.fixture(scope="session")
def mongod() -> Iterator[Mongod]:
    with running_mongod() as server:
        yield server
        server.check_alive()


@pytest.fixture(scope="session")
def standalone() -> Iterator[Mongod]:
    """A server without replication, and so without transactions and retryable writes."""
    with running_mongod(replica_set=False) as server:
        yield server


@pytest.fixture(autouse=True)
def portable_profile() -> Iterator[None]:
    """With GENESIS_FLOW_PROFILE=portable every test is one of that profile, too: nothing else is sent."""
    if os.environ.get("GENESIS_FLOW_PROFILE") != "portable":
        yield
        return
    from tests.trust.portable_rules import rules

    with rules.enforced() as violations:
        yield
    assert sorted(set(violations)) == []


@pytest.fixture(autouse=True)
def mlflow_forgets() -> Iterator[None]:
    """A test's URIs and experiments are forgotten by MLflow when it ends."""
    with forgotten():
        yield


@pytest.fixture
def database_name() -> str:
    return f"test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def fresh_uri(mongod: Mongod, database_name: str) -> Iterator[str]:
    """A database that is not there yet."""
    yield mongod.database_uri(database_name)
    with pymongo.MongoClient(mongod.uri) as client:
        client.drop_database(database_name)


@pytest.fixture(scope="session")
def emptied(mongod: Mongod) -> Iterator[EmptiedDatabase]:
    made = EmptiedDatabase(mongod)
    yield made
    made.close()


@pytest.fixture
async def emptied_uri(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """An empty database at head: a fresh one for a test that asks for its name, too.

    The portable profile has no command to find out what is to be emptied.
    """
    if "database_name" in request.fixturenames or os.environ.get("GENESIS_FLOW_PROFILE") == "portable":
        yield request.getfixturevalue("fresh_uri")
        return
    emptied: EmptiedDatabase = request.getfixturevalue("emptied")
    yield await emptied.uri()
    emptied.give_back()


@pytest.fixture
def store_uri(fresh_uri: str) -> str:
    """The database of a test; folders whose tests can use one after the other take ``emptied_uri``."""
    return fresh_uri


@pytest.fixture
def commands() -> CommandRecorder:
    """Counts round trips: ``with commands.recording() as sent: ...``."""
    return recorder


@pytest.fixture
async def store(store_uri: str, tmp_path: object) -> AsyncIterator[AsyncStore]:
    """The asynchronous tracking store on a fresh database."""
    made = AsyncStore(store_uri, f"{tmp_path}/artifacts")
    yield made
    await made.close()
