"""What the target holds of the metrics of a run: heads with their tails, and blocks."""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from genesis_flow.areas.metrics.documents import SETTLED_POINTS
from genesis_flow.areas.metrics.packing import Columns, little_endian
from genesis_flow.areas.metrics.points import columns_of
from genesis_flow.documents.keys import is_open, settled_block_id
from genesis_flow.documents.plain import Document
from genesis_flow.importers.verify.documents import is_whole
from genesis_flow.importers.verify.entities import Fields, canonical
from genesis_flow.importers.verify.histories import POINT, Histories, packed
from genesis_flow.importers.verify.stored import Stored
from genesis_flow.importers.verify.target import AFTER_SEPARATOR, SEPARATOR, Target

# The order counts: MongoDB compares these fields in turn to keep the latest.
LATEST = ("step", "timestamp", "value")
_BOUNDS = ("n", "first_timestamp", "last_timestamp")
BLOCK = ("_id", *_BOUNDS, "format", "data")
_STEPS = ("first_step", "last_step")
# Of blocks of the first format.
_COLUMNS = ("timestamps", "steps", "values")


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
    settled = _Settled()
    for block in target.collection("metrics").find({"_id": ids}, sort=[("_id", 1)], batch_size=50):
        key = block["_id"].removeprefix(run_id + SEPARATOR).rpartition(SEPARATOR)[0]
        try:
            found.histories.add(key, _block(run_id, key, block))
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


def _block(run_id: str, key: str, block: Document) -> bytes:
    settled = not is_open(block["_id"])
    columns = _first_format(block) if "format" not in block else _newest_format(block, settled)
    times, steps, _ = columns
    if not len(times) == len(steps) == len(columns[2]) == block["n"] or not times:
        raise ValueError(f"it says {block['n']} points, its columns hold {len(times)}")
    if [block[name] for name in _BOUNDS[1:]] != [times[0], times[-1]]:
        raise ValueError("its bounds are not those of its points")
    rows = packed(*columns)
    if len(set(struct.iter_unpack("24s", rows))) != len(times):
        raise ValueError("points are in it twice")
    if settled:
        if len(times) != SETTLED_POINTS or [block[name] for name in _STEPS] != [steps[0], steps[-1]]:
            raise ValueError("it is settled, and has not the points that it says")
        return rows
    content = little_endian(times) + little_endian(steps) + little_endian(columns[2])
    digest = hashlib.blake2b(content, digest_size=8).hexdigest()
    if block["_id"] != (name := f"{run_id}{SEPARATOR}{key}{SEPARATOR}{times[0]:016x}-{digest}"):
        raise ValueError(f"its name should be {name}, after its content")
    return rows


def _newest_format(block: Document, settled: bool) -> Columns:
    fields = {*BLOCK, *_STEPS} if settled else {*BLOCK}
    if set(block) != fields:
        raise ValueError(f"its fields are {', '.join(sorted(block))}")
    numbers = [block[name] for name in fields - {"_id", "data"}]
    if not isinstance(block["data"], bytes) or not all(map(is_whole, numbers)) or block["n"] < 1:
        raise ValueError("its points are no bytes, or its bounds no whole numbers")
    return columns_of(block)


def _first_format(block: Document) -> Columns:
    if set(block) != {"_id", *_BOUNDS, *_COLUMNS}:
        raise ValueError(f"its fields are {', '.join(sorted(block))}")
    if not all(isinstance(block[name], bytes) for name in _COLUMNS) or not all(
        is_whole(block[name]) for name in _BOUNDS
    ):
        raise ValueError("its columns are no bytes, or its bounds no whole numbers")
    return columns_of(block)


class _Settled:
    """The settled blocks of a metric, which have to be numbered without a gap and in order."""

    def __init__(self) -> None:
        self._head = ""
        self._count = 0
        self._end: tuple[int, int] | None = None

    def check(self, block: Document) -> None:
        if is_open(block["_id"]):
            return
        head = block["_id"].rpartition(SEPARATOR)[0]
        if head != self._head:
            self._head, self._count, self._end = head, 0, None
        if block["_id"] != (name := settled_block_id(head, self._count)):
            raise ValueError(f"{name} is missing before it")
        begin = block["first_step"], block["first_timestamp"]
        if self._end is not None and self._end > begin:
            raise ValueError("its points come before those of the block before it")
        self._count += 1
        self._end = block["last_step"], block["last_timestamp"]


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
