"""A filter of runs as conditions on run documents and on metric heads."""

from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME
from mlflow.utils.search_utils import SearchUtils

from genesis_flow.core.numbers import storable
from genesis_flow.documents.keys import escape
from genesis_flow.documents.plain import Document
from genesis_flow.search.compare import condition
from genesis_flow.search.parsing import parsed


@dataclass(frozen=True, slots=True)
class RunFilter:
    """All must hold. Conditions on one metric are kept together: they are one range of an index."""

    run_conditions: list[Document]
    metric_conditions: dict[str, list[Document]]


def parse_filter(filter_string: str | None) -> RunFilter:
    run_conditions: list[Document] = []
    metric_conditions: dict[str, list[Document]] = {}
    for clause in _clauses(filter_string):
        comparator = clause["comparator"].upper()
        key = SearchUtils.translate_key_alias(clause["key"])
        if SearchUtils.is_metric(clause["type"], comparator):
            value = parsed(float, clause["value"], "metric value")
            metric_conditions.setdefault(key, []).append({"latest.value": condition(comparator, value)})
        else:
            run_conditions.append(_run_condition(clause["type"], key, comparator, clause["value"]))
    return RunFilter(run_conditions, metric_conditions)


def _clauses(filter_string: str | None) -> list[dict[str, Any]]:
    if not filter_string:
        return []
    return parsed(SearchUtils.parse_search_filter, filter_string, "filter")


def _run_condition(kind: str, key: str, comparator: str, value: Any) -> Document:
    if SearchUtils.is_string_attribute(kind, key, comparator):
        return {attribute_path(key, in_filter=True): condition(comparator, value)}
    if SearchUtils.is_numeric_attribute(kind, key, comparator):
        return {attribute_path(key): condition(comparator, storable(value))}
    if SearchUtils.is_param(kind, comparator):
        return {param_path(key): condition(comparator, value)}
    if SearchUtils.is_tag(kind, comparator):
        return {tag_path(key): condition(comparator, value)}
    if SearchUtils.is_dataset(kind, comparator):
        # One input satisfies the clause; another clause may be satisfied by another input.
        return {"inputs": {"$elemMatch": {key: condition(comparator, value)}}}
    raise MlflowException.invalid_parameter_value(f"Invalid search expression type '{kind}'")


def attribute_path(key: str, *, in_filter: bool = False) -> str:
    """The field of an attribute. MLflow filters by the name in the tag but orders by the run's own."""
    if key == "run_name":
        return tag_path(MLFLOW_RUN_NAME) if in_filter else "name"
    return "_id" if key == "run_id" else key


def param_path(key: str) -> str:
    return f"params.{escape(key)}"


def tag_path(key: str) -> str:
    return f"tags.{escape(key)}"
