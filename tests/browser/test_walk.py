"""Every address of MLflow's interface on our store, and the demo that its start page offers."""

import re
from urllib.parse import parse_qs

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.demo import generate_all_demos
from mlflow.genai.review_queues import ReviewStatus
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Site
from tools.browser import Window, open_window
from tools.pages import ADDRESSES, DEMO_EXPERIMENT, addresses, declared_addresses, look_up, walk

QUEUE = "Demo Response Review"
# What is still to come is refused so; `python tools/pages.py` compares with MLflow on SQLite.
# Pages for the users of basic authentication: MLflow's own answer without it, on every store.
ONLY_WITH_USERS = re.compile(r"^404 GET /ajax-api/[23]\.0/mlflow/(users/list|users/roles/list|roles/get)\b")


# The walk asks for some that nobody made.
MADE_BY_NOBODY = re.compile(r"^404 GET /ajax-api/3\.0/mlflow/(gateway/endpoints/get|mcp-servers/|skills/)")


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


def demo_experiment(site: Site) -> str:
    return str(MlflowClient(site.uri).get_experiment_by_name(DEMO_EXPERIMENT).experiment_id)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_start_demo(demo_site: Site) -> None:
    client = MlflowClient(demo_site.uri)
    experiment = demo_experiment(demo_site)
    assert client.search_traces(locations=[experiment], include_spans=False)
    assert client.search_datasets(experiment_ids=[experiment])
    assert client.search_prompts("name LIKE 'mlflow-demo.%'")
    store = client._tracking_client.store
    assert store.list_scorers(experiment)
    assert store.list_label_schemas(experiment)
    assert store.list_review_queues(experiment)
    assert store.search_issues(experiment)
    mlflow.set_tracking_uri(demo_site.uri)
    assert generate_all_demos() == [], "what is there is not made again"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_judges(demo_site: Site, window: Window) -> None:
    page = window.go(f"/experiments/{demo_experiment(demo_site)}/judges?workflowType=genai")
    for name in ("correctness", "groundedness", "relevance", "safety"):
        expect(page.get_by_text(f"mlflow-demo.judges.{name}").first).to_be_visible()
    expect(page.get_by_role("button", name="New LLM judge")).to_be_visible()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_trace_is_reviewed(demo_site: Site, window: Window) -> None:
    """Its questions are answered; the answers are assessments, and the queue has one item less to do."""
    experiment = demo_experiment(demo_site)
    store = MlflowClient(demo_site.uri)._tracking_client.store
    (queue,) = (found for found in store.list_review_queues(experiment) if found.name == QUEUE)
    page = window.go(f"/experiments/{experiment}/review-queue?workflowType=genai")
    page.get_by_text(QUEUE).first.click()
    page.wait_for_url(f"**selectedQueueId={queue.queue_id}**")
    page.get_by_role("button", name="Start review").click()
    page.wait_for_url("**selectedItemId=**")
    trace_id = parse_qs(page.url.partition("?")[2])["selectedItemId"][0]
    expect(page.get_by_text("5 of 12 reviewed")).to_be_visible()
    page.get_by_placeholder("If the response was wrong").fill("Ask the help desk.")
    page.get_by_text("Helpful", exact=True).click()
    page.get_by_text("Select an option").click()
    page.get_by_role("option", name="Good").click()
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_text("6 of 12 reviewed")).to_be_visible()
    items = {item.item_id: item.status for item in store.list_review_queue_items(queue.queue_id)}
    assert items[trace_id] == ReviewStatus.COMPLETE
    answers = {made.name: made.value for made in store.get_trace_info(trace_id).assessments}
    assert answers["is_helpful"] is True
    assert answers["response_quality"] == "Good"
    assert answers["correct_answer"] == "Ask the help desk."


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
                if not any(known.match(text) for known in (ONLY_WITH_USERS, MADE_BY_NOBODY))
            ]
        )
    }
    assert unexpected == {}
    assert {path: found.errors for path, found in seen.items() if found.errors} == {}
