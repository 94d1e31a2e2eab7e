"""Values of SQL columns, which a damaged or hand-made database need not have declared truly."""

import json
from typing import Any

from genesis_flow.core.numbers import INT64

# What MLflow writes for infinity, which MySQL and SQL Server cannot hold.
HUGE = 1.7976931348623157e308
_TRUE, _FALSE = (True, 1, "1", "t", "true", "True"), (False, 0, "0", "f", "false", "False")


class Undecodable(bytes):
    """Text that is no UTF-8."""


class Unreadable(Exception):
    """A value that is not what its column is for; the message says which and why."""


def text(value: Any, column: str) -> str | None:
    if value is None or type(value) is str:
        return value
    if isinstance(value, Undecodable):
        raise Unreadable(f"{column} is not UTF-8 text: {bytes(value[:40])!r}")
    if isinstance(value, bytes | bytearray | memoryview):
        raise Unreadable(f"{column} is binary, not text")
    return str(value)


def needed_text(value: Any, column: str) -> str:
    found = text(value, column)
    if found is None:
        raise Unreadable(f"{column} is missing")
    return found


def whole(value: Any, column: str) -> int | None:
    if value is None or type(value) is int:
        return value
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise Unreadable(f"{column} is not a whole number: {value!r}") from error
    if isinstance(value, float) and number != value:
        raise Unreadable(f"{column} is not a whole number: {value!r}")
    if number not in INT64:
        raise Unreadable(f"{column} does not fit 64 bits: {value!r}")
    return number


def needed_whole(value: Any, column: str) -> int:
    number = whole(value, column)
    if number is None:
        raise Unreadable(f"{column} is missing")
    return number


def real(value: Any, column: str) -> float | None:
    """A number, with the infinities that MLflow had to replace."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise Unreadable(f"{column} is not a number: {value!r}") from error
    if abs(number) >= HUGE:
        return float("inf") if number > 0 else float("-inf")
    return number


def truth(value: Any) -> bool:
    """MLflow's booleans are numbers or letters in some databases."""
    return value in _TRUE


def checked_truth(value: Any, column: str) -> bool:
    if value is not None and value not in (*_TRUE, *_FALSE):
        raise Unreadable(f"{column} is neither true nor false: {value!r}")
    return truth(value)


def needed_real(value: Any, column: str) -> float:
    number = real(value, column)
    if number is None:
        raise Unreadable(f"{column} is missing")
    return number


def json_text(value: Any, column: str) -> Any:
    """What JSON text says; to MLflow an empty text is none."""
    written = text(value, column)
    if not written:
        return None
    try:
        return json.loads(written)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{column} is not JSON: {error}") from error


def needed_json(value: Any, column: str) -> Any:
    said = json_text(value, column)
    if said is None:
        raise Unreadable(f"{column} is missing")
    return said


def json_map(value: Any, column: str) -> Any:
    said = json_text(value, column)
    if said is not None and not isinstance(said, dict):
        raise Unreadable(f"{column} is no map in JSON")
    return said


def binary(value: Any, column: str) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    raise Unreadable(f"{column} is not binary: {str(value)[:40]!r}")


def needed_binary(value: Any, column: str) -> bytes:
    found = binary(value, column)
    if found is None:
        raise Unreadable(f"{column} is missing")
    return found


def json_as_text(value: Any, column: str) -> str | None:
    """JSON that is kept as text, but for ``null``."""
    said = json_text(value, column)
    return None if said is None else json.dumps(said)
