"""Filters and orders of skills and their versions, as MLflow parses them."""

from typing import Any

from genesis_flow.compat.skills import skill_parser, version_parser
from genesis_flow.core.numbers import storable
from genesis_flow.documents.keys import escape
from genesis_flow.documents.plain import Document
from genesis_flow.kit.entities import Sort
from genesis_flow.search.compare import condition
from genesis_flow.search.orders import parsed_orders
from genesis_flow.search.parsing import parsed
from genesis_flow.search.tokens import Kinds

_MAYBE = (str, type(None))
_TIMES = {"created_at": "creation_time", "last_updated_at": "last_update_time"}
_SKILL_FIELDS = {
    "name": "name",
    "organization": "organization",
    "description": "description",
    "search_text": "search_text",
    "status": "latest.status",
    "source_type": "latest.source_type",
    **_TIMES,
}
_VERSION_FIELDS = {
    "organization": "organization",
    **{key: f"versions.{key}" for key in ("status", "source_type", "digest", "version")},
    **{key: f"versions.{field}" for key, field in _TIMES.items()},
}
_KINDS: dict[str, Kinds] = {
    "name": str,
    "organization": str,
    "search_text": str,
    "versions.status": str,
    **dict.fromkeys(
        ("description", "latest.status", "latest.source_type", "versions.source_type", "versions.digest"),
        _MAYBE,
    ),
    **dict.fromkeys(
        (
            *_TIMES.values(),
            "versions.version",
            "versions.creation_time",
            "versions.last_update_time",
        ),
        int,
    ),
}


def skill_conditions(filter_string: str | None) -> list[Document]:
    return _conditions(skill_parser(), filter_string, _SKILL_FIELDS, "tags")


def version_conditions(filter_string: str | None) -> list[Document]:
    """Conditions on the versions of one skill; deleted ones are never found."""
    asked = _conditions(version_parser(), filter_string, _VERSION_FIELDS, "versions.tags")
    return [{"versions.status": {"$ne": "deleted"}}, *asked]


def _conditions(parser: Any, filter_string: str | None, fields: dict[str, str], tags: str) -> list[Document]:
    clauses = parsed(parser.parse_search_filter, filter_string, "filter") if filter_string else []
    return [_condition(clause, fields, tags) for clause in clauses]


def _condition(clause: Document, fields: dict[str, str], tags: str) -> Document:
    key, value = clause["key"], clause["value"]
    if clause["type"] == "tag":
        return {f"{tags}.{escape(key)}": condition(clause["comparator"], value)}
    wanted = storable(value) if isinstance(value, int | float) else value
    return {fields[key]: condition(clause["comparator"], wanted)}


def skill_order(order_by: list[str] | None) -> Sort:
    fields = {key: [field] for key, field in _SKILL_FIELDS.items()}
    return parsed_orders(order_by, fields, ["organization", "name"])


def version_order(order_by: list[str] | None) -> Sort:
    fields = {key: [field] for key, field in _VERSION_FIELDS.items()}
    return parsed_orders(order_by, fields, ["versions.version"])


def kinds_of(order: Sort) -> list[Kinds]:
    return [_KINDS[field] for field, _ in order]
