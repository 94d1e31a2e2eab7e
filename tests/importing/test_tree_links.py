"""Nothing outside a tree is read, and what is no regular file is named: links, loops, pipes, sockets."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from genesis_flow.importers.engine import Options, analyze
from tests.importing.jobs import Job, config_for
from tests.importing.small_trees import EXPERIMENT, Tree, run_id, small_tree

SECRET = "nobody's business"
LINK = "it is a symbolic link, which is not followed"
STRANGE = "it is no regular file"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the tree that looks like a part of one."""
    other = small_tree(tmp_path / "outside" / "mlruns")
    run = other.root / EXPERIMENT / run_id(0)
    for path in (run / "params" / "secret", run / "tags" / "secret", run / "artifacts" / "secret"):
        path.write_text(SECRET)
    (run / "metrics" / "secret").write_text("1 7 1\n")
    moved = other.root / EXPERIMENT / run_id(7)
    run.rename(moved)
    meta = moved / "meta.yaml"
    meta.write_text(meta.read_text().replace(run_id(0), run_id(7)).replace("someone", SECRET))
    (other.root / "models" / "forecast").rename(other.root / "models" / "secret")
    (other.root / "datasets" / "d").mkdir(parents=True)
    (other.root / "datasets" / "d" / "meta.yaml").write_text(
        f"name: {SECRET}\ndigest: x\nsource: s\nsource_type: t\n"
    )
    return other.root


Change = Callable[[Path, Path], Path]


def link(inside: str, target: str) -> Change:
    """A link at a place of the tree to a place outside, instead of what was there."""

    def change(root: Path, outside: Path) -> Path:
        place = root / inside.format(run=f"{EXPERIMENT}/{run_id(0)}", experiment=EXPERIMENT)
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(outside / target.format(run=f"{EXPERIMENT}/{run_id(7)}", experiment=EXPERIMENT))
        return place

    return change


def loop(root: Path, outside: Path) -> Path:
    place = root / EXPERIMENT / run_id(0) / "params" / "loop"
    place.symlink_to("..")
    return place


def unfollowed(inside: str) -> Change:
    """A pipe that nobody writes to."""

    def change(root: Path, outside: Path) -> Path:
        place = root / inside.format(run=f"{EXPERIMENT}/{run_id(0)}", experiment=EXPERIMENT)
        place.unlink(missing_ok=True)
        os.mkfifo(place)
        return place

    return change


def listening(root: Path, outside: Path) -> Path:
    place = root / EXPERIMENT / run_id(0) / "tags" / "socket"
    here = Path.cwd()
    os.chdir(place.parent)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(place.name)
    finally:
        os.chdir(here)
    return place


def stepping_out(root: Path, outside: Path) -> Path:
    """An input of a run that names a dataset by a way out of the tree."""
    way = os.path.relpath(outside / "datasets" / "d", root / EXPERIMENT / "datasets")
    (root / EXPERIMENT / "datasets").mkdir()
    place = root / EXPERIMENT / run_id(0) / "inputs" / "i" / "meta.yaml"
    place.parent.mkdir(parents=True)
    place.write_text(
        f"source_type: DATASET\nsource_id: {way}\ndestination_type: RUN\n"
        f"destination_id: {run_id(0)}\ntags: {{}}\n"
    )
    return place


CHANGES: dict[str, Change] = {
    "a param": link("{run}/params/lr", "{run}/params/secret"),
    "the params": link("{run}/params", "{run}/params"),
    "the tags": link("{run}/tags", "{run}/tags"),
    "the metrics": link("{run}/metrics", "{run}/metrics"),
    "a metric": link("{run}/metrics/loss", "{run}/metrics/secret"),
    "the meta of a run": link("{run}/meta.yaml", "{run}/meta.yaml"),
    "the meta of an experiment": link("{experiment}/meta.yaml", "{run}/meta.yaml"),
    "a run": link(f"{EXPERIMENT}/{run_id(7)}", "{run}"),
    "an experiment": link("4", "{experiment}"),
    "the trash": link(".trash", "."),
    "a deleted experiment": link(".trash/4", "{experiment}"),
    "the models": link("models", "models"),
    "a model": link("models/secret", "models/secret"),
    "a version": link("models/forecast/version-3", "models/secret/version-2"),
    "the datasets": link("{experiment}/datasets", "datasets"),
    "a dataset": link("{experiment}/datasets/d", "datasets/d"),
    "the traces": link("{experiment}/traces", "models"),
    "a trace": link("{experiment}/traces/t", "models/secret"),
    "a logged model": link("{experiment}/models/m", "models/secret"),
    "the inputs": link("{run}/inputs", "datasets"),
    "an input": link("{run}/inputs/d", "datasets/d"),
    "a loop": loop,
    "a pipe as a param": unfollowed("{run}/params/pipe"),
    "a pipe as a metric": unfollowed("{run}/metrics/pipe"),
    "a pipe as a meta": unfollowed("{run}/meta.yaml"),
    "a socket as a tag": listening,
    "a way out": stepping_out,
}


