"""Registered models: create, read, update, rename, delete, tags, aliases."""

import pytest
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag

from tests.contract.registry import RegistryPair, differs, registry

__all__ = ["registry"]

BAD_NAMES = ["", "  ", None, "a/b", "a:b", "../x", "./x"]
BAD_ALIASES = ["", "a b", "a.b", "ü!", "x" * 256, None]


@pytest.mark.parametrize("name", ["m", "with space", "ünïcode 𝄞", "a.b$c%d", "n" * 300, "quo'te"])
def test_names(registry: RegistryPair, name: str) -> None:
    registry.create_registered_model(name)
    assert registry.get_registered_model(name).name == name
    registry.create_model_version(name, "s3://x")
    registry.get_registered_model(name)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused(registry: RegistryPair, name: str) -> None:
    registry.create_registered_model("there")
    for call in (
        ("create_registered_model", name),
        ("get_registered_model", name),
        ("update_registered_model", name, "text"),
        ("rename_registered_model", "there", name),
        ("rename_registered_model", name, "else"),
        ("delete_registered_model", name),
        ("get_latest_versions", name),
        ("set_registered_model_tag", name, RegisteredModelTag("k", "v")),
        ("delete_registered_model_tag", name, "k"),
        ("create_model_version", name, "s3://x"),
        ("get_model_version", name, 1),
        ("set_registered_model_alias", name, "a", 1),
        ("get_model_version_by_alias", name, "a"),
    ):
        assert registry.refused(*call).error_code == "INVALID_PARAMETER_VALUE"


def test_unknown_models_are_refused(registry: RegistryPair) -> None:
    for call in (
        ("get_registered_model", "no"),
        ("update_registered_model", "no", "text"),
        ("rename_registered_model", "no", "new"),
        ("delete_registered_model", "no"),
        ("get_latest_versions", "no"),
        ("set_registered_model_tag", "no", RegisteredModelTag("k", "v")),
        ("delete_registered_model_tag", "no", "k"),
        ("create_model_version", "no", "s3://x"),
        ("delete_registered_model_alias", "no", "a"),
        ("get_model_version_by_alias", "no", "a"),
        ("get_model_version_by_alias", "no", "latest"),
    ):
        assert registry.refused(*call).error_code == "RESOURCE_DOES_NOT_EXIST"


def test_a_name_is_given_once(registry: RegistryPair) -> None:
    registry.create_registered_model("m", [RegisteredModelTag("a", "1"), RegisteredModelTag("a", "2")], "d")
    registry.create_prompt("p")
    prompt = [RegisteredModelTag("mlflow.prompt.is_prompt", "true")]
    registry.refused("create_registered_model", "m")
    registry.refused("create_registered_model", "m", prompt)
    registry.refused("create_registered_model", "p")
    registry.refused("create_prompt", "p")
    registry.refused("create_prompt", "m")
    registry.get_registered_model("m")


def test_description(registry: RegistryPair) -> None:
    registry.create_registered_model("m", None, "first")
    for text in ("second", "", None):
        registry.update_registered_model("m", text)
        assert registry.get_registered_model("m").description == text


def test_rename_takes_versions_and_aliases_along(registry: RegistryPair) -> None:
    registry.create_registered_model("old", [RegisteredModelTag("k", "v")])
    for number in range(3):
        registry.create_model_version("old", f"s3://{number}", tags=[ModelVersionTag("n", str(number))])
    registry.set_registered_model_alias("old", "best", 2)
    registry.transition_model_version_stage("old", 1, "Production", False)
    registry.rename_registered_model("old", "new")
    registry.get_registered_model("new")
    registry.refused("get_registered_model", "old")
    registry.refused("get_model_version", "old", 1)
    assert registry.get_model_version_by_alias("new", "best").version == 2
    assert [v.name for v in registry.search_model_versions("name = 'new'")] == ["new"] * 3
    assert registry.search_model_versions("name = 'old'") == []
    # The old name is free.
    registry.create_registered_model("old")
    assert registry.create_model_version("old", "s3://x").version == 1
    registry.get_model_version("old", 1)
    registry.get_model_version("new", 1)


def test_rename_onto_a_taken_name_changes_nothing(registry: RegistryPair) -> None:
    for name in ("a", "b"):
        registry.create_registered_model(name)
        registry.create_model_version(name, f"s3://{name}")
    assert registry.refused("rename_registered_model", "a", "b").error_code == "RESOURCE_ALREADY_EXISTS"
    assert registry.get_model_version("a", 1).source == "s3://a"
    assert registry.get_model_version("b", 1).source == "s3://b"
    registry.rename_registered_model("a", "a")


