"""``--artifacts``: files go to the target's root, whole and once, and every place that names them changes."""

import os
import signal
from pathlib import Path
from typing import Any

import mlflow
import pymongo
import pytest
import yaml
from mlflow.artifacts import download_artifacts
from mlflow.entities import ViewType

from genesis_flow import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.importers.artifact_files import Target
from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.rollback import rollback
from genesis_flow.importers.verify.entities import canonical
from genesis_flow.migrate.config import load_config
from tests.importing.killing import run_child
from tests.importing.trees import MADE_AT, VERSIONS, unpack
from tests.importing.verifying import bring, check

NEWEST = VERSIONS[-1]


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def _root(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "target root"
    return folder, folder.as_uri()


@pytest.mark.parametrize("version", [VERSIONS[0], NEWEST])
def test_copies_every_file_and_leads_there(store_uri: str, tmp_path: Path, version: str) -> None:
    source = unpack(version, tmp_path)
    before = _files(source)
    _, root = _root(tmp_path)
    outcome = bring(store_uri, str(source), artifacts="copy", artifact_root=root)
    # One experiment keeps its artifacts in a bucket that cannot be reached from here.
    assert [problem.where[:12] for problem in outcome.first_problems] == ["s3://bucket/"]
    assert _files(source) == before
    store = MongoDBStore(store_uri)
    experiments = [each.experiment_id for each in store.search_experiments(ViewType.ALL)]
    copied = 0
    for run in store.search_runs(experiments, "", ViewType.ALL, 1000):
        if run.info.artifact_uri.startswith("s3://"):
            continue
        assert run.info.artifact_uri.startswith(root)
        names = _files(next(source.rglob(f"{run.info.run_id}/artifacts")))
        arrived = _files(Path(download_artifacts(run.info.artifact_uri)))
        assert arrived == names
        copied += len(names)
    assert copied >= 18
    assert check(store_uri, str(source)).equal


def test_metadata_of_models_names_the_new_place(store_uri: str, tmp_path: Path) -> None:
    source = unpack(NEWEST, tmp_path)
    _, root = _root(tmp_path)
    bring(store_uri, str(source), artifacts="copy", artifact_root=root)
    with pymongo.MongoClient(store_uri) as client:
        models = list(client.get_default_database()["logged_models"].find({"name": "echo"}))
        versions = list(client.get_default_database()["model_versions"].find({"name": "echo model"}))
    place = models[0]["artifact_location"]
    assert place.startswith(root)
    metadata = yaml.safe_load(Path(download_artifacts(f"{place}/MLmodel")).read_text())
    assert metadata["artifact_path"] == place
    assert str(source) not in Path(download_artifacts(f"{place}/MLmodel")).read_text()
    assert versions[0]["storage_location"] == place
    assert mlflow.pyfunc.load_model(place).predict(["a"]) == ["a"]


def test_versions_lead_into_the_copied_runs(store_uri: str, tmp_path: Path) -> None:
    source = unpack(NEWEST, tmp_path)
    _, root = _root(tmp_path)
    bring(store_uri, str(source), artifacts="copy", artifact_root=root)
    registry = MongoDBModelRegistryStore(store_uri)
    version = registry.get_model_version("model one", "1")
    assert version.source.startswith(root)
    assert version.source.endswith("/artifacts/folder")
    assert Path(download_artifacts(version.source), "with é", "note.txt").is_file()
    # A prompt has no place.
    assert registry.get_model_version("greeting", "1").source == "dummy-source"


def test_a_tree_that_was_moved_is_copied_from_where_it_is(store_uri: str, tmp_path: Path) -> None:
    source = unpack(NEWEST, tmp_path, relocate=False)
    folder, root = _root(tmp_path)
    assert MADE_AT in next(source.glob("0/*/meta.yaml")).read_text()
    bring(store_uri, str(source), artifacts="copy", artifact_root=root)
    copied = _files(folder)
    for run in source.glob("[0-9]*/*/artifacts"):
        for name in _files(run):
            assert f"{run.parent.parent.name}/{run.parent.name}/artifacts/{name}" in copied
    assert check(store_uri, str(source)).equal


def test_a_repetition_copies_nothing(store_uri: str, tmp_path: Path) -> None:
    source = unpack("2.22.0", tmp_path)
    folder, root = _root(tmp_path)
    bring(store_uri, str(source), artifacts="copy", artifact_root=root)
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    outcome = bring(store_uri, str(source), artifacts="copy", artifact_root=root)
    # Only the run in the bucket is tried again.
    assert outcome.stats.unchanged_units == outcome.stats.units - 1
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == first


def test_an_interrupted_copy_goes_on(store_uri: str, tmp_path: Path) -> None:
    source = unpack("2.22.0", tmp_path)
    folder, root = _root(tmp_path)
    # As a kill leaves it: some files whole, one in half, nothing in the database.
    bring(store_uri, str(source), artifacts="copy", artifact_root=root)
    with pymongo.MongoClient(store_uri) as client:
        client.drop_database(client.get_default_database().name)
    whole = _files(folder)
    names = sorted(name for name in whole if name.endswith("note.txt"))
    (folder / names[0]).write_bytes(whole[names[0]][:3])
    (folder / names[1]).unlink()
    kept = (folder / names[2]).stat().st_mtime_ns
    bring(store_uri, str(source), artifacts="copy", artifact_root=root)
    assert _files(folder) == whole
    assert (folder / names[2]).stat().st_mtime_ns == kept


def test_reference_keeps_and_none_leaves_behind(store_uri: str, tmp_path: Path) -> None:
    source = unpack("2.22.0", tmp_path)
    folder, root = _root(tmp_path)
    bring(store_uri, str(source))
    with pymongo.MongoClient(store_uri) as client:
        runs = client.get_default_database()["runs"]
        assert runs.count_documents({"artifact_uri": {"$regex": f"^{source.as_uri()}"}}) == 9
        # Another choice at the next import changes the places.
        bring(store_uri, str(source), artifacts="none", artifact_root=root)
        assert runs.count_documents({"artifact_uri": {"$regex": "^" + root}}) == runs.count_documents({})
    assert not folder.exists() or not _files(folder)
    assert check(store_uri, str(source)).equal


def test_what_cannot_be_copied_stays_and_is_named(store_uri: str, tmp_path: Path) -> None:
    source = unpack("2.22.0", tmp_path)
    folder, root = _root(tmp_path)
    folder.write_text("a file where the folder should be")
    outcome = bring(store_uri, str(source), artifacts="copy", artifact_root=root)
    assert outcome.problems >= 9
    assert {problem.kind for problem in outcome.first_problems} == {"artifact"}
    assert all("stay where they are" in problem.reason for problem in outcome.first_problems)
    with pymongo.MongoClient(store_uri) as client:
        runs = client.get_default_database()["runs"]
        assert runs.count_documents({"artifact_uri": {"$regex": f"^{source.as_uri()}"}}) == 9


def test_rollback_takes_copies_back_and_nothing_else(store_uri: str, tmp_path: Path) -> None:
    source = unpack("2.22.0", tmp_path)
    before = _files(source)
    folder, root = _root(tmp_path)
    outcome = bring(store_uri, str(source), artifacts="copy", artifact_root=root)
    copied = len(_files(folder))
    later = next(folder.rglob("note.txt")).parent / "logged later.txt"
    later.write_text("by somebody else")
    done = rollback(load_config(store_uri, environ={}), outcome.journal)
    assert done.removed["artifact files"] == copied > 18
    assert [folder / name for name in _files(folder)] == [later]
    assert _files(source) == before


def test_a_server_needs_a_root(store_uri: str, tmp_path: Path) -> None:
    with pytest.raises(ImportFailed, match="--artifact-root"):
        bring(store_uri, str(unpack("1.0.0", tmp_path)), artifacts="copy")


def test_numbers_of_one_kind_are_told_apart() -> None:
    assert len({canonical(value) for value in (1, 1.0, "1", True, None, "NaN", float("nan"))}) == 7


def _killed_as_it_comes_in(root: str, source: str) -> None:
    def killed(*_args: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    os.replace = killed
    Target(root).put("folder/note.txt", Path(source))


def test_a_copy_that_is_killed_and_made_again_leaves_the_file_alone(tmp_path: Path) -> None:
    folder, root = _root(tmp_path)
    source = tmp_path / "note.txt"
    source.write_text("artifact")
    assert run_child(_killed_as_it_comes_in, root, str(source)) == -signal.SIGKILL
    assert len(_files(folder)) == 1, "it was to be killed between writing and renaming"
    Target(root).put("folder/note.txt", source)
    assert _files(folder) == {"folder/note.txt": b"artifact"}


def test_files_that_a_killed_copy_left_go_with_a_rollback(tmp_path: Path) -> None:
    folder, root = _root(tmp_path)
    source = tmp_path / "note.txt"
    source.write_text("artifact")
    assert run_child(_killed_as_it_comes_in, root, str(source)) == -signal.SIGKILL
    Target(root).remove("folder/note.txt")
    assert _files(folder) == {}
