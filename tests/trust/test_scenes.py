"""No public method of a store is without a scene: the tests that play scenes would never see it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genesis_flow.aio import MongoDBModelRegistryStore, MongoDBStore
from genesis_flow.mongo.declaration import AreaDeclaration
from genesis_flow.stores.areas import AREAS
from tests.scenes import SCENES, Stage, play
from tests.versions import SINCE_3_18

# An older MLflow has no skills, and their methods say so.
PLAYED = [area for area in AREAS if SINCE_3_18 or area.name != "skills"]


def methods(area: AreaDeclaration) -> Iterator[tuple[str, str]]:
    """The store and the name of each call that an area gives to it."""
    for store, parts in (("tracking", area.tracking), ("registry", area.registry)):
        for part in parts:
            yield from ((store, name) for name, member in vars(part).items() if is_call(member))


def is_call(member: Any) -> bool:
    return hasattr(member, "changes_data")


async def test_every_method_has_a_scene(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scenes are ordinary calls, so strict input must refuse none of them."""
    monkeypatch.setenv("MLFLOW_STRICT_INPUT_VALIDATION", "true")
    called: set[tuple[str, str]] = set()
    async with MongoDBStore(store_uri) as tracking, MongoDBModelRegistryStore(store_uri) as registry:
        assert None not in (tracking.settings.strict_input, registry.settings.strict_input)

        async def track(name: str, /, *args: Any, **kwargs: Any) -> Any:
            called.add(("tracking", name))
            return await getattr(tracking, name)(*args, **kwargs)

        async def register(name: str, /, *args: Any, **kwargs: Any) -> Any:
            called.add(("registry", name))
            return await getattr(registry, name)(*args, **kwargs)

        await play(Stage(track, register, tmp_path, linked_uri=store_uri))
    for area in PLAYED:
        missed = [name for store, name in methods(area) if (store, name) not in called]
        assert not missed, f"no scene calls {missed}: tests/scenes/{area.name}.py is the place"
    assert called == {method for area in PLAYED for method in methods(area)}


@pytest.mark.parametrize("area", AREAS, ids=lambda area: str(area.name))
def test_every_area_has_methods_and_a_scene_of_its_own(area: AreaDeclaration) -> None:
    assert list(methods(area))
    assert SCENES[area.name].__module__ == f"tests.scenes.{area.name}"


def test_a_public_coroutine_is_an_operation() -> None:
    """Without the mark a method would have no audit record and no blocking twin, and need no scene."""
    parts = [part for area in AREAS for part in (*area.tracking, *area.registry)]
    plain = {
        f"{part.__name__}.{name}"
        for part in parts
        for name, member in vars(part).items()
        if callable(member) and not name.startswith("_") and not is_call(member)
    }
    assert plain == {"Experiments.opened", "RegisteredModels.opened"}  # the stores' own
