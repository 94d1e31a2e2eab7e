"""The AI gateway's store: the cases G1 to G18 that are the store's, bad input, what differs."""

from typing import Any
from unittest import mock

import pytest
from mlflow.entities import (
    FallbackConfig,
    FallbackStrategy,
    GatewayEndpointModelConfig,
    GatewayEndpointTag,
    RoutingStrategy,
)
from mlflow.entities.gateway_endpoint import GatewayModelLinkageType
from mlflow.entities.gateway_guardrail import GuardrailAction, GuardrailStage

from tests.contract.pair import Pair

PRIMARY, FALLBACK = GatewayModelLinkageType.PRIMARY, GatewayModelLinkageType.FALLBACK
JUDGE = '{"third_party_scorer_data": {"model": "openai:/gpt-4"}}'
CUSTOM = '{"name":"s","call_source":"return 1","call_signature":"(outputs)","original_func_name":"s"}'


@pytest.fixture(scope="module", autouse=True)
def one_key() -> Any:
    """The oracle derives its key for every secret, 0.2 s each; it is the same."""
    from mlflow.utils.crypto import KEKManager

    with mock.patch("mlflow.store.tracking.gateway.sqlalchemy_mixin.KEKManager", return_value=KEKManager()):
        yield


def secret(pair: Pair, name: str = "k", **more: Any) -> str:
    return str(pair.create_gateway_secret(name, {"api_key": "sk-1234567890"}, **more).secret_id)


def model(pair: Pair, name: str = "m", secret_id: str | None = None, provider: str = "openai") -> str:
    secret_id = secret_id or secret(pair, f"secret of {name}")
    made = pair.create_gateway_model_definition(name, secret_id, provider, "gpt", created_by="me")
    return str(made.model_definition_id)


def config(model_id: str, kind: Any = PRIMARY, **more: Any) -> GatewayEndpointModelConfig:
    return GatewayEndpointModelConfig(model_id, kind, **more)


def endpoint(pair: Pair, name: str = "chat", model_id: str | None = None, **more: Any) -> str:
    made = pair.create_gateway_endpoint(
        name, [config(model_id or model(pair, f"model of {name}"))], **{"usage_tracking": False, **more}
    )
    return str(made.endpoint_id)


def cleaner(pair: Pair, method: str, *args: Any, code: str, **kwargs: Any) -> None:
    """What SQL answers with its database's own words, we answer with a code."""
    ours, theirs = pair.both(method, *args, **kwargs)
    assert (ours.code, theirs.code) == (code, "BAD_REQUEST"), (ours, theirs)


@pytest.mark.parametrize(
    "value",
    [
        {"api_key": "sk-1234567890"},
        {"a": "short"},
        {"a": "12345678", "b": "1234567", "c.$": "ü" * 20},
        {},
        {"a": 5, "b": None, "c": ["x"], "d": {"e": "f"}},
        {"z": "1" * 5000, "a": ""},
    ],
    ids=repr,
)
def test_secrets_are_masked_and_come_back(pair: Pair, value: dict[str, Any]) -> None:
    made = pair.create_gateway_secret("k", value, "openai", {"api_base": "x", "a.$": [1]}, "me")
    pair.get_secret_info(made.secret_id)
    pair.get_secret_info(secret_name="k")
    assert pair._get_decrypted_secret(made.secret_id) == value
    assert list(pair.ours._get_decrypted_secret(made.secret_id)) == list(value)


@pytest.mark.parametrize("name", ["", " ", "a.$%", "x" * 300, "k|", "ä"])
def test_names_of_secrets(pair: Pair, name: str) -> None:
    made = pair.create_gateway_secret(name, {"a": "b"}, "", {}, "")
    pair.get_secret_info(secret_name=name)
    pair.refused("create_gateway_secret", name, {"a": "b"})
    assert pair._get_decrypted_secret(made.secret_id) == {"a": "b"}
    assert len(pair.list_secret_infos("")) == 1


def test_secrets_by_id_or_name(pair: Pair) -> None:
    secret_id = secret(pair)
    for given in ({}, {"secret_id": secret_id, "secret_name": "k"}, {"secret_id": ""}, {"secret_name": "K"}):
        pair.refused("get_secret_info", **given)
    pair.refused("get_secret_info", "s-none")
    pair.refused("_get_decrypted_secret", "s-none")


