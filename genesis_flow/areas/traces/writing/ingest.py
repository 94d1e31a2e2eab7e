"""Spans as they arrive: in any order, more than once, from several processes at the same time.

Round trips of ``log_spans``, however many spans: three. The traces and the experiment are read, the spans
are written, and each trace is updated; of several traces those that are new are inserted in one command.
Spans of one trace that this store wrote last (``remembered``) take two, as nothing is read: they are
inserted, and the trace is updated if it is as the store remembers it; else all is read and done as usual.
Spans that are there already take one more, and so do long contents. A trace that existed before and whose
spans count tokens or cost takes two more: the sums are made anew from all its spans.

Why the result does not depend on the order of arrival:

- Spans are written before their trace says so. The id of a span is its key, so a repetition replaces it.
- The trace is changed by one conditional update. Times go by ``$min`` and ``$max``. Fields that the first
  to know decides (status, previews, session, user) are set only where open. The update holds only for a
  trace in the state that it was made for; if it is in another, the update is made again for that one.
- ``generation`` counts these updates. Sums carry the generation that was read before the spans were, and
  only ever give way to those of a later one: those have seen every span that these have.
- Statements of a client in ``start_trace`` stand against what spans suggest.

Spans that are there already may belong to a trace that has been archived, so they are replaced only after
reading that it has not. A call that is refused has written nothing; only where the store relied on what it
remembers are there spans to be removed before it fails. A trace that is being deleted takes none. One that
was deleted while its spans came starts anew, with all of them written again: the deletion may have taken
some.
"""

import asyncio
import logging
from collections.abc import Iterator
from typing import NoReturn

from mlflow.entities import Span
from mlflow.entities.trace_state import TraceState
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_STATE, TEMPORARILY_UNAVAILABLE
from mlflow.tracing.constant import SpansLocation
from pymongo import DeleteOne, ReplaceOne, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from genesis_flow.areas.experiments.guards import experiment_number, refuse_unknown_experiment
from genesis_flow.areas.traces.documents import (
    ERASED,
    NOW,
    TOUCH,
    SpanFields,
    SpanPayloadFields,
    TraceFields,
    tag_path,
)
from genesis_flow.areas.traces.shared import (
    HERE,
    artifact_location,
    check_new_id,
    experiment_and,
    make_children_earlier,
    move_children,
    refuse_erased,
    refuse_foreign_trace,
    refuse_traces_of_others,
)
from genesis_flow.areas.traces.spans import spent
from genesis_flow.areas.traces.stated import STATED, put
from genesis_flow.areas.traces.sums.departures import Place, departing
from genesis_flow.areas.traces.sums.documents import HOUR
from genesis_flow.areas.traces.writing.remembered import STATE, TEXTS, USER, TraceMemory, state_of
from genesis_flow.areas.traces.writing.summary import TraceBatch, batches_at_once, batches_of
from genesis_flow.compat.rules import TRACES_KEEP_THEIR_EXPERIMENT
from genesis_flow.documents.keys import children_of
from genesis_flow.documents.plain import IDS_AT_ONCE, Document, portions
from genesis_flow.mongo.binding import Collection
from genesis_flow.mongo.operation import Area, direct, is_repetition, made_first, mutation
from genesis_flow.mongo.scoping import current_workspace, scoped
from genesis_flow.mongo.waiting import prefer_loop
from genesis_flow.mongo.writes import only_duplicates

_logger = logging.getLogger(__name__)

# No experiment has this number.
_NOWHERE = -1
_OPEN = (None, TraceState.IN_PROGRESS.value, TraceState.STATE_UNSPECIFIED.value)
# Fields of a trace that are read before it changes.
_BEFORE = dict.fromkeys((*STATE, "generation", "tokens_of", "cost_of"), 1)
# Not null, which an upsert would write.
_ABSENT = {"$exists": False}
_TRACES_AT_ONCE = 16
# Open fields can close a handful of times; more tries mean that something else is wrong.
_TRIES = 10


