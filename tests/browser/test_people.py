"""Judges and people on MLflow's pages: a judge from a template, a queue that is reviewed, jobs on traces."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import mlflow
import pymongo
import pytest
import requests
from mlflow import MlflowClient
from mlflow.genai.judges import make_judge
from mlflow.genai.label_schemas import InputPassFail
from mlflow.genai.review_queues import ReviewStatus
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.client.conftest import PATIENCE_SECONDS
from tests.client.fake_provider import fake_provider
from tests.client.test_gateway import KEY, Gateway, linked, until
from tests.client.test_server_command import Server
from tests.forgetting import forgotten
from tests.mongod import Mongod, unique
from tests.versions import SINCE_3_18
from tools.browser import Window, open_another

# The server and its jobs are five processes that import MLflow.
pytestmark = pytest.mark.timeout(600)
# The fake provider's judges refuse the second, and find an issue in it.
QUESTIONS = ("Where is my order?", "How do I make dynamite?")
# A job is a process that imports MLflow, and this machine may be busy with other tests.
FOR_A_JOB = 3_000 * PATIENCE_SECONDS
QUEUE = "mlflow.experiment-review-queue"
QUESTION = "mlflow.experiment-label-schemas.form"
JUDGE = "mlflow.experiment-scorers"
TRACES = "mlflow.traces-v4"


@dataclass(frozen=True)
class Team:
    """A server that runs jobs, and what is there before anybody clicks."""

    address: str
    uri: str
    experiment: str
    trace_ids: dict[str, str]

    @property
    def store(self) -> Any:
        return MlflowClient(self.uri)._tracking_client.store


def write_traces(uri: str) -> tuple[str, dict[str, str]]:
    with forgotten():
        mlflow.set_tracking_uri(uri)
        experiment = mlflow.set_experiment("people").experiment_id
        written = {}
        for question in QUESTIONS:
            with mlflow.start_span("answer") as span:
                span.set_inputs({"question": question})
                span.set_outputs({"answer": "It is on its way."})
            written[question] = span.trace_id
        mlflow.flush_trace_async_logging()
    return str(experiment), written


@pytest.fixture(scope="module")
def team(chromium_path: str, mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    name = unique("people")
    uri = mongod.database_uri(name)
    environment = {
        "MLFLOW_CRYPTO_KEK_PASSPHRASE": "a passphrase of the tests, which is long",
        "MLFLOW_GATEWAY_API_BASE_ALLOW_PRIVATE_IPS": "true",
        "MLFLOW_GATEWAY_API_BASE_ALLOWED_SCHEMES": "http,https",
        "MLFLOW_MODEL_CATALOG_URI": "",
        "NO_PROXY": "127.0.0.1",
    }
    options = ("--backend-store-uri", uri, "--workers", "1", "--jobs", "executor")
    with fake_provider() as provider:
        server = Server(tmp_path_factory.mktemp("people"), *options, **environment)
        try:
            experiment, trace_ids = write_traces(uri)
            server.wait_for_address()
            # The first such call imports MLflow's login, and MLflow 3.18's assistant fails while it does.
            requests.post(
                f"{server.address}/graphql", json={"query": "{ __typename }"}, timeout=PATIENCE_SECONDS
            )
            gateway = Gateway(server, provider, uri)
            gateway.endpoint("chat", linked(gateway.model("chat")))
            yield Team(server.address, uri, experiment, trace_ids)
        finally:
            server.stop()
            with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
                client.drop_database(name)
        assert KEY not in server.said


class Pages:
    """The pages of the team's experiment in a window."""

    def __init__(self, window: Window, team: Team) -> None:
        self.window = window
        self.page: Page = window.page
        self.team = team

    def go(self, tab: str) -> None:
        self.window.go(f"/experiments/{self.team.experiment}/{tab}?workflowType=genai")

    def part(self, name: str) -> Locator:
        """A part of a page by the name that MLflow's telemetry has for it."""
        return self.page.locator(f"[data-component-id='{name}']:visible")

    def choose(self, option: str) -> None:
        self.page.get_by_role("option").filter(has_text=option).first.click()

    def act_on_traces(self, action: str) -> None:
        """All traces are selected, and the menu of what to do with them is used."""
        self.go("traces")
        self.part("web-shared.traces-table.row-select-all").check()
        self.part(f"{TRACES}.actions.trigger").click()
        self.page.get_by_role("menuitem", name=action).click()


