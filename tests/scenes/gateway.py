"""The AI gateway: secrets, models, endpoints, bindings, budgets and guardrails."""

from mlflow.entities import GatewayEndpointModelConfig, GatewayEndpointTag
from mlflow.entities.gateway_budget_policy import (
    BudgetAction,
    BudgetDuration,
    BudgetDurationUnit,
    BudgetTargetScope,
    BudgetUnit,
)
from mlflow.entities.gateway_endpoint import GatewayModelLinkageType
from mlflow.entities.gateway_guardrail import GuardrailAction, GuardrailStage

from tests.scenes.judges import SCORER
from tests.scenes.stage import Call, Stage


async def scene(stage: Stage) -> None:
    call = stage.track
    secret = await secrets(call)
    model = await models(call, secret)
    endpoint = await endpoints(call, model)
    await budgets(call)
    await guardrails(call, endpoint)
    stage["endpoint"] = endpoint


async def secrets(call: Call) -> str:
    secret: str = (await call("create_gateway_secret", "key", {"api_key": "sk-1234567890"})).secret_id
    doomed = (await call("create_gateway_secret", "doomed", {"api_key": "sk-1234567890"})).secret_id
    await call("get_secret_info", secret)
    await call("list_secret_infos")
    await call("update_gateway_secret", secret, {"api_key": "sk-0987654321"})
    await call("_get_decrypted_secret", secret)
    await call("delete_gateway_secret", doomed)
    return secret


async def models(call: Call, secret: str) -> str:
    openai = (secret, "openai", "x")
    model: str = (await call("create_gateway_model_definition", "model", *openai)).model_definition_id
    doomed = (await call("create_gateway_model_definition", "doomed", *openai)).model_definition_id
    await call("get_gateway_model_definition", model)
    await call("list_gateway_model_definitions")
    await call("update_gateway_model_definition", model, "other")
    await call("delete_gateway_model_definition", doomed)
    return model


async def endpoints(call: Call, model: str) -> str:
    primary, fallback = (GatewayEndpointModelConfig(model, kind) for kind in GatewayModelLinkageType)
    endpoint: str = (await call("create_gateway_endpoint", "chat", [primary])).endpoint_id
    doomed = (await call("create_gateway_endpoint", "doomed", [primary])).endpoint_id
    await call("get_gateway_endpoint", endpoint)
    await call("list_gateway_endpoints")
    await call("_resolve_gateway_endpoint", "chat")
    await call("attach_model_to_endpoint", endpoint, fallback)
    await call("detach_model_from_endpoint", endpoint, model, "FALLBACK")
    await call("update_gateway_endpoint", endpoint, "renamed")
    await call("set_gateway_endpoint_tag", endpoint, GatewayEndpointTag("k", "v"))
    await call("set_gateway_endpoint_tag", endpoint, GatewayEndpointTag("doomed", "v"))
    await call("delete_gateway_endpoint_tag", endpoint, "doomed")
    await call("create_endpoint_binding", endpoint, "scorer", "bound")
    await call("create_endpoint_binding", endpoint, "scorer", "doomed")
    await call("list_endpoint_bindings", endpoint)
    await call("delete_endpoint_binding", endpoint, "scorer", "doomed")
    await call("delete_gateway_endpoint", doomed)
    return endpoint


async def budgets(call: Call) -> None:
    day = BudgetDuration(BudgetDurationUnit.DAYS, 1)
    rule = (day, BudgetTargetScope.GLOBAL, BudgetAction.REJECT)
    budget = (await call("create_budget_policy", BudgetUnit.USD, 1.0, *rule)).budget_policy_id
    doomed = (await call("create_budget_policy", BudgetUnit.USD, 1.0, *rule)).budget_policy_id
    await call("get_budget_policy", budget)
    await call("list_budget_policies")
    await call("list_budget_policies_across_workspaces")
    await call("update_budget_policy", budget, budget_amount=2.0)
    await call("sum_gateway_trace_cost", 0, 1)
    await call("_count_gateway_cost", "a call", 0.5, "e-1", "default", "ann")
    await call("_exceeded_gateway_budget", "e-1", "default", "ann")
    await call("_gateway_budget_windows")
    await call("delete_budget_policy", doomed)


async def guardrails(call: Call, endpoint: str) -> None:
    scorer = (await call("register_scorer", "0", "rule", SCORER)).scorer_id
    rule = (scorer, 1, GuardrailStage.BEFORE, GuardrailAction.VALIDATION)
    guardrail = (await call("create_gateway_guardrail", "guardrail", *rule)).guardrail_id
    doomed = (await call("create_gateway_guardrail", "doomed", *rule)).guardrail_id
    await call("get_gateway_guardrail", guardrail)
    await call("list_gateway_guardrails")
    await call("add_guardrail_to_endpoint", endpoint, guardrail)
    await call("add_guardrail_to_endpoint", endpoint, doomed)
    await call("update_endpoint_guardrail_config", endpoint, guardrail, 1)
    await call("list_endpoint_guardrail_configs", endpoint)
    await call("remove_guardrail_from_endpoint", endpoint, doomed)
    await call("delete_gateway_guardrail", doomed)
