"""The AI gateway under ``genesis-flow server``, with two workers, from the key to the trace with its cost."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymongo
import pytest
import requests
from click.testing import CliRunner
from mlflow.entities.gateway_guardrail import GuardrailAction, GuardrailStage
from mlflow.genai.judges import make_judge

from genesis_flow import MongoDBStore
from genesis_flow.cli.main import cli
from tests.client.conftest import PATIENCE_SECONDS
from tests.client.fake_provider import ANSWER_TOKENS, PROMPT_TOKENS, Provider, fake_provider
from tests.client.test_server_command import Server
from tests.mongod import Mongod, unique

KEY = "sk-canary-7f3a9c1b5d"
PASSPHRASE = "a passphrase of the tests, which is long"
AT_START = Path(__file__).parent / "at_start"
# What the fake provider's tokens cost with gpt-4o, by MLflow's price list.
COST = 7 * 2.5e-6 + 3 * 1e-5
NEXT_PASSPHRASE = "the next passphrase of the tests"
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

    def model(self, name: str, model_name: str = "gpt-4o", provider: str = "openai", path: str = "") -> str:
        secret = self.manage(
            "secrets",
            {
                "secret_name": f"key of {name}",
                "secret_value": {"api_key": KEY},
                "provider": provider,
                "auth_config": {"api_base": self.provider.address + path},
            },
        )
        made = self.manage(
            "model-definitions",
            {
                "name": name,
                "secret_id": secret["secret_id"],
                "provider": provider,
                "model_name": model_name,
            },
        )
        return str(made["model_definition_id"])

    def budget(self, made: dict[str, Any], amount: float) -> None:
        """No more than that for calls of an endpoint, in a window that ends in none of our lives."""
        self.manage(
            "budgets",
            {
                "budget_unit": "USD",
                "budget_amount": amount,
                "duration": {"unit": "DAYS", "value": 40_000},
                "target_scope": "ENDPOINT",
                "target_value": made["endpoint_id"],
                "budget_action": "REJECT",
            },
        )

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
        "GENESIS_FLOW_NEXT_KEK_PASSPHRASE": NEXT_PASSPHRASE,
        "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
        "GENESIS_FLOW_AUDIT": "true",
        "NO_PROXY": "127.0.0.1",
        # Prices of models come with MLflow: nothing asks for newer ones.
        "MLFLOW_MODEL_CATALOG_URI": "",
        "MLFLOW_ASYNC_TRACE_LOGGING_MAX_INTERVAL_MILLIS": "100",
        "PYTHONPATH": os.pathsep.join(filter(None, (str(AT_START), os.environ.get("PYTHONPATH")))),
    }
    with fake_provider() as provider:
        environment["GEMINI_OF_TESTS"] = f"{provider.address}/v1beta/models"
        server = Server(folder, "--backend-store-uri", uri, "--workers", "2", **environment)
        try:
            server.wait_for_address()
            yield Gateway(server, provider, uri)
        finally:
            server.stop()
            with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
                client.drop_database(name)


def ended(store: MongoDBStore, made: dict[str, Any], number: int = 1) -> list[Any]:
    """The traces of an endpoint, once they are all there: they are written behind the answers."""

    def all_there() -> list[Any]:
        traces = store.search_traces(locations=[made["experiment_id"]])[0]
        return (
            traces if len(traces) == number and all(trace.state != "IN_PROGRESS" for trace in traces) else []
        )

    found: list[Any] = until(all_there)
    return found


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
        assert {trace.state for trace in ended(store, made, 6)} == {"OK"}
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
    """Each call is a connection of its own, which either worker may take."""
    made = gateway.endpoint("limited", linked(gateway.model("limited")))
    gateway.budget(made, 2.5 * COST)
    time.sleep(1.0)  # until both workers have heard of the budget
    assert [gateway.call("limited").status_code for _ in range(12)] == [200] * 3 + [429] * 9
    windows = gateway.server.get("/api/3.0/mlflow/gateway/budgets/windows").json()["windows"]
    assert pytest.approx(3 * COST) in [window["current_spend"] for window in windows]


def test_callers_at_the_edge_of_a_budget(gateway: Gateway) -> None:
    """It is overspent by calls in flight alone."""
    made = gateway.endpoint("edge", linked(gateway.model("edge")))
    gateway.budget(made, 6 * COST - 1e-9)
    time.sleep(1.0)
    answered: list[int] = []

    def call_until_it_is_refused() -> None:
        while (status := gateway.call("edge").status_code) == 200:
            answered.append(status)
        answered.append(status)

    callers = [threading.Thread(target=call_until_it_is_refused) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(PATIENCE_SECONDS)
    assert answered.count(429) == len(callers), answered
    assert 6 <= answered.count(200) <= 5 + len(callers), answered


PASSTHROUGHS = {
    "messages": ("anthropic", "claude-sonnet-4-5", "/gateway/anthropic/v1/messages"),
    "generate": ("gemini", "gemini-2.5-flash", "/gateway/gemini/v1beta/models/{}:generateContent"),
    "streamed": ("gemini", "gemini-2.5-flash", "/gateway/gemini/v1beta/models/{}:streamGenerateContent"),
    "chat": ("openai", "gpt-4o", "/gateway/openai/v1/chat/completions"),
    "proxied": ("anthropic", "claude-sonnet-4-5", "/gateway/proxy/{}/v1/messages"),
}


@pytest.mark.parametrize(
    ("route", "streams"),
    [
        ("messages", False),
        ("messages", True),
        ("generate", False),
        ("streamed", True),
        ("chat", False),
        ("proxied", False),
        ("proxied", True),
    ],
)
def test_routes_of_providers(gateway: Gateway, route: str, streams: bool) -> None:
    """The provider's own protocol goes through, with the key of the endpoint and a trace of what it used."""
    provider, model, path = PASSTHROUGHS[route]
    name = f"{route}-{'stream' if streams else 'whole'}"
    made = gateway.endpoint(name, linked(gateway.model(name, model, provider, "/v1")))
    asked = {
        "gemini": {"contents": [{"role": "user", "parts": [{"text": "ping"}]}]},
        "anthropic": {"model": name, "max_tokens": 9, "messages": HELLO, "stream": streams},
        "openai": {"model": name, "messages": HELLO},
    }[provider]
    if route == "proxied":
        asked["model"] = model
    answer = gateway.post(path.format(name), asked)
    assert answer.status_code == 200, answer.text
    assert KEY not in answer.text
    words = ("po", "ng") if streams else ("pong",)
    assert all(f'"{word}"' in answer.text for word in words), answer.text
    assert (f"Bearer {KEY}" if provider == "openai" else KEY, model) in gateway.provider.calls
    if name == "proxied-whole":  # MLflow never ends the trace of such a call
        return
    with closing(MongoDBStore(gateway.uri)) as store:
        (trace,) = ended(store, made)
        assert trace.state == "OK"
        assert trace.trace_metadata["mlflow.gateway.endpointId"] == made["endpoint_id"]
        if route == "proxied":
            assert trace.token_usage is None, "MLflow does not look into what is proxied"
            return
        assert trace.token_usage["total_tokens"] == PROMPT_TOKENS + ANSWER_TOKENS
        assert until(lambda: store.sum_gateway_trace_cost(0, 2**53, endpoint_id=made["endpoint_id"])) > 0


