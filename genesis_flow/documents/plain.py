"""Documents as the driver gives and takes them, and what is done with them everywhere."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")
Document = dict[str, Any]


def value_at(document: Document, path: str) -> Any:
    """The value at a path with dots; None where a step is not there."""
    value: Any = document
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def portions(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of at most ``size`` items: a command takes no more than some thousands of ids."""
    rest = iter(items)
    while portion := list(islice(rest, size)):
        yield portion
