"""The gateway's model definitions.

Round trips: get and list one, with the names of the secrets; create two (the secret, the model); update two,
or three with another secret; delete three (who uses it, the deletion, who has begun to use it meanwhile).
"""

from typing import Any

from mlflow.entities import GatewayModelDefinition
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE

from genesis_flow.areas.gateway import entities as told
from genesis_flow.areas.gateway.documents import EndpointFields, ModelDefinitionFields, SecretFields
from genesis_flow.areas.gateway.joining import SECRETS, read
from genesis_flow.areas.gateway.remembered import forget
from genesis_flow.areas.gateway.shared import change_of, missing, new, one_of
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.operation import Area, call_token, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import scoped
from genesis_flow.mongo.writes import insert_missing, until_done

_NAMES = {"model_definition_id": "_id", "name": "name"}


class GatewayModels(Area):
    @property
    def _definitions(self) -> Collection:
        return self.database.collection(ModelDefinitionFields)

    @mutation
    async def create_gateway_model_definition(
        self,
        name: str,
        secret_id: str,
        provider: str,
        model_name: str,
        created_by: str | None = None,
    ) -> GatewayModelDefinition:
        """Name a model of a provider, and the secret to call it with."""
        given = {"name": name, "provider": provider, "model_name": model_name}
        _check_texts(given)
        secret = await self._known_secret(secret_id)
        document = new(ModelDefinitionFields, f"d-{call_token()}", created_by, secret_id=secret_id, **given)
        made = await entities.insert(self._definitions, document, _taken(name))
        return told.model_definition(made, [secret])

    @operation
    async def get_gateway_model_definition(
        self, model_definition_id: str | None = None, name: str | None = None
    ) -> GatewayModelDefinition:
        """A model, by its id or by its name."""
        field, value = one_of("model_definition_id", model_definition_id, "name", name)
        found = await self._read_definitions({_NAMES[field]: value})
        if not found:
            raise missing("GatewayModelDefinition", **{field: value})()
        return found[0]

    @operation
    async def list_gateway_model_definitions(
        self, provider: str | None = None, secret_id: str | None = None
    ) -> list[GatewayModelDefinition]:
        """All models; those of a provider, or with a secret, if one is named."""
        given = {"provider": provider, "secret_id": secret_id}
        return await self._read_definitions(
            {field: value for field, value in given.items() if value is not None}
        )

    async def _read_definitions(self, query: Document) -> list[GatewayModelDefinition]:
        found = await read(self.database, ModelDefinitionFields, query, SECRETS)
        return [told.model_definition(each, each["secrets"]) for each in found]

    @mutation
    async def update_gateway_model_definition(
        self,
        model_definition_id: str,
        name: str | None = None,
        secret_id: str | None = None,
        model_name: str | None = None,
        updated_by: str | None = None,
        provider: str | None = None,
    ) -> GatewayModelDefinition:
        """Change what is given of a model."""
        _check_texts({"name": name or "", "model_name": model_name or "", "provider": provider or ""})
        refusal = missing("GatewayModelDefinition", model_definition_id=model_definition_id)
        if secret_id is not None:
            await entities.find(self._definitions, {"_id": model_definition_id}, refusal, {"_id": 1})
            await self._known_secret(secret_id)
        given = {"name": name, "secret_id": secret_id, "model_name": model_name, "provider": provider}
        await entities.change(
            self._definitions,
            {"_id": model_definition_id},
            change_of(given, updated_by),
            refusal,
            _taken(name),
        )
        forget(self.database)
        changed = await self._read_definitions({"_id": model_definition_id})
        if not changed:
            raise refusal()
        return changed[0]

    async def _known_secret(self, secret_id: str) -> Document:
        secrets = self.database.collection(SecretFields)
        refusal = missing("GatewaySecret", secret_id=secret_id)
        return await entities.find(secrets, {"_id": secret_id}, refusal, {"name": 1})

    @mutation
    async def delete_gateway_model_definition(self, model_definition_id: str) -> None:
        """Remove a model that no endpoint uses."""
        await self._refuse_used(model_definition_id)
        document = await self._definitions.find_one_and_delete(scoped({"_id": model_definition_id}))
        if document is None:
            if is_repetition():
                return
            raise missing("GatewayModelDefinition", model_definition_id=model_definition_id)()
        try:
            # Whoever attaches looks for the model afterwards: of two who meet, at least one takes it back.
            await self._refuse_used(model_definition_id)
        except MlflowException:
            await until_done(lambda: insert_missing(self._definitions, [document]))
            raise
        forget(self.database)

    async def _refuse_used(self, model_definition_id: str) -> None:
        endpoints = self.database.collection(EndpointFields)
        used: Any = await endpoints.find_one(
            scoped({"models.model_definition_id": model_definition_id}), {"_id": 1}
        )
        if used is not None:
            raise MlflowException(
                "Cannot delete model definition that is currently in use by endpoints. "
                "Detach it from all endpoints first.",
                INVALID_STATE,
            )


def _taken(name: str | None) -> entities.Refusal:
    return entities.taken(f"Model definition with name '{name}' already exists")


def _check_texts(given: dict[str, Any]) -> None:
    for field, value in given.items():
        if not isinstance(value, str):
            raise invalid(f"{field} must be a text. Give the model one.")
