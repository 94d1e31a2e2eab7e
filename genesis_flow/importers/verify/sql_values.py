"""What values in MLflow's SQL tables mean."""

import json
import sys
from typing import Any

import sqlalchemy as sa

from genesis_flow.importers.kinds import KINDS
from genesis_flow.importers.verify.entities import COSTS, TOKENS, json_value

# MLflow's stand-in for infinity.
LARGEST = sys.float_info.max

# Databases that check no types may hold anything in any column. The table of kinds says what each is for;
# these are read beside it.
_LETTERS = {
    ("inputs", "step"): "i",
    **{("trace_info", name): "i" for name in TOKENS},
    **{(table, name): "r" for table in ("trace_info", "spans") for name in COSTS},
    **{
        (table, each.name): each.letter
        for kind in KINDS
        for table, columns in (
            *((rows.table, rows.columns) for rows in kind.rows),
            *((lookup.table, lookup.columns) for lookup in kind.lookups),
            (kind.table, kind.columns),
        )
        for each in columns
    },
}
_INT64 = range(-(2**63), 2**63)
_TRUE, _FALSE = (True, 1, "1", "t", "true", "True"), (False, 0, "0", "f", "false", "False")
TOKEN_USAGE = "mlflow.trace.tokenUsage"
# MLflow 2 named it so.
STATES = {"TRACE_STATUS_UNSPECIFIED": "STATE_UNSPECIFIED"}


def oddity(table: str, column: str, value: Any) -> str | None:
    """What is wrong with a value that its column is not for."""
    letter = _LETTERS.get((table, column), "t").lower()
    if isinstance(value, bytes):
        return None if letter == "y" else "not UTF-8"
    if value is None:
        return None
    match letter:
        case "i" if not _is_whole(value):
            return f"{value!r}, not a whole number"
        case "r" if not _is_number(value):
            return f"{value!r}, not a number"
        case "b" if value not in (*_TRUE, *_FALSE):
            return f"{value!r}, neither true nor false"
        case "y":
            return "text, not binary"
    return None


def _is_whole(value: Any) -> bool:
    if isinstance(value, float):
        return value.is_integer() and int(value) in _INT64
    return isinstance(value, int) and int(value) in _INT64


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def is_true(stored: Any) -> bool:
    """Truth values are numbers or letters in some databases."""
    return stored in _TRUE


def truth_of(stored: Any) -> bool:
    """A truth value; databases that check no types may hold anything."""
    if stored is not None and stored not in (*_TRUE, *_FALSE):
        raise ValueError(stored)
    return is_true(stored)


def whole_of(stored: Any) -> int:
    """A whole number; databases that check no types may hold a fraction."""
    number = int(stored)
    if isinstance(stored, float) and number != stored:
        raise ValueError(stored)
    return number


def number_of(stored: float | None, is_nan: bool) -> float:
    """MLflow keeps no NaN and no infinity in SQL, but stand-ins."""
    if is_nan or stored is None:
        return float("nan")
    number = float(stored)
    if abs(number) >= LARGEST:
        return float("inf") if number > 0 else float("-inf")
    return number


def counts_of(values: dict[str, Any]) -> dict[str, Any]:
    """Counts, which a column for any number made fractions of; what is no count is kept by no target."""
    return {name: int(value) for name, value in values.items() if _is_count(value)}


def _is_count(value: Any) -> bool:
    return isinstance(value, int | float) and _is_whole(value)


# What writers need of JSON: any, or a map.
_JSON = {
    "spans": (("content", True),),
    "assessments": (("value", False), ("assessment_metadata", True)),
    "evaluation_dataset_records": (
        *((name, True) for name in ("inputs", "expectations", "tags")),
        *((name, False) for name in ("outputs", "source")),
    ),
}


def unusable(table: str, row: dict[str, Any]) -> str | None:
    """Why no target can hold what the JSON of a row says."""
    for name, is_map in _JSON[table]:
        value = row.get(name)
        try:
            said = (json.loads(value) if value else None) if isinstance(value, str) else value
        except ValueError:
            return f"its {name} is no JSON"
        if is_map and not isinstance(said, dict | None):
            return f"its {name} is no map"
        if table == "spans" and said and not isinstance(said.get("attributes") or {}, dict):
            return "its attributes are no map"
    return None


def unwrapped(text: Any) -> Any:
    """Outputs that are no object are kept in one."""
    value = json_value(text)
    return value["mlflow_wrapped"] if isinstance(value, dict) and list(value) == ["mlflow_wrapped"] else value


def snapshot_of(connection: sa.Connection) -> sa.Connection:
    """One state of the database for all that is read, and nothing written."""
    match connection.dialect.name:
        case "postgresql":
            return connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        case "mysql":
            return connection.execution_options(isolation_level="REPEATABLE READ")
    return connection
