"""Imports as jobs: repeated, continued, filtered, in conflict with what is there, and taken back."""

import json
import os
from pathlib import Path
from typing import Any

import pymongo
import pytest
from click.testing import CliRunner, Result
from mlflow.entities import Metric, RunTag

from genesis_flow.areas.metrics.documents import BLOCK_FROM
from genesis_flow.cli.migrate import cli
from genesis_flow.importers.engine import Options, analyze
from genesis_flow.importers.errors import ImportConflict, ImportFailed
from genesis_flow.importers.writers.points import BLOCK_POINTS
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.jobs import Job, config_for
from tests.importing.small_trees import EXPERIMENT, NAME, Tree, run_id

ALL = 3  # ViewType.ALL


def store_of(job: Job) -> MongoDBStore:
    return MongoDBStore(job.uri, "s3://bucket/base")


def run_ids(job: Job, experiment: str = EXPERIMENT) -> set[str]:
    return {run.info.run_id for run in store_of(job).search_runs([experiment], "", ALL)}


def steps(job: Job, number: int, key: str = "loss") -> list[int]:
    return [point.step for point in store_of(job).get_metric_history(run_id(number), key)]


def test_a_second_import_changes_nothing(job: Job, tree: Tree) -> None:
    job.run(tree.uri)
    before = job.contents()
    outcome = job.run(tree.uri)
    assert job.contents() == before
    assert outcome.stats.unchanged_units == outcome.stats.units == 5
    assert not outcome.stats.written


def test_a_second_import_that_reads_all_again_changes_nothing(job: Job, tree: Tree) -> None:
    tree.log(tree.root / EXPERIMENT / run_id(0), "long", range(2 * BLOCK_POINTS + BLOCK_FROM))
    job.run(tree.uri)
    before = job.contents()
    for path in tree.root.rglob("*"):
        if path.is_file():
            os.utime(path, ns=(1, 1))
    outcome = job.run(tree.uri)
    assert outcome.stats.unchanged_units == 0
    assert not +outcome.stats.written
    assert job.contents() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_make_the_same(job: Job, tree: Tree, workers: int) -> None:
    """Blocks, tails and heads are those that the store's own calls would make."""
    for number in range(3):
        tree.log(tree.root / EXPERIMENT / run_id(number), "short", range(BLOCK_FROM - 1))
        tree.log(tree.root / EXPERIMENT / run_id(number), "long", range(BLOCK_FROM))
    outcome = job.run(tree.uri, workers=workers)
    contents = job.contents()
    assert outcome.stats.points == 3 * (3 + BLOCK_FROM - 1 + BLOCK_FROM)
    assert len(contents["metrics"]) == 3
    heads = {head["key"]: head for head in contents["latest_metrics"].values()}
    assert (len(heads["short"]["tail"]), heads["short"]["packed"]) == (BLOCK_FROM - 1, 0)
    assert (heads["long"]["tail"], heads["long"]["packed"]) == ([], 1)
    assert contents["runs"][run_id(0)]["metric_keys"] == 3
    assert len(contents["model_versions"]) == 2


def test_a_run_that_goes_on(job: Job, tree: Tree) -> None:
    """In the source and in the target: nothing is lost on either side, and no block is left over."""
    run = tree.root / EXPERIMENT / run_id(0)
    tree.log(run, "long", range(BLOCK_POINTS + BLOCK_FROM))
    job.run(tree.uri)
    store_of(job).log_metric(run_id(0), Metric("loss", 9.0, 1_800_000_000_000, 77))
    tree.log(run, "long", range(BLOCK_POINTS + BLOCK_FROM, 2 * BLOCK_POINTS + 1))
    tree.log(run, "loss", range(3, 6))
    tree.log(run, "new", range(2))
    (run / "params" / "late").write_text("yes")
    tree.run(8)
    outcome = job.run(tree.uri)
    assert outcome.problems == 0
    assert steps(job, 0) == [0, 1, 2, 3, 4, 5, 77]
    assert steps(job, 0, "long") == list(range(2 * BLOCK_POINTS + 1))
    assert steps(job, 0, "new") == [0, 1]
    found = store_of(job).get_run(run_id(0))
    assert found.data.metrics["loss"] == 9.0
    assert found.data.params["late"] == "yes"
    assert run_id(8) in run_ids(job)
    blocks = [key for key in job.contents()["metrics"] if "|long|" in key]
    assert len(blocks) == 2


def test_what_people_changed_stays_while_the_source_does_not_change(job: Job, tree: Tree) -> None:
    job.run(tree.uri)
    store_of(job).set_tag(run_id(0), RunTag("reviewed", "yes"))
    job.run(tree.uri)
    assert store_of(job).get_run(run_id(0)).data.tags["reviewed"] == "yes"


