"""MLflow's web interface on our store: what each page shows, and that the server answers all it asks."""

import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Site
from tools.browser import Window
from tools.demo_data import ASSISTANT, BEST_RUN, CHURN, FORECAST, MODEL, PROMPT

pytestmark = pytest.mark.timeout(600)


def run_names(page: Page) -> list[str]:
    """The runs of the table from top to bottom; the grid keeps moved rows where they were in the document."""
    rows = page.locator(".ag-pinned-left-cols-container .ag-row").evaluate_all(
        "rows => rows.map(row => [Number(row.getAttribute('row-index')),"
        " row.querySelector('[col-id*=\"Run Name\"]').innerText])"
    )
    return [text.split("\n")[-1] for _, text in sorted(rows)]


def cells(page: Page, column: str) -> list[str]:
    found = page.locator(f".ag-center-cols-container .ag-row [col-id='{column}']").evaluate_all(
        "cells => cells.map(cell =>"
        " [Number(cell.closest('.ag-row').getAttribute('row-index')), cell.innerText])"
    )
    return [text for _, text in sorted(found)]


def add_column(page: Page, name: str) -> None:
    page.get_by_role("button", name="Columns", exact=True).click()
    page.get_by_placeholder("Search columns").fill(name)
    page.locator("[class*=tree-treenode]").filter(has_text=name).last.click()
    page.mouse.click(700, 12)
    expect(header(page, name)).to_be_visible()


def header(page: Page, name: str) -> Locator:
    return page.locator(".ag-header-cell").filter(has_text=name)


def open_runs(window: Window, site: Site, name: str = CHURN) -> Page:
    page = window.go(f"/experiments/{site.demo.experiments[name]}/runs")
    # Before the runs are there, the page knows no columns of theirs.
    expect(page.get_by_text(re.compile(r"^[1-9]\d* matching runs?"))).to_be_visible()
    expect(page.locator(".ag-pinned-left-cols-container .ag-row").first).to_be_visible()
    return page


def open_run(window: Window, site: Site, tab: str = "") -> Page:
    run_id = best(site).info.run_id
    return window.go(f"/experiments/{site.demo.experiments[CHURN]}/runs/{run_id}{tab}")


def best(site: Site) -> Run:
    found = MlflowClient(site.uri).search_runs(
        [site.demo.experiments[CHURN]], order_by=["metrics.validation_accuracy DESC"], max_results=1
    )
    return found[0]


def test_experiments(window: Window, site: Site) -> None:
    page = window.go("/experiments")
    for name in (CHURN, FORECAST, ASSISTANT):
        expect(page.get_by_role("link", name=name)).to_be_visible()
    expect(page.get_by_text("Sales of the coming weeks, by shop and article.")).to_be_visible()


def test_an_experiment_made_in_the_browser_is_in_the_database(window: Window, site: Site) -> None:
    page = window.go("/experiments")
    page.get_by_role("button", name="Create", exact=True).click()
    page.get_by_placeholder("Input an experiment name").fill("made by hand")
    page.get_by_role("dialog").get_by_role("button", name="Create").click()
    expect(page.get_by_text("made by hand").first).to_be_visible()
    assert MlflowClient(site.uri).get_experiment_by_name("made by hand") is not None
    # The page asks whether the name is free, and that there is no such experiment is the good answer.
    (asked,) = window.refused
    assert asked.startswith("404 GET /ajax-api/2.0/mlflow/experiments/get-by-name?")
    window.refused.clear()


def test_run_table_with_columns(window: Window, site: Site) -> None:
    page = open_runs(window, site)
    assert len(run_names(page)) == len(site.demo.runs[CHURN]) == 10
    add_column(page, "validation_accuracy")
    add_column(page, "family")
    assert sorted(set(cells(page, "params.`family`"))) == ["boosting", "forest", "logistic", "network"]
    shown = [float(text) for text in cells(page, "metrics.`validation_accuracy`")]
    runs = MlflowClient(site.uri).search_runs([site.demo.experiments[CHURN]])
    assert shown == [run.data.metrics["validation_accuracy"] for run in runs]


def test_sorting_by_a_metric(window: Window, site: Site) -> None:
    page = open_runs(window, site)
    add_column(page, "validation_accuracy")
    for order in ("DESC", "ASC"):
        header(page, "validation_accuracy").click()
        runs = MlflowClient(site.uri).search_runs(
            [site.demo.experiments[CHURN]], order_by=[f"metrics.validation_accuracy {order}"]
        )
        wanted = [run.info.run_name for run in runs]
        page.wait_for_function(
            "name => document.querySelector('[row-index=\"0\"]').innerText.includes(name)", arg=wanted[0]
        )
        assert run_names(page) == wanted


def test_filter_box(window: Window, site: Site) -> None:
    page = open_runs(window, site)
    box = page.get_by_placeholder("metrics.rmse")
    box.fill('metrics.validation_accuracy > 0.84 and params.family = "boosting"')
    box.press("Enter")
    expect(page.get_by_text(re.compile("^2 matching runs"))).to_be_visible()
    assert sorted(run_names(page)) == ["boosted trees, rate 0.05", "boosted trees, rate 0.1"]


