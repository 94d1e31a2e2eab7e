"""Changes that a crash cut in two, and how they are finished.

Every one of them is written in an order that lets the same call finish it. Repairing is making that call
again; nothing is guessed. Versions of a model that is gone cannot be reached any more and are removed.
"""

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from itertools import chain
from typing import Any

from mlflow.exceptions import MlflowException
from pymongo.errors import PyMongoError

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.experiments.guards import ACTIVE, DELETED, ERASED
from genesis_flow.areas.issues.counts import COUNT_ANEW, KIND, TRACES_BY_ISSUE
from genesis_flow.areas.issues.documents import IssueFields
from genesis_flow.areas.metrics.documents import MetricHeadFields
from genesis_flow.areas.metrics.places import PLACE
from genesis_flow.areas.models.documents import ModelVersionFields, RegisteredModelFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.traces.documents import ERASING, AssessmentFields, TraceFields
from genesis_flow.cli.doctor.finding import Finding, ok, warn
from genesis_flow.cli.doctor.patient import Leftover, Patient
from genesis_flow.core.settings import Settings
from genesis_flow.documents.keys import children_of

# A writer that has not written a wide step for so long is taken for one that does not go on.
_IDLE = timedelta(hours=1)


def look(patient: Patient, *, everything: bool) -> Finding:
    """``everything``: also what only a crash without transactions leaves, for which more is read."""
    kinds = chain(_kinds(patient), _kinds_without_transactions(patient) if everything else ())
    leftovers = patient.leftovers = [kind for kind in kinds if kind.names]
    if not leftovers:
        return ok("half-done", "No half-done changes.")
    return warn(
        "half-done",
        f"Changes that are under way, or that a crash cut in two: {_described(leftovers)}.",
        "If nobody is making them now, `genesis-flow doctor --repair` finishes them.",
        **_details(leftovers),
    )


def repair(leftovers: list[Leftover]) -> Finding:
    problems = [problem for kind in leftovers for problem in _repair(kind)]
    if problems:
        return warn(
            "half-done",
            f"Repaired, but for: {'; '.join(problems)}.",
            "Look at those by hand.",
            **_details(leftovers),
        )
    return ok("half-done", f"Repaired: {_described(leftovers)}.", repaired=_details(leftovers))


def _described(leftovers: list[Leftover]) -> str:
    return "; ".join(kind.describe() for kind in leftovers)


def _details(leftovers: list[Leftover]) -> dict[str, Any]:
    return {kind.kind: kind.names for kind in leftovers}


def _repair(kind: Leftover) -> Iterator[str]:
    for name, finish in zip(kind.names, kind.finish, strict=True):
        try:
            finish()
        except (MlflowException, PyMongoError) as error:
            yield f"{name} ({error})"


def _kinds(patient: Patient) -> Iterator[Leftover]:
    prefix, db = patient.settings.prefix, patient.db
    experiments, runs = db[_name(prefix, ExperimentFields)], db[_name(prefix, RunFields)]
    yield _unfinished_experiments(experiments, patient.for_stores)
    yield _runs_of_deleted_experiments(experiments, runs, patient.for_stores)
    yield _unfinished_runs(runs, patient.for_stores)
    yield _unfinished_traces(db[_name(prefix, TraceFields)], patient.for_stores)
    yield _waiting_steps(experiments, db[_name(prefix, MetricHeadFields)], patient.for_stores)


def _kinds_without_transactions(patient: Patient) -> Iterator[Leftover]:
    prefix, db = patient.settings.prefix, patient.db
    yield _unfinished_renames(db[_name(prefix, RegisteredModelFields)], patient.for_stores)
    yield _orphaned_versions(db[_name(prefix, ModelVersionFields)], _name(prefix, RegisteredModelFields))
    runs, heads = db[_name(prefix, RunFields)], db[_name(prefix, MetricHeadFields)]
    yield _metrics_of_deleted_runs(runs, heads, patient.for_stores)
    yield _metrics_of_active_runs(runs, heads, patient.for_stores)
    yield _miscounted_issues(db[_name(prefix, IssueFields)], db[_name(prefix, AssessmentFields)])


def _name(prefix: str, document: Any) -> str:
    return f"{prefix}{document.Settings.name}"


def _unfinished_experiments(experiments: Any, settings: Settings) -> Leftover:
    """``pending`` is set until all runs have followed their experiment."""
    leftover = Leftover("experiments whose runs did not all follow them")
    for experiment in experiments.find({"pending": {"$exists": True}}, {"name": 1, "pending": 1}):
        leftover.add(experiment["name"], partial(_move_experiment, settings, experiment))
    return leftover


def _move_experiment(settings: Settings, document: dict[str, Any]) -> None:
    store = _tracking_store(settings)
    moves = {DELETED: store.delete_experiment, ERASED: store._hard_delete_experiment}
    moves.get(document["pending"], store.restore_experiment)(str(document["_id"]))


def _runs_of_deleted_experiments(experiments: Any, runs: Any, settings: Settings) -> Leftover:
    """A program made or restored a run of a deleted experiment, and ended before it took the run back."""
    leftover = Leftover("active runs of deleted experiments")
    deleted = [each["_id"] for each in experiments.find({"lifecycle_stage": DELETED}, {"_id": 1})]
    query = {"experiment_id": {"$in": deleted}, "lifecycle_stage": ACTIVE}
    for run in runs.find(query, {"_id": 1}):
        leftover.add(run["_id"], partial(_delete_run, runs, settings, run["_id"]))
    return leftover


