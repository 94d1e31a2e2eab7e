"""Points of metrics, which stand in no index and in no sum: heads and blocks are read, run by run.

A database with more of them than are read in seconds is estimated from runs drawn at random, unless all shall
be counted. Its largest runs are looked for among the runs of blocks drawn at random: of a run with many
points many blocks are drawn.
"""

import heapq
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from bson.regex import Regex

from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.cli.usage.counts import LARGEST, window_of_runs
from genesis_flow.cli.usage.source import BATCH, Source, portions, text_of
from genesis_flow.cli.usage.tally import DAY, Place, Tally
from genesis_flow.documents.keys import SEPARATOR, children_of
from genesis_flow.documents.plain import Document

# From so many heads and blocks on, points are estimated; and for how many heads runs are drawn then.
MOST_COUNTED = 1_000_000
DRAWN_METRICS = 300_000
FEWEST_DRAWN = 1_000
DRAWN_BLOCKS = 5_000
CANDIDATES = 50

_AT_ONCE = 3
_PORTION, _PORTABLE_PORTION = 500, 50
_FIELDS = {"workspace": 1, "experiment_id": 1, "user_id": 1, "start_time": 1, "name": 1}
_TAIL: Document = {"$size": {"$ifNull": ["$tail", []]}}
_WAITING: Document = {"$sum": {"$ifNull": ["$rows.n", []]}}
_RUN_OF_BLOCK: Document = {"$arrayElemAt": [{"$split": ["$_id", SEPARATOR]}, 0]}

Counted = Iterable[tuple[Document, int]]
"""Runs, each with the number of its points."""


@dataclass
class Points:
    """How points were counted, and the runs that have most."""

    exact: bool = True
    runs_read: int = 0
    largest: list[tuple[int, Document]] = field(default_factory=list)


def count_points(source: Source, tally: Tally, since: int | None, *, exact: bool) -> Points:
    """Add the points to the tally, which has the runs and the metrics by now."""
    window, runs = window_of_runs(since), source.collection(RunFields)
    # Blocks of the window are in no sum; all of them are more.
    most = tally.total["metrics"] + source.collection(MetricBlockFields).estimated_document_count()
    if exact or source.settings.portable or most <= MOST_COUNTED:
        found = runs.find(window, _FIELDS, batch_size=BATCH)
        return _add(tally, _counted(source, found, tally.total["runs"]), scale=1.0)
    drawn = _drawn(source, window, tally)
    scale = tally.total["runs"] / max(1, len(drawn))
    points = _add(tally, _counted(source, _runs_of(source, drawn), len(drawn)), scale)
    points.exact = False
    known = {run["_id"] for _, run in points.largest}
    candidates = [each for each in _candidates(source) if each not in known]
    among = [
        run
        for run in _runs_of(source, candidates)
        if since is None or (run.get("start_time") is not None and run["start_time"] >= since)
    ]
    others = [(count, run) for run, count in _counted(source, among, len(among))]
    points.largest = _largest([*points.largest, *others])
    return points


def _add(tally: Tally, counted: Counted, scale: float) -> Points:
    points = Points()
    sums: dict[Place, int] = Counter()
    for run, count in counted:
        points.runs_read += 1
        if not count:
            continue
        start = run.get("start_time")
        day = None if start is None else int(start) // DAY
        sums[Place(run["workspace"], int(run["experiment_id"]), text_of(run.get("user_id")), day)] += count
        if len(points.largest) < LARGEST or count > points.largest[-1][0]:
            points.largest = _largest([*points.largest, (count, run)])
        if len(sums) >= BATCH:
            _settle(tally, sums, scale)
    _settle(tally, sums, scale)
    return points


def _settle(tally: Tally, sums: dict[Place, int], scale: float) -> None:
    for place, count in sums.items():
        tally.add(place, {"points": count if scale == 1.0 else round(count * scale)})
    sums.clear()