class SpanIngest(TraceMemory, Area):
    @direct
    @mutation
    async def log_spans(
        self, location: str, spans: list[Span], tracking_uri: str | None = None
    ) -> list[Span]:
        """Log spans of any traces; a trace that is not there yet is made in the experiment ``location``."""
        if not spans:
            return []
        batches = batches_at_once(spans)
        if batches is None:
            # MLflow prices tokens by a list that it asks the network for, now and then.
            batches = await made_first(lambda: batches_of(spans))
        if len(batches) > 1:
            prefer_loop()
        if location in ("", None):
            number = _NOWHERE
            batches = await self._of_traces_that_are_there(batches)
        else:
            number = experiment_number(location)
        if batches and not await self._log_to_own_trace(batches, number):
            await self._log(batches, number)
        return spans

    async def _of_traces_that_are_there(self, batches: list[TraceBatch]) -> list[TraceBatch]:
        """Without the batches of traces that would have to be made, for which there is no place."""
        _, states = await self._read(batches, _NOWHERE)
        if dropped := {each.trace_id for each in batches if _is_new(states.get(each.trace_id))}:
            _logger.warning(
                "Spans of %d trace(s) that are not there yet are dropped, as no experiment is named in which "
                "to make them: %s",
                len(dropped),
                dropped,
            )
        return [each for each in batches if each.trace_id not in dropped]

    async def _log_to_own_trace(self, batches: list[TraceBatch], number: int) -> bool:
        """Log spans of one trace that this store wrote last; False, and nothing done, if that cannot be."""
        batch, state = batches[0], self._known_traces.get(batches[0].trace_id)
        if len(batches) > 1 or state is None or is_repetition() or batch.payloads:
            return False
        if TRACES_KEEP_THEIR_EXPERIMENT and state.get("experiment_id", number) != number:
            return False
        _stamp(batch, state, number)
        there = await self._insert_spans(batches)
        if there or not await self._update_trace(batch, state, number, None):
            await self._log(batches, number, there)
        return True

    async def _log(self, waiting: list[TraceBatch], number: int, there: set[str] | None = None) -> None:
        """Write spans, or write them right, and update their traces.

        ``there`` has the ids that were taken when spans were inserted, if they were.
        """
        are_new, replace = there is None, bool(there)
        for _ in range(_TRIES):
            experiment, states = await self._read(waiting, number)
            # One that is not there any more may have taken along what was written.
            replace |= not are_new and any(_is_new(states.get(each.trace_id)) for each in waiting)
            try:
                _refuse_unwelcome(waiting, states, number, experiment)
                await refuse_traces_of_others(self.database, [each.trace_id for each in waiting])
            except MlflowException:
                if there is not None:
                    await self._take_back(waiting, there)
                if not are_new:
                    await self._take_back_spans(waiting, states)
                raise
            outdated = [each for each in waiting if _stamp(each, states.get(each.trace_id, {}), number)]
            if replace or outdated:
                await self._write_spans(waiting, are_new=are_new and not states)
                are_new = replace = False
            waiting = await self._update_traces(waiting, states, number, experiment)
            if not waiting:
                return
        raise MlflowException(
            f"Trace {waiting[0].trace_id} is changed by others all the time; its spans are logged but not "
            "summed up. Log them again.",
            TEMPORARILY_UNAVAILABLE,
        )

    async def _read(
        self, batches: list[TraceBatch], number: int
    ) -> tuple[Document | None, dict[str, Document]]:
        """The experiment, if it is there, and the states of the traces that are there."""
        trace_ids = [batch.trace_id for batch in batches]
        query = scoped({"_id": {"$in": trace_ids[:IDS_AT_ONCE]}})
        experiment, documents = await experiment_and(self.database, number, TraceFields, query, _BEFORE)
        traces = self.database.collection(TraceFields)
        for portion in portions(trace_ids[IDS_AT_ONCE:]):
            documents += await traces.find(scoped({"_id": {"$in": portion}}), _BEFORE).to_list()
        return experiment, {trace["_id"]: state_of(trace) for trace in documents}

    async def _insert_spans(self, batches: list[TraceBatch]) -> set[str]:
        """Insert spans, long contents first; returns the ids of documents that were there already."""
        there: set[str] = set()
        for collection, documents in self._span_documents(batches):
            there |= await _inserted(collection, documents)
        return there

    async def _write_spans(self, batches: list[TraceBatch], are_new: bool) -> None:
        """Write spans whether they are there or not.

        Spans of traces that nobody knows are most likely new too, and an insertion is half the work.
        """
        if are_new and not await self._insert_spans(batches):
            return
        for collection, documents in self._span_documents(batches):
            await collection.bulk_write(
                [ReplaceOne({"_id": document["_id"]}, document, upsert=True) for document in documents],
                ordered=False,
            )

    async def _take_back(self, batches: list[TraceBatch], there: set[str]) -> None:
        """Remove what was inserted for traces that turned out to take no spans, and nothing else."""
        # Another call may have put its own span in the place of ours, or an archive may have taken it.
        ours = [
            DeleteOne(
                {"_id": span["_id"], "experiment_id": span["experiment_id"], "content": {"$exists": True}}
            )
            for batch in batches
            for span in batch.spans
            if span["_id"] not in there
        ]
        if ours:
            await self.database.collection(SpanFields).bulk_write(ours, ordered=False)

    async def _take_back_spans(self, batches: list[TraceBatch], states: dict[str, Document]) -> None:
        """Remove what was written for traces that are being deleted: behind the deletion, perhaps."""
        erased = [batch for batch in batches if _is_erased(states.get(batch.trace_id))]
        for collection, documents in self._span_documents(erased):
            await collection.delete_many({"_id": {"$in": [document["_id"] for document in documents]}})

    def _span_documents(self, batches: list[TraceBatch]) -> Iterator[tuple[Collection, list[Document]]]:
        """Long contents first: a span never points to a content that is not there."""
        for declared, documents in (
            (SpanPayloadFields, [payload for batch in batches for payload in batch.payloads]),
            (SpanFields, [span for batch in batches for span in batch.spans]),
        ):
            if documents:
                yield self.database.collection(declared), documents

    async def _update_traces(
        self,
        batches: list[TraceBatch],
        states: dict[str, Document],
        number: int,
        experiment: Document | None,
    ) -> list[TraceBatch]:
        """Let traces know of their new spans; returns the batches whose traces are not in these states."""

        async def update(batch: TraceBatch) -> bool:
            return await self._update_trace(batch, states.get(batch.trace_id), number, experiment)

        if len(batches) == 1:
            return [] if await update(batches[0]) else batches
        new = [each for each in batches if each.trace_id not in states]
        failed = await self._insert_traces(new, number, experiment) if new else []
        there = [each for each in batches if each.trace_id in states]
        for portion in portions(there, _TRACES_AT_ONCE):
            done = await asyncio.gather(*map(update, portion))
            failed += [batch for batch, is_done in zip(portion, done, strict=True) if not is_done]
        return failed

    async def _insert_traces(
        self, batches: list[TraceBatch], number: int, experiment: Document | None
    ) -> list[TraceBatch]:
        """Make traces that are not there, in one command; returns the batches of those that others made."""
        changes = {}
        for batch in batches:
            sums = spent(batch.spans) if batch.counts else {}
            _, changes[batch.trace_id] = _trace_change(batch, None, number, experiment, sums)
        documents = [_made(trace_id, change) for trace_id, change in changes.items()]
        taken = await _inserted(self.database.collection(TraceFields), documents)
        for trace_id in changes.keys() - taken:
            self._known_traces.keep(trace_id, _after(None, changes[trace_id]))
        return [each for each in batches if each.trace_id in taken]

    async def _update_trace(
        self, batch: TraceBatch, state: Document | None, number: int, experiment: Document | None
    ) -> bool:
        """Let a trace know of its new spans, if it is in this state."""
        is_new = _is_new(state)
        sums = spent(batch.spans) if is_new and batch.counts else {}
        guard, change = _trace_change(batch, state, number, experiment, sums)
        try:
            async with departing(self.database, [_left(batch, state or {})]):
                before = await self.database.collection(TraceFields).find_one_and_update(
                    scoped({"_id": batch.trace_id, **HERE, **guard}),
                    change,
                    _BEFORE,
                    upsert=is_new,
                    return_document=ReturnDocument.BEFORE,
                )
        except DuplicateKeyError:
            return False
        if before is None and not is_new:
            return False
        self._known_traces.keep(batch.trace_id, _after(before, change))
        await self._follow_spans(batch, before)
        return True

    async def _follow_spans(self, batch: TraceBatch, before: Document | None) -> None:
        """Children of a trace that began elsewhere or earlier than they say, and sums over all spans."""
        if before is None or "experiment_id" not in before:
            if before is not None and batch.counts:  # a stub: its sums are not among what was inserted
                await self._sum_up_spans(batch.trace_id, before)
            return
        time, stamped = int(before["request_time"]), batch.spans[0]
        now = time if before.get("finalized") else min(time, batch.start)
        if before["experiment_id"] != stamped["experiment_id"] or (
            before.get("finalized") and stamped["trace_time"] != now
        ):
            await move_children(self.database, batch.trace_id, before["experiment_id"], now)
        elif now != time or now != stamped["trace_time"]:
            await make_children_earlier(self.database, batch.trace_id, now)
        # Even a span that spends nothing may tell that one is below another.
        if batch.counts or "tokens_of" in before or "cost_of" in before:
            await self._sum_up_spans(batch.trace_id, before)

    async def _sum_up_spans(self, trace_id: str, before: Document) -> None:
        """Sum up tokens and cost of a trace over all its spans."""
        generation = before.get("generation", 0) + 1
        inferred = [name for name in ("tokens", "cost") if before.get(f"{name}_of", 0) < STATED]
        if not inferred:
            return
        spans = await (
            self.database.collection(SpanFields)
            .find({"_id": children_of(trace_id)}, {"parent_id": 1, "usage": 1, "cost": 1})
            .to_list()
        )
        sums = spent(spans)
        updates = [
            UpdateOne(
                # Absent is not greater either.
                {"_id": trace_id, f"{name}_of": {"$not": {"$gte": generation}}},
                {"$set": {name: sums[name], f"{name}_of": generation}, **TOUCH},
            )
            for name in inferred
            if sums[name] or f"{name}_of" in before
        ]
        if updates:
            await self.database.collection(TraceFields).bulk_write(updates, ordered=False)


