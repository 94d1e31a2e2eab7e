"""What stands between the caller of a public method and the method itself."""

import inspect
from typing import Any

import pytest

from genesis_flow.core.settings import Settings
from genesis_flow.mongo import audit, operation
from genesis_flow.mongo.operation import Area, long_mutation, mutation


class Counting(Area):
    """Its methods count the frames of ``operation.py`` below them, with no database."""

    database = None  # type: ignore[assignment]

    async def open(self) -> None:
        """Nothing to open."""

    @operation.operation
    async def asked(self) -> int:
        return frames_of_operation()

    @mutation
    async def changed(self) -> int:
        return frames_of_operation()

    @long_mutation
    async def changed_for_long(self) -> int:
        return frames_of_operation()


def frames_of_operation() -> int:
    frame, count = inspect.currentframe(), 0
    while frame is not None:
        count += frame.f_code.co_filename == operation.__file__
        frame = frame.f_back
    return count


@pytest.mark.parametrize("audited", ["false", "true"])
async def test_a_method_is_the_third_frame_of_its_call(audited: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[Any] = []

    async def write(database: None, *record: Any) -> None:
        records.extend(record)

    monkeypatch.setattr(audit, "introduce", write)
    monkeypatch.setattr(audit, "write", write)
    area = Counting(Settings.resolve("mongodb://localhost/mlflow", environ={"GENESIS_FLOW_AUDIT": audited}))
    counts = [await area.asked(), await area.changed(), await area.changed_for_long()]
    assert max(counts) <= 2
    assert bool(records) == (audited == "true")
