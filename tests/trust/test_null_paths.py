"""Nothing is compared with null behind an array: there MongoDB 9 answers otherwise than its predecessors.

`{"a.b": null}` matches since then where `a` is an empty array or one of scalars, and `{"a.b": {"$ne": null}}`
does so no more. Below maps, and within `$elemMatch`, all versions agree.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import CommandRecorder
from tests.scenes import play
from tests.trust.test_portable import reads
from tests.trust.tour import World

_LISTS = ("$and", "$or", "$nor")
_TO_ARRAYS = ("$addToSet", "$push", "$pull", "$pop", "$pullAll")


@pytest.fixture
async def world(store_uri: str, tmp_path: Path) -> AsyncIterator[World]:
    made = World(store_uri, str(tmp_path / "artifacts"))
    yield made
    await made.close()


async def test_no_path_that_is_compared_with_null_leads_through_an_array(
    world: World, commands: CommandRecorder
) -> None:
    with commands.recording() as sent:
        await play(world)
        for read in reads(world).values():
            await read()
    compared, arrays = look_at(sent)
    assert len(compared) > 3, "the tour compares nothing with null"
    assert ("runs", "inputs") in arrays
    assert through_arrays(compared, arrays) == set()


@pytest.mark.parametrize(
    "asked",
    [
        {"inputs.name": None},
        {"inputs.name": {"$nin": ["a", None]}},
        {"$or": [{"_id": 1}, {"$and": [{"inputs.name": {"$ne": None}}]}]},
    ],
)
def test_one_that_does_would_be_found(asked: dict[str, Any]) -> None:
    write = ("update", {"update": "runs", "updates": [{"q": {}, "u": {"$push": {"inputs": {"$each": []}}}}]})
    for command in (
        {"find": "runs", "filter": asked},
        {"aggregate": "runs", "pipeline": [{"$match": asked}]},
        {"update": "runs", "updates": [{"q": asked, "u": {"$set": {"a": 1}}}]},
        {"delete": "runs", "deletes": [{"q": asked}]},
    ):
        compared, arrays = look_at([write, (next(iter(command)), command)])
        assert through_arrays(compared, arrays) == {("runs", "inputs.name")}


Paths = set[tuple[str, str]]


def look_at(sent: list[tuple[str, dict[str, Any]]]) -> tuple[Paths, Paths]:
    """The dotted paths that were compared with null, and where arrays were written; by collection."""
    compared, arrays = set(), set()
    for name, command in sent:
        if not isinstance(collection := command.get(name), str):
            continue
        changes = [(each["q"], each["u"]) for each in command.get("updates", ())]
        queries = [command.get("filter"), command.get("query"), *(query for query, _ in changes)]
        queries += [each["q"] for each in command.get("deletes", ())]
        queries += [stage.get("$match") for stage in command.get("pipeline", ())]
        compared |= {(collection, path) for query in queries if query for path in _null_paths(query)}
        updates = [command.get("update"), *(change for _, change in changes)]
        written = [*command.get("documents", ())]
        for update in updates:
            if isinstance(update, dict):
                written += [update.get("$set", {}), update.get("$setOnInsert", {}), update]
                arrays |= {(collection, path) for name in _TO_ARRAYS for path in update.get(name, {})}
        arrays |= {(collection, path) for document in written for path in _array_paths(document)}
    return compared, arrays


def through_arrays(compared: Paths, arrays: Paths) -> Paths:
    return {
        (collection, path)
        for collection, path in compared
        if any(name == collection and path.startswith(f"{array}.") for name, array in arrays)
    }


def _null_paths(query: dict[str, Any]) -> Iterator[str]:
    for path, wanted in query.items():
        if path in _LISTS:
            for each in wanted:
                yield from _null_paths(each)
        elif "." in path and _is_null(wanted):
            yield path


def _is_null(wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return wanted is None
    if "$not" in wanted:
        return _is_null(wanted["$not"])
    lists = [*wanted.get("$in", ()), *wanted.get("$nin", ())]
    return None in lists or any(name in wanted and wanted[name] is None for name in ("$eq", "$ne"))


def _array_paths(document: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(document, dict):
        for name, value in document.items():
            if not name.startswith("$"):
                yield from _array_paths(value, f"{prefix}.{name}" if prefix else name)
    elif isinstance(document, list | tuple):
        yield prefix
