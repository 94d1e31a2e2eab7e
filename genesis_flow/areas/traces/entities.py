"""Traces and assessments as MLflow entities, and assessments as documents."""

import json
from typing import Any

from mlflow.entities import Assessment, Expectation, Feedback, TraceInfo
from mlflow.entities.assessment import IssueReference
from mlflow.entities.assessment_error import AssessmentError
from mlflow.entities.assessment_source import AssessmentSource
from mlflow.entities.trace_location import TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.exceptions import MlflowException
from mlflow.tracing.constant import AssessmentMetadataKey, TraceMetadataKey
from mlflow.tracing.utils import generate_assessment_id
from mlflow.utils.time import get_current_time_millis

from genesis_flow.areas.traces.documents import metadata_of, tags_of
from genesis_flow.areas.traces.usage import assessed_number, number_metadata
from genesis_flow.documents.entities import whole
from genesis_flow.documents.plain import Document

FEEDBACK, EXPECTATION, ISSUE = "feedback", "expectation", "issue"


def duration_of(trace: Document) -> int | None:
    end: int | None = trace.get("end_time")
    return None if end is None else int(end) - int(trace["request_time"])


def trace_info_entity(trace: Document, assessments: list[Document]) -> TraceInfo:
    return TraceInfo(
        trace_id=trace["_id"],
        trace_location=TraceLocation.from_experiment_id(str(trace["experiment_id"])),
        request_time=int(trace["request_time"]),
        execution_duration=duration_of(trace),
        state=TraceState(trace["status"]),
        tags=tags_of(trace),
        trace_metadata=metadata_of(trace) | number_metadata(trace),
        client_request_id=trace.get("client_request_id"),
        request_preview=trace.get("request_preview"),
        response_preview=trace.get("response_preview"),
        assessments=[assessment_entity(assessment) for assessment in assessments],
    )


def assessment_entity(document: Document) -> Assessment:
    metadata, error = document.get("metadata"), document.get("error")
    common: dict[str, Any] = {
        "source": AssessmentSource(document["source_type"], document.get("source_id")),
        "trace_id": document["trace_id"],
        "metadata": None if metadata is None else json.loads(metadata),
        "span_id": document.get("span_id"),
        "create_time_ms": whole(document["created_time"]),
        "last_update_time_ms": whole(document["last_update_time"]),
    }
    value = json.loads(document["value"])
    assessment: Assessment
    match document["kind"]:
        case "feedback":
            assessment = Feedback(
                name=document["name"],
                value=value,
                error=None if error is None else AssessmentError.from_dictionary(json.loads(error)),
                rationale=document.get("rationale"),
                **common,
            )
        case "expectation":
            assessment = Expectation(name=document["name"], value=value, **common)
        case _:
            assessment = IssueReference(
                issue_id=document["name"],
                issue_name=value.get("issue_name"),
                run_id=document.get("run_id"),
                rationale=document.get("rationale"),
                **common,
            )
    assessment.overrides = document.get("overrides")
    assessment.valid = document["valid"]
    assessment.run_id = document.get("run_id")
    assessment.assessment_id = document["_id"]
    return assessment


def assessment_document(assessment: Assessment, trace_id: str, trace: Document) -> Document:
    """The document of a new assessment of ``trace``; gives the assessment an id if it has none."""
    if assessment.assessment_id is None:
        assessment.assessment_id = generate_assessment_id()
    now = get_current_time_millis()
    source = assessment.source
    fields = {
        "_id": assessment.assessment_id,
        "trace_id": trace_id,
        "workspace": trace["workspace"],
        "experiment_id": trace["experiment_id"],
        "trace_time": trace["request_time"],
        "name": assessment.name,
        "created_time": assessment.create_time_ms or now,
        "last_update_time": assessment.last_update_time_ms or now,
        "source_type": source.source_type if source else None,
        "source_id": source.source_id if source else None,
        "run_id": assessment.run_id,
        "span_id": assessment.span_id,
        "rationale": assessment.rationale,
        "overrides": assessment.overrides,
        "valid": True,
        **value_fields(assessment),
        **metadata_fields(assessment.metadata),
    }
    return {name: value for name, value in fields.items() if value is not None}


def value_fields(assessment: Assessment) -> Document:
    """The stored fields of an assessment's value; those that are None are to be absent."""
    error = None
    if assessment.feedback is not None:
        kind, value = FEEDBACK, assessment.feedback.value
        if assessment.feedback.error:
            error = json.dumps(assessment.feedback.error.to_dictionary())
    elif assessment.expectation is not None:
        kind, value = EXPECTATION, assessment.expectation.value
    elif assessment.issue is not None:
        kind, value = ISSUE, assessment.issue.to_dictionary()
    else:
        raise MlflowException.invalid_parameter_value(
            "Assessment must have either feedback, expectation, or issue value"
        )
    number, is_number = assessed_number(value)
    return {
        "kind": kind,
        "value": json.dumps(value),
        "error": error,
        "number": number,
        "is_number": is_number,
    }


def metadata_fields(metadata: dict[str, Any] | None) -> Document:
    """The fields of an assessment's document for its metadata."""
    if not metadata:
        return {"metadata": None, "source_run": None, "of_session": False}
    return {
        "metadata": json.dumps(metadata),
        "source_run": metadata.get(AssessmentMetadataKey.SOURCE_RUN_ID),
        "of_session": TraceMetadataKey.TRACE_SESSION in metadata,
    }
