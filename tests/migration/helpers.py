"""Steps and processes for the migration tests."""

import contextlib
import dataclasses
import multiprocessing
import os
import shutil
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymongo
from pymongo import monitoring
from pymongo.database import Database

from genesis_flow.migrate import command
from genesis_flow.migrate.config import MigrateConfig, load_config
from genesis_flow.migrate.errors import MigrationError
from genesis_flow.migrate.files import folder

# Children are forked from a server process that has no threads and no clients yet.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["genesis_flow.migrate.command"])

STEP = '''"""A step for a test."""

from genesis_flow.migrate.base import BaseMigration


class Migration(BaseMigration):
{body}
'''


def make_config(uri: str, location: Path | None = None, **changes: Any) -> MigrateConfig:
    # A busy machine must not make a living run lose its lock.
    changes = {"lock_lease": 30.0, "lock_wait": 60.0, **changes}
    config = load_config(uri, environ={})
    return dataclasses.replace(config, script_location=location or config.script_location, **changes)


def real_steps(target: Path) -> Path:
    """A copy of the project's own steps, to add to or to spoil."""
    target.mkdir(parents=True, exist_ok=True)
    for file in folder().glob("[0-9]*.py"):
        shutil.copy(file, target)
    return target


SAMPLES = Path(__file__).parent / "steps"

# Stands in place of the first three samples, as the first step of the project does for those before it.
REPLACING = """
    loses = "experiments, numbers and words"
    replaces = ("20260101000000", "20260101000100", "20260101000200")

    def upgrade(self):
        from pymongo import IndexModel
        self.create_collections({
            "experiments": [IndexModel([("name", 1)], name="name_unique", unique=True)],
            "numbers": [],
            "words": [
                IndexModel([("word", 1)], name="by_word"),
                IndexModel([("tags.$**", 1)], name="tags"),
                IndexModel([("length", 1)], name="by_length"),
            ],
        })
        pipeline = [{"$project": {"value": 1}}]
        self.create_collection("values", viewOn=self.prefix + "numbers", pipeline=pipeline)

    def downgrade(self):
        for name in ("values", "words", "numbers", "experiments"):
            self.collection(name).drop()
"""


def sample_steps(target: Path) -> Path:
    """A copy of the steps that the machinery of migrations is tried on."""
    target.mkdir(parents=True, exist_ok=True)
    for file in SAMPLES.glob("[0-9]*.py"):
        shutil.copy(file, target)
    return target


def replacing_steps(target: Path) -> Path:
    """The samples with one step in place of the first three."""
    sample_steps(target)
    for version in ("20260101000000", "20260101000100", "20260101000200"):
        next(target.glob(f"{version}_*.py")).unlink()
    add_step(target, "20260101000250", "all_in_one", REPLACING)
    return target


def add_step(location: Path, version: str, name: str, body: str) -> Path:
    location.mkdir(parents=True, exist_ok=True)
    path = location / f"{version}_{name}.py"
    path.write_text(STEP.format(body=textwrap.indent(textwrap.dedent(body).strip(), "    ")))
    return path


def simple_step(location: Path, version: str, name: str, **attributes: Any) -> Path:
    """A reversible step that makes one collection, named as the step."""
    lines = "\n".join(f"{key} = {value!r}" for key, value in {"loses": "", **attributes}.items())
    body = (
        f"{lines}\n\ndef upgrade(self):\n    self.create_collection({name!r})\n\n"
        f"def downgrade(self):\n    self.collection({name!r}).drop()\n"
    )
    return add_step(location, version, name, body)


@contextlib.contextmanager
def database(uri: str) -> Iterator[Database[dict[str, Any]]]:
    with pymongo.MongoClient(uri) as client:
        yield client.get_default_database()


class _KillAt(monitoring.CommandListener):
    """Kills this process, as a power cut would, at the n-th command: before it is sent or once answered."""

    def __init__(self, number: int, moment: str) -> None:
        self.left = number
        self.moment = moment

    def _count(self, moment: str) -> None:
        if moment == self.moment:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self._count("started")

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._count("succeeded")

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._count("succeeded")


def killed_child(config: MigrateConfig, direction: str, number: int, moment: str) -> None:
    """The body of a child process that dies in the middle of ``up`` or ``down base``."""
    monitoring.register(_KillAt(number, moment))
    if direction == "up":
        command.up(config)
    else:
        command.down(config, "base", accept_data_loss=True)


def up_child(config: MigrateConfig, barrier: Any = None) -> None:
    """The body of a child process that runs ``up`` and exits with its exit code."""
    if barrier is not None:
        barrier.wait(timeout=120)
    try:
        command.up(config)
    except MigrationError as exc:
        os._exit(exc.exit_code)
