"""The AI gateway."""

from genesis_flow.areas.gateway.bindings import GatewayBindings
from genesis_flow.areas.gateway.budgets import GatewayBudgets
from genesis_flow.areas.gateway.documents import (
    BindingFields,
    BudgetFields,
    EndpointFields,
    GuardrailFields,
    ModelDefinitionFields,
    SecretFields,
)
from genesis_flow.areas.gateway.endpoints import GatewayEndpoints
from genesis_flow.areas.gateway.guardrails import GatewayGuardrails
from genesis_flow.areas.gateway.models import GatewayModels
from genesis_flow.areas.gateway.resolving import GatewayCalls
from genesis_flow.areas.gateway.secrets import GatewaySecrets
from genesis_flow.areas.gateway.spending import GatewaySpending
from genesis_flow.mongo.declaration import AreaDeclaration

AREA = AreaDeclaration(
    "gateway",
    documents=(
        SecretFields,
        ModelDefinitionFields,
        EndpointFields,
        BindingFields,
        BudgetFields,
        GuardrailFields,
    ),
    tracking=(
        GatewaySecrets,
        GatewayModels,
        GatewayEndpoints,
        GatewayBindings,
        GatewayBudgets,
        GatewayGuardrails,
        GatewayCalls,
        GatewaySpending,
    ),
)
