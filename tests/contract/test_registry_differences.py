"""Rows of the registry's section of docs/differences.md that no other test of the registry shows."""

from typing import Any

import mlflow
import pytest
from cryptography.fernet import Fernet
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.entities.webhook import WebhookEvent
from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlWebhook
from pymongo.database import Database

from genesis_flow.areas.webhooks import secrets
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from tests.contract.registry import RegistryPair, differs, registry
from tests.mongod import free_port

__all__ = ["registry"]

URL = "https://8.8.8.8/hook"
EVENT = WebhookEvent.from_str("prompt.created")


def _sql_rows(registry: RegistryPair, table: Any) -> int:
    with registry.oracle.ManagedSessionMaker() as session:
        return int(session.query(table).count())


@pytest.mark.parametrize("template", [["a"], [{"a": 1}]])
def test_a_template_that_nobody_could_read_back(registry: RegistryPair, template: Any) -> None:
    registry.create_prompt("p")
    registry.create_prompt_version("p", "say {{what}}")
    ours, theirs = registry.both("create_prompt_version", "p", template)
    assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE", "ValueError")
    ours, theirs = registry.both("search_prompt_versions", "p")
    assert [version.template for version in ours.result] == ["say {{what}}"]
    assert theirs.code == "ValueError"


def test_nothing_stays_of_a_deleted_version(
    registry: RegistryPair, contract_database: Database[dict[str, Any]]
) -> None:
    registry.create_registered_model("m")
    registry.create_model_version("m", "s3://x", tags=[ModelVersionTag("k", "v")])
    registry.delete_model_version("m", 1)
    assert contract_database["model_versions"].count_documents({}) == 0
    assert _sql_rows(registry, SqlModelVersion) == 1


def test_nothing_stays_of_a_deleted_webhook(
    registry: RegistryPair, contract_database: Database[dict[str, Any]]
) -> None:
    webhook_id = registry.create_webhook("hook", URL, [EVENT]).webhook_id
    registry.delete_webhook(webhook_id)
    assert contract_database["webhooks"].count_documents({}) == 0
    assert _sql_rows(registry, SqlWebhook) == 1


def test_a_secret_that_cannot_be_decrypted_does_not_keep_webhooks_from_being_listed(
    registry: RegistryPair, contract_database: Database[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    registry.both("create_webhook", "hook", URL, [EVENT], None, "secret")
    foreign = Fernet(Fernet.generate_key()).encrypt(b"secret").decode()
    contract_database["webhooks"].update_many({}, {"$set": {"secret": foreign}})
    with registry.oracle.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE webhooks SET secret = ?", (foreign,))
    ours, theirs = differs(registry, "list_webhooks")
    assert [webhook.name for webhook in ours.result] == ["hook"]
    assert theirs.error is not None


def test_webhooks_can_be_tested_without_a_server(registry: RegistryPair) -> None:
    webhook_id = registry.create_webhook("hook", "https://8.8.8.8:1/x", [EVENT]).webhook_id
    registry.ours.delete_webhook(webhook_id)
    ours, theirs = differs(registry, "test_webhook", webhook_id)
    assert ours.code == "RESOURCE_DOES_NOT_EXIST"
    assert isinstance(theirs.error, NotImplementedError)


def test_a_prompt_is_not_said_to_be_absent_while_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MONGODB_SERVER_SELECTION_TIMEOUT", "300")
    store = MongoDBModelRegistryStore(f"mongodb://127.0.0.1:{free_port()}/db")
    with pytest.raises(MlflowException) as refused:
        store.get_prompt("greeting")
    assert refused.value.error_code == "TEMPORARILY_UNAVAILABLE"


@pytest.mark.parametrize("method", ["link_prompt_version_to_run", "link_prompt_version_to_model"])
def test_only_versions_of_prompts_are_linked(registry: RegistryPair, method: str) -> None:
    registry.create_prompt("p")
    registry.create_model_version("p", "s3://x")
    mlflow.set_tracking_uri(registry.oracle.db_uri)  # the SQL registry asks it for the run or the model
    ours, theirs = differs(registry, method, "p", "1", "no-such-thing")
    assert ours.code == "RESOURCE_DOES_NOT_EXIST"
    assert "not a version of a prompt" in str(ours.error)
    assert "no-such-thing" in str(theirs.error)
