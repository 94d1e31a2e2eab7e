"""Versions of skills.

Round trips: every read one; create and change two, the read and the write; to register several one read and
one write in a transaction.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import NOT_IMPLEMENTED, RESOURCE_CONFLICT
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT
from pymongo import InsertOne, UpdateOne
from pymongo.errors import BulkWriteError

from genesis_flow.areas.skills.documents import SKILLS, SkillFields, skill_id, version_entity
from genesis_flow.areas.skills.methods import new_skill
from genesis_flow.areas.skills.search import kinds_of, version_conditions, version_order
from genesis_flow.compat.registries import NOT_SET
from genesis_flow.compat.skills import (
    check_alias,
    check_identity,
    check_max_results,
    check_source,
    check_version,
    checked_tag,
    first_status,
    next_status,
    normal_subpath,
    require_skills,
)
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.kit.elements import Elements
from genesis_flow.kit.registered import (
    DELETED,
    LATEST,
    aliased_version,
    check_transition,
    difference,
    drop_tag,
    is_done,
    latest_version,
    live_version,
    live_versions,
    new_version,
    refuse_null_status,
    set_tag,
    touch,
    unchanged,
    version_of,
)
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.connection import Session
from genesis_flow.mongo.error_edge import Meanwhile
from genesis_flow.mongo.operation import Area, call_token, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.writes import only_duplicates

if TYPE_CHECKING:
    from mlflow.entities.skill import SkillStatus
    from mlflow.entities.skill_version import SkillVersion


class SkillVersions(Area):
    @property
    def _skills_of_versions(self) -> Collection:
        return self.database.collection(SkillFields)

    @mutation
    async def create_skill_version(
        self,
        name: str,
        organization: str = "",
        source_type: str | None = None,
        source: str | None = None,
        ref: str | None = None,
        subpath: str | None = None,
        digest: str | None = None,
        status: str = "active",
        created_by: str | None = None,
        expected_parent_exists: bool | None = None,
    ) -> "SkillVersion":
        """Register a version of a skill, which is made if it is not there, under the next number."""
        check_identity(name, organization)
        check_source(source_type, source, ref, subpath, digest)
        fields = _source(source_type=source_type, source=source, ref=ref, subpath=subpath, digest=digest)
        given_status = first_status(status)

        def alter(skill: Document) -> None:
            if _made_before(skill) is None:
                _check_expected(skill, expected_parent_exists)
                _add_version(skill, given_status, created_by, fields)

        _, skill = await SKILLS.change(
            self._skills_of_versions,
            skill_id(name, organization),
            alter,
            lambda: new_skill(name, organization, created_by),
        )
        return version_entity(skill, _made_before(skill) or skill["versions"][-1])

    @mutation
    async def bulk_register_skills(
        self,
        skill_definitions: list[dict[str, Any]],
        organization: str = "",
        created_by: str | None = None,
        expected_parent_exists: dict[str, bool] | None = None,
    ) -> "list[SkillVersion]":
        """Register versions of several skills from one repository, all or none; known ones are used again."""
        require_skills()
        definitions, status = _checked_definitions(skill_definitions, organization)
        expected = expected_parent_exists or {}
        by_id = {skill_id(name, organization): name for name in definitions}

        def alter(name: str, skill: Document) -> None:
            if _made_before(skill) is None:
                _check_expected(skill, expected.get(name))
                if _same_source(skill, definitions[name]) is None:
                    _add_version(skill, status, created_by, definitions[name])

        async def register(session: Session | None) -> dict[str, Document]:
            if session is None:
                raise MlflowException(
                    "Several skills are registered together in a transaction, which a standalone MongoDB "
                    "server does not have. Register them one by one, or make it a replica set of one.",
                    NOT_IMPLEMENTED,
                )
            skills = self._skills_of_versions
            found = skills.find(scoped({"_id": {"$in": [*by_id]}}), batch_size=BATCH, session=session)
            before = {skill["_id"]: skill async for skill in found}
            after: dict[str, Document] = {}
            writes: list[Any] = []
            for key, name in by_id.items():
                old = before.get(key)
                new = SKILLS.altered(
                    old,
                    lambda skill, name=name: alter(name, skill),  # type: ignore[misc]
                    lambda name=name: new_skill(name, organization, created_by),  # type: ignore[misc]
                )
                after[name] = new
                if old is None:
                    writes.append(InsertOne(new))
                elif old != new:
                    writes.append(UpdateOne(unchanged(old), difference(old, new)))
            await _write_all(skills, writes, session)
            return after

        skills = await self.database.atomically(register)
        return [
            version_entity(skill, _made_before(skill) or _same_source(skill, definitions[name]) or {})
            for name, skill in ((name, skills[name]) for name in definitions)
        ]

    @operation
    async def get_skill_version(self, name: str, version: int, organization: str = "") -> "SkillVersion":
        """A version that is not deleted."""
        check_identity(name, organization)
        check_version(version)
        return await self._skill_version(
            name,
            organization,
            {"versions": {"$elemMatch": {"version": version}}},
            lambda skill: live_version(skill, version, _unknown(name, version)),
        )

    async def _skill_version(
        self,
        name: str,
        organization: str,
        projection: Document,
        choose: Callable[[Document | None], Document],
    ) -> "SkillVersion":
        query = scoped({"_id": skill_id(name, organization)})
        shown = {"name": 1, "organization": 1, "workspace": 1, "aliases": 1, "latest": 1, **projection}
        skill = await self._skills_of_versions.find_one(query, shown)
        chosen = choose(None if skill is None else {"versions": [], **skill})
        return version_entity(skill or {}, chosen)

    @operation
    async def get_latest_skill_version(self, name: str, organization: str = "") -> "SkillVersion":
        """The latest active version; the latest of all if none is active."""
        check_identity(name, organization)

        def choose(skill: Document | None) -> Document:
            if skill is None:
                raise entities.unknown(f"Skill not found (name='{name}', organization='{organization}')")()
            return latest_version(
                skill, entities.unknown(f"No resolved latest version found for skill '{name}'")
            )

        return await self._skill_version(name, organization, {"versions": 1}, choose)

    @operation
    async def get_skill_version_by_alias(
        self, name: str, alias: str, organization: str = ""
    ) -> "SkillVersion":
        """The version that an alias names; `latest`, in any case of its letters, is the latest one."""
        check_identity(name, organization)
        if isinstance(alias, str) and alias.lower() == LATEST:
            return await self.get_latest_skill_version(name, organization)
        check_alias(alias)

        def choose(skill: Document | None) -> Document:
            version = aliased_version(skill, alias)
            if version is None:
                raise entities.unknown(f"Alias '{alias}' not found for skill '{name}'")()
            return version

        return await self._skill_version(name, organization, {"versions": 1}, choose)

    @operation
    async def search_skill_versions(
        self,
        name: str,
        organization: str = "",
        filter_string: str | None = None,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> "PagedList[SkillVersion]":
        """The versions of a skill that match, ascending unless another order is asked for."""
        check_identity(name, organization)
        check_max_results(max_results)
        conditions, order = version_conditions(filter_string), version_order(order_by)
        fields = ("name", "organization", "workspace", "aliases")
        rows, token = await Elements("versions", {"_id": skill_id(name, organization)}, fields).page(
            self._skills_of_versions,
            conditions,
            order,
            max_results,
            page_token,
            ["skill versions", name, organization, filter_string or None, order, current_workspace()],
            kinds_of(order),
        )
        return PagedList([version_entity(row, row["versions"]) for row in rows], token)

    @mutation
    async def update_skill_version(
        self,
        name: str,
        version: int,
        organization: str = "",
        status: "SkillStatus | str | None" = NOT_SET,
        last_updated_by: str | None = None,
    ) -> "SkillVersion":
        """Change the status. A version that becomes deleted loses its aliases."""
        check_identity(name, organization)
        check_version(version)
        if status is None:
            raise refuse_null_status()

        def alter(skill: Document) -> None:
            entry = version_of(skill, version)
            if entry is not None and is_done(entry):
                return
            entry = live_version(skill, version, _unknown(name, version))
            if status is not NOT_SET:
                wanted = next_status(status)
                check_transition(entry["status"], wanted)
                touch(entry, status=wanted, last_updated_by=last_updated_by)

        skill = await self._change_version(name, version, organization, alter)
        return version_entity(skill, version_of(skill, version) or {})

    async def _change_version(
        self, name: str, version: int, organization: str, alter: Callable[[Document], None]
    ) -> Document:
        def refuse() -> Document:
            raise _unknown(name, version)()

        key = skill_id(name, organization)
        _, skill = await SKILLS.change(self._skills_of_versions, key, alter, refuse)
        return skill

    @mutation
    async def delete_skill_version(
        self, name: str, version: int, organization: str = "", last_updated_by: str | None = None
    ) -> None:
        """Delete a version, with the aliases that name it. Its number stays taken."""
        check_identity(name, organization)
        check_version(version)

        def alter(skill: Document) -> None:
            entry = version_of(skill, version)
            if entry is not None and is_done(entry):
                return
            entry = live_version(skill, version, _unknown(name, version))
            check_transition(entry["status"], DELETED)
            touch(entry, status=DELETED, last_updated_by=last_updated_by)

        await self._change_version(name, version, organization, alter)

    @mutation
    async def set_skill_version_tag(
        self, name: str, version: int, key: str, value: str, organization: str = ""
    ) -> None:
        """Set a tag of a version."""
        check_identity(name, organization)
        check_version(version)
        key, value = checked_tag(key, value)

        def alter(skill: Document) -> None:
            set_tag(live_version(skill, version, _unknown(name, version)), key, value)

        await self._change_version(name, version, organization, alter)

    @mutation
    async def delete_skill_version_tag(
        self, name: str, version: int, key: str, organization: str = ""
    ) -> None:
        """Delete a tag of a version."""
        check_identity(name, organization)
        check_version(version)
        key, _ = checked_tag(key, "")
        missing = entities.unknown(f"Tag '{key}' not found on Skill version '{name}' version '{version}'")

        def alter(skill: Document) -> None:
            entry = version_of(skill, version)  # as in MLflow, deleted versions have tags to delete
            if entry is None:
                raise missing()
            drop_tag(entry, key, missing)

        def refuse() -> Document:
            raise missing()

        await SKILLS.change(self._skills_of_versions, skill_id(name, organization), alter, refuse)


def _unknown(name: str, version: int) -> entities.Refusal:
    return entities.unknown(f"Skill version '{name}' version '{version}' not found")


def _source(**fields: Any) -> Document:
    return {name: None if value is None else str(value) for name, value in fields.items()}


def _made_before(skill: Document) -> Document | None:
    """The version that this call has made, now or in an earlier attempt."""
    return next((version for version in skill["versions"] if version["call"] == call_token()), None)


def _add_version(skill: Document, status: str, user: str | None, fields: Document) -> None:
    number = max((version["version"] for version in skill["versions"]), default=0) + 1
    skill["versions"] = [*skill["versions"], new_version(int(number), status, user, **fields)]


def _same_source(skill: Document, fields: Document) -> Document | None:
    """The highest version that is not deleted and comes from there."""
    same = (
        version
        for version in reversed(live_versions(skill))
        if all(version.get(field) == value for field, value in fields.items())
    )
    return next(same, None)


def _check_expected(skill: Document, expected: bool | None) -> None:
    """Refuse a skill that is there, or not, against what is expected. This call's own is not there yet."""
    if expected is None or expected == (skill["born"] != call_token()):
        return
    name = skill["name"]
    raise MlflowException(
        f"Skill '{name}' no longer exists; this registration expected to update it."
        if expected
        else f"Skill '{name}' already exists; this registration expected to create it.",
        RESOURCE_CONFLICT,
    )


