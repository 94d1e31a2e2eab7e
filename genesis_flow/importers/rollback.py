"""Take back an import: what it created, and nothing else.

What people have changed since stays and is named, and so does what contains it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pymongo import DeleteMany

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.models.documents import version_id
from genesis_flow.documents.imports import (
    ImportItemFields,
    ImportProblemFields,
    ImportUnitFields,
    journal_key,
)
from genesis_flow.documents.keys import SEPARATOR, children_of
from genesis_flow.importers.artifacts import ancestors, is_place, remove_copies
from genesis_flow.importers.changes import MERGED_NOTES, SHARED, states
from genesis_flow.importers.in_use import IN_USE, users_of
from genesis_flow.importers.journal import ROLLED_BACK, ROLLING_BACK, Journal
from genesis_flow.importers.kinds import CHILDREN, ROOT_COLLECTIONS
from genesis_flow.importers.records import Problem
from genesis_flow.importers.target import ImportTarget, patiently
from genesis_flow.importers.workspaces import remove_workspace, target_workspace
from genesis_flow.importers.writers import Root
from genesis_flow.importers.writers.registry import model_key
from genesis_flow.migrate.batches import Progress, Report
from genesis_flow.migrate.config import MigrateConfig, opened
from genesis_flow.migrate.runner import locked, require_rights

ROOTS_AT_ONCE = 200

# What contains others goes behind them, so that it can be seen whether others have put something into it.
_ORDER = ROOT_COLLECTIONS[::-1]


@dataclass(slots=True)
class RolledBack:
    """What a rollback removed, by collection, and what it left since others use it."""

    journal: str
    source: str
    removed: dict[str, int] = field(default_factory=dict)
    kept: list[Problem] = field(default_factory=list)
    # Whether anything is left because people changed it.
    changed: bool = False


def rollback(config: MigrateConfig, key: str, *, force: bool = False) -> RolledBack:
    """Remove what the import created, with ``force`` also what was changed since; safe to repeat."""
    with opened(config, creates=False) as connected:
        require_rights(connected)
        with locked(connected) as run:
            target = ImportTarget(
                connected.db, config.settings.prefix, target_workspace(), check=run.lease.check
            )
            return _Rollback(target, Journal.existing(target, key), config.report, force).run()


class _Rollback:
    def __init__(self, target: ImportTarget, journal: Journal, report: Report, force: bool) -> None:
        self._target = target
        self._journal = journal
        self._report = report
        self._force = force
        self._done = RolledBack(journal.id, journal.source)
        self._kept: set[Root] = set()
        # Registered models that stay with all their versions.
        self._whole_models: set[str] = set()

    def run(self) -> RolledBack:
        self._journal.set_state(ROLLING_BACK)
        self._find_whole_models()
        for collection in (*_ORDER, *self._other_collections()):
            self._remove_roots(collection)
        self._restore_merged()
        self._remove_copies()
        self._remove_workspace()
        for declared in (ImportProblemFields, ImportUnitFields):
            self._delete(declared, {"_id": children_of(self._journal.id)})
        self._journal.set_state(ROLLED_BACK)
        return self._done

    def _remove_copies(self) -> None:
        files, kept = remove_copies(self._target, self._journal.id, self._needs)
        if files:
            self._done.removed["artifact files"] = files
        self._done.kept += kept

    def _remove_workspace(self) -> None:
        made = self._journal.made_workspace
        if made is None:
            return
        removed, stays = remove_workspace(self._target, made, force=self._force)
        self._count("workspaces", removed)
        if stays is not None:
            self._done.kept.append(stays)
        else:
            self._journal.forget_workspace()

    @cached_property
    def _places(self) -> set[str]:
        """Where versions of models lead that are there now, and what is above."""
        fields = {"source": 1, "storage_location": 1}
        versions = self._target.collection("model_versions")
        ours = {"workspace": self._target.workspace}
        found = patiently(lambda: list(versions.find(ours, fields)))
        places = (each.get(name) for each in found for name in fields)
        return {above for place in places if is_place(place) for above in ancestors(place)}

    def _needs(self, kind: str, of: str, place: str) -> bool:
        """Whether something that stays leads to files."""
        root: Any = of
        if kind == "model_version":
            name, _, number = of.rpartition("/")
            root = version_id(model_key(self._target.workspace, name), int(number))
        return (f"{kind}s", root) in self._kept or place in self._places

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
        for found in self._pages(collection):
            reasons = self._reasons(collection, found)
            for root, reason in reasons.items():
                self._kept.add((collection, root))
                self._done.changed = self._done.changed or reason in (_CHANGED, _UNKNOWN)
                kind = collection.removesuffix("s")
                self._done.kept.append(Problem(kind, str(root), f"left in place, since {reason}"))
            gone = [item for item in found if item["root"] not in reasons]
            self._remove(collection, [item["root"] for item in gone])
            self._delete(ImportItemFields, {"_id": {"$in": [item["_id"] for item in gone]}})
            progress.add(len(found))

    def _pages(self, collection: str) -> Iterator[list[dict[str, Any]]]:
        """The items of a collection."""
        of_collection = children_of(journal_key(self._journal.id, collection))
        items = self._target.collection(ImportItemFields)
        last = ""
        while found := patiently(
            lambda rest={"_id": {**of_collection, "$gt": last}}: list(  # type: ignore[misc]
                items.find(rest, sort=[("_id", 1)], limit=ROOTS_AT_ONCE)
            )
        ):
            yield found
            last = found[-1]["_id"]

    def _reasons(self, collection: str, items: list[dict[str, Any]]) -> dict[Any, str]:
        """Why roots stay."""
        reasons = {} if self._force else self._changes(collection, items)
        in_use = IN_USE.get(collection)
        used = users_of(self._target, collection, [item["root"] for item in items])
        for root in (item["root"] for item in items):
            if root in reasons:
                continue
            if root in used:
                reasons[root] = used[root]
                continue
            if collection == "model_versions" and root.partition(SEPARATOR)[0] in self._whole_models:
                reasons[root] = "its model or another version of it was changed after it was imported"
            elif in_use is not None and (by := in_use(self._target, self._journal.id, root)) is not None:
                reasons[root] = by
        return reasons

    def _changes(self, collection: str, items: list[dict[str, Any]]) -> dict[Any, str]:
        """Which of the roots people have changed; of those that are gone nothing is left to keep."""
        if collection in SHARED:
            return {}
        current = states(self._target, collection, [item["root"] for item in items])
        reasons: dict[Any, str] = {}
        for item in items:
            state = current.get(item["root"])
            if state is None:
                continue
            if "state" not in item:
                reasons[item["root"]] = _UNKNOWN
            elif item.get("changed") or item["state"] != state:
                reasons[item["root"]] = _CHANGED
        return reasons

    def _find_whole_models(self) -> None:
        """A model stays with all its versions, since its aliases and stages name them."""
        if self._force:
            return
        for collection in ("registered_models", "model_versions"):
            for found in self._pages(collection):
                for root in self._changes(collection, found):
                    self._whole_models.add(root.partition(SEPARATOR)[0])

    def _remove(self, collection: str, roots: list[Any]) -> None:
        for child in CHILDREN.get(collection, ()) if roots else ():
            operations = [DeleteMany(child.query([root])) for root in roots]
            self._count(child.collection, self._bulk_delete(child.collection, operations))
        if collection == "experiments":
            # Whoever looked at the questions of an experiment has made its first one.
            seeded = {"experiment_id": {"$in": roots}, "is_default": True}
            self._count("label_schemas", self._delete("label_schemas", seeded))
        self._count(collection, self._delete(collection, {"_id": {"$in": roots}}))

    def _bulk_delete(self, name: str, operations: list[Any]) -> int:
        self._target.check()
        collection = self._target.collection(name)

        def attempt() -> int:
            self._target.announce(name)
            return collection.bulk_write(operations, ordered=False).deleted_count

        deleted = patiently(attempt)
        patiently(lambda: self._target.announce(name, done=True))
        return deleted

    def _delete(self, collection: Any, query: dict[str, Any]) -> int:
        return self._target.delete(collection, query)

    def _count(self, collection: str, deleted: int) -> None:
        if deleted:
            self._done.removed[collection] = self._done.removed.get(collection, 0) + deleted

    def _restore_merged(self) -> None:
        """The default experiment as it was before the first import."""
        left = {}
        for number, before in self._journal.merged.items():
            document = {key: value for key, value in before.items() if key not in MERGED_NOTES}
            if reason := None if self._force else self._merged_change(before, document):
                self._done.kept.append(Problem("experiment", str(number), f"left as it is, since {reason}"))
                self._done.changed = True
                left[number] = before
                continue
            self._replace(number, document)
        self._journal.forget_merged(left)

    def _replace(self, number: int, document: dict[str, Any]) -> None:
        self._target.check()
        experiments = self._target.collection(ExperimentFields)
        patiently(lambda: experiments.replace_one({"_id": number}, document))

    def _merged_change(self, before: dict[str, Any], document: dict[str, Any]) -> str | None:
        found = next(iter(self._target.find_by_ids(ExperimentFields, [before["_id"]])), None)
        if found is None or found == document:
            return None
        if "left" not in before:
            return _UNKNOWN
        state = states(self._target, "experiments", [before["_id"]]).get(before["_id"])
        return _CHANGED if before.get("changed") or state != before["left"] else None


_CHANGED = "it was changed after it was imported"
_UNKNOWN = (
    "it cannot be told whether it was changed, because an import of it was interrupted: run the import again "
    "first"
)
