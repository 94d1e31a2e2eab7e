"""Webhooks, to an address where nobody listens."""

from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent

from tests.scenes.stage import Stage

URL = "https://127.0.0.1:9/hook"
EVENT = WebhookEvent(WebhookEntity.PROMPT, WebhookAction.CREATED)


async def scene(stage: Stage) -> None:
    call = stage.register
    for name in ("hook", "doomed-hook"):
        stage[name] = (await call("create_webhook", name, URL, [EVENT], "text")).webhook_id
    await call("get_webhook", stage["hook"])
    await call("list_webhooks")
    await call("list_webhooks_by_event", EVENT)
    await call("test_webhook", stage["hook"])
    await call("update_webhook", stage["hook"], name="other")
    await call("delete_webhook", stage["doomed-hook"])
