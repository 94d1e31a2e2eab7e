"""What the target holds of the entities that a source names; reads documents, and nothing of the stores."""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.collection import Collection
from pymongo.database import Database

from genesis_flow.importers.verify import documents
from genesis_flow.importers.verify.documents import Document
from genesis_flow.importers.verify.entities import Entity, Fields, Troubles
from genesis_flow.importers.verify.histories import POINT, Histories, packed

SEPARATOR, AFTER_SEPARATOR = "|", "}"


@dataclass(frozen=True, slots=True)
class Names:
    """What the import called otherwise than the source: numbers of experiments, names of models."""

    experiments: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    # The names of experiments, by their ids in the source.
    names: Mapping[str, str] = field(default_factory=dict)
    # Numbers of experiments that were there before, and only gained what the source has.
    joined: frozenset[int] = frozenset()
    # The journal, which also knows where artifacts went.
    journal: str = ""

    def experiment(self, source_id: Any) -> int:
        return self.experiments.get(str(source_id), int(source_id))

    def source_of(self, number: int) -> str:
        """The id in the source of an experiment of the target."""
        for source_id, renumbered in self.experiments.items():
            if renumbered == number:
                return source_id
        return str(number)

    def model(self, name: str) -> str:
        return self.models.get(name, name)


@dataclass(slots=True)
class RunMetrics:
    """What the target has of the metrics of a run."""

    heads: dict[str, Document] = field(default_factory=dict)
    histories: Histories = field(default_factory=Histories)
    # The metrics that have blocks.
    packed: set[str] = field(default_factory=set)


