"""Where traces differ from MLflow's SQL store on purpose: the rows of docs/differences.md, section Traces."""

from typing import Any

import pytest
from mlflow.entities import Feedback

from tests.contract.pair import Pair
from tests.contract.test_trace_ingest import family, tokens
from tests.contract.trace_scenes import STARTED, span, stated, trace_id
from tests.versions import SINCE_3_18

ONE, TWO = trace_id(1), trace_id(2)
RUN, OTHER_RUN = "a" * 32, "b" * 32


def infos(pair: Pair) -> tuple[Any, Any]:
    return pair.ours.get_trace_info(ONE), pair.oracle.get_trace_info(ONE)


def input_tokens(pair: Pair) -> list[int]:
    return [info.token_usage["input_tokens"] for info in infos(pair)]


def test_usage_after_the_trace_is_stated(pair: Pair) -> None:
    for call in (
        ("log_spans", "0", [span(ONE, 2, 1, attributes=tokens(7))]),
        ("start_trace", stated(ONE)),
        ("log_spans", "0", [span(ONE, 3, 1, attributes=tokens(5))]),
    ):
        pair.both(*call)
    assert input_tokens(pair) == [12, 7]


def test_a_span_that_joins_two_sums(pair: Pair) -> None:
    pair.log_spans("0", [span(ONE, 1, attributes=tokens(5)), span(ONE, 3, 2, attributes=tokens(5))])
    pair.log_spans("0", [span(ONE, 2, 1)])
    assert input_tokens(pair) == [5, 10]


def test_usage_that_shrinks(pair: Pair) -> None:
    pair.log_spans("0", [span(ONE, 1, attributes=tokens(5, cache_read_input_tokens=3))])
    pair.log_spans("0", [span(ONE, 1, attributes=tokens(5))])
    ours, theirs = (info.token_usage for info in infos(pair))
    assert "cache_read_input_tokens" not in ours
    assert theirs["cache_read_input_tokens"] == 3


def test_stated_times_stand(pair: Pair) -> None:
    pair.start_trace(stated(ONE, start=5, duration=5))
    pair.log_spans("0", [span(ONE, 1, start=0, end=99)])
    assert [(info.request_time - STARTED, info.execution_duration) for info in infos(pair)] == [
        (5, 5),
        (0, 99),
    ]


def test_an_early_span_without_an_end(pair: Pair) -> None:
    pair.log_spans("0", [span(ONE, 2, 1, start=5, end=9)])
    pair.log_spans("0", [span(ONE, 1, start=0, end=None)])
    assert [info.execution_duration for info in infos(pair)] == [9, 4]


def test_a_name_that_is_too_long(pair: Pair) -> None:
    attributes = {"mlflow.traceTag.mlflow.traceName": "n" * 10_000, "mlflow.traceTag.t": "1"}
    ours, theirs = pair.both("log_spans", "0", [span(ONE, 1, attributes=attributes)])
    assert (ours.error, theirs.code) == (None, "INVALID_PARAMETER_VALUE")
    assert pair.ours.get_trace_info(ONE).tags["t"] == "1"


def test_usage_that_is_no_number(pair: Pair) -> None:
    attributes = {"mlflow.chat.tokenUsage": {"input_tokens": "many", "output_tokens": 1}}
    ours, theirs = pair.both("log_spans", "0", [span(ONE, 1, attributes=attributes)])
    assert ours.error is None
    assert theirs.error is not None
    assert input_tokens_of_ours(pair) == 0


def input_tokens_of_ours(pair: Pair) -> int:
    return int(pair.ours.get_trace_info(ONE).token_usage["input_tokens"])


@pytest.mark.parametrize(
    ("arguments", "ours_code", "their_code"),
    [
        ((["0"], None, 5, ["end_time"]), None, None if SINCE_3_18 else "INTERNAL_ERROR"),
        ((["0"], "tags.a RLIKE '['"), "INVALID_PARAMETER_VALUE", None),
        ((["0"], "span.attributes.a IN ('x')"), "INVALID_PARAMETER_VALUE", "BAD_REQUEST"),
        ((["0"], "timestamp > 99999999999999999999999"), None, "INTERNAL_ERROR"),
        ((["x"],), "INVALID_PARAMETER_VALUE", "INTERNAL_ERROR"),
    ],
)
def test_searches(pair: Pair, arguments: Any, ours_code: str | None, their_code: str | None) -> None:
    pair.log_spans("0", family(ONE))
    ours, theirs = pair.both("search_traces", *arguments)
    assert (ours.code, theirs.code) == (ours_code, their_code)


def test_two_runs_in_a_filter(pair: Pair) -> None:
    pair.start_trace(stated(ONE, trace_metadata={"mlflow.sourceRun": RUN}))
    text = f"run_id = '{OTHER_RUN}' AND run_id = '{RUN}'"
    ours, theirs = pair.both("search_traces", ["0"], text)
    assert (len(ours.result[0]), len(theirs.result[0])) == (0, 1)
    pair.link_traces_to_run([ONE], OTHER_RUN)
    assert len(pair.search_traces(["0"], text)[0]) == 1


