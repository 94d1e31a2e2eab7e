"""Keys and values of tags, params and metadata that are empty, or no texts."""

from typing import Any

import pytest
from mlflow.entities import LoggedModelParameter, LoggedModelTag
from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

from tests.contract.pair import Pair
from tests.contract.policy import differences
from tests.contract.trace_scenes import STARTED, stated, trace_id

TRACE = trace_id(1)


def found(pair: Pair, condition: str) -> list[str]:
    return [trace.trace_id for trace in pair.search_traces(["0"], condition)[0]]


@pytest.mark.parametrize(("value", "text"), [(123, "123"), (1.5, "1.5"), (-7, "-7"), ("", "")])
def test_metadata_and_tags_of_a_trace_become_texts(pair: Pair, value: Any, text: str) -> None:
    pair.both("start_trace", stated(TRACE, trace_metadata={"k": value}, tags={"t": value}))
    info = pair.get_trace_info(TRACE)
    assert (info.trace_metadata["k"], info.tags["t"]) == (text, text)
    assert found(pair, f"metadata.k = '{text}'") == found(pair, f"tags.t = '{text}'") == [TRACE]


def test_what_start_trace_returns_is_what_is_stored(pair: Pair) -> None:
    returned = pair.ours.start_trace(stated(TRACE, trace_metadata={"k": 1}, tags={"t": 2}))
    assert not list(differences(returned, pair.ours.get_trace_info(TRACE), "trace"))
    assert returned.trace_metadata["k"] == "1"


@pytest.mark.parametrize(
    "key", [TraceMetadataKey.SOURCE_RUN, TraceMetadataKey.SIZE_BYTES, TraceMetadataKey.INPUTS]
)
def test_metadata_with_a_field_of_its_own_becomes_a_text(pair: Pair, key: str) -> None:
    pair.both("start_trace", stated(TRACE, trace_metadata={key: 5}))
    assert pair.get_trace_info(TRACE).trace_metadata[key] == "5"


def test_metadata_and_tags_may_be_none(pair: Pair) -> None:
    pair.start_trace(stated(TRACE, trace_metadata={"k": None}, tags={"t": None}))
    info = pair.get_trace_info(TRACE)
    assert (info.trace_metadata["k"], info.tags["t"]) == (None, None)


def test_a_trace_that_is_ended_in_the_old_way(pair: Pair) -> None:
    started = pair.ours.deprecated_start_trace_v2("0", STARTED, {"k": 1}, {"t": 2})
    pair.ours.deprecated_end_trace_v2(started.request_id, STARTED + 1, started.status, {"m": 3}, {"u": 4.5})
    info = pair.ours.get_trace_info(started.request_id)
    assert [info.trace_metadata[key] for key in ("k", "m")] == ["1", "3"]
    assert [info.tags[key] for key in ("t", "u")] == ["2", "4.5"]


@pytest.mark.parametrize("key", [1, 1.5])
def test_keys_that_are_numbers_become_texts(pair: Pair, key: Any) -> None:
    pair.both("start_trace", stated(TRACE, tags={key: "v"}))
    assert pair.get_trace_info(TRACE).tags[str(key)] == "v"
    pair.delete_trace_tag(TRACE, key)
    model = pair.create_logged_model("0", "m").model_id
    pair.set_logged_model_tags(model, [LoggedModelTag(key, "v")])
    pair.log_logged_model_params(model, [LoggedModelParameter(key, "v")])
    assert pair.get_logged_model(model).tags == {str(key): "v"}
    pair.delete_logged_model_tag(model, key)
    assert pair.get_logged_model(model).tags == {}
    assert pair.get_logged_model(model).params == {str(key): "v"}


def test_a_logged_model_with_empty_keys(pair: Pair) -> None:
    model = pair.create_logged_model("0", "m").model_id
    pair.set_logged_model_tags(model, [LoggedModelTag("", "x"), LoggedModelTag("%", "y")])
    pair.log_logged_model_params(model, [LoggedModelParameter("", "p")])
    made = pair.get_logged_model(model)
    assert (made.tags, made.params) == ({"": "x", "%": "y"}, {"": "p"})
    pair.delete_logged_model_tag(model, "")
    assert pair.get_logged_model(model).tags == {"%": "y"}
    pair.refused("delete_logged_model_tag", model, "")


def test_a_logged_model_that_was_made_with_empty_keys(pair: Pair) -> None:
    model = pair.create_logged_model(
        "0", "m", tags=[LoggedModelTag("", "x")], params=[LoggedModelParameter("", "p")]
    ).model_id
    made = pair.get_logged_model(model)
    assert (made.tags, made.params) == ({"": "x"}, {"": "p"})
    pair.delete_logged_model_tag(model, "")
    assert pair.get_logged_model(model).tags == {}


