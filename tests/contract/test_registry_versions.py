"""Model versions: create, read, update, stages, delete, tags, copies."""

import itertools

import pytest
from mlflow.entities.model_registry import ModelVersionTag

from tests.contract.registry import RegistryPair, differs, registry

__all__ = ["registry"]

STAGES = ["None", "Staging", "Production", "Archived"]


def model_with_versions(registry: RegistryPair, count: int, name: str = "m") -> None:
    registry.create_registered_model(name)
    for number in range(count):
        registry.create_model_version(name, f"s3://bucket/{number}")


def test_all_fields(registry: RegistryPair) -> None:
    registry.create_registered_model("m")
    tags = [ModelVersionTag("a", "1"), ModelVersionTag("b.c", "2"), ModelVersionTag("a", "3")]
    created = registry.create_model_version("m", "s3://x", "run", tags, "http://link", "text", "local")
    assert (created.version, created.tags) == (1, {"a": "3", "b.c": "2"})
    registry.get_model_version("m", "1")
    assert registry.get_model_version_download_uri("m", 1) == "s3://x"
    registry.create_model_version("m", "")
    registry.get_model_version("m", 2)
    registry.get_registered_model("m")


def test_a_source_may_be_another_version(registry: RegistryPair) -> None:
    model_with_versions(registry, 1)
    registry.create_registered_model("copy")
    registry.create_model_version("copy", "models:/m/1")
    assert registry.get_model_version_download_uri("copy", 1) == "s3://bucket/0"
    registry.create_model_version("copy", "models:/copy/1")
    assert registry.get_model_version_download_uri("copy", 2) == "s3://bucket/0"
    for source in ("models:/m/7", "models:/no/1", "models:/"):
        registry.refused("create_model_version", "copy", source)
    # A refused one takes no number.
    assert registry.create_model_version("copy", "s3://x").version == 3


def test_copies(registry: RegistryPair) -> None:
    model_with_versions(registry, 2)
    registry.set_model_version_tag("m", 2, ModelVersionTag("k", "v"))
    registry.update_model_version("m", 2, "text")
    source = registry.get_model_version("m", 2)
    for number in (1, 2):
        copy = registry.copy_model_version(source, "copy")
        assert (copy.version, copy.tags, copy.source) == (number, {"k": "v"}, "models:/m/2")
        assert registry.get_model_version_download_uri("copy", number) == "s3://bucket/1"


@pytest.mark.parametrize("version", ["x", "1.5", "", 0, -1, 99, "99"])
def test_bad_and_unknown_versions_are_refused(registry: RegistryPair, version: object) -> None:
    model_with_versions(registry, 1)
    for call in (
        ("get_model_version", "m", version),
        ("get_model_version_download_uri", "m", version),
        ("update_model_version", "m", version, "text"),
        ("delete_model_version", "m", version),
        ("transition_model_version_stage", "m", version, "Staging", False),
        ("set_model_version_tag", "m", version, ModelVersionTag("k", "v")),
        ("delete_model_version_tag", "m", version, "k"),
    ):
        registry.refused(*call)
    registry.refused("get_model_version", "no", 1)
    registry.refused("delete_model_version", "no", 1)


@pytest.mark.parametrize("version", [None, 10**30, float("inf")])
def test_what_sql_stumbles_over_is_refused(registry: RegistryPair, version: object) -> None:
    model_with_versions(registry, 1)
    ours, theirs = differs(registry, "get_model_version", "m", version)
    assert ours.code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")
    assert theirs.error is not None


def test_stages_of_a_few_versions_in_every_order(registry: RegistryPair) -> None:
    """Sequences of transitions on three versions, archiving or not, leave what they leave in SQL."""
    moves = [(v, s, a) for v in (1, 3) for s in STAGES for a in (False, True)]
    registry.create_registered_model("m")
    for first, second in itertools.product(moves[::3], moves[1::4]):
        registry.delete_registered_model("m")
        model_with_versions(registry, 3)
        for version, stage, archive in (first, second, (2, "production", True)):
            refused = archive and stage.capitalize() in ("None", "Archived")
            play = registry.refused if refused else lambda name, *args: getattr(registry, name)(*args)
            play("transition_model_version_stage", "m", version, stage, archive)
        registry.get_registered_model("m")
        registry.get_latest_versions("m")
        registry.search_model_versions("name = 'm'", order_by=["version_number"])


