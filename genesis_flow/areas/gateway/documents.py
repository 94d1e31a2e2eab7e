"""The AI gateway's documents.

An endpoint is one document with its models, tags and guardrails, so that each change of it is one atom. It
names models, and models name secrets, by id: a reader follows the ids in the same round trip.
"""

from typing import Any

from pydantic import BaseModel, Field
from pymongo import ASCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index

CREATION_ORDER = [("created_time", ASCENDING), ("_id", ASCENDING)]

_NAME = [("workspace", ASCENDING), ("name", ASCENDING)]
_LIST = [("workspace", ASCENDING), *CREATION_ORDER]


class GatewayFields(Declared):
    """What the gateway's documents have in common."""

    id: str = Field(alias="_id", description="Its kind and 32 hexadecimal digits.")
    workspace: str = Field(description="Workspace; every query names it.")
    created_time: int = Field(description="When it was made.")
    last_update_time: int = Field(description="When it last changed.")
    created_by: str | None = Field(default=None, description="Who made it, as the caller says.")
    last_updated_by: str | None = Field(default=None, description="Who last changed it, as the caller says.")


class SecretFields(GatewayFields):
    """A provider's credentials, encrypted as MLflow's SQL store encrypts them."""

    name: str = Field(description="Name. It never changes: the encryption is bound to it and to the id.")
    value: bytes = Field(description="The encrypted values: nonce, ciphertext of a JSON object, tag.")
    wrapped_dek: bytes = Field(description="The key of `value`, encrypted with the key from the passphrase.")
    kek_version: int = Field(description="The number of that key.")
    masked: str = Field(description="What may be shown of the values, as JSON text.")
    provider: str | None = Field(default=None, description="Provider.")
    auth_config: str | None = Field(default=None, description="What is not secret, as JSON text.")

    class Settings(CollectionSettings):
        name = "gateway_secrets"
        indexes = [
            Index(_NAME, name="name_unique", unique=True, serves="One secret of a name; the secret by name."),
            Index(_LIST, name="by_creation_time", serves="The list of secrets."),
        ]
        keep_nulls = False


class ModelDefinitionFields(GatewayFields):
    """A model of a provider, with the secret to call it with."""

    name: str = Field(description="Name.")
    secret_id: str | None = Field(default=None, description="Its secret, unless that was deleted.")
    provider: str = Field(description="Provider.")
    model_name: str = Field(description="What the provider calls the model.")

    class Settings(CollectionSettings):
        name = "gateway_models"
        indexes = [
            Index(_NAME, name="name_unique", unique=True, serves="One model of a name; the model by name."),
            Index(_LIST, name="by_creation_time", serves="The list of models."),
            Index([("secret_id", ASCENDING)], name="by_secret", serves="The models that use a secret."),
        ]
        keep_nulls = False
        refers = {"secret_id": "gateway_secrets"}
        forgets = {"secret_id": "gateway_secrets"}


class ModelOfEndpoint(BaseModel):
    """A model that an endpoint calls."""

    mapping_id: str = Field(description="`m-` and 32 hexadecimal digits.")
    model_definition_id: str = Field(description="The model.")
    linkage_type: str = Field(description="`PRIMARY` or `FALLBACK`.")
    weight: float = Field(description="Its share of the calls, if they are split.")
    fallback_order: int | None = Field(default=None, description="Its place among the fallbacks.")
    created_time: int = Field(description="When it was attached.")
    created_by: str | None = Field(default=None, description="Who attached it.")


class GuardrailOfEndpoint(BaseModel):
    """A guardrail that an endpoint's calls pass."""

    guardrail_id: str = Field(description="The guardrail.")
    order: int | None = Field(default=None, description="Its place; those without one come last.")
    created_time: int = Field(description="When it was added.")
    created_by: str | None = Field(default=None, description="Who added it.")


