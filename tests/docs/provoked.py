"""The troubles of docs/troubleshooting.md, brought about for real: each function returns what is printed."""

import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pymongo
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from genesis_flow import MongoDBStore, embedded
from genesis_flow.cli.main import cli
from genesis_flow.cli.migrate import cli as migrate
from genesis_flow.compat import packages
from genesis_flow.migrate import command
from genesis_flow.migrate.errors import Locked
from genesis_flow.migrate.ledger import State
from genesis_flow.migrate.lock import Lease
from genesis_flow.plugins import entrypoints
from tests.migration.helpers import make_config
from tests.mongod import Mongod, free_port

PASSWORD = "s3cr3t-canary"


class Place:
    """What a provocation may use: servers, a database of its own, a folder, and a changed environment."""

    def __init__(self, mongod: Mongod, guarded: Mongod, name: str, folder: Path, patch: Any) -> None:
        self.mongod, self.guarded, self.name, self.folder = mongod, guarded, name, folder
        self.patch: pytest.MonkeyPatch = patch

    @property
    def uri(self) -> str:
        return self.mongod.database_uri(self.name)

    @property
    def database(self) -> Any:
        return pymongo.MongoClient(self.mongod.uri)[self.name]

    def account(self, user: str, password: str) -> str:
        return f"mongodb://{user}:{password}@127.0.0.1:{self.guarded.port}/{self.name}?authSource=admin"


def refused(use: Callable[[], object]) -> str:
    with pytest.raises(MlflowException) as caught:
        use()
    return f"{caught.value.error_code}: {caught.value.message}"


@contextmanager
def logged(name: str) -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(name).addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger(name).removeHandler(handler)


def opening(uri: str) -> str:
    return refused(lambda: MongoDBStore(uri, "/unused").get_experiment("0"))


def unknown_scheme(_: Place) -> str:
    """What MLflow says of our schemes too, where genesis_flow is not installed."""
    with pytest.raises(MlflowException) as caught:
        MlflowClient("mongo://localhost/mlflow").search_experiments()
    return str(caught.value)


def broken_plugin(place: Place) -> str:
    """A newer MLflow, and an import that fails under it."""
    place.patch.setattr(packages, "installed", lambda: "3.99.0")
    place.patch.setitem(sys.modules, "genesis_flow.sync.tracking", None)
    return refused(lambda: MlflowClient(place.uri).search_experiments())


def no_database(_: Place) -> str:
    return opening("mongodb://localhost:27017")


def unescaped_password(_: Place) -> str:
    return opening(f"mongodb://me:{PASSWORD}@home@localhost/mlflow")


def half_a_credential(place: Place) -> str:
    place.patch.setenv("GENESIS_FLOW_MONGODB_USERNAME", "mlflow")
    return opening(place.uri)


def unreachable(_: Place) -> str:
    return opening(f"mongodb://127.0.0.1:{free_port()}/mlflow?serverSelectionTimeoutMS=200")


def wrong_password(place: Place) -> str:
    return opening(place.account("root", "wrong"))


def only_a_reader(place: Place) -> str:
    with pymongo.MongoClient[dict[str, Any]](place.guarded.uri, username="root", password=PASSWORD) as client:
        roles = [{"role": "read", "db": place.name}]
        client.admin.command("createUser", "reader", pwd=PASSWORD, roles=roles)
    command.up(make_config(place.account("root", PASSWORD)))
    store = MongoDBStore(place.account("reader", PASSWORD), "/unused")
    assert store.search_experiments() == []
    return refused(lambda: store.create_experiment("new"))


def too_slow(place: Place) -> str:
    MongoDBStore(place.uri, "/unused").get_experiment("0")
    fail = {"failCommands": ["find"], "blockConnection": True, "blockTimeMS": 6000, "appName": "slow"}
    admin = place.database.client.admin
    admin.command("configureFailPoint", "failCommand", mode="alwaysOn", data=fail)
    try:
        return refused(
            lambda: MongoDBStore(f"{place.uri}&timeoutMS=3000&appName=slow", "/unused").get_experiment("0")
        )
    finally:
        admin.command("configureFailPoint", "failCommand", mode="off")


def rival_plugin(place: Place) -> str:
    told = place.folder / "another_plugin-1.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: another-plugin\nVersion: 1.0\n")
    (told / "entry_points.txt").write_text("[mlflow.tracking_store]\nmongodb = another_plugin:Store\n")
    place.patch.setattr(sys, "path", [*sys.path, str(place.folder)])
    place.patch.setattr(entrypoints, "_warned_of", set())
    with logged("genesis_flow") as lines:
        entrypoints.tracking_store(place.uri, "/unused")
    return "\n".join(lines)


