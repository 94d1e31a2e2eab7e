"""Registered things, said a second time: what follows from their versions, and where their parts are kept.

Both sides have a server with all of its versions, and of each its long part: the source has it so, and the
target keeps that in documents of its own.
"""

import json
from collections.abc import Sequence
from typing import Any

from genesis_flow.documents.plain import Document
from genesis_flow.importers.verify.entities import Fields, canonical, canonical_object, json_value
from genesis_flow.importers.verify.stored import Stored, unescaped

_SHOWN = ("description", "icons")


def server(fields: Fields) -> Fields:
    """What the source's rows of an MCP server come to."""
    versions = fields["versions"]
    for version in versions:
        version["tools"] = json_value(version["tools"]) if version.get("tools") is not None else None
        version["shows"] = {
            part: version["server_json"][part] for part in _SHOWN if part in version["server_json"]
        }
    parts = ("major", "minor", "patch", "prerelease", "creation_time", "version")
    latest = _latest(versions, parts)
    aliases = _alive(fields["aliases"], versions)
    targets = {each["alias"]: each["version"] for each in aliases}
    if latest is not None:
        targets["latest"] = latest["version"]
    live = {version["version"] for version in versions if version["status"] != "deleted"}
    endpoints = []
    for endpoint in fields["endpoints"]:
        leads_to = endpoint.get("server_version") or targets.get(endpoint.get("server_alias"))
        if leads_to in live:
            endpoints.append({**endpoint, "resolved": leads_to})
    reached = {endpoint["resolved"] for endpoint in endpoints}
    for version in versions:
        number = version["version"]
        version["hints"] = [
            *(["latest"] if latest is not None and number == latest["version"] else []),
            *(f"alias {each['alias']}" for each in aliases if each["version"] == number),
            *(["endpoint"] if number in reached else []),
        ]
    return {
        "aliases": aliases,
        "endpoints": endpoints,
        "versions": [_without_nothing(version) for version in versions],
        "latest": latest and {name: latest[name] for name in ("version", "status", "shows")},
    }


def skill(fields: Fields) -> Fields:
    versions = fields["versions"]
    latest = _latest(versions, ("version",))
    of_latest = ("version", "status", "source_type")
    words = " ".join(" ".join((fields[name] or "").split()) for name in ("name", "description"))
    return {
        "aliases": _alive(fields["aliases"], versions),
        "latest": latest and {name: latest[name] for name in of_latest if name in latest},
        "search_text": words.strip(),
    }


def _latest(versions: list[Document], order: tuple[str, ...]) -> Document | None:
    live = [version for version in versions if version["status"] != "deleted"]
    active = [version for version in live if version["status"] == "active"]
    return max(active or live, key=lambda version: [version[part] for part in order], default=None)


def _alive(aliases: list[Document], versions: list[Document]) -> list[Document]:
    """Those that name a version which is not deleted."""
    live = {version["version"] for version in versions if version["status"] != "deleted"}
    return [alias for alias in aliases if alias["version"] in live]


def _without_nothing(document: Document) -> Document:
    return {name: value for name, value in document.items() if value is not None}


def undivided(document: Document, contents: Sequence[Document]) -> Document:
    """A document of the target in the form of the source, with the contents that name it.

    Whatever is not as an import makes it is left, or told beside the rest, so that it differs.
    """
    document = dict(document)
    versions, endpoints = document.get("versions"), document.get("endpoints")
    if not isinstance(versions, list) or not all(isinstance(each, dict) for each in versions):
        return document
    by_id = {canonical(each["_id"]): each for each in contents}
    if isinstance(endpoints, list):
        document["endpoints"] = [_endpoint(each, versions) for each in endpoints]
        document["latest"] = _shown(document.get("latest"))
        versions = [_joined(document, each, by_id) for each in versions]
    document["versions"] = [
        {**each, "tags": unescaped(each["tags"])} if "tags" in each else each for each in versions
    ]
    if by_id:
        document["contents"] = sorted(by_id)
    return document


def _endpoint(endpoint: Any, versions: list[Document]) -> Any:
    """With the name of the version that it repeats, if it does so truly."""
    repeated = endpoint.get("resolved") if isinstance(endpoint, dict) else None
    if isinstance(repeated, dict) and any(
        canonical_object(each) == canonical_object(repeated) for each in versions
    ):
        return {**endpoint, "resolved": repeated.get("version")}
    return endpoint


def _joined(document: Document, version: Document, contents: dict[str, Document]) -> Document:
    """A version with its content, which is taken out of ``contents``."""
    found = contents.get(canonical(version.get("content")))
    wanted = f"{document.get('_id')}|{version.get('version')}|import"
    if found is None or canonical(version.get("content")) != canonical(wanted):
        return version
    del contents[canonical(wanted)]
    beside = Stored(found)
    beside.settle(_id=wanted, workspace=document.get("workspace"), server=document.get("_id"))
    joined = {name: value for name, value in version.items() if name != "content"}
    for name in ("server_json", "tools"):
        joined[name] = _read(beside.take(name))
    if "connect_options" in joined:
        joined["connect_options"] = _read(joined["connect_options"])
    joined["hints"] = beside.take("hints")
    if left := beside.rest():
        joined["content"] = left
    return _without_nothing(_shown(joined))


def _shown(document: Any) -> Any:
    return (
        {**document, "shows": _read(document["shows"])}
        if isinstance(document, dict) and "shows" in document
        else document
    )


def _read(text: Any) -> Any:
    """What JSON text says; other text, and what is none, are told as they are."""
    if not isinstance(text, str):
        return None if text is None else {"no text": text}
    try:
        return json.loads(text)
    except ValueError:
        return {"no JSON": text}
