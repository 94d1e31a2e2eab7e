"""Traces, their spans, and what people think of them."""

from mlflow.entities import Expectation, Feedback
from mlflow.entities.model_registry import PromptVersion
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.entities.trace_status import TraceStatus

from tests.contract.trace_scenes import STARTED, span, stated
from tests.scenes.stage import FOUR, ONE, THREE, TWO, Call, Stage


async def scene(stage: Stage) -> None:
    call = stage.track
    await writes(call)
    await reads(call)
    await call("set_trace_tag", ONE, "a.b", "1")
    await call("delete_trace_tag", TWO, "t")
    await call("link_traces_to_run", [ONE, TWO], stage["run"])
    await call("unlink_traces_from_run", [TWO], stage["run"])
    await call("link_prompts_to_trace", ONE, [PromptVersion("greeting", 1, "Hi")])
    await assessments(call)
    old = await call("deprecated_start_trace_v2", "0", STARTED, {}, {})
    await call("deprecated_end_trace_v2", old.request_id, STARTED + 1, TraceStatus.OK, {}, {})
    await call("delete_traces", "0", trace_ids=[THREE])
    await call("_delete_traces", "0", trace_ids=[FOUR])
    place = (stage.folder / "archive").as_uri()
    await call("archive_traces", resolved_trace_archival_location=place, broader_retention="1d")


async def writes(call: Call) -> None:
    known = stated(TWO, tags={"t": "1"}, trace_metadata={"mlflow.trace.session": "s"})
    await call("start_trace", known)
    # Of a trace that the store has just stated, which it then need not read.
    named = [
        span(TWO, 1, attributes={"user.id": "u"}),
        span(TWO, 2, 1, attributes={"mlflow.spanInputs": "a"}),
    ]
    await call("log_spans", "0", named)
    await call("log_spans", "0", [span(TWO, 2, 1, name="again"), span(TWO, 3, 1)])
    # Of a new trace, which is stated later.
    await call(
        "log_spans",
        "0",
        [
            span(ONE, 1, start=0, attributes={"mlflow.spanInputs": {"q": "x" * 200}}),
            span(ONE, 2, 1, kind="LLM", attributes={"mlflow.chat.tokenUsage": {"input_tokens": 3}}),
            span(ONE, 3, 1, attributes={"long": "y" * 100_000}),
        ],
    )
    more = {"mlflow.chat.tokenUsage": {"input_tokens": 4}}
    await call("log_spans", "0", [span(ONE, 4, 1, attributes=more)])
    await call("start_trace", stated(ONE, tags={"u": "2"}))
    await call("start_trace", stated(THREE, start=-5))
    await call("start_trace", stated(FOUR, start=-5))


async def reads(call: Call) -> None:
    await call("get_trace_info", ONE)
    await call("get_trace", ONE)
    await call("batch_get_traces", [ONE], None)
    await call("batch_get_trace_infos", [ONE], None)
    await call("search_traces", ["0"])
    await call("calculate_trace_filter_correlation", ["0"], "status = 'OK'", "status = 'ERROR'")
    counted = [MetricAggregation(AggregationType.COUNT)]
    await call("query_trace_metrics", ["0"], MetricViewType.TRACES, "trace_count", counted)
    await call("find_completed_sessions", "0", 0, STARTED * 2)


async def assessments(call: Call) -> None:
    """One of them makes another invalid, and goes again."""
    feedback = await call("create_assessment", Feedback(name="f", value=1, trace_id=ONE))
    expectation = await call("create_assessment", Expectation(name="e", value="v", trace_id=ONE))
    better = await call(
        "create_assessment", Feedback(name="f", value=2, trace_id=ONE, overrides=feedback.assessment_id)
    )
    await call("get_assessment", ONE, feedback.assessment_id)
    changed = {"rationale": "because", "metadata": {"k": "v"}}
    await call("update_assessment", ONE, better.assessment_id, **changed)
    await call("delete_assessment", ONE, better.assessment_id)
    await call("delete_assessment", ONE, expectation.assessment_id)
