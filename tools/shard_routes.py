"""Where the router of a sharded cluster would send a command, by the shard keys that documents declare.

A router (``mongos``) looks for the shard key in what a command asks for: values and ranges of it name the
shards, and without one all shards are asked. Collections without a shard key lie on the first shard. The
rules are those of MongoDB's manual; nothing here has been compared with a router.
"""

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bson.regex import Regex

from genesis_flow.documents.sharding import ShardKey
from genesis_flow.stores.areas import DECLARED

Command = Mapping[str, Any]

HOME = 0
"""The shard on which whole collections lie."""

_QUERIES = {"find": "filter", "count": "query", "distinct": "query", "findAndModify": "query"}
_WRITES = {"insert": "documents", "update": "updates", "delete": "deletes"}
# What follows a cursor, makes or shows collections, or ends a transaction, and asks no documents.
_BESIDE = {
    *("getMore", "create", "createIndexes", "dropIndexes", "drop", "collMod", "dropDatabase"),
    *("listCollections", "listIndexes", "commitTransaction", "abortTransaction", "hello", "serverStatus"),
    *(
        "dbStats",
        "collStats",
        "connectionStatus",
        "usersInfo",
        "getParameter",
        "buildInfo",
        "replSetGetStatus",
    ),
}
_WHOLE = (None, None)
Range = tuple[str | None, str | None]


def shard_keys() -> dict[str, ShardKey]:
    return {each.Settings.name: each.Settings.shard for each in DECLARED if each.Settings.shard is not None}


@dataclass(frozen=True)
class Route:
    """The shards that a command goes to, and what about it a router does not take."""

    collection: str
    shards: frozenset[int]
    targeted: bool
    problem: str = ""


@dataclass
class Cluster:
    """Shards with equal ranges of each key."""

    shards: int
    keys: dict[str, ShardKey] = field(default_factory=shard_keys)

    def __post_init__(self) -> None:
        self._splits = {name: key.splits(self.shards) for name, key in self.keys.items()}

    def route(self, name: str, command: Command) -> Route | None:
        """Where a command goes; None for what asks no documents."""
        if name in _BESIDE or not isinstance(command.get(name), str):
            return None
        collection = command[name]
        key = self.keys.get(collection)
        if name == "aggregate":
            return self._aggregate(collection, command)
        if key is None:
            return Route(collection, frozenset({HOME}), targeted=True)
        if name in _QUERIES:
            query = command.get(_QUERIES[name], {})
            modified = [(query, bool(command.get("upsert")), True)] if name == "findAndModify" else []
            return self._joined(collection, [query], modified)
        if name == "insert":
            return self._joined(
                collection, [{key.field: each[key.field]} for each in command["documents"]], []
            )
        if name in _WRITES:
            parts = [
                (each["q"], bool(each.get("upsert")), not each.get("multi") and each.get("limit", 1) == 1)
                for each in command[_WRITES[name]]
            ]
            return self._joined(collection, [query for query, _, _ in parts], parts)
        raise ValueError(f"{name} is not known here: say where a router sends it.")

    def _joined(
        self, collection: str, queries: list[Mapping[str, Any]], single: list[tuple[Any, bool, bool]]
    ) -> Route:
        key = self.keys[collection]
        shards: set[int] = set()
        targeted = True
        for query in queries:
            ranges = bounds(query, key.field)
            targeted &= _WHOLE not in ranges
            shards |= {shard for each in ranges for shard in self._of(collection, each)}
        problem = ""
        for query, upsert, one in single:
            exact = all(low is not None and low == high for low, high in bounds(query, key.field))
            if upsert and not exact:
                problem = "an upsert that does not name the shard key"
            elif one and not exact:
                problem = "one document is changed, and the shard key is not named"
        return Route(collection, frozenset(shards), targeted, problem)

    def _aggregate(self, collection: str, command: Command) -> Route:
        routes = [self._start(collection, command["pipeline"])]
        for other, pipeline in _others(command["pipeline"]):
            routes.append(self._start(other, pipeline))
        return Route(
            collection,
            frozenset().union(*(each.shards for each in routes)),
            all(each.targeted for each in routes),
        )

    def _start(self, collection: str, pipeline: list[Mapping[str, Any]]) -> Route:
        if collection not in self.keys:
            return Route(collection, frozenset({HOME}), targeted=True)
        matches: list[Any] = []
        for stage in pipeline:
            if "$match" not in stage:
                break
            matches.append(stage["$match"])
        return self._joined(collection, [{"$and": matches}] if matches else [{}], [])

    def _of(self, collection: str, asked: Range) -> range:
        splits = self._splits[collection]
        low, high = asked
        if low is None or high is None:
            return range(len(splits) + 1)
        first = bisect_right(splits, low)
        # The end of a range is left out, a single value is not.
        last = first if low == high else max(first, bisect_left(splits, high))
        return range(first, last + 1)


def _others(pipeline: list[Mapping[str, Any]]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """The collections that a pipeline joins, and with what it begins there."""
    for stage in pipeline:
        ((name, body),) = stage.items()
        if name == "$unionWith":
            yield (body, []) if isinstance(body, str) else (body["coll"], body.get("pipeline", []))
        elif name == "$lookup":
            # By a field of each document: as many questions as documents, each to the shard of its value.
            joined = [{"$match": {body["foreignField"]: ""}}] if "foreignField" in body else []
            yield body["from"], [*joined, *body.get("pipeline", [])]
        elif name == "$facet":
            for inner in body.values():
                yield from _others(inner)


def bounds(query: Mapping[str, Any], name: str) -> list[Range]:
    """The ranges of a field that a query leaves; one without ends if it says nothing of the field."""
    found: list[list[Range]] = []
    for key, condition in query.items():
        if key == "$and":
            found += [bounds(each, name) for each in condition]
        elif key == "$or":
            found.append([each for branch in condition for each in bounds(branch, name)])
        elif key == name:
            found.append(_ranges(condition))
    found = [ranges for ranges in found if _WHOLE not in ranges]
    return min(found, key=_width) if found else [_WHOLE]


def _width(ranges: list[Range]) -> tuple[int, int]:
    return sum(low != high for low, high in ranges), len(ranges)


def _ranges(condition: Any) -> list[Range]:
    if isinstance(condition, str):
        return [(condition, condition)]
    if isinstance(condition, re.Pattern | Regex):
        return [_beginning(str(condition.pattern))]
    if not isinstance(condition, Mapping):
        return [_WHOLE]
    if "$eq" in condition:
        return _ranges(condition["$eq"])
    if "$in" in condition:
        return [each for value in condition["$in"] for each in _ranges(value)]
    low = condition.get("$gte", condition.get("$gt"))
    high = condition.get("$lt", condition.get("$lte"))
    return [(low, high)] if isinstance(low, str) and isinstance(high, str) else [_WHOLE]


def _beginning(pattern: str) -> Range:
    """The range of texts that begin as an anchored pattern does."""
    plain = re.match(r"\^((?:[\w-]|\\.)+)", pattern)
    if plain is None:
        return _WHOLE
    text = re.sub(r"\\(.)", r"\1", plain[1])
    return text, text[:-1] + chr(ord(text[-1]) + 1)


def transactions(cluster: Cluster, sent: Iterable[tuple[str, Command]]) -> dict[Any, set[int]]:
    """The shards that take part in each transaction."""
    found: dict[Any, set[int]] = defaultdict(set)
    for name, command in sent:
        if command.get("autocommit") is False and (route := cluster.route(name, command)) is not None:
            found[bytes(command["lsid"]["id"]), command["txnNumber"]] |= route.shards
    return found
