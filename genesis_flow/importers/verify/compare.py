"""Source against target, entity by entity, in bounded memory."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from genesis_flow.importers.verify.entities import (
    KINDS,
    Difference,
    Entity,
    Fields,
    Troubles,
    canonical,
    canonical_object,
    checksum,
    contexts_of,
    differences,
)
from genesis_flow.importers.verify.histories import Comparison, Histories, Point, compare
from genesis_flow.importers.verify.surplus import SCOPES, surplus
from genesis_flow.importers.verify.target import Target
from genesis_flow.importers.verify.target_metrics import RunMetrics, head_fields, metrics_of

BATCH = 100
# Differences that are named; all are counted.
SHOWN = 50

Report = Callable[[str, int], None]


class SourceReader(Protocol):
    troubles: Troubles
    # What has no place in a target, and what belongs to nothing.
    left_out: Troubles
    # Whether all of the source is compared, or only what is younger than some time.
    complete: bool

    @property
    def kinds(self) -> Iterable[str]: ...

    def entities(self, kind: str) -> Iterator[Entity]: ...

    def points(self, run: Entity) -> Iterator[tuple[str, bytes]]:
        """The points of all metrics of a run: portions of rows of 24 bytes, by key."""
        ...

    def latest(self, run: Entity) -> Mapping[str, Point] | None:
        """What the source tells as the latest points of a run beside its histories, if it keeps such."""
        ...

    def close(self) -> None: ...


@dataclass
class Count:
    """How many of one kind there are, and how they compare."""

    source: int = 0
    target: int = 0
    different: int = 0


@dataclass
class Outcome:
    counts: dict[str, Count] = field(default_factory=dict)
    # The first differences, and how many there are.
    differences: list[Difference] = field(default_factory=list)
    different: int = 0
    # What could not be read in the source, what contradicts itself in the target.
    unreadable: Troubles = field(default_factory=Troubles)
    # What of the source the target has no place for, and what the target has beside the source's.
    left_out: Troubles = field(default_factory=Troubles)
    added: Troubles = field(default_factory=Troubles)
    damaged: Troubles = field(default_factory=Troubles)
    # Of all entities on both sides, whatever the order: equal if all is equal.
    source_checksum: str = ""
    target_checksum: str = ""

    @property
    def equal(self) -> bool:
        return not self.different and not self.damaged


class Comparer:
    """One comparison of all kinds that the source can have."""

    def __init__(self, source: SourceReader, target: Target, report: Report | None = None) -> None:
        self.source = source
        self.target = target
        self.outcome = Outcome()
        self._report = report or _silent
        self._sums = [0, 0]
        self._contexts: dict[tuple[Any, str], set[str]] = {}

    def run(self, kinds: Iterable[str] = KINDS) -> Outcome:
        for kind in kinds:
            if kind in self.source.kinds:
                for batch in _batches(self.source.entities(kind)):
                    if kind == "dataset":
                        batch = [self._with_contexts(entity) for entity in batch]
                    self._compare(kind, batch)
                    self._report(kind, self._count(kind).source)
        self._find_surplus(set(kinds))
        self.outcome.unreadable = self.source.troubles
        self.outcome.left_out = self.source.left_out
        self.outcome.damaged = self.target.troubles
        self.outcome.source_checksum, self.outcome.target_checksum = (f"{one:032x}" for one in self._sums)
        return self.outcome

    def _find_surplus(self, kinds: set[str]) -> None:
        for scope in SCOPES:
            # Of a kind that the source cannot have, there is to be nothing.
            asked = kinds >= {scope.parent, scope.kind} & set(self.source.kinds)
            if not asked or (scope.may_be_new and not self.source.complete):
                continue
            for found in surplus(self.target, scope):
                if scope.may_be_new:
                    self.outcome.added.add(scope.kind, found, "the source has no such thing")
                else:
                    self._count(scope.kind).target += 1
                    self._name([Difference(scope.kind, found, "", "is not there", "is there")])

    def _count(self, kind: str) -> Count:
        return self.outcome.counts.setdefault(kind, Count())

    def _compare(self, kind: str, batch: list[Entity]) -> None:
        batch = self.target.with_places(batch)
        found = self.target.find(kind, batch)
        for entity in batch:
            self._add(entity, found.get(entity.id))
        if kind == "run":
            self._compare_metrics(batch, found)

    def _add(self, source: Entity, target: Entity | None) -> None:
        """Count both, part by part; name what differs."""
        self._count_parts(source, target)
        count = self._count(source.kind)
        count.source += 1
        self._sum(0, source)
        if target is None:
            self._name([Difference(source.kind, source.id, "", "is there", "is missing")])
            return
        count.target += 1
        self._sum(1, target)
        if checksum(source.fields) != checksum(target.fields):
            count.different += 1
            self._name(list(differences(source, target)))

    def _count_parts(self, source: Entity, target: Entity | None) -> None:
        """Params and tags are entities of their own to whoever counts."""
        for part in ("params", "tags"):
            start = f"{part}."
            here = sum(name.startswith(start) for name in source.fields)
            there = sum(name.startswith(start) for name in target.fields) if target else 0
            if here or there:
                count = self._count(f"{source.kind} {part}")
                count.source += here
                count.target += there

    def _sum(self, side: int, entity: Entity) -> None:
        text = f"{entity.kind}\n{entity.id}\n{checksum(entity.fields)}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest(), "little")
        self._sums[side] = (self._sums[side] + number) % 2**128

    def _name(self, found: list[Difference]) -> None:
        self.outcome.different += len(found)
        self.outcome.differences += found[: max(0, SHOWN - len(self.outcome.differences))]

    # Datasets know the contexts of the runs that used them

    def _with_contexts(self, dataset: Entity) -> Entity:
        key = dataset.fields["experiment_id"], f"{dataset.fields['name']}.{dataset.fields['digest']}"
        contexts: Fields = dict.fromkeys(sorted(self._contexts.get(key, ())), 1)
        return dataset._replace(fields=dataset.fields | contexts)

    # Metrics

    def _compare_metrics(self, runs: list[Entity], found: dict[str, Entity]) -> None:
        for run in runs:
            for dataset, context in contexts_of(run):
                key = run.fields["experiment_id"], dataset
                self._contexts.setdefault(key, set()).add(f"contexts.{canonical_object(context)}")
            self._compare_run(run, found.get(run.id))

    def _compare_run(self, run: Entity, stored: Entity | None) -> None:
        here, there = Histories(), metrics_of(self.target, run.id)
        for key, rows in self.source.points(run):
            here.add(key, rows)
        results = compare(here, there.histories)
        here.close()
        there.histories.close()
        self._check_latest(run, results)
        for key, result in results.items():
            self._add_metric(run, key, result, there)
        for key in there.heads.keys() - results.keys():
            self._name([Difference("metric", f"{run.id} {key}", "", "is not there", "has no points")])
        if stored is not None:
            expected = sum(bool(result.source.points) for result in results.values())
            said = canonical(stored.handle.get("metric_keys"))
            if said != canonical(expected):
                self._name([Difference("run", run.id, "metric_keys", str(expected), said)])

    def _check_latest(self, run: Entity, results: dict[str, Comparison]) -> None:
        """Name where the source contradicts itself: its latest point is not the last of its history."""
        told = self.source.latest(run)
        if told is None:
            return
        for key, result in results.items():
            if (last := result.source.latest) is None:
                continue
            if (point := told.get(key)) is None:
                reason = "latest_metrics has no row of it, so that MLflow shows none; the target has the last"
                self.source.troubles.add("latest_metrics", f"{run.id} {key}", reason)
            elif not _is_last(point, last):
                reason = (
                    f"latest_metrics says {point[2]} (step {point[1]}, timestamp {point[0]}), which MLflow "
                    f"shows; its history ends in {last[2]} (step {last[0]}, timestamp {last[1]})"
                )
                self.source.troubles.add("latest_metrics", f"{run.id} {key}", reason)

    def _add_metric(self, run: Entity, key: str, result: Comparison, there: RunMetrics) -> None:
        points = self._count("metric point")
        points.source += result.source.points
        points.target += result.target.points
        name = f"{run.id} {key}"
        if not result.source.points:
            self._count("metric").target += 1
            self._name([Difference("metric", name, "", "is not there", f"{result.target.points} points")])
            return
        stored = None
        if (head := there.heads.get(key)) is not None:
            said = {"points": result.target.points, "checksum": result.target.checksum}
            stored = Entity("metric", name, said | head_fields(self.target, run.id, key, head))
        self._add(Entity("metric", name, _expected_head(run, result, self.target.workspace)), stored)
        self._name(list(_point_differences(name, result)))


def _is_last(point: Point, last: tuple[int, int, float]) -> bool:
    """Of NaN and a number at one step and time, MLflow takes another than the target: both are the last."""
    timestamp, step, value = point
    return (step, timestamp) == last[:2] and (value == last[2] or value != value or last[2] != last[2])


def _expected_head(run: Entity, result: Comparison, workspace: str) -> Fields:
    """What the head of this history must say."""
    return {
        "workspace": workspace,
        "points": result.source.points,
        "checksum": result.source.checksum,
        "experiment_id": run.fields["experiment_id"],
        "start_time": run.fields["start_time"] or 0,
        "active": run.fields["lifecycle_stage"] == "active",
        **_latest(result.source.latest),
    }


def _latest(point: tuple[int, int, float] | None) -> Fields:
    step, timestamp, value = point or (None, None, None)
    if value == 0:
        value = 0.0  # of 0.0 and -0.0 at one step either may be the latest
    return {"latest.step": step, "latest.timestamp": timestamp, "latest.value": value}


def _point_differences(name: str, result: Comparison) -> Iterable[Difference]:
    """Points that only one side has; of one time and step, they are one point with two values."""
    theirs = {point[:2]: point for point in result.only_target}
    for point in result.only_source:
        other = theirs.pop(point[:2], None)
        yield Difference("metric point", name, _place(point), canonical(point[2]), _value(other))
    for point in theirs.values():
        yield Difference("metric point", name, _place(point), "is not there", canonical(point[2]))


def _place(point: tuple[int, int, float]) -> str:
    return f"timestamp {point[0]} step {point[1]}"


def _value(point: tuple[int, int, float] | None) -> str:
    return "is missing" if point is None else canonical(point[2])


def _batches(entities: Iterator[Entity]) -> Iterator[list[Entity]]:
    while batch := list(islice(entities, BATCH)):
        yield batch


def _silent(kind: str, done: int) -> None:
    """Nobody wants to know."""
