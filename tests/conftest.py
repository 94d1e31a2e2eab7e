"""Fixtures: one mongod for the session, a fresh database for each test."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import mlflow
import pymongo
import pytest
from mlflow.tracking import fluent

from genesis_flow.aio import MongoDBStore as AsyncStore
from tests.commands import CommandRecorder, recorder
from tests.mongod import Mongod, running_mongod


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


@pytest.fixture(scope="session")
def mongod_uri(mongod: Mongod) -> str:
    return mongod.uri


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
    """What a test tells MLflow of URIs and experiments ends with it. MLflow keeps it in variables, too.

    An experiment that a fixture of a module chose belongs to the database of that module alone.
    """
    uris = [os.environ.get(name) for name in _URIS]
    _restore(uris)
    yield
    _restore(uris)


_URIS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


def _restore(uris: list[str | None]) -> None:
    """A URI that MLflow was told of outlives the variable of the environment which it set by itself."""
    mlflow.set_tracking_uri(uris[0])
    mlflow.set_registry_uri(uris[1])
    fluent._active_experiment_id = None
    for name, value in [
        *zip(_URIS, uris, strict=True),
        ("MLFLOW_EXPERIMENT_ID", None),
        ("MLFLOW_EXPERIMENT_NAME", None),
    ]:
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def database_name() -> str:
    return f"test_{uuid.uuid4().hex[:12]}"


@pytest.fixture
def store_uri(mongod: Mongod, database_name: str) -> Iterator[str]:
    yield mongod.database_uri(database_name)
    with pymongo.MongoClient(mongod.uri) as client:
        client.drop_database(database_name)


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
