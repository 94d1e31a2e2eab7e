"""What a call takes for a text, and what not."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import SearchExperiments

from genesis_flow.mongo.arguments import TextParameter, check_texts, slipped

PLACES = {"order_by": TextParameter(0, takes_several=True, default=None)}


@pytest.mark.parametrize(
    "value",
    [None, "a", 1, ["a"], ("a", None), {"a"}, {"a": 1}.keys(), SearchExperiments(order_by=["a"]).order_by],
    ids=lambda value: type(value).__name__,
)
def test_texts_and_collections_of_texts(value: object) -> None:
    check_texts(PLACES, (value,), {})
    check_texts(PLACES, (), {"order_by": value})


@pytest.mark.parametrize("value", [{"$ne": 1}, [{"$ne": 1}], b"a", [b"a"], [["a"]]], ids=repr)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(MlflowException, match="order_by must be a text"):
        check_texts(PLACES, (value,), {})


def test_several_texts_where_one_is_expected() -> None:
    with pytest.raises(MlflowException, match="name must be a text, not \\['a'\\]"):
        check_texts({"name": TextParameter(0, takes_several=False, default=None)}, (["a"],), {})


def test_a_secret_is_not_shown() -> None:
    with pytest.raises(
        MlflowException, match="secret must be a text, not what was given, a bytes"
    ) as refused:
        check_texts({"secret": TextParameter(0, takes_several=False, default=None)}, (b"hunter2",), {})
    assert "hunter2" not in str(refused.value)


def method(self: object, name: str, tags: dict[str, str] | None, steps: list[int], secret: float) -> None:
    """To give wrong arguments to."""


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((5, None, [], 1.0), "name must be str, not 5."),
        (("a", ["x"], [], 1.0), "tags must be dict[str, str] | None, not ['x']."),
        (("a", {"k": 1}, [], 1.0), "tags must be dict[str, str] | None, not {'k': 1}."),
        (("a", {}, [1, "2"], 1.0), "steps must be list[int], not [1, '2']."),
        (("a", {}, [True], "pass"), "secret must be float, not what was given, a str."),
    ],
)
def test_the_argument_of_a_wrong_type_is_named(args: tuple[object, ...], said: str) -> None:
    error = slipped(method, args, {}, TypeError("x"))
    assert (error.message, error.error_code) == (said, "INVALID_PARAMETER_VALUE")


def test_arguments_of_the_right_types() -> None:
    error = slipped(method, ("a",), {"tags": {"k": "v"}, "steps": [1], "secret": 1}, KeyError("gone"))
    assert error.error_code == "INTERNAL_ERROR"
    assert "method cannot work with what it was given: KeyError: 'gone'" in error.message
