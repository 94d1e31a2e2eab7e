"""Take back an import: what it created, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pymongo import DeleteMany

from genesis_flow.database.scoping import current_workspace
from genesis_flow.documents import ExperimentFields, ImportItemFields, ImportProblemFields, ImportUnitFields
from genesis_flow.documents.imports import journal_key
from genesis_flow.documents.keys import SEPARATOR, children_of
from genesis_flow.importers.artifacts import remove_copies
from genesis_flow.importers.journal import ROLLED_BACK, ROLLING_BACK, Journal
from genesis_flow.importers.records import Problem
from genesis_flow.importers.roots import children
from genesis_flow.importers.target import ImportTarget, patiently
from genesis_flow.migrate.batches import Progress, Report
from genesis_flow.migrate.config import MigrateConfig, opened
from genesis_flow.migrate.runner import locked, require_rights

ROOTS_AT_ONCE = 200

# What contains others goes behind them, so that it can be seen whether others have put something into it.
_ORDER = (
    "webhooks",
    "model_versions",
    "registered_models",
    "evaluation_datasets",
    "traces",
    "logged_models",
    "runs",
    "datasets",
    "experiments",
)


@dataclass(slots=True)
class RolledBack:
    """What a rollback removed, by collection, and what it left since others use it."""

    journal: str
    source: str
    removed: dict[str, int] = field(default_factory=dict)
    kept: list[Problem] = field(default_factory=list)


def rollback(config: MigrateConfig, key: str) -> RolledBack:
    """Remove what the import created; safe to repeat after a crash."""
    with opened(config, creates=False) as connected:
        require_rights(connected)
        with locked(connected) as run:
            target = ImportTarget(
                connected.db, config.settings.prefix, current_workspace(), check=run.lease.check
            )
            return _Rollback(target, Journal.existing(target, key), config.report).run()


class _Rollback:
    def __init__(self, target: ImportTarget, journal: Journal, report: Report) -> None:
        self._target = target
        self._journal = journal
        self._report = report
        self._done = RolledBack(journal.id, journal.source)

    def run(self) -> RolledBack:
        self._journal.set_state(ROLLING_BACK)
        for collection in (*_ORDER, *self._other_collections()):
            self._remove_roots(collection)
        self._restore_merged()
        self._remove_copies()
        for declared in (ImportProblemFields, ImportUnitFields):
            self._delete(declared, {"_id": children_of(self._journal.id)})
        self._journal.forget()
        self._journal.set_state(ROLLED_BACK)
        return self._done

    def _remove_copies(self) -> None:
        files, kept = remove_copies(self._target, self._journal.id)
        if files:
            self._done.removed["artifact files"] = files
        self._done.kept += kept

    def _other_collections(self) -> list[str]:
        """Of kinds that were added since the order was written down."""
        names: list[str] = []
        after: dict[str, str] = children_of(self._journal.id)
        while found := self._item_in(after):
            name = found["_id"].split(SEPARATOR)[1]
            names.append(name)
            after = {**after, "$gte": children_of(journal_key(self._journal.id, name))["$lt"]}
        return [name for name in names if name not in _ORDER]

    def _item_in(self, ids: dict[str, str]) -> dict[str, Any] | None:
        items = self._target.collection(ImportItemFields)
        return patiently(lambda: items.find_one({"_id": ids}, sort=[("_id", 1)]))

    def _remove_roots(self, collection: str) -> None:
        items = self._target.collection(ImportItemFields)
        of_collection = {"_id": children_of(journal_key(self._journal.id, collection))}
        progress = Progress(collection, patiently(lambda: items.count_documents(of_collection)), self._report)
        in_use = _IN_USE.get(collection)
        last = ""
        while found := self._items_after(of_collection["_id"], last):
            last = found[-1]["_id"]
            if in_use is not None:
                found = [item for item in found if not self._keeps(collection, item["root"], in_use)]
            self._remove(collection, [item["root"] for item in found])
            self._delete(ImportItemFields, {"_id": {"$in": [item["_id"] for item in found]}})
            progress.add(len(found))

    def _items_after(self, of_collection: dict[str, str], last: str) -> list[dict[str, Any]]:
        rest = {"_id": {**of_collection, "$gt": last}}
        items = self._target.collection(ImportItemFields)
        return patiently(lambda: list(items.find(rest, sort=[("_id", 1)], limit=ROOTS_AT_ONCE)))

    def _keeps(self, collection: str, root: Any, in_use: Callable[[ImportTarget, Any], str | None]) -> bool:
        by = in_use(self._target, root)
        if by is not None:
            self._done.kept.append(
                Problem(collection.removesuffix("s"), str(root), f"left in place, since {by}")
            )
        return by is not None

    def _remove(self, collection: str, roots: list[Any]) -> None:
        parts: dict[str, list[Any]] = {}
        for root in roots:
            for name, query in children((collection, root)):
                parts.setdefault(name, []).append(DeleteMany(query))
        for name, operations in parts.items():
            deleted = self._bulk_delete(name, operations)
            self._count(name, deleted)
        self._count(collection, self._delete(collection, {"_id": {"$in": roots}}))

    def _bulk_delete(self, name: str, operations: list[Any]) -> int:
        self._target.check()
        collection = self._target.collection(name)
        return patiently(lambda: collection.bulk_write(operations, ordered=False).deleted_count)

    def _delete(self, collection: Any, query: dict[str, Any]) -> int:
        return self._target.delete(collection, query)

    def _count(self, collection: str, deleted: int) -> None:
        if deleted:
            self._done.removed[collection] = self._done.removed.get(collection, 0) + deleted

    def _restore_merged(self) -> None:
        """The default experiment as it was before the first import."""
        for number, before in self._journal.merged.items():
            self._replace(number, {key: value for key, value in before.items() if key != "pristine"})

    def _replace(self, number: int, document: dict[str, Any]) -> None:
        self._target.check()
        experiments = self._target.collection(ExperimentFields)
        patiently(lambda: experiments.replace_one({"_id": number}, document))


def _experiment_in_use(target: ImportTarget, number: int) -> str | None:
    for collection in ("runs", "traces", "logged_models"):
        if _any(target, collection, {"experiment_id": number}):
            return f"it holds {collection.replace('_', ' ')} that this import did not make"
    ends = {"destination_type": "experiment", "destination_id": str(number)}
    if _any(target, "entity_associations", ends):
        return "an evaluation dataset belongs to it that this import did not make"
    return None


def _model_in_use(target: ImportTarget, key: str) -> str | None:
    if _any(target, "model_versions", {"_id": children_of(key)}):
        return "it has versions that this import did not make"
    return None


def _dataset_in_use(target: ImportTarget, key: str) -> str | None:
    dataset = next(iter(target.find_by_ids("datasets", [key], {"name": 1})), None)
    if dataset and _any(target, "runs", {"inputs.name": dataset["name"], "inputs.id": key}):
        return "runs use it that this import did not make"
    return None


def _any(target: ImportTarget, collection: str, query: dict[str, Any]) -> bool:
    return patiently(lambda: target.collection(collection).find_one(query, {"_id": 1})) is not None


_IN_USE: dict[str, Callable[[ImportTarget, Any], str | None]] = {
    "experiments": _experiment_in_use,
    "registered_models": _model_in_use,
    "datasets": _dataset_in_use,
}
