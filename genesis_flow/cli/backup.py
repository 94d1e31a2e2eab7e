"""Back up an embedded database while it is used, and restore it elsewhere.

All collections are read as they were at one moment: the first read of a snapshot session fixes it, and the
server keeps that moment for as long as it is told to. Collections and their indexes cannot be listed in the
session: they are listed after the moment was fixed, so that nothing is missed that was there then.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.write_concern import WriteConcern

from genesis_flow import embedded
from genesis_flow.cli.backup_artifacts import FOLDER, Restored, pieces_in
from genesis_flow.cli.backup_file import (
    BackupError,
    Content,
    Contents,
    Tally,
    Writer,
    documents_in,
    reading,
    writing,
)
from genesis_flow.core.uri import EMBEDDED_DATABASE
from genesis_flow.documents.plain import Document

Report = Callable[[str], None]

# How long the server may be asked for the moment that the backup began; its own default are five minutes.
_KEPT_SECONDS = 24 * 3600
_KEEPS = "minSnapshotHistoryWindowInSeconds"
# A collection or an index was made at that moment.
_SNAPSHOT_UNAVAILABLE = 246
_ATTEMPTS = 10
_PAUSE_SECONDS = 1.0
_REPORT_SECONDS = 2.0


def back_up(directory: Path, file: Path, report: Report, *, artifacts: bool = False) -> Contents:
    """Write all that the embedded database of ``directory`` holds to ``file``, as it is at one moment.

    Its artifacts follow, if they are asked for: all that the database speaks of was there before.
    """
    if not (directory / "db").is_dir():
        raise BackupError(f"There is no embedded database in {directory}: name the directory of one.")
    with embedded.acquire(directory) as server, _connected(server.uri) as client, _history_kept(client):
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with client.start_session(snapshot=True) as session, writing(file) as writer:
                    header = {"artifacts": (directory / FOLDER).as_uri()} if artifacts else {}
                    _write(client[EMBEDDED_DATABASE], session, writer, header, report)
                    if artifacts:
                        _write_artifacts(directory / FOLDER, writer, report)
                    return writer.manifest()
            except OperationFailure as error:
                if error.code != _SNAPSHOT_UNAVAILABLE or attempt == _ATTEMPTS:
                    raise
                report("The schema has just changed; beginning anew.")
                time.sleep(_PAUSE_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def _write_artifacts(root: Path, writer: Writer, report: Report) -> None:
    pause = _Pause()
    for files in writer.artifacts(pieces_in(root)):
        if pause.is_over():
            report(f"artifacts: {files.files:,} files, {files.bytes / 1e6:,.0f} MB")


def _write(
    database: Database[Document], session: ClientSession, writer: Writer, header: Document, report: Report
) -> None:
    # Any read fixes the moment, of a collection that is there or not.
    database["schema_migrations"].find_one({}, {"_id": 1}, session=session)
    collections = sorted(_described(database), key=lambda each: each["name"])
    writer.header(
        {
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "genesis_flow": version("genesis-flow"),
            "mongod": database.client.server_info()["version"],
            "database": database.name,
            "collections": collections,
            **header,
        }
    )
    for described in collections:
        if described["type"] == "collection":
            name = described["name"]
            pieces = _pieces(database, name, session)
            progress = _Progress(name, database[name].estimated_document_count(), report)
            for content in writer.collection(name, pieces):
                progress.at(content)


def _described(database: Database[Document]) -> Iterator[Document]:
    """What there is besides documents."""
    for collection in database.list_collections():
        name = collection["name"]
        if name.startswith("system."):
            continue
        described = {"name": name, "type": collection["type"], "options": collection["options"]}
        if collection["type"] == "collection":
            described["indexes"] = [
                index for index in database[name].list_indexes() if index["name"] != "_id_"
            ]
        yield described


def _pieces(database: Database[Document], name: str, session: ClientSession | None) -> Iterator[bytes]:
    # In the order of _id, so that equal collections have equal sums.
    yield from database[name].find_raw_batches({}, sort=[("_id", 1)], hint="_id_", session=session)


@contextlib.contextmanager
def _history_kept(client: "pymongo.MongoClient[Document]") -> Iterator[None]:
    """Have the server keep old moments for longer; it forgets this when it stops."""
    before = client.admin.command({"getParameter": 1, _KEEPS: 1})[_KEEPS]
    client.admin.command({"setParameter": 1, _KEEPS: max(before, _KEPT_SECONDS)})
    try:
        yield
    finally:
        # A value that another backup has set, one that runs or was killed, is not the server's own.
        with contextlib.suppress(PyMongoError):
            client.admin.command({"setParameter": 1, _KEEPS: before})


def verify(file: Path) -> Contents:
    """Read the whole file; fails unless all is as it was written."""
    with reading(file) as reader:
        for _ in reader.pieces():
            pass
        return reader.contents()


def restore(file: Path, directory: Path, report: Report) -> Contents:
    """Make an embedded database of the backup in ``directory``, which has to be empty or not there.

    Artifacts of the backup become files in it; their addresses in the database stay as they were.

    It is made beside it, compared, and gets the name when it is whole.
    """
    directory = Path(os.path.abspath(directory))  # noqa: PTH100 - a link keeps the name that the user chose
    _require_empty(directory)
    part = directory.with_name(f"{directory.name}.part")
    if part.exists():
        raise BackupError(f"{part} is what an interrupted restore left: remove it and begin anew.")
    with reading(file) as reader:
        try:
            part.mkdir(mode=0o700, parents=True)
            with embedded.acquire(part) as server, _connected(server.uri) as client:
                database = client[reader.header["database"]]
                files = Restored(part / FOLDER)
                _fill(database, reader.header["collections"], reader.pieces(files.write), report)
                _compare(database, reader.contents().collections, report)
            if reader.contents().artifacts not in (None, files.read_back()):
                raise _other("the artifacts")
            embedded.stop(part)
            part.rename(directory)
        except BaseException:
            embedded.stop(part, force=True)
            shutil.rmtree(part, ignore_errors=True)
            raise
        before = reader.header.get("artifacts")
        if before and before != (directory / FOLDER).as_uri():
            report(
                f"Addresses of artifacts still lead to {before}: give {directory} its old name, or have a "
                "link of that name lead to it."
            )
        return reader.contents()


def _require_empty(directory: Path) -> None:
    if directory.is_mount():
        raise BackupError(f"{directory} is a mounted disk: name a directory on it.")
    if os.path.lexists(directory) and not (directory.is_dir() and not any(directory.iterdir())):
        raise BackupError(f"{directory} is not an empty directory: a backup is restored to one of its own.")


def _fill(
    database: Database[Document],
    collections: list[Document],
    pieces: Iterator[tuple[str, bytes]],
    report: Report,
) -> None:
    for described in collections:
        options = {key: value for key, value in described["options"].items() if key != "uuid"}
        if described["type"] == "collection":
            database.command({"create": described["name"], **options})
    quick = WriteConcern(
        w=1, j=False
    )  # the server's clean stop, before the directory gets its name, is durable
    progress: dict[str, _Progress] = {}
    tallies: dict[str, Tally] = {}
    for name, piece in pieces:
        documents = [RawBSONDocument(document) for document in documents_in(piece)]
        database.get_collection(name, write_concern=quick).insert_many(documents, ordered=False)
        tallies.setdefault(name, Tally()).add(piece)
        progress.setdefault(name, _Progress(name, None, report)).at(tallies[name].content)
    pause = _Pause()
    for described in collections:
        if described["type"] == "view":
            database.command({"create": described["name"], **described["options"]})
        elif described.get("indexes"):
            if pause.is_over():
                report(f"{described['name']}: indexes")
            indexes = [dict(index) for index in described["indexes"]]
            database.command({"createIndexes": described["name"], "indexes": indexes})


def _compare(database: Database[Document], wanted: dict[str, Content], report: Report) -> None:
    """Read back what was restored: no document may be missing, or be another."""
    for name, content in wanted.items():
        tally = Tally()
        for piece in _pieces(database, name, None):
            tally.add(piece)
        if tally.content != content:
            raise _other(name)
    report(f"compared {len(wanted)} collections with the backup")


def _other(name: str) -> BackupError:
    return BackupError(
        f"What was restored of {name} is not what the backup holds, and was removed again: "
        "try it on another disk."
    )


class _Pause:
    """Between two lines about what is going on."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def is_over(self) -> bool:
        now = time.monotonic()
        if now - self._said < _REPORT_SECONDS:
            return False
        self._said = now
        return True


class _Progress:
    """How far a collection is, now and then."""

    def __init__(self, name: str, expected: int | None, report: Report) -> None:
        self._name, self._expected, self._report = name, expected, report
        self._pause = _Pause()

    def at(self, content: Content) -> None:
        if self._pause.is_over():
            of = f" of about {self._expected:,}" if self._expected else ""
            self._report(f"{self._name}: {content.documents:,}{of} documents, {content.bytes / 1e6:,.0f} MB")


@contextlib.contextmanager
def _connected(uri: str) -> "Iterator[pymongo.MongoClient[Document]]":
    client: pymongo.MongoClient[Document] = pymongo.MongoClient(uri, appname="genesis-flow backup")
    try:
        with client:
            yield client
    except PyMongoError as error:
        raise BackupError(
            f"The embedded MongoDB did not do what it was asked to: {error}. Try again."
        ) from error
