"""Assessments: what people, judges and code think of a trace.

Round trips: get one; create three (the trace, the insert, the trace again: it may have been deleted), four if
it overrides another; update two; delete two, three if it overrode another. An override marks the older
assessment before it appears itself, and restores it before it goes: a killed call leaves what its repetition
completes. One that refers to an issue costs two more (``areas/issues/counts.py``).
"""

from typing import NoReturn

from mlflow.entities import Assessment, Expectation, Feedback
from mlflow.entities.assessment import ExpectationValue, FeedbackValue
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, RESOURCE_DOES_NOT_EXIST
from mlflow.utils.time import get_current_time_millis
from pymongo.errors import DuplicateKeyError

from genesis_flow.areas.issues.counts import changing_references, issues_in
from genesis_flow.areas.traces.documents import AssessmentFields, TraceFields
from genesis_flow.areas.traces.entities import (
    assessment_document,
    assessment_entity,
    metadata_fields,
    value_fields,
)
from genesis_flow.areas.traces.shared import find_trace, known
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.connection import Session
from genesis_flow.mongo.operation import Area, is_repetition, mutation, operation
from genesis_flow.mongo.scoping import scoped, workspaces_enabled

# Fields that an assessment copies from its trace.
_COPIED = {"workspace": 1, "experiment_id": 1, "request_time": 1}


