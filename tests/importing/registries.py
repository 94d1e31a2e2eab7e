"""What MLflow's SQL store has of the gateway, of MCP servers and of skills, with every field it can set."""

from typing import Any

from mlflow.entities import (
    FallbackConfig,
    FallbackStrategy,
    GatewayEndpointModelConfig,
    GatewayEndpointTag,
    RoutingStrategy,
)
from mlflow.entities.gateway_budget_policy import (
    BudgetAction,
    BudgetDuration,
    BudgetDurationUnit,
    BudgetTargetScope,
    BudgetUnit,
)
from mlflow.entities.gateway_endpoint import GatewayModelLinkageType
from mlflow.entities.gateway_guardrail import GuardrailAction, GuardrailStage
from mlflow.entities.mcp_server import MCPStatus, MCPTool
from mlflow.entities.mcp_server_version import ConnectOptionSettings
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.importing.stores import plain
from tests.versions import SINCE_3_18

GATEWAY_TABLES = (
    *("secrets", "model_definitions", "endpoints", "endpoint_model_mappings", "endpoint_tags"),
    *("endpoint_bindings", "budget_policies", "guardrails", "guardrail_configs"),
)
SKILL_TABLES = (
    ("skills", "skill_versions", "skill_tags", "skill_version_tags", "skill_aliases") if SINCE_3_18 else ()
)
TABLES = (
    *GATEWAY_TABLES,
    *("mcp_servers", "mcp_server_versions", "mcp_server_tags", "mcp_server_version_tags"),
    *("mcp_server_aliases", "mcp_access_endpoints"),
    *SKILL_TABLES,
)
COLLECTIONS = (
    *("gateway_secrets", "gateway_models", "gateway_endpoints", "gateway_bindings", "gateway_budgets"),
    *("gateway_guardrails", "mcp_servers", "mcp_contents"),
    *(("skills",) if SINCE_3_18 else ()),
)
VALUES = {"api_key": "sk-canary-1234567890"}
TOOL, WEATHER = "com.example/tool", "com.example/weather"


def fill_gateway(store: SqlAlchemyStore) -> None:
    """Behind the scorers of experiment 1, of which guardrails are made."""
    auth = {"api_base": "https://example.com/v1"}
    secret = store.create_gateway_secret("key ü", VALUES, "openai", auth, "boss")
    store.create_gateway_secret("bare", {"api_key": "x" * 20})
    models = [
        store.create_gateway_model_definition(name, secret.secret_id, "openai", "gpt", "boss")
        for name in ("first", "second")
    ]
    doomed = store.create_gateway_secret("doomed", {"api_key": "x" * 20})
    store.create_gateway_model_definition("without a secret", doomed.secret_id, "openai", "gpt")
    store.delete_gateway_secret(doomed.secret_id)
    configs = [
        GatewayEndpointModelConfig(each.model_definition_id, kind, weight=0.5, fallback_order=order)
        for each, kind, order in (
            (models[0], GatewayModelLinkageType.PRIMARY, None),
            (models[1], GatewayModelLinkageType.FALLBACK, 1),
        )
    ]
    endpoint = store.create_gateway_endpoint(
        "traced",
        configs,
        created_by="boss",
        routing_strategy=RoutingStrategy.REQUEST_BASED_TRAFFIC_SPLIT,
        fallback_config=FallbackConfig(FallbackStrategy.SEQUENTIAL, 2),
        experiment_id="1",
    ).endpoint_id
    store.create_gateway_endpoint(None, [configs[1]], usage_tracking=False)  # type: ignore[arg-type]
    rewriting = store.create_gateway_endpoint("own experiment", [configs[0]]).endpoint_id
    store.set_gateway_endpoint_tag(endpoint, GatewayEndpointTag("a.b$", "ü"))
    store.set_gateway_endpoint_tag(endpoint, GatewayEndpointTag("plain", "v"))
    for bound in ("some", "others"):
        store.create_endpoint_binding(endpoint, "scorer", bound, "boss")
    _fill_budgets(store, endpoint)
    _fill_guardrails(store, endpoint, rewriting)


def _fill_budgets(store: SqlAlchemyStore, endpoint: str) -> None:
    hours, days = (BudgetDuration(unit, 3) for unit in (BudgetDurationUnit.HOURS, BudgetDurationUnit.DAYS))
    store.create_budget_policy(
        BudgetUnit.USD, 1.5, hours, BudgetTargetScope.GLOBAL, BudgetAction.REJECT, "boss"
    )
    store.create_budget_policy(
        BudgetUnit.USD, 2.0, days, BudgetTargetScope.ENDPOINT, BudgetAction.ALERT, target_value=endpoint
    )


def _fill_guardrails(store: SqlAlchemyStore, endpoint: str, rewriting: str) -> None:
    scorer = store.get_scorer("1", "judge").scorer_id
    rules = (GuardrailStage.BEFORE, GuardrailAction.VALIDATION)
    first = store.create_gateway_guardrail("first", scorer, 1, *rules, created_by="boss").guardrail_id
    rewrites = (GuardrailStage.AFTER, GuardrailAction.SANITIZATION, rewriting)
    second = store.create_gateway_guardrail("second", scorer, 2, *rewrites).guardrail_id
    store.add_guardrail_to_endpoint(endpoint, first, 1, "boss")
    store.add_guardrail_to_endpoint(endpoint, second)


