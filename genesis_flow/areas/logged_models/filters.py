"""A search of logged models: MLflow's filter and order as conditions on models and on their metrics.

MLflow's parser of this filter needs SQLAlchemy, which clients do without, so the grammar is parsed here.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlparse
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException

from genesis_flow.compat.rules import MODEL_METRICS_BY_LATEST
from genesis_flow.compat.search import join_in_comparison_tokens
from genesis_flow.core.numbers import storable
from genesis_flow.documents.keys import escape
from genesis_flow.documents.plain import Document
from genesis_flow.search.compare import condition
from genesis_flow.search.order import Kind, OrderKey
from genesis_flow.search.parsing import parsed

CREATION_TIME = "creation_timestamp"
_ALIASES = {
    "model_id": "_id",
    "creation_time": CREATION_TIME,
    "creation_timestamp_ms": CREATION_TIME,
    "last_updated_timestamp_ms": "last_updated_timestamp",
}
_TEXTS = (
    "_id",
    "name",
    "artifact_location",
    "lifecycle_stage",
    "model_type",
    "source_run_id",
    "status_message",
)
_TIMES = (CREATION_TIME, "last_updated_timestamp")
_STATUS = "status"
_EXPERIMENT = "experiment_id"

_NUMBER_OPERATORS = ("<", "<=", ">", ">=", "=", "!=")
_TEXT_OPERATORS = ("=", "!=", "LIKE", "ILIKE", "IN", "NOT IN")
_LIST_OPERATORS = ("IN", "NOT IN")
_STATUS_OPERATORS = ("=", "!=", *_LIST_OPERATORS)
_KINDS = ("attributes", "metrics", "params", "tags")


@dataclass(frozen=True, slots=True)
class MetricCondition:
    """A model satisfies it if one of these points is there, or has the value; MLflow's version says which."""

    points: Document
    value: Document | None = None

    @property
    def by_latest(self) -> bool:
        return self.value is not None and MODEL_METRICS_BY_LATEST

    def by_any(self) -> Document:
        """The query of points of which each satisfies the condition, or may do so if it is the latest."""
        return self.points if self.value is None else {**self.points, "value": self.value}


@dataclass(frozen=True, slots=True)
class ModelFilter:
    """All must hold."""

    model_conditions: list[Document]
    metric_conditions: list[MetricCondition]
    # The condition on points to be on one of the datasets of the search.
    on_datasets: Document


@dataclass(frozen=True, slots=True)
class ModelOrderKey(OrderKey):
    """For a metric also the condition on the dataset whose latest point counts."""

    dataset: tuple[tuple[str, str], ...] = ()


NEWEST_FIRST = ModelOrderKey(Kind.NUMBER, CREATION_TIME, ascending=False)


def parse_model_filter(filter_string: str | None, datasets: Sequence[Document] | None) -> ModelFilter:
    model_conditions: list[Document] = []
    metric_conditions: list[MetricCondition] = []
    on_datasets = _on_datasets(datasets or [])
    for kind, key, operator, text in _comparisons(filter_string):
        if kind == "metrics":
            _check_operator(kind, key, operator, _NUMBER_OPERATORS)
            value = parsed(float, text, f"number for the metric {key!r}:")
            metric_conditions.append(MetricCondition({"key": key, **on_datasets}, condition(operator, value)))
        elif kind == "attributes":
            model_conditions.append(_attribute_condition(key, operator, text))
        else:
            _check_operator(kind, key, operator, _TEXT_OPERATORS)
            model_conditions.append({f"{kind}.{escape(key)}": condition(operator, _text(operator, text))})
    if on_datasets and not metric_conditions:
        metric_conditions.append(MetricCondition(on_datasets))
    return ModelFilter(model_conditions, metric_conditions, on_datasets)


def _on_datasets(datasets: Sequence[Document]) -> Document:
    """The condition on a metric point to be on one of the datasets."""
    if any(not dataset.get("dataset_name") for dataset in datasets):
        raise MlflowException.invalid_parameter_value(
            "`dataset_name` in the `datasets` clause must be specified."
        )
    alternatives = [_dataset_condition(dataset) for dataset in datasets]
    return {"$or": alternatives} if alternatives else {}


def _dataset_condition(dataset: Document) -> Document:
    given = {name: dataset[name] for name in ("dataset_name", "dataset_digest") if dataset.get(name)}
    for name, value in given.items():
        if not isinstance(value, str):  # a dictionary would be an operator to MongoDB
            raise MlflowException.invalid_parameter_value(f"`{name}` must be a text, not {value!r:.100}.")
    return given


def _comparisons(filter_string: str | None) -> list[tuple[str, str, str, str]]:
    """The comparisons as kind, key, operator and the value's text."""
    if not filter_string:
        return []
    statements = parsed(sqlparse.parse, filter_string, "filter")
    if len(statements) != 1:
        raise MlflowException.invalid_parameter_value(
            f"Invalid filter string: {filter_string!r}. Expected a single SQL expression."
        )
    comparisons = []
    # Joining slips on some half-written lists.
    for token in parsed(lambda _: join_in_comparison_tokens(statements[0].tokens), filter_string, "filter"):
        if isinstance(token, sqlparse.sql.Comparison):
            comparisons.append(_comparison(token))
        elif not token.is_whitespace and token.value.strip().upper() != "AND":
            raise MlflowException.invalid_parameter_value(
                f"Invalid filter string: {filter_string!r}. Expected a list of comparisons separated by "
                "'AND' (e.g. 'metrics.loss > 0.1 AND params.lr = 0.01')."
            )
    return comparisons