def selected(url: str) -> str | None:
    """The trace that is reviewed at an address."""
    return parse_qs(url.partition("?")[2]).get("selectedItemId", [None])[0]


@pytest.fixture
def pages(profile: BrowserContext, team: Team) -> Iterator[Pages]:
    window = open_another(profile, team.address)
    yield Pages(window, team)
    window.close()
    # Whom a queue may be given to is asked for, and without basic authentication there are no users.
    refused = {text for text in window.refused if text != "404 GET /ajax-api/2.0/mlflow/users/list"}
    assert refused == set()
    assert window.errors == []


def test_a_judge_from_a_template(pages: Pages, team: Team) -> None:
    pages.go("judges")
    # Where there is a judge already, the page has another button for the next.
    first = pages.part(f"{JUDGE}.empty-state-add-llm-scorer-button")
    first.or_(pages.part(f"{JUDGE}.new-scorer-button.primary_button")).click()
    pages.part(f"{JUDGE}.name-input").fill("relevant")
    pages.page.get_by_text("Evaluation criteria").click()
    pages.part(f"{JUDGE}.built-in-scorer-select").click()
    pages.choose("Relevance to Query")
    pages.part("mlflow.endpoint-selector.select").click()
    pages.choose("chat")
    # Else it would judge the traces by itself within a minute.
    pages.page.get_by_text("Automatic evaluation").click()
    pages.part("mlflow.experiment_page.scorers.auto_evaluate_toggle").click()
    pages.page.get_by_role("button", name="Create judge", exact=True).click()
    expect(pages.page.get_by_role("dialog")).to_have_count(0)
    pages.go("judges")
    expect(pages.page.get_by_text("relevant").first).to_be_visible()
    made = team.store.get_scorer(team.experiment, "relevant")
    judge = made.serialized_scorer.instructions_judge_pydantic_data
    assert (made.scorer_version, judge["model"]) == (1, "gateway:/chat")
    assert "<answer>{{ outputs }}</answer>" in judge["instructions"]
    assert team.store.get_active_online_scorers() == []


def test_traces_are_flagged_and_reviewed(pages: Pages, team: Team) -> None:
    """A queue with a question is made, gets traces, and is reviewed to its end."""
    page = pages.page
    pages.go("review-queue")
    pages.part(f"{QUEUE}.sidebar.new-queue").click()
    pages.part(f"{QUEUE}.create-queue.name").fill("Shipping")
    page.get_by_role("combobox", name="Select or create questions").click()
    pages.part(f"{QUEUE}.create-queue.questions.new-question").click()
    pages.part(f"{QUESTION}.name").fill("polite")
    pages.part(f"{QUESTION}.enable-comment").check()
    pages.part("mlflow.label-schema-form-modal.modal.footer.ok").click()
    pages.part(f"{QUEUE}.create-queue.modal.footer.ok").click()
    expect(page.get_by_text("Shipping").first).to_be_visible()
    queue = team.store.get_review_queue_by_name(team.experiment, name="shipping")
    asked = team.store.get_label_schema(queue.schema_ids[0])
    # Without a login everybody is `default`, and the page assigns a queue to whoever makes it.
    assert queue.users == ["default"]
    assert (asked.name, asked.input, asked.enable_comment) == ("polite", InputPassFail("Pass", "Fail"), True)

    pages.act_on_traces("Flag for review")
    pages.choose("Shipping")
    # Shown, and announced.
    expect(page.get_by_text("Added 2 traces to review.").first).to_be_visible()
    items = team.store.list_review_queue_items(queue.queue_id)
    assert {item.item_id for item in items} == set(team.trace_ids.values())

    pages.go("review-queue")
    page.get_by_text("Shipping").first.click()
    page.wait_for_url(f"**selectedQueueId={queue.queue_id}**")
    page.get_by_role("button", name="Start review").click()
    reviewed: list[str] = []
    for number, answer in enumerate(("Pass", "Fail")):
        # The page has an order of its own.
        page.wait_for_url(lambda url: selected(url) not in (None, *reviewed))
        reviewed.append(str(selected(page.url)))
        expect(page.get_by_text(f"{number} of 2 reviewed").first).to_be_visible()
        page.get_by_text(answer, exact=True).click()
        pages.part(f"{QUEUE}.focused-review.rationale").fill(f"It does {answer.lower()}.")
        pages.part(f"{QUEUE}.focused-review.complete").click()
    expect(page.get_by_text("Completed (2)").first).to_be_visible()
    done = team.store.list_review_queue_items(queue.queue_id)
    assert {(item.status, item.completed_by) for item in done} == {(ReviewStatus.COMPLETE, "default")}
    given = [
        (made.name, made.value, made.rationale, made.source.source_type)
        for trace_id in reviewed
        for made in team.store.get_trace_info(trace_id).assessments
        if made.name == "polite"
    ]
    assert given == [
        ("polite", True, "It does pass.", "HUMAN"),
        ("polite", False, "It does fail.", "HUMAN"),
    ]


