"""What the target has beyond the source: inside of what both have, and beside it in the same experiments."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from genesis_flow.importers.kinds import KINDS
from genesis_flow.importers.verify.entities import canonical
from genesis_flow.importers.verify.target import AFTER_SEPARATOR, SEPARATOR, Target

Query = dict[str, Any]


class Scope(NamedTuple):
    """The documents of one kind that belong to some parents."""

    kind: str
    collection: str
    parent: str
    # The field that names the parent; None: the ids begin with the parent's.
    field: str | None
    # Whether people make such things in the target, too, once they use it.
    may_be_new: bool = False


SCOPES = (
    Scope("model_version", "model_versions", "registered_model", None, True),
    Scope("span", "spans", "trace", None),
    Scope("span_payload", "span_payloads", "trace", None),
    Scope("assessment", "assessments", "trace", "trace_id"),
    Scope("evaluation_record", "evaluation_dataset_records", "evaluation_dataset", "dataset_id"),
    Scope("entity_association", "entity_associations", "evaluation_dataset", "source_id"),
    *(
        Scope(
            kind.name,
            kind.collection,
            kind.within or "experiment",
            kind.parent or "experiment_id",
            may_be_new=not kind.within,
        )
        for kind in KINDS
        # What belongs to nothing of the source may be anybody's.
        if kind.of_experiment or (kind.within and not kind.own)
    ),
)


def surplus(target: Target, scope: Scope) -> Iterator[str]:
    """The ids of documents that belong to what was found, and are not among what was found."""
    for parents in target.seen.portions(scope.parent):
        ids = [json.loads(parent) for parent in parents]
        if scope.parent == "experiment":
            # There were other things in those before.
            ids = [number for number in ids if number not in target.names.joined]
        for query in _queries(scope, ids):
            for document in target.collection(scope.collection).find(query, {"_id": 1}):
                if not target.seen.has(scope.kind, identifier := canonical(document["_id"])):
                    yield identifier


def _queries(scope: Scope, parents: list[Any]) -> Iterable[Query]:
    if scope.field is not None:
        yield {scope.field: {"$in": parents}}
        return
    for start in range(0, len(parents), 50):
        ranges = [
            {"_id": {"$gte": f"{parent}{SEPARATOR}", "$lt": f"{parent}{AFTER_SEPARATOR}"}}
            for parent in parents[start : start + 50]
        ]
        yield {"$or": ranges}
