"""Collections and refusals that all calls of users and roles are made of."""

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from genesis_flow.areas.users.documents import RoleFields, UserFields
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.connection import Database


def users_in(database: Database) -> Collection:
    return database.everywhere(UserFields)


def roles_in(database: Database) -> Collection:
    return database.everywhere(RoleFields)


def unknown_user(username: str) -> MlflowException:
    return MlflowException(f"User with username={username} not found", RESOURCE_DOES_NOT_EXIST)


def unknown_user_id(user_id: int) -> MlflowException:
    return MlflowException(f"User with id={user_id} not found", RESOURCE_DOES_NOT_EXIST)


def unknown_role(role_id: int) -> MlflowException:
    return MlflowException(f"Role with id={role_id} not found", RESOURCE_DOES_NOT_EXIST)
