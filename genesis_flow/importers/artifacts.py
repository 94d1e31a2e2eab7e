"""Artifacts of an import: left where they are, copied into the target's artifact root, or left behind.

Locations in the target follow from its artifact root and from ids alone, so every attempt names the same
ones. Files are copied before the document that names them is written; a file that is there already, byte for
byte, is not copied again. What cannot be copied stays where it is, and is named among the problems.
"""

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import quote, urlsplit

from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import (
    append_to_uri_path,
    is_local_uri,
    resolve_uri_if_local,
)
from pymongo import ReplaceOne

from genesis_flow.core.redact import mask
from genesis_flow.core.settings import Embedded, Settings
from genesis_flow.documents.imports import ImportArtifactFields, journal_key
from genesis_flow.documents.keys import children_of
from genesis_flow.importers.artifact_files import (
    CopyFailed,
    Folder,
    Remote,
    Target,
    reason_of,
    sha256_of,
    walk,
)
from genesis_flow.importers.errors import ImportFailed
from genesis_flow.importers.records import Body, Problem, Record
from genesis_flow.importers.target import ImportTarget
from genesis_flow.importers.tree.files import shown

REFERENCE, COPY, NONE = "reference", "copy", "none"
MODES = (REFERENCE, COPY, NONE)

TRACE_LOCATION = "mlflow.artifactLocation"
MODEL_FILE = "MLmodel"
# The only place in a model's metadata that names where the model lies (since MLflow 3).
_PLACE = re.compile(rb"^(artifact_path:[ ]*)(\S+)[ ]*$", re.MULTILINE)
# What is no place itself but leads to one.
_INDIRECT = ("models", "runs", "mlflow-artifacts")


@dataclass(frozen=True, slots=True)
class ArtifactRules:
    """What the user wants done about artifacts; goes to worker processes."""

    mode: str = REFERENCE
    root: str = ""
    # The folder of a tree that may have been moved since its locations were written down.
    tree: str | None = None


@dataclass(frozen=True, slots=True)
class Moved:
    """A place of the source and what became of it."""

    kind: str
    id: str
    source: str
    target: str
    files: int = 0
    bytes: int = 0
    checksum: str = ""
    # Of the names, sizes and times of local files: as long as it is the same there is nothing to copy.
    signature: str = ""
    # Of the files, for a rollback; empty if there are too many to note.
    names: tuple[str, ...] = ()


def rules_for(mode: str, root: str | None, settings: Settings, source_uri: str) -> ArtifactRules:
    """The rules of one import; a target that has no artifact root of its own needs one named."""
    if mode == REFERENCE:
        return ArtifactRules()
    if (
        root is None
        and settings.sources["artifact_root"] == "default"
        and not isinstance(settings.target, Embedded)
    ):
        raise ImportFailed(
            f"--artifacts {mode} needs to know where the target keeps artifacts: give --artifact-root URI "
            "(a folder, s3://..., wasbs://...) or set GENESIS_FLOW_ARTIFACT_ROOT."
        )
    scheme = urlsplit(source_uri).scheme.lower()
    tree = local_file_uri_to_path(source_uri) if scheme in ("", "file") else None
    return ArtifactRules(mode, str(resolve_uri_if_local(root or settings.artifact_root)), tree)


class MovedPlaces:
    """What was moved so far, noted in the journal; kept here until ``flush``."""

    def __init__(self, target: ImportTarget, journal: str) -> None:
        self._target = target
        self._journal = journal
        self._unsaved: dict[str, Moved] = {}

    def find(self, places: list[str]) -> dict[str, Moved]:
        found = {place: self._unsaved[place] for place in places if place in self._unsaved}
        keys = {journal_key(self._journal, place): place for place in places if place not in found}
        for document in self._target.find_by_ids(ImportArtifactFields, keys) if keys else ():
            place = keys[document.pop("_id")]
            names = tuple(document.pop("names", ()))
            found[place] = Moved(source=place, id=document.pop("of"), names=names, **document)
        return found

    def note(self, moved: Moved) -> None:
        self._unsaved[moved.source] = moved

    def flush(self) -> None:
        """Before the documents are written that name the places in the target."""
        operations = []
        for place, moved in self._unsaved.items():
            fields = {name: getattr(moved, name) for name in _KEPT}
            key = journal_key(self._journal, place)
            operations.append(ReplaceOne({"_id": key}, {**fields, "of": moved.id}, upsert=True))
        self._target.write(ImportArtifactFields, list(operations))
        self._unsaved = {}


_KEPT = ("kind", "target", "files", "bytes", "checksum", "signature", "names")
_NAMES_BYTES = 4_000_000


