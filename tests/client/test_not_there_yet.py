"""What MLflow's stores have and ours do not yet: refused at once and in words, however it is called."""

import logging
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import NOT_IMPLEMENTED, ErrorCode

from genesis_flow import MongoDBModelRegistryStore, MongoDBStore, aio
from genesis_flow.sync.missing import missing_methods
from tests.client.serving import mlflow_server

URI = "mongodb://127.0.0.1:9/nobody-is-asked"
MISSING = sorted(missing_methods(MongoDBStore))
CODE = ErrorCode.Name(NOT_IMPLEMENTED)

# An address for each area that is still to come, with a body that MLflow accepts.
ADDRESSES = {
    "list_label_schemas": ("GET", "/api/3.0/mlflow/label-schemas/list", {"experiment_id": "0"}),
    "list_review_queues": ("GET", "/api/3.0/mlflow/review-queues/list", {"experiment_id": "0"}),
    "search_issues": ("POST", "/api/3.0/mlflow/issues/search", {"experiment_id": "0"}),
    "list_scorers": ("GET", "/api/3.0/mlflow/scorers/list", {"experiment_id": "0"}),
    "list_secret_infos": ("GET", "/ajax-api/3.0/mlflow/gateway/secrets/list", {}),
    "list_gateway_endpoints": ("GET", "/api/3.0/mlflow/gateway/endpoints/list", {}),
    "list_budget_policies": ("GET", "/api/3.0/mlflow/gateway/budgets/list", {}),
    "search_mcp_servers": ("GET", "/ajax-api/3.0/mlflow/mcp-servers", {}),
}


def says(error: MlflowException, name: str) -> None:
    assert error.error_code == CODE
    assert name in error.message
    assert mlflow.__version__ in error.message


@pytest.mark.parametrize("name", MISSING)
def test_blocking_store(name: str) -> None:
    with pytest.raises(MlflowException) as caught:
        getattr(MongoDBStore(URI), name)("any", name="whatever")
    says(caught.value, name)


@pytest.mark.parametrize("name", MISSING)
async def test_asynchronous_store(name: str) -> None:
    with pytest.raises(MlflowException) as caught:
        await getattr(aio.MongoDBStore(URI), name)("any", arguments="whatever")
    says(caught.value, name)


def test_what_nobody_has_is_no_attribute() -> None:
    for store in (aio.MongoDBStore(URI), aio.MongoDBModelRegistryStore(URI)):
        with pytest.raises(AttributeError, match="no_such_method"):
            store.no_such_method  # noqa: B018


def test_a_method_that_arrives_is_not_refused() -> None:
    name = MISSING[0] if MISSING else pytest.skip("nothing is missing")
    arrived = type("Arrived", (MongoDBStore,), {name: lambda self: "there"})
    assert getattr(arrived(URI), name)() == "there"


def test_inherited_methods_that_work_are_not_refused() -> None:
    assert not {"log_batch_async", "search_runs", "flush_async_logging"} & set(MISSING)
    assert not missing_methods(MongoDBModelRegistryStore)


@pytest.mark.slow
def test_server(store_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """501 in JSON, one line in the log; MLflow's client asks once and hands the sentence on."""
    import requests
    from mlflow.genai.scorers import Guidelines

    with mlflow_server(store_uri, tmp_path) as (address, _):
        for name, (method, path, body) in ADDRESSES.items():
            if name in MISSING:
                sent: dict[str, Any] = {"params": body} if method == "GET" else {"json": body}
                answer = requests.request(method, address + path, timeout=60, **sent)
                assert (answer.status_code, answer.json()["error_code"]) == (501, CODE), (name, answer.text)
                assert name in answer.json()["message"]
        if "register_scorer" in MISSING:
            mlflow.set_tracking_uri(address)
            with caplog.at_level(logging.WARNING), pytest.raises(MlflowException, match="register_scorer"):
                Guidelines(name="short", guidelines="Be short.").register(experiment_id="0")
        log = (tmp_path / "log").read_text()
    asked = [line for line in log.splitlines() if "register_scorer yet" in line]
    assert len(asked) == ("register_scorer" in MISSING), log
