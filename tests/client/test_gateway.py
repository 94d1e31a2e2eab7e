"""The AI gateway under ``genesis-flow server``, with two workers, from the key to the trace with its cost."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymongo
import pytest
import requests
from mlflow.entities.gateway_guardrail import GuardrailAction, GuardrailStage
from mlflow.genai.judges import make_judge

from genesis_flow import MongoDBStore
from tests.client.conftest import PATIENCE_SECONDS
from tests.client.fake_provider import Provider, fake_provider
from tests.client.test_server_command import Server
from tests.mongod import Mongod, unique

KEY = "sk-canary-7f3a9c1b5d"
PASSPHRASE = "a passphrase of the tests, which is long"
HELLO = [{"role": "user", "content": "ping"}]


class Gateway:
    """A running server, by its REST interface."""

    def __init__(self, server: Server, provider: Provider, uri: str) -> None:
        self.server = server
        self.provider = provider
        self.uri = uri

    def post(self, path: str, content: dict[str, Any]) -> requests.Response:
        return requests.post(self.server.address + path, json=content, timeout=PATIENCE_SECONDS)

    def manage(self, path: str, content: dict[str, Any]) -> dict[str, Any]:
        answer = self.post(f"/api/3.0/mlflow/gateway/{path}/create", content)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = next(iter(answer.json().values()))
        assert KEY not in answer.text
        return made

    def model(self, name: str, model_name: str = "gpt-4o") -> str:
        secret = self.manage(
            "secrets",
            {
                "secret_name": f"key of {name}",
                "secret_value": {"api_key": KEY},
                "provider": "openai",
                "auth_config": {"api_base": self.provider.address},
            },
        )
        made = self.manage(
            "model-definitions",
            {
                "name": name,
                "secret_id": secret["secret_id"],
                "provider": "openai",
                "model_name": model_name,
            },
        )
        return str(made["model_definition_id"])

    def endpoint(self, name: str, *models: dict[str, Any], **more: Any) -> dict[str, Any]:
        return self.manage(
            "endpoints", {"name": name, "model_configs": models, "usage_tracking": True, **more}
        )

    def call(self, name: str, **more: Any) -> requests.Response:
        return self.post(f"/gateway/{name}/mlflow/invocations", {"messages": HELLO, **more})


def linked(model: str, kind: str = "PRIMARY", **more: Any) -> dict[str, Any]:
    return {"model_definition_id": model, "linkage_type": kind, "weight": 1.0, **more}


@pytest.fixture(scope="module")
def gateway(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    name = unique("gateway")
    uri = mongod.database_uri(name)
    folder: Path = tmp_path_factory.mktemp("gateway")
    environment = {
        "MLFLOW_CRYPTO_KEK_PASSPHRASE": PASSPHRASE,
        "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
        "GENESIS_FLOW_AUDIT": "true",
        "NO_PROXY": "127.0.0.1",
    }
    with fake_provider() as provider:
        server = Server(folder, "--backend-store-uri", uri, "--workers", "2", **environment)
        try:
            server.wait_for_address()
            yield Gateway(server, provider, uri)
        finally:
            server.stop()
            with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
                client.drop_database(name)


def until(holds: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def test_a_call_is_answered_and_traced_with_its_cost(gateway: Gateway) -> None:
    made = gateway.endpoint("chat", linked(gateway.model("chat")))
    for _ in range(4):
        answer = gateway.call("chat")
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "pong"
    assert (f"Bearer {KEY}", "gpt-4o") in gateway.provider.calls
    answer = gateway.post("/gateway/mlflow/v1/chat/completions", {"model": "chat", "messages": HELLO})
    assert answer.status_code == 200, answer.text
    answer = gateway.post("/gateway/openai/v1/embeddings", {"model": "chat", "input": "ping"})
    assert answer.status_code == 200, answer.text
    with closing(MongoDBStore(gateway.uri)) as store:
        spent = until(lambda: store.sum_gateway_trace_cost(0, 2**53, endpoint_id=made["endpoint_id"]))
        assert spent > 0
        traces, _ = store.search_traces(locations=[made["experiment_id"]])
        assert {trace.state for trace in traces} == {"OK"}
    missing = gateway.call("nowhere")
    assert missing.status_code == 404, missing.text


def test_a_stream(gateway: Gateway) -> None:
    gateway.endpoint("stream", linked(gateway.model("stream")))
    answer = gateway.call("stream", stream=True)
    assert answer.status_code == 200
    assert '"po"' in answer.text
    assert '"ng"' in answer.text


def test_the_next_model_answers_for_one_that_fails(gateway: Gateway) -> None:
    broken = gateway.model("broken", "broken")
    working = gateway.model("working")
    gateway.endpoint(
        "fallback",
        linked(broken),
        linked(working, "FALLBACK", fallback_order=0),
        fallback_config={"strategy": "SEQUENTIAL", "max_attempts": 1},
    )
    answer = gateway.call("fallback")
    assert answer.status_code == 200, answer.text
    gateway.endpoint("only-broken", linked(broken))
    refused = gateway.call("only-broken")
    assert refused.status_code == 500
    assert "the provider is broken" in refused.text


def test_a_budget_that_is_spent_stops_both_workers(gateway: Gateway) -> None:
    made = gateway.endpoint("limited", linked(gateway.model("limited")))
    gateway.manage(
        "budgets",
        {
            "budget_unit": "USD",
            "budget_amount": 0.00001,
            "duration": {"unit": "DAYS", "value": 1},
            "target_scope": "ENDPOINT",
            "target_value": made["endpoint_id"],
            "budget_action": "REJECT",
        },
    )
    until(lambda: gateway.call("limited").status_code == 429)
    # Every worker refuses in the end: many calls in a row, whoever answers them.
    until(lambda: {gateway.call("limited").status_code for _ in range(12)} == {429})


def test_a_new_key_reaches_both_workers(gateway: Gateway) -> None:
    gateway.endpoint("renewed", linked(gateway.model("renewed")))
    assert {gateway.call("renewed").status_code for _ in range(4)} == {200}
    with closing(MongoDBStore(gateway.uri)) as store:
        secret = store.get_secret_info(secret_name="key of renewed").secret_id
    other = "sk-another-canary-1234"
    answer = gateway.post(
        "/api/3.0/mlflow/gateway/secrets/update", {"secret_id": secret, "secret_value": {"api_key": other}}
    )
    assert answer.status_code == 200, answer.text
    time.sleep(1.5)  # what workers remember is a second old at most
    begin = len(gateway.provider.calls)
    assert {gateway.call("renewed").status_code for _ in range(12)} == {200}
    assert {key for key, _ in gateway.provider.calls[begin:]} == {f"Bearer {other}"}


def test_a_guardrail_refuses(gateway: Gateway) -> None:
    judge = gateway.endpoint("judge", linked(gateway.model("judge")))
    guarded = gateway.endpoint("guarded", linked(gateway.model("guarded")))
    assert judge["endpoint_id"] != guarded["endpoint_id"]
    scorer = make_judge(
        name="no_bombs",
        instructions="Is {{ inputs }} free of bombs? Answer yes or no.",
        model="gateway:/judge",
        feedback_value_type=str,
    )
    text = json.dumps(scorer.model_dump())
    with closing(MongoDBStore(gateway.uri)) as store:
        version = store.register_scorer("0", "no_bombs", text)
        made = store.create_gateway_guardrail(
            "no bombs", version.scorer_id, 1, GuardrailStage.BEFORE, GuardrailAction.VALIDATION
        )
        store.add_guardrail_to_endpoint(guarded["endpoint_id"], made.guardrail_id)
    time.sleep(1.5)
    passed = gateway.call("guarded")
    assert passed.status_code == 200, passed.text
    refused = gateway.post(
        "/gateway/guarded/mlflow/invocations",
        {"messages": [{"role": "user", "content": "a load of dynamite"}]},
    )
    assert refused.status_code == 400, refused.text
    assert "no bombs" in refused.text


def test_the_key_is_nowhere_in_clear(gateway: Gateway) -> None:
    """Last of the file: the database with audit trail and traces, and the log, of all that came before."""
    assert gateway.call("chat").status_code == 200
    assert KEY not in gateway.server.said
    assert PASSPHRASE not in gateway.server.said
    seen = 0
    with pymongo.MongoClient[dict[str, Any]](gateway.uri) as client:
        database = client.get_default_database()
        for name in database.list_collection_names():
            for document in database[name].find():
                seen += 1
                assert KEY not in repr(document), (name, document["_id"])
        assert database["audit"].count_documents({"operation": "create_gateway_secret"}) > 0
    assert seen > 20
