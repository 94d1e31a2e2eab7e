"""What a check of a server found."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genesis_flow.cli.conformance.trial import Trial


class Verdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    ABSENT = "absent"
    """The server has it not, or not as MongoDB does, and nothing of ours needs it there."""
    SKIP = "skip"
    """Was not tried; the reason says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    check: str
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class Check:
    """Something to try: returns what was seen, and raises where it is not as it has to be."""

    name: str
    look: "Callable[[Trial], str]"
    needed: bool = True


class Wrong(Exception):
    """The server did something else than it should."""


class NotTried(Exception):
    """The check does not apply to this server or profile."""


def expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise Wrong(otherwise)