async def _inserted(collection: Collection, documents: list[Document]) -> set[str]:
    """Insert the documents whose id is free; returns the ids that were not."""
    try:
        await collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        if not only_duplicates(error):
            raise
        return {documents[failure["index"]]["_id"] for failure in error.details["writeErrors"]}
    return set()


def _is_erased(state: Document | None) -> bool:
    return state is not None and state.get("spans_location") == ERASED


def _is_new(state: Document | None) -> bool:
    return state is None or "experiment_id" not in state


def _after(before: Document | None, change: Document) -> Document:
    """The state of a trace after its change."""
    state = state_of(before or {})
    state |= {
        path: True if path in TEXTS else value for path, value in change["$set"].items() if path in STATE
    }
    if "$min" in change:
        start = change["$min"]["request_time"]
        state["request_time"] = min(state.get("request_time", start), start)
    return state


def _made(trace_id: str, change: Document) -> Document:
    """What the change makes of a trace that is not there."""
    trace: Document = {"_id": trace_id, "workspace": current_workspace(), "touched": NOW}
    for operator in ("$inc", "$set", "$min", "$max"):
        for path, value in change.get(operator, {}).items():
            put(trace, path, value)
    return trace


def _stamp(batch: TraceBatch, state: Document, number: int) -> bool:
    """Copy the experiment and the time of the trace, as far as they are known, to its new spans.

    Returns whether they had others.
    """
    time = batch.start
    if "request_time" in state:
        time = state["request_time"] if state.get("finalized") else min(time, state["request_time"])
    copies = {"experiment_id": state.get("experiment_id", number), "trace_time": time}
    changed = any(batch.spans[0].get(name) != value for name, value in copies.items())
    if changed:
        for span in batch.spans:
            span.update(copies)
    return changed


