"""Metrics over traces, spans and assessments, played into both stores."""

import itertools
import os
import random
from typing import Any
from unittest import mock

import pytest
from mlflow.entities import Feedback
from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType
from mlflow.entities.trace_state import TraceState

from genesis_flow.areas.traces.sums import departures
from genesis_flow.areas.traces.sums import kept as kept_sums
from genesis_flow.areas.traces.sums.metrics import _METRICS, _TRACES
from tests.contract.pair import Pair
from tests.contract.test_trace_ingest import cost, tokens
from tests.contract.trace_scenes import STARTED, span, stated, trace_id

EXPERIMENTS = ["0", "1"]
DAY = 86_400_000
RUN = "c" * 32


@pytest.fixture(scope="module")
def filled(module_pair: Pair) -> Pair:
    dice = random.Random(3)
    module_pair.create_experiment("second")
    ids = [trace_id(number) for number in range(1, 41)]
    for identifier in ids:
        _add(module_pair, identifier, dice)
    module_pair.link_traces_to_run(ids[:5], RUN)
    return module_pair


def _add(pair: Pair, identifier: str, dice: random.Random) -> None:
    experiment = dice.choice(EXPERIMENTS)
    start = dice.choice([0, 1, 3_600_000, DAY, 3 * DAY])
    spans = [
        span(
            identifier,
            number,
            None if number == 1 else 1,
            name=dice.choice(["step", "call"]),
            kind=dice.choice(["LLM", "TOOL"]),
            status=dice.choice(["OK", "ERROR"]),
            start=start + dice.choice([0, 0.5, 7, 100_000]),
            end=start + dice.choice([200_000, 300_000.25]) if dice.random() < 0.9 else None,
            attributes=_spent(dice),
        )
        for number in range(1, dice.randint(2, 5))
    ]
    pair.log_spans(experiment, spans)
    metadata = {"k": dice.choice(["1", "2"])}
    if dice.random() < 0.6:
        metadata["mlflow.trace.session"] = dice.choice(["s1", "s2", "s3"])
    if dice.random() < 0.2:
        metadata["mlflow.sourceRun"] = RUN
    tags = {"t": dice.choice(["1", "2"])}
    if dice.random() < 0.7:
        tags["mlflow.traceName"] = dice.choice(["alpha", "beta"])
    pair.both(
        "start_trace",
        stated(
            identifier,
            experiment,
            start=start,
            duration=dice.choice([None, 5, 7, 100, 1000]),
            state=dice.choice([TraceState.OK, TraceState.ERROR]),
            tags=tags,
            trace_metadata=metadata,
        ),
    )
    for value in ("yes", True, 0.5, 3, "no", "word"):
        if dice.random() < 0.3:
            pair.create_assessment(
                Feedback(name=dice.choice(["good", "fast"]), value=value, trace_id=identifier)
            )
    if dice.random() < 0.3:
        old = pair.create_assessment(Feedback(name="good", value=False, trace_id=identifier))
        new = Feedback(name="good", value=9, trace_id=identifier, overrides=old.assessment_id)
        pair.create_assessment(new)


def _cached(dice: random.Random) -> dict[str, int]:
    return {f"cache_{what}_input_tokens": dice.randint(0, 3) for what in ("read", "creation")}


def _spent(dice: random.Random) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if dice.random() < 0.5:
        attributes |= tokens(dice.randint(1, 9), **_cached(dice))
    if dice.random() < 0.5:
        attributes |= cost(dice.choice([0.25, 0.5, 1.5]))
    if dice.random() < 0.6:
        attributes |= {"mlflow.llm.model": dice.choice(["gpt", "claude"]), "mlflow.llm.provider": "us"}
    return attributes


def _aggregations(allowed: frozenset[AggregationType], *, percentiles: bool) -> list[MetricAggregation]:
    plain = [MetricAggregation(each) for each in sorted(allowed - {AggregationType.PERCENTILE})]
    if not percentiles or AggregationType.PERCENTILE not in allowed:
        return plain
    return [
        *plain,
        *(MetricAggregation(AggregationType.PERCENTILE, percent) for percent in (0, 50, 90.5, 100)),
    ]


QUESTIONS = [(view, name) for view, metrics in _METRICS.items() for name in metrics]
RANGE = {"start_time_ms": STARTED, "end_time_ms": STARTED + DAY}
EVER = {"start_time_ms": STARTED, "end_time_ms": STARTED + 10 * DAY}


def _rounded(value: Any) -> Any:
    """Sums of the same numbers in another order differ in the last digits."""
    return round(value, 9) if isinstance(value, float) else value


def ask(pair: Pair, *args: Any, **kwargs: Any) -> int:
    """Compare the answers of both stores; the number of points."""
    ours, theirs = pair.both("query_trace_metrics", *args, **kwargs)
    assert (ours.error, theirs.error) == (None, None)
    answers = [
        [
            (
                point.metric_name,
                point.dimensions,
                {key: _rounded(value) for key, value in point.values.items()},
            )
            for point in outcome.result
        ]
        for outcome in (ours, theirs)
    ]
    assert answers[0] == answers[1]
    types = [[type(value) for point in o.result for value in point.values.values()] for o in (ours, theirs)]
    assert types[0] == types[1]
    return len(answers[0])