def fill_registries(store: SqlAlchemyStore) -> None:
    icons = [{"src": "https://1.1.1.1/i.png", "mimeType": "image/png"}]
    store.create_mcp_server(TOOL, "words", icons, "boss")
    store.update_mcp_server(TOOL, display_name="Tool ü")
    store.create_mcp_server("com.example/bare")
    for name in (TOOL, WEATHER):
        for version, status in (("1.0.0", "active"), ("2.0.0-rc.1", "draft"), ("10.0.0+b", "active")):
            store.create_mcp_server_version(
                {"name": name, "version": version, "description": f"of {version}", "icons": icons},
                source="git",
                status=MCPStatus(status),
                tools=[MCPTool(name="add", description="adds")],
                created_by="boss",
                connect_options={"npx": ConnectOptionSettings()} if version == "1.0.0" else None,
            )
        store.create_mcp_server_version({"name": name, "version": "3.0.0"}, tools=[])
        store.create_mcp_server_version({"name": name, "version": "4.0.0"}, tools=None)
        store.delete_mcp_server_version(name, "4.0.0")
        for alias, version in (("stable", "1.0.0"), ("b.$", "10.0.0+b"), ("next", "3.0.0")):
            store.set_mcp_server_alias(name, alias, version)
        store.set_mcp_server_tag(name, "a.b$", "ü")
        store.set_mcp_server_version_tag(name, "1.0.0", "a.b$", "ü")
        for target in ({"server_alias": "stable"}, {"server_alias": "latest"}, {"server_version": "3.0.0"}):
            store.create_mcp_access_endpoint(name, "https://example.com", created_by="boss", **target)
    # What leads to nothing any more, as MLflow leaves it.
    store.create_mcp_access_endpoint(WEATHER, "https://gone.example.com", server_alias="next")
    store.update_mcp_server_version(WEATHER, "3.0.0", status=MCPStatus.DELETED)
    if SINCE_3_18:
        _fill_skills(store)


def _fill_skills(store: Any) -> None:
    icons = [{"src": "https://1.1.1.1/i.png", "mimeType": "image/png"}]
    for organization in ("", "team"):
        store.create_skill("pdf", organization, "Reads  PDFs ü", icons, "boss")
        for number in (1, 2, 3):
            store.create_skill_version(
                "pdf",
                organization=organization,
                source_type="git",
                source="https://example.com/skills.git",
                ref="main",
                subpath="pdf",
                digest=f"{number:064x}",
                created_by="boss",
            )
        store.update_skill_version("pdf", 3, organization, status="deprecated")
        store.update_skill_version("pdf", 3, organization, status="deleted")
        store.set_skill_alias("pdf", "stable", 1, organization)
        store.set_skill_tag("pdf", "a.b", "ü", organization)
        store.set_skill_version_tag("pdf", 1, "a.b", "ü", organization)
    store.create_skill("bare")


def registries_state(store: Any) -> dict[str, Any]:
    """Everything that a store answers of them, secrets in the clear."""
    secrets = store.list_secret_infos()
    endpoints = [store.get_gateway_endpoint(each.endpoint_id) for each in store.list_gateway_endpoints()]
    servers = list(store.search_mcp_servers())
    state = {
        "secrets": _by(secrets, "secret_id"),
        "values": {each.secret_id: store._get_decrypted_secret(each.secret_id) for each in secrets},
        "models": _by(store.list_gateway_model_definitions(), "model_definition_id"),
        "endpoints": _by(endpoints, "endpoint_id"),
        "bindings": sorted((plain(each) for each in store.list_endpoint_bindings()), key=repr),
        "budgets": _by(store.list_budget_policies(), "budget_policy_id"),
        "guardrails": _by(store.list_gateway_guardrails(), "guardrail_id"),
        "configs": {
            each.endpoint_id: plain(store.list_endpoint_guardrail_configs(each.endpoint_id))
            for each in endpoints
        },
        "servers": _by(servers, "name"),
        "server": _by([store.get_mcp_server(each.name) for each in servers], "name"),
        "versions": {each.name: plain(list(store.search_mcp_server_versions(each.name))) for each in servers},
        "access": _by(store.search_mcp_access_endpoints(), "id"),
    }
    if SINCE_3_18:
        skills = list(store.search_skills())
        state["skills"] = sorted((plain(each) for each in skills), key=repr)
        state["skill versions"] = {
            f"{each.organization}/{each.name}": plain(
                list(store.search_skill_versions(each.name, organization=each.organization))
            )
            for each in skills
        }
    return state


def _by(entities: Any, key: str) -> dict[str, Any]:
    found = {str(getattr(each, key)): plain(each) for each in entities}
    for each in found.values():
        for listed in ("model_mappings", "tags"):
            if isinstance(each.get(listed), list):
                each[listed] = sorted(each[listed], key=repr)
    return found
