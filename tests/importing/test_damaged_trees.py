"""What a tree may suffer in years: each thing costs only itself, and is named with its path and reason.

`mlflow migrate-filestore` (3.17.2) loses a run with a damaged meta.yaml and says that all went well; it loses
an experiment with an empty one and keeps its runs as orphans; and one bad line rolls back everything.
"""

import os
from pathlib import Path

import pytest

from genesis_flow.importers.errors import ImportFailed, Stopped
from genesis_flow.importers.verify.opening import open_source
from genesis_flow.importers.verify.wanted import Wanted
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.jobs import Job, reasons
from tests.importing.small_trees import EXPERIMENT, Tree, run_id


def runs_of(job: Job, experiment: str = EXPERIMENT) -> set[str]:
    return {run.info.run_id for run in MongoDBStore(job.uri).search_runs([experiment], "", 1)}


def history(job: Job, run: str, key: str = "loss") -> list[tuple[int, int, float]]:
    points = MongoDBStore(job.uri).get_metric_history(run, key)
    return [(point.timestamp, point.step, point.value) for point in points]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"run_id: [", "it is not valid YAML"),
        (b"just text", "it does not hold fields"),
        (b"\xff\xfe", "it is not UTF-8"),
        (b"artifact_uri: x\nend_time: 17", "it has no run_id"),
    ],
)
def test_a_damaged_run_is_named_and_no_other_is_lost(
    job: Job, tree: Tree, content: bytes, reason: str
) -> None:
    meta = tree.root / EXPERIMENT / run_id(1) / "meta.yaml"
    meta.write_bytes(content)
    outcome = job.run(tree.uri)
    assert runs_of(job) == {run_id(0), run_id(2)}
    (problem,) = outcome.first_problems
    assert problem.where == str(meta)
    assert reason in problem.reason
    assert problem.size > 0


def test_a_run_without_meta_is_named(job: Job, tree: Tree) -> None:
    (tree.root / EXPERIMENT / run_id(1) / "meta.yaml").unlink()
    outcome = job.run(tree.uri)
    assert runs_of(job) == {run_id(0), run_id(2)}
    assert outcome.first_problems[0].reason == "it is missing; the run is left out"


@pytest.mark.parametrize("content", [b"", None])
def test_the_runs_of_an_experiment_without_meta_keep_a_place(
    job: Job, tree: Tree, content: bytes | None
) -> None:
    meta = tree.root / EXPERIMENT / "meta.yaml"
    if content is None:
        meta.unlink()
    else:
        meta.write_bytes(content)
    outcome = job.run(tree.uri)
    assert runs_of(job) == {run_id(number) for number in range(3)}
    assert MongoDBStore(job.uri).get_experiment(EXPERIMENT).name == f"recovered {EXPERIMENT}"
    (problem,) = outcome.first_problems
    assert problem.where == str(meta)


def test_keys_may_be_missing_and_more_may_be_there(job: Job, tree: Tree) -> None:
    """MLflow has added and dropped keys over the years."""
    meta = tree.root / EXPERIMENT / run_id(1) / "meta.yaml"
    meta.write_text(f"run_uuid: {run_id(1)}\nexperiment_id: {EXPERIMENT}\nnew_key: {{a: [1]}}\n")
    (tree.root / EXPERIMENT / "meta.yaml").write_text(f"name: old\nexperiment_id: {EXPERIMENT}\nx: 1\n")
    assert job.run(tree.uri).problems == 0
    assert runs_of(job) == {run_id(number) for number in range(3)}
    info = MongoDBStore(job.uri).get_run(run_id(1)).info
    assert (info.run_name, info.status, info.start_time) == ("run-1", "RUNNING", 0)
    assert (info.lifecycle_stage, info.user_id) == ("active", "")


