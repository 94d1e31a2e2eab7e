"""Registered models with versions, aliases and stages, prompts among them."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.records import Item, Problem, Record
from genesis_flow.importers.sql.reading import Reading, body_of, checked
from genesis_flow.importers.sql.snapshot import Condition
from genesis_flow.importers.sql.values import Unreadable, needed_text, text

_MODEL, _VERSION = KIND["registered_model"], KIND["model_version"]
# The first says which row is meant.
_VERSIONS = {"version": "I", **_VERSION.layout, "current_stage": "t"}
_NO_STAGES = (None, "", "None")
# A version that was deleted: MLflow keeps the row to keep the number.
_DELETED = "Deleted_Internal"


def read_model(reading: Reading, payload: tuple[str | None, str]) -> Iterator[Item]:
    workspace, name = payload
    snapshot = reading.snapshot
    problems: list[Problem] = []

    def here(table: str) -> list[Condition]:
        conditions = [snapshot.column(table, "name") == name]
        if snapshot.has(table, "workspace"):
            conditions.append(snapshot.column(table, "workspace") == workspace)
        return conditions

    def tags_of(table: str, *names: str) -> Iterator[tuple[Any, ...]]:
        if not snapshot.has(table):
            return
        for *owner, key, value in snapshot.rows(
            table, (*names, "key", "value"), *here(table), order=("key",)
        ):
            try:
                yield *owner, needed_text(key, "key"), text(value, "value")
            except Unreadable as error:
                where = f"table {table}, name={name}, key={key!r}"
                problems.append(Problem("registered_model", where, str(error), 1))

    rows = snapshot.rows("registered_models", tuple(_MODEL.layout), *here("registered_models"))
    aliases: dict[str, int] = {}
    if snapshot.has("registered_model_aliases"):
        layout = {"alias": "T", "version": "I"}
        found = snapshot.rows("registered_model_aliases", tuple(layout), *here("registered_model_aliases"))
        table = "registered_model_aliases"
        aliases = {
            each["alias"]: each["version"]
            for each in checked(found, layout, table, "registered_model", problems)
        }
    versions = []
    if snapshot.has("model_versions"):
        found = snapshot.rows("model_versions", tuple(_VERSIONS), *here("model_versions"), order=("version",))
        versions = list(checked(found, _VERSIONS, "model_versions", "model_version", problems))
    tags: dict[int, dict[str, Any]] = defaultdict(dict)
    for number, key, value in tags_of("model_version_tags", "version"):
        tags[number][key] = value
    kept = [version for version in versions if version["current_stage"] != _DELETED]
    for row in checked(rows, _MODEL.layout, "registered_models", "registered_model", problems):
        body = {
            **row,
            "tags": dict(tags_of("registered_model_tags")),
            "aliases": aliases,
            "stages": {
                each["version"]: each["current_stage"]
                for each in kept
                if each["current_stage"] not in _NO_STAGES
            },
            "last_version": max((each["version"] for each in versions), default=0),
        }
        yield Record("registered_model", name, body, workspace)
        for version in kept:
            of_version = body_of(_VERSION, version)
            of_version |= {"model_id": None, "tags": tags.get(version["version"], {})}
            yield Record("model_version", f"{name}/{version['version']}", of_version, workspace)
    yield from problems
