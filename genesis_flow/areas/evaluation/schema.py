"""The schema of an evaluation dataset: the fields of its records, with the type each was first seen with."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_VERSION = "1.0"
_SECTIONS = ("inputs", "outputs", "expectations")
# A bool is an int for Python, so it comes first.
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "float"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
)


def merged_schema(known: str | None, records: Sequence[Mapping[str, Any]]) -> str | None:
    """The JSON text of the schema ``known`` with the fields that ``records`` add to it."""
    if not records and not known:
        return None
    schema: dict[str, Any] = (
        json.loads(known) if known else {**{section: {} for section in _SECTIONS}, "version": _VERSION}
    )
    for record in records:
        for section in _SECTIONS:
            value = record.get(section)
            if isinstance(value, dict):
                # Outputs that were once no dictionary are described by one word, which stays.
                if isinstance(schema[section], dict):
                    for field, each in value.items():
                        schema[section].setdefault(field, _type_name(each))
            elif value is not None and section == "outputs" and not schema[section]:
                schema[section] = _type_name(value)
    return json.dumps(schema)


def _type_name(value: Any) -> str:
    if value is None:
        return "null"
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "unknown")
