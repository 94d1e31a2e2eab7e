"""Registered models and their versions; a prompt is a registered model with a tag.

The model's document is the truth about everything that must change for several versions at once: the
stages, the aliases, the last number given out. One update of it moves a stage from one version to another,
so no reader ever sees two versions, or none, in the middle of a transition, with or without transactions.
What the versions repeat of it (the name, the aliases) only makes searches and one-step reads possible.
"""

from typing import Any, ClassVar

from pydantic import BaseModel, Field
from pymongo import ASCENDING, DESCENDING, IndexModel

from genesis_flow.documents.keys import SEPARATOR


class LatestUnstaged(BaseModel):
    """The latest version without a stage (0: none), known to hold while ``last_version`` is ``of``."""

    of: int
    version: int


class RegisteredModelFields(BaseModel):
    # Never changes, unlike the name: versions belong to the id.
    id: str = Field(alias="_id")
    workspace: str
    name: str
    # The former name while a rename is carried to the versions, so that a killed one can be finished.
    renamed_from: str | None = None
    # The call that renamed it last, so that its repetition is told from another's.
    renamed_by: str | None = None
    description: str | None = None
    creation_time: int
    last_updated_time: int
    tags: dict[str, str | None] = Field(default_factory=dict)
    texts: dict[str, str] = Field(default_factory=dict)
    is_prompt: bool = False
    # The highest version number ever given out; a deleted version's is not given out again.
    last_version: int = 0
    # The call that took it, where there are no transactions.
    numbered_for: str | None = None
    # Version by alias, and stage by version for the versions that have one.
    aliases: dict[str, int] = Field(default_factory=dict)
    stages: dict[str, str] = Field(default_factory=dict)
    # Absent as long as the newest version has no stage.
    latest_unstaged: LatestUnstaged | None = None
    # Counts the changes of aliases and stages: a change is made over what was read, or read again.
    revision: int = 0

    class Settings:
        name = "registered_models"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("workspace", ASCENDING), ("name", ASCENDING)], name="name_unique", unique=True),
            # The page of models, and that of prompts, in the order of the UI.
            IndexModel(
                [("workspace", ASCENDING), ("is_prompt", ASCENDING), ("name", ASCENDING)], name="by_name"
            ),
            IndexModel(
                [
                    ("workspace", ASCENDING),
                    ("is_prompt", ASCENDING),
                    ("last_updated_time", DESCENDING),
                    ("name", ASCENDING),
                ],
                name="by_update",
            ),
            IndexModel([("tags.$**", ASCENDING)], name="tags"),
        ]
        keep_nulls = False


class ModelVersionFields(BaseModel):
    # The model's id and the number: see version_id.
    id: str = Field(alias="_id")
    workspace: str
    model: str
    name: str
    version: int
    creation_time: int
    last_updated_time: int
    description: str | None = None
    user_id: str | None = None
    source: str | None = None
    storage_location: str | None = None
    run_id: str | None = None
    run_link: str | None = None
    # The logged model that was registered.
    model_id: str | None = None
    status: str
    status_message: str | None = None
    tags: dict[str, str | None] = Field(default_factory=dict)
    texts: dict[str, str] = Field(default_factory=dict)
    is_prompt: bool = False
    # A hint for reads by alias, which the model's document confirms.
    aliases: list[str] = Field(default_factory=list)

    class Settings:
        name = "model_versions"
        indexes: ClassVar[list[IndexModel]] = [
            # Not unique: while a rename is carried on, the old name may belong to a new model already.
            IndexModel(
                [("workspace", ASCENDING), ("name", ASCENDING), ("version", DESCENDING)], name="by_name"
            ),
            IndexModel(
                [("workspace", ASCENDING), ("name", ASCENDING), ("aliases", ASCENDING)], name="by_alias"
            ),
            IndexModel(
                [
                    ("workspace", ASCENDING),
                    ("is_prompt", ASCENDING),
                    ("last_updated_time", DESCENDING),
                    ("name", ASCENDING),
                    ("version", DESCENDING),
                ],
                name="by_update",
            ),
            # All versions of the workspace in the order of their names, whole pages at a time.
            IndexModel(
                [
                    ("workspace", ASCENDING),
                    ("is_prompt", ASCENDING),
                    ("name", ASCENDING),
                    ("version", DESCENDING),
                ],
                name="by_kind_and_name",
            ),
            IndexModel([("workspace", ASCENDING), ("run_id", ASCENDING)], name="by_run"),
            IndexModel([("tags.$**", ASCENDING)], name="tags"),
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
