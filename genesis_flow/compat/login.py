"""MLflow's users and permissions: its entities, which lie in the package of its login, and its rules."""

import importlib
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.utils import validation

from genesis_flow.compat.version import RELEASE
from genesis_flow.core.errors import invalid

NEEDS_AUTH = "Users and permissions need packages of MLflow's login: pip install 'mlflow[auth]'"

# What MLflow calls the role that holds a user's own permissions in a workspace.
OWN_PREFIX = "__user_"
EVERYTHING = "*"
WORKSPACE = "workspace"
MANAGE = "MANAGE"

# Since MLflow 3.18 one thing is named in one way, and a permission to use a workspace opens nothing in it.
HAS_CANONICAL_FORMS = ONLY_MANAGERS_SEE_ALL = RELEASE >= (3, 18)


def _part(name: str) -> Any:
    """A module of the login. To load it loads Flask, so it is done by those who need it."""
    try:
        return importlib.import_module(f"mlflow.server.auth.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mlflow"):
            raise
        raise MlflowException(f"{NEEDS_AUTH} ({error.name} is missing).", BAD_REQUEST) from error


def entities() -> Any:
    return _part("entities")


def grant_row(resource_type: str, resource_pattern: str, permission: str) -> Any:
    return _part("sqlalchemy_store").RoleGrantRow(resource_type, resource_pattern, permission)


def named_role_grant(role_name: str, *grant: str) -> tuple[str, ...]:
    return _row("NamedRoleGrant", role_name, *grant)


def per_user_grant(username: str, *grant: str) -> tuple[str, ...]:
    return _row("PerUserGrant", username, *grant)


def _row(kind: str, *values: str) -> tuple[str, ...]:
    """A row of a kind that MLflow has since 3.18."""
    made: tuple[str, ...] = getattr(_part("sqlalchemy_store"), kind, lambda *given: given)(*values)
    return made


def scorer_pattern(experiment_id: str, scorer_name: str) -> str:
    """How a grant names a scorer."""
    pattern: str = _part("sqlalchemy_store").SqlAlchemyStore._scorer_pattern(experiment_id, scorer_name)
    return pattern


def may_read(permission: str) -> bool:
    return bool(_part("permissions").get_permission(permission).can_read)


def own_role_name(user_id: int) -> str:
    return f"{OWN_PREFIX}{user_id}__"


def check_new_user(username: Any, password: Any) -> None:
    validation._validate_username(username)
    _check_length("Username", username, "MAX_USERNAME_LENGTH")
    check_password(password)


def check_password(password: Any) -> None:
    validation._validate_password(password)


def check_role(name: str | None, description: str | None) -> None:
    """The prefix of a user's own role is nobody else's, whatever follows it."""
    if name is not None and name.startswith(OWN_PREFIX):
        raise invalid(
            f"Role name {name!r} uses the reserved '{OWN_PREFIX}' prefix, which is held for the per-user "
            "permission representation. Choose a different name."
        )
    _check_length("Role name", name, "MAX_ROLE_NAME_LENGTH")
    _check_length("Role description", description, "MAX_ROLE_DESCRIPTION_LENGTH")


def _check_length(field: str, value: Any, limit: str) -> None:
    if HAS_CANONICAL_FORMS:
        validation._validate_text_field(field, value, getattr(validation, limit))


def check_type(resource_type: str) -> None:
    _part("permissions")._validate_resource_type(resource_type)


def check_grant(resource_type: str, resource_pattern: str, permission: str) -> None:
    """As for a user's own permission: the pattern first."""
    rules = _part("permissions")
    rules._validate_resource_pattern(resource_pattern, resource_type)
    rules._validate_permission_for_resource_type(permission, resource_type)


def check_role_permission(resource_type: str, resource_pattern: str, permission: str) -> None:
    rules = _part("permissions")
    rules._validate_permission_for_resource_type(permission, resource_type)
    rules._validate_resource_pattern(resource_pattern, resource_type)


def check_level(resource_type: str, permission: str) -> None:
    _part("permissions")._validate_permission_for_resource_type(permission, resource_type)


def refuse_workspace(resource_type: str) -> None:
    if resource_type == WORKSPACE:
        raise invalid(
            "resource_type 'workspace' is not supported by the per-user permission convenience APIs. Give "
            "workspace-wide permissions by a role."
        )


def canonical(resource_type: str, resource_pattern: str) -> str:
    """The form in which grants on a thing are kept. Since MLflow 3.18 one thing has one."""
    if not isinstance(resource_pattern, str | int):
        raise invalid("resource_pattern must be a text: an id, a name or *.")
    resource_pattern = str(resource_pattern)  # requests may have an id as a number
    if not HAS_CANONICAL_FORMS:
        return resource_pattern
    store = _part("sqlalchemy_store").SqlAlchemyStore
    kept: str = store._validate_resource_pattern(resource_type, resource_pattern)
    return kept


def canonical_of_role(resource_type: str, resource_pattern: str) -> str:
    """That form for a permission of a role, where MLflow 3.18 refuses what is no id of an experiment."""
    if HAS_CANONICAL_FORMS and resource_type == "experiment" and resource_pattern != EVERYTHING:
        return str(validation._parse_experiment_id(str(resource_pattern)))
    return canonical(resource_type, resource_pattern)


def password_hash(password: str) -> str:
    """Made as MLflow makes it, with a salt."""
    from werkzeug.security import generate_password_hash

    return generate_password_hash(password)


def is_password(hashed: str, password: str) -> bool:
    from werkzeug.security import check_password_hash

    return check_password_hash(hashed, password)
