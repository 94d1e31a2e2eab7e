"""Documents of the registry as MLflow entities.

The driver gives 64-bit numbers a type of its own, hence ``int()`` around the times.
"""

from mlflow.entities.model_registry import (
    ModelVersion,
    ModelVersionTag,
    Prompt,
    RegisteredModel,
    RegisteredModelAlias,
    RegisteredModelTag,
)
from mlflow.entities.model_registry.model_version_stages import STAGE_NONE
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY

from genesis_flow.documents.plain import Document
from genesis_flow.documents.tag_values import tag_values


def model_entity(model: Document, latest: list[Document]) -> RegisteredModel:
    """A registered model; ``latest`` are the documents of the latest version of each stage."""
    return RegisteredModel(
        name=model["name"],
        creation_timestamp=int(model["creation_time"]),
        last_updated_timestamp=int(model["last_updated_time"]),
        description=model.get("description"),
        latest_versions=[version_entity(model, version) for version in latest],
        tags=[RegisteredModelTag(key, value) for key, value in tag_values(model).items()],
        aliases=[RegisteredModelAlias(alias, version) for alias, version in model["aliases"].items()],
        workspace=model["workspace"],
    )


def version_entity(model: Document, version: Document, *, with_aliases: bool = False) -> ModelVersion:
    """A version as its model's document says it is; MLflow lists no aliases with pages of versions."""
    number = version["version"]
    return ModelVersion(
        name=model["name"],
        version=number,
        creation_timestamp=int(version["creation_time"]),
        last_updated_timestamp=int(version["last_updated_time"]),
        description=version.get("description"),
        user_id=version.get("user_id"),
        current_stage=model["stages"].get(str(number), STAGE_NONE),
        source=version.get("source"),
        run_id=version.get("run_id"),
        status=version["status"],
        status_message=version.get("status_message"),
        tags=[ModelVersionTag(key, value) for key, value in tag_values(version).items()],
        run_link=version.get("run_link"),
        aliases=aliases_of(model, number) if with_aliases else [],
        model_id=version.get("model_id"),
        workspace=version["workspace"],
    )


def aliases_of(model: Document, version: int) -> list[str]:
    return sorted(alias for alias, number in model["aliases"].items() if number == version)


def prompt_entity(model: Document) -> Prompt:
    tags = tag_values(model)
    tags.pop(IS_PROMPT_TAG_KEY, None)
    return Prompt(
        name=model["name"],
        description=model.get("description"),
        creation_timestamp=int(model["creation_time"]),
        tags=tags,
    )
