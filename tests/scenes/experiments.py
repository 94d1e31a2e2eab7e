"""Experiments."""

from mlflow.entities import ExperimentTag, RunTag, ViewType

from tests.contract.trace_scenes import STARTED
from tests.scenes.stage import Stage


async def scene(stage: Stage) -> None:
    call = stage.track
    stage["experiment"] = made = await call("create_experiment", "ours", tags=[ExperimentTag("a.b", "1")])
    await call("get_experiment", made)
    await call("get_experiment_by_name", "ours")
    await call("search_experiments", ViewType.ALL)
    await call("set_experiment_tag", made, ExperimentTag("t", "1"))
    await call("delete_experiment_tag", made, "a.b")
    await call("rename_experiment", made, "renamed")
    await call("filter_active_experiment_ids", [made])
    doomed = await call("create_experiment", "doomed")
    await call("create_run", doomed, "me", STARTED, [RunTag("t", "v")], "taken along")
    await call("delete_experiment", doomed)
    await call("restore_experiment", doomed)
    await call("delete_experiment", doomed)
    await call("_hard_delete_experiment", doomed)
