"""The pair of registry stores, and what registry entities may differ in."""

from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from mlflow.entities.webhook import Webhook
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as SqlRegistry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from pymongo.database import Database

from genesis_flow.sync.registry import MongoDBModelRegistryStore
from tests.contract import policy
from tests.contract.pair import Outcome, Pair
from tests.contract.policy import Exemption, Rule, Wording
from tests.emptied import empty
from tests.mongod import Mongod, unique
from tests.sql_schema import make_schema

_CLOCK = Exemption(Rule.CLOSE_TIME, "each store reads its clock")
_NO_ORDER = Exemption(Rule.UNORDERED, "SQL reads them without an order")

policy.FIELDS.update(
    {
        (kind, field): _CLOCK
        for kind in ("RegisteredModel", "ModelVersion", "PromptVersion", "Prompt", "Webhook")
        for field in ("creation_timestamp", "last_updated_timestamp")
    }
    | {
        ("RegisteredModel", "latest_versions"): _NO_ORDER,
        ("ModelVersion", "aliases"): _NO_ORDER,
        ("PromptVersion", "aliases"): _NO_ORDER,
        ("Webhook", "events"): _NO_ORDER,
        ("Webhook", "webhook_id"): Exemption(Rule.BOTH_OR_NEITHER, "drawn at random"),
    }
)
policy.RESULTS["get_latest_versions"] = _NO_ORDER
policy.WORDINGS = (
    *policy.WORDINGS,
    Wording(
        r"Registered Model \(name=(?P<name>.*?)\) already exists\. Error: .*",
        r"Registered Model \(name=(?P<name>.*)\) already exists\.",
        "the SQL statement and its parameters are of no use to the user",
    ),
)


class RegistryPair(Pair):
    """Also maps the ids of webhooks, which each store draws."""

    def _remember_tokens(self, ours: Any, theirs: Any) -> None:
        super()._remember_tokens(ours, theirs)
        if isinstance(ours, Webhook) and isinstance(theirs, Webhook):
            self._their_tokens[ours.webhook_id] = theirs.webhook_id


def differs(pair: Pair, method: str, *args: Any, **kwargs: Any) -> tuple[Outcome, Outcome]:
    """Both answers to a call in which the stores differ on purpose."""
    return pair.both(method, *args, **kwargs)


@pytest.fixture
def registry(
    mongod: Mongod, contract_database: Database[dict[str, Any]], oracle: SqlAlchemyStore
) -> RegistryPair:
    """Both registries, empty."""
    empty(contract_database)
    ours = MongoDBModelRegistryStore(mongod.database_uri(contract_database.name))
    return RegistryPair(ours, SqlRegistry(oracle.db_uri))


@pytest.fixture(scope="module")
def filled_registry(
    mongod: Mongod, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[RegistryPair]:
    """Both registries for all tests of a module, for what is filled once and then only read."""
    name = unique(request.module.__name__.rpartition(".")[2])
    path = tmp_path_factory.mktemp(name) / "registry.db"
    make_schema(path)
    uri = f"sqlite:///{path}"
    yield RegistryPair(MongoDBModelRegistryStore(mongod.database_uri(name)), SqlRegistry(uri))
    SqlRegistry._engine_map.pop(uri).dispose()
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(name)
