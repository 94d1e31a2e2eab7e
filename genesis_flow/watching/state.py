"""What there is now of runs and metrics: read when a watch begins, or again and again without a stream.

For a watch of a stream all of it is read as it was at one moment, which the stream has: what changed up to
then is here, what changed since is streamed. Servers keep what is needed for that for five minutes; who finds
that it is over reads the rest at a later moment.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from bson import Timestamp
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from genesis_flow.areas.experiments.documents import ExperimentFields
from genesis_flow.areas.experiments.guards import (
    experiment_number,
    refuse_unknown_experiment,
    refuse_unknown_run,
)
from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.places import WAITING
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.core.errors import invalid
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.keys import children_of, head_id
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import NO_SESSIONS, Database, Session
from genesis_flow.mongo.error_edge import retry_delay
from genesis_flow.mongo.patience import for_seconds
from genesis_flow.watching.hub import said
from genesis_flow.watching.place import Moment, Time

T = TypeVar("T")

_RUN = {
    **dict.fromkeys(("experiment_id", "name", "status", "lifecycle_stage", "start_time", "end_time"), 1),
    **dict.fromkeys(("workspace", "user_id", "params", "tags"), 1),
}
_HEAD = {**dict.fromkeys(("run_uuid", "key", "tail", "packed"), 1), **WAITING}
AT_ONCE = 20
_NO_MEMBER_SECONDS = 0.2
_TOO_OLD = (239, 246)  # SnapshotTooOld, SnapshotUnavailable


class TooOld(Exception):
    """The server no longer knows how it was at this moment."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The runs that are watched: some, or all of some experiments."""

    workspace: str
    run_ids: frozenset[str]
    experiments: frozenset[int]

    @classmethod
    def of(
        cls, workspace: str, run_ids: Iterable[str] | None, experiment_ids: Iterable[str] | None
    ) -> "Scope":
        for name, given in (("run_ids", run_ids), ("experiment_ids", experiment_ids)):
            if isinstance(given, str):
                raise invalid(f"{name} must be a list of ids, not one text: [{given!r:.60}].")
        scope = cls(
            workspace,
            frozenset(run_ids or ()),
            frozenset(experiment_number(each) for each in experiment_ids or ()),
        )
        if not scope.run_ids and not scope.experiments:
            raise invalid("Say what to watch: give run_ids or experiment_ids.")
        if not all(isinstance(each, str) and each for each in scope.run_ids):
            raise invalid("run_ids must be a list of ids of runs, each a text that is not empty.")
        return scope

    def has(self, run: Document) -> bool:
        """Whether a run is watched."""
        return run.get("workspace") == self.workspace and (
            run["_id"] in self.run_ids or run.get("experiment_id") in self.experiments
        )


