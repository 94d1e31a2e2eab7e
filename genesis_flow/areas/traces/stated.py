"""Tags and metadata of traces by the fields that keep them."""

from typing import Any

from genesis_flow.areas.traces.documents import metadata_path, tag_path
from genesis_flow.areas.traces.usage import NUMBER_FIELDS, json_object, numbers
from genesis_flow.documents.keys import stored_text
from genesis_flow.documents.plain import Document

# More than any count of calls: computed values give way to those that a client stated.
STATED = 2**62


def stated_fields(tags: dict[str, str], metadata: dict[str, str]) -> Document:
    """Tags and metadata by the place where a trace keeps them; a None among the fields means absent."""
    fields: Document = {tag_path(key): stored_text(value) for key, value in tags.items()}
    for key, value in metadata.items():
        if key in NUMBER_FIELDS:
            fields |= _numbers(key, value)
        else:
            fields[metadata_path(key)] = stored_text(value)
    return fields


def _numbers(key: str, value: Any) -> Document:
    """Token usage or cost: only the numbers that are named replace what spans say."""
    name, keys = NUMBER_FIELDS[key]
    given = json_object(value)
    usable = numbers(name, given)
    fields: Document = {f"{name}.{each}": usable.get(each) for each in keys if each in given}
    if usable:
        fields[f"{name}_of"] = STATED
    return fields


def may_be_null(path: str) -> bool:
    """Tags and metadata may; all else is absent instead."""
    return path.startswith(("tags.", "metadata."))


def put(document: Document, path: str, value: Any) -> None:
    """Put a field where a new document keeps it."""
    if value is None and not may_be_null(path):
        return
    *parents, name = path.split(".")
    for parent in parents:
        document = document.setdefault(parent, {})
    document[name] = value