def test_spans_long_before_a_bound(pair: Pair) -> None:
    hours = 200 * 3_600_000
    pair.log_spans("0", [span(ONE, 1, start=-hours, end=0, attributes=tokens(1))])
    pair.both("start_trace", stated(ONE, start=5))
    text = f"timestamp > {STARTED} AND span.name = 'step'"
    ours, theirs = pair.both("search_traces", ["0"], text)
    assert (len(ours.result[0]), len(theirs.result[0])) == (1, 0)


def test_links(pair: Pair) -> None:
    pair.start_trace(stated(ONE))
    ours, theirs = pair.both("link_traces_to_run", [ONE, ONE], RUN)
    assert (ours.code, theirs.code) == (None, "BAD_REQUEST")
    ours, theirs = pair.both("unlink_traces_from_run", [ONE], RUN)
    assert (ours.code, theirs.code) == (None, "NotImplementedError")


def test_a_trace_stated_again(pair: Pair) -> None:
    pair.log_spans("0", family(ONE))
    ours, theirs = pair.both("start_trace", stated(ONE, tags={"t": "1"}))
    assert ours.result.tags["t"] == "1"
    assert "t" not in theirs.result.tags
    pair.get_trace_info(ONE)


def test_a_tag_of_an_unknown_trace(pair: Pair) -> None:
    ours, theirs = pair.both("set_trace_tag", TWO, "t", "v")
    assert (ours.code, theirs.code) == ("RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST")


@pytest.mark.parametrize("identifier", ["a/b", "..", "tr.", "tr ", "100%", "a?b", "a#b", "a\nb", "a\x7fb"])
def test_ids_of_new_traces(pair: Pair, identifier: str) -> None:
    ours, theirs = pair.both("start_trace", stated(identifier))
    refused = "INVALID_PARAMETER_VALUE"
    assert (ours.code, theirs.code) == (refused, refused if SINCE_3_18 else None)
    assert pair.ours.search_traces(["0"])[0] == []
    there = stated("tr-of a.strange:kind")
    pair.start_trace(there)
    pair.get_trace_info(there.trace_id)


def test_a_new_trace_of_a_bad_id_leaves_no_spans(pair: Pair) -> None:
    strange = span(ONE, 1, attributes={"mlflow.traceRequestId": f"{ONE}#"})
    ours, theirs = pair.both("log_spans", "0", [strange])
    refused = "INVALID_PARAMETER_VALUE"
    assert (ours.code, theirs.code) == (refused, refused if SINCE_3_18 else None)
    assert pair.ours.search_traces(["0"])[0] == []


def named(assessment: Feedback) -> Feedback:
    assessment.assessment_id = "a-1"
    return assessment


def test_an_assessment_stays_with_its_trace(pair: Pair) -> None:
    pair.start_trace(stated(ONE))
    pair.start_trace(stated(TWO))
    pair.create_assessment(named(Feedback(name="f", value=1, trace_id=ONE)))
    thief = stated(TWO, request_preview="changed")
    thief.assessments.append(named(Feedback(name="g", value=2)))
    ours, theirs = pair.both("start_trace", thief)
    refused = "INVALID_PARAMETER_VALUE"
    assert (ours.code, theirs.code) == (refused, refused if SINCE_3_18 else None)
    assert [each.name for each in pair.ours.get_trace_info(ONE).assessments] == ["f"]
    assert pair.ours.get_trace_info(TWO).request_preview is None
    own = stated(ONE)
    own.assessments.append(named(Feedback(name="f", value=3)))
    assert pair.ours.start_trace(own).assessments[0].value == 3


def test_nul_in_previews(pair: Pair) -> None:
    ours, theirs = pair.both("start_trace", stated(ONE, request_preview="a\0b", response_preview="\0"))
    assert (ours.error, theirs.error) == (None, None)
    pair.both("log_spans", "0", [span(TWO, 1, attributes={"mlflow.spanInputs": "a\0b"})])
    shown = [pair.ours.get_trace_info(each) for each in (ONE, TWO)]
    assert [info.request_preview for info in shown] == ["a\ufffdb", '"a\\u0000b"']
    assert shown[0].response_preview == "\ufffd"
    if SINCE_3_18:
        for each in (ONE, TWO):
            pair.get_trace_info(each)


def test_the_last_page_has_no_token(pair: Pair) -> None:
    for number in range(1, 5):
        pair.start_trace(stated(trace_id(number), start=number))
    ours, theirs = pair.both("search_traces", ["0"], None, 2)
    assert ours.result[1]
    assert theirs.result[1]
    ours, theirs = pair.both("search_traces", ["0"], None, 2, page_token=ours.result[1])
    assert len(ours.result[0]) == len(theirs.result[0]) == 2
    assert (ours.result[1], bool(theirs.result[1])) == (None, not SINCE_3_18)
