"""Runners of MLflow's executor engine, forked from one process that has loaded MLflow.

MLflow's own loop claims, renews and reports; the work is done in the runner itself, which spares a process
for each job. Each line of the input is answered with the id of a new runner; at its end all are killed. The
store's URI comes as MLflow's servers have it.
"""

import json
import os
import signal
import sys
import threading
from typing import Any

import pymongo
from mlflow.entities._job_status import JobStatus
from mlflow.server.jobs import _executor_runner, job, utils
from mlflow.server.jobs.executor import AbstractJobExecutor, JobExecutorConfig, JobRecoveryResult, JobResult

from genesis_flow.compat.jobs import lease_seconds
from genesis_flow.plugins import job_hooks

KIND = "work"
AT_ONCE = 3
LOOK_SECONDS = 0.3
POLL_SECONDS = 0.1


@job(name=KIND, max_workers=AT_ONCE)
def work(seconds: float) -> None:
    """Only what MLflow knows of the job; ``_Executor`` does it."""


class _Executor(AbstractJobExecutor):
    """Notes for each run its process and its claim, when it begins and when it has done its work."""

    def __init__(self, notes: "pymongo.collection.Collection[dict[str, Any]]") -> None:
        super().__init__(JobExecutorConfig(job_lease_ttl=lease_seconds()))
        self._notes = notes
        self._jobs = notes.database["jobs"]
        self._running: dict[str, tuple[threading.Thread, threading.Event, list[str]]] = {}

    def submit_job(self, job_id: str, *args: Any, **given: Any) -> None:
        stop, results = threading.Event(), list[str]()
        seconds = given["params"]["seconds"]
        found = self._jobs.find_one({"_id": job_id}, {"claim": 1}) or {}
        note = {"job": job_id, "pid": os.getpid(), "claim": found.get("claim")}

        def run() -> None:
            self._notes.insert_one({**note, "what": "begun"})
            if not stop.wait(seconds):
                self._notes.insert_one({**note, "what": "done"})
                results.append(json.dumps(note["claim"]))

        thread = threading.Thread(target=run, daemon=True)
        self._running[job_id] = (thread, stop, results)
        thread.start()

    def wait_for_job(self, job_id: str) -> JobResult:
        thread, _, results = self._running[job_id]
        thread.join()
        del self._running[job_id]
        if not results:
            return JobResult(status=JobStatus.CANCELED)
        return JobResult(status=JobStatus.SUCCEEDED, result=results[0])

    def cancel_job(self, job_id: str) -> None:
        if (running := self._running.get(job_id)) is not None:
            running[1].set()

    def recover_jobs(self, unfinished_job_ids: list[str]) -> list[JobRecoveryResult]:
        raise AssertionError("jobs that have leases are not recovered at the start")


def _run(uri: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](uri) as client:
        executor = _Executor(client.get_default_database()["notes"])
        executor.start_executor()
        _executor_runner.run_executor_loop(executor, poll_interval=POLL_SECONDS)


def _main(uri: str) -> None:
    job_hooks.LOOK_SECONDS = LOOK_SECONDS
    utils._job_name_to_fn_fullname_map[KIND] = f"{__name__}.{work.__name__}"
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what was killed leaves no zombie
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _run(uri)
            os._exit(1)
        print(pid, flush=True)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    _main(os.environ["_MLFLOW_SERVER_FILE_STORE"])
