"""Traces of a tree with their assessments. Their spans are artifacts there, and stay artifacts."""

import json
import os
from collections.abc import Iterator
from typing import Any

from mlflow.entities import Assessment, Expectation, Feedback, TraceInfo

from genesis_flow.importers.records import Item, Problem, Record
from genesis_flow.importers.tree.files import (
    Damaged,
    files,
    read_meta,
    read_values,
    shown,
    size_of,
)

INFO = "trace_info.yaml"


def read_trace(folder: str, experiment_id: str) -> Iterator[Item]:
    trace_id = os.path.basename(folder)
    path = os.path.join(folder, INFO)
    problems: list[Problem] = []
    try:
        info = _trace_info(read_meta(path))
        if info.trace_id != trace_id:
            raise Damaged(f"it is of trace {info.trace_id}, but lies in the folder {trace_id}")
    except Damaged as damage:
        yield Problem("trace", shown(path), f"{damage}; the trace is left out", size_of(path))
        return
    metadata = read_values(os.path.join(folder, "request_metadata"), "trace_metadata", problems)
    tags = read_values(os.path.join(folder, "tags"), "trace_tag", problems)
    yield Record(
        "trace",
        trace_id,
        {
            "trace_id": trace_id,
            "experiment_id": experiment_id,
            "request_time": info.request_time,
            "execution_duration": info.execution_duration,
            "state": info.state.value,
            "client_request_id": info.client_request_id,
            "request_preview": info.request_preview,
            "response_preview": info.response_preview,
            # MLflow before 2.14 kept them in the file.
            "tags": {**(info.tags or {}), **tags},
            "metadata": {**(info.trace_metadata or {}), **metadata},
            "linked_runs": [],
            "linked_prompts": [],
        },
    )
    yield from problems
    yield from _read_assessments(os.path.join(folder, "assessments"), trace_id)


def _trace_info(meta: dict[str, Any]) -> TraceInfo:
    """As MLflow understands it: the file has changed its form over the versions."""
    try:
        info = TraceInfo.from_dict({**meta, "assessments": []})
    except Exception as error:
        raise Damaged(f"it does not describe a trace ({type(error).__name__}: {error})") from error
    if not isinstance(info.request_time, int):
        raise Damaged("request_time is missing")
    return info


def _read_assessments(folder: str, trace_id: str) -> Iterator[Item]:
    try:
        for entry in files(folder):
            try:
                yield _assessment(read_meta(entry.path), trace_id)
            except Damaged as damage:
                yield Problem("assessment", shown(entry.path), str(damage), size_of(entry.path))
    except Damaged as damage:
        yield Problem("assessment", shown(folder), str(damage))


def _assessment(meta: dict[str, Any], trace_id: str) -> Record:
    try:
        found = Assessment.from_dictionary(meta)
    except Exception as error:
        raise Damaged(f"it does not describe an assessment ({type(error).__name__}: {error})") from error
    if not found.assessment_id:
        raise Damaged("assessment_id is missing")
    error_text = None
    value: Any
    if isinstance(found, Feedback):
        kind, value = "feedback", found.value
        error_text = json.dumps(found.error.to_dictionary()) if found.error else None
    elif isinstance(found, Expectation):
        kind, value = "expectation", found.value
    else:
        kind, value = "issue", getattr(found, "issue_name", None)
    return Record(
        "assessment",
        found.assessment_id,
        {
            "assessment_id": found.assessment_id,
            "trace_id": trace_id,
            "kind": kind,
            "name": found.name,
            "value": json.dumps(value),
            "error": error_text,
            "create_time": found.create_time_ms,
            "last_update_time": found.last_update_time_ms,
            "source_type": found.source.source_type,
            "source_id": found.source.source_id,
            "run_id": found.run_id,
            "span_id": found.span_id,
            "rationale": found.rationale,
            "overrides": found.overrides,
            "valid": True if found.valid is None else bool(found.valid),
            "metadata": json.dumps(found.metadata) if found.metadata else None,
        },
    )