def test_a_provider_that_fails_and_one_that_cannot(gateway: Gateway) -> None:
    broken = gateway.endpoint("broken-claude", linked(gateway.model("claude", "broken", "anthropic", "/v1")))
    asked = {"model": "broken-claude", "max_tokens": 9, "messages": HELLO}
    refused = gateway.post("/gateway/anthropic/v1/messages", asked)
    assert refused.status_code == 500, refused.text
    assert "the provider is broken" in refused.text
    wrong = gateway.post("/gateway/gemini/v1beta/models/broken-claude:generateContent", {"contents": []})
    assert wrong.status_code == 400, wrong.text
    assert "/gateway/anthropic/v1/messages" in wrong.text
    with closing(MongoDBStore(gateway.uri)) as store:
        assert {trace.state for trace in ended(store, broken, 2)} == {"ERROR"}


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


def test_no_call_fails_while_the_passphrase_is_changed(gateway: Gateway) -> None:
    """Whatever the command does meanwhile to the secrets of the other tests, they stay readable, too."""
    model = gateway.model("rotated")
    gateway.endpoint("rotated", linked(model))
    gateway.endpoint("called-later", linked(model))
    answers: list[requests.Response] = []
    enough = threading.Event()

    def call_all_the_time() -> None:
        while not enough.is_set():
            answers.append(gateway.call("rotated"))

    callers = [threading.Thread(target=call_all_the_time) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        until(lambda: len(answers) >= 6)
        environment = {
            "MLFLOW_CRYPTO_KEK_PASSPHRASE": PASSPHRASE,
            "GENESIS_FLOW_NEXT_KEK_PASSPHRASE": NEXT_PASSPHRASE,
        }
        done = CliRunner().invoke(
            cli, ["gateway", "rotate-key", "--uri", gateway.uri, "--yes"], env=environment
        )
        assert done.exit_code == 0, done.output
        before = len(answers)
        until(lambda: len(answers) >= before + 6)
    finally:
        enough.set()
        for caller in callers:
            caller.join(PATIENCE_SECONDS)
    with pymongo.MongoClient[dict[str, Any]](gateway.uri) as client:
        secret = client.get_default_database()["gateway_secrets"].find_one({"name": "key of rotated"})
        assert secret is not None
        assert secret["kek_version"] == 2
    # No worker remembers an endpoint that was not called yet.
    answers += [gateway.call("called-later") for _ in range(8)]
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    assert {key for key, _ in gateway.provider.calls[-8:]} == {f"Bearer {KEY}"}


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
    """In the database with its audit trail and traces, and in the log, of this and all that came before."""
    made = gateway.endpoint("secretive", linked(gateway.model("secretive")))
    assert gateway.call("secretive").status_code == 200
    assert gateway.call("nowhere").status_code == 404
    with closing(MongoDBStore(gateway.uri)) as store:
        ended(store, made)
    assert KEY not in gateway.server.said
    assert not {text for text in (PASSPHRASE, NEXT_PASSPHRASE) if text in gateway.server.said}
    with pymongo.MongoClient[dict[str, Any]](gateway.uri) as client:
        database = client.get_default_database()
        names = database.list_collection_names()
        assert {"gateway_secrets", "traces", "audit"} <= set(names)
        for name in names:
            for document in database[name].find():
                assert KEY not in repr(document), (name, document["_id"])
        assert database["audit"].count_documents({"operation": "create_gateway_secret"}) > 0
