"""Spans and traces as they arrive: what a trace becomes in MLflow's SQL store and in ours."""

import asyncio
import itertools
import json
import threading
import time
from typing import Any

import pytest
from mlflow.entities import Feedback
from mlflow.entities.trace_state import TraceState
from mlflow.entities.trace_status import TraceStatus

from tests.contract.pair import Pair
from tests.contract.scenes import UNKNOWN_RUN
from tests.contract.trace_scenes import STARTED, span, stated, trace_id
from tests.versions import SINCE_3_18, before_3_18, since_3_18

ONE, TWO = trace_id(1), trace_id(2)
USAGE = "mlflow.chat.tokenUsage"
COST = "mlflow.llm.cost"


def tokens(count: int, **more: int) -> dict[str, Any]:
    return {USAGE: {"input_tokens": count, "output_tokens": 1, "total_tokens": count + 1, **more}}


def cost(amount: float) -> dict[str, Any]:
    return {COST: {"input_cost": amount, "output_cost": 0.5, "total_cost": amount + 0.5}}


def family(identifier: str) -> list[Any]:
    """A root, a child that speaks for its own child too, and that child."""
    return [
        span(
            identifier,
            1,
            name="root",
            start=0,
            end=50,
            attributes={"mlflow.spanInputs": {"q": "hello"}, "mlflow.spanOutputs": "42"},
        ),
        span(identifier, 2, 1, name="model", kind="LLM", start=5, end=30, attributes=tokens(7) | cost(0.25)),
        span(identifier, 3, 2, name="part", kind="TOOL", start=6, end=20, attributes=tokens(3) | cost(0.1)),
        span(
            identifier, 4, 1, name="other", start=31, end=60, attributes=tokens(5, cache_read_input_tokens=2)
        ),
    ]


def look(pair: Pair, identifier: str) -> Any:
    pair.get_trace(identifier, allow_partial=True)
    pair.batch_get_traces([identifier])
    pair.batch_get_trace_infos([identifier])
    return pair.get_trace_info(identifier)


def state_again(pair: Pair, info: Any) -> None:
    """State a trace that is there already: MLflow's store then returns a part of what it has stored."""
    ours, theirs = pair.both("start_trace", info)
    assert ours.error is None
    assert theirs.error is None
    pair.get_trace_info(info.trace_id)


def test_a_batch_makes_a_trace(pair: Pair) -> None:
    pair.log_spans("0", family(ONE))
    info = look(pair, ONE)
    assert (info.request_time, info.execution_duration, info.state) == (STARTED, 60, TraceState.OK)
    assert json.loads(info.trace_metadata["mlflow.trace.tokenUsage"])["input_tokens"] == 12
    assert json.loads(info.trace_metadata["mlflow.trace.cost"])["input_cost"] == 0.25
    assert (info.request_preview, info.response_preview) == ('{"q": "hello"}', '"42"')


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_of_spans_does_not_matter(pair: Pair, order: tuple[int, ...]) -> None:
    pair.log_spans("0", family(ONE))
    whole = pair.ours.get_trace(ONE, allow_partial=True)
    two = trace_id(2)
    spans = family(two)
    for index in order:
        pair.ours.log_spans("0", [spans[index]])
        pair.ours.log_spans("0", [spans[index]])
    apart = pair.ours.get_trace(two, allow_partial=True)
    for field in ("request_time", "execution_duration", "state", "request_preview", "response_preview"):
        assert getattr(apart.info, field) == getattr(whole.info, field)
    assert apart.info.trace_metadata == whole.info.trace_metadata
    assert [each.name for each in apart.data.spans] == [each.name for each in whole.data.spans]


def test_spans_one_by_one(pair: Pair) -> None:
    for one in reversed(family(ONE)):
        pair.log_spans("0", [one])
        look(pair, ONE)
    pair.log_spans("0", family(ONE))
    look(pair, ONE)


