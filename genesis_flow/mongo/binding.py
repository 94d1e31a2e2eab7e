"""Bind the declared documents to one database and prefix.

Beanie ties a Document class to one database in a process. Two stores with other databases or prefixes
would therefore see each other's collections if they shared classes, so each database gets subclasses of
its own. The declared classes are plain pydantic models: were they Documents, initialising a subclass
would also initialise (and create) the base's unprefixed collection.
"""

from dataclasses import dataclass
from typing import Any, cast

from beanie import Document, init_beanie
from pydantic import BaseModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from genesis_flow.areas.evaluation.documents import (
    DatasetRecordFields,
    EntityAssociationFields,
    EvaluationDatasetFields,
)
from genesis_flow.areas.experiments.documents import CounterFields, ExperimentFields
from genesis_flow.areas.logged_models.documents import LoggedModelFields, ModelMetricFields
from genesis_flow.areas.metrics.documents import MetricBlockFields, MetricHeadFields
from genesis_flow.areas.models.documents import ModelVersionFields, RegisteredModelFields
from genesis_flow.areas.runs.datasets import DatasetFields
from genesis_flow.areas.runs.documents import RunFields
from genesis_flow.areas.traces.documents import AssessmentFields, SpanFields, SpanPayloadFields, TraceFields
from genesis_flow.areas.traces.sums.documents import TraceSumsFields
from genesis_flow.areas.webhooks.documents import WebhookFields
from genesis_flow.documents.audit import AuditFields
from genesis_flow.documents.imports import (
    ImportArtifactFields,
    ImportItemFields,
    ImportJournalFields,
    ImportProblemFields,
    ImportUnitFields,
)
from genesis_flow.documents.portable import PortableCollection

Collection = AsyncCollection[dict[str, Any]]

# A reply holds 101 documents unless more are asked for, and whatever is left costs a round trip more.
BATCH = 10_000

DECLARED: tuple[type[BaseModel], ...] = (
    ExperimentFields,
    CounterFields,
    RunFields,
    MetricHeadFields,
    MetricBlockFields,
    DatasetFields,
    RegisteredModelFields,
    ModelVersionFields,
    WebhookFields,
    TraceFields,
    SpanFields,
    SpanPayloadFields,
    AssessmentFields,
    TraceSumsFields,
    LoggedModelFields,
    ModelMetricFields,
    EvaluationDatasetFields,
    DatasetRecordFields,
    EntityAssociationFields,
    ImportJournalFields,
    ImportUnitFields,
    ImportItemFields,
    ImportProblemFields,
    ImportArtifactFields,
    AuditFields,
)


def _bound(base: type[BaseModel], prefix: str) -> type[Document]:
    settings: Any = base.Settings  # type: ignore[attr-defined]

    class Bound(base, Document):  # type: ignore[valid-type,misc]
        class Settings(settings):
            name = prefix + settings.name

    Bound.__name__ = Bound.__qualname__ = base.__name__.removesuffix("Fields")
    return Bound


@dataclass(frozen=True, slots=True)
class Documents:
    """The document classes of one database."""

    classes: dict[type[BaseModel], type[Document]]
    portable: bool = False

    def __getitem__(self, declared: type[BaseModel]) -> type[Document]:
        return self.classes[declared]

    def collection(self, declared: type[BaseModel]) -> Collection:
        """The driver's collection, for paths too hot for a model per document."""
        collection: Collection = self.classes[declared].get_pymongo_collection()
        if not self.portable:
            return collection
        settings: Any = declared.Settings  # type: ignore[attr-defined]
        return cast(Collection, PortableCollection(collection, settings.name))


async def bind_documents(
    database: AsyncDatabase[dict[str, Any]], prefix: str, *, portable: bool = False
) -> Documents:
    """Make the document classes of ``database``; touches no index, migrations own those."""
    classes = {declared: _bound(declared, prefix) for declared in DECLARED}
    await init_beanie(database=database, document_models=list(classes.values()), skip_indexes=True)
    return Documents(classes, portable)
