"""The AI gateway, as far as scorers need it: names and ids of endpoints, and which scorers are guardrails."""

from collections.abc import Iterable

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE, RESOURCE_DOES_NOT_EXIST

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import scoped


class EndpointNames(Declared):
    """Fields that are read of the gateway's endpoints; the collection is the gateway's."""

    class Settings(CollectionSettings):
        name = "gateway_endpoints"


class GuardrailScorers(Declared):
    """Fields that are read of the gateway's guardrails; the collection is the gateway's."""

    class Settings(CollectionSettings):
        name = "gateway_guardrails"


async def refuse_guardrail(database: Database, scorer_id: str, version: int | str | None) -> None:
    """Refuse to delete what a guardrail is made of; MLflow's SQL store leaves that to its database."""
    query = {"scorer.id": scorer_id} | ({} if version is None else {"scorer.version": int(version)})
    guardrail = await database.collection(GuardrailScorers).find_one(scoped(query), {"name": 1})
    if guardrail is not None:
        raise MlflowException(
            f"The guardrail {guardrail['name']!r} uses this scorer: delete the guardrail first.",
            INVALID_STATE,
        )


async def endpoint_id_of(database: Database, name: str) -> str:
    """The id of the endpoint that is called so."""
    endpoint = await database.collection(EndpointNames).find_one(scoped({"name": name}), {"_id": 1})
    if endpoint is None:
        raise MlflowException(f"GatewayEndpoint not found (name='{name}')", RESOURCE_DOES_NOT_EXIST)
    return str(endpoint["_id"])


async def endpoint_names(database: Database, ids: Iterable[str]) -> dict[str, str]:
    """The names of the endpoints that are there, by id; nothing is asked for no ids."""
    wanted = sorted(set(ids))
    if not wanted:
        return {}
    query = scoped({"_id": {"$in": wanted}})
    endpoints = database.collection(EndpointNames).find(query, {"name": 1}, batch_size=BATCH)
    return {each["_id"]: each["name"] for each in await endpoints.to_list() if each.get("name")}
