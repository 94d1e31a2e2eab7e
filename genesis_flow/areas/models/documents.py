"""Registered models and their versions; a prompt is a registered model with a tag.

The model's document is the truth about everything that must change for several versions at once: the
stages, the aliases, the last number given out. One update of it moves a stage from one version to another,
so no reader ever sees two versions, or none, in the middle of a transition, with or without transactions.
The versions repeat the name and the aliases only for searches and for reads in one step.
"""

from typing import Any

from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.keys import SEPARATOR


class LatestUnstaged(BaseModel):
    """The latest version without a stage (0: none), known to hold while ``last_version`` is ``of``."""

    of: int = Field(description="The `last_version` for which this holds.")
    version: int = Field(description="Number of the version; 0 means none.")


class RegisteredModelFields(Declared):
    """A registered model, or a prompt: the truth about stages, aliases and version numbers."""

    id: str = Field(
        alias="_id", description="Made once; never changes, unlike the name: versions belong to it."
    )
    workspace: str = Field(description="Workspace; every query names it.")
    name: str = Field(description="Name, unique in the workspace.")
    renamed_from: str | None = Field(
        default=None,
        description=(
            "The former name while a rename is carried to the versions, so that a killed one can be finished."
        ),
    )
    renamed_by: str | None = Field(
        default=None,
        description="The call that renamed it last, so that its repetition is told from another's.",
    )
    description: str | None = Field(default=None, description="Description.")
    creation_time: int = Field(description="When it was made.")
    last_updated_time: int = Field(description="When it last changed.")
    tags: dict[str, str | None] = Field(
        default_factory=dict, description="Values of up to 1,000 characters by escaped key."
    )
    texts: dict[str, str] = Field(
        default_factory=dict, description="Longer tag values, which are not indexed, by escaped key."
    )
    is_prompt: bool = Field(default=False, description="Whether it is a prompt.")
    last_version: int = Field(
        default=0,
        description="The highest version number ever given out; a deleted version's is not given out again.",
    )
    numbered_for: str | None = Field(
        default=None, description="The call that took it, where there are no transactions."
    )
    aliases: dict[str, int] = Field(default_factory=dict, description="Version by alias.")
    stages: dict[str, str] = Field(
        default_factory=dict, description="Stage by version, for the versions that have one."
    )
    latest_unstaged: LatestUnstaged | None = Field(
        default=None,
        description="The latest version without a stage; absent as long as the newest version has no stage.",
    )
    revision: int = Field(
        default=0,
        description=(
            "Counts the changes of aliases and stages: a change is made over what was read, or read again."
        ),
    )

    class Settings(CollectionSettings):
        name = "registered_models"
        indexes = [
            Index(
                [("workspace", ASCENDING), ("name", ASCENDING)],
                name="name_unique",
                unique=True,
                serves="A model by its name, and one name once.",
            ),
            Index(
                [("workspace", ASCENDING), ("is_prompt", ASCENDING), ("name", ASCENDING)],
                name="by_name",
                serves="The page of models, and that of prompts, in the order of the UI.",
            ),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("is_prompt", ASCENDING),
                    ("last_updated_time", DESCENDING),
                    ("name", ASCENDING),
                ],
                name="by_update",
                serves="The same, the last changed first.",
            ),
            Index([("tags.$**", ASCENDING)], name="tags", serves="Filters by a tag."),
        ]
        keep_nulls = False


class ModelVersionFields(Declared):
    """A version of a registered model or prompt."""

    id: str = Field(alias="_id", description="`model|number`, the number with ten digits.")
    workspace: str = Field(description="Workspace; every query names it.")
    model: str = Field(description="The registered model's `_id`.")
    name: str = Field(description="Copy of the model's name, for searches.")
    version: int = Field(description="Number of the version.")
    creation_time: int = Field(description="When it was made.")
    last_updated_time: int = Field(description="When it last changed.")
    description: str | None = Field(default=None, description="Description.")
    user_id: str | None = Field(default=None, description="Who made it.")
    source: str | None = Field(default=None, description="Where the model was registered from.")
    storage_location: str | None = Field(
        default=None, description="Where its files are, if not at the source."
    )
    run_id: str | None = Field(default=None, description="The run that made it.")
    run_link: str | None = Field(default=None, description="Link to that run on another server.")
    model_id: str | None = Field(default=None, description="The logged model that was registered.")
    status: str = Field(description="`READY`, `PENDING_REGISTRATION` or `FAILED_REGISTRATION`.")
    status_message: str | None = Field(default=None, description="Why it is not ready.")
    tags: dict[str, str | None] = Field(
        default_factory=dict, description="Values of up to 1,000 characters by escaped key."
    )
    texts: dict[str, str] = Field(
        default_factory=dict, description="Longer tag values, among them the text of prompts, by escaped key."
    )
    is_prompt: bool = Field(default=False, description="Whether it is a version of a prompt.")
    aliases: list[str] = Field(
        default_factory=list, description="A hint for reads by alias, which the model's document confirms."
    )

    class Settings(CollectionSettings):
        name = "model_versions"
        refers = {
            "model": "registered_models",
            "run_id": "runs",
            "model_id": "logged_models",
        }
        indexes = [
            Index(
                [("workspace", ASCENDING), ("name", ASCENDING), ("version", DESCENDING)],
                name="by_name",
                serves=(
                    "The versions of a model, newest first. Not unique: while a rename is carried on, the "
                    "old name may belong to a new model already."
                ),
            ),
            Index(
                [("workspace", ASCENDING), ("name", ASCENDING), ("aliases", ASCENDING)],
                name="by_alias",
                serves="A version by its alias.",
            ),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("is_prompt", ASCENDING),
                    ("last_updated_time", DESCENDING),
                    ("name", ASCENDING),
                    ("version", DESCENDING),
                ],
                name="by_update",
                serves="All versions of the workspace, the last changed first.",
            ),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("is_prompt", ASCENDING),
                    ("name", ASCENDING),
                    ("version", DESCENDING),
                ],
                name="by_kind_and_name",
                serves="All versions of the workspace in the order of their names, whole pages at a time.",
            ),
            Index(
                [("workspace", ASCENDING), ("run_id", ASCENDING)],
                name="by_run",
                serves="The versions that a run made.",
            ),
            Index([("tags.$**", ASCENDING)], name="tags", serves="Filters by a tag."),
        ]
        keep_nulls = False


def version_id(model: str, version: int) -> str:
    """Numbers are padded, so the ids of a model's versions sort as the numbers do."""
    return f"{model}{SEPARATOR}{version:010d}"


def latest_unstaged(model: dict[str, Any]) -> int:
    """The number of the latest version without a stage, 0 if there is none."""
    last = int(model["last_version"])
    known = model.get("latest_unstaged")
    return int(known["version"]) if known and known["of"] == last else last


def latest_by_stage(model: dict[str, Any]) -> dict[str, int]:
    """The latest version of each stage, except of those without a stage."""
    latest: dict[str, int] = {}
    for number, stage in model["stages"].items():
        latest[stage] = max(latest.get(stage, 0), int(number))
    return latest
