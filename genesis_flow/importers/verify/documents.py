"""Documents of the target as entities: what every field of them means, said a second time."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from genesis_flow.importers.verify.entities import (
    Fields,
    Value,
    canonical_error,
    canonical_json,
    canonical_object,
    hidden,
    input_fields,
    json_value,
    mapped,
)

Document = dict[str, Any]

# Tags and metadata that a trace keeps in fields of its own.
TRACE_TAGS = {
    "name": "mlflow.traceName",
    "spans_location": "mlflow.trace.spansLocation",
    "archive_location": "mlflow.trace.archiveLocation",
    "archival_failure": "mlflow.trace.archivalFailure",
    "artifact_location": "mlflow.artifactLocation",
}
TRACE_METADATA = {
    "session_id": "mlflow.trace.session",
    "source_run": "mlflow.sourceRun",
    "size_stats": "mlflow.trace.sizeStats",
    "size_bytes": "mlflow.trace.sizeBytes",
    "inputs": "mlflow.traceInputs",
    "outputs": "mlflow.traceOutputs",
    "finalized": "mlflow.trace.infoFinalized",
}
TRACE_NUMBERS = {"tokens": "mlflow.trace.tokenUsage", "cost": "mlflow.trace.cost"}


def texts(stored: Mapping[str, Any] | None) -> dict[str, Any]:
    """A map with the keys that users gave: "%" stands for the empty one."""
    return {"" if key == "%" else unquote(key): value for key, value in (stored or {}).items()}


def whole(value: Any) -> Any:
    """Numbers of BSON as Python's; what is a fraction stays one."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else value


def plain(document: Document, names: tuple[str, ...]) -> Fields:
    return {name: whole(document.get(name)) for name in names}


def experiment(document: Document) -> Fields:
    names = ("name", "artifact_location", "lifecycle_stage", "creation_time", "last_update_time")
    pending = {"pending": document["pending"]} if document.get("pending") else {}
    return {**plain(document, names), **mapped("tags", texts(document.get("tags"))), **pending}


def run(document: Document) -> Fields:
    names = ("name", "user_id", "status", "start_time", "end_time", "lifecycle_stage", "deleted_time")
    fields: Fields = {
        **plain(document, (*names, "artifact_uri")),
        **mapped("params", texts(document.get("params"))),
        **mapped("tags", texts(document.get("tags"))),
        **{f"model_inputs.{model}": True for model in document.get("model_inputs") or ()},
        **{f"model_outputs.{model}": whole(step) for model, step in document.get("model_outputs") or ()},
    }
    # MLflow wants a text and a number, so nobody is told as an empty one and no time as zero.
    fields["user_id"] = fields["user_id"] or None
    fields["start_time"] = fields["start_time"] or None
    for used in document.get("inputs") or ():
        fields |= input_fields(used["name"], used["digest"], used.get("tags") or (), used.get("context"))
    return fields


def dataset(document: Document) -> Fields:
    fields = plain(document, ("name", "digest", "source_type", "source", "schema", "profile"))
    contexts = sorted(document.get("contexts") or (), key=str)
    return fields | {f"contexts.{context}": True for context in contexts}


def logged_model(document: Document, points: list[Document]) -> Fields:
    names: tuple[str, ...] = (
        "name",
        "artifact_location",
        "creation_timestamp",
        "last_updated_timestamp",
        "status",
    )
    names += ("status_message", "lifecycle_stage", "model_type", "source_run_id")
    fields: Fields = {
        **plain(document, names),
        **mapped("params", texts(document.get("params"))),
        **mapped("tags", texts(document.get("tags"))),
    }
    for point in points:
        name, digest = point.get("dataset_name"), point.get("dataset_digest")
        where = [point["run_id"], point["key"], int(point["timestamp"]), int(point["step"]), name, digest]
        fields[f"metrics.{canonical_object([*where, repr(point['value'])])}"] = True
    return fields


