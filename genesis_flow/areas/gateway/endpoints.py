"""The gateway's endpoints, their models and their tags.

Round trips: get and list one, with models and secrets. Create four (its models, is the name free, the
endpoint, the endpoint with its models), three more for the experiment of its traces; update three or four;
attach three; detach two; tags one; delete one, and one for each kind of what names it.
"""

import asyncio
from typing import Any, cast

from mlflow.entities import (
    ExperimentTag,
    FallbackConfig,
    GatewayEndpoint,
    GatewayEndpointModelConfig,
    GatewayEndpointModelMapping,
    GatewayEndpointTag,
    RoutingStrategy,
)
from mlflow.entities.gateway_endpoint import GatewayModelLinkageType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.utils.mlflow_tags import (
    MLFLOW_EXPERIMENT_IS_GATEWAY,
    MLFLOW_EXPERIMENT_SOURCE_ID,
    MLFLOW_EXPERIMENT_SOURCE_TYPE,
)
from mlflow.utils.time import get_current_time_millis

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.experiments.guards import refuse_unknown_experiment
from genesis_flow.areas.experiments.methods import Experiments
from genesis_flow.areas.gateway import entities as told
from genesis_flow.areas.gateway.documents import EndpointFields, ModelDefinitionFields, ModelOfEndpoint
from genesis_flow.areas.gateway.joining import MODELS, read
from genesis_flow.areas.gateway.remembered import forget
from genesis_flow.areas.gateway.shared import (
    change_of,
    missing,
    new,
    one_of,
    require_endpoint,
)
from genesis_flow.compat.validation import parse_experiment_id
from genesis_flow.core.errors import invalid
from genesis_flow.documents.keys import escape
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.followers import delete_followers
from genesis_flow.mongo.operation import (
    Area,
    call_token,
    drawn_once,
    is_repetition,
    mutation,
    operation,
)
from genesis_flow.mongo.scoping import scoped

_NAMES = {"endpoint_id": "_id", "name": "name"}
_KIND = "GatewayEndpoint"
_MODEL = "models.model_definition_id"