def test_lines_that_are_no_points_cost_only_themselves(job: Job, tree: Tree) -> None:
    path = tree.root / EXPERIMENT / run_id(0) / "metrics" / "loss"
    path.write_bytes(b"1 0.5 1\n1 2 3 4\nx 0.5 1\n2 0.25 2\n99999999999999999999 1 1\n3 nan 3\r\n\n4 0.125\n")
    outcome = job.run(tree.uri)
    found = history(job, run_id(0))
    assert [point for point in found if point[2] == point[2]] == [(1, 1, 0.5), (2, 2, 0.25), (4, 0, 0.125)]
    assert len(found) == 4
    (reason,) = (each.reason for each in outcome.first_problems)
    assert reason == "line 2 is not a point: '1 2 3 4', and 2 more lines"
    assert history(job, run_id(1))


def test_a_line_that_breaks_off_is_left_for_the_next_import(job: Job, tree: Tree) -> None:
    path = tree.root / EXPERIMENT / run_id(0) / "metrics" / "loss"
    path.write_bytes(b"1 0.5 1\n2 0.2")
    assert "breaks off" in job.run(tree.uri).first_problems[0].reason
    assert history(job, run_id(0)) == [(1, 1, 0.5)]
    path.write_bytes(b"1 0.5 1\n2 0.25 2")
    assert job.run(tree.uri).problems == 0
    assert history(job, run_id(0)) == [(1, 1, 0.5), (2, 2, 0.25)]


def test_values_that_are_not_text_cost_only_themselves(job: Job, tree: Tree) -> None:
    run = tree.root / EXPERIMENT / run_id(0)
    (run / "params" / "bad").write_bytes(b"\xff")
    (run / "params" / "good").write_bytes(b"line\r\nline\n")
    Path(os.fsdecode(os.fsencode(run / "tags") + b"/\xff")).write_text("x")
    (run / "metrics" / "empty").touch()
    outcome = job.run(tree.uri)
    data = MongoDBStore(job.uri).get_run(run_id(0)).data
    assert data.params == {"lr": "0.1", "good": "line\r\nline\n"}
    found = reasons(outcome)
    assert found[f"{run_id(0)}/params/bad"] == "it is not UTF-8 (byte 0)"
    assert found[f"{run_id(0)}/tags/\\xff"] == "its name is not UTF-8"
    assert found[f"{run_id(0)}/metrics/empty"] == "it has no points"
    assert outcome.problems == 3


def test_a_run_under_two_experiments_is_imported_once(job: Job, tree: Tree) -> None:
    tree.experiment("4", "other")
    tree.run(1, "4")
    for _ in range(2):
        outcome = job.run(tree.uri)
        (problem,) = outcome.first_problems
        assert (problem.where, problem.reason) == (run_id(1), "another part of the source has the same id")
        assert len(runs_of(job)) + len(runs_of(job, "4")) == 3


def test_a_run_that_says_another_experiment_is_named(job: Job, tree: Tree) -> None:
    tree.experiment("4", "other")
    (tree.root / EXPERIMENT / run_id(1)).rename(tree.root / "4" / run_id(1))
    (reason,) = (each.reason for each in job.run(tree.uri).first_problems)
    assert reason == f"it says experiment {EXPERIMENT}, but the run lies in experiment 4; the run is left out"


def test_an_experiment_in_the_trash_and_outside(job: Job, tree: Tree) -> None:
    tree.experiment(EXPERIMENT, "again", folder=f".trash/{EXPERIMENT}")
    tree.run(7, EXPERIMENT)
    (tree.root / EXPERIMENT / run_id(7)).rename(tree.root / ".trash" / EXPERIMENT / run_id(7))
    outcome = job.run(tree.uri)
    assert [each.kind for each in outcome.first_problems] == ["experiment"]
    assert runs_of(job) == {run_id(number) for number in (0, 1, 2, 7)}


def test_two_experiments_of_one_name_are_both_kept(job: Job, tree: Tree) -> None:
    tree.experiment("4", "weather")
    tree.run(9, "4")
    for _ in range(2):
        outcome = job.run(tree.uri)
        assert outcome.problems == 1
        names = {MongoDBStore(job.uri).get_experiment(number).name for number in (EXPERIMENT, "4")}
        assert names == {"weather", "weather (imported)"}
        assert runs_of(job, "4") == {run_id(9)}


