"""Tags of the registry: a map of indexed short values, and one of long values beside it.

MLflow allows values of 100,000 characters, which is how prompts keep their text. A wildcard index over such
values would be larger than the data, so only ``tags`` is indexed and long values live in ``texts``.
"""

from collections.abc import Iterable
from typing import Any, Protocol

from mlflow.prompt.constants import IS_PROMPT_TAG_KEY

from genesis_flow.documents.keys import escape, stored_text, unescape

LONGEST_INDEXED = 1_000

PROMPT_VALUE = "true"


class Tag(Protocol):
    @property
    def key(self) -> str: ...

    @property
    def value(self) -> Any: ...


def tag_field(key: str, value: str | None) -> str:
    """Where a tag with this value is stored."""
    return f"{'texts' if _is_long(value) else 'tags'}.{escape(key)}"


def tag_fields(key: str) -> tuple[str, str]:
    """The two places where a tag may be."""
    return f"tags.{escape(key)}", f"texts.{escape(key)}"


def tag_maps(tags: Iterable[Tag] | None) -> dict[str, Any]:
    """The fields of a new document; the later of two tags with one key wins."""
    values = {tag.key: stored_text(tag.value) for tag in tags or ()}
    maps: dict[str, Any] = {
        "tags": {escape(key): value for key, value in values.items() if not _is_long(value)},
        "is_prompt": values.get(IS_PROMPT_TAG_KEY) == PROMPT_VALUE,
    }
    if texts := {escape(key): value for key, value in values.items() if _is_long(value)}:
        maps["texts"] = texts
    return maps


def set_tag_update(key: str, value: str | None) -> dict[str, Any]:
    """The update that sets a tag, and removes a former value from where this one does not go."""
    value = stored_text(value)
    here = tag_field(key, value)
    there = next(field for field in tag_fields(key) if field != here)
    change: dict[str, Any] = {here: value}
    if key == IS_PROMPT_TAG_KEY:
        change["is_prompt"] = value == PROMPT_VALUE
    return {"$set": change, "$unset": {there: ""}}


def delete_tag_update(key: str) -> dict[str, Any]:
    update: dict[str, Any] = {"$unset": dict.fromkeys(tag_fields(key), "")}
    if key == IS_PROMPT_TAG_KEY:
        update["$set"] = {"is_prompt": False}
    return update


def tag_values(document: dict[str, Any]) -> dict[str, Any]:
    """All tags of a document by their key."""
    stored = {**(document.get("tags") or {}), **(document.get("texts") or {})}
    return {unescape(field): value for field, value in stored.items()}


def _is_long(value: str | None) -> bool:
    return isinstance(value, str) and len(value) > LONGEST_INDEXED