def _comparison(token: Any) -> tuple[str, str, str, str]:
    parts = [str(part) for part in token.tokens if not part.is_whitespace]
    if len(parts) != 3:
        raise MlflowException.invalid_parameter_value(
            f"Invalid comparison: {token}. Expected a comparison with 3 tokens."
        )
    identifier, operator, text = parts
    kind, dot, key = identifier.partition(".")
    if not dot:
        return "attributes", identifier.strip("`"), operator.upper(), text
    if kind not in _KINDS:
        raise MlflowException.invalid_parameter_value(
            f"Invalid entity type: {kind!r}. Expected one of {list(_KINDS)}."
        )
    return kind, key.strip("`"), operator.upper(), text


def _attribute_condition(key: str, operator: str, text: str) -> Document:
    field = _ALIASES.get(key, key)
    if field in _TIMES:
        _check_operator("attributes", key, operator, _NUMBER_OPERATORS)
        return {field: condition(operator, parsed(float, text, f"number for {key!r}:"))}
    if field == _STATUS:
        _check_operator("attributes", key, operator, _STATUS_OPERATORS)
        return {field: condition(operator, _status(_text(operator, text)))}
    if field == _EXPERIMENT:
        _check_operator("attributes", key, operator, _STATUS_OPERATORS)
        return {field: condition(operator, _experiments(_text(operator, text)))}
    if field not in _TEXTS:
        raise MlflowException.invalid_parameter_value(
            f"Invalid attribute name: {key!r}. Filter by model_id, name, experiment_id, model_type, status, "
            "source_run_id, creation_timestamp or last_updated_timestamp, or by metrics., params. or tags. "
            "and a key."
        )
    _check_operator("attributes", key, operator, _TEXT_OPERATORS)
    return {field: condition(operator, _text(operator, text))}


def _check_operator(kind: str, key: str, operator: str, allowed: tuple[str, ...]) -> None:
    if operator not in allowed:
        raise MlflowException.invalid_parameter_value(
            f"Invalid comparison operator for {kind}.{key}: {operator!r}. Expected one of {allowed}."
        )


def _text(operator: str, text: str) -> str | list[str]:
    """The value of a comparison with a text: a list for IN, else the text between single quotes."""
    is_list = text.startswith("(") and text.endswith(")")
    if is_list != (operator in _LIST_OPERATORS):
        raise MlflowException.invalid_parameter_value(
            f"Invalid value {text} for {operator}: lists in parentheses go with IN and NOT IN, single values "
            "with all else."
        )
    if not is_list:
        return text.strip("'")
    value = parsed(_literal, text, "list")
    return [str(each) for each in (value if isinstance(value, tuple) else (value,))]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except SyntaxError as error:
        raise ValueError(error.msg) from error


def _experiments(value: str | list[str]) -> Any:
    """The numbers of experiments. A text that spells none is left as it is: no experiment has it."""
    if isinstance(value, list):
        return [_experiments(each) for each in value]
    try:
        return storable(int(value))
    except ValueError:
        return value


def _status(value: str | list[str]) -> int | list[int]:
    """MLflow's number of a status, which may also be given itself."""
    if isinstance(value, list):
        return [_status_number(each) for each in value]
    return _status_number(value)


def _status_number(name: str) -> int:
    for status in LoggedModelStatus:
        if name in (status.value, str(status.to_int())):
            return status.to_int()
    raise MlflowException.invalid_parameter_value(
        f"Unknown model status {name!r}. Expected one of {[status.value for status in LoggedModelStatus]}."
    )


def parse_model_order(order_by: Sequence[Document] | None) -> list[ModelOrderKey]:
    """The keys that decide before the model id does."""
    keys: list[ModelOrderKey] = []
    for clause in order_by or []:
        key = _order_key(clause)
        # A field that is named again cannot change the order any more.
        if not any(_same_field(key, other) for other in keys):
            keys.append(key)
    if not any(_same_field(key, NEWEST_FIRST) for key in keys):
        keys.append(NEWEST_FIRST)
    return keys


def _order_key(clause: Document) -> ModelOrderKey:
    name = clause.get("field_name")
    ascending = clause.get("ascending", True)
    if not isinstance(name, str):
        raise MlflowException.invalid_parameter_value(
            "Each entry of `order_by` needs a `field_name`, such as 'creation_timestamp' or 'metrics.acc'."
        )
    kind, dot, key = name.partition(".")
    if dot:
        if kind != "metrics":
            raise MlflowException.invalid_parameter_value(
                f"Invalid order by field name: {name}. Only metrics are supported."
            )
        return ModelOrderKey(Kind.METRIC, key, ascending, tuple(_dataset_condition(clause).items()))
    field = _ALIASES.get(name, name)
    if field in (*_TIMES, _STATUS, _EXPERIMENT):
        return ModelOrderKey(Kind.NUMBER, field, ascending)
    if field in _TEXTS:
        return ModelOrderKey(Kind.TEXT, field, ascending)
    raise MlflowException.invalid_parameter_value(f"Invalid order by field name: {name}")


def _same_field(key: ModelOrderKey, other: ModelOrderKey) -> bool:
    return (key.kind, key.field, key.dataset) == (other.kind, other.field, other.dataset)
