"""One batch of converted documents: what to do with each, and the order in which they are written."""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne, ReplaceOne, UpdateOne

from genesis_flow.areas.metrics.documents import MetricBlockFields
from genesis_flow.documents.imports import ImportProblemFields, ImportUnitFields, journal_key
from genesis_flow.documents.keys import children_of
from genesis_flow.documents.plain import Document
from genesis_flow.importers.changes import (
    NAMED_AFTER_CONTENT,
    SHARED,
    begin_again,
    hashed,
    note,
    note_states,
    told,
)
from genesis_flow.importers.errors import ImportConflict, Stopped
from genesis_flow.importers.records import Problem
from genesis_flow.importers.roots import Ownership, Verdict
from genesis_flow.importers.stats import Stats
from genesis_flow.importers.target import ImportTarget, Operation, patiently
from genesis_flow.importers.tidy import drop_superseded_blocks
from genesis_flow.importers.writers import Root, Write

_BLOCKS = MetricBlockFields.Settings.name


@dataclass(slots=True)
class UnitState:
    """A unit of which parts may be written already."""

    key: str
    fingerprint: str | None
    problems: list[Problem] = field(default_factory=list)
    verdicts: dict[Root, Verdict] = field(default_factory=dict)
    refused: set[Root] = field(default_factory=set)
    # Sums of the hashes of what was converted so far, by root; and what is in them of what may come twice.
    sums: dict[Root, int] = field(default_factory=dict)
    summed: set[tuple[str, Any]] = field(default_factory=set)
    # The ids of the blocks of runs that were imported before, to find those that have been superseded.
    blocks: dict[str, set[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Batch:
    writes: list[tuple[UnitState, Write, bytes]] = field(default_factory=list)
    complete: list[UnitState] = field(default_factory=list)
    size: int = 0
    # The states of the roots of units, as they will be when this is written.
    states: dict[tuple[str, Root], int] = field(default_factory=dict)

    def add(self, unit: UnitState, write: Write, encoded: bytes) -> None:
        self.writes.append((unit, write, encoded))
        self.size += len(encoded)
        if write.collection not in SHARED:
            self._sum(unit, write, encoded)

    def _sum(self, unit: UnitState, write: Write, encoded: bytes) -> None:
        key = write.document["_id"]
        if write.collection in NAMED_AFTER_CONTENT:
            if (write.collection, key) in unit.summed:
                return
            unit.summed.add((write.collection, key))
        total = unit.sums.get(write.owner, 0) + hashed(write.collection, key, encoded)
        unit.sums[write.owner] = self.states[unit.key, write.owner] = total

    def __bool__(self) -> bool:
        return bool(self.writes or self.complete)


class BatchWriter:
    """Writes batches for one journal; with ``dry`` it only looks at what is there."""

    def __init__(
        self,
        target: ImportTarget,
        journal: str,
        ownership: Ownership,
        *,
        on_conflict: str,
        stop_on_error: bool = False,
        dry: bool = False,
        merged: frozenset[Root] = frozenset(),
        on_problem: Callable[[Problem], None] | None = None,
    ) -> None:
        self._target = target
        self._journal = journal
        self._ownership = ownership
        self._on_conflict = on_conflict
        self._stop_on_error = stop_on_error
        self._dry = dry
        # Documents of others that take in those of the source.
        self._merged = merged
        self._on_problem = on_problem

    def unchanged(self, fingerprints: dict[str, str | None]) -> set[str]:
        """The units that were imported as they are now, without a problem."""
        keys = {self._unit_key(unit): unit for unit, mark in fingerprints.items() if mark is not None}
        fields = {"fingerprint": 1, "problems": 1}
        return {
            keys[found["_id"]]
            for found in self._target.find_by_ids(ImportUnitFields, keys, fields)
            if found["fingerprint"] == fingerprints[keys[found["_id"]]] and not found["problems"]
        }

    def write(self, batch: Batch) -> Stats:
        stats = Stats(bytes=batch.size)
        started = time.perf_counter()
        self._judge(batch)
        kept = self._without_refused(batch, stats)
        if not self._dry:
            self._write_documents(kept, stats)
            self._journal_units(batch.complete)
        if self._on_problem is not None:
            for problem in (problem for unit in batch.complete for problem in unit.problems):
                self._on_problem(problem)
        stats.problems = sum(len(unit.problems) for unit in batch.complete)
        stats.writing = time.perf_counter() - started
        return stats

    def _judge(self, batch: Batch) -> None:
        """Find out what each root in the batch is, unless an earlier batch of its unit did."""
        owners: dict[Root, str] = {}
        for unit, write, _ in batch.writes:
            if write.owner not in unit.verdicts and not write.only_joins:
                owners.setdefault(write.owner, unit.key)
        states = {
            owner: told(total) for (unit, owner), total in batch.states.items() if owners.get(owner) == unit
        }
        verdicts = self._ownership.verdicts(owners, states)
        if not self._dry:
            begin_again(
                self._target,
                self._journal,
                [owner for owner, verdict in verdicts.items() if verdict is Verdict.OURS],
            )
            note(self._target, self._journal, self._grown(batch))
        for unit, write, _ in batch.writes:
            owner = write.owner
            if owner in unit.verdicts or owner not in verdicts:
                continue
            another = owners[owner] != unit.key and write.add_to_sets is None
            unit.verdicts[owner] = Verdict.CLASH if another else verdicts[owner]
            if unit.verdicts[owner] is Verdict.CLASH:
                self._refuse(unit, owner, "another part of the source has the same id")
            elif unit.verdicts[owner] is Verdict.FOREIGN and not self._may_join(write):
                self._meet_foreign(unit, owner, batch)

    def _grown(self, batch: Batch) -> dict[Root, str]:
        """The states of new roots that an earlier batch has begun."""
        return {
            write.owner: told(batch.states[unit.key, write.owner])
            for unit, write, _ in batch.writes
            if unit.verdicts.get(write.owner) is Verdict.NEW and (unit.key, write.owner) in batch.states
        }

    def _meet_foreign(self, unit: UnitState, owner: Root, batch: Batch) -> None:
        """The target has a root that this import did not make: fine if it is the same."""
        root = next((w for _, w, _ in batch.writes if w.root is None and w.owner == owner), None)
        if root is not None and self._has_all(root, batch):
            return
        reason = "the target has another one with this id, which this import did not make"
        if self._on_conflict == "fail" and not self._dry:
            raise ImportConflict(
                f"{owner[0]} {owner[1]}: {reason}. Import into another database or prefix, or choose "
                "--on-conflict skip to leave such things out."
            )
        self._refuse(unit, owner, reason)

    def _has_all(self, root: Write, batch: Batch) -> bool:
        """Whether the target has the same already, with all that belongs to it."""
        found = next(iter(self._target.find_by_ids(root.collection, [root.document["_id"]])), None)
        if found is None or not equal(found, root.document):
            return False
        wanted: dict[str, dict[Any, Document]] = {}
        for _, write, _ in batch.writes:
            if write.root == root.owner:
                wanted.setdefault(write.collection, {})[write.document["_id"]] = write.document
        for collection, documents in wanted.items():
            there = {each["_id"]: each for each in self._target.find_by_ids(collection, documents)}
            if there.keys() != documents.keys():
                return False
            # A block is named after its content; those of earlier versions have fields that nobody reads.
            if collection == _BLOCKS:
                continue
            if any(not equal(there[key], new) for key, new in documents.items()):
                return False
        return True

    def _refuse(self, unit: UnitState, owner: Root, reason: str) -> None:
        unit.refused.add(owner)
        kind = owner[0].removesuffix("s")
        unit.problems.append(Problem(kind, str(owner[1]), reason))
        if self._stop_on_error:
            raise Stopped(f"{kind} {owner[1]}: {reason} (stopped, as --on-error stop asks).")

    def _without_refused(self, batch: Batch, stats: Stats) -> list[tuple[UnitState, Write, bytes]]:
        kept = []
        for unit, write, encoded in batch.writes:
            if write.owner in unit.refused:
                if write.root is None:
                    stats.skipped[write.collection.removesuffix("s")] += 1
            elif unit.verdicts.get(write.owner) is not Verdict.FOREIGN or self._may_join(write):
                kept.append((unit, write, encoded))
        return kept

    def _may_join(self, write: Write) -> bool:
        return write.add_to_sets is not None or write.owner in self._merged

    def _write_documents(self, kept: list[tuple[UnitState, Write, bytes]], stats: Stats) -> None:
        children = [each for each in kept if each[1].root is not None]
        shared = [each for each in kept if each[1].root is None and each[1].add_to_sets is not None]
        roots = [each for each in kept if each[1].root is None and each[1].add_to_sets is None]
        for group in (shared, children, roots):
            by_collection: dict[str, list[Operation]] = {}
            existing = self._existing(group)
            for unit, write, encoded in group:
                operation = self._operation(unit, write, encoded, existing)
                if operation is not None:
                    by_collection.setdefault(write.collection, []).append(operation)
            for collection, operations in by_collection.items():
                stats.written[collection] += self._target.write(collection, operations)

    def _operation(
        self, unit: UnitState, write: Write, encoded: bytes, existing: dict[tuple[str, Any], Document]
    ) -> Operation | None:
        key = write.document["_id"]
        if write.add_to_sets is not None:
            return _joining(write)
        if write.collection == _BLOCKS and unit.verdicts[write.owner] is Verdict.OURS:
            unit.blocks.setdefault(write.owner[1], set()).add(key)
        if unit.verdicts[write.owner] is Verdict.NEW:
            return InsertOne(RawBSONDocument(encoded))
        if (found := existing.get((write.collection, key))) is not None:
            if write.merge is None:
                return _updating(write, found)
            joined = write.merge(found, write.document)
            return None if joined == found else ReplaceOne({"_id": key}, joined)
        return ReplaceOne({"_id": key}, RawBSONDocument(encoded), upsert=True)

    def _existing(self, group: Iterable[tuple[UnitState, Write, bytes]]) -> dict[tuple[str, Any], Document]:
        """The documents that new ones are joined with, or that hold more than comes from the source."""
        wanted: dict[str, list[Any]] = {}
        for unit, write, _ in group:
            meets = write.merge is not None or bool(write.declared.Settings.derived)
            if meets and unit.verdicts[write.owner] is not Verdict.NEW:
                wanted.setdefault(write.collection, []).append(write.document["_id"])
        return {
            (collection, found["_id"]): found
            for collection, keys in wanted.items()
            for found in self._target.find_by_ids(collection, keys)
        }

    def _journal_units(self, units: list[UnitState]) -> None:
        if not units:
            return
        for unit in units:
            for (collection, key), verdict in unit.verdicts.items():
                if collection == "runs" and verdict is Verdict.OURS:
                    drop_superseded_blocks(self._target, key, unit.blocks.get(key, set()))
        again = [root for unit in units for root, verdict in unit.verdicts.items() if verdict is Verdict.OURS]
        note_states(self._target, self._journal, again)
        problems = [
            ReplaceOne({"_id": document["_id"]}, document, upsert=True)
            for unit in units
            for problem in unit.problems
            for document in [self._problem(unit, problem)]
        ]
        self._forget_problems(units)
        self._target.write(ImportProblemFields, list(problems))
        entries = [
            ReplaceOne(
                {"_id": self._unit_key(unit.key)},
                {"fingerprint": unit.fingerprint, "problems": len(unit.problems)},
                upsert=True,
            )
            for unit in units
        ]
        self._target.write(ImportUnitFields, list(entries))

    def _forget_problems(self, units: list[UnitState]) -> None:
        """Those that the units had when they were read before."""
        keys = [self._unit_key(unit.key) for unit in units]
        known = self._target.find_by_ids(ImportUnitFields, keys, {"problems": 1})
        for had in (unit["_id"] for unit in known if unit["problems"]):
            self._target.check()
            problems = self._target.collection(ImportProblemFields)
            patiently(lambda had=had, problems=problems: problems.delete_many({"_id": children_of(had)}))  # type: ignore[misc]

    def _unit_key(self, unit: str) -> str:
        return journal_key(self._journal, unit)

    def _problem(self, unit: UnitState, problem: Problem) -> Document:
        text = f"{problem.kind}\n{problem.where}\n{problem.reason}"
        digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        return {
            "_id": journal_key(self._unit_key(unit.key), digest),
            "kind": problem.kind,
            "where": _storable(problem.where),
            "reason": _storable(problem.reason),
            "size": problem.size,
        }


def _updating(write: Write, found: Document) -> UpdateOne:
    """What stores keep in a document for their readers stays, also what they change just now."""
    new = {name: value for name, value in write.document.items() if name != "_id"}
    gone = found.keys() - write.document.keys() - set(write.declared.Settings.derived)
    change: Document = {"$set": new}
    if gone:
        change["$unset"] = dict.fromkeys(sorted(gone), "")
    return UpdateOne({"_id": write.document["_id"]}, change)


def _joining(write: Write) -> UpdateOne:
    """Complete a shared document, or make it if all of it is known."""
    additions = {name: {"$each": values} for name, values in (write.add_to_sets or {}).items()}
    rest = {name: value for name, value in write.document.items() if name != "_id"}
    change: Document = {"$addToSet": additions}
    if rest:
        change["$setOnInsert"] = rest
    return UpdateOne({"_id": write.document["_id"]}, change, upsert=bool(rest))


def equal(found: Document, new: Document) -> bool:
    """Whether two documents say the same; a field without a value is none."""
    return {key: value for key, value in found.items() if value is not None} == {
        key: value for key, value in new.items() if value is not None
    }


def _storable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
