"""What values in MLflow's SQL tables mean."""

import sys
from typing import Any

import sqlalchemy as sa

from genesis_flow.importers.kinds import PLAIN
from genesis_flow.importers.verify.entities import json_value

# MLflow's stand-in for infinity.
LARGEST = sys.float_info.max

# Databases that check no types may hold anything in these columns.
_WHOLE_COLUMNS = {
    "start_time",
    "end_time",
    "deleted_time",
    "creation_time",
    "last_update_time",
    "last_updated_time",
    "created_time",
    "timestamp_ms",
    "execution_time_ms",
    "creation_timestamp_ms",
    "last_updated_timestamp_ms",
    "created_timestamp",
    "last_updated_timestamp",
    "version",
}
# By the table of kinds; the others have columns of one name alike.
_PARTS = [
    (table, each)
    for kind in PLAIN.values()
    for table, columns in ((kind.table, kind.columns), *((rows.table, rows.columns) for rows in kind.rows))
    for each in columns
]
_BINARY = {(table, each.name) for table, each in _PARTS if each.letter in "yY"}
_TEXTS = {(table, each.name) for table, each in _PARTS if each.letter in "tT"} | {
    (rows.table, rows.of_items[1]) for kind in PLAIN.values() for rows in kind.rows if rows.of_items
}
TOKEN_USAGE = "mlflow.trace.tokenUsage"
# MLflow 2 named it so.
STATES = {"TRACE_STATUS_UNSPECIFIED": "STATE_UNSPECIFIED"}


def oddity(table: str, column: str, value: Any) -> str | None:
    """What is wrong with a value that its column is not for."""
    if isinstance(value, bytes):
        return None if (table, column) in _BINARY else "not UTF-8"
    if column not in _WHOLE_COLUMNS or (table, column) in _TEXTS or value is None or isinstance(value, int):
        return None
    return f"{value!r}, not a whole number"


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
    if abs(stored) >= LARGEST:
        return float("inf") if stored > 0 else float("-inf")
    return float(stored)


def counts_of(values: dict[str, Any]) -> dict[str, Any]:
    """Counts, which a column for any number made fractions of."""
    return {name: int(value) if value == int(value) else value for name, value in values.items()}


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
