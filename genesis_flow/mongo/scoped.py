"""Collections as they are handed out where workspaces are enabled: no command leaves the workspace.

Whatever a method asks for is restricted to the workspace that the collection was handed out for, and what it
inserts must belong to it. What a driver's collection can do besides is not there: it would be a way around.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from pymongo import DeleteMany, DeleteOne, InsertOne, ReplaceOne, UpdateMany, UpdateOne

from genesis_flow.documents.plain import Document

FIELD = "workspace"


class OutOfScope(RuntimeError):
    """A mistake in this package: a command that names another workspace, or none where it must."""


def within(workspace: str, query: Mapping[str, Any] | None) -> Document:
    """``query``, restricted to a workspace."""
    named = (query or {}).get(FIELD, workspace)
    if named != workspace:
        raise OutOfScope(f"A query of the workspace {workspace!r} asks for {named!r}.")
    return {**(query or {}), FIELD: workspace}


def within_pipeline(workspace: str, pipeline: Sequence[Document], owned: frozenset[str]) -> list[Document]:
    """``pipeline``, restricted to a workspace; so is what it reads of the collections in ``owned``.

    But for what documents of the workspace name by id, with $lookup.
    """
    first, rest = {}, list(pipeline)
    if rest and "$match" in rest[0]:
        first = rest.pop(0)["$match"]
    own = {"$match": {FIELD: workspace}}

    def beside(stage: Document) -> Document:
        other = stage.get("$unionWith")
        if other is None or other["coll"] not in owned:
            return stage
        return {"$unionWith": {**other, "pipeline": [own, *other["pipeline"]]}}

    return [{"$match": within(workspace, first)}, *map(beside, rest)]


def _filtered(name: str) -> Callable[..., Any]:
    def method(self: "ScopedCollection", filter: Document | None = None, *args: Any, **kwargs: Any) -> Any:
        return getattr(self._collection, name)(within(self._workspace, filter), *args, **kwargs)

    method.__name__ = name
    return method


class ScopedCollection:
    """As much of a driver's collection as areas use, for one workspace."""

    def __init__(self, collection: Any, workspace: str, owned: frozenset[str]) -> None:
        """``owned`` are the names of the collections whose documents have a workspace."""
        self._collection = collection
        self._workspace = workspace
        self._owned = owned

    @property
    def name(self) -> str:
        return str(self._collection.name)

    def with_options(self, **options: Any) -> Self:
        return type(self)(self._collection.with_options(**options), self._workspace, self._owned)

    find = _filtered("find")
    find_one = _filtered("find_one")
    find_one_and_update = _filtered("find_one_and_update")
    find_one_and_delete = _filtered("find_one_and_delete")
    find_one_and_replace = _filtered("find_one_and_replace")
    count_documents = _filtered("count_documents")
    update_one = _filtered("update_one")
    update_many = _filtered("update_many")
    delete_one = _filtered("delete_one")
    delete_many = _filtered("delete_many")

    async def distinct(self, key: str, filter: Document | None = None, **options: Any) -> Any:
        return await self._collection.distinct(key, within(self._workspace, filter), **options)

    async def replace_one(self, filter: Document, replacement: Document, **options: Any) -> Any:
        self._check(replacement)
        return await self._collection.replace_one(within(self._workspace, filter), replacement, **options)

    async def insert_one(self, document: Document, **options: Any) -> Any:
        self._check(document)
        return await self._collection.insert_one(document, **options)

    async def insert_many(self, documents: Sequence[Document], **options: Any) -> Any:
        for document in documents:
            self._check(document)
        return await self._collection.insert_many(documents, **options)

    async def bulk_write(self, requests: Sequence[Any], **options: Any) -> Any:
        return await self._collection.bulk_write([self._held(each) for each in requests], **options)

    async def aggregate(self, pipeline: Sequence[Document], **options: Any) -> Any:
        held = within_pipeline(self._workspace, pipeline, self._owned)
        return await self._collection.aggregate(held, **options)

    def _held(self, request: Any) -> Any:
        """A request of a bulk, held to the workspace."""
        if isinstance(request, InsertOne | ReplaceOne):
            self._check(request._doc)
        if isinstance(request, InsertOne):
            return request
        if not isinstance(request, ReplaceOne | UpdateOne | UpdateMany | DeleteOne | DeleteMany):
            raise OutOfScope(f"A {type(request).__name__} cannot be held to a workspace.")
        held = copy.copy(request)
        held._filter = within(self._workspace, request._filter)
        return held

    def _check(self, document: Mapping[str, Any]) -> None:
        if document.get(FIELD) != self._workspace:
            raise OutOfScope(f"A document of {document.get(FIELD)!r} in the workspace {self._workspace!r}.")


class ScopedUpdates:
    """Updates that are sent together with others', for one workspace."""

    def __init__(self, updates: Any, workspace: str) -> None:
        self._updates = updates
        self._workspace = workspace

    async def update_one(self, query: Document, change: Document) -> bool:
        """Whether a document matched and is changed."""
        return bool(await self._updates.update_one(within(self._workspace, query), change))
