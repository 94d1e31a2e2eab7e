"""``genesis-migrate repack``: from the first format to settled blocks, killed, and beside readers."""

import itertools
import json
import os
import random
import signal
from contextlib import closing
from typing import Any

import pytest
from click.testing import CliRunner
from mlflow.entities import Metric
from pymongo import monitoring

from genesis_flow import MongoDBStore
from genesis_flow.areas.metrics import heads
from genesis_flow.areas.metrics.documents import SETTLED_POINTS
from genesis_flow.areas.metrics.points import columns_of, little_endian
from genesis_flow.cli.migrate import cli
from genesis_flow.cli.repack import Repacked, repack
from genesis_flow.core.settings import Settings
from genesis_flow.documents.keys import is_open
from genesis_flow.migrate import command, errors
from tests.migration.helpers import PROCESSES, database, make_config

Documents = list[dict[str, Any]]
STEP = "20261130011000"
POINTS = 2 * SETTLED_POINTS + 300


def first_format(block: dict[str, Any]) -> dict[str, Any]:
    kept = {name: block[name] for name in ("_id", "n", "first_timestamp", "last_timestamp")}
    columns = zip(("timestamps", "steps", "values"), columns_of(block), strict=True)
    return kept | {name: little_endian(column) for name, column in columns}


def make_old(uri: str) -> None:
    """All blocks as the first format has them."""
    with database(uri) as db:
        for block in list(db.metrics.find()):
            assert is_open(block["_id"])
            db.metrics.replace_one({"_id": block["_id"]}, first_format(block))


