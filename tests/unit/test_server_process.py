"""What ``genesis-flow server`` does with the processes that it starts, and with what they leave."""

import sys
from pathlib import Path

from genesis_flow.cli.server_plan import Plan
from genesis_flow.cli.server_process import run
from genesis_flow.core.settings import ENV_QUEUES_NOTE

LEAVES_QUEUES = (
    f"import os, pathlib; pathlib.Path(os.environ['{ENV_QUEUES_NOTE}']).write_text(os.environ['QUEUES'])"
)


def test_queues_that_a_server_leaves_are_removed(tmp_path: Path) -> None:
    """They hold keys, and a server that is killed does not remove them itself."""
    queues = tmp_path / "queues"
    queues.mkdir()
    (queues / "a queue").write_text("a key")
    plan = Plan(
        command=(sys.executable, "-S", "-c", LEAVES_QUEUES),
        environment={"QUEUES": str(queues)},
        host="127.0.0.1",
        address="http://127.0.0.1:9",
        health="/health",
        has_health_endpoints=True,
        jobs="huey",
    )
    assert run(plan) == 1
    assert not queues.exists()