def test_charts_of_all_runs(window: Window, site: Site) -> None:
    page = window.go(f"/experiments/{site.demo.experiments[CHURN]}/runs?compareRunsMode=CHART")
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    # A line for each of the ten runs in the charts of the three metrics that have a history.
    page.wait_for_function(
        "() => [...document.querySelectorAll('.js-plotly-plot')].filter(plot =>"
        " new Set([...plot.querySelectorAll('.js-line')].map(line => line.getAttribute('d'))).size === 10"
        ").length === 3"
    )


def test_run_page(window: Window, site: Site) -> None:
    page = open_run(window, site)
    expect(page.get_by_text(BEST_RUN).first).to_be_visible()
    for text in ("learning_rate", "0.05", "max_depth", "validation_accuracy", "Finished"):
        expect(page.get_by_text(text, exact=True).first).to_be_visible()
    expect(page.get_by_role("link", name=MODEL)).to_be_visible()
    value = f"{best(site).data.metrics['validation_accuracy']}"
    expect(page.get_by_text(value).first).to_be_visible()


def test_metric_charts_of_a_run(window: Window, site: Site) -> None:
    page = open_run(window, site, "/model-metrics")
    for name in ("auc", "train_loss", "validation_accuracy", "validation_loss"):
        expect(page.get_by_role("heading", name=name)).to_be_visible()
    # Three metrics have a history: a path through many points each.
    page.wait_for_function(
        "() => [...document.querySelectorAll('.js-plotly-plot')].filter(plot =>"
        " [...plot.querySelectorAll('.js-line')].some(line => line.getAttribute('d').split('L').length > 20)"
        ").length === 3"
    )


def test_artifacts(window: Window, site: Site) -> None:
    page = open_run(window, site, "/artifacts")
    page.get_by_text("plots").click()
    page.get_by_text("learning_curve.svg").first.click()
    page.wait_for_function("() => [...document.images].some(image => image.naturalWidth === 600)")
    page.get_by_text("README.md").first.click()
    expect(page.get_by_text("Trained on October 2026.").first).to_be_visible()


def test_downloading_an_artifact(window: Window, site: Site) -> None:
    page = open_run(window, site, "/artifacts")
    page.get_by_text("README.md").first.click()
    expect(page.get_by_text("Trained on October 2026.").first).to_be_visible()
    button = page.locator("button[data-component-id*=artifactview]").first
    with page.expect_download() as download:
        button.click()
    assert Path(download.value.path()).read_text().endswith("Trained on October 2026.\n")
    # MLflow asks for a presigned URL first, and with files of its own machine it answers so for every store.
    (asked,) = window.refused
    assert asked == "501 POST /ajax-api/2.0/mlflow/artifacts/presigned-download-url"
    window.refused.clear()


def test_compare_runs(window: Window, site: Site) -> None:
    chosen = site.demo.runs[CHURN][4:7]
    experiments = [site.demo.experiments[CHURN]]
    page = window.go(
        f"/compare-runs?runs={quote(json.dumps(chosen))}&experiments={quote(json.dumps(experiments))}"
    )
    expect(page.get_by_text("Comparing 3 Runs from 1 Experiment")).to_be_visible()
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    table = page.get_by_text("boosted trees, rate 0.3")
    expect(table.first).to_be_visible()
    for rate in ("0.3", "0.1", "0.05"):
        expect(page.get_by_text(rate, exact=True).first).to_be_attached()


def test_model_registry(window: Window, site: Site) -> None:
    page = window.go("/models")
    expect(page.get_by_role("link", name=MODEL)).to_be_visible()
    expect(page.get_by_role("link", name="demand-forecaster")).to_be_visible()
    page = window.go(f"/models/{MODEL}")
    for text in ("Customers about to leave.", "champion", "challenger", "Version 3"):
        expect(page.get_by_text(text).first).to_be_visible()
    page = window.go(f"/models/{MODEL}/versions/3")
    expect(page.get_by_role("link", name=BEST_RUN)).to_be_visible()
    expect(page.get_by_text("Inputs (3)")).to_be_visible()


def test_traces(window: Window, site: Site) -> None:
    page = window.go(f"/experiments/{site.demo.experiments[ASSISTANT]}/traces")
    expect(page.get_by_text("24 of 24")).to_be_visible()
    page.get_by_text("Where is my order?").first.click()
    for text in ("answer_customer", "search_help_pages", "generate"):
        expect(page.get_by_text(text).first).to_be_visible()
    expect(page.get_by_text("It left our warehouse this morning").first).to_be_visible()
    expect(page.get_by_text(re.compile(r"\d+ tokens")).first).to_be_visible()


def test_overview_of_traces(window: Window, site: Site) -> None:
    page = window.go(f"/experiments/{site.demo.experiments[ASSISTANT]}/overview/usage?workflowType=genai")
    expect(page.get_by_text("Overall error rate: 4.2%")).to_be_visible()
    expect(page.locator("svg.recharts-surface").first).to_be_visible()


def test_prompts(window: Window, site: Site) -> None:
    page = window.go("/prompts")
    page.get_by_role("link", name=PROMPT).click()
    for text in ("production", "candidate", "Version 3"):
        expect(page.get_by_text(text).first).to_be_visible()
    expect(page.get_by_text("in at most three sentences").first).to_be_visible()
