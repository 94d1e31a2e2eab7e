"""What MLflow calls when a tracking, registry or artifact URI has one of our schemes."""

import logging
from importlib.metadata import entry_points
from typing import Any

_logger = logging.getLogger("genesis_flow")
_told: set[str] = set()


def tracking_store(store_uri: str | None = None, artifact_uri: str | None = None, **_: Any) -> Any:
    """The tracking store for ``store_uri``."""
    from genesis_flow.sync.tracking import MongoDBStore

    _tell_of_rivals("mlflow.tracking_store", store_uri)
    return MongoDBStore(store_uri, artifact_uri)


def model_registry_store(store_uri: str | None = None, tracking_uri: str | None = None, **_: Any) -> Any:
    """The registry store for ``store_uri``."""
    from genesis_flow.sync.registry import MongoDBModelRegistryStore

    _tell_of_rivals("mlflow.model_registry_store", store_uri)
    return MongoDBModelRegistryStore(store_uri)


def azure_artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> Any:
    """The repository of an ``azure://`` artifact URI."""
    from genesis_flow.artifacts.azure_blob import AzureArtifactRepository

    return AzureArtifactRepository(artifact_uri, tracking_uri, registry_uri)


def _tell_of_rivals(group: str, store_uri: str | None) -> None:
    """Warn once if another plugin claims the scheme too: MLflow lets the last one win, silently."""
    scheme = (store_uri or "").split(":", 1)[0]
    rivals = sorted(
        {
            f"{point.dist.name if point.dist else 'another package'} ({point.value})"
            for point in entry_points(group=group, name=scheme)
            if not point.value.startswith("genesis_flow.")
        }
    )
    if rivals and group not in _told:
        _told.add(group)
        _logger.warning(
            "%s also claims %s:// for %s. This call is served by genesis_flow, the next may not be: "
            "uninstall the one you do not want.",
            ", ".join(rivals),
            scheme,
            group,
        )


def register_mongodb_stores() -> None:
    """Register everything with MLflow by hand, where entry points are not found (a zipped application)."""
    from genesis_flow.compat import stores

    for scheme in ("mongodb", "mongodb+srv", "genesis"):
        stores.tracking_store_registry.register(scheme, tracking_store)
        stores.get_store_registry().register(scheme, model_registry_store)
    stores.artifact_repository_registry.register("azure", azure_artifact_repository)
