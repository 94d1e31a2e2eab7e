"""Evaluation datasets, their records, and which entities belong together.

A record is a document of its own whose id comes from the dataset and the inputs, so that the same inputs
are the same record, whoever inserts them and however often. Values are kept as JSON text: they are whatever
a user's application takes and returns, with keys that BSON refuses and numbers that it cannot hold.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow.entities import DatasetRecord, DatasetRecordSource
from pydantic import ConfigDict, Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.entities import maybe
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.keys import SEPARATOR, escape, unescape, unescape_map
from genesis_flow.documents.plain import Document

if TYPE_CHECKING:
    from mlflow.entities import EvaluationDataset


class EvaluationDatasetFields(Declared):
    """An evaluation dataset with its tags, schema and profile."""

    model_config = ConfigDict(populate_by_name=True)

    id: str = Field(alias="_id", description="Dataset id, `d-…`.")
    workspace: str = Field(description="Workspace; every query names it.")
    name: str = Field(description="Name.")
    digest: str = Field(description="Changes whenever its records do.")
    schema_: str | None = Field(
        default=None, alias="schema", description="JSON text, as MLflow's entity holds it."
    )
    profile: str | None = Field(default=None, description="JSON text, as MLflow's entity holds it.")
    created_time: int = Field(description="When it was made.")
    last_update_time: int = Field(description="When it last changed.")
    created_by: str | None = Field(default=None, description="Who made it.")
    last_updated_by: str | None = Field(default=None, description="Who changed it last.")
    tags: dict[str, str | None] = Field(default_factory=dict, description="Values by escaped key.")

    class Settings(CollectionSettings):
        name = "evaluation_datasets"
        indexes = [
            Index(
                [("workspace", ASCENDING), ("created_time", DESCENDING), ("_id", DESCENDING)],
                name="by_creation_time",
                serves="The list of datasets, newest first.",
            ),
            Index(
                [("workspace", ASCENDING), ("name", ASCENDING), ("_id", DESCENDING)],
                name="by_name",
                serves="Filters and orders by name.",
            ),
            Index(
                [("workspace", ASCENDING), ("last_update_time", DESCENDING), ("_id", DESCENDING)],
                name="by_last_update",
                serves="The list, the last changed first.",
            ),
            Index([("tags.$**", ASCENDING)], name="tags", serves="Filters by a tag."),
        ]
        keep_nulls = False


class DatasetRecordFields(Declared):
    """A record of an evaluation dataset."""

    id: str = Field(
        alias="_id", description="`dataset|hash of the inputs`: the same inputs are the same record."
    )
    dataset_id: str = Field(description="Its dataset.")
    record_id: str = Field(description="Record id, `dr-…`.")
    inputs: str = Field(description="JSON text with sorted keys.")
    outputs: str | None = Field(default=None, description="JSON text.")
    expectations: dict[str, str] | None = Field(
        default=None, description="JSON texts by escaped key, which are merged key by key."
    )
    tags: dict[str, str] = Field(default_factory=dict, description="JSON texts by escaped key.")
    source: str | None = Field(default=None, description="Where it came from, as JSON text.")
    source_id: str | None = Field(default=None, description="Id of the source, such as a trace.")
    created_time: int = Field(description="When it was made.")
    last_update_time: int = Field(description="When it last changed.")
    created_by: str | None = Field(default=None, description="Who made it.")
    last_updated_by: str | None = Field(default=None, description="Who changed it last.")

    class Settings(CollectionSettings):
        name = "evaluation_dataset_records"
        refers = {"dataset_id": "evaluation_datasets"}
        indexes = [
            Index(
                [("dataset_id", ASCENDING), ("created_time", ASCENDING), ("record_id", ASCENDING)],
                name="by_creation_time",
                serves="The order in which a dataset is read.",
            ),
        ]
        keep_nulls = False


class EntityAssociationFields(Declared):
    """A source entity belongs to a destination entity, such as a dataset to an experiment."""

    id: str = Field(alias="_id", description="Hash of both ends: see `association_key`.")
    workspace: str = Field(description="Workspace; every query names it.")
    source_type: str = Field(description="Kind of the one entity, such as `evaluation_dataset`.")
    source_id: str = Field(description="Its id.")
    destination_type: str = Field(description="Kind of the other entity, such as `experiment`.")
    destination_id: str = Field(description="Its id.")
    created_time: int = Field(description="When they were joined.")

    class Settings(CollectionSettings):
        name = "entity_associations"
        indexes = [
            Index(
                [
                    ("source_type", ASCENDING),
                    ("source_id", ASCENDING),
                    ("destination_type", ASCENDING),
                    ("created_time", ASCENDING),
                    ("destination_id", ASCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_source",
                serves="What a source belongs to, by time.",
            ),
            Index(
                [
                    ("destination_type", ASCENDING),
                    ("destination_id", ASCENDING),
                    ("source_type", ASCENDING),
                    ("created_time", ASCENDING),
                    ("source_id", ASCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_destination",
                serves="What belongs to a destination, by time.",
            ),
        ]


def record_key(dataset_id: str, inputs: str) -> str:
    """The ``_id`` of the record with these inputs, which are JSON text with sorted keys."""
    return f"{dataset_id}{SEPARATOR}{hashlib.sha256(inputs.encode()).hexdigest()}"


def dataset_digest(name: str, last_update_time: int) -> str:
    """The digest that MLflow gives a dataset: another one whenever its records change."""
    return hashlib.sha256(f"{name}:{last_update_time}".encode()).hexdigest()[:8]


def association_key(source_type: str, source_id: str, destination_type: str, destination_id: str) -> str:
    """The ``_id`` of an association. It follows from the two entities, so making it again changes nothing."""
    ends = json.dumps([source_type, source_id, destination_type, destination_id])
    return hashlib.blake2b(ends.encode(), digest_size=16).hexdigest()


def json_fields(values: Mapping[Any, Any]) -> dict[str, str]:
    """A map of JSON texts by escaped key."""
    # JSON writes keys that are no text as text, by rules of its own.
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return {escape(key): json.dumps(value) for key, value in plain.items()}


def _json_values(fields: dict[str, str]) -> dict[str, Any]:
    return {unescape(field): json.loads(text) for field, text in fields.items()}


def evaluation_dataset_entity(document: Document) -> "EvaluationDataset":
    # Brings in mlflow.data, which clients that only log do not need.
    from mlflow.entities import EvaluationDataset

    return EvaluationDataset(
        dataset_id=document["_id"],
        name=document["name"],
        digest=document["digest"],
        created_time=int(document["created_time"]),
        last_update_time=int(document["last_update_time"]),
        tags=unescape_map(document.get("tags")),
        schema=document.get("schema"),
        profile=document.get("profile"),
        created_by=document.get("created_by"),
        last_updated_by=document.get("last_updated_by"),
    )


def dataset_record_entity(document: Document) -> DatasetRecord:
    outputs, expectations, source = (document.get(field) for field in ("outputs", "expectations", "source"))
    return DatasetRecord(
        dataset_id=document["dataset_id"],
        inputs=json.loads(document["inputs"]),
        dataset_record_id=document["record_id"],
        created_time=int(document["created_time"]),
        last_update_time=int(document["last_update_time"]),
        outputs=None if outputs is None else json.loads(outputs),
        expectations=None if expectations is None else _json_values(expectations),
        tags=_json_values(document.get("tags") or {}),
        source=None if source is None else DatasetRecordSource.from_dict(json.loads(source)),
        source_id=maybe(document, "source_id"),
        created_by=document.get("created_by"),
        last_updated_by=document.get("last_updated_by"),
    )
