"""Declared indexes: keys, options, and the sentence that says which query each one is for."""

from collections.abc import Sequence
from typing import Any

from pymongo import IndexModel


class Index(IndexModel):
    """An index and what it serves; docs/schema is made from these."""

    def __init__(self, keys: str | Sequence[tuple[str, int | str]], *, serves: str, **options: Any) -> None:
        super().__init__(keys, **options)
        self.serves = serves
