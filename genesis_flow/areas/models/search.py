"""MLflow's searches of registered models and model versions, each as one query: filter, order and page.

Models and prompts are apart: a search sees prompts only if its filter asks for MLflow's prompt tag.
"""

from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.model_registry import (
    SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD,
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD,
)
from mlflow.utils.search_utils import SearchModelUtils, SearchModelVersionUtils, SearchUtils
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.tag_values import PROMPT_VALUE, tag_field, tag_fields
from genesis_flow.search.compare import TEXT, allow, condition, whole_number
from genesis_flow.search.keyset import behind
from genesis_flow.search.parsing import parsed
from genesis_flow.search.tokens import create_token, parse_token

_TEXT_OR_LIST = (*TEXT, "IN", "NOT IN")
_FIELDS = {
    "source_path": "source",
    "version_number": "version",
    "creation_timestamp": "creation_time",
    "last_updated_timestamp": "last_updated_time",
}
_DEFAULT_VERSION_ORDER = ["last_updated_timestamp DESC", "name ASC", "version_number DESC"]

Clause = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    query: dict[str, Any]
    sort: list[tuple[str, int]]
    question: list[Any]

    def token_after(self, document: dict[str, Any]) -> str:
        return create_token(self.question, [document[field] for field, _ in self.sort])


def model_page(filter_string: str | None, order_by: list[str] | None, page_token: str | None) -> Page:
    clauses = _clauses(SearchModelUtils, filter_string)
    conditions = [_model_condition(clause) for clause in clauses if _counts(clause, clauses)]
    sort = {"name": ASCENDING}
    if order_by:
        sort = _model_order(order_by)
        sort.setdefault("name", ASCENDING)
    return _page(conditions, clauses, sort, ["models", filter_string, order_by], page_token)


def prompt_page(filter_string: str | None, order_by: list[str] | None, page_token: str | None) -> Page:
    """The page of a search for prompts; a filter that asks for anything else finds none."""
    prompts = f"tags.`{IS_PROMPT_TAG_KEY}` = '{PROMPT_VALUE}'"
    return model_page(f"{prompts} AND {filter_string}" if filter_string else prompts, order_by, page_token)


def version_page(filter_string: str | None, order_by: list[str] | None, page_token: str | None) -> Page:
    clauses = _clauses(SearchModelVersionUtils, filter_string)
    conditions = [_version_condition(clause) for clause in clauses if _counts(clause, clauses)]
    sort = _version_order(order_by or _DEFAULT_VERSION_ORDER)
    sort.setdefault("name", ASCENDING)
    sort.setdefault("version", DESCENDING)
    return _page(conditions, clauses, sort, ["versions", filter_string, order_by], page_token)


def versions_of_prompt_page(name: str, page_token: str | None) -> Page:
    """All versions of one prompt, the newest first."""
    query = {"name": name, "is_prompt": True}
    return _with_position(query, {"version": DESCENDING}, ["versions of prompt", name], page_token)


def validate_model_page_size(max_results: int) -> None:
    if not isinstance(max_results, int) or max_results < 1:
        raise MlflowException(
            f"Invalid value for request parameter max_results. It must be a positive integer, but got value "
            f"{max_results}",
            INVALID_PARAMETER_VALUE,
        )
    _validate_at_most(max_results, SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD)


def validate_version_page_size(max_results: int) -> None:
    if not isinstance(max_results, int) or max_results < 1:
        raise MlflowException(
            f"Invalid value for max_results. It must be a positive integer, but got {max_results}",
            INVALID_PARAMETER_VALUE,
        )
    _validate_at_most(max_results, SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD)


def _validate_at_most(max_results: int, limit: int) -> None:
    if max_results > limit:
        raise MlflowException(
            f"Invalid value for request parameter max_results. It must be at most {limit}, but got value "
            f"{max_results}",
            INVALID_PARAMETER_VALUE,
        )


def _clauses(parser: Any, filter_string: str | None) -> list[Clause]:
    if not filter_string:
        return []
    clauses: list[Clause] = parsed(parser.parse_search_filter, filter_string, "filter")
    for clause in filter(_is_on_prompt_tag, clauses):
        allow(clause["comparator"], TEXT, "tag")  # the clause may count for nothing, but must be valid
    return clauses


def _asks_for_prompts(clauses: list[Clause]) -> bool:
    """As MLflow decides it: by the first condition on the prompt tag."""
    for clause in clauses:
        if _is_on_prompt_tag(clause):
            wanted = {"=": "true", "!=": "false"}.get(clause["comparator"])
            return bool(clause["value"].lower() == wanted)
    return False


def _is_on_prompt_tag(clause: Clause) -> bool:
    return bool(clause["type"] == "tag" and clause["key"] == IS_PROMPT_TAG_KEY)


