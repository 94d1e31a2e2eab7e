"""What genesis_flow has to reach, and whether it does: every figure comes from a result."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from parts import DEEP, FIRST_POINT, LAST_LINE, OWN_UPDATE, SEARCHES
from processes import BARE, OURS, PLUGIN, SQLITE

# What counts as flat: medians of the same call differ by this much from run to run.
FLAT = 1.5
Found = Iterable[tuple[str, float]]
"""Where something was measured, and the figure there."""


class Figures:
    """A result, asked by part, operation, size and store."""

    def __init__(self, result: dict[str, Any]) -> None:
        self.parts: dict[str, dict[str, Any]] = result["parts"]
        self.rows: dict[tuple[str, str, int, str], dict[str, Any]] = {
            (part, row["operation"], row["size"], row["store"]): row
            for part, found in self.parts.items()
            for row in found["operations"]
        }

    def p50(self, part: str, operation: str, size: int, store: str = OURS) -> float | None:
        row = self.rows.get((part, operation, size, store))
        return float(row["p50"]) if row else None

    def sizes(self, part: str, operation: str, store: str = OURS) -> list[int]:
        return sorted(size for of, name, size, by in self.rows if (of, name, by) == (part, operation, store))

    def of(self, part: str, kind: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.parts.get(part, {}).get(kind, [])
        return found

    def to(self, part: str, operation: str, other: str, size: int = 0) -> Found:
        """Our time as a multiple of another store's."""
        ours, theirs = self.p50(part, operation, size), self.p50(part, operation, size, other)
        if ours is not None and theirs:
            yield (at(size, ""), ours / theirs)

    def growth(self, part: str, operation: str, first: int, last: int, store: str = OURS) -> Found:
        """How many times as long a call takes at the larger size."""
        before, after = self.p50(part, operation, first, store), self.p50(part, operation, last, store)
        if before and after is not None:
            yield (f"{first:,} to {last:,}", after / before)

    def growths(self, part: str, operations: Iterable[str], first: int, last: int) -> Found:
        for operation in operations:
            for where, figure in self.growth(part, operation, first, last):
                yield (f"{operation}, {where}", figure)


def at(size: int, unit: str) -> str:
    return f"{size:,} {unit}".rstrip() if size else ""


@dataclass(frozen=True)
class Bar:
    """At most or at least so much, wherever it was measured."""

    what: str
    found: Callable[[Figures], Found]
    most: float | None = None
    least: float | None = None
    unit: str = "x"

    def holds(self, figure: float) -> bool:
        return (self.most is None or figure <= self.most) and (self.least is None or figure >= self.least)

    @property
    def allowed(self) -> str:
        word, value = ("at most", self.most) if self.most is not None else ("at least", self.least)
        return f"{word} {value:.3g}{self.unit}"


BATCH = "log_batch 200 metrics, 50 params, 20 tags"
BACK_TO_BACK = "trace of 10 spans back to back"
CURVE = "bulk interval of 320 points"


def _against_time(operation: str) -> Callable[[Figures], Found]:
    def found(figures: Figures) -> Found:
        for part in ("runs", "million"):
            for size in figures.sizes(part, operation):
                ordered, newest = (figures.p50(part, each, size) for each in (operation, "search newest 100"))
                if size >= 100_000 and ordered is not None and newest:
                    yield (at(size, "runs"), ordered / newest)

    return found


def _milliseconds(operation: str) -> Callable[[Figures], Found]:
    def found(figures: Figures) -> Found:
        if (figure := figures.p50("runs", operation, 20_000)) is not None:
            yield ("20,000 runs", figure)

    return found


def _to(operation: str, other: str) -> Callable[[Figures], Found]:
    return lambda figures: figures.to("writes", operation, other)


def _trace_to(other: str) -> Callable[[Figures], Found]:
    def found(figures: Figures) -> Found:
        for operation, where in (("trace of 10 spans", "after a pause"), (BACK_TO_BACK, "back to back")):
            for _, figure in figures.to("writes", operation, other):
                yield (where, figure)

    return found


def _newest_to_plugin(figures: Figures) -> Found:
    for size in figures.sizes("runs", "search newest 100"):
        for _, figure in figures.to("runs", "search newest 100", PLUGIN, size):
            yield (at(size, "runs"), figure)


