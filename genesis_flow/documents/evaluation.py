"""Evaluation datasets, their records, and which entities belong together.

A record is a document of its own whose id comes from the dataset and the inputs, so that the same inputs
are the same record, whoever inserts them and however often. Values are kept as JSON text: they are whatever
a user's application takes and returns, with keys that BSON refuses and numbers that it cannot hold.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from mlflow.entities import DatasetRecord, DatasetRecordSource
from pydantic import BaseModel, ConfigDict, Field
from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.documents.entities import maybe
from genesis_flow.documents.keys import SEPARATOR, escape, unescape, unescape_map

if TYPE_CHECKING:
    from mlflow.entities import EvaluationDataset

Document = dict[str, Any]

# A field needs a name; `escape` makes no key into this one.
_EMPTY_KEY = "%"


class EvaluationDatasetFields(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    id: str = Field(alias="_id")
    workspace: str
    name: str
    digest: str
    # JSON texts, as MLflow's entity holds them.
    schema_: str | None = Field(default=None, alias="schema")
    profile: str | None = None
    created_time: int
    last_update_time: int
    created_by: str | None = None
    last_updated_by: str | None = None
    tags: dict[str, str | None] = Field(default_factory=dict)

    class Settings:
        name = "evaluation_datasets"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel(
                [("workspace", ASCENDING), ("created_time", DESCENDING), ("_id", DESCENDING)],
                name="by_creation_time",
            ),
            IndexModel([("workspace", ASCENDING), ("name", ASCENDING), ("_id", DESCENDING)], name="by_name"),
            IndexModel(
                [("workspace", ASCENDING), ("last_update_time", DESCENDING), ("_id", DESCENDING)],
                name="by_last_update",
            ),
            IndexModel([("tags.$**", ASCENDING)], name="tags"),
        ]
        keep_nulls = False


class DatasetRecordFields(BaseModel):
    # The dataset and the hash of the inputs: see record_key.
    id: str = Field(alias="_id")
    dataset_id: str
    record_id: str
    inputs: str
    outputs: str | None = None
    # Merged key by key, hence a map of JSON texts.
    expectations: dict[str, str] | None = None
    tags: dict[str, str] = Field(default_factory=dict)
    source: str | None = None
    source_id: str | None = None
    created_time: int
    last_update_time: int
    created_by: str | None = None
    last_updated_by: str | None = None

    class Settings:
        name = "evaluation_dataset_records"
        indexes: ClassVar[list[IndexModel]] = [
            # The order in which a dataset is read.
            IndexModel(
                [("dataset_id", ASCENDING), ("created_time", ASCENDING), ("record_id", ASCENDING)],
                name="by_creation_time",
            )
        ]
        keep_nulls = False


class EntityAssociationFields(BaseModel):
    """A source entity belongs to a destination entity, such as a dataset to an experiment."""

    # See association_key.
    id: str = Field(alias="_id")
    workspace: str
    source_type: str
    source_id: str
    destination_type: str
    destination_id: str
    created_time: int

    class Settings:
        name = "entity_associations"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel(
                [
                    ("source_type", ASCENDING),
                    ("source_id", ASCENDING),
                    ("destination_type", ASCENDING),
                    ("created_time", ASCENDING),
                    ("destination_id", ASCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_source",
            ),
            IndexModel(
                [
                    ("destination_type", ASCENDING),
                    ("destination_id", ASCENDING),
                    ("source_type", ASCENDING),
                    ("created_time", ASCENDING),
                    ("source_id", ASCENDING),
                    ("_id", ASCENDING),
                ],
                name="by_destination",
            ),
        ]


def record_key(dataset_id: str, inputs: str) -> str:
    """The ``_id`` of the record with these inputs, which are JSON text with sorted keys."""
    return f"{dataset_id}{SEPARATOR}{hashlib.sha256(inputs.encode()).hexdigest()}"


def dataset_digest(name: str, last_update_time: int) -> str:
    """The digest that MLflow gives a dataset: another one whenever its records change."""
    return hashlib.sha256(f"{name}:{last_update_time}".encode()).hexdigest()[:8]


def association_key(source_type: str, source_id: str, destination_type: str, destination_id: str) -> str:
    """The same two entities make the same association, so that making it again changes nothing."""
    ends = json.dumps([source_type, source_id, destination_type, destination_id])
    return hashlib.blake2b(ends.encode(), digest_size=16).hexdigest()


def json_fields(values: Mapping[Any, Any]) -> dict[str, str]:
    """A map of JSON texts by escaped key."""
    # JSON writes keys that are no text as text, by rules of its own.
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return {escape(key) or _EMPTY_KEY: json.dumps(value) for key, value in plain.items()}


def _json_values(fields: dict[str, str]) -> dict[str, Any]:
    return {
        "" if field == _EMPTY_KEY else unescape(field): json.loads(text) for field, text in fields.items()
    }


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
