"""Traces with spans and assessments, and evaluation datasets, as the store would have made them."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from mlflow.tracing.constant import AssessmentMetadataKey, TraceMetadataKey

from genesis_flow.areas.evaluation.documents import (
    DatasetRecordFields,
    EntityAssociationFields,
    EvaluationDatasetFields,
    association_key,
    json_fields,
    record_key,
)
from genesis_flow.areas.traces.documents import AssessmentFields, SpanFields, SpanPayloadFields, TraceFields
from genesis_flow.areas.traces.spans import SpanCore, span_document
from genesis_flow.areas.traces.stated import STATED, put, stated_fields
from genesis_flow.areas.traces.usage import assessed_number
from genesis_flow.documents.plain import Document
from genesis_flow.importers.records import Body, Problem, Record, Series
from genesis_flow.importers.writers.base import Context, Unwanted, Write, Writer, escaped, kept

_RECORD_FIELDS = ("record_id", "dataset_id", "source_id", "created_by", "last_updated_by")


class TraceWriter(Writer):
    """Traces are written behind what belongs to them."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._traces: dict[str, Document] = {}
        self._refused: set[str] = set()

    def add(self, item: Record | Series) -> Iterable[Write | Problem]:
        assert isinstance(item, Record)
        trace_id = item.body["trace_id"]
        if item.kind == "trace":
            try:
                self._traces[trace_id] = trace_document(item.body, self.context)
            except Unwanted as error:
                self._refused.add(trace_id)
                yield Problem("trace", trace_id, str(error))
        elif trace := self._traces.get(trace_id):
            convert = _span_writes if item.kind == "span" else _assessment_writes
            yield from convert(item.body, trace)
        elif trace_id not in self._refused:
            yield Problem(item.kind, item.id, f"its trace {trace_id} is missing in the source")

    def finish(self) -> Iterable[Write]:
        for trace in self._traces.values():
            yield Write(TraceFields, trace)


def trace_document(body: Body, context: Context) -> Document:
    document: Document = {
        "_id": body["trace_id"],
        "workspace": context.workspace,
        "experiment_id": context.experiment(body["experiment_id"]),
        **kept("trace", body, "execution_duration", "state"),
        "status": body["state"],
        "generation": 1,
    }
    if body["execution_duration"] is not None:
        document["end_time"] = body["request_time"] + body["execution_duration"]
    for path, value in stated_fields(body["tags"], body["metadata"]).items():
        put(document, path, value)
    for field in ("tokens_of", "cost_of"):
        # What spans say later only counts where nobody has stated otherwise.
        if field in document:
            document[field] = STATED if document.get("finalized") else 1
    for field in ("linked_runs", "linked_prompts"):
        if body[field]:
            document[field] = list(body[field])
    return document


def _span_writes(body: Body, trace: Document) -> Iterator[Write | Problem]:
    core = SpanCore(
        body["trace_id"],
        body["span_id"],
        body["parent_span_id"],
        body["name"],
        body["type"],
        body["status"],
        body["start_time_unix_nano"],
        body["end_time_unix_nano"],
    )
    try:
        attributes = _attributes(body["content"])
    except ValueError as error:
        yield Problem("span", f"{core.trace_id}/{core.span_id}", f"its content is no JSON object: {error}")
        return
    document, payloads = span_document(core, attributes, body["content"] or "")
    for field in ("model_name", "model_provider", "cost"):
        if field not in document and body.get(field) is not None:
            document[field] = body[field]
    document |= {"experiment_id": trace["experiment_id"], "trace_time": trace["request_time"]}
    root = ("traces", trace["_id"])
    for payload in payloads:
        yield Write(SpanPayloadFields, payload, root=root)
    yield Write(SpanFields, document, root=root)


def _attributes(content: str | None) -> Document:
    if not content:
        return {}
    span = json.loads(content)
    if not isinstance(span, dict):
        raise ValueError(f"{content[:40]!r}")
    attributes = span.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise ValueError(f"its attributes are {attributes!r:.40}")
    return attributes


