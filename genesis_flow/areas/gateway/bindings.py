"""What uses the gateway's endpoints. A scorer says itself which endpoint its last version has.

Round trips: list two, side by side; create three; delete two.
"""

import asyncio
from typing import Any

from mlflow.entities import GatewayEndpointBinding, GatewayResourceType

from genesis_flow.areas.gateway import entities as told
from genesis_flow.areas.gateway.documents import CREATION_ORDER, BindingFields
from genesis_flow.areas.gateway.shared import missing, new, require_endpoint
from genesis_flow.areas.judges.documents import ScorerFields
from genesis_flow.core.errors import invalid
from genesis_flow.documents.keys import SEPARATOR
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import scoped

SCORER = GatewayResourceType.SCORER.value


class GatewayBindings(Area):
    @property
    def _bindings(self) -> Collection:
        return self.database.collection(BindingFields)

    @property
    def _bound_scorers(self) -> Collection:
        return self.database.collection(ScorerFields)

    @mutation
    async def create_endpoint_binding(
        self,
        endpoint_id: str,
        resource_type: str,
        resource_id: str,
        created_by: str | None = None,
    ) -> GatewayEndpointBinding:
        """Note that something uses an endpoint."""
        await require_endpoint(self.database, endpoint_id, "GatewayEndpoint")
        if resource_type != SCORER:
            raise invalid(
                f"resource_type must be {SCORER!r}, the only kind there is, not {resource_type!r:.100}."
            )
        if not isinstance(resource_id, str):
            raise invalid("resource_id must be a text. Name what uses the endpoint.")
        document = new(
            BindingFields,
            SEPARATOR.join((endpoint_id, resource_type, resource_id)),
            created_by,
            endpoint_id=endpoint_id,
            resource_type=resource_type,
            resource_id=resource_id,
        )
        refusal = entities.taken(
            f"The {resource_type} '{resource_id}' is already bound to endpoint '{endpoint_id}'"
        )
        said = scoped({"_id": resource_id, "binding.endpoint_id": endpoint_id})
        if await self._bound_scorers.find_one(said, {"_id": 1}) is not None:
            raise refusal()
        return told.binding(await entities.insert(self._bindings, document, refusal))

    @mutation
    async def delete_endpoint_binding(self, endpoint_id: str, resource_type: str, resource_id: str) -> None:
        """Note that something no longer uses an endpoint."""
        named = {"endpoint_id": endpoint_id, "resource_type": resource_type, "resource_id": resource_id}
        gone = (await self._bindings.delete_one(scoped(named))).deleted_count
        if resource_type == SCORER:
            said = scoped({"_id": resource_id, "binding.endpoint_id": endpoint_id})
            unset = {"$unset": {"binding": ""}}
            gone += (await self._bound_scorers.update_one(said, unset)).matched_count
        if not gone and not is_repetition():
            raise missing("GatewayEndpointBinding", **named)()

    @operation
    async def list_endpoint_bindings(
        self,
        endpoint_id: str | None = None,
        resource_type: str | None = None,
        resource_id: str | None = None,
    ) -> list[GatewayEndpointBinding]:
        """What uses an endpoint, or what something uses, if they are named; else all."""
        given = {"endpoint_id": endpoint_id, "resource_type": resource_type, "resource_id": resource_id}
        query: Document = {field: value for field, value in given.items() if value is not None}
        noted = self._bindings.find(scoped(query), sort=CREATION_ORDER, batch_size=BATCH)
        found, scorers = await asyncio.gather(noted.to_list(), self._scorers_bound(query))
        return [
            *(told.binding(each) for each in found),
            *(told.binding_of_scorer(each) for each in scorers),
        ]

    async def _scorers_bound(self, named: Document) -> list[Document]:
        if named.get("resource_type", SCORER) != SCORER:
            return []
        query: dict[str, Any] = {"binding.endpoint_id": named.get("endpoint_id", {"$exists": True})}
        if "resource_id" in named:
            query["_id"] = named["resource_id"]
        found = self._bound_scorers.find(scoped(query), {"binding": 1, "name": 1}, batch_size=BATCH)
        return await found.to_list()
