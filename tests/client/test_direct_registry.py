"""Reads of one model, version or prompt, which blocking callers make themselves where the server is near."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBModelRegistryStore
from genesis_flow.sync.driver import BlockingDatabase
from tests.commands import CommandRecorder

Read = Callable[[MongoDBModelRegistryStore], Any]

READS: dict[str, Read] = {
    "model": lambda registry: registry.get_registered_model("model"),
    "latest versions": lambda registry: registry.get_latest_versions("model"),
    "version": lambda registry: registry.get_model_version("model", "2"),
    "download URI": lambda registry: registry.get_model_version_download_uri("model", "2"),
    "alias": lambda registry: registry.get_model_version_by_alias("model", "best"),
    "alias latest": lambda registry: registry.get_model_version_by_alias("model", "latest"),
    "prompt's version": lambda registry: registry.get_prompt_version("prompt", "1"),
    "prompt's alias": lambda registry: registry.get_prompt_version_by_alias("prompt", "good"),
}


@pytest.fixture
def registry(store_uri: str) -> Iterator[MongoDBModelRegistryStore]:
    made = MongoDBModelRegistryStore(store_uri)
    made.create_registered_model("model")
    for number in range(3):
        made.create_model_version("model", f"/models/{number}")
    made.set_registered_model_alias("model", "best", "2")
    made.transition_model_version_stage("model", "1", "Production", archive_existing_versions=False)
    made.create_prompt("prompt")
    made.create_prompt_version("prompt", "Say {{what}}")
    made.set_prompt_alias("prompt", "good", "1")
    yield made
    made.close()


def plain(found: Any) -> Any:
    if isinstance(found, list):
        return [plain(each) for each in found]
    return found if isinstance(found, str) else vars(found)


@pytest.mark.parametrize("name", READS)
def test_reads_are_the_same_by_both_ways(
    registry: MongoDBModelRegistryStore,
    commands: CommandRecorder,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    ways: list[Any] = []
    in_portal = registry._in_portal
    monkeypatch.setattr(registry, "_in_portal", lambda work: ways.append(work) or in_portal(work))
    found = {}
    for round_trip, on_loop in ((0.02, 1), (0.0003, 0)):
        registry._directs.clear()
        monkeypatch.setattr(BlockingDatabase, "_ping", lambda database, seconds=round_trip: seconds)
        READS[name](registry)  # opens the twin, by the loop
        ways.clear()
        with commands.recording() as sent:
            found[round_trip] = plain(READS[name](registry))
        assert len(ways) == on_loop
        assert {name for name, _ in sent} == {"find"}
        assert len(sent) == (3 if name in ("model", "latest versions") else 2)
    assert found[0.02] == found[0.0003]


@pytest.mark.parametrize(
    ("read", "error"),
    [
        (lambda registry: registry.get_registered_model("other"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda registry: registry.get_model_version("model", "9"), "RESOURCE_DOES_NOT_EXIST"),
        (lambda registry: registry.get_model_version("model", "x"), "INVALID_PARAMETER_VALUE"),
        (lambda registry: registry.get_model_version_by_alias("model", "worst"), "INVALID_PARAMETER_VALUE"),
    ],
)
def test_what_is_not_there(registry: MongoDBModelRegistryStore, read: Read, error: str) -> None:
    with pytest.raises(MlflowException) as caught:
        read(registry)
    assert caught.value.error_code == error