def test_spans_before_and_after_the_trace_is_stated(pair: Pair) -> None:
    # Without usage: MLflow takes what it summed up before for what the client has stated.
    first, second, third, fourth = (
        span(ONE, n, p, start=n, end=20 + n) for n, p in ((1, None), (2, 1), (3, 2), (4, 1))
    )
    pair.log_spans("0", [second])
    state_again(pair, stated(ONE, start=0, duration=50, trace_metadata={"k": "v"}, tags={"t": "1"}))
    look(pair, ONE)
    pair.log_spans("0", [first, third])
    look(pair, ONE)
    pair.log_spans("0", [fourth])
    look(pair, ONE)


def test_spans_that_come_after_the_trace_is_stated_are_summed_up(pair: Pair) -> None:
    store = pair.ours
    first, *others = family(ONE)
    store.log_spans("0", others[:1])
    store.start_trace(stated(ONE))
    store.log_spans("0", [first, *others[1:]])
    store.log_spans("0", others)
    two = trace_id(2)
    store.start_trace(stated(two))
    store.log_spans("0", family(two))
    assert store.get_trace_info(ONE).token_usage == store.get_trace_info(two).token_usage
    assert store.get_trace_info(ONE).token_usage["input_tokens"] == 12


def test_what_a_client_states_stands(pair: Pair) -> None:
    metadata = {
        "mlflow.trace.tokenUsage": json.dumps({"input_tokens": 1000, "total_tokens": 2000, "odd": 1}),
        "mlflow.trace.session": "a session",
        "mlflow.sourceRun": UNKNOWN_RUN,
        "mlflow.trace.sizeBytes": "5",
    }
    info = stated(
        ONE,
        start=3,
        duration=77,
        state=TraceState.ERROR,
        client_request_id="client",
        request_preview="asked",
        tags={"mlflow.traceName": "named", "a.b": "1", "": "empty", "$c": "2", "none": None},
        trace_metadata=metadata,
    )
    pair.start_trace(info)
    look_at = pair.get_trace_info(ONE)
    assert look_at.trace_metadata["mlflow.trace.session"] == "a session"
    pair.log_spans("0", family(ONE))
    look(pair, ONE)


@pytest.mark.parametrize(
    "usage",
    ['{"input_tokens": 1.0}', '{"input_tokens": "5"}', "{}", "[]", "nonsense", '{"input_tokens": 1e400}'],
)
def test_odd_token_usage(pair: Pair, usage: str) -> None:
    pair.start_trace(
        stated(ONE, trace_metadata={"mlflow.trace.tokenUsage": usage, "mlflow.trace.cost": usage})
    )
    pair.get_trace_info(ONE)
    pair.log_spans("0", family(ONE))
    pair.get_trace_info(ONE)


def test_a_trace_may_be_stated_again(pair: Pair) -> None:
    experiment = "0" if SINCE_3_18 else pair.create_experiment("other")
    pair.start_trace(
        stated(ONE, tags={"a": "1", "mlflow.traceName": "n"}, trace_metadata={"k": "1", "l": "1"})
    )
    pair.log_spans("0", family(ONE))
    pair.create_assessment(Feedback(name="f", value=1, trace_id=ONE))
    again = stated(ONE, experiment, start=5, duration=None, tags={"a": "2"}, trace_metadata={"k": "2"})
    again.assessments.append(Feedback(name="g", value="yes"))
    state_again(pair, again)
    info = look(pair, ONE)
    assert (info.experiment_id, info.execution_duration, len(info.assessments)) == (experiment, None, 2)
    assert [len(pair.search_traces([each])[0]) for each in {"0", experiment}].count(1) == 1
    assert len(pair.search_traces([experiment], "span.name = 'root' AND feedback.f = '1'")[0]) == 1


def test_a_root_that_fails(pair: Pair) -> None:
    pair.log_spans("0", [span(ONE, 2, 1, status="ERROR")])
    assert look(pair, ONE).state == TraceState.IN_PROGRESS
    pair.log_spans("0", [span(ONE, 1, status="ERROR", end=None)])
    assert look(pair, ONE).state == TraceState.ERROR
    pair.log_spans("0", [span(ONE, 1, status="OK", end=20)])
    look(pair, ONE)