def test_a_run_that_was_deleted_in_the_source(job: Job, tree: Tree) -> None:
    job.run(tree.uri)
    meta = tree.root / EXPERIMENT / run_id(0) / "meta.yaml"
    deleted = meta.read_text().replace("lifecycle_stage: active", "lifecycle_stage: deleted")
    meta.write_text(f"deleted_time: 1700000009999\n{deleted}")
    job.run(tree.uri)
    assert store_of(job).get_run(run_id(0)).info.lifecycle_stage == "deleted"
    assert store_of(job)._get_deleted_runs() == [run_id(0)]
    heads = job.contents()["latest_metrics"].values()
    assert [head["active"] for head in heads if head["run_uuid"] == run_id(0)] == [False]


def test_since(job: Job, tree: Tree) -> None:
    old, now = 1_690_000_000, 1_700_000_000
    tree.run(9, start=1_650_000_000_000)
    for path in tree.root.rglob("*"):
        os.utime(path, (old, old))
    assert job.run(tree.uri, since=now * 1000 + 1).stats.read["run"] == 0
    assert job.run(tree.uri, since=(now - 1) * 1000).stats.read["run"] == 3
    assert run_ids(job) == {run_id(number) for number in range(3)}
    tree.log(tree.root / EXPERIMENT / run_id(9), "loss", [5])
    assert job.run(tree.uri, since=(now + 1) * 1000).stats.read["run"] == 1
    assert run_id(9) in run_ids(job)


@pytest.mark.parametrize("wanted", ["4", "other"])
def test_one_experiment(job: Job, tree: Tree, wanted: str) -> None:
    tree.experiment("4", "other")
    tree.run(9, "4")
    job.run(tree.uri, experiments=[wanted])
    contents = job.contents()
    assert set(contents["runs"]) == {run_id(9)}
    assert set(contents["experiments"]) == {4}
    assert "registered_models" not in contents


def test_numbers_go_on_above_the_imported_ones(job: Job, tree: Tree) -> None:
    tree.experiment("70", "high")
    tree.experiment("818299996833690449", "drawn at random")
    job.run(tree.uri)
    assert store_of(job).create_experiment("next", None, []) == "71"
    registry = MongoDBModelRegistryStore(job.uri)
    assert registry.create_model_version("forecast", "s3://x").version == 3


class TestDefaultExperiment:
    def test_an_untouched_one_becomes_that_of_the_source(self, job: Job, tree: Tree) -> None:
        (tree.experiment("0", "Default") / "tags").mkdir()
        (tree.root / "0" / "tags" / "team").write_text("a")
        tree.run(9, "0")
        before = store_of(job).get_experiment("0")
        outcome = job.run(tree.uri)
        assert outcome.problems == 0
        after = store_of(job).get_experiment("0")
        assert (after.artifact_location, after.creation_time) == ("s3://bucket/0", 1_700_000_000_000)
        assert after.tags == {"team": "a"}
        assert run_ids(job, "0") == {run_id(9)}
        job.rollback(outcome.journal)
        assert dict(store_of(job).get_experiment("0")) == dict(before)

    def test_one_in_use_stays_as_it_is(self, job: Job, tree: Tree) -> None:
        store = store_of(job)
        mine = store.create_run("0", "me", 1, [], "mine").info.run_id
        before = store.get_experiment("0")
        tree.experiment("0", "Default")
        tree.run(9, "0")
        journal = job.run(tree.uri).journal
        assert run_ids(job, "0") == {run_id(9), mine}
        assert store.get_experiment("0").artifact_location == before.artifact_location
        job.rollback(journal)
        assert run_ids(job, "0") == {mine}


