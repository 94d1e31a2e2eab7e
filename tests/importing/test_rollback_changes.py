"""A rollback keeps and names what people have changed since; --force removes it all the same."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.entities import (
    AssessmentSource,
    ExperimentTag,
    Feedback,
    LoggedModelTag,
    Metric,
    Param,
    RunTag,
)
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.entities.webhook import WebhookStatus

from genesis_flow.areas.metrics.documents import BLOCK_FROM
from genesis_flow.cli.migrate import cli
from genesis_flow.importers import loader
from genesis_flow.importers.target import ImportTarget
from genesis_flow.importers.writers.points import BLOCK_POINTS
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.jobs import Job
from tests.importing.small_trees import EXPERIMENT, Tree, run_id
from tests.importing.trees import unpack

Contents = dict[str, dict[Any, Any]]


def stores(job: Job) -> tuple[MongoDBStore, MongoDBModelRegistryStore]:
    return MongoDBStore(job.uri, "s3://bucket/base"), MongoDBModelRegistryStore(job.uri)


def kept(job: Job, journal: str) -> list[tuple[str, str]]:
    return sorted((each.kind, each.where) for each in job.rollback(journal).kept)


def contents(job: Job) -> Contents:
    """But for the time since when what readers of traces have summed up does not count any more."""
    return {name: found for name, found in job.contents().items() if name != "trace_sums"}


def fresh(job: Job) -> Contents:
    stores(job)[0].search_experiments()
    return contents(job)


def ids(job: Job, collection: str, **fields: Any) -> list[Any]:
    with job.database() as db:
        return sorted(each["_id"] for each in db[collection].find(fields, {"_id": 1}))


@pytest.mark.parametrize(("workers", "batch"), [(1, loader.BATCH_WRITES), (2, loader.BATCH_WRITES), (1, 2)])
def test_what_nobody_changed_goes_whole(
    job: Job, newest: Path, monkeypatch: pytest.MonkeyPatch, workers: int, batch: int
) -> None:
    """Things of every kind, in one batch or in parts: none of them looks changed."""
    monkeypatch.setattr(loader, "BATCH_WRITES", batch)
    before = fresh(job)
    done = job.rollback(job.run(f"sqlite:///{newest}", workers=workers).journal)
    assert done.kept == []
    assert contents(job) == before


@pytest.mark.parametrize("again", [False, True])
def test_a_tree_goes_whole(job: Job, tmp_path: Path, again: bool) -> None:
    before = fresh(job)
    source = unpack("3.17.2", tmp_path)
    journal = job.run(str(source)).journal
    if again:
        for path in source.rglob("*"):
            if path.is_file() and "artifacts" not in path.parts:
                path.touch()
        assert job.run(str(source)).stats.unchanged_units == 0
    done = job.rollback(journal)
    assert done.kept == []
    assert contents(job) == before


def test_what_was_repacked_is_not_changed(job: Job, tmp_path: Path) -> None:
    before = fresh(job)
    tree = Tree(tmp_path / "mlruns")
    tree.experiment()
    tree.run(1, points=3000)
    journal = job.run(tree.uri).journal
    assert CliRunner().invoke(cli, ["--uri", job.uri, "repack"]).exit_code == 0
    with job.database() as db:
        assert db.metrics.count_documents({"_id": {"$regex": r"\|s0000000[01]$"}}) == 2
    done = job.rollback(journal)
    assert done.kept == []
    assert contents(job) == before


def change_everything(job: Job) -> list[tuple[str, str]]:
    """One change of a thing of each kind and way; what has to stay therefore."""
    tracking, registry = stores(job)
    runs = ids(job, "runs", lifecycle_stage="active")
    tracking.log_metric(runs[0], Metric("loss", 9.0, 1_800_000_000_000, 77))
    tracking.log_metric(runs[1], Metric("of mine", 9.0, 1_800_000_000_000, 77))
    points = [Metric("many", float(at), 1_800_000_000_000, at) for at in range(BLOCK_FROM)]
    tracking.log_batch(runs[2], points, [], [])
    tracking.log_param(runs[3], Param("of mine", "1"))
    tracking.set_tag(runs[4], RunTag("reviewed", "yes"))
    tracking.delete_run(runs[5])
    changed = [("run", run) for run in runs[:6]]

    traces = ids(job, "traces")
    tracking.set_trace_tag(traces[0], "reviewed", "yes")
    source = AssessmentSource("HUMAN", "me")
    tracking.create_assessment(Feedback("mine", True, source=source, trace_id=traces[1]))
    changed += [("trace", trace) for trace in traces[:2]]

    models = ids(job, "logged_models", lifecycle_stage="active")
    tracking.set_logged_model_tags(models[0], [LoggedModelTag("reviewed", "yes")])
    point = Metric("of mine", 1.0, 1_800_000_000_000, 0, model_id=models[1], run_id=runs[0])
    tracking.log_metric(runs[0], point)
    changed += [("logged_model", model) for model in models[:2]]

    datasets = ids(job, "evaluation_datasets")
    tracking.set_dataset_tags(datasets[0], {"reviewed": "yes"})
    tracking.upsert_dataset_records(datasets[1], [{"inputs": {"q": "mine"}}])
    changed += [("evaluation_dataset", dataset) for dataset in datasets]

    tracking.set_experiment_tag("2", ExperimentTag("reviewed", "yes"))
    tracking.set_experiment_tag("0", ExperimentTag("reviewed", "yes"))
    registry.update_webhook(ids(job, "webhooks")[0], status=WebhookStatus.DISABLED)
    changed += [("experiment", "2"), ("experiment", "0"), ("webhook", ids(job, "webhooks")[0])]

    registry.set_registered_model_tag("Empty model", RegisteredModelTag("reviewed", "yes"))
    registry.set_model_version_tag("greeting", "1", ModelVersionTag("reviewed", "yes"))
    with job.database() as db:
        of = {each["name"]: each["_id"] for each in db["registered_models"].find()}
    for name in ("Empty model", "greeting"):
        # With all versions, which aliases and stages of the model may name.
        changed.append(("registered_model", of[name]))
        changed += [("model_version", each) for each in ids(job, "model_versions", name=name)]
    return changed


def test_what_people_changed_stays_and_is_named(job: Job, newest: Path) -> None:
    before = fresh(job)
    journal = job.run(f"sqlite:///{newest}").journal
    changed = change_everything(job)
    imported = contents(job)
    # What contains it stays, too.
    expected = sorted({*changed, ("experiment", "1"), *used_datasets(job, changed)})
    done = job.rollback(journal)
    assert sorted((each.kind, each.where) for each in done.kept) == expected
    after = contents(job)
    for kind, key in changed:
        collection = f"{kind}s"
        documents = {str(each): document for each, document in imported[collection].items()}
        assert {str(each): document for each, document in after[collection].items()}[key] == documents[key]
    assert len(after["runs"]) == 6
    assert {head["run_uuid"] for head in after["latest_metrics"].values()} <= set(after["runs"])
    reasons = {each.where: each.reason for each in done.kept}
    assert reasons[changed[0][1]] == "left in place, since it was changed after it was imported"
    assert kept(job, journal) == expected
    forced = job.rollback(journal, force=True)
    assert forced.kept == []
    assert contents(job) == before


def used_datasets(job: Job, changed: list[tuple[str, str]]) -> set[tuple[str, str]]:
    with job.database() as db:
        runs = db["runs"].find({"_id": {"$in": [key for kind, key in changed if kind == "run"]}})
        return {("dataset", used["id"]) for run in runs for used in run.get("inputs", ())}


def test_a_version_of_ones_own_keeps_its_model_whole(job: Job, tree: Tree) -> None:
    journal = job.run(tree.uri).journal
    registry = stores(job)[1]
    registry.create_model_version("forecast", "s3://mine")
    registry.set_registered_model_alias("forecast", "best", "1")
    assert [kind for kind, _ in kept(job, journal)] == ["model_version", "model_version", "registered_model"]
    assert registry.get_model_version_by_alias("forecast", "best").version == 1
    # What others made stays even so, and what it needs.
    assert [each.kind for each in job.rollback(journal, force=True).kept] == ["registered_model"]
    assert [each.version for each in registry.search_model_versions("name = 'forecast'")] == [3]


def test_a_change_is_not_forgotten_when_the_run_is_imported_again(job: Job, tree: Tree) -> None:
    run = tree.root / EXPERIMENT / run_id(0)
    job.run(tree.uri)
    stores(job)[0].log_metric(run_id(0), Metric("loss", 9.0, 1_800_000_000_000, 77))
    tree.log(run, "loss", range(3, 6))
    tree.log(tree.root / EXPERIMENT / run_id(1), "long", range(BLOCK_POINTS + BLOCK_FROM))
    journal = job.run(tree.uri).journal
    assert kept(job, journal) == [("experiment", EXPERIMENT), ("run", run_id(0))]


def test_a_run_that_grew_in_the_source_alone_is_not_changed(job: Job, tree: Tree) -> None:
    before = fresh(job)
    run = tree.root / EXPERIMENT / run_id(0)
    tree.log(run, "long", range(BLOCK_POINTS + BLOCK_FROM))
    # The same points twice make one block twice.
    for _ in range(2):
        tree.log(run, "twice", range(BLOCK_POINTS))
    job.run(tree.uri)
    tree.log(run, "long", range(BLOCK_POINTS + BLOCK_FROM, 2 * BLOCK_POINTS + 1))
    tree.log(run, "loss", range(3, 3 + BLOCK_FROM))
    done = job.rollback(job.run(tree.uri).journal)
    assert done.kept == []
    assert contents(job) == before


def test_what_an_interrupted_import_wrote_half_is_not_taken_for_unchanged(
    job: Job, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = job.run(tree.uri).journal
    stores(job)[0].set_tag(run_id(0), RunTag("reviewed", "yes"))
    tree.log(tree.root / EXPERIMENT / run_id(0), "loss", range(3, 6))
    tree.log(tree.root / EXPERIMENT / run_id(1), "loss", range(3, 6))
    write = ImportTarget.write

    def dying(target: ImportTarget, declared: Any, operations: list[Any]) -> int:
        if declared == "runs":
            raise RuntimeError("the machine went down")
        return write(target, declared, operations)

    with monkeypatch.context() as patch:
        patch.setattr(ImportTarget, "write", dying)
        with pytest.raises(RuntimeError, match="went down"):
            job.run(tree.uri)
    with job.database() as db:
        assert db["import_items"].count_documents({"changed": True}) == 1
    job.run(tree.uri)
    assert kept(job, journal) == [("experiment", EXPERIMENT), ("run", run_id(0))]


def test_a_rollback_behind_an_interrupted_import_keeps_what_it_cannot_tell(
    job: Job, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = job.run(tree.uri).journal
    tree.log(tree.root / EXPERIMENT / run_id(1), "loss", range(3, 6))
    write = ImportTarget.write

    def dying(target: ImportTarget, declared: Any, operations: list[Any]) -> int:
        if declared == "runs":
            raise RuntimeError("the machine went down")
        return write(target, declared, operations)

    with monkeypatch.context() as patch:
        patch.setattr(ImportTarget, "write", dying)
        with pytest.raises(RuntimeError, match="went down"):
            job.run(tree.uri)
    found = {each.where: each.reason for each in job.rollback(journal).kept}
    assert found.keys() == {EXPERIMENT, run_id(1)}
    assert "import again first" in found[run_id(1)]


def test_files_of_what_stays_stay(job: Job, tmp_path: Path) -> None:
    source, folder = unpack("3.17.2", tmp_path), tmp_path / "target root"
    journal = job.run(str(source), artifacts="copy", artifact_root=folder.as_uri()).journal
    files = {path for path in folder.rglob("*") if path.is_file()}
    tracking, registry = stores(job)
    with job.database() as db:
        of_run = next(each["_id"] for each in db["runs"].find() if f"/{each['_id']}/" in str(sorted(files)))
    tracking.set_tag(of_run, RunTag("reviewed", "yes"))
    mine = next(path for path in files if f"/{of_run}/" not in str(path) and path.parent.name == "artifacts")
    registry.create_registered_model("mine")
    registry.create_model_version("mine", mine.parent.as_uri())
    done = job.rollback(journal)
    left = {path for path in folder.rglob("*") if path.is_file()}
    assert left == {path for path in files if f"/{of_run}/" in str(path) or mine.parent in path.parents}
    assert left
    named = {each.where for each in done.kept if each.kind == "artifact"}
    assert mine.parent.as_uri() in named
    job.rollback(journal, force=True)
    assert {path for path in folder.rglob("*") if path.is_file()} == {
        path for path in left if mine.parent in path.parents
    }


def test_the_command(job: Job, tree: Tree) -> None:
    journal = job.run(tree.uri).journal
    stores(job)[0].set_tag(run_id(0), RunTag("reviewed", "yes"))
    command = ["--quiet", "--uri", job.uri, "import", "--rollback", journal]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 3
    assert "removed 2 runs" in done.stdout
    assert "removed 1 registered model\n" in done.stdout
    assert f"run {run_id(0)}: left in place, since it was changed after it was imported" in done.stdout
    assert "--force removes it all the same" in done.stdout
    forced = CliRunner().invoke(cli, [*command, "--force", "--json"])
    assert forced.exit_code == 0
    assert json.loads(forced.stdout)["removed"]["runs"] == 1
    wrong = CliRunner().invoke(cli, ["--uri", job.uri, "import", tree.uri, "--force"])
    assert (wrong.exit_code, "--force goes with --rollback" in wrong.stderr) == (64, True)