def remove_copies(
    target: ImportTarget, journal: str, needed: Callable[[str, str, str], bool]
) -> tuple[int, list[Problem]]:
    """Take back the files that an import copied: how many, and what could not be taken back.

    ``needed`` says of the kind and id of what had them, and of their place, whether something that stays
    leads there.
    """
    removed, kept = 0, []
    moved = target.collection(ImportArtifactFields)
    for document in moved.find({"_id": children_of(journal)}, sort=[("_id", 1)]):
        if document["files"] and needed(document["kind"], document["of"], document["target"]):
            reason = "left in place, since something that stays leads there"
            kept.append(Problem("artifact", document["target"], reason))
            continue
        try:
            if document["files"] and not document.get("names"):
                raise CopyFailed(f"{document['files']:,} files are too many to have been noted by name")
            place = Target(document["target"])
            for name in document.get("names", ()):
                removed += place.remove(name)
        except CopyFailed as failure:
            kept.append(Problem("artifact", document["target"], f"left in place: {failure}"))
        target.check()
        moved.delete_one({"_id": document["_id"]})
    return removed, kept


class Artifacts:
    """Moves the artifacts of records and changes the places that the records name."""

    def __init__(self, rules: ArtifactRules, places: MovedPlaces) -> None:
        self.rules = rules
        self.places = places
        # What is left out of the folders that are copied.
        self._odd: list[Problem] = []

    def take(self, record: Record, experiment: int | None) -> tuple[Record, list[Problem]]:
        """The record with its places in the target; ``experiment`` is its experiment's number there."""
        body = dict(record.body)
        problems: list[Problem] = []
        for place in _places(body, record.kind):
            try:
                target = self._move(record, place, experiment)
            except CopyFailed as failure:
                problems.append(Problem("artifact", place.value, f"{failure}; they stay where they are"))
                continue
            place.change(body, target)
        odd, self._odd = self._odd, []
        return replace(record, body=body), problems + odd

    def _move(self, record: Record, place: "_Place", experiment: int | None) -> str:
        if not place.own:
            return self._of_version(record, place)
        target = self._target(record, experiment)
        self.places.note(self._copied(record, place, target))
        return target

    def _target(self, record: Record, experiment: int | None) -> str:
        body, root = record.body, append_to_uri_path(self.rules.root, str(experiment))
        match record.kind:
            case "run":
                return str(append_to_uri_path(root, body["run_id"], "artifacts"))
            case "logged_model":
                return str(append_to_uri_path(root, "models", body["model_id"], "artifacts"))
            case "trace":
                return str(append_to_uri_path(root, "traces", body["trace_id"], "artifacts"))
        return str(root)

    def _copied(self, record: Record, place: "_Place", target: str) -> Moved:
        new = Moved(record.kind, record.id, place.value, target)
        if self.rules.mode != COPY or record.kind == "experiment":
            return new
        folder = self._folder(record, place.value)
        if folder is None:
            return _copy(new, Remote(place.value))
        files, odd = walk(folder)
        self._odd += [Problem("artifact", shown(path), reason) for path, reason in odd]
        signature = _signature(files)
        before = self.places.find([place.value]).get(place.value)
        if before is not None and (before.signature, before.target) == (signature, target):
            return before
        return replace(_copy(new, Folder(files)), signature=signature)

    def _folder(self, record: Record, location: str) -> Path | None:
        """The local folder of a place, or None for one elsewhere."""
        if not is_local_uri(location):
            return None
        stated = Path(local_file_uri_to_path(location))
        if stated.is_absolute() and stated.is_dir():
            return self._without_links(stated)
        for folder in self._in_tree(record):
            if folder.is_dir():
                return self._without_links(folder)
        return stated

    def _without_links(self, folder: Path) -> Path:
        """A folder, unless it is reached by a link of the tree; the tree itself may lie behind one."""
        if self.rules.tree is None:
            return folder
        for root in (Path(self.rules.tree).absolute(), Path(self.rules.tree).resolve()):
            if not folder.is_relative_to(root):
                continue
            step = root
            for name in folder.relative_to(root).parts:
                step /= name
                if step.is_symlink():
                    raise CopyFailed(f"{shown(step)} is a symbolic link, which is not followed")
        return folder

    def _in_tree(self, record: Record) -> Iterator[Path]:
        """Where MLflow's file store keeps the artifacts, wherever the tree is now."""
        if self.rules.tree is None or record.kind not in ("run", "logged_model", "trace"):
            return
        inside = {"run": "", "logged_model": "models", "trace": "traces"}[record.kind]
        for parent in ("", ".trash"):
            yield Path(
                self.rules.tree, parent, str(record.body["experiment_id"]), inside, record.id, "artifacts"
            )

    def _of_version(self, record: Record, place: "_Place") -> str:
        """A version lies inside what a run or a logged model made; else it has a place of its own."""
        above = ancestors(place.value)
        known = self.places.find(above)
        for ancestor in above:
            if (before := known.get(ancestor)) is not None and before.kind != "experiment":
                rest = place.value[len(ancestor) :].strip("/")
                return str(append_to_uri_path(before.target, rest)) if rest else before.target
        name = quote(str(record.body["name"]), safe="")
        target = append_to_uri_path(self.rules.root, "registered_models", name, str(record.body["version"]))
        self.places.note(self._copied(record, place, str(target)))
        return str(target)


