"""What MLflow checks of skills, which it has since 3.18."""

import re
from typing import Any

from genesis_flow.compat.version import RELEASE
from genesis_flow.core.errors import invalid

HAS_SKILLS = RELEASE >= (3, 18)

_BLANKS = re.compile(r"\s+")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST_SOURCE = 2048


def require_skills() -> None:
    if not HAS_SKILLS:
        raise invalid("Skills need MLflow 3.18 or newer. Update MLflow.")


def check_identity(name: Any, organization: Any) -> None:
    require_skills()
    from mlflow.utils.validation import _validate_organization_name, _validate_skill_name  # since MLflow 3.18

    _validate_skill_name(name)
    _validate_organization_name(organization)


def check_version(version: Any) -> None:
    from mlflow.utils.validation import _validate_skill_version  # since MLflow 3.18

    _validate_skill_version(version)


def check_alias(alias: Any) -> None:
    from mlflow.utils.validation import (  # since MLflow 3.18
        _validate_alias_name,
        _validate_alias_name_reserved,
    )

    _validate_alias_name(alias, resource_type="Skill")
    _validate_alias_name_reserved(alias)


def checked_tag(key: Any, value: Any) -> tuple[str, str]:
    from mlflow.utils.validation import _validate_skill_tag  # since MLflow 3.18

    tag = _validate_skill_tag(key, value)
    return tag.key, tag.value


def search_text(name: str, description: str | None = None) -> str:
    """The text in which a search of skills looks."""
    parts = [_BLANKS.sub(" ", str(part or "")).strip() for part in (name, description)]
    return " ".join(part for part in parts if part)


def normal_subpath(subpath: Any) -> Any:
    from mlflow.genai.skill_content.paths import normalize_subpath  # since MLflow 3.18

    return normalize_subpath(subpath)


def owned_path(skill: dict[str, Any], version: dict[str, Any]) -> str | None:
    """The artifacts that a version has for itself, and that go with it."""
    from mlflow.store.tracking.skill_registry.artifact_paths import (  # since MLflow 3.18
        owned_skill_upload_path,
    )

    path: str | None = owned_skill_upload_path(
        name=skill["name"],
        organization=skill["organization"],
        source_type=version.get("source_type"),
        source=version.get("source"),
        subpath=version.get("subpath"),
    )
    return path


def check_source(source_type: Any, source: Any, ref: Any, subpath: Any, digest: Any) -> None:
    from mlflow.entities.skill_source import SkillSourceType  # since MLflow 3.18

    try:
        kind = None if source_type is None else SkillSourceType(source_type)
    except (TypeError, ValueError) as error:
        raise invalid(f"Invalid Skill source type: {source_type!r}") from error
    for field, value in (("source", source), ("ref", ref), ("subpath", subpath)):
        if value is not None and (not isinstance(value, str) or len(value) > _LONGEST_SOURCE):
            raise invalid(f"Skill version {field} must be a string of at most {_LONGEST_SOURCE} characters.")
    if digest is not None and not (isinstance(digest, str) and _DIGEST.fullmatch(digest)):
        raise invalid("Skill version digest must be a 64-character lowercase hexadecimal string.")
    if ref is not None and kind not in (None, SkillSourceType.GIT):
        raise invalid("Skill version ref is only supported for Git sources.")


def first_status(status: Any) -> str:
    """The status of a new version."""
    from mlflow.entities.skill import SkillStatus  # since MLflow 3.18

    try:
        known = SkillStatus(status)
    except (TypeError, ValueError) as error:
        raise invalid(f"Invalid SkillVersion status: {status!r}") from error
    if known not in (SkillStatus.ACTIVE, SkillStatus.DRAFT):
        raise invalid("A newly created SkillVersion must have status 'active' or 'draft'.")
    return str(known)


def next_status(status: Any) -> str:
    """The status that a version is to have."""
    from mlflow.entities.skill import SkillStatus  # since MLflow 3.18

    try:
        return str(SkillStatus(status))
    except (TypeError, ValueError) as error:
        raise invalid(f"Invalid SkillVersion status: {status!r}") from error


def check_max_results(max_results: Any) -> None:
    require_skills()
    from mlflow.store.tracking.skill_registry_pagination import validate_max_results  # since MLflow 3.18

    validate_max_results(max_results)


def skill_parser() -> Any:
    from mlflow.utils import search_utils  # since MLflow 3.18

    return search_utils.SearchSkillUtils  # type: ignore[attr-defined, unused-ignore]  # since MLflow 3.18


def version_parser() -> Any:
    from mlflow.utils import search_utils  # since MLflow 3.18

    return search_utils.SearchSkillVersionUtils  # type: ignore[attr-defined, unused-ignore]  # since 3.18