def _facade(figures: Figures) -> Found:
    for operation, than in (("log_metric", "another update"), (OWN_UPDATE, "its own update")):
        ours, bare = (figures.p50("writes", operation, 0, store) for store in (OURS, BARE))
        if ours is not None and bare is not None:
            yield (than, ours - bare)


def _threads(figures: Figures) -> Found:
    rates = {
        row["store"]: row["calls"] for row in figures.of("threads", "throughput") if row["threads"] == 16
    }
    if OURS in rates and rates.get(PLUGIN):
        yield ("", rates[OURS] / rates[PLUGIN])


def _ends(figures: Figures) -> Found:
    ends = {row["store"]: row["p50"] for row in figures.of("start", "start") if row["step"] == LAST_LINE}
    if OURS in ends and BARE in ends:
        yield ("", (ends[OURS] - ends[BARE]) * 1000)


def _lost(figures: Figures) -> Found:
    for row in figures.of("threads", "throughput"):
        if row["store"] == OURS and row["threads"] == 64:
            yield ("", row["errors"])


def _history(figures: Figures) -> Found:
    for size in figures.sizes("history", "metric history"):
        for _, figure in figures.to("history", "metric history", PLUGIN, size):
            yield (at(size, "points"), 1 / figure)


def _bytes_of_points(figures: Figures) -> Found:
    for row in figures.of("history", "disk"):
        # Files grow in steps, which tell nothing about a few points.
        if row["store"] == OURS and row["count"] >= 10_000:
            yield (at(row["count"], "points"), row["bytes"] / row["count"])


def _wide(operation: str) -> Callable[[Figures], Found]:
    def found(figures: Figures) -> Found:
        if (figure := figures.p50("keys", operation, 0)) is not None:
            yield ("", figure)

    return found


def _curves(figures: Figures) -> Found:
    for size in figures.sizes("history", CURVE):
        if size >= 10_000 and (figure := figures.p50("history", CURVE, size)) is not None:
            yield (at(size, "points"), figure)


def _trace_metrics(figures: Figures) -> Found:
    """At the largest size, where it matters."""
    for operation in dict.fromkeys(name for part, name, _, _ in figures.rows if part == "traces"):
        if operation.startswith("trace metrics") and (sizes := figures.sizes("traces", operation)):
            for where, figure in figures.to("traces", operation, SQLITE, sizes[-1]):
                yield (f"{operation.removeprefix('trace metrics: ')}, {where} traces", figure)


def _pages(figures: Figures) -> Found:
    for part, last in (("runs", "page 10 by a metric"), ("million", "page 100 by a metric")):
        for size in figures.sizes(part, last):
            one, many = (figures.p50(part, each, size) for each in ("page 1 by a metric", last))
            # 1,000 runs end at page 10.
            if size >= 10_000 and one and many is not None:
                yield (f"{last.removesuffix(' by a metric')} of {size:,} runs", many / one)


