"""Documents of the target as entities: what every field of them means, said a second time."""

from typing import Any, TypeGuard

from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.verify.entities import (
    Fields,
    Use,
    canonical_error,
    canonical_json,
    canonical_object,
    counted,
    input_fields,
    json_value,
)
from genesis_flow.importers.verify.stored import MISSING, Stored

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
# Of the registry: longer values of tags are not indexed.
LONGEST_TAG = 1_000


def is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _told(name: str, stored: Stored, *but: str) -> Fields:
    """What columns of the source say, and the maps that other tables of it have."""
    kind = KIND[name]
    fields = stored.fields(*(field for field in kind.told if field not in but))
    for part in kind.rows:
        if part.shape == "map" and part.field not in but:
            fields |= stored.mapped(part.field)
    return fields


def experiment(stored: Stored) -> Fields:
    return _told("experiment", stored)


def run(stored: Stored) -> Fields:
    return {
        **_told("run", stored),
        **stored.counted("model_inputs"),
        **stored.counted("model_outputs"),
        **_inputs(stored),
    }


def _inputs(stored: Stored) -> Fields:
    used = stored.take("inputs")
    if used is None:
        return {}
    if not isinstance(used, list) or not all(isinstance(one, dict) for one in used):
        return {"inputs": used}
    uses = []
    for one in used:
        more = {name: value for name, value in one.items() if name not in Use._fields and name != "id"}
        tags = one.get("tags")
        if not isinstance(tags, list):
            more["no tags"], tags = tags, []
        uses.append(Use(one.get("name"), one.get("digest"), tags, one.get("context"), more))
    return input_fields(uses)


def dataset(stored: Stored) -> Fields:
    return {**_told("dataset", stored), **stored.counted("contexts", optional=False)}


def logged_model(stored: Stored) -> Fields:
    return _told("logged_model", stored)


MODEL_POINT = ("run_id", "key", "timestamp", "step", "dataset_name", "dataset_digest")


def model_points(points: list[Stored]) -> Fields:
    """The points of the metrics of a model; each is what it says."""
    found = []
    for point in points:
        where = [point.take(name) for name in MODEL_POINT]
        value = point.take("value")
        where.append(repr(value) if isinstance(value, float) else {"no float": value})
        found.append([*where, rest] if (rest := point.rest()) else where)
    return counted("metrics", found)


def trace(stored: Stored) -> Fields:
    fields = _told("trace", stored, "state", "execution_duration", "tags", "metadata")
    fields["state"] = stored.take("status")
    end, begin = stored.take("end_time"), fields["request_time"]
    if end is not None:
        fields["execution_duration"] = (
            end - begin if is_whole(end) and is_whole(begin) else canonical_object(end)
        )
    for part, own in (("tags", TRACE_TAGS), ("metadata", TRACE_METADATA)):
        fields |= stored.mapped(part, optional=True)
        for name, key in own.items():
            _add_own(fields, f"{part}.{key}", stored.take(name))
    for name, key in TRACE_NUMBERS.items():
        numbers = stored.take(name)
        _add_own(fields, f"metadata.{key}", canonical_object(numbers) if numbers else numbers)
    for name in ("linked_runs", "linked_prompts"):
        fields |= stored.counted(name)
    # When it was last written; whatever it says, sums of traces are made anew or not.
    stored.take("touched")
    return fields | stored.fields("generation", "tokens_of", "cost_of")


def _add_own(fields: Fields, name: str, value: Any) -> None:
    if value is not None:
        fields[f"{name} (twice)" if name in fields else name] = value


def span(stored: Stored, content: Any) -> Fields:
    start, end, latency = (stored.take(name) for name in ("start_time", "end_time", "latency"))
    for name in ("content", "payload", "chunks"):
        stored.take(name)
    return {
        **stored.fields("trace_id", "name", "type", "status", parent_span_id="parent_id"),
        **stored.fields("trace_time", "model_name", "model_provider"),
        "start_time_unix_nano": start,
        "end_time_unix_nano": end,
        "latency": latency,
        **{
            name: canonical_object(numbers)
            for name in ("usage", "cost")
            if (numbers := stored.take(name)) is not None
        },
        "content": canonical_json(content) if isinstance(content, str) else content,
    }


def assessment(stored: Stored) -> Fields:
    value, error = stored.take("value"), stored.take("error")
    return {
        **_told("assessment", stored, "value", "error", "metadata", "create_time"),
        **stored.fields("trace_time", "number", "is_number", "source_run", "of_session"),
        **stored.fields(create_time="created_time"),
        **stored.json("metadata"),
        "value": canonical_json(value) or "null" if isinstance(value, str) else value,
        "error": canonical_error(json_value(error)) if isinstance(error, str) else error,
    }


def evaluation_dataset(stored: Stored) -> Fields:
    return {**_told("evaluation_dataset", stored, "schema", "profile"), **stored.json("schema", "profile")}


def evaluation_record(stored: Stored) -> Fields:
    texts = ("inputs", "outputs", "source")
    fields = _told("evaluation_record", stored, *texts, "expectations", "tags", "source_type")
    fields |= stored.json(*texts)
    for name in ("expectations", "tags"):
        for key, text in stored.mapped(name, optional=name == "expectations").items():
            fields[key] = canonical_json(text) if isinstance(text, str) and key != name else text
    return fields


def entity_association(stored: Stored) -> Fields:
    return _told("entity_association", stored)


def registered_model(stored: Stored) -> Fields:
    fields = {
        **_told("registered_model", stored, "tags"),
        **stored.fields("name", "last_version", "is_prompt"),
        **_registry_tags(stored),
        **stored.mapped("stages"),
    }
    unstaged, last = stored.take("latest_unstaged"), fields["last_version"]
    if isinstance(unstaged, dict) and unstaged.keys() == {"of", "version"} and unstaged["of"] == last:
        unstaged = unstaged["version"] if is_whole(unstaged["of"]) else unstaged
    fields["latest_unstaged"] = last if unstaged is None else unstaged
    # It counts changes of aliases and stages, which may have been taken back.
    if not is_whole(revision := stored.take("revision")):
        fields["revision"] = MISSING if revision is None else revision
    return fields


def model_version(stored: Stored) -> Fields:
    return {
        **_told("model_version", stored, "tags"),
        **stored.fields("name", "version", "model_id", "is_prompt"),
        **_registry_tags(stored),
        **stored.counted("aliases"),
    }


def _registry_tags(stored: Stored) -> Fields:
    """Tags with short values, which are indexed, and texts: neither is where the other belongs."""
    fields: Fields = {}
    for part, is_long in (("tags", False), ("texts", True)):
        for name, value in stored.mapped(part, optional=is_long).items():
            fits = (isinstance(value, str) and len(value) > LONGEST_TAG) == is_long
            tag = f"tags.{name.removeprefix(f'{part}.')}" if fits and name != part else f"{name} (misplaced)"
            fields[f"{tag} (twice)" if tag in fields else tag] = value
    return fields


READERS = {
    "experiment": experiment,
    "run": run,
    "dataset": dataset,
    "logged_model": logged_model,
    "trace": trace,
    "assessment": assessment,
    "evaluation_dataset": evaluation_dataset,
    "evaluation_record": evaluation_record,
    "entity_association": entity_association,
    "registered_model": registered_model,
    "model_version": model_version,
}
