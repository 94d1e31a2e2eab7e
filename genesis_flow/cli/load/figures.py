"""Times of calls, counted in steps of five percent, so that a client of ten minutes has a page to tell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_STEP = math.log(1.05)
# The shortest time that is told apart, in milliseconds.
_LEAST = 0.01


@dataclass(slots=True)
class Latencies:
    """How long calls took."""

    steps: Counter[int] = field(default_factory=Counter)
    longest: float = 0.0

    def add(self, milliseconds: float) -> None:
        self.steps[math.ceil(math.log(max(milliseconds, _LEAST) / _LEAST) / _STEP)] += 1
        self.longest = max(self.longest, milliseconds)

    def merge(self, other: Latencies) -> None:
        self.steps += other.steps
        self.longest = max(self.longest, other.longest)

    @property
    def count(self) -> int:
        return sum(self.steps.values())

    def percentile(self, share: float) -> float | None:
        """The time within which this share of the calls ended, at most five percent too long."""
        left = math.ceil(self.count * share)
        for step in sorted(self.steps):
            left -= self.steps[step]
            if left <= 0:
                return min(_LEAST * math.exp(step * _STEP), self.longest)
        return None


@dataclass(slots=True)
class Figures:
    """What one client measured, or all of them."""

    by_call: dict[str, Latencies] = field(default_factory=dict)
    by_slice: dict[int, Latencies] = field(default_factory=dict)
    """All calls by the slice of the time in which they ended."""
    errors: dict[str, int] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    """What the first error of each client said."""

    def add(self, call: str, time_slice: int, milliseconds: float) -> None:
        self.by_call.setdefault(call, Latencies()).add(milliseconds)
        self.by_slice.setdefault(time_slice, Latencies()).add(milliseconds)

    def fail(self, call: str, message: str) -> None:
        self.errors[call] = self.errors.get(call, 0) + 1
        self.messages = self.messages or [message]

    @property
    def all_calls(self) -> Latencies:
        return _sum(self.by_call.values())


def _sum(several: Iterable[Latencies]) -> Latencies:
    total = Latencies()
    for each in several:
        total.merge(each)
    return total


def together(several: Iterable[Figures]) -> Figures:
    total = Figures()
    for each in several:
        for call, latencies in each.by_call.items():
            total.by_call.setdefault(call, Latencies()).merge(latencies)
        for number, latencies in each.by_slice.items():
            total.by_slice.setdefault(number, Latencies()).merge(latencies)
        for call, count in each.errors.items():
            total.errors[call] = total.errors.get(call, 0) + count
        total.messages += [message for message in each.messages if message not in total.messages]
    return total