def test_a_dataset_with_empty_keys(pair: Pair) -> None:
    dataset = pair.ours.create_dataset("d", tags={"": "made"}).dataset_id
    assert pair.ours.get_dataset(dataset).tags == {"": "made"}
    pair.ours.set_dataset_tags(dataset, {"": "set", "%": "y"})
    assert pair.ours.get_dataset(dataset).tags == {"": "set", "%": "y"}
    pair.ours.delete_dataset_tag(dataset, "")
    assert pair.ours.get_dataset(dataset).tags == {"%": "y"}
    theirs = pair.oracle.create_dataset("d", tags={"": "made"}).dataset_id
    pair.oracle.delete_dataset_tag(theirs, "")
    assert pair.oracle.get_dataset(theirs).tags == {}


def test_an_empty_key_beside_others_of_a_trace(pair: Pair) -> None:
    pair.start_trace(stated(TRACE, trace_metadata={"": "m"}, tags={"": "t", TraceTagKey.TRACE_NAME: "n"}))
    assert pair.get_trace_info(TRACE).tags[""] == "t"
    pair.delete_trace_tag(TRACE, "")
    assert "" not in pair.get_trace_info(TRACE).tags


@pytest.mark.parametrize("bad", [{"$ne": 1}, ["a"], b"a"], ids=repr)
def test_what_is_no_text_is_refused(pair: Pair, bad: Any) -> None:
    for fields in ({"trace_metadata": {"k": bad}}, {"tags": {"k": bad}}):
        ours, _ = pair.both("start_trace", stated(TRACE, **fields))
        assert ours.code == "INVALID_PARAMETER_VALUE"
        assert "must be a text" in str(ours.error)
    ours, _ = pair.both("create_dataset", "d", tags={"k": bad})
    assert ours.code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("key", [None, b"k"], ids=repr)
def test_keys_that_are_no_texts_are_refused(pair: Pair, key: Any) -> None:
    pair.start_trace(stated(TRACE))
    model = pair.create_logged_model("0", "m").model_id
    dataset = pair.ours.create_dataset("d").dataset_id
    for call in (
        ("start_trace", stated(TRACE, tags={key: "v"})),
        ("start_trace", stated(TRACE, trace_metadata={key: "v"})),
        ("delete_trace_tag", TRACE, key),
        ("set_logged_model_tags", model, [LoggedModelTag(key, "v")]),
        ("log_logged_model_params", model, [LoggedModelParameter(key, "v")]),
        ("delete_logged_model_tag", model, key),
        ("create_dataset", "d", {key: "v"}),
        ("set_dataset_tags", dataset, {key: "v"}),
        ("delete_dataset_tag", dataset, key),
    ):
        ours, _ = pair.both(*call)
        assert ours.code == "INVALID_PARAMETER_VALUE", call


@pytest.mark.parametrize(
    ("value", "ours", "theirs"),
    [(True, "True", "1"), (1e22, "1e+22", "1.0e+22"), (float("nan"), "nan", None)],
)
def test_numbers_are_written_as_python_does(pair: Pair, value: Any, ours: str, theirs: str | None) -> None:
    pair.both("start_trace", stated(TRACE, trace_metadata={"k": value}))
    written = [store.get_trace_info(TRACE).trace_metadata["k"] for store in (pair.ours, pair.oracle)]
    assert written == [ours, theirs]
    model = pair.create_logged_model("0", "m").model_id
    outcomes = pair.both("set_logged_model_tags", model, [LoggedModelTag("k", value)])
    assert outcomes[0].error is None
    assert pair.ours.get_logged_model(model).tags["k"] == ours


@pytest.mark.parametrize(
    "fields",
    [
        {"tags": {TraceTagKey.TRACE_NAME: 5}},
        {"trace_metadata": {TraceMetadataKey.TRACE_SESSION: 5}},
        {"trace_metadata": {5: "v"}},
    ],
    ids=["name", "session", "key"],
)
def test_numbers_that_the_sql_store_trips_over(pair: Pair, fields: dict[str, Any]) -> None:
    ours, theirs = pair.both("start_trace", stated(TRACE, **fields))
    assert theirs.error is not None
    assert ours.error is None
    info = pair.ours.get_trace_info(TRACE)
    assert "5" in {*info.tags.values(), *info.trace_metadata.values(), *info.trace_metadata}