class Target:
    def __init__(self, db: Database[Document], prefix: str, workspace: str, names: Names) -> None:
        self._db = db
        self._prefix = prefix
        self.workspace = workspace
        self.names = names
        self.troubles = Troubles()
        # Of the registered models that were found, by their names here.
        self._model_ids: dict[str, str] = {}

    def _collection(self, name: str) -> Collection[Document]:
        return self._db[f"{self._prefix}{name}"]

    def find(self, kind: str, wanted: Sequence[Entity]) -> dict[str, Entity]:
        """The entities of these ids that there are, under the source's ids."""
        read: dict[str, Callable[[Sequence[Entity]], Iterator[tuple[str, Fields, Any]]]] = {
            "experiment": self._experiments,
            "run": self._runs,
            "dataset": self._datasets,
            "logged_model": self._logged_models,
            "trace": lambda found: self._by_id("traces", found, documents.trace),
            "span": self._spans,
            "assessment": lambda found: self._by_id("assessments", found, documents.assessment),
            "evaluation_dataset": lambda found: self._by_id(
                "evaluation_datasets", found, documents.evaluation_dataset
            ),
            "evaluation_record": self._records,
            "entity_association": self._associations,
            "registered_model": self._registered_models,
            "model_version": self._model_versions,
            "webhook": lambda found: self._by_id("webhooks", found, documents.webhook),
        }
        return {name: Entity(kind, name, fields, handle) for name, fields, handle in read[kind](wanted)}

    def _by_id(
        self, collection: str, wanted: Sequence[Entity], read: Callable[[Document], Fields]
    ) -> Iterator[tuple[str, Fields, Any]]:
        query = {"_id": {"$in": [entity.id for entity in wanted]}, "workspace": self.workspace}
        for document in self._collection(collection).find(query):
            fields = read(document)
            if "experiment_id" in document:
                fields["experiment_id"] = self.names.source_of(document["experiment_id"])
            yield document["_id"], fields, document

    def _experiments(self, wanted: Sequence[Entity]) -> Iterator[tuple[str, Fields, Any]]:
        by_number = {self.names.experiment(entity.id): entity.id for entity in wanted}
        query = {"_id": {"$in": list(by_number)}, "workspace": self.workspace}
        stated = {entity.id: entity.fields for entity in wanted}
        for document in self._collection("experiments").find(query):
            source_id = by_number[document["_id"]]
            fields = documents.experiment(document)
            if document["_id"] in self.names.joined:
                tags = {name: fields.get(name) for name in stated[source_id] if name.startswith("tags.")}
                fields = stated[source_id] | tags
            elif fields["name"] == self.names.names.get(source_id):
                fields["name"] = stated[source_id]["name"]
            yield source_id, fields, document

    def _runs(self, wanted: Sequence[Entity]) -> Iterator[tuple[str, Fields, Any]]:
        found = list(self._by_id("runs", wanted, documents.run))
        used = {
            one["id"]: (run["experiment_id"], one["name"], one["digest"], run["_id"])
            for _, _, run in found
            for one in run.get("inputs") or ()
        }
        projection = {"experiment_id": 1, "name": 1, "digest": 1}
        for dataset in self._collection("datasets").find({"_id": {"$in": list(used)}}, projection):
            *said, run_id = used.pop(dataset["_id"])
            if said != [dataset["experiment_id"], dataset["name"], dataset["digest"]]:
                self._trouble("run", run_id, f"its input {said[1]} names another dataset: {dataset}")
        for _, name, _, run_id in used.values():
            self._trouble("run", run_id, f"the dataset of its input {name} is missing")
        yield from found

    def metrics(self, run_id: str) -> RunMetrics:
        ids = {"$gte": run_id + SEPARATOR, "$lt": run_id + AFTER_SEPARATOR}
        found = RunMetrics()
        for head in self._collection("latest_metrics").find({"_id": ids}, batch_size=1000):
            if head["_id"] != f"{run_id}{SEPARATOR}{head['key']}" or head["run_uuid"] != run_id:
                self._trouble("metric", head["_id"], "its id, run and key contradict each other")
            found.heads[head["key"]] = head
            tail = b"".join(POINT.pack(int(time), int(step), value) for time, step, value in head["tail"])
            found.histories.add(head["key"], tail)
        for block in self._collection("metrics").find({"_id": ids}, batch_size=50):
            _, key, _ = block["_id"].split(SEPARATOR, 2)
            found.histories.add(key, self._block(block))
            found.packed.add(key)
        return found

    def check_packing(self, found: RunMetrics) -> None:
        """A reader looks for blocks where the head says that there are some."""
        for key, head in found.heads.items():
            if bool(head.get("packed")) != (key in found.packed):
                self._trouble("metric", head["_id"], f"it says {head.get('packed')} blocks, wrongly")

    def _block(self, block: Document) -> bytes:
        times, steps, values = array("q"), array("q"), array("d")
        try:
            times.frombytes(block["timestamps"])
            steps.frombytes(block["steps"])
            values.frombytes(block["values"])
            if not len(times) == len(steps) == len(values) == block["n"]:
                raise ValueError(f"it says {block['n']} points, its columns hold {len(times)}")
            if times and (block["first_timestamp"], block["last_timestamp"]) != (times[0], times[-1]):
                raise ValueError("its bounds are not those of its points")
        except ValueError as exc:
            self._trouble("metric", block["_id"], f"a damaged block: {exc}")
            return b""
        return packed(times, steps, values)

    def _datasets(self, wanted: Sequence[Entity]) -> Iterator[tuple[str, Fields, Any]]:
        keys = {
            (
                self.names.experiment(entity.fields["experiment_id"]),
                entity.fields["name"],
                entity.fields["digest"],
            ): entity
            for entity in wanted
        }
        clauses = [{"experiment_id": number, "name": name, "digest": digest} for number, name, digest in keys]
        query = {"$or": clauses, "workspace": self.workspace}
        for document in self._collection("datasets").find(query):
            entity = keys[document["experiment_id"], document["name"], document["digest"]]
            fields = documents.dataset(document)
            fields["experiment_id"] = entity.fields["experiment_id"]
            yield entity.id, fields, document

    def _logged_models(self, wanted: Sequence[Entity]) -> Iterator[tuple[str, Fields, Any]]:
        points: dict[str, list[Document]] = {}
        for point in self._collection("logged_model_metrics").find(
            {"model_id": {"$in": [entity.id for entity in wanted]}}
        ):
            points.setdefault(point["model_id"], []).append(point)
        for name, fields, document in self._by_id(
            "logged_models", wanted, lambda model: documents.logged_model(model, points.get(model["_id"], []))
        ):
            for point in points.get(name, []):
                if point["experiment_id"] != document["experiment_id"]:
                    self._trouble("logged_model", name, f"its point {point['_id']} is in another experiment")
            yield name, fields, document

    def _spans(self, wanted: Sequence[Entity]) -> Iterator[tuple[str, Fields, Any]]:
        found = list(self._collection("spans").find({"_id": {"$in": [entity.id for entity in wanted]}}))
        for document in found:
            content = document.get("content")
            if content is None and document.get("payload"):
                content = self._payload(document)
            fields = documents.span(document, content)
            fields["experiment_id"] = self.names.source_of(document["experiment_id"])
            fields["trace_time"] = documents.whole(document.get("trace_time"))
            yield document["_id"], fields, document

    def _payload(self, span: Document) -> str:
        """The content of a span that was too long for its document."""
        start = f"{span['_id']}{SEPARATOR}{span['payload']}"
        ids = {"$gte": start + SEPARATOR, "$lt": start + AFTER_SEPARATOR}
        pieces = [piece["text"] for piece in self._collection("span_payloads").find({"_id": ids}).sort("_id")]
        if len(pieces) != span.get("chunks"):
            reason = f"its content has {len(pieces)} pieces, it says {span.get('chunks')}"
            self._trouble("span", span["_id"], reason)
        return "".join(pieces)

    def _records(self, wanted: Sequence[Entity]) -> Iterator[tuple[str, Fields, Any]]:
        by_dataset: dict[Any, list[str]] = {}
        for entity in wanted:
            by_dataset.setdefault(entity.fields["dataset_id"], []).append(entity.id)
        for dataset, ids in by_dataset.items():
            query = {"dataset_id": dataset, "record_id": {"$in": ids}}
            for document in self._collection("evaluation_dataset_records").find(query):
                yield document["record_id"], documents.evaluation_record(document), document

    def _associations(self, wanted: Sequence[Entity]) -> Iterator[tuple[str, Fields, Any]]:
        names = ("source_type", "source_id", "destination_type", "destination_id")
        for entity in wanted:
            ends = {name: self._end(entity, name) for name in names}
            document = self._collection("entity_associations").find_one(ends | {"workspace": self.workspace})
            if document is not None:
                said = {name: entity.fields[name] for name in names}
                yield entity.id, documents.entity_association(document) | said, document

    def _end(self, entity: Entity, name: str) -> Any:
        """An experiment has its number in the target."""
        value = entity.fields[name]
        if name.endswith("_id") and entity.fields[name.replace("_id", "_type")] == "experiment":
            return str(self.names.experiment(value))
        return value

    def _registered_models(self, wanted: Sequence[Entity]) -> Iterator[tuple[str, Fields, Any]]:
        by_name = {self.names.model(entity.id): entity.id for entity in wanted}
        query = {"name": {"$in": list(by_name)}, "workspace": self.workspace}
        for document in self._collection("registered_models").find(query):
            name = by_name[document["name"]]
            self._model_ids[document["name"]] = document["_id"]
            yield name, documents.registered_model(document) | {"name": name}, document

    def _model_versions(self, wanted: Sequence[Entity]) -> Iterator[tuple[str, Fields, Any]]:
        keys = {
            (self.names.model(str(entity.fields["name"])), entity.fields["version"]): entity
            for entity in wanted
        }
        clauses = [{"name": name, "version": number} for name, number in keys]
        for document in self._collection("model_versions").find(
            {"$or": clauses, "workspace": self.workspace}
        ):
            entity = keys[document["name"], document["version"]]
            model = self._model_ids.get(document["name"])
            said = document["model"], document["_id"]
            if model is not None and said != (model, f"{model}|{document['version']:010d}"):
                self._trouble("model_version", entity.id, "it belongs to another model")
            fields = documents.model_version(document) | {"name": entity.fields["name"]}
            yield entity.id, fields, document

    # Artifacts that were copied, or left behind

    def with_places(self, entities: Sequence[Entity]) -> list[Entity]:
        """Entities of the source with the places where their artifacts are to be in the target."""
        above = {
            value: _above(value)
            for entity in entities
            for name in _PLACES.get(entity.kind, ())
            if isinstance(value := entity.fields.get(name), str)
        }
        keys = [f"{self.names.journal}|{place}" for places in above.values() for place in places]
        if not self.names.journal or not keys:
            return list(entities)
        found = self._collection("import_artifacts").find({"_id": {"$in": keys}}, {"target": 1, "kind": 1})
        moved = {each["_id"].partition(SEPARATOR)[2]: each for each in found}
        return [_with_places(entity, above, moved) for entity in entities] if moved else list(entities)

    def _trouble(self, kind: str, where: str, reason: str) -> None:
        self.troubles.add(kind, where, reason)


# The fields that name a place where artifacts are.
_PLACES = {
    "experiment": ("artifact_location",),
    "run": ("artifact_uri",),
    "logged_model": ("artifact_location",),
    "trace": ("tags.mlflow.artifactLocation",),
    "model_version": ("source", "storage_location"),
}


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
