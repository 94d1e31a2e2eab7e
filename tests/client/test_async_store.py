"""The asynchronous store as its users have it: MLflow's names, awaitable."""

import inspect

from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.time import get_current_time_millis

from genesis_flow.aio import MongoDBStore


async def test_runs_are_searched_under_the_public_name(store: MongoDBStore) -> None:
    for number in range(3):
        run = await store.create_run("0", "me", number, [], f"run {number}")
        await store.log_param(run.info.run_id, Param("p", str(number)))
    first = await store.search_runs(["0"], "params.p != '0'", 1, max_results=1)
    rest = await store.search_runs(["0"], "params.p != '0'", 1, max_results=1, page_token=first.token)
    assert [run.info.run_name for run in [*first, *rest]] == ["run 2", "run 1"]
    assert first.token is not None
    assert rest.token is None


async def test_a_run_needs_no_more_than_mlflows_client_asks_for(store: MongoDBStore) -> None:
    before = get_current_time_millis()
    run = await store.create_run("0", tags=[RunTag("mlflow.user", "ada")])
    assert before <= run.info.start_time <= get_current_time_millis()
    assert run.info.user_id == "ada"
    assert (await store.create_run("0")).info.user_id == "unknown"
    run_id = run.info.run_id
    await store.log_batch(run_id, metrics=[Metric("loss", 0.5, 1, 0)])
    await store.log_batch(run_id, params=[Param("rate", "0.1")])
    await store.log_batch(run_id, tags=[RunTag("team", "growth")])
    ended = await store.update_run_info(run_id, RunStatus.FINISHED)
    assert (ended.run_name, ended.end_time, ended.status) == (run.info.run_name, None, "FINISHED")
    found = {each.info.run_id: each for each in await store.search_runs(["0"])}
    assert (found[run_id].data.metrics, found[run_id].data.params) == ({"loss": 0.5}, {"rate": "0.1"})
    assert found[run_id].data.tags["team"] == "growth"
    await store.delete_run(run_id)
    assert run_id not in [each.info.run_id for each in await store.search_runs(["0"])]


def test_search_runs_takes_what_mlflows_takes() -> None:
    theirs, ours = (
        list(inspect.signature(each.search_runs).parameters) for each in (SqlAlchemyStore, MongoDBStore)
    )
    assert ours == theirs
