"""Trees of real MLflow versions, imported, against MLflow's own file store over the same trees."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest

from genesis_flow.importers.engine import Options, Outcome, run_import
from genesis_flow.migrate.config import load_config
from genesis_flow.sync.registry import MongoDBModelRegistryStore
from genesis_flow.sync.tracking import MongoDBStore
from tests.importing.stores import plain, registry_state, tracking_state
from tests.importing.trees import VERSIONS, unpack
from tests.mongod import Mongod, unique


class Imported:
    """The two sides of one version."""

    def __init__(self, version: str, uri: str, root: Path, outcome: Outcome) -> None:
        from mlflow.store.model_registry.file_store import FileStore as FileRegistry
        from mlflow.store.tracking.file_store import FileStore

        self.version = version
        self.outcome = outcome
        self.tracking, self.registry = MongoDBStore(uri, str(root)), MongoDBModelRegistryStore(uri)
        self.their_tracking, self.their_registry = FileStore(str(root)), FileRegistry(str(root))


@pytest.fixture(scope="module", params=VERSIONS)
def imported(
    request: pytest.FixtureRequest, mongod: Mongod, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Imported]:
    name = unique("import_tree_" + request.param.replace(".", "_"))
    uri = mongod.database_uri(name)
    root = unpack(request.param, tmp_path_factory.mktemp("tree"))
    outcome = run_import(load_config(uri, environ={}), root.as_uri(), Options())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_TRACKING_URI", root.as_uri())  # the file registry asks it for logged models
        yield Imported(request.param, uri, root, outcome)
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(name)


def test_nothing_is_left_out(imported: Imported) -> None:
    assert imported.outcome.problems == 0
    assert not imported.outcome.stats.skipped


def test_tracking_answers_as_the_file_store_does(imported: Imported) -> None:
    ours, theirs = tracking_state(imported.tracking), tracking_state(imported.their_tracking)
    for experiment in theirs["experiments"].values():
        # MLflow before 1.30 kept no times, and ours are numbers.
        experiment["creation_time"] = experiment["creation_time"] or 0
        experiment["last_update_time"] = experiment["last_update_time"] or 0
    for state in (ours, theirs):
        state["histories"] = _points(state["histories"])
        state["datasets"] = sorted(state["datasets"], key=repr)
    # A run that MLflow before 1.30 deleted has no time of that; the file store takes it for long ago.
    if imported.version == "1.0.0":
        assert ours.pop("deleted runs") == []
        assert len(theirs.pop("deleted runs")) == 1
    if imported.version == "3.17.2":
        _correct_step(ours, theirs)
    # Of a model's metrics the file store tells only the latest points.
    for our_model, their_model in zip(ours["models"], theirs["models"], strict=True):
        our_points, their_points = (each.pop("metrics") or [] for each in (our_model, their_model))
        assert all(point in our_points for point in their_points)
    for part in ours:
        assert ours[part] == theirs[part], part


def _correct_step(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """MLflow's file store forgets the step of a point that names a dataset: its line has it."""
    ((key, points),) = [
        (key, points) for key, points in theirs["histories"].items() if (1700000000009, 0, 0.9) in points
    ]
    theirs["histories"][key] = points - {(1700000000009, 0, 0.9)} | {(1700000000009, 9, 0.9)}
    run_id, name = key
    theirs["runs"][run_id]["data"]["metrics"][name] = 0.9


def test_traces_and_assessments(imported: Imported) -> None:
    ids = [each.experiment_id for each in imported.tracking.search_experiments()]
    theirs, _ = imported.their_tracking.search_traces(locations=ids, max_results=100)
    for expected in theirs:
        answer, expected_answer = (
            plain(each) for each in (imported.tracking.get_trace_info(expected.trace_id), expected)
        )
        for assessment in expected_answer["assessments"]:
            # Not stated in the file, and in the SQL store so from the start.
            assessment["valid"] = assessment["valid"] is not False
        assert answer == expected_answer
    assert len(imported.tracking.search_traces(locations=ids, max_results=100)[0]) == len(theirs)


def test_the_registry(imported: Imported) -> None:
    ours, theirs = (
        registry_state(store, with_webhooks=False) for store in (imported.registry, imported.their_registry)
    )
    for name, model in theirs["models"].items():
        # The file store keeps them as text, and in any order.
        model["aliases"] = {alias: int(version) for alias, version in model["aliases"].items()}
        assert _by_version(model) == _by_version(ours["models"][name])
        theirs["latest"][name] = ours["latest"][name]
    for (_, _), (version, _) in theirs["versions"].items():
        version["metrics"] = version["params"] = None  # of its logged model, which ours leaves there
    assert ours == theirs


def _by_version(model: dict[str, Any]) -> list[tuple[Any, Any]]:
    latest = model.pop("latest_versions")
    return sorted((each["version"], each["current_stage"]) for each in latest)


def _points(histories: dict[Any, list[Any]]) -> dict[Any, Any]:
    """Histories as the sets that ours are; of a point only what a history is about."""
    return {
        key: {(point["timestamp"], point["step"], point["value"]) for point in history}
        for key, history in histories.items()
    }
