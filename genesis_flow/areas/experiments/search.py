"""MLflow's experiment search as one query: filter, order and page in a single round trip."""

from dataclasses import dataclass
from typing import Any

from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.utils.search_utils import SearchExperimentsUtils
from pymongo import ASCENDING, DESCENDING

from genesis_flow.compat.validation import parse_experiment_id
from genesis_flow.documents.keys import escape
from genesis_flow.search.compare import EQUALITY, NUMBER, TEXT, allow, condition, whole_number
from genesis_flow.search.keyset import behind
from genesis_flow.search.parsing import parsed
from genesis_flow.search.tokens import create_token, parse_token

_ID = (*EQUALITY, "IN", "NOT IN")


@dataclass(frozen=True, slots=True)
class ExperimentPage:
    query: dict[str, Any]
    sort: list[tuple[str, int]]
    question: list[Any]

    def token_after(self, document: dict[str, Any]) -> str:
        return create_token(self.question, [document[field] for field, _ in self.sort])


def experiment_page(
    view_type: int, filter_string: str | None, order_by: list[str] | None, page_token: str | None
) -> ExperimentPage:
    sort = _sort(order_by)
    question = [view_type, filter_string, order_by]
    parse = SearchExperimentsUtils.parse_search_filter
    conditions = [
        {"lifecycle_stage": {"$in": list(LifecycleStage.view_type_to_stages(view_type))}},
        *(_clause(clause) for clause in parsed(parse, filter_string or "", "filter")),
    ]
    kinds = [str if field == "name" else int for field, _ in sort]
    position = parse_token(page_token, question, kinds)
    if position is not None:
        conditions.append(behind(sort, position))
    return ExperimentPage({"$and": conditions}, sort, question)


def _sort(order_by: list[str] | None) -> list[tuple[str, int]]:
    sort: dict[str, int] = {}
    for clause in order_by or ["creation_time DESC", "experiment_id ASC"]:
        parse = SearchExperimentsUtils.parse_order_by_for_search_experiments
        kind, key, ascending = parsed(parse, clause, "order_by clause")
        if kind != "attribute":
            raise MlflowException.invalid_parameter_value(f"Invalid order_by entity: {kind}")
        # A field that is named again cannot change the order any more.
        sort.setdefault(_field(key), ASCENDING if ascending else DESCENDING)
    sort.setdefault("_id", DESCENDING)
    return list(sort.items())


def _field(key: str) -> str:
    return "_id" if key == "experiment_id" else key


def _clause(clause: dict[str, Any]) -> dict[str, Any]:
    kind, key, comparator, value = (clause[part] for part in ("type", "key", "comparator", "value"))
    if kind == "attribute":
        return {_field(key): condition(comparator, _attribute_value(key, comparator, value))}
    if kind != "tag":
        raise MlflowException.invalid_parameter_value(f"Invalid token type: {kind}")
    allow(comparator, (*TEXT, "IS NULL", "IS NOT NULL"), "tag")
    return {f"tags.{escape(key)}": condition(comparator, value)}


def _attribute_value(key: str, comparator: str, value: Any) -> Any:
    if key == "experiment_id":
        allow(comparator, _ID, "experiment_id")
        if isinstance(value, tuple):
            return [parse_experiment_id(each) for each in value]
        return parse_experiment_id(value)
    if key not in SearchExperimentsUtils.NUMERIC_ATTRIBUTES:
        allow(comparator, TEXT, "string attribute")
        return value
    allow(comparator, NUMBER, "numeric attribute")
    return whole_number(key, value)
