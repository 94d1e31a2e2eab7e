"""Assessments, tags, links and deletion of traces, played into both stores."""

from typing import Any

import pytest
from mlflow.entities import AssessmentSource, Expectation, Feedback
from mlflow.entities.assessment import ExpectationValue, FeedbackValue, IssueReference
from mlflow.entities.assessment_error import AssessmentError
from mlflow.entities.model_registry import PromptVersion

from tests.contract.pair import Pair
from tests.contract.scenes import UNKNOWN_RUN, new_run
from tests.contract.trace_scenes import STARTED, span, stated, trace_id

ONE, TWO = trace_id(1), trace_id(2)


@pytest.fixture
def traced(pair: Pair) -> Pair:
    pair.start_trace(stated(ONE))
    pair.start_trace(stated(TWO, start=5))
    return pair


@pytest.mark.parametrize(
    "assessment",
    [
        Feedback(name="f", value=1, trace_id=ONE),
        Feedback(name="f", value=float("inf"), trace_id=ONE),
        Feedback(name="f", value={"a": [1, None]}, rationale="why", span_id="5", trace_id=ONE),
        Feedback(name="f", error=AssessmentError("C", "m", "trace"), trace_id=ONE, metadata={"a.b": "$"}),
        Feedback(name="f", value=None, error=ValueError("x"), trace_id=ONE),
        Expectation(name="e", value="v", source=AssessmentSource("HUMAN", "me"), trace_id=ONE),
        IssueReference(issue_id="iss-1", issue_name="n", trace_id=ONE),
    ],
    ids=lambda assessment: type(assessment).__name__,
)
def test_assessments_come_back(traced: Pair, assessment: Any) -> None:
    assessment.assessment_id = None
    made = traced.create_assessment(assessment)
    traced.get_assessment(ONE, made.assessment_id)
    traced.get_trace_info(ONE)
    assert traced.refused("create_assessment", assessment).error_code == "INTERNAL_ERROR"
    traced.delete_assessment(ONE, made.assessment_id)
    traced.delete_assessment(ONE, made.assessment_id)
    assert traced.refused("get_assessment", ONE, made.assessment_id).error_code == "RESOURCE_DOES_NOT_EXIST"


def test_nan_is_a_value(traced: Pair) -> None:
    made = traced.create_assessment(Feedback(name="f", value=float("nan"), trace_id=ONE))
    assert repr(traced.get_assessment(ONE, made.assessment_id).value) == "nan"


def test_updates(traced: Pair) -> None:
    feedback = traced.create_assessment(
        Feedback(name="f", value=1, trace_id=ONE, metadata={"a": "1"})
    ).assessment_id
    expectation = traced.create_assessment(Expectation(name="e", value=1, trace_id=ONE)).assessment_id
    for change in (
        {},
        {"name": "g"},
        {"feedback": FeedbackValue("no")},
        {"feedback": FeedbackValue(None, AssessmentError("C", "m"))},
        {"rationale": "because", "metadata": {"b": "2"}},
        {"metadata": {"a": "3"}},
    ):
        traced.update_assessment(ONE, feedback, **change)
        traced.get_assessment(ONE, feedback)
    for change in ({"expectation": ExpectationValue({"x": 1})}, {"name": "h", "metadata": {"c": "1"}}):
        traced.update_assessment(ONE, expectation, **change)
        traced.get_assessment(ONE, expectation)
    for target, change in (
        (feedback, {"expectation": ExpectationValue(1)}),
        (expectation, {"feedback": FeedbackValue(1)}),
        (feedback, {"expectation": ExpectationValue(1), "feedback": FeedbackValue(1)}),
    ):
        refusal = traced.refused("update_assessment", ONE, target, **change)
        assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    traced.get_trace_info(ONE)


def test_overrides(traced: Pair) -> None:
    old = traced.create_assessment(Feedback(name="f", value=1, trace_id=ONE)).assessment_id
    other = traced.create_assessment(Feedback(name="f", value=1, trace_id=TWO)).assessment_id
    new = traced.create_assessment(Feedback(name="f", value=2, trace_id=ONE, overrides=old)).assessment_id
    assert traced.get_assessment(ONE, old).valid is False
    assert traced.search_traces(["0"], "feedback.f = '1'")[0][0].trace_id == TWO
    stray = Feedback(name="f", value=2, trace_id=ONE, overrides=other)
    assert traced.refused("create_assessment", stray).error_code == "RESOURCE_DOES_NOT_EXIST"
    traced.delete_assessment(ONE, new)
    assert traced.get_assessment(ONE, old).valid is True


def test_unknown_things(traced: Pair) -> None:
    for call in (
        ("create_assessment", Feedback(name="f", value=1, trace_id="tr-none")),
        ("get_assessment", ONE, "a-none"),
        ("get_assessment", "tr-none", "a-none"),
        ("update_assessment", ONE, "a-none"),
        ("delete_trace_tag", "tr-none", "t"),
        ("delete_trace_tag", ONE, "t"),
        ("delete_trace_tag", ONE, "mlflow.traceName"),
        ("set_trace_tag", "tr-none", "mlflow.traceName", "n"),
        ("link_prompts_to_trace", "tr-none", [PromptVersion("p", 1, "x")]),
    ):
        assert traced.refused(*call).error_code == "RESOURCE_DOES_NOT_EXIST"
    traced.delete_assessment("tr-none", "a-none")
    # MLflow tells the SQL statement that failed.
    ours, theirs = traced.both("set_trace_tag", "tr-none", "t", "v")
    assert (ours.code, theirs.code) == ("RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")


