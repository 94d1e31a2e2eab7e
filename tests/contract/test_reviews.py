"""Review queues: the cases R1 to R8 and L5, bad input, pages, what goes with what."""

import time
from typing import Any

import pytest
from mlflow.genai.label_schemas import InputText
from mlflow.genai.label_schemas.label_schemas import LabelSchemaType
from mlflow.genai.review_queues import ReviewQueueType, ReviewStatus

from tests.contract.pair import Pair
from tests.contract.trace_scenes import stated, trace_id

CUSTOM, USER = ReviewQueueType.CUSTOM, ReviewQueueType.USER
BAD_TEXTS: list[Any] = ["", "  ", "x" * 251, 5, None, ["q"]]


@pytest.fixture
def experiment(pair: Pair) -> str:
    found: str = pair.create_experiment("e")
    return found


def make(pair: Pair, experiment: str, name: str = "q", **changed: Any) -> Any:
    time.sleep(0.002)  # the next one is newer, by the clock of each store
    return pair.create_review_queue(experiment, **{"name": name, "queue_type": CUSTOM, **changed})


def question(pair: Pair, experiment: str, name: str = "q") -> str:
    made = pair.create_label_schema(experiment, name=name, type=LabelSchemaType.FEEDBACK, input=InputText())
    return str(made.schema_id)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"queue_type": "custom", "created_by": "Me"},
        {"name": " B ", "users": [" Ann ", "ann", "Bob"]},
        {"queue_type": USER, "name": " Ann@X "},
        {"queue_type": "user", "name": "Ann", "users": ["ANN"]},
        {"queue_type": "user", "name": "default"},
        {"users": [], "schema_ids": []},
        {"name": "x" * 250, "users": [f"u{number}" for number in range(10)]},
        {"name": "a.$%\u00c4"},
    ],
    ids=repr,
)
def test_creation(pair: Pair, experiment: str, given: dict[str, Any]) -> None:
    """R7: a user's queue may be called `default`."""
    made = make(pair, experiment, **given)
    pair.get_review_queue(made.queue_id)
    pair.get_review_queue_by_name(experiment, name=made.name)
    pair.list_review_queues(experiment)


@pytest.mark.parametrize(
    "given",
    [
        *({"name": name} for name in BAD_TEXTS),
        {"name": " Default "},
        {"queue_type": "other"},
        {"queue_type": None},
        {"queue_type": "user", "name": " "},
        {"queue_type": "user", "name": "ann", "users": ["bob"]},
        {"queue_type": "user", "name": "ann", "users": ["ann", "bob"]},
        {"queue_type": "user", "name": "ann", "schema_ids": ["ls-1"]},
        {"users": [f"u{number}" for number in range(11)]},
        {"users": [""]},
        {"users": [5]},
        {"users": "ann"},
        {"schema_ids": [""]},
        {"schema_ids": ["x" * 37]},
        {"schema_ids": "ls-1"},
        {"schema_ids": ["ls-none"]},
    ],
    ids=repr,
)
def test_bad_queues(pair: Pair, experiment: str, given: dict[str, Any]) -> None:
    ours, theirs = pair.both(
        "create_review_queue", experiment, **{"name": "q", "queue_type": "custom", **given}
    )
    assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE",) * 2
    assert pair.list_review_queues(experiment) == []


def test_experiments(pair: Pair, experiment: str) -> None:
    for other in ("99", "x"):
        pair.refused("create_review_queue", other, name="q", queue_type="custom")
        pair.refused("get_or_create_user_queue", other, user="ann")
        pair.refused("get_review_queue_by_name", other, name="q")
        pair.refused("list_review_queues", other)
    foreign = question(pair, "0")
    pair.refused("create_review_queue", experiment, name="q", queue_type="custom", schema_ids=[foreign])
    made = make(pair, experiment)
    pair.delete_experiment(experiment)
    pair.get_review_queue(made.queue_id)
    pair.add_items_to_review_queue(made.queue_id, item_ids=["a"])
    pair.list_review_queue_items(made.queue_id)
    pair.refused("create_review_queue", experiment, name="r", queue_type="custom")
    pair.refused("list_review_queues", experiment)
    pair.refused("get_review_queue_by_name", experiment, name="q")
    pair.refused("get_or_create_user_queue", experiment, user="ann")


def test_names(pair: Pair, experiment: str) -> None:
    """R1: a look by name folds case, and does not strip."""
    make(pair, experiment, "Foo")
    for taken in ("Foo", "foo", " FOO "):
        pair.refused("create_review_queue", experiment, name=taken, queue_type="custom")
    pair.get_review_queue_by_name(experiment, name="fOO")
    for unknown in (" foo", "bar", ""):
        pair.refused("get_review_queue_by_name", experiment, name=unknown)
    make(pair, "0", "Foo")


