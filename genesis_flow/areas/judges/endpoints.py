"""The endpoints of the AI gateway, as far as scorers need them: names for ids, and an id for a name."""

from collections.abc import Iterable

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import scoped


class EndpointNames(Declared):
    """What is read of the gateway's endpoints; the collection is the gateway's."""

    class Settings(CollectionSettings):
        name = "gateway_endpoints"


async def endpoint_id_of(database: Database, name: str) -> str:
    """The id of the endpoint that is called so."""
    found = await database.collection(EndpointNames).find_one(scoped({"name": name}), {"_id": 1})
    if found is None:
        raise MlflowException(f"GatewayEndpoint not found (name='{name}')", RESOURCE_DOES_NOT_EXIST)
    return str(found["_id"])


async def endpoint_names(database: Database, ids: Iterable[str]) -> dict[str, str]:
    """The names of the endpoints that are there, by id; nothing is asked for no ids."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    query = scoped({"_id": {"$in": wanted}})
    endpoints = database.collection(EndpointNames).find(query, {"name": 1}, batch_size=BATCH)
    return {each["_id"]: each["name"] for each in await endpoints.to_list() if each.get("name")}
