"""What MLflow's login does when a store of ours keeps its users: the replacements that ``hooks.py`` lists."""

import os
from collections.abc import Callable
from typing import Any

from genesis_flow.core.uri import is_ours

Function = Callable[..., Any]


def kept(original: Function) -> Function:
    """The store of users becomes ours when it is told a URI of ours.

    It is made when its module is loaded, before its URI is known, and others have it by name.
    """

    def init_db(self: Any, db_uri: Any, read_db_uri: Any = None) -> None:
        if not is_ours(db_uri):
            original(self, db_uri, read_db_uri)
            return
        from genesis_flow.sync.users import MongoDBAuthStore

        self.__class__ = MongoDBAuthStore
        self.init_db(db_uri, read_db_uri)

    return init_db


def extended(original: Function) -> Function:
    """The application that asks for logins, with what our server has beside MLflow's own.

    Probes know no password: the health endpoints are answered before anybody is asked for one.
    """

    def create_app(*args: Any, **kwargs: Any) -> Any:
        from mlflow.server.constants import BACKEND_STORE_URI_ENV_VAR

        app = original(*args, **kwargs)
        # Under gunicorn it is a Flask application, which our endpoints cannot be put before.
        if hasattr(app, "wsgi_app") or not is_ours(os.environ.get(BACKEND_STORE_URI_ENV_VAR)):
            return app
        from genesis_flow.plugins.server_app import with_endpoints

        return with_endpoints(app)

    return create_app
