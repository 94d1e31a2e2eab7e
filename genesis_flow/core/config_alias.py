"""``MongoDBConfig``, the older name under which the settings could be asked for."""

from __future__ import annotations

import logging
from typing import Any

from genesis_flow.core.settings import Settings

_log = logging.getLogger(__name__)


class MongoDBConfig:
    """Settings of a store that is opened now; new code reads :class:`genesis_flow.core.settings.Settings`."""

    @staticmethod
    def get_connection_config() -> dict[str, Any]:
        """The settings as a dictionary that is safe to print: passwords in ``uri`` are masked."""
        settings = Settings.resolve()
        return {
            "uri": settings.store_uri,
            "database_name": settings.database,
            "collection_prefix": settings.prefix,
            "artifact_root": settings.artifact_root,
            "max_pool_size": settings.max_pool_size,
            "server_selection_timeout_ms": round(settings.server_selection_timeout * 1000),
        }

    @staticmethod
    def validate_configuration() -> bool:
        """Whether the settings are complete and valid; the reason is logged. Does not connect."""
        from mlflow.exceptions import MlflowException

        try:
            Settings.resolve()
        except MlflowException as exc:
            _log.error("The configuration of genesis_flow is not valid: %s", exc.message)
            return False
        return True
