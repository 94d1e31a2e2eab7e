"""The table of README.md, of what docs/benchmarks/result.json has.

python benchmarks/quoted.py

A test holds the README to it.
"""

import json
import re
from pathlib import Path

from bars import BATCH, CURVE, Figures
from processes import OURS, PLUGIN, POSTGRESQL, SQLITE

ROOT = Path(__file__).resolve().parent.parent
README, RESULT = ROOT / "README.md", ROOT / "docs" / "benchmarks" / "result.json"
OTHERS = (PLUGIN, SQLITE, POSTGRESQL)
HEAD = """| operation | mlflow-mongodb | SQL store, SQLite | SQL store, PostgreSQL |
|---|---|---|---|"""
_PLACE = re.compile(re.escape(HEAD) + r"\n(?:\|.*\n)+")
THREADS = "threads"
ROWS = (
    ("one `log_metric`, as a training step sends it", "writes", "log_metric", 0),
    ("log_metric from 16 threads", THREADS, "log_metric", 16),
    ("log_metric from 64 threads", THREADS, "log_metric", 64),
    ("a step of 1,000 known metrics", "keys", "step of 1,000 known metrics", 0),
    ("1,000 points of a metric in one batch", "history", "log_batch 1,000 points", 0),
    ("1,000 new metrics of a run that has 20,000", "keys", "log_batch 1,000 new keys", 20_000),
    ("a batch of 200 metrics, 50 params, 20 tags", "writes", BATCH, 0),
    ("a trace of ten spans", "writes", "trace of 10 spans", 0),
    ("newest 100 of 100,000 runs", "runs", "search newest 100", 100_000),
    ("100 of them in the order of a metric", "runs", "search ordered by a metric", 100_000),
    ("those with a tag, in all experiments", "runs", "search tag, all experiments", 100_000),
    ("10 pages of 100 in the order of a metric", "runs", "10 pages by a metric", 100_000),
    ("history of 100,000 points", "history", "metric history", 100_000),
    ("320 points of a million, for a chart", "history", CURVE, 1_000_000),
    ("average latency of 200,000 traces", "traces", "trace metrics: average latency", 200_000),
)


def table(figures: Figures) -> str:
    """How many times as long as we other stores take; of threads, how many times as many calls we make."""
    lines = [HEAD]
    for what, part, operation, size in ROWS:
        cells = [
            _shown(
                _rate(figures, size, other)
                if part == THREADS
                else _time(figures, part, operation, size, other)
            )
            for other in OTHERS
        ]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _time(figures: Figures, part: str, operation: str, size: int, other: str) -> float | None:
    return next((1 / ours for _, ours in figures.to(part, operation, other, size)), None)


def _rate(figures: Figures, threads: int, other: str) -> float | None:
    rates = {
        row["store"]: row["calls"]
        for row in figures.of("threads", "throughput")
        if (row["threads"], row["processes"]) == (threads, 1)
    }
    return rates[OURS] / rates[other] if rates.get(OURS) and rates.get(other) else None


def _shown(ratio: float | None) -> str:
    if ratio is None:
        return "–"
    return f"{ratio:.0f}x" if ratio >= 99.5 else f"{ratio:.2g}x"


def main() -> None:
    before = README.read_text(encoding="utf-8")
    written = table(Figures(json.loads(RESULT.read_text(encoding="utf-8"))))
    README.write_text(_PLACE.sub(written, before, count=1), encoding="utf-8")


if __name__ == "__main__":
    main()
