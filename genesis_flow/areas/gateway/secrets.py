"""The gateway's secrets.

Round trips: create, get, list one; update two (the name that the encryption is bound to, the change); delete
two (the secret, then the models that named it: a reader takes a secret that is gone for none anyway).
"""

import asyncio
import json
from typing import Any

from mlflow.entities import GatewaySecretInfo

from genesis_flow.areas.gateway import entities as told
from genesis_flow.areas.gateway.documents import CREATION_ORDER, SecretFields
from genesis_flow.areas.gateway.remembered import forget
from genesis_flow.areas.gateway.shared import change_of, missing, new, one_of
from genesis_flow.compat import crypto
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.followers import delete_followers
from genesis_flow.mongo.operation import Area, call_token, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import scoped

_NAMES = {"secret_id": "_id", "secret_name": "name"}
_SHOWN = {"value": 0, "wrapped_dek": 0}


class GatewaySecrets(Area):
    @property
    def _secrets(self) -> Collection:
        return self.database.collection(SecretFields)

    @mutation
    async def create_gateway_secret(
        self,
        secret_name: str,
        secret_value: dict[str, str],
        provider: str | None = None,
        auth_config: dict[str, Any] | None = None,
        created_by: str | None = None,
    ) -> GatewaySecretInfo:
        """Keep a provider's credentials, encrypted."""
        if not isinstance(secret_name, str):
            raise invalid("secret_name must be a text. Give the secret a name.")
        secret_id = f"s-{call_token()}"
        document = new(
            SecretFields,
            secret_id,
            created_by,
            name=secret_name,
            provider=provider,
            auth_config=_text(auth_config) if auth_config else None,
            **await _encrypted(secret_value, secret_id, secret_name),
        )
        refusal = entities.taken(f"Secret with name '{secret_name}' already exists")
        return told.secret_info(await entities.insert(self._secrets, document, refusal))

    @operation
    async def get_secret_info(
        self, secret_id: str | None = None, secret_name: str | None = None
    ) -> GatewaySecretInfo:
        """What may be shown of a secret: its values are masked."""
        field, value = one_of("secret_id", secret_id, "secret_name", secret_name)
        refusal = missing("GatewaySecret", **{field: value})
        return told.secret_info(await entities.find(self._secrets, {_NAMES[field]: value}, refusal, _SHOWN))

    @mutation
    async def update_gateway_secret(
        self,
        secret_id: str,
        secret_value: dict[str, str] | None = None,
        auth_config: dict[str, Any] | None = None,
        updated_by: str | None = None,
    ) -> GatewaySecretInfo:
        """Give a secret other values, or another configuration; an empty one clears it."""
        refusal = missing("GatewaySecret", secret_id=secret_id)
        fields: Document = {}
        if secret_value is not None:
            known = await entities.find(self._secrets, {"_id": secret_id}, refusal, {"name": 1})
            fields = await _encrypted(secret_value, secret_id, known["name"])
        if auth_config:
            fields["auth_config"] = _text(auth_config)
        update = change_of(fields, updated_by, forgets_user=True)
        if auth_config is not None and not auth_config:
            update.setdefault("$unset", {})["auth_config"] = ""
        changed = await entities.change(self._secrets, {"_id": secret_id}, update, refusal)
        forget(self.database)
        return told.secret_info(changed)

    @mutation
    async def delete_gateway_secret(self, secret_id: str) -> None:
        """Remove a secret for good. Models that have it stay, without one."""
        gone = (await self._secrets.delete_one(scoped({"_id": secret_id}))).deleted_count
        if not gone and not is_repetition():
            raise missing("GatewaySecret", secret_id=secret_id)()
        await delete_followers(self.database, SecretFields.Settings.name, [secret_id])
        forget(self.database)

    @operation
    async def list_secret_infos(self, provider: str | None = None) -> list[GatewaySecretInfo]:
        """All secrets, masked; those of a provider, if one is named."""
        query = {} if provider is None else {"provider": provider}
        found = self._secrets.find(scoped(query), _SHOWN, sort=CREATION_ORDER, batch_size=BATCH)
        return [told.secret_info(each) for each in await found.to_list()]

    @operation
    async def _get_decrypted_secret(self, secret_id: str) -> dict[str, Any]:
        """The values of a secret: for the server itself, never for its callers."""
        refusal = missing("GatewaySecret", secret_id=secret_id)
        document = await entities.find(self._secrets, {"_id": secret_id}, refusal)
        return await asyncio.to_thread(crypto.decrypted, document)


async def _encrypted(value: Any, secret_id: str, name: str) -> Document:
    if not isinstance(value, dict):
        raise invalid(f"secret_value must be a dictionary of texts, not a {type(value).__name__}.")
    try:
        # Outside of the loop: the key takes a fifth of a second.
        envelope = await asyncio.to_thread(crypto.encrypted, value, secret_id, name)
    except (TypeError, ValueError) as error:
        # The error's own words may hold the value.
        raise invalid("secret_value must be a dictionary of what JSON can hold: texts.") from error
    return {**envelope, "masked": json.dumps(crypto.masked(value))}


def _text(auth_config: dict[str, Any]) -> str:
    try:
        return json.dumps(auth_config)
    except (TypeError, ValueError) as error:
        raise invalid("auth_config must be a dictionary of what JSON can hold.") from error
