"""Label schemas: the cases L1 to L4, bad input, pages, races. L5 is with the review queues."""

import threading
from typing import Any

import pytest
from mlflow.genai.label_schemas import (
    InputCategorical,
    InputNumeric,
    InputPassFail,
    InputText,
    InputTextList,
)
from mlflow.genai.label_schemas.label_schemas import LabelSchemaType

from tests.contract.pair import Pair

FEEDBACK, EXPECTATION = LabelSchemaType.FEEDBACK, LabelSchemaType.EXPECTATION
INPUTS = [
    InputPassFail("good", "bad"),
    InputCategorical(["a", "b"]),
    InputCategorical(["a", "b"], multi_select=True),
    InputNumeric(),
    InputNumeric(0, 1.5),
    InputText(),
    InputText(10),
]


@pytest.fixture
def experiment(pair: Pair) -> str:
    found: str = pair.create_experiment("e")
    return found


def make(pair: Pair, experiment: str, name: str = "q", **changed: Any) -> Any:
    given = {"name": name, "type": FEEDBACK, "input": InputText(), **changed}
    return pair.create_label_schema(experiment, **given)


@pytest.mark.parametrize("kind", INPUTS, ids=repr)
def test_kinds_of_input(pair: Pair, experiment: str, kind: Any) -> None:
    made = make(pair, experiment, input=kind, type=EXPECTATION, instruction="say", enable_comment=True)
    pair.get_label_schema(made.schema_id)
    assert pair.get_label_schema_by_name(experiment, "q").input == kind


@pytest.mark.parametrize(
    "name", ["", " ", " b ", "x" * 250, "x" * 251, "feedback", " FeedBack ", None, 5, ["q"], "a.$%"]
)
def test_names(pair: Pair, experiment: str, name: Any) -> None:
    """L3: names are not stripped."""
    ours, theirs = pair.both("create_label_schema", experiment, name=name, type=FEEDBACK, input=InputText())
    assert (ours.code, theirs.code) in {(None, None), ("INVALID_PARAMETER_VALUE",) * 2}
    if ours.error is None:
        pair.get_label_schema_by_name(experiment, name)
        pair.refused("create_label_schema", experiment, name=name, type=FEEDBACK, input=InputText())


@pytest.mark.parametrize(
    "kind",
    [
        InputTextList(),
        InputText(0),
        InputNumeric(1, 1),
        InputNumeric(2, 1),
        InputCategorical([]),
        InputCategorical(["a", "a"]),
        InputCategorical(["x"] * 11),
        InputCategorical(["x" * 65]),
        InputPassFail("", "b"),
        InputPassFail("a", "a"),
        None,
        "text",
    ],
    ids=repr,
)
def test_bad_inputs(pair: Pair, experiment: str, kind: Any) -> None:
    pair.refused("create_label_schema", experiment, name="q", type=FEEDBACK, input=kind)


@pytest.mark.parametrize(
    "changed", [{"type": "other"}, {"type": None}, {"instruction": "x" * 1001}, {"instruction": 5}]
)
def test_other_bad_values(pair: Pair, experiment: str, changed: dict[str, Any]) -> None:
    given = {"name": "q", "type": FEEDBACK, "input": InputText(), **changed}
    pair.refused("create_label_schema", experiment, **given)


def test_experiments(pair: Pair, experiment: str) -> None:
    for other in ("99", "x"):
        pair.refused("create_label_schema", other, name="q", type=FEEDBACK, input=InputText())
        pair.refused("list_label_schemas", other)
        pair.refused("get_label_schema_by_name", other, "q")
    made = make(pair, experiment)
    pair.delete_experiment(experiment)
    pair.get_label_schema(made.schema_id)
    pair.refused("create_label_schema", experiment, name="r", type=FEEDBACK, input=InputText())
    pair.refused("list_label_schemas", experiment)
    pair.refused("get_label_schema_by_name", experiment, "q")


def test_lists_make_the_default_question(pair: Pair, experiment: str) -> None:
    """L1 and L2: a list writes; a look by name does not."""
    pair.refused("get_label_schema_by_name", experiment, "Feedback")
    ours, theirs = pair.both("list_label_schemas", experiment)
    for (default,) in (ours.result, theirs.result):
        assert (default.name, default.is_default, default.input) == ("Feedback", True, InputText())
        assert default.instruction == "Share any feedback on this trace."
    assert len(pair.ours.list_label_schemas(experiment)) == 1
    assert pair.ours.get_label_schema_by_name(experiment, "Feedback").is_default


def test_the_default_question_stays_as_it_is(pair: Pair, experiment: str) -> None:
    """L4: even a change of nothing is refused."""
    for store in (pair.ours, pair.oracle):
        (default,) = store.list_label_schemas(experiment)
        for call in (
            lambda store=store, default=default: store.update_label_schema(default.schema_id),
            lambda store=store, default=default: store.delete_label_schema(default.schema_id),
        ):
            with pytest.raises(Exception, match="default question") as caught:
                call()
            assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_racing_lists_make_one_default(pair: Pair, experiment: str) -> None:
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(pair.ours.list_label_schemas(experiment)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {schema.schema_id for page in found for schema in page} == {found[0][0].schema_id}
    assert len(found) == 8


def test_updates(pair: Pair, experiment: str) -> None:
    made = make(pair, experiment, input=InputCategorical(["a", "b"]), instruction="say")
    other = make(pair, experiment, "other")
    for change in (
        {"name": "renamed"},
        {"instruction": ""},
        {"enable_comment": True},
        {"input": InputCategorical(["c"])},
        {},
    ):
        pair.update_label_schema(made.schema_id, **change)
        pair.get_label_schema(made.schema_id)
    for change in (
        {"name": "other"},
        {"name": "feedback"},
        {"name": ""},
        {"input": InputText()},
        {"input": InputCategorical(["a"], multi_select=True)},
        {"instruction": "x" * 1001},
    ):
        pair.refused("update_label_schema", made.schema_id, **change)
    pair.refused("update_label_schema", "ls-none", name="x")
    pair.update_label_schema(other.schema_id, name="other")


def test_deletion(pair: Pair, experiment: str) -> None:
    made = make(pair, experiment)
    pair.delete_label_schema(made.schema_id)
    pair.delete_label_schema(made.schema_id)
    pair.refused("get_label_schema", made.schema_id)
    make(pair, experiment)


def test_pages_are_newest_first(pair: Pair, experiment: str) -> None:
    pair.both("list_label_schemas", experiment)
    for number in range(5):
        make(pair, experiment, f"q{number}")
    ours: list[str] = []
    token = None
    while True:
        page = pair.ours.list_label_schemas(experiment, max_results=2, page_token=token)
        ours += [schema.name for schema in page]
        if not (token := page.token):
            break
    assert sorted(ours) == ["Feedback", "q0", "q1", "q2", "q3", "q4"]
    created = [pair.ours.get_label_schema_by_name(experiment, name).created_at for name in ours]
    assert created == sorted(created, reverse=True)
    for limit in (0, -1, 50_001):
        pair.refused("list_label_schemas", experiment, max_results=limit)
