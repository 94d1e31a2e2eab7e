"""What both sides of a comparison are made of: entities with flat fields, in one canonical form.

A field is a path such as ``params.lr``, its value a text, a number, a truth value or nothing; a field that
is nothing counts as absent. A target may hold anything instead, which then differs from all of these. The
checksum of an entity covers every path and every value.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bson import json_util

from genesis_flow.importers.kinds import PLAIN

# str | int | float | bool | None, or whatever else a target holds in its place.
Value = Any
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
    *PLAIN,
    "registered_model",
    "model_version",
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


def counted(name: str, items: Iterable[Any]) -> Fields:
    """Fields ``name.item``: how often the item is in a list whose order means nothing."""
    return {f"{name}.{item}": count for item, count in Counter(map(canonical_object, items)).items()}


def canonical(value: Value) -> str:
    """One text for each value: ``1``, ``1.0`` and ``"1"`` differ, and every NaN is one."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else repr(value)
    if isinstance(value, int | str):
        return json.dumps(value, ensure_ascii=False)
    return foreign(value)


def foreign(value: Any) -> str:
    """A value that no source has, such as bytes or a map where a text belongs."""
    try:
        text = json_util.dumps(value, json_options=json_util.CANONICAL_JSON_OPTIONS)
    except (TypeError, ValueError, OverflowError):
        text = repr(value)
    return f"{type(value).__name__} {text}"


def canonical_json(text: Any) -> Value:
    """JSON text without what means nothing in it: blanks, the order of keys, escapes."""
    if not isinstance(text, str):
        return None if text is None else canonical_object(text)
    try:
        value = json.loads(text)
    except ValueError:
        return f"no JSON: {text}"
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
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=foreign)


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


def hidden(secret: Any) -> Value:
    """A secret, so that it can be compared and told without being shown."""
    if secret is None:
        return None
    text = secret if isinstance(secret, str) else foreign(secret)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_prompt(fields: Fields) -> bool:
    return fields.get(f"tags.{IS_PROMPT_TAG}") == "true"


class Use(NamedTuple):
    """A dataset that a run used; the context is among the tags, and the target keeps it apart, too."""

    name: Any
    digest: Any
    tags: list[Any]
    context: Any
    # What else the target says of it.
    more: Any = None


def input_fields(uses: Iterable[Use]) -> Fields:
    by_dataset: dict[str, list[Any]] = {}
    for use in uses:
        said = {"tags": sorted(use.tags, key=canonical_object), "context": use.context}
        by_dataset.setdefault(f"inputs.{use.name}.{use.digest}", []).append(said | (use.more or {}))
    return {name: canonical_object(sorted(all_, key=canonical_object)) for name, all_ in by_dataset.items()}


def context_of(tags: Mapping[str, Any]) -> Any:
    return tags.get("mlflow.data.context")


def contexts_of(run: Entity) -> Iterable[tuple[str, str | None]]:
    """The datasets that a run used, as ``name.digest``, each with the context."""
    for name, value in run.fields.items():
        if name.startswith("inputs."):
            for use in json.loads(str(value)):
                yield name.removeprefix("inputs."), use["context"]


# Numbers of a trace or span that metrics sum up: the metadata that has them, and which there are.
TOKENS = (
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr",
)
COSTS = ("input_cost", "output_cost", "total_cost")
_STATED = 2**62


def trace_metadata(metadata: Mapping[str, Any]) -> Fields:
    """Counts of tokens and costs are JSON that the target keeps as numbers, and says who told them."""
    fields = mapped("metadata", metadata)
    for field, key in (("tokens", "mlflow.trace.tokenUsage"), ("cost", "mlflow.trace.cost")):
        said = json_value(metadata.get(key))
        if field == "cost" and isinstance(said, dict):
            said = {name: _amount(value) for name, value in said.items()}
        if f"metadata.{key}" in fields:
            fields[f"metadata.{key}"] = None if said is None else canonical_object(said)
        if said:
            fields[f"{field}_of"] = _STATED if metadata.get("mlflow.trace.infoFinalized") else 1
    return fields


def span_meaning(content: Any, beside: Mapping[str, Any]) -> Fields:
    """What is derived from a span for metrics and searches: from its attributes, else from columns."""
    span = json_value(content)
    attributes = (span.get("attributes") if isinstance(span, dict) else None) or {}
    usage = json_value(attributes.get("mlflow.chat.tokenUsage"))
    cost = json_value(attributes.get("mlflow.llm.cost"))
    if isinstance(cost, dict):
        cost = {name: number for name in COSTS if (number := _amount(cost.get(name))) is not None}
    else:
        cost = {name: beside[name] for name in COSTS if beside.get(name) is not None} or None
    if isinstance(usage, dict):
        usage = {name: usage[name] for name in TOKENS if _is_number(usage.get(name))}
    else:
        usage = None
    fields: Fields = {
        name: None if numbers is None else canonical_object(numbers)
        for name, numbers in (("usage", usage), ("cost", cost))
    }
    for field, key in (("model_name", "mlflow.llm.model"), ("model_provider", "mlflow.llm.provider")):
        said = attributes.get(key)
        spelled = json_value(said)
        name = spelled if isinstance(spelled, str) else said
        fields[field] = name[:500] if isinstance(name, str) else beside.get(field)
    return fields


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63)


def _amount(value: Any) -> float | None:
    try:
        number = math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


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
