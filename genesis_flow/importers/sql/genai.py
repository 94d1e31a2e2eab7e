"""Traces with spans and assessments, evaluation datasets with records, and what belongs together.

Until MLflow 3.17 a trace's name, session, tokens and cost were among its tags and metadata; since then they
are columns, and what may be left of them in the other tables does not count any more.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from genesis_flow.areas.traces.usage import COST_KEYS, NUMBER_FIELDS, TOKEN_KEYS, json_object, numbers
from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.records import Body, Item, Problem, Record
from genesis_flow.importers.sql.reading import Reading, body_of, checked

DATASET = "evaluation_dataset"
# Stands for the associations of anything but traces and datasets.
ASSOCIATIONS = "associations"

_NAME_TAG = "mlflow.traceName"
_SESSION = "mlflow.trace.session"
_WRAPPED = "mlflow_wrapped"
# How many spans, which may be long, are in memory at once.
_SPANS_AT_ONCE = 50
_RECORDS_AT_ONCE = 500

# What became columns in MLflow 3.17.
_PROMOTED = {
    "trace_name": "t",
    "session_id": "t",
    **dict.fromkeys(TOKEN_KEYS, "i"),
    **dict.fromkeys(COST_KEYS, "r"),
}
_SPANS = KIND["span"].layout | dict.fromkeys(COST_KEYS, "r")
_ASSESSMENT, _RECORD = KIND["assessment"], KIND["evaluation_record"]
_ASSOCIATIONS = {column.name: column.letter for column in KIND["entity_association"].columns}
# MLflow 2 named it so.
_STATES = {"TRACE_STATUS_UNSPECIFIED": "STATE_UNSPECIFIED"}


class EvaluationPart(NamedTuple):
    """Which evaluation datasets, and of which experiments alone if not of all."""

    datasets: list[str]
    experiments: list[int] | None


def read_traces(reading: Reading, ids: Sequence[str]) -> Iterator[Item]:
    problems: list[Problem] = []
    traces = list(reading.things(KIND["trace"], ids, problems, more=_PROMOTED))
    known = [trace["trace_id"] for trace in traces]
    counted = _counted_tokens(reading, known)
    links = _links(reading, known, problems)
    has_columns = reading.snapshot.has("trace_info", "session_id")
    for body in traces:
        trace_id = body["trace_id"]
        promoted = {name: body.pop(name) for name in _PROMOTED}
        if has_columns:
            _take_columns(promoted, body["tags"], body["metadata"])
        else:
            _take_counted(counted.get(trace_id, {}), body["metadata"])
        body |= {
            "state": _STATES.get(body["state"], body["state"]),
            "linked_runs": links[trace_id, "run"],
            "linked_prompts": links[trace_id, "prompt_version"],
        }
        yield Record("trace", trace_id, body, reading.workspace_of(body["experiment_id"]))
    yield from _spans(reading, known, problems)
    yield from _assessments(reading, known, problems)
    yield from problems


def _take_columns(trace: Body, tags: Body, metadata: Body) -> None:
    tags.pop(_NAME_TAG, None)
    if trace["trace_name"] is not None:
        tags[_NAME_TAG] = trace["trace_name"]
    for key in (_SESSION, *NUMBER_FIELDS):
        metadata.pop(key, None)
    if trace["session_id"] is not None:
        metadata[_SESSION] = trace["session_id"]
    for key, (_, names) in NUMBER_FIELDS.items():
        if values := {name: trace[name] for name in names if trace[name] is not None}:
            metadata[key] = json.dumps(values)


def _take_counted(counted: dict[str, Any], metadata: Body) -> None:
    """A table of its own kept the tokens for a while, and was the one to believe."""
    for key, (field, _) in NUMBER_FIELDS.items():
        if field == "tokens" and counted:
            metadata[key] = json.dumps(numbers("tokens", json_object(metadata.get(key)) | counted))


def _counted_tokens(reading: Reading, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    counted: dict[str, dict[str, Any]] = defaultdict(dict)
    for trace_id, key, value in reading.snapshot.of(
        "trace_metrics", ("request_id", "key", "value"), "request_id", ids
    ):
        if key in TOKEN_KEYS:
            counted[trace_id][key] = value
    return counted


def _links(reading: Reading, ids: Sequence[str], problems: list[Problem]) -> dict[tuple[str, str], list[str]]:
    """The runs and prompts of traces, in the order in which they were tied."""
    links: dict[tuple[str, str], list[str]] = defaultdict(list)
    if not reading.snapshot.has("entity_associations"):
        return links
    of_traces = reading.snapshot.column("entity_associations", "source_type") == "trace"
    order = ("created_time", "destination_id")
    rows = reading.snapshot.of(
        "entity_associations", tuple(_ASSOCIATIONS), "source_id", ids, of_traces, order=order
    )
    for row in checked(rows, _ASSOCIATIONS, "entity_associations", "trace", problems):
        tied = links[row["source_id"], row["destination_type"]]
        if row["destination_id"] not in tied:
            tied.append(row["destination_id"])
    return links


def _spans(reading: Reading, ids: Sequence[str], problems: list[Problem]) -> Iterator[Item]:
    if not ids or not reading.snapshot.has("spans"):
        return
    some = reading.snapshot.column("spans", "trace_id").in_(list(ids))
    order = ("trace_id", "span_id")
    for page in reading.snapshot.pages("spans", tuple(_SPANS), some, order=order, size=_SPANS_AT_ONCE):
        for row in checked(page, _SPANS, "spans", "span", problems):
            cost = {key: row.pop(key) for key in COST_KEYS}
            row["cost"] = {key: value for key, value in cost.items() if value is not None} or None
            yield Record("span", f"{row['trace_id']}/{row['span_id']}", row)


def _assessments(reading: Reading, ids: Sequence[str], problems: list[Problem]) -> Iterator[Item]:
    order = ("trace_id", "created_timestamp", "assessment_id")
    layout = _ASSESSMENT.layout
    rows = reading.snapshot.of("assessments", tuple(layout), "trace_id", ids, order=order)
    for row in checked(rows, layout, "assessments", "assessment", problems):
        yield Record("assessment", row["assessment_id"], body_of(_ASSESSMENT, row))


def read_evaluation(reading: Reading, payload: EvaluationPart | str) -> Iterator[Item]:
    if isinstance(payload, str):
        yield from _other_associations(reading)
        return
    problems: list[Problem] = []
    for body in reading.things(
        KIND["evaluation_dataset"], payload.datasets, problems, more={"workspace": "t"}
    ):
        dataset_id, workspace = body["dataset_id"], body.pop("workspace")
        yield Record("evaluation_dataset", dataset_id, body, workspace)
        yield from _records(reading, dataset_id, problems)
        yield from _associations_of(reading, dataset_id, payload.experiments, problems)
    yield from problems


def _records(reading: Reading, dataset_id: str, problems: list[Problem]) -> Iterator[Item]:
    if not reading.snapshot.has("evaluation_dataset_records"):
        return
    pages = reading.snapshot.pages(
        "evaluation_dataset_records",
        tuple(_RECORD.layout),
        reading.snapshot.column("evaluation_dataset_records", "dataset_id") == dataset_id,
        order=("dataset_record_id",),
        size=_RECORDS_AT_ONCE,
    )
    for page in pages:
        for row in checked(page, _RECORD.layout, _RECORD.table, _RECORD.name, problems):
            body = body_of(_RECORD, row | {"outputs": _unwrapped(row["outputs"])})
            yield Record("evaluation_record", body["record_id"], body)


def _unwrapped(outputs: str | None) -> str | None:
    """MLflow puts outputs, which may be anything, into an object of one field."""
    found = json_object(outputs)
    return json.dumps(found[_WRAPPED]) if found.keys() == {_WRAPPED} else outputs


def _associations_of(
    reading: Reading, dataset_id: str, experiments: list[int] | None, problems: list[Problem]
) -> Iterator[Item]:
    if not reading.snapshot.has("entity_associations"):
        return
    of_datasets = reading.snapshot.column("entity_associations", "source_type") == DATASET
    order = ("created_time", "destination_id")
    rows = reading.snapshot.of(
        "entity_associations", tuple(_ASSOCIATIONS), "source_id", [dataset_id], of_datasets, order=order
    )
    wanted = None if experiments is None else {str(number) for number in experiments}
    for row in checked(rows, _ASSOCIATIONS, "entity_associations", "entity_association", problems):
        if wanted is None or row["destination_type"] != "experiment" or row["destination_id"] in wanted:
            yield _association(row)


def _other_associations(reading: Reading) -> Iterator[Item]:
    """Those that belong neither to a trace, which keeps its own, nor to an evaluation dataset."""
    problems: list[Problem] = []
    source_type = reading.snapshot.column("entity_associations", "source_type")
    destination_type = reading.snapshot.column("entity_associations", "destination_type")
    of_traces = (source_type == "trace") & destination_type.in_(("run", "prompt_version"))
    names = ("association_id", *_ASSOCIATIONS)
    for page in reading.snapshot.pages(
        "entity_associations",
        names,
        source_type != DATASET,
        ~of_traces,
        order=("association_id",),
        size=_RECORDS_AT_ONCE,
    ):
        rows = (row[1:] for row in page)
        for row in checked(rows, _ASSOCIATIONS, "entity_associations", "entity_association", problems):
            yield _association(row)
    yield from problems


def _association(row: Body) -> Record:
    name = "{source_type} {source_id} - {destination_type} {destination_id}".format(**row)
    return Record("entity_association", name, row)
