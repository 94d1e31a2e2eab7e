"""Conditions on the spans and assessments of traces, turned into conditions on traces.

When few children satisfy a condition, the traces are named: one read. Else it is asked of the traces that a
search comes by, a chunk at a time: one read for each condition and chunk.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from bson.regex import Regex
from mlflow.exceptions import MlflowException

from genesis_flow.areas.traces.reading.filters import AssessmentCondition, SpanCondition
from genesis_flow.documents.keys import SEPARATOR
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH, Collection
from genesis_flow.search.scan import all_of
from genesis_flow.search.text import TextCondition

Load = Callable[[list[Document]], Awaitable[list[str]]]

# Up to so many children, naming their traces is cheaper than a walk.
FEW = 2_000
# As many as fit a command to the server.
LONGEST_FOR_EXPRESSIONS = 15_000_000


@dataclass(frozen=True, slots=True)
class Collections:
    traces: Collection
    spans: Collection
    assessments: Collection
    # Reads the content of spans where it does not lie in the span.
    contents: Load


class Check(Protocol):
    async def few(self) -> Document | None:
        """The condition on traces, if few satisfy it."""

    async def passing(self, traces: Sequence[Document]) -> set[str]:
        """Which of these traces satisfy it."""


class SpanCheck:
    def __init__(self, collections: Collections, scope: Document, asked: SpanCondition) -> None:
        self._collections = collections
        self._match = all_of(scope, *asked.fields)
        self._asked = asked

    async def few(self) -> Document | None:
        if not self._asked.fields:
            return None  # no index helps to find words in a content
        ids = await self._satisfying({}, FEW)
        return None if ids is None else {"_id": {"$in": sorted(ids)}}

    async def passing(self, traces: Sequence[Document]) -> set[str]:
        ids = [trace["_id"] for trace in traces]
        within: Document = {"trace_id": {"$in": ids}}
        if self._asked.contents or not self._asked.fields:
            # A prefix of ``_id`` is a range of its index, however many spans a trace has.
            within = {"_id": {"$in": [Regex("^" + re.escape(trace_id + SEPARATOR)) for trace_id in ids]}}
        return await self._satisfying(within, None) or set()

    async def _satisfying(self, within: Document, limit: int | None) -> set[str] | None:
        """Traces with such a span; None if there are more than ``limit`` spans."""
        query = all_of(self._match, within)
        projection = {"_id": 0, "trace_id": 1}
        if self._asked.contents:
            here = [{"content": content.query()} for content in self._asked.contents]
            query = all_of(query, {"$or": [all_of(*here), {"payload": {"$exists": True}}]})
            projection = {"trace_id": 1, "payload": 1, "chunks": 1}
        cursor = self._collections.spans.find(
            query, projection, limit=0 if limit is None else limit + 1, batch_size=BATCH
        )
        spans = await cursor.to_list()
        if limit is not None and len(spans) > limit:
            return None
        ids = {span["trace_id"] for span in spans if "payload" not in span}
        for span in spans:
            if "payload" in span and span["trace_id"] not in ids and await self._long_content_fits(span):
                ids.add(span["trace_id"])
        return ids

    async def _long_content_fits(self, span: Document) -> bool:
        # One at a time: they are long.
        contents = await self._collections.contents([span])
        if not contents:
            return False
        expressions = [asked for asked in self._asked.contents if asked.comparator == "RLIKE"]
        others = [asked for asked in self._asked.contents if asked.comparator != "RLIKE"]
        if not all(asked.accepts(contents[0]) for asked in others):
            return False
        return not expressions or await self._server_finds(span, contents[0], expressions)

    async def _server_finds(self, span: Document, content: str, expressions: list[TextCondition]) -> bool:
        """The server gives up an expression that costs too much. Python would not, and stop the process."""
        if len(content.encode()) > LONGEST_FOR_EXPRESSIONS:
            raise MlflowException.invalid_parameter_value(
                f"RLIKE cannot look into the span {span['_id']!r}, whose content is longer than 15 MB. "
                "Use LIKE."
            )
        cursor = await self._collections.spans.aggregate(
            [
                {"$match": {"_id": span["_id"]}},
                {"$project": {"_id": 0, "content": {"$literal": content}}},
                {"$match": all_of(*({"content": asked.query()} for asked in expressions))},
                {"$project": {"found": {"$literal": True}}},
            ]
        )
        return bool(await cursor.to_list())


class AssessmentCheck:
    """An assessment that speaks about a session counts for every trace of the session."""

    def __init__(self, collections: Collections, scope: Document, asked: AssessmentCondition) -> None:
        self._collections = collections
        self._scope = scope
        self._match = all_of(scope, asked.match)
        self._asked = asked
        self._sessions: list[str] | None = None

    async def few(self) -> Document | None:
        found = await self._collections.assessments.find(
            self._match, {"_id": 0, "trace_id": 1}, limit=FEW + 1, batch_size=BATCH
        ).to_list()
        if len(found) > FEW:
            return None
        ids = sorted({assessment["trace_id"] for assessment in found})
        sessions = await self._judged_sessions()
        either: list[Document] = [{"_id": {"$in": ids}}]
        if sessions:
            either.append({"session_id": {"$in": sessions}})
        if self._asked.negated:
            return {"$nor": either}
        return either[0] if len(either) == 1 else {"$or": either}

    async def passing(self, traces: Sequence[Document]) -> set[str]:
        ids = [trace["_id"] for trace in traces]
        query = all_of(self._match, {"trace_id": {"$in": ids}})
        cursor = self._collections.assessments.find(query, {"_id": 0, "trace_id": 1}, batch_size=BATCH)
        found = {assessment["trace_id"] async for assessment in cursor}
        sessions = set(await self._judged_sessions())
        found |= {trace["_id"] for trace in traces if trace.get("session_id") in sessions}
        return set(ids) - found if self._asked.negated else found & set(ids)

    async def _judged_sessions(self) -> list[str]:
        if not self._asked.for_sessions:
            return []
        if self._sessions is None:
            cursor = self._collections.assessments.find(
                all_of(self._match, {"of_session": True}), {"_id": 0, "trace_id": 1}, batch_size=BATCH
            )
            ids = sorted({assessment["trace_id"] async for assessment in cursor})
            sessions: set[str] = set()
            if ids:
                judged = all_of(self._scope, {"_id": {"$in": ids}, "session_id": {"$exists": True}})
                async for trace in self._collections.traces.find(judged, {"session_id": 1}, batch_size=BATCH):
                    sessions.add(trace["session_id"])
            self._sessions = sorted(sessions)
        return self._sessions
