"""What MLflow's stores have and ours do not yet: refused at once and in words, however it is called."""

from typing import Any, NoReturn

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import NOT_IMPLEMENTED, ErrorCode
from mlflow.utils.request_utils import _TRANSIENT_FAILURE_RESPONSE_CODES

from genesis_flow import MongoDBModelRegistryStore, MongoDBStore, aio
from genesis_flow.sync.missing import _refuse, missing_methods

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


def test_server(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """501 in JSON, after which MLflow's clients do not ask again; of one more, as if it were missing."""
    from mlflow.server import app, handlers

    def missing(*_: Any, **__: Any) -> NoReturn:
        _refuse("list_scorers")

    monkeypatch.setattr(MongoDBStore, "list_scorers", missing)
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", store_uri)
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    monkeypatch.setattr(handlers, "_tracking_store", None)
    client = app.test_client()
    for name, (method, path, body) in ADDRESSES.items():
        if name in (*MISSING, "list_scorers"):
            sent: dict[str, Any] = {"query_string": body} if method == "GET" else {"json": body}
            answer = client.open(path, method=method, **sent)
            told = answer.get_data(as_text=True)
            assert (answer.status_code, answer.get_json()["error_code"]) == (501, CODE), (name, told)
            assert name in answer.get_json()["message"]
    assert answer.status_code not in _TRANSIENT_FAILURE_RESPONSE_CODES
