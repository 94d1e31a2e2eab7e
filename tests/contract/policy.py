"""What it means that two stores answer the same: field by field, error by error.

Whatever is not listed here must match exactly, fields that a later MLflow adds included.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

from mlflow.entities._mlflow_object import _MlflowObject
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList

CLOCK_TOLERANCE_MS = 30_000


class Rule(Enum):
    CLOSE_TIME = "both are times in milliseconds, near each other"
    UNORDERED = "the same entries in any order"
    BOTH_OR_NEITHER = "both have a value, or neither"


class Exemption(NamedTuple):
    rule: Rule
    reason: str


FIELDS: dict[tuple[str, str], Exemption] = {
    ("Experiment", "creation_time"): Exemption(Rule.CLOSE_TIME, "each store reads its clock"),
    ("Experiment", "last_update_time"): Exemption(Rule.CLOSE_TIME, "each store reads its clock"),
    ("RunInputs", "dataset_inputs"): Exemption(Rule.UNORDERED, "SQL joins them without an order"),
    ("RunInputs", "model_inputs"): Exemption(Rule.UNORDERED, "SQL reads them without an order"),
    ("RunOutputs", "model_outputs"): Exemption(Rule.UNORDERED, "SQL reads them without an order"),
    ("DatasetInput", "tags"): Exemption(Rule.UNORDERED, "SQL joins them without an order"),
    ("TraceInfo", "assessments"): Exemption(Rule.UNORDERED, "SQL selects them without an order"),
    ("Feedback", "last_update_time_ms"): Exemption(Rule.CLOSE_TIME, "each store reads its clock"),
    ("Expectation", "last_update_time_ms"): Exemption(Rule.CLOSE_TIME, "each store reads its clock"),
    ("LoggedModel", "creation_timestamp"): Exemption(Rule.CLOSE_TIME, "each store reads its clock"),
    ("LoggedModel", "last_updated_timestamp"): Exemption(Rule.CLOSE_TIME, "each store reads its clock"),
    ("LoggedModel", "metrics"): Exemption(Rule.UNORDERED, "SQL reads them without an order"),
    ("EvaluationDataset", "source"): Exemption(Rule.BOTH_OR_NEITHER, "it holds nothing but the id"),
    **{
        (kind, field): Exemption(Rule.CLOSE_TIME, "each store reads its clock")
        for kind, fields in {
            "LabelSchema": ("created_at", "updated_at"),
            "ReviewQueue": ("creation_time_ms", "last_update_time_ms"),
            "ReviewQueueItem": ("creation_time_ms", "last_update_time_ms", "completed_time_ms"),
            "Issue": ("created_timestamp", "last_updated_timestamp", "last_seen_timestamp"),
            "ScorerVersion": ("creation_time",),
            **dict.fromkeys(
                ("MCPServer", "MCPServerVersion", "MCPAccessEndpoint", "Skill", "SkillVersion"),
                ("creation_timestamp", "last_updated_timestamp"),
            ),
        }.items()
        for field in fields
    },
    **{
        (kind, field): Exemption(Rule.CLOSE_TIME, "each store reads its clock")
        for kind in (
            *("GatewaySecretInfo", "GatewayModelDefinition", "GatewayEndpoint", "GatewayEndpointBinding"),
            *("GatewayEndpointModelMapping", "GatewayBudgetPolicy"),
            *("GatewayGuardrail", "GatewayGuardrailConfig"),
        )
        for field in ("created_at", "last_updated_at")
    },
    ("GatewayEndpointModelMapping", "mapping_id"): Exemption(Rule.BOTH_OR_NEITHER, "drawn by each store"),
    ("PagedList", "token"): Exemption(Rule.BOTH_OR_NEITHER, "ours holds a position, MLflow's an offset"),
}

# Whole results of methods.
RESULTS: dict[str, Exemption] = {
    **{
        name: Exemption(Rule.UNORDERED, "SQL selects them without an order")
        for name in (
            *("list_secret_infos", "list_gateway_model_definitions"),
            *("list_gateway_endpoints", "list_endpoint_bindings"),
        )
    },
    "_search_datasets": Exemption(Rule.UNORDERED, "SQL selects them without an order"),
    "_get_deleted_runs": Exemption(Rule.UNORDERED, "SQL selects them without an order"),
    "_get_deleted_logged_models": Exemption(Rule.UNORDERED, "SQL selects them without an order"),
    "filter_active_experiment_ids": Exemption(Rule.UNORDERED, "SQL selects them without an order"),
}


class Wording(NamedTuple):
    """Messages that differ on purpose although class and code of the error are the same."""

    theirs: str
    ours: str
    reason: str


WORDINGS: tuple[Wording, ...] = (
    Wording(
        r"Experiment\(name=(?P<name>.*?)\) already exists\. Error: .*",
        r"Experiment\(name=(?P<name>.*)\) already exists\.",
        "the SQL statement and its parameters are of no use to the user",
    ),
    Wording(
        r"Invalid experiment name: .*\. Expects a string\.",
        r"(new_)?name must be a text, not .*\.",
        "one sentence for all arguments that are texts",
    ),
    Wording(
        r"Invalid page token, decoded value=.*",
        r"Invalid page token: .*",
        "a keyset token has no decoded offset to show",
    ),
    Wording(
        r"(Invalid page token, could not base64-decode|invalid literal for int|Incorrect padding).*",
        r"Invalid page token: .*",
        "a keyset token has no decoded offset to show",
    ),
)


# Properties that would ask the store that MLflow is set to; the tests ask both stores themselves.
LAZY = {("EvaluationDataset", "experiment_ids"), ("EvaluationDataset", "records")}


def result_differences(method: str, ours: Any, theirs: Any) -> list[str]:
    exemption = RESULTS.get(method)
    if exemption is not None:
        return list(_by_rule(exemption.rule, ours, theirs, "result"))
    return list(differences(ours, theirs, "result"))


def differences(ours: Any, theirs: Any, where: str) -> Iterator[str]:
    """Every place where two values differ, in words."""
    if _type(ours) is not _type(theirs):
        yield f"{where}: {ours!r} is a {type(ours).__name__}, theirs is {theirs!r}"
    elif isinstance(ours, PagedList):
        yield from _sequences(ours, theirs, where)
        yield from _fields({"token": ours.token}, {"token": theirs.token}, "PagedList", where)
    elif isinstance(ours, list | tuple):
        yield from _sequences(ours, theirs, where)
    elif isinstance(ours, dict):
        yield from _fields(ours, theirs, "dict", where)
    elif is_entity(ours):
        yield from _fields(fields_of(ours), fields_of(theirs), type(ours).__name__, where)
    elif isinstance(ours, float) and math.isnan(ours) and math.isnan(theirs):
        return
    elif ours != theirs:
        yield f"{where}: {ours!r}, theirs is {theirs!r}"


def _type(value: Any) -> type:
    """The type that counts: SQLAlchemy hands out dictionaries that tell it of changes."""
    return dict if isinstance(value, dict) else type(value)


def is_entity(value: Any) -> bool:
    return isinstance(value, _MlflowObject) or type(value).__module__.startswith("mlflow.")


def described(value: Any) -> str:
    """For messages: not every entity shows its fields."""
    return f"{type(value).__name__}{fields_of(value)}" if is_entity(value) else repr(value)


def fields_of(entity: Any) -> dict[str, Any]:
    """Every public property and attribute, those of base classes and future versions too."""
    properties = {
        name
        for cls in type(entity).__mro__
        for name, member in vars(cls).items()
        if isinstance(member, property)
    }
    attributes = getattr(entity, "__dict__", None) or getattr(entity, "__slots__", ())
    names = (properties | set(attributes)) - {name for kind, name in LAZY if kind == type(entity).__name__}
    return {name: getattr(entity, name) for name in sorted(names) if not name.startswith("_")}


def _fields(ours: dict[str, Any], theirs: dict[str, Any], kind: str, where: str) -> Iterator[str]:
    for name in sorted(ours.keys() | theirs.keys()):
        path = f"{where}.{name}"
        if name not in ours or name not in theirs:
            yield f"{path}: only {'theirs' if name in theirs else 'ours'} has it"
            continue
        exemption = FIELDS.get((kind, name))
        if exemption is None:
            yield from differences(ours[name], theirs[name], path)
        else:
            yield from _by_rule(exemption.rule, ours[name], theirs[name], path)


def _sequences(ours: Sequence[Any], theirs: Sequence[Any], where: str) -> Iterator[str]:
    if len(ours) != len(theirs):
        mine, others = ([described(each) for each in some] for some in (ours, theirs))
        yield f"{where}: {len(ours)} entries {mine}, theirs {len(theirs)} {others}"
        return
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        yield from differences(mine, other, f"{where}[{index}]")


def _by_rule(rule: Rule, ours: Any, theirs: Any, where: str) -> Iterator[str]:
    check: dict[Rule, Callable[[Any, Any, str], Iterator[str]]] = {
        Rule.CLOSE_TIME: _close_times,
        Rule.UNORDERED: _unordered,
        Rule.BOTH_OR_NEITHER: _both_or_neither,
    }
    yield from check[rule](ours, theirs, where)


def _close_times(ours: Any, theirs: Any, where: str) -> Iterator[str]:
    if ours is None and theirs is None:
        return
    if type(ours) is not int or type(theirs) is not int or abs(ours - theirs) > CLOCK_TOLERANCE_MS:
        yield f"{where}: {ours!r}, theirs is {theirs!r}"


def _unordered(ours: Any, theirs: Any, where: str) -> Iterator[str]:
    if type(ours) is not type(theirs):
        yield f"{where}: {ours!r} is a {type(ours).__name__}, theirs is {theirs!r}"
        return
    left = list(theirs or [])
    for mine in ours or []:
        match = next((i for i, other in enumerate(left) if not any(differences(mine, other, where))), None)
        if match is None:
            yield f"{where}: only ours has {described(mine)}"
        else:
            del left[match]
    for other in left:
        yield f"{where}: only theirs has {described(other)}"


def _both_or_neither(ours: Any, theirs: Any, where: str) -> Iterator[str]:
    if bool(ours) != bool(theirs):
        yield f"{where}: {ours!r}, theirs is {theirs!r}"


def error_differences(ours: Exception, theirs: Exception) -> list[str]:
    found = []
    if type(ours) is not type(theirs):
        found.append(f"class: {type(ours).__name__}, theirs is {type(theirs).__name__}")
    if code_of(ours) != code_of(theirs):
        found.append(f"code: {code_of(ours)}, theirs is {code_of(theirs)}")
    if not _same_message(str(ours), str(theirs)):
        found.append(f"message: {str(ours)!r}, theirs is {str(theirs)!r}")
    return found


def code_of(error: Exception) -> str | None:
    return error.error_code if isinstance(error, MlflowException) else None


def _same_message(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    for wording in WORDINGS:
        mine = re.fullmatch(wording.ours, ours, re.DOTALL)
        other = re.fullmatch(wording.theirs, theirs, re.DOTALL)
        if mine and other and mine.groupdict() == other.groupdict():
            return True
    return False
