"""The registry of a tree: registered models, their versions, aliases and stages."""

import os
from collections.abc import Iterator
from typing import Any

from genesis_flow.importers.records import Body, Item, Problem, Record
from genesis_flow.importers.tree.files import (
    META,
    Damaged,
    folders,
    read_meta,
    read_values,
    shown,
    size_of,
    text,
    told,
    whole,
)

_VERSION = "version-"
_NO_STAGE = "None"
# What MLflow's file store makes of a version that was deleted.
_DELETED = "Deleted_Internal"


def read_registered_model(folder: str) -> Iterator[Item]:
    """A model with its versions; one whose meta.yaml cannot be read is made up from them."""
    problems: list[Problem] = []
    versions, highest = _read_versions(folder, problems)
    name = os.path.basename(folder)
    path = os.path.join(folder, META)
    body: Body = {"name": name, "description": None, "creation_time": None, "last_updated_time": None}
    try:
        body |= _model_fields(read_meta(path), name)
    except Damaged as damage:
        if not versions:
            yield Problem("registered_model", shown(path), f"{damage}; the model is left out", size_of(path))
            yield from problems
            return
        reason = f"{damage}; its description and times are lost"
        problems.append(Problem("registered_model", shown(path), reason, size_of(path)))
        times = [version["creation_time"] for version in versions if version["creation_time"] is not None]
        body["creation_time"] = body["last_updated_time"] = min(times, default=None)
    body["tags"] = read_values(os.path.join(folder, "tags"), "registered_model_tag", problems)
    body["aliases"] = _aliases(folder, {version["version"] for version in versions}, problems)
    body["stages"] = {
        version["version"]: stage for version in versions if (stage := version.pop("stage")) != _NO_STAGE
    }
    body["last_version"] = highest
    yield Record("registered_model", name, body)
    for version in versions:
        yield Record("model_version", f"{name}/{version['version']}", {**version, "name": name})
    yield from problems


def _model_fields(meta: dict[str, Any], name: str) -> Body:
    stated = text(meta, "name")
    if stated is not None and stated != name:
        raise Damaged(f"it is of model {stated!r}, but lies in the folder {name!r}")
    return {
        "description": meta.get("description"),
        "creation_time": whole(meta, "creation_timestamp", "creation_time"),
        "last_updated_time": whole(meta, "last_updated_timestamp", "last_updated_time"),
    }


def _read_versions(folder: str, problems: list[Problem]) -> tuple[list[Body], int]:
    """The versions, and the highest number that the folder shows to have been given out."""
    versions: list[Body] = []
    highest = 0

    def odd(path: str, reason: str) -> None:
        if os.path.basename(path).startswith(_VERSION):
            problems.append(Problem("model_version", shown(path), reason))

    try:
        names = [name for name in folders(folder, odd) if name.startswith(_VERSION)]
    except Damaged as damage:
        problems.append(Problem("model_version", shown(folder), str(damage)))
        return [], 0
    for name in names:
        number = name.removeprefix(_VERSION)
        path = os.path.join(folder, name, META)
        try:
            if not (number.isascii() and number.isdigit()):
                raise Damaged("its folder does not end in a number")
            highest = max(highest, int(number))
            version = _version_body(read_meta(path), int(number))
        except Damaged as damage:
            reason = f"{damage}; the version is left out"
            problems.append(Problem("model_version", shown(path), reason, size_of(path)))
            continue
        if version["stage"] != _DELETED:
            version["tags"] = read_values(os.path.join(folder, name, "tags"), "model_version_tag", problems)
            versions.append(version)
    return sorted(versions, key=lambda version: int(version["version"])), highest


def _version_body(meta: dict[str, Any], number: int) -> Body:
    stated = whole(meta, "version")
    if stated is not None and stated != number:
        raise Damaged(f"it is of version {stated}, but lies in the folder of version {number}")
    return {
        **told("model_version", meta),
        "version": number,
        "creation_time": whole(meta, "creation_timestamp", "creation_time"),
        "last_updated_time": whole(meta, "last_updated_timestamp", "last_updated_time"),
        "description": meta.get("description"),
        "model_id": text(meta, "model_id"),
        "status": text(meta, "status") or "READY",
        "stage": text(meta, "current_stage") or _NO_STAGE,
        "tags": {},
    }


def _aliases(folder: str, versions: set[int], problems: list[Problem]) -> dict[str, int]:
    aliases: dict[str, int] = {}
    parent = os.path.join(folder, "aliases")
    for alias, content in read_values(parent, "alias", problems).items():
        try:
            number = int(content)
        except ValueError:
            reason = f"it holds {content[:60]!r}, not the number of a version"
            problems.append(Problem("alias", shown(os.path.join(parent, alias)), reason, len(content)))
            continue
        if number not in versions:
            reason = f"its version {number} is missing"
            problems.append(Problem("alias", shown(os.path.join(parent, alias)), reason, len(content)))
            continue
        aliases[alias] = number
    return aliases
