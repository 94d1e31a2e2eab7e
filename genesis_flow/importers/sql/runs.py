"""Runs with params, tags, inputs and outputs, and their metric histories in columns."""

import hashlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from genesis_flow.areas.metrics.points import Point, latest_of, step_order
from genesis_flow.core.numbers import INT64
from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.records import SERIES_POINTS, Item, Problem, Record, Series
from genesis_flow.importers.sql.entities import DATASET, borrowed_dataset
from genesis_flow.importers.sql.reading import Reading, checked, grouped
from genesis_flow.importers.sql.snapshot import Row
from genesis_flow.importers.sql.values import (
    HUGE,
    Unreadable,
    checked_truth,
    needed_text,
    needed_whole,
    real,
)

_RUN = KIND["run"]
_INPUTS = {
    "input_uuid": "T",
    "source_type": "T",
    "source_id": "T",
    "destination_type": "T",
    "destination_id": "T",
    "step": "i",
}
_INPUT_TAGS = {"input_uuid": "T", "name": "T", "value": "t"}
_POINT = ("run_uuid", "key", "timestamp", "step", "value", "is_nan")
# Up to here one statement reads the points of all runs of a unit; the database has to sort them.
_POINTS_AT_ONCE = 50_000
_NAN = float("nan")

Rows = dict[str, list[dict[str, Any]]]
# The run and the key.
Metric = tuple[str, str]
Latest = dict[Metric, Point | None]
_NO_ROW = (
    "it has no such row, so that MLflow does not show the metric; the target shows the latest point of its "
    "history"
)


class _Inputs(NamedTuple):
    """What runs read and made: rows of the table ``inputs``, and what they lead to."""

    datasets: Rows  # by run
    models: Rows
    outputs: Rows
    known: dict[str, dict[str, Any]]  # rows of datasets
    tags: Rows  # by input


def read_runs(reading: Reading, ids: list[str]) -> Iterator[Item]:
    problems: list[Problem] = []
    runs = list(reading.things(_RUN, ids, problems))
    inputs = _inputs(reading, ids, problems)
    yield from _borrowed(reading, runs, inputs)
    for body in runs:
        run_id = body["run_id"]
        body |= {
            "lifecycle_stage": body["lifecycle_stage"] or "active",
            "inputs": _used(run_id, inputs, problems),
            "model_inputs": [each["destination_id"] for each in inputs.models.get(run_id, ())],
            "model_outputs": [
                [each["destination_id"], each["step"] or 0] for each in inputs.outputs.get(run_id, ())
            ],
        }
        yield Record("run", run_id, body, reading.workspace_of(body["experiment_id"]))
    yield from problems
    yield from _histories(reading, [run["run_id"] for run in runs])


def fingerprint(reading: Reading, ids: list[str]) -> str:
    """Of everything but the values of points: a point is never changed, only added."""
    digest = hashlib.blake2b(digest_size=16)
    of = reading.snapshot.of
    for table, names, owner in (
        ("runs", tuple(_RUN.layout), "run_uuid"),
        ("params", ("run_uuid", "key", "value"), "run_uuid"),
        ("tags", ("run_uuid", "key", "value"), "run_uuid"),
        ("latest_metrics", _POINT, "run_uuid"),
        ("inputs", tuple(_INPUTS), "destination_id"),
        ("inputs", tuple(_INPUTS), "source_id"),
    ):
        order = tuple(name for name in names[:2] if reading.snapshot.has(table, name))
        for row in of(table, names, owner, ids, order=order):
            digest.update(repr(tuple(row)).encode("utf-8", "surrogatepass"))
    digest.update(repr(sorted(reading.snapshot.count_by("metrics", "run_uuid", ids).items())).encode())
    return digest.hexdigest()


def _inputs(reading: Reading, ids: list[str], problems: list[Problem]) -> _Inputs:
    of = reading.snapshot.of
    names = tuple(_INPUTS)
    column = reading.snapshot.column
    if not reading.snapshot.has("inputs"):
        return _Inputs({}, {}, {}, {}, {})
    order = ("input_uuid",)
    used = of(
        "inputs", names, "destination_id", ids, column("inputs", "destination_type") == "RUN", order=order
    )
    datasets = list(checked(used, _INPUTS, "inputs", "run", problems))
    made = of(
        "inputs",
        names,
        "source_id",
        ids,
        column("inputs", "source_type").in_(("RUN_INPUT", "RUN_OUTPUT")),
        order=order,
    )
    models = list(checked(made, _INPUTS, "inputs", "run", problems))
    uuids = sorted({each["source_id"] for each in datasets})
    known = of("datasets", tuple(DATASET.layout), "dataset_uuid", uuids)
    tags = of("input_tags", tuple(_INPUT_TAGS), "input_uuid", [each["input_uuid"] for each in datasets])
    return _Inputs(
        grouped(datasets, "destination_id"),
        grouped((each for each in models if each["source_type"] == "RUN_INPUT"), "source_id"),
        grouped((each for each in models if each["source_type"] == "RUN_OUTPUT"), "source_id"),
        {
            each["dataset_uuid"]: each
            for each in checked(known, DATASET.layout, "datasets", "dataset", problems)
        },
        grouped(checked(tags, _INPUT_TAGS, "input_tags", "run", problems), "input_uuid"),
    )


