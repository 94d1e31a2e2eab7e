"""Backups of an embedded database: of one moment, whole or not there, and restored as they were."""

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genesis_flow import MongoDBStore, embedded
from genesis_flow.cli import backup as backups
from genesis_flow.cli import backup_artifacts
from genesis_flow.cli.backup_file import BackupError, documents_in
from genesis_flow.cli.main import cli
from genesis_flow.core.errors import GenesisFlowError
from genesis_flow.core.uri import EMBEDDED_DATABASE
from tests.client.conftest import user_environment
from tests.embedded.helpers import client, uri_of
from tests.signals import heed_interrupts

HISTORY = "minSnapshotHistoryWindowInSeconds"


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["db", *map(str, words)])


def silent(_line: str) -> None:
    pass


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database that a store made, with a run, and with documents of every shape; its server is stopped."""
    directory = tmp_path_factory.mktemp("template") / "my data ü"
    store = MongoDBStore(uri_of(directory))
    run = store.create_run("0", "me", 1, [], "the run")
    store.log_batch(run.info.run_id, [], [], [])
    store.close()
    with embedded.acquire(directory) as server, client(server.uri) as opened:
        shapes = opened[EMBEDDED_DATABASE]["shapes"]
        shapes.insert_many(
            [{"_id": 1, "b": float("nan")}, {"_id": "ü", "a": b"\0", "z": None}, {"_id": {"x": [1, 2.5]}}]
        )
        shapes.create_index([("a", 1), ("b", -1)], name="by_a", unique=True, sparse=True)
    embedded.stop(directory, force=True)
    yield directory
    embedded.stop(directory, force=True)


@pytest.fixture
def filled(template: Path, directory: Path) -> Path:
    """A copy of it for one test."""
    shutil.copytree(template, directory)
    return directory


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "restored ü"
    yield folder
    for used in (folder, folder.with_name(f"{folder.name}.part")):
        embedded.stop(used, force=True)


def described(directory: Path) -> dict[str, Any]:
    """All that a database holds, as far as MongoDB tells."""
    with embedded.acquire(directory) as server, client(server.uri) as opened:
        database = opened[EMBEDDED_DATABASE]
        found = {}
        for each in database.list_collections():
            if each["name"].startswith("system."):
                continue
            info = {key: value for key, value in each["options"].items() if key != "uuid"}
            indexes = (
                []
                if each["type"] == "view"
                else [dict(index) for index in database[each["name"]].list_indexes()]
            )
            raw = b"".join(database[each["name"]].find_raw_batches({}, sort=[("_id", 1)]))
            found[each["name"]] = (each["type"], info, sorted(indexes, key=lambda index: index["name"]), raw)
        return found


def test_a_restored_database_is_the_same(filled: Path, restored: Path, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.backup"
    made = run("backup", filled, file, "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["collections"]["shapes"]["documents"] == 3
    assert "Not in it: artifacts" in made.stderr
    assert json.loads(run("backup", "--verify", file, "--json").stdout) == json.loads(made.stdout)
    restored.mkdir()  # an empty directory will do
    again = run("restore", file, uri_of(restored), "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["collections"] == json.loads(made.stdout)["collections"]
    assert described(restored) == described(filled)
    assert {"params", "shapes", "runs"} <= described(restored).keys()
    store = MongoDBStore(uri_of(restored))
    (found,) = store.search_runs(["0"], "", 1)
    assert found.info.run_name == "the run"
    store.close()
    assert not list(tmp_path.glob("*.part"))


def test_a_backup_is_of_one_moment(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever writes a document to one collection and then its pair to another never leaves a pair alone."""
    monkeypatch.setattr(backups, "_pieces", in_small_pieces)
    with embedded.acquire(filled) as server, client(server.uri) as opened:
        database = opened[EMBEDDED_DATABASE]
        # The later in the alphabet is read later, and written first.
        database.create_collection("a_pairs")
        database.create_collection("z_pairs")
        enough, stop = threading.Event(), threading.Event()

        def write() -> None:
            for number in range(10**9):
                database["z_pairs"].insert_one({"_id": number})
                database["a_pairs"].insert_one({"_id": number})
                if number == 50:
                    enough.set()
                if stop.is_set():
                    return

        writer = threading.Thread(target=write)
        writer.start()
        assert enough.wait(120)
        try:
            contents = backups.back_up(filled, tmp_path / "backup", silent)
        finally:
            stop.set()
            writer.join()
        now = database["z_pairs"].count_documents({})
    counts = [contents.collections[name].documents for name in ("a_pairs", "z_pairs")]
    assert counts[1] - counts[0] in (0, 1)
    assert 50 < counts[0] < now


def in_small_pieces(database: Any, name: str, session: Any) -> Any:
    """So that much is written between the first collection and the last."""
    return database[name].find_raw_batches({}, sort=[("_id", 1)], hint="_id_", session=session, batch_size=2)


