"""Workspaces."""

from mlflow.entities import Workspace
from pydantic import Field

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.connection import Database

# What MLflow's own database says of the workspace that is always there.
DEFAULT_DESCRIPTION = "Default workspace for legacy resources"


class WorkspaceFields(Declared):
    """A workspace, whose name is in the field `workspace` of all that is in it."""

    id: str = Field(alias="_id", description="Its name.")
    description: str | None = Field(default=None, description="Description.")
    default_artifact_root: str | None = Field(
        default=None, description="Where its new experiments keep artifacts, if not where all do."
    )
    trace_archival_location: str | None = Field(
        default=None, description="Where its old traces go, if not where all do."
    )
    trace_archival_retention: str | None = Field(
        default=None, description="After what time its traces go there, such as `30d`."
    )
    going: str | None = Field(
        default=None,
        description="`CASCADE` or `SET_DEFAULT` once it is being deleted so: nobody sees it any more.",
    )

    class Settings(CollectionSettings):
        name = "workspaces"
        keep_nulls = False


async def settings_of(database: Database, workspace: str) -> Document:
    """What a workspace has for itself, by the database's own list; nothing for one that is not there."""
    return await database.collection(WorkspaceFields).find_one({"_id": workspace}) or {}


def workspace_entity(document: Document) -> Workspace:
    return Workspace(
        name=document["_id"],
        description=document.get("description"),
        default_artifact_root=document.get("default_artifact_root"),
        trace_archival_location=document.get("trace_archival_location"),
        trace_archival_retention=document.get("trace_archival_retention"),
    )