def _borrowed(reading: Reading, runs: list[dict[str, Any]], inputs: _Inputs) -> Iterator[Item]:
    """Datasets of other experiments: earlier versions took any with the same name and digest."""
    given: set[tuple[int, str]] = set()
    for run in runs:
        number = int(run["experiment_id"])
        for each in inputs.datasets.get(run["run_id"], ()):
            dataset = inputs.known.get(each["source_id"])
            if dataset and dataset["experiment_id"] != number and (number, each["source_id"]) not in given:
                given.add((number, each["source_id"]))
                yield borrowed_dataset(reading, dataset, number)


def _used(run_id: str, inputs: _Inputs, problems: list[Problem]) -> list[dict[str, Any]]:
    used = []
    for each in inputs.datasets.get(run_id, ()):
        where = f"table inputs, input_uuid={each['input_uuid']}"
        if each["source_type"] != "DATASET":
            reason = f"a run cannot use a {each['source_type']}"
            problems.append(Problem("run", where, reason, 1))
        elif each["source_id"] not in inputs.known:
            reason = f"run {run_id} used dataset {each['source_id']}, which is not in the table datasets"
            problems.append(Problem("run", where, reason, 1))
        else:
            dataset = inputs.known[each["source_id"]]
            tags = [[tag["name"], tag["value"]] for tag in inputs.tags.get(each["input_uuid"], ())]
            used.append({"name": dataset["name"], "digest": dataset["digest"], "tags": sorted(tags)})
    # The table has no order.
    return sorted(used, key=lambda each: (each["name"], each["digest"], each["tags"]))


def _histories(reading: Reading, ids: list[str]) -> Iterator[Item]:
    """All points of the runs, with the latest one of histories that were cleared away or cut short."""
    counts = reading.snapshot.count_by("metrics", "run_uuid", ids)
    latest, problems = _latest_points(reading, ids)
    yield from problems
    for some in _together(ids, counts):
        columns = _Columns(latest)
        run_uuid = reading.snapshot.column("metrics", "run_uuid") if reading.snapshot.has("metrics") else None
        if run_uuid is not None and any(counts.get(run_id) for run_id in some):
            order = tuple(name for name in _POINT if reading.snapshot.has("metrics", name))
            for bunch in reading.snapshot.stream("metrics", _POINT, run_uuid.in_(some), order=order):
                yield from columns.add(bunch)
        yield from columns.finish()
        wanted = set(some)
        for metric, point in (latest or {}).items():
            if point is not None and metric[0] in wanted and metric not in columns.seen:
                yield Series(*metric, *_columns_of(point))


def _latest_points(reading: Reading, ids: list[str]) -> tuple[Latest | None, list[Problem]]:
    """What the database tells as the latest point of each metric; None for one that cannot be read."""
    if not reading.snapshot.has("latest_metrics"):
        return None, []
    latest: Latest = {}
    problems = []
    for row in reading.snapshot.of("latest_metrics", _POINT, "run_uuid", ids, order=("run_uuid", "key")):
        run_id, key, *values = row
        try:
            latest[run_id, key] = _point(key, *values)
        except Unreadable as error:
            latest[run_id, key] = None
            problems.append(Problem("metric", _latest_row(run_id, key), str(error), 1))
    return latest, problems


def _latest_row(run_id: str, key: Any) -> str:
    return f"table latest_metrics, run_uuid={run_id}, key={key!r}"


def _together(ids: list[str], counts: dict[str, int]) -> Iterator[list[str]]:
    """Runs whose points one statement reads."""
    held: list[str] = []
    points = 0
    for run_id in ids:
        if held and points + counts.get(run_id, 0) > _POINTS_AT_ONCE:
            yield held
            held, points = [], 0
        held.append(run_id)
        points += counts.get(run_id, 0)
    if held:
        yield held


