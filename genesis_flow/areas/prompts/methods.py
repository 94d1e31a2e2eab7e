"""Prompts: registered models that carry MLflow's prompt tag, and whose versions keep their text in tags.

Round trips: get one; get a version by number, alias or ``latest`` one; search one, because a page of prompts
needs no versions; search the versions of one prompt two. MLflow's inherited defaults read the model with the
latest version of each stage, texts included, before each of these.
"""

import json
import re
from typing import Any

from mlflow.entities.model_registry import ModelVersion, ModelVersionTag, RegisteredModelTag
from mlflow.entities.model_registry.prompt import Prompt
from mlflow.entities.model_registry.prompt_version import PromptModelConfig, PromptVersion
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import (
    IS_PROMPT_TAG_KEY,
    PROMPT_EXPERIMENT_IDS_TAG_KEY,
    PROMPT_MODEL_CONFIG_TAG_KEY,
    PROMPT_TEXT_TAG_KEY,
    PROMPT_TYPE_CHAT,
    PROMPT_TYPE_TAG_KEY,
    PROMPT_TYPE_TEXT,
    RESPONSE_FORMAT_TAG_KEY,
)
from mlflow.prompt.registry_utils import has_prompt_tag, model_version_to_prompt_version
from mlflow.store.entities.paged_list import PagedList
from pydantic import BaseModel

from genesis_flow.areas.models.aliases import Aliases
from genesis_flow.areas.models.entities import prompt_entity, version_entity
from genesis_flow.areas.models.guards import (
    find_model,
    look_up_version,
    models_in,
    refuse_unknown_model,
    refuse_unknown_version,
    version_number,
)
from genesis_flow.areas.models.methods import RegisteredModels
from genesis_flow.areas.models.search import (
    prompt_page,
    validate_model_page_size,
    validate_version_page_size,
    versions_of_prompt_page,
)
from genesis_flow.areas.models.versions import ModelVersions
from genesis_flow.compat.prompts import STORE_PROMPT_SOURCE_PLACEHOLDER
from genesis_flow.compat.validation import validate_model_alias_name
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.documents.tag_values import PROMPT_VALUE
from genesis_flow.mongo.operation import Area, mutation, operation
from genesis_flow.mongo.scoping import scoped

_DEFAULT_PAGE_SIZE = 100
_EXPERIMENT_CLAUSE = re.compile(r"\bexperiment_id\s*=\s*(?P<quote>['\"])(?P<id>[^'\"]+)(?P=quote)")


class Prompts(RegisteredModels, ModelVersions, Aliases, Area):
    @mutation
    async def create_prompt(
        self, name: str, description: str | None = None, tags: dict[str, str] | None = None
    ) -> Prompt:
        """Make a prompt that has no versions yet."""
        given = tags or {}
        all_tags = [RegisteredModelTag(key, value) for key, value in {**given, **_IS_PROMPT}.items()]
        model = await self.create_registered_model(name, all_tags, description)
        return Prompt(name, model.description, model.creation_timestamp, given)

    @operation
    async def get_prompt(self, name: str) -> Prompt | None:
        """The prompt, or None if there is none, or a model, of that name."""
        model = await models_in(self.database).find_one(scoped({"name": name, "is_prompt": True}))
        return None if model is None else prompt_entity(model)

    @operation
    async def search_prompts(
        self,
        filter_string: str | None = None,
        max_results: int | None = None,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Prompt]:
        """A page of the prompts that match."""
        limit = _DEFAULT_PAGE_SIZE if max_results is None else max_results
        validate_model_page_size(limit)
        page = prompt_page(_with_experiment_as_tag(filter_string), order_by, page_token)
        models, token = await self._model_page(page, limit)
        return PagedList([prompt_entity(model) for model in models], token)

    @mutation
    async def delete_prompt(self, name: str) -> None:
        """Delete a prompt with its versions."""
        await self.delete_registered_model(name)

    @mutation
    async def set_prompt_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of a prompt."""
        await self.set_registered_model_tag(name, RegisteredModelTag(key, value))

    @mutation
    async def delete_prompt_tag(self, name: str, key: str) -> None:
        """Delete a tag of a prompt."""
        await self.delete_registered_model_tag(name, key)

    @mutation
    async def create_prompt_version(
        self,
        name: str,
        template: str | list[dict[str, Any]],
        description: str | None = None,
        tags: dict[str, str] | None = None,
        response_format: type[BaseModel] | dict[str, Any] | None = None,
        model_config: PromptModelConfig | dict[str, Any] | None = None,
    ) -> PromptVersion:
        """Make the next version of a prompt."""
        stored = _version_tags(template, tags or {}, response_format, model_config)
        _check_readable(name, template, stored)
        version = await self.create_model_version(
            name=name,
            source=STORE_PROMPT_SOURCE_PLACEHOLDER,
            tags=stored,
            description=description,
        )
        return model_version_to_prompt_version(version)

    @operation
    async def get_prompt_version(self, name: str, version: str | int) -> PromptVersion | None:
        """The version with this number or alias; None if it is not a prompt's version."""
        model, found = await self._find_prompt_version(name, str(version))
        entity = version_entity(model, found, with_aliases=True)
        return model_version_to_prompt_version(entity) if has_prompt_tag(entity.tags) else None

    async def _find_prompt_version(self, name: str, version: str) -> tuple[Document, Document]:
        def check(model: Document) -> None:
            _refuse_model(model, "get_model_version() or load_model()")

        if not _is_number(version):
            validate_model_alias_name(version)
            return await self._find_by_alias(name, version, check)
        number = version_number(version)
        model, prompt_version = await look_up_version(self.database, name, number)
        if model is None:
            refuse_unknown_model(name)
        check(model)
        return model, prompt_version or refuse_unknown_version(name, number)

    @operation
    async def get_prompt_version_by_alias(self, name: str, alias: str) -> PromptVersion | None:
        """The version of a prompt that an alias points to, or None."""
        return await self.get_prompt_version(name, alias)

    @mutation
    async def delete_prompt_version(self, name: str, version: str | int) -> None:
        """Delete a version of a prompt."""
        await self.delete_model_version(name, _prompt_version_number(version))

    @operation
    async def search_prompt_versions(
        self, name: str, max_results: int | None = None, page_token: str | None = None
    ) -> PagedList[PromptVersion]:
        """The versions of a prompt, the newest first."""
        limit = _DEFAULT_PAGE_SIZE if max_results is None else max_results
        validate_version_page_size(limit)
        _refuse_model(await find_model(self.database, name), "search_model_versions()")
        page = await self._version_page(versions_of_prompt_page(name, page_token), limit)
        return PagedList([model_version_to_prompt_version(version) for version in page], page.token)

    @mutation
    async def set_prompt_alias(self, name: str, alias: str, version: str | int) -> None:
        """Let an alias of a prompt point to a version."""
        await self.set_registered_model_alias(name, alias, version)

    @mutation
    async def delete_prompt_alias(self, name: str, alias: str) -> None:
        """Delete an alias of a prompt."""
        await self.delete_registered_model_alias(name, alias)

    @mutation
    async def set_prompt_version_tag(self, name: str, version: str | int, key: str, value: str) -> None:
        """Set a tag of a version of a prompt."""
        await self.set_model_version_tag(name, _prompt_version_number(version), ModelVersionTag(key, value))

    @mutation
    async def delete_prompt_version_tag(self, name: str, version: str | int, key: str) -> None:
        """Delete a tag of a version of a prompt."""
        await self.delete_model_version_tag(name, _prompt_version_number(version), key)


