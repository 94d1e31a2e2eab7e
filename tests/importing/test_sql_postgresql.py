"""An import from a real PostgreSQL server, filled by the installed MLflow."""

from typing import Any

import psycopg
import pymongo
import pytest
from cryptography.fernet import Fernet
from mlflow.store.model_registry.dbmodels.models import SqlWebhook
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as SqlRegistry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from genesis_flow.importers.engine import Options, run_import
from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.records import Filters, Problem
from genesis_flow.importers.sql import open_sql
from genesis_flow.migrate.config import load_config
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.fixtures.make_sql import WEBHOOK_KEY
from tests.importing.postgresql import PASSWORD, fill, running_postgresql
from tests.importing.sql_databases import ARTIFACT_ROOT, counted, everything, problems_of
from tests.importing.stores import differences, genai_state, registry_state, tracking_state
from tests.mongod import Mongod

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_an_import_from_postgresql(mongod: Mongod, monkeypatch: pytest.MonkeyPatch) -> None:
    """One test: MLflow takes long to make its schema."""
    with running_postgresql() as server:
        fill(server, WEBHOOK_KEY)
        with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
            _the_import_answers_as_the_sql_store_does(server, mongod, monkeypatch)
            _writers_do_not_change_what_is_read(server, connection)
            _a_user_who_may_only_read_is_enough(server, connection)
            _the_transaction_cannot_write(server)
            _a_wrong_password_is_not_shown(server)


def _the_import_answers_as_the_sql_store_does(
    server: str, mongod: Mongod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", WEBHOOK_KEY)
    monkeypatch.setattr(SqlWebhook.__table__.c.secret.type, "cipher", Fernet(WEBHOOK_KEY))
    uri = mongod.database_uri("import_postgresql")
    outcome = run_import(load_config(uri, environ={}), server, Options())
    try:
        assert outcome.first_problems == []
        assert PASSWORD not in repr(outcome)
        assert outcome.source == server.replace(f"+psycopg://tester:{PASSWORD}@", "://")
        ours, theirs = MongoDBStore(uri, ARTIFACT_ROOT), SqlAlchemyStore(server, ARTIFACT_ROOT)
        assert differences(tracking_state(ours), tracking_state(theirs)) == []
        assert differences(genai_state(ours), genai_state(theirs)) == []
        registries = MongoDBModelRegistryStore(uri), SqlRegistry(server)
        assert differences(*(registry_state(each) for each in registries)) == []
        again = run_import(load_config(uri, environ={}), server, Options())
        assert not any(again.stats.written.values())
    finally:
        SqlAlchemyStore._engine_map.pop(server).dispose()
        with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
            client.drop_database("import_postgresql")


def _writers_do_not_change_what_is_read(server: str, connection: psycopg.Connection[Any]) -> None:
    source = open_sql(server)
    try:
        units = source.units(Filters())
        first = next(units)
        run_id = "f" * 32
        connection.execute(
            "INSERT INTO runs (run_uuid, name, status, lifecycle_stage, experiment_id) "
            "VALUES (%s, 'in between', 'FINISHED', 'active', 1)",
            (run_id,),
        )
        connection.execute("UPDATE experiments SET name = 'renamed' WHERE experiment_id = 2")
        items = [*source.read(first)]  # type: ignore[arg-type]
        for unit in units:
            items += [unit] if isinstance(unit, Problem) else source.read(unit)
        assert problems_of(items) == []
        assert counted(items)["run"] == 9
        assert "renamed" not in repr(items)
        assert "in between" not in repr(items)
    finally:
        source.close()
        connection.execute("DELETE FROM runs WHERE run_uuid = %s", (run_id,))
        connection.execute("UPDATE experiments SET name = 'other' WHERE experiment_id = 2")


def _a_user_who_may_only_read_is_enough(server: str, connection: psycopg.Connection[Any]) -> None:
    connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    connection.execute("GRANT pg_read_all_data TO reader")
    source = open_sql(server.replace("tester:", "reader:"))
    try:
        items = everything(source)
    finally:
        source.close()
    assert problems_of(items) == []
    assert counted(items)["point"] == 2800


def _the_transaction_cannot_write(server: str) -> None:
    source = open_sql(server)
    try:
        connection = source._snapshot._connection  # type: ignore[attr-defined]
        with pytest.raises(Exception, match="read-only transaction"):
            # Not by a cursor on the server, which takes nothing but queries.
            connection.exec_driver_sql("DELETE FROM tags", execution_options={"stream_results": False})
    finally:
        source.close()


def _a_wrong_password_is_not_shown(server: str) -> None:
    with pytest.raises(ImportFailed, match="cannot be opened") as caught:
        open_sql(server.replace(PASSWORD, "W0RNGPW"))
    assert "W0RNGPW" not in str(caught.value)
    assert "password authentication failed" in str(caught.value)
