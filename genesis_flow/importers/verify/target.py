"""What the target holds of the entities that a source names; reads documents, and nothing of the stores.

How documents are named after their content is the schema's, which the stores rely on, too.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.collection import Collection
from pymongo.database import Database

from genesis_flow.areas.evaluation.documents import association_key, record_key
from genesis_flow.areas.runs.datasets import dataset_key
from genesis_flow.documents.plain import Document
from genesis_flow.importers.kind import Kind
from genesis_flow.importers.kinds import KIND, PLAIN
from genesis_flow.importers.verify import documents
from genesis_flow.importers.verify.entities import Entity, Fields, Troubles, canonical, canonical_object
from genesis_flow.importers.verify.places import with_places
from genesis_flow.importers.verify.plain import plain_fields
from genesis_flow.importers.verify.registries import undivided
from genesis_flow.importers.verify.seen import Seen
from genesis_flow.importers.verify.stored import Stored

SEPARATOR, AFTER_SEPARATOR = "|", "}"
# Numbers from here on were drawn at random by MLflow's file store: counting never comes near them.
_RANDOM_NUMBERS = 10**12
# Dates that Python cannot hold and texts that are no UTF-8 are differences, not errors.
_ANYTHING: "CodecOptions[Document]" = CodecOptions(
    datetime_conversion=DatetimeConversion.DATETIME_AUTO, unicode_decode_error_handler="backslashreplace"
)

Found = Iterator[tuple[str, Fields, Document]]


@dataclass(frozen=True, slots=True)
class Names:
    """What the import called otherwise than the source: numbers of experiments, names of models."""

    experiments: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    # The names of experiments, by their ids in the source.
    names: Mapping[str, str] = field(default_factory=dict)
    # Default questions that the target had made itself, by the ids of the source's.
    questions: Mapping[str, str] = field(default_factory=dict)
    # Numbers of experiments that were there before, and only gained what the source has.
    joined: frozenset[int] = frozenset()
    # The journal, which also knows where artifacts went.
    journal: str = ""

    def experiment(self, source_id: Any) -> int:
        return self.experiments.get(str(source_id), int(source_id))

    def source_of(self, number: Any) -> str:
        """The id in the source of an experiment of the target; what is no number is told as it is."""
        if not documents.is_whole(number):
            return f"no number: {canonical(number)}"
        for source_id, renumbered in self.experiments.items():
            if renumbered == number:
                return source_id
        # The source's experiment of this number has another one here.
        return f"{number} of the target" if str(number) in self.experiments else str(number)

    def model(self, name: str) -> str:
        return self.models.get(name, name)


class Target:
    def __init__(self, db: Database[Document], prefix: str, workspace: str, names: Names) -> None:
        self._db = db
        self._prefix = prefix
        self.workspace = workspace
        self.names = names
        self.troubles = Troubles()
        # The ids of the documents that were found, by kind.
        self.seen = Seen()
        # Of the registered models that were found, by their names here.
        self._model_ids: dict[Any, Any] = {}

    def collection(self, name: str) -> Collection[Document]:
        return self._db.get_collection(f"{self._prefix}{name}", codec_options=_ANYTHING)

    def close(self) -> None:
        self.seen.close()

    def trouble(self, kind: str, where: str, reason: str) -> None:
        self.troubles.add(kind, where, reason)

    def find(self, kind: str, wanted: Sequence[Entity]) -> dict[str, Entity]:
        """The entities of these ids that there are, under the source's ids."""
        read: dict[str, Callable[[Sequence[Entity]], Found]] = {
            "experiment": self._experiments,
            "run": self._runs,
            "dataset": self._datasets,
            "logged_model": self._logged_models,
            "span": self._spans,
            "evaluation_record": self._records,
            "entity_association": self._associations,
            "registered_model": self._registered_models,
            "model_version": self._model_versions,
        }
        found: dict[str, Entity] = {}
        ids = []
        if kind in PLAIN:
            documents_of = self._plain(PLAIN[kind], wanted)
        else:
            documents_of = read[kind](wanted) if kind in read else self._by_id(kind, wanted)
        for name, fields, document in documents_of:
            if name in found:
                self.trouble(kind, name, f"it is there twice, also as {canonical(document['_id'])}")
            found.setdefault(name, Entity(kind, name, fields, document))
            ids.append(canonical(document["_id"]))
        self.seen.add(kind, ids)
        return found

    def _fields(self, kind: str, document: Document, **known: Any) -> Fields:
        """All that a document says; ``known`` are fields that must have these values."""
        stored = Stored(document)
        stored.settle(**{"_id": document["_id"], **known})
        fields = documents.READERS[kind](stored)
        if "experiment_id" in document:
            fields["experiment_id"] = self.names.source_of(stored.take("experiment_id"))
        return fields | stored.rest()

    def _by_id(self, kind: str, wanted: Sequence[Entity]) -> Found:
        query = {"_id": {"$in": [entity.id for entity in wanted]}, "workspace": self.workspace}
        for document in self.collection(KIND[kind].collection).find(query):
            yield document["_id"], self._fields(kind, document, workspace=self.workspace), document

    def _plain(self, kind: Kind, wanted: Sequence[Entity]) -> Found:
        questions = self.names.questions
        by_id = {kind.id_in(self.workspace, questions.get(entity.id, entity.id)): entity for entity in wanted}
        query = {"_id": {"$in": list(by_id)}, "workspace": self.workspace}
        divided = self._divided(kind, list(by_id))
        for document in self.collection(kind.collection).find(query):
            entity = by_id[document["_id"]]
            fields = self._plain_fields(kind, document, divided.get(document["_id"], []))
            if document["_id"] in questions.values():
                # The target had made its own, which says the same but for the times.
                fields |= {name: entity.fields[name] for name in ("created_time", "last_update_time")}
            if kind.name == "review_queue":
                fields["schema_ids"] = self._asked(document.get("schema_ids"), fields["schema_ids"])
            yield entity.id, fields, document

    def _plain_fields(self, kind: Kind, document: Document, contents: list[Document]) -> Fields:
        stored = Stored(undivided(document, contents) if kind.named else document)
        for name in {lookup.field for lookup in kind.lookups}:
            copied = stored.take(name)
            if isinstance(copied, dict) and "experiment_id" in copied:
                copied = {**copied, "experiment_id": self.names.source_of(copied["experiment_id"])}
            stored.put(name, copied)
        fields = plain_fields(kind, stored)
        stored.settle(_id=document["_id"], workspace=self.workspace)
        if "experiment_id" in document:
            fields["experiment_id"] = self.names.source_of(stored.take("experiment_id"))
        return fields | stored.rest()

    def _divided(self, kind: Kind, ids: list[str]) -> dict[Any, list[Document]]:
        """The documents of other collections that keep parts of those with these ids."""
        found: dict[Any, list[Document]] = {}
        for child in kind.children if kind.named else ():
            for document in self.collection(child.collection).find(child.query(ids)):
                if isinstance(document[str(child.field)], str):
                    found.setdefault(document[str(child.field)], []).append(document)
        return found

    def _asked(self, schema_ids: Any, told: Any) -> Any:
        """The questions of a queue under the ids that the source has for them."""
        theirs = {made: source_id for source_id, made in self.names.questions.items()}
        if not isinstance(schema_ids, list) or not any(_looked_up(theirs, each) for each in schema_ids):
            return told
        return canonical_object(sorted(theirs.get(each, each) for each in schema_ids))

    def _experiments(self, wanted: Sequence[Entity]) -> Found:
        by_number = {self.names.experiment(entity.id): entity.id for entity in wanted}
        query = {"_id": {"$in": list(by_number)}, "workspace": self.workspace}
        stated = {entity.id: entity.fields for entity in wanted}
        counted = max((number for number in by_number if number < _RANDOM_NUMBERS), default=0)
        for document in self.collection("experiments").find(query):
            if (source_id := _looked_up(by_number, document["_id"])) is None:
                continue
            number = self.names.experiment(source_id)
            fields = self._fields("experiment", document, _id=number, workspace=self.workspace)
            if number in self.names.joined:
                tags = {name: fields.get(name) for name in stated[source_id] if name.startswith("tags.")}
                fields = stated[source_id] | tags
            elif source_id in self.names.names and fields["name"] == self.names.names[source_id]:
                fields["name"] = stated[source_id]["name"]
            yield source_id, fields, document
        counter = self.collection("counters").find_one({"_id": "experiments"}) or {}
        last = counter.get("last")
        if counted and not (documents.is_whole(last) and last >= counted):
            reason = f"its last is {canonical(last)}: the next experiment would get a number that is taken"
            self.trouble("counter", "experiments", reason)

    def _runs(self, wanted: Sequence[Entity]) -> Found:
        for name, fields, document in self._by_id("run", wanted):
            # Compared where the metrics are.
            fields.pop("metric_keys", None)
            fields.pop("places", None)
            inputs = document.get("inputs")
            for one in inputs if isinstance(inputs, list) else ():
                if isinstance(one, dict):
                    number, named = (
                        document.get("experiment_id"),
                        (str(one.get("name")), str(one.get("digest"))),
                    )
                    if not documents.is_whole(number) or one.get("id") != dataset_key(number, *named):
                        self.trouble("run", name, f"its input {one.get('name')} names another dataset")
            yield name, fields, document

    def _datasets(self, wanted: Sequence[Entity]) -> Found:
        keys = {
            dataset_key(
                self.names.experiment(entity.fields["experiment_id"]),
                entity.fields["name"],
                entity.fields["digest"],
            ): entity
            for entity in wanted
        }
        query = {"_id": {"$in": list(keys)}, "workspace": self.workspace}
        for document in self.collection("datasets").find(query):
            fields = self._fields("dataset", document, workspace=self.workspace)
            yield keys[document["_id"]].id, fields, document

    def _logged_models(self, wanted: Sequence[Entity]) -> Found:
        points: dict[str, list[Document]] = {}
        for point in self.collection("logged_model_metrics").find(
            {"model_id": {"$in": [entity.id for entity in wanted]}}
        ):
            if isinstance(point["model_id"], str):
                points.setdefault(point["model_id"], []).append(point)
        for name, fields, document in self._by_id("logged_model", wanted):
            yield name, fields | self._model_points(document, points.get(name, [])), document

    def _model_points(self, model: Document, points: list[Document]) -> Fields:
        stored = []
        for point in points:
            stored.append(Stored(point))
            expected = {"model_id": model["_id"], "experiment_id": model.get("experiment_id")}
            stored[-1].settle(_id=_model_point_id(point), **expected)
        return documents.model_points(stored)

    def _spans(self, wanted: Sequence[Entity]) -> Found:
        for document in self.collection("spans").find({"_id": {"$in": [entity.id for entity in wanted]}}):
            content = document.get("content")
            if "payload" in document or "chunks" in document:
                beside = self._payload(document)
                content = beside if content is None else {"content": content, "payload": beside}
            stored = Stored(document)
            stored.settle(_id=document["_id"])
            fields = documents.span(stored, content)
            fields["experiment_id"] = self.names.source_of(stored.take("experiment_id"))
            yield document["_id"], fields | stored.rest(), document

    def _payload(self, span: Document) -> Any:
        """The content of a span that was too long for its document."""
        said = {"payload": span.get("payload"), "chunks": span.get("chunks")}
        start = f"{span['_id']}{SEPARATOR}{said['payload']}"
        ids = {"$gte": start + SEPARATOR, "$lt": start + AFTER_SEPARATOR}
        pieces = list(self.collection("span_payloads").find({"_id": ids}).sort("_id"))
        self.seen.add("span_payload", (canonical(piece["_id"]) for piece in pieces))
        if not all(piece.keys() == {"_id", "text"} and isinstance(piece["text"], str) for piece in pieces):
            return {"pieces": pieces, **said}
        content = "".join(piece["text"] for piece in pieces)
        digest = hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()[:16]
        expected = [f"{start}{SEPARATOR}{number:04d}" for number in range(len(pieces))]
        whole = said == {"payload": digest, "chunks": len(pieces)} and documents.is_whole(said["chunks"])
        if not whole or [piece["_id"] for piece in pieces] != expected:
            return {"pieces": [piece["_id"] for piece in pieces], **said, "digest": digest}
        return content

    def _records(self, wanted: Sequence[Entity]) -> Found:
        by_dataset: dict[Any, dict[str, Entity]] = {}
        for entity in wanted:
            by_dataset.setdefault(entity.fields["dataset_id"], {})[entity.id] = entity
        for dataset, entities in by_dataset.items():
            query = {"dataset_id": dataset, "record_id": {"$in": list(entities)}}
            for document in self.collection("evaluation_dataset_records").find(query):
                name = document["record_id"]
                if (entity := _looked_up(entities, name)) is None:
                    continue
                known = {"_id": _record_id(entity), "record_id": name}
                yield name, self._fields("evaluation_record", document, **known), document

    def _associations(self, wanted: Sequence[Entity]) -> Found:
        names = ("source_type", "source_id", "destination_type", "destination_id")
        for entity in wanted:
            ends = {name: self._end(entity, name) for name in names}
            key = association_key(*ends.values())
            for document in self.collection("entity_associations").find(ends | {"workspace": self.workspace}):
                fields = self._fields("entity_association", document, _id=key, workspace=self.workspace)
                for name, value in ends.items():
                    if canonical(fields[name]) == canonical(value):
                        fields[name] = entity.fields[name]
                yield entity.id, fields, document

    def _end(self, entity: Entity, name: str) -> Any:
        """An experiment has its number in the target."""
        value = entity.fields[name]
        if name.endswith("_id") and entity.fields[name.replace("_id", "_type")] == "experiment":
            return str(self.names.experiment(value))
        return value

    def _registered_models(self, wanted: Sequence[Entity]) -> Found:
        by_name = {self.names.model(entity.id): entity.id for entity in wanted}
        query = {"name": {"$in": list(by_name)}, "workspace": self.workspace}
        for document in self.collection("registered_models").find(query):
            if (name := _looked_up(by_name, document["name"])) is None:
                continue
            self._model_ids[document["name"]] = document["_id"]
            known = {"_id": _model_id(self.workspace, name), "workspace": self.workspace}
            yield name, self._fields("registered_model", document, **known) | {"name": name}, document

    def _model_versions(self, wanted: Sequence[Entity]) -> Found:
        keys = {
            (self.names.model(str(entity.fields["name"])), entity.fields["version"]): entity
            for entity in wanted
        }
        clauses = [{"name": name, "version": number} for name, number in keys]
        for document in self.collection("model_versions").find({"$or": clauses, "workspace": self.workspace}):
            name = document["name"]
            if (entity := _looked_up(keys, (name, document["version"]))) is None:
                continue
            model = self._model_ids.get(name, document.get("model"))
            known = {"_id": f"{model}{SEPARATOR}{entity.fields['version']:010d}", "model": model}
            fields = self._fields("model_version", document, **known, workspace=self.workspace)
            yield entity.id, fields | {"name": entity.fields["name"]}, document

    def with_places(self, entities: Sequence[Entity]) -> list[Entity]:
        """Entities of the source with the places where their artifacts are to be in the target."""
        return with_places(self.collection("import_artifacts"), self.names.journal, entities)


def _looked_up(known: Mapping[Any, Any], key: Any) -> Any:
    """MongoDB finds more than Python would: a list by what is in it, a decimal number by a whole one."""
    try:
        return known.get(key)
    except TypeError:
        return None


def _record_id(record: Entity) -> str | None:
    """Records are named after their inputs."""
    try:
        inputs = json.loads(record.fields["inputs"] or "null")
    except ValueError:
        return None
    return record_key(str(record.fields["dataset_id"]), json.dumps(inputs, sort_keys=True))


def _model_id(workspace: str, name: str) -> str:
    text = f"{workspace}\n{name}".encode()
    return hashlib.blake2b(text, digest_size=16, person=b"import").hexdigest()


_POINT = ("model_id", "experiment_id", "run_id", "key", "value", "timestamp", "step")


def _model_point_id(point: Document) -> str:
    """Points are named after what they say."""
    names = (*_POINT, "dataset_name", "dataset_digest") if "dataset_name" in point else _POINT
    said = "\0".join(f"{name}={_plain(point.get(name))!r}" for name in names)
    digest = hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{point.get('run_id')}{SEPARATOR}{digest}"


def _plain(value: Any) -> Any:
    return int(value) if documents.is_whole(value) else value