def test_changes_of_secrets(pair: Pair) -> None:
    """G7: a change by nobody forgets who changed it last."""
    secret_id = secret(pair, created_by="me", auth_config={"a": "b"})
    for given in (
        {"secret_value": {"api_key": "another-key"}, "updated_by": "you"},
        {"auth_config": {"c": "d"}},
        {},
        {"auth_config": {}, "updated_by": ""},
        {"secret_value": {}, "auth_config": {"e": 1}},
    ):
        pair.update_gateway_secret(secret_id, **given)
        pair.get_secret_info(secret_id)
        pair._get_decrypted_secret(secret_id)
    pair.refused("update_gateway_secret", "s-none", {"a": "b"})
    pair.refused("update_gateway_secret", "s-none")


@pytest.mark.parametrize("value", [None, "text", ["a"], {"a": {1, 2}}, 5])
def test_values_that_are_none(pair: Pair, value: Any) -> None:
    ours, _ = pair.both("create_gateway_secret", "k", value)
    assert ours.code == "INVALID_PARAMETER_VALUE"


def test_a_deleted_secret_leaves_its_models(pair: Pair) -> None:
    """G8."""
    secret_id = secret(pair)
    definition = model(pair, secret_id=secret_id)
    endpoint_id = endpoint(pair, model_id=definition)
    assert len(pair.list_gateway_model_definitions(secret_id=secret_id)) == 1
    assert len(pair.list_gateway_endpoints(secret_id=secret_id)) == 1
    pair.delete_gateway_secret(secret_id)
    assert pair.get_gateway_model_definition(definition).secret_name is None
    assert pair.get_gateway_endpoint(endpoint_id).model_mappings[0].model_definition.secret_id is None
    assert pair.list_gateway_model_definitions(secret_id=secret_id) == []
    assert pair.list_gateway_endpoints(secret_id=secret_id) == []
    pair.refused("delete_gateway_secret", secret_id)


def test_models(pair: Pair) -> None:
    secret_id, other = secret(pair), secret(pair, "other")
    first, second = model(pair, "a", secret_id), model(pair, "A", other, "anthropic")
    pair.refused("create_gateway_model_definition", "a", other, "openai", "x")
    pair.refused("create_gateway_model_definition", "c", "s-none", "openai", "x")
    for given in ({}, {"provider": "openai"}, {"provider": ""}, {"secret_id": other}, {"secret_id": ""}):
        pair.list_gateway_model_definitions(**given)
    pair.list_gateway_model_definitions("openai", other)
    for given in (
        {"name": "b", "updated_by": "you"},
        {"secret_id": other, "model_name": "x"},
        {"provider": "p", "updated_by": ""},
        {"name": ""},
        {},
    ):
        pair.update_gateway_model_definition(first, **given)
    pair.get_gateway_model_definition(name="")
    pair.refused("update_gateway_model_definition", second, name="")
    pair.refused("update_gateway_model_definition", second, secret_id="s-none")
    pair.refused("update_gateway_model_definition", "d-none", secret_id=other)
    pair.refused("get_gateway_model_definition", "d-none")
    pair.refused("get_gateway_model_definition", name="none")
    pair.refused("get_gateway_model_definition")
    pair.delete_gateway_model_definition(first)
    pair.refused("delete_gateway_model_definition", first)


def test_models_in_use_stay(pair: Pair) -> None:
    definition = model(pair)
    endpoint_id = endpoint(pair, model_id=definition)
    pair.refused("delete_gateway_model_definition", definition)
    pair.detach_model_from_endpoint(endpoint_id, definition)
    pair.delete_gateway_model_definition(definition)


def test_endpoints(pair: Pair) -> None:
    first, second = model(pair, "a"), model(pair, "b", provider="anthropic")
    made = pair.create_gateway_endpoint(
        "chat",
        [config(first, weight=0.5), config(second, FALLBACK, fallback_order=2), config(first, FALLBACK)],
        "me",
        RoutingStrategy.REQUEST_BASED_TRAFFIC_SPLIT,
        FallbackConfig(FallbackStrategy.SEQUENTIAL, 3),
        usage_tracking=False,
    )
    pair.get_gateway_endpoint(made.endpoint_id)
    pair.get_gateway_endpoint(name="chat")
    for given in ({}, {"provider": "anthropic"}, {"provider": "none"}, {"provider": ""}, {"secret_id": ""}):
        pair.list_gateway_endpoints(**given)
    secret_of_b = pair.get_gateway_model_definition(second).secret_id
    assert pair.list_gateway_endpoints("openai", secret_of_b) == []
    assert len(pair.list_gateway_endpoints("anthropic", secret_of_b)) == 1
    for method in ("get_gateway_endpoint", "delete_gateway_endpoint"):
        pair.refused(method, "e-none")
    pair.refused("get_gateway_endpoint", name="none")
    pair.refused("get_gateway_endpoint")


