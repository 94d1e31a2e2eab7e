"""Workspaces, which are none of those that the other scenes are played in."""

from mlflow.entities import Workspace
from mlflow.entities.workspace import WorkspaceDeletionMode

from tests.scenes.stage import Stage


async def scene(stage: Stage) -> None:
    call = stage.track
    for name in ("team-x", "team-y", "team-z"):
        await call("create_workspace", Workspace(name, description="of a scene"))
    await call("list_workspaces")
    await call("get_workspace", "team-x")
    await call("update_workspace", Workspace("team-x", default_artifact_root="s3://theirs"))
    await call("_workspace_settings", "team-x")
    for name, mode in zip(("team-x", "team-y", "team-z"), WorkspaceDeletionMode, strict=True):
        await call("delete_workspace", name, mode)
