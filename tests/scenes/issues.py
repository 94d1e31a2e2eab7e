"""Issues."""

from typing import Any

from tests.scenes.stage import Stage
from tests.versions import SINCE_3_18


async def scene(stage: Stage) -> None:
    call, experiment = stage.track, stage["experiment"]
    newer: dict[str, Any] = {"metadata": {"a.b": "c"}, "last_seen_timestamp": 5} if SINCE_3_18 else {}
    made = await call(
        "create_issue",
        experiment,
        "issue",
        "d",
        created_by="me",
        categories=["c"],
        source_run_id=stage["run"],
        **newer,
    )
    await call("get_issue", made.issue_id)
    await call("search_issues", experiment, include_trace_count=True)
    await call("update_issue", made.issue_id, name="other", **newer)
