"""MLflow 3 on MongoDB: set a tracking URI and every MLflow call works, no tracking server in between.

The names here are imported on first use, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genesis_flow.core.config_alias import MongoDBConfig
    from genesis_flow.core.settings import Settings
    from genesis_flow.plugins.entrypoints import register_mongodb_stores
    from genesis_flow.sync.registry import MongoDBModelRegistryStore
    from genesis_flow.sync.registry import MongoDBModelRegistryStore as MongoDbModelRegistryStore
    from genesis_flow.sync.tracking import MongoDBStore
    from genesis_flow.sync.tracking import MongoDBStore as MongoDbTrackingStore

__version__ = "0.1.0"

_PLACES = {
    "MongoDBStore": ("genesis_flow.sync.tracking", "MongoDBStore"),
    "MongoDBModelRegistryStore": ("genesis_flow.sync.registry", "MongoDBModelRegistryStore"),
    "MongoDBConfig": ("genesis_flow.core.config_alias", "MongoDBConfig"),
    "Settings": ("genesis_flow.core.settings", "Settings"),
    "register_mongodb_stores": ("genesis_flow.plugins.entrypoints", "register_mongodb_stores"),
    # Older names.
    "MongoDbTrackingStore": ("genesis_flow.sync.tracking", "MongoDBStore"),
    "MongoDbModelRegistryStore": ("genesis_flow.sync.registry", "MongoDBModelRegistryStore"),
}

__all__ = [
    "MongoDBConfig",
    "MongoDBModelRegistryStore",
    "MongoDBStore",
    "MongoDbModelRegistryStore",
    "MongoDbTrackingStore",
    "Settings",
    "__version__",
    "register_mongodb_stores",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    value = globals()[name] = getattr(import_module(module), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