def test_the_server_keeps_old_moments_only_meanwhile(filled: Path, tmp_path: Path) -> None:
    def kept(opened: Any) -> int:
        return int(opened.admin.command({"getParameter": 1, HISTORY: 1})[HISTORY])

    seen = []
    with embedded.acquire(filled) as server, client(server.uri) as opened:
        before = kept(opened)
        with backups._history_kept(opened):
            seen.append(kept(opened))
        backups.back_up(filled, tmp_path / "backup", silent)
        assert (seen, kept(opened)) == ([24 * 3600], before)


def test_a_schema_that_changes_meanwhile_begins_it_anew(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described_before, said = backups._described, []
    with embedded.acquire(filled) as server, client(server.uri) as opened:

        def changing(database: Any) -> Any:
            if not said and "late" not in database.list_collection_names():
                opened[EMBEDDED_DATABASE]["late"].insert_one({})
            return described_before(database)

        monkeypatch.setattr(backups, "_described", changing)
        contents = backups.back_up(filled, tmp_path / "backup", said.append)
    assert said == ["The schema has just changed; beginning anew."]
    assert contents.collections["late"].documents == 1
    assert [each.name for each in tmp_path.glob("backup*")] == ["backup"]


@pytest.fixture(scope="module")
def sound(template: Path) -> Path:
    """A backup of the template, whose server is stopped again."""
    made = template.with_name("sound")
    backups.back_up(template, made, silent)
    embedded.stop(template, force=True)
    return made


@pytest.fixture
def file(sound: Path, tmp_path: Path) -> Path:
    """A copy of the backup for one test."""
    return Path(shutil.copy(sound, tmp_path / "sound"))


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_its_end(content: bytes) -> bytes:
    return content[:-6]


def other_bytes(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(64) + content[middle + 64 :]


def no_backup(_content: bytes) -> bytes:
    return b"PK\3\4 something else"


def nothing(_content: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("damage", [cut_off, without_its_end, other_bytes, no_backup, nothing])
def test_a_damaged_file_is_found_and_restores_nothing(
    damage: Any, file: Path, restored: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(damage(file.read_bytes()))
    for done in (run("backup", "--verify", bad), run("restore", bad, restored)):
        assert done.exit_code == 1, done.output
        assert done.stdout == ""
        assert "is damaged or not whole" in done.stderr or "is not a backup" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not restored.exists()
    assert not list(tmp_path.glob("*.part"))


def rewritten(file: Path, to: Path, change: Any) -> None:
    """An archive that is sound for gzip and tar, with what ``change`` makes of its members, if anything."""
    with (
        tarfile.open(file) as archive,
        gzip.open(to, "wb") as raw,
        tarfile.open(fileobj=raw, mode="w") as made,
    ):
        for member in archive.getmembers():
            opened = archive.extractfile(member)
            assert opened is not None
            content = change(member.name, opened.read())
            if content is not None:
                member.size = len(content)
                made.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda name, content: None if name == "manifest.json" else content, "ends before its manifest"),
        (lambda name, content: None if "/shapes/" in name else content, "do not fit what it holds of shapes"),
        (
            lambda name, content: content.replace(b"the run", b"the rum") if "/runs/" in name else content,
            "do not fit what it holds of runs",
        ),
        (
            lambda name, content: (
                content.replace(b'"version": 1', b'"version": 9') if name == "header.json" else content
            ),
            "is a backup of version 9",
        ),
    ],
    ids=["no manifest", "a collection lost", "another document", "of a later version"],
)
def test_a_file_that_was_tampered_with_is_found(
    change: Any, says: str, file: Path, restored: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad"
    rewritten(file, bad, change)
    for done in (run("backup", "--verify", bad), run("restore", bad, restored)):
        assert done.exit_code == 1, done.output
        assert says in done.stderr
    assert not restored.exists()


def test_what_is_there_is_never_overwritten(file: Path, filled: Path, restored: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    assert "exists: choose another name" in run("backup", filled, file).stderr
    assert file.read_bytes() == before
    restored.mkdir()
    (restored / "mine").write_text("")
    assert "is not an empty directory" in run("restore", file, restored).stderr
    assert [each.name for each in restored.iterdir()] == ["mine"]
    nowhere = run("backup", tmp_path / "nowhere", tmp_path / "b")
    assert (nowhere.exit_code, nowhere.stdout) == (1, "")
    assert "There is no embedded database in" in nowhere.stderr
    assert not (tmp_path / "nowhere").exists()


BACKUP_THAT_STOPS = """
import sys, time
from pathlib import Path
from genesis_flow.cli import backup
def pieces(database, name, session):
    yield from database[name].find_raw_batches({}, sort=[("_id", 1)], session=session)
    if name == "runs":
        print("half-way", flush=True)
        time.sleep(600)
backup._pieces = pieces
backup.back_up(Path(sys.argv[1]), Path(sys.argv[2]), print)
"""


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_backup_that_is_killed_leaves_no_file_of_that_name(
    kind: signal.Signals, filled: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", BACKUP_THAT_STOPS, str(filled), str(tmp_path / "backup")]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=user_environment(),
        preexec_fn=heed_interrupts,
    ) as process:
        assert process.stdout is not None
        # It may have to begin anew before: what was made a moment ago is not in every snapshot.
        while (line := process.stdout.readline()) != "half-way\n":
            assert line == "The schema has just changed; beginning anew.\n"
        os.kill(process.pid, kind)
    left = [each.name for each in tmp_path.glob("backup*")]
    assert "backup" not in left
    assert len(left) == (1 if kind is signal.SIGKILL else 0)
    for part in left:
        with pytest.raises(BackupError, match="damaged or not whole"):
            backups.verify(tmp_path / part)
    backups.back_up(filled, tmp_path / "backup", silent)
    assert "runs" in backups.verify(tmp_path / "backup").collections


@pytest.fixture
def with_files(filled: Path) -> Path:
    """Artifacts of every kind: names that need quoting, nothing in a file, more than one piece, a link."""
    root = filled / "artifacts" / "0"
    (root / "a run").mkdir(parents=True)
    (root / "a run" / "ü %2F.txt").write_bytes(b"text")
    (root / os.fsdecode(b"not unicode \xff")).write_bytes(bytes(range(256)))
    (root / "empty").write_bytes(b"")
    (root / "large").write_bytes(b"0123456789" * 4)
    (root / "link").symlink_to("/etc/hostname")
    return filled


def files_in(directory: Path) -> dict[Path, bytes]:
    root = directory / "artifacts"
    return {
        path.relative_to(root): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_artifacts_come_along(
    with_files: Path, restored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_artifacts, "_PIECE", 7)
    monkeypatch.setattr(backups, "_REPORT_SECONDS", 600.0)  # however slow the machine, it is done at once
    file = tmp_path / "with artifacts"
    made = run("backup", "--with-artifacts", with_files, file, "--json")
    assert made.exit_code == 0, made.output
    assert "Not in it" not in made.stderr
    artifacts = json.loads(made.stdout)["artifacts"]
    assert (artifacts["files"], artifacts["bytes"]) == (4, 4 + 256 + 40)
    assert json.loads(run("backup", "--verify", file, "--json").stdout)["artifacts"] == artifacts
    again = run("restore", file, restored)
    assert again.exit_code == 0, again.output
    assert "4 artifacts" in again.stdout
    assert f"Addresses of artifacts still lead to {(with_files / 'artifacts').as_uri()}" in again.stderr
    told = [line for line in again.stderr.splitlines() if not line.startswith("Addresses of artifacts")]
    assert [line.split()[0] for line in told] == ["compared"], "what is done at once needs no line"
    assert files_in(restored) == files_in(with_files)
    assert not (restored / "artifacts" / "0" / "link").exists()
    assert described(restored) == described(with_files)


def test_artifacts_are_left_out_unless_they_are_asked_for(
    with_files: Path, restored: Path, tmp_path: Path
) -> None:
    file = tmp_path / "without"
    made = run("backup", with_files, file, "--json")
    assert json.loads(made.stdout)["artifacts"] is None
    assert "Not in it: artifacts. --with-artifacts takes along" in made.stderr
    assert run("restore", file, restored).exit_code == 0
    assert files_in(restored) == {}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda name, content: b"other" if name.startswith("artifacts/0%2Flarge/") else content,
            "the artifacts",
        ),
        (lambda name, content: None if name.startswith("artifacts/0%2Fempty/") else content, "the artifacts"),
    ],
    ids=["another content", "a file lost"],
)
def test_artifacts_that_were_tampered_with_are_found(
    change: Any, says: str, with_files: Path, restored: Path, tmp_path: Path
) -> None:
    backups.back_up(with_files, tmp_path / "sound", silent, artifacts=True)
    rewritten(tmp_path / "sound", tmp_path / "bad", change)
    for done in (run("backup", "--verify", tmp_path / "bad"), run("restore", tmp_path / "bad", restored)):
        assert done.exit_code == 1, done.output
        assert f"do not fit what it holds of {says}" in done.stderr
    assert not restored.exists()


@pytest.mark.parametrize("name", [b"../outside", b"/etc/outside", b"a/../../b", b"", b"a//b", b"."])
def test_no_file_is_made_outside_of_the_directory(name: bytes, tmp_path: Path) -> None:
    files = backup_artifacts.Restored(tmp_path / "artifacts")
    with pytest.raises(GenesisFlowError, match="would lie outside"):
        files.write(backup_artifacts.Piece(name, 1, b"x"))
    assert list(tmp_path.iterdir()) == []


def test_verify_takes_no_artifacts(file: Path) -> None:
    refused = run("backup", "--verify", "--with-artifacts", file)
    assert refused.exit_code == 2
    assert "leave out --with-artifacts" in refused.stderr


def test_pieces_that_are_no_documents_are_refused() -> None:
    assert list(documents_in(b"\5\0\0\0\0\5\0\0\0\0")) == [b"\5\0\0\0\0"] * 2
    for piece in (b"\5\0\0\0", b"\0\0\0\0\0", b"\xff\0\0\0\0"):
        with pytest.raises(BackupError):
            list(documents_in(piece))
