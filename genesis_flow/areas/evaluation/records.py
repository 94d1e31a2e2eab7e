"""Records of evaluation datasets: upsert, read in pages, delete.

The inputs identify a record: its ``_id`` is their hash, and each record of a call is one update that inserts
or merges, so any number of writers at once, or the same call again, leave each record once. Outputs are
replaced, expectations and tags merged key by key, all else keeps its first value.

Round trips: upsert four (the dataset, its records, their number, the dataset's digest, schema and profile),
whatever the number of records; a page one; delete three.
"""

import json
import logging
import secrets
from dataclasses import dataclass
from typing import Any

from mlflow.entities import DatasetRecord, DatasetRecordSource, DatasetRecordSourceType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking import LOAD_DATASET_RECORDS_MAX_RESULTS
from mlflow.utils.mlflow_tags import MLFLOW_USER
from mlflow.utils.time import get_current_time_millis
from pymongo import ASCENDING, UpdateOne

from genesis_flow.areas.evaluation.documents import (
    DatasetRecordFields,
    EvaluationDatasetFields,
    dataset_digest,
    dataset_record_entity,
    json_fields,
    record_key,
)
from genesis_flow.areas.evaluation.schema import merged_schema
from genesis_flow.areas.experiments.guards import refuse_unknown_dataset
from genesis_flow.documents.keys import children_of
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, is_repetition, long_mutation, mutation, operation
from genesis_flow.mongo.scoping import scoped, workspaces_enabled
from genesis_flow.search.keyset import behind
from genesis_flow.search.tokens import create_token, parse_token

_logger = logging.getLogger(__name__)

_ORDER = [("created_time", ASCENDING), ("record_id", ASCENDING)]
# A document holds 16 MB, the rest of which is for the fields around the values.
_MOST_BYTES = 15 * 2**20
# MLflow's store writes this for a dataset that has lost its last record.
_NO_PROFILE = json.dumps(None)


class DatasetRecords(Area):
    @property
    def _dataset_records(self) -> Collection:
        return self.database.collection(DatasetRecordFields)

    @long_mutation
    async def upsert_dataset_records(self, dataset_id: str, records: list[dict[str, Any]]) -> dict[str, int]:
        """Add records to an evaluation dataset; those with the same inputs are changed."""
        now = get_current_time_millis()
        drawn = [_Record.of(dataset_id, record, index, now) for index, record in enumerate(records)]
        dataset = await self._dataset(dataset_id)
        inserted = 0
        if drawn:
            result = await self._dataset_records.bulk_write([record.upsert() for record in drawn])
            inserted = result.upserted_count
        user = next((record.user for record in reversed(drawn) if record.user is not None), None)
        await self._refresh(dataset, records, now, user)
        return {"inserted": inserted, "updated": len(drawn) - inserted}

    async def _dataset(self, dataset_id: str) -> Document:
        datasets = self.database.collection(EvaluationDatasetFields)
        dataset = await datasets.find_one(scoped({"_id": dataset_id}), {"name": 1, "schema": 1})
        if dataset is None:
            refuse_unknown_dataset(dataset_id)
        return dataset

    async def _require_visible(self, dataset_id: str) -> None:
        """Records have no workspace, and of a dataset that is not there MLflow answers that it has none."""
        if workspaces_enabled():
            await self._dataset(dataset_id)

    async def _refresh(
        self, dataset: Document, records: list[dict[str, Any]], now: int, user: str | None
    ) -> None:
        """Bring the digest, schema and profile of a dataset up to its records."""
        dataset_id = dataset["_id"]
        datasets = self.database.collection(EvaluationDatasetFields)
        while True:
            change: Document = {
                "last_update_time": now,
                "last_updated_by": user,
                "digest": dataset_digest(dataset["name"], now),
            }
            if schema := merged_schema(dataset.get("schema"), records):
                change["schema"] = schema
            if count := await self._count(dataset_id):
                change["profile"] = json.dumps({"num_records": count})
            # Only over the schema that was read: of two who add fields at once, one reads again.
            query = scoped({"_id": dataset_id, "schema": dataset.get("schema")})
            if (await datasets.update_one(query, {"$set": change})).matched_count:
                return
            try:
                dataset = await self._dataset(dataset_id)
            except MlflowException:  # deleted meanwhile, perhaps before these records came in
                await self._dataset_records.delete_many({"_id": children_of(dataset_id)})
                raise

    async def _count(self, dataset_id: str) -> int:
        return await self._dataset_records.count_documents({"_id": children_of(dataset_id)})

    @operation
    async def _load_dataset_records(
        self, dataset_id: str, max_results: int | None = None, page_token: str | None = None
    ) -> tuple[list[DatasetRecord], str | None]:
        await self._require_visible(dataset_id)
        limit = LOAD_DATASET_RECORDS_MAX_RESULTS if max_results == 0 else max_results
        asked = ["records", dataset_id]
        after = parse_token(page_token, asked, (int, str))
        query: Document = {"dataset_id": dataset_id}
        if after is not None:
            query = {"$and": [query, behind(_ORDER, after)]}
        records = await self._dataset_records.find(
            query, sort=_ORDER, limit=0 if limit is None else limit + 1, batch_size=BATCH
        ).to_list()
        token = None
        if limit is not None and len(records) > limit:
            records = records[:limit]
            token = create_token(asked, [records[-1][field] for field, _ in _ORDER])
        return [dataset_record_entity(document) for document in records], token

    @mutation
    async def delete_dataset_records(self, dataset_id: str, dataset_record_ids: list[str]) -> int:
        """Delete records of an evaluation dataset, and answer how many there were."""
        await self._require_visible(dataset_id)
        query = {"dataset_id": dataset_id, "record_id": {"$in": list(dataset_record_ids)}}
        deleted = (await self._dataset_records.delete_many(query)).deleted_count
        # An attempt whose answer was lost may have deleted them, and not yet have counted what is left.
        if not deleted and not is_repetition():
            _logger.warning(
                "No records found to delete for dataset %s. They may be deleted already, or never existed.",
                dataset_id,
            )
            return 0
        count = await self._count(dataset_id)
        profile = json.dumps({"num_records": count}) if count else _NO_PROFILE
        datasets = self.database.collection(EvaluationDatasetFields)
        await datasets.update_one(scoped({"_id": dataset_id}), {"$set": {"profile": profile}})
        return deleted


