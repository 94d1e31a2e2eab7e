"""The audit trail."""

from datetime import datetime
from typing import Any, ClassVar

from pydantic import BaseModel, Field
from pymongo import ASCENDING, IndexModel


class AuditFields(BaseModel):
    id: str = Field(alias="_id")
    workspace: str
    # A date, so that the operator can make the index on it a TTL index: that is the retention.
    time: datetime
    # user, host and pid of the process; database_user and request_user where there are any.
    actor: dict[str, str | int]
    # "tracking" or "registry", and the name of its method.
    store: str
    operation: str
    # What the call names and what it made: ids, names, keys, counts. Never values.
    target: dict[str, Any]
    outcome: str
    # MLflow's code of the error with which the call failed.
    error: str | None = None

    class Settings:
        name = "audit"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("time", ASCENDING)], name="by_record_time"),
            IndexModel([("target.$**", ASCENDING)], name="by_target"),
        ]
        keep_nulls = False
