"""Review queues and their items, which are traces."""

from mlflow.genai.review_queues import ReviewQueueType, ReviewStatus

from tests.scenes.stage import ONE, TWO, Stage


async def scene(stage: Stage) -> None:
    call, experiment = stage.track, stage["experiment"]
    for name in ("queue", "doomed queue"):
        queue = await call(
            "create_review_queue",
            experiment,
            name=name,
            queue_type=ReviewQueueType.CUSTOM,
            created_by="me",
            users=["ann"],
            schema_ids=[stage["question"]],
        )
        stage[name] = queue.queue_id
    queue_id = stage["queue"]
    await call("get_or_create_user_queue", experiment, user="ann")
    await call("get_review_queue", queue_id)
    await call("get_review_queue_by_name", experiment, name="queue")
    await call("list_review_queues", experiment, user="ann")
    await call("update_review_queue", queue_id, users=["bob"], schema_ids=[], new_owner="you")
    await call("add_items_to_review_queue", queue_id, item_ids=[ONE, TWO])
    await call("add_items_to_review_queue", stage["doomed queue"], item_ids=[ONE])
    await call("list_review_queue_items", queue_id)
    done = {"status": ReviewStatus.COMPLETE, "completed_by": "ann"}
    await call("set_review_queue_item_status", queue_id, item_id=ONE, **done)
    await call("remove_items_from_review_queue", queue_id, item_ids=[TWO])
    await call("delete_review_queue", stage["doomed queue"])