def _assessment_writes(body: Body, trace: Document) -> Iterator[Write | Problem]:
    try:
        value = json.loads(body["value"])
        metadata = _mapping(body["metadata"], "its metadata") or {}
    except (TypeError, ValueError) as error:
        yield Problem("assessment", body["assessment_id"], f"its value or metadata is no JSON: {error}")
        return
    number, is_number = assessed_number(value)
    document: Document = {
        "_id": body["assessment_id"],
        "workspace": trace["workspace"],
        "experiment_id": trace["experiment_id"],
        "trace_time": trace["request_time"],
        "created_time": body["create_time"],
        **kept("assessment", body, "create_time"),
        "is_number": is_number,
        "of_session": TraceMetadataKey.TRACE_SESSION in metadata,
    }
    if number is not None:
        document["number"] = number
    if (run_id := metadata.get(AssessmentMetadataKey.SOURCE_RUN_ID)) is not None:
        document["source_run"] = run_id
    yield Write(AssessmentFields, document, root=("traces", trace["_id"]))


class EvaluationWriter(Writer):
    """A dataset is written behind its records."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._dataset: Document | None = None
        self._records: set[str] = set()

    def add(self, item: Record | Series) -> Iterable[Write | Problem]:
        assert isinstance(item, Record)
        if item.kind == "evaluation_dataset":
            yield from self.finish()
            self._dataset = self._dataset_document(item.body)
        elif item.kind == "evaluation_record":
            yield from self._record_writes(item.body)
        else:
            yield self._association_write(item.body)

    def finish(self) -> Iterable[Write]:
        dataset, self._dataset = self._dataset, None
        self._records = set()
        if dataset is not None:
            yield Write(EvaluationDatasetFields, dataset)

    def _dataset_document(self, body: Body) -> Document:
        created = body["created_time"] or 0
        return {
            "_id": body["dataset_id"],
            "workspace": self.context.workspace,
            **kept("evaluation_dataset", body),
            "digest": body["digest"] or "",
            "created_time": created,
            "last_update_time": body["last_update_time"] or created,
            "tags": escaped(body["tags"]),
        }

    def _record_writes(self, body: Body) -> Iterator[Write | Problem]:
        if self._dataset is None or self._dataset["_id"] != body["dataset_id"]:
            yield Problem("evaluation_record", body["record_id"], "its dataset is missing in the source")
            return
        try:
            document = _record_document(body)
        except (TypeError, ValueError, AttributeError) as error:
            yield Problem("evaluation_record", body["record_id"], f"it holds unusable JSON: {error}")
            return
        if document["_id"] in self._records:
            reason = "the dataset has another record with the same inputs, and inputs identify a record"
            yield Problem("evaluation_record", body["record_id"], reason)
            return
        self._records.add(document["_id"])
        yield Write(DatasetRecordFields, document, root=("evaluation_datasets", body["dataset_id"]))

    def _association_write(self, body: Body) -> Write:
        ends = {
            f"{end}_id": self._target_id(body[f"{end}_type"], body[f"{end}_id"])
            for end in ("source", "destination")
        }
        types = {f"{end}_type": body[f"{end}_type"] for end in ("source", "destination")}
        document: Document = {
            "_id": association_key(
                types["source_type"], ends["source_id"], types["destination_type"], ends["destination_id"]
            ),
            "workspace": self.context.workspace,
            **types,
            **ends,
            "created_time": body["created_time"] or 0,
        }
        owned = self._dataset is not None and self._dataset["_id"] == body["source_id"]
        root = ("evaluation_datasets", body["source_id"]) if owned else None
        return Write(EntityAssociationFields, document, root=root)

    def _target_id(self, kind: str, identifier: str) -> str:
        return str(self.context.experiment(identifier)) if kind == "experiment" else identifier


def _record_document(body: Body) -> Document:
    inputs = json.dumps(_mapping(body["inputs"], "inputs"), sort_keys=True)
    document: Document = {
        "_id": record_key(body["dataset_id"], inputs),
        **{field: body[field] for field in _RECORD_FIELDS if body[field] is not None},
        "inputs": inputs,
        "created_time": body["created_time"] or 0,
        "last_update_time": body["last_update_time"] or body["created_time"] or 0,
        "tags": json_fields(_mapping(body["tags"], "tags") or {}),
    }
    for field in ("outputs", "source"):
        if (value := json.loads(body[field] or "null")) is not None:
            document[field] = json.dumps(value)
    if (expectations := _mapping(body["expectations"], "expectations")) is not None:
        document["expectations"] = json_fields(expectations)
    return document


def _mapping(text: str | None, field: str) -> dict[str, Any] | None:
    value = json.loads(text or "null")
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"{field} is {type(value).__name__}")
    return value