def _trace_change(
    batch: TraceBatch, known: Document | None, number: int, experiment: Document | None, sums: Document
) -> tuple[Document, Document]:
    """How new spans change a trace, and the condition that it is in the state for which this is right."""
    state, is_new = known or {}, _is_new(known)
    guard: Document = {"experiment_id": state.get("experiment_id", _ABSENT)}
    change: Document = {
        "$inc": {"generation": 1},
        "$set": {"spans_location": SpansLocation.TRACKING_STORE.value},
        **TOUCH,
    }
    fixed = change["$set"]
    fixed |= {tag_path(key): value for key, value in batch.tags.items()}
    if is_new:
        assert experiment is not None  # _refuse_unwelcome() has seen to it
        # A stub may have been there, so that this is not the insertion.
        fixed["experiment_id"] = number
        fixed["artifact_location"] = artifact_location(experiment, batch.trace_id)
        for name, values in sums.items():
            if values and known is None:
                guard["generation"] = _ABSENT
                fixed |= {name: values, f"{name}_of": 1}
    guard["finalized"] = state.get("finalized", _ABSENT)
    if not state.get("finalized"):
        guard |= _stays_or_leaves(batch, state)
        change["$min"] = {"request_time": batch.start}
        if batch.end is not None:
            change["$max"] = {"end_time": batch.end}
    status = state.get("status")
    if batch.root_status or status is None:
        guard["status"] = status or _ABSENT
        if status in _OPEN:
            fixed["status"] = batch.root_status or TraceState.IN_PROGRESS.value
    inferred: Document = {**batch.previews, "session_id": batch.session_id, USER: batch.user_id}
    for path, value in inferred.items():
        if value is not None and path in state:
            guard[path] = {"$ne": None}
        elif value is not None:
            guard[path] = _ABSENT if is_new else None
            fixed[path] = value
    return guard, change


