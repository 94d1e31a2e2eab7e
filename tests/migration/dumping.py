"""The whole of a database as plain data: to compare two, and to keep one in the repository."""

import gzip
from pathlib import Path
from typing import Any

from bson import json_util
from bson.codec_options import CodecOptions
from bson.json_util import JSONMode, JSONOptions
from pymongo.database import Database

DUMPS = Path(__file__).parent / "dumps"
LEDGER = "schema_migrations"
BOOKKEEPING = ("schema_history", "schema_lock", "database_migrations")
# What differs between two runs that did the same.
RUN_FIELDS = ("created_at", "duration_ms", "who", "by")

Dump = dict[str, Any]
_EXACT = JSONOptions(json_mode=JSONMode.CANONICAL)


def dump(db: Database[dict[str, Any]], prefix: str = "", *, bookkeeping: bool = False) -> Dump:
    """Collections with options, indexes and documents; the ledger without times and names of people."""
    found: Dump = {}
    for collection in sorted(db.list_collections(), key=lambda each: each["name"]):
        name = collection["name"]
        short = name.removeprefix(prefix)
        if not name.startswith(prefix) or short.startswith("system."):
            continue
        if short in BOOKKEEPING and not bookkeeping:
            continue
        options = {key: value for key, value in collection["options"].items() if key != "uuid"}
        if collection["type"] == "view":
            found[short] = {"type": "view", "options": options}
            continue
        documents = list(db[name].with_options(CodecOptions(tz_aware=True)).find().sort("_id"))
        if short == LEDGER and not bookkeeping:
            documents = [
                {key: value for key, value in entry.items() if key not in RUN_FIELDS} for entry in documents
            ]
        found[short] = {
            "type": "collection",
            "options": options,
            "indexes": sorted(
                (dict(index) for index in db[name].list_indexes()), key=lambda index: index["name"]
            ),
            "documents": documents,
        }
    return plain(found)


def plain(value: Any) -> Any:
    """Comparable by ``==`` and the same after a round trip through a file."""
    return json_util.loads(json_util.dumps(value, json_options=_EXACT), json_options=_EXACT)


def schema_of(found: Dump) -> Dump:
    """A dump without the documents, except the ledger's."""
    return {
        name: part if name == LEDGER else {key: value for key, value in part.items() if key != "documents"}
        for name, part in found.items()
    }


def restore(db: Database[dict[str, Any]], found: Dump) -> None:
    """Make an empty database what a dump says."""
    for name, part in found.items():
        db.create_collection(name, **part["options"])
        for index in part.get("indexes", []):
            if index["name"] != "_id_":
                db.command({"createIndexes": name, "indexes": [index]})
        if part.get("documents"):
            db[name].insert_many(part["documents"])


def write(path: Path, found: Dump) -> None:
    text = json_util.dumps(found, json_options=_EXACT, indent=1, sort_keys=False)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def read(path: Path) -> Dump:
    found: Dump = json_util.loads(gzip.decompress(path.read_bytes()).decode(), json_options=_EXACT)
    return found