def _counts(clause: Clause, clauses: list[Clause]) -> bool:
    """Where prompts are left out anyway, conditions on their tag say nothing more: models have none."""
    return _asks_for_prompts(clauses) or not _is_on_prompt_tag(clause)


def _model_condition(clause: Clause) -> dict[str, Any]:
    kind, key, comparator, value = (clause[part] for part in ("type", "key", "comparator", "value"))
    if kind == "tag":
        return _tag_condition(key, comparator, value)
    if kind != "attribute":
        raise MlflowException.invalid_parameter_value(f"Invalid token type: {kind}")
    if key != "name":
        raise MlflowException.invalid_parameter_value(f"Invalid attribute name: {key}")
    allow(comparator, _TEXT_OR_LIST, "attribute")
    return {key: condition(comparator, value)}


def _version_condition(clause: Clause) -> dict[str, Any]:
    kind, key, comparator, value = (clause[part] for part in ("type", "key", "comparator", "value"))
    if kind == "tag":
        return _tag_condition(key, comparator, value)
    if kind != "attribute":
        raise MlflowException.invalid_parameter_value(f"Invalid token type: {kind}")
    if key not in SearchModelVersionUtils.VALID_SEARCH_ATTRIBUTE_KEYS:
        raise MlflowException.invalid_parameter_value(f"Invalid attribute name: {key}")
    if key in SearchModelVersionUtils.NUMERIC_ATTRIBUTES:
        allowed = tuple(SearchModelVersionUtils.VALID_NUMERIC_ATTRIBUTE_COMPARATORS)
        allow(comparator, allowed, f"attribute {key}")
        return {_FIELDS[key]: condition(comparator, whole_number(key, value, quoted=False))}
    allow(comparator, _TEXT_OR_LIST if key in ("run_id", "name") else TEXT, "attribute")
    return {_FIELDS.get(key, key): condition(comparator, value)}


def _tag_condition(key: str, comparator: str, value: str) -> dict[str, Any]:
    allow(comparator, TEXT, "tag")
    if comparator == "=":
        if key == IS_PROMPT_TAG_KEY and value == PROMPT_VALUE:
            return {"is_prompt": True}
        return {tag_field(key, value): value}
    return {"$or": [{field: condition(comparator, value)} for field in tag_fields(key)]}


def _model_order(order_by: list[str]) -> dict[str, int]:
    sort: dict[str, int] = {}
    for clause in order_by:
        key, ascending = parsed(SearchUtils.parse_order_by_for_search_registered_models, clause, "order_by")
        if key not in ("name", *SearchUtils.VALID_TIMESTAMP_ORDER_BY_KEYS):
            raise MlflowException.invalid_parameter_value(
                f"Invalid order by key '{key}' specified. Valid keys are "
                f"'{SearchUtils.RECOMMENDED_ORDER_BY_KEYS_REGISTERED_MODELS}'"
            )
        _add(sort, "name" if key == "name" else "last_updated_time", ascending, order_by)
    return sort


def _version_order(order_by: list[str]) -> dict[str, int]:
    sort: dict[str, int] = {}
    for clause in order_by:
        parse = SearchModelVersionUtils.parse_order_by_for_search_model_versions
        _, key, ascending = parsed(parse, clause, "order_by")
        if key not in SearchModelVersionUtils.VALID_ORDER_BY_ATTRIBUTE_KEYS:
            raise MlflowException.invalid_parameter_value(
                f"Invalid order by key '{key}' specified. Valid keys are "
                f"{SearchModelVersionUtils.VALID_ORDER_BY_ATTRIBUTE_KEYS}"
            )
        _add(sort, _FIELDS.get(key, key), ascending, order_by)
    return sort


def _add(sort: dict[str, int], field: str, ascending: bool, order_by: list[str]) -> None:
    if field in sort:
        raise MlflowException(f"`order_by` contains duplicate fields: {order_by}")
    sort[field] = ASCENDING if ascending else DESCENDING


def _page(
    conditions: list[dict[str, Any]],
    clauses: list[Clause],
    sort: dict[str, int],
    question: list[Any],
    page_token: str | None,
) -> Page:
    query: dict[str, Any] = {"$and": conditions} if conditions else {}
    if not _asks_for_prompts(clauses):
        query["is_prompt"] = False
    return _with_position(query, sort, question, page_token)


def _with_position(
    query: dict[str, Any], sort: dict[str, int], question: list[Any], page_token: str | None
) -> Page:
    order = list(sort.items())
    kinds = [str if field == "name" else int for field in sort]
    position = parse_token(page_token, question, kinds)
    if position is not None:
        field, direction = order[0]
        bound = {field: {"$gte" if direction == ASCENDING else "$lte": position[0]}}
        # The bound says nothing new, but lets the index begin there.
        query = {"$and": [*([query] if query else []), bound, behind(order, position)]}
    return Page(query, order, question)
