"""Runs, their params and tags, and their datasets."""

from datetime import UTC, datetime

from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunStatus, RunTag, ViewType
from mlflow.models import Model

from tests.contract.trace_scenes import STARTED
from tests.scenes.stage import Stage


async def scene(stage: Stage) -> None:
    call, experiment = stage.track, stage["experiment"]
    for name in ("run", "second", "doomed run"):
        run = await call("create_run", experiment, "me", STARTED, [RunTag("t", "v")], name)
        stage[name] = run.info.run_id
    run_id = stage["run"]
    await call("get_run", run_id)
    await call("log_param", run_id, Param("p", "1"))
    await call("set_tag", run_id, RunTag("t", "w"))
    await call("delete_tag", run_id, "t")
    await call("update_run_info", run_id, RunStatus.FINISHED, STARTED + 9, "new name")
    await call(
        "log_inputs",
        run_id,
        [
            DatasetInput(Dataset("d", "1", "local", "here"), [InputTag("mlflow.data.context", "train")]),
            DatasetInput(Dataset("e", "2", "local", "there"), []),
        ],
    )
    await call("_search_datasets", [experiment])
    await call("_search_runs", [experiment], "params.p = '1'", ViewType.ALL, 10, None, None)
    made = datetime.fromtimestamp(STARTED / 1000, UTC)
    await call("record_logged_model", run_id, Model(artifact_path="m", run_id=run_id, utc_time_created=made))
    await call("delete_run", run_id)
    await call("restore_run", run_id)
    await call("delete_run", stage["doomed run"])
    await call("_get_deleted_runs", 0)
    await call("_hard_delete_run", stage["doomed run"])
