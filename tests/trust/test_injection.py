"""Values are values: operators, NUL bytes and patterns in them have no effect, and cost no time."""

import asyncio
import copy
import re
import time
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pymongo
import pytest
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from pymongo.database import Database

from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.mongo.operation import Area
from tests.contract.trace_scenes import span, stated, trace_id
from tests.scenes import Stage, play

OPERATORS: list[Any] = [
    {"$ne": "no such"},
    {"$gt": ""},
    {"$regex": ".*"},
    {"$where": "true"},
    {"$exists": True},
]
ODD_TEXTS = ["$where", "$gt", "a.$ne", "$", "a.b", "{'$gt': ''}", "%24", "%2E", "__proto__", "${jndi:x}", " "]


@pytest.fixture
def store_uri(emptied_uri: str) -> str:
    return emptied_uri


@pytest.fixture
def database(store_uri: str) -> Iterator[Database[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](store_uri) as client:
        yield client.get_default_database()


def snapshot(database: Database[dict[str, Any]]) -> dict[str, str]:
    """A hash of each collection's documents, all by one command."""
    hashes: dict[str, str] = database.command("dbHash")["collections"]
    return {name: each for name, each in hashes.items() if name != "counters"}


# Of a version that is copied, these are not.
UNUSED = {"_current_stage", "_prompt_type", "_status", "_status_message", "_user_id", "_workspace"}


class Injector:
    """Makes each call with an operator in the place of every text in its arguments, then as it is."""

    def __init__(self, store: Area, database: Database[dict[str, Any]]) -> None:
        self.store = store
        self.database = database
        self.tried = 0

    async def __call__(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        # A template is content of any kind, and of a version that is linked only its name counts.
        first_only = name in ("create_prompt_version", "link_mcp_server_versions_to_trace")
        texts = args[:1] if first_only else args
        if name == "resolve_endpoint_in_scorer":
            texts = ()  # hands back what it is given, and asks for nothing but an endpoint
        before = snapshot(self.database)
        for bad_args, bad_kwargs in injected(texts, kwargs):
            await self._without_effect(name, bad_args, bad_kwargs, before)
        return await getattr(self.store, name)(*args, **kwargs)

    async def _without_effect(
        self, name: str, args: list[Any], kwargs: dict[str, Any], before: dict[str, str]
    ) -> None:
        call = f"{name}({[described(each) for each in args]}, {kwargs.keys()})"
        try:
            result = await asyncio.wait_for(getattr(self.store, name)(*args, **kwargs), 120)
        except MlflowException:
            result = None
        assert snapshot(self.database) == before, f"{call} has changed something"
        found = result[0] if isinstance(result, tuple) else result
        assert not found, f"{call} has found {found!r}"
        self.tried += 1


def described(value: Any) -> str:
    if isinstance(value, list):
        return str([described(each) for each in value])
    return str(vars(value)) if hasattr(value, "__dict__") else str(value)


def injected(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    given: dict[int | str, Any] = {**dict(enumerate(args)), **kwargs}
    for place, value in given.items():
        for bad in with_operators(value):
            changed = {**given, place: bad}
            yield [changed[index] for index in range(len(args))], {name: changed[name] for name in kwargs}


def with_operators(value: Any) -> Iterator[Any]:
    """An argument with an operator in its place, or in that of a text inside it."""
    first = value[0] if isinstance(value, list) and value else value
    for operator in OPERATORS[:2] if isinstance(first, str) else []:
        yield [operator] if isinstance(value, list) else operator
    for entity in entities_with_operators(first):
        yield [entity] if isinstance(value, list) else entity


def entities_with_operators(entity: Any) -> Iterator[Any]:
    """An entity with an operator in the place of each of its texts in turn."""
    if not type(entity).__module__.startswith("mlflow.entities") or isinstance(entity, Enum):
        return
    names = list(vars(entity)) if hasattr(entity, "__dict__") else list(entity.__slots__)
    for number, name in enumerate(names):
        if isinstance(getattr(entity, name), str) and name not in UNUSED:
            changed = copy.deepcopy(entity)
            object.__setattr__(changed, name, OPERATORS[number % len(OPERATORS)])  # some are frozen
            yield changed


async def test_operators_in_the_place_of_texts_change_and_find_nothing(
    store_uri: str, database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    async with MongoDBStore(store_uri) as tracking, MongoDBModelRegistryStore(store_uri) as registry:
        await tracking.get_experiment("0")
        await registry.search_registered_models()
        track, register = Injector(tracking, database), Injector(registry, database)
        await play(Stage(track, register, tmp_path, linked_uri=store_uri))
    assert track.tried + register.tried > 100


VALUES: list[Any] = [*OPERATORS, ["a"], re.compile(".*"), b"bytes", {"nested": {"$gt": 1}}]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20].replace(" at 0x", ""))
async def test_operators_in_entities_are_refused_or_kept_as_text(
    store: MongoDBStore, database: Database[dict[str, Any]], value: Any
) -> None:
    run_id = (await store.create_run("0", "u", 1, [], "r")).info.run_id
    entities = {
        "log_param": [Param(value, "v"), Param("k", value)],
        "set_tag": [RunTag(value, "v"), RunTag("k", value)],
        "log_metric": [Metric(value, 1.0, 1, 0), Metric("k", value, 1, 0), Metric("k", 1.0, value, value)],
    }
    for method, given in entities.items():
        for entity in given:
            before = snapshot(database)
            try:
                await getattr(store, method)(run_id, entity)
            except MlflowException:
                assert snapshot(database) == before, f"{method}({entity!r})"
    data = (await store.get_run(run_id)).data
    assert all(type(each) is str for each in [*data.tags.values(), *data.params.values()]), data
    assert data.metrics == {}


async def test_operators_in_the_datasets_of_a_search_of_models_are_refused(store: MongoDBStore) -> None:
    for operator in OPERATORS:
        for question in (
            {"datasets": [{"dataset_name": operator}]},
            {"datasets": [{"dataset_name": "a", "dataset_digest": operator}]},
            {"order_by": [{"field_name": operator}]},
            {"order_by": [{"field_name": "metrics.m", "dataset_name": operator}]},
        ):
            with pytest.raises(MlflowException) as caught:
                await store.search_logged_models(["0"], **question)
            assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


async def test_odd_keys_and_values_are_kept_as_they_are_and_found_again(store: MongoDBStore) -> None:
    """MLflow allows few characters in keys of runs, and any in those of traces and in values."""
    run_id = (await store.create_run("0", "u", 1, [], "r")).info.run_id
    for text in ODD_TEXTS:
        await store.set_tag(run_id, RunTag("odd", text))
        for comparison, matches in ((f"= {quoted(text)}", 1), (f"!= {quoted(text)}", 0)):
            found = await store._search_runs(["0"], f"tags.odd {comparison}", ViewType.ALL, 5, None, None)
            assert len(found[0]) == matches, (text, comparison)
        # start_trace takes keys of any kind, and in metadata.
        other = trace_id(ODD_TEXTS.index(text) + 2)
        await store.start_trace(stated(other, tags={text: text}, trace_metadata={text: text}))
        info = await store.get_trace_info(other)
        assert (info.tags[text], info.trace_metadata[text]) == (text, text)
        for field in ("tags", "metadata"):
            traces, _ = await store.search_traces(["0"], f"{field}.`{text}` = {quoted(text)}")
            assert [each.trace_id for each in traces] == [other], (field, text)


def quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


@pytest.mark.parametrize("text", ["\0", "a\0b", "\0$where", "a\0"])
async def test_nul_bytes_are_values_or_are_refused(store: MongoDBStore, text: str) -> None:
    run_id = (await store.create_run("0", "u", 1, [], "r")).info.run_id
    for call in (
        store.log_param(run_id, Param(text, "v")),
        store.set_tag(run_id, RunTag(text, "v")),
        store.log_metric(run_id, Metric(text, 1.0, 1, 0)),
        store.get_run(text),
        store.delete_tag(run_id, text),
    ):
        with pytest.raises(MlflowException) as caught:
            await call
        assert caught.value.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
    await store.set_tag(run_id, RunTag("value", text))
    assert (await store.get_run(run_id)).data.tags["value"] == text
    assert await store.get_experiment_by_name(text) is None
    found, _ = await store._search_runs(["0"], f"tags.value = '{text}'", ViewType.ALL, 5, None, None)
    assert [run.info.run_id for run in found] == [run_id]


BOMBS = [
    "%a" * 60 + "%b",
    "%" * 500 + "b",
    "_" * 60 + "%_%_%_%_%_%_%b",
    "%a_" * 40 + "b",
    "(a+)+$",
    "%(a|aa)+$%",
]
# A bomb that goes off takes years.
SECONDS = 120.0


async def test_like_bombs_cost_no_more_than_the_text_is_long(store: MongoDBStore) -> None:
    for number in range(20):
        run_id = (await store.create_run("0", "u", number, [], "r")).info.run_id
        await store.set_tag(run_id, RunTag("long", "a" * 7999 + "c"))
    for bomb in BOMBS:
        for operator in ("LIKE", "ILIKE"):
            begin = time.monotonic()
            found, _ = await store._search_runs(
                ["0"], f"tags.long {operator} '{bomb}'", ViewType.ALL, 5, None, None
            )
            assert time.monotonic() - begin < SECONDS, f"{operator} {bomb}"
            assert found == []


@pytest.mark.parametrize("length", [20_000, 300_000])
async def test_bombs_on_the_content_of_spans_end_in_time(store: MongoDBStore, length: int) -> None:
    """Long contents do not lie in one document; meanwhile other calls of the process go on."""
    identifier = trace_id(5)
    await store.start_trace(stated(identifier))
    await store.log_spans("0", [span(identifier, 1, attributes={"text": "a" * length + "c"})])
    asked = [f"span.content {operator} '{bomb}'" for bomb in BOMBS for operator in ("LIKE", "ILIKE")]
    asked += [
        f"span.attributes.text RLIKE '{bomb}'" for bomb in ("(a+)+$", "(a|aa)+$", "^(a*)*b$", "(.*a){30}b")
    ]
    for question in asked:
        begin = time.monotonic()
        search = asyncio.create_task(store.search_traces(["0"], question))
        slowest = 0.0
        while not search.done():
            slept = time.monotonic()
            await asyncio.sleep(0.05)
            slowest = max(slowest, time.monotonic() - slept)
        assert time.monotonic() - begin < SECONDS, question
        assert slowest < SECONDS / 2, f"the event loop stood still for {slowest:.1f} s: {question}"
        if search.exception() is None:
            assert list(search.result()[0]) == [], question
        else:
            assert isinstance(search.exception(), MlflowException), question
