"""Every route of MLflow's server for judges, people and the gateway, with what a careless caller may send.

Those of ``test_reviews.py``, ``test_judges.py`` and ``test_gateway.py`` are called as they are meant.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

AREAS = ("gateway", "scorers", "scorer", "label-schemas", "review-queues", "issues", "genai", "jobs")
# Under /api the same functions answer.
PATH = re.compile(rf"/ajax-api/3\.0/mlflow/({'|'.join(AREAS)})(/|$)")
NOBODY = "nobody"
# MLflow 3.17.2 has 73.
LEAST = 73
# Texts that MLflow's server itself looks up, and fails with a page of HTML if there is none such.
KNOWN = {"experiment_id": "0", "status": "pending", "severity": "low", "resource_type": "scorer"}
# Routes that are no methods of a service declare no fields.
UNDECLARED: dict[str, dict[str, Any]] = {
    "scorer/invoke": {
        "experiment_id": "0",
        "serialized_scorer": json.dumps({"name": NOBODY, "call_source": "return 1"}),
        "trace_ids": [NOBODY],
    },
    "issues/invoke": {
        "experiment_id": "0",
        "trace_ids": [NOBODY],
        "categories": [NOBODY],
        "provider": "openai",
        "model": NOBODY,
        "secret_id": NOBODY,
    },
    "genai/evaluate/invoke": {
        "experiment_id": "0",
        "trace_ids": [NOBODY],
        "serialized_scorers": ["{}"],
    },
    "issues/schedule/state": {"experiment_id": "0"},
    "scorers/online-config": {"experiment_id": "0", "name": NOBODY, "sample_rate": 2},
    "scorers/online-configs": {"scorer_ids": NOBODY},
}
# Where MLflow 3.18 answers that something is missing with a page of HTML, on every store.
NEVER_EMPTY = ("issues/schedule/state",)


def fields_of_routes() -> dict[tuple[str, str], Any]:
    """The message that a route takes, by its path and its method."""
    from mlflow.protos import databricks_pb2
    from mlflow.protos.service_pb2 import MlflowService

    found = {}
    for method in MlflowService.DESCRIPTOR.methods:
        for endpoint in method.GetOptions().Extensions[databricks_pb2.rpc].endpoints:
            path = endpoint.path.replace("{", "<").replace("}", ">")
            found[path.removeprefix("/mlflow/"), endpoint.method] = method.input_type
    return found


def filled(message: Any, text: str) -> dict[str, Any]:
    """A value for each field: a text, a number, the first of an enumeration."""
    content = {}
    for field in message.fields:
        if field.enum_type is not None:
            value: Any = field.enum_type.values[-1].name
        elif field.message_type is not None:
            if field.message_type.GetOptions().map_entry:
                content[field.name] = {text: text}
                continue
            value = filled(field.message_type, text)
        elif field.cpp_type == field.CPPTYPE_STRING:
            value = KNOWN.get(field.name, text)
        else:
            value = field.cpp_type == field.CPPTYPE_BOOL or 1
        content[field.name] = [value] if field.is_repeated else value
    return content


def routes() -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    from mlflow.server import handlers

    fields = fields_of_routes()
    for path, _, methods in handlers.get_endpoints():
        if not PATH.match(path):
            continue
        name = path.partition("/mlflow/")[2]
        for method in methods:
            message = fields.get((name, method))
            contents = [{}] * (name not in NEVER_EMPTY) + [UNDECLARED.get(name, {})]
            if message is not None:
                contents = [{}, filled(message, NOBODY), filled(message, "")]
            yield re.sub(r"<[\w:]+>", NOBODY, path), method, contents


@pytest.fixture
def client(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    from mlflow.server import app, handlers

    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", store_uri)
    monkeypatch.setenv("MLFLOW_CRYPTO_KEK_PASSPHRASE", "a passphrase of the tests, which is long")
    # As `genesis-flow server` does it; and nothing asks for newer prices of models.
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    monkeypatch.setenv("MLFLOW_MODEL_CATALOG_URI", "")
    monkeypatch.setattr(handlers, "_tracking_store", None)
    monkeypatch.setattr(handlers, "_job_store", None)
    return app.test_client()


def test_no_answer_is_a_page_of_html(client: Any) -> None:
    """Whatever is wrong is said in JSON; whatever is unknown or missing is no failure of the server."""
    called = set()
    for path, method, contents in routes():
        called.add((method, path.partition("/mlflow/")[2]))
        for content in contents:
            sent = {"query_string": content} if method == "GET" else {"json": content}
            answer = client.open(path, method=method, **sent)
            told = (method, path, content, answer.status_code, answer.get_data(as_text=True))
            assert answer.mimetype == "application/json", told
            assert answer.status_code == 200 or answer.get_json()["error_code"], told
    areas = {path.partition("/")[0] for _, path in called}
    assert areas == set(AREAS), "MLflow has routes elsewhere"
    assert len(called) >= LEAST
