"""Label schemas."""

import dataclasses
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pymongo import ASCENDING, DESCENDING

from genesis_flow.documents.declared import CollectionSettings, Declared
from genesis_flow.documents.indexes import Index

if TYPE_CHECKING:
    from mlflow.genai.label_schemas.label_schemas import InputType, LabelSchema

PAGE_ORDER = [("created_time", DESCENDING), ("_id", ASCENDING)]


class LabelSchemaFields(Declared):
    """A question that people answer about traces, and what their answers look like."""

    id: str = Field(alias="_id", description="`ls-…`; the default question's is made from the experiment's.")
    workspace: str = Field(description="Workspace; every query names it.")
    experiment_id: int = Field(description="Its experiment.")
    name: str = Field(description="Name, also that of the assessments it leads to.")
    type: str = Field(description="`feedback` or `expectation`.")
    input_type: str = Field(description="`pass_fail`, `categorical`, `numeric` or `text`.")
    input: dict[str, Any] = Field(
        description="What this kind of input needs to know: options, labels, limits."
    )
    instruction: str | None = Field(default=None, description="What reviewers are told.")
    enable_comment: bool = Field(description="Whether reviewers may comment.")
    is_default: bool = Field(
        default=False, description="Whether it is its experiment's fixed first question."
    )
    created_by: str | None = Field(default=None, description="Who made it; kept from imports.")
    created_time: int = Field(description="When it was made.")
    last_update_time: int = Field(description="When it last changed.")

    class Settings(CollectionSettings):
        name = "label_schemas"
        indexes = [
            Index(
                [("experiment_id", ASCENDING), ("name", ASCENDING)],
                name="name_unique",
                unique=True,
                serves="One schema of a name in an experiment; the schema by its name.",
            ),
            Index(
                [("experiment_id", ASCENDING), *PAGE_ORDER],
                name="by_creation_time",
                serves="The schemas of an experiment, newest first.",
            ),
        ]
        keep_nulls = False
        refers = {"experiment_id": "experiments"}
        goes_with = {"experiment_id": "experiments"}


def label_schema_entity(document: dict[str, Any]) -> "LabelSchema":
    from mlflow.genai.label_schemas.label_schemas import LabelSchema, LabelSchemaType

    return LabelSchema(
        name=document["name"],
        type=LabelSchemaType(document["type"]),
        input=_input_classes()[document["input_type"]](**document["input"]),
        instruction=document.get("instruction"),
        enable_comment=document["enable_comment"],
        schema_id=document["_id"],
        experiment_id=str(document["experiment_id"]),
        created_by=document.get("created_by"),
        created_at=int(document["created_time"]),
        updated_at=int(document["last_update_time"]),
        is_default=document["is_default"],
    )


def input_fields(entity: "InputType") -> dict[str, Any]:
    """The fields that keep an input."""
    kind = next(kind for kind, cls in _input_classes().items() if type(entity) is cls)
    return {"input_type": kind, "input": dataclasses.asdict(entity)}  # type: ignore[call-overload]


def _input_classes() -> dict[str, Any]:
    """The kinds of input, called as MLflow's SQL store calls them."""
    # Imported here: it loads what a client that logs metrics does not need.
    from mlflow.genai.label_schemas import label_schemas as known

    return {
        "pass_fail": known.InputPassFail,
        "categorical": known.InputCategorical,
        "numeric": known.InputNumeric,
        "text": known.InputText,
    }