class Assessments(Area):
    @property
    def _assessments(self) -> Collection:
        return self.database.collection(AssessmentFields)

    @mutation
    async def create_assessment(self, assessment: Assessment) -> Assessment:
        """Write a feedback or an expectation on a trace; one that overrides another makes that invalid."""
        trace_id = str(assessment.trace_id)
        trace = await find_trace(self.database, trace_id, _COPIED)
        document = assessment_document(assessment, trace_id, trace)
        if assessment.overrides:
            result = await self._assessments.update_one(
                self._assessment(trace_id, assessment.overrides), {"$set": {"valid": False}}
            )
            if not result.matched_count:
                _refuse_unknown(trace_id, assessment.overrides)
        async with changing_references(self.database, issues_in([document])):
            try:
                await self._assessments.insert_one(document)
            except DuplicateKeyError as error:
                if not await self._was_created_by_this_call(document):
                    raise MlflowException(
                        f"Failed to create assessment for trace '{trace_id}' due to a constraint violation.",
                        INTERNAL_ERROR,
                    ) from error
            await self._follow_trace(trace_id, document, trace)
        return assessment_entity(document)

    async def _was_created_by_this_call(self, document: Document) -> bool:
        """An id that the first attempt gave the entity stays with it, and is found taken by the next one."""
        own = {"_id": document["_id"], "trace_id": document["trace_id"]}
        return is_repetition() and (await self._assessments.find_one(own)) == document

    async def _follow_trace(self, trace_id: str, document: Document, trace: Document) -> None:
        """Let a trace that was moved or deleted between its read and the insert take the assessment along."""
        own = {"_id": document["_id"], "trace_id": trace_id}
        now = await self.database.collection(TraceFields).find_one(known(trace_id), _COPIED)
        if now is None:
            await self._assessments.delete_one(own)
            raise MlflowException(
                f"Trace with ID '{trace_id}' not found. It may have been deleted.", RESOURCE_DOES_NOT_EXIST
            )
        if now != trace:
            copied = {"experiment_id": now["experiment_id"], "trace_time": now["request_time"]}
            await self._assessments.update_one(own, {"$set": copied})

    @operation
    async def get_assessment(self, trace_id: str, assessment_id: str) -> Assessment:
        """One assessment of a trace."""
        return assessment_entity(await self._find_assessment(trace_id, assessment_id))

    @mutation
    async def update_assessment(
        self,
        trace_id: str,
        assessment_id: str,
        name: str | None = None,
        expectation: ExpectationValue | None = None,
        feedback: FeedbackValue | None = None,
        rationale: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Assessment:
        """Change what is given and keep the rest; metadata is merged."""
        while True:
            document = await self._find_assessment(trace_id, assessment_id)
            changed = assessment_entity(document)
            _check_kind(changed, expectation, feedback)
            if name is not None:
                changed.name = name
            if expectation is not None:
                changed.expectation = expectation
            if feedback is not None:
                changed.feedback = feedback
            if rationale is not None and isinstance(changed, Feedback):
                changed.rationale = rationale
            if metadata:
                changed.metadata = {**(changed.metadata or {}), **metadata}
            changed.last_update_time_ms = get_current_time_millis()
            fields = {
                "name": changed.name,
                "rationale": changed.rationale,
                "last_update_time": changed.last_update_time_ms,
                **value_fields(changed),
                **metadata_fields(changed.metadata),
            }
            # Metadata is merged into what was read: somebody else's merge in between must not be lost.
            unchanged = {
                "last_update_time": document["last_update_time"],
                "metadata": document.get("metadata"),
                "name": document["name"],
            }
            query = self._assessment(trace_id, assessment_id) | unchanged
            if await self._replace_assessment(query, document, fields):
                stored = {field: value for field, value in (document | fields).items() if value is not None}
                return assessment_entity(stored)

    async def _replace_assessment(self, query: Document, document: Document, fields: Document) -> bool:
        fixed = {field: value for field, value in fields.items() if value is not None}
        gone = dict.fromkeys(fields.keys() - fixed.keys(), "")
        change = {"$set": fixed, **({"$unset": gone} if gone else {})}
        is_renamed = document["name"] != fields["name"]
        issues = issues_in([document, document | fields]) if is_renamed else ()
        async with changing_references(self.database, issues):
            return bool((await self._assessments.update_one(query, change)).matched_count)

    @mutation
    async def delete_assessment(self, trace_id: str, assessment_id: str) -> None:
        """Delete an assessment, if it is there; the one that it overrode counts again."""
        query = self._assessment(trace_id, assessment_id)
        while True:
            assessment = await self._assessments.find_one(query, {"kind": 1, "name": 1, "overrides": 1})
            async with changing_references(self.database, issues_in([assessment] if assessment else [])):
                if assessment is None:
                    if workspaces_enabled():  # MLflow asks for the trace there, and only there
                        await find_trace(self.database, trace_id, {"_id": 1})
                    return
                # By its name: renamed meanwhile, it may refer to another issue.
                named = query | {"name": assessment["name"]}
                if await self._delete(named, assessment.get("overrides")):
                    return

    async def _delete(self, query: Document, overridden: str | None) -> bool:
        async def write(session: Session | None) -> bool:
            if overridden:
                former = self._assessment(query["trace_id"], overridden)
                await self._assessments.update_one(former, {"$set": {"valid": True}}, session=session)
            return bool((await self._assessments.delete_one(query, session=session)).deleted_count)

        return await self.database.atomically(write)

    async def _find_assessment(self, trace_id: str, assessment_id: str) -> Document:
        document = await self._assessments.find_one(self._assessment(trace_id, assessment_id))
        if document is None:
            if await self.database.collection(TraceFields).find_one(known(trace_id), {"_id": 1}) is None:
                raise MlflowException(
                    f"Trace with request_id '{trace_id}' not found", RESOURCE_DOES_NOT_EXIST
                )
            _refuse_unknown(trace_id, assessment_id)
        return document

    @staticmethod
    def _assessment(trace_id: str, assessment_id: str) -> Document:
        return scoped({"_id": assessment_id, "trace_id": trace_id})


def _refuse_unknown(trace_id: str, assessment_id: str) -> NoReturn:
    raise MlflowException(
        f"Assessment with ID '{assessment_id}' not found for trace '{trace_id}'", RESOURCE_DOES_NOT_EXIST
    )


def _check_kind(
    assessment: Assessment, expectation: ExpectationValue | None, feedback: FeedbackValue | None
) -> None:
    problem = None
    if expectation is not None and feedback is not None:
        problem = "Cannot specify both `expectation` and `feedback` parameters."
    elif expectation is not None and not isinstance(assessment, Expectation):
        problem = "Cannot update expectation value on a Feedback assessment."
    elif feedback is not None and not isinstance(assessment, Feedback):
        problem = "Cannot update feedback value on an Expectation assessment."
    if problem:
        raise MlflowException.invalid_parameter_value(problem)
