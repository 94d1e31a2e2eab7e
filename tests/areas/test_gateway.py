"""The AI gateway: what its calls cost, sums of costs from one index, and many people at once."""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any

import pymongo
import pytest
from mlflow.entities import GatewayEndpointModelConfig
from mlflow.entities.gateway_endpoint import GatewayModelLinkageType
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore
from genesis_flow.aio import MongoDBStore as AsyncStore
from genesis_flow.areas.gateway import remembered
from genesis_flow.areas.traces.documents import TraceFields
from tests.areas.explain import profiled
from tests.commands import recorder
from tests.mongod import Mongod

TRACES = 4_000
ENDPOINTS = 8
THREADS = 8
ROUNDS = 5
PRIMARY = GatewayModelLinkageType.PRIMARY
COST = 0.25


@pytest.fixture(scope="module")
async def large(mongod: Mongod) -> AsyncIterator[AsyncStore]:
    """Half of the traces are of the gateway, one a second, and each endpoint has its share."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    store = AsyncStore(f"{mongod.database_uri(name)}&appName=explain")
    await store.get_experiment("0")
    await store.database.collection(TraceFields).insert_many(
        [
            {
                "_id": f"tr-{number}",
                "workspace": "default",
                "experiment_id": 0,
                "request_time": number * 1_000,
                "tags": {},
                "metadata": {
                    "mlflow%2Eauth%2Eusername": "ann" if number % 4 else "bob",
                    **(
                        {"mlflow%2Egateway%2EendpointId": f"e-{number // 2 % ENDPOINTS}"}
                        if number % 2 == 0
                        else {}
                    ),
                },
                "cost": {"total_cost": COST},
            }
            for number in range(TRACES)
        ]
    )
    yield store
    await store.close()
    with pymongo.MongoClient[dict[str, Any]](mongod.uri) as client:
        client.drop_database(name)


@pytest.mark.parametrize(
    ("aim", "share"),
    [
        ({}, 1.0),
        ({"workspace": "default"}, 1.0),
        ({"endpoint_id": "e-1"}, 1 / ENDPOINTS),
        ({"endpoint_id": "E-1"}, 0.0),
        ({"username": "bob"}, 0.5),
    ],
    ids=str,
)
async def test_sums_come_from_the_index(large: AsyncStore, aim: dict[str, str], share: float) -> None:
    """G14: the end of a window is outside. No trace is read, and no key of another window or endpoint."""
    begin, seconds = 500_000, 1_600
    async with profiled(large.database) as queries:
        found = await large.sum_gateway_trace_cost(begin, begin + seconds * 1_000, **aim)
    assert found == seconds / 2 * share * COST
    (query,) = [each for each in queries if each.collection == "traces"]
    assert "gateway%2EendpointId" in query.plan, query
    assert query.documents == 0, query
    within = seconds / 2 if "endpoint_id" not in aim else seconds / 2 * share
    assert query.keys <= within + 3 * ENDPOINTS, query


async def test_another_workspace_has_spent_nothing(large: AsyncStore) -> None:
    assert await large.sum_gateway_trace_cost(0, 2**53, workspace="other") == 0.0


async def test_deleted_traces_do_not_count(large: AsyncStore) -> None:
    everything = await large.sum_gateway_trace_cost(0, 2**53)
    await large.database.collection(TraceFields).update_one(
        {"_id": "tr-2"}, {"$unset": {"experiment_id": ""}}
    )
    assert await large.sum_gateway_trace_cost(0, 2**53) == everything - COST


def config(model: str) -> GatewayEndpointModelConfig:
    return GatewayEndpointModelConfig(model, PRIMARY)


async def made_endpoint(store: AsyncStore, name: str = "chat") -> tuple[str, str, str]:
    secret = (await store.create_gateway_secret(f"k {name}", {"api_key": "sk-1234567890"})).secret_id
    model = await store.create_gateway_model_definition(f"m {name}", secret, "openai", "gpt")
    made = await store.create_gateway_endpoint(
        name, [config(model.model_definition_id)], usage_tracking=False
    )
    return made.endpoint_id, model.model_definition_id, secret


async def test_a_call_takes_one_round_trip_and_the_next_none(
    store: AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "SECONDS", 3_600)
    endpoint, _, secret = await made_endpoint(store)
    with recorder.recording() as commands:
        resolved, guardrails = await store._resolve_gateway_endpoint("chat")
    assert [name for name, _ in commands] == ["aggregate"]
    assert (resolved.endpoint_id, guardrails) == (endpoint, [])
    assert resolved.models[0].secret_value == {"api_key": "sk-1234567890"}
    with recorder.recording() as commands:
        again, _ = await store._resolve_gateway_endpoint("chat")
    assert commands == []
    assert again == resolved
    # A change by this process is seen at once.
    await store.update_gateway_secret(secret, {"api_key": "another-key-of-it"})
    changed, _ = await store._resolve_gateway_endpoint("chat")
    assert changed.models[0].secret_value == {"api_key": "another-key-of-it"}
    await store.delete_gateway_secret(secret)
    assert (await store._resolve_gateway_endpoint("chat"))[0].models == []
    await store.delete_gateway_endpoint(endpoint)
    with pytest.raises(MlflowException, match="not found"):
        await store._resolve_gateway_endpoint("chat")


async def test_what_is_remembered_is_encrypted(store: AsyncStore) -> None:
    await made_endpoint(store)
    await store._resolve_gateway_endpoint("chat")
    kept = remembered._remembered[store.database].found
    assert len(kept) == 1
    assert "sk-1234567890" not in repr(kept)


async def test_lists_scan_no_collection(store: AsyncStore) -> None:
    for number in range(5):
        await made_endpoint(store, f"e{number}")
    async with profiled(store.database) as queries:
        await store.list_secret_infos()
        await store.list_gateway_model_definitions()
        await store.list_gateway_endpoints()
        await store.list_endpoint_bindings()
        await store.list_budget_policies()
        await store.list_gateway_guardrails()
        await store.get_gateway_endpoint(name="e1")
        await store._resolve_gateway_endpoint("e1")
    assert len(queries) >= 8
    for query in queries:
        assert not query.scans_collection, query
        assert not query.blocking_sort, query


async def test_a_secret_of_another_passphrase_is_named(
    store: AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """G15: the version in the environment decides."""
    _, _, secret = await made_endpoint(store)
    for variable, value in (("MLFLOW_CRYPTO_KEK_PASSPHRASE", "other"), ("MLFLOW_CRYPTO_KEK_VERSION", "2")):
        with monkeypatch.context() as patched:
            patched.setenv(variable, value)
            for call in (store._resolve_gateway_endpoint("chat"), store._get_decrypted_secret(secret)):
                with pytest.raises(
                    MlflowException, match=r"'k chat'.*MLFLOW_CRYPTO_KEK_PASSPHRASE"
                ) as caught:
                    await call
                assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
                assert "sk-" not in str(caught.value)
            # Only what needs the secret stops.
            assert len(await store.list_gateway_endpoints()) == 1
    await store._resolve_gateway_endpoint("chat")


def at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    """What each call came to: a result or an error."""
    found: list[Any] = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def run(place: int) -> None:
        barrier.wait(30)
        try:
            found[place] = calls[place]()
        except MlflowException as error:
            found[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def test_a_name_is_given_out_once(store_uri: str) -> None:
    with closing(MongoDBStore(store_uri)) as store:
        for number in range(ROUNDS):
            name = f"k{number}"
            found = at_once([lambda name=name: store.create_gateway_secret(name, {"a": "b"})] * THREADS)
            codes = [each.error_code for each in found if isinstance(each, MlflowException)]
            assert codes == ["RESOURCE_ALREADY_EXISTS"] * (THREADS - 1)


def test_a_model_that_is_deleted_while_it_is_attached(store_uri: str) -> None:
    """Never does an endpoint have a model that is not there, whoever comes first."""
    with closing(MongoDBStore(store_uri)) as store:
        endpoint, _, secret = asyncio.run(_made(store_uri))
        for number in range(ROUNDS * 4):
            model = store.create_gateway_model_definition(f"x{number}", secret, "openai", "x")
            wanted = config(model.model_definition_id)
            at_once(
                [
                    lambda wanted=wanted: store.attach_model_to_endpoint(endpoint, wanted),
                    lambda wanted=wanted: store.delete_gateway_model_definition(wanted.model_definition_id),
                ]
            )
            found = store.get_gateway_endpoint(endpoint)
            assert all(each.model_definition is not None for each in found.model_mappings)


async def _made(uri: str) -> tuple[str, str, str]:
    store = AsyncStore(uri)
    try:
        return await made_endpoint(store)
    finally:
        await store.close()


def test_models_are_attached_once(store_uri: str) -> None:
    with closing(MongoDBStore(store_uri)) as store:
        endpoint, _, secret = asyncio.run(_made(store_uri))
        for number in range(ROUNDS):
            model = store.create_gateway_model_definition(f"x{number}", secret, "openai", "x")
            wanted = config(model.model_definition_id)
            at_once([lambda wanted=wanted: store.attach_model_to_endpoint(endpoint, wanted)] * THREADS)
        assert len(store.get_gateway_endpoint(endpoint).model_mappings) == ROUNDS + 1
