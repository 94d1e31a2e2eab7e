"""What Azure Cosmos DB for MongoDB (RU) accepts, as a listener that finds what it would not.

Sources: Microsoft's pages on the features of server version 7.0 and on indexing. A command, stage, operator,
option or index form that these do not name as supported is a violation here, however plausible.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import bson
from pymongo import monitoring

LARGEST_DOCUMENT = 1_500_000

# The driver's own handshake and upkeep, and what only tests send.
_UPKEEP = {"hello", "ismaster", "isMaster", "ping", "endSessions", "killCursors", "dropDatabase", "buildInfo"}
# What every command may carry; sessions are the driver's and appear only where a server offers them.
_ALWAYS = {
    "$db",
    "lsid",
    "$readPreference",
    "readConcern",
    "writeConcern",
    "maxTimeMS",
    "apiVersion",
    "comment",
}
_ALWAYS |= {"$clusterTime"}
_COMMANDS: dict[str, set[str]] = {
    "find": {"filter", "projection", "sort", "limit", "skip", "batchSize", "singleBatch"},
    "getMore": {"collection", "batchSize"},
    "insert": {"documents", "ordered"},
    "update": {"updates", "ordered"},
    "delete": {"deletes", "ordered"},
    "findAndModify": {"query", "update", "new", "upsert", "fields", "sort", "remove"},
    "aggregate": {"pipeline", "cursor"},
    "distinct": {"key", "query"},
    "count": {"query", "limit"},
    "create": set(),
    "createIndexes": {"indexes"},
    "listCollections": {"filter", "nameOnly", "cursor", "authorizedCollections"},
    "listIndexes": {"cursor"},
    "drop": set(),
    "dropIndexes": {"index"},
}
_QUERY = {
    *("$and", "$or", "$nor", "$not", "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists"),
    *("$type", "$expr", "$mod", "$regex", "$options", "$all", "$elemMatch", "$size"),
}
_UPDATE = {
    *("$inc", "$mul", "$rename", "$setOnInsert", "$set", "$unset", "$min", "$max", "$currentDate"),
    *("$addToSet", "$pop", "$pullAll", "$pull", "$push", "$each", "$slice", "$sort", "$position", "$bit"),
}
_STAGES = {
    *("$addFields", "$count", "$facet", "$group", "$limit", "$match", "$project", "$redact", "$replaceRoot"),
    *("$replaceWith", "$sample", "$set", "$skip", "$sort", "$sortByCount", "$unset", "$unwind"),
}
_EXPRESSIONS = {
    *(
        "$and",
        "$not",
        "$or",
        "$convert",
        "$toBool",
        "$toDate",
        "$toDecimal",
        "$toDouble",
        "$toInt",
        "$toLong",
    ),
    *("$toObjectId", "$toString", "$setEquals", "$setIntersection", "$setUnion", "$setDifference"),
    *("$setIsSubset", "$anyElementTrue", "$allElementsTrue", "$cmp", "$eq", "$gt", "$gte", "$lt", "$lte"),
    *("$ne", "$in", "$nin", "$abs", "$add", "$ceil", "$divide", "$exp", "$floor", "$ln", "$log", "$log10"),
    *("$mod", "$multiply", "$pow", "$round", "$sqrt", "$subtract", "$trunc", "$concat", "$indexOfBytes"),
    *("$indexOfCP", "$ltrim", "$rtrim", "$trim", "$split", "$strLenBytes", "$strLenCP", "$strcasecmp"),
    *("$substr", "$substrBytes", "$substrCP", "$toLower", "$toUpper", "$arrayElemAt", "$arrayToObject"),
    *("$concatArrays", "$filter", "$indexOfArray", "$isArray", "$objectToArray", "$range", "$reverseArray"),
    *("$reduce", "$size", "$slice", "$zip", "$map", "$let", "$literal", "$cond", "$ifNull", "$switch"),
    *("$type", "$sum", "$avg", "$first", "$last", "$max", "$min", "$push", "$addToSet", "$stdDevPop"),
    *("$stdDevSamp", "$mergeObjects", "$regexFind", "$regexFindAll", "$regexMatch"),
}
_INDEX_OPTIONS = {"key", "name", "unique", "v", "background"}
_MOST_INDEX_FIELDS = 8


class PortableRules(monitoring.CommandListener):
    """Collects violations while it is asked to; register it before the clients are made."""

    def __init__(self) -> None:
        self._open: list[list[str]] = []
        self._indexes: dict[tuple[str, str], list[list[tuple[str, int]]]] = {}

    @contextmanager
    def enforced(self) -> Iterator[list[str]]:
        found: list[str] = []
        self._open.append(found)
        try:
            yield found
        finally:
            self._open.remove(found)

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name in _UPKEEP:
            return
        if event.command_name == "createIndexes":  # of whatever client: sorts need to know of them
            known = self._indexes.setdefault((event.database_name, event.command["createIndexes"]), [])
            known += [list(index["key"].items()) for index in event.command["indexes"]]
        for found in self._open:
            found += [
                f"{event.command_name} {event.command.get(event.command_name)}: {each}"
                for each in self.violations(event.command_name, event.command, event.database_name)
            ]

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        """Only what is sent counts."""

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        """Only what is sent counts."""

    def violations(self, name: str, command: Mapping[str, Any], database: str) -> Iterator[str]:
        if name not in _COMMANDS:
            yield "the command is not supported"
            return
        for option in command.keys() - _COMMANDS[name] - _ALWAYS - {name}:
            yield f"option {option}={command[option]!r}"
        indexes = self._indexes.get((database, str(command[name])), [])
        match name:
            case "find":
                yield from _query(command.get("filter", {}))
                yield from _sort(command.get("sort"), indexes)
            case "distinct" | "count":
                yield from _query(command.get("query", {}))
            case "insert":
                for document in command["documents"]:
                    yield from _size(document)
            case "update":
                for update in command["updates"]:
                    yield from _query(update["q"])
                    yield from _change(update["u"])
                    yield from (
                        f"option {option}" for option in update.keys() - {"q", "u", "multi", "upsert"}
                    )
            case "delete":
                for delete in command["deletes"]:
                    yield from _query(delete["q"])
            case "findAndModify":
                yield from _query(command.get("query", {}))
                yield from _change(command.get("update", {}))
                if len(command.get("sort") or {}) > 1:
                    yield "sort by several fields"
            case "aggregate":
                yield from _pipeline(command["pipeline"], indexes)
            case "createIndexes":
                for index in command["indexes"]:
                    yield from _index(index)


def _query(query: Any) -> Iterator[str]:
    if isinstance(query, Mapping):
        for key, value in query.items():
            if key == "$expr":
                yield from _expression(value)
            elif key.startswith("$") and key not in _QUERY:
                yield f"query operator {key}"
            else:
                yield from _query(value)
    elif isinstance(query, list):
        for each in query:
            yield from _query(each)


def _change(change: Any) -> Iterator[str]:
    if isinstance(change, list):
        yield "an update by a pipeline"
        return
    for key, value in change.items():
        if not key.startswith("$"):
            yield from _size(change)
            return
        if key not in _UPDATE:
            yield f"update operator {key}"
        if isinstance(value, Mapping):
            for inner in value.values():
                if isinstance(inner, Mapping):
                    yield from (
                        f"update modifier {each}"
                        for each in inner
                        if each.startswith("$") and each not in _UPDATE | _QUERY
                    )


def _expression(expression: Any) -> Iterator[str]:
    if isinstance(expression, Mapping):
        for key, value in expression.items():
            if key == "$literal":
                continue
            if key.startswith("$") and key not in _EXPRESSIONS:
                yield f"expression operator {key}"
            yield from _expression(value)
    elif isinstance(expression, list):
        for each in expression:
            yield from _expression(each)


def _pipeline(pipeline: list[Mapping[str, Any]], indexes: list[list[tuple[str, int]]]) -> Iterator[str]:
    for stage in pipeline:
        ((name, body),) = stage.items()
        if name not in _STAGES:
            yield f"stage {name}"
        elif name == "$match":
            yield from _query(body)
        elif name == "$sort":
            yield from _sort(body, indexes)
        elif name == "$facet":
            for inner in body.values():
                yield from _pipeline(inner, indexes)
        else:
            yield from _expression(body)


def _sort(sort: Mapping[str, int] | None, indexes: list[list[tuple[str, int]]]) -> Iterator[str]:
    """One field needs some index on it, several need one on exactly these, in either direction."""
    keys = list((sort or {}).items())
    turned = [(field, -direction) for field, direction in keys]
    if not keys or [field for field, _ in keys] == ["_id"]:
        return
    if len(keys) == 1:
        if not any([field for field, _ in index] == [keys[0][0]] for index in indexes):
            yield f"sort by {keys} without a single-field index"
    elif keys not in indexes and turned not in indexes:
        yield f"sort by {keys} without exactly that index"


def _index(index: Mapping[str, Any]) -> Iterator[str]:
    fields = list(index["key"])
    for option in index.keys() - _INDEX_OPTIONS:
        if not (option == "partialFilterExpression" and index.get("unique")):
            yield f"index {index['name']} with {option}"
    if any("$**" in field for field in fields) and (len(fields) > 1 or index.get("unique")):
        yield f"index {index['name']}: a wildcard with more"
    if len(fields) > _MOST_INDEX_FIELDS:
        yield f"index {index['name']} over {len(fields)} fields"
    if len(fields) > 1 and any("." in field for field in fields):
        yield f"index {index['name']}: a compound index over nested fields"
    if any(kind not in (1, -1) for kind in index["key"].values()):
        yield f"index {index['name']}: of another kind"


def _size(document: Mapping[str, Any]) -> Iterator[str]:
    if (size := len(bson.encode(document))) > LARGEST_DOCUMENT:
        yield f"a document of {size} bytes"


rules = PortableRules()
monitoring.register(rules)
