"""What scenes are played with."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.contract.trace_scenes import trace_id

Call = Callable[..., Awaitable[Any]]
"""Makes a call of a store: its name, then its arguments."""

# Traces of the scene of traces, which later ones may refer to. The third and fourth are deleted in it.
ONE, TWO, THREE, FOUR = (trace_id(number) for number in (1, 2, 3, 4))


class Stage:
    """The calls of both stores, and the ids that the scenes so far have been given, by names of their own."""

    def __init__(self, track: Call, register: Call, folder: Path, linked_uri: str | None = None) -> None:
        self.track = track
        self.register = register
        self.folder = folder
        self.linked_uri = linked_uri
        """Where MLflow, with a store of its own, links prompts to runs; without one nothing is linked."""
        self.ids: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        return self.ids[name]

    def __setitem__(self, name: str, made: str) -> None:
        self.ids[name] = made
