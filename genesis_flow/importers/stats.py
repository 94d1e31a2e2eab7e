"""What an import did and how long which part of it took."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Stats:
    """Sums; those of workers are added up."""

    units: int = 0
    unchanged_units: int = 0
    # Records by kind (metric points as "metric_point"): read from the source, and left out.
    read: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    # Documents that were made or changed in the target, by collection.
    written: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    problems: int = 0
    reading: float = 0.0
    converting: float = 0.0
    writing: float = 0.0

    @property
    def points(self) -> int:
        return self.read["metric_point"]

    def add(self, other: "Stats") -> None:
        self.units += other.units
        self.unchanged_units += other.unchanged_units
        self.read.update(other.read)
        self.skipped.update(other.skipped)
        self.written.update(other.written)
        self.bytes += other.bytes
        self.problems += other.problems
        self.reading += other.reading
        self.converting += other.converting
        self.writing += other.writing

    def plain(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "unchanged_units": self.unchanged_units,
            "read": dict(self.read),
            "skipped": dict(self.skipped),
            "written": dict(self.written),
            "bytes": self.bytes,
            "problems": self.problems,
            "seconds": {
                "reading": round(self.reading, 3),
                "converting": round(self.converting, 3),
                "writing": round(self.writing, 3),
            },
        }
