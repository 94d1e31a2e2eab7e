"""Timing an operation in all stores; they take turns, in changing order."""

import random
import statistics
import sys
from typing import Any

from processes import Subject

TURNS = 5
# A first call opens, compiles and caches, so it does not count; but one of this many milliseconds does.
SLOW_FIRST_CALL = 5_000
# Calls in a turn: what costs little is called more often.
CALLS = {
    "create_run": 10,
    "log_metric": 10,
    "log_metric beside its own update": 10,
    "log_metric back to back": 10,
    "first point of a metric by log_metric": 10,
    "log_param": 10,
    "set_tag": 10,
    "update_run_info": 10,
    "get_run": 10,
    "log_batch 3 metrics": 10,
    "log_batch 50 params": 4,
    "log_batch 200 metrics, 50 params, 20 tags": 2,
    "log_batch 1,000 points": 2,
    "trace of 10 spans": 5,
    "trace of 10 spans back to back": 5,
    "get_registered_model": 10,
    "get_model_version": 10,
    "search_registered_models": 10,
    "search_model_versions": 10,
    "search newest 100": 3,
    "search ordered by a metric": 3,
}


class Timing:
    """Rows with medians by operation, size and store."""

    def __init__(self, found: dict[str, Subject], patience: float, notes: list[str]) -> None:
        self.found = found
        self.patience = patience * 1000
        self.notes = notes
        self.rows: list[dict[str, Any]] = []
        self.names = {name: set(subject.ask("names")) for name, subject in found.items()}
        self.random = random.Random(1)

    def of(
        self,
        operation: str,
        size: int,
        unit: str = "",
        without: frozenset[str] = frozenset(),
        pause: float = 0.0,
    ) -> None:
        """Time an operation, with so many milliseconds of other work before each call.

        A store that used up its patience takes no more turns.
        """
        taking_part = [name for name in self.found if operation in self.names[name] and name not in without]
        first, times, cpu, counts = {}, {}, {}, {}
        for name in list(taking_part):
            answer = self._time(name, operation, 1, pause)
            if answer is None:
                taking_part.remove(name)
                continue
            first[name] = answer["ms"][0]
            slow = first[name] > SLOW_FIRST_CALL
            times[name] = answer["ms"] if slow else []
            cpu[name] = answer["cpu"] if slow else 0.0
            counts[name] = answer["found"]
        if len(set(counts.values()) - {None}) > 1:
            found = ", ".join(f"{name} {count}" for name, count in counts.items())
            self.notes.append(f"'{operation}' at {size:,} {unit} finds different numbers: {found}.")
            tell(self.notes[-1])
        self._take_turns(operation, pause, taking_part, times, cpu)
        for name, each in times.items():
            if each:
                row = {"operation": operation, "size": size, "unit": unit, "store": name, "calls": len(each)}
                row |= {"p50": statistics.median(each), "p95": _p95(each), "first": first[name]}
                row |= {"cpu": cpu[name] * 1000 / len(each), "found": counts[name], "pause": pause}
                self.rows.append(row)
        shown = (f"{name} {statistics.median(each):.2f}" for name, each in sorted(times.items()) if each)
        found = next((f" finds {count}" for count in counts.values() if count is not None), "")
        tell(f"{size:>9,} {unit:<8} {operation}{found}: {', '.join(shown)}")

    def _take_turns(
        self,
        operation: str,
        pause: float,
        taking_part: list[str],
        times: dict[str, list[float]],
        cpu: dict[str, float],
    ) -> None:
        for _ in range(TURNS):
            self.random.shuffle(taking_part)
            for name in list(taking_part):
                if times[name] and sum(times[name]) > self.patience:
                    continue
                answer = self._time(name, operation, CALLS.get(operation, 1), pause)
                if answer is None:
                    taking_part.remove(name)
                    continue
                times[name] += answer["ms"]
                cpu[name] += answer["cpu"]

    def _time(self, name: str, operation: str, calls: int, pause: float) -> dict[str, Any] | None:
        asked = {"operation": operation, "times": calls, "pause": pause}
        try:
            answer: dict[str, Any] = self.found[name].ask("time", **asked)
        except LookupError as error:
            self.notes.append(f"{name} cannot do '{operation}': {error}")
            tell(self.notes[-1])
            self.names[name].discard(operation)
            return None
        return answer


def _p95(values: list[float]) -> float:
    return statistics.quantiles(values, n=20, method="inclusive")[18] if len(values) > 1 else values[0]


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