def test_endpoints_that_cannot_be(pair: Pair) -> None:
    """G1: a taken name is refused with a code, not with the database's words."""
    definition = model(pair)
    endpoint(pair, model_id=definition)
    pair.refused("create_gateway_endpoint", "e", [])
    pair.refused("create_gateway_endpoint", "e", [config("d-none")])
    pair.refused("create_gateway_endpoint", "e", [config(definition)], experiment_id="x")
    taken = "RESOURCE_ALREADY_EXISTS"
    cleaner(pair, "create_gateway_endpoint", "chat", [config(definition)], usage_tracking=False, code=taken)
    cleaner(pair, "create_gateway_endpoint", "e", [config(definition)] * 2, usage_tracking=False, code=taken)
    cleaner(
        pair,
        "create_gateway_endpoint",
        "e",
        [config(definition)],
        experiment_id="99",
        code="RESOURCE_DOES_NOT_EXIST",
    )
    other = endpoint(pair, "other")
    cleaner(pair, "update_gateway_endpoint", other, "chat", code=taken)


def test_a_refused_endpoint_leaves_no_experiment(pair: Pair) -> None:
    """G16: SQL makes the experiment before it finds the name taken."""
    definition = model(pair)
    endpoint(pair, model_id=definition)
    pair.both("create_gateway_endpoint", "chat", [config(definition)])
    assert pair.ours.get_experiment_by_name("gateway/chat") is None


def test_endpoints_without_names(pair: Pair) -> None:
    """G6: any number of them."""
    definition = model(pair)
    for _ in range(2):
        pair.create_gateway_endpoint(None, [config(definition)], usage_tracking=False)
    assert len(pair.list_gateway_endpoints()) == 2


def test_experiments_of_traces(pair: Pair) -> None:
    """G5: an experiment that is there is taken as it is, even a deleted one."""
    definition = model(pair)
    made = pair.create_gateway_endpoint("chat", [config(definition)])
    tags = pair.ours.get_experiment(made.experiment_id).tags
    assert tags["mlflow.experiment.sourceId"] == made.endpoint_id
    assert tags == pair.oracle.get_experiment(made.experiment_id).tags
    pair.delete_experiment(made.experiment_id)
    pair.delete_gateway_endpoint(made.endpoint_id)
    again = pair.create_gateway_endpoint("chat", [config(definition)])
    assert again.experiment_id == made.experiment_id
    pair.update_gateway_endpoint(again.endpoint_id, usage_tracking=False)
    untracked = pair.create_gateway_endpoint("plain", [config(definition)], usage_tracking=False)
    tracked = pair.update_gateway_endpoint(untracked.endpoint_id, "renamed", usage_tracking=True)
    assert pair.get_experiment(tracked.experiment_id).name == "gateway/renamed"
    pair.update_gateway_endpoint(untracked.endpoint_id, experiment_id="0")
    pair.create_gateway_endpoint("zero", [config(definition)], experiment_id="0")


def test_an_experiment_that_is_deleted_for_good(pair: Pair) -> None:
    made = pair.create_gateway_endpoint("chat", [config(model(pair))])
    pair.delete_experiment(made.experiment_id)
    pair._hard_delete_experiment(made.experiment_id)
    found = pair.get_gateway_endpoint(made.endpoint_id)
    assert (found.experiment_id, found.usage_tracking) == (None, True)


def test_changes_of_endpoints(pair: Pair) -> None:
    """G4: other models reset how an endpoint falls back."""
    first, second = model(pair, "a"), model(pair, "b")
    endpoint_id = endpoint(pair, model_id=first, created_by="me")
    for given in (
        {"fallback_config": FallbackConfig(FallbackStrategy.SEQUENTIAL, 2)},
        {"name": "renamed", "updated_by": "you"},
        {"model_configs": [config(second), config(first, FALLBACK)]},
        {"model_configs": [config(second)], "fallback_config": FallbackConfig(max_attempts=1)},
        {"routing_strategy": RoutingStrategy.REQUEST_BASED_TRAFFIC_SPLIT},
        {"updated_by": ""},
        {"fallback_config": FallbackConfig()},
    ):
        pair.update_gateway_endpoint(endpoint_id, **given)
        pair.get_gateway_endpoint(endpoint_id)
    pair.refused("update_gateway_endpoint", endpoint_id, model_configs=[config("d-none")])
    pair.refused("update_gateway_endpoint", "e-none", "x")
    pair.get_gateway_endpoint(endpoint_id)