def _delete_run(runs: Any, settings: Settings, run_id: str) -> None:
    if runs.find_one({"_id": run_id}, {"_id": 1}):  # it may have been taken back by now
        _tracking_store(settings).delete_run(run_id)


def _unfinished_runs(runs: Any, settings: Settings) -> Leftover:
    leftover = Leftover("runs that are being deleted for good")
    for run in runs.find({"deleted_time": {"$gte": 0}, "erasing": True}, {"_id": 1}):
        leftover.add(run["_id"], partial(_tracking_store(settings)._hard_delete_run, run["_id"]))
    return leftover


def _unfinished_traces(traces: Any, settings: Settings) -> Leftover:
    leftover = Leftover("traces that are being deleted")
    for trace in traces.find(ERASING, {"erasing": 1}):
        delete = _tracking_store(settings)._delete_traces
        experiment_id = str(trace["erasing"]["experiment_id"])
        leftover.add(trace["_id"], partial(delete, experiment_id, trace_ids=[trace["_id"]]))
    return leftover


def _waiting_steps(experiments: Any, heads: Any, settings: Settings) -> Leftover:
    """Wide steps of a program that ended before they became part of their metrics.

    They can be read, but each search by a metric reads them one by one.
    """
    leftover = Leftover("runs whose last wide steps nobody made part of their metrics")
    numbers = [each["_id"] for each in experiments.find({}, {"_id": 1})]
    query = {"experiment_id": {"$in": numbers}, "key": PLACE, "active": True}
    since = heads.database.command("hello")["localTime"] - _IDLE
    places = heads.find({**query, "written": {"$lt": since}}, {"run_uuid": 1})
    for run_id in sorted({place["run_uuid"] for place in places}):
        leftover.add(run_id, partial(_tracking_store(settings)._fold_wide_steps, run_id))
    return leftover


def _unfinished_renames(models: Any, settings: Settings) -> Leftover:
    leftover = Leftover("models whose versions did not all take their new name")
    for model in models.find({"renamed_from": {"$exists": True}}, {"name": 1, "renamed_from": 1}):
        leftover.add(
            f"{model['renamed_from']} > {model['name']}",
            partial(_rename, settings, model),
        )
    return leftover


def _rename(settings: Settings, model: dict[str, Any]) -> None:
    _registry_store(settings).rename_registered_model(model["renamed_from"], model["name"])


def _orphaned_versions(versions: Any, models: str) -> Leftover:
    """A model's id is never given again: documents of one that is gone are to go too."""
    leftover = Leftover("models that are deleted but for some versions")
    orphans = versions.aggregate(
        [
            {"$group": {"_id": "$model", "name": {"$first": "$name"}}},
            {"$lookup": {"from": models, "localField": "_id", "foreignField": "_id", "as": "owner"}},
            {"$match": {"owner": []}},
        ]
    )
    for orphan in orphans:
        leftover.add(orphan["name"], partial(versions.delete_many, {"model": orphan["_id"]}))
    return leftover


def _metrics_of_deleted_runs(runs: Any, heads: Any, settings: Settings) -> Leftover:
    """A deleted run whose metrics still take points."""
    leftover = Leftover("deleted runs whose metrics can still be written")
    for run in runs.find({"lifecycle_stage": DELETED}, {"_id": 1}):
        if heads.find_one({"_id": children_of(run["_id"]), "active": True}, {"_id": 1}):
            leftover.add(run["_id"], partial(_tracking_store(settings).delete_run, run["_id"]))
    return leftover


def _metrics_of_active_runs(runs: Any, heads: Any, settings: Settings) -> Leftover:
    """A run that was restored, some of whose metrics still refuse points."""
    leftover = Leftover("active runs some of whose metrics cannot be written")
    closed = heads.aggregate(
        [
            {"$match": {"active": False}},
            {"$group": {"_id": "$run_uuid"}},
            {"$lookup": {"from": runs.name, "localField": "_id", "foreignField": "_id", "as": "run"}},
            {"$match": {"run": {"$elemMatch": {"lifecycle_stage": {"$ne": DELETED}}}}},
        ]
    )
    for run in closed:
        leftover.add(run["_id"], partial(_tracking_store(settings).restore_run, run["_id"]))
    return leftover


def _miscounted_issues(issues: Any, assessments: Any) -> Leftover:
    """What no crash leaves, but a dump that is not of one moment, or a hand that deletes assessments."""
    leftover = Leftover("issues that keep a wrong number of traces")
    rows = assessments.aggregate([{"$match": {"kind": KIND}}, *TRACES_BY_ISSUE])
    traces = {row["_id"]: row["traces"] for row in rows}
    for issue in issues.find({"counted": True}, {"traces": 1}):
        if issue["traces"] != traces.get(issue["_id"], 0):
            leftover.add(issue["_id"], partial(issues.update_one, {"_id": issue["_id"]}, COUNT_ANEW))
    return leftover


def _tracking_store(settings: Settings) -> Any:
    from genesis_flow.sync.tracking import MongoDBStore

    return MongoDBStore.from_settings(_with_any_names(settings))


def _registry_store(settings: Settings) -> Any:
    from genesis_flow.sync.registry import MongoDBModelRegistryStore

    return MongoDBModelRegistryStore.from_settings(_with_any_names(settings))


def _with_any_names(settings: Settings) -> Settings:
    """What is to be repaired may be older than the wish for strict input."""
    return dataclasses.replace(settings, strict_input=None)
