"""The places where MLflow's server asks for its SQL store are what the replacements were written for."""

import importlib
import inspect
import logging

import pydantic
import pytest

from genesis_flow.plugins.hooks import GATEWAY, HOOKS, JOB_HOOKS, LOGIN_HOOKS, Hook, apply_hooks


@pytest.mark.parametrize("hook", [*HOOKS, *JOB_HOOKS, *LOGIN_HOOKS], ids=lambda hook: hook.name)
def test_each_fits_the_installed_mlflow(hook: Hook) -> None:
    assert hook.why_not() is None


def test_others_are_left_to_mlflow() -> None:
    apply_hooks()
    apply_hooks()
    gateway = importlib.import_module("mlflow.server.gateway_api")
    with pytest.raises(Exception, match="SqlAlchemyStore"):
        gateway._validate_store(object())
    assert not hasattr(gateway._validate_store.replaces, "replaces")
    assert list(inspect.signature(gateway.get_endpoint_config).parameters) == ["endpoint_name", "store"]


@pytest.mark.parametrize(
    "changed", [("mlflow.utils.crypto", "gone"), ("mlflow.gone", "gone"), ("mlflow.utils.crypto", "wrap_dek")]
)
def test_a_place_that_has_changed_turns_the_feature_off(
    changed: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    module = importlib.import_module("mlflow.utils.crypto")
    before = module.unwrap_dek
    same = Hook("mlflow.utils.crypto", "unwrap_dek", ("wrapped_dek", "kek"), GATEWAY, lambda original: len)
    moved = Hook(*changed, ("something",), GATEWAY, lambda original: len)
    with caplog.at_level(logging.WARNING, "genesis_flow"):
        apply_hooks((same, moved))
    assert module.unwrap_dek is before
    assert [GATEWAY in record.message for record in caplog.records] == [True]


def test_bodies_are_described_once() -> None:
    """As MLflow describes them, anew for each who asks, and others' classes as before."""
    chat = importlib.import_module("mlflow.types.chat")
    apply_hooks()
    for described in (chat.ChatCompletionRequest, chat.ChatCompletionResponse):
        expected = pydantic.BaseModel.model_json_schema.__func__(described)  # type: ignore[attr-defined]
        described.model_json_schema().clear()
        assert described.model_json_schema() == expected
        assert described.model_json_schema(mode="serialization")["title"] == described.__name__

        class Other(described):  # type: ignore[misc, valid-type]
            more: int

        assert "more" in Other.model_json_schema()["properties"]