def test_endpoints_without_models(pair: Pair) -> None:
    """G3: they are not listed."""
    endpoint_id = endpoint(pair)
    pair.update_gateway_endpoint(endpoint_id, model_configs=[])
    pair.get_gateway_endpoint(endpoint_id)
    assert pair.list_gateway_endpoints() == []


def test_attaching(pair: Pair) -> None:
    """G2: without a kind one mapping goes, not all."""
    first, second = model(pair, "a"), model(pair, "b")
    endpoint_id = endpoint(pair, model_id=first)
    pair.attach_model_to_endpoint(endpoint_id, config(second, FALLBACK, weight=2, fallback_order=0), "me")
    pair.attach_model_to_endpoint(endpoint_id, config(first, FALLBACK))
    pair.refused("attach_model_to_endpoint", endpoint_id, config(first))
    pair.refused("attach_model_to_endpoint", endpoint_id, config("d-none"))
    pair.refused("attach_model_to_endpoint", "e-none", config(first))
    pair.get_gateway_endpoint(endpoint_id)
    pair.detach_model_from_endpoint(endpoint_id, first)
    found = pair.get_gateway_endpoint(endpoint_id)
    assert {(each.model_definition_id, each.linkage_type) for each in found.model_mappings} == {
        (first, PRIMARY),
        (second, FALLBACK),
    }
    pair.refused("detach_model_from_endpoint", endpoint_id, first, "FALLBACK")
    pair.detach_model_from_endpoint(endpoint_id, first, "PRIMARY")
    pair.refused("detach_model_from_endpoint", endpoint_id, first)
    pair.refused("detach_model_from_endpoint", "e-none", first)


def test_tags(pair: Pair) -> None:
    endpoint_id = endpoint(pair)
    for key, value in (("b", "1"), ("a.$%", "2"), ("b", ""), ("none", None), ("", "empty"), ("a", "3")):
        pair.set_gateway_endpoint_tag(endpoint_id, GatewayEndpointTag(key, value))
    found = pair.both("get_gateway_endpoint", endpoint_id)
    ours, theirs = ({tag.key: tag.value for tag in each.result.tags} for each in found)
    assert ours == theirs
    pair.delete_gateway_endpoint_tag(endpoint_id, "a.$%")
    pair.delete_gateway_endpoint_tag(endpoint_id, "missing")
    pair.refused("set_gateway_endpoint_tag", "e-none", GatewayEndpointTag("a", "b"))
    pair.refused("delete_gateway_endpoint_tag", "e-none", "a")


def test_bindings(pair: Pair) -> None:
    """G1: the same binding twice is refused with a code."""
    endpoint_id, other = endpoint(pair), endpoint(pair, "other")
    pair.create_endpoint_binding(endpoint_id, "scorer", "x", "me")
    pair.create_endpoint_binding(endpoint_id, "scorer", "y|z")
    pair.create_endpoint_binding(other, "scorer", "x")
    cleaner(pair, "create_endpoint_binding", endpoint_id, "scorer", "x", code="RESOURCE_ALREADY_EXISTS")
    pair.refused("create_endpoint_binding", "e-none", "scorer", "x")
    ours, _ = pair.both("create_endpoint_binding", endpoint_id, "other", "x")
    assert ours.code == "INVALID_PARAMETER_VALUE"
    for given in (
        {},
        {"endpoint_id": endpoint_id},
        {"resource_type": "scorer", "resource_id": "x"},
        {"resource_type": "none"},
        {"endpoint_id": ""},
    ):
        pair.list_endpoint_bindings(**given)
    pair.delete_endpoint_binding(endpoint_id, "scorer", "x")
    pair.refused("delete_endpoint_binding", endpoint_id, "scorer", "x")
    pair.delete_gateway_endpoint(endpoint_id)
    assert len(pair.list_endpoint_bindings()) == 1


def test_bindings_of_scorers(pair: Pair) -> None:
    endpoint_id = endpoint(pair)
    judge = '{"third_party_scorer_data": {"model": "gateway:/chat"}}'
    with mock.patch("mlflow.store.tracking.sqlalchemy_store.KEKManager"):
        scorer = pair.register_scorer("0", "s", judge)
    (bound,) = pair.list_endpoint_bindings(endpoint_id)
    assert (bound.resource_id, bound.display_name) == (scorer.scorer_id, "s")
    pair.list_endpoint_bindings(resource_type="scorer", resource_id=scorer.scorer_id)
    cleaner(
        pair,
        "create_endpoint_binding",
        endpoint_id,
        "scorer",
        scorer.scorer_id,
        code="RESOURCE_ALREADY_EXISTS",
    )
    pair.delete_endpoint_binding(endpoint_id, "scorer", scorer.scorer_id)
    assert pair.list_endpoint_bindings() == []
    pair.register_scorer("0", "s", judge)
    pair.delete_gateway_endpoint(endpoint_id)
    assert pair.list_endpoint_bindings() == []


