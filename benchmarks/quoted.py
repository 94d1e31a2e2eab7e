"""The table of README.md, of what docs/benchmarks/result.json has.

python benchmarks/quoted.py            writes it
python benchmarks/quoted.py --check    exit code 1 if it is not what stands there
"""

import argparse
import json
import re
import sys
from pathlib import Path

from bars import BATCH, CURVE, Figures
from processes import OURS, PLUGIN, POSTGRESQL, SQLITE

ROOT = Path(__file__).resolve().parent.parent
README, RESULT = ROOT / "README.md", ROOT / "docs" / "benchmarks" / "result.json"
OTHERS = (PLUGIN, SQLITE, POSTGRESQL)
HEAD = """| operation | mlflow-mongodb | SQL store, SQLite | SQL store, PostgreSQL |
|---|---|---|---|"""
_PLACE = re.compile(re.escape(HEAD) + r"\n(?:\|.*\n)+")
CALLS = (
    ("one `log_metric`, as a training step sends it", "writes", "log_metric", 0),
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
THREADS = (16, 64)
AFTER = "a step of 1,000 known metrics"
"""The row behind those of the threads."""


def table(figures: Figures) -> str:
    """How many times as long another store takes, or what part of the calls a second it does."""
    rows = {
        what: [_call(figures, part, operation, size, other) for other in OTHERS]
        for what, part, operation, size in CALLS
    }
    threads = {
        f"log_metric from {count} threads": [_rate(figures, count, other) for other in OTHERS]
        for count in THREADS
    }
    lines: list[tuple[str, list[str]]] = []
    for what, cells in rows.items():
        if what == AFTER:
            lines += threads.items()
        lines.append((what, cells))
    return "\n".join([HEAD, *(f"| {what} | {' | '.join(cells)} |" for what, cells in lines)]) + "\n"


def _call(figures: Figures, part: str, operation: str, size: int, other: str) -> str:
    return _shown([ratio for _, ratio in figures.to(part, operation, other, size)], inverted=True)


def _rate(figures: Figures, threads: int, other: str) -> str:
    rates = {
        row["store"]: row["calls"]
        for row in figures.of("threads", "throughput")
        if (row["threads"], row["processes"]) == (threads, 1)
    }
    return _shown([rates[OURS] / rates[other]] if rates.get(OURS) and rates.get(other) else [])


def _shown(ratios: list[float], *, inverted: bool = False) -> str:
    if not ratios:
        return "–"
    ratio = 1 / ratios[0] if inverted else ratios[0]
    return f"{ratio:.0f}x" if ratio >= 99.5 else f"{ratio:.2g}x"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    after = _PLACE.sub(table(Figures(json.loads(RESULT.read_text(encoding="utf-8")))), before, count=1)
    if options.check:
        return int(after != before)
    README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
