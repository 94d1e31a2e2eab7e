"""Params, tags and batches: limits, atomicity, what may be repeated."""

import pytest
from mlflow.entities import Metric, Param, RunTag

from tests.contract.pair import Pair
from tests.contract.scenes import UNKNOWN_RUN, new_run

BAD_KEYS = [
    None,
    "",
    "a//b",
    "../up",
    "/base",
    "a/../b",
    ".",
    "..",
    "k\t",
    "k$",
    "k%",
    "k|k",
    "k" * 251,
    "k=v",
]
GOOD_KEYS = ["k" * 250, "a.b", "a b", "a/b/c", "a:b", "ünïcode", "-_.", "0", ".hidden", "_id", "a..b"]


@pytest.fixture
def run_id(pair: Pair) -> str:
    return new_run(pair)


def test_keys(pair: Pair, run_id: str) -> None:
    for key in GOOD_KEYS:
        pair.log_param(run_id, Param(key, "value"))
        pair.log_param(run_id, Param(key, "value"))
        pair.set_tag(run_id, RunTag(key, "value"))
        pair.set_tag(run_id, RunTag(key, "other"))
    data = pair.get_run(run_id).data
    assert data.params == dict.fromkeys(GOOD_KEYS, "value")
    assert {key: data.tags[key] for key in GOOD_KEYS} == dict.fromkeys(GOOD_KEYS, "other")
    for key in GOOD_KEYS:
        pair.delete_tag(run_id, key)
    assert not set(GOOD_KEYS) & pair.get_run(run_id).data.tags.keys()


@pytest.mark.parametrize("key", BAD_KEYS, ids=lambda key: str(key)[:8])
def test_bad_keys_are_refused(pair: Pair, run_id: str, key: str | None) -> None:
    for method, entity in (("log_param", Param(key, "v")), ("set_tag", RunTag(key, "v"))):
        assert pair.refused(method, run_id, entity).error_code == "INVALID_PARAMETER_VALUE"
    for batch in (
        ([], [Param("good", "v"), Param(key, "v")], []),
        ([], [], [RunTag("good", "v"), RunTag(key, "v")]),
    ):
        assert pair.refused("log_batch", run_id, *batch).error_code == "INVALID_PARAMETER_VALUE"
    assert "good" not in pair.get_run(run_id).data.tags


@pytest.mark.parametrize("value", ["", " ", "None", "line\nbreak", "nul\0inside", "𝄞", "v" * 6000])
def test_values(pair: Pair, run_id: str, value: str) -> None:
    pair.log_param(run_id, Param("p", value))
    pair.log_param(run_id, Param("p", value))
    pair.set_tag(run_id, RunTag("t", value))
    pair.log_batch(run_id, [], [Param("p", value), Param("q", value)], [RunTag("t", value)])
    assert pair.get_run(run_id).data.params == {"p": value, "q": value}


def test_long_values_are_cut(pair: Pair, run_id: str) -> None:
    for param in (Param("p", "v" * 6001), Param("p", "v" * 7000), Param("p", "v" * 6000)):
        pair.log_param(run_id, param)
    assert pair.refused("log_param", run_id, Param("p", "v" * 5999)).error_code == "INVALID_PARAMETER_VALUE"
    pair.set_tag(run_id, RunTag("t", "v" * 8001))
    pair.log_batch(run_id, [], [Param("p", "v" * 8000), Param("q", "v" * 8000)], [RunTag("u", "v" * 9000)])
    data = pair.get_run(run_id).data
    assert (len(data.params["q"]), len(data.tags["t"]), len(data.tags["u"])) == (6000, 8000, 8000)


