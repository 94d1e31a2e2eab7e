"""Label schemas."""

from mlflow.genai.label_schemas import InputText
from mlflow.genai.label_schemas.label_schemas import LabelSchemaType

from tests.scenes.stage import Stage


async def scene(stage: Stage) -> None:
    call, experiment = stage.track, stage["experiment"]
    for name in ("question", "doomed question"):
        asked = {"name": name, "type": LabelSchemaType.FEEDBACK, "input": InputText()}
        stage[name] = (await call("create_label_schema", experiment, **asked)).schema_id
    await call("get_label_schema", stage["question"])
    await call("list_label_schemas", experiment)
    await call("get_label_schema_by_name", experiment, "question")
    await call("update_label_schema", stage["question"], instruction="say")
    await call("delete_label_schema", stage["doomed question"])
