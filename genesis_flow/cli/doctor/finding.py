"""What a check found."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"
    """Could not be looked at, or does not apply; the message says which."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    verdict: Verdict
    message: str
    advice: str = ""
    """Advice, a sentence; empty where there is nothing to do."""
    details: dict[str, Any] = field(default_factory=dict)
    """For programs."""


def ok(check: str, message: str, **details: Any) -> Finding:
    return Finding(check, Verdict.OK, message, details=details)


def warn(check: str, message: str, advice: str, **details: Any) -> Finding:
    return Finding(check, Verdict.WARN, message, advice, details)


def fail(check: str, message: str, advice: str, **details: Any) -> Finding:
    return Finding(check, Verdict.FAIL, message, advice, details)


def skip(check: str, message: str, advice: str = "", **details: Any) -> Finding:
    return Finding(check, Verdict.SKIP, message, advice, details)