@pytest.mark.parametrize(("view", "name"), QUESTIONS)
@pytest.mark.parametrize("percentiles", [False, True])
def test_every_metric_by_every_dimension(
    filled: Pair, view: MetricViewType, name: str, percentiles: bool
) -> None:
    metric = _METRICS[view][name]
    asked = _aggregations(metric.aggregations, percentiles=percentiles)
    found = 0
    for count in range(len(metric.dimensions) + 1):
        for dimensions in itertools.combinations(metric.dimensions, count):
            arguments = (EXPERIMENTS, view, name, asked, list(dimensions))
            found += ask(filled, *arguments)
            ask(filled, *arguments, **RANGE)
            ask(filled, *arguments, time_interval_seconds=3600, **EVER)
            ask(filled, *arguments, time_interval_seconds=86_400, max_results=2, **RANGE)
    assert found > 1 or not metric.dimensions


@pytest.mark.skipif(
    os.environ.get("GENESIS_FLOW_PROFILE") == "portable", reason="there are no sums in the portable profile"
)
@pytest.mark.parametrize("name", [name for name in _TRACES if name != "session_count"])
@pytest.mark.parametrize("percentiles", [False, True])
def test_the_same_from_kept_sums(
    filled: Pair, monkeypatch: pytest.MonkeyPatch, name: str, percentiles: bool
) -> None:
    monkeypatch.setattr(kept_sums, "WORTH_KEEPING", 0)
    monkeypatch.setattr(kept_sums, "RETRY_SECONDS", -2)
    monkeypatch.setattr(departures, "MARGIN_SECONDS", 0)
    monkeypatch.setattr(kept_sums, "regrouped", spy := mock.Mock(side_effect=kept_sums.regrouped))
    metric = _TRACES[name]
    asked = _aggregations(metric.aggregations, percentiles=percentiles)
    day = {"start_time_ms": STARTED - STARTED % DAY, "end_time_ms": STARTED - STARTED % DAY + 4 * DAY - 1}
    for count in range(len(metric.dimensions) + 1):
        for dimensions in itertools.combinations(metric.dimensions, count):
            arguments = (EXPERIMENTS, MetricViewType.TRACES, name, asked, list(dimensions))
            ask(filled, *arguments)
            for options in ({}, RANGE, day, day | {"max_results": 2}, EVER):
                spy.reset_mock()
                ask(filled, *arguments, **options)
                # What the first question has left answers the others, if whole days are in their range.
                assert spy.call_count or options == RANGE
                if options:
                    ask(filled, *arguments, **options, time_interval_seconds=86_400)


@pytest.mark.parametrize(("view", "name"), QUESTIONS)
@pytest.mark.parametrize(
    "text",
    [
        "trace.status = 'OK'",
        "trace.tag.t = '1'",
        "trace.tag.`mlflow.traceName` = 'alpha'",
        "trace.metadata.k = '2'",
        "trace.metadata.`mlflow.trace.session` = 's1'",
        f"trace.metadata.`mlflow.sourceRun` = '{RUN}'",
        "trace.metadata.`mlflow.trace.cost` = '{}'",
        "trace.status = 'none'",
    ],
)
def test_filters_on_traces(filled: Pair, view: MetricViewType, name: str, text: str) -> None:
    asked = _aggregations(_METRICS[view][name].aggregations, percentiles=False)
    ask(filled, EXPERIMENTS, view, name, asked, None, [text])
    ask(filled, EXPERIMENTS, view, name, asked, None, [text, "trace.tag.t = '1'"], **RANGE)


def test_filters_on_spans_and_assessments(filled: Pair) -> None:
    count = [MetricAggregation(AggregationType.COUNT)]
    for text in ("span.name = 'step'", "span.type = 'LLM'", "span.status = 'ERROR'"):
        assert ask(filled, EXPERIMENTS, MetricViewType.SPANS, "span_count", count, ["span_name"], [text])
    for text in ("assessment.name = 'good'", "assessment.type = 'feedback'"):
        assert ask(filled, EXPERIMENTS, MetricViewType.ASSESSMENTS, "assessment_count", count, None, [text])
    assert ask(filled, ["99"], MetricViewType.TRACES, "trace_count", count) == 1


BAD: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((MetricViewType.TRACES, "bogus", [AggregationType.COUNT]), {}),
    ((MetricViewType.TRACES, "trace_count", [AggregationType.AVG]), {}),
    ((MetricViewType.SPANS, "latency", [AggregationType.AVG], ["span_type", "x"]), {}),
    ((MetricViewType.TRACES, "latency", [AggregationType.AVG], None, ["span.name = 'x'"]), {}),
    ((MetricViewType.SPANS, "latency", [AggregationType.AVG], None, ["assessment.name = 'x'"]), {}),
    ((MetricViewType.SPANS, "latency", [AggregationType.AVG], None, ["trace.status != 'x'"]), {}),
    ((MetricViewType.SPANS, "latency", [AggregationType.AVG], None, ["trace.bogus = 'x'"]), {}),
    ((MetricViewType.SPANS, "latency", [AggregationType.AVG], None, ["trace.tag = 'x'"]), {}),
    ((MetricViewType.TRACES, "latency", [AggregationType.AVG]), {"time_interval_seconds": 5}),
]


@pytest.mark.parametrize(("arguments", "named"), BAD)
def test_bad_questions(filled: Pair, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    view, name, aggregations, *rest = arguments
    asked = [MetricAggregation(each) for each in aggregations]
    refusal = filled.refused("query_trace_metrics", ["0"], view, name, asked, *rest, **named)
    assert refusal.error_code == "INVALID_PARAMETER_VALUE"
