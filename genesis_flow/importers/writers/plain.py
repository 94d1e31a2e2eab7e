"""Documents of the kinds that the table of kinds describes column by column."""

from collections.abc import Iterable

from mlflow.exceptions import MlflowException

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
        document = plain_document(item, self.context)
        if kind.within:
            owner = KIND[kind.within].collection, item.body[kind.parent]
            yield Write(kind.declared, document, root=owner)
        elif kind.children:
            self._held.append(Write(kind.declared, document))
        else:
            yield Write(kind.declared, document)

    def finish(self) -> Iterable[Write]:
        held, self._held = self._held, []
        return held


def plain_document(item: Record, context: Context) -> Document:
    kind, body = PLAIN[item.kind], item.body
    document: Document = {
        "_id": item.id,
        "workspace": context.workspace,
        "experiment_id": context.experiment(body["experiment_id"]),
        **{
            name: body[name]
            for name in kind.body
            if name not in ("id", "experiment_id") and body[name] is not None
        },
        **kind.constants,
    }
    if kind.name == "review_queue":
        asked = (context.questions.get(schema, schema) for schema in document["schema_ids"])
        document["schema_ids"] = sorted(asked)
    try:
        kind.derive(document)
        kind.check(document)
    except (MlflowException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise Unwanted(f"MLflow could not read it: {error}") from error
    return document
