"""Skills: the registry, its tags and aliases.

Documents: one a skill in ``skills``, with all its versions, which are short: each change is one update of it.
The versions of a skill share 16 MB, which is tens of thousands.

Round trips: every read one; a change two, the read and the write. Methods are there under every MLflow: one
that has no skills never asks for them, and who does is told so.
"""

import json
from typing import TYPE_CHECKING, Any

from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from mlflow.utils.time import get_current_time_millis

from genesis_flow.areas.skills.documents import SKILLS, SkillFields, skill_entity, skill_id
from genesis_flow.areas.skills.search import kinds_of, skill_conditions, skill_order
from genesis_flow.compat.registries import NOT_SET, validate_icon_payloads
from genesis_flow.compat.skills import (
    check_alias,
    check_identity,
    check_max_results,
    check_version,
    checked_tag,
    owned_path,
    search_text,
)
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.kit.registered import (
    LATEST,
    drop_alias,
    drop_tag,
    insert_thing,
    live_version,
    new_thing,
    put,
    set_alias,
    set_tag,
)
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.blocking import in_thread
from genesis_flow.mongo.operation import Area, drawn_once, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped

if TYPE_CHECKING:
    from mlflow.entities.skill import RegistryIcon, Skill

Identities = list[tuple[str, str]]


