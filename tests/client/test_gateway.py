"""The AI gateway under ``genesis-flow server``, with two workers, from the key to the trace with its cost."""

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pymongo
import pytest
import requests
from click.testing import CliRunner
from mlflow.entities.gateway_guardrail import GuardrailAction, GuardrailStage
from mlflow.gateway.providers.base import PASSTHROUGH_ROUTES, PassthroughAction
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

    def is_whole(trace: Any) -> bool:
        # Its spans, which say how it ended, and what is known of it beside them come each in their own time.
        return trace.state != "IN_PROGRESS" and "mlflow.gateway.endpointId" in trace.trace_metadata

    def all_there() -> list[Any]:
        traces = store.search_traces(locations=[made["experiment_id"]])[0]
        return traces if len(traces) == number and all(map(is_whole, traces)) else []

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
    "responses": ("openai", "gpt-4o", "/gateway/openai/v1/responses"),
    "compact": ("openai", "gpt-4o", "/gateway/openai/v1/responses/compact"),
    "embeddings": ("openai", "text-embedding-3-small", "/gateway/openai/v1/embeddings"),
    "decisions": ("typesafe", "jev-1", "/gateway/typesafe/v1/systemone"),
    "proxied": ("anthropic", "claude-sonnet-4-5", "/gateway/proxy/{}/v1/messages"),
}
# What the routes of MLflow's own protocol are called with, by other tests.
UNIFIED = {
    "/gateway/{}/mlflow/invocations",
    "/gateway/mlflow/v1/chat/completions",
    "/gateway/mlflow/v1/models",
}


def test_every_route_is_called() -> None:
    """One that a version of MLflow adds fails here until somebody has looked at it."""
    text = Path(mlflow.__file__).with_name("server").joinpath("gateway_api.py").read_text()
    written = re.findall(
        r"@gateway_router\.\w+\(\s*(?:\"([^\"]+)\"|PASSTHROUGH_ROUTES\[PassthroughAction\.(\w+)])", text
    )
    assert len(written) == text.count("@gateway_router."), "a route is written in another way"
    found = {path or PASSTHROUGH_ROUTES[PassthroughAction[name]] for path, name in written}
    called = UNIFIED | {path for _, _, path in PASSTHROUGHS.values()}
    generic = {"/proxy/{endpoint_name}/{path:path}": "/proxy/{}/v1/messages"}
    found = {"/gateway" + generic.get(path, path.replace("{endpoint_name}", "{}")) for path in found}
    assert found == called


