"""The short way to a stored span ends where MLflow's own function does.

If a test fails under a new version of MLflow: read its ``mlflow/tracing/otel/translation``. The module under
test says what it relies on; if that still holds and these tests say so too, add the version to its list.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mlflow.entities import Span
from mlflow.entities.span import LazySpan
from mlflow.tracing.constant import SpanAttributeKey
from mlflow.tracing.otel import translation
from mlflow.tracing.utils import build_otel_context
from mlflow.version import VERSION
from opentelemetry.sdk.trace import Event, ReadableSpan

from genesis_flow.areas.traces.writing import stored_span as subject
from genesis_flow.areas.traces.writing.stored_span import OWN, is_final, shortened, translated
from genesis_flow.compat.version import SPANS_COMPARED
from tests.versions import SINCE_3_18

Attributes = dict[str, Any]
INPUTS, OUTPUTS = SpanAttributeKey.INPUTS, SpanAttributeKey.OUTPUTS
MODEL, PROVIDER = SpanAttributeKey.MODEL, SpanAttributeKey.MODEL_PROVIDER
USAGE, COST = SpanAttributeKey.CHAT_USAGE, SpanAttributeKey.LLM_COST
TYPE = SpanAttributeKey.SPAN_TYPE
MODELS = ["gpt-4o", "claude-3-5-sonnet-20240620", "my-model"]
TOKENS = {"input_tokens": 1000, "output_tokens": 10, "total_tokens": 1010}
PACKAGE = Path(translation.__file__).parent


def trees() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(PACKAGE.glob("*.py")):
        yield file.stem, ast.parse(file.read_text(encoding="utf-8"))


def texts(tree: ast.Module) -> set[str]:
    """The strings in a module but for its docstrings."""
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
    }


def own_keys_read(tree: ast.AST) -> set[str]:
    """The names of MLflow's own attributes that code looks at; to set one is not to look at it."""
    written = {
        id(node.slice)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store)
    }
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "SpanAttributeKey"
        and id(node) not in written
    }


# Every text of the translators that may be a key, and more.
THEIR_WORDS = sorted(
    {text for name, tree in trees() if name != "__init__" for text in texts(tree) if 0 < len(text) < 60}
    | {"gen_ai.prompt.0.content", "gen_ai.completion.0.content", "lk.function_tool.x", "lk.tts.y"}
)
OWN_KEYS = sorted(value for name, value in vars(SpanAttributeKey).items() if name.isupper())


def test_this_version_was_compared() -> None:
    assert VERSION in SPANS_COMPARED, __doc__


def test_no_translator_looks_at_an_attribute_of_mlflow() -> None:
    for name, tree in trees():
        if name != "__init__":
            assert [text for text in texts(tree) if text.startswith(OWN)] == [], name
            assert own_keys_read(tree) == set(), name
    assert {"gen_ai.request.model", "input.value", "span.type"} <= set(THEIR_WORDS)
    keys = ("CHAT_TOOLS", "CHAT_USAGE", "INPUTS", "LLM_COST", "MESSAGE_FORMAT", "MODEL", "MODEL_PROVIDER")
    assert own_keys_read(dict(trees())["__init__"]) == {*keys, "OUTPUTS", "SPAN_TYPE"}


def made(attributes: Attributes, events: tuple[Event, ...] = ()) -> Span:
    return Span(
        ReadableSpan(
            name="a span",
            context=build_otel_context(1, 2),
            parent=build_otel_context(1, 1),
            start_time=1,
            end_time=2,
            attributes={SpanAttributeKey.REQUEST_ID: '"tr-1"', **attributes},
            events=events,
        )
    )


def outcome(function: Any, span: Span) -> Any:
    """As text: the order of attributes counts."""
    try:
        return json.dumps(function(span), default=repr)
    except Exception as error:
        return type(error)


def check(attributes: Attributes, events: tuple[Event, ...] = ()) -> None:
    assert outcome(shortened, made(attributes, events)) == outcome(translated, made(attributes, events))


PLAIN = {TYPE: '"LLM"', INPUTS: '{"q": "why \\"model\\"?"}', OUTPUTS: '["{", "["]', USAGE: json.dumps(TOKENS)}
# What is left to MLflow's function, as attributes besides PLAIN, and whether it then changes something.
OTHERS: list[tuple[Attributes, bool]] = [
    ({"input.value": '"x"'}, False),
    ({"openinference.span.kind": '"LLM"', TYPE: '"UNKNOWN"'}, True),
    ({"gen_ai.provider.name": '"openai"'}, True),
    ({"lk.any": '"x"'}, True),
    # Since 3.18 MLflow's server takes the second layer off where spans arrive.
    ({INPUTS: json.dumps(json.dumps({"q": 1}))}, not SINCE_3_18),
    ({INPUTS: ' "\\u007b}"'}, not SINCE_3_18),
    ({OUTPUTS: '" [1]"'}, not SINCE_3_18),
    ({TYPE: json.dumps('"LLM"')}, not SINCE_3_18),
    ({TYPE: json.dumps("\\d+")}, False),
    ({INPUTS: '{"model": "gpt-4o"}'}, True),
    ({INPUTS: '{"\\u006dodel": "gpt-4o"}'}, True),
    ({INPUTS: '[{"model": "gpt-4o"}]'}, False),
    ({OUTPUTS: '{"model":"gpt-4o"}'}, True),
    ({OUTPUTS: '{"model": 5}'}, False),
    ({MODEL: '"gpt-4o"'}, True),
    ({MODEL: '"nobody-knows-it"'}, False),
    ({"mlflow.number": 5}, False),
]
FINAL: list[Attributes] = [
    {},
    {INPUTS: '{"q": "\\n", "models": [1], "r": {"s": "\\"model\\": 1"}}'},
    {MODEL: '"gpt-4o"', COST: '{"total_cost": 1.0}', INPUTS: '{"model": "other"}'},
    {TYPE: '"A TOOL"', "mlflow.traceTag.x": '"1"', SpanAttributeKey.MESSAGE_FORMAT: '"openai"'},
    {OUTPUTS: "no JSON, {"},
    {OUTPUTS: '"no JSON either'},
    {INPUTS: "no JSON at length " * 50, OUTPUTS: json.dumps({"long": "text " * 100})},
]


