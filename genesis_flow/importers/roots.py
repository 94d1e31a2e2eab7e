"""What there is in the target of the documents that an import is about to write."""

from collections.abc import Iterable
from enum import Enum
from typing import Any

from pymongo import InsertOne

from genesis_flow.documents.imports import ImportItemFields, journal_key
from genesis_flow.importers.target import ImportTarget
from genesis_flow.importers.writers import Root


class Verdict(Enum):
    """What a root document is to this import."""

    NEW = "new"
    OURS = "ours"  # an earlier run of this import made it
    FOREIGN = "foreign"  # it is there, and this import did not make it
    CLASH = "clash"  # another unit of this import has made it


def item_key(journal: str, root: Root) -> str:
    return journal_key(journal, root[0], str(root[1]))


class Ownership:
    """Which roots this import made; noted in the journal before they are written."""

    def __init__(self, target: ImportTarget, journal: str, *, stable_units: bool, dry: bool) -> None:
        self._target = target
        self._journal = journal
        self._stable_units = stable_units
        self._dry = dry

    def verdicts(self, units: dict[Root, str], states: dict[Root, str]) -> dict[Root, Verdict]:
        """For each root, with the key of its unit; new ones are noted as this import's, with their states."""
        verdicts = self._known(units)
        unknown = [root for root in units if root not in verdicts]
        there = self._there(unknown)
        verdicts |= dict.fromkeys(there, Verdict.FOREIGN)
        fresh = [root for root in unknown if root not in there]
        verdicts |= dict.fromkeys(fresh, Verdict.NEW)
        if fresh and not self._dry:
            items = [
                InsertOne(
                    {
                        "_id": item_key(self._journal, root),
                        "root": root[1],
                        "unit": units[root],
                        **({"state": states[root]} if root in states else {}),
                    }
                )
                for root in fresh
            ]
            if self._target.write(ImportItemFields, list(items)) < len(items):
                # Another worker has the same ids, or an attempt of ours did more than its answer said.
                clashing = self._known({root: units[root] for root in fresh})
                verdicts |= {root: each for root, each in clashing.items() if each is Verdict.CLASH}
        return verdicts

    def _known(self, units: dict[Root, str]) -> dict[Root, Verdict]:
        keys = {item_key(self._journal, root): root for root in units}
        found: dict[Root, Verdict] = {}
        for item in self._target.find_by_ids(ImportItemFields, keys, {"unit": 1}):
            root = keys[item["_id"]]
            clash = self._stable_units and item["unit"] != units[root]
            found[root] = Verdict.CLASH if clash else Verdict.OURS
        return found

    def _there(self, roots: Iterable[Root]) -> set[Root]:
        by_collection: dict[str, list[Any]] = {}
        for collection, key in roots:
            by_collection.setdefault(collection, []).append(key)
        return {
            (collection, found["_id"])
            for collection, keys in by_collection.items()
            for found in self._target.find_by_ids(collection, keys, {"_id": 1})
        }