def test_sessions_users_tags_and_resources(pair: Pair) -> None:
    first = span(
        ONE,
        2,
        1,
        attributes={"session.id": "one", "user.id": "me"},
        resource={"service.name": "api", "telemetry.sdk.name": "x", "mlflow.spansLocation": "no", "n": 5},
    )
    root = span(
        ONE,
        1,
        attributes={
            "mlflow.traceTag.team": "blue",
            "mlflow.traceTag.service.name": "mine",
            "mlflow.traceTag.mlflow.traceName": "called",
            "mlflow.traceTag.bad\tkey": "x",
            "gen_ai.conversation.id": "two",
            "mlflow.trace.user": "other",
        },
        resource={"service.name": "api"},
    )
    pair.log_spans("0", [first])
    look(pair, ONE)
    pair.log_spans("0", [root])
    info = look(pair, ONE)
    assert info.tags["service.name"] == "mine"
    assert info.tags["mlflow.traceName"] == "called"


def test_several_traces_at_once(pair: Pair) -> None:
    spans = [each for number in (3, 1, 2) for each in family(trace_id(number))]
    pair.log_spans("0", spans[::-1])
    pair.log_spans("0", spans)
    ids = [trace_id(number) for number in (2, 9, 1, 3, 1)]
    assert len(pair.batch_get_traces(ids)) == 3
    assert len(pair.batch_get_trace_infos(ids)) == 3
    assert pair.batch_get_trace_infos(ids, experiment_ids=["77"]) == []
    assert len(pair.batch_get_traces(ids, experiment_ids=["0"])) == 3


@since_3_18
def test_a_trace_and_its_spans_stay_in_their_experiment(pair: Pair) -> None:
    other = pair.create_experiment("other")
    pair.log_spans("0", family(ONE)[:1])
    pair.start_trace(stated(TWO))
    for call in (
        ("start_trace", stated(ONE, other)),
        ("start_trace", stated(TWO, other, start=5)),
        ("log_spans", other, family(ONE)[1:]),
        ("log_spans", other, family(ONE)),
        ("log_spans", other, [*family(trace_id(3)), span(TWO, 7)]),
    ):
        assert pair.refused(*call).error_code == "INVALID_PARAMETER_VALUE"
    look(pair, ONE)
    pair.get_trace_info(TWO)
    assert pair.search_traces([other])[0] == []
    assert len(pair.get_trace(ONE).data.spans) == 1
    # What another client moves is elsewhere for this one too.
    pair.delete_traces("0", trace_ids=[ONE])
    pair.log_spans(other, family(ONE))
    assert pair.refused("log_spans", "0", [span(ONE, 8)]).error_code == "INVALID_PARAMETER_VALUE"
    assert look(pair, ONE).experiment_id == other


@before_3_18
def test_a_trace_lives_where_it_was_made(pair: Pair) -> None:
    experiment = pair.create_experiment("other")
    pair.log_spans("0", family(ONE)[:1])
    pair.log_spans(experiment, family(ONE)[1:])
    assert look(pair, ONE).experiment_id == "0"
    pair.search_traces([experiment], "span.name = 'part'")
    assert len(pair.search_traces(["0"], "span.name = 'part'")[0]) == 1


def test_bad_input(pair: Pair) -> None:
    assert pair.log_spans("77", []) == []
    assert pair.refused("log_spans", "77", family(ONE)).error_code == "RESOURCE_DOES_NOT_EXIST"
    assert pair.refused("start_trace", stated(ONE, "77")).error_code == "RESOURCE_DOES_NOT_EXIST"
    assert pair.refused("get_trace_info", ONE).error_code == "RESOURCE_DOES_NOT_EXIST"
    assert pair.refused("get_trace", ONE).error_code == "RESOURCE_DOES_NOT_EXIST"
    experiment = pair.create_experiment("gone")
    pair.delete_experiment(experiment)
    assert pair.refused("start_trace", stated(ONE, experiment)).error_code == "INVALID_PARAMETER_VALUE"
    pair.log_spans(experiment, family(ONE))
    named = stated(trace_id(2), tags={"mlflow.traceName": "n" * 10_000})
    assert pair.refused("start_trace", named).error_code == "INVALID_PARAMETER_VALUE"
    pair.start_trace(stated(trace_id(3)))
    assert pair.refused("get_trace", trace_id(3)).error_code == "INTERNAL_ERROR"
    assert pair.refused("batch_get_traces", [trace_id(3)]).error_code == "INTERNAL_ERROR"
    assert pair.batch_get_traces([]) == []
    assert pair.batch_get_trace_infos([]) == []