def test_queues_of_users(pair: Pair, experiment: str) -> None:
    """R8: a custom queue of the user's name is in the way."""
    made = pair.get_or_create_user_queue(experiment, user=" Ann ")
    assert made == pair.ours.get_or_create_user_queue(experiment, user="ANN")
    pair.get_or_create_user_queue(experiment, user="ann")
    by_hand = make(pair, experiment, "bob", queue_type="user")
    assert pair.get_or_create_user_queue(experiment, user="Bob").queue_id == by_hand.queue_id
    make(pair, experiment, "Carol")
    for user in ("carol", "", "  ", "x" * 251):
        ours, theirs = pair.both("get_or_create_user_queue", experiment, user=user)
        assert ours.code == theirs.code
        assert ours.code in ("RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE")
    for change in ({}, {"name": "x"}, {"users": ["x"]}, {"new_owner": "x"}):
        ours, theirs = pair.both("update_review_queue", made.queue_id, **change)
        assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE",) * 2, "R4"
    pair.refused("update_review_queue", "rq-none", name="x")


def test_updates(pair: Pair, experiment: str) -> None:
    """R4: a change of nothing leaves the time of the last change alone."""
    made = make(pair, experiment, users=["ann"], created_by="Me")
    make(pair, experiment, "other")
    time.sleep(0.002)
    assert pair.update_review_queue(made.queue_id).last_update_time_ms == made.last_update_time_ms
    first, second = question(pair, experiment, "a"), question(pair, experiment, "b")
    for change in (
        {"name": "q"},
        {"name": " Q "},
        {"name": "renamed"},
        {"users": ["Bob", "ann", "bob"]},
        {"users": []},
        {"new_owner": " Somebody "},
        {"schema_ids": [second, first, second]},
        {"schema_ids": []},
        {"name": "all", "users": ["u"], "new_owner": "o", "schema_ids": [first]},
    ):
        before = pair.ours.get_review_queue(made.queue_id).last_update_time_ms
        time.sleep(0.002)
        assert pair.update_review_queue(made.queue_id, **change).last_update_time_ms > before
        pair.get_review_queue(made.queue_id)
    for change in (
        {"name": "OTHER"},
        {"name": "default"},
        {"name": ""},
        {"new_owner": " "},
        {"new_owner": "x" * 251},
        {"users": ["x" * 251]},
        {"schema_ids": ["ls-none"]},
        {"schema_ids": [""]},
    ):
        pair.refused("update_review_queue", made.queue_id, **change)
        pair.get_review_queue(made.queue_id)


def test_questions_are_fixed_while_there_are_items(pair: Pair, experiment: str) -> None:
    """R3: even for the same questions, and the whole call is undone. R5: items do not count as a change."""
    schema = question(pair, experiment)
    made = make(pair, experiment, schema_ids=[schema])
    pair.add_items_to_review_queue(made.queue_id, item_ids=["a"])
    assert pair.get_review_queue(made.queue_id).last_update_time_ms == made.last_update_time_ms
    for questions in ([], [schema]):
        ours, theirs = pair.both("update_review_queue", made.queue_id, schema_ids=questions, name="new")
        assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE",) * 2
        assert pair.get_review_queue(made.queue_id).name == "q"
    pair.update_review_queue(made.queue_id, users=["ann"])
    pair.remove_items_from_review_queue(made.queue_id, item_ids=["a"])
    pair.update_review_queue(made.queue_id, schema_ids=[], name="new")


def test_queues_keep_questions_that_are_deleted(pair: Pair, experiment: str) -> None:
    """L5."""
    schema = question(pair, experiment)
    made = make(pair, experiment, schema_ids=[schema])
    pair.delete_label_schema(schema)
    assert pair.get_review_queue(made.queue_id).schema_ids == [schema]


def test_lists(pair: Pair, experiment: str) -> None:
    ann = make(pair, experiment, "ann", queue_type="user")
    both = make(pair, experiment, "both", users=["Ann", "Bob"])
    make(pair, experiment, "nobody")
    for queue in (ann, both):
        pair.add_items_to_review_queue(queue.queue_id, item_ids=["x"])
    pair.add_items_to_review_queue(both.queue_id, item_ids=["y"])
    for wanted in (
        {},
        {"user": " ANN "},
        {"user": "bob"},
        {"user": "carol"},
        {"user": ""},
        {"item_id": "x"},
        {"item_id": "y"},
        {"item_id": " x"},
        {"item_id": "z"},
        {"user": "bob", "item_id": "x"},
        {"user": "bob", "item_id": "z"},
    ):
        pair.list_review_queues(experiment, **wanted)
    for limit in (0, -1, 50_001):
        pair.refused("list_review_queues", experiment, max_results=limit)
        pair.refused("list_review_queue_items", both.queue_id, max_results=limit)
    assert [queue.name for queue in pair.pages("list_review_queues", experiment, max_results=1)] == [
        "nobody",
        "both",
        "ann",
    ]
    token = pair.ours.list_review_queues(experiment, max_results=1).token
    with pytest.raises(Exception, match="another search"):
        pair.ours.list_review_queues(experiment, user="ann", page_token=token)


