"""Issues: the cases I1 to I8, each version of MLflow by its own rules."""

import time
from typing import Any

import pytest
from mlflow.entities import IssueReference
from mlflow.entities.issue import IssueSeverity, IssueStatus
from mlflow.exceptions import MlflowException

from tests.contract.pair import Pair
from tests.contract.trace_scenes import STARTED, stated, trace_id
from tests.versions import before_3_18, since_3_18

HIGH, LOW, NOT_ONE = IssueSeverity.HIGH, IssueSeverity.LOW, IssueSeverity.NOT_AN_ISSUE
RESOLVED, REJECTED = IssueStatus.RESOLVED, IssueStatus.REJECTED


@pytest.fixture
def experiment(pair: Pair) -> str:
    found: str = pair.create_experiment("e")
    return found


def make(pair: Pair, experiment: str, name: str = "i", **changed: Any) -> Any:
    time.sleep(0.002)  # the next one is newer, by the clock of each store
    return pair.create_issue(experiment, **{"name": name, "description": "d", **changed})


def refer(pair: Pair, issue_id: str, *numbers: int) -> None:
    """Traces that have the issue."""
    for number in numbers:
        reference = IssueReference(issue_id=issue_id, issue_name="i", trace_id=trace_id(number))
        for store in (pair.ours, pair.oracle):
            reference.assessment_id = None
            store.create_assessment(reference)


def traces(pair: Pair, experiment: str, *numbers: int) -> None:
    for number in numbers:
        pair.both("start_trace", stated(trace_id(number), experiment))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"severity": HIGH, "status": RESOLVED, "created_by": "Me"},
        {"severity": NOT_ONE, "root_causes": ["a", "b"], "categories": [" Cost", "cost", "x"]},
        {"root_causes": [], "categories": []},
        {"name": "\u00c4.$%" * 20, "description": ""},
    ],
    ids=repr,
)
def test_creation(pair: Pair, experiment: str, given: dict[str, Any]) -> None:
    made = make(pair, experiment, **given)
    pair.get_issue(made.issue_id)
    pair.search_issues(experiment)


def test_unknown_and_deleted(pair: Pair, experiment: str) -> None:
    for other in ("99", "x"):
        pair.refused("create_issue", other, "i", "d")
    pair.refused("search_issues", "x")
    assert pair.search_issues("99") == []
    pair.refused("get_issue", "iss-none")
    pair.refused("update_issue", "iss-none", name="x")
    made = make(pair, experiment)
    pair.delete_experiment(experiment)
    pair.refused("create_issue", experiment, "i", "d")
    pair.update_issue(made.issue_id, name="other")
    pair.get_issue(made.issue_id)
    assert len(pair.search_issues(experiment)) == len(pair.search_issues()) == 1
    pair.both("_hard_delete_experiment", experiment)
    pair.refused("get_issue", made.issue_id)


def test_updates(pair: Pair, experiment: str) -> None:
    made = make(pair, experiment, severity=LOW)
    for change in (
        {},
        {"status": RESOLVED},
        {"status": IssueStatus.PENDING, "severity": HIGH},
        {"name": "other", "description": ""},
        {"description": "long " * 1000},
    ):
        time.sleep(0.002)
        before = pair.ours.get_issue(made.issue_id).last_updated_timestamp
        assert pair.update_issue(made.issue_id, **change).last_updated_timestamp > before
        pair.get_issue(made.issue_id)


@pytest.mark.parametrize("given", [{"status": "x"}, {"severity": "x"}, {"status": 5}, {"severity": ["x"]}])
def test_bad_status_and_severity(pair: Pair, experiment: str, given: dict[str, Any]) -> None:
    """MLflow 3.17 says INTERNAL_ERROR."""
    made = make(pair, experiment)
    for call in (
        lambda: pair.ours.create_issue(experiment, "i", "d", **given),
        lambda: pair.ours.update_issue(made.issue_id, **given),
    ):
        with pytest.raises(MlflowException) as caught:
            call()
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_texts_that_are_missing(pair: Pair, experiment: str) -> None:
    """SQL: BAD_REQUEST with an SQL text."""
    for name, description in ((None, "d"), ("i", None)):
        with pytest.raises(MlflowException) as caught:
            pair.ours.create_issue(experiment, name, description)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@before_3_18
