"""Label schemas, review queues and issues: what their pages cost, and many people at once."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pymongo
import pytest
from mlflow.exceptions import MlflowException
from mlflow.genai.label_schemas import InputText
from mlflow.genai.label_schemas.label_schemas import LabelSchemaType

from genesis_flow import MongoDBStore
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.areas.issues.documents import IssueFields
from genesis_flow.areas.labels.documents import LabelSchemaFields
from genesis_flow.areas.reviews.documents import ReviewQueueFields, ReviewQueueItemFields, item_key
from genesis_flow.areas.traces.documents import AssessmentFields
from genesis_flow.kit import entities
from tests.areas.explain import Query, profiled
from tests.commands import CommandRecorder
from tests.mongod import Mongod
from tests.versions import since_3_18

ITEMS = 5_000
QUEUES = 300
ISSUES = 500
PAGE = 50
THREADS = 8
ROUNDS = 5
SHARED = {"workspace": "default", "experiment_id": 0}


@pytest.fixture(scope="module")
async def large(mongod: Mongod) -> AsyncIterator[AsyncStore]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    store = AsyncStore(f"{mongod.database_uri(name)}&appName=explain")
    await store.get_experiment("0")
    times = {"last_update_time": 1}
    collection = store.database.collection
    await collection(ReviewQueueItemFields).insert_many(
        [
            {
                "_id": item_key("rq-1", f"tr-{number:06}"),
                **SHARED,
                **times,
                "queue_id": "rq-1",
                "item_type": "trace",
                "item_id": f"tr-{number:06}",
                "status": "complete" if number % 10 else "pending",
                "created_time": number // 7,
            }
            for number in range(ITEMS)
        ]
    )
    await collection(ReviewQueueFields).insert_many(
        [
            {
                "_id": f"rq-{number}",
                **SHARED,
                **times,
                "name": f"q{number}",
                "name_key": f"q{number}",
                "type": "custom",
                "users": ["ann"] if number % 2 else ["bob", "ann"],
                "schema_ids": [],
                "additions": 0,
                "created_time": number,
            }
            for number in range(QUEUES)
        ]
    )
    await collection(LabelSchemaFields).insert_many(
        [
            {
                "_id": f"ls-{number}",
                **SHARED,
                **times,
                "name": f"l{number}" if number else "Feedback",
                "type": "feedback",
                "input_type": "text",
                "input": {"max_length": None},
                "enable_comment": False,
                "is_default": not number,
                "created_time": number,
            }
            for number in range(QUEUES)
        ]
    )
    await collection(IssueFields).insert_many(
        [
            {
                "_id": f"iss-{number:04}",
                **SHARED,
                **times,
                "name": f"i{number}",
                "name_lower": f"i{number}",
                "description": "d",
                "status": "pending",
                "rank": -1 if number % 5 == 4 else number % 5,
                "category_keys": [],
                "created_time": number,
                "last_seen": number,
            }
            for number in range(ISSUES)
        ]
    )
    await collection(AssessmentFields).insert_many(
        [
            {
                "_id": f"a-{number}",
                **SHARED,
                "trace_id": f"tr-{number // 2:06}",
                "trace_time": 1,
                "kind": "issue" if number % 4 else "feedback",
                "name": f"iss-{number % ISSUES:04}",
                "value": "{}",
            }
            for number in range(20 * ISSUES)
        ]
    )
    await store.search_issues(include_trace_count=True, max_results=1)  # counts, and keeps the numbers
    yield store
    await store.close()
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(name)


def assert_cheap(queries: list[Query], *, keys: int) -> None:
    assert queries
    for query in queries:
        assert not query.scans_collection, query
        assert not query.blocking_sort, query
        assert query.keys <= keys, query


LISTS: dict[str, Callable[[AsyncStore, str | None], Any]] = {
    "items": lambda s, token: s.list_review_queue_items("rq-1", max_results=PAGE, page_token=token),
    "items of a status": lambda s, token: s.list_review_queue_items(
        "rq-1", status="complete", max_results=PAGE, page_token=token
    ),
    "queues": lambda s, token: s.list_review_queues("0", max_results=PAGE, page_token=token),
    "queues of a user": lambda s, token: s.list_review_queues(
        "0", user="ann", max_results=PAGE, page_token=token
    ),
    "questions": lambda s, token: s.list_label_schemas("0", PAGE, token),
    "issues": lambda s, token: s.search_issues("0", max_results=PAGE, page_token=token),
    "issues of all experiments": lambda s, token: s.search_issues(max_results=PAGE, page_token=token),
    "issues with traces": lambda s, token: s.search_issues(
        "0", max_results=PAGE, page_token=token, include_trace_count=True
    ),
    "issues with traces of all experiments": lambda s, token: s.search_issues(
        max_results=PAGE, page_token=token, include_trace_count=True
    ),
}


@pytest.mark.parametrize("name", LISTS)
async def test_every_page_costs_what_it_shows(large: AsyncStore, name: str) -> None:
    """The first page, the second and one deep in the list: as many keys as entries, and a few."""
    token = None
    for number in range(5):
        async with profiled(large.database) as queries:
            page = await LISTS[name](large, token)
        assert len(page) == PAGE
        assert {query.collection for query in queries}.isdisjoint({"assessments"})
        # Behind a position the index is entered once for each field of the order.
        assert_cheap(queries, keys=PAGE + (1 if number == 0 else 6))
        token = page.token


@pytest.mark.parametrize("status", [None, "complete"])
async def test_no_page_of_a_long_queue_reads_those_before_it(large: AsyncStore, status: str | None) -> None:
    """The first page, one in the middle and the last: the same keys, but those that lead to a position."""
    total = ITEMS if status is None else ITEMS - ITEMS // 10
    seen: set[str] = set()
    counted: list[Query] = []
    for before in (0, total // 2, total - PAGE):
        earlier = before and await large.list_review_queue_items("rq-1", status=status, max_results=before)
        token = earlier.token if earlier else None
        async with profiled(large.database) as queries:
            page = await large.list_review_queue_items(
                "rq-1", status=status, max_results=PAGE, page_token=token
            )
        assert len(page) == PAGE
        assert not seen & {item.item_id for item in page}
        seen.update(item.item_id for item in page)
        counted += queries
    assert page.token is None
    assert_cheap(counted, keys=PAGE + 6)
    # Behind the last page there is no entry to see that there is more.
    assert [query.documents for query in counted] == [PAGE + 1, PAGE + 1, PAGE]


CALLS: dict[str, tuple[int, Callable[[AsyncStore], Any]]] = {
    # 2: the experiment is asked for at the same time.
    "queues": (2, lambda s: s.list_review_queues("0")),
    "queues with an item": (3, lambda s: s.list_review_queues("0", item_id="tr-000001")),
    "queue": (1, lambda s: s.get_review_queue("rq-1")),
    "queue by name": (2, lambda s: s.get_review_queue_by_name("0", name="Q1")),
    "items": (1, lambda s: s.list_review_queue_items("rq-1", max_results=PAGE)),
    "complete": (
        1,
        lambda s: s.set_review_queue_item_status(
            "rq-1", item_id="tr-000010", status="complete", completed_by="a"
        ),
    ),
    "add": (4, lambda s: s.add_items_to_review_queue("rq-2", item_ids=[f"x{n}" for n in range(20)])),
    "remove": (2, lambda s: s.remove_items_from_review_queue("rq-2", item_ids=["x1", "x2"])),
    "user": (3, lambda s: s.get_or_create_user_queue("0", user="new")),
    "user again": (2, lambda s: s.get_or_create_user_queue("0", user="new")),
    "issue": (1, lambda s: s.get_issue("iss-0001")),
    "issues": (1, lambda s: s.search_issues("0")),
    "issues counted": (2, lambda s: s.search_issues("0", max_results=ISSUES, include_trace_count=True)),
    "update issue": (1, lambda s: s.update_issue("iss-0001", name="other")),
}


async def test_commands(large: AsyncStore, commands: CommandRecorder) -> None:
    for name, (expected, call) in CALLS.items():
        with commands.recording() as sent:
            await call(large)
        assert len(sent) == expected, (name, [command for command, _ in sent])


@pytest.fixture
def blocking(store_uri: str) -> list[MongoDBStore]:
    """Stores with a client each, so that they share no lock."""
    stores = [MongoDBStore(f"{store_uri}&appName=client{number}") for number in range(THREADS)]
    stores[0].get_experiment("0")
    return stores


def at_once(stores: list[MongoDBStore], call: Callable[[MongoDBStore, int], Any]) -> list[Any]:
    """What the call comes to for each of the stores, all started together."""
    barrier = threading.Barrier(len(stores))
    outcomes: list[Any] = [None] * len(stores)

    def work(number: int) -> None:
        barrier.wait(60)
        try:
            outcomes[number] = call(stores[number], number)
        except Exception as error:
            outcomes[number] = error

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return outcomes


MAKERS: dict[str, Callable[[MongoDBStore, str], Any]] = {
    "question": lambda s, name: s.create_label_schema(
        "0", name=name, type=LabelSchemaType.FEEDBACK, input=InputText()
    ),
    "queue": lambda s, name: s.create_review_queue("0", name=name, queue_type="custom"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_of_many_makers_of_a_name_one_succeeds(blocking: list[MongoDBStore], kind: str) -> None:
    for turn in range(ROUNDS):
        found = at_once(blocking, lambda store, _, turn=turn: MAKERS[kind](store, f"n{turn}"))
        refused = [each for each in found if isinstance(each, Exception)]
        assert len(refused) == THREADS - 1
        assert {getattr(each, "error_code", each) for each in refused} == {"RESOURCE_ALREADY_EXISTS"}


def test_all_who_ask_for_a_users_queue_get_the_same(blocking: list[MongoDBStore]) -> None:
    for turn in range(ROUNDS):
        found = at_once(
            blocking, lambda store, _, turn=turn: store.get_or_create_user_queue("0", user=f"u{turn}")
        )
        assert len({queue.queue_id for queue in found}) == 1


def test_the_first_who_completes_an_item_keeps_the_credit(blocking: list[MongoDBStore]) -> None:
    queue = blocking[0].create_review_queue("0", name="q", queue_type="custom").queue_id
    for turn in range(ROUNDS):
        item = f"i{turn}"
        blocking[0].add_items_to_review_queue(queue, item_ids=[item])
        found = at_once(
            blocking,
            lambda store, number, item=item: store.set_review_queue_item_status(
                queue, item_id=item, status="complete", completed_by=f"u{number}"
            ),
        )
        assert len({each.completed_by for each in found}) == 1


def test_questions_never_change_once_items_were_added(blocking: list[MongoDBStore]) -> None:
    """Of a change and an addition at once, the change came first, or it is refused."""
    schema = MAKERS["question"](blocking[0], "q").schema_id
    for turn in range(4 * ROUNDS):
        queue = blocking[0].create_review_queue("0", name=f"q{turn}", queue_type="custom").queue_id
        seen: list[list[str]] = []

        def work(store: MongoDBStore, number: int, queue: str = queue, seen: Any = seen) -> None:
            if number % 2:
                store.update_review_queue(queue, schema_ids=[schema])
            else:
                store.add_items_to_review_queue(queue, item_ids=[f"i{number}"])
                seen.append(store.get_review_queue(queue).schema_ids)

        outcomes = at_once(blocking, work)
        final = blocking[0].get_review_queue(queue).schema_ids
        assert all(each == final for each in seen), (seen, final)
        assert all(
            each is None or getattr(each, "error_code", None) == "INVALID_PARAMETER_VALUE"
            for each in outcomes
        ), outcomes


def test_nothing_is_left_in_a_queue_that_is_deleted(
    blocking: list[MongoDBStore], store_uri: str, database_name: str
) -> None:
    for turn in range(4 * ROUNDS):
        queue = blocking[0].create_review_queue("0", name=f"q{turn}", queue_type="custom").queue_id

        def work(store: MongoDBStore, number: int, queue: str = queue) -> None:
            if number == 0:
                store.delete_review_queue(queue)
            else:
                store.add_items_to_review_queue(queue, item_ids=[f"i{number}"])

        outcomes = at_once(blocking, work)
        assert {getattr(each, "error_code", each) for each in outcomes} <= {None, "RESOURCE_DOES_NOT_EXIST"}
        blocking[0].create_review_queue("0", name=f"q{turn}", queue_type="custom")
    with pymongo.MongoClient[dict[str, Any]](store_uri) as client:
        assert client[database_name]["review_queue_items"].count_documents({}) == 0


@since_3_18
def test_metadata_of_an_issue_do_not_get_lost(blocking: list[MongoDBStore]) -> None:
    issue = blocking[0].create_issue("0", "i", "d", metadata={"gone": ""}).issue_id
    for turn in range(ROUNDS):
        outcomes = at_once(
            blocking,
            lambda store, number, turn=turn: store.update_issue(
                issue,
                metadata={f"{turn}.{number}": "x"},
                delete_metadata_keys=["gone"],
                last_seen_timestamp=10**13 + number,
            ),
        )
        assert not [each for each in outcomes if isinstance(each, Exception)]
    found = blocking[0].get_issue(issue)
    assert found.metadata == {f"{turn}.{number}": "x" for turn in range(ROUNDS) for number in range(THREADS)}
    assert found.last_seen_timestamp == 10**13 + THREADS - 1


async def test_pages_stay_right_while_people_work(store: AsyncStore) -> None:
    """Whoever walks through the items that wait sees each once, though those behind are completed."""
    queue = (await store.create_review_queue("0", name="q", queue_type="custom")).queue_id
    items = [f"i{number:02}" for number in range(30)]
    await store.add_items_to_review_queue(queue, item_ids=items)
    seen: list[str] = []
    token = None
    while True:
        page = await store.list_review_queue_items(queue, status="pending", max_results=7, page_token=token)
        seen += [item.item_id for item in page]
        await asyncio.gather(
            *(
                store.set_review_queue_item_status(
                    queue, item_id=item.item_id, status="complete", completed_by="ann"
                )
                for item in page
            )
        )
        if not (token := page.token):
            break
    assert seen == items
    first = await store.list_review_queue_items(queue, max_results=7)
    with pytest.raises(MlflowException, match="another search"):
        await store.list_review_queue_items(queue, status="complete", page_token=first.token)


async def test_a_list_that_is_read_while_another_makes_the_default_question(
    store: MongoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = await store.create_experiment("raced")
    made = await store.list_label_schemas(experiment)
    real, before = entities.page, [([], None)]

    async def page(*arguments: Any) -> Any:
        return before.pop() if before else await real(*arguments)

    monkeypatch.setattr(entities, "page", page)
    listed = await store.list_label_schemas(experiment)
    assert [schema.schema_id for schema in listed] == [schema.schema_id for schema in made]
    assert len(listed) == 1