def test_what_is_no_experiment_and_no_run_is_named(job: Job, tree: Tree) -> None:
    (tree.root / "backup of 3" / run_id(1)).mkdir(parents=True)
    (tree.root / EXPERIMENT / "checkpoints").mkdir()
    (tree.root / EXPERIMENT / ".ipynb_checkpoints").mkdir()
    found = sorted(each.reason for each in job.run(tree.uri).first_problems)
    assert found[0].startswith("it is no experiment")
    assert "(1 runs)" in found[0]
    assert found[1] == "it is no run: it has no meta.yaml"
    assert len(found) == 2


def test_damage_in_the_registry(job: Job, tree: Tree) -> None:
    model = tree.model("gauge", versions=3)
    (model / "version-2" / "meta.yaml").write_text("version: two\n")
    (model / "aliases").mkdir()
    (model / "aliases" / "best").write_text("2")
    (model / "aliases" / "good").write_text("3")
    outcome = job.run(tree.uri)
    registry = MongoDBModelRegistryStore(job.uri)
    assert registry.get_registered_model("gauge").aliases == {"good": 3}
    assert [each.version for each in registry.search_model_versions("name = 'gauge'")] == [3, 1]
    assert sorted(each.kind for each in outcome.first_problems) == ["alias", "model_version"]
    assert registry.create_model_version("gauge", "s3://x").version == 4


def test_a_meta_of_a_model_is_made_up_from_its_versions(job: Job, tree: Tree) -> None:
    (tree.root / "models" / "forecast" / "meta.yaml").write_text("")
    assert job.run(tree.uri).problems == 1
    model = MongoDBModelRegistryStore(job.uri).get_registered_model("forecast")
    assert model.creation_timestamp == 1_700_000_000_000


def test_stop_at_the_first_problem_and_go_on_after_it(job: Job, tree: Tree) -> None:
    meta = tree.root / EXPERIMENT / run_id(1) / "meta.yaml"
    content = meta.read_text()
    meta.write_text("")
    with pytest.raises(Stopped, match=r"it is empty; the run is left out \(stopped"):
        job.run(tree.uri, stop_on_error=True)
    meta.write_text(content)
    assert job.run(tree.uri, stop_on_error=True).problems == 0
    assert len(runs_of(job)) == 3


def test_problems_stay_until_they_are_solved(job: Job, tree: Tree) -> None:
    path = tree.root / EXPERIMENT / run_id(1) / "params" / "bad"
    path.write_bytes(b"\xff")
    assert job.run(tree.uri).problems == 1
    assert job.run(tree.uri).problems == 1
    path.write_bytes(b"fine")
    assert job.run(tree.uri).problems == 0
    assert MongoDBStore(job.uri).get_run(run_id(1)).data.params["bad"] == "fine"


@pytest.mark.parametrize("where", ["", "nothing-here", "empty"])
def test_what_is_no_tree_is_refused(job: Job, tree: Tree, tmp_path: Path, where: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImportFailed, match="is not a"):
        job.run((tmp_path / where).as_uri())


def test_a_verification_names_tags_of_an_input_that_are_no_map(tree: Tree) -> None:
    dataset, used = (
        tree.root / EXPERIMENT / "datasets" / "d",
        tree.root / EXPERIMENT / run_id(0) / "inputs" / "i",
    )
    for folder, meta in ((dataset, "name: data\ndigest: '1'\n"), (used, "source_id: d\ntags: [5]\n")):
        folder.mkdir(parents=True)
        (folder / "meta.yaml").write_text(meta)
    source = open_source(tree.uri, Wanted())
    assert len(list(source.entities("run"))) == 3
    (trouble,) = source.troubles
    assert (trouble.where, trouble.reason) == (
        str(used / "meta.yaml"),
        "its tags are no map of names and values",
    )
