"""Documents with what they name by id: one aggregation, or, where servers cannot join, a read for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from genesis_flow.areas.gateway.documents import (
    EndpointFields,
    GuardrailFields,
    ModelDefinitionFields,
    SecretFields,
)
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import scoped

_ENCRYPTED = ("value", "wrapped_dek", "kek_version")


@dataclass(frozen=True, slots=True)
class Join:
    """The documents of ``kind`` whose ids stand at ``path``, as a list in the field ``into``."""

    kind: type[Declared]
    path: str
    into: str
    without: tuple[str, ...] = ()


SECRETS = Join(SecretFields, "secret_id", "secrets", _ENCRYPTED)
DEFINITIONS = Join(ModelDefinitionFields, "models.model_definition_id", "definitions")
THEIR_SECRETS = Join(SecretFields, "definitions.secret_id", "secrets", _ENCRYPTED)
FULL_SECRETS = Join(SecretFields, "definitions.secret_id", "secrets")
GUARDRAILS = Join(GuardrailFields, "guardrails.guardrail_id", "passed")
REWRITING = Join(EndpointFields, "passed.action_endpoint_id", "rewriting", ("models", "guardrails", "tags"))

MODELS = (DEFINITIONS, THEIR_SECRETS)
GUARDED = (GUARDRAILS, REWRITING)
CALLED = (DEFINITIONS, FULL_SECRETS, *GUARDED)


async def read(database: Database, kind: type[Declared], query: Document, *joins: Join) -> list[Document]:
    """The documents that match, with what ``joins`` bring, in the order in which they were made."""
    join = _one_by_one if database.documents.portable else _at_once
    return sorted(await join(database, kind, scoped(query), joins), key=_creation)


def _creation(document: Document) -> tuple[int, str]:
    return (document["created_time"], document["_id"])


async def _at_once(
    database: Database, kind: type[Declared], query: Document, joins: tuple[Join, ...]
) -> list[Document]:
    pipeline: list[Document] = [{"$match": query}]
    for join in joins:
        pipeline.append(
            {
                "$lookup": {
                    "from": database.collection(join.kind).name,
                    "localField": join.path,
                    "foreignField": "_id",
                    "as": join.into,
                }
            }
        )
        if join.without:
            pipeline.append({"$project": {f"{join.into}.{field}": 0 for field in join.without}})
    cursor = await database.collection(kind).aggregate(pipeline, batchSize=BATCH)
    return await cursor.to_list()


async def _one_by_one(
    database: Database, kind: type[Declared], query: Document, joins: tuple[Join, ...]
) -> list[Document]:
    documents = await database.collection(kind).find(query, batch_size=BATCH).to_list()
    for join in joins:
        named = [set(_values(document, join.path)) for document in documents]
        wanted = sorted(set().union(*named))
        leaving_out = dict.fromkeys(join.without, 0)
        found: list[Document] = []
        if wanted:
            there = database.collection(join.kind).find(
                {"_id": {"$in": wanted}}, leaving_out or None, batch_size=BATCH
            )
            found = await there.to_list()
        for document, ids in zip(documents, named, strict=True):
            document[join.into] = [each for each in found if each["_id"] in ids]
    return documents


def _values(document: Any, path: str) -> Iterator[Any]:
    """What stands at a path, which may lead through lists."""
    field, _, rest = path.partition(".")
    value = document.get(field)
    for each in value if isinstance(value, list) else [value]:
        if rest and each is not None:
            yield from _values(each, rest)
        elif each is not None:
            yield each
