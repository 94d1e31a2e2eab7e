"""The store of users and permissions that MLflow's server works with when it asks for logins."""

import logging
from typing import TYPE_CHECKING, Any, ClassVar

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

from genesis_flow.compat import login
from genesis_flow.core.settings import Settings
from genesis_flow.stores.joined import AsyncTrackingStore
from genesis_flow.sync._generated.users_members import SyncMembers
from genesis_flow.sync._generated.users_people import SyncUsers
from genesis_flow.sync._generated.users_permissions import SyncPermissions
from genesis_flow.sync._generated.users_roles import SyncRoles

if TYPE_CHECKING:
    from mlflow.server.auth.entities import User

_logger = logging.getLogger("genesis_flow")


class MongoDBAuthStore(SyncUsers, SyncRoles, SyncMembers, SyncPermissions):
    """MLflow's store of users on MongoDB. Connects at the first call.

    MLflow makes one of its own when a module is loaded, which becomes one of these when it is told a URI of
    ours: it has imported it by name into several places by then.
    """

    _async_store: ClassVar = AsyncTrackingStore

    def __init__(self, db_uri: str | None = None) -> None:
        self.init_db(db_uri)

    def init_db(self, db_uri: str | None, read_db_uri: str | None = None) -> None:
        """Take this database from now on."""
        if read_db_uri and read_db_uri != db_uri:
            _logger.warning(
                "read_database_uri is not used for MongoDB: logins are checked with the primary of "
                "database_uri."
            )
        super().__init__(Settings.resolve(db_uri))

    @property
    def db_uri(self) -> str:
        """The URI with its password masked: callers print it."""
        return self._settings.store_uri

    @staticmethod
    def _scorer_pattern(experiment_id: str, scorer_name: str) -> str:
        return login.scorer_pattern(experiment_id, scorer_name)

    def create_user(self, username: str, password: str, is_admin: bool = False) -> "User":
        """Let somebody log in."""
        try:
            return super().create_user(username, password, is_admin)
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            import sqlalchemy.exc

            # By this cause MLflow knows that another process has made the first admin at the same moment.
            raise error from sqlalchemy.exc.IntegrityError(None, None, error.__cause__ or error)

    def unassign_role_from_user(self, user_id: int, role_id: int) -> None:
        """Take a role from a user."""
        super().unassign_role_from_user(user_id, role_id)

    def __getattr__(self, name: str) -> Any:
        from genesis_flow import __version__

        raise AttributeError(
            f"genesis_flow {__version__} does not have {name} of MLflow's store of users: MLflow's server "
            "does not call it."
        )