class Skills(Area):
    @property
    def _skills(self) -> Collection:
        return self.database.collection(SkillFields)

    @mutation
    async def create_skill(
        self,
        name: str,
        organization: str = "",
        description: str | None = None,
        icons: "list[RegistryIcon] | None" = None,
        created_by: str | None = None,
    ) -> "Skill":
        """Register a skill."""
        check_identity(name, organization)
        fields = {"description": description, "icons": await _checked_icons(icons)}
        skill = new_skill(name, organization, created_by, **fields)
        taken = entities.taken(f"Skill '{name}' already exists in organization '{organization}'")
        return skill_entity(await insert_thing(self._skills, skill, taken))

    @operation
    async def get_skill(self, name: str, organization: str = "") -> "Skill":
        """A skill."""
        check_identity(name, organization)
        query, short = {"_id": skill_id(name, organization)}, {"versions": 0}
        return skill_entity(
            await entities.find(self._skills, query, unknown_skill(name, organization), short)
        )

    @mutation
    async def update_skill(
        self,
        name: str,
        organization: str = "",
        description: str | None = NOT_SET,
        icons: "list[RegistryIcon] | None" = NOT_SET,
        last_updated_by: str | None = None,
    ) -> "Skill":
        """Change what is given; None takes a value away."""
        check_identity(name, organization)
        change: Document = {}
        if description is not NOT_SET:
            change = {"description": description, "search_text": search_text(name, description)}
        if icons is not NOT_SET:
            change["icons"] = await _checked_icons(icons)

        def alter(skill: Document) -> None:
            now = get_current_time_millis()
            put(skill, **change, last_updated_by=last_updated_by, last_update_time=now)

        return skill_entity(await self._change_skill(name, organization, alter))

    async def _change_skill(
        self, name: str, organization: str, alter: Any, absent: entities.Refusal | None = None
    ) -> Document:
        """The skill after a change of it, in one update."""

        def refuse() -> Document:
            raise (absent or unknown_skill(name, organization))()

        _, skill = await SKILLS.change(self._skills, skill_id(name, organization), alter, refuse)
        return skill

    @mutation
    async def delete_skill(self, name: str, organization: str = "") -> None:
        """Delete a skill with its versions, active ones too. Their files stay."""
        await self._delete_skill(name, organization)

    @mutation
    async def delete_skill_and_collect_artifacts(self, name: str, organization: str = "") -> list[str]:
        """Delete a skill, and tell the paths of the files that its versions had for themselves."""
        return await self._delete_skill(name, organization)

    async def _delete_skill(self, name: str, organization: str) -> list[str]:
        check_identity(name, organization)
        query = scoped({"_id": skill_id(name, organization)})

        async def look() -> Document | None:
            skill: Document | None = await self._skills.find_one(query)
            return skill

        # Once a call: a repetition finds nothing if it was deleted, or the one that somebody made after that.
        seen = await drawn_once("skill", look)
        if seen is None:
            raise unknown_skill(name, organization)()
        gone = await self._skills.find_one_and_delete({**query, "born": seen["born"]})
        if gone is None and not is_repetition():
            raise unknown_skill(name, organization)()
        skill = gone or seen
        paths = (owned_path(skill, version) for version in skill["versions"])
        return [path for path in paths if path]

    @operation
    async def search_skills(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
        include_skill_identities: Identities | None = None,
        exclude_skill_identities: Identities | None = None,
    ) -> "PagedList[Skill]":
        """The skills that match, by organization and name. Permissions may change between pages."""
        check_max_results(max_results)
        conditions, order = skill_conditions(filter_string), skill_order(order_by)
        for operator, identities in (("$in", include_skill_identities), ("$nin", exclude_skill_identities)):
            if identities is not None:
                ids = [skill_id(name, organization) for organization, name in identities]
                conditions.append({"_id": {operator: ids}})
        skills, token = await entities.page(
            self._skills,
            {"$and": conditions} if conditions else {},
            order,
            max_results,
            page_token,
            kinds_of(order),
            {"versions": 0},
            ["skills", filter_string or None, order, current_workspace()],
        )
        return PagedList([skill_entity(skill) for skill in skills], token)

    @mutation
    async def set_skill_alias(self, name: str, alias: str, version: int, organization: str = "") -> None:
        """Let an alias name a version, whatever it has named before."""
        check_identity(name, organization)
        check_version(version)
        check_alias(alias)
        missing = entities.unknown(f"Skill version '{name}' version '{version}' not found or is deleted")

        def alter(skill: Document) -> None:
            live_version(skill, version, missing)
            set_alias(skill, alias, version)

        await self._change_skill(name, organization, alter, missing)

    @mutation
    async def delete_skill_alias(self, name: str, alias: str, organization: str = "") -> None:
        """Delete an alias."""
        check_identity(name, organization)
        if isinstance(alias, str) and alias.lower() == LATEST:
            raise invalid("The 'latest' alias is resolved automatically and cannot be deleted")
        check_alias(alias)
        missing = entities.unknown(f"Alias '{alias}' not found on skill '{name}'")
        await self._change_skill(name, organization, lambda skill: drop_alias(skill, alias, missing), missing)

    @mutation
    async def set_skill_tag(self, name: str, key: str, value: str, organization: str = "") -> None:
        """Set a tag of a skill."""
        check_identity(name, organization)
        key, value = checked_tag(key, value)
        missing = entities.unknown(f"Skill not found (name='{name}', organization='{organization}')")
        await self._change_skill(name, organization, lambda skill: set_tag(skill, key, value), missing)

    @mutation
    async def delete_skill_tag(self, name: str, key: str, organization: str = "") -> None:
        """Delete a tag of a skill."""
        check_identity(name, organization)
        key, _ = checked_tag(key, "")
        missing = entities.unknown(f"Tag '{key}' not found on Skill '{name}'")
        await self._change_skill(name, organization, lambda skill: drop_tag(skill, key, missing), missing)


def new_skill(name: str, organization: str, user: str | None, **fields: Any) -> Document:
    return new_thing(
        skill_id(name, organization),
        name,
        user,
        organization=organization,
        search_text=search_text(name, fields.get("description")),
        **fields,
    )


def unknown_skill(name: str, organization: str) -> entities.Refusal:
    return entities.unknown(f"Skill '{name}' not found in organization '{organization}'")


async def _checked_icons(icons: Any) -> str | None:
    """Icons as they are kept. Their hosts are looked up, which blocks."""
    if icons:
        await in_thread(validate_icon_payloads, icons, "icons")
    else:
        validate_icon_payloads(icons, "icons")
    return None if icons is None else json.dumps(icons)
