"""Endpoints as calls need them: with their models, decrypted secrets and guardrails. Only the server asks.

Round trips: one, at most once a second for each endpoint and process; then none, and a blocking caller need
not go to the loop either.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from genesis_flow.areas.gateway import entities as told
from genesis_flow.areas.gateway.documents import EndpointFields
from genesis_flow.areas.gateway.guardrails import guardrail_configs
from genesis_flow.areas.gateway.joining import CALLED, read
from genesis_flow.areas.gateway.remembered import at_hand, remembered
from genesis_flow.areas.gateway.shared import missing
from genesis_flow.compat import crypto
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import Area, operation
from genesis_flow.mongo.scoping import current_workspace

if TYPE_CHECKING:
    from mlflow.entities.gateway_guardrail import GatewayGuardrailConfig
    from mlflow.store.tracking.gateway.entities import GatewayEndpointConfig


class GatewayCalls(Area):
    @operation
    async def _resolve_gateway_endpoint(
        self, name: str
    ) -> "tuple[GatewayEndpointConfig, list[GatewayGuardrailConfig]]":
        """What a call of an endpoint needs, and what it passes."""

        async def look() -> Document | None:
            found = await read(self.database, EndpointFields, {"name": name}, *CALLED)
            return found[0] if found else None

        document = await remembered(self.database, _key(name), look)
        if document is None:
            raise missing("GatewayEndpoint", name=name)()
        if crypto.is_derived():
            return _resolved(document)
        return await asyncio.to_thread(_resolved, document)


def endpoint_at_hand(
    database: Database, name: str
) -> "tuple[GatewayEndpointConfig, list[GatewayGuardrailConfig]] | None":
    """What a call needs, if this process remembers it. For any thread."""
    document = at_hand(database, _key(name))
    return _resolved(document) if document is not None and crypto.is_derived() else None


def _key(name: str) -> tuple[str, str, str]:
    return ("endpoint", current_workspace(), name)


def _resolved(document: Document) -> "tuple[GatewayEndpointConfig, list[GatewayGuardrailConfig]]":
    return endpoint_config(document), guardrail_configs(document)


def endpoint_config(document: Document) -> "GatewayEndpointConfig":
    # Imported here: a client that logs metrics does not need it.
    from mlflow.store.tracking.gateway.entities import GatewayEndpointConfig

    experiment = document.get("experiment_id")
    return GatewayEndpointConfig(
        endpoint_id=document["_id"],
        endpoint_name=document["name"],
        models=_models(document),
        routing_strategy=told.routing_strategy(document),
        fallback_config=told.fallback_config(document),
        experiment_id=None if experiment is None else str(experiment),
        usage_tracking=document["usage_tracking"] and experiment is not None,
    )


def _models(document: Document) -> list[Any]:
    """Those that can be called: a model whose secret was deleted cannot."""
    from mlflow.store.tracking.gateway.entities import GatewayModelConfig

    definitions = {each["_id"]: each for each in document["definitions"]}
    secrets = {each["_id"]: each for each in document["secrets"]}
    models = []
    for attached in document["models"]:
        definition = definitions.get(attached["model_definition_id"])
        if definition is None:
            raise missing("GatewayModelDefinition", model_definition_id=attached["model_definition_id"])()
        secret = secrets.get(definition.get("secret_id"))
        if secret is None:
            continue
        linked = told.mapping(document["_id"], attached, [], [])
        models.append(
            GatewayModelConfig(
                model_definition_id=definition["_id"],
                provider=definition["provider"],
                model_name=definition["model_name"],
                secret_value=crypto.decrypted(secret),
                auth_config=told.secret_info(secret).auth_config,
                weight=linked.weight,
                linkage_type=linked.linkage_type,
                fallback_order=linked.fallback_order,
            )
        )
    return models
