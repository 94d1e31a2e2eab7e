"""Registered models with versions, aliases and stages, prompts among them, and webhooks."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from genesis_flow.importers.records import Item, Problem, Record
from genesis_flow.importers.sql.reading import Reading, checked
from genesis_flow.importers.sql.snapshot import Condition
from genesis_flow.importers.sql.values import Unreadable, needed_text, text

_MODELS = {"name": "T", "description": "t", "creation_time": "i", "last_updated_time": "i"}
_VERSIONS = {
    "version": "I",
    "name": "T",
    "creation_time": "i",
    "last_updated_time": "i",
    "description": "t",
    "user_id": "t",
    "current_stage": "t",
    "source": "t",
    "storage_location": "t",
    "run_id": "t",
    "run_link": "t",
    "status": "t",
    "status_message": "t",
}
_ALIASES = {"alias": "T", "version": "I"}
_WEBHOOKS = {
    "webhook_id": "T",
    "name": "T",
    "url": "T",
    "description": "t",
    "status": "T",
    "secret": "t",
    "creation_timestamp": "i",
    "last_updated_timestamp": "i",
    "workspace": "t",
}
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

    rows = snapshot.rows("registered_models", tuple(_MODELS), *here("registered_models"))
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
    for row in checked(rows, _MODELS, "registered_models", "registered_model", problems):
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
            # SQL has no column for the logged model that was registered.
            of_version = {**version, "model_id": None, "tags": tags.get(version["version"], {})}
            del of_version["current_stage"]
            yield Record("model_version", f"{name}/{version['version']}", of_version, workspace)
    yield from problems


def read_webhooks(reading: Reading, ids: Sequence[str]) -> Iterator[Item]:
    """Webhooks, but not those that were deleted, whose rows MLflow keeps and never shows again."""
    snapshot = reading.snapshot
    problems: list[Problem] = []
    alive = snapshot.column("webhooks", "deleted_timestamp").is_(None)
    rows = snapshot.of("webhooks", tuple(_WEBHOOKS), "webhook_id", ids, alive, order=("webhook_id",))
    events: dict[str, list[str]] = defaultdict(list)
    order = ("webhook_id", "entity", "action")
    for webhook_id, entity, action in snapshot.of("webhook_events", order, "webhook_id", ids, order=order):
        events[webhook_id].append(f"{entity}.{action}")
    for row in checked(rows, _WEBHOOKS, "webhooks", "webhook", problems):
        created, updated = row.pop("creation_timestamp"), row.pop("last_updated_timestamp")
        workspace = row.pop("workspace")
        body = {
            **row,
            "events": events.get(row["webhook_id"], []),
            "creation_time": created,
            "last_updated_time": updated if updated is not None else created,
        }
        yield Record("webhook", row["webhook_id"], body, workspace)
    yield from problems
