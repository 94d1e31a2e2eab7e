"""Links of traces to runs and to prompts, asked for as associations of two entities."""

import pytest
from mlflow.entities.entity_type import EntityAssociationType
from mlflow.entities.model_registry import PromptVersion

from tests.contract.pair import Pair
from tests.contract.trace_scenes import stated, trace_id

TRACE, RUN, PROMPT = (
    EntityAssociationType.TRACE,
    EntityAssociationType.RUN,
    EntityAssociationType.PROMPT_VERSION,
)
ONE, TWO, THREE = (trace_id(number) for number in (1, 2, 3))


def prompt(name: str, version: int) -> PromptVersion:
    return PromptVersion(name=name, version=version, template="t")


@pytest.fixture
def run(pair: Pair) -> str:
    """A run with two of three traces, the other of which has two prompts; the first has one of these."""
    for place, identifier in enumerate((ONE, TWO, THREE)):
        pair.start_trace(stated(identifier, start=place))
    run_id: str = pair.create_run("0", "me", 1, [], "r").info.run_id
    for identifier in (ONE, TWO):
        pair.link_traces_to_run([identifier], run_id)
    pair.link_prompts_to_trace(THREE, [prompt("p", 1), prompt("q", 2)])
    pair.link_prompts_to_trace(ONE, [prompt("q", 2)])
    return run_id


def test_traces_of_a_run(pair: Pair, run: str) -> None:
    assert pair.search_entities_by_destination(run, RUN, TRACE) == [ONE, TWO]
    assert pair.search_entities_by_destination([run, "0" * 32], RUN, TRACE) == [ONE, TWO]
    assert pair.search_entities_by_destination("0" * 32, RUN, TRACE) == []


def test_runs_of_a_trace(pair: Pair, run: str) -> None:
    assert pair.search_entities_by_source(ONE, TRACE, RUN) == [run]
    other = pair.create_run("0", "me", 2, [], "other").info.run_id
    pair.link_traces_to_run([ONE], other)
    ours, theirs = pair.both("search_entities_by_source", [ONE, TWO], TRACE, RUN)
    assert sorted(ours.result) == sorted(theirs.result) == sorted([run, other])
    assert pair.search_entities_by_source(THREE, TRACE, RUN) == []


def test_prompts_of_a_trace(pair: Pair, run: str) -> None:
    assert pair.search_entities_by_source(THREE, TRACE, PROMPT) == ["p/1", "q/2"]
    assert pair.search_entities_by_source([ONE, THREE], TRACE, PROMPT) == ["p/1", "q/2"]
    assert pair.search_entities_by_source(TWO, TRACE, PROMPT) == []


def test_traces_of_a_prompt(pair: Pair, run: str) -> None:
    ours, theirs = pair.both("search_entities_by_destination", "q/2", PROMPT, TRACE)
    assert sorted(ours.result) == sorted(theirs.result) == [ONE, THREE]
    assert pair.search_entities_by_destination(["p/1", "p/2"], PROMPT, TRACE) == [THREE]


def test_pages_of_traces(pair: Pair, run: str) -> None:
    pair.link_traces_to_run([THREE], run)
    assert pair.pages("search_entities_by_destination", run, RUN, TRACE, max_results=1) == [ONE, TWO, THREE]
    assert pair.pages("search_entities_by_destination", run, RUN, TRACE, max_results=2) == [ONE, TWO, THREE]


def test_pages_of_traces_of_one_moment(pair: Pair) -> None:
    run_id = pair.ours.create_run("0", "me", 1, [], "r").info.run_id
    identifiers = [trace_id(number) for number in range(1, 8)]
    for identifier in identifiers:
        pair.ours.start_trace(stated(identifier))
    pair.ours.link_traces_to_run(identifiers, run_id)
    found, token = [], None
    while token or not found:
        page = pair.ours.search_entities_by_destination(run_id, RUN, TRACE, max_results=3, page_token=token)
        found, token = found + list(page), page.token
    assert sorted(found) == identifiers


def test_pages_of_prompts(pair: Pair, run: str) -> None:
    assert pair.pages("search_entities_by_source", THREE, TRACE, PROMPT, max_results=1) == ["p/1", "q/2"]


def test_a_token_of_another_question(pair: Pair, run: str) -> None:
    token = pair.ours.search_entities_by_source(THREE, TRACE, PROMPT, max_results=1).token
    ours, _ = pair.both("search_entities_by_source", ONE, TRACE, PROMPT, max_results=1, page_token=token)
    assert ours.code == "INVALID_PARAMETER_VALUE"


def test_a_link_that_is_gone(pair: Pair, run: str) -> None:
    pair.ours.unlink_traces_from_run([ONE], run)
    assert pair.ours.search_entities_by_destination(run, RUN, TRACE) == [TWO]
    assert pair.ours.search_entities_by_source(ONE, TRACE, RUN) == []


def test_a_link_to_a_trace_that_is_not_there_yet(pair: Pair) -> None:
    run_id = pair.create_run("0", "me", 1, [], "r").info.run_id
    pair.link_traces_to_run([ONE], run_id)
    ours, theirs = pair.both("search_entities_by_destination", run_id, RUN, TRACE)
    assert (ours.result, theirs.result) == ([], [ONE])
    pair.start_trace(stated(ONE))
    assert pair.search_entities_by_destination(run_id, RUN, TRACE) == [ONE]
