"""The report: one object that the tables, the page and programs are given.

docs/usage.md describes its fields, which stay; others may be added.
"""

import math
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.logged_models.documents import LoggedModelFields
from genesis_flow.areas.metrics.documents import MetricHeadFields
from genesis_flow.areas.models.documents import ModelVersionFields, RegisteredModelFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.traces.documents import TraceFields
from genesis_flow.cli.usage import counts
from genesis_flow.cli.usage.disk import NOT_PORTABLE, Size, sizes
from genesis_flow.cli.usage.points import Points, count_points
from genesis_flow.cli.usage.source import Source
from genesis_flow.cli.usage.tally import DAY, MEASURES, Amounts, Tally
from genesis_flow.documents.plain import Document

FORMAT = 1
GROWTH_DAYS = 30

Report = dict[str, Any]


def made(source: Source, since: int | None, *, exact: bool, now: int | None = None) -> Report:
    """Count everything; ``since`` and ``now`` are milliseconds since 1970."""
    begun = time.monotonic()
    now = round(time.time() * 1000) if now is None else now
    tally = Tally()
    source.told("runs")
    source.guarded("runs", RunFields, lambda: counts.count_runs(source, tally, since))
    source.told("traces")
    source.guarded("traces", TraceFields, lambda: counts.count_traces(source, tally, since))
    traces = source.guarded("largest traces", TraceFields, lambda: counts.largest_traces(source, since))
    source.told("models")
    source.guarded("models", LoggedModelFields, lambda: counts.count_logged_models(source, tally, since))
    source.guarded("registry", RegisteredModelFields, lambda: counts.count_registered(source, tally, since))
    source.guarded("versions", ModelVersionFields, lambda: counts.count_versions(source, tally, since))
    source.told("points")
    points = source.guarded(
        "points", MetricHeadFields, lambda: count_points(source, tally, since, exact=exact)
    )
    source.told("experiments")
    known = source.guarded("experiments", ExperimentFields, lambda: counts.experiments(source)) or {}
    source.told("sizes")
    window = GROWTH_DAYS if since is None else min(GROWTH_DAYS, max((now - since) / DAY, 1 / 24))
    on_disk = sizes(source, _recent(tally, now, window), window)
    names = _Names(known)
    return {
        "format": FORMAT,
        "database": source.settings.store_uri,
        "now": now,
        "since": since,
        "points": _how(points, tally),
        "totals": {"experiments": len(known), **_all(tally.total)},
        "by_workspace": [{"workspace": name, **_all(each)} for name, each in _in_order(tally.workspaces)],
        "by_experiment": _by_experiment(tally, names, everything=since is None),
        "by_user": [{"user": name, **_all(each)} for name, each in _in_order(tally.users)],
        "by_day": [{"day": day_name(day), **_all(tally.days[day])} for day in _known_first(tally.days)],
        "by_user_and_experiment": [
            {"user": user, **names.of(experiment), **_all(each)}
            for (user, experiment), each in _in_order(tally.pairs, "points")
        ],
        "largest": {
            "runs": [_run(run, count, names) for count, run in (points.largest if points else [])],
            "experiments": [
                {**names.of(experiment), "runs": each["runs"]}
                for experiment, each in _in_order(tally.experiments)[: counts.LARGEST]
                if each["runs"]
            ],
            "traces": [_trace(each, names) for each in traces or []],
        },
        "disk": {**_disk(on_disk), "left_out": NOT_PORTABLE if source.settings.portable else None},
        "gaps": [
            {"what": gap.what, "collections": list(gap.collections), "right": gap.action, "says": gap.says}
            for gap in source.gaps
        ],
        "seconds": round(time.monotonic() - begun, 3),
    }


class _Names:
    """What people call experiments."""

    def __init__(self, known: dict[int, Document]) -> None:
        self.known = known

    def of(self, experiment: int) -> Document:
        found = self.known.get(experiment, {})
        return {"experiment_id": str(experiment), "experiment": found.get("name")}


def _all(amounts: Amounts) -> dict[str, int]:
    return {name: amounts[name] for name in MEASURES}


def _in_order(sums: dict[Any, Amounts], first: str = "runs") -> list[tuple[Any, Amounts]]:
    """Those with most first."""
    order = (first, *(name for name in MEASURES if name != first))
    return sorted(sums.items(), key=lambda each: (*(-each[1][name] for name in order), str(each[0])))


def _known_first(days: Iterable[int | None]) -> list[int | None]:
    return sorted(days, key=lambda day: math.inf if day is None else day)


def day_name(day: int | None) -> str | None:
    """A date, or None for what has none that a calendar knows."""
    if day is None:
        return None
    try:
        return datetime.fromtimestamp(day * DAY / 1000, UTC).date().isoformat()
    except (OverflowError, OSError, ValueError):  # a program may have logged anything
        return None


def _recent(tally: Tally, now: int, days: float) -> Amounts:
    """What came in the last days, by the whole day where more was counted."""
    if days < GROWTH_DAYS:
        return tally.total
    recent: Amounts = Amounts()
    for day, amounts in tally.days.items():
        if day is not None and now // DAY - GROWTH_DAYS < day <= now // DAY:
            recent.update(amounts)
    return recent


def _how(points: Points | None, tally: Tally) -> Document:
    """Whether they were counted or estimated."""
    read = points.runs_read if points else 0
    return {"exact": points.exact if points else None, "runs_read": read, "of_runs": tally.total["runs"]}


def _by_experiment(tally: Tally, names: _Names, *, everything: bool) -> list[Document]:
    sums: dict[int, Amounts] = dict(tally.experiments)
    if everything:  # those in which there is nothing, too
        sums = {**{each: Amounts() for each in names.known}, **sums}
    return [
        {
            "workspace": names.known.get(experiment, {}).get("workspace"),
            **names.of(experiment),
            "lifecycle_stage": names.known.get(experiment, {}).get("lifecycle_stage"),
            **_all(each),
        }
        for experiment, each in _in_order(sums)
    ]


def _run(run: Document, points: int, names: _Names) -> Document:
    return {
        "run_id": run["_id"],
        "name": run.get("name"),
        "user": run.get("user_id") or "",
        **names.of(int(run["experiment_id"])),
        "points": points,
    }


def _trace(trace: Document, names: _Names) -> Document:
    return {
        "trace_id": trace["_id"],
        "name": trace.get("name"),
        **names.of(int(trace["experiment_id"])),
        "bytes": int(trace["bytes"]),
    }


def _disk(found: list[Size]) -> Document:
    measured = [size for size in found if size.on_disk is not None]
    return {
        "bytes": sum(size.on_disk or 0 for size in measured) if measured else None,
        "bytes_a_day": sum(size.bytes_a_day or 0 for size in measured) if measured else None,
        "collections": [
            {
                "collection": size.collection,
                "documents": size.documents,
                "data_bytes": size.data_bytes,
                "storage_bytes": size.storage_bytes,
                "index_bytes": size.index_bytes,
                "bytes_a_day": size.bytes_a_day,
            }
            for size in found
        ],
    }
