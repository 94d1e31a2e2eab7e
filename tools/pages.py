"""Visit every address of MLflow's interface and list the calls that the server refuses: python tools/pages.py

Starts `genesis-flow server` and MLflow's own server on SQLite, each with a team's data and MLflow's demo, and
prints what each refuses. Exit code 1 if ours refuses more. Needs the extra `dev` and Debian's chromium.

With `--login` both ask for users and have workspaces, and the walk is the admin's; with `--workspaces` they
have workspaces alone.
"""

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import mlflow
import requests
from mlflow import MlflowClient
from playwright.sync_api import Browser, Page, Request

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.browser import Window, chromium, find_chromium, open_window  # noqa: E402
from tools.demo_data import ASSISTANT, CHURN, MODEL, PROMPT, Demo, fill  # noqa: E402
from tools.screenshots import running_server  # noqa: E402

DEMO_EXPERIMENT = "MLflow Demo"
_DEMO_PATH = "/ajax-api/3.0/mlflow/demo/generate"
_SECONDS_FOR_THE_DEMO = 300
_TABS = 3
ADMIN = ("admin", "a password of this walk")
_WITH_WORKSPACES = ("--enable-workspaces",)
_WITH_LOGIN = ("--app-name", "basic-auth", *_WITH_WORKSPACES)
_QUIET_SECONDS = 1.0
_MOST_SECONDS = 60
# How the interface declares an address; all of them are in its scripts.
_DECLARATION = re.compile(r'static get \w+\(\)\{return\(0,\w+\.\w+\)\("(/[^"]*)"\)\}')
_CALLS = ("/ajax-api/", "/api/", "/graphql", "/get-artifact", "/model-versions/")

# Addresses to open for each that the interface declares; names in braces are looked up in the store.
ADDRESSES: Mapping[str, tuple[str, ...]] = {
    "/": ("/",),
    "/account": ("/account",),
    "/admin": ("/admin",),
    "/admin/roles/:roleId": ("/admin/roles/1",),
    "/admin/users/:username": ("/admin/users/ada",),
    "/admin/ws": ("/admin/ws?workspace=default",),
    "/compare-experiments": ("/compare-experiments",),
    "/compare-experiments/:searchString": ("/compare-experiments/s?experiments={experiments}",),
    "/compare-model-versions": ('/compare-model-versions?name="{model}"&runs={versions}',),
    "/compare-runs": ("/compare-runs?runs={runs}&experiments=[%22{churn}%22]",),
    "/createModel": ("/createModel",),
    "/experiments": ("/experiments",),
    "/experiments/:experimentId": ("/experiments/{churn}", "/experiments/{demo}"),
    "/experiments/:experimentId/:tabName": (),
    "/experiments/:experimentId/chat-sessions": ("/experiments/{demo}/chat-sessions",),
    "/experiments/:experimentId/chat-sessions/:sessionId": ("/experiments/{demo}/chat-sessions/{session}",),
    "/experiments/:experimentId/dashboard/:overviewTab": ("/experiments/{demo}/dashboard/usage",),
    "/experiments/:experimentId/datasets": ("/experiments/{demo}/datasets",),
    "/experiments/:experimentId/datasets/:datasetId": ("/experiments/{demo}/datasets/{dataset}",),
    "/experiments/:experimentId/evaluation-runs": ("/experiments/{demo}/evaluation-runs",),
    "/experiments/:experimentId/evaluation-runs/:runUuid": (
        "/experiments/{demo}/evaluation-runs/{evaluation}",
    ),
    "/experiments/:experimentId/evaluation-runs/:runUuid/*": (
        "/experiments/{demo}/evaluation-runs/{evaluation}/traces",
    ),
    "/experiments/:experimentId/evaluation-runs/:runUuid/details": (
        "/experiments/{demo}/evaluation-runs/{evaluation}/details",
    ),
    "/experiments/:experimentId/issues": ("/experiments/{demo}/issues",),
    "/experiments/:experimentId/issues/runs": ("/experiments/{demo}/issues/runs",),
    "/experiments/:experimentId/judges": ("/experiments/{demo}/judges",),
    "/experiments/:experimentId/models": ("/experiments/{churn}/models",),
    "/experiments/:experimentId/models/:loggedModelId": ("/experiments/{churn}/models/{logged_model}",),
    "/experiments/:experimentId/models/:loggedModelId/:tabName": (
        "/experiments/{churn}/models/{logged_model}/artifacts",
        "/experiments/{churn}/models/{logged_model}/traces",
    ),
    "/experiments/:experimentId/overview": ("/experiments/{demo}/overview",),
    "/experiments/:experimentId/overview/:overviewTab": (
        "/experiments/{demo}/overview/usage",
        "/experiments/{demo}/overview/quality",
        "/experiments/{demo}/overview/tool-calls",
    ),
    "/experiments/:experimentId/playground": ("/experiments/{demo}/playground",),
    "/experiments/:experimentId/prompts": ("/experiments/{demo}/prompts",),
    "/experiments/:experimentId/prompts/:promptName": ("/experiments/{demo}/prompts/{prompt}",),
    "/experiments/:experimentId/review-queue": ("/experiments/{demo}/review-queue",),
    "/experiments/:experimentId/runs": (
        "/experiments/{churn}/runs",
        "/experiments/{churn}/runs?compareRunsMode=CHART",
    ),
    "/experiments/:experimentId/runs/:runUuid": ("/experiments/{churn}/runs/{run}",),
    "/experiments/:experimentId/runs/:runUuid/*": tuple(
        f"/experiments/{{churn}}/runs/{{run}}/{tab}"
        for tab in ("model-metrics", "system-metrics", "artifacts", "traces", "evaluations")
    ),
    "/experiments/:experimentId/runs/:runUuid/artifactPath/*": (
        "/experiments/{churn}/runs/{run}/artifactPath/README.md",
    ),
    "/experiments/:experimentId/s": ("/experiments/{churn}/s",),
    "/experiments/:experimentId/traces": ("/experiments/{assistant}/traces", "/experiments/{demo}/traces"),
    "/experiments/:experimentId/traces/:traceId": ("/experiments/{assistant}/traces/{trace}",),
    "/gateway": ("/gateway",),
    "/gateway/api-keys": ("/gateway/api-keys",),
    "/gateway/budgets": ("/gateway/budgets",),
    "/gateway/endpoints/:endpointId": ("/gateway/endpoints/e-1",),
    "/gateway/endpoints/create": ("/gateway/endpoints/create",),
    "/gateway/usage": ("/gateway/usage",),
    "/mcp-registry": ("/mcp-registry",),
    "/mcp-registry/:serverName": ("/mcp-registry/nobody%2Fserver",),
    "/metric/*": ('/metric?runs={runs}&metric="auc"&experiments=[%22{churn}%22]',),
    "/models": ("/models",),
    "/models/:modelName": ("/models/{model}",),
    "/models/:modelName/:subpage": ("/models/{model}/versions",),
    "/models/:modelName/:subpage/:name": ("/models/{model}/versions/2",),
    "/models/:modelName/versions/:version": ("/models/{model}/versions/3",),
    "/prompts": ("/prompts",),
    "/prompts/:promptName": ("/prompts/{prompt}",),
    "/runs/:runUuid": ("/runs/{run}",),
    "/settings": ("/settings",),
    "/settings/:section": ("/settings/keybindings", "/settings/webhooks"),
    "/skills": ("/skills",),
    "/skills/:organization/:skillName": ("/skills/%40nobody/skill",),
    "/skills/:skillKey": ("/skills/skill",),
}


