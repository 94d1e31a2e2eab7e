"""Places of artifacts that were copied or left behind by the import."""

from collections.abc import Sequence

from pymongo.collection import Collection

from genesis_flow.documents.plain import Document
from genesis_flow.importers.verify.entities import Entity

# The fields that name a place where artifacts are.
_PLACES = {
    "experiment": ("artifact_location",),
    "run": ("artifact_uri",),
    "logged_model": ("artifact_location",),
    "trace": ("tags.mlflow.artifactLocation",),
    "model_version": ("source", "storage_location"),
}


def with_places(copied: Collection[Document], journal: str, entities: Sequence[Entity]) -> list[Entity]:
    """Entities of the source with the places where their artifacts are to be in the target."""
    above = {
        value: _above(value)
        for entity in entities
        for name in _PLACES.get(entity.kind, ())
        if isinstance(value := entity.fields.get(name), str)
    }
    keys = [f"{journal}|{place}" for places in above.values() for place in places]
    if not journal or not keys:
        return list(entities)
    found = copied.find({"_id": {"$in": keys}}, {"target": 1, "kind": 1})
    moved = {each["_id"].partition("|")[2]: each for each in found}
    return [_with_places(entity, above, moved) for entity in entities] if moved else list(entities)


def _above(place: str) -> list[str]:
    """The place itself, then what it lies in."""
    parts = place.split("/")
    return [place, *("/".join(parts[:end]) for end in range(len(parts), 0, -1))]


def _with_places(entity: Entity, above: dict[str, list[str]], moved: dict[str, Document]) -> Entity:
    fields = dict(entity.fields)
    for name in _PLACES.get(entity.kind, ()):
        value = fields.get(name)
        for place in above.get(value, ()) if isinstance(value, str) else ():
            found = moved.get(place)
            # A version lies in what a run or a model made, never just somewhere in an experiment.
            if found is None or (found["kind"] == "experiment" and entity.kind != "experiment"):
                continue
            if place == value or entity.kind == "model_version":
                fields[name] = found["target"] + str(value)[len(place) :]
            break
    return entity._replace(fields=fields)
