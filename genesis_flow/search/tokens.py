"""Page tokens: where the last page ended, and of which question.

A token holds the sort key of the last entry instead of an offset, so a page costs the same wherever it is
and entries that come or go between two pages neither repeat nor hide others. It also holds a digest of the
question: continuing another question's pages would silently skip entries.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any, NoReturn

from mlflow.exceptions import MlflowException

from genesis_flow.core.numbers import INT64

# The type of a sorted field, or several.
Kinds = type | tuple[type, ...]


def create_token(question: Any, position: list[Any]) -> str:
    """A token for the page of ``question`` that starts behind ``position``."""
    body = json.dumps({"after": position, "of": _digest(question)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode()


def parse_token(
    token: str | bytes | None, question: Any, kinds: Sequence[Kinds] | None = None
) -> list[Any] | None:
    """The position in ``token``, or None for the first page; ``kinds`` are those of the sorted fields."""
    if not token:
        return None
    try:
        body = json.loads(base64.urlsafe_b64decode(token))
        position, digest = body["after"], body["of"]
    except (ValueError, TypeError, KeyError) as error:
        raise MlflowException.invalid_parameter_value(
            "Invalid page token: it is not one that this store gave out. Start again without a token."
        ) from error
    if digest != _digest(question) or not isinstance(position, list):
        raise MlflowException.invalid_parameter_value(
            "Invalid page token: it belongs to another search. Use it with the same filter, order and "
            "experiments, or start again without a token."
        )
    if kinds is not None and not _fits(position, kinds):
        refuse_position()
    return position


def _fits(position: list[Any], kinds: Sequence[Kinds]) -> bool:
    return (
        len(position) == len(kinds)
        and all(
            type(part) in (kind if isinstance(kind, tuple) else (kind,))
            for part, kind in zip(position, kinds, strict=True)
        )
        and all(part in INT64 for part in position if type(part) is int)
    )


def refuse_position() -> NoReturn:
    """For a token whose position does not fit the order it is used with."""
    raise MlflowException.invalid_parameter_value(
        "Invalid page token: its position does not fit this order. Start again without a token."
    )


def _digest(question: Any) -> str:
    return hashlib.sha256(json.dumps(question, default=str).encode()).hexdigest()[:16]
