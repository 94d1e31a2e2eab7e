"""Databases of real MLflow versions, imported, against MLflow's own store over upgraded copies of them."""

from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from cryptography.fernet import Fernet
from mlflow.store.model_registry.dbmodels.models import SqlWebhook

from genesis_flow.importers.engine import Options, Outcome, run_import
from genesis_flow.migrate.config import load_config
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.sql_databases import ARTIFACT_ROOT, VERSIONS, oracle, unpacked
from tests.importing.stores import differences, genai_state, registry_state, tracking_state
from tests.mongod import Mongod, unique

KEY = "Zml4dHVyZXMtb2YtdGVzdHMtYXJlLW5vdC1zZWNyZXQ="


class Imported:
    """The two sides of one version."""

    def __init__(self, version: str, uri: str, theirs: tuple[Any, Any], outcome: Outcome) -> None:
        self.version = version
        self.tracking, self.registry = MongoDBStore(uri, ARTIFACT_ROOT), MongoDBModelRegistryStore(uri)
        self.their_tracking, self.their_registry = theirs
        self.outcome = outcome


@pytest.fixture(scope="module", params=VERSIONS)
def imported(
    request: pytest.FixtureRequest, mongod: Mongod, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Imported]:
    folder = tmp_path_factory.mktemp("sql")
    name = unique("import_sql_" + request.param.replace(".", "_"))
    uri = mongod.database_uri(name)
    database = unpacked(request.param, folder)
    outcome = run_import(load_config(uri, environ={}), f"sqlite:///{database}", Options())
    copy = unpacked(request.param, folder, "theirs.db")
    with pytest.MonkeyPatch.context() as patch, oracle(copy) as theirs:
        patch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", KEY)
        patch.setattr(SqlWebhook.__table__.c.secret.type, "cipher", Fernet(KEY))
        yield Imported(request.param, uri, theirs, outcome)
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(name)


def test_nothing_is_left_out(imported: Imported) -> None:
    assert imported.outcome.first_problems == []
    assert not imported.outcome.stats.skipped


def test_tracking_answers_the_same(imported: Imported) -> None:
    ours, theirs = tracking_state(imported.tracking), tracking_state(imported.their_tracking)
    assert len(ours["runs"]) == 9
    # Until 3.7 or so a run could use a dataset of another experiment; here it gets its own.
    datasets = ours.pop("datasets")
    assert [each for each in theirs.pop("datasets") if each not in datasets] == []
    assert len(datasets) == (0 if imported.version == "2.0.1" else 6)
    assert differences(ours, theirs) == []


def test_traces_and_evaluation_answer_the_same(imported: Imported) -> None:
    ours, theirs = genai_state(imported.tracking), genai_state(imported.their_tracking)
    assert differences(ours, theirs) == []


def test_the_registry_answers_the_same(imported: Imported) -> None:
    ours, theirs = registry_state(imported.registry), registry_state(imported.their_registry)
    assert differences(ours, theirs) == []