def test_source_runs_of_3_17(pair: Pair, experiment: str) -> None:
    """I8: a run of another experiment is fine; an unknown one is an error of the database in SQL."""
    foreign = pair.create_run("0", "me", 1, [], "r").info.run_id
    make(pair, experiment, source_run_id=foreign)
    make(pair, experiment, "", status=REJECTED)
    with pytest.raises(MlflowException) as caught:
        pair.ours.create_issue(experiment, "i", "d", source_run_id="none")
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert pair.both("create_issue", experiment, "i", "d", source_run_id="none")[1].code == "BAD_REQUEST"


@before_3_18
def test_newer_arguments_are_refused_by_3_17(pair: Pair, experiment: str) -> None:
    made = make(pair, experiment)
    for call in (
        lambda: pair.ours.create_issue(experiment, "i", "d", metadata={"a": "b"}),
        lambda: pair.ours.update_issue(made.issue_id, last_seen_timestamp=5),
        lambda: pair.ours.search_issues(experiment, name="i"),
    ):
        with pytest.raises(MlflowException, match=r"needs MLflow 3\.18"):
            call()


def test_runs_that_are_deleted_for_good_are_forgotten(pair: Pair, experiment: str) -> None:
    run = pair.create_run(experiment, "me", 1, [], "r").info.run_id
    made = make(pair, experiment, source_run_id=run)
    pair.delete_run(run)
    assert pair.get_issue(made.issue_id).source_run_id == run
    pair.both("_hard_delete_run", run)
    assert pair.get_issue(made.issue_id).source_run_id is None


def test_filters(pair: Pair, experiment: str) -> None:
    """I2: unlike a run is no issue without a run."""
    runs = [pair.create_run(experiment, "me", 1, [], "r").info.run_id for _ in range(2)]
    make(pair, experiment, status=RESOLVED, source_run_id=runs[0])
    make(pair, experiment, source_run_id=runs[1])
    make(pair, experiment)
    make(pair, "0", status=RESOLVED)
    for wanted in (
        None,
        "",
        "status = 'resolved'",
        "status = resolved",
        "status != 'resolved'",
        "status = 'RESOLVED'",
        f"source_run_id = '{runs[0]}'",
        f"source_run_id != '{runs[0]}'",
        f"status != 'resolved' AND source_run_id != '{runs[0]}'",
        "status != 'resolved' AND status != 'pending'",
    ):
        pair.search_issues(experiment, wanted)
        pair.search_issues(None, wanted)
    for bad in (
        "attributes.status = 'x'",
        "name = 'x'",
        "status LIKE 'x'",
        "status IN ('x')",
        "status IS NULL",
        "status = 'a' OR status = 'b'",
        "status",
        "Status = 'x'",
    ):
        pair.refused("search_issues", experiment, bad)
    for limit in (0, -1, 50_001):
        pair.refused("search_issues", experiment, max_results=limit)


@pytest.mark.parametrize("counted", [False, True])
def test_pages_are_the_worst_first(pair: Pair, experiment: str, counted: bool) -> None:
    """I1: of issues that are as bad, those with more traces are first if they are counted. I3: in all
    experiments, and a trace counts once."""
    traces(pair, experiment, 1, 2, 3)
    traces(pair, "0", 4)
    levels = [LOW, HIGH, None, HIGH, NOT_ONE, LOW, HIGH, None, LOW]
    made = [make(pair, experiment, severity=level).issue_id for level in levels]
    refer(pair, made[0], 1, 2, 4)
    refer(pair, made[1], 1, 1, 1)
    refer(pair, made[3], 1, 2, 3)
    refer(pair, made[5], 3)
    refer(pair, made[7], 1, 2)
    whole = pair.search_issues(experiment, include_trace_count=counted)
    assert len(whole) == len(levels)
    for size in (1, 2, 3, 8, 9, 10):
        paged = pair.pages("search_issues", experiment, max_results=size, include_trace_count=counted)
        assert [each.issue_id for each in paged] == [each.issue_id for each in whole]
    if counted:
        assert whole[0].issue_id == made[3]
        pair.both("delete_traces", experiment, trace_ids=[trace_id(1)])
        pair.search_issues(experiment, include_trace_count=True)