def guardrail(pair: Pair, name: str = "g", scorer: str = "judge", **more: Any) -> str:
    version = pair.register_scorer("0", scorer, JUDGE)
    made = pair.create_gateway_guardrail(
        name,
        version.scorer_id,
        version.scorer_version,
        GuardrailStage.BEFORE,
        GuardrailAction.VALIDATION,
        **more,
    )
    return str(made.guardrail_id)


def test_guardrails(pair: Pair) -> None:
    endpoint_id = endpoint(pair)
    guardrail_id = guardrail(pair, action_endpoint_id=endpoint_id, created_by="me")
    guardrail(pair)
    assert pair.get_gateway_guardrail(guardrail_id).action_endpoint_name == "chat"
    assert len(pair.pages("list_gateway_guardrails", 1)) == 2
    pair.update_gateway_endpoint(endpoint_id, "renamed")
    pair.get_gateway_guardrail(guardrail_id)
    pair.delete_gateway_endpoint(endpoint_id)
    assert pair.get_gateway_guardrail(guardrail_id).action_endpoint_name is None
    pair.delete_gateway_guardrail(guardrail_id)
    for method in ("get_gateway_guardrail", "delete_gateway_guardrail"):
        pair.refused(method, guardrail_id)
    pair.refused("list_gateway_guardrails", 0)


def test_guardrails_that_cannot_be(pair: Pair) -> None:
    scorer = pair.register_scorer("0", "judge", JUDGE).scorer_id
    custom = pair.register_scorer("0", "custom", CUSTOM).scorer_id
    how = (GuardrailStage.AFTER, GuardrailAction.SANITIZATION)
    pair.refused("create_gateway_guardrail", "g", "none", 1, *how)
    pair.refused("create_gateway_guardrail", "g", scorer, 2, *how)
    pair.refused("create_gateway_guardrail", "g", custom, 1, *how)
    cleaner_code = "RESOURCE_DOES_NOT_EXIST"
    ours, _ = pair.both("create_gateway_guardrail", "g", scorer, 1, *how, "e-none")
    assert ours.code == cleaner_code


def test_guardrails_of_endpoints(pair: Pair) -> None:
    """G11: no order puts a guardrail behind those that have one."""
    endpoint_id = endpoint(pair)
    ids = [guardrail(pair, f"g{number}") for number in range(4)]
    for guardrail_id, order in zip(ids, (2, None, 1, 1), strict=True):
        pair.add_guardrail_to_endpoint(endpoint_id, guardrail_id, order, "me")
    pair.list_endpoint_guardrail_configs(endpoint_id)
    pair.refused("add_guardrail_to_endpoint", endpoint_id, ids[0])
    pair.refused("add_guardrail_to_endpoint", endpoint_id, "gr-none")
    pair.refused("add_guardrail_to_endpoint", "e-none", ids[0])
    pair.update_endpoint_guardrail_config(endpoint_id, ids[0], 0)
    pair.update_endpoint_guardrail_config(endpoint_id, ids[2])
    found = pair.list_endpoint_guardrail_configs(endpoint_id)
    assert [each.guardrail_id for each in found] == [ids[0], ids[3], *sorted((ids[1], ids[2]))]
    pair.remove_guardrail_from_endpoint(endpoint_id, ids[0])
    for method in ("remove_guardrail_from_endpoint", "update_endpoint_guardrail_config"):
        pair.refused(method, endpoint_id, ids[0])
    pair.delete_gateway_guardrail(ids[1])
    assert len(pair.list_endpoint_guardrail_configs(endpoint_id)) == 2
    pair.refused("list_endpoint_guardrail_configs", "e-none")
    pair.delete_gateway_endpoint(endpoint_id)
    pair.refused("list_endpoint_guardrail_configs", endpoint_id)


def test_a_scorer_of_a_guardrail_stays(pair: Pair) -> None:
    """G12: what SQL leaves to its database has a code, and changes nothing either."""
    guardrail_id = guardrail(pair)
    pair.register_scorer("0", "judge", JUDGE)
    for version in (None, 1):
        cleaner(pair, "delete_scorer", "0", "judge", version, code="INVALID_STATE")
    pair.delete_scorer("0", "judge", 2)
    pair.delete_gateway_guardrail(guardrail_id)
    pair.delete_scorer("0", "judge")