@pytest.mark.parametrize("name", CHANGES)
def test_it_is_named_and_not_read(job: Job, tree: Tree, outside: Path, name: str) -> None:
    place = CHANGES[name](tree.root, outside)
    for outcome in (analyze(config_for(job.uri), tree.uri, Options()), job.run(tree.uri)):
        named = {each.where: each.reason for each in outcome.first_problems}
        assert str(place) in named
        told = "not the name of a folder" if name == "a way out" else STRANGE if "pipe" in name else LINK
        told = STRANGE if "socket" in name else told
        assert told in named[str(place)]
        assert len(named) == 1
    contents = job.contents()
    assert SECRET not in str(contents)
    assert run_id(7) not in str(contents)
    assert 7.0 not in [head["latest"]["value"] for head in contents["latest_metrics"].values()]
    # Everything else is there.
    lost = name.startswith(("the meta of a run", "a pipe as a meta"))
    assert len(contents["runs"]) == (2 if lost else 3)


def test_the_tree_itself_may_be_a_link(job: Job, tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(tree.root)
    outcome = job.run((tmp_path / "linked").as_uri())
    assert outcome.problems == 0
    assert len(job.contents()["runs"]) == 3
    # It is the same source by its own name.
    assert job.run(tree.uri).journal == outcome.journal


def with_artifacts(tree: Tree) -> Path:
    """The artifacts of a run, where its meta says that they are."""
    run = tree.root / EXPERIMENT / run_id(0)
    meta = run / "meta.yaml"
    meta.write_text(
        meta.read_text().replace(f"s3://bucket/{EXPERIMENT}/{run_id(0)}/artifacts", f"{run}/artifacts")
    )
    (run / "artifacts" / "note").write_text("fine")
    return run / "artifacts"


def copied(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root / EXPERIMENT / run_id(0) / "artifacts").as_posix(): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and run_id(0) in path.parts
    }


def test_links_and_pipes_among_artifacts_are_named_and_the_rest_is_copied(
    job: Job, tree: Tree, outside: Path, tmp_path: Path
) -> None:
    artifacts, root = with_artifacts(tree), tmp_path / "target"
    secret = outside / EXPERIMENT / run_id(7) / "artifacts"
    (artifacts / "file").symlink_to(secret / "secret")
    (artifacts / "folder").symlink_to(secret)
    (artifacts / "deep").mkdir()
    os.mkfifo(artifacts / "deep" / "pipe")
    outcome = job.run(tree.uri, experiments=[EXPERIMENT], artifacts="copy", artifact_root=root.as_uri())
    named = {each.where: each.reason for each in outcome.first_problems if str(artifacts) in each.where}
    assert named == {
        str(artifacts / "file"): LINK,
        str(artifacts / "folder"): LINK,
        str(artifacts / "deep" / "pipe"): STRANGE,
    }
    assert copied(root) == {"note": "fine"}


@pytest.mark.parametrize("what", ["artifacts", "run"])
def test_an_artifact_folder_that_is_a_link_stays_where_it_is(
    job: Job, tree: Tree, outside: Path, tmp_path: Path, what: str
) -> None:
    artifacts, root = with_artifacts(tree), tmp_path / "target"
    if what == "artifacts":
        shutil.rmtree(artifacts)
        artifacts.symlink_to(outside / EXPERIMENT / run_id(7) / "artifacts")
    else:  # another run's meta leads through a link
        (tree.root / "way").symlink_to(outside / EXPERIMENT / run_id(7))
        meta = artifacts.parent / "meta.yaml"
        meta.write_text(meta.read_text().replace(str(artifacts), str(tree.root / "way" / "artifacts")))
    outcome = job.run(tree.uri, experiments=[EXPERIMENT], artifacts="copy", artifact_root=root.as_uri())
    reasons = [each.reason for each in outcome.first_problems if each.kind == "artifact"]
    assert any("is a symbolic link, which is not followed" in reason for reason in reasons)
    assert not any(path.read_text() == SECRET for path in root.rglob("*") if path.is_file())
