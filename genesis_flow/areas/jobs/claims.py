"""The runs that a store has begun.

MLflow's calls name a job and not the run of it. So a store remembers the runs that it has begun: its later
calls for such a job count for this run alone. The process that does the work has a store of its own, which
is told the run by the environment.
"""

import os
from typing import TYPE_CHECKING

from genesis_flow.core.settings import ENV_JOB_RUN
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.operation import Area

if TYPE_CHECKING:
    from genesis_flow.core.settings import Settings


class Claims(Area):
    def __init__(self, settings: "Settings") -> None:
        super().__init__(settings)
        # The runs that this store has begun and not seen end, by job.
        self._claimed: dict[str, str] = _run_of_this_process()

    def _own(self, job_id: str) -> Document:
        """A condition: the job's run is the one that this store has begun, if it has begun any."""
        run = self._claimed.get(job_id)
        return {} if run is None else {"claim": run}

    def _has_lost(self, job: Document) -> bool:
        """Whether another has taken over the run of this job that this store has begun."""
        run = self._claimed.get(job["_id"])
        return run is not None and job.get("claim") != run

    def _forget(self, job_id: str, ended: bool = True) -> None:
        if ended:
            self._claimed.pop(job_id, None)


def _run_of_this_process() -> dict[str, str]:
    job_id, _, run = os.environ.get(ENV_JOB_RUN, "").partition(" ")
    return {job_id: run} if run else {}