@pytest.fixture
def old(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run with a history in order, one with late points and one of few, in blocks of the first format."""
    monkeypatch.setattr(heads, "SETTLE_EVERY", 10**6)
    rng = random.Random(5)
    with closing(MongoDBStore(store_uri, "/tmp/artifacts")) as store:
        run = store.create_run("0", "me", 1, [], "run").info.run_id
        for key, late in (("loss", 0), ("late", 40)):
            points = [
                Metric(key, rng.choice([0.5, float("nan"), -0.0]), 1000 + step, step)
                for step in range(POINTS)
            ]
            points += [Metric(key, 7.0, 5000 + step, step * 3) for step in range(late)]
            for start in range(0, len(points), 400):
                store.log_batch(run, points[start : start + 400], [], [])
        store.log_batch(run, [Metric("few", 1.0, step, step) for step in range(70)], [], [])
    make_old(store_uri)
    return store_uri


def histories(uri: str) -> dict[str, list[str]]:
    with closing(MongoDBStore(uri, "/tmp/artifacts")) as store:
        (run,) = store.search_runs(["0"], "", 1)
        found = {}
        for key in ("loss", "late", "few"):
            pages: list[Metric] = []
            token = None
            while True:
                page = store.get_metric_history(run.info.run_id, key, 700, token)
                pages += page
                if (token := page.token) is None:
                    break
            assert list(map(shown, pages)) == list(map(shown, store.get_metric_history(run.info.run_id, key)))
            thinned = store.get_metric_history_bulk_interval([run.info.run_id], key, 50, None, None)
            middle = store.get_metric_history_bulk_interval([run.info.run_id], key, 20, 300, 1500)
            found[key] = list(map(shown, [*pages, *thinned, *middle]))
        return found


def shown(metric: Metric) -> str:
    return f"{metric.timestamp} {metric.step} {metric.value!r}"


def blocks(uri: str) -> Documents:
    with database(uri) as db:
        return list(db.metrics.find(sort=[("_id", 1)]))


def repacked(uri: str) -> Repacked:
    return repack(Settings.resolve(uri), dry_run=False, blocks_a_second=None, report=lambda done: None)


def test_old_blocks_settle_and_stay_the_same_points(old: str) -> None:
    before, points = blocks(old), histories(old)
    done = repacked(old)
    after = blocks(old)
    assert histories(old) == points
    assert [block["n"] for block in after if not is_open(block["_id"])] == [SETTLED_POINTS] * 4
    assert all(block["format"] == 2 for block in after)
    assert (done.blocks_before, done.histories, done.rewritten) == (len(before), 3, 3)
    assert done.bytes_after < done.bytes_before / 3
    # What stays open is packed again, and is in both numbers.
    assert done.blocks_after == len(after)
    again = repacked(old)
    assert (again.rewritten, again.blocks_before) == (0, 0)
    assert blocks(old) == after


def test_what_has_settled_and_is_there_once_more_is_removed(old: str) -> None:
    """As when an import brings once more what was repacked."""
    points, before = histories(old), blocks(old)
    repacked(old)
    after = blocks(old)
    with database(old) as db:
        for block in before:
            db.metrics.replace_one({"_id": block["_id"]}, block, upsert=True)
    assert histories(old) == points
    dry = CliRunner().invoke(cli, ["--uri", old, "repack", "--dry-run", "--json"])
    assert json.loads(dry.stdout)["blocks_before"] == repacked(old).blocks_before
    assert histories(old) == points
    assert [block["_id"] for block in blocks(old)] == [block["_id"] for block in after]


def test_a_dry_run_says_what_a_run_does_and_writes_nothing(old: str) -> None:
    before = blocks(old)
    runner = CliRunner()
    dry = runner.invoke(cli, ["--uri", old, "repack", "--dry-run", "--json"])
    assert dry.exit_code == 0, dry.output
    assert blocks(old) == before
    real = runner.invoke(cli, ["--uri", old, "repack", "--json", "--blocks-per-second", "100000"])
    said, done = json.loads(dry.stdout), json.loads(real.stdout)
    assert (said.pop("dry_run"), done.pop("dry_run")) == (True, False)
    assert said == done
    assert done["bytes_after"] < done["bytes_before"]
    assert runner.invoke(cli, ["--uri", old, "repack"]).stdout == "Nothing to do.\n"


def test_an_older_schema_is_refused(store_uri: str) -> None:
    config = make_config(store_uri)
    command.up(config)
    command.down(config, "-1", accept_data_loss=True)
    result = CliRunner().invoke(cli, ["--uri", store_uri, "repack"])
    assert result.exit_code == errors.ERROR
    assert "genesis-migrate up" in result.stderr


def test_the_portable_profile_is_refused(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command.up(make_config(store_uri))
    monkeypatch.setenv("GENESIS_FLOW_PROFILE", "portable")
    result = CliRunner().invoke(cli, ["--uri", store_uri, "repack"])
    assert result.exit_code == errors.ERROR
    assert "portable profile" in result.stderr


class _KillAt(monitoring.CommandListener):
    def __init__(self, number: int) -> None:
        self.left = number

    def _count(self, name: str) -> None:
        if name in ("insert", "update", "delete"):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        """Before it is sent."""

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._count(event.command_name)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._count(event.command_name)


def killed_repack(uri: str, number: int) -> None:
    monitoring.register(_KillAt(number))
    repacked(uri)


@pytest.mark.timeout(300)
def test_killed_after_every_write_and_run_again(old: str) -> None:
    """What a write had done when it was answered, its successor finds: after each is at each."""
    points, before = histories(old), blocks(old)
    killed = 0
    for number in itertools.count(1):
        with database(old) as db:
            db.metrics.delete_many({})
            db.metrics.insert_many(before)
        child = PROCESSES.Process(target=killed_repack, args=(old, number))
        child.start()
        child.join(120)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        killed += 1
        assert histories(old) == points, f"killed after write {number}"
        repacked(old)
        assert histories(old) == points, f"run again after write {number}"
        settled = [block for block in blocks(old) if not is_open(block["_id"])]
        assert len(settled) == 4
        assert repacked(old).rewritten == 0
    assert killed >= 7


def test_readers_beside_a_repack_miss_nothing(old: str) -> None:
    points = histories(old)
    child = PROCESSES.Process(target=repacked, args=(old,))
    child.start()
    reads = 0
    while child.is_alive() or not reads:
        assert histories(old) == points
        reads += 1
    child.join()
    assert child.exitcode == 0
    assert histories(old) == points


def test_down_writes_the_first_format_and_up_goes_on(old: str) -> None:
    points, before = histories(old), blocks(old)
    repacked(old)
    config = make_config(old)
    command.down(config, "20261130010000" if has_step(config, "20261130010000") else "20261130008000")
    after = blocks(old)
    assert all("format" not in block for block in after)
    assert {block["_id"] for block in after} >= {b["_id"] for b in before if b["n"] == 70}
    command.up(config)
    assert histories(old) == points
    repacked(old)
    assert histories(old) == points


def has_step(config: Any, version: str) -> bool:
    return any(step.version == version for step in command.status(config).steps)


def test_histories_of_all_workspaces_stay(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is looked for to take back blocks of a run that is gone is in any workspace."""
    with closing(MongoDBStore(old, "/tmp/artifacts")) as store:
        (run,) = store.search_runs(["0"], "", 1)
        before = list(map(shown, store.get_metric_history(run.info.run_id, "loss")))
    with database(old) as db:
        for name in ("runs", "latest_metrics"):
            db[name].update_many({}, {"$set": {"workspace": "team"}})
    monkeypatch.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
    repack(Settings.resolve(old), dry_run=False, blocks_a_second=None, report=lambda done: None)
    with database(old) as db:
        assert any(not is_open(block["_id"]) for block in db.metrics.find())
        for name in ("runs", "latest_metrics"):
            db[name].update_many({}, {"$set": {"workspace": "default"}})
    monkeypatch.delenv("MLFLOW_ENABLE_WORKSPACES")
    with closing(MongoDBStore(old, "/tmp/artifacts")) as store:
        assert list(map(shown, store.get_metric_history(run.info.run_id, "loss"))) == before