class TestConflicts:
    @pytest.fixture
    def taken(self, job: Job) -> Job:
        """A target with another experiment of the same name, and a model of the same name."""
        store_of(job).create_experiment(NAME, None, [])
        MongoDBModelRegistryStore(job.uri).create_registered_model("forecast", [], "mine")
        return job

    def test_fail_writes_nothing(self, taken: Job, tree: Tree) -> None:
        before = taken.contents()
        with pytest.raises(ImportConflict, match="experiment 1 of the target has the name 'weather'"):
            taken.run(tree.uri)
        assert taken.contents() == before

    def test_skip_leaves_them_out_and_says_so(self, taken: Job, tree: Tree) -> None:
        tree.experiment("4", "other")
        tree.run(9, "4")
        before = taken.contents()
        outcome = taken.run(tree.uri, on_conflict="skip")
        after = taken.contents()
        assert set(after["runs"]) == {run_id(9)}
        assert after["registered_models"] == before["registered_models"]
        kinds = sorted(each.kind for each in outcome.first_problems)
        assert kinds == ["experiment", "registered_model", "run", "run", "run"]

    def test_rename_brings_them_under_other_names(self, taken: Job, tree: Tree) -> None:
        for _ in range(2):
            outcome = taken.run(tree.uri, on_conflict="rename")
            assert outcome.problems == 0
            assert store_of(taken).get_experiment(EXPERIMENT).name == f"{NAME} (imported)"
            assert len(run_ids(taken)) == 3
            registry = MongoDBModelRegistryStore(taken.uri)
            names = [model.name for model in registry.search_registered_models()]
            assert names == ["forecast", "forecast (imported)"]
            assert len(registry.search_model_versions("name = 'forecast (imported)'")) == 2

    def test_a_new_name_is_none_that_the_source_has_as_well(self, taken: Job, tree: Tree) -> None:
        tree.experiment("4", f"{NAME} (imported)")
        tree.model("forecast (imported)")
        for _ in range(2):
            assert taken.run(tree.uri, on_conflict="rename").problems == 0
            names = {store_of(taken).get_experiment(number).name for number in (EXPERIMENT, "4")}
            assert names == {f"{NAME} (imported 2)", f"{NAME} (imported)"}
            models = MongoDBModelRegistryStore(taken.uri).search_registered_models()
            assert [model.name for model in models] == [
                "forecast",
                "forecast (imported 2)",
                "forecast (imported)",
            ]

    def test_rename_finds_another_number(self, job: Job, tree: Tree) -> None:
        for number in range(1, 5):
            store_of(job).create_experiment(f"mine {number}", None, [])
        with pytest.raises(ImportConflict, match="another experiment 3, named 'mine 3'"):
            job.run(tree.uri)
        for _ in range(2):
            assert job.run(tree.uri, on_conflict="rename").problems == 0
            assert store_of(job).get_experiment_by_name(NAME).experiment_id == "5"
            assert len(run_ids(job, "5")) == 3
            assert run_ids(job, "3") == set()
        # The number that was given away turns up in the source.
        tree.experiment("5", "late")
        tree.run(9, "5")
        with pytest.raises(ImportConflict, match="has given its number 5 to another"):
            job.run(tree.uri)
        assert job.run(tree.uri, on_conflict="rename").problems == 0
        assert run_ids(job, "6") == {run_id(9)}
        assert store_of(job).create_experiment("next", None, []) == "7"

    def test_a_run_of_the_same_id(self, job: Job, tree: Tree, tmp_path: Path) -> None:
        """Another source with the same run: the same again is fine, another is a conflict."""
        tree.log(tree.root / EXPERIMENT / run_id(0), "long", range(BLOCK_FROM))
        job.run(tree.uri)
        with job.database() as db:  # as blocks were before
            db["metrics"].update_many({}, {"$set": {"first_step": 0, "last_step": BLOCK_FROM - 1}})
        twin = tree.copy_to(tmp_path / "moved" / "mlruns")
        assert job.run(twin.uri).problems == 0
        (twin.root / EXPERIMENT / run_id(1) / "params" / "lr").write_text("0.2")
        before = job.contents()
        with pytest.raises(ImportConflict, match=f"runs {run_id(1)}: the target has another one"):
            job.run(twin.uri)
        outcome = job.run(twin.uri, on_conflict="skip")
        assert [each.where for each in outcome.first_problems] == [run_id(1)]
        assert job.contents() == before
        assert not job.rollback(outcome.journal).removed
        assert job.contents() == before

    def test_names_that_pass_from_one_experiment_to_another(self, job: Job, tree: Tree) -> None:
        tree.experiment("4", "other")
        job.run(tree.uri)
        for number, name in (("3", "other"), ("4", "weather")):
            meta = tree.root / number / "meta.yaml"
            meta.write_text(meta.read_text().rpartition("name:")[0] + f"name: {name}\n")
        assert job.run(tree.uri).problems == 0
        names = [store_of(job).get_experiment(number).name for number in ("3", "4")]
        assert names == ["other", "weather"]


class TestRollback:
    def test_it_leaves_what_was_there_before(self, job: Job, tree: Tree) -> None:
        store = store_of(job)
        mine = store.create_experiment("mine", None, [])
        store.create_run(mine, "me", 1, [], "mine")
        before = job.contents()
        journal = job.run(tree.uri).journal
        done = job.rollback(journal)
        assert done.removed["runs"] == 3
        assert job.contents() == before
        assert not job.rollback(journal).removed
        assert job.run(tree.uri).stats.read["run"] == 3

    def test_it_keeps_what_others_put_into_what_it_made(self, job: Job, tree: Tree) -> None:
        journal = job.run(tree.uri).journal
        mine = store_of(job).create_run(EXPERIMENT, "me", 1, [], "mine").info.run_id
        MongoDBModelRegistryStore(job.uri).create_model_version("forecast", "s3://mine")
        done = job.rollback(journal, force=True)
        assert run_ids(job) == {mine}
        versions = MongoDBModelRegistryStore(job.uri).search_model_versions("name = 'forecast'")
        assert [each.version for each in versions] == [3]
        assert sorted(each.kind for each in done.kept) == ["experiment", "registered_model"]

    def test_an_unknown_journal(self, job: Job, tree: Tree) -> None:
        known = job.run(tree.uri).journal
        with pytest.raises(ImportFailed, match=f"no import journal 'none'.*{known}"):
            job.rollback("none")


