"""The asynchronous store as its users have it: MLflow's names, awaitable."""

import inspect

from mlflow.entities import Param
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

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


def test_search_runs_takes_what_mlflows_takes() -> None:
    theirs, ours = (
        list(inspect.signature(each.search_runs).parameters) for each in (SqlAlchemyStore, MongoDBStore)
    )
    assert ours == theirs
