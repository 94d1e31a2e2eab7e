"""Experiments, datasets and logged models."""

from collections.abc import Iterator, Sequence
from typing import Any

from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.records import Body, Item, Problem, Record
from genesis_flow.importers.sql.reading import Reading, body_of, checked, grouped

DATASET = KIND["dataset"]
_MODEL = KIND["logged_model"]
_POINTS = next(rows for rows in _MODEL.rows if rows.field == "metrics")


def read_experiments(reading: Reading, ids: Sequence[int]) -> Iterator[Item]:
    problems: list[Problem] = []
    for body in reading.things(KIND["experiment"], ids, problems):
        body["experiment_id"] = number = str(body["experiment_id"])
        body["lifecycle_stage"] = body["lifecycle_stage"] or "active"
        yield Record("experiment", number, body, reading.workspace_of(number))
    yield from problems


def read_datasets(reading: Reading, ids: Sequence[str]) -> Iterator[Item]:
    problems: list[Problem] = []
    for body in reading.things(DATASET, ids, problems, order=("experiment_id", "name", "digest")):
        yield _dataset_record(reading, body)
    yield from problems


def borrowed_dataset(reading: Reading, row: Body, experiment_id: int) -> Record:
    """A dataset for an experiment that uses one of another."""
    return _dataset_record(reading, body_of(DATASET, row | {"experiment_id": experiment_id}))


def _dataset_record(reading: Reading, body: Body) -> Record:
    # The runs that used it bring its contexts.
    body["contexts"] = []
    where = "{experiment_id}/{name}/{digest}".format(**body)
    return Record("dataset", where, body, reading.workspace_of(body["experiment_id"]))


def read_logged_models(reading: Reading, ids: Sequence[str]) -> Iterator[Item]:
    problems: list[Problem] = []
    layout = {"model_id": "T", **{column.name: column.letter for column in _POINTS.columns}}
    order = ("model_id", *_POINTS.sorted_by)
    points = reading.snapshot.of(_POINTS.table, tuple(layout), "model_id", ids, order=order)
    metrics = grouped(checked(points, layout, _POINTS.table, "logged_model", problems), "model_id")
    for body in reading.things(_MODEL, ids, problems):
        model_id = body["model_id"]
        body["lifecycle_stage"] = body["lifecycle_stage"] or "active"
        body["metrics"] = list(_points(model_id, metrics.get(model_id, ()), problems))
        yield Record("logged_model", model_id, body, reading.workspace_of(body["experiment_id"]))
    yield from problems


def _points(
    model_id: str, rows: Sequence[dict[str, Any]], problems: list[Problem]
) -> Iterator[dict[str, Any]]:
    for row in rows:
        if row["metric_value"] is None:
            where = f"table logged_model_metrics, model_id={model_id}, metric_name={row['metric_name']}"
            problems.append(Problem("logged_model", where, "metric_value is missing", 1))
            continue
        yield {column.field: row[column.name] for column in _POINTS.columns}
