"""Skills."""

import json
from typing import TYPE_CHECKING

from pydantic import Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.keys import SEPARATOR, unescape_map
from genesis_flow.documents.plain import Document
from genesis_flow.kit.registered import RegisteredFields, Registry, VersionEntry, aliases_of
from genesis_flow.mongo.scoping import current_workspace

if TYPE_CHECKING:
    from mlflow.entities.skill import Skill
    from mlflow.entities.skill_version import SkillVersion


class VersionOfSkill(VersionEntry):
    """A version of a skill."""

    version: int = Field(description="Its number. Numbers go on over deleted versions.")
    source_type: str | None = Field(default=None, description="`git`, `oci`, `zip` or `mlflow`.")
    source: str | None = Field(default=None, description="Where its files are.")
    ref: str | None = Field(default=None, description="Branch, tag or commit.")
    subpath: str | None = Field(default=None, description="The folder in its source.")
    digest: str | None = Field(default=None, description="Digest of its files.")


class SkillFields(RegisteredFields):
    """A skill with its versions."""

    id: str = Field(alias="_id", description="Workspace, organization and name, joined by `|`.")
    organization: str = Field(description="Organization; empty for none.")
    search_text: str = Field(description="Name and description, their blanks as one each.")
    versions: list[VersionOfSkill] = Field(default_factory=list, description="Its versions, ascending.")

    class Settings(CollectionSettings):
        name = "skills"
        indexes = [
            Index(
                [("workspace", ASCENDING), ("organization", ASCENDING), ("name", ASCENDING)],
                name="by_name",
                serves="The page of skills in their usual order.",
            ),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("latest.status", ASCENDING),
                    ("organization", ASCENDING),
                    ("name", ASCENDING),
                ],
                name="by_status",
                serves="The same of one status.",
            ),
            Index(
                [
                    ("workspace", ASCENDING),
                    ("last_update_time", DESCENDING),
                    ("organization", ASCENDING),
                    ("name", ASCENDING),
                ],
                name="by_newest",
                serves="The skills, the last changed first.",
            ),
        ]
        keep_nulls = False


SKILLS = Registry(order=lambda version: version["version"], of_latest=("version", "status", "source_type"))


def skill_id(name: str, organization: str) -> str:
    return f"{current_workspace()}{SEPARATOR}{organization}{SEPARATOR}{name}"


def skill_entity(skill: Document) -> "Skill":
    from mlflow.entities.skill import Skill, SkillStatus  # since MLflow 3.18
    from mlflow.entities.skill_source import SkillSourceType  # since MLflow 3.18

    latest = skill.get("latest") or {}
    return Skill(
        name=skill["name"],
        organization=skill["organization"],
        description=skill.get("description"),
        icons=json.loads(skill["icons"]) if "icons" in skill else None,
        workspace=skill["workspace"],
        status=SkillStatus(latest["status"]) if latest else None,
        tags=unescape_map(skill["tags"]),
        aliases={each["alias"]: int(each["version"]) for each in skill["aliases"]},
        latest_version=int(latest["version"]) if latest else None,
        source_type=SkillSourceType(latest["source_type"]) if "source_type" in latest else None,
        created_by=skill.get("created_by"),
        last_updated_by=skill.get("last_updated_by"),
        creation_timestamp=int(skill["creation_time"]),
        last_updated_timestamp=int(skill["last_update_time"]),
    )


def version_entity(skill: Document, version: Document) -> "SkillVersion":
    from mlflow.entities.skill import SkillStatus  # since MLflow 3.18
    from mlflow.entities.skill_source import SkillSourceType, build_source  # since MLflow 3.18
    from mlflow.entities.skill_version import SkillVersion  # since MLflow 3.18

    source_type = SkillSourceType(version["source_type"]) if "source_type" in version else None
    return SkillVersion(
        name=skill["name"],
        version=int(version["version"]),
        organization=skill["organization"],
        source=build_source(source_type, version.get("source"), version.get("ref"), version.get("subpath")),
        source_type=source_type,
        digest=version.get("digest"),
        status=SkillStatus(version["status"]),
        tags=unescape_map(version["tags"]),
        aliases=aliases_of(skill, version["version"]),
        workspace=skill["workspace"],
        created_by=version.get("created_by"),
        last_updated_by=version.get("last_updated_by"),
        creation_timestamp=int(version["creation_time"]),
        last_updated_timestamp=int(version["last_update_time"]),
    )