class State:
    """Reads what a scope has now."""

    def __init__(self, database: Database, scope: Scope, *, is_grouped: bool) -> None:
        """``is_grouped``: whether there is a majority, and so a moment to wait for."""
        self._database = database
        self._scope = scope
        self._is_grouped = is_grouped
        self.not_before = Moment((0, 0))

    async def check(self) -> None:
        """Raise MLflow's error if something of the scope is not there."""
        scope = self._scope
        async with self._session() as session:
            if scope.run_ids:
                found = await self._ids(RunFields, list(scope.run_ids), session)
                for run_id in sorted(scope.run_ids - found):
                    refuse_unknown_run(run_id)
            if scope.experiments:
                found = await self._ids(ExperimentFields, list(scope.experiments), session)
                for number in sorted(scope.experiments - found):
                    refuse_unknown_experiment(number)

    async def run_ids(self) -> list[str]:
        """The oldest first."""
        query: Document = {"workspace": self._scope.workspace, "$or": []}
        if self._scope.run_ids:
            query["$or"].append({"_id": {"$in": list(self._scope.run_ids)}})
        if self._scope.experiments:
            query["$or"].append({"experiment_id": {"$in": list(self._scope.experiments)}})
        async with self._session() as session:
            found = self._of(RunFields).find(query, {"start_time": 1}, batch_size=BATCH, **_within(session))
            rows = await found.to_list()
        return [row["_id"] for row in sorted(rows, key=lambda row: (row.get("start_time") or 0, row["_id"]))]

    async def runs(self, run_ids: list[str], at: Time | None = None) -> list[Document]:
        """Their documents, in this order."""
        query = {"_id": {"$in": run_ids}, "workspace": self._scope.workspace}
        found = {row["_id"]: row for row in await self._read(RunFields, query, _RUN, at)}
        return [found[run_id] for run_id in run_ids if run_id in found]

    async def heads(self, run_ids: list[str], at: Time | None = None) -> list[Document]:
        """The heads of their metrics, and before those of a run its places."""
        query = {
            "workspace": self._scope.workspace,
            "$or": [{"_id": children_of(run_id)} for run_id in run_ids],
        }
        return await self._read(MetricHeadFields, query, _HEAD, at)

    async def blocks(self, run_id: str, key: str, at: Time | None = None) -> list[Document]:
        """The blocks of a metric, settled ones last."""
        return await self._read(MetricBlockFields, {"_id": children_of(head_id(run_id, key))}, None, at)

    async def _read(
        self, declared: type[Declared], query: Document, fields: Document | None, at: Time | None
    ) -> list[Document]:
        """In the order of ids; as it was at a moment, if one is given."""
        if at is None:
            return list(await self._of(declared).find(query, fields, sort=[("_id", 1)]).to_list())
        collection = self._database.everywhere(declared)
        moment = {"level": "snapshot", "atClusterTime": Timestamp(*at)}
        command = {"find": collection.name, "filter": query, "sort": {"_id": 1}, "readConcern": moment}
        try:
            cursor = await collection.database.cursor_command({**command, "projection": fields or {}})
            return list(await cursor.to_list())
        except OperationFailure as error:
            if error.code in _TOO_OLD:
                raise TooOld from error
            raise

    async def _ids(self, declared: type[Declared], ids: list[Any], session: Session | None) -> set[Any]:
        query = {"_id": {"$in": ids}, "workspace": self._scope.workspace}
        found = self._of(declared).find(query, {"_id": 1}, batch_size=BATCH, **_within(session))
        return {row["_id"] for row in await found.to_list()}

    def _of(self, declared: type[Declared]) -> Any:
        # A watch reads for its own workspace, whatever that of the call is in which it reads on.
        collection = self._database.everywhere(declared)
        if not self._is_grouped:
            return collection
        return collection.with_options(read_concern=ReadConcern("majority"))

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session | None]:
        if not self._is_grouped or not self.not_before.time[0]:
            yield None
            return
        async with self._database.client.start_session(causal_consistency=True) as session:
            session.advance_operation_time(self.not_before.timestamp)
            yield session


def _within(session: Session | None) -> dict[str, Any]:
    return {} if session is None else {"session": session}


def keeps_nothing(database: Database) -> MlflowException:
    return MlflowException(
        f"{database.settings.store_uri} does not keep past states long enough to read what there is as it "
        "was at one moment. Raise minSnapshotHistoryWindowInSeconds on its servers (the default is 300), or "
        "watch with start='now', or fewer runs.",
        INVALID_STATE,
    )


async def patiently(database: Database, read: Callable[[], Awaitable[T]]) -> T:
    """What is read, with the retries and the deadline of a call."""
    loop = asyncio.get_running_loop()
    deadline, attempt = loop.time() + database.settings.timeout, 0
    while True:
        try:
            with for_seconds(max(deadline - loop.time(), 0.001)):
                return await read()
        except PyMongoError as error:
            delay = retry_delay(error, attempt)
            if NO_SESSIONS in str(error):  # as it seems to a client that knows no member, in an election
                delay = _NO_MEMBER_SECONDS
            if delay is None or loop.time() + delay > deadline:
                raise said(database, error) from error
            attempt += 1
            await asyncio.sleep(delay)
