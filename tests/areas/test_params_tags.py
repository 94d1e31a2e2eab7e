"""Params: the limit that an installation may set below MLflow's."""

from pathlib import Path

import pytest
from mlflow.entities import Param
from mlflow.exceptions import MlflowException

from genesis_flow.aio import MongoDBStore


async def test_a_lower_limit_for_param_values_holds(
    store_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "mlflow.conf"
    conf.write_text("[security]\nmax_param_value_length = 10\n")
    monkeypatch.setenv("GENESIS_FLOW_CONF", str(conf))
    store = MongoDBStore(store_uri, str(tmp_path))
    run_id = (await store.create_run("0", "me", 1, [], None)).info.run_id
    await store.log_param(run_id, Param("single", "x" * 20))
    await store.log_batch(run_id, [], [Param("batch", "y" * 20)], [])
    assert (await store.get_run(run_id)).data.params == {"single": "x" * 10, "batch": "y" * 10}
    monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")
    with pytest.raises(MlflowException, match="exceeds the maximum length"):
        await store.log_param(run_id, Param("refused", "x" * 20))
    await store.close()