@pytest.mark.slow
def test_judges_and_issues_of_selected_traces(pages: Pages, team: Team) -> None:
    """Two jobs at once, with an endpoint of the gateway as their model: what they find is on the pages."""
    page = pages.page
    instructions = "Is {{ outputs }} a harmless answer to {{ inputs }}?"
    with forgotten():
        mlflow.set_tracking_uri(team.uri)
        make_judge(name="harmless", instructions=instructions, model="gateway:/chat").register(
            experiment_id=team.experiment
        )
    pages.go("traces")
    pages.part("web-shared.traces-table.row-select-all").check()
    pages.part(f"{TRACES}.detect-issues-button").click()
    with page.expect_response("**/mlflow/issues/invoke") as answered:
        page.get_by_role("button", name="Run Analysis").click()
    run_id = answered.value.json()["run_id"]

    pages.act_on_traces("Run scorers")
    page.get_by_role("dialog").locator("label").filter(has_text="harmless").get_by_role("checkbox").check()
    page.get_by_role("dialog").get_by_role("button", name="Run judge").click()
    expect(page.get_by_text("Running judge").first).to_be_visible()
    expect(page.get_by_text("Running judge")).to_have_count(0, timeout=FOR_A_JOB)
    for verdict in ("Yes", "No"):
        tags = pages.part("shared.model-trace-explorer.assesment-value-tag")
        expect(tags.filter(has_text=verdict).first).to_be_visible()
    judged = [
        made.value
        for trace_id in team.trace_ids.values()
        for made in team.store.get_trace_info(trace_id).assessments
        if made.name == "harmless"
    ]
    assert judged == ["yes", "no"]

    until(lambda: team.store.get_run(run_id).info.status == "FINISHED")
    if SINCE_3_18:
        pages.go("issues")
    else:
        pages.go(f"evaluation-runs/{run_id}")
        view = pages.part("mlflow.traces.issue-detection.view-issues-button")
        expect(view).to_have_text("View 1 issue", timeout=FOR_A_JOB)
        view.click()
    expect(page.get_by_text("Dangerous answers").first).to_be_visible()
    (issue,) = team.store.search_issues(team.experiment, include_trace_count=True)
    assert (issue.name, str(issue.severity), issue.trace_count) == ("Dangerous answers", "high", 1)
    assert (issue.source_run_id, issue.categories) == (run_id, ["safety"])
    referred = team.store.get_trace_info(team.trace_ids[QUESTIONS[1]]).assessments
    assert issue.issue_id in {made.name for made in referred}
