"""What MLflow's gateway gets in the place of its own functions: on a short way, and under its own rules."""

import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from mlflow.entities import GatewayEndpointModelConfig
from mlflow.entities.gateway_budget_policy import (
    BudgetAction,
    BudgetDuration,
    BudgetDurationUnit,
    BudgetTargetScope,
    BudgetUnit,
)
from mlflow.entities.gateway_endpoint import GatewayModelLinkageType
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore
from genesis_flow.areas.gateway import remembered
from genesis_flow.compat import crypto
from genesis_flow.plugins import hooks
from genesis_flow.plugins.budgets import SharedBudgets

KEY = {"api_key": "sk-1234567890"}
INSIDE = "http://127.0.0.1:1"


class WentToTheLoop(Exception):
    pass


@pytest.fixture
def store(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[MongoDBStore]:
    monkeypatch.setattr(remembered, "SECONDS", 3_600)
    with closing(MongoDBStore(store_uri)) as opened:
        yield opened


@pytest.fixture
def secret(store: MongoDBStore) -> str:
    """Of the one model of the one endpoint."""
    made = store.create_gateway_secret("k", KEY, "openai", {"api_base": INSIDE})
    model = store.create_gateway_model_definition("m", made.secret_id, "openai", "gpt-4o")
    attached = GatewayEndpointModelConfig(model.model_definition_id, GatewayModelLinkageType.PRIMARY)
    store.create_gateway_endpoint("chat", [attached], usage_tracking=False)
    return str(made.secret_id)


def never(*_: Any, **__: Any) -> None:
    raise AssertionError("MLflow's own function was called")


resolve = hooks._resolved(never)


def budget(store: MongoDBStore, user: str, action: BudgetAction) -> None:
    window = BudgetDuration(BudgetDurationUnit.DAYS, 1)
    store.create_budget_policy(BudgetUnit.USD, 1e9, window, BudgetTargetScope.USER, action, target_value=user)


def test_what_is_remembered_needs_no_loop(
    store: MongoDBStore, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's own thread finds it, and all other calls need not wait while another thread wakes up."""
    tracker = SharedBudgets(store)
    budget(store, "bob", BudgetAction.REJECT)
    budget(store, "alert", BudgetAction.ALERT)

    def call(user: str) -> Any:
        found = resolve("chat", store)
        assert tracker.should_reject_request("default", found.endpoint_id, user) == (False, None)
        assert tracker.record_cost(0.5, "default", found.endpoint_id, user) == []
        return found

    def to_the_loop(*_: Any, **__: Any) -> None:
        raise WentToTheLoop

    first = call("ann")
    with monkeypatch.context() as patched:
        patched.setattr(store, "_in_portal", to_the_loop)
        again = call("ann")
        assert (again, again.found_guardrails) == (first, [])
        assert again.models[0].secret_value == KEY
        again.models[0].secret_value.clear()
        assert call("ann").models[0].secret_value == KEY, "each call has its own"
        for user in ("bob", "alert"):
            with pytest.raises(WentToTheLoop):
                tracker.record_cost(0.5, "default", first.endpoint_id, user)
            tracker._owed.clear()
        with pytest.raises(WentToTheLoop):
            tracker.should_reject_request("default", first.endpoint_id, "bob")
        assert tracker.should_reject_request("default", first.endpoint_id, "alert") == (False, None)
    store.update_gateway_secret(secret, {"api_key": "another-key-of-it"})
    assert call("ann").models[0].secret_value == {"api_key": "another-key-of-it"}


def test_what_is_old_or_of_another_passphrase_is_asked_for(
    store: MongoDBStore, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve("chat", store)
    database = store.last_opened
    assert database is not None
    assert hooks.endpoint_at_hand(database, "chat") is not None
    assert hooks.endpoint_at_hand(database, "other") is None
    with monkeypatch.context() as patched:
        patched.setenv("MLFLOW_CRYPTO_KEK_PASSPHRASE", f"one that was never used, beside {secret}")
        assert hooks.endpoint_at_hand(database, "chat") is None, "the key takes its time: not in this thread"
    monkeypatch.setattr(remembered, "SECONDS", 0.0)
    assert hooks.endpoint_at_hand(database, "chat") is None


def test_a_passphrase_that_is_missing(
    store_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log warns of the one that everybody knows; a secret of another one is named, with the variable."""
    monkeypatch.setenv("MLFLOW_CRYPTO_KEK_PASSPHRASE", "a passphrase of this test")
    logger = logging.getLogger("mlflow.utils.crypto")
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    with closing(MongoDBStore(store_uri)) as store:
        own = store.create_gateway_secret("own", KEY).secret_id
        assert not caplog.records
        monkeypatch.delenv("MLFLOW_CRYPTO_KEK_PASSPHRASE")
        crypto._derive.cache_clear()
        known = store.create_gateway_secret("known", KEY).secret_id
        (record,) = set(caplog.records)  # twice if MLflow's loggers hand on to the root
        assert record.levelno == logging.WARNING
        assert "MLFLOW_CRYPTO_KEK_PASSPHRASE not set" in record.getMessage()
        assert store._get_decrypted_secret(known) == KEY
        with pytest.raises(MlflowException, match=r"'own'.*MLFLOW_CRYPTO_KEK_PASSPHRASE \(it is not set\)"):
            store._get_decrypted_secret(own)
        assert [each.secret_name for each in store.list_secret_infos()] == ["own", "known"]


async def called(store: MongoDBStore, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.gateway.schemas import chat
    from mlflow.server import gateway_api

    monkeypatch.setattr(gateway_api, "get_endpoint_config", resolve)
    provider, _ = gateway_api._create_provider_from_endpoint_name(
        store, "chat", gateway_api.EndpointType.LLM_V1_CHAT
    )
    await provider.chat(chat.RequestPayload(messages=[{"role": "user", "content": "ping"}]))


async def test_a_provider_inside_is_not_called(
    store: MongoDBStore, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's rule at the moment of the call: it goes by what is stored with the secret."""
    monkeypatch.delenv("MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS", raising=False)
    with pytest.raises(Exception, match="not a public IP address"):
        await called(store, monkeypatch)
    monkeypatch.setenv("MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS", "true")
    with pytest.raises(Exception, match=r"Cannot connect|Connect call failed"):
        await called(store, monkeypatch)