class GatewayEndpoints(Area):
    @property
    def _endpoints(self) -> Collection:
        return self.database.collection(EndpointFields)

    @mutation
    async def create_gateway_endpoint(
        self,
        name: str,
        model_configs: list[GatewayEndpointModelConfig],
        created_by: str | None = None,
        routing_strategy: RoutingStrategy | None = None,
        fallback_config: FallbackConfig | None = None,
        experiment_id: str | None = None,
        usage_tracking: bool = True,
    ) -> GatewayEndpoint:
        """Make an endpoint of models that are there, and the experiment of its traces if none is named."""
        if not model_configs:
            raise invalid("Endpoint must have at least one model configuration")
        endpoint_id = f"e-{call_token()}"
        models = _models(model_configs, created_by)
        wanted = {each["model_definition_id"] for each in models}
        if absent := await self._absent_definitions(wanted):
            raise _unknown_models(absent)
        taken = _taken(name)
        # Asked first so that a refused endpoint leaves no experiment behind; the unique index decides.
        if (
            name is not None
            and not is_repetition()
            and await self._endpoints.find_one(scoped({"name": name}))
        ):
            raise taken()
        document = new(
            EndpointFields,
            endpoint_id,
            created_by,
            name=name,
            models=models,
            routing_strategy=routing_strategy.value if routing_strategy else None,
            fallback=_fallback(fallback_config, models),
            experiment_id=await self._experiment_of(endpoint_id, name, experiment_id, usage_tracking, None),
            usage_tracking=usage_tracking,
        )
        await entities.insert(self._endpoints, document, taken)
        found = await self._read_endpoint(endpoint_id)
        if absent := _lost(found, wanted):
            await self._endpoints.delete_one(scoped({"_id": endpoint_id}))
            raise _unknown_models(absent)
        return told.endpoint(found)

    async def _absent_definitions(self, wanted: set[str]) -> set[str]:
        definitions = self.database.collection(ModelDefinitionFields)
        found = await definitions.find(scoped({"_id": {"$in": sorted(wanted)}}), {"_id": 1}).to_list()
        return wanted - {each["_id"] for each in found}

    async def _experiment_of(
        self,
        endpoint_id: str,
        name: str | None,
        experiment_id: str | None,
        usage_tracking: bool | None,
        known: int | None,
    ) -> int | None:
        """Where an endpoint is traced: where it is told to, else in an experiment of its own."""
        if experiment_id is not None:
            number = parse_experiment_id(experiment_id)
            experiments = self.database.collection(ExperimentFields)
            if await experiments.find_one(scoped({"_id": number}), {"_id": 1}) is None:
                refuse_unknown_experiment(number)
            return number
        if not usage_tracking or known is not None:
            return known
        experiments_area = cast(Experiments, self)  # the store is joined from all areas
        try:
            made = await experiments_area.create_experiment(
                f"gateway/{name}",
                tags=[
                    ExperimentTag(MLFLOW_EXPERIMENT_SOURCE_TYPE, "GATEWAY"),
                    ExperimentTag(MLFLOW_EXPERIMENT_SOURCE_ID, endpoint_id),
                    ExperimentTag(MLFLOW_EXPERIMENT_IS_GATEWAY, "true"),
                ],
            )
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            there = await experiments_area.get_experiment_by_name(f"gateway/{name}")
            if there is None:
                raise
            made = there.experiment_id
        return int(made)

    async def _read_endpoint(self, endpoint_id: str) -> Document:
        found = await read(self.database, EndpointFields, {"_id": endpoint_id}, *MODELS)
        if not found:
            raise missing(_KIND, endpoint_id=endpoint_id)()
        return found[0]

    @operation
    async def get_gateway_endpoint(
        self, endpoint_id: str | None = None, name: str | None = None
    ) -> GatewayEndpoint:
        """An endpoint with its models, by its id or by its name."""
        field, value = one_of("endpoint_id", endpoint_id, "name", name)
        found = await read(self.database, EndpointFields, {_NAMES[field]: value}, *MODELS)
        if not found:
            raise missing(_KIND, **{field: value})()
        return told.endpoint(found[0])

    @operation
    async def list_gateway_endpoints(
        self, provider: str | None = None, secret_id: str | None = None
    ) -> list[GatewayEndpoint]:
        """The endpoints that have models; those with one of a provider, or with a secret, if one is named."""
        given = {"provider": provider, "secret_id": secret_id}
        wanted = {field: value for field, value in given.items() if value}
        found = await read(self.database, EndpointFields, {"models.0": {"$exists": True}}, *MODELS)
        return [told.endpoint(each) for each in found if not wanted or _has_model(each, wanted)]

    @mutation
    async def update_gateway_endpoint(
        self,
        endpoint_id: str,
        name: str | None = None,
        updated_by: str | None = None,
        routing_strategy: RoutingStrategy | None = None,
        fallback_config: FallbackConfig | None = None,
        model_configs: list[GatewayEndpointModelConfig] | None = None,
        experiment_id: str | None = None,
        usage_tracking: bool | None = None,
    ) -> GatewayEndpoint:
        """Change what is given of an endpoint. Other models take the place of all it has."""
        refusal = missing(_KIND, endpoint_id=endpoint_id)
        known = await entities.find(self._endpoints, {"_id": endpoint_id}, refusal)
        models = None if model_configs is None else _models(model_configs, updated_by)
        wanted = {each["model_definition_id"] for each in models or []}
        if absent := await self._absent_definitions(wanted) if wanted else set():
            raise missing("GatewayModelDefinition", model_definition_id=min(absent))()
        fallback = None
        if models is not None:
            fallback = _fallback(fallback_config or FallbackConfig(), models)
        elif fallback_config is not None:
            fallback = _fallback(fallback_config, [])
        given = {
            "name": name,
            "usage_tracking": usage_tracking,
            "routing_strategy": routing_strategy.value if routing_strategy is not None else None,
            "models": models,
            "fallback": fallback,
            "experiment_id": await self._experiment_of(
                endpoint_id,
                known.get("name") if name is None else name,
                experiment_id,
                usage_tracking,
                known.get("experiment_id"),
            ),
        }
        await entities.change(
            self._endpoints, {"_id": endpoint_id}, change_of(given, updated_by), refusal, _taken(name)
        )
        forget(self.database)
        found = await self._read_endpoint(endpoint_id)
        if absent := _lost(found, wanted):
            await self._take_models_back({"model_definition_id": {"$in": sorted(absent)}}, endpoint_id)
            raise missing("GatewayModelDefinition", model_definition_id=min(absent))()
        return told.endpoint(found)

    async def _take_models_back(self, mappings: Document, endpoint_id: str) -> None:
        await self._endpoints.update_one(scoped({"_id": endpoint_id}), {"$pull": {"models": mappings}})
        forget(self.database)

    @mutation
    async def delete_gateway_endpoint(self, endpoint_id: str) -> None:
        """Remove an endpoint for good, with its tags and bindings. Its experiment and its budgets stay."""
        gone = (await self._endpoints.delete_one(scoped({"_id": endpoint_id}))).deleted_count
        if not gone and not is_repetition():
            raise missing(_KIND, endpoint_id=endpoint_id)()
        forget(self.database)
        await delete_followers(self.database, EndpointFields.Settings.name, [endpoint_id])

    @mutation
    async def attach_model_to_endpoint(
        self,
        endpoint_id: str,
        model_config: GatewayEndpointModelConfig,
        created_by: str | None = None,
    ) -> GatewayEndpointModelMapping:
        """Give an endpoint one more model."""
        (model,) = _models([model_config], created_by, call_token())
        definition = model["model_definition_id"]
        unknown = missing("GatewayModelDefinition", model_definition_id=definition)
        _, absent = await asyncio.gather(
            require_endpoint(self.database, endpoint_id, _KIND), self._absent_definitions({definition})
        )
        if absent:
            raise unknown()
        same = {"model_definition_id": definition, "linkage_type": model["linkage_type"]}
        update = {**change_of({}, created_by), "$push": {"models": model}}
        free = {"_id": endpoint_id, "models": {"$not": {"$elemMatch": same}}}
        attached = (await self._endpoints.update_one(scoped(free), update)).matched_count
        forget(self.database)
        found = await self._read_endpoint(endpoint_id)
        mine = next((each for each in found["models"] if each["mapping_id"] == model["mapping_id"]), None)
        if mine is None or not (attached or is_repetition()):
            raise MlflowException(
                f"Model definition '{definition}' is already attached to endpoint '{endpoint_id}'",
                RESOURCE_ALREADY_EXISTS,
            )
        if _lost(found, {definition}):
            await self._take_models_back({"mapping_id": model["mapping_id"]}, endpoint_id)
            raise unknown()
        return told.mapping(endpoint_id, mine, found["definitions"], found["secrets"])

    @mutation
    async def detach_model_from_endpoint(
        self, endpoint_id: str, model_definition_id: str, linkage_type: str | None = None
    ) -> None:
        """Take a model from an endpoint: once, as a fallback before as a primary one."""

        async def draw() -> str | None:
            known = await require_endpoint(self.database, endpoint_id, _KIND, {"models": 1})
            found = [
                each
                for each in known["models"]
                if each["model_definition_id"] == model_definition_id
                and (not linkage_type or each["linkage_type"] == linkage_type)
            ]
            return min(found, key=lambda each: each["linkage_type"])["mapping_id"] if found else None

        # The same one in a repetition: another mapping of the model stays.
        mapping_id = await drawn_once("mapping", draw)
        gone = 0
        if mapping_id is not None:
            pull = {"$pull": {"models": {"mapping_id": mapping_id}}}
            query = scoped({"_id": endpoint_id, "models.mapping_id": mapping_id})
            gone = (await self._endpoints.update_one(query, pull)).matched_count
        if not gone and not (is_repetition() and mapping_id is not None):
            linkage = f" with linkage type '{linkage_type}'" if linkage_type else ""
            raise MlflowException(
                f"Model definition '{model_definition_id}' is not attached to "
                f"endpoint '{endpoint_id}'{linkage}",
                RESOURCE_DOES_NOT_EXIST,
            )
        forget(self.database)

    @mutation
    async def set_gateway_endpoint_tag(self, endpoint_id: str, tag: GatewayEndpointTag) -> None:
        """Set a tag of an endpoint."""
        await self._change_tags(endpoint_id, {"$set": {f"tags.{escape(tag.key)}": tag.value}})

    @mutation
    async def delete_gateway_endpoint_tag(self, endpoint_id: str, key: str) -> None:
        """Remove a tag of an endpoint, if it is there."""
        await self._change_tags(endpoint_id, {"$unset": {f"tags.{escape(key)}": ""}})

    async def _change_tags(self, endpoint_id: str, update: Document) -> None:
        changed = await self._endpoints.update_one(scoped({"_id": endpoint_id}), update)
        if not changed.matched_count:
            raise missing(_KIND, endpoint_id=endpoint_id)()


