"""``genesis-flow usage``: its counts are those that MLflow's client finds when it reads everything."""

import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pymongo
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.entities import LoggedModelTag, Metric, RunTag, ViewType, Workspace
from mlflow.tracing.constant import TraceMetadataKey
from mlflow.utils.mlflow_tags import MLFLOW_USER
from mlflow.utils.workspace_context import ServerWorkspaceContext

from genesis_flow import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.areas.metrics.wide import WIDE_FROM
from genesis_flow.cli.main import cli
from genesis_flow.cli.usage import points as points_module
from genesis_flow.cli.usage.command import since_time
from genesis_flow.cli.usage.report import day_name, made
from genesis_flow.cli.usage.source import Source
from genesis_flow.core.settings import Settings
from genesis_flow.sync.workspaces import MongoDBWorkspaceStore
from tests.contract.trace_scenes import STARTED, stated, trace_id
from tests.embedded.helpers import uri_of
from tests.mongod import Mongod, unique
from tests.trust.portable_rules import rules

ROOT = Path(__file__).parents[2]
DAY = 86_400_000
# Two days before now, at midnight: what begins a millisecond earlier is of the day before.
MIDNIGHT = (round(time.time() * 1000) // DAY - 2) * DAY
OLD = MIDNIGHT - 100 * DAY
ODD = "<script>alert('\x1b[31m')</script>"

Sums = dict[str, dict[Any, int]]


@dataclass(frozen=True)
class Filled:
    uri: str
    experiments: dict[str, str]
    longest: str
    """The run with most points."""


@pytest.fixture(scope="module")
def filled(mongod: Mongod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    name = unique("usage")
    uri = mongod.database_uri(name)
    yield fill(uri, tmp_path_factory.mktemp("usage").as_uri())
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(name)


def fill(uri: str, artifacts: str) -> Filled:
    """Two users, two days that meet at midnight, and things of long ago; some of it is deleted."""
    store = MongoDBStore(uri, artifacts)
    experiments = {each: store.create_experiment(each) for each in ("churn", "fraud", "gone", "empty")}
    begun = [
        ("churn", "ann", MIDNIGHT - 1, 1),
        ("churn", "ann", MIDNIGHT, 200),
        ("churn", "bob", MIDNIGHT, 70),
        ("fraud", "bob", MIDNIGHT + DAY - 1, 3),
        ("fraud", "bob", MIDNIGHT + DAY, 0),
        ("gone", "", OLD, 2),
        ("fraud", "ann", OLD, 5),
    ]
    made = []
    for number, (experiment, user, start, points) in enumerate(begun):
        run = store.create_run(experiments[experiment], user, start, [], f"run {number}").info.run_id
        made.append(run)
        for first in range(0, points, 50):
            few = [Metric("loss", 0.5, start + n, n) for n in range(first, min(points, first + 50))]
            store.log_batch(run, few, [], [])
        if points:
            store.log_metric(run, Metric("last", 1.0, start, 0))
    # At once, so that they are a block from the beginning.
    store.log_batch(made[3], [Metric("at once", 0.5, n, n) for n in range(900)], [], [])
    store.set_tag(made[1], RunTag("mlflow.runName", ODD))
    store.delete_run(made[6])
    traced = [
        ("churn", "ann", MIDNIGHT - 1, 512),
        ("churn", "bob", MIDNIGHT, 2048),
        ("fraud", None, OLD, None),
    ]
    for number, (experiment, user, start, size) in enumerate(traced):
        metadata = {MLFLOW_USER: user, TraceMetadataKey.SIZE_BYTES: size and str(size)}
        kept = {key: value for key, value in metadata.items() if value is not None}
        info = stated(trace_id(number), experiments[experiment], start=start - STARTED, trace_metadata=kept)
        store.start_trace(info)
    for user, kept in (("ann", True), ("bob", True), ("bob", False)):
        tags = [LoggedModelTag(MLFLOW_USER, user)]
        model = store.create_logged_model(experiments["churn"], "net", made[1], tags, [], None)
        if not kept:
            store.delete_logged_model(model.model_id)
    store.delete_experiment(experiments["gone"])
    registry = MongoDBModelRegistryStore(uri)
    registry.create_registered_model("net")
    for _ in range(2):
        registry.create_model_version("net", "s3://b/net", None)
    registry.close()
    store.close()
    return Filled(uri, experiments, made[3])


def invoke(*words: str) -> Result:
    return CliRunner().invoke(cli, ["usage", *words])


def answer(*words: str, code: int = 0) -> dict[str, Any]:
    done = invoke(*words, "--json")
    assert done.exit_code == code, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def day_of(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).date().isoformat()


def found_by_client(filled: Filled, since: int = 0) -> Sums:
    """By measure, and in it by experiment, user and day: everything is read by MLflow's client."""
    client = MlflowClient(tracking_uri=filled.uri)
    sums: Sums = defaultdict(Counter)

    def add(measure: str, amount: int, *places: str) -> None:
        for place in ("all", *places):
            sums[measure][place] += amount

    for experiment in client.search_experiments(ViewType.ALL):
        identity, named = [experiment.experiment_id], f"experiment {experiment.experiment_id}"
        for run in client.search_runs(identity, run_view_type=ViewType.ALL):
            info = run.info
            if info.start_time < since:
                continue
            places = named, f"user {info.user_id or ''}", f"day {day_of(info.start_time)}"
            add("runs", 1, *places)
            add("deleted_runs", info.lifecycle_stage == "deleted", *places)
            add("metrics", len(run.data.metrics), *places)
            for key in run.data.metrics:
                add("points", len(client.get_metric_history(info.run_id, key)), *places)
        for trace in client.search_traces(locations=identity, include_spans=False):
            if trace.info.request_time < since:
                continue
            metadata = trace.info.trace_metadata
            user, day = metadata.get(MLFLOW_USER, ""), day_of(trace.info.request_time)
            add("traces", 1, named, f"user {user}", f"day {day}")
            size = int(metadata.get(TraceMetadataKey.SIZE_BYTES, 0))
            add("trace_bytes", size, named, f"user {user}", f"day {day}")
        for model in client.search_logged_models(identity):
            day = day_of(model.creation_timestamp)
            add("kept_models", 1, named, f"user {model.tags[MLFLOW_USER]}", f"day {day}")
    return sums


def found_by_usage(report: dict[str, Any]) -> Sums:
    sums: Sums = defaultdict(Counter)
    entries = [("all", report["totals"])]
    entries += [(f"experiment {each['experiment_id']}", each) for each in report["by_experiment"]]
    entries += [(f"user {each['user']}", each) for each in report["by_user"]]
    entries += [(f"day {each['day']}", each) for each in report["by_day"]]
    for place, each in entries:
        for measure in ("runs", "deleted_runs", "metrics", "points", "traces", "trace_bytes"):
            sums[measure][place] += each[measure]
        sums["kept_models"][place] += each["models"] - each["deleted_models"]
    return sums


def test_the_counts_are_those_of_mlflows_client(filled: Filled) -> None:
    report = answer(filled.uri)
    counted, expected = found_by_usage(report), found_by_client(filled)
    assert expected["points"]["all"] > 1000
    assert expected["runs"][f"day {day_of(MIDNIGHT - 1)}"] == 1
    for measure, places in counted.items():
        assert +Counter(places) == +Counter(expected[measure]), measure
    totals = report["totals"]
    assert (totals["experiments"], totals["deleted_runs"], totals["deleted_models"]) == (5, 2, 1)
    assert (totals["registered_models"], totals["model_versions"], totals["prompts"]) == (1, 2, 0)
    gone = next(each for each in report["by_experiment"] if each["experiment"] == "gone")
    assert gone["lifecycle_stage"] == "deleted"
    assert "empty" in [each["experiment"] for each in report["by_experiment"]]
    assert report["points"] == {"exact": True, "runs_read": 7, "of_runs": 7}


@pytest.mark.parametrize("since", [MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + DAY])
def test_only_what_came_since_then_is_counted(filled: Filled, since: int) -> None:
    with pymongo.MongoClient[dict[str, Any]](filled.uri) as client:
        report = made(Source(client.get_default_database(), Settings.resolve(filled.uri)), since, exact=False)
    counted, expected = found_by_usage(report), found_by_client(filled, since)
    for measure, places in counted.items():
        assert +Counter(places) == +Counter(expected[measure]), measure
    assert "empty" not in [each["experiment"] for each in report["by_experiment"]]


def test_a_window_reads_no_more_than_what_is_in_it(filled: Filled) -> None:
    """Runs, traces and models by a range of an index for each experiment, heads by a range for each run."""
    with pymongo.MongoClient[dict[str, Any]](filled.uri) as client:
        database = client.get_default_database()
        database.command("profile", 2)
        try:
            report = answer(filled.uri, "--since", day_of(MIDNIGHT))
        finally:
            database.command("profile", 0)
        plans = [
            (each["command"]["aggregate"], each["planSummary"], each["docsExamined"], each["keysExamined"])
            for each in database["system.profile"].find({"command.aggregate": {"$type": "string"}})
            if "planSummary" in each
        ]
        database.drop_collection("system.profile")
    read = {name: (plan, documents, keys) for name, plan, documents, keys in plans if documents}
    for name, measure in (("runs", "runs"), ("traces", "traces"), ("logged_models", "models")):
        plan, documents, keys = read[name]
        assert plan.startswith("IXSCAN { experiment_id: 1"), name
        assert documents == report["totals"][measure], name
        # For each experiment, and each of its two stages, the scan seeks its next range.
        assert keys <= documents + 4 * report["totals"]["experiments"], name
    plan, documents, _ = read["latest_metrics"]
    assert plan == "IXSCAN { _id: 1 }"
    assert documents == report["totals"]["metrics"]


def test_the_largest_are_named(filled: Filled) -> None:
    report = answer(filled.uri)
    largest = report["largest"]
    first, second = largest["runs"][:2]
    assert (first["run_id"], first["experiment"], first["user"], first["points"]) == (
        *(filled.longest, "fraud", "bob"),
        904,
    )
    assert (second["name"], second["points"]) == (ODD, 201)
    assert [(each["experiment"], each["runs"]) for each in largest["experiments"]] == [
        *(("fraud", 3), ("churn", 3), ("gone", 1)),
    ]
    assert [(each["trace_id"], each["bytes"]) for each in largest["traces"]] == [
        *((trace_id(1), 2048), (trace_id(0), 512)),
    ]
    whose = [(each["user"], each["experiment"], each["points"]) for each in report["by_user_and_experiment"]]
    assert whose[:2] == [("bob", "fraud", 904), ("ann", "churn", 203)]


def test_sizes_are_those_of_the_server(filled: Filled) -> None:
    report = answer(filled.uri)
    disk = {each["collection"]: each for each in report["disk"]["collections"]}
    with pymongo.MongoClient[dict[str, Any]](filled.uri) as client:
        stats = client.get_default_database().command("collStats", "runs")
    assert disk["runs"]["documents"] == stats["count"] == 7
    assert disk["runs"]["data_bytes"] == stats["size"]
    # Two of seven runs are older than the thirty days over which growth is told.
    on_disk = disk["runs"]["storage_bytes"] + disk["runs"]["index_bytes"]
    assert disk["runs"]["bytes_a_day"] == round(on_disk * 5 / 7 / 30)
    assert disk["experiments"]["bytes_a_day"] is None
    assert "webhooks" not in disk
    assert report["disk"]["bytes"] >= on_disk


def drawing(monkeypatch: pytest.MonkeyPatch, runs: int) -> None:
    """A database of any size is too large, and as few runs are drawn."""
    for name, value in (("MOST_COUNTED", 0), ("FEWEST_DRAWN", runs), ("DRAWN_METRICS", 0)):
        monkeypatch.setattr(points_module, name, value)


def test_many_points_are_estimated_unless_all_shall_be_counted(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawing(monkeypatch, 3)
    report = answer(filled.uri)
    assert report["points"] == {"exact": False, "runs_read": 3, "of_runs": 7}
    assert report["totals"]["runs"] == 7
    # Whichever runs were drawn: the one with most points is found by its blocks, and counted.
    first = report["largest"]["runs"][0]
    assert (first["run_id"], first["points"]) == (filled.longest, 904)
    told = invoke(filled.uri).stdout
    assert "points are estimated from 3 of 7 runs: --exact" in told
    assert re.search(r"about [\d,]+ points", told)
    report = answer(filled.uri, "--exact")
    assert (report["points"]["exact"], report["totals"]["points"]) == (True, 1187)


def test_an_estimate_is_of_the_window(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    drawing(monkeypatch, 3)
    window = answer(filled.uri, "--since", day_of(MIDNIGHT))
    assert window["points"] == {"exact": False, "runs_read": 3, "of_runs": 4}
    # All are drawn: the estimate is what there is.
    drawing(monkeypatch, 100)
    assert answer(filled.uri)["totals"]["points"] == 1187


def test_tables_for_people(filled: Filled) -> None:
    done = invoke("--uri", filled.uri)
    assert done.exit_code == 0, done.output
    assert done.stderr == ""
    told = done.stdout
    assert "\x1b" not in told
    assert re.search(r"5 experiments, 7 runs \(2 deleted\), 1,187 points, 3 traces, 3 logged models", told)
    for part in ("Days", "Whose points", "Runs with most points", "(nobody named)", filled.longest, "█"):
        assert part in told
    assert "Workspaces" not in told
    assert "more a day" in told


class Elements(HTMLParser):
    """The elements of a page, each of which has to end; and all that is fetched."""

    VOID = ("meta", "line", "rect")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()
        self.fetched: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.fetched += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_a_page_with_plots_that_needs_nothing_else(filled: Filled, tmp_path: Path) -> None:
    file = tmp_path / "usage.html"
    done = invoke(filled.uri, "--html", str(file))
    assert done.exit_code == 0, done.output
    assert f"Wrote {file}." in done.stdout
    page = file.read_text(encoding="utf-8")
    elements = Elements(page)
    assert elements.seen["script"] == 0  # the name of a run is one
    assert "&lt;script&gt;" in page
    assert elements.fetched == []
    assert "@import" not in page
    assert "url(" not in page
    assert elements.seen["svg"] == 4  # runs, points, traces, models a day
    assert elements.seen["rect"] > 100
    assert f"<title>{day_of(MIDNIGHT)}: 3</title>" in page
    assert filled.longest in page


def test_a_page_that_cannot_be_written_is_an_error(filled: Filled, tmp_path: Path) -> None:
    done = invoke(filled.uri, "--html", str(tmp_path / "nowhere" / "usage.html"))
    assert done.exit_code == 1
    assert "usage.html" in done.stderr


def test_an_empty_database_is_left_as_it_is(fresh_uri: str) -> None:
    report = answer(fresh_uri)
    assert set(report["totals"].values()) == {0}
    assert (report["by_day"], report["disk"]["collections"], report["gaps"]) == ([], [], [])
    assert "0 experiments, 0 runs" in invoke(fresh_uri).stdout
    with pymongo.MongoClient[dict[str, Any]](fresh_uri) as client:
        assert client.get_default_database().list_collection_names() == []


def test_an_embedded_database_is_not_made(tmp_path: Path) -> None:
    done = invoke(uri_of(tmp_path / "data"))
    assert done.exit_code == 1
    assert "There is no embedded database" in done.stderr
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("words", [["--since", "soon"], ["--since", "30x"], ["--uri", "mongodb://h/d"]])
def test_wrong_options_are_refused(words: list[str]) -> None:
    assert invoke("mongodb://h/d", *words).exit_code == 2


def test_times_ago_and_dates() -> None:
    now = time.time() * 1000
    for given, ago in (("12h", DAY / 2), ("30d", 30 * DAY), ("2w", 14 * DAY)):
        # A clock may be set while this runs.
        assert abs(now - ago - (since_time(None, None, given) or 0)) < 10 * 60_000
    assert since_time(None, None, "1970-01-03") == 2 * DAY


def test_odd_times_have_no_day() -> None:
    assert [day_name(None), day_name(10**12), day_name(0)] == [None, None, "1970-01-01"]


def test_workspaces_are_told_apart(fresh_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    uri = f"{fresh_uri}#team"
    workspaces = MongoDBWorkspaceStore(uri)
    store = MongoDBStore(uri, tmp_path.as_uri())
    for number, team in enumerate(("team-a", "team-b"), start=1):
        workspaces.create_workspace(Workspace(team))
        with ServerWorkspaceContext(team):
            experiment = store.create_experiment("same")
            for _ in range(number):
                store.create_run(experiment, "ann", MIDNIGHT, [], None)
    store.close()
    report = answer(uri)
    assert "team_runs" in [each["collection"] for each in report["disk"]["collections"]]
    assert [(each["workspace"], each["runs"]) for each in report["by_workspace"]] == [
        *(("team-b", 2), ("team-a", 1)),
    ]
    found = [(each["workspace"], each["experiment"], each["runs"]) for each in report["by_experiment"]]
    assert found[:2] == [("team-b", "same", 2), ("team-a", "same", 1)]
    told = invoke(uri).stdout
    assert "Workspaces" in told
    assert "same (team-b)" in told


def test_the_portable_profile_counts_the_same_and_leaves_out_sizes(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = answer(filled.uri)
    monkeypatch.setenv("GENESIS_FLOW_PROFILE", "portable")
    with rules.enforced() as violations:
        report = answer(filled.uri)
    assert sorted(set(violations)) == []
    for part in ("totals", "by_experiment", "by_user", "by_day", "largest", "points"):
        assert report[part] == usual[part]
    assert report["disk"]["bytes"] is None
    assert "portable" in report["disk"]["left_out"]
    assert "Sizes are left out in the portable profile" in invoke(filled.uri).stdout


def test_who_waits_is_told_what_is_counted(filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points_module, "_PORTION", 1)
    told: list[str] = []
    with pymongo.MongoClient[dict[str, Any]](filled.uri) as client:
        source = Source(client.get_default_database(), Settings.resolve(filled.uri), told.append)
        made(source, None, exact=True)
    assert told[:3] == ["runs", "traces", "models"]
    assert "points: 3 of 7 runs" in told


def test_the_page_of_the_docs_names_every_field(filled: Filled) -> None:
    page = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", page))

    def fields(value: Any) -> Iterator[str]:
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, dict):
                yield from each
                for inner in each.values():
                    yield from fields(inner)

    assert set(fields(answer(filled.uri))) - named == set()


def test_points_of_steps_that_wait_are_counted(store_uri: str, tmp_path: Path) -> None:
    store = MongoDBStore(store_uri, tmp_path.as_uri())
    run_id = store.create_run("0", "ann", MIDNIGHT, [], "wide").info.run_id
    for step in range(5):
        store.log_batch(run_id, [Metric(f"m{n}", 0.5, step, step) for n in range(WIDE_FROM)], [], [])
    store.log_metric(run_id, Metric("m1", 7.0, 9, 2))
    store.close()
    totals = answer(store_uri)["totals"]
    assert (totals["metrics"], totals["points"]) == (WIDE_FROM, 5 * WIDE_FROM + 1)