BARS = (
    Bar("create_run, to mlflow-mongodb", _to("create_run", PLUGIN), most=0.9),
    Bar("log_param, to bare PyMongo", _to("log_param", BARE), most=1.3),
    Bar("set_tag, to bare PyMongo", _to("set_tag", BARE), most=1.3),
    Bar("log_metric, to bare PyMongo", _to("log_metric", BARE), most=1.4),
    Bar("log_metric, to mlflow-mongodb", _to("log_metric", PLUGIN), most=0.5),
    Bar("log_metric, more than bare PyMongo", _facade, most=0.3, unit=" ms"),
    Bar(f"{FIRST_POINT}, to bare PyMongo", _to(FIRST_POINT, BARE), most=1.6),
    Bar(f"{BATCH}, to mlflow-mongodb", _to(BATCH, PLUGIN), most=0.4),
    Bar("get_run, to mlflow-mongodb", _to("get_run", PLUGIN), most=1),
    Bar("newest 100 runs, to mlflow-mongodb", _newest_to_plugin, most=0.5),
    Bar("newest 100", _milliseconds("search newest 100"), most=45, unit=" ms"),
    Bar("order by a metric, 100", _milliseconds("search ordered by a metric"), most=45, unit=" ms"),
    Bar("metric > 0.9 and param = '7'", _milliseconds("search metric and param"), most=35, unit=" ms"),
    Bar("tag = 'v3', all experiments", _milliseconds("search tag, all experiments"), most=60, unit=" ms"),
    Bar(
        "metric > 0.999 ordered by it",
        _milliseconds("search metric > 0.999 ordered by it"),
        most=15,
        unit=" ms",
    ),
    Bar("10 pages of 100 by a metric", _milliseconds("10 pages by a metric"), most=450, unit=" ms"),
    Bar("order by a metric, to order by time", _against_time("search ordered by a metric"), most=3),
    Bar(
        "metric and tag filter ordered by a metric, to newest 100",
        _against_time("search metric and tag ordered by a metric"),
        most=3,
    ),
    Bar("a late page by a metric, to the first", _pages, most=FLAT),
    Bar(
        "searches, filters and pages: growth",
        lambda figures: figures.growths("million", SEARCHES + DEEP, 10_000, 1_000_000),
        most=FLAT,
    ),
    Bar(
        "log_batch of 1,000 points: growth",
        lambda figures: figures.growth("history", "log_batch 1,000 points", 0, 1_000_000),
        most=FLAT,
    ),
    Bar(
        "log_batch of 1,000 new metrics: growth",
        lambda figures: figures.growth("keys", "log_batch 1,000 new keys", 0, 20_000),
        most=FLAT,
    ),
    Bar(f"{LAST_LINE}, more than without a store", _ends, most=50, unit=" ms"),
    Bar("16 threads: calls a second, to mlflow-mongodb", _threads, least=3),
    Bar("64 threads: calls lost", _lost, most=0, unit=""),
    Bar("history: points a second, to mlflow-mongodb", _history, least=10),
    Bar("trace of 10 spans, to SQLite", _trace_to(SQLITE), most=1 / 3),
    Bar("trace of 10 spans, to mlflow-mongodb", _trace_to(PLUGIN), most=1),
    Bar("metrics of all traces, to SQLite", _trace_metrics, most=1),
    Bar("step of 64 known metrics", _wide("step of 64 known metrics"), most=2, unit=" ms"),
    Bar("step of 1,000 known metrics", _wide("step of 1,000 known metrics"), most=6, unit=" ms"),
    Bar("curve of 320 points", _curves, most=30, unit=" ms"),
    Bar("disk of a history point", _bytes_of_points, most=6, unit=" bytes"),
)


@dataclass(frozen=True)
class Judged:
    """A bar and what was found, of which some may miss it."""

    bar: Bar
    found: list[tuple[str, float]]

    @property
    def missed(self) -> list[tuple[str, float]]:
        return [(where, figure) for where, figure in self.found if not self.bar.holds(figure)]

    @property
    def worst(self) -> float:
        figures = [figure for _, figure in self.found]
        return max(figures) if self.bar.most is not None else min(figures)

    @property
    def best(self) -> float:
        figures = [figure for _, figure in self.found]
        return min(figures) if self.bar.most is not None else max(figures)


def judged(figures: Figures) -> list[Judged]:
    return [Judged(bar, list(bar.found(figures))) for bar in BARS]


def summary(figures: Figures) -> str:
    """How many bars are met, and those that are not, a line each."""
    every = judged(figures)
    missed = [each for each in every if each.missed]
    absent = [each.bar.what for each in every if not each.found]
    met = len(every) - len(missed) - len(absent)
    lines = [
        f"{met} of {len(every)} bars are met wherever they were measured, {len(missed)} are missed "
        f"somewhere, {len(absent)} were not measured{': ' if absent else ''}{'; '.join(absent)}.",
        "",
        "| missed | allowed | figures | places that miss |",
        "|---|---|---|---|",
    ]
    for each in missed:
        unit = each.bar.unit
        figure = f"{each.worst:.3g}{unit}"
        if len(each.found) > 1:
            figure = f"{each.best:.3g} to {figure}"
        places = f"{len(each.missed)} of {len(each.found)}"
        lines.append(f"| {each.bar.what} | {each.bar.allowed} | {figure} | {places} |")
    return "\n".join(lines)


def table(figures: Figures) -> str:
    """Every figure of every bar, and whether it is met."""
    lines = ["| bar | allowed | where | figure | |", "|---|---|---|---|---|"]
    for each in judged(figures):
        bar = each.bar
        if not each.found:
            lines.append(f"| {bar.what} | {bar.allowed} | | | not measured |")
        for where, figure in each.found:
            verdict = "met" if bar.holds(figure) else "**missed**"
            lines.append(f"| {bar.what} | {bar.allowed} | {where} | {figure:.3g}{bar.unit} | {verdict} |")
    return "\n".join(lines)
