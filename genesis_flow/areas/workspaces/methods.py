"""The workspaces of a database. The default one is always there, and has a document once it was changed.

Round trips: list, get, create, update one. Deletion: RESTRICT one for each kind of thing; the other modes
grow with what is in the workspace.
"""

from typing import Any

from mlflow.entities import Workspace
from mlflow.entities.workspace import TraceArchivalConfig, WorkspaceDeletionMode
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE, RESOURCE_ALREADY_EXISTS, RESOURCE_DOES_NOT_EXIST
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from genesis_flow.areas.workspaces.contents import conflicts, erase, first_root, give
from genesis_flow.areas.workspaces.documents import (
    DEFAULT_DESCRIPTION,
    WorkspaceFields,
    settings_of,
    workspace_entity,
)
from genesis_flow.compat.validation import (
    validate_archival_repository,
    validate_trace_archival_retention_string,
)
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.mongo.operation import Area, drawn_once, is_repetition, long_mutation, mutation, operation
from genesis_flow.mongo.writes import insert_once

_DEFAULT: Document = {"_id": DEFAULT_WORKSPACE_NAME, "description": DEFAULT_DESCRIPTION}
_FIELDS = ("description", "default_artifact_root", "trace_archival_location", "trace_archival_retention")


class Workspaces(Area):
    @property
    def _workspaces(self) -> Collection:
        return self.database.collection(WorkspaceFields)

    @operation
    async def list_workspaces(self) -> list[Workspace]:
        """All workspaces, by name."""
        found = await self._workspaces.find({"going": None}, batch_size=BATCH).to_list()
        by_name = {DEFAULT_WORKSPACE_NAME: _DEFAULT} | {each["_id"]: each for each in found}
        return [workspace_entity(by_name[name]) for name in sorted(by_name)]

    @operation
    async def get_workspace(self, workspace_name: str) -> Workspace:
        """A workspace, by its name."""
        return workspace_entity(await self._workspace(workspace_name))

    @mutation
    async def create_workspace(self, workspace: Workspace) -> Workspace:
        """Make a workspace."""
        from mlflow.store.workspace.abstract_store import WorkspaceNameValidator

        _check_texts(workspace)
        WorkspaceNameValidator.validate(workspace.name)
        location, retention = _archival(workspace)
        declared = WorkspaceFields(
            _id=workspace.name,
            description=workspace.description,
            default_artifact_root=workspace.default_artifact_root or None,
            trace_archival_location=location,
            trace_archival_retention=retention,
        )
        document = declared.model_dump(by_alias=True, exclude_none=True)
        try:
            if workspace.name == DEFAULT_WORKSPACE_NAME:
                raise DuplicateKeyError("It is always there.")
            await insert_once(self._workspaces, document)
        except DuplicateKeyError as error:
            raise MlflowException(
                f"Workspace '{workspace.name}' already exists.", RESOURCE_ALREADY_EXISTS
            ) from error
        return workspace_entity(document)

    @mutation
    async def update_workspace(self, workspace: Workspace) -> Workspace:
        """Change what is given of a workspace; an empty text takes a setting back."""
        _check_texts(workspace)
        location, retention = _archival(workspace)
        given = {
            "description": workspace.description,
            "default_artifact_root": workspace.default_artifact_root,
            "trace_archival_location": workspace.trace_archival_location and location,
            "trace_archival_retention": workspace.trace_archival_retention and retention,
        }
        kept = {
            field: text for field, text in given.items() if text or (field == "description" and text == "")
        }
        gone = {field: "" for field, text in given.items() if text == "" and field not in kept}
        before = await self._workspace(workspace.name)
        if not (kept or gone):
            return workspace_entity(before)
        is_default = workspace.name == DEFAULT_WORKSPACE_NAME
        first = {field: _DEFAULT[field] for field in ("description",) if field not in {**kept, **gone}}
        change: Document = {**({"$set": kept} if kept else {}), **({"$unset": gone} if gone else {})}
        if is_default and first:
            change["$setOnInsert"] = first
        changed: Document | None = await self._workspaces.find_one_and_update(
            {"_id": workspace.name, "going": None},
            change,
            upsert=is_default,
            return_document=ReturnDocument.AFTER,
        )
        if changed is None:
            raise _unknown(workspace.name)
        return workspace_entity(changed)

    @long_mutation
    async def delete_workspace(
        self, workspace_name: str, mode: WorkspaceDeletionMode = WorkspaceDeletionMode.RESTRICT
    ) -> None:
        """Delete a workspace if it is empty, with all that is in it, or after giving that to the default."""
        if workspace_name == DEFAULT_WORKSPACE_NAME:
            raise MlflowException(
                f"Cannot delete the reserved '{DEFAULT_WORKSPACE_NAME}' workspace", INVALID_STATE
            )
        there = await self._workspaces.find_one({"_id": workspace_name}, {"_id": 1})
        if there is None:
            if is_repetition():
                return
            raise _unknown(workspace_name)
        if mode == WorkspaceDeletionMode.RESTRICT:
            await self._refuse_full(workspace_name)
        elif mode == WorkspaceDeletionMode.CASCADE:
            await self._let_go(workspace_name, mode)
            await erase(self.database, workspace_name, drawn_once)
        elif mode == WorkspaceDeletionMode.SET_DEFAULT:
            await drawn_once("conflicts", lambda: self._refuse_conflicts(workspace_name))
            await self._let_go(workspace_name, mode)
            await give(self.database, workspace_name, once=drawn_once)
        else:
            raise invalid(
                f"Invalid workspace deletion mode {mode!r}. Expected one of: RESTRICT, CASCADE, SET_DEFAULT."
            )
        await self._workspaces.delete_one({"_id": workspace_name})

    async def _workspace(self, name: str) -> Document:
        document = await self._workspaces.find_one({"_id": name, "going": None})
        if document is None:
            if name != DEFAULT_WORKSPACE_NAME:
                raise _unknown(name)
            return _DEFAULT
        return document

    async def _let_go(self, name: str, mode: WorkspaceDeletionMode) -> None:
        """From now on a server takes no request for it; the same call goes on after a crash."""
        await self._workspaces.update_one({"_id": name}, {"$set": {"going": mode.value}})

    async def _refuse_full(self, name: str) -> None:
        full = await first_root(self.database, name)
        if full is not None:
            raise MlflowException(
                f"Cannot delete workspace '{name}': collection '{full[0]}' still contains {full[1]} "
                "resource(s). Remove or reassign them before deleting the workspace.",
                INVALID_STATE,
            )

    async def _refuse_conflicts(self, name: str) -> None:
        if found := await conflicts(self.database, [name]):
            raise MlflowException(
                f"Cannot reassign resources from workspace '{name}' to '{DEFAULT_WORKSPACE_NAME}': the "
                "following names already exist in the default workspace and would cause conflicts:\n"
                + "\n".join(f"  - {each.kind}: {each.name!r}" for each in found)
                + "\nRename or remove the conflicting resources before retrying.",
                INVALID_STATE,
            )

    @operation
    async def _workspace_settings(self, workspace_name: str) -> dict[str, Any]:
        """What a workspace has for itself, nothing for one that is not there."""
        return await settings_of(self.database, workspace_name)


def archival_of(settings: dict[str, Any], location: str, retention: str) -> tuple[TraceArchivalConfig, bool]:
    """Where traces of a workspace go and when, and whether in a folder of its own of where all go."""
    own = settings.get("trace_archival_location")
    return (
        TraceArchivalConfig(
            location=own or location, retention=settings.get("trace_archival_retention") or retention
        ),
        not own,
    )


def _check_texts(workspace: Workspace) -> None:
    """A query by anything else could mean another workspace."""
    for field in ("name", *_FIELDS):
        value = getattr(workspace, field)
        if value is not None and not isinstance(value, str):
            raise invalid(f"The {field} of a workspace must be a text, not {value!r}.")


def _archival(workspace: Workspace) -> tuple[str | None, str | None]:
    """The location and the retention of a workspace, if they are such."""
    location, retention = workspace.trace_archival_location, workspace.trace_archival_retention
    return (
        validate_archival_repository(location, parameter_name="trace_archival_location")
        if location
        else None,
        validate_trace_archival_retention_string(retention) if retention else None,
    )


def _unknown(name: str) -> MlflowException:
    return MlflowException(f"Workspace '{name}' not found", RESOURCE_DOES_NOT_EXIST)