def declared_addresses() -> set[str]:
    """Those of the installed MLflow's interface."""
    scripts = (Path(mlflow.__file__).parent / "server" / "js" / "build" / "static" / "js").glob("*.js")
    return {found for script in scripts for found in _DECLARATION.findall(script.read_text())}


def addresses(names: Mapping[str, str]) -> Iterator[str]:
    for declared in sorted(declared_addresses()):
        for address in ADDRESSES[declared]:
            # Some pages of an experiment of traces ask nothing unless it is looked at as one.
            shown_as = "?workflowType=genai" if address.startswith("/experiments/{demo}") else ""
            yield address.format_map(names) + shown_as


def make_demo(address: str, login: tuple[str, str] | None = None) -> None:
    """What the button "Start Demo" does."""
    requests.post(address + _DEMO_PATH, json={}, auth=login, timeout=_SECONDS_FOR_THE_DEMO).raise_for_status()


def look_up(uri: str, demo: Demo) -> dict[str, str]:
    """The names that stand in ADDRESSES, for data of ``fill`` and of ``make_demo``."""
    client = MlflowClient(uri)
    churn, assistant = demo.experiments[CHURN], demo.experiments[ASSISTANT]
    shown = client.get_experiment_by_name(DEMO_EXPERIMENT).experiment_id
    evaluations = client.search_runs([shown], filter_string="tags.`mlflow.runType` = 'genai_evaluate'")
    sessions = (
        trace.info.trace_metadata.get("mlflow.trace.session")
        for trace in client.search_traces(locations=[shown], max_results=500, include_spans=False)
    )
    runs = demo.runs[CHURN]
    return {
        "churn": churn,
        "assistant": assistant,
        "demo": shown,
        "experiments": quote(json.dumps([churn, assistant])),
        "run": runs[6],
        "runs": quote(json.dumps(runs[4:7])),
        "versions": quote(json.dumps({"1": runs[3], "2": runs[5]})),
        "model": MODEL,
        "prompt": PROMPT,
        "trace": demo.trace_ids[0],
        "session": next(filter(None, sessions)),
        "dataset": client.search_datasets(experiment_ids=[shown])[0].dataset_id,
        "evaluation": evaluations[0].info.run_id,
        "logged_model": client.create_logged_model(churn, name="walked").model_id,
    }


