"""What the gateway's classes share: new documents and refusals."""

from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST
from mlflow.utils.time import get_current_time_millis

from genesis_flow.areas.gateway.documents import EndpointFields, GatewayFields
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit.entities import Refusal
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import current_workspace, scoped


def new(kind: type[GatewayFields], made_id: str, created_by: str | None, **fields: Any) -> Document:
    now = get_current_time_millis()
    made = kind(
        _id=made_id,
        workspace=current_workspace(),
        created_time=now,
        last_update_time=now,
        created_by=created_by,
        last_updated_by=created_by,
        **fields,
    )
    return made.model_dump(by_alias=True, exclude_none=True)


def change_of(
    fields: dict[str, Any], updated_by: str | None, *, forgets_user: bool = False
) -> dict[str, Document]:
    """The update that sets what is given, the time, and the user; none given, the last one stays or goes."""
    set_now = {field: value for field, value in fields.items() if value is not None}
    set_now["last_update_time"] = get_current_time_millis()
    if updated_by or (forgets_user and updated_by is not None):
        set_now["last_updated_by"] = updated_by
    update = {"$set": set_now}
    if forgets_user and updated_by is None:
        update["$unset"] = {"last_updated_by": ""}
    return update


def one_of(first: str, first_value: str | None, second: str, second_value: str | None) -> tuple[str, Any]:
    """Which of two parameters names what is asked for."""
    if (first_value is None) == (second_value is None):
        raise invalid(f"Exactly one of {first} or {second} must be provided")
    return (first, first_value) if first_value else (second, second_value)


def missing(kind: str, **named: Any) -> Refusal:
    """The refusal of what is not there, in MLflow's words."""
    text = ", ".join(f"{name}='{value}'" for name, value in named.items())
    return lambda: MlflowException(f"{kind} not found ({text})", RESOURCE_DOES_NOT_EXIST)


async def require_endpoint(
    database: Database, endpoint_id: str, kind: str, projection: Document | None = None
) -> Document:
    """The endpoint, or the refusal that calls it ``kind``."""
    endpoints = database.collection(EndpointFields)
    found: Document | None = await endpoints.find_one(scoped({"_id": endpoint_id}), projection or {"_id": 1})
    if found is None:
        raise missing(kind, endpoint_id=endpoint_id)()
    return found
