"""What the files of a tree say."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from genesis_flow.importers.kinds import KIND
from genesis_flow.importers.verify.entities import (
    Fields,
    assessment_meaning,
    canonical_error,
    canonical_object,
)

Meta = dict[str, Any]


def assessment_of(meta: Meta) -> Fields:
    kind = next((name for name in ("feedback", "expectation", "issue") if name in meta), "feedback")
    content = meta.get(kind) or {}
    value = content if kind == "issue" else content.get("value")
    if serialized := content.get("serialized_value"):
        value = json.loads(serialized["value"])
    source = meta.get("source") or {}
    created = milliseconds_of(meta, "create_time_ms", "create_time")
    return {
        "kind": kind,
        "name": meta.get("assessment_name") or meta.get("name"),
        "value": canonical_object(value),
        "error": canonical_error(content.get("error")),
        "create_time": created,
        "last_update_time": milliseconds_of(meta, "last_update_time_ms", "last_update_time") or created,
        "source_type": source.get("source_type"),
        "source_id": source.get("source_id"),
        "valid": meta.get("valid", True),
        "metadata": canonical_object(meta["metadata"]) if meta.get("metadata") else None,
        **{name: meta.get(name) for name in ("run_id", "span_id", "rationale", "overrides")},
        **assessment_meaning(value, meta.get("metadata")),
    }


def milliseconds_of(meta: Meta, number: str, text: str) -> int | None:
    value = meta.get(number)
    if value is None:
        value = meta.get(text)
    if isinstance(value, datetime):
        value = value.replace(tzinfo=value.tzinfo or UTC)
    elif isinstance(value, str):
        value = datetime.fromisoformat(value)
    else:
        return None if value is None else int(value)
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def said_in(meta: Meta, name: str) -> str | None:
    """A text; an empty one says nothing, and a number that YAML made of one is text again."""
    value = meta.get(name)
    return None if value is None or value == "" else str(value)


def told_in(kind: str, meta: Meta) -> Fields:
    """What a file says under the names that the comparison has, too: texts, and numbers as they are."""
    known = KIND[kind]
    return {
        column.field: said_in(meta, column.field) if column.letter in "tT" else meta.get(column.field)
        for column in known.columns
        if column.field in known.told
    }


def breaks_off(line: bytes, parts: list[bytes]) -> bool:
    """The last line of a run that goes on may be written only in part."""
    return not line.endswith(b"\n") and len(parts) < 3