def main() -> int:
    executable = find_chromium()
    if executable is None:
        print("No Chromium: apt-get install chromium fonts-dejavu-core", file=sys.stderr)
        return 1
    given = set(sys.argv[1:])
    if wrong := given - {"--login", "--workspaces"}:
        print(f"No such option: {' '.join(sorted(wrong))}", file=sys.stderr)
        return 2
    login = ADMIN if "--login" in given else None
    options: tuple[str, ...] = _WITH_LOGIN if login else _WITH_WORKSPACES if given else ()
    ours, theirs = (walk_a_site(executable, options, sql=sql, login=login) for sql in (False, True))
    for pattern in ours:
        for refused in sorted({*ours[pattern], *theirs[pattern]}):
            sides = [side for side, seen in (("ours", ours), ("SQLite", theirs)) if refused in seen[pattern]]
            print(f"{' and '.join(sides):<16} {pattern}  {refused}")
    more = sum(len(ours[pattern] - theirs[pattern]) for pattern in ours)
    print(f"{len(ours)} addresses, {more} calls refused by ours only")
    return int(more > 0)


def walk_a_site(
    executable: str, options: tuple[str, ...], *, sql: bool, login: tuple[str, str] | None
) -> dict[str, set[str]]:
    """What was refused or went wrong, by address; placeholders stand for the ids of a site."""
    variables = {}
    if login is not None:
        variables = {"MLFLOW_AUTH_ADMIN_PASSWORD": login[1], "MLFLOW_FLASK_SERVER_SECRET_KEY": "of this walk"}
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = login
    with (
        running_server(*options, sql=sql, variables=variables) as (address, uri),
        chromium(executable) as browser,
    ):
        # Programs that are no server know nothing of workspaces: the server is asked.
        asked = address if options else uri
        demo = fill(asked)
        make_demo(address, login)
        names = look_up(asked, demo)
        seen = walk(browser, address, list(addresses(names)), login)
    return {
        without_ids(path, names): {without_ids(text, names) for text in (*found.refused, *found.errors)}
        for path, found in seen.items()
    }


def without_ids(text: str, names: Mapping[str, str]) -> str:
    # The longest first: the list of runs has the run in it.
    for name, value in sorted(names.items(), key=lambda item: -len(item[1])):
        if len(value) > 3:  # the number of an experiment is part of too much else
            text = text.replace(value, f"{{{name}}}")
    return text


@dataclass
class Tab:
    """A window that knows when the interface has stopped asking."""

    window: Window
    waiting: set[Request] = field(default_factory=set)
    spoke: float = 0.0

    @classmethod
    def open(cls, browser: Browser, address: str, login: tuple[str, str] | None = None) -> "Tab":
        tab = cls(open_window(browser, address, login=login))
        tab.window.page.on("request", tab._asks)
        for event in ("requestfinished", "requestfailed"):
            tab.window.page.on(event, tab._has_answer)
        return tab

    def _asks(self, request: Request) -> None:
        self.spoke = time.monotonic()
        if any(part in request.url for part in _CALLS):
            self.waiting.add(request)

    def _has_answer(self, request: Request) -> None:
        self.spoke = time.monotonic()
        self.waiting.discard(request)

    def go(self, path: str) -> Page:
        self.window.calls.clear()
        self.window.refused.clear()
        self.window.errors.clear()
        self.waiting.clear()
        self.spoke = time.monotonic()
        return self.window.turn(path)

    def settle(self) -> None:
        """Wait until all calls were answered and no other followed.

        A page that asks nothing may just not have begun to.
        """
        deadline = time.monotonic() + _MOST_SECONDS
        while time.monotonic() < deadline:
            self.window.page.wait_for_timeout(100)
            patience = _QUIET_SECONDS if self.window.calls else 3 * _QUIET_SECONDS
            if not self.waiting and time.monotonic() - self.spoke > patience:
                return
        raise TimeoutError(f"{self.window.page.url} still waits for {[r.url for r in self.waiting]}")


@dataclass(frozen=True)
class Seen:
    """What became of one address."""

    refused: tuple[str, ...]
    errors: tuple[str, ...]


def walk(
    browser: Browser, address: str, paths: list[str], login: tuple[str, str] | None = None
) -> dict[str, Seen]:
    tabs = [Tab.open(browser, address, login) for _ in range(_TABS)]
    seen = {}
    for begin in range(0, len(paths), _TABS):
        busy = list(zip(tabs, paths[begin : begin + _TABS], strict=False))
        for tab, path in busy:
            tab.go(path)
        for tab, path in busy:
            tab.settle()
            seen[path] = Seen(tuple(sorted(set(tab.window.refused))), tuple(tab.window.errors))
    for tab in tabs:
        tab.window.close()
    return seen


if __name__ == "__main__":
    sys.exit(main())