def test_numbers_follow_every_change_of_references(pair: Pair, experiment: str) -> None:
    """The numbers were counted before each step, so one that is kept too long shows."""
    other = pair.create_experiment("other")
    run = pair.create_run("0", "me", 1, [], "r").info.run_id
    for number, place in enumerate([experiment, experiment, experiment, "0", other], 1):
        pair.start_trace(stated(trace_id(number), place, start=number))
    first, second = (make(pair, experiment).issue_id for _ in range(2))

    def made(issue_id: str, number: int, **given: Any) -> str:
        reference = IssueReference(issue_id=issue_id, issue_name="i", trace_id=trace_id(number), **given)
        return str(pair.create_assessment(reference).assessment_id)

    def shows(*wanted: int) -> None:
        found = pair.search_issues(experiment, include_trace_count=True)
        assert {each.issue_id: each.trace_count for each in found} == dict(
            zip((first, second), wanted, strict=True)
        )

    shows(0, 0)
    moved = made(first, 1)
    shows(1, 0)
    pair.delete_assessment(trace_id(1), moved)
    shows(0, 0)
    moved = made(second, 1)
    doubled = made(second, 1)
    shows(0, 1)
    pair.delete_assessment(trace_id(1), moved)
    shows(0, 1)
    pair.delete_assessment(trace_id(1), doubled)
    shows(0, 0)
    for number in (1, 2, 3, 4, 5):
        made(first, number)
    shows(5, 0)
    found_by = {"mlflow.assessment.sourceRunId": run}
    made(second, 1, metadata=found_by)
    made(second, 4, metadata=found_by)
    shows(5, 2)
    restated = stated(trace_id(2), experiment, start=2)
    restated.assessments = [IssueReference(issue_id=second, issue_name="i", trace_id=trace_id(2))]
    restated.assessments[0].assessment_id = "a-" + "1" * 32
    pair.start_trace(restated)
    shows(5, 3)
    restated.assessments[0].name = first
    pair.start_trace(restated)
    shows(5, 2)
    pair.both("delete_traces", experiment, max_timestamp_millis=STARTED + 9, max_traces=1)
    shows(4, 1)
    pair.delete_run(run)
    shows(4, 0)
    pair.both("delete_traces", "0", trace_ids=[trace_id(4)])
    shows(3, 0)
    pair.delete_experiment(other)
    shows(3, 0)
    pair.both("_hard_delete_experiment", other)
    shows(2, 0)


@since_3_18
@pytest.mark.parametrize(
    "given",
    [
        {"name": ""},
        {"name": "x" * 251},
        {"issue_id": "x"},
        {"issue_id": "iss-" + "x" * 33},
        {"last_seen_timestamp": -1},
        {"last_seen_timestamp": True},
        {"metadata": {"a": 1}},
        {"metadata": {"": "x"}},
        {"metadata": {str(number): "" for number in range(101)}},
        {"categories": [""]},
        {"categories": ["x"] * 101},
        {"created_by": "x" * 256},
        {"source_run_id": "none"},
    ],
    ids=lambda given: repr(given)[:40],
)
def test_rules_of_3_18(pair: Pair, experiment: str, given: dict[str, Any]) -> None:
    ours, theirs = pair.both("create_issue", experiment, **{"name": "i", "description": "d", **given})
    assert ours.code == theirs.code is not None


@since_3_18
def test_ids_and_runs_of_3_18(pair: Pair, experiment: str) -> None:
    """I8."""
    make(pair, experiment, issue_id="iss-mine", metadata={"a.b": "1", "$c": ""}, last_seen_timestamp=5)
    pair.get_issue("iss-mine")
    for other in (experiment, "0"):
        assert pair.both("create_issue", other, "i", "d", issue_id="iss-mine")[0].code == (
            "RESOURCE_ALREADY_EXISTS"
        )
    foreign = pair.create_run("0", "me", 1, [], "r").info.run_id
    ours, theirs = pair.both("create_issue", experiment, "i", "d", source_run_id=foreign)
    assert ours.code == theirs.code == "INVALID_PARAMETER_VALUE"
    make(pair, "0", status="resolved", severity="high", metadata={}, source_run_id=foreign)