class _Columns:
    """Rows of points, sorted by run and key, as series of a fixed length."""

    def __init__(self, latest: Latest | None) -> None:
        self.seen: set[Metric] = set()
        self._latest = latest
        self._metric: Metric | None = None
        self._held = _empty()
        self._clear()

    def _clear(self) -> None:
        self._metric = None
        self._held = _empty()
        # The latest point of the rows so far, and whether the one that the database tells is among them.
        self._top: Point | None = None
        self._has_latest = False

    def add(self, rows: Sequence[Row]) -> Iterator[Item]:
        runs, keys, timestamps, steps, values, nans = zip(*rows, strict=True)
        start = 0
        while start < len(rows):
            end = _end_of_metric(runs, keys, start)
            metric = (runs[start], keys[start])
            if metric != self._metric:
                yield from self.finish()
                self._metric = metric
                self.seen.add(metric)
            part = slice(start, end)
            yield from self._extend(timestamps[part], steps[part], values[part], nans[part])
            start = end

    def finish(self) -> Iterator[Item]:
        if self._metric is not None:
            yield from self._with_latest(self._metric)
            if self._held[0]:
                yield Series(*self._metric, *self._held)
        self._clear()

    def _with_latest(self, metric: Metric) -> Iterator[Problem]:
        """Rows of a history may have been deleted; MLflow keeps the latest point twice."""
        if self._latest is None:
            return
        if metric not in self._latest and self._top is not None:
            yield Problem("metric", _latest_row(*metric), _NO_ROW, 1)
        told = self._latest.get(metric)
        if told is None:
            return
        if not self._has_latest:
            for held, value in zip(self._held, told, strict=True):
                held.append(value)
        if self._top is not None and _is_later(self._top, told):
            reason = (
                f"it says that {told[2]} at step {told[1]} is the latest, but the history goes on to "
                f"{self._top[2]} at step {self._top[1]}, which is the latest in the target"
            )
            yield Problem("metric", _latest_row(*metric), reason, 1)

    def _look_for_latest(self, timestamps: "array[int]", steps: "array[int]", values: "array[float]") -> None:
        top = latest_of(timestamps, steps, values)
        self._top = top if self._top is None else max(self._top, top, key=step_order)
        told = self._latest.get(self._metric) if self._latest and self._metric else None
        if told is None or self._has_latest:
            return
        # Rows come in the order of their times.
        for at in range(bisect_left(timestamps, told[0]), bisect_right(timestamps, told[0])):
            if steps[at] == told[1] and _same_value(values[at], told[2]):
                self._has_latest = True
                return

    def _extend(self, *columns: tuple[Any, ...]) -> Iterator[Item]:
        assert self._metric is not None
        run_id, key = self._metric
        try:
            if type(key) is not str:
                raise TypeError
            more = _arrays(*columns)
        except (TypeError, OverflowError, Unreadable):
            more, problems = _one_by_one(run_id, key, columns)
            yield from problems
        if more[0]:
            self._look_for_latest(*more)
        for held, new in zip(self._held, more, strict=True):
            held.extend(new)
        while len(self._held[0]) >= SERIES_POINTS:
            yield Series(run_id, key, *(held[:SERIES_POINTS] for held in self._held))
            self._held = tuple(held[SERIES_POINTS:] for held in self._held)


Arrays = tuple["array[Any]", "array[Any]", "array[Any]"]


def _empty() -> Any:
    return array("q"), array("q"), array("d")


def _end_of_metric(runs: Sequence[Any], keys: Sequence[Any], start: int) -> int:
    """Where the points of another metric begin; they are sorted, so that a search by halves finds it."""
    run_id, key = runs[start], keys[start]
    low, high = start, len(keys) - 1
    if keys[high] == key and runs[high] == run_id:
        return high + 1
    while high - low > 1:
        middle = (low + high) // 2
        if keys[middle] == key and runs[middle] == run_id:
            low = middle
        else:
            high = middle
    return high


def _arrays(
    timestamps: tuple[Any, ...], steps: tuple[Any, ...], values: tuple[Any, ...], nans: tuple[Any, ...]
) -> Arrays:
    numbers = array("d", values)
    # False, too, for a NaN in front, which compares with nothing.
    if not -HUGE < min(numbers) <= max(numbers) < HUGE:
        numbers = array("d", (real(number, "value") for number in numbers))
    if any(nans):
        for at, is_nan in enumerate(nans):
            if checked_truth(is_nan, "is_nan"):
                numbers[at] = _NAN
    return array("q", timestamps), array("q", steps), numbers


def _one_by_one(run_id: Any, key: Any, columns: tuple[tuple[Any, ...], ...]) -> tuple[Arrays, list[Problem]]:
    arrays, problems = _empty(), []
    for timestamp, step, value, is_nan in zip(*columns, strict=True):
        try:
            point = _point(key, timestamp, step, value, is_nan)
        except Unreadable as error:
            where = f"table metrics, run_uuid={run_id}, key={key!r}, timestamp={timestamp}, step={step}"
            problems.append(Problem("metric", where, str(error), 1))
            continue
        for column, each in zip(arrays, point, strict=True):
            column.append(each)
    return arrays, problems


def _point(key: Any, timestamp: Any, step: Any, value: Any, is_nan: Any) -> Point:
    needed_text(key, "key")
    number = _NAN if checked_truth(is_nan, "is_nan") else real(value, "value")
    if number is None:
        raise Unreadable("value is missing")
    point = needed_whole(timestamp, "timestamp"), needed_whole(step, "step"), number
    if point[0] not in INT64 or point[1] not in INT64:
        raise Unreadable("timestamp or step does not fit 64 bits")
    return point


def _columns_of(point: Point) -> Arrays:
    timestamp, step, value = point
    return array("q", (timestamp,)), array("q", (step,)), array("d", (value,))


def _same_value(one: float, other: float) -> bool:
    return one == other or (one != one and other != other)


def _is_later(point: Point, told: Point) -> bool:
    """Whether a point is behind the latest one that MLflow tells. It takes NaN for 0, which we do not."""
    if point[:2] == told[:2] and (point[2] != point[2] or told[2] != told[2]):
        return False
    return step_order(point) > step_order(told)