def _models(
    configs: list[GatewayEndpointModelConfig], created_by: str | None, token: str | None = None
) -> list[Document]:
    """What an endpoint keeps of models; each may be there once as each kind."""
    made: list[Document] = []
    for place, config in enumerate(configs):
        model = ModelOfEndpoint(
            mapping_id=f"m-{token or _numbered(place)}",
            model_definition_id=config.model_definition_id,
            linkage_type=GatewayModelLinkageType(config.linkage_type).value,
            weight=config.weight,
            fallback_order=config.fallback_order,
            created_time=get_current_time_millis(),
            created_by=created_by,
        )
        made.append(model.model_dump(exclude_none=True))
    kinds = [(each["model_definition_id"], each["linkage_type"]) for each in made]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise MlflowException(
            f"Model definition '{twice[0]}' is given twice as {twice[1]}. Name it once.",
            RESOURCE_ALREADY_EXISTS,
        )
    return made


def _numbered(place: int) -> str:
    """32 hexadecimal digits for each of the models of a call, the same in a repetition."""
    return f"{int(call_token(), 16) + place + 1:032x}"[-32:]


def _fallback(config: FallbackConfig | None, models: list[Document]) -> Document | None:
    """How an endpoint falls back: if it is told how, or has models for that."""
    falls_back = any(each["linkage_type"] == GatewayModelLinkageType.FALLBACK.value for each in models)
    if config is None:
        return {} if falls_back else None
    given: dict[str, Any] = {
        "strategy": config.strategy.value if config.strategy else None,
        "max_attempts": config.max_attempts,
    }
    return {field: value for field, value in given.items() if value is not None}


def _has_model(found: Document, wanted: Document) -> bool:
    """Whether one of the models of an endpoint is all that is wanted."""
    return any(wanted.items() <= definition.items() for definition in found["definitions"])


def _lost(found: Document, wanted: set[str]) -> set[str]:
    """The models that were deleted while the endpoint began to use them."""
    return wanted - {each["_id"] for each in found["definitions"]}


def _unknown_models(absent: set[str]) -> MlflowException:
    return MlflowException(
        f"Model definitions not found: {', '.join(sorted(absent))}", RESOURCE_DOES_NOT_EXIST
    )


def _taken(name: str | None) -> entities.Refusal:
    return entities.taken(f"Endpoint with name '{name}' already exists")