@since_3_18
def test_updates_of_3_18(pair: Pair, experiment: str) -> None:
    """I5: last seen only moves forward. I6: metadata that are all deleted are an empty map."""
    made = make(pair, experiment, categories=["a"], last_seen_timestamp=100, created_by="me").issue_id
    for change in (
        {"categories": ["B", "b", "B"]},
        {"categories": []},
        {"last_seen_timestamp": 50},
        {"last_seen_timestamp": 150},
        {"last_updated_by": "you"},
        {"metadata": {"a.b": "1", "$c": "2"}},
        {"metadata": {"a.b": "3"}, "delete_metadata_keys": ["$c", "unknown"]},
        {"delete_metadata_keys": ["a.b"]},
        {"metadata": {}},
        {"status": "resolved", "severity": "low"},
    ):
        pair.update_issue(made, **change)
        pair.get_issue(made)
    assert pair.ours.get_issue(made).last_seen_timestamp == 150
    assert pair.ours.get_issue(made).metadata == {}
    pair.update_issue(made, metadata={str(number): "" for number in range(100)})
    for change in (
        {"metadata": {"more": ""}},
        {"metadata": {"1": ""}, "delete_metadata_keys": ["1"]},
        {"status": "x"},
        {"last_seen_timestamp": 1.5},
    ):
        ours, theirs = pair.both("update_issue", made, **change)
        assert ours.code == theirs.code == "INVALID_PARAMETER_VALUE"
    other = make(pair, experiment).issue_id
    assert pair.update_issue(other, metadata={}).metadata == {}


@since_3_18
def test_searches_of_3_18(pair: Pair, experiment: str) -> None:
    """I7: names are searched literally."""
    make(pair, experiment, "Slow", severity=HIGH, categories=[" Cost", "x"], metadata={"a": "b"})
    make(pair, experiment, "slower 100%", severity=LOW, status=RESOLVED, root_causes=["r"])
    make(pair, experiment, "a_b.c*", status=REJECTED, categories=["cost"])
    make(pair, "0", "slow", severity=HIGH)
    for wanted in (
        *({"name": name} for name in ("SLOW", "100%", "%", "_", ".", "*", "", "none")),
        {"statuses": ["resolved", "pending"]},
        {"statuses": []},
        {"severities": ["high"], "statuses": ["pending"]},
        {"categories": ["COST "]},
        {"categories": ["x", "y"]},
        {"categories": []},
        {"view": "basic"},
        {"view": "full"},
        {"name": "slow", "filter_string": "status != 'resolved'"},
    ):
        for counted in (False, True):
            found, theirs = pair.both(
                "search_issues", experiment, include_trace_count=counted, include_total_count=True, **wanted
            )
            assert found.result.total_count == theirs.result.total_count
            pair.search_issues(experiment, include_trace_count=counted, **wanted)
        pair.search_issues(**wanted)
    for bad in (
        {"statuses": ["x"]},
        {"severities": ["x"]},
        {"categories": [""]},
        {"view": "x"},
        {"name": "x" * 251},
        {"order_by": ["id"]},
        {"order_by": ["name up"]},
        {"order_by": [""]},
        {"order_by": ["name ASC DESC"]},
    ):
        ours, their = pair.both("search_issues", experiment, **bad)
        assert ours.code == their.code == "INVALID_PARAMETER_VALUE", bad


@since_3_18
@pytest.mark.parametrize(
    "order",
    [
        ["name"],
        ["name DESC"],
        ["status desc", "severity ASC"],
        ["severity"],
        ["last_seen_timestamp DESC", "name ASC"],
        ["created_timestamp"],
        ["last_updated_timestamp DESC"],
        ["name ASC", "name DESC"],
    ],
    ids=str,
)
def test_orders_of_3_18(pair: Pair, experiment: str, order: list[str]) -> None:
    for number, (name, severity, status) in enumerate(
        [("b", HIGH, RESOLVED), ("A", None, REJECTED), ("B", LOW, IssueStatus.PENDING), ("a", HIGH, RESOLVED)]
    ):
        make(pair, experiment, name, severity=severity, status=status, last_seen_timestamp=5 - number // 2)
    for size in (1, 3, 10):
        for counted in (False, True):
            pair.pages(
                "search_issues", experiment, order_by=order, max_results=size, include_trace_count=counted
            )


@since_3_18
def test_tokens_belong_to_their_search(pair: Pair, experiment: str) -> None:
    """I4: MLflow's plain tokens fit any plain search; ours, which are positions, fit their own only."""
    for _ in range(3):
        make(pair, experiment)
    token = pair.search_issues(experiment, max_results=1).token
    for other in ({"name": "i"}, {"order_by": ["name"]}, {"statuses": ["pending"]}):
        pair.both("search_issues", experiment, max_results=1, page_token=token, **other)
        with pytest.raises(MlflowException, match="another search"):
            pair.ours.search_issues(experiment, max_results=1, page_token=token, **other)