class EndpointFields(GatewayFields):
    """What agents call: models, how calls are spread over them, and where the calls are traced."""

    name: str | None = Field(default=None, description="Name, part of the path that is called.")
    models: list[ModelOfEndpoint] = Field(description="Its models, in the order in which they were given.")
    tags: dict[str, str | None] = Field(default_factory=dict, description="Tags by escaped key.")
    guardrails: list[GuardrailOfEndpoint] = Field(default_factory=list, description="Its guardrails.")
    routing_strategy: str | None = Field(default=None, description="`REQUEST_BASED_TRAFFIC_SPLIT`, or none.")
    fallback: dict[str, Any] | None = Field(
        default=None, description="`{strategy, max_attempts}`, if there is a fallback."
    )
    experiment_id: int | None = Field(default=None, description="Where its calls are traced.")
    usage_tracking: bool = Field(description="Whether its calls are traced.")

    class Settings(CollectionSettings):
        name = "gateway_endpoints"
        indexes = [
            Index(
                _NAME,
                name="name_unique",
                unique=True,
                partialFilterExpression={"name": {"$type": "string"}},
                serves="One endpoint of a name; the endpoint by name, which each call asks for.",
            ),
            Index(_LIST, name="by_creation_time", serves="The list of endpoints."),
            Index(
                [("models.model_definition_id", ASCENDING)],
                name="by_model",
                serves="The endpoints that use a model.",
            ),
            Index(
                [("guardrails.guardrail_id", ASCENDING)],
                name="by_guardrail",
                serves="The endpoints that have a guardrail.",
            ),
            Index(
                [("experiment_id", ASCENDING)],
                name="by_experiment",
                serves="The endpoints that are traced in an experiment that is deleted for good.",
            ),
        ]
        keep_nulls = False
        refers = {"experiment_id": "experiments"}
        forgets = {"experiment_id": "experiments"}


class BindingFields(GatewayFields):
    """That something uses an endpoint. What scorers say themselves of their endpoints is not in here."""

    endpoint_id: str = Field(description="The endpoint.")
    resource_type: str = Field(description="`scorer`, the only kind there is.")
    resource_id: str = Field(description="The scorer.")

    class Settings(CollectionSettings):
        name = "gateway_bindings"
        indexes = [
            Index([("endpoint_id", ASCENDING)], name="by_endpoint", serves="What uses an endpoint."),
            Index(
                [("resource_type", ASCENDING), ("resource_id", ASCENDING)],
                name="by_resource",
                serves="What something uses.",
            ),
            Index(_LIST, name="by_creation_time", serves="The list of bindings."),
        ]
        keep_nulls = False
        refers = {"endpoint_id": "gateway_endpoints"}
        goes_with = {"endpoint_id": "gateway_endpoints"}


class SpentOfBudget(BaseModel):
    """What calls have spent of a budget in its latest window."""

    aim: str = Field(description="The budget's scope, target and duration that it was counted for.")
    start: int = Field(description="When the window began.")
    cost: float = Field(description="What was spent: at first the sum over the traces, then what calls cost.")
    calls: list[str] = Field(description="The latest calls that were counted, so that none counts twice.")


class BudgetFields(GatewayFields):
    """How much may be spent in a window of time, and what happens then."""

    unit: str = Field(description="`USD`.")
    amount: float = Field(description="The limit.")
    duration_unit: str = Field(description="`MINUTES`, `HOURS`, `DAYS`, `WEEKS` or `MONTHS`.")
    duration_value: int = Field(description="How many of these a window has.")
    target_scope: str = Field(description="`GLOBAL`, `WORKSPACE`, `ENDPOINT` or `USER`.")
    target_value: str | None = Field(default=None, description="Which endpoint or user.")
    action: str = Field(description="`REJECT` or `ALERT`.")
    spent: SpentOfBudget | None = Field(
        default=None, description="What was spent, once a call has cost something."
    )

    class Settings(CollectionSettings):
        name = "gateway_budgets"
        derived = ("spent",)
        keep_nulls = False


class GuardrailFields(GatewayFields):
    """A scorer that looks at calls or answers, and what happens if it is not content.

    It keeps the version of the scorer, which never changes: a call needs one round trip, and a guardrail goes
    on when its scorer goes with an experiment.
    """

    name: str = Field(description="Name; several may have the same.")
    scorer: dict[str, Any] = Field(
        description="`{id, version, experiment_id, name, text, creation_time}`: the version of the scorer."
    )
    stage: str = Field(description="`BEFORE` or `AFTER` the call of the model.")
    action: str = Field(description="`VALIDATION` or `SANITIZATION`.")
    action_endpoint_id: str | None = Field(default=None, description="The endpoint that rewrites.")

    class Settings(CollectionSettings):
        name = "gateway_guardrails"
        indexes = [
            Index(
                [("scorer.id", ASCENDING), ("scorer.version", ASCENDING)],
                name="by_scorer",
                serves="Whether a scorer that is about to be deleted is a guardrail.",
            ),
            Index(
                [("action_endpoint_id", ASCENDING)],
                name="by_endpoint",
                serves="The guardrails that an endpoint that is deleted rewrites for.",
            ),
        ]
        keep_nulls = False
        refers = {"action_endpoint_id": "gateway_endpoints"}
        forgets = {"action_endpoint_id": "gateway_endpoints"}
