"""Documents as the driver gives and takes them, and what is done with them everywhere."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")
Document = dict[str, Any]

# Of a condition `$in`: far from the 48 MB of a message, and from bounds that take long to build.
IDS_AT_ONCE = 1_000


def value_at(document: Document, path: str) -> Any:
    """The value at a path with dots; None where a step is not there."""
    value: Any = document
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def portions(items: Iterable[T], size: int = IDS_AT_ONCE) -> Iterator[list[T]]:
    """The items in lists of at most ``size``."""
    rest = iter(items)
    while portion := list(islice(rest, size)):
        yield portion