def trace(document: Document) -> Fields:
    names = ("request_time", "client_request_id", "request_preview", "response_preview")
    tags = texts(document.get("tags")) | _own(document, TRACE_TAGS)
    metadata = texts(document.get("metadata")) | _own(document, TRACE_METADATA)
    end = document.get("end_time")
    numbers: Fields = {
        f"metadata.{key}": canonical_object(document[name])
        for name, key in TRACE_NUMBERS.items()
        if document.get(name)
    }
    return {
        **plain(document, names),
        "state": document.get("status"),
        "execution_duration": None if end is None else int(end) - int(document["request_time"]),
        **mapped("tags", tags),
        **mapped("metadata", metadata),
        **numbers,
        **{f"linked_runs.{linked}": True for linked in document.get("linked_runs") or ()},
        **{f"linked_prompts.{linked}": True for linked in document.get("linked_prompts") or ()},
    }


def _own(document: Document, names: dict[str, str]) -> dict[str, Any]:
    return {key: document[name] for name, key in names.items() if name in document}


def span(document: Document, content: str | None) -> Fields:
    fields = plain(document, ("trace_id", "name", "type", "status"))
    fields["parent_span_id"] = document.get("parent_id")
    fields["start_time_unix_nano"] = whole(document.get("start_time"))
    fields["end_time_unix_nano"] = whole(document.get("end_time"))
    fields["content"] = canonical_json(content)
    return fields


def assessment(document: Document) -> Fields:
    names: tuple[str, ...] = (
        "trace_id",
        "kind",
        "name",
        "last_update_time",
        "source_type",
        "source_id",
        "run_id",
    )
    names += ("span_id", "rationale", "overrides", "valid", "trace_time")
    fields = plain(document, names)
    fields["create_time"] = whole(document.get("created_time"))
    fields["value"] = canonical_object(json_value(document.get("value")))
    fields["metadata"] = canonical_json(document.get("metadata"))
    fields["error"] = canonical_error(json_value(document.get("error")))
    kept: Fields = {
        "number": document.get("number"),
        "is_number": document.get("is_number", False),
        "source_run": document.get("source_run"),
        "of_session": document.get("of_session", False),
    }
    return fields | kept


def evaluation_dataset(document: Document) -> Fields:
    names = ("name", "digest", "created_time", "last_update_time", "created_by", "last_updated_by")
    fields = plain(document, names)
    fields |= {name: canonical_json(document.get(name)) for name in ("schema", "profile")}
    return fields | mapped("tags", texts(document.get("tags")))


def evaluation_record(document: Document) -> Fields:
    names = ("dataset_id", "source_id", "created_time", "last_update_time", "created_by", "last_updated_by")
    fields = plain(document, names)
    fields |= {name: canonical_json(document.get(name)) for name in ("inputs", "outputs", "source")}
    for name in ("expectations", "tags"):
        for key, text in texts(document.get(name)).items():
            fields[f"{name}.{key}"] = canonical_json(text)
    return fields


def entity_association(document: Document) -> Fields:
    return plain(document, ("source_type", "source_id", "destination_type", "destination_id", "created_time"))


def registered_model(document: Document) -> Fields:
    names = ("name", "description", "creation_time", "last_updated_time", "last_version", "is_prompt")
    return {
        **plain(document, names),
        **_registry_tags(document),
        **mapped(
            "aliases", {alias: whole(number) for alias, number in texts(document.get("aliases")).items()}
        ),
        **mapped("stages", document.get("stages")),
        "latest_unstaged": _latest_unstaged(document),
        "renamed_from": document.get("renamed_from"),
    }


def _latest_unstaged(document: Document) -> Value:
    """The last version, unless the model knows better and has given out no number since."""
    known, last = document.get("latest_unstaged"), document["last_version"]
    return int(known["version"] if known and known["of"] == last else last)


def model_version(document: Document) -> Fields:
    names: tuple[str, ...] = (
        "name",
        "version",
        "creation_time",
        "last_updated_time",
        "description",
        "user_id",
        "source",
    )
    names += ("storage_location", "run_id", "run_link", "model_id", "status", "status_message", "is_prompt")
    aliases: Fields = {f"aliases.{alias}": True for alias in document.get("aliases") or ()}
    return {**plain(document, names), **_registry_tags(document), **aliases}


def _registry_tags(document: Document) -> Fields:
    return mapped("tags", texts(document.get("tags")) | texts(document.get("texts")))


def webhook(document: Document) -> Fields:
    names = ("name", "url", "description", "status", "creation_time", "last_updated_time")
    events: Fields = {f"events.{event}": True for event in document.get("events") or ()}
    return {**plain(document, names), **events, "secret": hidden(document.get("secret"))}
