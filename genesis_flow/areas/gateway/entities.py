"""The gateway's documents as MLflow's entities."""

import json
from typing import Any

from mlflow.entities import (
    FallbackConfig,
    GatewayEndpoint,
    GatewayEndpointBinding,
    GatewayEndpointModelMapping,
    GatewayEndpointTag,
    GatewayModelDefinition,
    GatewayResourceType,
    GatewaySecretInfo,
    RoutingStrategy,
    ScorerVersion,
)
from mlflow.entities.gateway_budget_policy import (
    BudgetAction,
    BudgetDuration,
    BudgetDurationUnit,
    BudgetTargetScope,
    BudgetUnit,
    GatewayBudgetPolicy,
)
from mlflow.entities.gateway_endpoint import FallbackStrategy, GatewayModelLinkageType
from mlflow.entities.gateway_guardrail import (
    GatewayGuardrail,
    GatewayGuardrailConfig,
    GuardrailAction,
    GuardrailStage,
)

from genesis_flow.documents.entities import whole
from genesis_flow.documents.keys import unescape
from genesis_flow.documents.plain import Document


def _made(document: Document) -> dict[str, Any]:
    return {
        "created_at": whole(document["created_time"]),
        "last_updated_at": whole(document["last_update_time"]),
        "created_by": document.get("created_by"),
        "last_updated_by": document.get("last_updated_by"),
    }


def secret_info(document: Document) -> GatewaySecretInfo:
    return GatewaySecretInfo(
        secret_id=document["_id"],
        secret_name=document["name"],
        masked_values=json.loads(document["masked"]),
        provider=document.get("provider"),
        auth_config=json.loads(document["auth_config"]) if document.get("auth_config") else None,
        workspace=document["workspace"],
        **_made(document),
    )


def model_definition(document: Document, secrets: list[Document]) -> GatewayModelDefinition:
    """A secret that is gone is none, whether or not its deletion came to the models that named it."""
    secret = next((each for each in secrets if each["_id"] == document.get("secret_id")), None)
    return GatewayModelDefinition(
        model_definition_id=document["_id"],
        name=document["name"],
        secret_id=secret["_id"] if secret else None,
        secret_name=secret["name"] if secret else None,
        provider=document["provider"],
        model_name=document["model_name"],
        workspace=document["workspace"],
        **_made(document),
    )


def mapping(
    endpoint_id: str, document: Document, definitions: list[Document], secrets: list[Document]
) -> GatewayEndpointModelMapping:
    definition = next((each for each in definitions if each["_id"] == document["model_definition_id"]), None)
    return GatewayEndpointModelMapping(
        mapping_id=document["mapping_id"],
        endpoint_id=endpoint_id,
        model_definition_id=document["model_definition_id"],
        model_definition=model_definition(definition, secrets) if definition else None,
        weight=float(document["weight"]),
        linkage_type=GatewayModelLinkageType(document["linkage_type"]),
        fallback_order=whole(document.get("fallback_order")),
        created_at=int(document["created_time"]),
        created_by=document.get("created_by"),
    )


def endpoint(document: Document) -> GatewayEndpoint:
    """With what ``MODELS`` has brought."""
    experiment = document.get("experiment_id")
    return GatewayEndpoint(
        endpoint_id=document["_id"],
        name=document.get("name"),
        model_mappings=[
            mapping(document["_id"], each, document["definitions"], document["secrets"])
            for each in document["models"]
        ],
        tags=[GatewayEndpointTag(unescape(key), value) for key, value in document["tags"].items()],
        routing_strategy=routing_strategy(document),
        fallback_config=fallback_config(document),
        experiment_id=None if experiment is None else str(experiment),
        usage_tracking=document["usage_tracking"],
        workspace=document["workspace"],
        **_made(document),
    )


def routing_strategy(document: Document) -> RoutingStrategy | None:
    return RoutingStrategy(document["routing_strategy"]) if document.get("routing_strategy") else None


def fallback_config(document: Document) -> FallbackConfig | None:
    fallback = document.get("fallback")
    if fallback is None:
        return None
    strategy = fallback.get("strategy")
    return FallbackConfig(
        strategy=FallbackStrategy(strategy) if strategy else None,
        max_attempts=whole(fallback.get("max_attempts")),
    )


def binding(document: Document, display_name: str | None = None) -> GatewayEndpointBinding:
    return GatewayEndpointBinding(
        endpoint_id=document["endpoint_id"],
        resource_type=GatewayResourceType(document["resource_type"]),
        resource_id=document["resource_id"],
        display_name=display_name,
        **_made(document),
    )


def binding_of_scorer(scorer: Document) -> GatewayEndpointBinding:
    """What a scorer says itself of its endpoint."""
    said = scorer["binding"]
    return binding(
        {
            "endpoint_id": said["endpoint_id"],
            "resource_type": GatewayResourceType.SCORER.value,
            "resource_id": scorer["_id"],
            "created_time": said["time"],
            "last_update_time": said.get("updated", said["time"]),
        },
        scorer["name"],
    )


def budget_policy(document: Document) -> GatewayBudgetPolicy:
    return GatewayBudgetPolicy(
        budget_policy_id=document["_id"],
        budget_unit=BudgetUnit(document["unit"]),
        budget_amount=document["amount"],
        duration=BudgetDuration(
            unit=BudgetDurationUnit(document["duration_unit"]), value=int(document["duration_value"])
        ),
        target_scope=BudgetTargetScope(document["target_scope"]),
        budget_action=BudgetAction(document["action"]),
        workspace=document["workspace"],
        target_value=document.get("target_value"),
        **_made(document),
    )


def guardrail(document: Document, names: dict[str, str | None]) -> GatewayGuardrail:
    """``names`` are those of the endpoints that rewrite, by id."""
    scorer = document["scorer"]
    return GatewayGuardrail(
        guardrail_id=document["_id"],
        name=document["name"],
        scorer=ScorerVersion(
            experiment_id=str(scorer["experiment_id"]),
            scorer_name=scorer["name"],
            scorer_version=int(scorer["version"]),
            serialized_scorer=scorer["text"],
            creation_time=int(scorer["creation_time"]),
            scorer_id=scorer["id"],
        ),
        stage=GuardrailStage(document["stage"]),
        action=GuardrailAction(document["action"]),
        action_endpoint_name=names.get(document.get("action_endpoint_id") or ""),
        workspace=document["workspace"],
        **_made(document),
    )


def guardrail_config(
    endpoint_document: Document, config: Document, found: GatewayGuardrail | None
) -> GatewayGuardrailConfig:
    return GatewayGuardrailConfig(
        endpoint_id=endpoint_document["_id"],
        guardrail_id=config["guardrail_id"],
        execution_order=whole(config.get("order")),
        created_at=int(config["created_time"]),
        created_by=config.get("created_by"),
        guardrail=found,
        workspace=endpoint_document["workspace"],
    )