def test_tags(traced: Pair) -> None:
    for key, value in (
        ("a.b", "1"),
        ("a", "x" * 9000),
        ("mlflow.traceName", "n"),
        ("mlflow.trace.spansLocation", "x"),
    ):
        traced.set_trace_tag(ONE, key, value)
        traced.set_trace_tag(ONE, key, value)
        traced.get_trace_info(ONE)
    for key in ("a.b", "mlflow.traceName", "mlflow.artifactLocation"):
        traced.delete_trace_tag(ONE, key)
        assert key not in traced.get_trace_info(ONE).tags
    for key in ("", "k\t", "k" * 300, None):
        assert traced.refused("set_trace_tag", ONE, key, "v").error_code == "INVALID_PARAMETER_VALUE"
    assert traced.refused("set_trace_tag", ONE, "mlflow.traceName", "n" * 9000)


def test_links(traced: Pair) -> None:
    run = new_run(traced)
    traced.link_traces_to_run([ONE, "tr-later"], run)
    traced.link_traces_to_run([ONE], run)
    traced.link_traces_to_run([ONE], UNKNOWN_RUN)
    traced.link_traces_to_run([], run)
    assert traced.refused("get_trace_info", "tr-later").error_code == "RESOURCE_DOES_NOT_EXIST"
    traced.search_traces(None)
    traced.start_trace(stated("tr-later", start=9))
    assert [info.trace_id for info in traced.search_traces(["0"], f"run_id = '{run}'")[0]] == [
        "tr-later",
        ONE,
    ]
    refusal = traced.refused("link_traces_to_run", ["x"] * 101, run)
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
    traced.ours.link_traces_to_run([TWO, TWO], run)  # which MLflow's store refuses with an SQL error
    traced.ours.unlink_traces_from_run([TWO], run)
    traced.ours.unlink_traces_from_run([ONE, "tr-none"], run)
    assert [info.trace_id for info in traced.ours.search_traces(["0"], f"run_id = '{run}'")[0]] == [
        "tr-later"
    ]
    traced.link_prompts_to_trace(ONE, [PromptVersion("p", 1, "x")])
    traced.link_prompts_to_trace(ONE, [PromptVersion("p", 1, "x")])
    traced.link_prompts_to_trace(ONE, [])
    assert len(traced.search_traces(["0"], "prompt = 'p/1'")[0]) == 1


def test_deletion(traced: Pair) -> None:
    experiment = traced.create_experiment("other")
    for number in range(3, 9):
        traced.log_spans(experiment, [span(trace_id(number), 1, start=number), span(trace_id(number), 2, 1)])
        traced.create_assessment(Feedback(name="f", value=1, trace_id=trace_id(number)))
    assert traced.delete_traces(experiment, trace_ids=[trace_id(3), trace_id(3), ONE, "tr-none"]) == 1
    assert traced.delete_traces(experiment, max_timestamp_millis=STARTED + 9, max_traces=2) == 2
    assert traced.refused("get_trace", trace_id(4)).error_code == "RESOURCE_DOES_NOT_EXIST"
    assert [info.trace_id for info in traced.search_traces([experiment])[0]] == [
        trace_id(n) for n in (6, 7, 8)
    ]
    traced._delete_traces(experiment, STARTED - 1)
    assert traced.delete_traces(experiment, max_timestamp_millis=STARTED + 99) == 3
    assert len(traced.search_traces(["0", experiment])[0]) == 2
    assert traced.delete_traces("99", max_timestamp_millis=STARTED) == 0
    for arguments in (
        {},
        {"max_traces": 1},
        {"max_timestamp_millis": 1, "trace_ids": ["x"]},
        {"trace_ids": ["x"], "max_traces": 1},
        {"max_timestamp_millis": 1, "max_traces": 0},
        {"trace_ids": []},
    ):
        assert traced.refused("delete_traces", "0", **arguments).error_code == "INVALID_PARAMETER_VALUE"


def test_a_deleted_run_takes_along_what_it_found(traced: Pair) -> None:
    run, other = new_run(traced), new_run(traced)
    for value, found_by in enumerate((run, other, run)):
        metadata = {"mlflow.assessment.sourceRunId": found_by}
        traced.create_assessment(Feedback(name="f", value=value, trace_id=ONE, metadata=metadata))
    traced.delete_run(run)
    assert [each.value for each in traced.get_trace_info(ONE).assessments] == [1]
    traced.restore_run(run)
    traced.get_trace_info(ONE)
    traced.delete_experiment("0")
    assert traced.get_trace_info(ONE).assessments == []


def test_a_hard_deleted_experiment_takes_along_its_traces(traced: Pair) -> None:
    experiment = traced.create_experiment("other")
    traced.log_spans(experiment, [span(trace_id(3), 1)])
    traced.create_assessment(Feedback(name="f", value=1, trace_id=trace_id(3)))
    traced.delete_experiment(experiment)
    traced.get_trace_info(trace_id(3))
    traced.ours._hard_delete_experiment(experiment)
    assert traced.ours.search_traces([experiment]) == ([], None)
    with pytest.raises(Exception, match="not found"):
        traced.ours.get_trace_info(trace_id(3))
