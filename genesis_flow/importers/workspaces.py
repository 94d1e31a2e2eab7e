"""Whether an import keeps the workspaces of its source, and which parts it then has.

It does where workspaces are enabled and none is named (``MLFLOW_WORKSPACE``): each part is an import of its
own, with a journal of its own, into the workspace of its name. Else all comes into one.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from mlflow.utils.workspace_context import get_request_workspace
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

from genesis_flow.areas.workspaces.contents import ROOTS
from genesis_flow.documents.plain import Document
from genesis_flow.importers.records import Filters, Problem, Source
from genesis_flow.importers.target import ImportTarget, patiently
from genesis_flow.mongo.scoping import current_workspace, workspaces_enabled

WORKSPACES = "workspaces"


def are_kept() -> bool:
    return workspaces_enabled() and get_request_workspace() is None


def target_workspace() -> str:
    """The one into which all comes."""
    return DEFAULT_WORKSPACE_NAME if are_kept() else current_workspace()


class Part(NamedTuple):
    """What comes into one workspace, and what the source says of the workspace, if workspaces are kept."""

    workspace: str
    source: Source
    said: Document | None = None


def parts_of(source: Source, filters: Filters) -> Iterator[Part]:
    workspaces = getattr(source, "workspaces", None)
    if workspaces is None or not are_kept():
        yield Part(target_workspace(), source)
        return
    source.check(filters)  # type: ignore[attr-defined]  # those that have workspaces have it
    for name, said in workspaces().items():
        yield Part(name, source.of_workspace(name), said)  # type: ignore[attr-defined]


def make_workspace(target: ImportTarget, said: Document) -> Document | None:
    """See to it that there is the workspace; its document, if it was made here."""
    document = {"_id": target.workspace, **said}
    if target.workspace == DEFAULT_WORKSPACE_NAME:
        return None
    target.check()
    made = patiently(
        lambda: target.collection(WORKSPACES).update_one(
            {"_id": target.workspace}, {"$setOnInsert": document}, upsert=True
        )
    )
    return document if made.upserted_id is not None else None


def remove_workspace(target: ImportTarget, made: Document, *, force: bool) -> tuple[int, Problem | None]:
    """Remove the workspace that an import made, once it is empty: how many that were, or why it stays."""
    collection = target.collection(WORKSPACES)
    found = patiently(lambda: collection.find_one({"_id": made["_id"]}))
    if found is None:
        return 0, None
    full = next((name for name in ROOTS if _has(target, name)), None)
    if full is not None:
        reason = f"left in place, since there are {full.replace('_', ' ')} in it"
        return 0, Problem("workspace", made["_id"], reason)
    if found != made and not force:
        reason = "left in place, since it was changed after it was imported"
        return 0, Problem("workspace", made["_id"], reason)
    return target.delete(WORKSPACES, {"_id": made["_id"]}), None


def _has(target: ImportTarget, name: str) -> bool:
    query: dict[str, Any] = {"workspace": target.workspace}
    return patiently(lambda: target.collection(name).find_one(query, {"_id": 1})) is not None
