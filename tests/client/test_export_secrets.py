"""``genesis-flow gateway export`` and ``export-secrets``: what MLflow reads in an SQL database afterwards."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mlflow.entities import (
    FallbackConfig,
    FallbackStrategy,
    GatewayEndpointModelConfig,
    GatewayEndpointTag,
    GatewayModelLinkageType,
)
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.gateway.config_resolver import get_endpoint_config
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from genesis_flow import MongoDBStore
from genesis_flow.cli.main import cli
from tests.mongod import Mongod, unique

PASSPHRASE = "a passphrase of the export"
KEY = "sk-exported-canary-51c7"


@pytest.fixture
def uri(mongod: Mongod, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_CRYPTO_KEK_PASSPHRASE", PASSPHRASE)
    return mongod.database_uri(unique("export"))


@pytest.fixture
def store(uri: str) -> Iterator[MongoDBStore]:
    with closing(MongoDBStore(uri)) as opened:
        yield opened


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty database of MLflow, whose many steps take their time."""
    path = tmp_path_factory.mktemp("sql") / "mlflow.db"
    SqlAlchemyStore(f"sqlite:///{path}", str(path.parent)).engine.dispose()
    return path.read_bytes()


@pytest.fixture
def database(template: bytes, tmp_path: Path) -> str:
    path = tmp_path / "mlflow.db"
    path.write_bytes(template)
    return f"sqlite:///{path}"


def exported(uri: str, database: str, command: str = "export-secrets") -> Result:
    done = CliRunner().invoke(cli, ["gateway", command, database, "--uri", uri])
    assert not {each for each in (KEY, PASSPHRASE) if each in done.output}
    return done


def read(database: str, secret_id: str, tmp_path: Path) -> dict[str, str]:
    sql = SqlAlchemyStore(database, str(tmp_path))
    try:
        found: dict[str, str] = sql._get_decrypted_secret(secret_id)
        return found
    finally:
        sql.engine.dispose()


