"""The registry behind MLflow's server: what its UI and REST clients send and get."""

from typing import Any

import pytest
from cryptography.fernet import Fernet

from genesis_flow.areas.webhooks import secrets

SECRET = "s3cr3t-of-the-hook"


class Rest:
    """The server's endpoints, called in this process."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __call__(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        sent = {"query_string": body} if method == "GET" else {"json": body}
        answer = self._client.open(f"/api/2.0/mlflow/{path}", method=method, **sent)
        assert answer.status_code == 200, answer.get_data(as_text=True)
        assert SECRET not in answer.get_data(as_text=True)
        found: dict[str, Any] = answer.get_json()
        return found


@pytest.fixture
def rest(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Rest:
    from mlflow.server import app, handlers

    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", store_uri)
    monkeypatch.setenv("_MLFLOW_SERVER_REGISTRY_STORE", store_uri)
    monkeypatch.setattr(handlers, "_tracking_store", None)
    monkeypatch.setattr(handlers, "_model_registry_store", None)
    return Rest(app.test_client())


def test_models_and_versions(rest: Rest) -> None:
    rest("POST", "registered-models/create", name="m", description="d", tags=[{"key": "k", "value": "v"}])
    for number in ("1", "2"):
        created = rest("POST", "model-versions/create", name="m", source="s3://bucket/x")
        assert created["model_version"]["version"] == number
    rest("POST", "registered-models/alias", name="m", alias="best", version="1")
    by_alias = rest("GET", "registered-models/alias", name="m", alias="best")
    assert (by_alias["model_version"]["version"], by_alias["model_version"]["aliases"]) == ("1", ["best"])
    rest(
        "POST",
        "model-versions/transition-stage",
        name="m",
        version="2",
        stage="Production",
        archive_existing_versions=True,
    )
    rest("PATCH", "model-versions/update", name="m", version="2", description="text")
    rest("POST", "model-versions/set-tag", name="m", version="2", key="k", value="v")
    model = rest("GET", "registered-models/get", name="m")["registered_model"]
    assert {v["current_stage"] for v in model["latest_versions"]} == {"None", "Production"}
    assert model["aliases"] == [{"alias": "best", "version": "1"}]
    rest("POST", "registered-models/rename", name="m", new_name="n")
    assert rest("GET", "registered-models/search")["registered_models"][0]["name"] == "n"
    found = rest("GET", "model-versions/search", filter="name = 'n'", max_results=1)
    assert found["next_page_token"]
    rest("DELETE", "model-versions/delete", name="n", version="1")
    rest("DELETE", "registered-models/delete", name="n")
    assert rest("GET", "registered-models/search") == {}


def test_webhooks_sign_but_do_not_tell(rest: Rest) -> None:
    events = [{"entity": "REGISTERED_MODEL", "action": "CREATED"}]
    made = rest("POST", "webhooks", name="hook", url="https://8.8.8.8/x", events=events, secret=SECRET)
    webhook_id = made["webhook"]["webhook_id"]
    assert rest("GET", f"webhooks/{webhook_id}")["webhook"]["name"] == "hook"
    rest("PATCH", f"webhooks/{webhook_id}", name="other")
    assert [webhook["name"] for webhook in rest("GET", "webhooks")["webhooks"]] == ["other"]
    rest("DELETE", f"webhooks/{webhook_id}")
    assert rest("GET", "webhooks") == {}
