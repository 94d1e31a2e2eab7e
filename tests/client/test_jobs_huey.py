"""Background jobs of ``genesis-flow server --jobs huey``; what engines share is tried with the executor."""

import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from mlflow.entities import ExperimentTag, ViewType

from genesis_flow import MongoDBStore
from tests.client.job_servers import ENDPOINT, JobServer, job_server, log_trace, queue_of
from tests.client.test_server_command import linux
from tests.mongod import Mongod
from tests.versions import SINCE_3_18, since_3_18

pytestmark = [linux, pytest.mark.timeout(900)]


WORKS = {"JOBS_OF_TESTS": "jobs_of_tests.tell", "MLFLOW_SERVER_JOB_ENABLE_PERIODIC_TASKS": "false"}
WORKS_BY_SCHEDULE = {
    "JOBS_OF_TESTS": "jobs_of_tests.tell,mlflow.genai.discovery.job.run_scheduled_issue_detection_job",
    "MINUTES_OF_TESTS": "1",
}


class Scheduled:
    """An experiment with a trace, and with a schedule whose hour came five minutes ago."""

    def __init__(self) -> None:
        self.experiment = ""

    def prepare(self, store: MongoDBStore) -> None:
        now = datetime.now(UTC)
        schedule = {
            "cadence": "hourly",
            "fireTime": f"{now - timedelta(minutes=5):%H:%M}",
            "model": {"endpointName": ENDPOINT},
        }
        state = {"lastFireTimeMs": int((now - timedelta(hours=2)).timestamp() * 1000)}
        self.experiment = store.create_experiment("scheduled")
        log_trace(store, 1, "a load of dynamite", 30, self.experiment)
        for key, value in (("schedule", schedule), ("scheduleState", state)):
            tag = ExperimentTag(f"mlflow.issueDetection.{key}", json.dumps({"version": 1, **value}))
            store.set_experiment_tag(self.experiment, tag)


@pytest.fixture(scope="module")
def scheduled() -> Scheduled:
    return Scheduled()


@pytest.fixture(scope="module")
def served(
    mongod: Mongod, scheduled: Scheduled, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[JobServer]:
    folder = tmp_path_factory.mktemp("huey")
    works = WORKS_BY_SCHEDULE if SINCE_3_18 else WORKS
    with job_server(mongod, folder, "huey", scheduled.prepare, **works) as made:
        yield made


@since_3_18
def test_issues_are_detected_by_schedule(served: JobServer, scheduled: Scheduled) -> None:
    """MLflow's scheduler finds the occurrence that is due, and its job looks for issues."""
    (job,) = served.until(lambda: list(served.store.list_jobs(job_name="scheduled_issue_detection")))
    ended = served.ended(job.job_id)
    assert ended["status"] == "SUCCEEDED", (ended, served.server.said)
    assert ended["result"]["traces_in_window"] == 1
    assert ended["result"]["total_traces_analyzed"] == 1
    (run,) = served.store.search_runs([scheduled.experiment], "", ViewType.ALL)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.issueDetection.trigger"] == "schedule"
    assert run.data.tags["mlflow.issueDetection.jobId"] == job.job_id
    tags = served.store.get_experiment(scheduled.experiment).tags
    assert json.loads(tags["mlflow.issueDetection.checkpoint"])["lastRunUuid"] == run.info.run_id


def test_jobs_run_with_a_lease_and_are_canceled(served: JobServer) -> None:
    quick, endless = served.submit(word="quick"), served.submit(word="endless", ends=False)
    assert served.ended(quick)["result"] == {"told": "quick"}
    served.until(lambda: served.job(endless)["progress"])
    job = served.kept(endless)
    assert job["lease_expires_at"] > job["creation_time"]
    assert served.job(endless)["status_details"]["run"] == f"{endless} {job['claim']}"
    assert served.ask("PATCH", f"jobs/cancel/{endless}")["status"] == "CANCELED"
    served.until(lambda: not served.subprocesses())
    queue = queue_of(served)
    assert list(queue.iterdir())
    assert served.server.stop(signal.SIGTERM) == 0
    assert not queue.exists()
