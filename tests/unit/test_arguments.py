"""What a call takes for a text, and what not."""

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.service_pb2 import SearchExperiments

from genesis_flow.database.arguments import TextParameter, check_texts

PLACES = {"order_by": TextParameter(0, takes_several=True)}


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