def test_latest_versions(registry: RegistryPair) -> None:
    model_with_versions(registry, 6)
    for version, stage in ((2, "Staging"), (6, "Production"), (4, "staging"), (1, "Archived")):
        registry.transition_model_version_stage("m", version, stage, False)
    for stages in (None, [], ["Staging"], ["none", "PRODUCTION"], STAGES, ["Staging", "Staging"]):
        registry.get_latest_versions("m", stages)
    registry.refused("get_latest_versions", "m", ["Production", "nonsense"])
    registry.refused("transition_model_version_stage", "m", 1, "nonsense", False)
    registry.search_registered_models()


def test_deleted_versions(registry: RegistryPair) -> None:
    model_with_versions(registry, 4)
    registry.set_registered_model_alias("m", "best", 4)
    registry.set_registered_model_alias("m", "other", 3)
    registry.transition_model_version_stage("m", 4, "Production", False)
    registry.delete_model_version("m", 4)
    registry.refused("delete_model_version", "m", 4)
    registry.refused("get_model_version", "m", 4)
    registry.refused("get_model_version_by_alias", "m", "best")
    registry.refused("set_registered_model_alias", "m", "best", 4)
    registry.refused("transition_model_version_stage", "m", 4, "Staging", True)
    assert registry.get_registered_model("m").aliases == {"other": 3}
    registry.get_latest_versions("m")
    registry.delete_model_version("m", "3")
    assert [v.version for v in registry.get_latest_versions("m")] == [2]
    assert [v.version for v in registry.search_model_versions("name='m'")] == [2, 1]
    # Numbers of deleted versions are not given out again.
    assert registry.create_model_version("m", "s3://x").version == 5
    for version in (1, 2, 5):
        registry.delete_model_version("m", version)
    assert registry.get_latest_versions("m") == []
    assert (
        registry.refused("get_model_version_by_alias", "m", "latest").error_code == "RESOURCE_DOES_NOT_EXIST"
    )
    assert registry.create_model_version("m", "s3://x").version == 6


def test_tags(registry: RegistryPair) -> None:
    model_with_versions(registry, 2)
    for value in ("v", "", "w" * 3_000, "short", "x" * 100_000):
        registry.set_model_version_tag("m", 1, ModelVersionTag("a.b", value))
        assert registry.get_model_version("m", 1).tags == {"a.b": value}
        assert registry.get_model_version("m", 2).tags == {}
    registry.delete_model_version_tag("m", 1, "a.b")
    registry.delete_model_version_tag("m", 1, "a.b")
    registry.get_model_version("m", 1)
    for tag in (
        ModelVersionTag("k", "x" * 100_001),
        ModelVersionTag("k" * 251, "v"),
        ModelVersionTag("k", None),
        ModelVersionTag(None, "v"),
        ModelVersionTag("mlflow.prompt.text", "x" * 100_001),
    ):
        registry.refused("set_model_version_tag", "m", 1, tag)
        registry.refused("create_model_version", "m", "s3://x", tags=[tag])


def test_description(registry: RegistryPair) -> None:
    model_with_versions(registry, 1)
    for text in ("text", "", None):
        registry.update_model_version("m", 1, text)
        assert registry.get_model_version("m", 1).description == text


def test_the_logged_model_is_kept_unlike_in_sql(registry: RegistryPair) -> None:
    registry.create_registered_model("m")
    ours, theirs = differs(registry, "create_model_version", "m", "s3://x", "run", model_id="m-1")
    assert (ours.result.model_id, theirs.result.model_id) == ("m-1", None)
    assert registry.ours.get_model_version("m", 1).model_id == "m-1"
