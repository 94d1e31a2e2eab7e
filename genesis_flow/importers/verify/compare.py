"""Source against target, entity by entity, in bounded memory."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from genesis_flow.importers.verify.documents import Document
from genesis_flow.importers.verify.entities import (
    KINDS,
    Difference,
    Entity,
    Fields,
    Troubles,
    canonical,
    checksum,
    contexts_of,
    differences,
)
from genesis_flow.importers.verify.histories import Comparison, Histories, compare
from genesis_flow.importers.verify.target import Target

BATCH = 100
# Differences that are named; all are counted.
SHOWN = 50

Report = Callable[[str, int], None]


class SourceReader(Protocol):
    troubles: Troubles

    @property
    def kinds(self) -> Iterable[str]: ...

    def entities(self, kind: str) -> Iterator[Entity]: ...

    def points(self, run: Entity) -> Iterator[tuple[str, bytes]]:
        """The points of all metrics of a run: portions of rows of 24 bytes, by key."""
        ...

    def close(self) -> None: ...


@dataclass
class Count:
    """How many of one kind there are, and how they compare."""

    source: int = 0
    target: int = 0
    different: int = 0

    @property
    def missing(self) -> int:
        return self.source - self.target


@dataclass
class Outcome:
    counts: dict[str, Count] = field(default_factory=dict)
    # The first differences, and how many there are.
    differences: list[Difference] = field(default_factory=list)
    different: int = 0
    # What could not be read in the source, what contradicts itself in the target.
    unreadable: Troubles = field(default_factory=Troubles)
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
        self.outcome.unreadable = self.source.troubles
        self.outcome.damaged = self.target.troubles
        self.outcome.source_checksum, self.outcome.target_checksum = (f"{one:032x}" for one in self._sums)
        return self.outcome

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
        contexts: Fields = dict.fromkeys(sorted(self._contexts.get(key, ())), True)
        return dataset._replace(fields=dataset.fields | contexts)

    # Metrics

    def _compare_metrics(self, runs: list[Entity], found: dict[str, Entity]) -> None:
        for run in runs:
            for dataset, context in contexts_of(run):
                key = run.fields["experiment_id"], dataset
                self._contexts.setdefault(key, set()).add(f"contexts.{context}")
            self._compare_run(run, found.get(run.id))

    def _compare_run(self, run: Entity, stored: Entity | None) -> None:
        here, there = Histories(), self.target.metrics(run.id)
        for key, rows in self.source.points(run):
            here.add(key, rows)
        results = compare(here, there.histories)
        here.close()
        there.histories.close()
        for key, result in results.items():
            self._add_metric(run, key, result, there.heads.get(key))
        self.target.check_packing(there)
        if stored is not None:
            expected = sum(bool(result.source.points) for result in results.values())
            said = stored.handle.get("metric_keys", 0)
            if said != expected:
                self._name([Difference("run", run.id, "metric_keys", str(expected), str(said))])

    def _add_metric(self, run: Entity, key: str, result: Comparison, head: Document | None) -> None:
        points = self._count("metric point")
        points.source += result.source.points
        points.target += result.target.points
        name = f"{run.id} {key}"
        if not result.source.points:
            self._count("metric").target += 1
            self._name([Difference("metric", name, "", "is not there", f"{result.target.points} points")])
            return
        stored = Entity("metric", name, self._stored_head(head, result)) if head else None
        self._add(Entity("metric", name, _expected_head(run, result, self.target.workspace)), stored)
        self._name(list(_point_differences(name, result)))

    def _stored_head(self, head: Document, result: Comparison) -> Fields:
        latest = head["latest"]
        return {
            "points": result.target.points,
            "checksum": result.target.checksum,
            "experiment_id": self.target.names.source_of(head["experiment_id"]),
            "start_time": head.get("start_time") or None,
            "active": head["active"],
            "workspace": head.get("workspace"),
            **_latest((latest["step"], latest["timestamp"], latest["value"])),
        }


def _expected_head(run: Entity, result: Comparison, workspace: str) -> Fields:
    """What the head of this history must say."""
    return {
        "workspace": workspace,
        "points": result.source.points,
        "checksum": result.source.checksum,
        "experiment_id": run.fields["experiment_id"],
        "start_time": run.fields["start_time"],
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
