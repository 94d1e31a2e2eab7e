"""The AI gateway in the table of kinds: what is named by others comes before them."""

from genesis_flow.areas.gateway import entities
from genesis_flow.areas.gateway.documents import (
    BindingFields,
    BudgetFields,
    EndpointFields,
    GuardrailFields,
    ModelDefinitionFields,
    SecretFields,
)
from genesis_flow.documents.plain import Document
from genesis_flow.importers.kind import Child, Column, Kind, Lookup, Rows, columns

_MADE = columns(
    "created_by t",
    "created_at I created_time",
    "last_updated_by t",
    "last_updated_at I last_update_time",
)

# What a scorer says itself of its endpoint. The endpoint keeps its id, whether it is imported or not.
BINDING_OF_SCORER = Rows(
    "binding",
    "endpoint_bindings",
    ("resource_id",),
    columns("endpoint_id T", "created_at I time", "last_updated_at I updated"),
    "one",
    # Only what registers scorers gives bindings a name.
    where=(("resource_type", "scorer"),),
    filled=("display_name",),
)


def _keep_rotated(there: Document, new: Document) -> Document:
    """A key that was wrapped anew in the target stays as it is while the value is the same."""
    if there.get("value") != new["value"]:
        return new
    return {**new, "wrapped_dek": there["wrapped_dek"], "kek_version": there["kek_version"]}


def _derive_endpoint(endpoint: Document) -> None:
    if "fallback" in endpoint:
        told = endpoint["fallback"]
        names = ("strategy", "max_attempts")
        endpoint["fallback"] = {name: told[name] for name in names if told.get(name) is not None}


def _check_endpoint(endpoint: Document) -> None:
    entities.endpoint({**endpoint, "definitions": [], "secrets": []})


def _kept(*texts: str) -> tuple[Column, ...]:
    return (*columns(*texts), *_MADE)


GATEWAY = (
    Kind(
        name="gateway_secret",
        declared=SecretFields,
        table="secrets",
        key=("secret_id",),
        of_experiment=False,
        columns=_kept(
            "secret_name T name",
            "encrypted_value Y value",
            "wrapped_dek Y",
            "kek_version I",
            "masked_value T masked",
            "provider t",
            "auth_config t",
        ),
        unique="name",
        merge=_keep_rotated,
        check=entities.secret_info,
        used_by=(("gateway_models", "secret_id"),),
    ),
    Kind(
        name="gateway_model",
        declared=ModelDefinitionFields,
        table="model_definitions",
        key=("model_definition_id",),
        of_experiment=False,
        columns=_kept("name T", "secret_id t", "provider T", "model_name T"),
        unique="name",
        check=lambda model: entities.model_definition(model, []),
        used_by=(("gateway_endpoints", "models.model_definition_id"),),
    ),
    Kind(
        name="gateway_guardrail",
        declared=GuardrailFields,
        table="guardrails",
        key=("guardrail_id",),
        of_experiment=False,
        columns=_kept("name T", "stage T", "action T", "action_endpoint_id t"),
        lookups=(
            Lookup(
                "scorer",
                "scorer_versions",
                (("scorer_id", "scorer_id"), ("scorer_version", "scorer_version")),
                columns(
                    "scorer_id T id",
                    "scorer_version I version",
                    "serialized_scorer T text",
                    "creation_time I",
                ),
            ),
            Lookup(
                "scorer",
                "scorers",
                (("scorer_id", "scorer_id"),),
                columns("scorer_name T name", "experiment_id I"),
            ),
        ),
        check=lambda guardrail: entities.guardrail(guardrail, {}),
        used_by=(("gateway_endpoints", "guardrails.guardrail_id"),),
    ),
    Kind(
        name="gateway_endpoint",
        declared=EndpointFields,
        table="endpoints",
        key=("endpoint_id",),
        of_experiment=False,
        columns=_kept(
            "name t",
            "routing_strategy t",
            "fallback_config_json j fallback",
            "experiment_id i",
            "usage_tracking b",
        ),
        rows=(
            Rows(
                "models",
                "endpoint_model_mappings",
                ("endpoint_id",),
                columns(
                    "mapping_id T",
                    "model_definition_id T",
                    "linkage_type T",
                    "weight R",
                    "fallback_order i",
                    "created_at I created_time",
                    "created_by t",
                ),
                "list",
                order=("created_at", "mapping_id"),
            ),
            Rows("tags", "endpoint_tags", ("endpoint_id",), columns("key T", "value t"), "map"),
            Rows(
                "guardrails",
                "guardrail_configs",
                ("endpoint_id",),
                columns(
                    "guardrail_id T", "execution_order i order", "created_at I created_time", "created_by t"
                ),
                "list",
            ),
        ),
        unique="name",
        derive=_derive_endpoint,
        check=_check_endpoint,
        children=(Child("gateway_bindings", "endpoint_id"),),
        used_by=(("scorers", "binding.endpoint_id"),),
    ),
    Kind(
        name="gateway_binding",
        declared=BindingFields,
        table="endpoint_bindings",
        key=("endpoint_id", "resource_type", "resource_id"),
        within="gateway_endpoint",
        parent="endpoint_id",
        of_experiment=False,
        but=BINDING_OF_SCORER,
        columns=_kept("endpoint_id T", "resource_type T", "resource_id T"),
        check=entities.binding,
    ),
    Kind(
        name="gateway_budget",
        declared=BudgetFields,
        table="budget_policies",
        key=("budget_policy_id",),
        of_experiment=False,
        columns=_kept(
            "budget_unit T unit",
            "budget_amount R amount",
            "duration_unit T",
            "duration_value I",
            "target_scope T",
            "target_value t",
            "budget_action T action",
        ),
        check=entities.budget_policy,
    ),
)
