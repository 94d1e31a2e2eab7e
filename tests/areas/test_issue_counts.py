"""The numbers of traces that issues keep: whatever happens between two commands, they are right."""

from collections.abc import Callable
from typing import Any

import pytest
from mlflow.entities import AssessmentSource, Feedback
from mlflow.entities.assessment import IssueReference
from pymongo.errors import AutoReconnect

from genesis_flow import MongoDBStore
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.areas.issues.counts import begun, references_of
from genesis_flow.areas.issues.documents import IssueFields
from genesis_flow.areas.traces.documents import AssessmentFields
from genesis_flow.areas.traces.people.assessments import Assessments
from tests.areas.explain import raw
from tests.areas.test_reviews import at_once
from tests.commands import CommandRecorder
from tests.contract.trace_scenes import stated, trace_id
from tests.faults import failing
from tests.interruption import interrupted

TRACES = [trace_id(number) for number in range(1, 6)]
UNAUTHORIZED = 13


def reference(issue: str, trace: str, **given: Any) -> IssueReference:
    return IssueReference(issue_id=issue, issue_name="i", trace_id=trace, **given)


@pytest.fixture
async def issue(store: AsyncStore) -> str:
    """An issue that two of five traces have, and that was counted."""
    made = (await store.create_issue("0", "i", "d")).issue_id
    for trace in TRACES:
        await store.start_trace(stated(trace, "0"))
    for trace in TRACES[:2]:
        await store.create_assessment(reference(made, trace))
    assert await shown(store) == [2]
    return made


async def shown(store: AsyncStore) -> list[int | None]:
    return [each.trace_count for each in await store.search_issues("0", include_trace_count=True)]


async def kept(store: AsyncStore, issue: str) -> int | None:
    """What the issue keeps, if that counts."""
    document = await store.database.collection(IssueFields).find_one({"_id": issue})
    assert document is not None
    return document["traces"] if document.get("counted") else None


@pytest.fixture
def other(store_uri: str) -> Any:
    """Another client, for what is done between two commands of the first one."""
    made = MongoDBStore(f"{store_uri}&appName=other")
    made.get_experiment("0")
    yield made
    made.close()


async def test_a_number_is_kept_until_references_change(
    store: AsyncStore, issue: str, commands: CommandRecorder
) -> None:
    assert await kept(store, issue) == 2
    with commands.recording() as sent:
        assert await shown(store) == [2]
    assert [(name, command[name]) for name, command in sent] == [("find", "issues")] * 2
    feedback = Feedback(name="f", value=1, trace_id=TRACES[2], source=AssessmentSource("CODE", "c"))
    await store.create_assessment(feedback)
    assert await kept(store, issue) == 2
    await store.create_assessment(reference(issue, TRACES[2]))
    assert await kept(store, issue) is None
    assert await shown(store) == [3]
    assert await kept(store, issue) == 3


