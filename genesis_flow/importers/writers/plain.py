"""Documents of the kinds that the table of kinds describes column by column."""

from collections.abc import Iterable

from mlflow.exceptions import MlflowException

from genesis_flow.documents.declared import Declared
from genesis_flow.documents.plain import Document
from genesis_flow.importers.kinds import KIND, PLAIN
from genesis_flow.importers.records import Record, Series
from genesis_flow.importers.writers.base import Context, Unwanted, Write, Writer


class PlainWriter(Writer):
    """Holds back what others belong to, so that nobody reads a queue without its items."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._held: list[Write] = []

    def add(self, item: Record | Series) -> Iterable[Write]:
        assert isinstance(item, Record)
        kind = PLAIN[item.kind]
        if reason := self.context.refused_others.get((kind.name, item.id)):
            raise Unwanted(reason)
        if kind.name == "label_schema" and item.id in self.context.questions:
            return  # the target has made its own, which is the same
        document, parts = plain_documents(item, self.context)
        yield from (
            Write(declared, part, root=(kind.collection, document["_id"])) for declared, part in parts
        )
        if kind.within:
            owner = KIND[kind.within].collection, item.body[kind.parent]
            yield Write(kind.declared, document, root=owner)
        elif kind.children:
            self._held.append(Write(kind.declared, document, merge=kind.merge))
        else:
            yield Write(kind.declared, document, merge=kind.merge)

    def finish(self) -> Iterable[Write]:
        held, self._held = self._held, []
        return held


def plain_documents(item: Record, context: Context) -> tuple[Document, list[tuple[type[Declared], Document]]]:
    """The document of a record, and those of what it keeps in others."""
    kind, body = PLAIN[item.kind], item.body
    document: Document = {
        "_id": kind.id_in(context.workspace, item.id),
        "workspace": context.workspace,
        **{name: body[name] for name in kind.body if name != "id" and body[name] is not None},
        **dict.fromkeys(kind.counters, 0),
        **kind.constants,
    }
    _renumber(document, context)
    for lookup in kind.lookups:
        _renumber(document[lookup.field], context)
    if kind.name == "review_queue":
        asked = (context.questions.get(schema, schema) for schema in document["schema_ids"])
        document["schema_ids"] = sorted(asked)
    try:
        kind.derive(document)
        parts = kind.divide(document)
        kind.check(document)
    except (MlflowException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unwanted(f"MLflow could not read it: {error}") from error
    return document, parts


def _renumber(document: Document, context: Context) -> None:
    """Experiments have their numbers in the target."""
    if "experiment_id" in document:
        document["experiment_id"] = context.experiment(document["experiment_id"])
