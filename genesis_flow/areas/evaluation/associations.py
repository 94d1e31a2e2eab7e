"""Which entities belong together: evaluation datasets to experiments, and whatever else MLflow ties.

An association is a document whose id comes from its two ends, so making or removing it again changes nothing.
Both directions are an index in the order in which MLflow lists them: by time, then by id. One round trip.
Links of traces are kept in the trace instead (``traces/links.py``).
"""

from typing import Any

from mlflow.entities.entity_type import EntityAssociationType
from mlflow.exceptions import MlflowException
from mlflow.store.entities.paged_list import PagedList
from pymongo import ASCENDING, UpdateOne

from genesis_flow.areas.evaluation.documents import EntityAssociationFields, association_key
from genesis_flow.areas.traces.links import LINKS, TRACE, linked_traces, links_of_traces
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import Area, operation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.search.keyset import behind
from genesis_flow.search.tokens import create_token, parse_token

DATASET = EntityAssociationType.EVALUATION_DATASET
EXPERIMENT = EntityAssociationType.EXPERIMENT


class Associations(Area):
    @operation
    async def search_entities_by_source(
        self,
        source_ids: str | list[str],
        source_type: str,
        destination_type: str,
        max_results: int | None = None,
        page_token: str | None = None,
    ) -> PagedList[str]:
        """A page of the ids of what these are linked to."""
        if source_type == TRACE and destination_type in LINKS:
            _check_page_size(max_results)
            ids = _ids_in(source_ids)
            return await links_of_traces(self.database, destination_type, ids, max_results, page_token)
        known = {
            "source_type": source_type,
            "source_id": {"$in": _ids_in(source_ids)},
            "destination_type": destination_type,
        }
        return await _associated(self.database, known, "destination_id", max_results, page_token)

    @operation
    async def search_entities_by_destination(
        self,
        destination_ids: str | list[str],
        destination_type: str,
        source_type: str,
        max_results: int | None = None,
        page_token: str | None = None,
    ) -> PagedList[str]:
        """A page of the ids of what is linked to these."""
        if source_type == TRACE and destination_type in LINKS:
            _check_page_size(max_results)
            ids = _ids_in(destination_ids)
            return await linked_traces(self.database, destination_type, ids, max_results, page_token)
        known = {
            "destination_type": destination_type,
            "destination_id": {"$in": _ids_in(destination_ids)},
            "source_type": source_type,
        }
        return await _associated(self.database, known, "source_id", max_results, page_token)


async def associate_with_experiments(
    database: Database, dataset_id: str, experiment_ids: list[str], now: int
) -> None:
    """Tie a dataset to experiments; those that it is tied to keep their time."""
    ties = [
        UpdateOne(
            {"_id": association_key(DATASET, dataset_id, EXPERIMENT, experiment_id)},
            {
                "$setOnInsert": {
                    "workspace": current_workspace(),
                    "source_type": DATASET,
                    "source_id": dataset_id,
                    "destination_type": EXPERIMENT,
                    "destination_id": experiment_id,
                    "created_time": now,
                }
            },
            upsert=True,
        )
        for experiment_id in experiment_ids
    ]
    if ties:
        await database.collection(EntityAssociationFields).bulk_write(ties, ordered=False)


async def datasets_of_experiments(database: Database, experiment_ids: list[str]) -> list[str]:
    query = {
        "destination_type": EXPERIMENT,
        "destination_id": {"$in": experiment_ids},
        "source_type": DATASET,
    }
    sources = database.collection(EntityAssociationFields).find(
        scoped(query), {"source_id": 1}, batch_size=BATCH
    )
    return sorted({each["source_id"] async for each in sources})


async def experiments_of_dataset(database: Database, dataset_id: str) -> list[str]:
    known = {
        "source_type": DATASET,
        "source_id": {"$in": _ids_in(dataset_id)},
        "destination_type": EXPERIMENT,
    }
    return list(await _associated(database, known, "destination_id", None, None))


async def forget_associations(database: Database, entity_type: str, entity_id: str) -> None:
    """Remove every association of an entity that is deleted."""
    ends = [{f"{end}_type": entity_type, f"{end}_id": entity_id} for end in ("source", "destination")]
    await database.collection(EntityAssociationFields).delete_many(scoped({"$or": ends}))


async def _associated(
    database: Database, known: dict[str, Any], wanted: str, max_results: int | None, page_token: str | None
) -> PagedList[str]:
    """The entities at the other end, each once in a page."""
    _check_page_size(max_results)
    sort = [("created_time", ASCENDING), (wanted, ASCENDING), ("_id", ASCENDING)]
    asked = [known, wanted]
    after = parse_token(page_token, asked, (int, str, str))
    query = scoped(known)
    if after is not None:
        query = {"$and": [query, behind(sort, after)]}
    limit = 0 if max_results is None else max_results + 1
    ties = (
        await database.collection(EntityAssociationFields)
        .find(query, sort=sort, limit=limit, batch_size=BATCH)
        .to_list()
    )
    token = None
    if max_results is not None and len(ties) > max_results:
        ties = ties[:max_results]
        token = create_token(asked, [ties[-1][field] for field, _ in sort])
    return PagedList(list(dict.fromkeys(each[wanted] for each in ties)), token)


def _check_page_size(max_results: int | None) -> None:
    if max_results is not None and max_results < 1:
        raise MlflowException.invalid_parameter_value(
            f"Invalid value {max_results} for parameter 'max_results' supplied. It must be a positive integer"
        )


def _ids_in(ids: str | list[str]) -> list[str]:
    return [ids] if isinstance(ids, str) else list(ids)