def _largest(runs: list[tuple[int, Document]]) -> list[tuple[int, Document]]:
    return heapq.nsmallest(LARGEST, runs, key=lambda each: (-each[0], each[1]["_id"]))


def _counted(source: Source, runs: Iterable[Document], total: int) -> Iterator[tuple[Document, int]]:
    """Runs with the number of their points: some portions are counted while others are awaited."""
    size = _PORTABLE_PORTION if source.settings.portable else _PORTION
    waiting: deque[tuple[list[Document], Future[dict[str, int]]]] = deque()
    done = 0
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as workers:
        try:
            for portion in portions(runs, size):
                ids = [run["_id"] for run in portion]
                waiting.append((portion, workers.submit(_points_of, source, ids)))
                while len(waiting) > _AT_ONCE:
                    first, future = waiting.popleft()
                    counts = future.result()
                    yield from ((run, counts.get(run["_id"], 0)) for run in first)
                    done += len(first)
                    source.told(f"points: {done:,} of {total:,} runs")
            for first, future in waiting:
                counts = future.result()
                yield from ((run, counts.get(run["_id"], 0)) for run in first)
        finally:
            for _, future in waiting:
                future.cancel()


def _points_of(source: Source, run_ids: list[str]) -> dict[str, int]:
    """Points by run: those in tails of heads and in waiting steps, and those of blocks if any were packed."""
    counts: Counter[str] = Counter()
    packed: set[str] = set()
    portable = source.settings.portable
    heads = {"run_uuid": {"$in": run_ids}} if portable else _beginning_with(run_ids)
    group = {
        "_id": "$run_uuid",
        "points": {"$sum": {"$add": [_TAIL, _WAITING]}},
        "packed": {"$sum": "$packed"},
    }
    for row in source.rows(MetricHeadFields, [{"$match": heads}, {"$group": group}]):
        counts[row["_id"]] += row["points"]
        if row["packed"]:
            packed.add(row["_id"])
    for portion in portions(sorted(packed), len(run_ids)):
        blocks = (
            {"$or": [{"_id": children_of(each)} for each in portion]}
            if portable
            else _beginning_with(portion)
        )
        group = {"_id": _RUN_OF_BLOCK, "points": {"$sum": "$n"}}
        for row in source.rows(MetricBlockFields, [{"$match": blocks}, {"$group": group}]):
            counts[row["_id"]] += row["points"]
    return counts


def _beginning_with(run_ids: list[str]) -> Document:
    """A prefix of ``_id`` is a range of its index, however many runs; see areas/runs/search.py."""
    return {"_id": {"$in": [Regex("^" + re.escape(each + SEPARATOR)) for each in run_ids]}}


def _drawn(source: Source, window: Document, tally: Tally) -> list[str]:
    """Ids of runs, drawn at random."""
    runs, metrics = tally.total["runs"], tally.total["metrics"]
    size = min(runs, max(FEWEST_DRAWN, round(DRAWN_METRICS * runs / max(1, metrics))))
    sample: list[Document] = [{"$sample": {"size": size}}, {"$project": {"_id": 1}}]
    if window:  # from the index alone
        sample = [{"$match": window}, {"$project": {"_id": 1}}, {"$sample": {"size": size}}]
    return list(dict.fromkeys(row["_id"] for row in source.rows(RunFields, sample)))


def _runs_of(source: Source, run_ids: list[str]) -> Iterator[Document]:
    for portion in portions(run_ids, _PORTION):
        yield from source.collection(RunFields).find({"_id": {"$in": portion}}, _FIELDS, batch_size=BATCH)


def _candidates(source: Source) -> list[str]:
    """The runs to which most of the points in blocks belong that are drawn at random."""
    pipeline: list[Document] = [
        {"$sample": {"size": DRAWN_BLOCKS}},
        {"$group": {"_id": _RUN_OF_BLOCK, "points": {"$sum": "$n"}}},
        {"$sort": {"points": -1}},
        {"$limit": CANDIDATES},
    ]
    return [row["_id"] for row in source.rows(MetricBlockFields, pipeline)]
