"""Label schemas, review queues and issues: behind MLflow's server, and from `mlflow.genai` without one."""

from typing import Any

import mlflow
import pytest
from mlflow.genai import label_schemas, review_queues
from mlflow.genai.label_schemas import InputCategorical, InputText

from genesis_flow import MongoDBStore
from tests.contract.trace_scenes import stated, trace_id
from tests.versions import since_3_18


class Rest:
    """The server's addresses, called in this process."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __call__(
        self, method: str, path: str, more: dict[str, Any] | None = None, *, status: int = 200, **body: Any
    ) -> dict[str, Any]:
        body |= more or {}
        sent: dict[str, Any] = {"query_string": body} if method == "GET" else {"json": body}
        answer = self._client.open(f"/api/3.0/mlflow/{path}", method=method, **sent)
        assert answer.status_code == status, answer.get_data(as_text=True)
        found: dict[str, Any] = answer.get_json()
        return found


@pytest.fixture
def rest(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Rest:
    from mlflow.server import app, handlers

    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", store_uri)
    monkeypatch.setenv("_MLFLOW_SERVER_REGISTRY_STORE", store_uri)
    monkeypatch.setattr(handlers, "_tracking_store", None)
    monkeypatch.setattr(handlers, "_model_registry_store", None)
    return Rest(app.test_client())


def test_label_schemas_behind_the_server(rest: Rest) -> None:
    made = rest(
        "POST",
        "label-schemas/create",
        experiment_id="0",
        name="good",
        type="FEEDBACK",
        input={"categorical": {"options": ["a", "b"]}},
    )["label_schema"]
    schema_id = made["schema_id"]
    assert rest("GET", "label-schemas/get", schema_id=schema_id)["label_schema"] == made
    by_name = rest("GET", "label-schemas/get-by-name", experiment_id="0", name="good")
    assert by_name["label_schema"] == made
    rest("PATCH", "label-schemas/update", schema_id=schema_id, name="better")
    listed = rest("GET", "label-schemas/list", experiment_id="0")["label_schemas"]
    assert {schema["name"] for schema in listed} == {"better", "Feedback"}
    rest("DELETE", "label-schemas/delete", schema_id=schema_id)
    rest("GET", "label-schemas/get", schema_id=schema_id, status=404)


def test_review_queues_behind_the_server(rest: Rest, store_uri: str) -> None:
    traced = trace_id(1)
    MongoDBStore(store_uri).start_trace(stated(traced))
    queue = rest(
        "POST", "review-queues/create", experiment_id="0", name="q", queue_type="CUSTOM", users=["Ann"]
    )["review_queue"]
    queue_id = queue["queue_id"]
    assert rest("GET", "review-queues/get", queue_id=queue_id)["review_queue"] == queue
    by_name = rest("GET", "review-queues/get-by-name", experiment_id="0", name="Q")
    assert by_name["review_queue"] == queue
    rest("POST", "review-queues/get-or-create-user", experiment_id="0", user="ann")
    listed = rest("GET", "review-queues/list", experiment_id="0", user="ann")["review_queues"]
    assert {each["name"] for each in listed} == {"q", "ann"}
    rest("POST", "review-queues/update", queue_id=queue_id, name="r")
    items = {"queue_id": queue_id, "item_ids": [traced]}
    assert len(rest("POST", "review-queues/items/add", **items)["items"]) == 1
    rest("POST", "review-queues/items/add", queue_id=queue_id, item_ids=["unknown"], status=404)
    done = rest(
        "POST",
        "review-queues/items/set-status",
        {"status": "COMPLETE"},
        queue_id=queue_id,
        item_id=traced,
        completed_by="ann",
    )
    assert done["item"]["completed_by"] == "ann"
    listed = rest("GET", "review-queues/items/list", queue_id=queue_id)["items"]
    assert [item["item_id"] for item in listed] == [traced]
    rest("POST", "review-queues/items/remove", **items)
    rest("POST", "review-queues/delete", queue_id=queue_id)
    rest("GET", "review-queues/get", queue_id=queue_id, status=404)


def test_issues_behind_the_server(rest: Rest) -> None:
    issue = rest("POST", "issues", experiment_id="0", name="i", description="d", severity="high")["issue"]
    path = f"issues/{issue['issue_id']}"
    assert rest("GET", path)["issue"] == issue
    assert rest("PATCH", path, issue_id=issue["issue_id"], name="j")["issue"]["name"] == "j"
    found = rest("POST", "issues/search", experiment_id="0", include_trace_count=True)["issues"]
    assert [each["name"] for each in found] == ["j"]
    rest("GET", "issues/iss-none", status=404)


@pytest.fixture
def direct(store_uri: str) -> str:
    """An experiment, in a process that talks to the database itself."""
    mlflow.set_tracking_uri(store_uri)
    return str(mlflow.set_experiment("reviewed").experiment_id)


def test_mlflow_genai_without_a_server(direct: str) -> None:
    made = label_schemas.create_label_schema(
        name="good", type="feedback", input=InputCategorical(options=["a", "b"]), experiment_id=direct
    )
    assert label_schemas.get_label_schema(schema_id=made.schema_id) == made
    label_schemas.update_label_schema(schema_id=made.schema_id, instruction="say")
    listed = label_schemas.list_label_schemas(experiment_id=direct)
    assert {schema.name: schema.input for schema in listed}["Feedback"] == InputText()
    queue = review_queues.create_review_queue(
        experiment_id=direct, name="q", queue_type="custom", users=["ann"], schema_ids=[made.schema_id]
    )
    review_queues.add_items_to_review_queue(queue_id=queue.queue_id, item_ids=["tr-1"])
    review_queues.set_review_queue_item_status(
        queue_id=queue.queue_id, item_id="tr-1", status="complete", completed_by="Ann"
    )
    (item,) = review_queues.list_review_queue_items(queue_id=queue.queue_id)
    assert (str(item.status), item.completed_by) == ("complete", "ann")
    assert len(review_queues.list_review_queues(experiment_id=direct, user="ann")) == 1
    review_queues.delete_review_queue(queue_id=queue.queue_id)
    label_schemas.delete_label_schema(schema_id=made.schema_id)


@since_3_18
def test_issues_of_mlflow_genai_without_a_server(direct: str) -> None:
    from mlflow.entities.issue import IssueSeverity
    from mlflow.genai import issues  # type: ignore[attr-defined, unused-ignore]

    made = issues.create_issue(
        "slow", severity=IssueSeverity.HIGH, description="d", categories=["latency"], metadata={"a": "b"}
    )
    assert issues.get_issue(made.issue_id) == made
    issues.update_issue(made.issue_id, metadata={"c": "d"})
    (found,) = issues.search_issues(name="SLO", categories=["Latency"])
    assert found.metadata == {"a": "b", "c": "d"}