# What another client does to a reference of the third trace; how many traces have the issue then.
CHANGES: dict[str, tuple[Callable[[MongoDBStore, str], Any], int]] = {
    "one more": (lambda s, issue: s.create_assessment(reference(issue, TRACES[2])), 3),
    "the same again": (lambda s, issue: s.create_assessment(reference(issue, TRACES[1])), 2),
    "stated with the trace": (
        lambda s, issue: s.start_trace(
            stated(TRACES[3], "0", assessments=[reference(issue, TRACES[3], run_id=None)])
        ),
        3,
    ),
    "a trace goes": (lambda s, issue: s.delete_traces("0", trace_ids=[TRACES[0]]), 1),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_while_somebody_counts(
    store: AsyncStore, issue: str, other: MongoDBStore, name: str
) -> None:
    """It came behind the counting and before the number was to be kept, which then is not."""
    change, afterwards = CHANGES[name]
    await store.create_assessment(reference(issue, TRACES[0]))
    with interrupted("update", "issues", lambda: change(other, issue)) as seen:
        assert await shown(store) == [2]
    assert seen.error is None
    assert await kept(store, issue) is None
    assert await shown(store) == [afterwards]


async def test_somebody_counts_while_a_reference_is_made(
    store: AsyncStore, issue: str, other: MongoDBStore
) -> None:
    """Between the mark and the reference, and between the reference and the end."""

    def look() -> list[int | None]:
        return [each.trace_count for each in other.search_issues("0", include_trace_count=True)]

    with interrupted("insert", "assessments", look) as before:
        await store.create_assessment(reference(issue, TRACES[2]))
    assert before.result == [2]
    assert await shown(store) == [3]
    with interrupted("update", "issues", look, skip=1) as behind:
        await store.create_assessment(reference(issue, TRACES[3]))
    assert behind.result == [4]
    assert await shown(store) == [4]


async def test_a_writer_that_died_costs_time_and_no_number(store: AsyncStore, issue: str) -> None:
    """It marked the issue and was killed, before or behind its reference."""
    issues, assessments = (store.database.collection(each) for each in (IssueFields, AssessmentFields))
    await issues.update_one({"_id": issue}, begun("dead"))
    assert await shown(store) == [2]
    assert await kept(store, issue) is None
    document = await assessments.find_one({"kind": "issue"})
    await assessments.insert_one({**(document or {}), "_id": "a-late", "trace_id": TRACES[4]})
    assert await shown(store) == [3]
    assert await kept(store, issue) is None
    # In the end the mark is old, and nothing of that writer can still come.
    await issues.update_one({"_id": issue}, {"$set": {"changing.0.until": 1}})
    assert await shown(store) == [3]
    assert await kept(store, issue) == 3
    assert "changing" not in (await issues.find_one({"_id": issue}) or {})


async def test_a_repetition_of_a_deletion_ends_its_mark(
    store: AsyncStore, issue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try deleted and lost its answer; the second finds nothing, and says that it is over."""
    made = await store.create_assessment(reference(issue, TRACES[2]))
    delete = Assessments._delete

    async def losing_its_answer(self: Assessments, *arguments: Any) -> bool:
        assert await delete(self, *arguments)
        raise AutoReconnect("lost")

    monkeypatch.setattr(Assessments, "_delete", losing_its_answer)
    await store.delete_assessment(TRACES[2], str(made.assessment_id))
    assert await shown(store) == [2]
    assert await kept(store, issue) == 2


async def test_a_reference_renamed_while_it_is_deleted(
    store: AsyncStore, issue: str, other: MongoDBStore
) -> None:
    second = (await store.create_issue("0", "second", "d")).issue_id
    made = await store.create_assessment(reference(issue, TRACES[2]))

    def rename() -> list[int | None]:
        other.update_assessment(TRACES[2], str(made.assessment_id), name=second)
        return [each.trace_count for each in other.search_issues("0", include_trace_count=True)]

    with interrupted("delete", "assessments", rename) as seen:
        await store.delete_assessment(TRACES[2], str(made.assessment_id))
    assert (seen.error, seen.result) == (None, [2, 1])
    assert await shown(store) == [2, 0]


async def test_a_reference_renamed_while_its_trace_is_deleted(
    store: AsyncStore, issue: str, other: MongoDBStore
) -> None:
    second = (await store.create_issue("0", "second", "d")).issue_id
    made = await store.create_assessment(reference(issue, TRACES[2]))

    def rename() -> list[int | None]:
        other.update_assessment(TRACES[2], str(made.assessment_id), name=second)
        return [each.trace_count for each in other.search_issues("0", include_trace_count=True)]

    with interrupted("delete", "assessments", rename) as seen:
        await store.delete_traces("0", trace_ids=[TRACES[2]])
    assert (seen.error, seen.result) == (None, [2, 1])
    assert await shown(store) == [2, 0]
    assert await store.database.collection(AssessmentFields).count_documents({"trace_id": TRACES[2]}) == 0


async def test_pages_are_in_order_though_numbers_cannot_be_kept(store: AsyncStore, issue: str) -> None:
    """A writer died behind references that bring an issue to the front; then of all issues."""
    made = [issue] + [(await store.create_issue("0", "i", "d")).issue_id for _ in range(4)]
    for number, each in enumerate(made[1:], 1):
        for trace in TRACES[: 5 - number]:
            await store.create_assessment(reference(each, trace))
    assert await shown(store) == [4, 3, 2, 2, 1]
    issues, assessments = (store.database.collection(each) for each in (IssueFields, AssessmentFields))
    document = await assessments.find_one({"name": made[4]}) or {}
    await issues.update_one({"_id": made[4]}, begun("dead"))
    await assessments.insert_many(
        [{**document, "_id": f"a-{trace}", "trace_id": trace} for trace in TRACES[1:]]
    )
    wanted = [(made[4], 5), (made[1], 4), (made[2], 3), (made[3], 2), (issue, 2)]
    for marked in ([], made[1:3], made):
        await issues.update_many({"_id": {"$in": marked}}, begun("dead"))
        for size in (1, 2, 4, 5, 6):
            found: list[tuple[str, int | None]] = []
            token = None
            while True:
                page = await store.search_issues(
                    "0", max_results=size, page_token=token, include_trace_count=True
                )
                found += [(each.issue_id, each.trace_count) for each in page]
                if not (token := page.token):
                    break
            assert found == wanted, (marked, size)


async def test_who_may_not_write_keeps_nothing(store: AsyncStore, store_uri: str, issue: str) -> None:
    await store.create_assessment(reference(issue, TRACES[2]))
    with failing(store_uri, "update", errorCode=UNAUTHORIZED):
        assert await shown(store) == [3]
        assert await shown(store) == [3]
    assert await kept(store, issue) is None


async def test_traces_are_counted_from_the_index_alone(store: AsyncStore, issue: str) -> None:
    explained = await raw(store.database).command(
        "explain",
        {"aggregate": "assessments", "pipeline": references_of([issue]), "cursor": {}},
        verbosity="executionStats",
    )
    stats = explained.get("executionStats") or explained["stages"][0]["$cursor"]["executionStats"]
    assert stats["totalDocsExamined"] == 0
    assert stats["totalKeysExamined"] <= 3


def test_many_writers_and_readers_at_once(store_uri: str) -> None:
    stores = [MongoDBStore(f"{store_uri}&appName=client{number}") for number in range(6)]
    issues = [stores[0].create_issue("0", "i", "d").issue_id for _ in range(2)]
    for trace in TRACES:
        stores[0].start_trace(stated(trace, "0"))

    def work(store: MongoDBStore, number: int) -> None:
        if number >= 4:
            for _ in range(10):
                for each in store.search_issues("0", include_trace_count=True):
                    assert 0 <= (each.trace_count or 0) <= len(TRACES)
            return
        for turn, trace in enumerate(TRACES):
            made = store.create_assessment(reference(issues[number % 2], trace))
            if (turn + number) % 2:
                store.delete_assessment(trace, str(made.assessment_id))

    assert at_once(stores, work) == [None] * len(stores)
    # One of two writers of each issue has left a reference in each trace, but for those both have taken back.
    wanted = {
        issue: len(
            {turn for number in (first, first + 2) for turn in range(len(TRACES)) if not (turn + number) % 2}
        )
        for first, issue in enumerate(issues)
    }
    for _ in range(2):
        found = stores[0].search_issues("0", include_trace_count=True)
        assert {each.issue_id: each.trace_count for each in found} == wanted
    for each in stores:
        each.close()