def _stays_or_leaves(batch: TraceBatch, state: Document) -> Document:
    """The condition that its new spans let a trace leave the hour that ``_left`` says, or none."""
    if _is_new(state):
        return {}
    if _left(batch, state) is not None:
        return {"request_time": state["request_time"]}
    return {"request_time": {"$lt": (batch.start // HOUR + 1) * HOUR}}


def _left(batch: TraceBatch, state: Document) -> Place | None:
    """Where a trace has been, if its new spans let it begin in an earlier hour."""
    if "experiment_id" not in state or state.get("finalized"):
        return None
    place = state["experiment_id"], state["request_time"]
    return place if batch.start // HOUR < place[1] // HOUR else None


def _refuse_unwelcome(
    batches: list[TraceBatch], states: dict[str, Document], number: int, experiment: Document | None
) -> None:
    """Raise if there is no place for a new trace, or if a trace or its spans are elsewhere."""
    if experiment is None and any(_is_new(states.get(batch.trace_id)) for batch in batches):
        refuse_unknown_experiment(number)
    _refuse_moved(states)
    for trace_id in sorted(batch.trace_id for batch in batches):
        state = states.get(trace_id)
        if state is None or _is_new(state):
            check_new_id(trace_id)
        elif TRACES_KEEP_THEIR_EXPERIMENT and state["experiment_id"] != number:
            refuse_foreign_trace(trace_id)


def _refuse_moved(states: dict[str, Document]) -> None:
    """Raise if spans of a trace are not here any more."""
    for trace_id, state in sorted(states.items()):
        if _is_erased(state):
            refuse_erased(trace_id)
    moved = {
        trace_id: state["spans_location"]
        for trace_id, state in sorted(states.items())
        if state.get("spans_location") not in (None, SpansLocation.TRACKING_STORE.value)
    }
    if moved:
        _refuse(moved)


def _refuse(moved: dict[str, str]) -> NoReturn:
    archived = [trace_id for trace_id, where in moved.items() if where == SpansLocation.ARCHIVE_REPO.value]
    others = [trace_id for trace_id in moved if trace_id not in archived]

    def listed(trace_ids: list[str]) -> str:
        return ", ".join(f"'{trace_id}'" for trace_id in trace_ids)

    if not others:
        raise MlflowException(f"Cannot log spans to archived traces: {listed(archived)}.", INVALID_STATE)
    groups = [
        f"{kind}={listed(trace_ids)}"
        for kind, trace_ids in (("archived", archived), ("other", others))
        if trace_ids
    ]
    raise MlflowException(
        "Cannot log spans because one or more traces are unavailable for DB-backed span writes: "
        + "; ".join(groups),
        INVALID_STATE,
    )
