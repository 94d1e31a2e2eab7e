"""What the engine does, reduced to what tests of readers and writers need."""

from collections import defaultdict
from typing import Any

import pymongo

from genesis_flow.importers.records import Filters, Problem, Record, Series, Source, Unit
from genesis_flow.importers.writers import WRITERS, Context, Unwanted, Write, Writer
from genesis_flow.sync.tracking import MongoDBStore

ALL = Filters()


def everything(source: Source, filters: Filters = ALL) -> list[Record | Series | Problem]:
    """All that a source yields."""
    items: list[Record | Series | Problem] = []
    for unit in source.units(filters):
        items += [unit] if isinstance(unit, Problem) else source.read(unit)
    return items


def bring(source: Source, uri: str, filters: Filters = ALL) -> list[Problem]:
    """Write all of a source into an empty database; returns the problems."""
    MongoDBStore(uri, "s3://bucket/root").search_experiments()
    problems: list[Problem] = []
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        database = client.get_default_database()
        database["experiments"].delete_many({})
        context = Context("default")
        for unit in source.units(filters):
            if isinstance(unit, Problem):
                problems.append(unit)
            else:
                writes, more = _written(source, unit, context)
                problems += more
                _store(database, writes)
    return problems


def _written(source: Source, unit: Unit, context: Context) -> tuple[list[Write], list[Problem]]:
    writers: dict[type[Writer], Writer] = {}
    made: list[Write | Problem] = []
    for item in source.read(unit):
        if isinstance(item, Problem):
            made.append(item)
            continue
        kind = "run" if isinstance(item, Series) else item.kind
        if isinstance(item, Record) and kind == "experiment":
            context.experiments[item.id] = int(item.id)
        writer = writers.setdefault(WRITERS[kind], WRITERS[kind](context))
        try:
            made += writer.add(item)
        except Unwanted as error:
            made.append(Problem(kind, getattr(item, "id", ""), str(error)))
    for writer in writers.values():
        made += writer.finish()
    return [each for each in made if isinstance(each, Write)], [
        each for each in made if isinstance(each, Problem)
    ]


def _store(database: Any, writes: list[Write]) -> None:
    operations: dict[str, list[Any]] = defaultdict(list)
    for write in writes:
        key = {"_id": write.document["_id"]}
        if write.add_to_sets is None:
            change: Any = pymongo.ReplaceOne(key, write.document, upsert=True)
        else:
            fixed = {name: value for name, value in write.document.items() if name not in write.add_to_sets}
            sets = {name: {"$each": values} for name, values in write.add_to_sets.items()}
            change = pymongo.UpdateOne(key, {"$setOnInsert": fixed, "$addToSet": sets}, upsert=True)
        operations[write.collection].append(change)
    for collection, changes in operations.items():
        database[collection].bulk_write(changes)
