"""The filter and the order of a run search, without a database."""

import random
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from genesis_flow.areas.runs.filters import parse_filter
from genesis_flow.areas.runs.order import NEWEST_FIRST, parse_order
from genesis_flow.search.compare import like_regex
from genesis_flow.search.memory import first_positions, top_pipeline
from genesis_flow.search.order import Kind, OrderKey, parse_position, sort_key

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("clause", "condition"),
    [
        ("params.lr = '1'", {"params.lr": "1"}),
        ("params.`a.b` = '1'", {"params.a%2Eb": "1"}),
        ("tags.`$t` != 'x'", {"tags.%24t": {"$nin": ["x", None]}}),
        ("tag.t IS NULL", {"tags.t": {"$exists": False}}),
        ("run_name = 'n'", {"tags.mlflow%2ErunName": "n"}),
        ("attributes.`Run name` = 'n'", {"tags.mlflow%2ErunName": "n"}),
        ("run_id IN ('a', 'b')", {"_id": {"$in": ["a", "b"]}}),
        ("Created >= 5", {"start_time": {"$gte": 5}}),
        ("end_time < 1.5", {"end_time": {"$lt": 1.5}}),
        ("dataset.context = 'train'", {"inputs": {"$elemMatch": {"context": "train"}}}),
        (f"start_time < {2**63}", {"start_time": {"$lt": INFINITY}}),
        (f"start_time > -{2**80}", {"start_time": {"$gt": -INFINITY}}),
    ],
)
def test_a_clause_on_the_run(clause: str, condition: dict[str, Any]) -> None:
    parsed = parse_filter(clause)
    assert parsed.run_conditions == [condition]
    assert parsed.metric_conditions == {}


def test_conditions_on_one_metric_stay_together() -> None:
    parsed = parse_filter("metrics.m > 1 AND params.p = 'x' AND metric.m <= 2 AND metrics.n != 0")
    assert parsed.metric_conditions == {
        "m": [{"latest.value": {"$gt": 1.0}}, {"latest.value": {"$lte": 2.0}}],
        "n": [{"latest.value": {"$nin": [0.0, None]}}],
    }
    assert parsed.run_conditions == [{"params.p": "x"}]


@pytest.mark.parametrize("empty", [None, ""])
def test_no_filter(empty: str | None) -> None:
    parsed = parse_filter(empty)
    assert (parsed.run_conditions, parsed.metric_conditions) == ([], {})


def test_the_newest_come_first_unless_start_time_is_ordered() -> None:
    assert parse_order(None) == [NEWEST_FIRST]
    assert parse_order(["metrics.m DESC"]) == [OrderKey(Kind.METRIC, "m", False), NEWEST_FIRST]
    oldest_first = OrderKey(Kind.NUMBER, "start_time", True)
    assert parse_order(["created", "params.p"]) == [oldest_first, OrderKey(Kind.TEXT, "params.p", True)]


def test_a_metric_called_start_time_is_another_key() -> None:
    assert parse_order(["metrics.start_time"]) == [OrderKey(Kind.METRIC, "start_time", True), NEWEST_FIRST]


@pytest.mark.parametrize("clause", ["params.`p", 'x"', None, 3])
def test_the_parsers_slips_are_bad_values(clause: Any) -> None:
    with pytest.raises(MlflowException) as refused:
        parse_order([clause])
    assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("ascending", [True, False])
def test_nan_and_missing_come_last_in_both_directions(ascending: bool) -> None:
    order = [OrderKey(Kind.METRIC, "m", ascending)]
    values = [-INFINITY, -1.0, 0.0, INFINITY]
    expected: list[Any] = [*(values if ascending else values[::-1]), NAN, None]
    positions = [[value, "id"] for value in expected]
    random.Random(1).shuffle(positions)
    found = [position[0] for position in sorted(positions, key=lambda position: sort_key(order, position))]
    assert repr(found) == repr(expected)


positions = st.tuples(
    st.sampled_from([None, NAN, -INFINITY, 0.0, 1.5]),
    st.sampled_from([None, "", "a", "ä", "z"]),
    st.sampled_from([None, 1, 2]),
    st.sampled_from("abcdef"),
).map(list)
orders = st.tuples(st.booleans(), st.booleans(), st.booleans()).map(
    lambda ways: [
        OrderKey(Kind.METRIC, "m", ways[0]),
        OrderKey(Kind.TEXT, "params.p", ways[1]),
        OrderKey(Kind.NUMBER, "start_time", ways[2]),
    ]
)


@given(order=orders, rows=st.lists(positions, max_size=12, unique_by=repr), size=st.integers(1, 5))
def test_pages_in_memory_add_up(order: list[OrderKey], rows: list[list[Any]], size: int) -> None:
    whole = first_positions(order, rows, None, len(rows))
    assert sorted(map(repr, whole)) == sorted(map(repr, rows))
    assert all(sort_key(order, one) < sort_key(order, two) for one, two in pairwise(whole))
    paged: list[list[Any]] = []
    while page := first_positions(order, rows, paged[-1] if paged else None, size):
        paged += page
    assert repr(paged) == repr(whole)


def test_the_pipeline_puts_missing_values_last() -> None:
    order = [OrderKey(Kind.TEXT, "params.p", False), NEWEST_FIRST]
    pipeline = top_pipeline(order, {"experiment_id": 1}, ["x", None, "id"], 5)
    assert [next(iter(stage)) for stage in pipeline] == [
        "$match",
        "$project",
        "$match",
        "$sort",
        "$limit",
        "$project",
    ]
    assert pipeline[2]["$match"]["$or"] == [
        {"v0": {"$lt": "x"}},
        {"missing0": True},
        {"v0": "x", "v1": None, "_id": {"$gt": "id"}},
    ]
    assert list(pipeline[3]["$sort"].items()) == [
        ("missing0", 1),
        ("v0", -1),
        ("missing1", 1),
        ("v1", -1),
        ("_id", 1),
    ]


@pytest.mark.parametrize("value", [None, NAN, -INFINITY, 1.5, 3])
@pytest.mark.parametrize("start", [None, 0, 2**63 - 1])
def test_positions_that_a_search_gives_out_are_taken(value: Any, start: Any) -> None:
    order = [OrderKey(Kind.METRIC, "m", True), NEWEST_FIRST]
    assert parse_position(order, [value, start, "id"]) == [value, start, "id"]


@pytest.mark.parametrize(
    "position",
    [
        [],
        ["id"],
        [1.0, "id"],
        [1.0, 1, 1, "id"],
        [True, 1, "id"],
        ["1", 1, "id"],
        [1.0, 1.5, "id"],
        [1.0, 2**63, "id"],
    ],
)
def test_other_positions_are_refused(position: list[Any]) -> None:
    with pytest.raises(MlflowException, match="Invalid page token"):
        parse_position([OrderKey(Kind.METRIC, "m", True), NEWEST_FIRST], position)


@given(pattern=st.text("ab%_.", max_size=6), text=st.text("ab.\n", max_size=6))
def test_like_means_what_sql_means(pattern: str, text: str) -> None:
    def matches(rest: str, left: str) -> bool:
        if not rest:
            return not left
        if rest[0] == "%":
            return any(matches(rest[1:], left[cut:]) for cut in range(len(left) + 1))
        return bool(left) and rest[0] in ("_", left[0]) and matches(rest[1:], left[1:])

    regex = like_regex(pattern).replace("\\z", "\\Z")
    assert bool(re.search(regex, text, re.DOTALL)) == matches(pattern, text)
