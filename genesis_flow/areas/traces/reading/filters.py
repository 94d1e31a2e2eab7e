"""A filter of traces as conditions on trace documents, on spans and on assessments."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey
from mlflow.utils.search_utils import SearchTraceUtils

from genesis_flow.areas.traces.documents import metadata_path, tag_path
from genesis_flow.areas.traces.usage import NUMBER_FIELDS, json_object, numbers
from genesis_flow.compat.search import trim_backticks
from genesis_flow.core.numbers import storable
from genesis_flow.documents.plain import Document
from genesis_flow.search.parsing import parsed
from genesis_flow.search.text import TextCondition, check_regex

_OPERATORS = {"=": "$eq", "!=": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"}
# The number behind an attribute that is not a field.
DURATION = {"$subtract": ["$end_time", "$request_time"]}
END = {"$ifNull": ["$end_time", "$request_time"]}
_ATTRIBUTES = {"request_id": "_id", "timestamp_ms": "request_time"}


@dataclass(frozen=True, slots=True)
class SpanCondition:
    """One span must satisfy all of it. ``contents`` are questions about its JSON text."""

    fields: list[Document] = field(default_factory=list)
    contents: list[TextCondition] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AssessmentCondition:
    """A trace has an assessment like this, or its session has; or, negated, has none."""

    match: Document
    for_sessions: bool = True
    negated: bool = False


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """All must hold."""

    conditions: list[Document] = field(default_factory=list)
    span: SpanCondition | None = None
    assessments: list[AssessmentCondition] = field(default_factory=list)


def parse_trace_filter(filter_string: str | None) -> TraceFilter:
    conditions: list[Document] = []
    span = SpanCondition()
    assessments: list[AssessmentCondition] = []
    clauses: list[Any] = (
        parsed(SearchTraceUtils.parse_search_filter_for_search_traces, filter_string, "filter")
        if filter_string
        else []
    )
    for clause in clauses:
        kind, key, value = clause["type"], clause["key"], clause["value"]
        comparator = clause["comparator"].upper()
        if SearchTraceUtils.is_issue(kind, key, comparator):
            issue = {"kind": "issue", "name": value}
            assessments.append(AssessmentCondition(issue, for_sessions=False))
        elif SearchTraceUtils.is_attribute(kind, key, comparator):
            conditions.append(_attribute(key, comparator, value))
        elif SearchTraceUtils.is_tag(kind, comparator):
            conditions.append(_tag(key, comparator, value))
        elif SearchTraceUtils.is_request_metadata(kind, comparator):
            conditions.append(metadata_condition(key, comparator, value))
        elif SearchTraceUtils.is_span(kind, key, comparator):
            _add_span_condition(span, key, comparator, value)
        elif SearchTraceUtils.is_assessment(kind, key, comparator):
            assessments.append(_assessment(kind, key, comparator, value))
        else:
            raise MlflowException.invalid_parameter_value(f"Invalid search expression type '{kind}'")
    return TraceFilter(conditions, span if span.fields or span.contents else None, assessments)


def _attribute(key: str, comparator: str, value: Any) -> Document:
    if key in SearchTraceUtils.NUMERIC_ATTRIBUTES:
        number = storable(parsed(_number, value, f"value of {key}"))
        if key in ("end_time_ms", "end_time"):
            return {"$expr": {_OPERATORS[comparator]: [END, number]}}
        if key in ("execution_time_ms", "execution_time"):
            # A trace that has not ended has no duration, and satisfies nothing.
            is_so = {"$expr": {_OPERATORS[comparator]: [DURATION, number]}}
            return {"end_time": {"$exists": True}, **is_so}
        return {_ATTRIBUTES.get(key, key): TextCondition(comparator, number).query()}
    return {_ATTRIBUTES.get(key, key): TextCondition(comparator, value).query()}


def _number(value: Any) -> int | float:
    try:
        return int(value) if not isinstance(value, float) else value
    except ValueError:
        return float(value)


def _tag(key: str, comparator: str, value: Any) -> Document:
    if key != TraceTagKey.LINKED_PROMPTS:
        return {tag_path(key): TextCondition(comparator, value).query()}
    if comparator != "=":
        raise MlflowException.invalid_parameter_value(
            f"Invalid comparator '{comparator}' for prompts filter. Only '=' is supported with format: "
            'prompt = "name/version"'
        )
    if value.count("/") != 1:
        raise MlflowException.invalid_parameter_value(
            f"Invalid prompts filter value '{value}'. Expected format: prompt = \"name/version\""
        )
    return {"linked_prompts": value}


def metadata_condition(key: str, comparator: str, value: Any) -> Document:
    if key in NUMBER_FIELDS:
        return _numbers_condition(key, comparator, value)
    if key == TraceMetadataKey.SOURCE_RUN and comparator == "=":
        return run_condition(value)
    return {metadata_path(key): TextCondition(comparator, value).query()}


def run_condition(run_id: str) -> Document:
    """A trace belongs to the run in which it was made and to those that it was linked to."""
    return {"$or": [{"source_run": run_id}, {"linked_runs": run_id}]}


def _numbers_condition(key: str, comparator: str, value: Any) -> Document:
    """Token usage and cost compare as the JSON text that a trace shows for them, and as nothing else."""
    name, keys = NUMBER_FIELDS[key]
    some = {"$or": [{f"{name}.{each}": {"$exists": True}} for each in keys]}
    if comparator == "IS NULL":
        return {"$nor": [some]}
    if comparator == "IS NOT NULL":
        return some
    if comparator not in ("=", "!="):
        raise MlflowException.invalid_parameter_value(
            f"Comparator '{comparator}' is not supported for reserved metadata '{key}'. "
            "Only '=', '!=', 'IS NULL', and 'IS NOT NULL' are supported."
        )
    given = json_object(value)
    usable = numbers(name, given) if set(given) <= set(keys) else {}
    if not usable or json.dumps(usable) != value:
        return {"_id": {"$in": []}} if comparator == "=" else some
    same = {f"{name}.{each}": usable.get(each, {"$exists": False}) for each in keys}
    return same if comparator == "=" else {"$and": [some, {"$nor": [same]}]}


def _add_span_condition(span: SpanCondition, key: str, comparator: str, value: Any) -> None:
    if key == "content":
        span.contents.append(TextCondition(comparator, value))
    elif key.startswith("attributes."):
        name = trim_backticks(key.removeprefix("attributes."))
        span.contents.append(_span_attribute(name, comparator, value))
    else:
        span.fields.append({key: TextCondition(comparator, value).query()})


def _span_attribute(name: str, comparator: str, value: Any) -> TextCondition:
    """Attributes are asked for in the JSON text of the span, where a value is JSON text once more."""
    if comparator in ("IN", "NOT IN"):
        raise MlflowException.invalid_parameter_value(
            f"span.attributes.{name} cannot be compared with {comparator}. Use LIKE, ILIKE or RLIKE."
        )
    if comparator != "RLIKE":
        return TextCondition(comparator, f'%"{name}"{value}%')
    check_regex(value)
    body = value.removeprefix("^")
    before = r'"\\"' if value.startswith("^") else r'"\\".*'
    after = ""
    if body.endswith("$"):
        body, after = body[:-1], r"\\" + '"'
    return TextCondition(comparator, f'"{re.escape(name)}": {before}{body}{after}')


def _assessment(kind: str, name: str, comparator: str, value: Any) -> AssessmentCondition:
    match: Document = {"kind": kind, "name": name, "valid": True}
    if comparator in ("IS NULL", "IS NOT NULL"):
        return AssessmentCondition(match, negated=comparator == "IS NULL")
    if comparator in SearchTraceUtils.NUMERIC_ASSESSMENT_COMPARATORS:
        match |= {"is_number": True, "number": TextCondition(comparator, storable(value)).query()}
    elif comparator in ("=", "!="):
        # Values are JSON text: a number and true as they are, a word in quotes.
        comparator = "IN" if comparator == "=" else "NOT IN"
        match["value"] = TextCondition(comparator, [value, json.dumps(value)]).query()
    else:
        match["value"] = TextCondition(comparator, value).query()
    return AssessmentCondition(match)