def test_mlflow_decrypts_what_was_exported(
    store: MongoDBStore, uri: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.create_gateway_secret(
        "k", {"api_key": KEY}, "openai", {"api_base": "http://there"}, created_by="ann"
    )
    bare = store.create_gateway_secret("bare", {"user": "u", "password": "p"})
    done = exported(uri, database)
    assert done.exit_code == 0, done.output
    assert "2 secrets are new there, 0 were there" in done.output
    assert read(database, made.secret_id, tmp_path) == {"api_key": KEY}
    assert read(database, bare.secret_id, tmp_path) == {"user": "u", "password": "p"}
    sql = SqlAlchemyStore(database, str(tmp_path))
    assert {each.secret_id: vars(each) for each in sql.list_secret_infos()} == {
        each.secret_id: vars(each) for each in store.list_secret_infos()
    }
    sql.engine.dispose()
    assert KEY.encode() not in (tmp_path / "mlflow.db").read_bytes()
    monkeypatch.setenv("MLFLOW_CRYPTO_KEK_PASSPHRASE", "another one")
    with pytest.raises(MlflowException):
        read(database, made.secret_id, tmp_path)


def test_again_after_a_change_and_with_two_versions(
    store: MongoDBStore, uri: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.create_gateway_secret("k", {"api_key": "sk-first-value"})
    assert exported(uri, database).exit_code == 0
    store.update_gateway_secret(made.secret_id, {"api_key": KEY})
    done = exported(uri, database)
    assert "0 secrets are new there, 1 were there" in done.output
    assert read(database, made.secret_id, tmp_path) == {"api_key": KEY}
    monkeypatch.setenv("MLFLOW_CRYPTO_KEK_VERSION", "2")
    store.create_gateway_secret("later", {"api_key": KEY})
    done = exported(uri, database)
    assert done.exit_code == 0
    assert "the versions 1, 2" in done.output


def test_a_name_that_another_secret_has(store: MongoDBStore, uri: str, database: str, tmp_path: Path) -> None:
    sql = SqlAlchemyStore(database, str(tmp_path))
    other = sql.create_gateway_secret("taken", {"api_key": "sk-of-the-other"})
    store.create_gateway_secret("free", {"api_key": KEY})
    store.create_gateway_secret("taken", {"api_key": KEY})
    done = exported(uri, database)
    assert done.exit_code == 1
    assert "another secret of the name or the id of 'taken'" in done.output
    assert [each.secret_id for each in sql.list_secret_infos()] == [other.secret_id]
    sql.engine.dispose()


def test_what_is_no_database_of_mlflow(store: MongoDBStore, uri: str, tmp_path: Path) -> None:
    store.create_gateway_secret("k", {"api_key": KEY})
    done = exported(uri, "no uri")
    assert done.exit_code == 1
    assert "not an SQLAlchemy URI" in done.output
    done = exported(uri, f"sqlite:///{tmp_path}/nowhere.db")
    assert done.exit_code == 1
    assert "run `mlflow db upgrade` on it" in done.output
    assert not (tmp_path / "nowhere.db").exists()


def with_endpoints(store: MongoDBStore) -> None:
    secret = store.create_gateway_secret("k", {"api_key": KEY}, "openai", {"api_base": "http://there"})
    models = [
        store.create_gateway_model_definition(name, secret.secret_id, "openai", "gpt-4o", created_by="ann")
        for name in ("first", "second")
    ]
    linked = [
        GatewayEndpointModelConfig(models[0].model_definition_id, GatewayModelLinkageType.PRIMARY, 0.5),
        GatewayEndpointModelConfig(
            models[1].model_definition_id, GatewayModelLinkageType.FALLBACK, 1.0, fallback_order=1
        ),
    ]
    fallback = FallbackConfig(FallbackStrategy.SEQUENTIAL, 2)
    store.create_gateway_endpoint("both", linked, "ann", fallback_config=fallback)
    made = store.create_gateway_endpoint("bare", linked[:1], usage_tracking=False)
    store.set_gateway_endpoint_tag(made.endpoint_id, GatewayEndpointTag("a.b", "c"))


def as_said(store: Any, *, untraced: bool) -> list[Any]:
    """Endpoints and models; the places where calls are traced have other ids there, or are not there."""
    endpoints = store.list_gateway_endpoints()
    for each in endpoints:
        if untraced:
            each.usage_tracking = False
        each.experiment_id = each.experiment_id and store.get_experiment(each.experiment_id).name
        each.experiment_id = None if untraced else each.experiment_id
        each.model_mappings = sorted(map(repr, each.model_mappings))
        each.tags = sorted(map(repr, each.tags))
    models = store.list_gateway_model_definitions()
    return sorted(repr(vars(each)) for each in (*endpoints, *models))


def test_endpoints_that_were_exported_are_called_by_mlflow(
    store: MongoDBStore, uri: str, database: str, tmp_path: Path
) -> None:
    with_endpoints(store)
    done = exported(uri, database, "export")
    assert done.exit_code == 0, done.output
    assert "2 endpoints are new there" in done.output
    assert "Calls of 1 endpoints are not traced there" in done.output
    sql = SqlAlchemyStore(database, str(tmp_path))
    assert as_said(sql, untraced=True) == as_said(store, untraced=True)
    called = get_endpoint_config("both", sql)
    assert [each.secret_value for each in called.models] == [{"api_key": KEY}] * 2
    (endpoint,) = [each for each in store.list_gateway_endpoints() if each.name == "both"]
    # Once there is a place for the traces, and after a change.
    sql.create_experiment(store.get_experiment(endpoint.experiment_id).name)
    store.delete_gateway_endpoint_tag(
        next(each.endpoint_id for each in store.list_gateway_endpoints() if each.name == "bare"), "a.b"
    )
    done = exported(uri, database, "export")
    assert "0 endpoints are new there, 2 were there" in done.output
    assert "not traced" not in done.output
    assert as_said(sql, untraced=False) == as_said(store, untraced=False)
    sql.engine.dispose()


def test_a_name_that_another_endpoint_has(
    mongod: Mongod, store: MongoDBStore, uri: str, database: str, tmp_path: Path
) -> None:
    with_endpoints(store)
    others = mongod.database_uri(unique("export"))
    with closing(MongoDBStore(others)) as other:
        with_endpoints(other)
        secret = other.list_secret_infos()[0].secret_id
        other.delete_gateway_secret(secret)
        assert exported(others, database, "export").exit_code == 0
    done = exported(uri, database, "export")
    assert done.exit_code == 1
    assert "has another model of the name or the id of" in done.output
    sql = SqlAlchemyStore(database, str(tmp_path))
    assert sql.list_secret_infos() == [], "nothing was copied"
    sql.engine.dispose()
