"""MCP servers and the AI gateway, made, changed and deleted by hand on MLflow's pages."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymongo
import pytest
import requests
from mlflow import MlflowClient
from playwright.sync_api import BrowserContext, Locator, Page, Request, expect

from genesis_flow import MongoDBStore
from tests.client.conftest import PATIENCE_SECONDS
from tests.client.fake_provider import Provider, fake_provider
from tests.client.test_gateway import Gateway, linked, until
from tests.client.test_server_command import Server
from tests.mongod import Mongod, unique
from tools.browser import Window, open_another

pytestmark = pytest.mark.timeout(600)
KEY = "sk-first-canary-7f3a9c1b5d"
OTHER_KEY = "sk-other-canary-2e8d6a4321"
# Their masks: what is shown of them.
MASK, OTHER_MASK = "sk-...1b5d", "sk-...4321"
NAME = "com.example/weather"
# The server looks up whether the address is a public one, and this one needs no name server; what the page
# asks it for, the test answers.
ICON = "https://1.1.1.1/icon.svg"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'


@dataclass
class Pages:
    """A window on a server of the AI gateway, and all that the server answered to it."""

    window: Window
    provider: Provider
    answered: list[Request] = field(default_factory=list)

    @property
    def page(self) -> Page:
        return self.window.page

    @property
    def dialog(self) -> Locator:
        return self.page.get_by_role("dialog").last

    def go(self, path: str) -> None:
        self.check_keys()
        self.window.go(path)

    def part(self, name: str) -> Locator:
        """A part of a page by the name that MLflow's telemetry has for it."""
        return self.page.locator(f"[data-component-id='mlflow.{name}']:visible")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def confirm(self, name: str) -> None:
        """The dialog's button does its work, and the dialog goes."""
        self.dialog.get_by_role("button", name=name, exact=True).click()
        expect(self.page.get_by_role("dialog")).to_have_count(0)

    def choose(self, option: str) -> None:
        self.page.get_by_role("option").filter(has_text=option).last.click()

    def fill_picker(self, text: str) -> None:
        """A field that offers what there is, and takes what there is not yet."""
        picker = self.dialog.locator("input[role=combobox]")
        picker.fill(text)
        # The list that is announced, which is not the one that is seen.
        expect(self.page.get_by_role("option", name=text, exact=True).first).to_be_attached()
        picker.press("Enter")
        expect(picker).to_have_value("")

    def get(self, path: str, **asked: Any) -> dict[str, Any]:
        address = f"{self.window.address}/ajax-api/3.0/mlflow/{path}"
        answer = requests.get(address, asked, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def check_keys(self) -> list[str]:
        """What the server answered since the last look: neither that nor the page has a key."""
        inputs = "() => [...document.querySelectorAll('input, textarea')].map(each => each.value).join()"
        shown = [self.page.content(), self.page.evaluate(inputs)]
        answers = []
        for request in self.answered:
            response = request.response()
            assert response is not None
            answers.append(response.text())
        self.answered.clear()
        assert not any(key in text for key in (KEY, OTHER_KEY) for text in (*shown, *answers))
        return answers

    def note(self, request: Request) -> None:
        if "/gateway/" in request.url and "/ajax-api/" in request.url:
            self.answered.append(request)


@pytest.fixture(scope="module")
def gateway(
    chromium_path: str, mongod: Mongod, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    name = unique("pages")
    uri = mongod.database_uri(name)
    folder: Path = tmp_path_factory.mktemp("pages")
    environment = {
        "MLFLOW_CRYPTO_KEK_PASSPHRASE": "a passphrase of the tests, which is long",
        "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
        "NO_PROXY": "127.0.0.1",
    }
    with fake_provider() as provider:
        server = Server(folder, "--backend-store-uri", uri, "--workers", "1", **environment)
        try:
            server.wait_for_address()
            yield Gateway(server, provider, uri)
        finally:
            server.stop()
            with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
                client.drop_database(name)


@pytest.fixture
def pages(profile: BrowserContext, gateway: Gateway) -> Iterator[Pages]:
    window = open_another(profile, gateway.server.address)
    window.page.route(ICON, lambda route: route.fulfill(content_type="image/svg+xml", body=SVG))
    opened = Pages(window, gateway.provider)
    window.page.on("requestfinished", opened.note)
    yield opened
    window.close()
    assert window.calls, "the page asked the server nothing"
    assert window.refused == []
    assert window.errors == []


def write_server_json(pages: Pages, version: str, description: str) -> None:
    """Into an editor that would close brackets which are typed."""
    content = json.dumps({"name": NAME, "version": version, "description": description})
    editor = pages.dialog.get_by_label("server.json editor")
    editor.focus()
    editor.press("Control+a")
    editor.press("Delete")
    pages.page.keyboard.insert_text(content)
    # The editor shows spaces that do not break.
    shown = pages.dialog.locator(".view-lines")
    pages.page.wait_for_function(
        "([node, text]) => node.innerText.replace(/\\s/g, ' ').trim() === text",
        arg=[shown.element_handle(), content],
    )


@pytest.mark.slow
def test_an_mcp_server_from_its_first_version_to_its_end(pages: Pages, gateway: Gateway) -> None:
    client = MlflowClient(gateway.uri)
    page = pages.page
    pages.go("/mcp-registry")
    pages.button("Create MCP server").first.click()
    pages.part("mcp_registry.create.display_name").fill("Weather")
    write_server_json(pages, "1.0.0", "Tells the weather.")
    pages.part("mcp_registry.icon_editor.draft_url").fill(ICON)
    pages.button("Add icon").click()
    pages.fill_picker("team")
    pages.part("mcp_registry.create.tag.value").fill("forecast")
    pages.button("Add tag").click()
    pages.confirm("Create")
    expect(page.get_by_text("Viewing version 1.0.0")).to_be_visible()
    made = client.get_mcp_server(NAME)
    assert (made.display_name, made.latest_version, made.tags) == ("Weather", "1.0.0", {"team": "forecast"})

    page.get_by_role("button", name="More actions").click()
    page.get_by_role("menuitem", name="Edit").click()
    pages.part("mcp_registry.edit_server_modal.display_name").fill("Weather service")
    pages.part("mcp_registry.edit_server_modal.description").fill("Tells today's weather.")
    pages.confirm("Save")
    expect(page.get_by_text("Tells today's weather.")).to_be_visible()
    changed = client.get_mcp_server(NAME)
    assert (changed.display_name, changed.description) == ("Weather service", "Tells today's weather.")
    assert [icon["src"] for icon in changed.icons] == [ICON]

    pages.button("Edit version status").click()
    pages.choose("Active")
    expect(pages.button("Edit version status")).to_be_visible()
    pages.button("Edit aliases").click()
    pages.fill_picker("prod")
    pages.confirm("Save aliases")
    expect(page.get_by_text("@ prod").first).to_be_visible()
    named = client.get_mcp_server_version_by_alias(NAME, "prod")
    assert (named.version, str(named.status)) == ("1.0.0", "active")

    pages.part("mcp_registry.detail.add_endpoint").click()
    pages.part("mcp_registry.endpoint_modal.endpoint").fill("https://mcp.example.com/weather")
    pages.part("mcp_registry.endpoint_modal.target").click()
    pages.choose("@prod")
    pages.confirm("Create")
    pages.button("Edit access endpoint").click()
    pages.part("mcp_registry.endpoint_modal.transport").click()
    pages.choose("SSE")
    pages.confirm("Save")
    expect(pages.button("Expand endpoint https://mcp.example.com/weather")).to_contain_text("sse")
    (endpoint,) = client.search_mcp_access_endpoints(NAME)
    assert (endpoint.server_alias, str(endpoint.transport_type)) == ("prod", "sse")

    pages.button("Create new version").click()
    write_server_json(pages, "1.1.0-rc.1", "Tells it better.")
    pages.part("mcp_registry.create.status").click()
    pages.choose("Draft")
    pages.confirm("Create")
    expect(page.get_by_text("Viewing version 1.1.0-rc.1")).to_be_visible()
    pages.button("Edit aliases").click()
    pages.fill_picker("next")
    pages.confirm("Save aliases")
    expect(page.get_by_text("@ next").first).to_be_visible()
    assert client.get_mcp_server(NAME).aliases == {"prod": "1.0.0", "next": "1.1.0-rc.1"}

    pages.go("/mcp-registry")
    page.get_by_role("button", name="Filter by active status").click()
    page.get_by_role("button", name="Filter by access endpoint").click()
    page.get_by_placeholder("Search MCP servers").fill("tags.team = 'forecast'")
    expect(page.get_by_text("Weather service")).to_be_visible()

    pages.go(f"/mcp-registry/{NAME.replace('/', '%2F')}?version=1.1.0-rc.1")
    pages.button("Delete version").click()
    pages.confirm("Delete")
    expect(page.get_by_text("Select a version to view details.")).to_be_visible()
    page.get_by_role("cell").filter(has_text="1.0.0").click()
    expect(page.get_by_text("Viewing version 1.0.0")).to_be_visible()
    assert client.get_mcp_server(NAME).aliases == {"prod": "1.0.0"}

    # An active version protects its server, as in MLflow's store; the page says so.
    page.get_by_role("button", name="More actions").click()
    page.get_by_role("menuitem", name="Delete").click()
    pages.dialog.get_by_role("button", name="Delete", exact=True).click()
    expect(pages.dialog.get_by_text("while it still has an active version")).to_be_visible()
    (refused,) = pages.window.refused
    assert refused.startswith("400 DELETE /ajax-api/3.0/mlflow/mcp-servers/")
    pages.window.refused.clear()
    pages.dialog.get_by_role("button", name="Close").click()
    pages.button("Delete access endpoint").click()
    pages.confirm("Delete")
    pages.button("Edit version status").click()
    pages.choose("Deprecated")
    expect(pages.button("Edit version status")).to_be_visible()
    page.get_by_role("button", name="More actions").click()
    page.get_by_role("menuitem", name="Delete").click()
    pages.dialog.get_by_role("button", name="Delete", exact=True).click()
    page.wait_for_url("**/mcp-registry")
    assert client.search_mcp_servers(f"name = '{NAME}'") == []


@pytest.mark.slow
def test_a_key_and_an_endpoint_that_uses_it(pages: Pages, gateway: Gateway) -> None:
    """The key is made, changed and deleted; the endpoint is made, called, renamed, duplicated and deleted."""
    page = pages.page
    pages.go("/gateway/api-keys")
    pages.part("gateway.api-keys.create-button").first.click()
    page.get_by_placeholder("Search for a provider").fill("openai")
    page.get_by_role("option", name="OpenAI", exact=True).click()
    page.get_by_placeholder("my-api-key").fill("key by hand")
    page.get_by_placeholder("Openai API Key").fill(KEY)
    page.get_by_placeholder("Openai API Base URL").fill(pages.provider.address)
    pages.confirm("Create API Key")
    page.get_by_text("key by hand").click()
    expect(pages.dialog.get_by_text(MASK)).to_be_visible()
    assert any(MASK in answer for answer in pages.check_keys())
    pages.button("Edit API key").click()
    pages.part("gateway.api-key-details.drawer.edit.secret").fill(OTHER_KEY)
    pages.button("Save Changes").click()
    expect(pages.dialog.get_by_text(OTHER_MASK)).to_be_visible()

    pages.go("/gateway/endpoints/create")
    pages.part("gateway.endpoint.name").fill("by-hand")
    page.get_by_placeholder("Search for a provider").fill("openai")
    page.get_by_role("option", name="OpenAI", exact=True).click()
    pages.part("gateway.endpoint.model").click()
    page.get_by_placeholder("Enter model name").fill("gpt-4o")
    pages.confirm("Select")
    page.locator("label:has(input[value=existing])").click()
    pages.part("gateway.create-endpoint.secret-select").click()
    pages.choose("key by hand")
    pages.part("gateway.endpoint.submit").click()
    page.wait_for_url("**/gateway/endpoints/e-*")
    pages.part("gateway.edit-endpoint.starter-code.try-in-browser").click()
    pages.button("Send request").click()
    page.wait_for_function("() => [...document.querySelectorAll('textarea')].some(e => /pong/.test(e.value))")
    assert (f"Bearer {OTHER_KEY}", "gpt-4o") in pages.provider.calls
    assert KEY not in repr(pages.provider.calls)
    (endpoint,) = pages.get("gateway/endpoints/list")["endpoints"]
    # The answer may be there before its trace is written whole, and the pages do not look again.
    client, places = MlflowClient(gateway.uri), [endpoint["experiment_id"]]
    until(
        lambda: (
            [each.info.state for each in client.search_traces(locations=places, include_spans=False)]
            == ["OK"]
        )
    )
    pages.dialog.get_by_role("button", name="Close").click()
    pages.button("Edit endpoint name").click()
    pages.part("gateway.edit-endpoint-name-modal.name-input").fill("renamed-by-hand")
    pages.confirm("Save")
    expect(page.get_by_text("renamed-by-hand").first).to_be_visible()
    page.get_by_role("tab", name="Logs").click()
    expect(page.get_by_text("pong").first).to_be_visible()

    pages.go("/gateway/usage")
    expect(page.get_by_text("10 (7 input, 3 output)")).to_be_visible()
    (asked,) = pages.window.refused  # MLflow's own answer without basic authentication
    assert asked == "404 GET /ajax-api/2.0/mlflow/users/list"
    pages.window.refused.clear()

    pages.go("/gateway")
    expect(page.get_by_text("renamed-by-hand")).to_be_visible()
    pages.part("gateway.endpoints-list.row-checkbox").check()
    pages.part("gateway.endpoints-list.duplicate-button").click()
    expect(page.get_by_text("renamed-by-hand-copy-1")).to_be_visible()
    assert len(pages.get("gateway/endpoints/list")["endpoints"]) == 2
    pages.go("/gateway")
    expect(page.get_by_text("renamed-by-hand-copy-1")).to_be_visible()
    pages.part("gateway.endpoints-list.row-checkbox").last.check()
    pages.part("gateway.endpoints-list.delete-button").click()
    pages.confirm("Delete")
    expect(pages.part("gateway.endpoints-list.row-checkbox")).to_have_count(1)
    pages.part("gateway.endpoints-list.row-checkbox").check()
    pages.part("gateway.endpoints-list.delete-button").click()
    pages.confirm("Delete")
    expect(page.get_by_text("Get started with AI Gateway")).to_be_visible()

    pages.go("/gateway/api-keys")
    page.get_by_text("key by hand").wait_for()
    pages.part("gateway.api-keys.row-checkbox").check()
    pages.part("gateway.api-keys.bulk-delete-button").click()
    pages.confirm("Delete")
    expect(page.get_by_text("No API keys created")).to_be_visible()
    pages.check_keys()
    assert not pages.get("gateway/secrets/list").get("secrets")
    # With an endpoint the page deletes its models, which a copy still uses: MLflow's answer on every store.
    assert pages.window.refused == ["500 DELETE /ajax-api/3.0/mlflow/gateway/model-definitions/delete"]
    pages.window.refused.clear()


@pytest.fixture
def guarded(gateway: Gateway) -> Iterator[str]:
    """An endpoint, and another one that may judge its calls; nothing of them stays for other tests."""
    gateway.endpoint("judging", linked(gateway.model("judging")))
    yield gateway.endpoint("guarded", linked(gateway.model("guarded")))["endpoint_id"]
    with closing(MongoDBStore(gateway.uri)) as store:
        for endpoint in store.list_gateway_endpoints():
            store.delete_gateway_endpoint(endpoint.endpoint_id)
        for model in store.list_gateway_model_definitions():
            store.delete_gateway_model_definition(model.model_definition_id)
        for secret in store.list_secret_infos():
            store.delete_gateway_secret(secret.secret_id)


@pytest.mark.slow
def test_a_guardrail(pages: Pages, gateway: Gateway, guarded: str) -> None:
    """Made, it refuses a call; moved behind the model it lets the same call pass; then it is deleted."""
    page = pages.page

    def call() -> requests.Response:
        messages = [{"role": "user", "content": "a load of dynamite"}]
        return gateway.post("/gateway/guarded/mlflow/invocations", {"messages": messages})

    assert call().status_code == 200
    pages.go(f"/gateway/endpoints/{guarded}?tab=guardrails")
    pages.part("gateway.guardrails.add").click()
    pages.dialog.get_by_text("Custom Guardrail", exact=True).click()
    pages.part("gateway.guardrails.config-name").fill("No bombs")
    pages.part("gateway.guardrails.config-instructions").fill("Is {{ inputs }} free of bombs?")
    pages.dialog.get_by_role("combobox").click()
    pages.choose("judging")
    pages.confirm("Create Guardrail")
    expect(pages.button("No bombs")).to_be_visible()
    refused = call()
    assert refused.status_code == 400, refused.text
    assert "No bombs" in refused.text

    pages.button("No bombs").click()
    pages.dialog.get_by_role("option", name="Post-LLM Guardrails").click()
    pages.confirm("Save")
    shown = page.get_by_role("tabpanel", name="Guardrails")
    expect(shown.get_by_text("Post-LLM Guardrails", exact=True)).to_be_visible()
    passed = call()
    assert passed.status_code == 200, passed.text
    with closing(MongoDBStore(gateway.uri)) as store:
        (config,) = store.list_endpoint_guardrail_configs(guarded)
        assert (config.guardrail.stage, config.guardrail.scorer.scorer_version) == ("AFTER", 2)

        pages.button("No bombs").click()
        pages.part("gateway.guardrails.detail-delete").click()
        pages.part("gateway.guardrails.bulk-remove-confirm").click()
        expect(page.get_by_text("No guardrails configured.")).to_be_visible()
        assert store.list_endpoint_guardrail_configs(guarded) == []


def test_a_budget(pages: Pages) -> None:
    page = pages.page
    pages.go("/gateway/budgets")
    pages.part("gateway.budgets.create-button").click()
    pages.part("gateway.create-budget-policy-modal.budget-amount").fill("25")
    pages.part("gateway.create-budget-policy-modal.on-exceeded").click()
    pages.choose("Alert")
    pages.confirm("Create")
    expect(page.get_by_text("$25", exact=True)).to_be_visible()
    (made,) = pages.get("gateway/budgets/list")["budget_policies"]
    assert (made["budget_amount"], made["budget_action"]) == (25.0, "ALERT")
    pages.button("Edit budget policy").click()
    pages.part("gateway.edit-budget-policy-modal.budget-amount").fill("40")
    pages.confirm("Save Changes")
    expect(page.get_by_text("$40", exact=True)).to_be_visible()
    pages.button("Delete budget policy").click()
    pages.confirm("Delete")
    expect(page.get_by_text("No budget policies created")).to_be_visible()
    assert not pages.get("gateway/budgets/list").get("budget_policies")
