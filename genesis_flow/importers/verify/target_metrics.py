"""What the target holds of the metrics of a run: heads with their tails, and blocks."""

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
    for head in target.collection("latest_metrics").find({"_id": ids}, batch_size=1000):
        key = head["_id"].removeprefix(run_id + SEPARATOR)
        found.heads[key] = head
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
