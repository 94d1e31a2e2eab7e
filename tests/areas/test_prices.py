"""MLflow asks a list on the network what models cost. Nobody but the caller waits for that."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.traces.writing import stored_span
from genesis_flow.mongo import operation, patience
from tests.contract.trace_scenes import span, trace_id

TRACE = trace_id(1)


@pytest.fixture
def translations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What is done first of all when a span is translated."""
    waits: list[Any] = []
    translate = stored_span.translate_span_when_storing

    def translated(given: Any) -> Any:
        if waits:
            waits.pop(0)()
        return translate(given)

    monkeypatch.setattr(stored_span, "translate_span_when_storing", translated)
    monkeypatch.setattr(stored_span, "_COMPARED", False)  # so that each span is translated
    yield waits
    assert not waits


async def test_other_calls_go_on_while_prices_are_asked_for(
    store: MongoDBStore, translations: list[Any]
) -> None:
    await store.get_experiment("0")
    asked, answered = threading.Event(), threading.Event()

    def ask() -> None:
        asked.set()
        assert answered.wait(120), "the event loop stood still"

    translations.append(ask)
    logging_spans = asyncio.create_task(store.log_spans("0", [span(TRACE, 1)]))
    assert await asyncio.to_thread(asked.wait, 120)
    await store.get_experiment("0")
    answered.set()
    await logging_spans
    assert (await store.get_trace(TRACE)).info.trace_id == TRACE


async def test_a_long_wait_for_prices_is_not_a_server_that_does_not_answer(
    store: MongoDBStore,
    translations: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    await store.get_experiment("0")
    monkeypatch.setattr(patience, "SHARE_SECONDS", 3.0)
    monkeypatch.setattr(patience, "_SILENT_SECONDS", 0.0)
    monkeypatch.setattr(operation, "LATE_SECONDS", 2.5, raising=False)
    translations.append(lambda: time.sleep(4.0))
    with caplog.at_level(logging.WARNING, "genesis_flow"):
        await store.log_spans("0", [span(TRACE, 1)])
    assert caplog.messages == []
    assert len((await store.get_trace(TRACE)).data.spans) == 1