def test_delete_begins_at_version_1_again(registry: RegistryPair) -> None:
    registry.create_registered_model("m", [RegisteredModelTag("k", "v")])
    registry.create_model_version("m", "s3://x")
    registry.set_registered_model_alias("m", "best", 1)
    registry.delete_registered_model("m")
    registry.refused("get_registered_model", "m")
    registry.refused("get_model_version", "m", 1)
    registry.refused("delete_registered_model", "m")
    assert registry.search_model_versions("name = 'm'") == []
    model = registry.create_registered_model("m")
    assert (model.tags, model.aliases) == ({}, {})
    assert registry.create_model_version("m", "s3://y").version == 1


@pytest.mark.parametrize("key", ["k", "a.b", "$x", "100%", "k" * 250])
@pytest.mark.parametrize("value", ["v", "", "v" * 5_000, "ü𝄞\n"])
def test_tags(registry: RegistryPair, key: str, value: str) -> None:
    registry.create_registered_model("m")
    if "$" in key or "%" in key:
        registry.refused("set_registered_model_tag", "m", RegisteredModelTag(key, value))
        return
    for each in ("before", value, "short", "w" * 2_000, value):
        registry.set_registered_model_tag("m", RegisteredModelTag(key, each))
        assert registry.get_registered_model("m").tags == {key: each}
    registry.delete_registered_model_tag("m", key)
    registry.delete_registered_model_tag("m", key)
    assert registry.get_registered_model("m").tags == {}


@pytest.mark.parametrize("key", [None, "", "a$", "../a", "k" * 251])
def test_bad_tags_are_refused(registry: RegistryPair, key: str) -> None:
    registry.create_registered_model("m")
    registry.refused("set_registered_model_tag", "m", RegisteredModelTag(key, "v"))
    registry.refused("create_registered_model", "n", [RegisteredModelTag(key, "v")])
    registry.both("delete_registered_model_tag", "m", key)
    registry.refused("set_registered_model_tag", "m", RegisteredModelTag("k", "v" * 100_001))


def test_aliases(registry: RegistryPair) -> None:
    registry.create_registered_model("m")
    for number in range(3):
        registry.create_model_version("m", f"s3://{number}")
    for alias, number in (("best", 1), ("worst", "1"), ("best", 2), ("Über-1_x", 3), ("best", 2)):
        registry.set_registered_model_alias("m", alias, number)
        assert registry.get_model_version_by_alias("m", alias).version == int(number)
        registry.get_registered_model("m")
        registry.get_model_version("m", 1)
    assert registry.get_model_version_by_alias("m", "LATEST").version == 3
    registry.get_latest_versions("m")
    registry.search_model_versions("name = 'm'")
    registry.delete_registered_model_alias("m", "best")
    registry.delete_registered_model_alias("m", "best")
    assert registry.refused("get_model_version_by_alias", "m", "best").error_code == "INVALID_PARAMETER_VALUE"
    registry.get_registered_model("m")


@pytest.mark.parametrize("alias", [*BAD_ALIASES, "latest", "LaTest", "v12", "V3"])
def test_bad_and_reserved_aliases_are_refused(registry: RegistryPair, alias: str) -> None:
    registry.create_registered_model("m")
    registry.create_model_version("m", "s3://x")
    assert (
        registry.refused("set_registered_model_alias", "m", alias, 1).error_code == "INVALID_PARAMETER_VALUE"
    )
    if alias in BAD_ALIASES:
        registry.refused("get_model_version_by_alias", "m", alias)
        registry.refused("delete_registered_model_alias", "m", alias)


def test_an_alias_needs_a_version(registry: RegistryPair) -> None:
    registry.create_registered_model("m")
    registry.refused("set_registered_model_alias", "m", "best", 1)
    registry.refused("set_registered_model_alias", "no", "best", 1)
    registry.refused("set_registered_model_alias", "m", "best", "one")
    assert (
        registry.refused("get_model_version_by_alias", "m", "latest").error_code == "RESOURCE_DOES_NOT_EXIST"
    )


def test_prompt_tag_makes_a_prompt(registry: RegistryPair) -> None:
    registry.create_registered_model("m")
    registry.set_registered_model_tag("m", RegisteredModelTag("mlflow.prompt.is_prompt", "true"))
    assert registry.search_registered_models() == []
    assert [prompt.name for prompt in registry.search_prompts()] == ["m"]
    registry.set_registered_model_tag("m", RegisteredModelTag("mlflow.prompt.is_prompt", "false"))
    assert [model.name for model in registry.search_registered_models()] == ["m"]
    registry.delete_registered_model_tag("m", "mlflow.prompt.is_prompt")
    assert registry.search_prompts() == []


@pytest.mark.parametrize("limit", [0, -1])
def test_page_sizes_below_one_are_refused_unlike_in_sql(registry: RegistryPair, limit: int) -> None:
    ours, theirs = differs(registry, "search_registered_models", max_results=limit)
    assert (ours.code, theirs.code) == ("INVALID_PARAMETER_VALUE", None)
