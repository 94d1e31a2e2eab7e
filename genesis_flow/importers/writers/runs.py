"""Experiments, their datasets, and runs with their metrics as documents."""

from collections.abc import Iterable
from functools import partial

from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.runs.datasets import DatasetFields, dataset_key
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.documents.plain import Document
from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.records import Body, Problem, Record, Series
from genesis_flow.importers.writers.base import Context, Write, Writer, escaped
from genesis_flow.importers.writers.points import MetricColumns

DELETED = "deleted"


class ExperimentWriter(Writer):
    def add(self, item: Record | Series) -> Iterable[Write]:
        assert isinstance(item, Record)
        document = experiment_document(item.body, self.context)
        before = self.context.merged.get(document["_id"])
        merge = partial(merge_default, pristine=before["pristine"]) if before else None
        yield Write(ExperimentFields, document, merge=merge)


def merge_default(existing: Document, new: Document, *, pristine: bool) -> Document:
    """The default experiment of the target after the source's is merged into it: every database has one."""
    if pristine:
        return new
    return {**existing, "tags": {**(new.get("tags") or {}), **(existing.get("tags") or {})}}


def experiment_document(body: Body, context: Context) -> Document:
    return {
        "_id": context.experiment(body["experiment_id"]),
        "workspace": context.workspace,
        "name": context.names.get(str(body["experiment_id"]), body["name"]),
        "artifact_location": body["artifact_location"],
        "lifecycle_stage": body["lifecycle_stage"],
        # Searches continue behind a time, so there is one: MLflow before 1.30 kept none.
        "creation_time": body["creation_time"] or 0,
        "last_update_time": body["last_update_time"] or body["creation_time"] or 0,
        "tags": escaped(body["tags"]),
    }


class DatasetWriter(Writer):
    def add(self, item: Record | Series) -> Iterable[Write]:
        assert isinstance(item, Record)
        body = item.body
        number = self.context.experiment(body["experiment_id"])
        document = {
            "_id": dataset_key(number, body["name"], body["digest"]),
            "workspace": self.context.workspace,
            "experiment_id": number,
            **{field: body[field] for field in KIND["dataset"].told},
        }
        yield Write(DatasetFields, document, add_to_sets={"contexts": body["contexts"]})


class RunWriter(Writer):
    """Holds runs back until their metrics are known, so that nobody reads a run without them."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._runs: dict[str, Document] = {}
        self._columns: MetricColumns | None = None

    def add(self, item: Record | Series) -> Iterable[Write | Problem]:
        if isinstance(item, Record):
            yield from self._close_metric()
            yield from self._add_run(item.body)
            return
        run = self._runs.get(item.run_id)
        if run is None:
            yield Problem(
                "metric", f"{item.run_id} {item.key}", "its run is missing in the source", len(item)
            )
            return
        if self._columns is None or (self._columns.run_id, self._columns.key) != (item.run_id, item.key):
            yield from self._close_metric()
            self._columns = MetricColumns(run, item.key)
        yield from self._columns.add(item)

    def finish(self) -> Iterable[Write | Problem]:
        yield from self._close_metric()
        for run in self._runs.values():
            yield Write(RunFields, run)

    def _close_metric(self) -> Iterable[Write]:
        if self._columns is not None:
            self._runs[self._columns.run_id]["metric_keys"] += 1
            yield self._columns.head()
            self._columns = None

    def _add_run(self, body: Body) -> Iterable[Write]:
        number = self.context.experiment(body["experiment_id"])
        document: Document = {
            "_id": body["run_id"],
            "workspace": self.context.workspace,
            "experiment_id": number,
            "name": body["name"],
            # MLflow refuses to show a run without a user or a time, and the page of runs with it.
            "user_id": body["user_id"] or "",
            "status": body["status"],
            "start_time": body["start_time"] or 0,
            "end_time": body["end_time"],
            "lifecycle_stage": body["lifecycle_stage"],
            "artifact_uri": body["artifact_uri"],
            "params": escaped(body["params"]),
            "tags": escaped(body["tags"]),
        }
        if body["lifecycle_stage"] == DELETED and body["deleted_time"] is not None:
            document["deleted_time"] = body["deleted_time"]
        if body["inputs"]:
            document["inputs"] = [_input(number, used) for used in body["inputs"]]
        if body["model_inputs"]:
            document["model_inputs"] = list(body["model_inputs"])
        if body["model_outputs"]:
            document["model_outputs"] = [list(made) for made in body["model_outputs"]]
        document["metric_keys"] = 0
        self._runs[body["run_id"]] = document
        for used in document.get("inputs", ()):
            yield Write(DatasetFields, {"_id": used["id"]}, add_to_sets={"contexts": [used["context"]]})


def _input(experiment: int, used: Body) -> Document:
    tags = [[key, value] for key, value in used["tags"]]
    return {
        "id": dataset_key(experiment, used["name"], used["digest"]),
        "name": used["name"],
        "digest": used["digest"],
        "context": next((value for key, value in tags if key == MLFLOW_DATASET_CONTEXT), None),
        "tags": tags,
    }
