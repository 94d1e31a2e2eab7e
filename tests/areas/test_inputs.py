"""Inputs of runs: what a race between logging them and deleting the run comes to."""

import pytest
from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore
from genesis_flow.areas.runs import inputs


async def test_a_run_deleted_meanwhile_takes_no_input(
    store: MongoDBStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    used = [DatasetInput(Dataset("cities", "1", "local", "somewhere"), [])]
    read = inputs.find_active_run
    reads = 0

    async def read_then_delete(*arguments: object) -> object:
        nonlocal reads
        reads += 1
        run = await read(*arguments)
        if reads == 1:
            await store.delete_run(run_id)
        return run

    monkeypatch.setattr(inputs, "find_active_run", read_then_delete)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        await store.log_inputs(run_id, used)
    monkeypatch.undo()
    await store.restore_run(run_id)
    assert (await store.get_run(run_id)).inputs.dataset_inputs == []
    await store.log_inputs(run_id, used)
    await store.log_inputs(run_id, used)
    assert len((await store.get_run(run_id)).inputs.dataset_inputs) == 1
