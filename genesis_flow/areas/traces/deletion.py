"""Deleting traces, with all that belongs to them.

Round trips: one to select, nine for each 500 traces. Archived spans go before the trace that points to them;
a trace whose archive cannot be reached stays.
"""

import logging

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracing.constant import SpansLocation
from mlflow.tracing.otel.otel_archival import TRACE_ARCHIVAL_FILENAME

from genesis_flow.areas.traces.documents import TraceFields
from genesis_flow.areas.traces.writing.closure import erase_traces, within
from genesis_flow.compat.validation import parse_experiment_id
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.blocking import in_thread
from genesis_flow.mongo.operation import Area, long_mutation
from genesis_flow.mongo.scoping import scoped

_logger = logging.getLogger(__name__)


class TraceDeletion(Area):
    @long_mutation
    async def delete_traces(
        self,
        experiment_id: str,
        max_timestamp_millis: int | None = None,
        max_traces: int | None = None,
        trace_ids: list[str] | None = None,
    ) -> int:
        """Delete traces by age, the oldest first, or by id; returns how many there were."""
        by_age = max_timestamp_millis is not None
        if not by_age and not trace_ids:
            _refuse("Either `max_timestamp_millis` or `trace_ids` must be specified.")
        if by_age and trace_ids:
            _refuse("Only one of `max_timestamp_millis` and `trace_ids` can be specified.")
        if trace_ids and max_traces is not None:
            _refuse("`max_traces` can't be specified if `trace_ids` is specified.")
        if max_traces is not None and max_traces <= 0:
            _refuse(f"`max_traces` must be a positive integer, received {max_traces}.")
        return await self._delete_traces(experiment_id, max_timestamp_millis, max_traces, trace_ids)

    @long_mutation
    async def _delete_traces(
        self,
        experiment_id: str,
        max_timestamp_millis: int | None = None,
        max_traces: int | None = None,
        trace_ids: list[str] | None = None,
    ) -> int:
        query: Document = within(parse_experiment_id(experiment_id))
        if max_timestamp_millis is not None:
            query["request_time"] = {"$lte": max_timestamp_millis}
        if trace_ids:
            query["_id"] = {"$in": list(trace_ids)}
        traces = self.database.collection(TraceFields).find(
            scoped(query), {"spans_location": 1, "archive_location": 1}
        )
        if max_traces is not None:
            traces = traces.sort([("request_time", 1), ("_id", 1)]).limit(max_traces)
        selected = await traces.to_list()
        return await erase_traces(
            self.database, [trace["_id"] for trace in selected if await _archive_is_gone(trace)]
        )


def _refuse(message: str) -> None:
    raise MlflowException.invalid_parameter_value(message)


async def _archive_is_gone(trace: Document) -> bool:
    """Delete the archived spans of a trace, if it has some; False if that failed."""
    location = trace.get("archive_location")
    if trace.get("spans_location") != SpansLocation.ARCHIVE_REPO.value or location is None:
        return True
    try:
        await in_thread(lambda: get_artifact_repository(location).delete_artifacts(TRACE_ARCHIVAL_FILENAME))
    except Exception as error:  # whatever the libraries of artifact stores raise
        if not _says_missing(error):
            _logger.error(
                "The archived spans of trace %s could not be deleted; the trace stays.",
                trace["_id"],
                exc_info=True,
            )
            return False
    return True


def _says_missing(error: Exception) -> bool:
    if isinstance(error, MlflowException):
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return True
    elif isinstance(error, FileNotFoundError):
        return True
    return any(words in str(error) for words in ("No such file or directory", "No such artifact"))
