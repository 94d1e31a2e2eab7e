"""Filters and orders of MCP servers, their versions and their endpoints, as MLflow parses them."""

from typing import Any

from mlflow.utils.search_utils import (
    SearchMCPAccessEndpointUtils,
    SearchMCPServerUtils,
    SearchMCPServerVersionUtils,
)
from mlflow.utils.semver_utils import encode_prerelease_sort_key, parse_semver
from pymongo import ASCENDING, DESCENDING

from genesis_flow.core.errors import invalid
from genesis_flow.core.numbers import storable
from genesis_flow.documents.keys import escape
from genesis_flow.documents.plain import Document
from genesis_flow.kit.entities import Sort
from genesis_flow.search.compare import NUMBER, TEXT, condition
from genesis_flow.search.keyset import behind
from genesis_flow.search.orders import parsed_orders
from genesis_flow.search.parsing import parsed

_COMPARATORS = {*TEXT, *NUMBER, "IN", "NOT IN"}
_TIMES = {"created_at": "creation_time", "last_updated_at": "last_update_time"}
_PRECEDENCE = ("versions.major", "versions.minor", "versions.patch", "versions.prerelease")

SERVER_KINDS = {"name": str, "creation_time": int, "last_update_time": int}
VERSION_KINDS = {
    "versions.version": str,
    "versions.prerelease": str,
    **dict.fromkeys(
        (*_PRECEDENCE[:3], "versions.creation_time", "versions.last_update_time"),
        int,
    ),
}
ENDPOINT_KINDS = {
    "endpoints.id": str,
    "name": str,
    "endpoints.creation_time": int,
    "endpoints.last_update_time": int,
}


def server_conditions(filter_string: str | None) -> list[Document]:
    fields = {"name": "name", "display_name": "display_name", "status": "latest.status", **_TIMES}
    return [_server_condition(clause, fields) for clause in _clauses(SearchMCPServerUtils, filter_string)]


def _server_condition(clause: Document, fields: dict[str, str]) -> Document:
    if clause["type"] == "tag":
        key, comparator = clause["key"], clause["comparator"]
        if comparator not in _COMPARATORS:
            raise invalid(f"Invalid comparator '{comparator}' for tag '{key}'.")
        return {f"tags.{escape(key)}": condition(comparator, clause["value"])}
    if clause["type"] == "attribute" and clause["key"] == "has_access_endpoints":
        wanted = str(clause["value"]).lower()
        _check_comparator(clause)
        if clause["comparator"] != "=" or wanted not in ("true", "false"):
            raise invalid("has_access_endpoints only supports '= true' or '= false'")
        return {"endpoints.0": {"$exists": wanted == "true"}}
    return _attribute(clause, fields, SearchMCPServerUtils)


def version_conditions(filter_string: str | None) -> list[Document]:
    """Conditions on the versions of one server; deleted ones are never found."""
    fields = {
        "name": "name",
        **{key: f"versions.{field}" for key, field in (("status", "status"), *_TIMES.items())},
    }
    return [
        {"versions.status": {"$ne": "deleted"}},
        *(
            _by_precedence(clause)
            if _is_on_version(clause)
            else _attribute(clause, fields, SearchMCPServerVersionUtils)
            for clause in _clauses(SearchMCPServerVersionUtils, filter_string)
        ),
    ]


def _is_on_version(clause: Document) -> bool:
    return bool(clause["type"] == "attribute" and clause["key"] == "version")


def _by_precedence(clause: Document) -> Document:
    """Equality is that of the text, order that of semantic versions."""
    comparator, value = clause["comparator"], clause["value"]
    _check_comparator(clause)
    if comparator not in NUMBER:
        raise invalid("version only supports semantic comparators '=', '!=', '<', '<=', '>', and '>='")
    if comparator in ("=", "!="):
        return {"versions.version": condition(comparator, value)}
    version = parse_semver(value, param_name="filter_string version")
    position = [version.major, version.minor, version.patch, encode_prerelease_sort_key(version)]
    way = ASCENDING if comparator.startswith(">") else DESCENDING
    beyond = behind([(field, way) for field in _PRECEDENCE], position)
    if comparator.endswith("="):
        return {"$or": [beyond, dict(zip(_PRECEDENCE, position, strict=True))]}
    return beyond


def endpoint_conditions(filter_string: str | None) -> list[Document]:
    fields = {
        "status": "endpoints.resolved.status",
        "server_name": "name",
        "transport_type": "endpoints.transport_type",
        **{key: f"endpoints.{field}" for key, field in _TIMES.items()},
    }
    return [
        _attribute(clause, fields, SearchMCPAccessEndpointUtils)
        for clause in _clauses(SearchMCPAccessEndpointUtils, filter_string)
    ]


def server_order(order_by: list[str] | None) -> Sort:
    fields = {"name": ["name"], **{key: [field] for key, field in _TIMES.items()}}
    return parsed_orders(order_by, fields, ["name"])


def version_order(order_by: list[str] | None) -> Sort:
    fields = {
        "version": [*_PRECEDENCE],
        **{key: [f"versions.{field}"] for key, field in _TIMES.items()},
    }
    order = parsed_orders(order_by, fields, ["versions.creation_time"])
    return [*order, ("versions.version", ASCENDING)]


def endpoint_order(order_by: list[str] | None) -> Sort:
    fields = {
        "id": ["endpoints.id"],
        "server_name": ["name"],
        **{key: [f"endpoints.{field}"] for key, field in _TIMES.items()},
    }
    return parsed_orders(order_by, fields, ["endpoints.id"])


def _clauses(parser: Any, filter_string: str | None) -> list[Document]:
    return parsed(parser.parse_search_filter, filter_string, "filter") if filter_string else []


def _check_comparator(clause: Document) -> None:
    if clause["comparator"] not in _COMPARATORS:
        raise invalid(f"Invalid comparator '{clause['comparator']}' for attribute '{clause['key']}'.")


def _attribute(clause: Document, fields: dict[str, str], parser: Any) -> Document:
    kind, key, comparator, value = (clause[part] for part in ("type", "key", "comparator", "value"))
    if kind != "attribute":
        raise invalid(f"Invalid filter type '{kind}'.")
    _check_comparator(clause)
    if key in parser.NUMERIC_ATTRIBUTES:
        if comparator not in NUMBER:
            raise invalid(f"Invalid comparator '{comparator}' for attribute '{key}'. It is a number.")
        value = storable(value)
    elif (comparator in ("IN", "NOT IN")) != isinstance(value, list | tuple):
        raise invalid(
            f"{comparator} does not go with {value!r:.100}. Compare '{key}' with IN and a list, or =."
        )
    return {fields[key]: condition(comparator, value)}
