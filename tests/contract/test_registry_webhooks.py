"""Webhooks: create, read, list, update, delete, test; their secrets."""

import http.server
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from mlflow.entities.webhook import WebhookEvent, WebhookStatus
from pymongo.database import Database

from genesis_flow.areas.webhooks import secrets
from tests.contract.registry import RegistryPair, differs, registry

__all__ = ["registry"]

URL = "https://8.8.8.8/hook"
PROMPT = WebhookEvent.from_str("prompt.created")
MODEL = WebhookEvent.from_str("registered_model.created")
SECRET = "s3cr3t-of-the-hook"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> bytes:
    made = Fernet.generate_key()
    monkeypatch.setenv(secrets.VARIABLE, made.decode())
    return made


def test_life(registry: RegistryPair) -> None:
    created = registry.create_webhook("hook", URL, [PROMPT, MODEL], "text")
    webhook_id = created.webhook_id
    registry.get_webhook(webhook_id)
    for change in (
        {"name": "other"},
        {"description": "new", "url": "https://8.8.4.4/x"},
        {"events": [MODEL]},
        {"status": WebhookStatus.DISABLED},
        {},
    ):
        registry.update_webhook(webhook_id, **change)
        registry.get_webhook(webhook_id)
    registry.delete_webhook(webhook_id)
    for method in ("get_webhook", "delete_webhook", "update_webhook"):
        ours, theirs = registry.both(method, webhook_id)
        assert ours.code == theirs.code == "RESOURCE_DOES_NOT_EXIST"
    registry.refused("get_webhook", "no such id")
    assert registry.list_webhooks() == []


@pytest.mark.parametrize("name", ["", "-x", "x" * 64, "a b", None, 5])
def test_bad_names(registry: RegistryPair, name: object) -> None:
    registry.refused("create_webhook", name, URL, [PROMPT])


@pytest.mark.parametrize("url", ["", "http://8.8.8.8", "https://", "https://127.0.0.1/x", "nonsense", None])
def test_bad_urls(registry: RegistryPair, url: object) -> None:
    registry.refused("create_webhook", "hook", url, [PROMPT])


@pytest.mark.parametrize("events", [[], None, ["prompt.created"], (PROMPT,)])
def test_bad_events(registry: RegistryPair, events: object) -> None:
    registry.refused("create_webhook", "hook", URL, events)


@pytest.mark.parametrize("limit", [-1, 1_001])
def test_bad_page_sizes(registry: RegistryPair, limit: int) -> None:
    registry.refused("list_webhooks", limit)
    registry.refused("list_webhooks_by_event", PROMPT, limit)


def test_lists_have_pages_and_newest_first(registry: RegistryPair) -> None:
    created = [registry.create_webhook(f"hook{i}", URL, [PROMPT] if i % 2 else [MODEL]) for i in range(7)]
    ids = {webhook.webhook_id for webhook in created}
    ours: list[Any] = []
    token = None
    while True:
        page = registry.ours.list_webhooks(3, token)
        ours, token = [*ours, *page], page.token
        if not token:
            break
    assert {webhook.webhook_id for webhook in ours} == ids
    times = [webhook.creation_timestamp for webhook in ours]
    assert times == sorted(times, reverse=True)
    assert [w.name for w in registry.list_webhooks_by_event(PROMPT)] == ["hook5", "hook3", "hook1"]


def test_a_secret_is_encrypted_and_not_handed_back(
    registry: RegistryPair, contract_database: Database[dict[str, Any]], key: bytes
) -> None:
    ours, theirs = differs(registry, "create_webhook", "hook", URL, [PROMPT], None, SECRET)
    assert (ours.result.secret, theirs.result.secret) == (None, SECRET)
    webhook_id = ours.result.webhook_id
    [stored] = contract_database["webhooks"].find()
    assert SECRET not in repr(stored)
    assert Fernet(key).decrypt(stored["secret"]).decode() == SECRET
    assert registry.ours.update_webhook(webhook_id, name="new").secret is None
    assert [webhook.secret for webhook in registry.ours.list_webhooks()] == [None]
    # MLflow's server signs deliveries and tests with these, and answers without it.
    assert registry.ours.get_webhook(webhook_id).secret == SECRET
    assert [webhook.secret for webhook in registry.ours.list_webhooks_by_event(PROMPT)] == [SECRET]
    assert SECRET not in str(registry.ours.get_webhook(webhook_id).to_proto())
    assert SECRET not in repr(registry.ours.get_webhook(webhook_id))


def test_a_lost_key_stops_only_what_it_signed(
    registry: RegistryPair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost = registry.ours.create_webhook("lost", URL, [PROMPT], secret=SECRET)
    registry.ours.create_webhook("open", URL, [PROMPT])
    monkeypatch.setenv(secrets.VARIABLE, Fernet.generate_key().decode())
    with caplog.at_level(logging.ERROR, "genesis_flow"):
        assert [webhook.name for webhook in registry.ours.list_webhooks_by_event(PROMPT)] == ["open"]
    assert lost.webhook_id in caplog.text
    assert SECRET not in caplog.text
    with pytest.raises(Exception, match=secrets.VARIABLE):
        registry.ours.get_webhook(lost.webhook_id)
    registry.ours.update_webhook(lost.webhook_id, secret="another")
    assert registry.ours.get_webhook(lost.webhook_id).secret == "another"


def test_a_bad_key_is_named(registry: RegistryPair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(secrets.VARIABLE, "not a key")
    with pytest.raises(Exception, match=f"{secrets.VARIABLE} is not a Fernet key") as refused:
        registry.ours.create_webhook("hook", URL, [PROMPT], secret=SECRET)
    assert SECRET not in str(refused.value)
    assert registry.ours.list_webhooks() == []


class _Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.received.append(dict(self.headers))  # type: ignore[attr-defined]
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201)
        self.end_headers()
        self.wfile.write(b"thanks")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http,https")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    server = http.server.HTTPServer(("127.0.0.1", 0), _Receiver)
    server.received = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_test_delivery_is_made_and_signed(registry: RegistryPair, receiver: Any) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    webhook = registry.ours.create_webhook("hook", url, [MODEL], secret=SECRET)
    result = registry.ours.test_webhook(webhook.webhook_id)
    assert (result.success, result.response_status, result.response_body) == (True, 201, "thanks")
    assert receiver.received[0]["X-MLflow-Signature"].startswith("v1,")
    assert registry.ours.test_webhook(webhook.webhook_id, PROMPT).success
