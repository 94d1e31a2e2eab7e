"""Where experiments keep artifacts."""

from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE
from mlflow.utils.uri import append_to_uri_path, resolve_uri_if_local
from mlflow.utils.workspace_utils import WORKSPACES_DIR_NAME, get_workspace_store_uri

from genesis_flow.areas.workspaces.documents import settings_of
from genesis_flow.mongo.blocking import in_thread
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import current_workspace, workspaces_enabled


async def artifact_root(database: Database, configured: str) -> str:
    """The folder of new experiments: that of their workspace, or one of its own in that of all."""
    root: str = resolve_uri_if_local(configured)
    if not workspaces_enabled():
        return root
    workspace, elsewhere = current_workspace(), get_workspace_store_uri()
    if elsewhere is None:
        own = (await settings_of(database, workspace)).get("default_artifact_root")
        found, appended = (own, False) if own else (root, True)
    else:
        # The server's list of workspaces, which any plugin may keep, and which is asked with blocking calls.
        found, appended = await in_thread(_asked, elsewhere, root, workspace)
    if appended:
        refuse_reserved_root(found)
    folder: str = append_to_uri_path(found, WORKSPACES_DIR_NAME, workspace) if appended else found
    return folder


def _asked(uri: str, root: str, workspace: str) -> tuple[str, bool]:
    from genesis_flow.compat.workspaces import get_workspace_store  # a client without needs it not

    found, appended = get_workspace_store(workspace_uri=uri).resolve_artifact_root(root, workspace)
    return found or root, appended


def refuse_reserved_root(root: str) -> None:
    """A root that could be taken for that of a workspace."""
    segments = [each for each in urlsplit(root).path.split("/") if each]
    if WORKSPACES_DIR_NAME in segments[-2:]:
        raise MlflowException(
            f"Cannot enable workspace mode because the default artifact root {root} ends in the reserved "
            f"'{WORKSPACES_DIR_NAME}' or in '{WORKSPACES_DIR_NAME}/<name>', where workspaces keep theirs. "
            "Choose a different artifact root before enabling workspaces.",
            INVALID_STATE,
        )