def older_schema(place: Place) -> str:
    command.up(make_config(place.uri), "+1")
    return opening(place.uri)


def newer_schema(place: Place) -> str:
    command.up(make_config(place.uri))
    place.database.schema_migrations.insert_one({"_id": "20990101000000", "state": State.APPLIED})
    return opening(place.uri)


def unfinished_step(place: Place) -> str:
    config = make_config(place.uri)
    command.up(config)
    last = command.steps(config)[-1].version
    place.database.schema_migrations.update_one({"_id": last}, {"$set": {"state": State.APPLYING}})
    return opening(place.uri)


def foreign_collections(place: Place) -> str:
    place.database.experiments.insert_one({"name": "of another program"})
    return opening(place.uri)


def locked(place: Place) -> str:
    held = Lease(place.database, "", seconds=30, wait=0, on_lost=lambda: None)
    with held, pytest.raises(Locked) as caught:
        command.up(make_config(place.uri, lock_wait=0.0))
    return str(caught.value)


def no_target(place: Place) -> str:
    for name in ("MLFLOW_TRACKING_URI", "GENESIS_FLOW_MONGODB_URI", "GENESIS_FLOW_COSMOS_DB_URI"):
        place.patch.delenv(name, raising=False)
    return CliRunner().invoke(migrate, ["status"]).output


def data_loss(place: Place) -> str:
    command.up(make_config(place.uri))
    result = CliRunner().invoke(migrate, ["down", "base", "--uri", place.uri])
    assert result.exit_code == 7
    return result.output


def no_mongod(place: Place) -> str:
    place.patch.setenv("GENESIS_FLOW_MONGOD", "/opt/mongod")
    return opening(f"genesis://{place.folder}/data")


def library_missing(place: Place) -> str:
    """The loader's own words are those of a machine without OpenSSL 3."""
    mongod = place.folder / "mongod"
    words = "mongod: error while loading shared libraries: libcrypto.so.3: cannot open shared object file"
    mongod.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 127\n")
    mongod.chmod(0o755)
    place.patch.setenv("GENESIS_FLOW_MONGOD", str(mongod))
    return opening(f"genesis://{place.folder}/data")


def no_folder(_: Place) -> str:
    return opening("genesis:///proc/tracking")


def full_disk(place: Place) -> str:
    """Of a disk that is really full: tests/embedded/test_full_disk.py."""
    full = shutil.disk_usage("/")._replace(free=1_000_000)
    place.patch.setattr(shutil, "disk_usage", lambda _: full)
    return opening(f"genesis://{place.folder}/data")


def folder_for_file(place: Place) -> str:
    (place.folder / "data" / "server.json").mkdir(parents=True)
    (place.folder / "data" / "keeper.lock").touch()
    return opening(f"genesis://{place.folder}/data")


def in_use(place: Place) -> str:
    with embedded.acquire(place.folder / "data"):
        outcome = CliRunner().invoke(cli, ["db", "stop", str(place.folder / "data")])
    embedded.stop(place.folder / "data", force=True)
    assert outcome.exit_code == 1
    return outcome.output


def changed_param(place: Place) -> str:
    client = MlflowClient(place.uri)
    run = client.create_run("0").info.run_id
    client.log_param(run, "rate", 0.1)
    return refused(lambda: client.log_param(run, "rate", 0.2))


def strict_input(place: Place) -> str:
    place.patch.setenv("MLFLOW_STRICT_INPUT_VALIDATION", "true")
    store = MongoDBStore(place.uri)
    run = store.create_run("0", "ann", 1, [], "a").info.run_id
    return refused(lambda: store.set_tag(run, RunTag("note", "a\x1b[2J")))


def deleted_run(place: Place) -> str:
    client = MlflowClient(place.uri)
    run = client.create_run("0").info.run_id
    client.delete_run(run)
    return refused(lambda: client.log_metric(run, "loss", 1))


def too_large(place: Place) -> str:
    client = MlflowClient(place.uri)
    run = client.create_run("0").info.run_id
    tags = [RunTag(f"tag {number}", "x" * 8000) for number in range(2200)]

    def log() -> None:
        for start in range(0, len(tags), 100):
            client.log_batch(run, tags=tags[start : start + 100])

    return refused(log)


def bad_configuration(place: Place) -> str:
    file = place.folder / "mlflow.conf"
    file.write_text("[tracking]\nmax_pool_size = many\n")
    place.patch.setenv("GENESIS_FLOW_CONF", str(file))
    return opening(place.uri)
