"""Half-done changes: made as a crash between two writes would leave them, found, and finished."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow import MlflowClient
from pymongo.database import Database

from tests.doctor.helpers import Report, examine
from tests.mongod import Mongod


@pytest.fixture
def uri(standalone: Mongod, database_name: str) -> str:
    return standalone.database_uri(database_name)


@pytest.fixture
def raw(standalone: Mongod, database_name: str) -> Iterator[Database[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](standalone.uri) as client:
        yield client[database_name]
        client.drop_database(database_name)


@pytest.fixture
def client(uri: str, raw: Database[dict[str, Any]]) -> MlflowClient:
    return MlflowClient(uri, uri)


def doctor(uri: str, tmp_path: Path, *options: str) -> Report:
    return examine("--artifact-root", str(tmp_path / "artifacts"), *options, uri=uri)


def check_repair(uri: str, tmp_path: Path, name: str) -> None:
    """Found and named; finished when asked for; then gone."""
    found = doctor(uri, tmp_path)
    assert (found.code, found.verdict("half-done")) == (0, "warn")
    assert name in found.told("half-done")
    assert doctor(uri, tmp_path).verdict("half-done") == "warn", "to look changes nothing"
    repaired = doctor(uri, tmp_path, "--repair")
    assert (repaired.verdict("half-done"), name in repaired.told("half-done")) == ("ok", True)
    assert doctor(uri, tmp_path).told("half-done").strip() == "No half-done changes."


def run_with_metric(client: MlflowClient, experiment_id: str) -> str:
    run_id = client.create_run(experiment_id).info.run_id
    client.log_metric(run_id, "loss", 1.0)
    return run_id


def test_an_experiment_that_was_being_deleted(
    client: MlflowClient, uri: str, raw: Database[dict[str, Any]], tmp_path: Path
) -> None:
    experiment_id = client.create_experiment("half gone")
    run_id = run_with_metric(client, experiment_id)
    raw.experiments.update_one(
        {"name": "half gone"}, {"$set": {"lifecycle_stage": "deleted", "pending": "deleted"}}
    )
    check_repair(uri, tmp_path, "half gone")
    assert client.get_run(run_id).info.lifecycle_stage == "deleted"
    assert raw.latest_metrics.count_documents({"active": True}) == 0


def test_a_model_that_was_being_renamed(
    client: MlflowClient, uri: str, raw: Database[dict[str, Any]], tmp_path: Path
) -> None:
    client.create_registered_model("old name")
    client.create_model_version("old name", "s3://models/1")
    raw.registered_models.update_one(
        {"name": "old name"}, {"$set": {"name": "new name", "renamed_from": "old name"}}
    )
    check_repair(uri, tmp_path, "old name > new name")
    assert [version.version for version in client.search_model_versions("name = 'new name'")] == [1]


def test_a_model_that_was_being_deleted(
    client: MlflowClient, uri: str, raw: Database[dict[str, Any]], tmp_path: Path
) -> None:
    for name in ("gone", "stays"):
        client.create_registered_model(name)
        client.create_model_version(name, "s3://models/1")
    raw.registered_models.delete_one({"name": "gone"})
    check_repair(uri, tmp_path, "gone")
    assert [version["name"] for version in raw.model_versions.find()] == ["stays"]


def test_runs_whose_metrics_did_not_follow(
    client: MlflowClient, uri: str, raw: Database[dict[str, Any]], tmp_path: Path
) -> None:
    deleted, restored = (run_with_metric(client, "0") for _ in range(2))
    raw.runs.update_one({"_id": deleted}, {"$set": {"lifecycle_stage": "deleted", "deleted_time": 1}})
    raw.latest_metrics.update_one({"run_uuid": restored}, {"$set": {"active": False}})
    found = doctor(uri, tmp_path)
    assert deleted in found.told("half-done")
    check_repair(uri, tmp_path, restored)
    client.log_metric(restored, "loss", 0.5)
    assert [head["active"] for head in raw.latest_metrics.find({"run_uuid": deleted})] == [False]


def test_a_name_that_was_taken_again_stays_with_its_new_owner(
    client: MlflowClient, uri: str, raw: Database[dict[str, Any]], tmp_path: Path
) -> None:
    for name in ("taken again", "renamed"):
        client.create_registered_model(name)
        client.create_model_version(name, "s3://models/1")
    raw.registered_models.update_one({"name": "renamed"}, {"$set": {"renamed_from": "taken again"}})
    doctor(uri, tmp_path, "--repair")
    for name in ("taken again", "renamed"):
        assert len(client.search_model_versions(f"name = '{name}'")) == 1


def test_an_issue_that_keeps_a_wrong_number_of_traces(
    client: MlflowClient, uri: str, raw: Database[dict[str, Any]], tmp_path: Path
) -> None:
    """A hand took a trace's reference out, or a dump was not of one moment."""
    store = client._tracking_client.store
    issue = store.create_issue("0", "i", "d").issue_id
    raw.issues.update_one({"_id": issue}, {"$set": {"traces": 5}})
    check_repair(uri, tmp_path, issue)
    (found,) = store.search_issues("0", include_trace_count=True)
    assert found.trace_count == 0
