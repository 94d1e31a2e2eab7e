"""Tags of traces, and links from runs and to prompts.

Round trips: one; a second one only to say what is wrong.

A link is kept in the trace, in arrays that an index covers: a search by run or prompt is then a search like
any other. A run may be linked before the trace arrives; the trace then begins as a stub.
"""

from typing import Any

from mlflow.entities.model_registry import PromptVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.tracing.constant import TraceTagKey
from pymongo import UpdateOne
from pymongo.errors import BulkWriteError

from genesis_flow.areas.experiments.guards import require_visible_runs
from genesis_flow.areas.traces.documents import TOUCH, TraceFields, tag_path
from genesis_flow.areas.traces.shared import find_trace, known, refuse_unknown_trace
from genesis_flow.areas.traces.writing.summary import checked_name
from genesis_flow.compat.validation import validate_trace_tag
from genesis_flow.mongo.operation import Area, direct, is_repetition, mutation
from genesis_flow.mongo.scoping import scoped, workspaces_enabled
from genesis_flow.mongo.writes import only_duplicates

MOST_LINKS = 100


class TraceTags(Area):
    @direct
    @mutation
    async def set_trace_tag(self, trace_id: str, key: str, value: str) -> None:
        """Set a tag of a trace."""
        key, value = validate_trace_tag(key, value)
        if key == TraceTagKey.TRACE_NAME:
            checked_name(value)
        result = await self.database.collection(TraceFields).update_one(
            known(trace_id), {"$set": {tag_path(key): value}, **_seen_by_metrics(key)}
        )
        if not result.matched_count:
            refuse_unknown_trace(trace_id)

    @mutation
    async def delete_trace_tag(self, trace_id: str, key: str) -> None:
        """Delete a tag of a trace."""
        path = tag_path(key)
        result = await self.database.collection(TraceFields).update_one(
            known(trace_id) | {path: {"$exists": True}}, {"$unset": {path: ""}, **_seen_by_metrics(key)}
        )
        if not result.matched_count:
            if key == TraceTagKey.TRACE_NAME:
                await find_trace(self.database, trace_id, {"_id": 1})
            if is_repetition():
                return
            raise MlflowException(
                f"No trace tag with key '{key}' for trace with ID '{trace_id}'", RESOURCE_DOES_NOT_EXIST
            )

    @mutation
    async def link_traces_to_run(self, trace_ids: list[str], run_id: str) -> None:
        """Link traces to a run; a link that is there stays."""
        if not trace_ids:
            return
        _check_count("link", "to", trace_ids)
        await require_visible_runs(self.database, run_id)
        await self._change_links(trace_ids, {"$addToSet": {"linked_runs": run_id}}, stubs=True)

    @mutation
    async def unlink_traces_from_run(self, trace_ids: list[str], run_id: str) -> None:
        """Undo links; the run in which a trace was made stays its run."""
        if not trace_ids:
            return
        _check_count("unlink", "from", trace_ids)
        await self._change_links(trace_ids, {"$pull": {"linked_runs": run_id}}, stubs=False)

    async def _change_links(self, trace_ids: list[str], change: dict[str, Any], *, stubs: bool) -> None:
        traces = self.database.collection(TraceFields)
        updates = [
            UpdateOne(scoped({"_id": trace_id}), change, upsert=stubs)
            for trace_id in dict.fromkeys(trace_ids)
        ]
        try:
            await traces.bulk_write(updates, ordered=False)
        except BulkWriteError as error:
            if not only_duplicates(error):
                raise
            # Another client made one of the traces at the same moment: it is there now.
            try:
                await traces.bulk_write(updates, ordered=False)
            except BulkWriteError as again:
                # Or it is another workspace's, and not there for this one.
                if not (workspaces_enabled() and only_duplicates(again)):
                    raise

    @mutation
    async def link_prompts_to_trace(self, trace_id: str, prompt_versions: list[PromptVersion]) -> None:
        """Note on a trace which versions of prompts it used."""
        if not prompt_versions:
            return
        prompts = [f"{version.name}/{version.version}" for version in prompt_versions]
        result = await self.database.collection(TraceFields).update_one(
            known(trace_id), {"$addToSet": {"linked_prompts": {"$each": prompts}}}
        )
        if not result.matched_count:
            refuse_unknown_trace(trace_id)


def _seen_by_metrics(key: str) -> dict[str, Any]:
    """What is added to an update of a tag."""
    return TOUCH if key == TraceTagKey.TRACE_NAME else {}


def _check_count(verb: str, preposition: str, trace_ids: list[str]) -> None:
    if len(trace_ids) > MOST_LINKS:
        raise MlflowException(
            f"Cannot {verb} more than {MOST_LINKS} traces {preposition} a run in a single request. Provided "
            f"{len(trace_ids)} traces.",
            INVALID_PARAMETER_VALUE,
        )
