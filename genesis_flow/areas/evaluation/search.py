"""MLflow's search of evaluation datasets as one query: filter, order and page in a single round trip."""

from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchEvaluationDatasetsUtils
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.keys import escape
from genesis_flow.search.compare import NUMBER, TEXT, allow, condition, whole_number
from genesis_flow.search.keyset import behind
from genesis_flow.search.parsing import parsed
from genesis_flow.search.text import TextCondition
from genesis_flow.search.tokens import create_token, parse_token


@dataclass(frozen=True, slots=True)
class DatasetPage:
    query: dict[str, Any]
    sort: list[tuple[str, int]]
    question: list[Any]

    def token_after(self, document: dict[str, Any]) -> str:
        return create_token(self.question, [document[field] for field, _ in self.sort])


def dataset_page(
    experiment_ids: list[str] | None,
    filter_string: str | None,
    order_by: list[str] | None,
    page_token: str | None,
) -> DatasetPage:
    """The page, but for the condition that the datasets belong to ``experiment_ids``."""
    sort = _sort(order_by)
    question = ["evaluation datasets", experiment_ids or [], filter_string or "", order_by or []]
    clauses = (
        parsed(SearchEvaluationDatasetsUtils.parse_search_filter, filter_string, "filter")
        if filter_string
        else []
    )
    conditions = [_clause(clause) for clause in clauses]
    kinds = [str if field in ("name", "_id") else int for field, _ in sort]
    position = parse_token(page_token, question, kinds)
    if position is not None:
        conditions.append(behind(sort, position))
    return DatasetPage({"$and": conditions} if conditions else {}, sort, question)


def _sort(order_by: list[str] | None) -> list[tuple[str, int]]:
    sort: dict[str, int] = {}
    for clause in order_by or ["created_time DESC"]:
        kind, key, ascending = parsed(
            SearchEvaluationDatasetsUtils.parse_order_by_for_search_evaluation_datasets,
            clause,
            "order_by clause",
        )
        if kind != "attribute":
            raise MlflowException.invalid_parameter_value(f"Invalid order_by entity: {kind}")
        # A field that is named again cannot change the order any more.
        sort.setdefault(key, ASCENDING if ascending else DESCENDING)
    sort["_id"] = DESCENDING
    return list(sort.items())


def _clause(parsed_clause: dict[str, Any]) -> dict[str, Any]:
    kind, key, comparator, value = (parsed_clause[part] for part in ("type", "key", "comparator", "value"))
    if kind == "tag":
        allow(comparator, TEXT, "tag")
        return {f"tags.{escape(key)}": condition(comparator, value)}
    if kind != "attribute":
        raise MlflowException.invalid_parameter_value(f"Invalid token type: {kind}")
    if key in SearchEvaluationDatasetsUtils.NUMERIC_ATTRIBUTES:
        allow(comparator, NUMBER, "numeric attribute")
        return {key: condition(comparator, whole_number(key, value))}
    allowed = (*TEXT, *NUMBER, "RLIKE")
    allow(comparator, (*allowed, "IN") if key == "name" else allowed, "string attribute")
    return {key: TextCondition(comparator, value).query()}
