"""What a writer makes of records: documents, with a note of what they belong to."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from genesis_flow.documents.declared import Declared
from genesis_flow.documents.keys import escape
from genesis_flow.documents.plain import Document
from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.records import Body, Problem, Record, Series

Merge = Callable[[Document, Document], Document]

# A root document: the name of its collection without prefix, and its ``_id``.
Root = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class Write:
    """A document that shall be in the target.

    A *root* stands for itself (a run, a trace); it may clash with what the target holds already, and the
    journal names those that the import created. Everything else belongs to a root: it is left out when its
    root is, and goes when its root goes. ``root`` is the document itself unless named.

    ``merge(existing, new)`` joins the document with one of an earlier run of the import; without it the new
    document replaces the earlier, but for what stores keep in it for their readers (``Settings.derived``).
    ``shared`` documents (datasets) have many owners: the fields of ``add_to_sets`` are joined, the rest stays
    as it is.
    """

    declared: type[Declared]
    document: Document
    root: Root | None = None
    merge: Merge | None = None
    add_to_sets: dict[str, list[Any]] | None = None

    @property
    def collection(self) -> str:
        settings = self.declared.Settings
        name: str = settings.name
        return name

    @property
    def owner(self) -> Root:
        return self.root or (self.collection, self.document["_id"])

    @property
    def only_joins(self) -> bool:
        """Whether it adds to a document that another record makes."""
        return self.add_to_sets is not None and len(self.document) == 1


class Unwanted(Exception):
    """A record cannot be taken over; the message says why."""


def kept(kind: str, body: Body, *but: str) -> Document:
    """What columns of the source say, as far as they say something."""
    return {field: body[field] for field in KIND[kind].told if body[field] is not None and field not in but}


def escaped(values: Mapping[str, Any]) -> Document:
    return {escape(key): value for key, value in values.items()}


@dataclass(slots=True)
class Context:
    """What writers need to know of the whole import."""

    workspace: str
    # The number of each experiment in the target, by its id in the source.
    experiments: dict[str, int] = field(default_factory=dict)
    # Why the experiments that are not among them are left out.
    refused: dict[str, str] = field(default_factory=dict)
    # The names in the target of experiments (by id) and registered models (by name) that could not keep
    # theirs.
    names: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    # Why registered models are left out, by name.
    refused_models: dict[str, str] = field(default_factory=dict)
    # Why things of plain kinds are left out, by kind and id.
    refused_others: dict[tuple[str, str], str] = field(default_factory=dict)
    # The default questions that the target has made for experiments itself, by the id that the source's has.
    questions: dict[str, str] = field(default_factory=dict)
    # Experiments of the target that those of the source are merged into, as they were before the first
    # import; "pristine" says that they were as a new database has them, "left" how the last import left them,
    # "changed" that people had changed them before it.
    merged: dict[int, Document] = field(default_factory=dict)

    def experiment(self, source_id: Any) -> int:
        number = self.experiments.get(str(source_id))
        if number is None:
            reason = self.refused.get(str(source_id), "the source has no such experiment")
            raise Unwanted(f"experiment {source_id} is not imported: {reason}")
        return number


class Writer:
    """Turns the records of one unit into documents; a new one is made for each unit.

    Raise ``Unwanted`` for a record that cannot be taken over, or yield a ``Problem`` for a part of one.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    def add(self, item: Record | Series) -> Iterable[Write | Problem]:
        """What ``item`` makes; may be held back until later items are known."""
        raise NotImplementedError

    def finish(self) -> Iterable[Write | Problem]:
        """What was held back."""
        return ()