_IS_PROMPT = {IS_PROMPT_TAG_KEY: PROMPT_VALUE}


def _version_tags(
    template: str | list[dict[str, Any]],
    tags: dict[str, str],
    response_format: type[BaseModel] | dict[str, Any] | None,
    model_config: PromptModelConfig | dict[str, Any] | None,
) -> list[ModelVersionTag]:
    is_text = isinstance(template, str)
    values = {
        **_IS_PROMPT,
        PROMPT_TEXT_TAG_KEY: template if is_text else json.dumps(template),
        PROMPT_TYPE_TAG_KEY: PROMPT_TYPE_TEXT if is_text else PROMPT_TYPE_CHAT,
    }
    if response_format:
        format_as_dict = PromptVersion.convert_response_format_to_dict(response_format)
        values[RESPONSE_FORMAT_TAG_KEY] = json.dumps(format_as_dict)
    if model_config:
        # A dict is checked by making it a configuration.
        config = PromptModelConfig.from_dict(model_config) if isinstance(model_config, dict) else model_config
        values[PROMPT_MODEL_CONFIG_TAG_KEY] = json.dumps(config.to_dict())
    return [ModelVersionTag(key, value) for key, value in {**values, **tags}.items()]


def _check_readable(name: str, template: Any, tags: list[ModelVersionTag]) -> None:
    """Raise for a template that MLflow could not read back: it would hide every version of the prompt."""
    try:
        model_version_to_prompt_version(ModelVersion(name, "1", 0, tags=tags))
    except ValueError as error:
        raise invalid(
            f"template must be a text or a list of messages with role and content, not {template!r:.100}."
        ) from error


def _with_experiment_as_tag(filter_string: str | None) -> str | None:
    """MLflow lets a search of prompts say ``experiment_id = '7'``; a tag lists the ids, as in ``,7,12,``."""
    clause_match = _EXPERIMENT_CLAUSE.search(filter_string or "")
    if filter_string is None or clause_match is None:
        return filter_string
    experiment_id = clause_match["id"]
    if not experiment_id.isdigit():
        raise invalid(f"Invalid experiment_id: {experiment_id}. Must be a numeric value.")
    clause = f"tags.{PROMPT_EXPERIMENT_IDS_TAG_KEY} LIKE '%,{experiment_id},%'"
    return filter_string[: clause_match.start()] + clause + filter_string[clause_match.end() :]


def _refuse_model(model: Document, instead: str) -> None:
    if not model.get("is_prompt"):
        raise invalid(
            f"Name `{model['name']}` is registered as a model, not a prompt. Use {instead} instead."
        )


def _is_number(version: str) -> bool:
    try:
        int(version)
    except ValueError:
        return False
    return True


def _prompt_version_number(version: str | int) -> int:
    try:
        return int(version)
    except (ValueError, TypeError) as error:
        raise MlflowException(f"Invalid version number: {version}") from error
