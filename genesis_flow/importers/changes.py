"""Whether people have changed what an import brought.

The *state* of a root is a sum of hashes over its document and all that belongs to it. The journal notes the
state that an import is about to leave before it writes the root itself; as long as the root has it, nobody
has touched it. While an import brings a root once more, no state is noted.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import UpdateOne

from genesis_flow.documents.imports import ImportItemFields
from genesis_flow.documents.keys import SEPARATOR
from genesis_flow.importers.kinds import CHILDREN
from genesis_flow.importers.roots import item_key
from genesis_flow.importers.target import ImportTarget, Operation, patiently
from genesis_flow.importers.writers import Context, Root
from genesis_flow.stores.areas import DECLARED

# Their ids say what is in them.
NAMED_AFTER_CONTENT = frozenset({"metrics", "logged_model_metrics"})
# They have many owners, and nothing that people could change but by using them.
SHARED = frozenset({"datasets"})
# What readers keep for each other is no change.
_DERIVED = {
    declared.Settings.name: dict.fromkeys(declared.Settings.derived, 0)
    for declared in DECLARED
    if declared.Settings.derived
}
_RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
ROOTS_AT_ONCE = 50
# What the journal notes beside the former document of an experiment that took in one of the source.
MERGED_NOTES = frozenset({"pristine", "left", "changed"})


def hashed(collection: str, key: Any, encoded: bytes) -> int:
    """The share of one document in the state of its root."""
    content = str(key).encode() if collection in NAMED_AFTER_CONTENT else encoded
    digest = hashlib.blake2b(collection.encode() + b"\n" + content, digest_size=16).digest()
    return int.from_bytes(digest, "little")


def told(total: int) -> str:
    return f"{total % 2**128:032x}"


def states(target: ImportTarget, collection: str, keys: Iterable[Any]) -> dict[Any, str]:
    """The states of the roots that are there."""
    wanted = list(keys)
    found: dict[Any, str] = {}
    for start in range(0, len(wanted), ROOTS_AT_ONCE):
        some = wanted[start : start + ROOTS_AT_ONCE]
        totals = _totals(target, collection, {"_id": {"$in": some}}, "_id")
        for child in CHILDREN.get(collection, ()):
            for key, total in _totals(target, child.collection, child.query(some), child.field).items():
                if key in totals:
                    totals[key] += total
        found |= {key: told(total) for key, total in totals.items()}
    return found


def _totals(
    target: ImportTarget, collection: str, query: dict[str, Any], owner: str | None
) -> dict[Any, int]:
    """The sums of documents by what is in the field ``owner``; None: by what their ids begin with."""
    documents = target.collection(collection).with_options(codec_options=_RAW)
    fields: Any = [owner or "_id", "_id"] if collection in NAMED_AFTER_CONTENT else _DERIVED.get(collection)

    def attempt() -> dict[Any, int]:
        totals: dict[Any, int] = defaultdict(int)
        for each in documents.find(query, fields):
            key = each[owner] if owner else each["_id"].partition(SEPARATOR)[0]
            totals[key] += hashed(collection, each["_id"], bytes(each.raw))
        return totals

    return patiently(attempt)


def begin_again(target: ImportTarget, journal: str, roots: Iterable[Root]) -> None:
    """Before an import brings roots once more: note which of them people have changed since the last time."""
    items = {item_key(journal, root): root for root in roots if root[0] not in SHARED}
    noted = {
        items[item["_id"]]: item["state"]
        for item in target.find_by_ids(ImportItemFields, items, {"state": 1})
        if item.get("state")
    }
    current = _states_of(target, noted)
    operations: list[Operation] = []
    for root, state in noted.items():
        change: dict[str, Any] = {"$unset": {"state": ""}}
        if current.get(root, state) != state:
            change["$set"] = {"changed": True}
        operations.append(UpdateOne({"_id": item_key(journal, root)}, change))
    target.write(ImportItemFields, operations)


def note_states(target: ImportTarget, journal: str, roots: Iterable[Root]) -> None:
    """After an import has brought roots once more: note how it leaves them."""
    current = _states_of(target, roots)
    note(target, journal, current)


def note(target: ImportTarget, journal: str, left: dict[Root, str]) -> None:
    operations: list[Operation] = [
        UpdateOne({"_id": item_key(journal, root)}, {"$set": {"state": state}})
        for root, state in left.items()
    ]
    target.write(ImportItemFields, operations)


def watch_merged(target: ImportTarget, context: Context) -> None:
    """Note which of the experiments that take in those of the source were changed since the last import."""
    for number, before in context.merged.items():
        left = before.pop("left", None)
        if left is not None and states(target, "experiments", [number]).get(number, left) != left:
            before["changed"] = True


def note_merged(target: ImportTarget, context: Context) -> None:
    found = states(target, "experiments", context.merged)
    for number, before in context.merged.items():
        if number in found:
            before["left"] = found[number]


def _states_of(target: ImportTarget, roots: Iterable[Root]) -> dict[Root, str]:
    by_collection: dict[str, list[Any]] = defaultdict(list)
    for collection, key in roots:
        if collection not in SHARED:
            by_collection[collection].append(key)
    return {
        (collection, key): state
        for collection, keys in by_collection.items()
        for key, state in states(target, collection, keys).items()
    }