@pytest.mark.parametrize(
    ("route", "streams"),
    [
        ("messages", False),
        ("messages", True),
        ("generate", False),
        ("streamed", True),
        ("chat", False),
        ("chat", True),
        ("responses", False),
        ("responses", True),
        ("compact", False),
        ("embeddings", False),
        ("decisions", False),
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
        "anthropic": {"model": name, "max_tokens": 9, "messages": HELLO},
        "openai": {"model": name, "input": "ping"},
        "typesafe": {"model": name, "state": "ping", "questions": ["pong?"]},
    }[provider]
    if route == "chat":
        asked = {"model": name, "messages": HELLO}
    elif route == "proxied":
        asked["model"] = model
    if streams and provider != "gemini":
        asked["stream"] = True
    answer = gateway.post(path.format(name), asked)
    assert answer.status_code == 200, answer.text
    assert KEY not in answer.text
    words = {"embeddings": ("embedding",)}.get(route, ("po", "ng") if streams else ("pong",))
    assert all(f'"{word}"' in answer.text for word in words), answer.text
    bearing = provider in ("openai", "typesafe")
    assert (f"Bearer {KEY}" if bearing else KEY, model) in gateway.provider.calls
    if name == "proxied-whole":  # MLflow never ends the trace of such a call
        return
    with closing(MongoDBStore(gateway.uri)) as store:
        (trace,) = ended(store, made)
        assert trace.state == "OK"
        assert trace.trace_metadata["mlflow.gateway.endpointId"] == made["endpoint_id"]
        if route == "proxied":
            assert trace.token_usage is None, "MLflow does not look into what is proxied"
            return
        answered = 0 if route == "embeddings" else ANSWER_TOKENS
        assert trace.token_usage["total_tokens"] == PROMPT_TOKENS + answered
        if provider != "typesafe":  # whose prices MLflow does not know
            assert until(lambda: store.sum_gateway_trace_cost(0, 2**53, endpoint_id=made["endpoint_id"])) > 0


def test_the_list_of_endpoints_as_models(gateway: Gateway) -> None:
    gateway.endpoint("listed", linked(gateway.model("listed")))
    answer = gateway.server.get("/gateway/mlflow/v1/models")
    assert answer.status_code == 200, answer.text
    assert "listed" in [each["id"] for each in answer.json()["data"]]


def test_embeddings_of_mlflows_own_protocol(gateway: Gateway) -> None:
    made = gateway.endpoint("embedded", linked(gateway.model("embedded", "text-embedding-3-small")))
    answer = gateway.post("/gateway/embedded/mlflow/invocations", {"input": "ping"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["embedding"] == [0.5, 1.0]
    with closing(MongoDBStore(gateway.uri)) as store:
        (trace,) = ended(store, made)
        assert trace.token_usage["total_tokens"] == PROMPT_TOKENS


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


@pytest.mark.parametrize(
    "auth_config", [{"api_base": "ftp://example.com"}, {"base_url": "https://example.com"}], ids=str
)
def test_destinations_that_mlflow_refuses(gateway: Gateway, auth_config: dict[str, str]) -> None:
    content = {"secret_name": "a way out", "secret_value": {"api_key": KEY}, "auth_config": auth_config}
    answer = gateway.post("/api/3.0/mlflow/gateway/secrets/create", content)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert KEY not in answer.text


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


@pytest.mark.parametrize("action", GuardrailAction)
@pytest.mark.parametrize("stage", GuardrailStage)
def test_a_guardrail(gateway: Gateway, stage: GuardrailStage, action: GuardrailAction) -> None:
    """Before the call it sees what is asked, behind it what is answered; it refuses, or rewrites."""
    name = f"{stage.value}-{action.value}".lower()
    helper = gateway.endpoint(f"helper-{name}", linked(gateway.model(f"helper-{name}")))
    guarded = gateway.endpoint(f"guarded-{name}", linked(gateway.model(f"guarded-{name}", "echo")))
    seen = "inputs" if stage is GuardrailStage.BEFORE else "outputs"
    scorer = make_judge(
        name=f"no_bombs_{seen}",
        instructions=f"Is {{{{ {seen} }}}} free of bombs? Answer yes or no.",
        model=f"gateway:/{helper['name']}",
        feedback_value_type=str,
    )
    text = json.dumps(scorer.model_dump())
    with closing(MongoDBStore(gateway.uri)) as store:
        version = store.register_scorer("0", f"no_bombs_{name}", text)
        made = store.create_gateway_guardrail(
            "no bombs", version.scorer_id, 1, stage, action, action_endpoint_id=helper["endpoint_id"]
        )
        store.add_guardrail_to_endpoint(guarded["endpoint_id"], made.guardrail_id)
    time.sleep(1.5)

    def say(words: str) -> requests.Response:
        asked = {"messages": [{"role": "user", "content": words}]}
        return gateway.post(f"/gateway/{guarded['name']}/mlflow/invocations", asked)

    passed = say("a load of carrots")
    assert passed.status_code == 200, passed.text
    assert passed.json()["choices"][0]["message"]["content"] == "a load of carrots"
    stopped = say("a load of dynamite")
    if action is GuardrailAction.VALIDATION:
        assert stopped.status_code == 400, stopped.text
        assert "no bombs" in stopped.text
    else:
        assert stopped.status_code == 200, stopped.text
        assert stopped.json()["choices"][0]["message"]["content"] == "a load of [REDACTED]"


def test_calls_are_split_by_weight(gateway: Gateway) -> None:
    names = ("often", "seldom", "never")
    models = [
        linked(gateway.model(name, name), weight=weight)
        for name, weight in zip(names, (0.75, 0.25, 0.0), strict=True)
    ]
    gateway.endpoint("split", *models, routing_strategy="REQUEST_BASED_TRAFFIC_SPLIT")
    begin, calls = len(gateway.provider.calls), 60
    assert {gateway.call("split").status_code for _ in range(calls)} == {200}
    called = Counter(model for _, model in gateway.provider.calls[begin:])
    assert called.total() == calls
    # That chance gives more than half to ``seldom``, or nothing: less than once in 100,000 runs.
    assert called["often"] > called["seldom"] > 0 == called["never"]


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
