"""The audit trail."""

from datetime import datetime
from typing import Any

from pydantic import Field
from pymongo import ASCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index
from genesis_flow.documents.sharding import ShardKey


class AuditFields(Declared):
    """A record of a call that changed something; there are none unless auditing is on."""

    id: str = Field(alias="_id", description="Drawn at random.")
    workspace: str = Field(description="Workspace; every query names it.")
    # A date, so that the operator can make the index on it a TTL index: that is the retention.
    time: datetime = Field(description="When, by the clock of the process that made the call; a date.")
    actor: dict[str, str | int] = Field(
        description="`user`, `host` and `pid` of the process; `database_user` and `request_user`, if any."
    )
    store: str = Field(description="`tracking` or `registry`.")
    operation: str = Field(description="The store's method.")
    target: dict[str, Any] = Field(
        description="What the call names and what it made: ids, names, keys, counts. Never values."
    )
    outcome: str = Field(description="`done`, `failed`, `interrupted` or `begun`.")
    error: str | None = Field(default=None, description="MLflow's code of the error, if the call failed.")

    class Settings(CollectionSettings):
        name = "audit"
        shard = ShardKey("_id", "Only added to, by each call that changes anything.")
        indexes = [
            Index([("time", ASCENDING)], name="by_record_time", serves="Records of a time; their retention."),
            Index([("target.$**", ASCENDING)], name="by_target", serves="Who touched something."),
        ]
        keep_nulls = False
