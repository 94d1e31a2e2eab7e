"""Blocking callers run some calls themselves; those too take back what came too late for a deletion."""

import uuid
from contextlib import nullcontext
from typing import Any

import pymongo
import pytest
from mlflow.entities import Feedback
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore as BlockingStore
from tests.contract.trace_scenes import span, stated
from tests.faults import failing
from tests.interruption import interrupted
from tests.mongod import Mongod
from tests.trust.test_races_of_deletions import UNAUTHORIZED, many


@pytest.mark.parametrize("call", ["create_run", "log_batch", "log_spans", "start_trace"])
def test_a_blocking_call_takes_back_what_came_too_late(
    standalone: Mongod, database_name: str, call: str
) -> None:
    uri = standalone.database_uri(database_name)
    store, other = BlockingStore(uri), BlockingStore(f"{uri}&appName=other")
    experiment_id = store.create_experiment("e")
    run_id = store.create_run(experiment_id, "me", 1, [], None).info.run_id
    trace_id = f"tr-{uuid.uuid4().hex}"
    store.log_spans(experiment_id, [span(trace_id, 1)])
    feedback = Feedback(name="f", value=1, trace_id=trace_id)

    def delete_run() -> None:
        other.delete_run(run_id)
        other._hard_delete_run(run_id)

    def delete_traces() -> None:
        other.delete_traces(experiment_id, trace_ids=[trace_id])

    def delete_traces_but_for_the_last_step() -> None:
        refused = failing(
            uri, "delete", app="other", namespace=f"{database_name}.traces", errorCode=UNAUTHORIZED
        )
        with refused, pytest.raises(MlflowException):
            delete_traces()

    command, collection, act, late, error = {
        "create_run": (
            *("insert", "runs", lambda: other.delete_experiment(experiment_id)),
            *(lambda: store.create_run(experiment_id, "me", 1, [], None), "INVALID_PARAMETER_VALUE"),
        ),
        "log_batch": (
            *("insert", "latest_metrics", delete_run),
            *(lambda: store.log_batch(run_id, many("new"), [], []), "RESOURCE_DOES_NOT_EXIST"),
        ),
        "log_spans": (
            *("insert", "spans", delete_traces_but_for_the_last_step),
            *(lambda: store.log_spans(experiment_id, [span(trace_id, 2)]), "TEMPORARILY_UNAVAILABLE"),
        ),
        "start_trace": (
            *("update", "assessments", delete_traces),
            *(lambda: store.start_trace(stated(trace_id, experiment_id, assessments=[feedback])), None),
        ),
    }[call]
    expected = pytest.raises(MlflowException) if error else nullcontext()
    with interrupted(command, collection, act) as interruption, expected as refusal:
        late()
    if refusal is not None:
        assert refusal.value.error_code == error
    assert interruption.error is None
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        raw = client[database_name]
        runs = 0 if call in ("create_run", "log_batch") else 1
        assert raw.runs.count_documents({"lifecycle_stage": "active"}) == runs
        assert raw.latest_metrics.count_documents({}) == raw.metrics.count_documents({}) == 0
        assert raw.assessments.count_documents({}) == 0
        assert raw.spans.count_documents({}) == (1 if call in ("create_run", "log_batch") else 0)
        client.drop_database(database_name)
    store.close()
    other.close()
