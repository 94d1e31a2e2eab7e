"""Every address of MLflow's interface on our store, and the demo that its start page offers."""

import re

import pytest
from mlflow import MlflowClient
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Site
from tools.browser import open_window
from tools.pages import ADDRESSES, DEMO_EXPERIMENT, addresses, declared_addresses, look_up, walk

# What is still to come is refused so, at once; `python tools/pages.py` compares with MLflow's server on SQLite.
STILL_TO_COME = re.compile(r"^501 \w+ /ajax-api/3\.0/mlflow/(gateway|mcp-servers|skills)\b")
# Pages for the users of basic authentication: MLflow's own answer without it, on every store.
ONLY_WITH_USERS = re.compile(r"^404 GET /ajax-api/[23]\.0/mlflow/(users/list|users/roles/list|roles/get)\b")


@pytest.fixture(scope="module")
def demo_site(browser: Browser, site: Site) -> Site:
    window = open_window(browser, site.address)
    page = window.go("/")
    page.get_by_role("button", name="Start Demo").click()
    page.wait_for_url("**/#/experiments/**", timeout=170_000)
    expect(page.get_by_text(DEMO_EXPERIMENT).first).to_be_visible()
    assert window.refused == []
    assert window.errors == []
    window.close()
    return site


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_start_demo(demo_site: Site) -> None:
    client = MlflowClient(demo_site.uri)
    experiment = client.get_experiment_by_name(DEMO_EXPERIMENT).experiment_id
    assert client.search_traces(locations=[experiment], include_spans=False)
    assert client.search_datasets(experiment_ids=[experiment])
    assert client.search_prompts("name LIKE 'mlflow-demo.%'")
    store = client._tracking_client.store
    assert store.list_scorers(experiment)
    assert store.list_label_schemas(experiment)
    assert store.list_review_queues(experiment)
    assert store.search_issues(experiment)


def test_no_address_is_unknown() -> None:
    """A new version of MLflow may bring some: tools/pages.py says what to open for each."""
    assert declared_addresses() - set(ADDRESSES) == set()
    assert len(declared_addresses()) > 50


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_address(browser: Browser, demo_site: Site) -> None:
    names = look_up(demo_site.uri, demo_site.demo)
    seen = walk(browser, demo_site.address, list(addresses(names)))
    unexpected = {
        path: refused
        for path, found in seen.items()
        if (
            refused := [
                text
                for text in found.refused
                if not STILL_TO_COME.match(text) and not ONLY_WITH_USERS.match(text)
            ]
        )
    }
    assert unexpected == {}
    assert {path: found.errors for path, found in seen.items() if found.errors} == {}