def _checked_definitions(given: Any, organization: str) -> tuple[dict[str, Document], str]:
    """Definitions by name, and the status that they share."""
    if not isinstance(given, list) or not given:
        raise invalid("Skill definitions must be a nonempty list.")
    definitions: dict[str, Document] = {}
    shared: dict[str, Any] = {}
    for definition in given:
        if not isinstance(definition, dict) or not isinstance(definition.get("name"), str):
            raise invalid("Each Skill definition must supply a name.")
        name = definition["name"]
        check_identity(name, organization)
        status = first_status(definition.get("status", "active"))
        if shared.setdefault("status", status) != status:
            raise invalid("Bulk registration requires the same status for every Skill.")
        fields = _checked_git_source(definition)
        if name in definitions:
            raise invalid(f"Duplicate Skill name: {name!r}.")
        repository = (fields["source"], fields["ref"])
        if shared.setdefault("repository", repository) != repository:
            raise invalid("Bulk registration requires the same Git repository and ref for every Skill.")
        definitions[name] = fields
    return definitions, shared["status"]


def _checked_git_source(definition: dict[str, Any]) -> Document:
    fields = {field: definition.get(field) for field in ("source", "ref", "subpath", "digest")}
    fields["subpath"] = normal_subpath(fields["subpath"])
    source_type = definition.get("source_type", "git")
    check_source(source_type, **fields)
    if source_type != "git" or not fields["source"] or not fields["digest"]:
        raise invalid("Bulk registration requires a Git source and digest for every Skill.")
    return _source(source_type=source_type, **fields)


async def _write_all(skills: Collection, writes: list[Any], session: Session) -> None:
    """Make all the writes; if somebody else was faster with one of them, the call is made again."""
    if not writes:
        return
    faster = Meanwhile("Others register the same skills. Try again.", RESOURCE_CONFLICT)
    updates = sum(isinstance(write, UpdateOne) for write in writes)
    try:
        result = await skills.bulk_write(writes, ordered=False, session=session)
    except BulkWriteError as error:
        if only_duplicates(error):
            raise faster from error
        raise
    if result.matched_count < updates:
        raise faster
