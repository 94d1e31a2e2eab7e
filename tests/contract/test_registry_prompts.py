"""Prompts: registered models with a tag, and their versions."""

import pytest
from mlflow.entities.model_registry.prompt_version import PromptModelConfig
from pydantic import BaseModel

from tests.contract.registry import RegistryPair, differs, registry

__all__ = ["registry"]

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{ question }}"}]


class Answer(BaseModel):
    text: str


def filled(registry: RegistryPair) -> None:
    registry.create_prompt("greeting", "says hello", {"team": "a", "_mlflow_experiment_ids": ",1,12,"})
    for text in ("Hello {{name}}", "Hi {{name}}", "Long " * 2_000):
        registry.create_prompt_version("greeting", text, f"commit {text[:5]}", {"lang": "en"})
    registry.create_prompt("chat", tags={"team": "b", "_mlflow_experiment_ids": ",2,"})
    registry.create_prompt_version("chat", CHAT, response_format=Answer)
    registry.create_registered_model("model")
    registry.create_model_version("model", "s3://x")


def test_versions(registry: RegistryPair) -> None:
    filled(registry)
    assert registry.get_prompt_version("greeting", 1).template == "Hello {{name}}"
    assert registry.get_prompt_version("greeting", "3").template == "Long " * 2_000
    assert registry.get_prompt_version("greeting", "latest").version == 3
    assert registry.get_prompt_version("chat", 1).template == CHAT
    registry.create_prompt_version("chat", CHAT, model_config={"temperature": 0.5, "model_name": "m"})
    registry.create_prompt_version("chat", "x", model_config=PromptModelConfig(temperature=0.1))
    for version in (2, 3):
        registry.get_prompt_version("chat", version)
    for version in (9, "no-alias", "latest"):
        registry.refused("get_prompt_version", "model", version)
    for args in (("greeting", 9), ("greeting", "none"), ("no", 1), ("no", "a"), ("greeting", "a b")):
        registry.refused("get_prompt_version", *args)
    assert registry.refused("get_prompt_version", "model", 1).error_code == "INVALID_PARAMETER_VALUE"


def test_prompts(registry: RegistryPair) -> None:
    filled(registry)
    assert registry.get_prompt("greeting").tags["team"] == "a"
    assert registry.get_prompt("model") is None
    for name in ("no", "a/b", "", None):
        assert registry.get_prompt(name) is None
    registry.set_prompt_tag("greeting", "team", "c")
    registry.set_prompt_tag("greeting", "long", "x" * 5_000)
    registry.delete_prompt_tag("greeting", "_mlflow_experiment_ids")
    registry.get_prompt("greeting")
    registry.delete_prompt("greeting")
    assert registry.get_prompt("greeting") is None
    registry.refused("delete_prompt", "greeting")


@pytest.mark.parametrize(
    "filter_string",
    [
        None,
        "name = 'chat'",
        "name LIKE 'g%' AND tags.team = 'a'",
        "experiment_id = '1'",
        'experiment_id="12"',
        "experiment_id = '3'",
        "experiment_id = '1' AND name = 'greeting'",
        "name = 'chat' AND experiment_id = '2'",
        "name = 'model'",
        "tags.`mlflow.prompt.is_prompt` = 'true'",
    ],
)
def test_searches(registry: RegistryPair, filter_string: str | None) -> None:
    filled(registry)
    registry.search_prompts(filter_string)
    registry.pages("search_prompts", filter_string, 1)
    registry.search_prompts(filter_string, 10, ["name DESC"])


@pytest.mark.parametrize("filter_string", ["experiment_id = 'x'", "nonsense", "name > 'a'"])
def test_bad_searches(registry: RegistryPair, filter_string: str) -> None:
    registry.refused("search_prompts", filter_string)
    registry.refused("search_prompts", None, 1_001)


def test_versions_of_a_prompt(registry: RegistryPair) -> None:
    filled(registry)
    assert [v.version for v in registry.pages("search_prompt_versions", "greeting", 1)] == [3, 2, 1]
    assert [v.version for v in registry.search_prompt_versions("greeting")] == [3, 2, 1]
    registry.refused("search_prompt_versions", "model")
    registry.refused("search_prompt_versions", "no")
    registry.refused("search_prompt_versions", "greeting", 0)
    registry.delete_prompt_version("greeting", "2")
    registry.refused("delete_prompt_version", "greeting", "two")
    registry.refused("delete_prompt_version", "greeting", 2)
    assert [v.version for v in registry.search_prompt_versions("greeting")] == [3, 1]


def test_names_with_quotes_have_versions_unlike_in_sql(registry: RegistryPair) -> None:
    registry.create_prompt("it's")
    registry.create_prompt_version("it's", "text")
    ours, theirs = differs(registry, "search_prompt_versions", "it's")
    assert len(ours.result) == 1
    assert theirs.error is not None


def test_aliases_and_version_tags(registry: RegistryPair) -> None:
    filled(registry)
    registry.set_prompt_alias("greeting", "production", 2)
    assert registry.get_prompt_version_by_alias("greeting", "production").version == 2
    assert registry.get_prompt_version("greeting", "production").aliases == ["production"]
    registry.set_prompt_version_tag("greeting", "2", "reviewed", "yes")
    assert registry.get_prompt_version("greeting", 2).tags["reviewed"] == "yes"
    registry.delete_prompt_version_tag("greeting", 2, "reviewed")
    registry.get_prompt_version("greeting", 2)
    registry.delete_prompt_alias("greeting", "production")
    registry.refused("get_prompt_version_by_alias", "greeting", "production")
    for bad in ("latest", "v2", "a b"):
        registry.refused("set_prompt_alias", "greeting", bad, 1)
    registry.refused("set_prompt_version_tag", "greeting", "two", "k", "v")
    registry.refused("create_prompt_version", "greeting", "x" * 100_001)
    assert registry.create_prompt_version("greeting", "x" * 100_000).version == 4
