"""How many traces have an issue: counted from the references by whoever asks first, and kept in the issue.

A trace has an issue if it has an assessment of the kind ``issue`` whose name is the id of the issue, in
whichever experiment; several of them count once. To count costs an index key for each reference, so a page
of issues would cost what all their traces cost. So the number is kept with the issue, where an index sorts
by it.

A call that makes, renames or deletes references marks the issues before (``changing``, and ``counted`` goes)
and again after: one command each, and none if no reference to an issue is concerned. A reader that counts
reads the issue from the primary, then its references, and keeps the number only if the issue is as it was:
``changes`` counts the marks, so no change can have come in between, and while one is under way nothing is
kept. All of it are commands on one document each, and need no transaction.

- A client that is killed in between leaves its mark. Until the mark is old, its issues are counted each time:
  slower, and right. By then no command of that call can still come.
- An issue whose id was chosen by its maker may have references already, and one may be under way that found
  no issue to mark. So it is born with a mark.
- A call that renames or deletes names the reference as it was read, so none goes unmarked. Only if two
  clients state one trace at the same moment, with references of one id to different issues, the doctor has to
  mend it.
- Imports and rollbacks mark all issues of their workspace around each portion of assessments.
- A reader that may not write keeps nothing and gets the same numbers. ``genesis-flow doctor --deep`` compares
  them all with the references; with ``--repair`` those that were made wrong by other means are counted anew.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mlflow.utils.time import get_current_time_millis
from pymongo import ReadPreference, UpdateOne
from pymongo.errors import PyMongoError

from genesis_flow.areas.issues.documents import IssueFields
from genesis_flow.areas.traces.documents import AssessmentFields
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import Database
from genesis_flow.mongo.operation import call_token, drawn_once
from genesis_flow.mongo.scoping import scoped
from genesis_flow.mongo.writes import until_done

_logger = logging.getLogger(__name__)

KIND = "issue"
# Longer than a call of a client that lives can take to send what it has marked.
MARK_MILLISECONDS = 30 * 60 * 1000
# The update of issues whose number must not count any more.
COUNT_ANEW: Document = {"$unset": {"counted": ""}, "$inc": {"changes": 1}}
# Stages that make, of references, the number of ``traces`` of each issue.
TRACES_BY_ISSUE: list[Document] = [
    {"$group": {"_id": {"name": "$name", "trace_id": "$trace_id"}}},
    {"$group": {"_id": "$_id.name", "traces": {"$sum": 1}}},
]
_AT_ONCE = 1_000


def new_mark(by: str) -> Document:
    return {"by": by, "until": get_current_time_millis() + MARK_MILLISECONDS}


def begun(by: str) -> Document:
    """The update of issues whose references are about to change."""
    return {"$push": {"changing": new_mark(by)}, **COUNT_ANEW}


def ended(by: str) -> Document:
    """The update of issues whose references have changed."""
    return {"$pull": {"changing": {"by": by}}, **COUNT_ANEW}


@asynccontextmanager
async def changing_references(database: Database, issue_ids: Iterable[str]) -> AsyncIterator[None]:
    """Around the commands that make, rename or delete references to these issues."""
    # Marks of an attempt whose time was up: the repetition may find nothing more to change.
    left: set[str] = await drawn_once("marked issues", _none)
    left.update(issue_ids)
    if not left:
        yield
        return
    issues, by = database.collection(IssueFields), call_token()
    query = scoped({"_id": {"$in": sorted(left)}})
    await issues.update_many(query, begun(by))
    try:
        yield
    except PyMongoError:  # nobody knows what is still under way
        raise
    except BaseException:
        await until_done(lambda: issues.update_many(query, ended(by)))
        left.clear()
        raise
    await until_done(lambda: issues.update_many(query, ended(by)))
    left.clear()


async def _none() -> set[str]:
    return set()


async def delete_assessments(database: Database, query: Document) -> None:
    """Delete all assessments of a ``query``, references by the names they have when they go."""
    assessments = database.collection(AssessmentFields)
    while True:
        references = assessments.find({**query, "kind": KIND}, {"_id": 0, "name": 1}, batch_size=BATCH)
        names = sorted({each["name"] async for each in references})
        async with changing_references(database, names):
            named = [{"kind": {"$ne": KIND}}, {"kind": KIND, "name": {"$in": names}}]
            await assessments.delete_many({**query, "$or": named})
        if not names:
            return


def issues_in(assessments: Iterable[Document]) -> set[str]:
    """The issues to which assessments refer."""
    return {each["name"] for each in assessments if each["kind"] == KIND}


async def count_traces(database: Database, issue_ids: Sequence[str]) -> dict[str, int]:
    """How many traces have each of the issues, counted now, and kept for the next who asks."""
    counts: dict[str, int] = {}
    for start in range(0, len(issue_ids), _AT_ONCE):
        counts |= await _count(database, list(issue_ids[start : start + _AT_ONCE]))
    return counts


async def _count(database: Database, issue_ids: list[str]) -> dict[str, int]:
    primary: Any = {"read_preference": ReadPreference.PRIMARY}
    issues = database.collection(IssueFields).with_options(**primary)
    assessments = database.collection(AssessmentFields).with_options(**primary)
    fields = {"changes": 1, "changing": 1}
    seen = await issues.find(scoped({"_id": {"$in": issue_ids}}), fields, batch_size=BATCH).to_list()
    rows = await assessments.aggregate(references_of(issue_ids), batchSize=BATCH)
    counts = dict.fromkeys(issue_ids, 0) | {row["_id"]: row["traces"] async for row in rows}
    now = get_current_time_millis()
    keep = [
        UpdateOne(
            scoped({"_id": each["_id"], "changes": each.get("changes")}),
            {"$set": {"traces": counts[each["_id"]], "counted": True}, "$unset": {"changing": ""}},
        )
        for each in seen
        if all(mark["until"] < now for mark in each.get("changing", ()))
    ]
    if keep:
        try:
            await issues.bulk_write(keep, ordered=False)
        except PyMongoError:
            _logger.debug("The numbers of traces of %s issues are not kept.", len(keep), exc_info=True)
    return counts


def references_of(issue_ids: list[str]) -> list[Document]:
    """The pipeline that counts the traces of issues, from the index alone."""
    return [{"$match": scoped({"kind": KIND, "name": {"$in": issue_ids}})}, *TRACES_BY_ISSUE]
