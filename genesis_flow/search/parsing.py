"""MLflow's parsers, whose own slips on odd input become its error for bad input."""

from collections.abc import Callable
from typing import TypeVar

from mlflow.exceptions import MlflowException

T = TypeVar("T")

# Errors that the parsers let through: an open quotation, a number with too many digits, no text at all.
_SLIPS = (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError)


def parsed(parse: Callable[[str], T], text: str, what: str) -> T:
    """``parse(text)``; MLflow's own errors pass as they are."""
    try:
        return parse(text)
    except MlflowException:
        raise
    except _SLIPS as error:
        raise MlflowException.invalid_parameter_value(
            f"Invalid {what} {text!r}: {error}. Check its quotes and numbers."
        ) from error
