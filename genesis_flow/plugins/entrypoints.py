"""What MLflow calls when a tracking, registry or artifact URI has one of our schemes.

Nothing is imported here that could fail: MLflow leaves out a plugin that does not load, with a warning, and
then does not know its schemes.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any

from genesis_flow.compat import packages
from genesis_flow.plugins import after_import

_logger = logging.getLogger("genesis_flow")
_warned_of: set[str] = set()

after_import.install()


def tracking_store(store_uri: str | None = None, artifact_uri: str | None = None, **_: Any) -> Any:
    """The tracking store for ``store_uri``."""
    with _loading():
        from genesis_flow.plugins.gc_account import count_deletions
        from genesis_flow.sync.tracking import MongoDBStore
    _refuse_unfinished(MongoDBStore)
    _tell_of_untested_mlflow()
    _tell_of_rivals("mlflow.tracking_store", store_uri)
    store = MongoDBStore(store_uri, artifact_uri)
    count_deletions(store)
    return store


def model_registry_store(store_uri: str | None = None, tracking_uri: str | None = None, **_: Any) -> Any:
    """The registry store for ``store_uri``."""
    with _loading():
        from genesis_flow.sync.registry import MongoDBModelRegistryStore
    _refuse_unfinished(MongoDBModelRegistryStore)
    _tell_of_untested_mlflow()
    _tell_of_rivals("mlflow.model_registry_store", store_uri)
    return MongoDBModelRegistryStore(store_uri)


def workspace_store(workspace_uri: str | None = None, **_: Any) -> Any:
    """The store of workspaces for ``workspace_uri``."""
    with _loading():
        from genesis_flow.sync.workspaces import MongoDBWorkspaceStore
    _refuse_unfinished(MongoDBWorkspaceStore)
    _tell_of_rivals("mlflow.workspace_provider", workspace_uri)
    return MongoDBWorkspaceStore(workspace_uri)


def scorer_store(tracking_uri: str | None = None, **_: Any) -> Any:
    """What ``mlflow.genai`` keeps scorers in: MLflow's own way to the tracking store."""
    from mlflow.genai.scorers.registry import MlflowTrackingStore

    _tell_of_rivals("mlflow.scorer_store", tracking_uri)
    return MlflowTrackingStore(tracking_uri)


def azure_artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> Any:
    """The repository of an ``azure://`` artifact URI."""
    with _loading():
        from genesis_flow.artifacts.azure_blob import AzureArtifactRepository
    _refuse_unfinished(AzureArtifactRepository)
    return AzureArtifactRepository(artifact_uri, tracking_uri, registry_uri)


@contextmanager
def _loading() -> Iterator[None]:
    """Around imports: an error there is told in one sentence, with what to do."""
    try:
        yield
    except Exception as error:
        raise _unusable(f"{type(error).__name__}: {error}") from error


def _refuse_unfinished(what: type) -> None:
    """MLflow may want more of a plugin than it did."""
    if wanted := sorted(getattr(what, "__abstractmethods__", ())):
        raise _unusable(f"{what.__name__} lacks {', '.join(wanted)}")


def _unusable(cause: str) -> Exception:
    from mlflow.exceptions import MlflowException

    from genesis_flow import __version__

    mlflow = packages.installed()
    advice = (
        "`pip check` shows what is missing or too old"
        if packages.is_tested(mlflow)
        else f"it works with MLflow {packages.TESTED_IN_WORDS}: install one of these, or a newer genesis_flow"
    )
    return MlflowException(
        f"genesis_flow {__version__} cannot be used with the installed MLflow {mlflow} ({cause}); {advice}."
    )


def _tell_of_untested_mlflow() -> None:
    mlflow = packages.installed()
    if mlflow and packages.is_newer_than_tested(mlflow) and mlflow not in _warned_of:
        _warned_of.add(mlflow)
        _logger.warning(
            "genesis_flow was tested with MLflow %s but not with %s. If it fails, install the former.",
            packages.TESTED_IN_WORDS,
            mlflow,
        )


def rivals(group: str, scheme: str) -> list[str]:
    """Other plugins that claim a scheme of ours."""
    return sorted(
        {
            f"{point.dist.name if point.dist else 'another package'} ({point.value})"
            for point in entry_points(group=group, name=scheme)
            if not point.value.startswith("genesis_flow.")
        }
    )


def _tell_of_rivals(group: str, store_uri: str | None) -> None:
    """Warn once if another plugin claims the scheme too: MLflow lets the last one win, silently."""
    scheme = (store_uri or "").split(":", 1)[0]
    others = rivals(group, scheme)
    if others and group not in _warned_of:
        _warned_of.add(group)
        _logger.warning(
            "%s also claims %s:// for %s. This call is served by genesis_flow, the next may not be: "
            "uninstall the one you do not want.",
            ", ".join(others),
            scheme,
            group,
        )


def register_mongodb_stores() -> None:
    """Register everything with MLflow by hand, where entry points are not found (a zipped application)."""
    from genesis_flow.compat import stores

    scorers = stores.scorer_store_registry()
    for scheme in ("mongodb", "mongodb+srv", "genesis"):
        if scorers is not None:
            scorers.register(scheme, scorer_store)
        stores.tracking_store_registry.register(scheme, tracking_store)
        stores.get_store_registry().register(scheme, model_registry_store)
    stores.artifact_repository_registry.register("azure", azure_artifact_repository)
