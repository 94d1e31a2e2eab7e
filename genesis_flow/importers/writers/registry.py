"""Registered models with their versions, prompts among them."""

import hashlib
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from genesis_flow.areas.models.documents import ModelVersionFields, RegisteredModelFields, version_id
from genesis_flow.documents.plain import Document
from genesis_flow.documents.tag_values import tag_maps
from genesis_flow.importers.records import Body, Problem, Record, Series
from genesis_flow.importers.writers.base import Context, Unwanted, Write, Writer, kept


class RegistryWriter(Writer):
    """A model is written behind its versions, which are found through it alone."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._model: Document | None = None
        self._newest_unstaged = 0

    def add(self, item: Record | Series) -> Iterable[Write | Problem]:
        assert isinstance(item, Record)
        if item.kind == "registered_model":
            yield from self.finish()
            if reason := self.context.refused_models.get(item.body["name"]):
                raise Unwanted(reason)
            self._model = model_document(item.body, self.context)
            self._newest_unstaged = 0
            return
        if self._model is None:
            yield Problem("model_version", item.id, "its registered model is missing in the source")
            return
        version = _version_document(item.body, self._model)
        if str(version["version"]) not in self._model["stages"]:
            self._newest_unstaged = max(self._newest_unstaged, version["version"])
        # A root of its own: a rollback must know it from the versions that people registered later.
        yield Write(ModelVersionFields, version)

    def finish(self) -> Iterable[Write]:
        model, self._model = self._model, None
        if model is not None:
            last = model["last_version"]
            if self._newest_unstaged != last:
                model["latest_unstaged"] = {"of": last, "version": self._newest_unstaged}
            yield Write(RegisteredModelFields, model)


def model_key(workspace: str, name: str) -> str:
    """The id that the model ``name`` of a source gets: the same each time it is imported."""
    return hashlib.blake2b(f"{workspace}\n{name}".encode(), digest_size=16, person=b"import").hexdigest()


def model_document(body: Body, context: Context) -> Document:
    name = context.models.get(body["name"], body["name"])
    document: Document = {
        "_id": model_key(context.workspace, body["name"]),
        "workspace": context.workspace,
        "name": name,
        "creation_time": body["creation_time"] or 0,
        "last_updated_time": body["last_updated_time"] or body["creation_time"] or 0,
        **_tags(body["tags"]),
        "last_version": body["last_version"],
        "aliases": dict(body["aliases"]),
        "stages": {str(version): stage for version, stage in body["stages"].items()},
        "revision": 0,
    }
    if body["description"] is not None:
        document["description"] = body["description"]
    return document


def _version_document(body: Body, model: Document) -> Document:
    number = int(body["version"])
    document: Document = {
        "_id": version_id(model["_id"], number),
        "workspace": model["workspace"],
        "model": model["_id"],
        "name": model["name"],
        "version": number,
        **kept("model_version", body),
        "creation_time": body["creation_time"] or 0,
        "last_updated_time": body["last_updated_time"] or body["creation_time"] or 0,
        **_tags(body["tags"]),
    }
    if body["model_id"] is not None:
        document["model_id"] = body["model_id"]
    if aliases := sorted(alias for alias, at in model["aliases"].items() if at == number):
        document["aliases"] = aliases
    return document


def _tags(tags: dict[str, Any]) -> Document:
    return tag_maps([SimpleNamespace(key=key, value=value) for key, value in tags.items()])
