"""What both sides of a comparison are made of: entities with flat fields, in one canonical form.

A field is a path such as ``params.lr``, its value a text, a number, a truth value or nothing; a field that
is nothing counts as absent. The checksum of an entity covers every path and every value.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

Value = str | int | float | bool | None
Fields = dict[str, Value]

IS_PROMPT_TAG = "mlflow.prompt.is_prompt"

# In the order of verification: a dataset's contexts are known when all runs were seen.
KINDS = (
    "experiment",
    "run",
    "metric",
    "dataset",
    "logged_model",
    "trace",
    "span",
    "assessment",
    "evaluation_dataset",
    "evaluation_record",
    "entity_association",
    "registered_model",
    "model_version",
    "webhook",
)


class Entity(NamedTuple):
    kind: str
    # What people call it: the run's id, name/version.
    id: str
    fields: Fields
    # Whatever its reader needs to read what belongs to it.
    handle: Any = None


class Trouble(NamedTuple):
    """What could not be read, or contradicts itself; it is named, and the rest is compared."""

    kind: str
    where: str
    reason: str


class Troubles:
    """The first of any number of troubles, each once, and how many there are."""

    KEPT = 1_000

    def __init__(self) -> None:
        self.first: dict[Trouble, None] = {}
        self.count = 0

    def add(self, kind: str, where: str, reason: str) -> None:
        trouble = Trouble(kind, where, reason)
        if trouble in self.first:
            return
        self.count += 1
        if len(self.first) < self.KEPT:
            self.first[trouble] = None

    def __iter__(self) -> Iterator[Trouble]:
        return iter(self.first)

    def __len__(self) -> int:
        return self.count


class Difference(NamedTuple):
    kind: str
    id: str
    field: str
    source: str
    target: str


def mapped(name: str, values: Mapping[str, Any] | None) -> Fields:
    """Fields ``name.key``."""
    return {f"{name}.{key}": value for key, value in (values or {}).items()}


def canonical(value: Value) -> str:
    """One text for each value: ``1``, ``1.0`` and ``"1"`` differ, and every NaN is one."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else repr(value)
    return json.dumps(value, ensure_ascii=False)


def canonical_json(text: Any) -> Value:
    """JSON text without what means nothing in it: blanks, the order of keys, escapes."""
    value = json_value(text)
    return None if value is None else canonical_object(value)


def json_value(text: Any) -> Any:
    """What JSON text says; other text says itself, and some databases have read theirs already."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def canonical_object(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def canonical_error(error: Any) -> Value:
    """What went wrong when something was assessed; parts that say nothing are as good as absent."""
    if not isinstance(error, dict):
        return canonical_object(error) if error else None
    return (
        canonical_object({name: value for name, value in error.items() if value is not None})
        if error
        else None
    )


def checksum(fields: Fields) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(fields):
        if fields[name] is not None:
            line = f"{json.dumps(name)}={canonical(fields[name])}\n"
            digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def differences(source: Entity, target: Entity) -> Iterable[Difference]:
    """Field by field; a field that one side lacks differs from a value of the other."""
    for name in sorted(source.fields.keys() | target.fields.keys()):
        here, there = (canonical(side.fields.get(name)) for side in (source, target))
        if here != there:
            yield Difference(source.kind, source.id, name, here, there)


def hidden(secret: str | None) -> Value:
    """A secret, so that it can be compared and told without being shown."""
    return None if secret is None else hashlib.sha256(secret.encode()).hexdigest()


def is_prompt(tags: Mapping[str, Any] | None) -> bool:
    return (tags or {}).get(IS_PROMPT_TAG) == "true"


def input_fields(name: Any, digest: Any, tags: Iterable[Iterable[Any]], context: Any) -> Fields:
    """A dataset that a run used: its tags, and the context among them, which the target keeps apart."""
    pairs = sorted([str(key), value] for key, value in tags)
    return {f"inputs.{name}.{digest}": canonical_object({"tags": pairs, "context": context})}


def context_of(tags: Mapping[str, Any]) -> Any:
    return tags.get("mlflow.data.context")


def contexts_of(run: Entity) -> Iterable[tuple[str, str | None]]:
    """The datasets that a run used, as ``name.digest``, each with the context."""
    for name, value in run.fields.items():
        if name.startswith("inputs."):
            yield name.removeprefix("inputs."), json.loads(str(value))["context"]


def trace_metadata(metadata: Mapping[str, Any]) -> Fields:
    """Counts of tokens and costs are JSON that the target keeps as numbers."""
    fields = mapped("metadata", metadata)
    for name in ("metadata.mlflow.trace.tokenUsage", "metadata.mlflow.trace.cost"):
        if name in fields:
            fields[name] = canonical_json(fields[name])
    return fields


def assessment_meaning(value: Any, metadata: Any) -> Fields:
    """What is derived from an assessment for searches: what its value counts as, and what it belongs to."""
    number: float | None = None
    is_number = False
    if isinstance(value, bool):
        number = float(value)
    elif isinstance(value, int | float):
        number, is_number = (float(value), True) if math.isfinite(value) else (None, False)
    elif isinstance(value, str) and value.strip().lower() in ("yes", "no"):
        number = float(value.strip().lower() == "yes")
    known = metadata if isinstance(metadata, dict) else {}
    return {
        "number": number,
        "is_number": is_number,
        "source_run": known.get("mlflow.assessment.sourceRunId"),
        "of_session": "mlflow.trace.session" in known,
    }
