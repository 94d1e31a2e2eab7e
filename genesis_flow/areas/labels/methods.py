"""Label schemas.

Round trips: create two (its experiment, the schema), update two, get, delete, by name and list one. The first
list of an experiment takes two more, to make the default question.
"""

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from mlflow.store.entities.paged_list import PagedList
from mlflow.utils.time import get_current_time_millis
from pymongo.errors import OperationFailure

from genesis_flow.areas.experiments.guards import (
    experiment_number,
    find_active_experiment,
    validate_max_results,
)
from genesis_flow.areas.labels.documents import (
    PAGE_ORDER,
    LabelSchemaFields,
    input_fields,
    label_schema_entity,
)
from genesis_flow.core.errors import invalid
from genesis_flow.documents.plain import Document
from genesis_flow.kit import entities
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.operation import Area, call_token, mutation, operation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.writes import insert_missing

if TYPE_CHECKING:
    from mlflow.genai.label_schemas.label_schemas import InputType, LabelSchema, LabelSchemaType


_MAY_NOT_WRITE = 13


class LabelSchemas(Area):
    @property
    def _schemas(self) -> Collection:
        return self.database.collection(LabelSchemaFields)

    @mutation
    async def create_label_schema(
        self,
        experiment_id: str,
        *,
        name: str,
        type: "LabelSchemaType",
        input: "InputType",
        instruction: str | None = None,
        enable_comment: bool = False,
    ) -> "LabelSchema":
        """Add a question to an experiment."""
        from mlflow.genai.label_schemas import validation

        validation.validate_schema_for_create(
            name=name, type=type, input=input, instruction=instruction, enable_comment=enable_comment
        )
        number = await find_active_experiment(self.database, experiment_id)
        document = _document(
            f"ls-{call_token()}",
            number,
            name=name,
            type=str(type),
            instruction=instruction,
            enable_comment=enable_comment,
            **input_fields(input),
        )
        return label_schema_entity(await entities.insert(self._schemas, document, _taken(name, number)))

    @operation
    async def get_label_schema(self, schema_id: str) -> "LabelSchema":
        """The question with this id, also in a deleted experiment."""
        return label_schema_entity(
            await entities.find(self._schemas, {"_id": schema_id}, _unknown(schema_id))
        )

    @operation
    async def get_label_schema_by_name(self, experiment_id: str, name: str) -> "LabelSchema":
        """The question that an experiment has under this name."""
        text = f"Label schema with name '{name}' not found for experiment '{experiment_id}'."
        query = {"experiment_id": experiment_number(experiment_id), "name": name}
        _, document = await asyncio.gather(
            find_active_experiment(self.database, experiment_id),
            self._schemas.find_one(scoped(query)),
        )
        if document is None:
            raise entities.unknown(text)()
        return label_schema_entity(document)

    @operation
    async def list_label_schemas(
        self, experiment_id: str, max_results: int = 100, page_token: str | None = None
    ) -> "PagedList[LabelSchema]":
        """The questions of an experiment, the newest first. The first list makes the default question."""
        validate_max_results(max_results)
        number = experiment_number(experiment_id)
        query = {"experiment_id": number}

        async def page() -> tuple[list[Document], str | None]:
            return await entities.page(self._schemas, query, PAGE_ORDER, max_results, page_token, (int, str))

        _, default, (schemas, token) = await asyncio.gather(
            find_active_experiment(self.database, experiment_id),
            self._schemas.find_one(scoped({**query, "name": _default_name()}), {"_id": 1}),
            page(),
        )
        # The page may have been read before another made the default question, which was then found here.
        is_whole = token is None and page_token is None
        is_late = default is not None and is_whole and default["_id"] not in {each["_id"] for each in schemas}
        if is_late or (default is None and await self._made_default(number)):
            schemas, token = await page()
        return PagedList([label_schema_entity(document) for document in schemas], token)

    async def _made_default(self, number: int) -> bool:
        """Whether the experiment's default question is there now; its id lets all who race make one."""
        from mlflow.genai.label_schemas.label_schemas import InputText, LabelSchemaType
        from mlflow.genai.label_schemas.validation import DEFAULT_LABEL_SCHEMA_INSTRUCTION

        document = _document(
            f"ls-{hashlib.sha256(f'{current_workspace()}|{number}'.encode()).hexdigest()[:32]}",
            number,
            name=_default_name(),
            type=str(LabelSchemaType.FEEDBACK),
            instruction=DEFAULT_LABEL_SCHEMA_INSTRUCTION,
            enable_comment=False,
            is_default=True,
            **input_fields(InputText()),
        )
        try:
            await insert_missing(self._schemas, [document])
        except OperationFailure as error:
            if error.code != _MAY_NOT_WRITE:
                raise
            return False  # a user who may only read gets the page as it is
        return True

    @mutation
    async def update_label_schema(
        self,
        schema_id: str,
        *,
        name: str | None = None,
        instruction: str | None = None,
        enable_comment: bool | None = None,
        input: "InputType | None" = None,
    ) -> "LabelSchema":
        """Change what is given. The kind of input stays, and the default question stays as it is."""
        from mlflow.genai.label_schemas import validation

        existing = await entities.find(self._schemas, {"_id": schema_id}, _unknown(schema_id))
        validation.validate_schema_for_update(
            existing=label_schema_entity(existing),
            name=name,
            instruction=instruction,
            enable_comment=enable_comment,
            input=input,
        )
        given = {"name": name, "instruction": instruction, "enable_comment": enable_comment}
        change = {
            "last_update_time": get_current_time_millis(),
            **{field: value for field, value in given.items() if value is not None},
            **(input_fields(input) if input is not None else {}),
        }
        changed = await entities.change(
            self._schemas,
            {"_id": schema_id},
            {"$set": change},
            _unknown(schema_id),
            _taken(name, existing["experiment_id"]),
        )
        return label_schema_entity(changed)

    @mutation
    async def delete_label_schema(self, schema_id: str) -> None:
        """Remove a question, if it is there. Answers that were given to it stay."""
        query = scoped({"_id": schema_id})
        removed = await self._schemas.delete_one({**query, "is_default": False})
        if not removed.deleted_count and await self._schemas.find_one(query, {"_id": 1}) is not None:
            raise invalid("The experiment's default question cannot be deleted.")


def _default_name() -> str:
    from mlflow.genai.label_schemas.validation import DEFAULT_LABEL_SCHEMA_NAME

    return DEFAULT_LABEL_SCHEMA_NAME


def _document(schema_id: str, experiment: int, **fields: Any) -> Document:
    now = get_current_time_millis()
    declared = LabelSchemaFields(
        _id=schema_id,
        workspace=current_workspace(),
        experiment_id=experiment,
        created_time=now,
        last_update_time=now,
        **fields,
    )
    return declared.model_dump(by_alias=True, exclude_none=True)


def _unknown(schema_id: str) -> entities.Refusal:
    return entities.unknown(f"Label schema with id '{schema_id}' not found.")


def _taken(name: str | None, experiment: int) -> entities.Refusal:
    return entities.taken(f"Label schema with name '{name}' already exists for experiment '{experiment}'.")
