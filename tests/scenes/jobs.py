"""Background jobs, their locks, and the leases of servers."""

from genesis_flow.compat.jobs import JobProgress, JobStatus
from tests.scenes.stage import Stage

KEY = "scene:key"


async def scene(stage: Stage) -> None:
    call = stage.track
    names = ("done", "reported", "failed", "late", "unwanted", "tried", "watched", "lost", "doomed")
    for name in names:
        made = await call("create_job", "scene", '{"a": 1}', timeout=60.0, creator="ann")
        stage[f"{name} job"] = made.job_id
    await call("list_jobs", job_name="scene", statuses=[JobStatus.PENDING], params={"a": 1})
    await call("start_job", stage["done job"])
    await call("update_status_details", stage["done job"], {"stage": "begun"})
    await call("update_job_progress", stage["done job"], "adding", JobProgress(phase="add"))
    await call("finish_job", stage["done job"], "3")
    await call("claim_job", stage["reported job"], lease_duration=60)
    await call("renew_job_lease", stage["reported job"], 60)
    await call("report_job_result", stage["reported job"], JobStatus.SUCCEEDED, result="3")
    await call("fail_job", stage["failed job"], "broken")
    await call("mark_job_timed_out", stage["late job"])
    await call("cancel_job", stage["unwanted job"])
    await call("claim_job", stage["tried job"])
    since = await call("lock_job_key", KEY, stage["tried job"])
    await call("unlock_job_key", KEY, stage["tried job"], since)
    await call("retry_job", stage["tried job"])
    await call("claim_job", stage["tried job"])
    await call("retry_or_fail_job", stage["tried job"], "passing")
    await call("claim_job", stage["watched job"], lease_duration=60)
    await call("mark_job_needs_recovery", stage["watched job"])
    await call("reattach_job", stage["watched job"], 60)
    await call("mark_job_needs_recovery", stage["watched job"])
    await call("requeue_job", stage["watched job"])
    await call("reset_job", stage["watched job"])
    await call("claim_job", stage["lost job"], lease_duration=60)
    await call("mark_job_needs_recovery", stage["lost job"])
    await call("list_lost_jobs")
    await call("take_over_job", stage["lost job"])
    await call("get_job", stage["lost job"])
    await call("fail_job", stage["doomed job"], "broken")
    await call("delete_jobs", job_ids=[stage["doomed job"]])
    taken = await call("take_scheduler_lease", "scene", 60)
    await call("renew_scheduler_lease", "scene", taken, 60, 60)