@pytest.mark.parametrize(("attributes", "changes"), OTHERS)
def test_a_span_that_may_change_goes_to_mlflow(attributes: Attributes, changes: bool) -> None:
    span = made(PLAIN | attributes)
    assert not is_final(span.to_dict())
    assert (translated(span) != span.to_dict()) is changes
    check(PLAIN | attributes)


@pytest.mark.parametrize("value", ["9" * 5_000, "[" * 20_000])
def test_what_mlflow_cannot_read_fails_as_there(value: str) -> None:
    failed = outcome(translated, made({INPUTS: value})) in (ValueError, RecursionError)
    assert failed is not SINCE_3_18  # which does not read it here any more
    check({INPUTS: value})


@pytest.mark.parametrize("attributes", FINAL)
def test_a_span_that_stays_does_not(attributes: Attributes, monkeypatch: pytest.MonkeyPatch) -> None:
    span = made(PLAIN | attributes)
    assert translated(span) == span.to_dict()
    monkeypatch.setattr(subject, "translate_span_when_storing", None)
    assert shortened(span) == span.to_dict()
    assert shortened(LazySpan(span.to_dict())) == span.to_dict()


def test_a_version_that_was_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "_COMPARED", False)
    monkeypatch.setattr(subject, "translate_span_when_storing", lambda span: {"theirs": span.name})
    assert subject.stored_span(made(PLAIN)) == {"theirs": "a span"}


WORDS = st.sampled_from([*MODELS, *THEIR_WORDS, "model", "<REDACTED>", "gemini-cli", "{", "[1]", '"x"'])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(WORDS | st.just("model") | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
WITH_MODEL = st.builds(lambda value, name: {"model": name, **value}, st.dictionaries(WORDS, JSON), WORDS)
USED = st.fixed_dictionaries({}, optional={key: st.integers(0, 9) for key in TOKENS})


@st.composite
def encoded(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> Any:
    """JSON text once, twice or three times over, in any spelling; seldom no JSON at all."""
    text = json.dumps(draw(values), ensure_ascii=draw(st.booleans()))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        text = json.dumps(text, ensure_ascii=False)
    spelled = draw(st.sampled_from(["as it is", "as it is", "spaces", "escapes", "bare"]))
    if spelled == "spaces":
        return draw(st.sampled_from([" ", "\n\t", "\r"])) + text.replace('"', '" ', 1)
    if spelled == "escapes":
        return text.replace("m", "\\u006d").replace("[", "\\u005b")
    if spelled == "bare":
        return draw(WORDS | st.text(max_size=5) | st.integers() | st.booleans() | st.just(("a", "b")))
    return text


ATTRIBUTES = st.builds(
    lambda own, more, theirs: own | more | theirs,
    st.fixed_dictionaries(
        {},
        optional={
            INPUTS: encoded(JSON | WITH_MODEL),
            OUTPUTS: encoded(JSON | WITH_MODEL),
            MODEL: encoded(st.sampled_from(MODELS)),
            PROVIDER: encoded(st.sampled_from(["openai", "x"])),
            USAGE: encoded(USED | JSON),
            TYPE: encoded(st.sampled_from(["LLM", "UNKNOWN", "TOOL", ""])),
        },
    ),
    st.dictionaries(st.sampled_from([*OWN_KEYS, "mlflow.other"]), encoded(JSON), max_size=2),
    st.just({}) | st.dictionaries(st.sampled_from(THEIR_WORDS), encoded(JSON | USED), max_size=3),
)
EVENTS = st.lists(
    st.builds(
        Event,
        st.sampled_from(["exception", *(word for word in THEIR_WORDS if "." in word)]),
        st.dictionaries(st.sampled_from([*THEIR_WORDS, "content"]), encoded(JSON).map(str), max_size=2),
        st.just(3),
    ),
    max_size=2,
).map(tuple)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ATTRIBUTES, st.just(()) | EVENTS)
@example({OUTPUTS: '"{\\"model\\": \\"gpt-4o\\"}"'}, ())
@example({"gen_ai.usage.input_tokens": "5", "gen_ai.request.model": '"gpt-4o"'}, ())
@example({}, (Event("gen_ai.content.prompt", {"gen_ai.prompt": "why"}, 3),))
def test_the_short_way_ends_where_mlflow_s_does(attributes: Attributes, events: tuple[Event, ...]) -> None:
    check(attributes, events)


def test_every_word_of_a_translator_leads_to_mlflow() -> None:
    for word in THEIR_WORDS:
        attributes = {word: '"gpt-4o"', INPUTS: '"x"'}
        assert not is_final(made(attributes).to_dict())
        check(attributes)