def test_an_analysis_writes_nothing(job: Job, fresh_uri: str, tree: Tree) -> None:
    (tree.root / EXPERIMENT / run_id(1) / "params" / "bad").write_bytes(b"\xff")
    outcome = analyze(config_for(fresh_uri), tree.uri, Options())
    with pymongo.MongoClient[dict[str, Any]](fresh_uri) as client:
        assert client.get_default_database().list_collection_names() == []
    assert outcome.stats.read["run"] == 3
    assert outcome.problems == 1
    store_of(job).create_experiment(NAME, None, [])
    before = job.contents()
    conflicts = analyze(config_for(job.uri), tree.uri, Options()).conflicts
    assert [each.kind for each in conflicts] == ["experiment"]
    assert job.contents() == before


def run_cli(*args: str) -> Result:
    return CliRunner().invoke(cli, ["--quiet", *args])


class TestCommand:
    def test_it_imports_and_reports(self, job: Job, tree: Tree, tmp_path: Path) -> None:
        (tree.root / EXPERIMENT / run_id(1) / "params" / "bad").write_bytes(b"\xff")
        report = tmp_path / "report.jsonl"
        done = run_cli("--uri", job.uri, "import", tree.uri, "--json", "--report", str(report))
        assert done.exit_code == 3
        answer = json.loads(done.stdout)
        assert answer["read"]["run"] == 3
        assert answer["problem_count"] == len(answer["problems"]) == 1
        assert json.loads(report.read_text()) == answer["problems"][0]
        listed = json.loads(run_cli("--uri", job.uri, "import", "--list", "--json").stdout)
        assert [(each["journal"], each["state"]) for each in listed] == [(answer["journal"], "incomplete")]
        again = run_cli("--uri", job.uri, "import", "--rollback", answer["journal"])
        assert again.exit_code == 0
        assert "removed 3 runs" in again.stdout

    @pytest.mark.parametrize(
        "args",
        [[], ["x", "--analyze", "--verify"], ["x", "--since", "soon"]],
    )
    def test_a_wrong_command_line(self, job: Job, args: list[str]) -> None:
        assert run_cli("--uri", job.uri, "import", *args).exit_code == 64

    @pytest.mark.parametrize(
        ("args", "ignored"),
        [
            (["x", "--verify", "--workers", "1"], "--workers"),
            (["x", "--verify", "--report", "r", "--since", "2026-11-01"], "--report"),
            (["x", "--rollback", "y"], "SOURCE"),
            (["--rollback", "y", "--on-error", "stop", "--experiment", "1"], "--experiment or --on-error"),
            (["--list", "--since", "2026-11-01"], "--since"),
        ],
    )
    def test_what_would_be_ignored_is_refused(self, job: Job, args: list[str], ignored: str) -> None:
        done = run_cli("--uri", job.uri, "import", *args, "--json")
        assert done.exit_code == 64
        assert f"does not take {ignored}:" in done.stderr

    def test_up_imports_what_the_ini_names_once(self, job: Job, tree: Tree, tmp_path: Path) -> None:
        ini = tmp_path / "alembic_like.ini"
        ini.write_text(f"[genesis-migrate]\nuri = {job.uri}\n[imports]\nfile_store = {tree.root}\n")
        planned = run_cli("-c", str(ini), "plan", "--json")
        assert (planned.exit_code, json.loads(planned.stdout)["imports"]) == (2, [tree.uri])
        assert run_cli("-c", str(ini), "up").exit_code == 0
        assert len(run_ids(job)) == 3
        history = json.loads(run_cli("-c", str(ini), "history", "--json").stdout)
        assert [each["name"] for each in history if each["action"] == "import"] == ["done"]
        tree.run(9)
        assert json.loads(run_cli("-c", str(ini), "up", "--json").stdout)["imports"] == []
        assert run_cli("-c", str(ini), "plan").exit_code == 0
        assert len(run_ids(job)) == 3
        assert run_cli("-c", str(ini), "up", "--imports", "again").exit_code == 0
        assert len(run_ids(job)) == 4
