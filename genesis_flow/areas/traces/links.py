"""Which traces are linked to runs and to versions of prompts, and which of these a trace is linked to.

MLflow asks for links as for other associations of two entities. They are kept in the trace instead, where an
index finds them from the other end. One round trip.
"""

from typing import Any

from mlflow.entities.entity_type import EntityAssociationType
from mlflow.store.entities.paged_list import PagedList
from pymongo import ASCENDING, DESCENDING

from genesis_flow.areas.traces.documents import KNOWN, TraceFields
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.scoping import scoped
from genesis_flow.search.keyset import behind
from genesis_flow.search.tokens import create_token, parse_token

TRACE = EntityAssociationType.TRACE
# The field of a trace that holds its links to entities of a kind.
LINKS = {
    EntityAssociationType.RUN: "linked_runs",
    EntityAssociationType.PROMPT_VERSION: "linked_prompts",
}
# The order of the index over linked runs, from its end.
_OLDEST_FIRST = [("request_time", ASCENDING), ("_id", DESCENDING)]


async def linked_traces(
    database: Database, kind: str, ids: list[str], max_results: int | None, page_token: str | None
) -> PagedList[str]:
    """The traces that are linked to one of these runs or versions, the oldest first."""
    asked = ["linked traces", kind, ids]
    query: dict[str, Any] = {LINKS[kind]: {"$in": ids}, **KNOWN}
    if (after := parse_token(page_token, asked, (int, str))) is not None:
        query |= {"request_time": {"$gte": after[0]}, **behind(_OLDEST_FIRST, after)}
    limit = 0 if max_results is None else max_results + 1
    traces = (
        await database.collection(TraceFields)
        .find(scoped(query), {"request_time": 1}, sort=_OLDEST_FIRST, limit=limit, batch_size=BATCH)
        .to_list()
    )
    token = None
    if max_results is not None and len(traces) > max_results:
        traces = traces[:max_results]
        token = create_token(asked, [traces[-1][field] for field, _ in _OLDEST_FIRST])
    return PagedList([trace["_id"] for trace in traces], token)


async def links_of_traces(
    database: Database, kind: str, trace_ids: list[str], max_results: int | None, page_token: str | None
) -> PagedList[str]:
    """The runs or versions that one of these traces is linked to, by id."""
    asked = ["links of traces", kind, trace_ids]
    after = parse_token(page_token, asked, (str,))
    field = LINKS[kind]
    traces = database.collection(TraceFields).find(
        scoped({"_id": {"$in": trace_ids}, **KNOWN}), {"_id": 0, field: 1}, batch_size=BATCH
    )
    linked = sorted({each async for trace in traces for each in trace.get(field, [])})
    linked = [each for each in linked if after is None or each > after[0]]
    if max_results is None or len(linked) <= max_results:
        return PagedList(linked, None)
    return PagedList(linked[:max_results], create_token(asked, [linked[max_results - 1]]))