@pytest.mark.parametrize("nowhere", [None, ""])
def test_spans_for_no_experiment(pair: Pair, nowhere: str | None, caplog: pytest.LogCaptureFixture) -> None:
    """Those of new traces are dropped with a warning."""
    spans = family(ONE)
    assert len(pair.log_spans(nowhere, spans)) == len(spans)
    assert [" be dropped" in each or " are dropped" in each for each in caplog.messages] == [True, True]
    assert all(ONE in each for each in caplog.messages)
    assert pair.refused("get_trace_info", ONE).error_code == "RESOURCE_DOES_NOT_EXIST"
    pair.log_spans("0", spans[:1])
    together = [span(TWO, 1), *spans]
    if SINCE_3_18:
        assert pair.refused("log_spans", nowhere, together).error_code == "INVALID_PARAMETER_VALUE"
    else:
        pair.log_spans(nowhere, together)
    look(pair, ONE)
    assert pair.refused("get_trace_info", TWO).error_code == "RESOURCE_DOES_NOT_EXIST"


@pytest.mark.parametrize("wrong", ["-1", "abc", "1.5", 77])
def test_spans_for_a_wrong_experiment(pair: Pair, wrong: str) -> None:
    pair.refused("log_spans", wrong, family(ONE))
    assert pair.refused("get_trace_info", ONE).error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_trace_that_is_not_complete_is_not_there(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    caller, sleep = threading.current_thread(), time.sleep

    def wait_here(seconds: float) -> None:
        if threading.current_thread() is caller:
            waits.append(seconds)
        else:  # the driver's threads, which would spin
            sleep(seconds)

    monkeypatch.setattr("genesis_flow.areas.traces.reading.read.pause", wait)
    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.time.sleep", wait_here)
    pair.log_spans("0", family(ONE))
    statistics = json.dumps({"num_spans": 5})
    state_again(pair, stated(ONE, trace_metadata={"mlflow.trace.sizeStats": statistics}))
    assert pair.refused("get_trace", ONE).error_code == "RESOURCE_DOES_NOT_EXIST"
    assert waits == [1, 2, 1, 2]
    assert pair.batch_get_traces([ONE]) == []
    assert len(pair.get_trace(ONE, allow_partial=True).data.spans) == 4
    pair.log_spans("0", [span(ONE, 5, 1)])
    assert len(pair.get_trace(ONE).data.spans) == 5


def test_the_second_version_of_the_interface(pair: Pair) -> None:
    ours = pair.ours.deprecated_start_trace_v2("0", 5, {"k": "v", "mlflow.trace.session": "s"}, {"t": "1"})
    identifier = ours.request_id
    pair.oracle.start_trace(
        stated(identifier, start=5 - STARTED, duration=None, state=TraceState.IN_PROGRESS)
    )
    info = pair.ours.get_trace_info(identifier)
    assert (info.request_time, info.execution_duration, info.state) == (5, None, TraceState.IN_PROGRESS)
    assert info.trace_metadata == {"k": "v", "mlflow.trace.session": "s"}
    ended = pair.ours.deprecated_end_trace_v2(identifier, 9, TraceStatus.OK, {"k": "w"}, {"u": "2"})
    assert (ended.execution_time_ms, ended.status) == (4, TraceStatus.OK)
    assert ended.request_metadata["k"] == "w"
    assert {key: ended.tags[key] for key in ("t", "u")} == {"t": "1", "u": "2"}
    refusal = pair.refused("deprecated_end_trace_v2", "tr-none", 9, TraceStatus.OK, {}, {})
    assert refusal.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_server_logs_spans_without_blocking_its_loop(pair: Pair) -> None:
    """MLflow's server awaits this on its event loop, which must go on meanwhile."""

    async def serve() -> int:
        ticks = 0
        logging = asyncio.ensure_future(pair.ours.log_spans_async("0", family(ONE)))
        while not logging.done():
            await asyncio.sleep(0)
            ticks += 1
        await logging
        return ticks

    assert asyncio.run(serve()) > 10
    assert len(pair.ours.get_trace(ONE).data.spans) == 4
