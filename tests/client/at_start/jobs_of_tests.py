"""A job that the servers of tests run beside MLflow's own."""

import os
import time
from typing import Any

from mlflow.entities._job import JobProgress
from mlflow.server.jobs import job
from mlflow.server.jobs.progress import update_job_progress, update_status_details


@job(name="tell", max_workers=2)
def tell(word: str, ends: bool = True) -> dict[str, Any]:
    """Answer with the word; or say how far it is, and go on until somebody cancels it."""
    update_status_details({"stage": word, "run": os.environ["_GENESIS_FLOW_JOB_RUN"]})
    update_job_progress("half", JobProgress(phase="telling", completed=1, total=2, unit="word"))
    while not ends:
        time.sleep(0.1)
    return {"told": word}
