"""Do the documents of a database agree with each other? What only a crash or a meddling hand can break.

Reads everything once, in the order of the ids and without holding it, and writes nothing. A finding that is
visible shows in what the stores return; the others are remains of calls that were killed, which no reader
sees: the same call, made again, takes them for its own, and the doctor removes those whose parent is gone.
While others write, a finding may be a call in progress: look again before acting on it.

Changes that were cut in two are not among them: the doctor finds those, and finishes them.
"""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from genesis_flow.areas.evaluation.documents import DatasetRecordFields, EvaluationDatasetFields
from genesis_flow.areas.logged_models.documents import LoggedModelFields, ModelMetricFields
from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.metrics.places import PLACE
from genesis_flow.areas.models.documents import ModelVersionFields, RegisteredModelFields, version_id
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.traces.documents import AssessmentFields, SpanFields, SpanPayloadFields, TraceFields
from genesis_flow.documents.declared import Declared
from genesis_flow.documents.keys import SEPARATOR, is_open, settled_block_id, settled_number
from genesis_flow.documents.plain import Document
from genesis_flow.mongo.binding import BATCH
from genesis_flow.mongo.connection import Database

_ARCHIVED = "ARCHIVE_REPO"


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """One document that disagrees with others."""

    collection: str
    id: str
    text: str
    remedy: str
    visible: bool = True


_HARMLESS = "Nothing needs to be done."
_REMOVABLE = "`genesis-flow doctor --repair` removes it."


async def inconsistencies(database: Database) -> AsyncIterator[Inconsistency]:
    """All findings, collection by collection."""
    checks = (
        *(_heads, _blocks, _models, _versions, _spans, _payloads, _assessments),
        *(_points_of_models, _records),
    )
    for check in checks:
        async for inconsistency in check(database):
            yield inconsistency


async def _by_id(
    database: Database, declared: type[Declared], fields: Iterable[str]
) -> AsyncIterator[Document]:
    documents = database.everywhere(declared).find(
        {}, {"_id": 1, **dict.fromkeys(fields, 1)}, batch_size=BATCH
    )
    async for document in documents.sort("_id", 1):
        yield document


class _Parents:
    """Walks along the parents beside children whose ids begin with theirs: both are in order."""

    def __init__(self, parents: AsyncIterator[Document]) -> None:
        self._parents = parents
        self._current: Document | None = None
        self._started = False

    async def of(self, parent_id: str) -> Document | None:
        while not self._started or (self._current is not None and self._key(self._current) < _key(parent_id)):
            self._started = True
            self._current = await anext(self._parents, None)
        current = self._current
        return current if current is not None and current["_id"] == parent_id else None

    @staticmethod
    def _key(document: Document) -> str:
        return _key(document["_id"])


def _key(identity: str) -> str:
    """Children of "a" sort as "a|...", which may come after "a b"; compare parents as their children do."""
    return identity + SEPARATOR


async def _heads(database: Database) -> AsyncIterator[Inconsistency]:
    runs = _Parents(_by_id(database, RunFields, ()))
    name = MetricHeadFields.Settings.name
    async for head in _by_id(database, MetricHeadFields, ("run_uuid", "key", "latest", "tail")):
        if await runs.of(head["run_uuid"]) is None:
            yield Inconsistency(
                name, head["_id"], "belongs to a run that is not there", _REMOVABLE, visible=False
            )
            continue
        if head["key"] == PLACE:
            continue
        latest = head["latest"]
        if any((step, time) > (latest["step"], latest["timestamp"]) for time, step, _ in head["tail"]):
            yield Inconsistency(name, head["_id"], "has a later point than its latest", "Report this.")


async def _blocks(database: Database) -> AsyncIterator[Inconsistency]:
    heads: set[str] = set()
    run, name = None, MetricBlockFields.Settings.name
    expected = ""  # the next settled block
    async for block in _by_id(database, MetricBlockFields, ()):
        head, _, _ = block["_id"].rpartition(SEPARATOR)
        if not is_open(block["_id"]):
            number = settled_number(block["_id"])
            if number and block["_id"] != expected:
                text = "is settled, and the block before it is missing"
                yield Inconsistency(name, block["_id"], text, "Restore a backup.")
            expected = settled_block_id(head, number + 1)
        run_id = head.partition(SEPARATOR)[0]
        if run_id != run:  # the metrics of one run are few enough to hold
            run = run_id
            query = {"run_uuid": run_id, "_id": {"$gte": _key(run_id), "$lt": run_id + "}"}}
            found = database.everywhere(MetricHeadFields).find(query, {"_id": 1}, batch_size=BATCH)
            heads = {each["_id"] async for each in found}
        if head not in heads:
            text = "holds points of a metric that is not there"
            yield Inconsistency(name, block["_id"], text, _HARMLESS, visible=False)