def test_items(pair: Pair, experiment: str) -> None:
    queue = make(pair, experiment).queue_id
    pair.add_items_to_review_queue(queue, item_ids=["b", " a ", "b", "A", "x|y", "x" * 50])
    time.sleep(0.002)
    pair.set_review_queue_item_status(queue, item_id="a", status="complete", completed_by=" Ann ")
    pair.add_items_to_review_queue(queue, item_ids=["c", "a"], item_type="trace")
    for status in (None, "pending", ReviewStatus.COMPLETE, "declined"):
        pair.list_review_queue_items(queue, status=status)
        assert len(pair.pages("list_review_queue_items", queue, status=status, max_results=2)) == len(
            pair.ours.list_review_queue_items(queue, status=status)
        )
    for bad in ([], ["a", ""], ["x" * 51], [5], "abc", None):
        for method in ("add_items_to_review_queue", "remove_items_from_review_queue"):
            ours, theirs = pair.both(method, queue, item_ids=bad)
            assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE",) * 2, (method, bad)
    pair.refused("add_items_to_review_queue", queue, item_ids=["a"], item_type="span")
    pair.refused("list_review_queue_items", queue, status="done")
    pair.remove_items_from_review_queue(queue, item_ids=["c", "unknown", " b "])
    pair.list_review_queue_items(queue)
    for unknown in ("rq-none", ""):
        pair.refused("add_items_to_review_queue", unknown, item_ids=["a"])
        pair.refused("remove_items_from_review_queue", unknown, item_ids=["a"])
        pair.refused("list_review_queue_items", unknown)
        pair.refused("get_review_queue", unknown)


def test_status(pair: Pair, experiment: str) -> None:
    """R2: the same status is no change, whoever asks."""
    queue = make(pair, experiment).queue_id
    pair.add_items_to_review_queue(queue, item_ids=["a"])
    for status, who in (
        ("pending", None),
        ("complete", " Ann "),
        ("complete", "bob"),
        ("declined", "bob"),
        (ReviewStatus.PENDING, None),
        ("pending", None),
        ("declined", "x" * 250),
    ):
        time.sleep(0.002)
        before = pair.ours.list_review_queue_items(queue)[0]
        after = pair.set_review_queue_item_status(queue, item_id=" a ", status=status, completed_by=who)
        assert (after == before) == (str(status) == str(before.status))
    for given in (
        {"status": "pending", "completed_by": "ann"},
        {"status": "pending", "completed_by": ""},
        {"status": "complete"},
        {"status": "complete", "completed_by": " "},
        {"status": "complete", "completed_by": "x" * 251},
        {"status": "done", "completed_by": "ann"},
        {"status": None, "completed_by": "ann"},
        {"status": "complete", "completed_by": "ann", "item_id": "b"},
        {"status": "complete", "completed_by": "ann", "item_id": ""},
    ):
        ours, theirs = pair.both("set_review_queue_item_status", queue, **{"item_id": "a", **given})
        assert ours.code == theirs.code is not None, given
    for status in ("pending", "complete"):
        who = "ann" if status == "complete" else None
        error = pair.refused(
            "set_review_queue_item_status", "rq-none", item_id="a", status=status, completed_by=who
        )
        assert "queue" in error.message


def test_items_go_with_their_traces(pair: Pair, experiment: str) -> None:
    """R6."""
    one, two = trace_id(1), trace_id(2)
    for each in (one, two):
        pair.both("start_trace", stated(each, experiment))
    queues = [make(pair, experiment, name).queue_id for name in ("a", "b")]
    for queue in queues:
        pair.add_items_to_review_queue(queue, item_ids=[one, two])
    pair.both("delete_traces", experiment, trace_ids=[one])
    for queue in queues:
        assert [item.item_id for item in pair.list_review_queue_items(queue)] == [two]


def test_deletion(pair: Pair, experiment: str) -> None:
    made = make(pair, experiment)
    pair.add_items_to_review_queue(made.queue_id, item_ids=["a", "b"])
    for _ in range(2):
        pair.delete_review_queue(made.queue_id)
    pair.refused("get_review_queue", made.queue_id)
    pair.refused("list_review_queue_items", made.queue_id)
    make(pair, experiment)
    assert pair.list_review_queues(experiment, item_id="a") == []


def test_queues_and_questions_go_with_their_experiment(pair: Pair, experiment: str) -> None:
    schema = question(pair, experiment)
    made = make(pair, experiment, schema_ids=[schema])
    kept = make(pair, "0")
    for queue in (made, kept):
        pair.add_items_to_review_queue(queue.queue_id, item_ids=["a"])
    pair.delete_experiment(experiment)
    pair.both("_hard_delete_experiment", experiment)
    pair.refused("get_review_queue", made.queue_id)
    pair.refused("get_label_schema", schema)
    pair.refused("list_review_queue_items", made.queue_id)
    assert len(pair.list_review_queue_items(kept.queue_id)) == 1
