"""What the target holds of the metrics of a run: heads with their tails, steps that wait, and blocks."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from genesis_flow.documents.plain import Document
from genesis_flow.importers.verify.blocks import SettledBlocks, rows_of
from genesis_flow.importers.verify.documents import is_whole
from genesis_flow.importers.verify.entities import Fields, canonical
from genesis_flow.importers.verify.histories import POINT, Histories
from genesis_flow.importers.verify.stored import Stored
from genesis_flow.importers.verify.target import AFTER_SEPARATOR, SEPARATOR, Target

# The key of a place, in which wide steps wait to become part of the heads.
PLACE = "\t"
# The order counts: MongoDB compares these fields in turn to keep the latest.
LATEST = ("step", "timestamp", "value")


@dataclass(slots=True)
class RunMetrics:
    heads: dict[str, Document] = field(default_factory=dict)
    histories: Histories = field(default_factory=Histories)
    # The metrics that have blocks.
    packed: set[str] = field(default_factory=set)


def metrics_of(target: Target, run_id: str) -> RunMetrics:
    """All heads and blocks of a run; what contradicts itself is named."""
    ids = {"$gte": run_id + SEPARATOR, "$lt": run_id + AFTER_SEPARATOR}
    found = RunMetrics()
    waiting: dict[str, tuple[int, int, float]] = {}
    # By id, so that places come before heads and a point on its way is not missed.
    for head in target.collection("latest_metrics").find({"_id": ids}, batch_size=1000).sort("_id", 1):
        key = head["_id"].removeprefix(run_id + SEPARATOR)
        if key.startswith(PLACE):
            _add_place(target, found, waiting, head)
            continue
        found.heads[key] = _with_waiting(head, waiting.get(key))
        try:
            rows = _tail(head.get("tail"))
        except (ValueError, struct.error) as exc:
            target.trouble("metric", head["_id"], f"a damaged tail: {exc}")
            rows = b""
        found.histories.add(key, rows)
    settled = SettledBlocks()
    for block in target.collection("metrics").find({"_id": ids}, sort=[("_id", 1)], batch_size=50):
        key = block["_id"].removeprefix(run_id + SEPARATOR).rpartition(SEPARATOR)[0]
        try:
            found.histories.add(key, rows_of(run_id, key, block))
            settled.check(block)
        except ValueError as exc:
            target.trouble("metric", block["_id"], f"a damaged block: {exc}")
        found.packed.add(key)
    for key, head in found.heads.items():
        # How often points went to blocks; a reader only asks whether they did.
        said = head.get("packed")
        if not is_whole(said) or said < 0 or bool(said) != (key in found.packed):
            target.trouble("metric", head["_id"], f"it says {canonical(said)} blocks, wrongly")
    return found


def _add_place(
    target: Target, found: RunMetrics, waiting: dict[str, tuple[int, int, float]], place: Document
) -> None:
    """Add the points that wait in a place, and note the latest of each metric: step, time, value."""
    for row in place["rows"]:
        try:
            points = list(_waiting(place["keys"], row))
        except (IndexError, KeyError, ValueError, struct.error) as exc:
            target.trouble("metric", place["_id"], f"a damaged row: {exc}")
            continue
        for key, time, step, value in points:
            found.histories.add(key, POINT.pack(time, step, value))
            point = (step, time, value)
            waiting[key] = max(waiting.get(key, point), point, key=_rank)


def _waiting(keys: list[str], row: Document) -> Iterator[tuple[str, int, int, float]]:
    count = row["n"]
    indexes = struct.unpack(f"<{count}I", row["keys"]) if "keys" in row else range(count)
    times, steps = (
        struct.unpack(f"<{count}q", row[name]) if isinstance(row[name], bytes) else [row[name]] * count
        for name in ("timestamps", "steps")
    )
    values = struct.unpack(f"<{count}d", row["values"])
    for index, time, step, value in zip(indexes, times, steps, values, strict=True):
        yield keys[index], time, step, value


def _with_waiting(head: Document, point: tuple[int, int, float] | None) -> Document:
    own = head.get("latest")
    if point is None or not isinstance(own, dict) or tuple(own) != LATEST:
        return head
    if _rank(point) <= _rank((own["step"], own["timestamp"], own["value"])):
        return head
    return {**head, "latest": dict(zip(LATEST, point, strict=True))}


def _rank(point: tuple[int, int, float]) -> tuple[int, int, bool, float]:
    step, time, value = point
    return step, time, value == value, value


def _tail(tail: Any) -> bytes:
    if not isinstance(tail, list):
        raise ValueError(f"it is {canonical(tail)}")
    rows: set[bytes] = set()
    for point in tail:
        if not isinstance(point, list) or list(map(_kind, point)) != ["whole", "whole", "number"]:
            raise ValueError(f"{canonical(point)} is no point")
        row = POINT.pack(*point)
        if row in rows:
            raise ValueError(f"{canonical(point)} is in it twice")
        rows.add(row)
    return b"".join(sorted(rows))


def _kind(value: Any) -> str:
    return "whole" if is_whole(value) else "number" if isinstance(value, float) else "nothing"


def head_fields(target: Target, run_id: str, key: str, head: Document) -> Fields:
    """What a head says of its run and of the latest point, beside its points."""
    stored = Stored(head)
    stored.settle(_id=f"{run_id}{SEPARATOR}{key}", run_uuid=run_id, key=key)
    for name in ("tail", "packed"):
        stored.take(name)
    fields: Fields = {
        "experiment_id": target.names.source_of(stored.take("experiment_id")),
        **stored.fields("workspace", "start_time", "active"),
        **dict(_latest(stored.take("latest"))),
    }
    return fields | stored.rest()


def _latest(latest: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(latest, dict) or tuple(latest) != LATEST:
        yield "latest", latest
        return
    for name, value in latest.items():
        # Of 0.0 and -0.0 at one step either may be the latest.
        yield f"latest.{name}", 0.0 if isinstance(value, float) and value == 0 else value