@dataclass(frozen=True, slots=True)
class _Place:
    """A field that names a place; ``own`` if the record is what makes the place."""

    value: str
    change: Callable[[Body, str], None]
    own: bool = True


def _places(body: Body, kind: str) -> Iterator[_Place]:
    match kind:
        case "experiment" | "logged_model":
            names: tuple[str, ...] = ("artifact_location",)
        case "run":
            names = ("artifact_uri",)
        case "model_version":
            names = ("source", "storage_location")
        case "trace":
            names = ()
            if is_place(value := body["tags"].get(TRACE_LOCATION)):
                yield _Place(value, _change_tag)
        case _:
            return
    for name in names:
        if is_place(value := body.get(name)):
            yield _Place(value, _changer(name), own=kind != "model_version")


def is_place(value: Any) -> TypeGuard[str]:
    """Whether a text names a folder or a bucket, not a name that leads to one and not nothing."""
    if not isinstance(value, str) or not value:
        return False
    scheme = urlsplit(value).scheme
    return ("/" in value) if not scheme else scheme not in _INDIRECT


def _changer(name: str) -> Callable[[Body, str], None]:
    def change(body: Body, target: str) -> None:
        body[name] = target

    return change


def _change_tag(body: Body, target: str) -> None:
    body["tags"] = {**body["tags"], TRACE_LOCATION: target}


def ancestors(place: str) -> list[str]:
    """The place and what is above it, the nearest first."""
    found = [place, place.rstrip("/")]
    while "/" in found[-1] and not found[-1].endswith("/"):
        found.append(found[-1].rpartition("/")[0])
    return list(dict.fromkeys(found))


def _signature(files: list[tuple[str, Path]]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, path in files:
        stat = path.stat()
        digest.update(f"{name}\n{stat.st_size} {stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _copy(new: Moved, source: "Folder | Remote") -> Moved:
    """Copy each file that is not there yet, and see that it arrived."""
    size = 0
    names: list[str] = []
    checksum = hashlib.sha256()
    try:
        target = Target(new.target)
        with tempfile.TemporaryDirectory(prefix="genesis-flow-import-") as scratch:
            for name, path in source.files(Path(scratch, "in")):
                path = _with_new_place(name, path, new, Path(scratch, "changed"))
                hashed = sha256_of(path)
                if not target.has(name, path.stat().st_size, hashed):
                    target.put(name, path)
                    if not target.has(name, path.stat().st_size, hashed):
                        raise CopyFailed(f"{name} arrived at {mask(new.target)} with another content")
                names.append(name)
                size += path.stat().st_size
                checksum.update(f"{name}\n{hashed}\n".encode("utf-8", "surrogateescape"))
    except CopyFailed:
        raise
    except Exception as exc:
        # Whatever the library of a storage service raises.
        raise CopyFailed(f"the artifacts cannot be copied: {reason_of(exc)}") from exc
    noted = tuple(names) if sum(len(name.encode()) + 8 for name in names) < _NAMES_BYTES else ()
    return replace(new, files=len(names), bytes=size, checksum=checksum.hexdigest(), names=noted)


def _with_new_place(name: str, path: Path, moved: Moved, scratch: Path) -> Path:
    """A model's metadata names the place of the model: the copy names its own."""
    if name.rpartition("/")[2] != MODEL_FILE:
        return path

    def changed(found: re.Match[bytes]) -> bytes:
        place = found[2].decode("utf-8", "surrogateescape")
        if place != moved.source and not place.startswith(moved.source.rstrip("/") + "/"):
            return found[0]
        rest = place[len(moved.source) :].strip("/")
        target = str(append_to_uri_path(moved.target, rest)) if rest else moved.target
        return found[1] + target.encode("utf-8", "surrogateescape")

    content = path.read_bytes()
    replaced = _PLACE.sub(changed, content)
    if replaced == content:
        return path
    file = scratch / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(replaced)
    return file