async def _models(database: Database) -> AsyncIterator[Inconsistency]:
    name = RegisteredModelFields.Settings.name
    versions = database.everywhere(ModelVersionFields)
    async for model in _by_id(database, RegisteredModelFields, ("name", "stages", "aliases")):
        numbers = {*map(int, model["stages"]), *model["aliases"].values()}
        ids = [version_id(model["_id"], number) for number in numbers]
        there = {each["_id"] async for each in versions.find({"_id": {"$in": ids}}, {"_id": 1})}
        for number in sorted(numbers):
            if version_id(model["_id"], number) not in there:
                text = f"'{model['name']}' has a stage or an alias for version {number}, which is not there"
                yield Inconsistency(name, model["_id"], text, f"Delete version {number} of it again.")


async def _versions(database: Database) -> AsyncIterator[Inconsistency]:
    name = ModelVersionFields.Settings.name
    models = _Parents(_by_id(database, RegisteredModelFields, ("last_version",)))
    async for version in _by_id(database, ModelVersionFields, ("model", "version", "name")):
        model = await models.of(version["model"])
        if model is not None and version["version"] > model["last_version"]:
            text = f"version {version['version']} of '{version['name']}' was not given out"
            yield Inconsistency(name, version["_id"], text, "Report this.")


async def _spans(database: Database) -> AsyncIterator[Inconsistency]:
    traces = _Parents(_by_id(database, TraceFields, ("spans_location",)))
    query_fields = ("trace_id", "payload")
    async for span in _by_id(database, SpanFields, query_fields):
        trace = await traces.of(span["trace_id"])
        if trace is None:
            text = "belongs to a trace that is not there"
            yield Inconsistency(SpanFields.Settings.name, span["_id"], text, _REMOVABLE, visible=False)
        elif trace.get("spans_location") == _ARCHIVED and "payload" in span:
            text = "has content here though its trace is archived"
            yield Inconsistency(SpanFields.Settings.name, span["_id"], text, _HARMLESS, visible=False)


async def _payloads(database: Database) -> AsyncIterator[Inconsistency]:
    spans = _Parents(_by_id(database, SpanFields, ()))
    async for payload in _by_id(database, SpanPayloadFields, ()):
        span = SEPARATOR.join(payload["_id"].split(SEPARATOR)[:2])
        if await spans.of(span) is None:
            text = "is content of a span that is not there"
            yield Inconsistency(
                SpanPayloadFields.Settings.name, payload["_id"], text, _HARMLESS, visible=False
            )


async def _assessments(database: Database) -> AsyncIterator[Inconsistency]:
    traces = database.everywhere(TraceFields)
    seen: dict[str, bool] = {}
    async for assessment in _by_id(database, AssessmentFields, ("trace_id",)):
        trace_id = assessment["trace_id"]
        if trace_id not in seen:
            if len(seen) > BATCH:
                seen.clear()
            seen[trace_id] = await traces.find_one({"_id": trace_id}, {"_id": 1}) is not None
        if not seen[trace_id]:
            text = "judges a trace that is not there"
            yield Inconsistency(
                AssessmentFields.Settings.name, assessment["_id"], text, _REMOVABLE, visible=False
            )


async def _points_of_models(database: Database) -> AsyncIterator[Inconsistency]:
    name = ModelMetricFields.Settings.name
    runs = _Parents(_by_id(database, RunFields, ()))
    models = {model["_id"] async for model in _by_id(database, LoggedModelFields, ())}
    async for point in _by_id(database, ModelMetricFields, ("run_id", "model_id")):
        if await runs.of(point["run_id"]) is None:
            text = "belongs to a run that is not there"
        elif point["model_id"] not in models:
            text = "belongs to a logged model that is not there"
        else:
            continue
        yield Inconsistency(name, point["_id"], text, _REMOVABLE, visible=False)


async def _records(database: Database) -> AsyncIterator[Inconsistency]:
    datasets = _Parents(_by_id(database, EvaluationDatasetFields, ()))
    async for record in _by_id(database, DatasetRecordFields, ("dataset_id",)):
        if await datasets.of(record["dataset_id"]) is None:
            text = "belongs to an evaluation dataset that is not there"
            yield Inconsistency(
                DatasetRecordFields.Settings.name, record["_id"], text, _REMOVABLE, visible=False
            )
