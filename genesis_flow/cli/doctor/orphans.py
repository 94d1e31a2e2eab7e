"""Documents whose parent is not there, or does not name them: races and crashes leave them behind.

No call reads them, and none would ever remove them. A part of each collection is looked at, chosen by chance
if it is large; ``--deep`` looks at all. Some children are written before their parent, so what is removed
has had none for longer than a call may take, and while an import is unfinished nothing is removed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from time import sleep
from typing import Any
from uuid import uuid4

from pymongo.collection import Collection

from genesis_flow.areas.evaluation.documents import DatasetRecordFields, EvaluationDatasetFields
from genesis_flow.areas.issues.counts import begun, ended
from genesis_flow.areas.issues.documents import IssueFields
from genesis_flow.areas.logged_models.documents import LoggedModelFields, ModelMetricFields
from genesis_flow.areas.mcp.documents import MCPContentFields, MCPServerFields
from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.reviews.documents import ReviewQueueFields, ReviewQueueItemFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.traces.documents import AssessmentFields, SpanFields, SpanPayloadFields, TraceFields
from genesis_flow.cli.doctor.finding import Finding, ok, warn
from genesis_flow.cli.doctor.patient import Patient
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.imports import ImportJournalFields
from genesis_flow.documents.keys import SEPARATOR
from genesis_flow.documents.plain import Document, portions
from genesis_flow.importers.journal import DONE, INCOMPLETE, ROLLED_BACK
from genesis_flow.stores.areas import DECLARED

Raw = Collection[Document]
CHECK = "orphans"
# So many of each kind are looked at, unless all are.
_SOME = 5_000
# So many of each kind are removed at once.
_MOST = 100_000
_NAMED = 3


@dataclass(frozen=True)
class _Family:
    """Documents that belong to others. Without a field for the parent their ids begin with its id."""

    kind: str
    children: type[Declared]
    parents: type[Declared]
    parent_field: str | None = None
    named_in: tuple[str, str] | None = None
    """A list of the parent, and the field of its entries that names the children it has."""

    def parent_of(self, child: Document) -> str | int:
        """The id of the parent; those of experiments are numbers."""
        parent: str | int = (
            child[self.parent_field] if self.parent_field else child["_id"].partition(SEPARATOR)[0]
        )
        return parent

    def without(self, parent: Document, children: list[str]) -> list[str]:
        """Those that this parent does not have."""
        if self.named_in is None:
            return []
        entries, field_name = self.named_in
        named = {entry[field_name] for entry in parent.get(entries, ())}
        return [child for child in children if child not in named]


_CHILDREN = (
    _Family("metrics of runs that are gone", MetricHeadFields, RunFields),
    _Family("blocks of metrics of runs that are gone", MetricBlockFields, RunFields),
    _Family("points of logged models from runs that are gone", ModelMetricFields, RunFields),
    _Family("points of logged models that are gone", ModelMetricFields, LoggedModelFields, "model_id"),
    _Family("spans of traces that are gone", SpanFields, TraceFields),
    _Family("contents of spans of traces that are gone", SpanPayloadFields, TraceFields),
    _Family("assessments of traces that are gone", AssessmentFields, TraceFields, "trace_id"),
    _Family("records of evaluation datasets that are gone", DatasetRecordFields, EvaluationDatasetFields),
    _Family("items of review queues that are gone", ReviewQueueItemFields, ReviewQueueFields, "queue_id"),
    _Family(
        "contents that no version of an MCP server has",
        MCPContentFields,
        MCPServerFields,
        "server",
        named_in=("versions", "content"),
    ),
)

# Items of queues go with their traces, and MLflow has items without one.
_MAY_LACK = {(ReviewQueueItemFields, "traces")}


def _families() -> Iterator[_Family]:
    """Those above, and whatever is declared to go with something else."""
    yield from _CHILDREN
    collections = {declared.Settings.name: declared for declared in DECLARED}
    for name, children in collections.items():
        for field_name, parents in children.Settings.goes_with.items():
            if (children, parents) not in _MAY_LACK:
                kind = f"{name} of {parents} that are gone".replace("_", " ")
                yield _Family(kind, children, collections[parents], field_name)


@dataclass
class Orphans:
    """What was found of one kind: the ids of children by the id of the parent that they lack."""

    family: _Family
    by_parent: dict[str | int, list[str]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(map(len, self.by_parent.values()))

    def describe(self) -> str:
        named = [str(parent) for parent in islice(self.by_parent, _NAMED)]
        more = f" and {len(self.by_parent) - _NAMED} more" if len(self.by_parent) > _NAMED else ""
        return f"{self.count} {self.family.kind} ({', '.join(named)}{more})"


def look(patient: Patient, *, everything: bool) -> Finding:
    by_family = [_orphans(patient, family, everything) for family in _families()]
    patient.orphans = [each for each in by_family if each.count]
    extent = "" if everything else f" (of each kind at most {_SOME} documents were looked at; --deep: all)"
    if not patient.orphans:
        return ok(CHECK, f"Nothing has lost what it belongs to{extent}.")
    return warn(
        CHECK,
        f"Remains of what is deleted: {_described(patient.orphans)}{extent}.",
        "`genesis-flow doctor --repair` removes what nobody is writing just now.",
        **_counted(patient.orphans),
    )


def repair(patient: Patient) -> Finding:
    """Remove what was found and is still without its parent when whoever was writing it must be done."""
    journals = _collection(patient, ImportJournalFields)
    unfinished = journals.find_one({"state": {"$nin": [DONE, INCOMPLETE, ROLLED_BACK]}})
    if unfinished is not None:
        return warn(
            CHECK,
            f"Not removed, because the import {unfinished['_id']} is not finished: "
            f"{_described(patient.orphans)}.",
            "Finish the import or roll it back (`genesis-migrate import`), then repair again.",
            **_counted(patient.orphans),
        )
    sleep(patient.for_stores.timeout)
    # Among the assessments may be references to issues, which keep how many there are.
    issues, mark = _collection(patient, IssueFields), uuid4().hex
    issues.update_many({}, begun(mark))
    removed = {each.family.kind: _remove(patient, each) for each in patient.orphans}
    issues.update_many({}, ended(mark))
    return ok(
        CHECK,
        "Removed: " + "; ".join(f"{count} {kind}" for kind, count in removed.items()) + ".",
        removed=removed,
    )


def _orphans(patient: Patient, family: _Family, everything: bool) -> Orphans:
    children = _collection(patient, family.children)
    fields = {"_id": 1, **({family.parent_field: 1} if family.parent_field else {})}
    looked_at = (
        children.find({}, fields).sort("_id", 1)
        if everything or children.estimated_document_count() <= _SOME
        else children.aggregate([{"$sample": {"size": _SOME}}, {"$project": fields}])
    )
    orphans = Orphans(family)
    for portion in portions(looked_at):
        by_parent: dict[str | int, list[str]] = {}
        for child in portion:
            by_parent.setdefault(family.parent_of(child), []).append(child["_id"])
        for parent, lost in _lost(patient, family, by_parent).items():
            orphans.by_parent.setdefault(parent, []).extend(lost)
        if orphans.count >= _MOST:
            break
    return orphans


def _lost(
    patient: Patient, family: _Family, by_parent: dict[str | int, list[str]]
) -> dict[str | int, list[str]]:
    """Those of the children whose parent is not there, or does not name them."""
    fields = {"_id": 1, **({".".join(family.named_in): 1} if family.named_in else {})}
    lost = dict(by_parent)
    for parent in _collection(patient, family.parents).find({"_id": {"$in": list(by_parent)}}, fields):
        if rest := family.without(parent, lost.pop(parent["_id"])):
            lost[parent["_id"]] = rest
    return lost


def _remove(patient: Patient, orphans: Orphans) -> int:
    children, removed = _collection(patient, orphans.family.children), 0
    for parents in portions(orphans.by_parent):
        lost = _lost(patient, orphans.family, {parent: orphans.by_parent[parent] for parent in parents})
        for ids in portions(child for rest in lost.values() for child in rest):
            removed += children.delete_many({"_id": {"$in": ids}}).deleted_count
    return removed


def _collection(patient: Patient, declared: Any) -> Raw:
    return patient.db[f"{patient.settings.prefix}{declared.Settings.name}"]


def _described(orphans: list[Orphans]) -> str:
    return "; ".join(each.describe() for each in orphans)


def _counted(orphans: list[Orphans]) -> dict[str, int]:
    return {each.family.kind: each.count for each in orphans}
