"""One scene for each area: calls of every public method, with arguments that make it do its work.

Tests play the scenes with a `Stage` of their own, whose calls they watch, disturb or make wrongly. The list
is that of the areas: ``tests/scenes/<area>.py`` has its scene, a function ``scene(stage)``. Scenes are
played in the order of ``genesis_flow/stores/areas.py`` and find in the stage what earlier ones have made.
"""

import importlib
from collections.abc import Awaitable, Callable
from typing import Any

import mlflow
import pytest

from genesis_flow.stores.areas import AREAS
from tests.scenes.stage import Stage

__all__ = ["SCENES", "Stage", "play"]

SCENES: dict[str, Callable[[Stage], Awaitable[Any]]] = {
    area.name: importlib.import_module(f"tests.scenes.{area.name}").scene for area in AREAS
}


async def play(stage: Stage, *areas: str) -> None:
    """All scenes, or those of some areas."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
        patch.setenv("MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES", "0")
        if stage.linked_uri is not None:
            mlflow.set_tracking_uri(stage.linked_uri)
        for area in areas or SCENES:
            await SCENES[area](stage)