def test_long_values_are_refused_when_mlflow_may_not_cut(
    pair: Pair, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    for call in (
        ("log_param", Param("p", "v" * 6001)),
        ("set_tag", RunTag("t", "v" * 8001)),
        ("log_batch", [], [Param("p", "v" * 6001)], []),
        ("log_batch", [], [], [RunTag("t", "v" * 8001)]),
    ):
        assert pair.refused(call[0], run_id, *call[1:]).error_code == "INVALID_PARAMETER_VALUE"
    assert pair.get_run(run_id).data.params == {}


def test_a_param_cannot_change(pair: Pair, run_id: str) -> None:
    pair.log_batch(run_id, [], [Param("p", "1"), Param("q", "1")], [])
    refusal = pair.refused("log_param", run_id, Param("p", "2"))
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    refusal = pair.refused("log_param", run_id, Param("p", ""))
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    refusal = pair.refused("log_batch", run_id, [], [Param("p", "2"), Param("r", "1"), Param("q", "3")], [])
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    assert pair.get_run(run_id).data.params == {"p": "1", "q": "1"}


BROKEN_BATCHES: dict[str, tuple[list[Metric], list[Param], list[RunTag]]] = {
    "a changed param": ([], [Param("new", "v"), Param("p", "other")], []),
    "a param twice": ([], [Param("new", "v"), Param("new", "v")], []),
    "a long param key": ([], [Param("new", "v"), Param("k" * 251, "v")], []),
    "a long tag key": ([], [Param("new", "v")], [RunTag("k" * 251, "v")]),
    "a bad metric": ([Metric("n", "text", 1, 0)], [Param("new", "v")], []),
    "a bad tag": ([], [Param("new", "v")], [RunTag("../t", "v")]),
}


@pytest.mark.parametrize("broken", BROKEN_BATCHES)
def test_a_refused_batch_leaves_nothing(pair: Pair, run_id: str, broken: str) -> None:
    pair.log_batch(run_id, [Metric("m", 1.0, 1, 0)], [Param("p", "1")], [RunTag("t", "1")])
    before = pair.get_run(run_id)
    metrics, params, tags = BROKEN_BATCHES[broken]
    batch = (
        [Metric("m", 2.0, 2, 1), Metric("n", 1.0, 1, 0), *metrics],
        params,
        [RunTag("t", "2"), RunTag("new", "v"), *tags],
    )
    assert pair.refused("log_batch", run_id, *batch).error_code == "INVALID_PARAMETER_VALUE"
    after = pair.get_run(run_id)
    assert dict(after.data) == dict(before.data)
    assert len(pair.get_metric_history(run_id, "m")) == 1
    assert pair.get_metric_history(run_id, "n") == []


@pytest.mark.parametrize(
    ("metrics", "params", "tags", "accepted"),
    [
        (1000, 0, 0, True),
        (1001, 0, 0, False),
        (0, 100, 0, True),
        (0, 101, 0, False),
        (0, 0, 100, True),
        (0, 0, 101, False),
        (800, 100, 100, True),
        (801, 100, 100, False),
    ],
)
def test_batch_limits(pair: Pair, run_id: str, metrics: int, params: int, tags: int, accepted: bool) -> None:
    batch = (
        [Metric(f"m{i}", 1.0, 1, 0) for i in range(metrics)],
        [Param(f"p{i}", "v") for i in range(params)],
        [RunTag(f"t{i}", "v") for i in range(tags)],
    )
    if accepted:
        pair.log_batch(run_id, *batch)
    else:
        assert pair.refused("log_batch", run_id, *batch).error_code == "INVALID_PARAMETER_VALUE"
    data = pair.get_run(run_id).data
    assert len(data.metrics) == (metrics if accepted else 0)


def test_of_two_tags_with_one_key_the_last_wins(pair: Pair, run_id: str) -> None:
    pair.log_batch(run_id, [], [], [RunTag("t", "1"), RunTag("t", "2"), RunTag("t", "3")])
    assert pair.get_run(run_id).data.tags["t"] == "3"
    pair.log_batch(run_id, [], [], [RunTag("t", "4"), RunTag("t", "5")])
    assert pair.get_run(run_id).data.tags["t"] == "5"


def test_a_tag_may_have_no_value(pair: Pair, run_id: str) -> None:
    pair.set_tag(run_id, RunTag("t", None))
    assert pair.get_run(run_id).data.tags["t"] is None
    pair.log_batch(run_id, [], [], [RunTag("u", None), RunTag("t", "1")])
    pair.get_run(run_id)
    pair.delete_tag(run_id, "u")
    pair.get_run(run_id)


@pytest.mark.parametrize("key", ["never", "", "t.x", "mlflow", None])
def test_a_tag_that_is_not_there_cannot_be_deleted(pair: Pair, run_id: str, key: str | None) -> None:
    pair.set_tag(run_id, RunTag("t", "v"))
    assert pair.refused("delete_tag", run_id, key).error_code == "RESOURCE_DOES_NOT_EXIST"


def test_an_empty_batch_needs_a_run_all_the_same(pair: Pair, run_id: str) -> None:
    pair.log_batch(run_id, [], [], [])
    assert pair.refused("log_batch", UNKNOWN_RUN, [], [], []).error_code == "RESOURCE_DOES_NOT_EXIST"
