"""Sessions, which are traces that name the same session.

Round trips: two; with a filter one more for each 1,000 sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from genesis_flow.areas.traces.documents import TraceFields
from genesis_flow.areas.traces.reading.filters import parse_trace_filter
from genesis_flow.areas.traces.reading.search import trace_finder
from genesis_flow.compat.validation import parse_experiment_id
from genesis_flow.documents.plain import Document, portions
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.operation import Area, operation
from genesis_flow.mongo.scoping import scoped

if TYPE_CHECKING:
    from mlflow.genai.scorers.online.entities import CompletedSession


class TraceSessions(Area):
    @operation
    async def find_completed_sessions(
        self,
        experiment_id: str,
        min_last_trace_timestamp_ms: int,
        max_last_trace_timestamp_ms: int,
        max_results: int | None = None,
        filter_string: str | None = None,
    ) -> list[CompletedSession]:
        """Sessions whose last trace began within a time window, and whose first one satisfies a filter."""
        from mlflow.genai.scorers.online.entities import CompletedSession

        number = parse_experiment_id(experiment_id)
        parse_trace_filter(filter_string)  # refuses a bad one even if there are no sessions
        traces = self.database.collection(TraceFields)
        recent = {"$gte": min_last_trace_timestamp_ms}
        candidates = await traces.distinct(
            "session_id",
            scoped({"experiment_id": number, "session_id": {"$exists": True}, "request_time": recent}),
        )
        sessions: list[Document] = []
        for portion in portions(candidates):
            of_sessions = {"experiment_id": number, "session_id": {"$in": portion}}
            cursor = await traces.aggregate(_ended_pipeline(scoped(of_sessions), max_last_trace_timestamp_ms))
            ended = await cursor.to_list()
            if filter_string:
                ended = await self._with_matching_start(number, ended, filter_string)
            sessions += ended
        sessions.sort(key=lambda session: (session["last"], session["_id"]))
        return [
            CompletedSession(session["_id"], int(session["first"]), int(session["last"]))
            for session in sessions[:max_results]
        ]

    async def _with_matching_start(
        self, number: int, sessions: list[Document], filter_string: str
    ) -> list[Document]:
        """Sessions one of whose first traces satisfies the filter: several may have begun at once."""
        if not sessions:
            return []
        starts = {
            "session_id": {"$in": [session["_id"] for session in sessions]},
            "request_time": {"$in": sorted({session["first"] for session in sessions})},
        }
        matching = await trace_finder(self.database, [number], filter_string, starts).ids()
        found: set[tuple[str, int]] = set()
        for portion in portions(sorted(matching)):
            traces = self.database.collection(TraceFields).find(
                scoped({"_id": {"$in": portion}}), {"session_id": 1, "request_time": 1}, batch_size=BATCH
            )
            found |= {(trace["session_id"], trace["request_time"]) async for trace in traces}
        return [session for session in sessions if (session["_id"], session["first"]) in found]


def _ended_pipeline(match: Document, latest: int) -> list[Document]:
    return [
        {"$match": match},
        {
            "$group": {
                "_id": "$session_id",
                "first": {"$min": "$request_time"},
                "last": {"$max": "$request_time"},
            }
        },
        {"$match": {"last": {"$lte": latest}}},
    ]