@dataclass(frozen=True, slots=True)
class _Record:
    """One record of an upsert as the update that inserts it or merges it into what is there."""

    key: str
    # For a new record, and in any case.
    inserted: Document
    merged: Document
    user: str | None

    @classmethod
    def of(cls, dataset_id: str, record: dict[str, Any], index: int, now: int) -> "_Record":
        try:
            return cls._of(dataset_id, record, index, now)
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise MlflowException.invalid_parameter_value(
                f"Invalid record {index}: {error}. A record is a dictionary whose 'inputs' and, if given, "
                "'expectations' and 'tags' are dictionaries of JSON values."
            ) from error

    @classmethod
    def _of(cls, dataset_id: str, record: dict[str, Any], index: int, now: int) -> "_Record":
        inputs = json.dumps(_mapping(record, "inputs", {}), sort_keys=True)
        tags, expectations = (_mapping(record, field, None) for field in ("tags", "expectations"))
        user = (tags or {}).get(MLFLOW_USER)
        inserted: Document = {
            "dataset_id": dataset_id,
            "record_id": _record_id(now, index),
            "inputs": inputs,
            "created_time": now,
            **_source(record.get("source")),
        }
        merged: Document = {"last_update_time": now}
        for name, values in (("tags", tags or {}), ("expectations", expectations)):
            if values:
                merged |= {f"{name}.{field}": text for field, text in json_fields(values).items()}
            elif values is not None:
                inserted[name] = {}
        if user is not None:
            inserted["created_by"] = user
            merged["last_updated_by"] = user
        # None stands for no outputs; a record that does not mention them has empty ones when it is new.
        outputs = record.get("outputs", {})
        (merged if "outputs" in record else inserted)["outputs"] = (
            None if outputs is None else json.dumps(outputs)
        )
        size = sum(
            len(text.encode()) for text in (*inserted.values(), *merged.values()) if isinstance(text, str)
        )
        if size > _MOST_BYTES:
            raise ValueError(f"it takes {size} bytes, and a record may take {_MOST_BYTES}")
        return cls(record_key(dataset_id, inputs), inserted, merged, user)

    def upsert(self) -> UpdateOne:
        return UpdateOne({"_id": self.key}, {"$setOnInsert": self.inserted, "$set": self.merged}, upsert=True)


def _mapping(record: dict[str, Any], field: str, default: Any) -> Any:
    value = record.get(field, default)
    if not isinstance(value, dict) and (field == "inputs" or value is not None):
        raise TypeError(f"'{field}' is {type(value).__name__}")
    return value


def _record_id(now: int, index: int) -> str:
    """Unique, and such that the records of one call are read in the order in which they were given."""
    return f"dr-{now:012x}{index:08x}{secrets.token_hex(6)}"


def _source(given: Any) -> Document:
    if not given:
        return {}
    source = given if isinstance(given, DatasetRecordSource) else DatasetRecordSource.from_dict(given)
    data = source.source_data or {}
    is_trace = source.source_type == DatasetRecordSourceType.TRACE
    fields: Document = {"source": json.dumps(source.to_dict())}
    if (source_id := data.get("trace_id" if is_trace else "source_id")) is not None:
        fields["source_id"] = source_id
    return fields
