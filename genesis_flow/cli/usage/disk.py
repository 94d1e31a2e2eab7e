"""What the collections take on disk, and how fast they grow."""

from dataclasses import dataclass
from typing import Any

from pymongo.errors import OperationFailure

from genesis_flow.areas.logged_models.documents import LoggedModelFields, ModelMetricFields
from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.models.documents import ModelVersionFields, RegisteredModelFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.traces.documents import AssessmentFields, SpanFields, SpanPayloadFields, TraceFields
from genesis_flow.cli.usage.source import Source
from genesis_flow.cli.usage.tally import Amounts
from genesis_flow.documents.declared import Declared
from genesis_flow.migrate.rights import UNAUTHORIZED
from genesis_flow.stores.areas import DECLARED

WHAT = "sizes on disk"
NOT_PORTABLE = "Sizes are left out in the portable profile: the account's own metrics have them."
_NOT_THERE = 26

# The measure that a collection grows with, and the collection that has a document for each of it.
_GROWS: dict[type[Declared], tuple[str, type[Declared]]] = {
    RunFields: ("runs", RunFields),
    MetricHeadFields: ("metrics", MetricHeadFields),
    MetricBlockFields: ("metrics", MetricHeadFields),
    TraceFields: ("traces", TraceFields),
    SpanFields: ("traces", TraceFields),
    SpanPayloadFields: ("traces", TraceFields),
    AssessmentFields: ("traces", TraceFields),
    LoggedModelFields: ("models", LoggedModelFields),
    ModelMetricFields: ("models", LoggedModelFields),
    RegisteredModelFields: ("registered_models", RegisteredModelFields),
    ModelVersionFields: ("model_versions", ModelVersionFields),
}


@dataclass(frozen=True, slots=True)
class Size:
    """One collection; None is what the server does not tell."""

    collection: str
    documents: int | None
    data_bytes: int | None = None
    storage_bytes: int | None = None
    """Compressed, on disk, without indexes."""
    index_bytes: int | None = None
    bytes_a_day: int | None = None

    @property
    def on_disk(self) -> int | None:
        if self.storage_bytes is None or self.index_bytes is None:
            return None
        return self.storage_bytes + self.index_bytes


def sizes(source: Source, recent: Amounts, days: float) -> list[Size]:
    """The collections that have documents, the largest first; ``recent`` came in the last ``days``."""
    found: dict[type[Declared], Size] = {}
    refused: dict[str, OperationFailure] = {}
    for declared in DECLARED:
        size = _size(source, declared, refused)
        if size.documents != 0:
            found[declared] = size
    if refused:
        error = next(iter(refused.values()))
        source.gaps.append(source.refused(WHAT, tuple(refused), "collStats", error))
    grown = [_grown(found, declared, recent, days) for declared in found]
    return sorted(grown, key=lambda size: (-(size.on_disk or 0), -(size.documents or 0), size.collection))


def _size(source: Source, declared: type[Declared], refused: dict[str, OperationFailure]) -> Size:
    name = source.name(declared)
    if not source.settings.portable:
        try:
            # A cluster answers once for each shard.
            told = list(source.collection(declared).aggregate([{"$collStats": {"storageStats": {}}}]))
            return _added(name, [each["storageStats"] for each in told])
        except OperationFailure as error:
            if error.code == _NOT_THERE:
                return Size(name, 0, 0, 0, 0)
            refused[name] = error
    try:
        return Size(name, source.collection(declared).estimated_document_count())
    except OperationFailure as error:
        if error.code != UNAUTHORIZED:
            raise
        return Size(name, None)


def _added(name: str, told: list[dict[str, Any]]) -> Size:
    def total(field: str) -> int:
        return sum(int(each.get(field, 0)) for each in told)

    return Size(name, total("count"), total("size"), total("storageSize"), total("totalIndexSize"))


def _grown(found: dict[type[Declared], Size], declared: type[Declared], recent: Amounts, days: float) -> Size:
    """The size with its growth: its share of what came lately, of whatever it grows with."""
    size = found[declared]
    if declared not in _GROWS or size.on_disk is None:
        return size
    measure, counted = _GROWS[declared]
    documents = found[counted].documents if counted in found else 0
    share = min(1.0, recent[measure] / documents) if documents else 0.0
    return Size(
        size.collection,
        size.documents,
        size.data_bytes,
        size.storage_bytes,
        size.index_bytes,
        round(size.on_disk * share / days),
    )
